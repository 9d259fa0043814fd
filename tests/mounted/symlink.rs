//! Symbolic links.

use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::symlink;

use rustix::io::Errno;

use crate::common::*;

#[test]
fn targets_are_bytes() {
    let tree = mount!(Setup::new().lower(|l| l.dir("d")));
    let target = std::ffi::OsStr::from_bytes(b"\xff/caf\xe9\n");
    symlink(target, tree.path("d/link")).unwrap();
    for path in [tree.path("d/link"), tree.upper("d/link")] {
        assert_eq!(fs::read_link(path).unwrap().into_os_string().into_vec(), target.as_bytes());
    }
}

#[test]
fn longest_target_works_and_longer_is_refused() {
    let tree = mount!(Setup::new().lower(|l| l.dir("d")));
    // XFS takes up to 1023 bytes, others 4095.
    let target = match symlink("x".repeat(4095), tree.beside("probe")) {
        Ok(()) => "x".repeat(4095),
        Err(_) => "x".repeat(1023),
    };
    symlink(&target, tree.path("d/link")).unwrap();
    assert_eq!(fs::read_link(tree.path("d/link")).unwrap().as_os_str(), &*target);
    assert_eq!(tree.stat("d/link").st_size as usize, target.len());
    assert_eq!(errno(symlink("x".repeat(4096), tree.path("d/too-long"))), Errno::NAMETOOLONG);
    assert_eq!(errno(symlink("", tree.path("d/empty"))), Errno::NOENT);
}

#[test]
fn link_over_a_whiteout() {
    let mut tree = mount!(Setup::new().lower(|l| l.file("d/f", "x").file("d/dir/x", "")));
    fs::remove_file(tree.path("d/f")).unwrap();
    fs::remove_dir_all(tree.path("d/dir")).unwrap();
    symlink("one", tree.path("d/f")).unwrap();
    symlink("two", tree.path("d/dir")).unwrap();
    for _ in 0..2 {
        assert_eq!(fs::read_link(tree.path("d/f")).unwrap().as_os_str(), "one");
        assert_eq!(fs::read_link(tree.path("d/dir")).unwrap().as_os_str(), "two");
        tree.remount();
    }
}

#[test]
fn link_replaced_by_another_is_read_anew() {
    let tree = mount!(Setup::new().lower(|l| l.symlink("d/link", "old")));
    for round in 0..5 {
        let target = format!("target{round}");
        symlink(&target, tree.path("d/new")).unwrap();
        fs::rename(tree.path("d/new"), tree.path("d/link")).unwrap();
        assert_eq!(fs::read_link(tree.path("d/link")).unwrap().as_os_str(), &*target);
    }
}

#[test]
fn absolute_link_leads_out_of_the_tree_and_loops_end() {
    let tree = mount!(Setup::new().lower(|l| l.symlink("null", "/dev/null").symlink("a", "b").symlink("b", "a")));
    assert!(fs::read(tree.path("null")).unwrap().is_empty());
    assert_eq!(errno(fs::read(tree.path("a"))), Errno::LOOP);
}

#[test]
fn readlink_of_other_types_is_einval() {
    let tree = mount!(Setup::new().lower(|l| l.file("file", "").dir("dir")));
    assert_eq!(errno(fs::read_link(tree.path("file"))), Errno::INVAL);
    assert_eq!(errno(fs::read_link(tree.path("dir"))), Errno::INVAL);
}
