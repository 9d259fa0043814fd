//! Renaming directories.

use std::fs;

use rustix::fs::{Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::common::*;
use crate::rename::{rename, rename_with};

fn setup() -> Setup {
    Setup::new()
        .lower(|l| l.file("d/0", "0").file("d/sub/0", "0").file("d/sub/deep/0", "").dir("other"))
        .lower(|l| l.file("d/1", "1").file("d/sub/1", "1").file("elsewhere/1", ""))
}

#[test]
fn merged_directory_keeps_its_content_and_number() {
    let mut tree = mount!(setup());
    let (ino, inner) = (tree.ino("d"), tree.ino("d/sub/1"));
    rename(&tree, "d", "renamed").unwrap();
    assert!(tree.is_whiteout("d"));
    for _ in 0..2 {
        assert!(!tree.exists("d"));
        assert_eq!(tree.list("renamed"), ["0", "1", "sub"]);
        assert_eq!(tree.list("renamed/sub"), ["0", "1", "deep"]);
        assert_eq!(tree.read("renamed/sub/1"), "1");
        assert_eq!((tree.ino("renamed"), tree.ino("renamed/sub/1")), (ino, inner));
        tree.remount();
    }
}

#[test]
fn merged_directory_takes_a_redirect_with_it() {
    let tree = mount!(setup());
    let redirect =
        |path: &str| xattr(&tree.upper(path), "trusted.overlay.redirect").map(|v| v.escape_ascii().to_string());
    rename(&tree, "d", "renamed").unwrap();
    assert_eq!(redirect("renamed").as_deref(), Ok("d"));
    rename(&tree, "renamed", "again").unwrap();
    assert_eq!(redirect("again").as_deref(), Ok("d"));
    rename(&tree, "again/sub", "other/moved").unwrap();
    assert_eq!(redirect("other/moved").as_deref(), Ok("/d/sub"));
    rename(&tree, "again", "other/again").unwrap();
    assert_eq!(redirect("other/again").as_deref(), Ok("/d"));
    assert_eq!(tree.list("other/moved"), ["0", "1", "deep"]);
    assert_eq!(tree.list("other/again"), ["0", "1"]);
}

#[test]
fn merged_directory_moves_below_another_and_back() {
    let mut tree = mount!(setup());
    let before = tree.tree().paths();
    rename(&tree, "d", "other/d").unwrap();
    tree.remount();
    assert_eq!(tree.list("other/d/sub"), ["0", "1", "deep"]);
    rename(&tree, "other/d/sub/deep", "elsewhere/deep").unwrap();
    rename(&tree, "other/d", "elsewhere/deep/d").unwrap();
    tree.remount();
    assert_eq!(tree.list("elsewhere/deep/d/sub"), ["0", "1"]);
    rename(&tree, "elsewhere/deep/d", "d").unwrap();
    rename(&tree, "elsewhere/deep", "d/sub/deep").unwrap();
    tree.remount();
    assert_eq!(tree.tree().paths(), before);
    assert_eq!((tree.read("d/sub/0").as_str(), tree.read("d/sub/1").as_str()), ("0", "1"));
}

#[test]
fn chain_of_renames_keeps_every_directory() {
    let mut tree = mount!(Setup::new().lower(|l| l.file("a/f", "a").file("b/f", "b").file("c/f", "c")));
    for _ in 0..3 {
        for (from, to) in [("a", "tmp"), ("b", "a"), ("c", "b"), ("tmp", "c")] {
            rename(&tree, from, to).unwrap();
        }
        tree.remount();
    }
    for name in ["a", "b", "c"] {
        assert_eq!(tree.read(format!("{name}/f")), name);
    }
    assert_eq!(tree.list(""), ["a", "b", "c"]);
}

#[test]
fn new_directory_under_the_old_name_is_empty() {
    let mut tree = mount!(setup());
    rename(&tree, "d", "renamed").unwrap();
    fs::create_dir(tree.path("d")).unwrap();
    tree.write("d/mine", "");
    for _ in 0..2 {
        assert_eq!(tree.list("d"), ["mine"]);
        assert_eq!(tree.list("renamed"), ["0", "1", "sub"]);
        tree.remount();
    }
    assert!(tree.is_opaque("d"));
}

#[test]
fn upper_directory_renamed_over_a_lower_name_does_not_merge_with_it() {
    let mut tree = mount!(setup());
    fs::create_dir(tree.path("new")).unwrap();
    tree.write("new/mine", "");
    fs::remove_dir_all(tree.path("d")).unwrap();
    rename(&tree, "new", "d").unwrap();
    fs::create_dir(tree.path("other/sub")).unwrap();
    for _ in 0..2 {
        assert_eq!(tree.list("d"), ["mine"]);
        tree.remount();
    }
    assert!(tree.is_opaque("d"));
}

#[test]
fn directory_replaces_an_empty_one_of_any_kind() {
    for from in ["lower", "merged", "upper"] {
        for to in ["empty-lower", "emptied", "whiteouts", "empty-upper"] {
            let mut tree = mount!(
                Setup::new()
                    .lower(|l| {
                        l.file("lower/f", "")
                            .file("merged/0", "")
                            .dir("t/empty-lower")
                            .dir("t/whiteouts")
                            .file("t/emptied/x", "")
                    })
                    .lower(|l| l.file("merged/1", "").file("t/whiteouts/y", ""))
                    .upper(|l| {
                        l.file("merged/u", "")
                            .file("upper/u", "")
                            .dir("t/empty-upper")
                            .whiteout("t/whiteouts/y", Form::Device)
                    })
            );
            fs::remove_file(tree.path("t/emptied/x")).unwrap();
            let names = tree.list(from);
            rename(&tree, from, &format!("t/{to}")).unwrap();
            for _ in 0..2 {
                assert_eq!(tree.list(format!("t/{to}")), names, "{from} to {to}");
                assert!(!tree.exists(from), "{from} to {to}");
                tree.remount();
            }
        }
    }
}

#[test]
fn exchange_of_merged_directories() {
    let mut tree = mount!(
        Setup::new().lower(|l| l.file("a/0", "").file("p/b/0", "")).lower(|l| l.file("a/a1", "").file("p/b/b1", ""))
    );
    tree.write("a/au", "");
    let (a, b) = (tree.ino("a"), tree.ino("p/b"));
    rename_with(&tree, "a", "p/b", RenameFlags::EXCHANGE).unwrap();
    for _ in 0..2 {
        assert_eq!(tree.list("a"), ["0", "b1"]);
        assert_eq!(tree.list("p/b"), ["0", "a1", "au"]);
        assert_eq!((tree.ino("a"), tree.ino("p/b")), (b, a));
        tree.remount();
    }
    rename_with(&tree, "a", "p/b", RenameFlags::EXCHANGE).unwrap();
    assert_eq!(tree.list("a"), ["0", "a1", "au"]);
}

#[test]
fn exchange_of_a_new_directory_and_a_merged_one() {
    let mut tree = mount!(setup());
    fs::create_dir(tree.path("new")).unwrap();
    tree.write("new/n", "");
    rename_with(&tree, "new", "d", RenameFlags::EXCHANGE).unwrap();
    for _ in 0..2 {
        assert_eq!(tree.list("d"), ["n"]);
        assert_eq!(tree.list("new"), ["0", "1", "sub"]);
        tree.remount();
    }
}

#[test]
fn directory_does_not_go_into_itself() {
    let tree = mount!(setup());
    assert_eq!(rename(&tree, "d", "d/sub/d"), Err(Errno::INVAL));
    assert_eq!(rename(&tree, "d", "d/new"), Err(Errno::INVAL));
    assert_eq!(rename_with(&tree, "d", "d/sub", RenameFlags::EXCHANGE), Err(Errno::INVAL));
    assert_eq!(rename(&tree, "d/sub", "d"), Err(Errno::NOTEMPTY));
}

#[test]
fn files_below_a_renamed_directory_are_changed_where_they_are() {
    let mut tree = mount!(setup());
    rename(&tree, "d", "other/d").unwrap();
    tree.append("other/d/sub/1", "+");
    fs::remove_file(tree.path("other/d/0")).unwrap();
    tree.write("other/d/sub/deep/new", "n");
    rename(&tree, "other/d/sub/0", "moved").unwrap();
    for _ in 0..2 {
        assert_eq!(tree.read("other/d/sub/1"), "1+");
        assert_eq!(tree.list("other/d"), ["1", "sub"]);
        assert_eq!(tree.list("other/d/sub"), ["1", "deep"]);
        assert_eq!(tree.list("other/d/sub/deep"), ["0", "new"]);
        assert_eq!(tree.read("moved"), "0");
        tree.remount();
    }
}

#[test]
fn open_directory_and_working_directory_follow_a_rename() {
    let tree = mount!(setup());
    let dir = open(tree.path("d/sub"), OFlags::RDONLY | OFlags::DIRECTORY).unwrap();
    rename(&tree, "d", "other/d").unwrap();
    let made = rustix::fs::openat(&dir, "made", OFlags::CREATE | OFlags::WRONLY, Mode::from_raw_mode(0o644));
    drop(made.unwrap());
    assert_eq!(tree.list("other/d/sub"), ["0", "1", "deep", "made"]);
    let up = rustix::fs::statat(&dir, "../..", rustix::fs::AtFlags::empty()).unwrap();
    assert_eq!(up.st_ino, tree.ino("other"));
}

#[test]
fn parent_of_a_moved_directory_is_listed_as_dot_dot() {
    let tree = mount!(setup());
    let dot_dot = |path: &str| raw_list(tree.path(path)).into_iter().find(|(name, _)| name == b"..").unwrap().1;
    assert_eq!(dot_dot("d/sub"), tree.ino("d"));
    rename(&tree, "d/sub", "other/sub").unwrap();
    assert_eq!(dot_dot("other/sub"), tree.ino("other"));
}

#[test]
fn sticky_and_foreign_directories_are_not_renamed_by_others() {
    let tree = mount!(Setup::new().lower(|l| {
        l.dir("t/bob")
            .owner("t/bob", 1002, 1002)
            .mode("t", 0o1777)
            .dir("w/ro")
            .owner("w/ro", 1002, 1002)
            .mode("w", 0o777)
            .mode("w/ro", 0o755)
            .dir("z")
            .mode("z", 0o777)
    }));
    as_user(User::ALICE, || {
        assert_eq!(rename(&tree, "t/bob", "t/mine"), Err(Errno::PERM));
        // To another parent, `..` has to be written.
        assert_eq!(rename(&tree, "w/ro", "z/ro"), Err(Errno::ACCESS));
        rename(&tree, "w/ro", "w/renamed").unwrap();
    });
}

#[test]
fn two_directories_are_moved_into_each_other_by_two_threads() {
    let tree = mount!(Setup::new().lower(|l| l.file("a/f", "a").file("b/f", "b")));
    std::thread::scope(|scope| {
        for (from, to, back) in [("a", "b/a", "a"), ("b", "a/b", "b")] {
            let tree = &tree;
            scope.spawn(move || {
                for _ in 0..200 {
                    match rename(tree, from, to) {
                        Ok(()) => rename(tree, to, back).unwrap(),
                        Err(error) => assert!(matches!(error, Errno::NOENT | Errno::INVAL), "{error}"),
                    }
                }
            });
        }
    });
    assert_eq!(tree.list(""), ["a", "b"]);
    assert_eq!((tree.read("a/f").as_str(), tree.read("b/f").as_str()), ("a", "b"));
}

#[test]
fn redirect_dir_off_refuses_to_move_merged_directories() {
    let tree = mount!(setup().option("redirect_dir=off").kernel_options("redirect_dir=off"));
    assert_eq!(rename(&tree, "d", "renamed"), Err(Errno::XDEV));
    fs::create_dir(tree.path("new")).unwrap();
    rename(&tree, "new", "other/new").unwrap();
    // What people do then.
    run(std::process::Command::new("mv").arg(tree.path("d")).arg(tree.path("renamed")));
    assert_eq!(tree.list("renamed/sub"), ["0", "1", "deep"]);
    assert!(!tree.exists("d"));
}
