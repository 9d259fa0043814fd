//! The format, and what it makes of attributes.

use super::*;
use crate::attr::Time;

fn attr(mode: u32) -> Attr {
    Attr {
        ino: 7,
        dev: 1,
        mode,
        nlink: 1,
        uid: 1000,
        gid: 1001,
        rdev: (0, 0),
        size: 3,
        blocks: 8,
        blksize: 4096,
        atime: Time::default(),
        mtime: Time::default(),
        ctime: Time::default(),
        immutable: false,
        append_only: false,
        is_volatile: false,
    }
}

#[test]
fn values_of_every_writer_are_read() {
    let kept = |uid, gid, mode, kind| Some(Kept { uid, gid, mode, kind });
    for (value, expected) in [
        // As containers/storage and fuse-overlayfs from 1.15 on write them.
        (&b"1000:1001:0644:file"[..], kept(1000, 1001, 0o644, Some((Kind::File, (0, 0))))),
        (b"0:0:0755:dir", kept(0, 0, 0o755, Some((Kind::Dir, (0, 0))))),
        (b"0:0:0777:symlink", kept(0, 0, 0o777, Some((Kind::Symlink, (0, 0))))),
        (b"1:2:0666:pipe", kept(1, 2, 0o666, Some((Kind::Fifo, (0, 0))))),
        (b"1:2:0700:socket", kept(1, 2, 0o700, Some((Kind::Socket, (0, 0))))),
        (b"0:6:0660:block-8-17", kept(0, 6, 0o660, Some((Kind::Block, (8, 17))))),
        (b"0:5:0620:char-136-4294967295", kept(0, 5, 0o620, Some((Kind::Char, (136, u32::MAX))))),
        (b"33:34:4755:file", kept(33, 34, 0o4755, Some((Kind::File, (0, 0))))),
        // As fuse-overlayfs wrote them before, with the type in the mode.
        (b"0:43:100664", kept(0, 43, 0o664, None)),
        (b"0:0:40755", kept(0, 0, 0o755, None)),
        (b"4294967294:0:0", kept(u32::MAX - 1, 0, 0, None)),
        (b"1:2:7:file:more", kept(1, 2, 0o7, Some((Kind::File, (0, 0))))),
    ] {
        assert_eq!(Kept::parse(value), expected, "{}", value.escape_ascii());
    }
}

#[test]
fn values_that_make_no_sense_are_none() {
    for value in [
        &b""[..],
        b"1",
        b"1:2",
        b"1:2:",
        b":2:7",
        b"1:2:9",
        b"-1:2:7",
        b"+1:2:7",
        b"4294967295:0:7",
        b"4294967296:0:7",
        b"1:2:+7",
        b"1:2:777777777777",
        b" 1:2:7",
        b"1:2:7\n",
        b"1:2:7\0",
        b"1:2:7:",
        b"1:2:7:File",
        b"1:2:7:char",
        b"1:2:7:char-1",
        b"1:2:7:char-1-",
        b"1:2:7:char-1-2-3",
        b"1:2:7:char--1-2",
        b"1:2:7:block-4294967296-1",
        b"1:2:7:tape-1-2",
        b"\xff",
    ] {
        assert_eq!(Kept::parse(value), None, "{}", value.escape_ascii());
    }
}

#[test]
fn what_is_written_is_read_again() {
    for kind in [Kind::File, Kind::Dir, Kind::Symlink, Kind::Fifo, Kind::Socket, Kind::Char, Kind::Block] {
        let rdev = if matches!(kind, Kind::Char | Kind::Block) { (10, 229) } else { (0, 0) };
        let kept = Kept { uid: 100_000, gid: 7, mode: 0o1741, kind: Some((kind, rdev)) };
        assert_eq!(Kept::parse(kept.format().as_bytes()), Some(kept));
    }
    let plain = Kept { uid: 0, gid: 0, mode: 0o44, kind: Some((Kind::File, (0, 0))) };
    assert_eq!(plain.format(), "0:0:0044:file");
}

