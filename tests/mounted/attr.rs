//! Attributes: mode, owner, times, size, and what falls when others change a file.

use std::fs;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;

use crate::common::*;

fn mode(tree: &Mounted, path: &str) -> u32 {
    tree.stat(path).st_mode & 0o7777
}

fn set_times(tree: &Mounted, path: &str, atime: (i64, i64), mtime: (i64, i64)) -> Result<(), Errno> {
    let time = |(tv_sec, tv_nsec)| Timespec { tv_sec, tv_nsec };
    let times = Timestamps { last_access: time(atime), last_modification: time(mtime) };
    rustix::fs::utimensat(CWD, tree.path(path), &times, AtFlags::SYMLINK_NOFOLLOW)
}

#[test]
fn chmod_of_lower_objects_copies_them_up() {
    let mut tree = mount!(Setup::new().lower(|l| l.file("file", "content").file("dir/inner", "").fifo("fifo")));
    for (path, new) in [("file", 0o604), ("dir", 0o1731), ("fifo", 0o600)] {
        rustix::fs::chmod(tree.path(path), Mode::from_raw_mode(new)).unwrap();
    }
    for _ in 0..2 {
        assert_eq!((mode(&tree, "file"), mode(&tree, "dir"), mode(&tree, "fifo")), (0o604, 0o1731, 0o600));
        assert_eq!(tree.read("file"), "content");
        assert_eq!(tree.list("dir"), ["inner"]);
        tree.remount();
    }
    assert_eq!(lstat(tree.upper("dir/inner")).map(drop), Err(Errno::NOENT));
}

#[test]
fn chown_of_lower_objects_copies_them_up() {
    let mut tree = mount!(Setup::new().lower(|l| l.file("file", "content").dir("dir").symlink("link", "nowhere")));
    for path in ["file", "dir", "link"] {
        std::os::unix::fs::lchown(tree.path(path), Some(11), None).unwrap();
        std::os::unix::fs::lchown(tree.path(path), None, Some(12)).unwrap();
    }
    for _ in 0..2 {
        for path in ["file", "dir", "link"] {
            let stat = tree.stat(path);
            assert_eq!((stat.st_uid, stat.st_gid), (11, 12), "{path}");
        }
        tree.remount();
    }
    assert_eq!(fs::read_link(tree.path("link")).unwrap().as_os_str(), "nowhere");
}

#[test]
fn copy_up_keeps_mode_owner_and_times_with_nanoseconds() {
    let tree = mount!(Setup::new().lower(|l| {
        l.file("file", "x")
            .owner("file", 71, 72)
            .mode("file", 0o6751)
            .time("file", 1_234_567_890, 123_456_789)
            .dir("dir")
            .owner("dir", 73, 74)
            .mode("dir", 0o3770)
            .time("dir", 987_654_321, 987_654_321)
            .symlink("link", "x")
            .owner("link", 75, 76)
            .time("link", 555_555_555, 5)
    }));
    let before = tree.tree();
    // Changes the change time only.
    for path in ["file", "dir"] {
        rustix::fs::chmod(tree.path(path), Mode::from_raw_mode(mode(&tree, path))).unwrap();
    }
    std::os::unix::fs::lchown(tree.path("link"), Some(75), Some(76)).unwrap();
    assert!(lstat(tree.upper("file")).is_ok() && lstat(tree.upper("dir")).is_ok() && lstat(tree.upper("link")).is_ok());
    before.assert_eq(&tree.tree(), "copy-up changed something");
    let stat = tree.stat("file");
    assert_eq!((stat.st_atime, stat.st_atime_nsec), (1_234_567_890, 123_456_789));
}

