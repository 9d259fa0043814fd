//! `xino=on|off|auto`: inode numbers over layers of several filesystems.

use std::collections::BTreeMap;
use std::fs;

use crate::common::*;
use crate::rename::rename;

const OPTIONS: [&str; 3] = ["xino=on", "xino=auto", "xino=off"];

fn setup(options: &'static str) -> Setup {
    Setup::new()
        .both(options)
        .lower(|l| l.file("a0", "").file("d/a", "").file("d/0", "").symlink("l0", "a0").fifo("p0"))
        .lower_elsewhere(|l| l.file("a1", "").file("d/b", "").file("e/1", "").symlink("l1", "a1"))
        .lower_elsewhere(|l| l.file("a2", "").file("d/c", "").file("e/2", "").file("e/sub/2", "").symlink("l2", "a2"))
}

/// Device and inode number of everything but the root.
fn numbers(tree: &Mounted) -> BTreeMap<String, (u64, u64)> {
    let paths = tree.tree().paths().into_iter().filter(|path| !path.is_empty());
    paths.map(|path| (path.clone(), (tree.stat(&path).st_dev, tree.ino(&path)))).collect()
}

#[track_caller]
fn assert_unique(numbers: &BTreeMap<String, (u64, u64)>, what: &str) {
    let mut owners = BTreeMap::new();
    for (path, number) in numbers {
        if let Some(other) = owners.insert(number, path) {
            panic!("{what}: {path} and {other} are both {number:?}");
        }
    }
}

#[test]
fn device_and_number_together_are_unique() {
    for options in OPTIONS {
        let tree = mount!(setup(options));
        tree.write("new", "");
        tree.append("a1", "+");
        fs::create_dir(tree.path("e/made")).unwrap();
        assert_unique(&numbers(&tree), options);
    }
}

#[test]
fn with_xino_all_are_of_one_device_and_have_numbers_of_their_own() {
    for options in ["xino=on", "xino=auto"] {
        let tree = mount!(setup(options));
        tree.write("new", "");
        let root = tree.stat("").st_dev;
        let mut seen = BTreeMap::new();
        for (path, (device, number)) in numbers(&tree) {
            assert_eq!(device, root, "{options}: the device of {path}");
            if let Some(other) = seen.insert(number, path.clone()) {
                panic!("{options}: {path} and {other} have number {number:x}");
            }
        }
    }
}

#[test]
fn without_xino_plyfs_shows_one_device_all_the_same() {
    plyfs_only!("the kernel's overlayfs shows devices made up for each layer");
    let tree = mount!(setup("xino=off"));
    let root = tree.stat("").st_dev;
    assert!(numbers(&tree).values().all(|(device, _)| *device == root));
}

#[test]
fn numbers_stay_over_copy_up_and_rename() {
    for options in ["xino=on", "xino=auto"] {
        let mut tree = mount!(setup(options));
        let before = numbers(&tree);
        for path in ["a0", "a1", "a2", "d/b", "e/1"] {
            tree.append(path, "+");
        }
        fs::set_permissions(tree.path("d"), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        assert_eq!(numbers(&tree), before, "{options}: after copy-up");
        rename(&tree, "a1", "renamed").unwrap();
        assert_eq!(tree.ino("renamed"), before["a1"].1, "{options}");
        rename(&tree, "renamed", "a1").unwrap();
        tree.remount();
        let after = numbers(&tree);
        for (path, (_, number)) in &before {
            assert_eq!(after[path].1, *number, "{options}: {path} after remount");
        }
    }
}

#[test]
fn listed_numbers_are_those_of_stat_on_every_filesystem() {
    for options in OPTIONS {
        let tree = mount!(setup(options));
        tree.append("d/b", "+");
        tree.write("d/new", "");
        for dir in ["", "d", "e", "e/sub"] {
            for (name, number) in raw_list(tree.path(dir)) {
                let name = String::from_utf8(name).unwrap();
                // The kernel's overlayfs lists what lies beyond its mount, and numbers of layers without xino.
                let is_parent = name == "..";
                let differs = tree.backend() == Backend::Kernel && options == "xino=off";
                if is_parent || differs {
                    continue;
                }
                assert_eq!(
                    number,
                    tree.ino(format!("{dir}/{name}").trim_start_matches('/')),
                    "{options}: {dir}/{name}"
                );
            }
        }
    }
}

#[test]
fn layers_of_one_filesystem_have_one_device_with_every_option() {
    for options in OPTIONS {
        let setup =
            Setup::new().both(options).lower(|l| l.file("a", "").dir("d")).lower(|l| l.file("b", "").file("d/c", ""));
        let mut tree = mount!(setup);
        tree.write("new", "");
        let all = numbers(&tree);
        let root = tree.stat("").st_dev;
        assert!(all.values().all(|(device, _)| *device == root), "{options}: {all:?}");
        assert_unique(&all, options);
        tree.append("b", "+");
        assert_eq!(numbers(&tree)["b"], all["b"], "{options}");
        tree.remount();
        assert_eq!(tree.ino("b"), all["b"].1, "{options}");
    }
}
