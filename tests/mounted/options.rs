//! Options that change what the tree does.

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::common::*;

fn setup(options: &[&str]) -> Setup {
    let setup = Setup::new().lower(|l| l.dir("d/sub").file("f", "content").owner("f", 1001, 1001));
    options.iter().fold(setup, |setup, option| setup.option(option))
}

#[test]
fn squashed_files_show_one_owner_and_are_made_with_it() {
    plyfs_only!("the kernel's overlayfs has no such option");
    let tree = mount!(setup(&["squash_to_uid=1234", "squash_to_gid=2345"]));
    tree.write("new", "");
    for path in ["f", "d", "new"] {
        assert_eq!((tree.stat(path).st_uid, tree.stat(path).st_gid), (1234, 2345), "{path}");
    }
    let made = lstat(tree.upper("new")).unwrap();
    assert_eq!((made.st_uid, made.st_gid), (1234, 2345));
    // The copy is its source's owner's, whatever is shown.
    tree.append("f", "+");
    assert_eq!(lstat(tree.upper("f")).unwrap().st_uid, 1001);
}

#[test]
fn files_squashed_to_root_are_roots() {
    plyfs_only!("the kernel's overlayfs has no such option");
    let tree = mount!(setup(&["squash_to_root"]));
    assert_eq!((tree.stat("f").st_uid, tree.stat("f").st_gid), (0, 0));
}

#[test]
fn noacl_refuses_acls() {
    plyfs_only!("the kernel's overlayfs has no such option");
    let tree = mount!(setup(&["noacl"]));
    let entry = |tag: u8| [tag, 0, 6, 0, 255, 255, 255, 255];
    // The owner, the group and the others.
    let acl = [&[2, 0, 0, 0][..], &entry(1), &entry(4), &entry(0x20)].concat();
    assert_eq!(set_xattr(&tree.path("f"), "system.posix_acl_access", acl), Err(Errno::OPNOTSUPP));
}

#[test]
fn static_nlink_counts_no_subdirectories() {
    plyfs_only!("the kernel's overlayfs has no such option");
    let tree = mount!(setup(&["static_nlink"]));
    assert_eq!((tree.stat("d").st_nlink, tree.stat("f").st_nlink), (1, 1));
}

#[test]
fn writes_gathered_by_the_kernel_are_written() {
    plyfs_only!("the kernel's overlayfs has no such option");
    let mut tree = mount!(setup(&["writeback=1"]));
    for number in 0..100 {
        tree.append("f", "+");
        assert_eq!(tree.read("f").len(), 8 + number);
    }
    let file = open(tree.path("f"), OFlags::WRONLY).unwrap();
    rustix::io::pwrite(&file, b"C", 0).unwrap();
    rustix::fs::fsync(&file).unwrap();
    assert_eq!(&std::fs::read(tree.upper("f")).unwrap()[..8], b"Content+");
    drop(file);
    tree.remount();
    assert_eq!(tree.read("f"), format!("Content{}", "+".repeat(100)));
}

#[test]
fn what_is_gathered_is_no_hole() {
    plyfs_only!("the kernel's overlayfs has no such option");
    let tree = mount!(setup(&["writeback=1"]));
    let file = open(tree.path("new"), OFlags::CREATE | OFlags::RDWR).unwrap();
    rustix::io::write(&file, &[b'x'; 8192]).unwrap();
    assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(0)), Ok(0));
    assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(0)), Ok(8192));
}

#[test]
fn gathered_append_only_files_are_closed_without_an_error() {
    plyfs_only!("the kernel's overlayfs has no such option");
    let tree = mount!(setup(&["writeback=1"]));
    tree.append("f", "+");
    run(std::process::Command::new("chattr").arg("+a").arg(tree.path("f")));
    let file = open(tree.path("f"), OFlags::WRONLY | OFlags::APPEND).unwrap();
    rustix::io::write(&file, b"+").unwrap();
    rustix::fs::fsync(&file).unwrap();
    drop(file);
    run(std::process::Command::new("chattr").arg("-a").arg(tree.path("f")));
    assert_eq!(tree.read("f"), "content++");
}

#[test]
fn gathered_writes_leave_times_alone_that_were_told() {
    plyfs_only!("the kernel's overlayfs has no such option");
    let mut tree = mount!(setup(&["writeback=1"]));
    for number in 0..20 {
        tree.write(format!("new{number}"), "new");
    }
    let before = tree.tree();
    tree.remount();
    before.assert_eq(&tree.tree(), "after a remount");
}

#[test]
fn the_smallest_caches_and_no_timeouts_show_the_same_tree() {
    plyfs_only!("the kernel's overlayfs has no such options");
    let small = ["cache_attrs=1", "cache_missing=1", "cache_listings=1", "cache_dirs=1", "timeout=0", "threads=4"];
    let mut tree = mount!(setup(&small));
    tree.write("d/sub/new", "n");
    std::fs::rename(tree.path("d"), tree.path("e")).unwrap();
    assert_eq!((tree.list(""), tree.list("e/sub")), (vec!["e".to_owned(), "f".to_owned()], vec!["new".to_owned()]));
    let before = tree.tree();
    tree.remount();
    before.assert_eq(&tree.tree(), "after a remount");
}

#[test]
fn volatile_mounts_are_marked_for_the_next() {
    let tree = mount!(setup(&["volatile"]).kernel_options("volatile"));
    tree.append("f", "+");
    assert_eq!(tree.read("f"), "content+");
    assert!(tree.beside("work/work/incompat/volatile").exists());
    // Whoever takes the mark away vouches for the upper.
    std::fs::remove_dir_all(tree.beside("work/work/incompat")).unwrap();
}
