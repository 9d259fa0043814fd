//! Layers for data only, `lowerdir=A:B::D1::D2`: what metacopies with an absolute redirect take their data from.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::common::*;
use crate::rename::rename;

const MARK: &str = "trusted.overlay.metacopy";
const REDIRECT: &str = "trusted.overlay.redirect";
const SIZE: usize = 100_000;

fn content(seed: u8) -> Vec<u8> {
    (0..SIZE).map(|at| (at / 7) as u8 ^ seed).collect()
}

/// A file of `size` bytes that has its data elsewhere.
fn metacopy<'l>(layer: &'l Layer, path: &str, size: usize, redirect: &str) -> &'l Layer {
    layer.file(path, "");
    fs::OpenOptions::new().write(true).open(layer.path(path)).unwrap().set_len(size as u64).unwrap();
    layer.xattr(path, MARK, "").xattr(path, REDIRECT, redirect).mode(path, 0o640).time(path, 1_000_000_000, 5)
}

/// One layer of names over two of data.
fn setup() -> Setup {
    Setup::new()
        .lower(|l| {
            metacopy(l, "first", SIZE, "/objects/1");
            metacopy(l, "second", SIZE, "/objects/2");
            metacopy(l, "d/both", SIZE, "/objects/both");
            metacopy(l, "hidden-by-a-dir", SIZE, "/objects/dir");
            metacopy(l, "top", SIZE, "/top-object");
            l.file("plain", "plain").xattr("first", "user.x", "1")
        })
        .data(|d| {
            d.file("objects/1", content(1)).file("objects/both", content(3)).dir("objects/dir").file("plain", "no");
            d.mode("objects/1", 0o400).owner("objects/1", 7, 7).file("d/more", "").xattr("objects/1", "user.y", "1")
        })
        .data(|d| {
            d.file("objects/2", content(2)).file("objects/both", content(9)).file("objects/dir", content(4));
            d.file("top-object", content(5)).file("unseen", "")
        })
}

fn chmod(path: impl AsRef<Path>, mode: u32) -> Result<(), Errno> {
    rustix::fs::chmod(path.as_ref(), Mode::from_raw_mode(mode))
}

const FILES: [(&str, u8); 5] = [("first", 1), ("second", 2), ("d/both", 3), ("hidden-by-a-dir", 4), ("top", 5)];

#[track_caller]
fn assert_shown(tree: &Mounted) {
    for (path, seed) in FILES {
        let stat = tree.stat(path);
        assert_eq!((stat.st_size, stat.st_mode & 0o7777, stat.st_uid), (SIZE as i64, 0o640, 0), "{path}");
        assert_eq!((stat.st_mtime, stat.st_mtime_nsec), (1_000_000_000, 5), "{path}");
        assert!(stat.st_blocks * 512 >= SIZE as i64, "{path}: {} blocks", stat.st_blocks);
        assert!(fs::read(tree.path(path)).unwrap() == content(seed), "{path}: other data");
        assert!(tree.stat(path).st_blocks * 512 >= SIZE as i64, "{path}: {} blocks", tree.stat(path).st_blocks);
    }
    assert_eq!(xattr(&tree.path("first"), "user.x").as_deref(), Ok(&b"1"[..]));
    assert_eq!(xattr(&tree.path("first"), "user.y"), Err(Errno::NODATA));
}

#[test]
fn data_comes_from_the_first_layer_for_data_that_has_it() {
    for options in ["metacopy=on", "redirect_dir=on,metacopy=on", "metacopy=off", "redirect_dir=on"] {
        let mut tree = mount!(setup().both(options));
        assert_shown(&tree);
        tree.remount();
        assert_shown(&tree);
    }
}

#[test]
fn data_is_found_without_an_upper() {
    for options in ["metacopy=on", "redirect_dir=follow", "metacopy=off"] {
        assert_shown(&mount!(setup().both(options).read_only()));
    }
}

#[test]
fn names_of_layers_for_data_are_not_shown() {
    let tree = mount!(setup().both("metacopy=on"));
    assert_eq!(tree.list(""), ["d", "first", "hidden-by-a-dir", "plain", "second", "top"]);
    assert_eq!(tree.list("d"), ["both"]);
    assert_eq!(tree.read("plain"), "plain");
    assert!(!tree.exists("objects") && !tree.exists("unseen") && !tree.exists("d/more"));
}

#[test]
fn lower_layers_are_searched_before_those_for_data() {
    let setup = Setup::new()
        .both("metacopy=on")
        .lower(|l| {
            metacopy(l, "in-lower", SIZE, "/objects/1");
            metacopy(l, "in-data", SIZE, "/pool/2");
            metacopy(l, "chain", SIZE, "/middle")
        })
        .lower(|l| {
            metacopy(l, "middle", 5, "/pool/3");
            l.file("objects/1", content(1))
        })
        .data(|d| d.file("objects/1", "no").file("pool/2", content(2)).file("pool/3", content(3)));
    let tree = mount!(setup);
    for (path, seed) in [("in-lower", 1), ("in-data", 2), ("chain", 3)] {
        assert_eq!((tree.stat(path).st_size, tree.stat(path).st_mode & 0o777), (SIZE as i64, 0o640), "{path}");
        assert!(fs::read(tree.path(path)).unwrap() == content(seed), "{path}: other data");
    }
    assert_eq!(tree.list("objects"), ["1"]);
}

