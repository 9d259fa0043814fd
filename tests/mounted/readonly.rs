//! Mounts without an upper.

use std::fs;
use std::os::unix::fs::symlink;

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::common::*;

fn setup() -> Setup {
    Setup::new()
        .lower(|l| l.file("f", "x").file("d/0", "").dir("empty").whiteout("gone", Form::Device).symlink("l", "f"))
        .lower(|l| l.file("d/1", "").file("gone", ""))
        .read_only()
}

#[test]
fn tree_is_merged() {
    let tree = mount!(setup());
    assert_eq!(tree.list(""), ["d", "empty", "f", "l"]);
    assert_eq!(tree.list("d"), ["0", "1"]);
    assert_eq!(tree.read("f"), "x");
    assert_eq!(tree.read("l"), "x");
    assert!(!tree.exists("gone"));
}

#[test]
fn every_change_is_erofs() {
    let tree = mount!(setup());
    let path = |name: &str| tree.path(name);
    let mode = Mode::from_raw_mode(0o644);
    let time = rustix::fs::Timespec { tv_sec: 1, tv_nsec: 0 };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    let results = [
        ("create", open(path("new"), OFlags::CREATE | OFlags::WRONLY).map(drop)),
        ("write", open(path("f"), OFlags::WRONLY).map(drop)),
        ("truncate", open(path("f"), OFlags::WRONLY | OFlags::TRUNC).map(drop)),
        ("mkdir", rustix::fs::mkdir(path("new"), mode)),
        ("symlink", symlink("x", path("new")).map_err(|error| error.errno())),
        ("mknod", rustix::fs::mknodat(CWD, path("new"), FileType::Fifo, mode, 0)),
        ("link", rustix::fs::link(path("f"), path("new"))),
        ("unlink", rustix::fs::unlink(path("f"))),
        ("rmdir", rustix::fs::rmdir(path("empty"))),
        ("rename", rustix::fs::rename(path("f"), path("new"))),
        ("rename a directory", rustix::fs::rename(path("d"), path("new"))),
        ("chmod", rustix::fs::chmod(path("f"), mode)),
        ("chown", rustix::fs::chown(path("f"), Some(rustix::fs::Uid::from_raw(1)), None)),
        ("utimens", rustix::fs::utimensat(CWD, path("f"), &times, rustix::fs::AtFlags::empty())),
        ("setxattr", set_xattr(&path("f"), "user.a", "1")),
        ("removexattr", rustix::fs::lremovexattr(path("f"), "user.a")),
    ];
    for (what, result) in results {
        assert_eq!(result, Err(Errno::ROFS), "{what}");
    }
}

#[test]
fn missing_and_existing_names_have_their_own_errnos() {
    let tree = mount!(setup());
    assert_eq!(rustix::fs::unlink(tree.path("none")), Err(Errno::ROFS));
    assert_eq!(errno(open(tree.path("none"), OFlags::RDWR)), Errno::NOENT);
    assert_eq!(errno(fs::create_dir(tree.path("f"))), Errno::EXIST);
}

#[test]
fn files_are_mapped_locked_and_run() {
    let tree = mount!(
        Setup::new()
            .lower(|l| {
                fs::copy("/bin/cat", l.path("cat")).unwrap();
                l.file("f", "content")
            })
            .lower(|l| l)
            .read_only()
    );
    let file = open(tree.path("f"), OFlags::RDONLY).unwrap();
    assert_eq!(Mapping::new(&file, 7, false).read(), b"content");
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    assert_eq!(run(std::process::Command::new(tree.path("cat")).arg(tree.path("f"))), "content");
}

#[test]
fn access_says_read_only() {
    let tree = mount!(setup());
    let access = |what| rustix::fs::accessat(CWD, tree.path("f"), what, rustix::fs::AtFlags::empty());
    assert_eq!(access(rustix::fs::Access::READ_OK), Ok(()));
    assert_eq!(access(rustix::fs::Access::WRITE_OK), Err(Errno::ROFS));
}
