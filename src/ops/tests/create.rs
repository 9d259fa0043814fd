//! Making things.

use std::fs;
use std::os::unix::fs::MetadataExt;

use rustix::fs::OFlags;

use super::Bed;
use super::bed::{errno, get_xattr, set_xattr, us};
use crate::attr::Kind;
use crate::error::Errno;
use crate::inode::numbers::ROOT;
use crate::overlay::Caller;
use crate::sys::testing::root_or_skip;

#[test]
fn every_type_is_made_and_lasts() {
    let bed = Bed::new(&["d/f=x"]);
    bed.write("d/file", "content").unwrap();
    bed.mkdir("d/dir").unwrap();
    bed.symlink("d/link", "to/no where").unwrap();
    bed.mknod("d/fifo", libc::S_IFIFO | 0o640, (0, 0)).unwrap();
    bed.mknod("d/socket", libc::S_IFSOCK | 0o640, (0, 0)).unwrap();
    bed.mknod("d/plain", libc::S_IFREG | 0o640, (0, 0)).unwrap();
    let bed = bed.check_lasting();
    let kinds = ["file", "dir", "link", "fifo", "socket", "plain"].map(|n| bed.attr(&format!("d/{n}")).unwrap().kind());
    assert_eq!(kinds, [Kind::File, Kind::Dir, Kind::Symlink, Kind::Fifo, Kind::Socket, Kind::File]);
    assert_eq!((bed.readlink("d/link"), bed.read("d/file")), ("to/no where".into(), "content".into()));
}

#[test]
fn device_nodes_are_made_but_no_whiteouts() {
    let bed = Bed::new(&[""]);
    assert_eq!(errno(bed.mknod("w", libc::S_IFCHR | 0o600, (0, 0))), Errno::PERM);
    if root_or_skip("device nodes") {
        let attr = bed.mknod("null", libc::S_IFCHR | 0o666, (1, 3)).unwrap();
        assert_eq!((attr.kind(), attr.rdev), (Kind::Char, (1, 3)));
        bed.mknod("block", libc::S_IFBLK | 0o600, (7, 99)).unwrap();
        bed.check_lasting();
    }
}

#[test]
fn a_node_of_no_type_is_a_file_and_of_a_wrong_one_refused() {
    let bed = Bed::new(&[""]);
    assert_eq!(bed.mknod("a", 0o600, (0, 0)).unwrap().kind(), Kind::File);
    for kind in [libc::S_IFDIR, libc::S_IFLNK] {
        assert_eq!(errno(bed.mknod("b", kind | 0o600, (0, 0))), Errno::INVAL);
    }
}

#[test]
fn the_umask_and_the_mode_apply_over_a_whiteout_too() {
    for lower in ["x=", "f=x d/"] {
        let bed = Bed::new(&[lower]);
        if bed.exists("f") {
            bed.unlink("f").unwrap();
            bed.rmdir("d").unwrap();
        }
        let (file, handle) = bed.overlay.create(ROOT, b"f", 0o6666, 0o027, OFlags::WRONLY, us()).unwrap();
        let handle = handle.file;
        bed.overlay.release(handle).unwrap();
        let dir = bed.overlay.mkdir(ROOT, b"d", 0o1777, 0o027, us()).unwrap();
        assert_eq!((file.mode & 0o7777, dir.mode & 0o7777), (0o6640, 0o1750), "{lower}");
        assert_eq!(bed.attr("d").unwrap().mode, dir.mode);
    }
}

#[test]
fn a_set_group_id_directory_hands_its_group_and_bit_down_over_a_whiteout_too() {
    for lower in ["d/", "d/f=x d/sub/"] {
        let bed = Bed::new(&[lower]);
        bed.chmod("d", 0o2775).unwrap();
        if bed.exists("d/f") {
            bed.unlink("d/f").unwrap();
            bed.rmdir("d/sub").unwrap();
        }
        bed.write("d/f", "x").unwrap();
        let sub = bed.mkdir("d/sub").unwrap();
        assert_eq!(sub.mode & 0o7777, 0o2755, "{lower}");
        assert_eq!(bed.attr("d/f").unwrap().mode & 0o7777, 0o644);
        assert_eq!(bed.attr("d/f").unwrap().gid, bed.attr("d").unwrap().gid);
    }
}

