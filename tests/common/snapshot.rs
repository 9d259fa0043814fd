//! What a tree holds, to be compared.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

/// How much of a tree counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Everything but access and change times, as for a layer that nobody may have touched.
    Layer,
    /// What does not depend on which overlay shows it: without link counts of directories and the overlay's marks.
    Shown,
}

/// Everything below a directory, and the directory itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Snapshot {
    entries: BTreeMap<Vec<u8>, String>,
}

impl Snapshot {
    pub fn of(root: &Path, detail: Detail) -> Self {
        let mut entries = BTreeMap::new();
        visit(root, root, detail, &mut entries);
        Self { entries }
    }

    /// The number of entries, with the root.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The paths of all entries.
    pub fn paths(&self) -> Vec<String> {
        self.entries.keys().map(|path| String::from_utf8_lossy(path).into_owned()).collect()
    }

    /// Fails with the differences, if there are any.
    #[track_caller]
    pub fn assert_eq(&self, other: &Self, what: &str) {
        let mut differences = Vec::new();
        for (path, entry) in &self.entries {
            let path = String::from_utf8_lossy(path);
            match other.entries.get(path.as_bytes()) {
                None => differences.push(format!("- {path}: {entry}")),
                Some(there) if there != entry => {
                    differences.push(format!("- {path}: {entry}\n+ {path}: {there}"));
                }
                Some(_) => {}
            }
        }
        for (path, entry) in &other.entries {
            if !self.entries.contains_key(path) {
                differences.push(format!("+ {}: {entry}", String::from_utf8_lossy(path)));
            }
        }
        let count = differences.len();
        differences.truncate(20);
        assert!(self == other, "{what}: {count} differences, such as\n{}", differences.join("\n"));
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (path, entry) in &self.entries {
            writeln!(f, "{}: {entry}", String::from_utf8_lossy(path))?;
        }
        Ok(())
    }
}

fn visit(root: &Path, path: &Path, detail: Detail, entries: &mut BTreeMap<Vec<u8>, String>) {
    let relative = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
    entries.insert(relative, describe(path, detail));
    if fs::symlink_metadata(path).unwrap().is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            visit(root, &entry.unwrap().path(), detail, entries);
        }
    }
}

fn describe(path: &Path, detail: Detail) -> String {
    let meta = fs::symlink_metadata(path).unwrap();
    let kind = meta.file_type();
    let mut text = if kind.is_dir() {
        "dir".to_owned()
    } else if kind.is_symlink() {
        format!("symlink to {}", fs::read_link(path).unwrap().display())
    } else if kind.is_file() {
        format!("file of {} with hash {:x}", meta.size(), hash(path))
    } else if kind.is_fifo() {
        "fifo".to_owned()
    } else if kind.is_socket() {
        "socket".to_owned()
    } else {
        format!("device {:x}", meta.rdev())
    };
    text += &format!(
        ", mode {:o}, owner {}:{}, modified {}.{:09}",
        meta.mode(),
        meta.uid(),
        meta.gid(),
        meta.mtime(),
        meta.mtime_nsec()
    );
    // Whiteouts are links to one that the work directory may hold.
    let is_whiteout = kind.is_char_device() && meta.rdev() == 0;
    if !is_whiteout && (detail == Detail::Layer || !kind.is_dir()) {
        text += &format!(", links {}", meta.nlink());
    }
    for (name, value) in super::xattrs(path) {
        let private = ["trusted.overlay.", "user.overlay.", "user.fuseoverlayfs."];
        if detail == Detail::Layer || !private.iter().any(|prefix| name.starts_with(prefix)) {
            text += &format!(", {name}={}", value.escape_ascii());
        }
    }
    text
}

fn hash(path: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    // Looking is not to change anything.
    let mut file = fs::OpenOptions::new().read(true).custom_flags(libc::O_NOATIME).open(path).unwrap();
    // A large sparse file is told by its size and its ends.
    let mut buffer = vec![0; 1 << 16];
    let mut left: u64 = 64 << 20;
    loop {
        let read = file.read(&mut buffer).unwrap();
        buffer[..read].hash(&mut hasher);
        left = left.saturating_sub(read as u64);
        if read == 0 || left == 0 {
            break;
        }
    }
    hasher.finish()
}
