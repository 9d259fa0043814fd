//! Inode numbers.

use std::collections::HashSet;

use rustix::fs::RenameFlags;

use super::Bed;
use super::view;
use crate::inode::numbers::ROOT;
use crate::sys::testing::root_or_skip;

/// Changes everything that has one of `paths` in [`LAYERS`], moves it, and compares the numbers.
fn numbers_stay(bed: Bed, paths: &[(&str, &str)]) {
    let numbers = |bed: &Bed| paths.iter().map(|(path, _)| bed.ino(path)).collect::<Vec<_>>();
    let moved_numbers = |bed: &Bed| paths.iter().map(|(_, moved)| bed.ino(moved)).collect::<Vec<_>>();
    let before = numbers(&bed);
    for path in ["d/f", "d/g", "d/p", "e"] {
        bed.chmod(path, 0o700).unwrap();
    }
    bed.link("d/l", "l").unwrap();
    assert_eq!(numbers(&bed), before, "after copy-up");
    let bed = bed.reopen();
    assert_eq!(numbers(&bed), before, "after a new mount");
    bed.rename("d", "x").unwrap();
    bed.rename("e", "d").unwrap();
    bed.rename("x", "e").unwrap();
    bed.rename("e/f", "f").unwrap();
    assert_eq!(moved_numbers(&bed), before, "after renames");
    let bed = bed.reopen();
    assert_eq!(moved_numbers(&bed), before, "after renames and a new mount");
    assert_eq!(bed.ino("l"), bed.ino("e/l"));
    let (d, e) = (bed.ino("d"), bed.ino("e"));
    bed.rename_with("e", "d", RenameFlags::EXCHANGE).unwrap();
    let bed = bed.reopen();
    assert_eq!((bed.ino("d"), bed.ino("e")), (e, d));
}

const LAYERS: [&str; 2] = ["d/f=x d/l->x d/p| e/f=y", "d/g=x"];
const FILES: [(&str, &str); 5] = [("d", "e"), ("d/f", "f"), ("d/g", "e/g"), ("e", "d"), ("e/f", "d/f")];
const OTHERS: [(&str, &str); 2] = [("d/l", "e/l"), ("d/p", "e/p")];

#[test]
fn numbers_stay_over_copy_up_rename_and_remount() {
    numbers_stay(Bed::new(&LAYERS), &FILES);
    if root_or_skip("marks on symlinks and fifos, as trusted attributes") {
        numbers_stay(Bed::with(&LAYERS, |config| config.userxattr = None), &[&FILES[..], &OTHERS].concat());
    }
}

#[test]
fn numbers_of_what_can_carry_no_user_attributes_stay_as_long_as_the_mount() {
    let bed = Bed::new(&LAYERS);
    let before = OTHERS.map(|(path, _)| bed.ino(path));
    bed.rename("d/l", "l").unwrap();
    bed.chmod("d/p", 0o600).unwrap();
    bed.forget_all();
    assert_eq!([bed.ino("l"), bed.ino("d/p")], before);
    bed.tree();
    // A number that is used again stands for something else.
    bed.unlink("l").unwrap();
    bed.forget_all();
    for n in 0..20 {
        assert_ne!(bed.symlink(&format!("new{n}"), "t").unwrap().ino, before[0]);
    }
    bed.check_lasting();
}

#[test]
fn lower_hard_links_of_what_can_carry_no_user_attributes_are_two_inodes_after_copy_up() {
    let bed = Bed::new(&["a->t b==a p| q==p"]);
    assert_eq!((bed.ino("a"), bed.ino("p")), (bed.ino("b"), bed.ino("q")));
    bed.rename("a", "c").unwrap();
    bed.chmod("p", 0o600).unwrap();
    assert_eq!((bed.readlink("b"), bed.readlink("c")), ("t".into(), "t".into()));
    assert_ne!((bed.ino("c"), bed.ino("p")), (bed.ino("b"), bed.ino("q")));
    bed.unlink("c").unwrap();
    bed.unlink("p").unwrap();
    assert_eq!((bed.readlink("b"), bed.attr("q").unwrap().mode & 0o777), ("t".into(), 0o644));
    bed.rename("b", "a").unwrap();
    bed.reopen().check_lasting();
}

#[test]
fn numbers_of_new_objects_stay_over_remounts() {
    let bed = Bed::new(&["d/x=x"]);
    bed.write("d/f", "1").unwrap();
    bed.mkdir("d/s").unwrap();
    bed.symlink("l", "t").unwrap();
    let paths = ["d/f", "d/s", "l"];
    let before = paths.map(|path| bed.ino(path));
    bed.rename("d/f", "f").unwrap();
    bed.rename("f", "d/f").unwrap();
    let bed = bed.reopen();
    assert_eq!(paths.map(|path| bed.ino(path)), before);
}

#[test]
fn a_listing_shows_the_numbers_that_a_lookup_does() {
    let bed = Bed::new(&["d/f=x d/s/t=x a=1 b==a", "d/g=x d/s/u=x"]);
    let check = |bed: &Bed| drop(bed.tree());
    check(&bed);
    bed.chmod("d/f", 0o600).unwrap();
    bed.chmod("b", 0o600).unwrap();
    check(&bed);
    bed.rename("d/s", "s").unwrap();
    bed.rename("d/g", "s/g").unwrap();
    bed.write("s/new", "n").unwrap();
    bed.link("s/new", "d/new").unwrap();
    check(&bed);
    check(&bed.reopen());
}

