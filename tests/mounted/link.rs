//! Hard links.

use std::fs;

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::common::*;

fn setup() -> Setup {
    Setup::new().lower(|l| l.file("a", "content").hard_link("b", "a").hard_link("d/c", "a").file("single", "s"))
}

fn check(tree: &Mounted, paths: &[&str], content: &str) {
    let first = tree.stat(paths[0]);
    assert_eq!(first.st_nlink as usize, paths.len());
    for path in paths {
        let stat = tree.stat(path);
        assert_eq!((stat.st_ino, stat.st_nlink), (first.st_ino, first.st_nlink), "{path}");
        assert_eq!(tree.read(path), content, "{path}");
    }
}

#[test]
fn lower_hard_links_are_one_inode() {
    let mut tree = mount!(setup());
    check(&tree, &["a", "b", "d/c"], "content");
    tree.remount();
    check(&tree, &["d/c", "b", "a"], "content");
}

#[test]
fn lower_hard_links_stay_one_inode_over_copy_up() {
    let mut tree = mount!(setup());
    let ino = tree.ino("a");
    tree.append("b", "+");
    for _ in 0..2 {
        check(&tree, &["a", "b", "d/c"], "content+");
        assert_eq!(tree.ino("d/c"), ino);
        tree.remount();
    }
    tree.append("d/c", "+");
    tree.append("a", "+");
    check(&tree, &["a", "b", "d/c"], "content+++");
}

#[test]
fn copy_up_by_one_name_is_seen_through_an_open_file_of_another() {
    plyfs_only!("the kernel's reader of a lower file does not see its copy");
    let tree = mount!(setup());
    let reader = open(tree.path("d/c"), OFlags::RDONLY).unwrap();
    fs::write(tree.path("a"), "CONTENT").unwrap();
    let mut buffer = [0; 7];
    rustix::io::pread(&reader, &mut buffer, 0).unwrap();
    assert_eq!(&buffer, b"CONTENT");
}

#[test]
fn link_counts_follow_removals() {
    let mut tree = mount!(setup());
    fs::remove_file(tree.path("b")).unwrap();
    for _ in 0..2 {
        check(&tree, &["a", "d/c"], "content");
        tree.remount();
    }
    tree.append("d/c", "+");
    check(&tree, &["a", "d/c"], "content+");
    fs::remove_file(tree.path("a")).unwrap();
    for _ in 0..2 {
        check(&tree, &["d/c"], "content+");
        tree.remount();
    }
    let file = open(tree.path("d/c"), OFlags::RDONLY).unwrap();
    fs::remove_file(tree.path("d/c")).unwrap();
    assert_eq!(fstat(&file).st_nlink, 0);
}

#[test]
fn the_last_name_of_an_indexed_file_gets_its_upper_link_when_the_file_is_changed() {
    for change in ["open", "chmod", "append"] {
        let mut tree = mount!(Setup::new().lower(|l| l.file("a", "a").hard_link("b", "a")));
        tree.append("a", "+");
        fs::remove_file(tree.path("a")).unwrap();
        assert_eq!((tree.stat("b").st_nlink, lstat(tree.upper("b")).err()), (1, Some(Errno::NOENT)));
        match change {
            "open" => drop(open(tree.path("b"), OFlags::WRONLY).unwrap()),
            "chmod" => rustix::fs::chmod(tree.path("b"), rustix::fs::Mode::from_raw_mode(0o600)).unwrap(),
            _ => tree.append("b", "+"),
        }
        assert_eq!(lstat(tree.upper("b")).unwrap().st_nlink, 2, "{change}");
        for _ in 0..2 {
            assert_eq!(tree.stat("b").st_nlink, 1, "{change}");
            assert_eq!(tree.read("b").trim_end_matches('+'), "a");
            tree.remount();
        }
    }
}

#[test]
fn link_counts_follow_new_links_to_copies() {
    let mut tree = mount!(setup());
    fs::hard_link(tree.path("a"), tree.path("new")).unwrap();
    for _ in 0..2 {
        check(&tree, &["a", "b", "d/c", "new"], "content");
        tree.remount();
    }
    tree.append("b", "+");
    check(&tree, &["a", "b", "d/c", "new"], "content+");
    fs::remove_file(tree.path("a")).unwrap();
    fs::rename(tree.path("b"), tree.path("d/renamed")).unwrap();
    for _ in 0..2 {
        check(&tree, &["d/c", "d/renamed", "new"], "content+");
        tree.remount();
    }
}

#[test]
fn replacing_a_link_by_rename_lowers_the_count() {
    let mut tree = mount!(setup());
    fs::rename(tree.path("single"), tree.path("b")).unwrap();
    for _ in 0..2 {
        check(&tree, &["a", "d/c"], "content");
        assert_eq!(tree.read("b"), "s");
        tree.remount();
    }
}

#[test]
fn link_of_a_lower_file() {
    let mut tree = mount!(setup());
    let ino = tree.ino("single");
    fs::hard_link(tree.path("single"), tree.path("d/link")).unwrap();
    for _ in 0..2 {
        check(&tree, &["single", "d/link"], "s");
        assert_eq!(tree.ino("d/link"), ino);
        tree.remount();
    }
    tree.append("d/link", "+");
    check(&tree, &["single", "d/link"], "s+");
    fs::remove_file(tree.path("single")).unwrap();
    check(&tree, &["d/link"], "s+");
    assert!(tree.is_whiteout("single"));
}

#[test]
fn link_of_an_upper_file() {
    let mut tree = mount!(setup());
    tree.write("new", "n");
    fs::hard_link(tree.path("new"), tree.path("d/new")).unwrap();
    for _ in 0..2 {
        check(&tree, &["new", "d/new"], "n");
        tree.remount();
    }
    fs::remove_file(tree.path("new")).unwrap();
    check(&tree, &["d/new"], "n");
    assert_eq!(errno(lstat(tree.upper("new"))), Errno::NOENT);
}

