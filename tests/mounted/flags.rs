//! Inode flags, as chattr(1) sets them.

use std::fs;

use rustix::fs::{IFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::common::*;

/// Clears the flags of files that were to be removed with the test.
struct Cleared<'t>(&'t Mounted, &'static [&'static str]);

impl Drop for Cleared<'_> {
    fn drop(&mut self) {
        for path in self.1 {
            let _ = set(self.0, path, IFlags::empty());
        }
    }
}

fn set(tree: &Mounted, path: &str, flags: IFlags) -> Result<(), Errno> {
    let file = open(tree.path(path), OFlags::RDONLY | OFlags::NONBLOCK)?;
    // Flags that rustix does not know, such as that of extents, have to stay.
    let kept = rustix::fs::ioctl_getflags(&file)?.difference(IFlags::IMMUTABLE | IFlags::APPEND | IFlags::NOATIME);
    rustix::fs::ioctl_setflags(&file, kept.union(flags))
}

fn get(tree: &Mounted, path: &str) -> IFlags {
    let file = open(tree.path(path), OFlags::RDONLY).unwrap();
    rustix::fs::ioctl_getflags(file).unwrap() & (IFlags::IMMUTABLE | IFlags::APPEND | IFlags::NOATIME)
}

#[test]
fn immutable_files_are_not_changed() {
    let mut tree = mount!(Setup::new().lower(|l| l.file("lower", "x")));
    tree.write("upper", "x");
    for path in ["lower", "upper"] {
        set(&tree, path, IFlags::IMMUTABLE).unwrap();
    }
    for _ in 0..2 {
        for path in ["lower", "upper"] {
            assert_eq!(get(&tree, path), IFlags::IMMUTABLE, "{path}");
            assert_eq!(errno(open(tree.path(path), OFlags::WRONLY)), Errno::PERM, "{path}");
            assert_eq!(errno(fs::remove_file(tree.path(path))), Errno::PERM, "{path}");
            assert_eq!(errno(fs::rename(tree.path(path), tree.path("new"))), Errno::PERM, "{path}");
            assert_eq!(errno(fs::hard_link(tree.path(path), tree.path("new"))), Errno::PERM, "{path}");
            assert_eq!(rustix::fs::chmod(tree.path(path), Mode::from_raw_mode(0o600)), Err(Errno::PERM), "{path}");
            assert_eq!(set_xattr(&tree.path(path), "user.a", "1"), Err(Errno::PERM), "{path}");
            assert_eq!(tree.read(path), "x", "{path}");
        }
        tree.remount();
    }
    for path in ["lower", "upper"] {
        set(&tree, path, IFlags::empty()).unwrap();
        tree.append(path, "y");
        fs::remove_file(tree.path(path)).unwrap();
    }
}

#[test]
fn append_only_files_are_appended_to_only() {
    let mut tree = mount!(Setup::new().lower(|l| l.file("f", "x")));
    set(&tree, "f", IFlags::APPEND).unwrap();
    for content in ["xy", "xyy"] {
        assert_eq!(get(&tree, "f"), IFlags::APPEND);
        assert_eq!(errno(open(tree.path("f"), OFlags::WRONLY)), Errno::PERM);
        assert_eq!(errno(open(tree.path("f"), OFlags::WRONLY | OFlags::APPEND | OFlags::TRUNC)), Errno::PERM);
        assert_eq!(errno(fs::remove_file(tree.path("f"))), Errno::PERM);
        tree.append("f", "y");
        assert_eq!(tree.read("f"), content);
        tree.remount();
    }
    set(&tree, "f", IFlags::empty()).unwrap();
    fs::remove_file(tree.path("f")).unwrap();
}

#[test]
fn immutable_directory_takes_and_loses_nothing() {
    let tree = mount!(Setup::new().lower(|l| l.file("d/f", "x")));
    set(&tree, "d", IFlags::IMMUTABLE).unwrap();
    let _cleared = Cleared(&tree, &["d"]);
    assert_eq!(get(&tree, "d"), IFlags::IMMUTABLE);
    assert_eq!(errno(open(tree.path("d/new"), OFlags::CREATE | OFlags::WRONLY)), Errno::PERM);
    assert_eq!(errno(fs::create_dir(tree.path("d/new"))), Errno::PERM);
    assert_eq!(errno(fs::remove_file(tree.path("d/f"))), Errno::PERM);
    assert_eq!(errno(fs::rename(tree.path("d/f"), tree.path("f"))), Errno::PERM);
    assert_eq!(errno(fs::remove_dir(tree.path("d"))), Errno::PERM);
    tree.append("d/f", "y");
    assert_eq!(tree.read("d/f"), "xy");
}

#[test]
fn immutable_and_append_only_are_a_mark_in_the_upper() {
    let tree = mount!(Setup::new().lower(|l| l.file("f", "x")));
    set(&tree, "f", IFlags::IMMUTABLE).unwrap();
    let _cleared = Cleared(&tree, &["f"]);
    assert_eq!(xattr(&tree.upper("f"), "trusted.overlay.protattr").unwrap(), b"i");
    let upper = open(tree.upper("f"), OFlags::RDONLY).unwrap();
    assert!(!rustix::fs::ioctl_getflags(upper).unwrap().contains(IFlags::IMMUTABLE));
}

#[test]
fn other_flags_reach_the_upper() {
    let tree = mount!(Setup::new().lower(|l| l.file("f", "x").dir("d")));
    for path in ["f", "d"] {
        match set(&tree, path, IFlags::NOATIME) {
            Err(Errno::NOTTY | Errno::OPNOTSUPP) => skip!("the filesystem has no such flags"),
            result => result.unwrap(),
        }
        assert_eq!(get(&tree, path), IFlags::NOATIME, "{path}");
        let upper = open(tree.upper(path), OFlags::RDONLY).unwrap();
        assert!(rustix::fs::ioctl_getflags(upper).unwrap().contains(IFlags::NOATIME), "{path}");
    }
}

#[test]
fn only_root_sets_immutable() {
    let tree = mount!(Setup::new().lower(|l| l.file("f", "x").owner("f", 1001, 1001)));
    as_user(User::ALICE, || {
        assert_eq!(set(&tree, "f", IFlags::IMMUTABLE), Err(Errno::PERM));
        assert_eq!(set(&tree, "f", IFlags::APPEND), Err(Errno::PERM));
        set(&tree, "f", IFlags::NOATIME).unwrap();
    });
    as_user(User::BOB, || assert_ne!(set(&tree, "f", IFlags::NOATIME), Ok(())));
}

#[test]
fn flags_of_a_lower_file_are_seen_and_taken_along_by_copy_up() {
    let tree = mount!(Setup::new().lower(|l| {
        l.file("d/f", "x");
        let file = open(l.path("d/f"), OFlags::RDONLY).unwrap();
        let flags = rustix::fs::ioctl_getflags(&file).unwrap_or(IFlags::empty());
        let _ = rustix::fs::ioctl_setflags(&file, flags | IFlags::NOATIME);
        l
    }));
    let before = get(&tree, "d/f");
    tree.append("d/f", "y");
    assert_eq!(get(&tree, "d/f"), before);
}
