# shellcheck shell=bash
# Stages of a run of tests: what they print, keep and count. To be sourced after lib.sh.

LOGS=$TARGET/test-logs
STAGE=
passed=0 failed=0 skipped=0

# stage NAME TITLE FUNCTION runs the steps of a function under a header, whatever becomes of them.
stage() {
    local start=$SECONDS before=("$passed" "$failed" "$skipped")
    STAGE=$1
    say "== $1: $2"
    "$3"
    say "   $((passed - before[0])) passed, $((failed - before[1])) failed, $((skipped - before[2])) skipped" \
        "($((SECONDS - start)) s)"
}

# step NAME SECONDS COMMAND... runs a command that may take so long. Its tests count, or itself where it tells of none.
# What it says is kept in a log, and shown if it fails.
step() {
    local name=$1 limit=$2 log=$LOGS/$1.log status=0 ok bad left
    shift 2
    mkdir -p "$LOGS"
    # In the background, as a trap does not run before a command in front has ended.
    timeout -k 10 "$limit" "$@" >"$log" 2>&1 </dev/null &
    wait $! || status=$?
    read -r ok bad left < <(count "$log" "$status")
    passed=$((passed + ok)) failed=$((failed + bad)) skipped=$((skipped + left))
    notes "$log" | sed 's/^/   /'
    [[ $bad -gt 0 ]] || return 0
    say "   FAILED: $name: $* (exit status $status$([[ $status -eq 124 ]] && say ", no end after $limit s"))"
    failure "$log" | sed 's/^/   | /'
    return 1
}

# step_skipped REASON counts a step that cannot run here.
step_skipped() {
    skipped=$((skipped + 1))
    say "   SKIPPED: $STAGE: $1"
}

# count LOG STATUS prints how many passed, failed and were skipped.
count() {
    awk -v status="$2" '
        /^test result: / { ok += $4; bad += $6; left += $8; told = 1; is_cargo = 1 }
        /^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$/ { ok += $1; bad += $3; left += $5; told = 1 }
        /SKIPPED: / { notes++ }
        END {
            # A test that leaves early has passed for its harness.
            if (is_cargo) { ok -= notes; left += notes }
            if (status == '"$SKIP"') left++
            else if (status && !bad) bad = 1
            else if (!told) ok = 1
            print ok + 0, bad + 0, left + 0
        }' "$1"
}

# What a log says of tests that did not run.
notes() {
    sed -nE 's/^.*(SKIPPED: .*)$/\1/p; s/^test (.*) \.\.\. ignored(, (.*))?$/SKIPPED: \1: \3/p' "$1" | sort -u
}

# A log without what tests said that passed.
failure() {
    if grep -q '^failures:$' "$1"; then
        sed -E '/^successes:$/,/^failures:$/d; /^test .* \.\.\. (ok|ignored.*)$/d' "$1"
    else
        cat "$1"
    fi
}

# needs COMMAND:PACKAGE... installs what a stage needs, or says loudly what its tests will lack.
needs() {
    local message
    if ! message=$(need_tools "$@" 2>&1); then
        step_skipped "$message"
    elif [[ -n $message ]]; then
        say "   $message"
    fi
}

# can_run BACKEND: whether overlays can be mounted that way; says why not.
can_run() {
    local reason
    reason=$(can_mount "$1" 2>&1) || { step_skipped "$reason" && return 1; }
}

# cargo_test NAME SECONDS ARGUMENT... runs tests. What those say that pass is shown too, for their SKIPPED lines.
cargo_test() {
    step "$1" "$2" cargo test --locked --all-features "${@:3}" --show-output
}

# Prints the last line, and is the exit status.
summary() {
    say "$passed passed, $failed failed, $skipped skipped"
    [[ $failed -eq 0 ]]
}
