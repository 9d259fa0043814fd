# shellcheck shell=bash
# What people do with containers: scripts/engines runs it for each user and mount program. Prints each step: its title, what
# it printed, how it ended. What podman and the programs say of themselves goes to standard error.
# usage: bash containers.sh IMAGE DIR
set -uo pipefail

readonly IMAGE=$1
cd "$2" || exit
mkdir context volume

# step TITLE COMMAND...
step() {
    local title=$1 status=0
    shift
    printf '== %s\n' "$title"
    printf '== %s\n' "$title" >&2
    "$@" || status=$?
    printf -- '-- %s\n' "$status"
}

# left TITLE REASON: a step that this machine does not let be done.
left() { printf 'SKIPPED: %s: %s\n' "$1" "$2"; }

is_root() { [[ $EUID -eq 0 ]]; }

# inside SCRIPT runs it in a new container, and removes that.
inside() { podman run --rm base sh -euc "$1"; }

# ---- An image, built and built again ----

write_app() {
    cat >context/Dockerfile <<'DOCKERFILE'
FROM localhost/base
RUN mkdir -p /srv/before && echo made >/srv/before/file
COPY . /app
RUN make /app
CMD python3 /app/app.py
DOCKERFILE
    # shellcheck disable=SC2016
    printf 'greeting.py: greeting\n\tprintf "text = \\"%%s\\"\\n" "$$(cat greeting)" >$@\n' >context/Makefile
    printf 'import greeting\nprint(greeting.text)\n' >context/app.py
    printf '%s\n' "$1" >context/greeting
}

# build prints the steps, and what came from the cache.
build() {
    buildah bud --layers --isolation chroot -t app context >build.log || return
    cat build.log >&2
    sed -nE '/^STEP/p; s/^--> Using cache.*/  from the cache/p' build.log
}

build_and_run() {
    write_app "$1" && build && podman run --rm app
}

step "an image is loaded" podman load -q -i "$IMAGE"
step "a Dockerfile is built and run" build_and_run "hello one"
step "built again, everything comes from the cache" build_and_run "hello one"
step "with the app changed, what is before it comes from the cache" build_and_run "hello two"

# ---- What programs do in containers ----

step "packages are installed" inside '
    grep -o "^[^ ]* / " /proc/mounts | grep -c overlayfs\\\|plyfs
    dpkg -i /repo/coreutils_*.deb >/dev/null 2>/tmp/errors || { cat /tmp/errors >&2; exit 1; }
    apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install rsync tree >/tmp/log 2>&1 || { cat /tmp/log >&2; exit 1; }
    dpkg --verify coreutils rsync tree | grep -v /usr/share/ || true
    rsync -a --checksum /usr/lib/python3 /tmp/copy && diff -r /usr/lib/python3 /tmp/copy/python3 && tree -L 1 /repo | tail -n 1
    apt-get -qq purge rsync >/dev/null 2>&1 && ! test -e /usr/bin/rsync'

step "git makes, clones, packs and checks a repository" inside '
    export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a GIT_AUTHOR_DATE="1700000000 +0000" GIT_COMMITTER_DATE="1700000000 +0000"
    cd /usr/share && git init -q -b main && git add perl5 python3 && git commit -q -m one && git rm -q -r python3 && git commit -q -m two
    git checkout -q HEAD~ && git status --short --untracked-files=no && git gc -q && git fsck --strict && git clone -q . /tmp/clone && git -C /tmp/clone rev-parse HEAD'

step "python compiles and imports its library" inside '
    find /usr/lib/python3.11 -name __pycache__ -prune -exec rm -r {} + && python3 -m compileall -q /usr/lib/python3.11
    find /usr/lib/python3.11 -name "*.pyc" | wc -l
    python3 -c "import json, sqlite3, email.mime.text, multiprocessing; print(json.dumps([multiprocessing.Pool(2).map(abs, [-1, -2])]))"'

step "users are made, and set-id programs make who calls them root" inside '
    useradd -m -d /srv/joe -u 1234 joe && stat -c "%n %u:%g %a" /srv/joe /etc/shadow /usr/bin/passwd
    cp /usr/bin/id /usr/local/bin/as-root && chmod 4755 /usr/local/bin/as-root
    su joe -s /bin/sh -c "id; as-root -u; touch ~/file /tmp/file && rm ~/file; touch /etc/file || echo refused"'

