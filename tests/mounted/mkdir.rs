//! Making directories.

use std::fs;

use rustix::fs::Mode;

use crate::common::*;

#[test]
fn directory_over_a_whiteout_is_opaque_on_disk() {
    let mut tree = mount!(Setup::new().lower(|l| l.file("d/old", "").file("f", "")));
    fs::remove_dir_all(tree.path("d")).unwrap();
    fs::remove_file(tree.path("f")).unwrap();
    fs::create_dir(tree.path("d")).unwrap();
    fs::create_dir(tree.path("f")).unwrap();
    assert!(tree.is_opaque("d"));
    for _ in 0..2 {
        assert_eq!(tree.list("d"), Vec::<String>::new());
        assert_eq!(tree.list("f"), Vec::<String>::new());
        tree.remount();
    }
}

#[test]
fn directory_made_again_stays_opaque_when_its_upper_becomes_a_lower_layer() {
    let mut tree = mount!(Setup::new().lower(|l| l.file("d/old", "").file("d/sub/old", "")));
    fs::remove_dir_all(tree.path("d")).unwrap();
    fs::create_dir(tree.path("d")).unwrap();
    tree.write("d/new", "");
    tree.unmount();
    let (upper, lower) = (tree.upper(""), tree.lower(0, ""));
    let copy = |from: &std::path::Path, to: &Layer| {
        run(std::process::Command::new("cp").arg("-a").arg("--preserve=all").arg(from.join(".")).arg(to.path("")));
    };
    let second = Setup::new()
        .lower(|l| {
            copy(&upper, l);
            l
        })
        .lower(|l| {
            copy(&lower, l);
            l
        })
        .mount();
    assert_eq!(second.list("d"), ["new"]);
    fs::create_dir(second.path("d/sub")).unwrap();
    assert_eq!(second.list("d/sub"), Vec::<String>::new());
}

#[test]
fn new_directory_does_not_show_what_comes_below_later() {
    let mut tree = mount!(Setup::new().lower(|l| l.dir("p")).lower(|l| l.dir("p")));
    fs::create_dir(tree.path("p/d")).unwrap();
    assert!(tree.is_opaque("p/d"));
    tree.remount();
    assert_eq!(tree.list("p/d"), Vec::<String>::new());
}

#[test]
fn directories_are_made_and_removed_many_times_under_one_name() {
    let mut tree = mount!(Setup::new().lower(|l| l.file("p/d/old", "")));
    for round in 0..10 {
        fs::remove_dir_all(tree.path("p/d")).unwrap();
        assert!(!tree.exists("p/d"), "round {round}");
        fs::create_dir_all(tree.path("p/d/e")).unwrap();
        tree.write("p/d/e/f", round.to_string());
        assert_eq!(tree.list("p/d"), ["e"]);
    }
    tree.remount();
    assert_eq!(tree.list("p/d"), ["e"]);
    assert_eq!(tree.read("p/d/e/f"), "9");
}

#[test]
fn deep_new_trees_work() {
    let mut tree = mount!(Setup::new().lower(|l| l.dir("a")));
    let deep = "a/".to_owned() + &"b/".repeat(100);
    fs::create_dir_all(tree.path(&deep)).unwrap();
    tree.write(deep.clone() + "f", "deep");
    tree.remount();
    assert_eq!(tree.read(deep + "f"), "deep");
}

#[test]
fn files_and_directories_are_made_in_deep_lower_directories() {
    let deep = "d/".repeat(50);
    let mut tree = mount!(Setup::new().lower(|l| l.file(format!("{deep}old"), "old")));
    tree.write(format!("{deep}new"), "new");
    fs::create_dir(tree.path(format!("{deep}sub"))).unwrap();
    for _ in 0..2 {
        assert_eq!(tree.list(&deep), ["new", "old", "sub"]);
        tree.remount();
    }
}

#[test]
fn mkdir_with_a_trailing_slash() {
    let tree = mount!(Setup::new().lower(|l| l.dir("d")));
    rustix::fs::mkdir(tree.path("d/new/"), Mode::from_raw_mode(0o755)).unwrap();
    assert_eq!(tree.list("d"), ["new"]);
}
