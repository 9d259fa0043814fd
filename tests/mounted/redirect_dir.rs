//! `redirect_dir=on|follow|nofollow|off`: whether directories of lower layers can be renamed, and found again.

use std::fs;

use rustix::fs::RenameFlags;
use rustix::io::Errno;

use crate::common::*;
use crate::rename::{rename, rename_with};

const REDIRECT: &str = "trusted.overlay.redirect";

fn setup() -> Setup {
    Setup::new()
        .lower(|l| l.file("d/a", "a").file("d/sub/a", "a").file("other/a", "a").file("f", "f"))
        .lower(|l| l.file("d/b", "b").file("d/sub/deep/b", "b").dir("only"))
}

/// The upper of [`setup`] after directories were renamed.
fn renamed() -> Mounted {
    let mut tree = setup().both("redirect_dir=on,index=on").mount();
    rename(&tree, "d/sub", "d/same-parent").unwrap();
    rename(&tree, "d/same-parent/deep", "elsewhere").unwrap();
    rename(&tree, "d", "d2").unwrap();
    tree.unmount();
    tree
}

#[test]
fn on_lets_every_directory_be_renamed() {
    for options in ["redirect_dir=on", "redirect_dir=on,index=on", "redirect_dir=on,xino=off"] {
        let mut tree = mount!(setup().both(options));
        rename(&tree, "d/sub", "d/s").unwrap();
        rename(&tree, "d", "other/d").unwrap();
        rename(&tree, "only", "o").unwrap();
        let before = tree.tree();
        tree.remount();
        before.assert_eq(&tree.tree(), options);
        assert_eq!(tree.list("other/d/s"), ["a", "deep"]);
        assert_eq!(xattr(&tree.upper("other/d"), REDIRECT).as_deref(), Ok(&b"/d"[..]));
        assert_eq!(xattr(&tree.upper("other/d/s"), REDIRECT).as_deref(), Ok(&b"sub"[..]));
        assert_eq!(xattr(&tree.upper("o"), REDIRECT).as_deref(), Ok(&b"only"[..]));
    }
}

#[test]
fn without_on_directories_of_lower_layers_stay_where_they_are() {
    for options in ["redirect_dir=off", "redirect_dir=follow", "redirect_dir=nofollow"] {
        let tree = mount!(setup().both(options));
        let refused = |from, to| assert_eq!(rename(&tree, from, to), Err(Errno::XDEV), "{options}: {from} to {to}");
        refused("d", "d2");
        refused("d/sub", "d/s");
        refused("only", "o");
        // Also where its upper part is there already.
        tree.write("d/new", "");
        refused("d", "d2");
        assert_eq!(rename_with(&tree, "d", "other", RenameFlags::EXCHANGE), Err(Errno::XDEV), "{options}");
        assert_eq!(rename_with(&tree, "d", "f", RenameFlags::EXCHANGE), Err(Errno::XDEV), "{options}");
        // What has no part below moves, wherever to, and files do.
        fs::create_dir(tree.path("d/mine")).unwrap();
        tree.write("d/mine/f", "mine");
        rename(&tree, "d/mine", "other/mine").unwrap();
        rename(&tree, "other/mine", "m").unwrap();
        rename(&tree, "f", "d/f").unwrap();
        assert_eq!((tree.read("m/f").as_str(), tree.read("d/f").as_str()), ("mine", "f"));
        assert_eq!(tree.list("d"), ["a", "b", "f", "new", "sub"], "{options}");
        // A directory that took the place of a lower one moves as well.
        fs::remove_dir_all(tree.path("d")).unwrap();
        fs::create_dir(tree.path("d")).unwrap();
        tree.write("d/g", "g");
        rename(&tree, "d", "d2").unwrap();
        assert_eq!((tree.list("d2"), tree.exists("d")), (vec!["g".to_owned()], false), "{options}");
    }
}

#[test]
fn moved_by_a_program_it_is_copied() {
    for options in ["redirect_dir=off", "redirect_dir=nofollow"] {
        let mut tree = mount!(setup().both(options));
        run(std::process::Command::new("mv").arg(tree.path("d")).arg(tree.path("d2")));
        for _ in 0..2 {
            assert_eq!(tree.list("d2"), ["a", "b", "sub"], "{options}");
            assert_eq!(tree.read("d2/sub/deep/b"), "b", "{options}");
            assert!(!tree.exists("d"));
            tree.remount();
        }
    }
}

#[test]
fn redirects_of_the_upper_are_followed_unless_told_not_to() {
    needs_root!();
    let mut tree = renamed();
    tree.mount();
    let mut before = tree.tree();
    for options in ["redirect_dir=follow", "redirect_dir=off", "redirect_dir=on"] {
        tree.set_options(options);
        tree.remount();
        before.assert_eq(&tree.tree(), options);
        tree.write("d2/new", "new");
        fs::remove_file(tree.path("d2/new")).unwrap();
        before = tree.tree();
    }
    // One that was moved before moves on only with on.
    tree.set_options("redirect_dir=follow");
    tree.remount();
    assert_eq!(rename(&tree, "d2", "d3"), Err(Errno::XDEV));
    assert_eq!(rename(&tree, "elsewhere", "d2/e"), Err(Errno::XDEV));
}

