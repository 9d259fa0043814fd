//! Removing files, and what is left of them in the upper and in processes that have them open.

use std::fs;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{AtFlags, CWD, OFlags};
use rustix::io::Errno;

use crate::common::*;

/// The link count of a removed file that was never copied up: the kernel goes on showing the lower file's.
fn links_of_removed_lower() -> u64 {
    u64::from(Backend::chosen() == Backend::Kernel)
}

#[test]
fn removed_lower_file_leaves_a_whiteout() {
    let mut tree = mount!(Setup::new().lower(|l| l.file("a", "").file("d/b", "").symlink("l", "x").fifo("p")));
    for path in ["a", "d/b", "l", "p"] {
        fs::remove_file(tree.path(path)).unwrap();
        assert!(tree.is_whiteout(path), "{path}");
    }
    for _ in 0..2 {
        assert_eq!(tree.list(""), ["d"]);
        assert_eq!(tree.list("d"), Vec::<String>::new());
        assert_eq!(errno(lstat(tree.path("a"))), Errno::NOENT);
        tree.remount();
    }
}

#[test]
fn removed_upper_file_leaves_nothing() {
    let tree = mount!(Setup::new().lower(|l| l.dir("d")));
    tree.write("a", "");
    tree.write("d/b", "");
    fs::remove_file(tree.path("a")).unwrap();
    fs::remove_file(tree.path("d/b")).unwrap();
    assert_eq!(errno(lstat(tree.upper("a"))), Errno::NOENT);
    assert_eq!(errno(lstat(tree.upper("d/b"))), Errno::NOENT);
}

#[test]
fn removed_copy_leaves_a_whiteout() {
    let tree = mount!(Setup::new().lower(|l| l.file("a", "x")));
    tree.append("a", "y");
    fs::remove_file(tree.path("a")).unwrap();
    assert!(tree.is_whiteout("a"));
    assert!(!tree.exists("a"));
}

#[test]
fn file_that_covers_a_lower_one_leaves_a_whiteout() {
    let mut tree = mount!(Setup::new().lower(|l| l.file("a", "lower")).upper(|l| l.file("a", "upper")));
    assert_eq!(tree.read("a"), "upper");
    fs::remove_file(tree.path("a")).unwrap();
    assert!(tree.is_whiteout("a"));
    tree.remount();
    assert!(!tree.exists("a"));
}

#[test]
fn file_in_an_opaque_directory_needs_no_whiteout() {
    let tree = mount!(Setup::new().lower(|l| l.file("d/a", "lower")));
    fs::remove_dir_all(tree.path("d")).unwrap();
    fs::create_dir(tree.path("d")).unwrap();
    tree.write("d/a", "new");
    fs::remove_file(tree.path("d/a")).unwrap();
    assert_eq!(errno(lstat(tree.upper("d/a"))), Errno::NOENT);
}

#[test]
fn errnos_are_those_of_unlink() {
    let tree = mount!(
        Setup::new().lower(|l| l.file("f", "").dir("d").whiteout("d/w", Form::Device)).lower(|l| l.file("d/w", ""))
    );
    let unlink = |path: &str| rustix::fs::unlink(tree.path(path));
    assert_eq!(unlink("none"), Err(Errno::NOENT));
    assert_eq!(unlink("d"), Err(Errno::ISDIR));
    assert_eq!(unlink("f/x"), Err(Errno::NOTDIR));
    assert_eq!(unlink("f/"), Err(Errno::NOTDIR));
    assert_eq!(unlink("d/w"), Err(Errno::NOENT));
}

