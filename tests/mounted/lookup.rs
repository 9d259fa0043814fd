//! Which layer a name comes from, and which names there are.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::common::*;

#[test]
fn topmost_layer_wins() {
    let tree = mount!(
        Setup::new()
            .lower(|l| l.file("a", "0"))
            .lower(|l| l.file("a", "1").file("b", "1"))
            .lower(|l| l.file("a", "2").file("b", "2").file("c", "2"))
            .upper(|l| l.file("c", "upper"))
    );
    assert_eq!(tree.read("a"), "0");
    assert_eq!(tree.read("b"), "1");
    assert_eq!(tree.read("c"), "upper");
    assert_eq!(tree.list(""), ["a", "b", "c"]);
}

#[test]
fn file_hides_directory_below_and_directory_hides_file_below() {
    let tree = mount!(
        Setup::new()
            .lower(|l| l.file("was-dir", "file").dir("was-file"))
            .lower(|l| l.file("was-dir/inner", "x").file("was-file", "y"))
    );
    assert_eq!(tree.read("was-dir"), "file");
    assert_eq!(tree.list("was-file"), Vec::<String>::new());
    assert_eq!(errno(lstat(tree.path("was-dir/inner"))), Errno::NOTDIR);
}

#[test]
fn missing_names_are_enoent_and_files_are_no_directories() {
    let tree = mount!(Setup::new().lower(|l| l.file("file", "x").dir("dir")));
    for path in ["none", "dir/none", "none/none"] {
        assert_eq!(errno(lstat(tree.path(path))), Errno::NOENT, "{path}");
    }
    assert_eq!(errno(lstat(tree.path("file/none"))), Errno::NOTDIR);
    assert_eq!(errno(lstat(tree.path("file/"))), Errno::NOTDIR);
}

#[test]
fn name_that_was_missing_is_found_once_made() {
    let tree = mount!(Setup::new().lower(|l| l.dir("d")));
    for round in 0..3 {
        assert!(!tree.exists("d/new"), "round {round}");
        tree.write("d/new", "x");
        assert_eq!(tree.read("d/new"), "x");
        fs::remove_file(tree.path("d/new")).unwrap();
    }
}

#[test]
fn names_are_bytes() {
    let name = OsStr::from_bytes(b"\xff\xfe caf\xe9\n\\:,\"*");
    let tree = mount!(Setup::new().lower(|l| l.file(name, "lower").dir("d")));
    assert_eq!(tree.read(name), "lower");
    tree.append(name, "+");
    assert_eq!(tree.read(name), "lower+");
    let other = OsStr::from_bytes(b"\x80\x01");
    fs::rename(tree.path(name), tree.path("d").join(other)).unwrap();
    assert_eq!(fs::read(tree.path("d").join(other)).unwrap(), b"lower+");
    assert!(tree.is_whiteout(name));
    let names: Vec<_> = fs::read_dir(tree.path("d")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, [other]);
}

#[test]
fn names_of_255_bytes_work_and_longer_ones_do_not() {
    let long = "n".repeat(255);
    let tree = mount!(Setup::new().lower(|l| l.file(&long, "lower").dir("d")));
    assert_eq!(tree.read(&long), "lower");
    tree.append(&long, "+");
    fs::rename(tree.path(&long), tree.path("d").join(&long)).unwrap();
    fs::remove_file(tree.path("d").join(&long)).unwrap();
    tree.write(&long, "new");
    fs::remove_file(tree.path(&long)).unwrap();
    assert!(tree.is_whiteout(&long));
    let too_long = "n".repeat(256);
    assert_eq!(errno(lstat(tree.path(&too_long))), Errno::NAMETOOLONG);
    assert_eq!(errno(open(tree.path(&too_long), OFlags::CREATE | OFlags::WRONLY)), Errno::NAMETOOLONG);
}