#[test]
fn data_of_a_layer_is_found_below_a_directory_of_the_lower_layers() {
    plyfs_only!("the kernel's overlayfs forgets a redirect on its way through a lower layer's directory");
    let setup = Setup::new()
        .both("metacopy=on")
        .lower(|l| metacopy(l, "f", SIZE, "/objects/1"))
        .lower(|l| l.file("objects/2", ""))
        .data(|d| d.file("objects/1", content(1)));
    assert!(fs::read(mount!(setup).path("f")).unwrap() == content(1));
}

#[test]
fn only_the_lowest_layer_refers_to_data_without_metacopy() {
    for options in ["metacopy=off", "redirect_dir=follow", "redirect_dir=nofollow", "redirect_dir=off"] {
        let setup = Setup::new()
            .lower(|l| metacopy(l, "high", SIZE, "/objects/1"))
            .lower(|l| {
                metacopy(l, "small", 2, "/objects/2");
                metacopy(l, "low", SIZE, "/objects/1")
            })
            .data(|d| d.file("objects/1", content(1)).file("objects/2", "22"));
        let mut tree = mount!(setup.both(options));
        assert_eq!(lstat(tree.path("high")).err(), Some(Errno::PERM), "{options}");
        for _ in 0..2 {
            assert!(fs::read(tree.path("low")).unwrap() == content(1), "{options}");
            assert_eq!(tree.read("small"), "22", "{options}");
            chmod(tree.path("low"), 0o600).unwrap();
            tree.remount();
        }
        assert!(fs::read(tree.upper("low")).unwrap() == content(1), "{options}");
    }
}

#[test]
fn a_metacopy_in_the_upper_needs_metacopy_for_data_too() {
    let mut tree = mount!(setup().both("redirect_dir=on,metacopy=on"));
    chmod(tree.path("first"), 0o600).unwrap();
    tree.set_options("redirect_dir=on,metacopy=off");
    tree.remount();
    assert_eq!(lstat(tree.path("first")).err(), Some(Errno::PERM));
    assert!(fs::read(tree.path("second")).unwrap() == content(2));
}

#[test]
fn relative_and_missing_redirects_find_no_data_there() {
    for (options, wanted) in [("metacopy=on", Errno::IO), ("metacopy=off", Errno::PERM)] {
        let setup = Setup::new()
            .lower(|l| {
                metacopy(l, "relative", 4, "object");
                metacopy(l, "none", 4, "x");
                rustix::fs::lremovexattr(l.path("none"), REDIRECT).unwrap();
                l
            })
            .data(|d| d.file("object", "data").file("none", "data"));
        let tree = mount!(setup.both(options));
        for path in ["relative", "none"] {
            assert_eq!(lstat(tree.path(path)).err(), Some(wanted), "{options}: {path}");
        }
    }
}

#[test]
fn object_that_is_missing_shows_when_it_is_opened() {
    let setup = Setup::new()
        .lower(|l| {
            metacopy(l, "missing", SIZE, "/objects/missing");
            metacopy(l, "dir", SIZE, "/objects/dir");
            metacopy(l, "written", SIZE, "/objects/missing");
            metacopy(l, "removed", SIZE, "/objects/missing");
            l
        })
        .data(|d| d.dir("objects/dir"));
    let tree = mount!(setup.both("redirect_dir=on,metacopy=on"));
    for path in ["missing", "dir", "written"] {
        assert_eq!(tree.stat(path).st_size, SIZE as i64, "{path}");
        assert_eq!(errno(open(tree.path(path), OFlags::RDONLY)), Errno::NOENT, "{path}");
        assert_eq!(errno(open(tree.path(path), OFlags::WRONLY)), Errno::NOENT, "{path}");
    }
    fs::remove_file(tree.path("removed")).unwrap();
    assert!(tree.is_whiteout("removed"));
}

#[test]
fn change_of_attributes_with_metacopy_leaves_the_data_there() {
    let mut tree = mount!(setup().both("redirect_dir=on,index=on,metacopy=on"));
    for (path, _) in FILES {
        chmod(tree.path(path), 0o600).unwrap();
        let meta = fs::symlink_metadata(tree.upper(path)).unwrap();
        assert!(meta.blocks() <= 16, "{path}: {} blocks", meta.blocks());
        assert_eq!((meta.len(), xattr(&tree.upper(path), MARK).as_deref()), (SIZE as u64, Ok(&b""[..])), "{path}");
    }
    rename(&tree, "first", "d/moved").unwrap();
    fs::hard_link(tree.path("second"), tree.path("d/link")).unwrap();
    let shown = [("d/moved", 1), ("second", 2), ("d/link", 2), ("d/both", 3), ("hidden-by-a-dir", 4), ("top", 5)];
    for _ in 0..2 {
        for (path, seed) in shown {
            assert!(fs::read(tree.path(path)).unwrap() == content(seed), "{path}: other data");
            assert_eq!(tree.stat(path).st_mode & 0o777, 0o600, "{path}");
        }
        tree.remount();
    }
    for (path, seed) in shown {
        tree.append(path, "");
        assert_eq!(xattr(&tree.upper(path), MARK), Err(Errno::NODATA), "{path}");
        assert!(fs::read(tree.upper(path)).unwrap() == content(seed), "{path}: other data in the upper");
    }
}

