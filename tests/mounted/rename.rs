//! Renaming files.

use std::fs;

use rustix::fs::{CWD, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::common::*;

pub fn rename_with(tree: &Mounted, from: &str, to: &str, flags: RenameFlags) -> Result<(), Errno> {
    rustix::fs::renameat_with(CWD, tree.path(from), CWD, tree.path(to), flags)
}

pub fn rename(tree: &Mounted, from: &str, to: &str) -> Result<(), Errno> {
    rename_with(tree, from, to, RenameFlags::empty())
}

#[test]
fn renamed_lower_file_leaves_a_whiteout() {
    let mut tree = mount!(Setup::new().lower(|l| l.file("a", "content").file("d/b", "content").dir("e")));
    let ino = tree.ino("a");
    rename(&tree, "a", "new").unwrap();
    rename(&tree, "d/b", "e/b").unwrap();
    assert!(tree.is_whiteout("a") && tree.is_whiteout("d/b"));
    assert_eq!(tree.ino("new"), ino);
    for _ in 0..2 {
        assert_eq!(tree.read("new"), "content");
        assert_eq!(tree.read("e/b"), "content");
        assert!(!tree.exists("a") && !tree.exists("d/b"));
        tree.remount();
    }
}

#[test]
fn renamed_upper_file_leaves_nothing() {
    let tree = mount!(Setup::new().lower(|l| l.dir("d")));
    tree.write("d/a", "x");
    rename(&tree, "d/a", "d/b").unwrap();
    assert_eq!(errno(lstat(tree.upper("d/a"))), Errno::NOENT);
    assert_eq!(tree.list("d"), ["b"]);
}

/// Names of what a file can be renamed from or onto.
const FILES: [&str; 4] = ["lower", "copied", "upper", "covering"];

fn setup_of_files(dir: &str) -> Setup {
    let path = |name: &str| format!("{dir}/{name}");
    Setup::new()
        .lower(|l| {
            for name in ["lower", "copied", "covering", "whited"] {
                l.file(path(name), format!("{dir} {name} below"));
            }
            l.file("t/lower", "t").file("t/copied", "t").file("t/covering", "t").file("t/whited", "t")
        })
        .upper(|l| {
            for dir in [dir, "t"] {
                l.file(format!("{dir}/upper"), "u").file(format!("{dir}/covering"), "c");
                l.whiteout(format!("{dir}/whited"), Form::Device);
            }
            l
        })
}

#[test]
fn file_goes_over_everything_that_is_no_directory() {
    for from in FILES {
        for to in [FILES.as_slice(), &["whited", "none"]].concat() {
            let mut tree = mount!(setup_of_files("f"));
            tree.append("f/copied", "");
            tree.append("t/copied", "");
            let content = tree.read(format!("f/{from}"));
            rename(&tree, &format!("f/{from}"), &format!("t/{to}")).unwrap();
            for _ in 0..2 {
                assert_eq!(tree.read(format!("t/{to}")), content, "{from} to {to}");
                assert!(!tree.exists(format!("f/{from}")), "{from} to {to}");
                assert_eq!(tree.list("f").len(), 3, "{from} to {to}");
                tree.remount();
            }
            assert_eq!(tree.is_whiteout(format!("f/{from}")), from != "upper", "{from} to {to}");
        }
    }
}

#[test]
fn errnos_are_those_of_rename() {
    let tree = mount!(Setup::new().lower(|l| l.file("f", "").dir("d").file("full/x", "")));
    assert_eq!(rename(&tree, "none", "new"), Err(Errno::NOENT));
    assert_eq!(rename(&tree, "f", "none/new"), Err(Errno::NOENT));
    assert_eq!(rename(&tree, "f", "f/new"), Err(Errno::NOTDIR));
    assert_eq!(rename(&tree, "f", "d"), Err(Errno::ISDIR));
    assert_eq!(rename(&tree, "d", "f"), Err(Errno::NOTDIR));
    assert_eq!(rename(&tree, "d", "full"), Err(Errno::NOTEMPTY));
    assert_eq!(rename(&tree, "d", "d/sub"), Err(Errno::INVAL));
    assert_eq!(rename(&tree, "full/x", "full"), Err(Errno::NOTEMPTY));
    assert_eq!(rename(&tree, "f", "../outside"), Err(Errno::XDEV));
}

#[test]
fn rename_onto_itself_changes_nothing() {
    let tree = mount!(Setup::new().lower(|l| l.file("f", "x").dir("d")));
    rename(&tree, "f", "f").unwrap();
    rename(&tree, "d", "d").unwrap();
    assert!(fs::read_dir(tree.upper("")).unwrap().next().is_none(), "nothing was copied up");
}

#[test]
fn rename_onto_another_link_of_the_same_file_changes_nothing() {
    let tree = mount!(Setup::new().lower(|l| l.file("a", "x").hard_link("b", "a")));
    tree.write("c", "y");
    fs::hard_link(tree.path("c"), tree.path("d")).unwrap();
    rename(&tree, "a", "b").unwrap();
    rename(&tree, "c", "d").unwrap();
    assert_eq!(tree.list(""), ["a", "b", "c", "d"]);
}

#[test]
fn noreplace_keeps_what_is_there() {
    let tree = mount!(Setup::new().lower(|l| l.file("a", "a").file("b", "b").file("w", "")));
    tree.write("upper", "u");
    fs::remove_file(tree.path("w")).unwrap();
    for to in ["b", "upper", "a"] {
        assert_eq!(rename_with(&tree, "a", to, RenameFlags::NOREPLACE), Err(Errno::EXIST), "{to}");
    }
    rename_with(&tree, "a", "w", RenameFlags::NOREPLACE).unwrap();
    rename_with(&tree, "w", "new", RenameFlags::NOREPLACE).unwrap();
    assert_eq!(tree.read("new"), "a");
    assert_eq!(tree.list(""), ["b", "new", "upper"]);
}

#[test]
fn exchange_of_files() {
    let mut tree = mount!(setup_of_files("f"));
    tree.append("f/copied", "");
    for (one, two) in [("lower", "lower"), ("copied", "upper"), ("upper", "covering"), ("covering", "copied")] {
        let (one, two) = (format!("f/{one}"), format!("t/{two}"));
        let (first, second) = ((tree.read(&one), tree.ino(&one)), (tree.read(&two), tree.ino(&two)));
        rename_with(&tree, &one, &two, RenameFlags::EXCHANGE).unwrap();
        assert_eq!((tree.read(&two), tree.ino(&two)), first, "{one} {two}");
        assert_eq!((tree.read(&one), tree.ino(&one)), second, "{one} {two}");
    }
    let before = tree.tree();
    tree.remount();
    before.assert_eq(&tree.tree(), "another tree after remount");
    assert_eq!(rename_with(&tree, "f/lower", "none", RenameFlags::EXCHANGE), Err(Errno::NOENT));
    assert_eq!(rename_with(&tree, "f/lower", "f/whited", RenameFlags::EXCHANGE), Err(Errno::NOENT));
}

#[test]
fn exchange_of_a_file_and_a_directory() {
    let mut tree = mount!(Setup::new().lower(|l| l.file("f", "x").file("p/d/inner", "y")));
    rename_with(&tree, "f", "p/d", RenameFlags::EXCHANGE).unwrap();
    for _ in 0..2 {
        assert_eq!(tree.read("p/d"), "x");
        assert_eq!(tree.read("f/inner"), "y");
        tree.remount();
    }
}

#[test]
fn whiteout_flag_is_refused() {
    let tree = mount!(Setup::new().lower(|l| l.file("f", "x")));
    assert_eq!(rename_with(&tree, "f", "g", RenameFlags::WHITEOUT), Err(Errno::INVAL));
    let both = RenameFlags::NOREPLACE | RenameFlags::EXCHANGE;
    assert_eq!(rename_with(&tree, "f", "g", both), Err(Errno::INVAL));
    assert_eq!(tree.read("f"), "x");
}

#[test]
fn open_file_whose_name_was_replaced_lives_on() {
    let tree = mount!(Setup::new().lower(|l| l.file("target", "old").file("source", "new")));
    tree.write("upper-target", "old");
    for target in ["target", "upper-target"] {
        tree.write("source", "new");
        let file = open(tree.path(target), OFlags::RDWR).unwrap();
        let ino = fstat(&file).st_ino;
        rename(&tree, "source", target).unwrap();
        assert_eq!(tree.read(target), "new", "{target}");
        let mut buffer = [0; 3];
        rustix::io::pread(&file, &mut buffer, 0).unwrap();
        assert_eq!(&buffer, b"old", "{target}");
        let stat = fstat(&file);
        assert_eq!((stat.st_ino, stat.st_nlink, stat.st_size), (ino, 0, 3), "{target}");
        rustix::io::pwrite(&file, b"XXX", 0).unwrap();
        assert_eq!(tree.read(target), "new", "{target}");
    }
}

#[test]
fn open_file_that_is_renamed_lives_on() {
    let tree = mount!(Setup::new().lower(|l| l.file("a", "content").dir("d")));
    let reader = open(tree.path("a"), OFlags::RDONLY).unwrap();
    rename(&tree, "a", "d/b").unwrap();
    let writer = open(tree.path("d/b"), OFlags::WRONLY).unwrap();
    rustix::io::pwrite(&writer, b"CONTENT", 0).unwrap();
    let mut buffer = [0; 7];
    rustix::io::pread(&reader, &mut buffer, 0).unwrap();
    if tree.backend() == Backend::Plyfs {
        assert_eq!(&buffer, b"CONTENT");
    }
    assert_eq!(fstat(&reader).st_ino, fstat(&writer).st_ino);
    assert_eq!(tree.read("d/b"), "CONTENT");
}

#[test]
fn file_renamed_many_times_is_the_same() {
    let mut tree = mount!(Setup::new().lower(|l| l.file("a/f", "content").dir("b").dir("c")));
    let ino = tree.ino("a/f");
    for _ in 0..5 {
        for (from, to) in [("a/f", "b/g"), ("b/g", "c/h"), ("c/h", "a/f")] {
            rename(&tree, from, to).unwrap();
            assert_eq!((tree.read(to).as_str(), tree.ino(to)), ("content", ino));
            assert!(!tree.exists(from));
        }
    }
    tree.remount();
    assert_eq!((tree.read("a/f").as_str(), tree.ino("a/f")), ("content", ino));
    assert!(tree.list("b").is_empty() && tree.list("c").is_empty());
}

#[test]
fn save_by_rename_works_again_and_again() {
    let mut tree = mount!(Setup::new().lower(|l| l.file("etc/config", "0")));
    for round in 1..20 {
        tree.write("etc/config.tmp", round.to_string());
        rename(&tree, "etc/config.tmp", "etc/config").unwrap();
        assert_eq!(tree.read("etc/config"), round.to_string());
        assert_eq!(tree.list("etc"), ["config"]);
    }
    tree.remount();
    assert_eq!(tree.read("etc/config"), "19");
}

#[test]
fn symlinks_and_nodes_are_renamed_themselves() {
    let mut tree =
        mount!(Setup::new().lower(|l| l.symlink("link", "target").fifo("fifo").char_device("null", 1, 3).dir("d")));
    for name in ["link", "fifo", "null"] {
        let before = tree.stat(name);
        rename(&tree, name, &format!("d/{name}")).unwrap();
        let after = tree.stat(format!("d/{name}"));
        assert_eq!((before.st_mode, before.st_rdev, before.st_ino), (after.st_mode, after.st_rdev, after.st_ino));
        assert!(tree.is_whiteout(name));
    }
    tree.remount();
    assert_eq!(fs::read_link(tree.path("d/link")).unwrap().as_os_str(), "target");
}

#[test]
fn rename_of_a_whiteout_is_enoent() {
    let tree = mount!(Setup::new().lower(|l| l.file("d/f", "")));
    fs::remove_file(tree.path("d/f")).unwrap();
    assert_eq!(rename(&tree, "d/f", "g"), Err(Errno::NOENT));
}
