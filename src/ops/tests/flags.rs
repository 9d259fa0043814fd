//! Inode flags: immutable and append-only, which are marks, and the others.

use rustix::fs::{OFlags, RenameFlags};

use super::Bed;
use super::bed::{build, errno, get_xattr, us};
use crate::error::{Errno, Result};
use crate::ops::SetAttr;
use crate::times::NewTime;

const IMMUTABLE: u32 = 0x10;
const APPEND: u32 = 0x20;
const NOATIME: u32 = 0x80;

/// Sets flags; `false`, loudly, where the filesystem has none.
fn set_flags(bed: &Bed, path: &str, flags: u32) -> bool {
    match bed.overlay.set_flags(bed.ino(path), flags) {
        Err(error) if matches!(error.errno(), Errno::NOTTY | Errno::OPNOTSUPP) => {
            eprintln!("SKIPPED: inode flags (the filesystem has none)");
            false
        }
        result => {
            result.unwrap();
            true
        }
    }
}

fn plain(bed: &Bed, path: &str) -> u32 {
    bed.overlay.flags(bed.ino(path)).unwrap() & (IMMUTABLE | APPEND | NOATIME)
}

/// What an immutable or append-only file refuses.
fn refused(bed: &Bed, path: &str) -> Vec<(&'static str, Result<()>)> {
    let set = |set| bed.setattr(path, set).map(drop);
    let base = SetAttr::default();
    vec![
        ("open for writing", bed.open_file(path, OFlags::WRONLY).map(drop)),
        ("open to truncate", bed.open_file(path, OFlags::WRONLY | OFlags::TRUNC | OFlags::APPEND).map(drop)),
        ("truncate", set(SetAttr { size: Some(0), ..base })),
        ("chmod", set(SetAttr { mode: Some(0o600), ..base })),
        ("chown", set(SetAttr { uid: Some(us().uid), ..base })),
        ("set a time", set(SetAttr { mtime: Some(NewTime::At(crate::attr::Time::default())), ..base })),
        ("setxattr", bed.set_xattr(path, "user.x", "y")),
        ("removexattr", bed.overlay.removexattr(bed.ino(path), b"user.old", us())),
        ("link", bed.link(path, "other").map(drop)),
        ("unlink", bed.unlink(path)),
        ("rename", bed.rename(path, "other")),
        ("rename over", bed.rename("plain", path)),
        ("exchange", bed.rename_with(path, "plain", RenameFlags::EXCHANGE)),
    ]
}

#[test]
fn immutable_files_are_not_changed() {
    let bed = Bed::new(&["f=x f@user.old=1 plain=p"]);
    if !set_flags(&bed, "f", IMMUTABLE) {
        return;
    }
    for round in ["set", "found by a new mount"] {
        let table = refused(&bed, "f");
        for (what, result) in table {
            assert_eq!(errno(result), Errno::PERM, "{what}, {round}");
        }
        assert_eq!(errno(bed.open_file("f", OFlags::WRONLY | OFlags::APPEND)), Errno::PERM);
        assert_eq!(errno(bed.setattr("f", SetAttr { mtime: Some(NewTime::Now), ..SetAttr::default() })), Errno::PERM);
        assert_eq!(plain(&bed, "f"), IMMUTABLE);
        bed.overlay.caches.attrs.clear();
    }
    let bed = bed.check_lasting();
    assert_eq!(errno(bed.unlink("f")), Errno::PERM);
    bed.overlay.set_flags(bed.ino("f"), 0).unwrap();
    bed.unlink("f").unwrap();
}

#[test]
fn append_only_files_are_appended_to_only() {
    let bed = Bed::new(&["f=x f@user.old=1 plain=p"]);
    if !set_flags(&bed, "f", APPEND) {
        return;
    }
    for (what, result) in refused(&bed, "f") {
        assert_eq!(errno(result), Errno::PERM, "{what}");
    }
    bed.append("f", "y").unwrap();
    bed.setattr("f", SetAttr { mtime: Some(NewTime::Now), ..SetAttr::default() }).unwrap();
    assert_eq!(bed.read("f"), "xy");
    let bed = bed.check_lasting();
    assert_eq!(plain(&bed, "f"), APPEND);
}

