//! Inode numbers.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use crate::common::*;

fn setup() -> Setup {
    Setup::new()
        .lower(|l| l.file("f", "x").file("d/g", "x").symlink("l", "x").fifo("p").dir("e"))
        .lower(|l| l.file("d/h", "x").file("e/i", "x"))
}

/// The numbers of everything below `dir`, by path.
fn numbers(root: &Path, dir: &Path, map: &mut BTreeMap<String, u64>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let meta = path.symlink_metadata().unwrap();
        map.insert(path.strip_prefix(root).unwrap().to_string_lossy().into_owned(), meta.ino());
        if meta.is_dir() {
            numbers(root, &path, map);
        }
    }
}

fn all(tree: &Mounted) -> BTreeMap<String, u64> {
    let mut map = BTreeMap::new();
    numbers(&tree.path(""), &tree.path(""), &mut map);
    map
}

#[test]
fn numbers_stay_over_copy_up_rename_and_remount() {
    let mut tree = mount!(setup());
    let before = all(&tree);
    for path in ["f", "d", "d/g", "d/h", "e", "p"] {
        rustix::fs::chmod(tree.path(path), Mode::from_raw_mode(0o700)).unwrap();
    }
    std::os::unix::fs::lchown(tree.path("l"), Some(1), None).unwrap();
    assert_eq!(all(&tree), before);
    tree.remount();
    assert_eq!(all(&tree), before);
    for (from, to) in [("f", "e/f"), ("d/g", "g"), ("l", "e/l"), ("d", "e/d")] {
        let ino = tree.ino(from);
        fs::rename(tree.path(from), tree.path(to)).unwrap();
        assert_eq!(tree.ino(to), ino, "{from}");
    }
    let renamed = all(&tree);
    tree.remount();
    assert_eq!(all(&tree), renamed);
}

#[test]
fn numbers_of_new_objects_stay_over_remount() {
    let mut tree = mount!(setup());
    tree.write("new", "");
    fs::create_dir_all(tree.path("d/new/sub")).unwrap();
    fs::remove_file(tree.path("f")).unwrap();
    tree.write("f", "");
    let before = all(&tree);
    tree.remount();
    assert_eq!(all(&tree), before);
}

#[test]
fn numbers_are_unique() {
    let tree =
        mount!(Setup::new().lower(|l| l.files("d", 100).files("e", 100)).lower(|l| l.files("d", 150).files("g", 100)));
    for number in 0..50 {
        tree.append(format!("d/f{number}"), "x");
        tree.write(format!("d/new{number}"), "x");
    }
    let all = all(&tree);
    let unique: std::collections::BTreeSet<_> = all.values().collect();
    assert_eq!(all.len(), unique.len());
}

#[test]
fn numbers_of_layers_on_different_filesystems_do_not_clash() {
    let mut tree = mount!(Setup::new().lower_elsewhere(|l| l.files("d", 300)).lower(|l| l.files("d/disk", 300)));
    let before = all(&tree);
    let unique: std::collections::BTreeSet<_> = before.values().collect();
    assert_eq!((before.len(), unique.len()), (602, 602));
    tree.append("d/f7", "x");
    tree.append("d/disk/f7", "x");
    assert_eq!(all(&tree), before);
    tree.remount();
    assert_eq!(all(&tree), before);
    for (name, ino) in raw_list(tree.path("d")) {
        if name.starts_with(b"f") {
            assert_eq!(before[&format!("d/{}", String::from_utf8(name).unwrap())], ino);
        }
    }
}

#[test]
fn device_number_is_the_same_everywhere() {
    let tree = mount!(setup());
    tree.append("f", "x");
    let device = tree.stat("").st_dev;
    for path in ["f", "d", "d/g", "d/h", "l", "e/i"] {
        assert_eq!(tree.stat(path).st_dev, device, "{path}");
    }
    assert_ne!(device, lstat(tree.beside("")).unwrap().st_dev);
}

#[test]
fn open_file_and_its_name_have_one_number() {
    let tree = mount!(setup());
    let file = open(tree.path("f"), OFlags::RDONLY).unwrap();
    assert_eq!(fstat(&file).st_ino, tree.ino("f"));
    tree.append("f", "x");
    assert_eq!(fstat(&file).st_ino, tree.ino("f"));
    fs::rename(tree.path("f"), tree.path("d/f")).unwrap();
    assert_eq!(fstat(&file).st_ino, tree.ino("d/f"));
}

#[test]
fn number_of_a_removed_file_is_not_taken_while_it_is_open() {
    let tree = mount!(setup());
    tree.write("first", "");
    let file = open(tree.path("first"), OFlags::RDONLY).unwrap();
    let ino = fstat(&file).st_ino;
    fs::remove_file(tree.path("first")).unwrap();
    for number in 0..50 {
        tree.write(format!("new{number}"), "");
        assert_ne!(tree.ino(format!("new{number}")), ino);
    }
}

#[test]
fn find_and_tar_see_a_plain_tree() {
    let tree = mount!(
        Setup::new()
            .lower(|l| l.files("a/b", 50).hard_link("a/link", "a/b/f1").symlink("a/sym", "b"))
            .lower(|l| l.files("a/c", 50))
    );
    tree.append("a/b/f3", "x");
    let found = run(std::process::Command::new("find").arg(tree.path("a")).args(["-xdev", "-type", "f"]));
    assert_eq!(found.lines().count(), 101);
    let output = tree.beside("out.tar");
    run(std::process::Command::new("tar").arg("-C").arg(tree.path("")).arg("-cf").arg(&output).arg("a"));
    let list = run(std::process::Command::new("tar").arg("-tvf").arg(&output));
    assert!(list.contains("link to"), "{list}");
    run(std::process::Command::new("tar").arg("-C").arg(tree.path("")).arg("-df").arg(&output));
}
