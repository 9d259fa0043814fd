//! Device nodes, fifos and sockets.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::common::*;

fn mknod(tree: &Mounted, path: &str, kind: FileType, major: u32, minor: u32) -> Result<(), Errno> {
    rustix::fs::mknodat(CWD, tree.path(path), kind, Mode::from_raw_mode(0o666), rustix::fs::makedev(major, minor))
}

#[test]
fn device_nodes_work() {
    let mut tree = mount!(Setup::new().lower(|l| l.char_device("lower", 1, 5)));
    mknod(&tree, "zero", FileType::CharacterDevice, 1, 5).unwrap();
    for _ in 0..2 {
        for name in ["lower", "zero"] {
            let mut buffer = [7; 16];
            fs::File::open(tree.path(name)).unwrap().read_exact(&mut buffer).unwrap();
            assert_eq!(buffer, [0; 16], "{name}");
        }
        tree.remount();
    }
}

#[test]
fn numbers_of_devices_are_kept() {
    let tree = mount!(Setup::new().lower(|l| l.dir("d")));
    for (name, kind, major, minor) in [
        ("c", FileType::CharacterDevice, 511, 262_143),
        ("b", FileType::BlockDevice, 259, 70_000),
        ("c1", FileType::CharacterDevice, 0, 1),
        ("b0", FileType::BlockDevice, 0, 0),
    ] {
        mknod(&tree, name, kind, major, minor).unwrap();
        assert_eq!(tree.stat(name).st_rdev, rustix::fs::makedev(major, minor), "{name}");
        assert_eq!(FileType::from_raw_mode(tree.stat(name).st_mode), kind, "{name}");
    }
}

#[test]
fn device_that_would_be_a_whiteout_is_refused() {
    let tree = mount!(Setup::new().lower(|l| l.dir("d")));
    assert_eq!(mknod(&tree, "whiteout", FileType::CharacterDevice, 0, 0), Err(Errno::PERM));
    assert!(!tree.exists("whiteout"));
}

#[test]
fn only_root_makes_devices() {
    let tree = mount!(Setup::new().lower(|l| l.dir("d").mode("d", 0o777)));
    as_user(User::ALICE, || {
        assert_eq!(mknod(&tree, "d/null", FileType::CharacterDevice, 1, 3), Err(Errno::PERM));
        mknod(&tree, "d/fifo", FileType::Fifo, 0, 0).unwrap();
    });
}

#[test]
fn device_nodes_and_fifos_are_copied_up() {
    let tree = mount!(Setup::new().lower(|l| l.char_device("null", 1, 3).fifo("fifo")));
    for name in ["null", "fifo"] {
        let before = tree.stat(name);
        rustix::fs::chmod(tree.path(name), Mode::from_raw_mode(0o600)).unwrap();
        let (after, upper) = (tree.stat(name), lstat(tree.upper(name)).unwrap());
        assert_eq!((before.st_rdev, before.st_ino), (after.st_rdev, after.st_ino));
        assert_eq!((after.st_mode, after.st_rdev), (upper.st_mode, upper.st_rdev));
    }
}

#[test]
fn fifo_connects_two_processes() {
    let tree = mount!(Setup::new().lower(|l| l.fifo("lower")));
    mknod(&tree, "upper", FileType::Fifo, 0, 0).unwrap();
    for name in ["lower", "upper"] {
        let path = tree.path(name);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| fs::read_to_string(&path).unwrap());
            run(std::process::Command::new("sh").arg("-c").arg("printf hello > \"$0\"").arg(&path));
            assert_eq!(reader.join().unwrap(), "hello", "{name}");
        });
    }
}

#[test]
fn opening_a_fifo_for_writing_without_a_reader_does_not_hang() {
    let tree = mount!(Setup::new().lower(|l| l.fifo("fifo")));
    assert_eq!(errno(open(tree.path("fifo"), OFlags::WRONLY | OFlags::NONBLOCK)), Errno::NXIO);
}

#[test]
fn unix_socket_connects_two_processes() {
    let tree = mount!(Setup::new().lower(|l| l.dir("d")));
    let path = tree.path("d/socket");
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::scope(|scope| {
        let server = scope.spawn(|| {
            let mut text = String::new();
            listener.accept().unwrap().0.read_to_string(&mut text).unwrap();
            text
        });
        UnixStream::connect(&path).unwrap().write_all(b"hello").unwrap();
        assert_eq!(server.join().unwrap(), "hello");
    });
    assert_eq!(errno(UnixListener::bind(&path)), Errno::ADDRINUSE);
    fs::rename(&path, tree.path("renamed")).unwrap();
    drop(UnixStream::connect(tree.path("renamed")).unwrap());
    drop(listener);
    assert_eq!(errno(UnixStream::connect(tree.path("renamed"))), Errno::CONNREFUSED);
    fs::remove_file(tree.path("renamed")).unwrap();
    assert!(tree.list("d").is_empty());
}
