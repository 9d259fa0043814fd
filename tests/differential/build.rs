//! Building the layers of a case.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Uid, XattrFlags};

use super::case::Entry;
use super::common::{Form, Layer, xattrs};

/// Time of last change of all that layers hold.
const OLD: (i64, i64) = (1_000_000, 7);

/// Makes an entry of a layer; what is in its way stays.
pub fn build(layer: &Layer, Entry { kind, path, target, mode, size }: &Entry, form: Form) {
    let path = &path.path();
    let full = layer.path(path);
    if fs::create_dir_all(full.parent().unwrap()).is_err() {
        return;
    }
    let is_there = fs::symlink_metadata(&full).is_ok();
    let is_dir = full.is_dir() && !full.is_symlink();
    let is_whiteout = super::shown::is_whiteout(&full);
    let node = |kind| {
        let rdev = if matches!(kind, FileType::CharacterDevice | FileType::BlockDevice) {
            rustix::fs::makedev(1, 3)
        } else {
            0
        };
        rustix::fs::mknodat(CWD, &full, kind, Mode::from_raw_mode(0o644), rdev).unwrap();
    };
    match kind.as_str() {
        // One that holds xattr whiteouts cannot be opaque as well.
        "opaque" if is_dir && xattrs(&full).iter().all(|(name, _)| !name.ends_with(".overlay.opaque")) => {
            layer.opaque(path, form);
        }
        "xattr" if is_there && !is_whiteout => {
            let name = if target.0.is_empty() { "user.x".to_owned() } else { target.to_string() };
            // Symlinks and nodes take no attributes of users, and small filesystems not too many.
            let value = vec![b'1'; 1 + size % 400];
            let _ = rustix::fs::lsetxattr(&full, &name, &value, XattrFlags::empty());
        }
        "acl" if is_there && !is_whiteout && !full.is_symlink() => set_acl(&full, "system.posix_acl_access", *size),
        "default-acl" if is_dir => set_acl(&full, "system.posix_acl_default", *size),
        "capability" if full.is_file() && !full.is_symlink() => {
            layer.xattr(path, CAPABILITY.0, CAPABILITY.1);
        }
        _ if is_there => return,
        "dir" => {
            layer.dir(path);
        }
        "file" => drop(layer.file(path, vec![b'x'; *size])),
        // Mostly hole: some data at the beginning and the end of a few MiB.
        "sparse" => {
            let file = fs::File::create(&full).unwrap();
            file.write_all_at(b"begin", 0).unwrap();
            file.write_all_at(b"end", (*size as u64) << 10).unwrap();
        }
        "symlink" => {
            layer.symlink(path, target.path());
        }
        "fifo" => node(FileType::Fifo),
        "socket" => node(FileType::Socket),
        "device" => node(FileType::CharacterDevice),
        "block" => node(FileType::BlockDevice),
        "whiteout" => {
            layer.whiteout(path, Form::Device);
            return;
        }
        "xattr-whiteout" => {
            layer.whiteout(path, form);
            return;
        }
        "link" if may_be_linked(&layer.path(target.path())) => {
            layer.hard_link(path, target.path());
        }
        _ => {}
    }
    if !is_there && fs::symlink_metadata(&full).is_ok() && kind != "link" {
        let (uid, gid) = owner(*size);
        rustix::fs::chownat(CWD, &full, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::SYMLINK_NOFOLLOW)
            .unwrap();
        if !full.is_symlink() && *mode != 0 {
            layer.mode(path, *mode);
        }
        layer.time(path, OLD.0, OLD.1);
    }
}

fn may_be_linked(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| !meta.is_dir()) && !super::shown::is_whiteout(path)
}

/// Whose an entry is.
fn owner(size: usize) -> (u32, u32) {
    match size % 8 {
        1 | 7 => (1000, 1000),
        3 => (1000, 5),
        5 => (7, 1000),
        _ => (0, 0),
    }
}

/// `cap_net_raw=ep`.
pub const CAPABILITY: (&str, &[u8]) =
    ("security.capability", &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);

/// Sets an ACL that gives user 1000 the permissions in `number`.
fn set_acl(path: &Path, name: &str, number: usize) {
    rustix::fs::lsetxattr(path, name, &acl(number), XattrFlags::empty()).unwrap();
}

/// An ACL, as `system.posix_acl_*` holds it.
pub fn acl(number: usize) -> Vec<u8> {
    let (user_obj, user, group_obj, mask, other) = (1_u16, 2_u16, 4_u16, 0x10_u16, 0x20_u16);
    let entries = [
        (user_obj, 7_u16, u32::MAX),
        (user, (number & 7) as u16, 1000),
        (group_obj, ((number >> 3) & 7) as u16, u32::MAX),
        (mask, ((number >> 6) & 7) as u16, u32::MAX),
        (other, ((number >> 9) & 5) as u16, u32::MAX),
    ];
    let mut value = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        value.extend_from_slice(&tag.to_le_bytes());
        value.extend_from_slice(&permissions.to_le_bytes());
        value.extend_from_slice(&id.to_le_bytes());
    }
    value
}
