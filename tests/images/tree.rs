//! Trees: a base, what is changed in it, and all that a tree shows.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use rustix::fs::{CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};

/// Everything that a tree shows, by path; names of one file are told by the first of them.
pub(crate) fn tree(root: &Path) -> BTreeMap<String, String> {
    let mut entries = BTreeMap::new();
    let mut inodes: BTreeMap<u64, String> = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(path) = left.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        let kind = meta.file_type();
        let mut text =
            format!("{:o} {}:{} {}.{}", meta.mode(), meta.uid(), meta.gid(), meta.mtime(), meta.mtime_nsec());
        if kind.is_dir() {
            let mut names: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).collect();
            names.sort();
            left.extend(names.into_iter().rev());
        } else if kind.is_symlink() {
            text += &format!(" -> {}", fs::read_link(&path).unwrap().display());
        } else if kind.is_file() {
            text += &format!(
                " {:?}",
                fs::read(&path).unwrap().escape_ascii().to_string().chars().take(100).collect::<String>()
            );
            text += &format!(" {}", meta.size());
        } else if kind.is_char_device() || kind.is_block_device() {
            text += &format!(" {:x}", meta.rdev());
        }
        if !kind.is_dir() && meta.nlink() > 1 {
            text += &format!(" = {}", inodes.entry(meta.ino()).or_insert(name.clone()));
        }
        let mut list = vec![0; 4096];
        let len = rustix::fs::llistxattr(&path, &mut list[..]).unwrap();
        let mut names: Vec<_> = list[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty()).collect();
        names.sort();
        for xattr in names {
            let mut value = vec![0; 4096];
            let len = rustix::fs::lgetxattr(&path, xattr, &mut value[..]).unwrap();
            text += &format!(" {}={}", xattr.escape_ascii(), value[..len].escape_ascii());
        }
        entries.insert(name, text);
    }
    entries
}

/// A base in which there is something to change in every way.
pub(crate) fn build(root: &Path) {
    for dir in ["etc", "keep/deep", "gone/below", "replaced/old", "moved/a/b", "to-file", "proc", "sys", "dev"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    for file in [
        "etc/passwd",
        "etc/chmod",
        "keep/deep/f",
        "gone/below/f",
        "replaced/old/f",
        "moved/a/b/f",
        "to-file/f",
        "to-dir",
        "touched",
    ] {
        fs::write(root.join(file), file).unwrap();
    }
    fs::write(root.join("large"), vec![b'x'; 300_000]).unwrap();
    fs::hard_link(root.join("large"), root.join("larger")).unwrap();
    symlink("etc", root.join("link")).unwrap();
}

/// Changes it in every way.
pub(crate) fn change(root: &Path) {
    fs::write(root.join("etc/passwd"), "changed").unwrap();
    fs::set_permissions(root.join("etc/chmod"), fs::Permissions::from_mode(0o4711)).unwrap();
    fs::remove_file(root.join("keep/deep/f")).unwrap();
    fs::remove_dir_all(root.join("gone")).unwrap();
    fs::remove_dir_all(root.join("replaced")).unwrap();
    fs::create_dir(root.join("replaced")).unwrap();
    fs::write(root.join("replaced/new"), "new").unwrap();
    fs::rename(root.join("moved"), root.join("keep/renamed")).unwrap();
    fs::write(root.join("keep/renamed/a/c"), "c").unwrap();
    fs::remove_dir_all(root.join("to-file")).unwrap();
    fs::write(root.join("to-file"), "a file").unwrap();
    fs::remove_file(root.join("to-dir")).unwrap();
    fs::create_dir_all(root.join("to-dir/below")).unwrap();
    fs::create_dir(root.join("new")).unwrap();
    fs::write(root.join("new/one"), "one").unwrap();
    fs::hard_link(root.join("new/one"), root.join("new/two")).unwrap();
    symlink("../nowhere", root.join("new/link")).unwrap();
    let sparse = fs::File::create(root.join("new/sparse")).unwrap();
    sparse.set_len(3 << 20).unwrap();
    std::os::unix::fs::FileExt::write_at(&sparse, b"in the middle", 1 << 20).unwrap();
    rustix::fs::mknodat(CWD, root.join("new/fifo"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let owner = (Some(Uid::from_raw(3_000_000)), Some(Gid::from_raw(7)));
    rustix::fs::chown(root.join("new/one"), owner.0, owner.1).unwrap();
    // A newline is part of a capability as of anything else.
    let capability = b"\x01\0\0\x02\x0a\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    rustix::fs::setxattr(root.join("new/sparse"), "security.capability", capability, XattrFlags::empty()).unwrap();
    rustix::fs::setxattr(root.join("etc/chmod"), "user.note", b"a\nb", XattrFlags::empty()).unwrap();
    let long = root.join(["long-".repeat(40), "name".repeat(50)].join("/"));
    fs::create_dir_all(long.parent().unwrap()).unwrap();
    fs::write(&long, "long").unwrap();
    let time = Timespec { tv_sec: -5, tv_nsec: 250_000_000 };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, root.join("touched"), &times, rustix::fs::AtFlags::empty()).unwrap();
}

pub(crate) const CHANGES: &str = "\
C /etc
C /etc/chmod
C /etc/passwd
D /gone
C /keep
C /keep/deep
D /keep/deep/f
A /keep/renamed
A /keep/renamed/a
A /keep/renamed/a/b
A /keep/renamed/a/b/f
A /keep/renamed/a/c
A /LONG
A /LONG/NAME
D /moved
A /new
A /new/fifo
A /new/link
A /new/one
A /new/sparse
A /new/two
C /replaced
A /replaced/new
D /replaced/old
C /to-dir
A /to-dir/below
C /to-file
C /touched
";