#[test]
fn only_a_plain_file_stands_for_other_types() {
    let apply = |value: &str, mode| Kept::parse(value.as_bytes()).unwrap().apply(attr(mode));
    let shown = apply("5:6:4711:file", libc::S_IFREG | 0o600).unwrap();
    assert_eq!((shown.uid, shown.gid, shown.mode, shown.size), (5, 6, libc::S_IFREG | 0o4711, 3));
    let device = apply("5:6:620:char-4-64", libc::S_IFREG | 0o600).unwrap();
    assert_eq!((device.kind(), device.rdev, device.mode & 0o7777), (Kind::Char, (4, 64), 0o620));
    assert_eq!(apply("5:6:755", libc::S_IFDIR | 0o700).unwrap().mode, libc::S_IFDIR | 0o755);
    for (value, mode) in [
        ("0:0:755:dir", libc::S_IFREG),
        ("0:0:755:symlink", libc::S_IFREG),
        ("0:0:755:file", libc::S_IFDIR),
        ("0:0:755:char-1-3", libc::S_IFDIR),
        ("0:0:755:pipe", libc::S_IFSOCK),
    ] {
        assert_eq!(apply(value, mode | 0o700), None, "{value}");
    }
}

#[test]
fn the_root_says_by_which_attribute_owners_are_kept() {
    let key = |names: &[&str]| Key::of_root(names.iter().map(|name| name.as_bytes()));
    assert_eq!(key(&["user.x", "user.overlay.opaque"]), None);
    assert_eq!(key(&["user.fuseoverlayfs.override_stat"]), Some(Key::FuseOverlayfs));
    assert_eq!(key(&["user.fuseoverlayfs.override_stat", "user.containers.override_stat"]), Some(Key::Containers));
    assert_eq!(key(&["user.containers.override_stat", "security.fuseoverlayfs.override_stat"]), Some(Key::Security));
}

#[test]
fn what_is_kept_aside_is_shown_under_its_own_name() {
    for (key, name, stored) in [
        (Key::Containers, "user.x", "user.x"),
        (Key::Containers, "security.capability", "user.containers.override_security.capability"),
        (Key::FuseOverlayfs, "security.capability", "security.capability"),
        (Key::FuseOverlayfs, "system.posix_acl_access", "user.containers.override_system.posix_acl_access"),
        (Key::Containers, "user.containers.override_stat", "user.containers.override_user.containers.override_stat"),
        (
            Key::FuseOverlayfs,
            "user.fuseoverlayfs.override_stat",
            "user.containers.override_user.fuseoverlayfs.override_stat",
        ),
    ] {
        assert_eq!(&*key.stored(name.as_bytes()), stored.as_bytes());
        assert_eq!(key.shown(stored.as_bytes()), Some(name.as_bytes()));
    }
    assert_eq!(Key::Containers.shown(b"user.containers.override_stat"), None);
    assert_eq!(Key::Containers.shown(b"security.selinux"), None);
    assert_eq!(Key::Containers.shown(b"user.containers.override_user.x"), None);
    assert_eq!(Key::Security.shown(b"security.fuseoverlayfs.override_stat"), None);
    assert_eq!(Key::Security.shown(b"security.selinux"), Some(&b"security.selinux"[..]));
}

#[test]
fn set_id_bits_fall_with_a_change_of_owner() {
    for (mode, expected) in [(0o6755, 0o755), (0o6745, 0o2745), (0o1777, 0o1777), (0o2010, 0o10)] {
        let mut kept = Kept { uid: 0, gid: 0, mode, kind: None };
        kept.drop_setid();
        assert_eq!(kept.mode, expected, "{mode:o}");
    }
    assert_eq!((real_mode(0o4000, false), real_mode(0o555, true), real_mode(0o6777, false)), (0o600, 0o755, 0o777));
}
