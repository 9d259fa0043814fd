//! `userxattr`: marks in the form that any user may write, `user.overlay.*`.

use std::fs;

use rustix::fs::RenameFlags;
use rustix::io::Errno;

use crate::common::*;
use crate::rename::{rename, rename_with};

fn setup() -> Setup {
    Setup::new()
        .both("userxattr,index=on")
        .lower(|l| {
            l.file("f", "f").file("g", "g").file("d/a", "a").file("gone/a", "a").file("h1", "h").hard_link("h2", "h1")
        })
        .lower(|l| l.file("d/b", "b").file("gone/b", "b").dir("e/sub"))
}

fn change(tree: &Mounted) {
    tree.append("f", "+");
    fs::remove_file(tree.path("g")).unwrap();
    fs::remove_dir_all(tree.path("gone")).unwrap();
    fs::create_dir(tree.path("gone")).unwrap();
    tree.write("gone/new", "new");
    fs::remove_file(tree.path("d/a")).unwrap();
    fs::create_dir(tree.path("d/a")).unwrap();
    fs::create_dir(tree.path("mine")).unwrap();
    tree.write("mine/m", "m");
    rename(tree, "mine", "e/mine").unwrap();
    tree.append("h1", "+");
    set_xattr(&tree.path("f"), "user.x", "1").unwrap();
    set_xattr(&tree.path("f"), "trusted.x", "1").unwrap();
}

#[test]
fn marks_are_those_of_users() {
    let tree = mount!(setup());
    change(&tree);
    let mut marks = Vec::new();
    for path in Snapshot::of(&tree.upper(""), Detail::Layer).paths() {
        assert_eq!(xattr_names(&tree.upper(&path), "trusted.overlay."), Vec::<String>::new(), "{path}");
        let names = xattr_names(&tree.upper(&path), "user.overlay.");
        marks.extend(names.into_iter().map(|name| format!("{path}: {name}")));
    }
    for mark in [
        ": user.overlay.impure",
        "d/a: user.overlay.opaque",
        "d: user.overlay.origin",
        "f: user.overlay.origin",
        "gone: user.overlay.opaque",
        "h1: user.overlay.origin",
    ] {
        assert!(marks.iter().any(|found| found == mark), "{mark} is missing in {marks:?}");
    }
    assert!(tree.is_whiteout("g"));
    assert_eq!(xattr_names(&tree.path("f"), "user."), ["user.x"]);
}

#[test]
fn upper_is_marked_as_by_the_kernel() {
    plyfs_only!("both take part");
    needs_root!();
    let mut tree = setup().mount_by(Backend::Kernel);
    change(&tree);
    tree.unmount();
    let wanted = written(&tree);
    tree.empty_upper();
    tree.set_backend(Backend::Plyfs);
    tree.mount();
    change(&tree);
    assert_same_lines(&written(&tree), &wanted, "the upper");
}

#[test]
fn upper_written_by_one_is_the_same_tree_for_the_other() {
    plyfs_only!("both take part");
    let mut tree = mount!(setup());
    for (first, second) in [(Backend::Plyfs, Backend::Kernel), (Backend::Kernel, Backend::Plyfs)] {
        tree.unmount();
        tree.empty_upper();
        tree.set_backend(first);
        tree.mount();
        change(&tree);
        let before = tree.tree();
        tree.switch_to(second);
        before.assert_eq(&tree.tree(), &format!("written by {first:?}"));
        tree.append("d/b", "+");
        fs::remove_dir_all(tree.path("d/a")).unwrap();
        fs::remove_dir_all(tree.path("gone")).unwrap();
        rename(&tree, "f", "f2").unwrap();
        let before = tree.tree();
        tree.switch_to(first);
        before.assert_eq(&tree.tree(), &format!("gone on with by {second:?}"));
    }
}

#[test]
fn marks_of_the_other_form_in_the_upper_are_none() {
    for (options, other) in [("userxattr", Form::Trusted), ("redirect_dir=on", Form::User)] {
        let mut tree =
            mount!(Setup::new().both(options).lower(|l| l.file("d/below", "").file("e/below", "")).upper(|u| {
                u.opaque("d", other).dir("e").dir("r").xattr("r", &format!("{}redirect", other.prefix()), "/d")
            }));
        for _ in 0..2 {
            assert_eq!(tree.list("d"), ["below"], "{options}");
            assert_eq!(tree.list("r"), Vec::<String>::new(), "{options}");
            tree.remount();
        }
        // What is no mark here is an attribute like any other.
        let shown = xattr(&tree.path("d"), &format!("{}opaque", other.prefix()));
        assert_eq!(shown.as_deref(), Ok(&b"y"[..]), "{options}");
    }
}