#[test]
fn times_before_1970_and_beyond_2038_are_kept() {
    let tree = mount!(Setup::new().lower(|l| {
        l.file("old", "")
            .time("old", -1_000_000_000, 999_999_999)
            .file("new", "")
            .time("new", 5_000_000_000, 1)
            .file("f", "")
    }));
    let times = |path: &str| {
        let stat = tree.stat(path);
        (stat.st_atime, stat.st_atime_nsec, stat.st_mtime, stat.st_mtime_nsec)
    };
    for _ in 0..2 {
        assert_eq!(times("old"), (-1_000_000_000, 999_999_999, -1_000_000_000, 999_999_999));
        assert_eq!(times("new"), (5_000_000_000, 1, 5_000_000_000, 1));
        rustix::fs::chmod(tree.path("old"), Mode::from_raw_mode(0o644)).unwrap();
        rustix::fs::chmod(tree.path("new"), Mode::from_raw_mode(0o644)).unwrap();
    }
    for (atime, mtime) in [((-1, 1), (-2, 999_999_999)), ((4_294_967_296, 3), (15_000_000_000, 4)), ((0, 0), (0, 0))] {
        set_times(&tree, "f", atime, mtime).unwrap();
        assert_eq!(times("f"), (atime.0, atime.1 as u64, mtime.0, mtime.1 as u64));
    }
}

#[test]
fn utimens_sets_each_time_alone_and_to_now() {
    let tree = mount!(Setup::new().lower(|l| l.file("f", "").time("f", 1_000_000_000, 1).dir("d")));
    set_times(&tree, "f", (0, libc::UTIME_OMIT), (2_000_000_000, 2)).unwrap();
    let stat = tree.stat("f");
    assert_eq!((stat.st_atime, stat.st_mtime, stat.st_mtime_nsec), (1_000_000_000, 2_000_000_000, 2));
    set_times(&tree, "f", (1_500_000_000, 3), (0, libc::UTIME_OMIT)).unwrap();
    let stat = tree.stat("f");
    assert_eq!((stat.st_atime, stat.st_atime_nsec, stat.st_mtime), (1_500_000_000, 3, 2_000_000_000));
    set_times(&tree, "f", (0, libc::UTIME_NOW), (0, libc::UTIME_NOW)).unwrap();
    assert!(tree.stat("f").st_mtime > 1_600_000_000 && tree.stat("f").st_mtime < 1_999_999_999 * 2);
    set_times(&tree, "d", (7, 8), (9, 10)).unwrap();
    assert_eq!((tree.stat("d").st_mtime, tree.stat("d").st_mtime_nsec), (9, 10));
}

#[test]
fn utimens_works_on_symlinks() {
    let tree = mount!(Setup::new().lower(|l| l.symlink("link", "nowhere")));
    set_times(&tree, "link", (100, 1), (200, 2)).unwrap();
    assert_eq!((tree.stat("link").st_mtime, tree.stat("link").st_mtime_nsec), (200, 2));
}

#[test]
fn truncate_of_lower_files_keeps_what_stays() {
    let tree =
        mount!(Setup::new().lower(|l| l.file("a", "0123456789").file("b", "0123456789").file("c", "0123456789")));
    let truncate =
        |path: &str, len| fs::OpenOptions::new().write(true).open(tree.path(path)).unwrap().set_len(len).unwrap();
    truncate("a", 4);
    truncate("b", 12);
    truncate("c", 0);
    assert_eq!(tree.read("a"), "0123");
    assert_eq!(tree.read("b"), "0123456789\0\0");
    assert_eq!(tree.read("c"), "");
    assert_eq!(fs::read(tree.lower(0, "a")).unwrap(), b"0123456789");
}

#[test]
fn truncate_by_path_copies_up() {
    let tree = mount!(Setup::new().lower(|l| l.file("a", "0123456789").dir("d")));
    let truncate = |path: &str, len| truncate(tree.path(path), len);
    truncate("a", 3).unwrap();
    assert_eq!(tree.read("a"), "012");
    assert_eq!(errno(truncate("d", 3)), Errno::ISDIR);
    assert_eq!(errno(truncate("none", 3)), Errno::NOENT);
}

#[test]
fn size_and_times_follow_a_write() {
    let tree = mount!(Setup::new().lower(|l| l.file("a", "0123").time("a", 1_000_000_000, 0)));
    tree.append("a", "4567");
    let stat = tree.stat("a");
    assert_eq!(stat.st_size, 8);
    assert!(stat.st_mtime > 1_000_000_000 && stat.st_ctime > 1_000_000_000);
}

