//! Merged directories: what is under what, in every form in which layers hide things.

use std::fs;

use rustix::io::Errno;

use crate::common::*;

/// Forms that the backend of this run understands in lower layers.
fn forms(trees: &[Form]) -> Vec<Form> {
    let kernel = Backend::chosen() == Backend::Kernel;
    trees.iter().copied().filter(|form| !kernel || matches!(form, Form::Device | Form::Trusted)).collect()
}

const ALL: [Form; 5] = [Form::Device, Form::DotWh, Form::Trusted, Form::User, Form::FuseOverlayfs];

#[test]
fn directories_of_all_layers_merge() {
    let tree = mount!(
        Setup::new()
            .lower(|l| l.file("d/0", "").file("d/e/0", ""))
            .lower(|l| l.file("d/1", "").file("d/e/1", ""))
            .upper(|l| l.file("d/u", "").file("d/e/u", ""))
    );
    assert_eq!(tree.list("d"), ["0", "1", "e", "u"]);
    assert_eq!(tree.list("d/e"), ["0", "1", "u"]);
}

#[test]
fn merge_ends_at_the_first_non_directory() {
    let tree =
        mount!(Setup::new().lower(|l| l.file("d/0", "")).lower(|l| l.file("d", "a file")).lower(|l| l.file("d/2", "")));
    assert_eq!(tree.list("d"), ["0"]);
}

#[test]
fn attributes_are_those_of_the_topmost_part() {
    let tree = mount!(
        Setup::new()
            .lower(|l| l.dir("d").mode("d", 0o711).owner("d", 5, 6).time("d", 1_000_000_000, 7))
            .lower(|l| l.dir("d").mode("d", 0o777).owner("d", 8, 9))
    );
    let stat = tree.stat("d");
    assert_eq!((stat.st_mode & 0o7777, stat.st_uid, stat.st_gid), (0o711, 5, 6));
    assert_eq!((stat.st_mtime, stat.st_mtime_nsec), (1_000_000_000, 7));
}

#[test]
fn whiteouts_of_every_form_hide_in_lower_layers() {
    for form in forms(&ALL) {
        let tree = mount!(
            Setup::new()
                .lower(|l| l.dir("d").whiteout("d/file", form).whiteout("d/dir", form).file("d/mine", ""))
                .lower(|l| l.file("d/file", "x").file("d/dir/inner", "x").file("d/other", "x"))
        );
        assert_eq!(tree.list("d"), ["mine", "other"], "{form:?}");
        for name in ["file", "dir", "dir/inner", ".wh.file"] {
            assert_eq!(errno(lstat(tree.path("d").join(name))), Errno::NOENT, "{form:?} {name}");
        }
    }
}

#[test]
fn whiteout_hides_all_layers_below_but_none_above() {
    for form in forms(&ALL) {
        let tree = mount!(
            Setup::new()
                .lower(|l| l.file("d/a", "above"))
                .lower(|l| l.dir("d").whiteout("d/a", form).whiteout("d/b", form))
                .lower(|l| l.file("d/b", "2"))
                .lower(|l| l.file("d/b", "3").file("d/c", "3"))
        );
        assert_eq!(tree.read("d/a"), "above", "{form:?}");
        assert_eq!(tree.list("d"), ["a", "c"], "{form:?}");
    }
}

#[test]
fn directory_over_a_whiteout_does_not_merge_with_what_is_below_it() {
    for form in forms(&ALL) {
        let tree = mount!(
            Setup::new()
                .lower(|l| l.file("p/d/new", ""))
                .lower(|l| l.dir("p").whiteout("p/d", form))
                .lower(|l| l.file("p/d/old", ""))
        );
        assert_eq!(tree.list("p/d"), ["new"], "{form:?}");
    }
}

#[test]
fn opaque_directories_of_every_form_hide_in_lower_layers() {
    for form in forms(&ALL) {
        let tree = mount!(
            Setup::new()
                .lower(|l| l.file("d/0", ""))
                .lower(|l| l.file("d/1", "").opaque("d", form).file("d/sub/1", ""))
                .lower(|l| l.file("d/2", "").file("d/sub/2", ""))
        );
        assert_eq!(tree.list("d"), ["0", "1", "sub"], "{form:?}");
        assert_eq!(tree.list("d/sub"), ["1"], "{form:?}");
        assert!(!tree.exists("d/2"), "{form:?}");
    }
}

#[test]
fn whiteouts_in_directories_of_one_layer_are_not_listed() {
    plyfs_only!("the kernel lists device whiteouts of directories that one layer holds");
    for form in forms(&ALL) {
        let tree = mount!(Setup::new().lower(|l| l.dir("d").whiteout("d/gone", form).file("d/here", "")));
        assert_eq!(tree.list("d"), ["here"], "{form:?}");
        assert!(!tree.exists("d/gone"), "{form:?}");
        assert_eq!(errno(fs::remove_file(tree.path("d/gone"))), Errno::NOENT, "{form:?}");
    }
}

