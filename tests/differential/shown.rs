//! What a mount shows: the whole tree, and of one path what an operation may change.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::case::Bytes;
use super::common::{Mounted, xattrs};

/// Times before this were set; those after it the clock has given.
pub const LONG_AGO: i64 = 1_500_000_000;
/// Of a longer file only the ends are read.
const LONG: u64 = 1 << 20;

/// What is shown of one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// What has to be the same on both.
    pub text: String,
    pub links: u64,
    pub kind: Kind,
    /// What can only be compared with what it was before.
    pub marks: Marks,
}

/// The kind of an entry, as far as what is compared depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Dir,
    File,
    Other,
}

/// Numbers and times, which differ from mount to mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    pub ino: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

impl Marks {
    /// The time of last change, if it was set: not what the clock said.
    pub fn set(&self) -> String {
        if self.mtime.0 < LONG_AGO { format!(", modified {}.{:09}", self.mtime.0, self.mtime.1) } else { String::new() }
    }

    /// What has become of it since `before`.
    pub fn since(&self, before: &Self, with_times: bool, is_dir: bool) -> &'static str {
        let is_modified = with_times && self.mtime != before.mtime;
        // [SEMANTICS: A directory's time of status change is moved by what callers do.]
        let is_changed = with_times && !is_dir && self.ctime != before.ctime;
        match (self.ino == before.ino, is_modified, is_changed) {
            (false, ..) => "other number",
            (true, false, false) => "same number",
            (true, true, false) => "same number, modified",
            (true, false, true) => "same number, changed",
            (true, true, true) => "same number, modified and changed",
        }
    }
}

/// Everything below a path, and the entry itself.
pub type Tree = BTreeMap<Bytes, Shown>;

/// What is shown in the whole tree, the root with it.
pub fn tree(mounted: &Mounted) -> Tree {
    let mut entries = Tree::new();
    let mut names: BTreeMap<u64, Bytes> = BTreeMap::new();
    let mut left = vec![mounted.path("")];
    while let Some(path) = left.pop() {
        // Of a whiteout that the kernel's overlayfs lists, nothing is found.
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        let relative = Bytes(path.strip_prefix(mounted.path("")).unwrap().as_os_str().as_bytes().to_vec());
        if meta.is_dir() {
            let mut found: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).collect();
            found.sort();
            left.extend(found.into_iter().rev());
        }
        let mut shown = describe(&path, &meta);
        // Names of one inode.
        if let Some(first) = names.get(&meta.ino()) {
            shown.text += &format!(", the same as {first}");
        } else {
            names.insert(meta.ino(), relative.clone());
        }
        entries.insert(relative, shown);
    }
    entries
}

/// What is shown at `path`, if anything, without its content.
pub fn entry(path: &Path) -> Option<Shown> {
    let meta = fs::symlink_metadata(path).ok()?;
    let text = format!(
        "mode {:o}, owner {}:{}, {} bytes",
        meta.mode(),
        meta.uid(),
        meta.gid(),
        if meta.is_dir() { 0 } else { meta.size() }
    );
    Some(Shown { text, links: meta.nlink(), kind: kind(&meta), marks: marks(&meta) })
}

fn kind(meta: &fs::Metadata) -> Kind {
    match meta {
        meta if meta.is_dir() => Kind::Dir,
        meta if meta.is_file() => Kind::File,
        _ => Kind::Other,
    }
}

fn marks(meta: &fs::Metadata) -> Marks {
    Marks { ino: meta.ino(), mtime: (meta.mtime(), meta.mtime_nsec()), ctime: (meta.ctime(), meta.ctime_nsec()) }
}

fn describe(path: &Path, meta: &fs::Metadata) -> Shown {
    let mut text = format!("mode {:o}, owner {}:{}", meta.mode(), meta.uid(), meta.gid());
    if meta.is_file() {
        text += &format!(", {} bytes, hash {:x}", meta.size(), hash(path, meta.size()));
    } else if meta.file_type().is_symlink() {
        text += &format!(", {} bytes, to {}", meta.size(), fs::read_link(path).unwrap().display());
    } else if meta.file_type().is_char_device() || meta.file_type().is_block_device() {
        text += &format!(", device {:x}", meta.rdev());
    }
    for (name, value) in xattrs(path) {
        text += &format!(", {name}={}", value.escape_ascii());
    }
    Shown { text, links: meta.nlink(), kind: kind(meta), marks: marks(meta) }
}

/// A digest of a file's content, or of its ends.
pub fn hash(path: &Path, size: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    let mut file = fs::File::open(path).unwrap();
    if size <= LONG {
        let mut content = Vec::new();
        file.read_to_end(&mut content).unwrap();
        content.hash(&mut hasher);
    } else {
        let mut buffer = vec![0; 8192];
        for offset in [0, size - 8192] {
            std::os::unix::fs::FileExt::read_exact_at(&file, &mut buffer, offset).unwrap();
            buffer.hash(&mut hasher);
        }
    }
    hasher.finish()
}

/// Whether there is a character device 0:0 there.
pub fn is_whiteout(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_char_device() && meta.rdev() == 0)
}