#[test]
fn directory_time_moves_when_an_entry_comes_or_goes() {
    let tree = mount!(Setup::new().lower(|l| l.file("d/a", "").file("d/b", "").dir("e")));
    type Change = fn(&Mounted);
    let changes: [Change; 7] = [
        |tree| tree.write("d/new", ""),
        |tree| fs::remove_file(tree.path("d/a")).unwrap(),
        |tree| fs::rename(tree.path("d/b"), tree.path("e/b")).unwrap(),
        |tree| fs::hard_link(tree.path("e/b"), tree.path("d/b")).unwrap(),
        |tree| fs::create_dir(tree.path("d/sub")).unwrap(),
        |tree| fs::remove_dir(tree.path("d/sub")).unwrap(),
        |tree| std::os::unix::fs::symlink("x", tree.path("d/link")).unwrap(),
    ];
    for (number, change) in changes.iter().enumerate() {
        set_times(&tree, "d", (1, 0), (1, 0)).unwrap();
        change(&tree);
        assert!(tree.stat("d").st_mtime > 1, "change {number}");
    }
}

#[test]
fn setid_bits_fall_when_another_user_writes() {
    let setup = Setup::new().lower(|l| {
        for name in ["write", "truncate", "open-trunc", "append", "ftruncate", "no-x"] {
            l.file(name, "content").mode(name, 0o6777);
        }
        l.mode("no-x", 0o6766)
    });
    let tree = mount!(setup);
    as_user(User::ALICE, || {
        tree.append("append", "x");
        rustix::io::pwrite(open(tree.path("write"), OFlags::WRONLY).unwrap(), b"x", 2).unwrap();
        drop(open(tree.path("open-trunc"), OFlags::WRONLY | OFlags::TRUNC).unwrap());
        let path = std::ffi::CString::new(tree.path("truncate").into_os_string().into_encoded_bytes()).unwrap();
        assert_eq!(unsafe { libc::truncate(path.as_ptr(), 1) }, 0);
        rustix::fs::ftruncate(open(tree.path("ftruncate"), OFlags::WRONLY).unwrap(), 3).unwrap();
        tree.append("no-x", "x");
    });
    for name in ["write", "truncate", "open-trunc", "append", "ftruncate"] {
        assert_eq!(format!("{:o}", mode(&tree, name)), "777", "{name}");
    }
    // Without group execution, and for one who is not in the group, the sgid bit falls as well.
    assert_eq!(format!("{:o}", mode(&tree, "no-x")), "766");
}

#[test]
fn setid_bits_fall_when_another_user_allocates() {
    let tree = mount!(Setup::new().lower(|l| l.file("f", "content").mode("f", 0o6777)));
    as_user(User::ALICE, || {
        let file = open(tree.path("f"), OFlags::WRONLY).unwrap();
        rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, 100).unwrap();
    });
    assert_eq!(format!("{:o}", mode(&tree, "f")), "777");
}

#[test]
fn setid_bits_stay_when_root_writes() {
    let tree = mount!(Setup::new().lower(|l| l.file("f", "content").mode("f", 0o6755)));
    tree.append("f", "x");
    assert_eq!(format!("{:o}", mode(&tree, "f")), "6755");
    rustix::fs::ftruncate(open(tree.path("f"), OFlags::WRONLY).unwrap(), 3).unwrap();
    assert_eq!(format!("{:o}", mode(&tree, "f")), "6755");
    drop(open(tree.path("f"), OFlags::WRONLY | OFlags::TRUNC).unwrap());
    assert_eq!(format!("{:o}", mode(&tree, "f")), "6755");
}

