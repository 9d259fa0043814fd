//! `volatile`: nothing waits for the disk, and the upper is not to be trusted afterwards.

use std::fs;

use rustix::fs::OFlags;

use crate::common::*;

fn setup() -> Setup {
    Setup::new().lower(|l| l.file("f", "content").dir("d")).both("volatile")
}

/// What volatile mounts leave behind.
const INCOMPAT: &str = "work/work/incompat";

fn trust(tree: &Mounted) {
    fs::remove_dir_all(tree.beside(INCOMPAT)).unwrap();
}

fn other(backend: Backend) -> Backend {
    if backend == Backend::Plyfs { Backend::Kernel } else { Backend::Plyfs }
}

#[test]
fn everything_is_synchronised_at_once() {
    let tree = mount!(setup());
    tree.append("f", "+");
    tree.write("new", "new");
    for path in ["f", "new", "d"] {
        let flags = if path == "d" { OFlags::RDONLY | OFlags::DIRECTORY } else { OFlags::RDONLY };
        let file = open(tree.path(path), flags).unwrap();
        rustix::fs::fsync(&file).unwrap();
        rustix::fs::fdatasync(&file).unwrap();
        rustix::fs::syncfs(&file).unwrap();
    }
    let synchronous = open(tree.path("f"), OFlags::WRONLY | OFlags::SYNC | OFlags::APPEND).unwrap();
    rustix::io::write(&synchronous, b"+").unwrap();
    assert_eq!((tree.read("f").as_str(), tree.read("new").as_str()), ("content++", "new"));
    trust(&tree);
}

#[test]
fn used_upper_is_refused_until_it_is_vouched_for() {
    let mut tree = mount!(setup());
    tree.append("f", "+");
    let dirty = tree.beside(INCOMPAT).join("volatile");
    assert!(dirty.is_dir());
    tree.unmount_dirty();
    for options in ["volatile", "redirect_dir=on", "userxattr"] {
        tree.set_options(options);
        let error = tree.try_mount().err().unwrap_or_else(|| panic!("{options}: mounted"));
        assert!(tree.backend() == Backend::Kernel || error.contains("volatile"), "{error}");
        assert!(dirty.is_dir(), "{options}");
    }
    trust(&tree);
    tree.set_options("redirect_dir=on");
    tree.mount();
    assert_eq!(tree.read("f"), "content+");
    assert!(!tree.beside(INCOMPAT).exists());
    tree.remount();
}

#[test]
fn upper_used_by_one_is_refused_by_the_other() {
    plyfs_only!("both take part");
    needs_root!();
    for first in [Backend::Plyfs, Backend::Kernel] {
        let mut tree = setup().mount_by(first);
        tree.append("f", "+");
        tree.unmount_dirty();
        tree.set_backend(other(first));
        tree.set_options("redirect_dir=on");
        assert!(tree.try_mount().is_err(), "left by {first:?}");
        trust(&tree);
        tree.mount();
        assert_eq!(tree.read("f"), "content+");
    }
}

#[test]
fn what_is_left_is_what_the_kernel_leaves() {
    let mut tree = mount!(setup());
    tree.unmount_dirty();
    let left = Snapshot::of(&tree.beside("work/work"), Detail::Layer).paths();
    assert_eq!(left, ["", "incompat", "incompat/volatile", "incompat/volatile/dirty"]);
    trust(&tree);
}

#[test]
fn marks_of_other_features_are_refused_as_well() {
    needs_root!();
    let mut tree = setup().prepare(Backend::chosen());
    tree.set_options("redirect_dir=on");
    fs::create_dir_all(tree.beside(INCOMPAT).join("later")).unwrap();
    assert!(tree.try_mount().is_err());
    // The directory alone says nothing.
    fs::remove_dir(tree.beside(INCOMPAT).join("later")).unwrap();
    tree.mount();
    assert!(!tree.beside(INCOMPAT).exists());
}

#[test]
fn without_an_upper_it_means_nothing() {
    let mut tree = mount!(setup().lower(|l| l.dir("below")).read_only());
    assert_eq!(tree.read("f"), "content");
    tree.remount();
    assert_eq!(tree.read("f"), "content");
}