#[test]
fn copy_up_without_metacopy_takes_the_data_along() {
    let mut tree = mount!(setup().both("redirect_dir=on,index=on,metacopy=off"));
    chmod(tree.path("first"), 0o600).unwrap();
    tree.append("second", "+");
    rename(&tree, "d/both", "moved").unwrap();
    let shown = [("first", content(1)), ("second", [content(2), b"+".to_vec()].concat()), ("moved", content(3))];
    for _ in 0..2 {
        for (path, data) in &shown {
            assert!(fs::read(tree.path(path)).unwrap() == *data, "{path}: other data");
            assert!(fs::read(tree.upper(path)).unwrap() == *data, "{path}: other data in the upper");
            assert_eq!(xattr(&tree.upper(path), MARK), Err(Errno::NODATA), "{path}");
        }
        tree.remount();
    }
    assert_eq!(tree.stat("first").st_mode & 0o777, 0o600);
    assert_eq!(xattr(&tree.path("first"), "user.x").as_deref(), Ok(&b"1"[..]));
}

#[test]
fn upper_over_layers_for_data_moves_between_plyfs_and_the_kernel() {
    plyfs_only!("both take part");
    let mut tree = mount!(setup().both("redirect_dir=on,index=on,metacopy=on"));
    for first in [Backend::Plyfs, Backend::Kernel] {
        tree.unmount();
        tree.empty_upper();
        tree.set_backend(first);
        tree.mount();
        let second = if first == Backend::Plyfs { Backend::Kernel } else { Backend::Plyfs };
        chmod(tree.path("first"), 0o600).unwrap();
        rename(&tree, "first", "d/moved").unwrap();
        rename(&tree, "d", "e").unwrap();
        chmod(tree.path("second"), 0o600).unwrap();
        let before = tree.tree();
        tree.switch_to(second);
        before.assert_eq(&tree.tree(), &format!("written by {first:?}"));
        rename(&tree, "second", "e/second").unwrap();
        tree.append("e/moved", "+");
        chmod(tree.path("top"), 0o600).unwrap();
        let before = tree.tree();
        tree.switch_to(first);
        before.assert_eq(&tree.tree(), &format!("gone on with by {second:?}"));
    }
}

#[test]
fn strange_lists_of_layers_are_refused() {
    needs_root!();
    let names = setup();
    let (lower, data) = (names.path("l0"), names.path("data0"));
    let (lower, data) = (lower.display(), data.display());
    for list in [
        format!("::{data}"),
        format!("{lower}::"),
        format!("{lower}:"),
        format!(":{lower}"),
        format!("{lower}:::{data}"),
        format!("{lower}::{data}:{data}"),
        format!("{lower}::{data}::"),
        format!("{lower}::{data}:{data}::{data}"),
    ] {
        let mut tree = Setup::new().lower_list(&list).prepare(Backend::chosen());
        assert!(tree.try_mount().is_err(), "{list}");
    }
}

#[test]
fn layers_are_added_one_by_one() {
    needs_root!();
    // Colons have no meaning there.
    let layers = Setup::new()
        .lower_named("a:b::c", |l| metacopy(l, "f", SIZE, "/objects/1"))
        .lower_named("d", |l| l.file("g", "g"))
        .data(|d| d.file("objects/2", content(2)))
        .data(|d| d.file("objects/1", content(1)));
    let tree = layers.one_by_one().both("metacopy=on").mount();
    assert!(fs::read(tree.path("f")).unwrap() == content(1));
    assert_eq!((tree.list(""), tree.read("g").as_str()), (vec!["f".to_owned(), "g".to_owned()], "g"));
}

#[test]
fn marks_of_users_find_data_with_userxattr() {
    let setup = Setup::new()
        .lower(|l| {
            l.file("f", "").xattr("f", "user.overlay.metacopy", "").xattr("f", "user.overlay.redirect", "/object");
            l.file("g", "").xattr("g", "user.overlay.metacopy", "");
            for path in ["f", "g"] {
                fs::OpenOptions::new().write(true).open(l.path(path)).unwrap().set_len(SIZE as u64).unwrap();
            }
            metacopy(l, "roots", SIZE, "/object")
        })
        .data(|d| d.file("object", content(1)));
    let tree = mount!(setup.both("userxattr"));
    assert!(fs::read(tree.path("f")).unwrap() == content(1));
    assert_eq!(lstat(tree.path("g")).err(), Some(Errno::PERM));
    // A mark of root's is none.
    assert!(fs::read(tree.path("roots")).unwrap() == [0; SIZE]);
    chmod(tree.path("f"), 0o600).unwrap();
    assert!(fs::read(tree.upper("f")).unwrap() == content(1));
}