step "all of /usr changes its owner" inside '
    chown -R 1000:1000 /usr && find /usr ! -uid 1000 -o ! -gid 1000 | wc -l && chown -R --no-dereference 0:0 /usr
    find /usr -uid 1000 | wc -l && find /usr | wc -l'

step "directories are moved" inside '
    cd /usr/share && find perl5 -type f | sort | xargs sha256sum | cut -c1-64 >/tmp/before
    mv perl5 moved && mkdir perl5 && touch perl5/new && mv moved perl5/ && mv perl5 /srv/perl5 && ls /srv/perl5
    find /srv/perl5/moved -type f | sort | xargs sha256sum | cut -c1-64 | cmp - /tmp/before && ! test -e perl5'

step "a directory is renamed in one call" inside '
    python3 -c "import os; os.rename(\"/usr/share/perl5\", \"/usr/share/renamed\")" && ls /usr/share/renamed | wc -l'

step "hard links are one file" inside '
    cd /srv && echo one >a && ln a b && ln b c && rm a && echo two >>c && stat -c "%n %h" b c && cat b
    ln /usr/bin/git /srv/git && stat -c %h /usr/bin/git && chmod 700 /srv/git && stat -c %a /usr/bin/git
    python3 -c "import os; os.link(\"/etc/passwd\", \"/etc/linked\"); open(\"/etc/linked\", \"a\").write(\"x\"); print(os.stat(\"/etc/passwd\").st_nlink)"
    tail -c 1 /etc/passwd && echo'

# shellcheck disable=SC2016
step "a database is whole after its writers were killed" inside '
    cat >/srv/write.py <<END
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=60)
while True:
    with db:
        db.executemany("insert into t (t) values (?)", [("x" * 500,)] * 20)
    print("done", flush=True)
END
    cat >/srv/read.py <<END
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
rows, = db.execute("select count(*) from t").fetchone()
done = open(sys.argv[2]).read().count("done") * 20
# Of each writer, what was committed last may not have been told.
print(*db.execute("pragma integrity_check").fetchone(), done <= rows <= done + 40 * int(sys.argv[3]), rows % 20)
END
    for mode in delete wal; do
        : >/srv/done.$mode
        python3 -c "import sqlite3
