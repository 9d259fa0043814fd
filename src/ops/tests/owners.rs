//! Layers that keep owners, modes and types aside.

use std::fs;
use std::os::unix::fs::MetadataExt;

use rustix::fs::OFlags;

use crate::attr::Kind;
use crate::config::{Config, Key, Map};
use crate::error::Errno;
use crate::ops::SetAttr;
use crate::overlay::Caller;
use crate::sys::testing::root_or_skip;

use super::bed::{Bed, build, errno, get_xattr, us};
use super::view::text;

/// A layer as podman's library writes it with `force_mask`.
const KEPT: &str = "@user.containers.override_stat=0:0:0555:dir \
    f=data f@user.containers.override_stat=33:34:4711:file f%600 \
    d/ d@user.containers.override_stat=5:6:1777:dir d%700 \
    d/c= d/c@user.containers.override_stat=0:5:0620:char-4-64 \
    d/p= d/p@user.containers.override_stat=7:8:0640:pipe \
    d/own=x d/link->f";

fn keep(config: &mut Config) {
    config.keep_owners = Some(Key::Containers);
}

/// The attribute by which the upper keeps the owner of `path`.
fn kept(bed: &Bed, path: &str) -> String {
    text(&get_xattr(&bed.path("upper").join(path), "user.containers.override_stat").unwrap())
}

fn shown(bed: &Bed, path: &str) -> (u32, u32, u32, Kind) {
    let attr = bed.attr(path).unwrap();
    (attr.uid, attr.gid, attr.mode & 0o7777, attr.kind())
}

#[test]
fn owners_that_a_lower_layer_keeps_are_shown() {
    let bed = Bed::read_only(&[KEPT]);
    assert_eq!(shown(&bed, ""), (0, 0, 0o555, Kind::Dir));
    assert_eq!(shown(&bed, "f"), (33, 34, 0o4711, Kind::File));
    assert_eq!(shown(&bed, "d"), (5, 6, 0o1777, Kind::Dir));
    assert_eq!(shown(&bed, "d/c"), (0, 5, 0o620, Kind::Char));
    assert_eq!(bed.attr("d/c").unwrap().rdev, (4, 64));
    assert_eq!(shown(&bed, "d/p"), (7, 8, 0o640, Kind::Fifo));
    // What says nothing is as it is.
    assert_eq!(shown(&bed, "d/own"), (us().uid, us().gid, 0o644, Kind::File));
    assert_eq!(bed.readlink("d/link"), "f");
    assert_eq!(bed.read("f"), "data");
    assert_eq!(errno(bed.xattr("f", "user.containers.override_stat")), Errno::NODATA);
    let mut kinds = Vec::new();
    bed.overlay
        .read_dir(bed.ino("d"), 2, false, |entry| {
            kinds.push((text(entry.name), entry.kind));
            false
        })
        .unwrap();
    kinds.sort_by(|a, b| a.0.cmp(&b.0));
    let expected = [("c", Kind::Char), ("link", Kind::Symlink), ("own", Kind::File), ("p", Kind::Fifo)];
    assert_eq!(kinds, expected.map(|(name, kind)| (name.to_owned(), kind)));
}

#[test]
fn each_layer_says_itself_whether_it_keeps_owners() {
    let plain = "f=x f@user.containers.override_stat=33:34:0777:file g=x";
    let old = "@user.fuseoverlayfs.override_stat=0:0:40755 \
        old=x old@user.fuseoverlayfs.override_stat=1:2:100640 old@user.containers.override_stat=9:9:0:file";
    let bed = Bed::read_only(&[plain, old, KEPT]);
    assert_eq!(shown(&bed, "f"), (us().uid, us().gid, 0o644, Kind::File));
    assert_eq!(bed.xattr("f", "user.containers.override_stat").unwrap(), "33:34:0777:file");
    assert_eq!(shown(&bed, "old"), (1, 2, 0o640, Kind::File));
    assert_eq!(shown(&bed, "d"), (5, 6, 0o1777, Kind::Dir));
}

