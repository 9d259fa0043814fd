//! Who may do what.

use std::fs;

use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::common::*;

#[test]
fn modes_are_checked_for_other_users() {
    let tree = mount!(Setup::new().lower(|l| {
        l.file("secret", "x")
            .mode("secret", 0o600)
            .file("shown", "x")
            .file("closed/f", "x")
            .mode("closed", 0o700)
            .file("listed/f", "x")
            .mode("listed", 0o744)
            .file("passed/f", "x")
            .mode("passed", 0o711)
    }));
    as_user(User::ALICE, || {
        assert_eq!(errno(open(tree.path("secret"), OFlags::RDONLY)), Errno::ACCESS);
        drop(open(tree.path("shown"), OFlags::RDONLY).unwrap());
        assert_eq!(errno(open(tree.path("shown"), OFlags::WRONLY)), Errno::ACCESS);
        assert_eq!(errno(lstat(tree.path("closed/f"))), Errno::ACCESS);
        assert_eq!(errno(fs::read_dir(tree.path("closed"))), Errno::ACCESS);
        assert_eq!(errno(lstat(tree.path("listed/f"))), Errno::ACCESS);
        assert_eq!(raw_list(tree.path("listed")).len(), 3);
        assert!(lstat(tree.path("passed/f")).is_ok());
        assert_eq!(errno(fs::read_dir(tree.path("passed"))), Errno::ACCESS);
    });
    assert_eq!(tree.read("secret"), "x");
    assert_eq!(tree.read("closed/f"), "x");
}

#[test]
fn nothing_is_made_removed_or_renamed_without_write_permission() {
    let tree = mount!(Setup::new().lower(|l| l.file("d/f", "x").file("w/f", "x").mode("w", 0o777).dir("d/sub")));
    as_user(User::ALICE, || {
        assert_eq!(errno(open(tree.path("d/new"), OFlags::CREATE | OFlags::WRONLY)), Errno::ACCESS);
        assert_eq!(errno(fs::create_dir(tree.path("d/new"))), Errno::ACCESS);
        assert_eq!(errno(std::os::unix::fs::symlink("x", tree.path("d/new"))), Errno::ACCESS);
        assert_eq!(errno(fs::remove_file(tree.path("d/f"))), Errno::ACCESS);
        assert_eq!(errno(fs::remove_dir(tree.path("d/sub"))), Errno::ACCESS);
        assert_eq!(errno(fs::rename(tree.path("d/f"), tree.path("w/g"))), Errno::ACCESS);
        assert_eq!(errno(fs::rename(tree.path("w/f"), tree.path("d/g"))), Errno::ACCESS);
        fs::rename(tree.path("w/f"), tree.path("w/g")).unwrap();
        fs::remove_file(tree.path("w/g")).unwrap();
    });
    assert!(tree.is_whiteout("w/f"));
}

#[test]
fn attributes_of_others_are_not_changed() {
    let tree =
        mount!(Setup::new().lower(|l| l.file("f", "x").mode("f", 0o666).file("mine", "x").owner("mine", 1001, 1001)));
    as_user(User::ALICE, || {
        assert_eq!(rustix::fs::chmod(tree.path("f"), Mode::from_raw_mode(0o777)), Err(Errno::PERM));
        assert_eq!(errno(std::os::unix::fs::chown(tree.path("f"), Some(1001), None)), Errno::PERM);
        assert_eq!(errno(std::os::unix::fs::chown(tree.path("mine"), Some(0), None)), Errno::PERM);
        assert_eq!(errno(std::os::unix::fs::chown(tree.path("mine"), None, Some(0))), Errno::PERM);
        let time = rustix::fs::Timespec { tv_sec: 1, tv_nsec: 0 };
        let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
        assert_eq!(rustix::fs::utimensat(CWD, tree.path("f"), &times, AtFlags::empty()), Err(Errno::PERM));
        // To the current time, who may write may.
        let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: libc::UTIME_NOW };
        let times = rustix::fs::Timestamps { last_access: now, last_modification: now };
        rustix::fs::utimensat(CWD, tree.path("f"), &times, AtFlags::empty()).unwrap();
        rustix::fs::chmod(tree.path("mine"), Mode::from_raw_mode(0o600)).unwrap();
    });
    assert_eq!(tree.stat("mine").st_mode & 0o777, 0o600);
}