#[test]
fn new_objects_belong_to_who_made_them() {
    let bed = Bed::new(&["over=x"]);
    let stranger = Caller { uid: 12345, gid: 23456, pid: 0 };
    if !root_or_skip("files of other users") {
        assert_eq!(errno(bed.overlay.mkdir(ROOT, b"d", 0o755, 0, stranger)), Errno::PERM);
        return;
    }
    bed.unlink("over").unwrap();
    for name in [&b"new"[..], b"over"] {
        let (attr, file) = bed.overlay.create(ROOT, name, 0o600, 0, OFlags::RDWR, stranger).unwrap();
        let file = file.file;
        bed.overlay.release(file).unwrap();
        assert_eq!((attr.uid, attr.gid), (12345, 23456));
    }
    assert_eq!(bed.mkdir("ours").unwrap().uid, 0);
    // What is copied up belongs to whom it belonged.
    assert_eq!(fs::metadata(bed.path("upper/new")).unwrap().uid(), 12345);
}

#[test]
fn a_default_acl_is_inherited_over_a_whiteout_too() {
    let entries: [(u16, u16, u32); 5] =
        [(1, 7, u32::MAX), (2, 7, 12345), (4, 5, u32::MAX), (16, 7, u32::MAX), (32, 0, u32::MAX)];
    let mut acl = 2_u32.to_le_bytes().to_vec();
    for (tag, perm, id) in entries {
        acl.extend([&tag.to_le_bytes()[..], &perm.to_le_bytes(), &id.to_le_bytes()].concat());
    }
    let bed = Bed::with(&["d/over=x d/overdir/"], |config| {
        set_xattr(&config.lowers[0].join("d"), "system.posix_acl_default", &acl);
    });
    bed.unlink("d/over").unwrap();
    bed.rmdir("d/overdir").unwrap();
    let dir = bed.ino("d");
    let mut seen = Vec::new();
    for name in [&b"new"[..], b"over"] {
        let (attr, file) = bed.overlay.create(dir, name, 0o660, 0o077, OFlags::RDWR, us()).unwrap();
        let file = file.file;
        bed.overlay.release(file).unwrap();
        let access = bed.overlay.getxattr(attr.ino, b"system.posix_acl_access").unwrap();
        seen.push((attr.mode, access));
    }
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[0].0 & 0o777, 0o660);
    let made: Vec<Vec<u8>> = [&b"newdir"[..], b"overdir"]
        .iter()
        .map(|name| {
            let attr = bed.overlay.mkdir(dir, name, 0o777, 0o077, us()).unwrap();
            bed.overlay.getxattr(attr.ino, b"system.posix_acl_default").unwrap()
        })
        .collect();
    assert_eq!(made, [acl.clone(), acl]);
}

#[test]
fn a_handle_of_a_new_file_reads_and_writes_as_it_was_opened() {
    let bed = Bed::new(&[""]);
    let (_, write_only) = bed.create("w", OFlags::WRONLY).unwrap();
    bed.overlay.write(write_only, 0, b"abc", true, us()).unwrap();
    assert_eq!(errno(bed.overlay.read(write_only, 0, &mut [0; 4])), Errno::BADF);
    let (_, both) = bed.create("rw", OFlags::RDWR).unwrap();
    bed.overlay.write(both, 0, b"abc", true, us()).unwrap();
    assert_eq!(bed.read_open(both), "abc");
    bed.overlay.release(write_only).unwrap();
    bed.overlay.release(both).unwrap();
    assert_eq!(errno(bed.overlay.read(both, 0, &mut [0; 4])), Errno::BADF);
}

#[test]
fn making_something_moves_the_times_of_its_directory() {
    let bed = Bed::new(&["d/f=x"]);
    let before = bed.attr("d").unwrap().mtime;
    bed.write("d/new", "").unwrap();
    let after = bed.attr("d").unwrap().mtime;
    assert!(after > before, "{before:?} {after:?}");
}

#[test]
fn directories_made_in_a_merged_one_are_opaque_and_those_in_a_new_one_need_not_be() {
    let bed = Bed::new(&["d/f=x"]);
    bed.mkdir("d/in").unwrap();
    bed.mkdir("d/in/deeper").unwrap();
    assert_eq!(get_xattr(&bed.path("upper/d/in"), "user.overlay.opaque").as_deref(), Some(&b"y"[..]));
    assert_eq!(get_xattr(&bed.path("upper/d/in/deeper"), "user.overlay.opaque"), None);
    bed.check_lasting();
}
