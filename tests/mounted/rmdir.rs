//! Removing directories.

use std::fs;

use rustix::io::Errno;

use crate::common::*;

#[test]
fn removed_lower_directory_leaves_a_whiteout() {
    let mut tree = mount!(Setup::new().lower(|l| l.dir("d").dir("p/e")));
    fs::remove_dir(tree.path("d")).unwrap();
    fs::remove_dir(tree.path("p/e")).unwrap();
    assert!(tree.is_whiteout("d") && tree.is_whiteout("p/e"));
    for _ in 0..2 {
        assert_eq!(tree.list(""), ["p"]);
        assert!(!tree.exists("p/e"));
        tree.remount();
    }
}

#[test]
fn directory_with_entries_stays() {
    let tree = mount!(
        Setup::new()
            .lower(|l| l.file("lower/f", "").dir("merged"))
            .lower(|l| l.file("merged/f", ""))
            .upper(|l| l.file("upper/f", ""))
    );
    for path in ["lower", "merged", "upper"] {
        assert_eq!(rustix::fs::rmdir(tree.path(path)), Err(Errno::NOTEMPTY), "{path}");
    }
    assert_eq!(tree.list(""), ["lower", "merged", "upper"]);
}

#[test]
fn errnos_are_those_of_rmdir() {
    let tree = mount!(Setup::new().lower(|l| l.file("f", "").symlink("l", "d").dir("d")));
    let rmdir = |path: &str| rustix::fs::rmdir(tree.path(path));
    assert_eq!(rmdir("none"), Err(Errno::NOENT));
    assert_eq!(rmdir("f"), Err(Errno::NOTDIR));
    assert_eq!(rmdir("l"), Err(Errno::NOTDIR));
    assert_eq!(rmdir("d/."), Err(Errno::INVAL));
    assert_eq!(rmdir("d/.."), Err(Errno::NOTEMPTY));
    assert_eq!(rmdir(""), Err(Errno::BUSY));
}

#[test]
fn directory_whose_entries_were_removed_goes() {
    let mut tree = mount!(Setup::new().lower(|l| l.file("d/a", "").file("d/b", "")).lower(|l| l.file("d/c", "")));
    tree.write("d/new", "");
    for name in ["a", "b", "c", "new"] {
        fs::remove_file(tree.path("d").join(name)).unwrap();
    }
    fs::remove_dir(tree.path("d")).unwrap();
    assert!(tree.is_whiteout("d"));
    tree.remount();
    assert!(!tree.exists("d"));
}

#[test]
fn upper_directory_with_whiteouts_and_nothing_below_leaves_nothing() {
    let tree = mount!(Setup::new().lower(|l| l.file("d/a", "").dir("other")));
    fs::rename(tree.path("d"), tree.path("other/moved")).unwrap();
    fs::remove_file(tree.path("other/moved/a")).unwrap();
    fs::remove_dir(tree.path("other/moved")).unwrap();
    assert_eq!(errno(lstat(tree.upper("other/moved"))), Errno::NOENT);
    assert!(tree.is_whiteout("d"));
}

#[test]
fn whole_tree_is_removed_and_comes_again() {
    let mut tree = mount!(
        Setup::new()
            .lower(|l| l.file("t/a/b/c", "0").files("t/many", 100))
            .lower(|l| l.file("t/a/b/d", "1").files("t/a", 50))
    );
    for _ in 0..3 {
        fs::remove_dir_all(tree.path("t")).unwrap();
        assert_eq!(tree.list(""), Vec::<String>::new());
        fs::create_dir_all(tree.path("t/a/b")).unwrap();
        tree.write("t/a/b/new", "");
        assert_eq!(tree.list("t/a"), ["b"]);
        tree.remount();
        assert_eq!(tree.list("t/a/b"), ["new"]);
    }
}

#[test]
fn removed_working_directory_is_enoent() {
    let tree = mount!(Setup::new().lower(|l| l.dir("d/cwd")));
    in_child(|| {
        rustix::process::chdir(tree.path("d/cwd"))?;
        rustix::fs::rmdir(tree.path("d/cwd"))?;
        match rustix::fs::open("new", rustix::fs::OFlags::CREATE, rustix::fs::Mode::from_raw_mode(0o644)) {
            Err(Errno::NOENT) => {}
            _ => return Err(Errno::XDEV),
        }
        match rustix::fs::stat(".") {
            // The kernel shows 1 for a directory that was never copied up.
            Ok(stat) if stat.st_nlink == 0 || Backend::chosen() == Backend::Kernel => Ok(()),
            Ok(_) => Err(Errno::MLINK),
            Err(error) => Err(error),
        }
    })
    .unwrap();
}

#[test]
fn sticky_directory_protects_the_directories_of_others() {
    let tree = mount!(Setup::new().lower(|l| l.dir("t/bob").owner("t/bob", 1002, 1002).mode("t", 0o1777)));
    as_user(User::ALICE, || assert_eq!(rustix::fs::rmdir(tree.path("t/bob")), Err(Errno::PERM)));
    as_user(User::BOB, || rustix::fs::rmdir(tree.path("t/bob")).unwrap());
}
