//! What is told of an overlay: for messages, and in numbers.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use crate::cache::Caches;
use crate::inode::numbers::ROOT;

use super::Overlay;

impl Overlay {
    /// The path of an inode that the kernel knows, by one of its names, for messages.
    pub fn path_of(&self, ino: u64) -> Option<PathBuf> {
        let mut names = Vec::new();
        let mut inode = self.table.get(ino)?;
        while inode.ino != ROOT {
            let link = inode.state.read_recursive().links.as_slice().first().cloned()?;
            names.push(link.name);
            inode = link.parent;
        }
        let path = names.iter().rev().map(|name| OsStr::from_bytes(name.as_bytes()));
        Some(Path::new("/").join(path.collect::<PathBuf>()))
    }

    /// How many files are open, and how many of them go through to the upper's without us.
    pub fn open_files(&self) -> (usize, usize) {
        (self.files.len(), self.files.count(|file| file.is_through.load(Ordering::Relaxed)))
    }

    /// How many whiteouts were made.
    pub fn whiteouts_made(&self) -> u64 {
        self.work.as_ref().map_or(0, |work| work.whiteouts.get())
    }

    /// How many inodes the kernel knows, and how often it was told of them in all.
    pub fn known(&self) -> (usize, u64) {
        (self.table.len(), self.table.lookups())
    }

    /// What the caches have done, in one line.
    pub fn summary(&self) -> String {
        format!("{} inodes known, {} files open; caches: {}", self.table.len(), self.files.len(), self.caches)
    }

    /// Logs what the caches have done.
    pub fn log_counters(&self) {
        log::warn!("{}", self.summary());
    }

    /// The metadata caches, with their counters.
    pub fn caches(&self) -> &Caches {
        &self.caches
    }
}
