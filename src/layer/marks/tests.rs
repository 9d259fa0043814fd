//! Marks on real files, and as bytes.

use std::fs::{self, File};
use std::os::fd::AsFd;

use super::*;

#[test]
fn attributes_that_look_like_marks_are_escaped_and_marks_are_hidden() {
    for (dialect, given, stored) in [
        (Dialect::Trusted, "trusted.overlay.opaque", "trusted.overlay.overlay.opaque"),
        (Dialect::Trusted, "trusted.overlay.overlay.opaque", "trusted.overlay.overlay.overlay.opaque"),
        (Dialect::Trusted, "trusted.other", "trusted.other"),
        (Dialect::Trusted, "user.overlay.opaque", "user.overlay.opaque"),
        (Dialect::User, "user.overlay.x", "user.overlay.overlay.x"),
        (Dialect::User, "trusted.overlay.x", "trusted.overlay.x"),
    ] {
        assert_eq!(dialect.escape(given.as_bytes()), stored.as_bytes());
        assert_eq!(dialect.unescape(stored.as_bytes()).as_deref(), Some(given.as_bytes()));
    }
    assert!(Dialect::Trusted.is_private(b"trusted.overlay.opaque"));
    assert!(!Dialect::Trusted.is_private(b"trusted.overlay.overlay.opaque"));
    assert!(!Dialect::User.is_private(b"trusted.overlay.opaque"));
    assert_eq!(Dialect::Trusted.unescape(b"trusted.overlay.origin"), None);
}

#[test]
fn redirects_that_climb_or_are_no_names_are_refused() {
    let name = |text: &str| Name::new(text.as_bytes()).unwrap();
    assert_eq!(Redirect::parse(b"a"), Ok(Redirect::Name(name("a"))));
    assert_eq!(Redirect::parse(b"/a/b"), Ok(Redirect::Path(vec![name("a"), name("b")])));
    for bad in [&b""[..], b"/", b"//a", b"/a//b", b"/a/", b"a/b", b"..", b"/..", b"/a/../b", b".", b"/a/.", b"/a\0b"] {
        assert_eq!(Redirect::parse(bad), Err(Errno::INVAL), "{}", bad.escape_ascii());
    }
}

#[test]
fn opaque_counts_in_every_dialect_below_and_in_our_own_above() {
    let dir = tempfile::tempdir().unwrap();
    let fd = File::open(dir.path()).unwrap();
    for (index, (xattr, value, lower, upper)) in [
        ("user.overlay.opaque", "y", Opaque::Yes, Opaque::Yes),
        ("user.overlay.opaque", "x", Opaque::XattrWhiteouts, Opaque::XattrWhiteouts),
        ("user.overlay.opaque", "n", Opaque::No, Opaque::No),
        ("user.fuseoverlayfs.opaque", "y", Opaque::Yes, Opaque::No),
        ("user.other.opaque", "y", Opaque::No, Opaque::No),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("d{index}");
        fs::create_dir(dir.path().join(&name)).unwrap();
        let dir_fd = fd.as_fd();
        let at = At::new(&dir_fd, name.as_bytes());
        at.set_xattr(xattr.as_bytes(), value.as_bytes(), XattrFlags::empty()).unwrap();
        assert_eq!(Marks::of_lower(at, Dialect::User).unwrap().opaque, lower, "{xattr}={value} in a lower");
        assert_eq!(Marks::of_upper(at, Dialect::User).unwrap().opaque, upper, "{xattr}={value} in the upper");
    }
}

#[test]
fn protected_attributes_are_letters() {
    let mut marks = Marks::default();
    marks.take(Mark::ProtAttr, b"ai".to_vec());
    assert!(marks.immutable && marks.append_only);
}

#[test]
fn xattr_whiteouts_are_known_in_every_dialect() {
    let dir = tempfile::tempdir().unwrap();
    let fd = File::open(dir.path()).unwrap();
    for (name, xattr, expected) in [
        ("kernel", "user.overlay.whiteout", true),
        ("fuse", "user.fuseoverlayfs.whiteout", true),
        ("plain", "user.whiteout", false),
    ] {
        fs::write(dir.path().join(name), "").unwrap();
        let at = At::new(&fd, name.as_bytes());
        at.set_xattr(xattr.as_bytes(), b"y", XattrFlags::empty()).unwrap();
        assert_eq!(is_xattr_whiteout(at), Ok(expected), "{xattr}");
    }
}

#[test]
fn link_counts_are_relative_to_a_layer() {
    for (mark, upper, lower, expected) in [
        (Some("U+0"), 3, None, 3),
        (Some("U-1"), 3, None, 2),
        (Some("U+2"), 1, Some(9), 3),
        (Some("L+0"), 1, Some(4), 4),
        (Some("L-1"), 1, Some(4), 3),
        (Some("L+0"), 3, None, 2),
        (Some("U-9"), 3, None, 2),
        (Some("X+1"), 3, None, 2),
        (Some(""), 2, None, 1),
        (None, 1, None, 1),
    ] {
        assert_eq!(link_count(mark.map(str::as_bytes), upper, lower), expected, "{mark:?}");
    }
}
