//! The command itself: what it says, how it mounts, how it leaves its caller, and how it ends.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::let_underscore_must_use
)]

mod contract;
mod control;
mod endings;
mod inspect;
mod shell;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::{current, sleep};
use std::time::{Duration, Instant};

use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

const PLYFS: &str = env!("CARGO_BIN_EXE_plyfs");
const PATIENCE: Duration = Duration::from_secs(30);

/// Layers and a mount point: `a` and `b` hold a file each, called as they are.
struct Bed {
    dir: TempDir,
}

impl Bed {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("plyfs-cli-").tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["a", "b", "u", "w", "m"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        for name in ["a", "b"] {
            fs::write(dir.path().join(name).join(name), name).unwrap();
        }
        Self { dir }
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A script where the layers are, in namespaces of its own; `$0` is plyfs.
    fn unshared(&self, flags: &[&str], shell: &str, script: &str) -> Command {
        let mut command = Command::new("unshare");
        command.args(flags).args(["--propagation", "slave", shell, "-c", script, PLYFS]).current_dir(self.dir.path());
        command
    }

    /// plyfs, to be run where the layers are.
    fn plyfs(&self) -> Command {
        let mut command = Command::new(PLYFS);
        command.current_dir(self.dir.path()).stdin(Stdio::null()).env_remove("PLYFS_LOG").env_remove("RUST_LOG");
        command
    }

    /// Mounts in the background with the usual layers.
    fn mount(&self) {
        self.mount_with("");
    }

    fn mount_with(&self, more: &str) {
        let output =
            self.plyfs().args(["-o", &format!("lowerdir=a:b,upperdir=u,workdir=w{more}"), "m"]).output().unwrap();
        assert_eq!((said(&output).as_str(), output.status.code()), ("", Some(0)));
    }

    /// Mounts in the foreground.
    fn serve(&self) -> Child {
        let mut command = self.plyfs();
        command.args(["-f", "-o", "lowerdir=a:b,upperdir=u,workdir=w", "m"]);
        self.start(&mut command)
    }

    /// Starts what mounts in the foreground.
    fn start(&self, command: &mut Command) -> Child {
        let child = command.stderr(Stdio::piped()).spawn().unwrap();
        wait_until("the mount is there", || self.entry().is_some());
        child
    }

    /// The line on this mount in the list of mounts.
    fn entry(&self) -> Option<String> {
        let table = String::from_utf8_lossy(&fs::read("/proc/self/mounts").unwrap()).into_owned();
        let at = format!(" {} ", self.path("m").display());
        table.lines().rev().find(|line| line.contains(&at)).map(str::to_owned)
    }

    /// The process that serves the mount.
    fn daemon(&self) -> Option<i32> {
        fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let exe = fs::read_link(entry.path().join("exe")).ok()?;
            let holds = |fd: fs::DirEntry| fs::read_link(fd.path()).is_ok_and(|file| file.starts_with(self.path("u")));
            let is_ours = fs::read_dir(entry.path().join("fd")).ok()?.flatten().any(holds);
            (exe == fs::canonicalize(PLYFS).ok()? && is_ours).then_some(pid)
        })
    }

    fn signal(&self, signal: Signal) {
        kill(self.daemon().unwrap(), signal);
    }

    #[track_caller]
    fn assert_gone(&self) {
        wait_until("the daemon has ended", || self.daemon().is_none());
        assert_eq!(self.entry(), None);
        assert_eq!(fs::read_dir(self.path("w/work")).unwrap().count(), 0, "something is left in the work directory");
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        while self.entry().is_some() && unmount(self.path("m"), UnmountFlags::DETACH).is_ok() {}
        if let Some(daemon) = self.daemon() {
            kill(daemon, Signal::KILL);
        }
    }
}

fn kill(pid: i32, signal: Signal) {
    let _ = kill_process(Pid::from_raw(pid).unwrap(), signal);
}

#[track_caller]
fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        sleep(Duration::from_millis(5));
    }
}

