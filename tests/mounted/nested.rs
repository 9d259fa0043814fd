//! Overlays on overlays: the outer one's layers lie in the mount of an inner one.

use std::fs;
use std::path::Path;

use rustix::io::Errno;

use crate::common::*;
use crate::rename::rename;

const OPTIONS: &str = "redirect_dir=on,index=on";

/// An inner overlay to take layers from, by the backend given.
fn inner(backend: Backend) -> Mounted {
    let setup = Setup::new().both(OPTIONS).lower(|l| {
        l.file("l/f", "f").file("l/gone", "gone").file("l/d/a", "a").file("l/d/b", "b").file("l/e/c", "c");
        l.file("l/h1", "h").hard_link("l/h2", "l/h1").symlink("l/link", "f").mode("l/f", 0o640).owner("l/f", 1001, 1002)
    });
    setup.lower(|l| l.file("l/d/deep/x", "x").file("l/below", "below")).mount_by(backend)
}

/// Every pair of backends of which at least one is plyfs; with the kernel alone when the tests are tested.
fn pairs() -> Vec<(Backend, Backend)> {
    use Backend::{Kernel, Plyfs};
    match Backend::chosen() {
        Kernel => vec![(Kernel, Kernel)],
        Plyfs => vec![(Plyfs, Plyfs), (Plyfs, Kernel), (Kernel, Plyfs)],
    }
}

/// Changes of every kind in the outer overlay, as seen through it and after a remount.
fn exercise(tree: &mut Mounted, what: &str) {
    assert_eq!(tree.list(""), ["below", "d", "e", "f", "gone", "h1", "h2", "link"], "{what}");
    let ino = tree.ino("f");
    tree.append("f", "+");
    tree.append("below", "+");
    tree.append("d/deep/x", "+");
    fs::remove_file(tree.path("gone")).unwrap();
    rename(tree, "d", "moved").unwrap();
    fs::remove_dir_all(tree.path("e")).unwrap();
    fs::create_dir(tree.path("e")).unwrap();
    tree.write("e/new", "new");
    tree.append("h1", "+");
    std::os::unix::fs::lchown(tree.path("link"), Some(7), None).unwrap();
    set_xattr(&tree.path("f"), "user.x", "1").unwrap();
    let before = tree.tree();
    for _ in 0..2 {
        assert_eq!((tree.read("f").as_str(), tree.read("below").as_str()), ("f+", "below+"), "{what}");
        assert_eq!(
            (tree.list("moved"), tree.list("e")),
            (["a", "b", "deep"].map(Into::into).into(), vec!["new".into()])
        );
        assert_eq!((tree.read("moved/deep/x").as_str(), tree.read("h1").as_str()), ("x+", "h+"), "{what}");
        // The kernel's overlayfs keeps neither index nor numbers for lower layers that have no file handles.
        if tree.backend() == Backend::Plyfs {
            assert_eq!(tree.ino("f"), ino, "{what}");
            assert_eq!((tree.read("h2").as_str(), tree.ino("h2")), ("h+", tree.ino("h1")), "{what}");
        }
        assert!(!tree.exists("gone") && !tree.exists("d") && !tree.exists("e/c"), "{what}");
        assert_eq!((tree.stat("f").st_uid, tree.stat("f").st_mode & 0o777), (1001, 0o640), "{what}");
        tree.remount();
        before.assert_eq(&tree.tree(), &format!("{what}: after remount"));
    }
}

#[test]
fn lower_layer_in_an_overlay() {
    needs_root!();
    for (inside, outside) in pairs() {
        let inner = inner(inside);
        let mut tree = Setup::new().both(OPTIONS).lower_at(inner.path("l")).mount_by(outside);
        exercise(&mut tree, &format!("{outside:?} on {inside:?}"));
        assert_eq!(inner.list("l"), ["below", "d", "e", "f", "gone", "h1", "h2", "link"]);
    }
}

