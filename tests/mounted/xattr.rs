//! Extended attributes.

use std::fs;

use rustix::fs::{Mode, OFlags, XattrFlags};
use rustix::io::Errno;

use crate::common::*;

#[test]
fn attributes_of_lower_and_upper_objects_are_set_listed_and_removed() {
    let mut tree =
        mount!(Setup::new().lower(|l| l.file("file", "x").xattr("file", "user.lower", "1").dir("dir").xattr(
            "dir",
            "user.lower",
            "1"
        )));
    tree.write("new", "x");
    for name in ["file", "dir", "new"] {
        let path = tree.path(name);
        set_xattr(&path, "user.a", "value").unwrap();
        set_xattr(&path, "user.empty", "").unwrap();
        assert_eq!(xattr(&path, "user.a").unwrap(), b"value");
        assert_eq!(xattr(&path, "user.empty").unwrap(), b"");
        rustix::fs::lsetxattr(&path, "user.a", b"other", XattrFlags::REPLACE).unwrap();
        assert_eq!(xattr(&path, "user.a").unwrap(), b"other");
    }
    for _ in 0..2 {
        assert_eq!(xattr_names(&tree.path("file"), "user."), ["user.a", "user.empty", "user.lower"]);
        assert_eq!(xattr_names(&tree.path("dir"), "user."), ["user.a", "user.empty", "user.lower"]);
        assert_eq!(xattr_names(&tree.path("new"), "user."), ["user.a", "user.empty"]);
        tree.remount();
    }
    for name in ["file", "dir"] {
        let path = tree.path(name);
        rustix::fs::lremovexattr(&path, "user.lower").unwrap();
        rustix::fs::lremovexattr(&path, "user.a").unwrap();
        assert_eq!(xattr(&path, "user.lower"), Err(Errno::NODATA));
        assert_eq!(xattr_names(&path, "user."), ["user.empty"]);
    }
}

#[test]
fn flags_are_obeyed_and_a_failure_copies_nothing_up() {
    let tree = mount!(Setup::new().lower(|l| l.file("f", "x").xattr("f", "user.there", "1")));
    let path = tree.path("f");
    let set = |name: &str, flags| rustix::fs::lsetxattr(&path, name, b"2", flags);
    assert_eq!(set("user.there", XattrFlags::CREATE), Err(Errno::EXIST));
    assert_eq!(set("user.none", XattrFlags::REPLACE), Err(Errno::NODATA));
    assert_eq!(rustix::fs::lremovexattr(&path, "user.none"), Err(Errno::NODATA));
    assert_eq!(xattr(&path, "user.none"), Err(Errno::NODATA));
    set("user.none", XattrFlags::CREATE).unwrap();
    set("user.there", XattrFlags::REPLACE).unwrap();
    assert_eq!(xattr(&path, "user.there").unwrap(), b"2");
    assert_eq!(xattr(&tree.lower(0, "f"), "user.there").unwrap(), b"1");
}

#[test]
fn removal_of_a_missing_attribute_copies_nothing_up() {
    let tree = mount!(Setup::new().lower(|l| l.file("f", "x")));
    assert_eq!(rustix::fs::lremovexattr(tree.path("f"), "user.none"), Err(Errno::NODATA));
    assert_eq!(errno(lstat(tree.upper("f"))), Errno::NOENT);
}

#[test]
fn attributes_are_kept_over_copy_up() {
    let tree = mount!(Setup::new().lower(|l| {
        l.file("f", "x")
            .xattr("f", "user.a", "1")
            .xattr("f", "trusted.b", "2")
            .xattr("f", "user.big", "v".repeat(3000))
            .dir("d")
            .xattr("d", "user.a", "1")
            .xattr("d", "trusted.b", "2")
            .xattr("f", "security.test", "3")
    }));
    let before: Vec<_> = ["f", "d"].iter().map(|name| xattrs(&tree.path(name))).collect();
    for (name, before) in ["f", "d"].iter().zip(&before) {
        rustix::fs::chmod(tree.path(name), Mode::from_raw_mode(0o700)).unwrap();
        assert!(lstat(tree.upper(name)).is_ok());
        assert_eq!(&xattrs(&tree.path(name)), before, "{name}");
    }
    assert_eq!(before[0].len(), 4);
}

#[test]
fn sizes_are_told_and_short_buffers_refused() {
    let tree = mount!(Setup::new().lower(|l| l.file("f", "x").xattr("f", "user.a", "value")));
    let path = tree.path("f");
    assert_eq!(rustix::fs::lgetxattr_query(&path, "user.a"), Ok(5));
    assert_eq!(rustix::fs::lgetxattr(&path, "user.a", &mut [0; 4][..]), Err(Errno::RANGE));
    assert_eq!(rustix::fs::llistxattr_query(&path), Ok(7));
    assert_eq!(rustix::fs::llistxattr(&path, &mut [0; 6][..]), Err(Errno::RANGE));
}