#[track_caller]
fn ends_with(mut child: Child, code: i32) -> String {
    wait_until("the command has ended", || {
        // Not reaped here: `wait` below does.
        let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
        stat.rsplit(") ").next().unwrap().starts_with('Z')
    });
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(code), "{said}");
    said
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn names(dir: impl AsRef<Path>) -> Vec<OsString> {
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

fn skip(reason: &str) {
    use std::io::Write;
    let line = format!("SKIPPED: {}: {reason}\n", current().name().unwrap_or("?"));
    // Past the capture of the test harness, which would keep it quiet.
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

macro_rules! needs_root {
    () => {
        if !geteuid().is_root() {
            return skip("needs root");
        }
    };
}
use needs_root;

#[test]
fn a_wrong_command_line_is_told_in_one_line() {
    let bed = Bed::new();
    let cases: &[(&[&str], &str)] = &[
        (&[], "the following required arguments were not provided: <MOUNTPOINT>..."),
        (&["m"], "lowerdir: needs at least one layer"),
        (&["--bogus", "m"], "unexpected argument '--bogus' found"),
        (&["-o", "lowerdir=a,upperdir=u", "m"], "upperdir=u: needs a workdir beside it"),
        (&["-o", "lowerdir=a,timeout=x", "m"], "timeout=x: not a number of seconds"),
        (&["-o", "lowerdir=a,fsync", "m"], "fsync: needs a value"),
        (&["-o", "lowerdir=a,volatile=1", "m"], "volatile=1: takes no value"),
        (&["-o", "lowerdir=a::b:c", "m"], "lowerdir=a::b:c: has a layer to be merged (:) below one for data only (::)"),
        (
            &["-o", "lowerdir=a,uidmapping=0:1", "m"],
            "uidmapping=0:1: not numbers in threes with colons between (STORED:SHOWN:COUNT)",
        ),
        (&["-o", "lowerdir=a,remount", "m"], "remount: mount it anew to change options"),
        (&["umount"], "the following required arguments were not provided: <MOUNTPOINT>"),
        (&["mount", "--lower", "a"], "the following required arguments were not provided: <MOUNTPOINT>..."),
        (&["mount", "m"], "lowerdir: needs at least one layer"),
    ];
    for (args, line) in cases {
        let output = bed.plyfs().args(*args).output().unwrap();
        assert_eq!((said(&output), output.status.code()), (format!("plyfs: {line}\n"), Some(2)), "{args:?}");
    }
}

#[test]
fn what_cannot_be_mounted_is_told_in_one_line() {
    let bed = Bed::new();
    for dir in ["u/inside", "w/inside"] {
        fs::create_dir(bed.path(dir)).unwrap();
    }
    fs::write(bed.path("file"), "").unwrap();
    fs::write(bed.path("a/b\n"), "").unwrap();
    let mounted = bed.path("m").display().to_string();
    let cases: &[(&[&str], &str)] = &[
        (&["-o", "lowerdir=x", "m"], "lowerdir=x: No such file or directory"),
        (&["-o", "lowerdir=a:x:y", "m"], "lowerdir=x: No such file or directory"),
        (&["-o", "lowerdir=file", "m"], "lowerdir=file: Not a directory"),
        (&["-o", "lowerdir=x\ny", "m"], "lowerdir=x\\ny: No such file or directory"),
        (&["-o", "lowerdir=a,upperdir=x,workdir=w", "m"], "upperdir=x: No such file or directory"),
        (&["-o", "lowerdir=a,upperdir=u,workdir=x", "m"], "workdir=x: No such file or directory"),
        (&["-o", "lowerdir=a,upperdir=u,workdir=/proc", "m"], "workdir=/proc: not on the filesystem of upperdir u"),
        (&["-o", "lowerdir=a,upperdir=u,workdir=u", "m"], "workdir=u: the same directory as upperdir u"),
        (&["-o", "lowerdir=a,upperdir=u,workdir=u/inside", "m"], "workdir=u/inside: inside of upperdir u"),
        (&["-o", "lowerdir=u,upperdir=u,workdir=w", "m"], "lowerdir=u: inside of upperdir u"),
        (&["-o", "lowerdir=a:u/inside,upperdir=u,workdir=w", "m"], "lowerdir=u/inside: inside of upperdir u"),
        (&["-o", "lowerdir=a,upperdir=w/inside,workdir=w", "m"], "workdir=w: holds upperdir w/inside"),
        (&["-o", "lowerdir=a", "x"], "mountpoint x: No such file or directory"),
        (&["-o", "lowerdir=a", "file"], "mountpoint file: Not a directory"),
        (&["-o", "lowerdir=a,log=x/log", "m"], "log=x/log: No such file or directory"),
        (&["umount", "m"], &format!("{mounted}: not mounted")),
        (&["umount", "x"], "x: No such file or directory"),
        (&["umount", "/proc"], "/proc: a mount of type proc, not of plyfs"),
    ];
    for (args, line) in cases {
        let output = bed.plyfs().args(*args).output().unwrap();
        assert_eq!((said(&output), output.status.code()), (format!("plyfs: {line}\n"), Some(1)), "{args:?}");
        if args[0] == "-o" {
            let output = bed.plyfs().arg("-f").args(*args).output().unwrap();
            assert_eq!((said(&output), output.status.code()), (format!("plyfs: {line}\n"), Some(1)), "-f {args:?}");
        }
    }
    assert_eq!(bed.entry(), None);
}

#[test]
fn without_the_device_it_says_so() {
    needs_root!();
    let bed = Bed::new();
    let script = "mount -t tmpfs none /dev && exec \"$0\" -f -o lowerdir=a m";
    let output = bed.unshared(&["-m"], "sh", script).output().unwrap();
    assert_eq!(
        (said(&output).as_str(), output.status.code()),
        (
            "plyfs: /dev/fuse: No such file or directory (as root: modprobe fuse; a container has to be given the device)\n",
            Some(1)
        )
    );
}

#[test]
fn without_privilege_it_says_so() {
    needs_root!();
    let bed = Bed::new();
    let program = bed.path("plyfs");
    fs::copy(PLYFS, &program).unwrap();
    let mut command = Command::new(program);
    // Nothing to mount with, and no right to do it.
    command.env("PATH", "/nonexistent").uid(65534).gid(65534);
    let output = command.args(["-o", "lowerdir=a", "m"]).current_dir(bed.dir.path()).output().unwrap();
    let lines = [
        "plyfs: /dev/fuse: Permission denied (root can open it to users: chmod 666 /dev/fuse)\n".to_owned(),
        format!(
            "plyfs: mountpoint {}: no privilege to mount, and no fusermount3 (install the package fuse3)\n",
            bed.path("m").display()
        ),
    ];
    assert!(lines.contains(&said(&output)), "{output:?}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn unknown_options_are_told_and_ignored() {
    needs_root!();
    let bed = Bed::new();
    let output = bed.plyfs().args(["-o", "lowerdir=a,foo,bar=1,workdir=w", "m"]).output().unwrap();
    let lines = "plyfs: unknown option foo ignored\n\
                 plyfs: unknown option bar ignored\n\
                 plyfs: workdir=w ignored, as there is no upperdir\n";
    assert_eq!((said(&output).as_str(), output.status.code()), (lines, Some(0)));
    assert_eq!(names(bed.path("m")), ["a"]);
}

#[test]
fn version_and_help() {
    for flag in ["-V", "--version"] {
        let output = Command::new(PLYFS).arg(flag).output().unwrap();
        assert_eq!(output.stdout, format!("plyfs {}\n", env!("CARGO_PKG_VERSION")).into_bytes());
        assert_eq!(output.status.code(), Some(0));
    }
    for args in [&["-h"][..], &["--help"], &["mount", "-h"], &["umount", "-h"]] {
        let output = Command::new(PLYFS).args(args).output().unwrap();
        let help = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && help.contains("Usage: plyfs"), "{help}");
    }
}

#[test]
fn every_way_to_say_it_mounts() {
    needs_root!();
    let bed = Bed::new();
    let ways: &[&[&str]] = &[
        &["-o", "lowerdir=a:b,upperdir=u,workdir=w", "m"],
        &["-o", "lowerdir=a:b", "-o", "upperdir=u", "-oworkdir=w", "m"],
        &["m", "-o", "lowerdir=a:b,upperdir=u,workdir=w"],
        &["overlay", "m", "-o", "lowerdir=a:b,upperdir=u,workdir=w", "-o", "rw,dev,suid"],
        &["-s", "m", "-o", "rw,lowerdir=a:b,upperdir=u,workdir=w"],
        &["mount", "--lower", "a", "--lower", "b", "--upper", "u", "--work", "w", "m"],
        &["mount", "--lower=a", "--lower=b", "--upper=u", "--work=w", "-o", "noatime", "m"],
    ];
    for args in ways {
        let output = bed.plyfs().args(*args).output().unwrap();
        assert_eq!((said(&output).as_str(), output.status.code()), ("", Some(0)), "{args:?}");
        assert_eq!(names(bed.path("m")), ["a", "b"], "{args:?}");
        fs::write(bed.path("m/new"), "new").unwrap();
        fs::remove_file(bed.path("m/new")).unwrap();
        let output = bed.plyfs().args(["umount", "m"]).output().unwrap();
        assert_eq!((said(&output).as_str(), output.status.code()), ("", Some(0)), "{args:?}");
        // The command returns when the daemon has ended.
        assert_eq!(bed.daemon(), None, "{args:?}");
        bed.assert_gone();
    }
}

#[test]
fn the_list_of_mounts_shows_what_was_asked_for() {
    needs_root!();
    let bed = Bed::new();
    let at = bed.path("m");
    let cases: &[(&[&str], &str, &str, &[&str])] = &[
        (&[], "plyfs", "fuse.plyfs", &["rw", "nosuid", "nodev", "default_permissions"]),
        (&["-o", "dev,suid,noexec"], "plyfs", "fuse.plyfs", &["rw", "noexec"]),
        (&["-o", "ro,allow_other,noatime"], "plyfs", "fuse.plyfs", &["ro", "allow_other", "noatime", "nosuid"]),
        (&["-o", "fsname=the\\,name,max_read=8192"], "the,name", "fuse.plyfs", &["max_read=8192"]),
        (&["-o", "subtype=other,allow_root"], "plyfs", "fuse.other", &["allow_other"]),
    ];
    for (args, source, kind, flags) in cases {
        let output = bed.plyfs().args(["-o", "lowerdir=a", "m"]).args(*args).output().unwrap();
        assert_eq!((said(&output).as_str(), output.status.code()), ("", Some(0)), "{args:?}");
        let entry = bed.entry().unwrap();
        let fields: Vec<&str> = entry.split(' ').collect();
        assert_eq!(fields[..3], [*source, at.to_str().unwrap(), *kind]);
        let shown: Vec<&str> = fields[3].split(',').collect();
        for flag in *flags {
            assert!(shown.contains(flag) || *flag == "rw", "{args:?}: {flag} is not in {entry}");
        }
        assert_eq!(shown.contains(&"nodev"), !args.concat().contains("dev,suid"), "{entry}");
        unmount(&at, UnmountFlags::empty()).unwrap();
    }
}

#[test]
fn as_fuse_overlayfs_it_mounts_for_all_users_of_a_container() {
    needs_root!();
    let bed = Bed::new();
    symlink(PLYFS, bed.path("fuse-overlayfs")).unwrap();
    let shown = |options: &str| {
        let output = Command::new(bed.path("fuse-overlayfs"))
            .current_dir(bed.dir.path())
            .args(["-o", &format!("lowerdir=a,upperdir=u,workdir=w{options}"), "m"])
            .output()
            .unwrap();
        assert_eq!((said(&output).as_str(), output.status.code()), ("", Some(0)));
        let entry = bed.entry().unwrap();
        unmount(bed.path("m"), UnmountFlags::empty()).unwrap();
        bed.assert_gone();
        ["allow_other", "nosuid", "nodev"].map(|flag| entry.split([' ', ',']).any(|shown| shown == flag))
    };
    assert_eq!(shown(""), [true, false, true]);
    assert_eq!(shown(",nosuid,dev"), [true, true, false]);
}

#[test]
fn five_hundred_layers() {
    needs_root!();
    let bed = Bed::new();
    let mut layers = Vec::new();
    for number in 0..500 {
        // Long enough that the whole does not fit into a page, which mount(2) would limit it to.
        let layer = bed.path(format!("layer-{number:0100}"));
        fs::create_dir(&layer).unwrap();
        fs::write(layer.join(format!("f{number}")), number.to_string()).unwrap();
        fs::write(layer.join("top"), number.to_string()).unwrap();
        layers.push(layer.to_str().unwrap().to_owned());
    }
    let (first, last) = layers.split_at(400);
    let mut command = bed.plyfs();
    command.arg("-o").arg(format!("lowerdir={},upperdir=u,workdir=w", first.join(":")));
    for layer in last {
        command.arg("-o").arg(format!("lowerdir+={layer}"));
    }
    let output = command.arg("m").output().unwrap();
    assert_eq!((said(&output).as_str(), output.status.code()), ("", Some(0)));
    assert_eq!(names(bed.path("m")).len(), 501);
    assert_eq!(fs::read_to_string(bed.path("m/top")).unwrap(), "0");
    for number in [0, 1, 250, 399, 400, 499] {
        assert_eq!(fs::read_to_string(bed.path(format!("m/f{number}"))).unwrap(), number.to_string());
    }
}

#[test]
fn any_path_can_be_written() {
    needs_root!();
    let bed = Bed::new();
    let cases: &[(&[u8], &[u8])] = &[
        (b"co:lon", br"lowerdir=co\:lon:a"),
        (b"com,ma", br"lowerdir=com\,ma:a"),
        (b"com,ma", br#"lowerdir="com,ma:a""#),
        (br"back\slash", br"lowerdir=back\\slash:a"),
        (b"quo\"te", b"lowerdir=quo\"te:a"),
        (b"sp ace=", b"lowerdir=sp ace=:a"),
        (b"\xff\xfe", b"lowerdir=\xff\xfe:a"),
        (b"pl:us", b"lowerdir+=pl:us,lowerdir+=a"),
    ];
    for (name, option) in cases {
        let name = OsStr::from_bytes(name);
        fs::create_dir_all(bed.path(name)).unwrap();
        fs::write(bed.path(name).join("there"), "").unwrap();
        let output = bed.plyfs().arg("-o").arg(OsStr::from_bytes(option)).arg("m").output().unwrap();
        assert_eq!((said(&output).as_str(), output.status.code()), ("", Some(0)), "{name:?}");
        assert_eq!(names(bed.path("m")), ["a", "there"], "{name:?}");
        unmount(bed.path("m"), UnmountFlags::empty()).unwrap();
    }
    // The flags for people take paths as they are.
    let output = bed.plyfs().args(["mount", "--lower", "co:lon", "--lower", "com,ma", "m"]).output().unwrap();
    assert_eq!((said(&output).as_str(), output.status.code()), ("", Some(0)));
}

#[test]
fn a_mount_point_of_any_name() {
    needs_root!();
    let bed = Bed::new();
    let name = OsString::from_vec(b"m/s p\\\xff".to_vec());
    let at = bed.path(&name);
    fs::create_dir(&at).unwrap();
    symlink(&at, bed.path("link")).unwrap();
    let mount = |at: &OsStr| bed.plyfs().args(["-o", "lowerdir=a"]).arg(at).output().unwrap();
    for given in [name.as_os_str(), OsStr::new("link")] {
        let output = mount(given);
        assert_eq!((said(&output).as_str(), output.status.code()), ("", Some(0)), "{given:?}");
        assert_eq!(names(&at), ["a"]);
        let output = bed.plyfs().arg("umount").arg(given).output().unwrap();
        assert_eq!((said(&output).as_str(), output.status.code()), ("", Some(0)), "{given:?}");
        assert_eq!(names(&at), [""; 0]);
    }
}

#[test]
fn a_layer_may_be_covered_by_the_mount() {
    needs_root!();
    let bed = Bed::new();
    for at in ["a", "u"] {
        let output = bed.plyfs().args(["-o", "lowerdir=a:b,upperdir=u,workdir=w", at]).output().unwrap();
        assert_eq!((said(&output).as_str(), output.status.code()), ("", Some(0)), "{at}");
        assert_eq!(names(bed.path(at)), ["a", "b"]);
        fs::write(bed.path(at).join("new"), "new").unwrap();
        assert_eq!(fs::read_to_string(bed.path(at).join("new")).unwrap(), "new");
        fs::remove_file(bed.path(at).join("new")).unwrap();
        let output = bed.plyfs().args(["umount", at]).output().unwrap();
        assert_eq!((said(&output).as_str(), output.status.code()), ("", Some(0)), "{at}");
    }
    assert_eq!((names(bed.path("a")), names(bed.path("u")).len()), (vec!["a".into()], 0));
}

#[test]
fn mount_8_finds_it() {
    needs_root!();
    let bed = Bed::new();
    // mount(8) leaves no PATH to its helper, so that the program has to be where the shell looks by itself.
    let script = r#"
        set -e
        mount -t tmpfs none /usr/local/sbin; cp "$0" /usr/local/sbin/plyfs
        options=lowerdir=$PWD/a:$PWD/b,upperdir=$PWD/u,workdir=$PWD/w,allow_other,noatime,x-test=1,nofail
        mount -t fuse.plyfs the-source "$PWD/m" -o "$options"
        ls m; grep "$PWD/m " /proc/mounts
        umount m; ls m
        echo "plyfs $PWD/m fuse.plyfs $options,noauto 0 0" >fstab
        mount --fstab "$PWD/fstab" "$PWD/m"
        ls m; umount m
    "#;
    let output = bed.unshared(&["-mpf", "--mount-proc", "--kill-child"], "sh", script).output().unwrap();
    if said(&output).contains("you might need a /sbin/mount.<type> helper program") {
        return skip("needs mount.fuse3");
    }
    assert_eq!((said(&output).as_str(), output.status.code()), ("", Some(0)));
    // As root, mount.fuse3 asks for devices and set-id bits.
    let shown = format!("the-source {} fuse.plyfs rw,noatime,", bed.path("m").display());
    let told = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!((lines[..2].to_vec(), lines[3..].to_vec()), (vec!["a", "b"], vec!["a", "b"]), "{told}");
    assert!(lines[2].starts_with(&shown), "{told}");
    bed.assert_gone();
}

#[test]
fn the_daemon_keeps_nothing_of_its_caller() {
    needs_root!();
    let bed = Bed::new();
    let script = "exec 7</etc/passwd 8>kept; umask 077; exec \"$0\" -o lowerdir=a:b,upperdir=u,workdir=w m";
    let mut command = Command::new("sh");
    command.args(["-c", script, PLYFS]).current_dir(bed.dir.path());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // Reads both pipes to their end, which does not come as long as somebody holds them.
    let output = command.output().unwrap();
    assert_eq!((said(&output).as_str(), output.status.code()), ("", Some(0)));
    assert!(bed.entry().is_some());

    let process = PathBuf::from(format!("/proc/{}", bed.daemon().unwrap()));
    for entry in fs::read_dir(process.join("fd")).unwrap() {
        let (fd, file) = (entry.as_ref().unwrap().file_name(), fs::read_link(entry.unwrap().path()).unwrap());
        if ["0", "1", "2"].iter().any(|standard| fd == *standard) {
            assert_eq!(file, Path::new("/dev/null"));
        }
        let foreign = [Path::new("/etc/passwd"), &bed.path("kept")].contains(&file.as_path());
        assert!(!foreign && !file.starts_with("pipe:"), "{fd:?} is {file:?}");
    }
    assert_eq!(fs::read_link(process.join("cwd")).unwrap(), Path::new("/"));
    let status = fs::read_to_string(process.join("status")).unwrap();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
    assert_eq!(field("NSsid:"), field("Pid:"), "a session of its own");
    // Modes are what the mount's users ask for.
    fs::write(bed.path("m/open"), "").unwrap();
    fs::set_permissions(bed.path("m/open"), fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(fs::metadata(bed.path("u/open")).unwrap().mode() & 0o777, 0o666);
    let limits = fs::read_to_string(process.join("limits")).unwrap();
    let files: Vec<&str> =
        limits.lines().find(|line| line.starts_with("Max open files")).unwrap().split_whitespace().collect();
    assert_eq!(files[3], files[4]);
}

#[test]
fn layers_may_be_given_as_descriptors() {
    needs_root!();
    let bed = Bed::new();
    let script = "exec 8<a 9<b; exec \"$0\" -o lowerdir=/proc/self/fd/8:/dev/fd/9 m";
    let output = Command::new("sh").args(["-c", script, PLYFS]).current_dir(bed.dir.path()).output().unwrap();
    assert_eq!((said(&output).as_str(), output.status.code()), ("", Some(0)));
    assert_eq!(names(bed.path("m")), ["a", "b"]);
}

#[test]
fn closed_standard_streams_do_no_harm() {
    needs_root!();
    let bed = Bed::new();
    let script = "exec \"$@\" -o lowerdir=a:b,upperdir=u,workdir=w m <&- >&- 2>&-";
    let mut background = Command::new("sh");
    background.args(["-c", script, "sh", PLYFS]).current_dir(bed.dir.path());
    assert!(background.status().unwrap().success());
    assert_eq!(names(bed.path("m")), ["a", "b"]);
    unmount(bed.path("m"), UnmountFlags::empty()).unwrap();
    bed.assert_gone();

    let mut foreground = Command::new("sh");
    foreground.args(["-c", script, "sh", PLYFS, "-f"]).current_dir(bed.dir.path());
    let child = bed.start(&mut foreground);
    assert_eq!(names(bed.path("m")), ["a", "b"]);
    unmount(bed.path("m"), UnmountFlags::empty()).unwrap();
    ends_with(child, 0);
    bed.assert_gone();
}

#[test]
fn an_upper_has_one_mount() {
    needs_root!();
    let bed = Bed::new();
    bed.mount();
    fs::create_dir_all(bed.path("other/m")).unwrap();
    fs::create_dir(bed.path("other/d")).unwrap();
    let cases = [
        ("lowerdir=a,upperdir=u,workdir=other/d", "upperdir=u"),
        ("lowerdir=a,upperdir=other/d,workdir=w", "workdir=w"),
    ];
    for (options, named) in cases {
        let output = bed.plyfs().args(["-o", options, "other/m"]).output().unwrap();
        let line = format!("plyfs: {named}: in use by another mount\n");
        assert_eq!((said(&output), output.status.code()), (line, Some(1)));
    }
    assert_eq!(names(bed.path("m")), ["a", "b"]);
}

#[test]
fn allow_root_keeps_others_out() {
    needs_root!();
    let bed = Bed::new();
    let as_user = |path: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "1001", "--regid", "1001", "--clear-groups", "cat"]).arg(bed.path(path));
        command.output().unwrap()
    };
    bed.mount();
    assert!(!as_user("m/a").status.success());
    unmount(bed.path("m"), UnmountFlags::empty()).unwrap();
    bed.mount_with(",allow_root");
    // What root has looked at is not to be had from what the kernel keeps.
    assert_eq!(fs::read(bed.path("m/a")).unwrap(), b"a");
    assert!(said(&as_user("m/a")).contains("Permission denied"));
    let umount = bed.plyfs().args(["umount", "m"]).output().unwrap();
    assert_eq!(umount.status.code(), Some(0));
    bed.mount_with(",allow_other");
    assert_eq!(as_user("m/a").stdout, b"a");
}

#[test]
fn messages_go_to_the_log() {
    needs_root!();
    let bed = Bed::new();
    bed.mount_with(",log=log");
    bed.signal(Signal::USR1);
    let log = || fs::read_to_string(bed.path("log")).unwrap();
    wait_until("the counters are there", || log().contains("inodes known"));
    assert_eq!(fs::metadata(bed.path("log")).unwrap().mode() & 0o777, 0o600);

    let other = Bed::new();
    let child = other.serve();
    kill(child.id() as i32, Signal::USR1);
    sleep(Duration::from_millis(100));
    unmount(other.path("m"), UnmountFlags::empty()).unwrap();
    assert!(ends_with(child, 0).contains("inodes known"));
}

#[test]
fn in_a_user_namespace_it_mounts_by_itself() {
    let bed = Bed::new();
    let script = "\"$0\" -o lowerdir=a:b,upperdir=u,workdir=w,allow_other m && ls m && rm m/b && ls m && \"$0\" umount m && \
                  ls m && ls u | wc -l";
    let output = bed.unshared(&["-Urm"], "sh", script).output().unwrap();
    if said(&output).starts_with("unshare:") {
        return skip(&said(&output));
    }
    assert_eq!((said(&output).as_str(), output.status.code()), ("", Some(0)));
    assert!(String::from_utf8(output.stdout).unwrap().starts_with("a\nb\na\n"));
}

#[test]
fn users_mount_through_fusermount() {
    needs_root!();
    let bed = Bed::new();
    // A device node that users may open, seen by nobody else; and a program that they may run.
    let script = r#"
        set -e
        mknod fuse c 10 229; chmod 666 fuse; mount --bind fuse /dev/fuse
        cp "$0" plyfs; chown -R 65534:65534 .
        export TMPDIR=$PWD # for the control socket
        as_user() { setpriv --reuid 65534 --regid 65534 --clear-groups "$@"; }
        as_user ./plyfs -o lowerdir=a:b,upperdir=u,workdir=w,fsname=x\\,y m
        as_user sh -c 'echo new >m/new; rm m/a; ls m'
        grep -c "^x,y $PWD/m fuse.plyfs rw,nosuid,nodev,.*user_id=65534" /proc/mounts
        as_user ./plyfs umount m
        ls m
        (exec setpriv --reuid 65534 --regid 65534 --clear-groups ./plyfs -f -o lowerdir=a:b,upperdir=u,workdir=w m) &
        while ! grep -q "$PWD/m " /proc/mounts; do sleep 0.01; done
        as_user kill -TERM $!
        wait $! && echo ended
        grep "$PWD/m " /proc/mounts || echo gone
        as_user ./plyfs -o lowerdir=a:b,upperdir=u,workdir=w,auto_unmount m
        as_user cat m/new
        as_user kill -KILL "$(grep -l '^mount ' /proc/[0-9]*/task/*/comm | cut -d/ -f3)"
        while grep -q "$PWD/m " /proc/mounts; do sleep 0.01; done
        while readlink /proc/[0-9]*/exe | grep -q "$PWD/plyfs"; do sleep 0.01; done
        as_user rmdir m; as_user mkdir m
        as_user ./plyfs -o lowerdir=a,context=x m || echo refused
    "#;
    let output = bed.unshared(&["-mpf", "--mount-proc", "--kill-child"], "sh", script).output().unwrap();
    let told = said(&output);
    if ["fusermount3: not found", "setpriv: not found", "no fusermount3", "failed to open /dev/fuse"]
        .iter()
        .any(|why| told.contains(why))
    {
        return skip(&told);
    }
    let line = format!("plyfs: {}: fusermount3: unknown option 'context=x'\n", bed.path("m").display());
    assert_eq!((told, output.status.code()), (line, Some(0)));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "b\nnew\n1\nended\ngone\nnew\nrefused\n");
}