db = sqlite3.connect(\"/srv/$mode\")
print(*db.execute(\"pragma journal_mode=$mode\").fetchone())
db.execute(\"create table t (i integer primary key, t text)\")"
        for round in 1 2; do
            python3 /srv/write.py /srv/$mode >>/srv/done.$mode & one=$!
            python3 /srv/write.py /srv/$mode >>/srv/done.$mode & other=$!
            until test "$(wc -l </srv/done.$mode)" -ge $((round * 20)); do kill -0 $one $other; sleep 0.1; done
            kill -9 $one $other && wait $one $other || true
            python3 /srv/read.py /srv/$mode /srv/done.$mode $round
        done
    done'

step "tar takes attributes and capabilities along" inside '
    mkdir -p /srv/from /srv/to && cp /bin/true /srv/from/ && setcap cap_net_bind_service+ep /srv/from/true
    echo x >/srv/from/file && setfattr -n user.note -v kept /srv/from/file && ln -s file /srv/from/link
    mkfifo /srv/from/pipe && ln /srv/from/file /srv/from/hard && chown 1234:1234 /srv/from/file && chmod 6755 /srv/from/true
    setcap cap_net_bind_service+ep /srv/from/true
    tar --xattrs --xattrs-include="*" -C /srv/from -cf - . | tar --xattrs --xattrs-include="*" -C /srv/to -xpf -
    cd /srv/to && getcap true && getfattr --only-values -n user.note file && echo && find . -printf "%p %y %m %U:%G %n %l\n" | sort
    chmod 755 /usr/bin/tar && setcap cap_chown+ep /usr/bin/tar && getcap /usr/bin/tar'

# ---- What engines do with containers ----

changes() {
    podman run --name work base sh -euc 'rm /etc/issue.net; echo changed >>/etc/passwd; chmod 700 /etc/group; mkdir -p /new/below
        echo new >/new/file; ln -s nowhere /new/link; rm -rf /usr/share/perl; mv /usr/share/base-files /usr/share/moved
        rm -rf /opt; echo "a file" >/opt' && podman diff work | sort -k 2
}
step "podman tells what a container has changed" changes
committed() {
    podman commit -q work changed >&2 && podman run --rm changed sh -euc 'cat /opt /new/file; tail -n 1 /etc/passwd
        readlink /new/link; stat -c %a /etc/group; ls /usr/share/moved | wc -l; ! ls /etc/issue.net; ! ls /usr/share/perl'
}
step "a commit has the changes" committed
copies() {
    echo "from outside" >file && podman cp file work:/new/copied && podman cp work:/new - | tar -xO new/copied &&
        podman cp work:/usr/bin/git git && podman cp work:/new/below . && ls -d below && cmp git <(podman run --rm base cat /usr/bin/git) &&
        podman rm work >&2
}
step "files are copied in and out" copies
executes() {
    podman run -d --name long base sleep 1000 >&2 && podman exec long sh -euc 'echo new >/etc/new; rm /etc/issue; mv /usr/share/base-files /usr/share/moved; ls /usr/share/moved | head -n 2' &&
        podman cp long:/etc/new copied && cat copied && echo in | podman exec -i long tee /srv/in && podman diff long | sort -k 2 && podman rm -f -t 0 long >&2
}
step "programs run in a container that runs" executes
# shellcheck disable=SC2016
mount_image='dir=$(podman image mount base) && ls "$dir" | head -n 3 && ! touch "$dir/new" 2>/dev/null && podman image umount base >&2'
if is_root; then
    step "an image is mounted, and is read-only" bash -c "$mount_image"
else
    step "an image is mounted, and is read-only" podman unshare bash -c "$mount_image"
fi
step "a read-only container changes nothing" podman run --rm --read-only base sh -c '! touch /etc/new; echo x >/tmp/x && cat /tmp/x && cat /etc/hostname >/dev/null'
# ids MAPPING prints whose is what a container sees and makes.
ids() {
    podman run --rm --user 0 "$@" base sh -euc 'stat -c "%n %u:%g" /etc/passwd /etc/shadow; useradd -m -d /srv/joe joe
        stat -c "%n %U" /srv/joe; chown joe /etc/issue; stat -c "%n %U" /etc/issue; su joe -c "! touch /etc/x"
        tr -s " " </proc/self/uid_map | head -n 1'
}
# ids_step TITLE MAPPING: a step where mapped ids are to be had.
ids_step() {
    local title=$1
    shift
    podman run --rm "$@" base true >ids.log 2>&1 || true
    if grep -q 'idmapping=.*: not supported' ids.log; then
        left "$title" "$(grep -o 'plyfs: .idmapping=.*' ids.log)"
    elif is_root && grep -q 'open .*/merged/.*: permission denied' ids.log; then
        # So with fuse-overlayfs 1.10 and podman 4.3 on a kernel that shifts ids of mounts.
        left "$title" "podman hands over layers that it has shifted itself, and asks for them to be shifted once more"
    else
        step "$title" ids "$@"
    fi
}
ids_step "with ids of its own" --userns=auto
if is_root; then
    ids_step "with ids that are told" --uidmap=0:700000:70000 --gidmap=0:700000:70000
else
    ids_step "with the id of its user" --userns=keep-id
fi
overlay_volume() {
    echo below >volume/file && podman run --rm -v "$PWD/volume:/volume:O" base sh -euc 'cat /volume/file; echo above >/volume/file; echo new >/volume/new; cat /volume/*' &&
        ls volume && cat volume/file
}
step "what is written to an overlay volume is gone with the container" overlay_volume
many() {
    local i
    for ((i = 0; i < 20; i++)); do
        podman run --rm base sh -euc "echo $i >/etc/number; rm -rf /usr/share/perl5; sleep 2; cat /etc/number
            find /usr -type f | wc -l" >many.$i &
    done
    wait
    cat many.{0..19}
}
step "20 containers at once" many
removed() { podman rmi -f app changed >&2; podman system reset --force >&2; }
step "everything is removed" removed