#[test]
fn unlinked_open_file_is_still_read_and_written() {
    let tree = mount!(Setup::new().lower(|l| l.file("lower", "content").file("copied", "content")));
    tree.write("upper", "content");
    tree.append("copied", "");
    for name in ["lower", "copied", "upper"] {
        let file = open(tree.path(name), OFlags::RDWR).unwrap();
        fs::remove_file(tree.path(name)).unwrap();
        assert_eq!(fstat(&file).st_nlink, 0, "{name}");
        let mut buffer = [0; 7];
        assert_eq!(rustix::io::pread(&file, &mut buffer, 0), Ok(7), "{name}");
        assert_eq!(&buffer, b"content", "{name}");
        assert_eq!(rustix::io::pwrite(&file, b"CHANGED", 0), Ok(7), "{name}");
        rustix::io::pread(&file, &mut buffer, 0).unwrap();
        assert_eq!(&buffer, b"CHANGED", "{name}");
        rustix::fs::ftruncate(&file, 3).unwrap();
        assert_eq!(fstat(&file).st_size, 3, "{name}");
        rustix::fs::fchmod(&file, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
        assert_eq!(fstat(&file).st_mode & 0o7777, 0o600, "{name}");
        assert!(!tree.exists(name));
    }
}

#[test]
fn unlinked_lower_file_that_is_open_for_reading_is_still_read() {
    let tree = mount!(Setup::new().lower(|l| l.file("d/f", "content")));
    let file = open(tree.path("d/f"), OFlags::RDONLY).unwrap();
    let before = fstat(&file);
    fs::remove_file(tree.path("d/f")).unwrap();
    let mut buffer = [0; 7];
    assert_eq!(rustix::io::pread(&file, &mut buffer, 0), Ok(7));
    assert_eq!(&buffer, b"content");
    let after = fstat(&file);
    assert_eq!((after.st_ino, after.st_size, after.st_nlink), (before.st_ino, 7, links_of_removed_lower()));
}

#[test]
fn removed_lower_file_is_changed_by_who_has_it_open() {
    let tree = mount!(Setup::new().lower(|l| l.file("f", "content").file("there", "")));
    let file = open(tree.path("f"), OFlags::RDONLY).unwrap();
    fs::remove_file(tree.path("f")).unwrap();
    let changed = rustix::fs::fchmod(&file, rustix::fs::Mode::from_raw_mode(0o600));
    // The kernel's overlayfs finds the whiteout where the copy is to go.
    let is_kernel = Backend::chosen() == Backend::Kernel;
    assert_eq!(changed, if is_kernel { Err(Errno::EXIST) } else { Ok(()) });
    assert_eq!(fstat(&file).st_mode & 0o777, if is_kernel { 0o644 } else { 0o600 });
    assert!(!tree.exists("f"));
    assert_eq!(tree.list(""), ["there"]);
}

#[test]
fn unlinked_open_file_and_a_new_one_of_its_name_are_two() {
    let tree = mount!(Setup::new().lower(|l| l.file("f", "old")));
    let old = open(tree.path("f"), OFlags::RDWR).unwrap();
    fs::remove_file(tree.path("f")).unwrap();
    tree.write("f", "new");
    rustix::io::pwrite(&old, b"OLD", 0).unwrap();
    assert_eq!(tree.read("f"), "new");
    assert_ne!(fstat(&old).st_ino, tree.ino("f"));
}

#[test]
fn sticky_directory_protects_the_files_of_others() {
    let tree = mount!(Setup::new().lower(|l| {
        l.file("t/root", "")
            .file("t/alice", "")
            .owner("t/alice", 1001, 1001)
            .file("t/bob", "")
            .owner("t/bob", 1002, 1002)
            .mode("t", 0o1777)
    }));
    as_user(User::ALICE, || {
        assert_eq!(rustix::fs::unlink(tree.path("t/bob")), Err(Errno::PERM));
        assert_eq!(rustix::fs::unlink(tree.path("t/root")), Err(Errno::PERM));
        assert_eq!(rustix::fs::rename(tree.path("t/bob"), tree.path("t/mine")), Err(Errno::PERM));
        assert_eq!(rustix::fs::rename(tree.path("t/alice"), tree.path("t/bob")), Err(Errno::PERM));
        fs::remove_file(tree.path("t/alice")).unwrap();
        drop(open(tree.path("t/alice"), OFlags::CREATE | OFlags::WRONLY).unwrap());
    });
    as_user(User::BOB, || {
        assert_eq!(rustix::fs::unlink(tree.path("t/alice")), Err(Errno::PERM));
        fs::remove_file(tree.path("t/bob")).unwrap();
    });
    assert_eq!(tree.list("t"), ["alice", "root"]);
}

#[test]
fn directory_without_write_permission_keeps_its_files() {
    let tree = mount!(Setup::new().lower(|l| l.file("d/f", "").owner("d/f", 1001, 1001)));
    as_user(User::ALICE, || assert_eq!(rustix::fs::unlink(tree.path("d/f")), Err(Errno::ACCESS)));
    assert!(tree.exists("d/f"));
}

#[test]
fn removal_moves_the_change_time_of_other_links() {
    let tree = mount!(Setup::new().lower(|l| l.dir("d")));
    tree.write("d/a", "");
    fs::hard_link(tree.path("d/a"), tree.path("d/b")).unwrap();
    let before = fs::metadata(tree.path("d/a")).unwrap();
    wait_until("the clock of the filesystem moves on", || {
        tree.write("d/clock", "");
        fs::metadata(tree.path("d/clock")).unwrap().ctime_nsec() != before.ctime_nsec()
    });
    fs::remove_file(tree.path("d/b")).unwrap();
    let after = fs::metadata(tree.path("d/a")).unwrap();
    assert_eq!(after.nlink(), 1);
    assert_ne!((before.ctime(), before.ctime_nsec()), (after.ctime(), after.ctime_nsec()));
}

#[test]
fn path_descriptor_of_a_removed_file_still_has_its_attributes() {
    let tree = mount!(Setup::new().lower(|l| l.file("lower", "x").file("copied", "x")));
    tree.append("copied", "y");
    for (name, size, links) in [("lower", 1, links_of_removed_lower()), ("copied", 2, 0)] {
        let path = open(tree.path(name), OFlags::PATH).unwrap();
        fs::remove_file(tree.path(name)).unwrap();
        let stat = rustix::fs::statat(&path, "", AtFlags::EMPTY_PATH).unwrap();
        assert_eq!((stat.st_size, stat.st_nlink), (size, links), "{name}");
    }
}

#[test]
fn last_name_gone_while_mapped() {
    let tree = mount!(Setup::new().lower(|l| l.file("f", "content")));
    let file = open(tree.path("f"), OFlags::RDONLY).unwrap();
    let mapping = Mapping::new(&file, 7, false);
    drop(file);
    fs::remove_file(tree.path("f")).unwrap();
    assert_eq!(mapping.read(), b"content");
}

#[test]
fn unlinkat_with_removedir_tells_files_from_directories() {
    let tree = mount!(Setup::new().lower(|l| l.file("f", "").dir("d")));
    assert_eq!(rustix::fs::unlinkat(CWD, tree.path("f"), AtFlags::REMOVEDIR), Err(Errno::NOTDIR));
    rustix::fs::unlinkat(CWD, tree.path("d"), AtFlags::REMOVEDIR).unwrap();
    assert!(tree.is_whiteout("d"));
}
