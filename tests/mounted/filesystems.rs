//! Layers on filesystems of every kind, below and above.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::fs::{OFlags, RenameFlags};
use rustix::io::Errno;
use tempfile::TempDir;

use crate::common::*;
use crate::rename::{rename, rename_with};

const OPTIONS: &str = "redirect_dir=on,index=on,xino=auto";
const HOLE_END: u64 = 8 << 20;

/// The user and the group may read, and user 1001 may read and write.
fn acl() -> Vec<u8> {
    let entries = [(1_u16, 6_u16, u32::MAX), (2, 6, 1001), (4, 4, u32::MAX), (0x10, 6, u32::MAX), (0x20, 4, u32::MAX)];
    let entry = |(tag, rights, id): (u16, u16, u32)| {
        [&tag.to_le_bytes()[..], &rights.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    entries.into_iter().fold(vec![2, 0, 0, 0], |acl, next| [acl, entry(next)].concat())
}

/// What every lower layer holds.
fn build(l: &Layer) -> &Layer {
    l.file("f", "content").mode("f", 0o640).owner("f", 1001, 1002).time("f", 1_000_000_000, 0);
    l.xattr("f", "user.x", "1").xattr("f", "security.test", "2");
    l.file("d/a", "a").file("d/b", "b").file("d/sub/c", "c").file("gone/x", "x").files("many", 50);
    l.file("h1", "linked").hard_link("h2", "h1").hard_link("d/h3", "h1");
    l.symlink("link", "d/a").fifo("fifo").char_device("null", 1, 3).mode("d", 0o751).owner("d/sub", 5, 6);
    l.file("big", vec![7; 300_000]).file("hole", "begin").file("empty", "").file("suid", "s").mode("suid", 0o4755);
    fs::OpenOptions::new().write(true).open(l.path("hole")).unwrap().write_all_at(b"end", HOLE_END).unwrap();
    l
}

fn numbers(tree: &Mounted) -> BTreeMap<String, u64> {
    tree.tree().paths().into_iter().map(|path| (path.clone(), tree.ino(&path))).collect()
}

/// Reads and changes something of everything, and looks at it again after remounts.
fn exercise(tree: &mut Mounted, what: &str) {
    looks_right(tree, what);
    let before = numbers(tree);
    let mut seen = BTreeMap::new();
    for (path, number) in &before {
        let is_link = ["h1", "h2", "d/h3"].contains(&path.as_str());
        if let Some(other) = seen.insert(*number, path).filter(|_| !is_link) {
            panic!("{what}: {path} and {other} have one number");
        }
    }
    for dir in ["", "d", "many"] {
        for (name, number) in raw_list(tree.path(dir)) {
            let name = String::from_utf8(name).unwrap();
            if name != "." && name != ".." {
                assert_eq!(number, tree.ino(Path::new(dir).join(&name)), "{what}: {dir}/{name}");
            }
        }
    }

    // Copied up: by its data, and by its attributes. Not every image has holes.
    let had_hole = tree.stat("hole").st_blocks < 4096;
    tree.append("f", "+");
    for path in ["link", "fifo", "null", "suid", "hole", "d/sub"] {
        std::os::unix::fs::lchown(tree.path(path), Some(7), None).unwrap();
    }
    tree.append("h2", "+");
    assert_eq!(tree.stat("f").st_mode & 0o7777, 0o640, "{what}");
    assert_eq!((tree.stat("f").st_uid, tree.stat("f").st_gid), (1001, 1002), "{what}");
    assert_eq!(xattr(&tree.path("f"), "user.x").as_deref(), Ok(&b"1"[..]), "{what}");
    assert_eq!(xattr(&tree.path("f"), "security.test").as_deref(), Ok(&b"2"[..]), "{what}");
    // As the kernel's overlayfs has it, a file takes ACLs once it is where they are supported.
    tree.append("d/a", "");
    std::os::unix::fs::lchown(tree.path("d/a"), Some(9), None).unwrap();
    set_xattr(&tree.path("d/a"), "system.posix_acl_access", acl()).unwrap();
    assert_eq!(xattr(&tree.path("d/a"), "system.posix_acl_access"), Ok(acl()), "{what}");
    set_xattr(&tree.path("d/a"), "user.y", vec![b'y'; 1000]).unwrap();
    if had_hole {
        assert!(tree.stat("hole").st_blocks < 4096, "{what}: {} blocks", tree.stat("hole").st_blocks);
    }
    for path in ["h1", "h2", "d/h3"] {
        assert_eq!((tree.read(path).as_str(), tree.stat(path).st_nlink), ("linked+", 3), "{what}: {path}");
    }
    assert_eq!(numbers(tree), before, "{what}: other numbers after copy-up");

    // Moved, removed, made, linked.
    rename(tree, "d", "moved").unwrap();
    rename(tree, "moved/sub", "sub").unwrap();
    rename_with(tree, "big", "suid", RenameFlags::EXCHANGE).unwrap();
    fs::remove_dir_all(tree.path("gone")).unwrap();
    fs::create_dir(tree.path("gone")).unwrap();
    for number in (0..50).step_by(2) {
        fs::remove_file(tree.path(format!("many/f{number}"))).unwrap();
    }
    tree.write("new", "new");
    fs::hard_link(tree.path("empty"), tree.path("linked")).unwrap();
    fs::remove_file(tree.path("h1")).unwrap();
    let file = open(tree.path("new"), OFlags::RDWR).unwrap();
    rustix::fs::ftruncate(&file, 1 << 20).unwrap();
    file.write_all_at(b"end", 1 << 20).unwrap();
    rustix::fs::fsync(&file).unwrap();
    drop(file);

    let (shown, numbers_before) = (tree.tree(), numbers(tree));
    for _ in 0..2 {
        assert_eq!(tree.list("moved"), ["a", "b", "h3"], "{what}");
        assert_eq!((tree.list("sub"), tree.list("gone").len(), tree.list("many").len()), (vec!["c".into()], 0, 25));
        assert_eq!((tree.stat("suid").st_size, tree.stat("new").st_size), (300_000, (1 << 20) + 3), "{what}");
        assert_eq!(xattr(&tree.path("moved/a"), "system.posix_acl_access"), Ok(acl()), "{what}");
        assert!(!tree.exists("d") && !tree.exists("h1"));
        for path in ["h2", "moved/h3"] {
            assert_eq!((tree.read(path).as_str(), tree.stat(path).st_nlink), ("linked+", 2), "{what}: {path}");
        }
        tree.remount();
        shown.assert_eq(&tree.tree(), &format!("{what}: another tree after remount"));
        assert_eq!(numbers(tree), numbers_before, "{what}: other numbers after remount");
    }
}

fn looks_right(tree: &Mounted, what: &str) {
    assert_eq!((tree.read("f").as_str(), tree.read("d/sub/c").as_str()), ("content", "c"), "{what}");
    let stat = tree.stat("f");
    assert_eq!((stat.st_mode & 0o7777, stat.st_uid, stat.st_gid, stat.st_mtime), (0o640, 1001, 1002, 1_000_000_000));
    assert_eq!(xattr(&tree.path("f"), "user.x").as_deref(), Ok(&b"1"[..]), "{what}");
    assert_eq!(tree.list("many").len(), 50, "{what}");
    assert_eq!(fs::read_link(tree.path("link")).unwrap(), Path::new("d/a"), "{what}");
    assert_eq!(fs::read_to_string(tree.path("link")).unwrap(), "a", "{what}");
    assert!(fs::symlink_metadata(tree.path("fifo")).unwrap().file_type().is_fifo(), "{what}");
    assert_eq!(fs::symlink_metadata(tree.path("null")).unwrap().rdev(), rustix::fs::makedev(1, 3), "{what}");
    assert_eq!((tree.stat("suid").st_mode & 0o7777, tree.stat("d/sub").st_uid), (0o4755, 5), "{what}");
    assert!(fs::read(tree.path("big")).unwrap() == [7; 300_000], "{what}");
    let mut end = [0; 5];
    open(tree.path("hole"), OFlags::RDONLY).unwrap().read_exact_at(&mut end, HOLE_END - 2).unwrap();
    assert_eq!(end, *b"\0\0end", "{what}");
    for path in ["h1", "h2", "d/h3"] {
        assert_eq!((tree.ino(path), tree.stat(path).st_nlink), (tree.ino("h1"), 3), "{what}: {path}");
    }
    assert_eq!(lstat(tree.path("d/none")).err(), Some(Errno::NOENT), "{what}");
}

/// A directory for images and what is mounted of them.
fn scratch() -> TempDir {
    let base = std::env::var_os("PLYFS_TEST_DIR").map_or_else(std::env::temp_dir, Into::into);
    tempfile::Builder::new().prefix("plyfs-").tempdir_in(base).unwrap()
}

/// A lower layer on `filesystem`, and an upper where tests usually have it.
fn exercise_lower(filesystem: Filesystem) {
    // Its thread gets its own mounts.
    let setup = Setup::new().both(OPTIONS);
    let dir = scratch();
    let source = Layer::at(dir.path().join("source"));
    build(&source);
    let volume = Volume::of(filesystem, &source.path(""), dir.path().join("lower"));
    let mut tree = setup.lower_at(&volume.path).mount();
    exercise(&mut tree, &format!("{filesystem:?} below"));
}

/// An upper on `filesystem`, and lower layers on two others.
fn exercise_upper(filesystem: Filesystem) {
    let setup = Setup::new().both(OPTIONS);
    let dir = scratch();
    let volume = Volume::empty(filesystem, dir.path().join("up"));
    let setup = setup.upper_in(&volume.path).lower_elsewhere(|l| l.file("many/f7", "above").file("d/b", "b"));
    let mut tree = setup.lower(build).mount();
    exercise(&mut tree, &format!("{filesystem:?} above"));
}

macro_rules! on {
    ($($name:ident: $exercise:ident($filesystem:ident);)*) => {
        $(
            #[test]
            fn $name() {
                needs_root!();
                if let Some(reason) = Filesystem::$filesystem.is_missing() {
                    skip!(reason);
                }
                $exercise(Filesystem::$filesystem);
            }
        )*
    };
}

on! {
    lower_layer_on_squashfs: exercise_lower(Squashfs);
    lower_layer_on_erofs: exercise_lower(Erofs);
    lower_layer_on_tmpfs: exercise_lower(Tmpfs);
    lower_layer_on_xfs: exercise_lower(Xfs);
    lower_layer_on_btrfs: exercise_lower(Btrfs);
    lower_layer_on_ext4: exercise_lower(Ext4);
    upper_on_tmpfs: exercise_upper(Tmpfs);
    upper_on_xfs: exercise_upper(Xfs);
    upper_on_btrfs: exercise_upper(Btrfs);
    upper_on_ext4: exercise_upper(Ext4);
}

#[test]
fn lower_layers_of_all_kinds_are_one_tree() {
    needs_root!();
    let setup = Setup::new().both(OPTIONS);
    let dir = scratch();
    let kinds = [Filesystem::Squashfs, Filesystem::Erofs, Filesystem::Tmpfs, Filesystem::Btrfs, Filesystem::Ext4];
    if let Some(reason) = kinds.iter().find_map(|kind| kind.is_missing()) {
        skip!(reason);
    }
    let mut volumes = Vec::new();
    for kind in kinds {
        let source = Layer::at(dir.path().join(format!("source-{}", kind.name())));
        // All of them have this one, and each has one of its own.
        source
            .file("common", kind.name())
            .file("d/common", kind.name())
            .file(format!("d/{}", kind.name()), kind.name());
        source.file(format!("s/{}/f", kind.name()), "");
        volumes.push(Volume::of(kind, &source.path(""), dir.path().join(kind.name())));
    }
    let mut tree = volumes.iter().fold(setup, |setup, volume| setup.lower_at(&volume.path)).mount();
    assert_eq!((tree.read("common").as_str(), tree.read("d/common").as_str()), ("squashfs", "squashfs"));
    assert_eq!(tree.list("d"), ["btrfs", "common", "erofs", "ext4", "squashfs", "tmpfs"]);
    let before = numbers(&tree);
    let distinct: std::collections::BTreeSet<_> = before.values().collect();
    assert_eq!(distinct.len(), before.len(), "{before:?}");
    for kind in kinds {
        tree.append(format!("d/{}", kind.name()), "+");
    }
    rename(&tree, "s", "d/s").unwrap();
    assert_eq!(tree.list("d/s").len(), kinds.len());
    tree.remount();
    let after = numbers(&tree);
    for kind in kinds {
        let path = format!("d/{}", kind.name());
        assert_eq!((tree.read(&path), after[&path]), (format!("{}+", kind.name()), before[&path]));
    }
    assert_eq!(after["d/s"], before["s"]);
}

#[test]
fn upper_goes_from_one_to_the_other_on_every_filesystem() {
    plyfs_only!("both take part");
    needs_root!();
    for filesystem in [Filesystem::Tmpfs, Filesystem::Xfs, Filesystem::Btrfs] {
        if let Some(reason) = filesystem.is_missing() {
            skip!(reason);
        }
        let setup = Setup::new().both(OPTIONS).lower(build);
        let dir = scratch();
        let volume = Volume::empty(filesystem, dir.path().join("up"));
        let mut tree = setup.upper_in(&volume.path).mount();
        exercise(&mut tree, &format!("{filesystem:?}"));
        let before = tree.tree();
        tree.switch_to(Backend::Kernel);
        before.assert_eq(&tree.tree(), &format!("{filesystem:?}: on the kernel's overlayfs"));
        tree.append("moved/b", "+");
        rename(&tree, "moved", "many/moved").unwrap();
        let before = tree.tree();
        tree.switch_to(Backend::Plyfs);
        before.assert_eq(&tree.tree(), &format!("{filesystem:?}: on plyfs again"));
    }
}

#[test]
fn lower_layer_is_an_overlay_of_an_erofs_image_and_data() {
    needs_root!();
    if let Some(reason) = Filesystem::Erofs.is_missing() {
        skip!(reason);
    }
    // As images are mounted whose files are kept by their digest.
    // The thread gets its own mounts with its first setup.
    drop(Setup::new());
    let dir = scratch();
    let source = Layer::at(dir.path().join("source"));
    source.file("plain", "plain").file("d/f", "").mode("d/f", 0o640).owner("d/f", 1001, 1002);
    source.xattr("d/f", "trusted.overlay.metacopy", "").xattr("d/f", "trusted.overlay.redirect", "/ab/cdef");
    fs::OpenOptions::new().write(true).open(source.path("d/f")).unwrap().set_len(300_000).unwrap();
    let volume = Volume::of(Filesystem::Erofs, &source.path(""), dir.path().join("image"));
    for (inside, outside) in [(Backend::Kernel, Backend::chosen()), (Backend::chosen(), Backend::chosen())] {
        let image = Setup::new().read_only().both("metacopy=on").lower_at(&volume.path);
        let image = image.data(|data| data.file("ab/cdef", vec![7; 300_000])).mount_by(inside);
        let mut tree = Setup::new().both(OPTIONS).lower_at(image.path("")).mount_by(outside);
        let ino = tree.ino("d/f");
        assert!(fs::read(tree.path("d/f")).unwrap() == [7; 300_000]);
        tree.append("d/f", "+");
        tree.append("plain", "+");
        rename(&tree, "d", "e").unwrap();
        for _ in 0..2 {
            assert_eq!((tree.stat("e/f").st_size, tree.read("plain").as_str()), (300_001, "plain+"));
            assert_eq!((tree.stat("e/f").st_mode & 0o777, tree.stat("e/f").st_uid), (0o640, 1001));
            if outside == Backend::Plyfs {
                assert_eq!(tree.ino("e/f"), ino);
            }
            tree.remount();
        }
    }
}