#[test]
fn trusted_attributes_are_for_root() {
    let tree = mount!(
        Setup::new().lower(|l| l
            .file("f", "x")
            .xattr("f", "trusted.a", "1")
            .xattr("f", "user.b", "2")
            .mode("f", 0o666))
    );
    let path = tree.path("f");
    assert_eq!(xattr(&path, "trusted.a").unwrap(), b"1");
    set_xattr(&path, "trusted.new", "2").unwrap();
    as_user(User::ALICE, || {
        assert_eq!(xattr_names(&path, ""), ["user.b"]);
        assert_eq!(xattr(&path, "trusted.a"), Err(Errno::NODATA));
        assert_eq!(set_xattr(&path, "trusted.a", "x"), Err(Errno::PERM));
    });
    rustix::fs::lremovexattr(&path, "trusted.a").unwrap();
    assert_eq!(xattr_names(&path, "trusted."), ["trusted.new"]);
}

#[test]
fn own_marks_are_not_shown() {
    let tree = mount!(
        Setup::new()
            .lower(|l| l.file("d/f", "x").file("e/x", "").opaque("o", Form::Trusted))
            .lower(|l| l.file("o/x", ""))
    );
    tree.append("d/f", "y");
    fs::rename(tree.path("e"), tree.path("d/e")).unwrap();
    fs::remove_file(tree.path("d/e/x")).unwrap();
    for path in ["", "d", "d/f", "d/e", "o"] {
        assert_eq!(xattr_names(&tree.path(path), "trusted."), Vec::<String>::new(), "{path}");
        for mark in ["origin", "impure", "opaque", "redirect", "nlink"] {
            assert_eq!(
                xattr(&tree.path(path), &format!("trusted.overlay.{mark}")),
                Err(Errno::NODATA),
                "{path} {mark}"
            );
        }
    }
    assert!(xattr(&tree.upper("d/e"), "trusted.overlay.redirect").is_ok());
}

#[test]
fn marks_set_through_the_mount_are_escaped() {
    let mut tree = mount!(Setup::new().lower(|l| l.file("d/f", "x")));
    let path = tree.path("d");
    set_xattr(&path, "trusted.overlay.opaque", "y").unwrap();
    assert_eq!(xattr(&path, "trusted.overlay.opaque").unwrap(), b"y");
    assert_eq!(xattr(&tree.upper("d"), "trusted.overlay.overlay.opaque").unwrap(), b"y");
    for _ in 0..2 {
        assert_eq!(tree.list("d"), ["f"]);
        assert_eq!(xattr_names(&tree.path("d"), "trusted."), ["trusted.overlay.opaque"]);
        tree.remount();
    }
    rustix::fs::lremovexattr(tree.path("d"), "trusted.overlay.opaque").unwrap();
    assert_eq!(xattr_names(&tree.path("d"), "trusted."), Vec::<String>::new());
}

#[test]
fn attributes_of_symlinks_and_nodes() {
    let tree = mount!(Setup::new().lower(|l| l.symlink("link", "x").fifo("fifo")));
    for name in ["link", "fifo"] {
        assert_eq!(set_xattr(&tree.path(name), "user.a", "1"), Err(Errno::PERM), "{name}");
        set_xattr(&tree.path(name), "trusted.a", "1").unwrap();
        assert_eq!(xattr(&tree.path(name), "trusted.a").unwrap(), b"1", "{name}");
    }
}

#[test]
fn attributes_through_open_files() {
    let tree = mount!(Setup::new().lower(|l| l.file("f", "x")));
    let file = open(tree.path("f"), OFlags::RDONLY).unwrap();
    rustix::fs::fsetxattr(&file, "user.a", b"1", XattrFlags::empty()).unwrap();
    let mut buffer = [0; 10];
    assert_eq!(rustix::fs::fgetxattr(&file, "user.a", &mut buffer[..]), Ok(1));
    assert_eq!(xattr(&tree.path("f"), "user.a").unwrap(), b"1");
}

#[test]
fn only_who_may_write_sets_attributes() {
    let tree = mount!(
        Setup::new().lower(|l| l
            .file("f", "x")
            .file("secret", "x")
            .mode("secret", 0o600)
            .xattr("secret", "user.a", "1"))
    );
    as_user(User::ALICE, || {
        assert_eq!(set_xattr(&tree.path("f"), "user.a", "1"), Err(Errno::ACCESS));
        assert_eq!(xattr(&tree.path("secret"), "user.a"), Err(Errno::ACCESS));
    });
}

#[test]
fn too_large_and_unknown_attributes_are_refused() {
    let tree = mount!(Setup::new().lower(|l| l.file("f", "x")));
    let path = tree.path("f");
    assert_eq!(set_xattr(&path, "user.a", vec![0; 65537]), Err(Errno::TOOBIG));
    assert_eq!(set_xattr(&path, &format!("user.{}", "n".repeat(251)), ""), Err(Errno::RANGE));
    assert_eq!(set_xattr(&path, "unknown.a", ""), Err(Errno::OPNOTSUPP));
}

#[test]
fn setting_an_attribute_moves_the_change_time_only() {
    let tree = mount!(Setup::new().lower(|l| l.file("f", "x").time("f", 1_000_000_000, 1)));
    let before = tree.stat("f");
    set_xattr(&tree.path("f"), "user.a", "1").unwrap();
    let after = tree.stat("f");
    assert_eq!((after.st_mtime, after.st_mtime_nsec), (1_000_000_000, 1));
    assert!((after.st_ctime, after.st_ctime_nsec) >= (before.st_ctime, before.st_ctime_nsec));
}