#[test]
fn link_over_a_whiteout() {
    let mut tree = mount!(setup());
    fs::remove_file(tree.path("single")).unwrap();
    fs::hard_link(tree.path("a"), tree.path("single")).unwrap();
    for _ in 0..2 {
        check(&tree, &["a", "b", "d/c", "single"], "content");
        tree.remount();
    }
}

#[test]
fn links_of_symlinks_and_nodes() {
    let mut tree = mount!(Setup::new().lower(|l| l.symlink("link", "target").fifo("fifo")));
    for name in ["link", "fifo"] {
        let from = tree.path(name);
        rustix::fs::link(&from, tree.path(format!("{name}2"))).unwrap();
    }
    for _ in 0..2 {
        for name in ["link", "fifo"] {
            assert_eq!(tree.ino(name), tree.ino(format!("{name}2")), "{name}");
            assert_eq!(tree.stat(name).st_nlink, 2, "{name}");
        }
        tree.remount();
    }
}

#[test]
fn errnos_are_those_of_link() {
    let tree = mount!(Setup::new().lower(|l| l.file("f", "").file("g", "").dir("d")));
    let link = |from: &str, to: &str| rustix::fs::link(tree.path(from), tree.path(to));
    assert_eq!(link("none", "new"), Err(Errno::NOENT));
    assert_eq!(link("d", "new"), Err(Errno::PERM));
    assert_eq!(link("f", "g"), Err(Errno::EXIST));
    assert_eq!(link("f", "none/new"), Err(Errno::NOENT));
    assert_eq!(link("f", "g/new"), Err(Errno::NOTDIR));
    assert_eq!(link("f", "../outside"), Err(Errno::XDEV));
}

#[test]
fn mode_owner_and_times_are_shared_by_links() {
    let tree = mount!(setup());
    std::os::unix::fs::chown(tree.path("a"), Some(5), Some(6)).unwrap();
    rustix::fs::chmod(tree.path("b"), rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    set_xattr(&tree.path("d/c"), "user.x", "y").unwrap();
    for name in ["a", "b", "d/c"] {
        let stat = tree.stat(name);
        assert_eq!((stat.st_uid, stat.st_gid, stat.st_mode & 0o7777), (5, 6, 0o600), "{name}");
        assert_eq!(xattr(&tree.path(name), "user.x").as_deref(), Ok(b"y".as_slice()), "{name}");
    }
}

#[test]
fn links_across_layers_are_not_mixed_up() {
    let tree = mount!(
        Setup::new()
            .lower(|l| l.file("a", "0").hard_link("b", "a"))
            .lower(|l| l.file("a", "1").hard_link("c", "a").hard_link("e", "a"))
    );
    assert_eq!(tree.ino("a"), tree.ino("b"));
    assert_eq!(tree.ino("c"), tree.ino("e"));
    assert_ne!(tree.ino("a"), tree.ino("c"));
    tree.append("c", "+");
    assert_eq!(tree.read("a"), "0");
    assert_eq!(tree.read("e"), "1+");
}

#[test]
fn all_links_of_a_lower_file_are_removed() {
    let mut tree = mount!(setup());
    for name in ["a", "b", "d/c"] {
        fs::remove_file(tree.path(name)).unwrap();
        assert!(tree.is_whiteout(name), "{name}");
    }
    for _ in 0..2 {
        assert_eq!(tree.list(""), ["d", "single"]);
        tree.remount();
    }
}

#[test]
fn one_of_many_links_is_changed_and_all_are_listed_with_one_number() {
    let tree = mount!(Setup::new().lower(|l| {
        l.file("d/f0", "x");
        (1..50).fold(l, |l, number| l.hard_link(format!("d/f{number}"), "d/f0"))
    }));
    tree.append("d/f7", "y");
    let inos: std::collections::BTreeSet<_> =
        raw_list(tree.path("d")).into_iter().filter(|(name, _)| name.starts_with(b"f")).map(|(_, ino)| ino).collect();
    assert_eq!(inos.len(), 1);
    assert_eq!(tree.stat("d/f49").st_nlink, 50);
    assert_eq!(tree.read("d/f49"), "xy");
}

#[test]
fn open_file_stays_one_inode_with_the_links_that_are_left() {
    for writes in [false, true] {
        let mut tree = mount!(setup());
        tree.write("n1", "new");
        fs::hard_link(tree.path("n1"), tree.path("n2")).unwrap();
        // Looked up by one name only, which goes while the file is open.
        tree.remount();
        for (gone, left) in [("b", "a"), ("n1", "n2")] {
            let file = open(tree.path(gone), if writes { OFlags::RDWR } else { OFlags::RDONLY }).unwrap();
            fs::remove_file(tree.path(gone)).unwrap();
            assert_eq!(fstat(&file).st_ino, tree.ino(left), "{left}");
            assert_eq!(fstat(&file).st_nlink, tree.stat(left).st_nlink, "{left}");
            let again = open(tree.path(left), OFlags::RDWR).unwrap();
            rustix::io::pwrite(&again, b"CHANGED", 0).unwrap();
            let mut buffer = [0; 7];
            rustix::io::pread(&file, &mut buffer, 0).unwrap();
            if tree.backend() == Backend::Plyfs || writes {
                assert_eq!(&buffer, b"CHANGED", "{left}");
            }
        }
        check(&tree, &["a", "d/c"], "CHANGED");
        check(&tree, &["n2"], "CHANGED");
    }
}