#[test]
fn redirects_of_the_upper_are_refused_with_nofollow() {
    needs_root!();
    let mut tree = renamed();
    tree.set_options("redirect_dir=nofollow");
    tree.mount();
    for path in ["d2", "elsewhere"] {
        assert_eq!(lstat(tree.path(path)).err(), Some(Errno::PERM), "{path}");
        assert_eq!(errno(fs::read_dir(tree.path(path))), Errno::PERM, "{path}");
        assert_eq!(rename(&tree, path, "there"), Err(Errno::PERM), "{path}");
        assert_eq!(errno(fs::remove_dir(tree.path(path))), Errno::PERM, "{path}");
    }
    assert_eq!(tree.read("other/a"), "a");
    assert!(!tree.exists("d"));
    tree.set_options("redirect_dir=on");
    tree.remount();
    assert_eq!(tree.read("elsewhere/b"), "b");
}

#[test]
fn redirects_of_lower_layers_are_followed_unless_told_not_to() {
    needs_root!();
    let first = renamed();
    let over = |options| {
        let setup = Setup::new().both(options);
        setup.lower_at(first.upper("")).lower_at(first.lower(0, "")).lower_at(first.lower(1, "")).mount()
    };
    for options in ["redirect_dir=on", "redirect_dir=follow", "redirect_dir=off"] {
        let tree = over(options);
        assert_eq!(tree.list(""), ["d2", "elsewhere", "f", "only", "other"], "{options}");
        assert_eq!(tree.list("d2"), ["a", "b", "same-parent"], "{options}");
        assert_eq!(tree.list("d2/same-parent"), ["a"], "{options}");
        assert_eq!(tree.read("elsewhere/b"), "b", "{options}");
        tree.append("elsewhere/b", "+");
        assert_eq!(fs::read_to_string(tree.upper("elsewhere/b")).unwrap(), "b+");
        // The upper knows it by the name that the topmost lower layer has for it.
        assert_eq!(xattr(&tree.upper("elsewhere"), REDIRECT), Err(Errno::NODATA));
    }
    let tree = over("redirect_dir=nofollow");
    for path in ["d2", "elsewhere"] {
        assert_eq!(lstat(tree.path(path)).err(), Some(Errno::PERM), "{path}");
    }
    assert_eq!(tree.read("other/a"), "a");
}

#[test]
fn redirect_in_the_last_layer_is_none() {
    for options in ["redirect_dir=on", "redirect_dir=follow", "redirect_dir=nofollow"] {
        let setup = Setup::new().lower(|l| l.file("d/a", "a").file("e/b", "b").xattr("d", REDIRECT, "e"));
        let tree = mount!(setup.both(options));
        assert_eq!(tree.list("d"), ["a"], "{options}");
    }
}

#[test]
fn without_an_upper_redirects_are_followed_or_refused_the_same() {
    needs_root!();
    let first = renamed();
    let over = |options| {
        let setup = Setup::new().both(options).read_only();
        setup.lower_at(first.upper("")).lower_at(first.lower(0, "")).lower_at(first.lower(1, "")).mount()
    };
    for options in ["redirect_dir=on", "redirect_dir=follow", "redirect_dir=off"] {
        assert_eq!(over(options).list("d2"), ["a", "b", "same-parent"], "{options}");
    }
    assert_eq!(lstat(over("redirect_dir=nofollow").path("d2")).err(), Some(Errno::PERM));
}

#[test]
fn directory_renamed_by_one_is_followed_and_moved_on_by_the_other() {
    plyfs_only!("both take part");
    let mut tree = mount!(setup().both("redirect_dir=on,index=on"));
    let mut next = Backend::Plyfs;
    let moves = [("d/sub", "d/s"), ("d", "other/d"), ("other/d/s", "s"), ("s/deep", "other/deep"), ("other", "o")];
    for (from, to) in moves {
        rename(&tree, from, to).unwrap();
        let before = tree.tree();
        next = if next == Backend::Plyfs { Backend::Kernel } else { Backend::Plyfs };
        tree.switch_to(next);
        before.assert_eq(&tree.tree(), &format!("{from} to {to}, on {next:?}"));
    }
}

#[test]
fn redirect_longer_than_the_kernel_writes_is_read_by_it() {
    let deep = format!("{0}/{0}", "n".repeat(200));
    let mut tree = mount!(setup().both("redirect_dir=on,index=on").lower(|l| l.file(format!("{deep}/d/f"), "f")));
    let moved = rename(&tree, &format!("{deep}/d"), "short");
    if tree.backend() == Backend::Kernel {
        assert_eq!(moved, Err(Errno::XDEV));
        return;
    }
    moved.unwrap();
    for backend in [Backend::Plyfs, Backend::Kernel, Backend::Plyfs] {
        tree.switch_to(backend);
        assert_eq!(tree.read("short/f"), "f", "{backend:?}");
        assert_eq!(tree.list(&deep), Vec::<String>::new(), "{backend:?}");
    }
}
