# shellcheck shell=bash
# What the scripts share: messages, packages, scratch space that cleans itself up, overlay mounts. To be sourced.
set -euo pipefail

ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
TARGET=$(realpath -m -- "${CARGO_TARGET_DIR:-$ROOT/target}")
TOOLS=$TARGET/tools
PATH=$PATH:/usr/sbin:/sbin
export LC_ALL=C CARGO_TERM_COLOR=never CARGO_TARGET_DIR=$TARGET

# Exit status of a script or stage that could not run here, as distinct from one that failed.
readonly SKIP=77

say() { printf '%s\n' "$*"; }
warn() { printf '%s\n' "$*" >&2; }
die() { warn "${0##*/}: $*" && exit 1; }
skip() { warn "SKIPPED: $*" && exit "$SKIP"; }
have() { command -v "$1" >/dev/null 2>&1; }
is_root() { [[ $EUID -eq 0 ]]; }

# Runs a command as root, or fails where that takes a password.
as_root() {
    if is_root; then "$@"; else have sudo && sudo -n "$@"; fi </dev/null
}

# need_tools COMMAND:PACKAGE... installs the packages whose command is missing; fails if one cannot be had.
need_tools() {
    local pair missing=()
    for pair in "$@"; do
        have "${pair%%:*}" || missing+=("${pair#*:}")
    done
    [[ ${#missing[@]} -gt 0 ]] || return 0
    if ! have apt-get; then
        warn "missing, and no apt-get to install them with: ${missing[*]}"
        return 1
    fi
    if ! as_root true 2>/dev/null; then
        warn "missing, and installing them takes root or sudo without a password: ${missing[*]}"
        return 1
    fi
    say "installing what is missing: ${missing[*]}"
    local log
    log=$(mktemp)
    if ! { as_root apt-get update && as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        rm -f "$log"
        return 1
    fi
    rm -f "$log"
}

# need_cargo_tool NAME VERSION installs a program from crates.io into the build folder, unless it is there.
need_cargo_tool() {
    local name=$1 version=$2
    [[ -x $TOOLS/bin/$name && -e $TOOLS/$name-$version ]] && return 0
    say "building $name $version from crates.io"
    # Such a package may pin a toolchain of its own; the one in use here builds it as well.
    if [[ -z ${RUSTUP_TOOLCHAIN:-} ]] && have rustup; then
        RUSTUP_TOOLCHAIN=$(cd "$ROOT" && rustup show active-toolchain | cut -d' ' -f1)
        export RUSTUP_TOOLCHAIN
    fi
    cargo install --quiet --locked --root "$TOOLS" "$name@$version" </dev/null || return 1
    : >"$TOOLS/$name-$version"
}

# The plyfs under test: $PLYFS, or the debug build, whose arithmetic and assertions are checked.
plyfs_binary() {
    if [[ -z ${PLYFS:-} ]]; then
        (cd "$ROOT" && cargo build --quiet --locked --all-features --bin plyfs </dev/null) || return 1
        PLYFS=$TARGET/debug/plyfs
    fi
}

# Paths of the mounts below a directory, innermost first.
mounts_below() {
    local path
    while read -r _ path _; do
        path=$(printf '%b' "$path") # \040 and the like
        [[ $path == "$1"/* ]] && printf '%s\n' "$path"
    done </proc/self/mounts | tac
}

unmount() {
    if is_root; then umount "$1"; else umount "$1" 2>/dev/null || fusermount3 -u "$1"; fi
}

# Sets SCRATCH to a new directory that goes away with the script, mounts and daemons included.
scratch() {
    SCRATCH=$(mktemp -d "${TMPDIR:-/tmp}/plyfs-$1.XXXXXX")
    chmod 755 "$SCRATCH"
    trap remove_scratch EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
}

remove_scratch() {
    local status=$? path pid
    trap '' HUP INT TERM
    trap - EXIT
    set +e
    cd /
    for pid in $(jobs -p); do kill "$pid" 2>/dev/null; done
    wait
    mounts_below "$SCRATCH" | while read -r path; do
        unmount "$path" 2>/dev/null || umount -l "$path" 2>/dev/null || fusermount3 -uz "$path"
    done
    # Daemons that were started on a path in there and outlived their mount.
    for pid in $(processes_below "$SCRATCH"); do kill -9 "$pid" 2>/dev/null; done
    rm -rf --one-file-system "$SCRATCH" 2>/dev/null ||
        { chmod -R u+rwx "$SCRATCH" && rm -rf --one-file-system "$SCRATCH"; }
    exit "$status"
}

# Processes with a path below the directory on their command line, but for this script's own.
processes_below() {
    local dir pid
    for dir in /proc/[0-9]*; do
        pid=${dir#/proc/}
        [[ $pid -ne $$ && $pid -ne $BASHPID ]] || continue
        if tr '\0' '\n' 2>/dev/null <"$dir/cmdline" | grep -qF "$1/"; then printf '%s\n' "$pid"; fi
    done
}

# can_mount BACKEND says on stderr why this machine cannot mount an overlay that way, and fails.
can_mount() {
    case $1 in
    kernel)
        is_root || { warn "mounting the kernel's overlayfs takes root" && return 1; }
        local dir=$SCRATCH/can_mount message
        mkdir -p "$dir"/{lower,upper,work,mnt}
        if ! message=$(mount -t overlay overlay "$dir/mnt" \
            -o "lowerdir=$dir/lower,upperdir=$dir/upper,workdir=$dir/work" 2>&1); then
            warn "the kernel's overlayfs cannot be mounted on ${SCRATCH%/*}: ${message%%$'\n'*}"
            return 1
        fi
        umount "$dir/mnt"
        rm -rf "$dir"
        ;;
    plyfs)
        [[ -c /dev/fuse ]] || as_root modprobe fuse 2>/dev/null || true
        [[ -r /dev/fuse && -w /dev/fuse ]] || { warn "no access to /dev/fuse" && return 1; }
        ;;
    *) die "no such backend: $1 (kernel or plyfs)" ;;
    esac
}

# needs_mount BACKEND ends the script where overlays cannot be mounted that way.
needs_mount() {
    local reason
    reason=$(can_mount "$1" 2>&1) || skip "$reason"
}

# mount_overlay BACKEND DIR mounts DIR/lower and DIR/upper on DIR/mnt, plyfs with $PLYFS_OPTIONS besides; unmount_overlay
# takes it away again.
mount_overlay() {
    local backend=$1 dir=$2 layers
    mkdir -p "$dir"/{lower,upper,work,mnt}
    layers=lowerdir=$dir/lower,upperdir=$dir/upper,workdir=$dir/work
    if [[ $backend == kernel ]]; then
        mount -t overlay overlay "$dir/mnt" -o "$layers,redirect_dir=on,index=on"
        return
    fi
    layers+=,dev,suid$(is_root && printf ,allow_other)${PLYFS_OPTIONS:+,$PLYFS_OPTIONS}
    "$PLYFS" -f -o "$layers" "$dir/mnt" >"$dir/plyfs.log" 2>&1 </dev/null &
    DAEMON=$!
    local wait
    for ((wait = 0; wait < 100; wait++)); do
        mountpoint -q "$dir/mnt" && return
        kill -0 "$DAEMON" 2>/dev/null || break
        sleep 0.1
    done
    cat "$dir/plyfs.log" >&2
    warn "plyfs did not mount"
    return 1
}

# Unmounts what mount_overlay mounted; fails if the daemon does, or said that it had panicked.
unmount_overlay() {
    local backend=$1 dir=$2 status=0
    unmount "$dir/mnt" || return 1
    [[ $backend == plyfs ]] || return 0
    wait "$DAEMON" || status=$?
    if [[ $status -ne 0 ]] || grep -q panic "$dir/plyfs.log"; then
        tail -n 20 "$dir/plyfs.log" >&2
        warn "the daemon failed (exit status $status)"
        return 1
    fi
}

# The root filesystem of a minimal Debian, as a tar file that minimal_debian makes with debootstrap, once for all runs. It
# prints why, where that fails.
readonly DEBIAN_SUITE=bookworm
readonly DEBIAN_TAR=$TARGET/images/$DEBIAN_SUITE.tar
minimal_debian() {
    [[ ! -s $DEBIAN_TAR ]] || return 0
    mkdir -p "${DEBIAN_TAR%/*}"
    if ! debootstrap --variant=minbase "$DEBIAN_SUITE" "$SCRATCH/debootstrap" >"$SCRATCH/debootstrap.log" 2>&1; then
        tail -n 1 "$SCRATCH/debootstrap.log"
        return 1
    fi
    tar --numeric-owner --xattrs -C "$SCRATCH/debootstrap" -cf "$DEBIAN_TAR.new" . && mv "$DEBIAN_TAR.new" "$DEBIAN_TAR"
    rm -rf "$SCRATCH/debootstrap"
}

# seconds COMMAND... prints how long it takes.
seconds() {
    local start=$EPOCHREALTIME
    "$@" >/dev/null 2>&1 || return
    python3 -c "print('%.2f' % ($EPOCHREALTIME - $start))"
}

# A digest of everything a layer holds: names, kinds, modes, owners, sizes, times, xattrs, content.
fingerprint() {
    (
        cd "$1"
        find . -printf '%p %y %m %U:%G %s %T@ %l\n' | sort
        find . -type f -print0 | sort -z | xargs -0r sha256sum
        if have getfattr; then find . -print0 | sort -z | xargs -0r getfattr -h -d -m - -- 2>/dev/null; fi
    ) | sha256sum | cut -c1-16
}