#[test]
fn setid_bits_fall_with_a_change_of_owner_even_by_root() {
    let tree = mount!(Setup::new().lower(|l| {
        l.file("lower", "").mode("lower", 0o6755).file("no-x", "").mode("no-x", 0o6745).dir("dir").mode("dir", 0o6755)
    }));
    tree.write("upper", "");
    rustix::fs::chmod(tree.path("upper"), Mode::from_raw_mode(0o6755)).unwrap();
    for path in ["lower", "no-x", "upper", "dir"] {
        std::os::unix::fs::chown(tree.path(path), Some(5), Some(6)).unwrap();
    }
    assert_eq!(format!("{:o}", mode(&tree, "lower")), "755");
    assert_eq!(format!("{:o}", mode(&tree, "upper")), "755");
    assert_eq!(format!("{:o}", mode(&tree, "no-x")), "2745");
    assert_eq!(format!("{:o}", mode(&tree, "dir")), "6755");
}

#[test]
fn setid_bits_fall_when_the_owner_gives_the_group_away() {
    let tree = mount!(Setup::new().lower(|l| l.file("f", "").owner("f", 1001, 1001).mode("f", 0o6755)));
    as_user_in(User::ALICE, &[2000], || std::os::unix::fs::chown(tree.path("f"), None, Some(2000)).unwrap());
    assert_eq!(tree.stat("f").st_gid, 2000);
    assert_eq!(format!("{:o}", mode(&tree, "f")), "755");
}

#[test]
fn sgid_is_dropped_by_chmod_of_one_who_is_not_in_the_group() {
    let tree = mount!(Setup::new().lower(|l| l.file("f", "").owner("f", 1001, 4242).mode("f", 0o644)));
    as_user(User::ALICE, || rustix::fs::chmod(tree.path("f"), Mode::from_raw_mode(0o2755)).unwrap());
    assert_eq!(format!("{:o}", mode(&tree, "f")), "755");
    as_user_in(User::ALICE, &[4242], || {
        rustix::fs::chmod(tree.path("f"), Mode::from_raw_mode(0o2755)).unwrap();
    });
    assert_eq!(format!("{:o}", mode(&tree, "f")), "2755");
}

#[test]
fn capabilities_fall_when_anyone_writes() {
    // cap_net_raw+ep, revision 2.
    let capability: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let tree = mount!(Setup::new().lower(|l| {
        for name in ["root", "alice", "chown", "truncate"] {
            l.file(name, "x").mode(name, 0o777).xattr(name, "security.capability", capability);
        }
        l
    }));
    assert_eq!(xattr(&tree.path("root"), "security.capability").as_deref(), Ok(capability.as_slice()));
    tree.append("root", "y");
    as_user(User::ALICE, || tree.append("alice", "y"));
    std::os::unix::fs::chown(tree.path("chown"), Some(5), None).unwrap();
    rustix::fs::ftruncate(open(tree.path("truncate"), OFlags::WRONLY).unwrap(), 0).unwrap();
    for name in ["root", "alice", "chown", "truncate"] {
        assert_eq!(xattr(&tree.path(name), "security.capability"), Err(Errno::NODATA), "{name}");
    }
}

#[test]
fn reading_leaves_the_access_time_of_lower_layers() {
    let tree = mount!(Setup::new().lower(|l| l.file("f", "x").time("f", 1_000_000_000, 5).dir("d").time(
        "d",
        1_000_000_000,
        5
    )));
    assert_eq!(tree.read("f"), "x");
    tree.list("d");
    let stat = lstat(tree.lower(0, "f")).unwrap();
    if tree.backend() == Backend::Plyfs {
        assert_eq!((stat.st_atime, stat.st_atime_nsec), (1_000_000_000, 5));
    }
    assert_eq!(tree.stat("f").st_mtime, 1_000_000_000);
}

#[test]
fn noatime_leaves_access_times_of_the_upper() {
    plyfs_only!("noatime is an option of the mount, not of the kernel's overlayfs");
    let tree = mount!(Setup::new().lower(|l| l.dir("d")).option("noatime"));
    tree.write("f", "x");
    set_times(&tree, "f", (1_000_000_000, 5), (1_100_000_000, 0)).unwrap();
    assert_eq!(tree.read("f"), "x");
    let stat = lstat(tree.upper("f")).unwrap();
    assert_eq!((stat.st_atime, stat.st_atime_nsec), (1_000_000_000, 5));
}