#[test]
fn directory_with_nothing_but_whiteouts_is_empty_and_can_go() {
    for form in forms(&ALL) {
        if Backend::chosen() == Backend::Kernel && form != Form::Device {
            // The kernel does not take xattr whiteouts for such when it removes the directory.
            continue;
        }
        let tree = mount!(Setup::new().lower(|l| l.dir("d").whiteout("d/a", form)).lower(|l| l.file("d/a", "x")));
        assert_eq!(tree.list("d"), Vec::<String>::new(), "{form:?}");
        fs::remove_dir(tree.path("d")).unwrap();
        assert!(tree.is_whiteout("d"), "{form:?}");
    }
}

#[test]
fn names_hidden_below_can_be_made_again() {
    for form in forms(&ALL) {
        let mut tree = mount!(
            Setup::new()
                .lower(|l| l.dir("d").whiteout("d/a", form).whiteout("d/b", form))
                .lower(|l| l.file("d/a", "x").file("d/b/old", "x"))
        );
        tree.write("d/a", "new");
        fs::create_dir(tree.path("d/b")).unwrap();
        for _ in 0..2 {
            assert_eq!(tree.read("d/a"), "new", "{form:?}");
            assert_eq!(tree.list("d/b"), Vec::<String>::new(), "{form:?}");
            tree.remount();
        }
    }
}

#[test]
fn whiteouts_in_the_root_hide() {
    for form in forms(&[Form::Device, Form::DotWh]) {
        let tree = mount!(Setup::new().lower(|l| l.whiteout("a", form)).lower(|l| l.file("a", "x").file("b", "x")));
        assert_eq!(tree.list(""), ["b"], "{form:?}");
    }
}

#[test]
fn whiteouts_that_an_upper_holds_already_hide() {
    let tree = mount!(
        Setup::new()
            .lower(|l| l.file("d/a", "x").file("d/b", "x").file("o/a", "x"))
            .upper(|l| l.whiteout("d/a", Form::Device).opaque("o", Form::Trusted).file("o/mine", ""))
    );
    assert_eq!(tree.list("d"), ["b"]);
    assert_eq!(tree.list("o"), ["mine"]);
}

#[test]
fn zero_size_file_without_marks_is_a_file() {
    let tree = mount!(
        Setup::new()
            .lower(|l| l.file("d/a", "").xattr("d", "trusted.overlay.opaque", "x"))
            .lower(|l| l.file("d/a", "x"))
    );
    assert_eq!(tree.read("d/a"), "");
}

#[test]
fn directory_stays_merged_over_copy_up() {
    let mut tree =
        mount!(Setup::new().lower(|l| l.file("d/0", "0")).lower(|l| l.file("d/1", "1")).lower(|l| l.file("d/2", "2")));
    tree.write("d/new", "");
    fs::remove_file(tree.path("d/1")).unwrap();
    for _ in 0..2 {
        assert_eq!(tree.list("d"), ["0", "2", "new"]);
        tree.remount();
    }
    assert!(!tree.is_opaque("d"));
}

#[test]
fn redirects_in_lower_layers_are_followed() {
    let tree = mount!(
        Setup::new()
            .lower(|l| l
                .file("new/0", "")
                .xattr("new", "trusted.overlay.redirect", "/p/old")
                .whiteout("p/old", Form::Device))
            .lower(|l| l.file("p/old/1", ""))
    );
    assert_eq!(tree.list("new"), ["0", "1"]);
    assert_eq!(tree.list("p"), Vec::<String>::new());
}

#[test]
fn names_that_look_like_whiteouts_are_ordinary_when_made_through_the_mount() {
    let mut tree = mount!(Setup::new().lower(|l| l.file("d/f", "x")));
    tree.write("d/.wh.f", "mine");
    tree.write("d/.wh..wh..opq", "mine");
    for _ in 0..2 {
        assert_eq!(tree.list("d"), [".wh..wh..opq", ".wh.f", "f"]);
        assert_eq!((tree.read("d/.wh.f").as_str(), tree.read("d/f").as_str()), ("mine", "x"));
        tree.remount();
    }
}

#[test]
fn user_attributes_carry_the_marks_where_that_is_asked_for() {
    let setup = Setup::new()
        .lower(|l| l.file("d/a", "").opaque("o", Form::User).file("o/0", "").file("f", ""))
        .lower(|l| l.file("d/b", "").file("o/1", ""));
    let mut tree = mount!(setup.option("userxattr").kernel_options("userxattr"));
    assert_eq!(tree.list("o"), ["0"]);
    fs::remove_dir_all(tree.path("d")).unwrap();
    fs::create_dir(tree.path("d")).unwrap();
    fs::remove_file(tree.path("f")).unwrap();
    assert_eq!(xattr(&tree.upper("d"), "user.overlay.opaque").as_deref(), Ok(b"y".as_slice()));
    assert_eq!(xattr_names(&tree.path("d"), ""), Vec::<String>::new());
    for _ in 0..2 {
        assert_eq!(tree.list(""), ["d", "o"]);
        assert!(tree.list("d").is_empty());
        tree.remount();
    }
}