#[test]
fn attributes_of_the_other_form_are_ordinary() {
    for (options, name) in [("userxattr", "trusted.overlay.x"), ("redirect_dir=on", "user.overlay.x")] {
        let mut tree = mount!(setup().both(options));
        set_xattr(&tree.path("f"), name, "1").unwrap();
        for _ in 0..2 {
            assert_eq!(xattr(&tree.path("f"), name).as_deref(), Ok(&b"1"[..]), "{options}");
            assert!(xattrs(&tree.path("f")).iter().any(|(found, _)| found == name), "{options}");
            assert_eq!(xattr(&tree.upper("f"), name).as_deref(), Ok(&b"1"[..]), "{options}");
            tree.remount();
        }
    }
}

#[test]
fn attributes_of_the_own_form_are_escaped() {
    let mut tree = mount!(setup());
    set_xattr(&tree.path("f"), "user.overlay.opaque", "y").unwrap();
    set_xattr(&tree.path("d"), "user.overlay.opaque", "y").unwrap();
    for _ in 0..2 {
        assert_eq!(xattr(&tree.upper("d"), "user.overlay.overlay.opaque").as_deref(), Ok(&b"y"[..]));
        assert_eq!(xattr(&tree.path("d"), "user.overlay.opaque").as_deref(), Ok(&b"y"[..]));
        assert_eq!(xattr_names(&tree.path("d"), "user."), ["user.overlay.opaque"]);
        assert_eq!(xattr_names(&tree.path("f"), "user."), ["user.overlay.opaque"]);
        assert_eq!(tree.list("d"), ["a", "b"]);
        tree.remount();
    }
    rustix::fs::lremovexattr(tree.path("d"), "user.overlay.opaque").unwrap();
    assert_eq!(xattr(&tree.upper("d"), "user.overlay.overlay.opaque"), Err(Errno::NODATA));
}

#[test]
fn with_nofollow_directories_of_lower_layers_stay_where_they_are() {
    let tree = mount!(setup().both("userxattr,redirect_dir=nofollow"));
    assert_eq!(rename(&tree, "d", "d2"), Err(Errno::XDEV));
    assert_eq!(rename(&tree, "e/sub", "s"), Err(Errno::XDEV));
    assert_eq!(rename_with(&tree, "d", "e", RenameFlags::EXCHANGE), Err(Errno::XDEV));
}

#[test]
fn redirects_of_users_are_not_followed_with_nofollow() {
    let options = "userxattr,redirect_dir=nofollow";
    let tree = mount!(setup().both(options).upper(|u| u.dir("r").xattr("r", "user.overlay.redirect", "/d")));
    assert_eq!(lstat(tree.path("r")).err(), Some(Errno::PERM));
    assert_eq!(tree.read("d/a"), "a");
}

#[test]
fn directories_are_renamed_where_the_kernel_does_not() {
    plyfs_only!("the kernel's overlayfs does not trust redirects that any user may write");
    let mut tree = mount!(setup());
    rename(&tree, "d", "e/d").unwrap();
    assert_eq!(xattr(&tree.upper("e/d"), "user.overlay.redirect").as_deref(), Ok(&b"/d"[..]));
    for _ in 0..2 {
        assert_eq!(tree.list("e/d"), ["a", "b"]);
        tree.remount();
    }
    // Which it then tells of itself.
    tree.switch_to(Backend::Kernel);
    assert_eq!(lstat(tree.path("e/d")).err(), Some(Errno::PERM));
}

#[test]
fn options_that_trust_marks_are_refused() {
    needs_root!();
    let mut refused = vec!["userxattr,metacopy=on", "userxattr,redirect_dir=on,metacopy=on"];
    let mut taken = vec!["userxattr,redirect_dir=nofollow", "userxattr,index=on", "userxattr,metacopy=off"];
    let redirects = ["userxattr,redirect_dir=on", "userxattr,redirect_dir=follow", "userxattr,redirect_dir=off"];
    if Backend::chosen() == Backend::Kernel { &mut refused } else { &mut taken }.extend(redirects);
    for (options, is_taken) in refused.iter().map(|options| (*options, false)).chain(taken.iter().map(|o| (*o, true))) {
        let mut tree = setup().prepare(Backend::chosen());
        tree.set_options(options);
        assert_eq!(tree.try_mount().is_ok(), is_taken, "{options}");
    }
}