#[test]
fn owners_that_make_no_sense_are_errors_of_their_entry_only() {
    let words = "@user.containers.override_stat=0:0:0755:dir a=x b=x b@user.containers.override_stat=0:0:rwx \
        c=x c@user.containers.override_stat=0:0:0777:symlink d/ d@user.containers.override_stat=0:0:0666:char-1-3";
    let bed = Bed::read_only(&[words]);
    for name in ["b", "c", "d"] {
        assert_eq!(errno(bed.attr(name)), Errno::IO, "{name}");
    }
    assert_eq!(bed.list(""), ["a", "b", "c", "d"]);
    let error = {
        let dir = tempfile::tempdir().unwrap();
        build(dir.path(), "@user.containers.override_stat=nonsense");
        let config = Config { lowers: vec![dir.path().to_owned()], ..Config::default() };
        crate::overlay::Overlay::open(&config).unwrap_err()
    };
    assert_eq!(error.errno(), Errno::IO);
    assert!(error.to_string().contains("override_stat"), "{error}");
}

#[test]
fn what_is_written_keeps_its_owner_aside() {
    let bed = Bed::with(&[KEPT], keep);
    let caller = Caller { uid: 1234, gid: 2345, pid: 0 };
    let root = bed.ino("");
    let (file, opened) = bed.overlay.create(root, b"new", 0o4640, 0o022, OFlags::RDWR, caller).unwrap();
    assert_eq!((file.uid, file.gid, file.mode & 0o7777), (1234, 2345, 0o4640));
    bed.overlay.write(opened.file, 0, b"x", false, caller).unwrap();
    bed.overlay.release(opened.file).unwrap();
    bed.overlay.mkdir(root, b"dir", 0o1777, 0o022, caller).unwrap();
    bed.overlay.symlink(root, b"link", b"target", us()).unwrap();
    let dir = bed.ino("dir");
    for (name, kind, rdev) in [
        (&b"c"[..], libc::S_IFCHR, (1, 3)),
        (b"b", libc::S_IFBLK, (8, 1)),
        (b"p", libc::S_IFIFO, (0, 0)),
        (b"s", libc::S_IFSOCK, (0, 0)),
        (b"f", libc::S_IFREG, (0, 0)),
    ] {
        let made = bed.overlay.mknod(dir, name, kind | 0o660, 0, rdev, caller).unwrap();
        assert_eq!((made.mode, made.rdev, made.uid), (kind | 0o660, rdev, 1234));
    }
    for (path, value) in [
        ("new", "1234:2345:4640:file"),
        ("dir", "1234:2345:1755:dir"),
        ("dir/c", "1234:2345:0660:char-1-3"),
        ("dir/b", "1234:2345:0660:block-8-1"),
        ("dir/p", "1234:2345:0660:pipe"),
        ("dir/s", "1234:2345:0660:socket"),
        ("dir/f", "1234:2345:0660:file"),
    ] {
        assert_eq!(kept(&bed, path), value, "{path}");
        let meta = fs::symlink_metadata(bed.path("upper").join(path)).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (us().uid, us().gid), "{path}");
        assert!(meta.is_file() || meta.is_dir(), "{path}");
    }
    assert_eq!(fs::metadata(bed.path("upper/new")).unwrap().mode() & 0o7777, 0o640);
    bed.check_lasting();
}