#[test]
fn several_lower_layers_in_one_overlay() {
    needs_root!();
    for (inside, outside) in pairs() {
        let inner = inner(inside);
        for path in ["top/f", "top/d/t"] {
            fs::create_dir_all(inner.path(path).parent().unwrap()).unwrap();
            inner.write(path, "top");
        }
        let setup = Setup::new().both(OPTIONS).lower_at(inner.path("top")).lower_at(inner.path("l"));
        let tree = setup.mount_by(outside);
        assert_eq!((tree.read("f").as_str(), tree.list("d")), ("top", ["a", "b", "deep", "t"].map(Into::into).into()));
        let paths = tree.tree().paths();
        let numbers: std::collections::BTreeSet<u64> = paths.iter().map(|path| tree.ino(path)).collect();
        // Two names are one inode.
        assert_eq!(numbers.len(), paths.len() - 1, "{outside:?} on {inside:?}");
        rename(&tree, "d", "d2").unwrap();
        assert_eq!(tree.list("d2"), ["a", "b", "deep", "t"]);
    }
}

#[test]
fn upper_in_an_overlay_of_plyfs() {
    plyfs_only!("the kernel's overlayfs takes no upper in an overlay");
    needs_root!();
    for inside in [Backend::Plyfs, Backend::Kernel] {
        let what = format!("upper on {inside:?}");
        let inner = inner(inside);
        fs::create_dir(inner.path("up")).unwrap();
        let setup = Setup::new().both(OPTIONS).lower(|l| {
            l.file("f", "f")
                .file("gone", "gone")
                .file("d/a", "a")
                .file("d/b", "b")
                .file("e/c", "c")
                .symlink("link", "f");
            l.file("h1", "h").hard_link("h2", "h1").mode("f", 0o640).owner("f", 1001, 1002).file("below", "below");
            l.file("d/deep/x", "x")
        });
        let mut tree = setup.upper_in(inner.path("up")).mount_by(Backend::Plyfs);
        exercise(&mut tree, &what);
        drop(tree);
        // What the outer one hides is hidden in the inner one only from who looks through the outer one.
        assert_eq!(fs::read_to_string(inner.path("l/f")).unwrap(), "f");
    }
}

#[test]
fn kernel_takes_no_upper_in_an_overlay() {
    needs_root!();
    let inner = inner(Backend::chosen());
    fs::create_dir(inner.path("up")).unwrap();
    let setup = Setup::new().both(OPTIONS).lower(|l| l.file("f", "f"));
    let mut tree = setup.upper_in(inner.path("up")).prepare(Backend::Kernel);
    assert!(tree.try_mount().is_err());
}

#[test]
fn whiteouts_made_through_an_overlay_are_marks_of_the_outer_one() {
    needs_root!();
    for (inside, outside) in pairs() {
        let what = format!("{outside:?} on {inside:?}");
        let inner = inner(inside);
        // A layer is made in the inner mount, as a build in a container does it: escaped in the inner upper, plain in the
        // inner mount.
        let layer = Layer::at(inner.path("top"));
        layer.dir("d").file("x-marked/keep", "");
        layer.xattr("d", "trusted.overlay.opaque", "y");
        layer.whiteout("x-gone", Form::Trusted);
        layer.file("x-marked/none", "").xattr("x-marked/none", "trusted.overlay.whiteout", "y");
        layer.xattr("x-marked", "trusted.overlay.opaque", "x");
        assert_eq!(
            xattr(&inner.upper("top/d"), "trusted.overlay.overlay.opaque").as_deref(),
            Ok(&b"y"[..]),
            "{what}: not escaped"
        );
        assert_eq!(xattr_names(&inner.path("top/d"), "trusted."), ["trusted.overlay.opaque"], "{what}");
        let setup = Setup::new()
            .both(OPTIONS)
            .lower_at(inner.path("top"))
            .lower(|l| l.file("d/hidden", "").file("x-gone", "").file("x-marked/none", "").file("x-marked/kept", ""));
        let tree = setup.mount_by(outside);
        assert_eq!(tree.list("d"), Vec::<String>::new(), "{what}");
        assert_eq!(tree.list("x-marked"), ["keep", "kept"], "{what}");
        assert!(!tree.exists("x-gone"), "{what}");
        // Made again in the outer one, they are its own, and not escaped twice.
        fs::remove_file(tree.path("x-marked/kept")).unwrap();
        assert!(tree.is_whiteout("x-marked/kept"), "{what}");
    }
}