#[test]
fn nothing_is_made_in_an_immutable_directory_and_nothing_removed_from_an_append_only_one() {
    let bed = Bed::new(&["d/f=x a/f=x plain=p"]);
    if !set_flags(&bed, "d", IMMUTABLE) {
        return;
    }
    set_flags(&bed, "a", APPEND);
    let table = [
        ("create", bed.create("d/n", OFlags::WRONLY).map(drop)),
        ("mkdir", bed.mkdir("d/n").map(drop)),
        ("symlink", bed.symlink("d/n", "t").map(drop)),
        ("link", bed.link("plain", "d/n").map(drop)),
        ("unlink", bed.unlink("d/f")),
        ("rename out", bed.rename("d/f", "out")),
        ("rename in", bed.rename("plain", "d/n")),
        ("unlink from an append-only one", bed.unlink("a/f")),
        ("rename out of an append-only one", bed.rename("a/f", "out")),
    ];
    for (what, result) in table {
        assert_eq!(errno(result), Errno::PERM, "{what}");
    }
    bed.write("a/new", "n").unwrap();
    // What is in them may be changed.
    bed.append("d/f", "y").unwrap();
    bed.append("a/f", "y").unwrap();
    bed.check_lasting();
}

#[test]
fn immutable_and_append_only_are_a_mark_in_the_upper() {
    let bed = Bed::new(&["f=x"]);
    if !set_flags(&bed, "f", IMMUTABLE | APPEND) {
        return;
    }
    let mark = get_xattr(&bed.path("upper/f"), "user.overlay.protattr").unwrap();
    assert!(mark.contains(&b'i') && mark.contains(&b'a'));
    bed.overlay.set_flags(bed.ino("f"), APPEND).unwrap();
    assert_eq!(get_xattr(&bed.path("upper/f"), "user.overlay.protattr").as_deref(), Some(&b"a"[..]));
    bed.overlay.set_flags(bed.ino("f"), 0).unwrap();
    assert_eq!(get_xattr(&bed.path("upper/f"), "user.overlay.protattr"), None);
    bed.append("f", "y").unwrap();
}

#[test]
fn marks_made_by_another_overlay_count() {
    let bed = Bed::with(&["low=x"], |config| {
        build(config.upper.as_ref().unwrap(), "i=x i@user.overlay.protattr=i a=x a@user.overlay.protattr=a n=x");
    });
    assert_eq!(errno(bed.unlink("i")), Errno::PERM);
    assert_eq!(errno(bed.unlink("a")), Errno::PERM);
    bed.append("a", "y").unwrap();
    assert_eq!(errno(bed.append("i", "y")), Errno::PERM);
    bed.unlink("n").unwrap();
}

#[test]
fn other_flags_reach_the_upper() {
    let bed = Bed::new(&["f=x d/g=x"]);
    if !set_flags(&bed, "f", NOATIME) || !set_flags(&bed, "d", NOATIME) {
        return;
    }
    assert_eq!((plain(&bed, "f"), plain(&bed, "d")), (NOATIME, NOATIME));
    assert_eq!(get_xattr(&bed.path("upper/f"), "user.overlay.protattr"), None);
    let extended = bed.overlay.extended_flags(bed.ino("f")).unwrap();
    assert_ne!(extended.xflags & 0x40, 0, "FS_XFLAG_NOATIME");
    let bed = bed.check_lasting();
    assert_eq!(plain(&bed, "f"), NOATIME);
}

#[test]
fn extended_flags_and_plain_ones_are_two_views_of_the_same() {
    let bed = Bed::new(&["f=x"]);
    if !set_flags(&bed, "f", 0) {
        return;
    }
    let ino = bed.ino("f");
    let mut extended = bed.overlay.extended_flags(ino).unwrap();
    extended.xflags |= 0x08;
    bed.overlay.set_extended_flags(ino, extended).unwrap();
    assert_eq!(plain(&bed, "f"), IMMUTABLE);
    assert_eq!(errno(bed.unlink("f")), Errno::PERM);
    extended.xflags &= !0x08;
    bed.overlay.set_extended_flags(ino, extended).unwrap();
    assert_eq!(plain(&bed, "f"), 0);
}

#[test]
fn only_files_and_directories_have_flags() {
    let bed = Bed::new(&["l->x p|"]);
    for path in ["l", "p"] {
        assert_eq!(errno(bed.overlay.flags(bed.ino(path))), Errno::NOTTY, "{path}");
    }
}
