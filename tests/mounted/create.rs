//! Making files, and what every kind of new object has in common.

use std::fs;
use std::os::unix::fs::symlink;

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::common::*;

/// Makes one object of each kind in `dir`, named after its kind.
fn make_all(tree: &Mounted, dir: &str) {
    let path = |name: &str| tree.path(dir).join(name);
    drop(open(path("file"), OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY).unwrap());
    rustix::fs::mkdir(path("dir"), Mode::from_raw_mode(0o777)).unwrap();
    symlink("target", path("link")).unwrap();
    rustix::fs::mknodat(CWD, path("fifo"), FileType::Fifo, Mode::from_raw_mode(0o666), 0).unwrap();
    rustix::fs::mknodat(CWD, path("socket"), FileType::Socket, Mode::from_raw_mode(0o666), 0).unwrap();
    rustix::fs::mknodat(CWD, path("node"), FileType::RegularFile, Mode::from_raw_mode(0o666), 0).unwrap();
}

const KINDS: [&str; 6] = ["file", "dir", "link", "fifo", "socket", "node"];

#[test]
fn new_objects_belong_to_who_made_them() {
    let tree = mount!(
        Setup::new()
            .lower(|l| {
                l.dir("plain").mode("plain", 0o777).dir("over").mode("over", 0o777);
                KINDS.iter().fold(l, |l, kind| l.whiteout(format!("over/{kind}"), Form::Device))
            })
            .lower(|l| KINDS.iter().fold(l, |l, kind| l.file(format!("over/{kind}"), "old")))
    );
    for kind in KINDS {
        // Whiteouts that the overlay made by itself.
        tree.write(format!("over/{kind}"), "");
        fs::remove_file(tree.path(format!("over/{kind}"))).unwrap();
    }
    for dir in ["plain", "over"] {
        as_user(User::ALICE, || make_all(&tree, dir));
        for kind in KINDS {
            let stat = tree.stat(format!("{dir}/{kind}"));
            assert_eq!((stat.st_uid, stat.st_gid), (1001, 1001), "{dir}/{kind}");
        }
    }
}

#[test]
fn setgid_directory_hands_its_group_down() {
    let tree = mount!(
        Setup::new()
            .lower(|l| {
                for dir in ["plain", "over"] {
                    l.dir(dir).owner(dir, 0, 4242).mode(dir, 0o2777);
                }
                l
            })
            .lower(|l| KINDS.iter().fold(l, |l, kind| l.file(format!("over/{kind}"), "old")))
    );
    for kind in KINDS {
        fs::remove_file(tree.path(format!("over/{kind}"))).unwrap();
    }
    for dir in ["plain", "over"] {
        as_user(User::ALICE, || make_all(&tree, dir));
        for kind in KINDS {
            let stat = tree.stat(format!("{dir}/{kind}"));
            assert_eq!((stat.st_uid, stat.st_gid), (1001, 4242), "{dir}/{kind}");
        }
        assert_eq!(tree.stat(format!("{dir}/dir")).st_mode & 0o7777, 0o2755, "{dir}");
        assert_eq!(tree.stat(format!("{dir}/file")).st_mode & 0o7777, 0o644, "{dir}");
    }
}

#[test]
fn umask_of_the_caller_applies() {
    let tree = mount!(
        Setup::new()
            .lower(|l| l.dir("plain").dir("over"))
            .lower(|l| l.file("over/file", "old").file("over/dir", "old"))
    );
    fs::remove_file(tree.path("over/file")).unwrap();
    fs::remove_file(tree.path("over/dir")).unwrap();
    for dir in ["plain", "over"] {
        in_child(|| {
            rustix::process::umask(Mode::from_raw_mode(0o027));
            let flags = OFlags::CREATE | OFlags::WRONLY;
            rustix::fs::open(tree.path(dir).join("file"), flags, Mode::from_raw_mode(0o777))?;
            rustix::fs::mkdir(tree.path(dir).join("dir"), Mode::from_raw_mode(0o777))
        })
        .unwrap();
        assert_eq!(tree.stat(format!("{dir}/file")).st_mode & 0o7777, 0o750, "{dir}");
        assert_eq!(tree.stat(format!("{dir}/dir")).st_mode & 0o7777, 0o750, "{dir}");
    }
}

