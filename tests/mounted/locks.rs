//! File locks between processes.

use std::process::{Command, Stdio};

use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;

use crate::common::*;

/// A process that holds a lock on `path` (the first argument of `script`, which says so by a line) until it ends.
fn holder(script: &str, path: &std::path::Path) -> Running {
    use std::io::BufRead;
    let mut command = Command::new("python3");
    command.arg("-c").arg(script).arg(path).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = Running(command.spawn().unwrap());
    let mut line = String::new();
    std::io::BufReader::new(child.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "locked\n");
    child
}

const FLOCK: &str = "
import fcntl, sys
file = open(sys.argv[1], 'r')
fcntl.flock(file, fcntl.LOCK_EX)
print('locked', flush=True)
sys.stdin.read()
";

const FCNTL: &str = "
import fcntl, sys
file = open(sys.argv[1], 'r+')
fcntl.lockf(file, fcntl.LOCK_EX, 10, 5)
print('locked', flush=True)
sys.stdin.read()
";

fn has_python() -> bool {
    Command::new("python3").arg("-c").arg("").status().is_ok_and(|status| status.success())
}

/// Locks a range of a file by fcntl(2), without waiting.
fn fcntl_lock(file: &std::fs::File, start: i64, len: i64) -> Result<(), Errno> {
    use std::os::fd::AsRawFd;
    let lock = libc::flock {
        l_type: libc::F_WRLCK as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: start,
        l_len: len,
        l_pid: 0,
    };
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error().errno()),
    }
}

#[test]
fn flock_excludes_another_process() {
    let tree = mount!(Setup::new().lower(|l| l.file("lower", "")));
    if !has_python() {
        skip!("needs python3");
    }
    tree.write("upper", "");
    for name in ["lower", "upper"] {
        let child = holder(FLOCK, &tree.path(name));
        let file = open(tree.path(name), OFlags::RDONLY).unwrap();
        assert_eq!(rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive), Err(Errno::AGAIN), "{name}");
        assert_eq!(rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared), Err(Errno::AGAIN), "{name}");
        drop(child);
        rustix::fs::flock(&file, FlockOperation::LockExclusive).unwrap();
    }
}

#[test]
fn fcntl_lock_excludes_another_process_from_its_range() {
    let tree = mount!(Setup::new().lower(|l| l.file("lower", "0123456789").file("other", "")));
    if !has_python() {
        skip!("needs python3");
    }
    tree.write("upper", "");
    for name in ["lower", "upper"] {
        let child = holder(FCNTL, &tree.path(name));
        let file = open(tree.path(name), OFlags::RDWR).unwrap();
        assert_eq!(fcntl_lock(&file, 0, 6), Err(Errno::AGAIN), "{name}");
        assert_eq!(fcntl_lock(&file, 0, 5), Ok(()), "{name}");
        assert_eq!(fcntl_lock(&file, 15, 5), Ok(()), "{name}");
        drop(child);
        assert_eq!(fcntl_lock(&file, 0, 0), Ok(()), "{name}");
    }
}

#[test]
fn flock_excludes_across_copy_up() {
    let tree = mount!(Setup::new().lower(|l| l.file("f", "x")));
    let reader = open(tree.path("f"), OFlags::RDONLY).unwrap();
    rustix::fs::flock(&reader, FlockOperation::LockExclusive).unwrap();
    let writer = open(tree.path("f"), OFlags::RDWR).unwrap();
    assert_eq!(rustix::fs::flock(&writer, FlockOperation::NonBlockingLockExclusive), Err(Errno::AGAIN));
    drop(reader);
    rustix::fs::flock(&writer, FlockOperation::NonBlockingLockExclusive).unwrap();
}

#[test]
fn waiting_for_a_lock_ends_when_it_is_free() {
    let tree = mount!(Setup::new().lower(|l| l.file("f", "x")));
    let first = open(tree.path("f"), OFlags::RDONLY).unwrap();
    rustix::fs::flock(&first, FlockOperation::LockExclusive).unwrap();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            let second = open(tree.path("f"), OFlags::RDONLY).unwrap();
            rustix::fs::flock(&second, FlockOperation::LockExclusive)
        });
        rustix::fs::flock(&first, FlockOperation::Unlock).unwrap();
        waiter.join().unwrap().unwrap();
    });
}

#[test]
fn directories_are_locked_too() {
    let tree = mount!(Setup::new().lower(|l| l.dir("d")));
    let one = open(tree.path("d"), OFlags::RDONLY | OFlags::DIRECTORY).unwrap();
    let two = open(tree.path("d"), OFlags::RDONLY | OFlags::DIRECTORY).unwrap();
    rustix::fs::flock(&one, FlockOperation::LockExclusive).unwrap();
    assert_eq!(rustix::fs::flock(&two, FlockOperation::NonBlockingLockExclusive), Err(Errno::AGAIN));
}