#[test]
fn group_members_have_the_groups_permissions() {
    let tree = mount!(Setup::new().lower(|l| l.file("f", "x").owner("f", 0, 4242).mode("f", 0o640)));
    as_user(User::ALICE, || assert_eq!(errno(open(tree.path("f"), OFlags::RDONLY)), Errno::ACCESS));
    as_user_in(User::ALICE, &[4242], || drop(open(tree.path("f"), OFlags::RDONLY).unwrap()));
    as_user(User { uid: 1001, gid: 4242 }, || drop(open(tree.path("f"), OFlags::RDONLY).unwrap()));
}

#[test]
fn access_answers_as_open_does() {
    let tree = mount!(Setup::new().lower(|l| l.file("f", "x").mode("f", 0o640).file("x", "").mode("x", 0o755)));
    let access = |path: &str, what| rustix::fs::accessat(CWD, tree.path(path), what, AtFlags::EACCESS);
    assert_eq!(access("f", Access::READ_OK | Access::WRITE_OK), Ok(()));
    assert_eq!(access("f", Access::EXEC_OK), Err(Errno::ACCESS));
    as_user(User::ALICE, || {
        assert_eq!(access("f", Access::READ_OK), Err(Errno::ACCESS));
        assert_eq!(access("x", Access::READ_OK | Access::EXEC_OK), Ok(()));
        assert_eq!(access("x", Access::WRITE_OK), Err(Errno::ACCESS));
    });
    assert_eq!(access("none", Access::EXISTS), Err(Errno::NOENT));
}

#[test]
fn change_of_permission_counts_at_once() {
    let tree = mount!(Setup::new().lower(|l| l.file("d/f", "x")));
    for round in 0..3 {
        rustix::fs::chmod(tree.path("d"), Mode::from_raw_mode(0o700)).unwrap();
        as_user(User::ALICE, || assert_eq!(errno(lstat(tree.path("d/f"))), Errno::ACCESS, "round {round}"));
        rustix::fs::chmod(tree.path("d"), Mode::from_raw_mode(0o755)).unwrap();
        as_user(User::ALICE, || assert!(lstat(tree.path("d/f")).is_ok(), "round {round}"));
    }
}

#[test]
fn other_user_changes_a_lower_file_that_allows_it() {
    let tree = mount!(Setup::new().lower(|l| l.file("d/f", "x").mode("d/f", 0o666)));
    as_user(User::ALICE, || tree.append("d/f", "y"));
    assert_eq!(tree.read("d/f"), "xy");
    let stat = lstat(tree.upper("d/f")).unwrap();
    assert_eq!((stat.st_uid, stat.st_mode & 0o777), (0, 0o666));
    assert_eq!(lstat(tree.upper("d")).unwrap().st_uid, 0);
}

#[test]
fn copied_up_file_of_one_user_stays_closed_for_another() {
    let tree = mount!(Setup::new().lower(|l| l.file("f", "x").owner("f", 1001, 1001).mode("f", 0o600)));
    as_user(User::ALICE, || tree.append("f", "y"));
    as_user(User::BOB, || assert_eq!(errno(open(tree.path("f"), OFlags::RDONLY)), Errno::ACCESS));
    as_user(User::ALICE, || assert_eq!(tree.read("f"), "xy"));
}

#[test]
fn links_to_files_of_others_follow_protected_hardlinks_not_the_mount() {
    let tree = mount!(Setup::new().lower(|l| l.file("f", "x").mode("f", 0o666).dir("d").mode("d", 0o777)));
    as_user(User::ALICE, || fs::hard_link(tree.path("f"), tree.path("d/link")).unwrap());
    assert_eq!(tree.stat("d/link").st_uid, 0);
}

#[test]
fn setuid_program_runs_as_its_owner() {
    let tree = mount!(Setup::new().lower(|l| {
        fs::copy("/usr/bin/id", l.path("id")).unwrap();
        l.owner("id", 1001, 1001).mode("id", 0o4755)
    }));
    assert_eq!(run(std::process::Command::new(tree.path("id")).arg("-u")).trim(), "1001");
}