#[test]
fn paths_beyond_path_max_are_reached_by_descending() {
    const DEPTH: usize = 60;
    let name = "d".repeat(200);
    let descend = |root: &std::path::Path, make: bool| {
        let mut dir = open(root, OFlags::RDONLY | OFlags::DIRECTORY).unwrap();
        for _ in 0..DEPTH {
            if make {
                rustix::fs::mkdirat(&dir, &name, Mode::from_raw_mode(0o755)).unwrap();
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            dir = rustix::fs::openat(&dir, &name, flags, Mode::empty()).unwrap().into();
        }
        dir
    };
    needs_root!();
    // Built and removed beside the fixture, whose snapshots work with paths.
    let base = Setup::new().lower(|l| l.dir("d"));
    let tree = base.mount();
    {
        let dir = descend(&tree.path("d"), true);
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&dir, "file", flags, Mode::from_raw_mode(0o600)).unwrap();
        assert_eq!(rustix::io::write(&file, b"deep").unwrap(), 4);
        rustix::fs::renameat(&dir, "file", &dir, "renamed").unwrap();
    }
    let dir = descend(&tree.path("d"), false);
    assert_eq!(rustix::fs::statat(&dir, "renamed", AtFlags::empty()).unwrap().st_size, 4);
    rustix::fs::unlinkat(&dir, "renamed", AtFlags::empty()).unwrap();
    drop(dir);
    fs::remove_dir_all(tree.path("d")).unwrap();
    assert_eq!(tree.list(""), Vec::<String>::new());
}

#[test]
fn dot_wh_is_an_ordinary_name_when_it_hides_nothing_special() {
    let tree = mount!(Setup::new().lower(|l| l.file("wh.a", "1").file(".whb", "2").file(".w", "3")));
    assert_eq!(tree.list(""), [".w", ".whb", "wh.a"]);
}

#[test]
fn symlinks_are_shown_as_they_are() {
    let tree = mount!(Setup::new().lower(|l| {
        l.symlink("dangling", "nowhere/at all")
            .symlink("up", "../../etc")
            .symlink("d/to-file", "file")
            .file("d/file", "x")
    }));
    for _ in 0..2 {
        assert_eq!(fs::read_link(tree.path("dangling")).unwrap().as_os_str(), "nowhere/at all");
        assert_eq!(fs::read_link(tree.path("up")).unwrap().as_os_str(), "../../etc");
        assert_eq!(tree.read("d/to-file"), "x");
        assert_eq!(tree.stat("dangling").st_size, 14);
    }
    // As long as XFS takes them.
    let long = "t/".repeat(511);
    std::os::unix::fs::symlink(&long, tree.path("long")).unwrap();
    assert_eq!(fs::read_link(tree.path("long")).unwrap().as_os_str(), &*long);
    assert_eq!(errno(lstat(tree.path("dangling/x"))), Errno::NOENT);
}

#[test]
fn every_type_is_shown() {
    let tree = mount!(
        Setup::new().lower(|l| l
            .file("file", "x")
            .dir("dir")
            .symlink("link", "x")
            .fifo("fifo")
            .char_device("null", 1, 3))
    );
    let kind = |path: &str| tree.stat(path).st_mode & libc::S_IFMT;
    assert_eq!(kind("file"), libc::S_IFREG);
    assert_eq!(kind("dir"), libc::S_IFDIR);
    assert_eq!(kind("link"), libc::S_IFLNK);
    assert_eq!(kind("fifo"), libc::S_IFIFO);
    assert_eq!(kind("null"), libc::S_IFCHR);
    assert_eq!(tree.stat("null").st_rdev, rustix::fs::makedev(1, 3));
}

#[test]
fn five_hundred_layers_are_one_tree() {
    plyfs_only!("mount(2) takes options of one page only");
    let mut setup = Setup::new();
    for number in 0..500 {
        setup = setup.lower(|l| l.file(format!("only{number}"), "").file("dir/all", number.to_string()));
    }
    let tree = mount!(setup);
    assert_eq!(tree.list("").len(), 501);
    assert_eq!(tree.read("dir/all"), "0");
    assert!(tree.exists("only499"));
    fs::remove_file(tree.path("dir/all")).unwrap();
    fs::remove_file(tree.path("only499")).unwrap();
    assert_eq!(tree.list("dir"), Vec::<String>::new());
    assert!(!tree.exists("only499"));
}

#[test]
fn thirty_layers_are_one_tree() {
    let mut setup = Setup::new();
    for number in 0..30 {
        setup =
            setup.lower(|l| l.file(format!("d/only{number}"), number.to_string()).file("d/all", number.to_string()));
    }
    let tree = mount!(setup);
    assert_eq!(tree.list("d").len(), 31);
    assert_eq!(tree.read("d/all"), "0");
    assert_eq!(tree.read("d/only29"), "29");
}