#[test]
fn setid_and_sticky_bits_can_be_asked_for_at_creation() {
    let tree = mount!(Setup::new().lower(|l| l.dir("d")));
    let flags = OFlags::CREATE | OFlags::WRONLY;
    rustix::fs::open(tree.path("file"), flags, Mode::from_raw_mode(0o6755)).unwrap();
    rustix::fs::mkdir(tree.path("dir"), Mode::from_raw_mode(0o1777)).unwrap();
    assert_eq!(tree.stat("file").st_mode & 0o7777, 0o6755);
    assert_eq!(tree.stat("dir").st_mode & 0o7777, 0o1755);
}

#[test]
fn what_is_there_is_eexist() {
    let tree = mount!(Setup::new().lower(|l| l.file("file", "x").dir("dir").symlink("link", "nowhere")));
    for name in ["file", "dir", "link"] {
        let path = tree.path(name);
        assert_eq!(errno(open(&path, OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY)), Errno::EXIST, "{name}");
        assert_eq!(errno(fs::create_dir(&path)), Errno::EXIST, "{name}");
        assert_eq!(errno(symlink("x", &path)), Errno::EXIST, "{name}");
        assert_eq!(errno(fs::hard_link(tree.path("file"), &path)), Errno::EXIST, "{name}");
        let made = rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o644), 0);
        assert_eq!(made, Err(Errno::EXIST), "{name}");
    }
    assert!(fs::read_dir(tree.upper("")).unwrap().next().is_none(), "nothing was copied up");
}

#[test]
fn wrong_places_have_their_errnos() {
    let tree = mount!(Setup::new().lower(|l| l.file("file", "x").dir("dir")));
    let create = |path: &str| errno(open(tree.path(path), OFlags::CREATE | OFlags::WRONLY));
    assert_eq!(create("none/new"), Errno::NOENT);
    assert_eq!(create("file/new"), Errno::NOTDIR);
    assert_eq!(create("dir"), Errno::ISDIR);
    assert_eq!(errno(fs::create_dir(tree.path("none/new"))), Errno::NOENT);
    assert_eq!(errno(fs::create_dir(tree.path("file/new"))), Errno::NOTDIR);
    assert_eq!(errno(open(tree.path("dir"), OFlags::WRONLY)), Errno::ISDIR);
    assert_eq!(errno(open(tree.path("file"), OFlags::DIRECTORY)), Errno::NOTDIR);
}

#[test]
fn removed_directory_takes_nothing_new() {
    let tree = mount!(Setup::new().lower(|l| l.dir("lower")));
    fs::create_dir(tree.path("upper")).unwrap();
    for name in ["lower", "upper"] {
        let dir = open(tree.path(name), OFlags::RDONLY | OFlags::DIRECTORY).unwrap();
        fs::remove_dir(tree.path(name)).unwrap();
        let made = rustix::fs::openat(&dir, "new", OFlags::CREATE | OFlags::WRONLY, Mode::from_raw_mode(0o644));
        assert_eq!(errno(made), Errno::NOENT, "{name}");
        assert_eq!(rustix::fs::mkdirat(&dir, "new", Mode::from_raw_mode(0o755)), Err(Errno::NOENT), "{name}");
        assert_eq!(rustix::fs::symlinkat("x", &dir, "new"), Err(Errno::NOENT), "{name}");
    }
}

#[test]
fn new_file_over_a_whiteout_has_nothing_of_the_old_one() {
    let mut tree = mount!(Setup::new().lower(|l| l.file("d/f", "old content").xattr("d/f", "user.old", "x")));
    fs::remove_file(tree.path("d/f")).unwrap();
    assert!(tree.is_whiteout("d/f"));
    drop(open(tree.path("d/f"), OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY).unwrap());
    for _ in 0..2 {
        assert_eq!(tree.read("d/f"), "");
        assert_eq!(xattr(&tree.path("d/f"), "user.old"), Err(Errno::NODATA));
        tree.remount();
    }
}

