//! As container engines call a mount program: the name, the words and the maps that they give, and what they wait for.

use std::os::unix::fs::{MetadataExt, symlink};

use super::*;

/// Runs a script where the layers are, in a mount namespace; `$0` is plyfs. What it says on standard output, or `None` if the
/// machine lacks what it takes.
fn script(bed: &Bed, text: &str) -> Option<String> {
    let output = bed.unshared(&["-m"], "bash", text).stdin(Stdio::null()).output().unwrap();
    let told = said(&output);
    if let Some(line) = told.lines().find(|line| line.contains("SKIPPED: ")) {
        skip(line);
        return None;
    }
    assert!(output.status.success(), "{told}\n{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(told, "");
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn five_hundred_relative_symlinks_are_lower_layers() {
    needs_root!();
    let bed = Bed::new();
    fs::create_dir(bed.path("l")).unwrap();
    let mut lowers = Vec::new();
    for number in 0..500 {
        let layer = format!("layers/{number:026}/diff");
        fs::create_dir_all(bed.path(&layer)).unwrap();
        fs::write(bed.path(&layer).join(format!("f{number}")), "x").unwrap();
        let link = format!("l/ID{number:024}");
        symlink(format!("../{layer}"), bed.path(&link)).unwrap();
        lowers.push(link);
    }
    let options = format!("lowerdir={},upperdir=u,workdir=w,volatile,private", lowers.join(":"));
    let output = bed.plyfs().args(["-o", &options, "m"]).output().unwrap();
    assert_eq!((said(&output).as_str(), output.status.code()), ("plyfs: unknown option private ignored\n", Some(0)));
    assert_eq!(names(bed.path("m")).len(), 500);
    fs::write(bed.path("m/f499"), "changed").unwrap();
    unmount(bed.path("m"), UnmountFlags::empty()).unwrap();
    assert_eq!(fs::read_to_string(bed.path("u/f499")).unwrap(), "changed");
}

#[test]
fn whatever_an_engine_unmounts_by_data_is_in_the_upper() {
    needs_root!();
    for command in ["fusermount3 -u", "fusermount -u", "umount -l"] {
        let bed = Bed::new();
        let text = format!(
            "set -e; command -v {} >/dev/null || {{ echo 'SKIPPED: {command}' >&2; exit 0; }}
             \"$0\" -o lowerdir=a:b,upperdir=u,workdir=w,writeback=1 m
             head -c 3000000 /dev/zero | tr '\\0' x >m/new; echo more >>m/a
             {command} m
             wc -c <u/new; cat u/a",
            command.split(' ').next().unwrap()
        );
        if let Some(told) = script(&bed, &text) {
            assert_eq!(told, "3000000\namore\n", "{command}");
        }
    }
}

#[test]
fn called_as_fuse_overlayfs_it_stands_in_for_that() {
    needs_root!();
    let bed = Bed::new();
    symlink(PLYFS, bed.path("fuse-overlayfs")).unwrap();
    let output = Command::new(bed.path("fuse-overlayfs")).arg("--version").output().unwrap();
    let told = String::from_utf8(output.stdout.clone()).unwrap();
    let version = told.strip_prefix("fuse-overlayfs: version ").and_then(|rest| rest.lines().next()).unwrap();
    let (major, minor) = version.split_once('.').unwrap();
    assert!(major == "1" && minor.parse::<u32>().unwrap() >= 10, "{told}");
    assert!(told.contains(concat!("plyfs ", env!("CARGO_PKG_VERSION"))) && output.status.success(), "{told}");
    // As containerd's snapshotter does.
    let told = script(
        &bed,
        r#"set -e
        command -v mount.fuse3 >/dev/null || { echo "SKIPPED: mount.fuse3" >&2; exit 0; }
        PATH=$PWD:$PATH
        mount.fuse3 overlay "$PWD/m" -o workdir="$PWD/w" -o upperdir="$PWD/u" -o lowerdir="$PWD/a:$PWD/b" -t fuse-overlayfs
        ls m; echo x >m/new; umount m; ls u
        mount.fuse3 overlay "$PWD/m" -o lowerdir="$PWD/a:$PWD/b" -t fuse-overlayfs
        ls m; { echo x >m/new; } 2>/dev/null || echo read-only; umount m
        fuse-overlayfs -o lowerdir=a,upperdir=u,workdir=w,threaded=0,fsync=0,fast_ino=1,writeback=0,noxattrs=0,timeout=5 m
        ls m; umount m"#,
    );
    if let Some(told) = told {
        assert_eq!(told, "a\nb\nnew\na\nb\nread-only\na\nnew\n");
    }
}

#[test]
fn owners_are_shifted_for_who_uses_the_mount() {
    needs_root!();
    let bed = Bed::new();
    let told = script(
        &bed,
        r#"set -e
        command -v setpriv >/dev/null || { echo "SKIPPED: setpriv" >&2; exit 0; }
        chown 33:34 a/a; chmod 600 a/a
        "$0" -o lowerdir=a:b,upperdir=u,workdir=w,allow_other,uidmapping=:0:100000:65536,gidmapping=:0:200000:65536 m
        as() { setpriv --reuid "$1" --regid "$2" --clear-groups "${@:3}"; }
        stat -c '%u:%g' m m/a
        as 100033 200034 cat m/a; echo
        as 100034 200035 cat m/a 2>/dev/null || echo kept out
        as 100000 200000 sh -c 'echo x >m/new; mkdir m/dir; ln -s x m/link'
        stat -c '%u:%g %n' m/new m/dir m/link u/new u/dir u/link
        chown 100005:200006 m/a; stat -c '%u:%g %n' m/a u/a
        chown 5 m/a 2>/dev/null || echo refused
        echo x >m/nobody; stat -c '%u:%g %n' m/nobody
        umount m"#,
    );
    let expected = "100000:200000\n100033:200034\na\nkept out\n100000:200000 m/new\n100000:200000 m/dir\n100000:200000 \
                    m/link\n0:0 u/new\n0:0 u/dir\n0:0 u/link\n100005:200006 m/a\n5:6 u/a\nrefused\n\
                    165534:265534 m/nobody\n";
    if let Some(told) = told {
        assert_eq!(told, expected);
    }
}

#[test]
fn capabilities_have_effect_in_the_namespace_that_owners_are_shifted_to() {
    needs_root!();
    let bed = Bed::new();
    let told = script(
        &bed,
        r#"set -e
        for tool in setcap getcap newuidmap; do
            command -v $tool >/dev/null || PATH=$PATH:/sbin:/usr/sbin command -v $tool >/dev/null \
                || { echo "SKIPPED: $tool" >&2; exit 0; }
        done
        PATH=$PATH:/sbin:/usr/sbin
        cp /bin/cat a/cat; setcap cap_net_raw+ep a/cat
        "$0" -o lowerdir=a,upperdir=u,workdir=w,allow_other,suid,uidmapping=0:100000:65536,gidmapping=0:100000:65536 m
        getcap -n m/cat | sed 's/.* //'
        umount m"#,
    );
    if let Some(told) = told {
        assert!(told.contains("rootid=100000"), "{told}");
    }
}

#[test]
fn what_fuse_overlayfs_keeps_aside_shows_the_same_and_the_other_way_round() {
    needs_root!();
    let bed = Bed::new();
    let told = script(
        &bed,
        r#"set -e
        command -v fuse-overlayfs >/dev/null || { echo "SKIPPED: fuse-overlayfs" >&2; exit 0; }
        # In an upper, fuse-overlayfs' second mark of opaque directories is a file like any other, as on the kernel's.
        show() { (cd m && find . ! -name '*.only' ! -name .wh..wh..opq -printf '%p %U:%G %m %y %s\n' | sort); }
        # What it says of its own options is not ours.
        theirs() { fuse-overlayfs -o "$1" m 2>/dev/null; }
        theirs lowerdir=a:b,upperdir=u,workdir=w,xattr_permissions=2
        echo new >m/new; chown 33:34 m/new; chmod 4751 m/new; mkdir m/dir; chown 5:6 m/dir; chmod 1777 m/dir
        chown 7:8 m/a; rm m/b; ln -s new m/link; echo deep >m/dir/f; chmod 0 m/dir/f
        show >theirs; umount m
        "$0" -o lowerdir=u:a:b m; show >ours; umount m
        diff theirs ours >&2
        "$0" -o lowerdir=a:b,upperdir=u,workdir=w m; show >ours
        diff theirs ours >&2
        # And what is written over it stays in that form.
        chown 9:10 m/dir; chmod 2755 m/dir; echo x >m/more; chown 11:12 m/more; show >ours; umount m
        theirs lowerdir=a:b,upperdir=u,workdir=w,xattr_permissions=2; show >theirs; umount m
        diff theirs ours >&2
        # An upper of ours from the beginning.
        rm -rf u w; mkdir u w
        "$0" -o lowerdir=a:b,upperdir=u,workdir=w,xattr_permissions=2 m
        echo new >m/new; chown 33:34 m/new; chmod 640 m/new; mkdir m/dir; chown 5:6 m/dir; chown 7:8 m/a; rm m/b
        mkfifo m/pipe.only; mknod m/device.only c 1 3; stat -c '%F' m/pipe.only m/device.only u/device.only
        show >ours; umount m
        theirs lowerdir=u:a:b; show >theirs; umount m
        diff theirs ours >&2"#,
    );
    if let Some(told) = told {
        assert_eq!(told, "fifo\ncharacter special file\nregular empty file\n");
    }
}

#[test]
fn without_privilege_files_are_given_away_all_the_same() {
    needs_root!();
    let bed = Bed::new();
    let told = script(
        &bed,
        r#"set -e
        command -v setpriv >/dev/null && command -v fusermount3 >/dev/null \
            || { echo "SKIPPED: setpriv or fusermount3" >&2; exit 0; }
        [ -e /etc/fuse.conf ] || { echo "SKIPPED: no /etc/fuse.conf to put another over" >&2; exit 0; }
        mknod fuse c 10 229; chmod 666 fuse; mount --bind fuse /dev/fuse
        echo user_allow_other >conf; mount --bind conf /etc/fuse.conf
        cp "$0" plyfs; chown -R 65534:65534 .
        as_user() { setpriv --reuid 65534 --regid 65534 --clear-groups "$@"; }
        as_user setfattr -n user.containers.override_stat -v 0:0:0755:dir a 2>/dev/null || true
        as_user ./plyfs -o lowerdir=a:b,upperdir=u,workdir=w,allow_other,xattr_permissions=2 m
        touch m/new; chown 33:34 m/new m/a; chmod 4711 m/a; rm m/b; mkdir m/dir; chown 5 m/dir; ln -s x m/link
        chown -h 7:8 m/link; mknod m/null c 1 3
        stat -c '%u:%g %a %n' m/new m/a m/dir m/null
        stat -c '%u %F %n' u/new u/a u/dir u/null
        fusermount3 -u m
        ls u"#,
    );
    if let Some(told) = told {
        let shown = "33:34 644 m/new\n33:34 4711 m/a\n5:0 755 m/dir\n0:0 644 m/null\n";
        let stored = "65534 regular empty file u/new\n65534 regular file u/a\n65534 directory u/dir\n65534 regular empty \
                      file u/null\n";
        assert_eq!(told.replacen(shown, "", 1).replacen(stored, "", 1), "a\nb\ndir\nlink\nnew\nnull\n", "{told}");
    }
}

#[test]
fn a_user_namespace_writes_marks_that_it_may_write() {
    let bed = Bed::new();
    let text = "set -e; \"$0\" -o lowerdir=a:b,upperdir=u,workdir=w,allow_other m; rm m/b; mkdir m/d; echo x >>m/a
                stat -c '%t:%T %F' u/b; getfattr -d -m - u/a 2>/dev/null | grep -o '^user.overlay.origin' || true
                umount m";
    let output = bed.unshared(&["-Urm"], "sh", text).output().unwrap();
    let told = said(&output);
    if told.starts_with("unshare:") {
        return skip(&told);
    }
    assert_eq!((told.as_str(), output.status.code()), ("", Some(0)));
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(told.starts_with("0:0 character special file\n"), "{told}");
    let meta = fs::symlink_metadata(bed.path("u/b")).unwrap();
    assert_eq!((meta.rdev(), meta.mode() & libc_mode()), (0, 0o020_000));
    let mut names = vec![0; 4096];
    let len = rustix::fs::listxattr(bed.path("u/a"), &mut names).unwrap();
    let names = String::from_utf8_lossy(&names[..len]).into_owned();
    assert!(names.contains("user.overlay.origin") && !names.contains("trusted."), "{names}");
}

/// The bits of the type in a mode.
const fn libc_mode() -> u32 {
    0o170_000
}
