//! What is left after unmounting: the same tree, for plyfs and for the kernel.

use std::fs;
use std::os::unix::fs::symlink;

use rustix::fs::{Mode, RenameFlags};

use crate::common::*;
use crate::rename::{rename, rename_with};

fn setup() -> Setup {
    Setup::new()
        .lower(|l| {
            l.file("a", "a")
                .file("d/0", "0")
                .file("d/sub/0", "0")
                .files("many", 20)
                .symlink("l", "a")
                .fifo("p")
                .file("h1", "h")
                .hard_link("h2", "h1")
                .hard_link("d/h3", "h1")
        })
        .lower(|l| l.file("d/1", "1").file("d/sub/1", "1").file("d/sub/deep/1", "1").file("e/1", "1").files("many", 40))
}

/// Changes of every kind.
fn change(tree: &Mounted) {
    tree.append("a", "+");
    tree.write("new", "new");
    tree.append("h2", "+");
    fs::remove_file(tree.path("h1")).unwrap();
    for number in [1, 3, 5, 25, 35] {
        fs::remove_file(tree.path(format!("many/f{number}"))).unwrap();
    }
    fs::hard_link(tree.path("many/f7"), tree.path("e/link")).unwrap();
    rename(tree, "d/sub", "e/moved").unwrap();
    rename(tree, "e/moved/deep", "deep").unwrap();
    rename(tree, "d", "dd").unwrap();
    fs::create_dir(tree.path("d")).unwrap();
    tree.write("d/mine", "");
    fs::remove_dir_all(tree.path("deep")).unwrap();
    symlink("elsewhere", tree.path("new-link")).unwrap();
    rename_with(tree, "many/f8", "a", RenameFlags::EXCHANGE).unwrap();
    rustix::fs::chmod(tree.path("p"), Mode::from_raw_mode(0o600)).unwrap();
    std::os::unix::fs::lchown(tree.path("l"), Some(5), Some(6)).unwrap();
    set_xattr(&tree.path("dd/0"), "user.x", "1").unwrap();
}

fn inodes(tree: &Mounted) -> Vec<(String, u64)> {
    tree.tree().paths().into_iter().map(|path| (path.clone(), tree.ino(&path))).collect()
}

#[test]
fn tree_is_the_same_after_remount() {
    let mut tree = mount!(setup());
    change(&tree);
    let (before, numbers) = (tree.tree(), inodes(&tree));
    for _ in 0..2 {
        tree.remount();
        before.assert_eq(&tree.tree(), "another tree after remount");
        assert_eq!(inodes(&tree), numbers);
    }
}

#[test]
fn remounting_without_a_change_leaves_the_upper_as_it_is() {
    let mut tree = mount!(setup());
    change(&tree);
    tree.unmount();
    let before = Snapshot::of(&tree.upper(""), Detail::Layer);
    tree.mount();
    tree.tree();
    tree.unmount();
    before.assert_eq(&Snapshot::of(&tree.upper(""), Detail::Layer), "the upper was changed");
}

#[test]
fn changes_go_on_after_remount() {
    let mut tree = mount!(setup());
    for round in 0..5 {
        tree.append("a", &round.to_string());
        tree.append("d/sub/deep/1", "+");
        tree.write(format!("e/new{round}"), "");
        fs::remove_file(tree.path(format!("many/f{round}"))).unwrap();
        tree.append("h1", "+");
        tree.remount();
    }
    assert_eq!(tree.read("a"), "a01234");
    assert_eq!(tree.read("d/sub/deep/1"), "1+++++");
    assert_eq!(tree.list("e").len(), 6);
    assert_eq!(tree.list("many").len(), 35);
    assert_eq!(tree.read("d/h3"), "h+++++");
}

#[test]
fn upper_written_by_plyfs_is_the_same_tree_for_the_kernel() {
    plyfs_only!("both take part");
    let mut tree = mount!(setup());
    change(&tree);
    let before = tree.tree();
    tree.switch_to(Backend::Kernel);
    before.assert_eq(&tree.tree(), "another tree on the kernel's overlayfs");
    // And what the kernel does to it, plyfs takes up.
    tree.append("many/f10", "+");
    rename(&tree, "dd", "d/dd").unwrap();
    fs::remove_file(tree.path("e/1")).unwrap();
    tree.append("d/dd/h3", "+");
    let before = tree.tree();
    tree.switch_to(Backend::Plyfs);
    before.assert_eq(&tree.tree(), "another tree on plyfs");
}

#[test]
fn upper_written_by_the_kernel_is_the_same_tree_for_plyfs() {
    plyfs_only!("both take part");
    let mut tree = mount!(setup());
    tree.switch_to(Backend::Kernel);
    change(&tree);
    let before = tree.tree();
    tree.switch_to(Backend::Plyfs);
    before.assert_eq(&tree.tree(), "another tree on plyfs");
    tree.append("many/f10", "+");
    rename(&tree, "dd", "d/dd").unwrap();
    tree.append("d/dd/h3", "+");
    fs::remove_dir_all(tree.path("e/moved")).unwrap();
    let before = tree.tree();
    tree.switch_to(Backend::Kernel);
    before.assert_eq(&tree.tree(), "another tree on the kernel's overlayfs");
}

#[test]
fn inode_numbers_of_lower_files_do_not_depend_on_the_order_of_lookups() {
    let mut tree = mount!(setup());
    let first = tree.ino("d/sub/deep/1");
    tree.remount();
    tree.tree();
    assert_eq!(tree.ino("d/sub/deep/1"), first);
}