#[test]
fn file_opened_with_creation_is_read_and_written() {
    let tree = mount!(Setup::new().lower(|l| l.dir("d")));
    let file = rustix::fs::open(tree.path("d/f"), OFlags::CREATE | OFlags::RDWR, Mode::empty()).unwrap();
    rustix::io::pwrite(&file, b"written", 0).unwrap();
    let mut buffer = [0; 7];
    rustix::io::pread(&file, &mut buffer, 0).unwrap();
    assert_eq!(&buffer, b"written");
    assert_eq!(fstat(&file).st_mode & 0o7777, 0);
}

#[test]
fn file_created_without_permission_to_write_is_still_writable_through_its_descriptor() {
    let tree = mount!(Setup::new().lower(|l| l.dir("d").mode("d", 0o777)));
    as_user(User::ALICE, || {
        let file =
            rustix::fs::open(tree.path("d/f"), OFlags::CREATE | OFlags::WRONLY, Mode::from_raw_mode(0o444)).unwrap();
        assert_eq!(rustix::io::write(&file, b"x").unwrap(), 1);
        assert_eq!(errno(open(tree.path("d/f"), OFlags::WRONLY)), Errno::ACCESS);
    });
}

#[test]
fn temporary_files_are_given_a_name_later_or_refused() {
    let tree = mount!(Setup::new().lower(|l| l.dir("d")));
    let file = match rustix::fs::open(tree.path("d"), OFlags::TMPFILE | OFlags::RDWR, Mode::from_raw_mode(0o600)) {
        // What programs expect where a filesystem has no such files.
        Err(error) => return assert_eq!(error, Errno::OPNOTSUPP),
        Ok(file) => file,
    };
    rustix::io::write(&file, b"content").unwrap();
    use std::os::fd::AsRawFd;
    let proc = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::linkat(CWD, proc, CWD, tree.path("d/named"), rustix::fs::AtFlags::SYMLINK_FOLLOW).unwrap();
    assert_eq!(tree.read("d/named"), "content");
}

#[test]
fn creation_in_a_lower_directory_copies_up_its_parents_as_they_are() {
    let tree = mount!(Setup::new().lower(|l| {
        l.dir("a/b/c").mode("a", 0o751).owner("a", 1, 2).mode("a/b", 0o2775).owner("a/b", 3, 4).time(
            "a",
            1_000_000_000,
            77,
        )
    }));
    tree.write("a/b/c/new", "x");
    let (a, b) = (lstat(tree.upper("a")).unwrap(), lstat(tree.upper("a/b")).unwrap());
    assert_eq!((a.st_mode & 0o7777, a.st_uid, a.st_gid, a.st_mtime, a.st_mtime_nsec), (0o751, 1, 2, 1_000_000_000, 77));
    assert_eq!((b.st_mode & 0o7777, b.st_uid, b.st_gid), (0o2775, 3, 4));
    assert_eq!(tree.stat("a/b/c/new").st_gid, 0);
}

#[test]
fn many_threads_make_and_remove_in_one_directory() {
    let tree = mount!(Setup::new().lower(|l| l.files("d", 200)));
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let tree = &tree;
            scope.spawn(move || {
                for number in 0..100 {
                    let name = format!("d/t{thread}-{number}");
                    tree.write(&name, "x");
                    fs::rename(tree.path(&name), tree.path(format!("d/r{thread}-{number}"))).unwrap();
                    if number < 50 {
                        fs::remove_file(tree.path(format!("d/f{}", thread * 50 + number))).unwrap();
                    }
                }
            });
        }
    });
    let names = tree.list("d");
    assert_eq!(names.len(), 400);
    assert!(names.iter().all(|name| name.starts_with('r')));
}

#[test]
fn exclusive_creation_has_one_winner() {
    let tree = mount!(Setup::new().lower(|l| l.dir("d").file("d/f", "")));
    fs::remove_file(tree.path("d/f")).unwrap();
    let won: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| match open(tree.path("d/f"), OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY) {
                    Ok(_) => 1,
                    Err(error) => {
                        assert_eq!(error, Errno::EXIST);
                        0
                    }
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(won, 1);
}