#[test]
fn dot_and_dot_dot_show_the_numbers_of_the_directory_and_its_parent() {
    let bed = Bed::new(&["a/b/c=x"]);
    let dots = |bed: &Bed, path: &str| {
        let dir = bed.ino(path);
        let entries = view::read_dir(&bed.overlay, dir, 0, 2);
        assert_eq!((entries[0].name.as_slice(), entries[1].name.as_slice()), (&b"."[..], &b".."[..]));
        (entries[0].ino, entries[1].ino)
    };
    let root = bed.overlay.getattr(ROOT).unwrap().ino;
    let (a, b) = (bed.ino("a"), bed.ino("a/b"));
    assert_eq!(dots(&bed, ""), (root, root));
    assert_eq!(dots(&bed, "a"), (a, root));
    assert_eq!(dots(&bed, "a/b"), (b, a));
    bed.rename("a/b", "b").unwrap();
    assert_eq!(dots(&bed, "b"), (b, root));
}

#[test]
fn numbers_are_unique_over_the_layers() {
    let words = |layer: &str| (0..20).map(|n| format!("d{n}/{layer}{n}=x {layer}{n}=x ")).collect::<String>();
    let bed = Bed::new(&[&words("a"), &words("b"), &words("c")]);
    for n in 0..20 {
        bed.write(&format!("new{n}"), "").unwrap();
        bed.chmod(&format!("a{n}"), 0o600).unwrap();
    }
    for bed in [bed.reopen()] {
        let mut seen = HashSet::new();
        let mut dirs = vec![ROOT];
        while let Some(dir) = dirs.pop() {
            for entry in view::entries(&bed.overlay, dir) {
                assert!(seen.insert(entry.ino), "{} appears twice", entry.ino);
                let attr = bed.overlay.lookup(dir, &entry.name).unwrap().unwrap();
                if attr.kind() == crate::attr::Kind::Dir {
                    dirs.push(attr.ino);
                }
            }
        }
        assert_eq!(seen.len(), 20 * 8);
    }
}

#[test]
fn numbers_of_layers_on_different_filesystems_do_not_clash() {
    let Ok(other) = tempfile::tempdir_in("/dev/shm") else {
        eprintln!("SKIPPED: layers on different filesystems (no /dev/shm)");
        return;
    };
    let here = tempfile::tempdir().unwrap();
    use std::os::unix::fs::MetadataExt;
    if std::fs::metadata(other.path()).unwrap().dev() == std::fs::metadata(here.path()).unwrap().dev() {
        eprintln!("SKIPPED: layers on different filesystems (/dev/shm is no other)");
        return;
    }
    super::bed::build(other.path(), "d/f=other d/both=other g=other");
    let bed = Bed::with(&["d/both=x d/h=x"], |config| config.lowers.push(other.path().to_owned()));
    let paths = ["d", "d/f", "d/both", "d/h", "g"];
    let before = paths.map(|path| bed.ino(path));
    assert_eq!(HashSet::from(before).len(), paths.len());
    bed.append("d/f", "+").unwrap();
    bed.append("g", "+").unwrap();
    assert_eq!(paths.map(|path| bed.ino(path)), before);
    let bed = bed.reopen();
    assert_eq!(paths.map(|path| bed.ino(path)), before);
    assert_eq!(bed.read("d/f"), "other+");
    drop(bed.tree());
}

#[test]
fn the_number_of_a_removed_file_is_not_taken_while_it_is_known() {
    let bed = Bed::new(&["low=x"]);
    bed.write("f", "1").unwrap();
    let (old, low) = (bed.ino("f"), bed.ino("low"));
    bed.unlink("f").unwrap();
    bed.unlink("low").unwrap();
    let mut seen = HashSet::from([old, low]);
    for n in 0..50 {
        bed.write(&format!("n{n}"), "").unwrap();
        assert!(seen.insert(bed.ino(&format!("n{n}"))), "a number was used again");
    }
    assert_eq!(bed.overlay.getattr(old).unwrap().size, 1);
}

#[test]
fn two_copies_that_claim_one_origin_are_two_inodes() {
    let bed = Bed::new(&["d/f=x"]);
    bed.append("d/f", "1").unwrap();
    let upper = bed.path("upper");
    let bed = bed.reopen_with(|_| {
        // As by cp -a: with the attributes.
        std::fs::copy(upper.join("d/f"), upper.join("d/copy")).unwrap();
        let origin = super::bed::get_xattr(&upper.join("d/f"), "user.overlay.origin").unwrap();
        super::bed::set_xattr(&upper.join("d/copy"), "user.overlay.origin", &origin);
        std::fs::write(upper.join("d/copy"), "other").unwrap();
    });
    let (first, second) = (bed.attr("d/f").unwrap(), bed.attr("d/copy").unwrap());
    assert_ne!(first.ino, second.ino);
    assert_eq!((bed.read("d/f"), bed.read("d/copy")), ("x1".into(), "other".into()));
    bed.append("d/copy", "!").unwrap();
    assert_eq!((bed.read("d/f"), bed.read("d/copy")), ("x1".into(), "other!".into()));
}