#[test]
fn owners_and_modes_change_aside() {
    let bed = Bed::with(&[KEPT], keep);
    let chown = |path: &str, uid, gid| bed.setattr(path, SetAttr { uid, gid, ..SetAttr::default() }).unwrap();
    // Copied up as it is kept below; set-id bits fall with the change of owner.
    assert_eq!(chown("f", Some(70_000), None).mode & 0o7777, 0o711);
    assert_eq!(kept(&bed, "f"), "70000:34:0711:file");
    bed.chmod("f", 0o4600).unwrap();
    assert_eq!(kept(&bed, "f"), "70000:34:4600:file");
    chown("d/c", None, Some(9));
    assert_eq!((kept(&bed, "d"), kept(&bed, "d/c")), ("5:6:1777:dir".into(), "0:9:0620:char-4-64".into()));
    chown("d/own", Some(1), Some(2));
    assert_eq!(kept(&bed, "d/own"), "1:2:0644:file");
    // Others of the host do not read what nobody in the mount may read.
    bed.chmod("d/own", 0).unwrap();
    assert_eq!(fs::metadata(bed.path("upper/d/own")).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(shown(&bed, "d/own"), (1, 2, 0, Kind::File));
    chown("d/link", Some(us().uid), None);
    bed.rename("d", "e").unwrap();
    bed.unlink("e/p").unwrap();
    assert!(!bed.exists("e/p"));
    bed.mkdir("e/p").unwrap();
    assert_eq!(shown(&bed, "e/c"), (0, 9, 0o620, Kind::Char));
    bed.check_lasting();
}

#[test]
fn capabilities_are_kept_aside_and_fall_with_a_write() {
    let words = &format!("{KEPT} f@user.containers.override_security.capability=lower");
    let bed = Bed::with(&[words], keep);
    assert_eq!(bed.xattr("f", "security.capability").unwrap(), "lower");
    bed.chmod("f", 0o755).unwrap();
    assert_eq!(bed.xattr("f", "security.capability").unwrap(), "lower");
    let write = |path: &str| {
        let file = bed.open_file(path, OFlags::WRONLY).unwrap();
        bed.overlay.write(file, 0, b"x", false, us()).unwrap();
        bed.overlay.release(file).unwrap();
    };
    write("f");
    assert_eq!(errno(bed.xattr("f", "security.capability")), Errno::NODATA);
    bed.write("new", "x").unwrap();
    bed.set_xattr("new", "security.capability", "set").unwrap();
    assert_eq!(get_xattr(&bed.path("upper/new"), "security.capability"), None);
    let bed = bed.reopen();
    assert_eq!(bed.xattr("new", "security.capability").unwrap(), "set");
    let names = text(&bed.overlay.listxattr(bed.ino("new"), us()).unwrap());
    assert_eq!(names, r"security.capability\x00");
    bed.setattr("new", SetAttr { uid: Some(1), ..SetAttr::default() }).unwrap();
    assert_eq!(errno(bed.xattr("new", "security.capability")), Errno::NODATA);
    // What looks like an owner that is kept is none.
    bed.set_xattr("new", "user.containers.override_stat", "0:0:4755:file").unwrap();
    assert_eq!(bed.xattr("new", "user.containers.override_stat").unwrap(), "0:0:4755:file");
    assert_eq!(shown(&bed, "new").0, 1);
}

#[test]
fn acls_are_kept_aside_and_agree_with_the_mode() {
    const ACCESS: &[u8] = b"system.posix_acl_access";
    const DEFAULT: &[u8] = b"system.posix_acl_default";
    let acl = |entries: &[(u16, u16, u32)]| {
        let entries = entries.iter().flat_map(|(tag, perm, id)| {
            [tag.to_le_bytes(), perm.to_le_bytes()].concat().into_iter().chain(id.to_le_bytes())
        });
        2_u32.to_le_bytes().into_iter().chain(entries).collect::<Vec<u8>>()
    };
    const NOBODY: u32 = u32::MAX;
    let full = |user, mask, other| {
        acl(&[(1, user, NOBODY), (2, 6, 4711), (4, 4, NOBODY), (16, mask, NOBODY), (32, other, NOBODY)])
    };
    let bed = Bed::with(&[KEPT], keep);
    let file = bed.ino("f");
    bed.overlay.setxattr(file, ACCESS, &full(7, 6, 0), 0, us()).unwrap();
    assert_eq!(shown(&bed, "f").2 & 0o777, 0o760);
    assert_eq!(get_xattr(&bed.path("upper/f"), "system.posix_acl_access"), None);
    bed.chmod("f", 0o641).unwrap();
    assert_eq!(bed.overlay.getxattr(file, ACCESS).unwrap(), full(6, 4, 1));
    let minimal = acl(&[(1, 7, NOBODY), (4, 0, NOBODY), (32, 0, NOBODY)]);
    bed.overlay.setxattr(file, ACCESS, &minimal, 0, us()).unwrap();
    assert_eq!((shown(&bed, "f").2, errno(bed.overlay.getxattr(file, ACCESS))), (0o700, Errno::NODATA));
    assert_eq!(errno(bed.overlay.setxattr(file, ACCESS, b"nonsense", 0, us())), Errno::INVAL);
    // New files inherit, and copies keep.
    bed.overlay.setxattr(bed.ino("d"), DEFAULT, &full(7, 7, 5), 0, us()).unwrap();
    bed.write("d/new", "x").unwrap();
    assert_eq!(bed.overlay.getxattr(bed.ino("d/new"), ACCESS).unwrap(), full(6, 4, 4));
    assert_eq!(shown(&bed, "d/new").2, 0o644);
    let bed = bed.check_lasting();
    assert_eq!(bed.overlay.getxattr(bed.ino("d"), DEFAULT).unwrap(), full(7, 7, 5));
}

/// Shifts owners as a container engine does: root of the layers is 100000.
fn shift(config: &mut Config) {
    config.uid_map = Map::parse(b":0:100000:1000:1000:500000:5").unwrap();
    config.gid_map = Map::parse(b"0:200000:1000").unwrap();
}

#[test]
fn mapped_owners_are_shown_and_stored() {
    let caller = Caller { uid: 100_033, gid: 200_034, pid: 0 };
    let words = &format!("{KEPT} g= g@user.containers.override_stat=1002:1000:0644:file");
    let bed = Bed::with(&[words], |config| {
        keep(config);
        shift(config);
    });
    assert_eq!(shown(&bed, "f"), (100_033, 200_034, 0o4711, Kind::File));
    // The second range, and a group that is not mapped.
    assert_eq!(shown(&bed, "g"), (500_002, 65_534, 0o644, Kind::File));
    let root = bed.ino("");
    let (file, opened) = bed.overlay.create(root, b"new", 0o644, 0, OFlags::RDWR, caller).unwrap();
    bed.overlay.release(opened.file).unwrap();
    assert_eq!((file.uid, file.gid, kept(&bed, "new").as_str()), (100_033, 200_034, "33:34:0644:file"));
    let mut listed = 0;
    bed.overlay
        .read_dir(root, 2, true, |entry| {
            let attr = entry.attr.unwrap();
            assert!(attr.uid >= 100_000 || entry.name == b"d/own", "{}", text(entry.name));
            bed.overlay.forget(entry.ino, 1);
            listed += 1;
            false
        })
        .unwrap();
    assert_eq!(listed, 4);
    let chown = |uid, gid| bed.setattr("f", SetAttr { uid, gid, ..SetAttr::default() });
    assert_eq!(chown(Some(100_001), Some(200_002)).unwrap().uid, 100_001);
    assert_eq!(kept(&bed, "f"), "1:2:0711:file");
    // Copied up as it is stored.
    bed.chmod("g", 0o600).unwrap();
    assert_eq!(kept(&bed, "g"), "1002:1000:0600:file");
    bed.check_lasting();
}

#[test]
fn who_is_not_mapped_is_given_nothing_and_makes_what_is_nobodys() {
    let bed = Bed::with(&[KEPT], |config| {
        keep(config);
        shift(config);
    });
    for (uid, gid) in [(Some(1), None), (Some(99_999), None), (Some(65_534), None), (None, Some(201_000))] {
        assert_eq!(errno(bed.setattr("f", SetAttr { uid, gid, ..SetAttr::default() })), Errno::INVAL);
    }
    assert_eq!(bed.upper(), [""; 0], "nothing is copied up for that");
    for (name, uid, gid, stored) in [("one", 0, 200_000, "65534:0:0755:dir"), ("two", 100_000, 0, "0:65534:0755:dir")] {
        let caller = Caller { uid, gid, pid: 0 };
        bed.overlay.mkdir(bed.ino(""), name.as_bytes(), 0o755, 0, caller).unwrap();
        assert_eq!(kept(&bed, name), stored);
    }
    let opened = bed.overlay.open_file(bed.ino("f"), OFlags::RDONLY, Caller { uid: 0, gid: 0, pid: 0 }).unwrap();
    bed.overlay.release(opened.file).unwrap();
}

#[test]
fn mapped_owners_are_those_of_the_files() {
    if !root_or_skip("files of other users") {
        return;
    }
    let caller = Caller { uid: 100_033, gid: 200_034, pid: 0 };
    let bed = Bed::with(&["d/f=x"], shift);
    assert_eq!(shown(&bed, "d/f").0, 100_000);
    let dir = bed.ino("d");
    bed.overlay.mkdir(dir, b"new", 0o2755, 0, caller).unwrap();
    bed.overlay.symlink(dir, b"link", b"t", caller).unwrap();
    // Over a whiteout it comes by another way.
    bed.unlink("d/f").unwrap();
    bed.overlay.mknod(dir, b"f", libc::S_IFREG | 0o644, 0, (0, 0), caller).unwrap();
    for name in ["new", "link", "f"] {
        let meta = fs::symlink_metadata(bed.path("upper/d").join(name)).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (33, 34), "{name}");
    }
    bed.overlay
        .setattr(bed.ino("d/link"), &SetAttr { uid: Some(100_005), ..SetAttr::default() }, None, caller)
        .unwrap();
    assert_eq!(fs::symlink_metadata(bed.path("upper/d/link")).unwrap().uid(), 5);
}
