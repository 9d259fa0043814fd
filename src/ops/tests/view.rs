//! What a tree looks like, in lines that can be compared: of a layer, and of an overlay.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::OFlags;

use crate::at::split_names;
use crate::attr::{Attr, Kind};
use crate::inode::numbers::ROOT;
use crate::overlay::Overlay;

use super::bed::us;

/// An entry as a directory lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) ino: u64,
    pub(super) kind: Kind,
    pub(super) name: Vec<u8>,
    pub(super) next: u64,
}

pub(super) fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// The entries of a directory, in their order, without `.` and `..`.
pub(super) fn entries(overlay: &Overlay, ino: u64) -> Vec<Listed> {
    let mut entries = read_dir(overlay, ino, 0, usize::MAX);
    entries.retain(|entry| !matches!(entry.name.as_slice(), b"." | b".."));
    entries
}

/// Up to `count` entries of a directory from `offset` on.
pub(super) fn read_dir(overlay: &Overlay, dir: u64, offset: u64, count: usize) -> Vec<Listed> {
    let mut entries = Vec::new();
    overlay
        .read_dir(dir, offset, false, |entry| {
            if entries.len() == count {
                return true;
            }
            entries.push(Listed { ino: entry.ino, kind: entry.kind, name: entry.name.to_vec(), next: entry.next });
            false
        })
        .unwrap();
    entries
}

/// The whole content of a file.
pub(super) fn content(overlay: &Overlay, ino: u64) -> Vec<u8> {
    let file = overlay.open_file(ino, OFlags::RDONLY, us()).unwrap().file;
    let mut content = vec![0; overlay.getattr(ino).unwrap().size as usize + 1];
    let read = overlay.read(file, 0, &mut content).unwrap();
    overlay.release(file).unwrap();
    content.truncate(read);
    content
}

/// What an overlay shows: a line for each object, its number and link count aside. Every entry's number and type in its
/// listing are compared with what a lookup says.
pub(super) fn tree(overlay: &Overlay) -> Vec<String> {
    tree_with(overlay, |_| String::new())
}

/// As [`tree`], with more of each object.
pub(super) fn tree_with(overlay: &Overlay, more: impl Fn(&Attr) -> String) -> Vec<String> {
    let mut lines = Vec::new();
    let mut dirs = vec![(ROOT, String::new())];
    let mut known = Vec::new();
    while let Some((dir, prefix)) = dirs.pop() {
        for entry in entries(overlay, dir) {
            let path = format!("{prefix}{}", text(&entry.name));
            let attr = overlay.lookup(dir, &entry.name).unwrap().unwrap_or_else(|| panic!("{path} is listed only"));
            known.push(attr.ino);
            assert_eq!((entry.ino, entry.kind), (attr.ino, attr.kind()), "{path}: listed, and looked up");
            let mode = attr.mode & 0o7777;
            let what = match attr.kind() {
                Kind::Dir => format!("dir {mode:o}"),
                Kind::File => format!("file {mode:o} {}", text(&content(overlay, attr.ino))),
                Kind::Symlink => format!("-> {}", text(&overlay.readlink(attr.ino).unwrap())),
                other => format!("{other:?} {mode:o} {:?}", attr.rdev),
            };
            let names = overlay.listxattr(attr.ino, us()).unwrap();
            let mut xattrs: Vec<String> = split_names(&names)
                .map(|name| format!(" {}={}", text(name), text(&overlay.getxattr(attr.ino, name).unwrap())))
                .collect();
            xattrs.sort();
            lines.push(format!("{path} {what}{}{}", xattrs.concat(), more(&attr)));
            if attr.kind() == Kind::Dir {
                dirs.push((attr.ino, format!("{path}/")));
            }
        }
    }
    for ino in known {
        overlay.forget(ino, 1);
    }
    lines.sort();
    lines
}

/// Everything below `dir` of a layer, one line each: path, type, mode, and content.
pub(super) fn dump(dir: &Path) -> Vec<String> {
    walk(dir, |_, _| String::new())
}

/// As [`dump`], with all that tells whether anything was changed: the change time is moved by every write, link and
/// attribute.
pub(super) fn fingerprint(dir: &Path) -> Vec<String> {
    walk(dir, |_, meta| {
        let times = (meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec());
        format!(" {} {} {}:{} {times:?}", meta.ino(), meta.nlink(), meta.uid(), meta.gid())
    })
}

/// As [`dump`], with modification times and marks, which say all of what an upper means.
pub(super) fn marked(dir: &Path) -> Vec<String> {
    walk(dir, |path, meta| {
        let mut names = vec![0; 4096];
        let len = rustix::fs::llistxattr(path, &mut names).unwrap();
        let marks = split_names(&names[..len]).map(|name| {
            let mut value = vec![0; 4096];
            let len = rustix::fs::lgetxattr(path, name, &mut value).unwrap();
            format!(" {}={}", text(name), text(&value[..len]))
        });
        let mut marks: Vec<String> = marks.collect();
        marks.sort();
        // Whiteouts are links of one in the work directory.
        let links = if meta.rdev() == 0 && meta.file_type().is_char_device() { 0 } else { meta.nlink() };
        format!(" {links} {}.{:09}{}", meta.mtime(), meta.mtime_nsec(), marks.concat())
    })
}

fn walk(dir: &Path, more: impl Fn(&Path, &fs::Metadata) -> String) -> Vec<String> {
    let mut lines = Vec::new();
    let mut dirs = vec![(dir.to_owned(), String::new())];
    while let Some((dir, prefix)) = dirs.pop() {
        // Deeper than a path can say, or not ours to look into.
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        for entry in entries {
            let entry = entry.unwrap();
            let (path, name) = (entry.path(), format!("{prefix}{}", text(entry.file_name().as_bytes())));
            let Ok(meta) = entry.metadata() else { continue };
            let kind = meta.file_type();
            let mode = meta.permissions().mode() & 0o7777;
            let what = if kind.is_dir() {
                dirs.push((path.clone(), format!("{name}/")));
                format!("{name}/ {mode:o}")
            } else if kind.is_symlink() {
                format!("{name} -> {}", text(fs::read_link(&path).unwrap().as_os_str().as_bytes()))
            } else if kind.is_char_device() && meta.rdev() == 0 {
                format!("{name} whiteout")
            } else if !kind.is_file() {
                format!("{name} {mode:o} special")
            } else if meta.len() > 1 << 20 {
                format!("{name} {mode:o} {} bytes", meta.len())
            } else {
                format!("{name} {mode:o} {}", text(&fs::read(&path).unwrap_or_default()))
            };
            lines.push(format!("{what}{}", more(&path, &meta)));
        }
    }
    lines.sort();
    lines
}
