//! Extended attributes.

use super::Bed;
use super::bed::{errno, get_xattr, us};
use crate::at::split_names;
use crate::error::Errno;

const CREATE: u32 = 1;
const REPLACE: u32 = 2;

fn names(bed: &Bed, path: &str) -> Vec<String> {
    let list = bed.overlay.listxattr(bed.ino(path), us()).unwrap();
    let mut names: Vec<String> = split_names(&list).map(super::view::text).collect();
    names.sort();
    names
}

#[test]
fn attributes_of_both_layers_are_read_set_and_removed() {
    let bed = Bed::new(&["d/f=x d/f@user.one=1 d@user.dir=yes"]);
    assert_eq!((bed.xattr("d/f", "user.one").unwrap(), names(&bed, "d/f")), ("1".into(), vec!["user.one".into()]));
    assert_eq!(bed.xattr("d", "user.dir").unwrap(), "yes");
    assert_eq!(bed.upper(), Vec::<String>::new());
    bed.set_xattr("d/f", "user.two", "2").unwrap();
    bed.set_xattr("d/f", "user.one", "new").unwrap();
    bed.set_xattr("", "user.root", "r").unwrap();
    assert_eq!(names(&bed, "d/f"), ["user.one", "user.two"]);
    bed.overlay.removexattr(bed.ino("d/f"), b"user.two", us()).unwrap();
    assert_eq!(names(&bed, "d/f"), ["user.one"]);
    assert_eq!(names(&bed, ""), ["user.root"]);
    let bed = bed.check_lasting();
    assert_eq!(bed.xattr("d/f", "user.one").unwrap(), "new");
}

#[test]
fn removal_of_a_missing_attribute_copies_nothing_up_and_flags_of_setxattr_count_after_copy_up() {
    let bed = Bed::new(&["f=x f@user.one=1"]);
    let set = |name: &[u8], flags| bed.overlay.setxattr(bed.ino("f"), name, b"v", flags, us());
    for name in [&b"user.no"[..], b"system.posix_acl_access"] {
        assert_eq!(errno(bed.overlay.removexattr(bed.ino("f"), name, us())), Errno::NODATA);
    }
    assert_eq!(bed.upper(), Vec::<String>::new());
    // As the kernel's overlayfs, which copies up first.
    assert_eq!(errno(set(b"user.no", REPLACE)), Errno::NODATA);
    assert_eq!(bed.upper(), ["f 644 x"]);
    bed.overlay.removexattr(bed.ino("f"), b"system.posix_acl_access", us()).unwrap();
    assert_eq!(errno(set(b"user.one", CREATE)), Errno::EXIST);
    set(b"user.new", CREATE).unwrap();
    set(b"user.one", REPLACE).unwrap();
    assert_eq!(bed.xattr("f", "user.one").unwrap(), "v");
}

#[test]
fn the_overlays_own_marks_are_not_shown_and_not_reached() {
    let bed = Bed::new(&["d/f=x d/s/g=x"]);
    bed.chmod("d/f", 0o600).unwrap();
    bed.rename("d/s", "s").unwrap();
    assert!(get_xattr(&bed.path("upper/s"), "user.overlay.redirect").is_some());
    for path in ["", "d", "d/f", "s"] {
        assert_eq!(names(&bed, path), Vec::<String>::new(), "{path}");
        for mark in ["origin", "impure", "redirect", "opaque", "whiteout"] {
            let name = format!("user.overlay.{mark}");
            assert_eq!(errno(bed.xattr(path, &name)), Errno::NODATA, "{path} {mark}");
            assert_eq!(errno(bed.overlay.removexattr(bed.ino(path), name.as_bytes(), us())), Errno::NODATA);
        }
    }
    bed.check_lasting();
}

#[test]
fn attributes_that_look_like_marks_are_escaped() {
    let bed = Bed::new(&["d/a=1", "d/b=2"]);
    bed.set_xattr("d", "user.overlay.opaque", "y").unwrap();
    bed.set_xattr("d", "user.overlay.overlay.opaque", "nested").unwrap();
    assert_eq!(bed.list("d"), ["a", "b"]);
    assert_eq!(names(&bed, "d"), ["user.overlay.opaque", "user.overlay.overlay.opaque"]);
    assert_eq!(get_xattr(&bed.path("upper/d"), "user.overlay.overlay.opaque").as_deref(), Some(&b"y"[..]));
    let bed = bed.check_lasting();
    assert_eq!(bed.list("d"), ["a", "b"]);
    assert_eq!(bed.xattr("d", "user.overlay.opaque").unwrap(), "y");
    bed.overlay.removexattr(bed.ino("d"), b"user.overlay.opaque", us()).unwrap();
    assert_eq!(names(&bed, "d"), ["user.overlay.overlay.opaque"]);
}

#[test]
fn escaped_attributes_of_a_lower_layer_are_shown_and_taken_along() {
    let bed = Bed::new(&["f=x f@user.overlay.overlay.opaque=y f@user.plain=1"]);
    assert_eq!(names(&bed, "f"), ["user.overlay.opaque", "user.plain"]);
    bed.append("f", "+").unwrap();
    assert_eq!(names(&bed, "f"), ["user.overlay.opaque", "user.plain"], "after copy-up");
    assert_eq!(bed.xattr("f", "user.overlay.opaque").unwrap(), "y");
    bed.check_lasting();
}

#[test]
fn large_and_many_attributes_are_read_and_copied_up() {
    let large = "v".repeat(3000);
    let bed = Bed::new(&["f=x g=x"]);
    bed.set_xattr("f", "user.large", &large).unwrap();
    assert_eq!(bed.xattr("f", "user.large").unwrap(), large);
    for n in 0..30 {
        bed.set_xattr("g", &format!("user.attribute-with-a-long-name-{n}"), "v").unwrap();
    }
    assert_eq!(names(&bed, "g").len(), 30);
    bed.check_lasting();
}

#[test]
fn acls_are_refused_where_they_are_turned_off() {
    let bed = Bed::with(&["f=x"], |config| config.acl = false);
    let ino = bed.ino("f");
    for name in [&b"system.posix_acl_access"[..], b"system.posix_acl_default"] {
        assert_eq!(errno(bed.overlay.getxattr(ino, name)), Errno::OPNOTSUPP);
        assert_eq!(errno(bed.overlay.setxattr(ino, name, b"", 0, us())), Errno::OPNOTSUPP);
        assert_eq!(errno(bed.overlay.removexattr(ino, name, us())), Errno::OPNOTSUPP);
    }
    assert!(!bed.overlay.has_acls());
}

#[test]
fn attributes_of_unknown_prefixes_are_refused() {
    let bed = Bed::new(&["f=x"]);
    for name in ["nonsense", "nonsense.x", ".x"] {
        assert!(bed.set_xattr("f", name, "v").is_err(), "{name}");
        assert!(bed.xattr("f", name).is_err(), "{name}");
    }
}