#[test]
fn marks_of_the_outer_are_escaped_once_for_each_overlay() {
    needs_root!();
    for (inside, outside) in pairs() {
        let what = format!("{outside:?} on {inside:?}");
        let inner = inner(inside);
        set_xattr(&inner.path("l/d"), "trusted.overlay.overlay.opaque", "y").unwrap();
        let name = "trusted.overlay.overlay.overlay.opaque";
        assert_eq!(xattr(&inner.upper("l/d"), name).as_deref(), Ok(&b"y"[..]), "{what}");
        let mut tree = Setup::new().both(OPTIONS).lower_at(inner.path("l")).mount_by(outside);
        // Escaped for the outer one, so it is one of the mount's.
        for _ in 0..2 {
            let name = "trusted.overlay.opaque";
            assert_eq!(xattr(&tree.path("d"), name).as_deref(), Ok(&b"y"[..]), "{what}");
            assert_eq!(tree.list("d"), ["a", "b", "deep"], "{what}");
            // Copied up as it is.
            fs::write(tree.path("d/new"), "").unwrap();
            let name = "trusted.overlay.overlay.opaque";
            assert_eq!(xattr(&tree.upper("d"), name).as_deref(), Ok(&b"y"[..]), "{what}");
            fs::remove_file(tree.path("d/new")).unwrap();
            tree.remount();
        }
    }
}

#[test]
fn what_the_inner_hides_the_outer_does_not_see() {
    needs_root!();
    for (inside, outside) in pairs() {
        let what = format!("{outside:?} on {inside:?}");
        let inner = inner(inside);
        fs::remove_file(inner.path("l/gone")).unwrap();
        fs::remove_dir_all(inner.path("l/d")).unwrap();
        fs::create_dir(inner.path("l/d")).unwrap();
        rename(&inner, "l/e", "l/e2").unwrap();
        let setup = Setup::new().both(OPTIONS).lower_at(inner.path("l"));
        let tree = setup.lower(|l| l.file("gone", "below").file("d/below", "").file("e/below", "")).mount_by(outside);
        assert_eq!(tree.list("e2"), ["c"], "{what}");
        assert_eq!(tree.list("e"), ["below"], "{what}");
        // The inner one's whiteouts and marks hide what is in the inner one's layers, and nothing in the outer one's.
        assert_eq!((tree.read("gone").as_str(), tree.list("d")), ("below", vec!["below".to_owned()]), "{what}");
        rename(&tree, "e2", "e3").unwrap();
        assert_eq!(tree.read("e3/c"), "c", "{what}");
    }
}

#[test]
fn three_levels_show_what_the_lowest_has() {
    needs_root!();
    let (first, second) = pairs()[0];
    let inner = inner(first);
    let middle = Setup::new().both(OPTIONS).lower_at(inner.path("l")).mount_by(second);
    fs::remove_file(middle.path("gone")).unwrap();
    middle.append("f", "+");
    let outer = Setup::new().both(OPTIONS).lower_at(middle.path("")).prepare(first);
    let mut outer = outer;
    if first == Backend::Kernel {
        // As deep as it goes there.
        assert!(outer.try_mount().is_err());
        return;
    }
    outer.mount();
    assert_eq!((outer.read("f").as_str(), outer.exists("gone")), ("f+", false));
    outer.append("d/deep/x", "+");
    assert_eq!((outer.read("d/deep/x").as_str(), middle.read("d/deep/x").as_str()), ("x+", "x"));
    assert_eq!(lstat(outer.path(Path::new("d/none"))).err(), Some(Errno::NOENT));
}