#[test]
fn times_through_an_open_file() {
    let tree = mount!(Setup::new().lower(|l| l.file("f", "x")));
    let file = open(tree.path("f"), OFlags::RDWR).unwrap();
    let time = Timespec { tv_sec: 123, tv_nsec: 456 };
    rustix::fs::futimens(file.as_fd(), &Timestamps { last_access: time, last_modification: time }).unwrap();
    assert_eq!((tree.stat("f").st_mtime, tree.stat("f").st_mtime_nsec), (123, 456));
    rustix::fs::fchmod(&file, Mode::from_raw_mode(0o640)).unwrap();
    assert_eq!(mode(&tree, "f"), 0o640);
    rustix::fs::fchown(&file, Some(rustix::fs::Uid::from_raw(9)), None).unwrap();
    assert_eq!(fstat(&file).st_uid, 9);
}

#[test]
fn chmod_through_a_read_only_descriptor_of_a_lower_file() {
    let tree = mount!(Setup::new().lower(|l| l.file("f", "x").dir("d")));
    for path in ["f", "d"] {
        let file = open(tree.path(path), OFlags::RDONLY).unwrap();
        rustix::fs::fchmod(&file, Mode::from_raw_mode(0o700)).unwrap();
        assert_eq!(mode(&tree, path), 0o700);
        assert_eq!(fstat(&file).st_mode & 0o7777, 0o700);
    }
}

#[test]
fn attributes_of_the_root_are_changed_and_kept() {
    let mut tree = mount!(Setup::new().lower(|l| l.file("f", "x")));
    rustix::fs::chmod(tree.path(""), Mode::from_raw_mode(0o1777)).unwrap();
    std::os::unix::fs::chown(tree.path(""), Some(7), Some(8)).unwrap();
    set_times(&tree, "", (1, 2), (3, 4)).unwrap();
    set_xattr(&tree.path(""), "user.root", "1").unwrap();
    for _ in 0..2 {
        let stat = tree.stat("");
        assert_eq!(
            (stat.st_mode & 0o7777, stat.st_uid, stat.st_gid, stat.st_mtime, stat.st_mtime_nsec),
            (0o1777, 7, 8, 3, 4)
        );
        assert_eq!(xattr(&tree.path(""), "user.root").unwrap(), b"1");
        tree.remount();
    }
}

#[test]
fn files_without_any_permission_are_copied_up() {
    let tree = mount!(Setup::new().lower(|l| {
        l.file("d/f", "content").mode("d/f", 0).owner("d/f", 1001, 1001).mode("d", 0).owner("d", 1002, 1002)
    }));
    tree.append("d/f", "+");
    assert_eq!(tree.read("d/f"), "content+");
    assert_eq!((mode(&tree, "d"), mode(&tree, "d/f")), (0, 0));
}

#[test]
fn link_counts_of_directories_are_one_or_tell_the_subdirectories() {
    let tree = mount!(
        Setup::new()
            .lower(|l| l.dir("merged/a").dir("merged/b").dir("lower/a").file("lower/f", ""))
            .lower(|l| l.dir("merged/c"))
    );
    fs::create_dir_all(tree.path("upper/a")).unwrap();
    let check = |path: &str| {
        let subdirectories = tree.list(path).iter().filter(|name| !name.starts_with('f')).count() as u64;
        let links = tree.stat(path).st_nlink;
        // What find(1) and others take for "unknown", or the truth.
        assert!(links == 1 || links == 2 + subdirectories, "{path}: {links} for {subdirectories}");
    };
    for path in ["", "merged", "lower", "upper", "merged/c"] {
        check(path);
    }
    fs::create_dir(tree.path("lower/new")).unwrap();
    fs::remove_dir(tree.path("merged/a")).unwrap();
    fs::rename(tree.path("lower/a"), tree.path("upper/moved")).unwrap();
    for path in ["", "merged", "lower", "upper", "merged/c"] {
        check(path);
    }
}
