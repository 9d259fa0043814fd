//! Open files, by the number that the kernel hands back.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::OFlags;

use crate::inode::Inode;
use crate::lock::{RwLock, rank};

/// An open file.
#[derive(Debug)]
pub struct OpenFile {
    /// What it is open on.
    pub inode: Arc<Inode>,
    /// The flags with which its backing file is opened.
    pub flags: OFlags,
    /// The backing file; replaced by the upper's when the inode is copied up.
    pub backing: RwLock<Backing, { rank::BACKING }>,
    /// Filesystem user id of who opened it.
    pub uid: u32,
    /// Its data is read and written without us.
    pub is_through: AtomicBool,
}

/// The file of a layer behind an open file.
#[derive(Debug, Clone)]
pub struct Backing {
    /// The open file.
    pub fd: Arc<OwnedFd>,
    /// It lies in the upper layer.
    pub in_upper: bool,
}

impl OpenFile {
    /// A file that `uid` has opened with `flags`.
    pub fn new(inode: Arc<Inode>, flags: OFlags, backing: Backing, uid: u32) -> Self {
        Self { inode, flags, backing: RwLock::new(backing), uid, is_through: AtomicBool::new(false) }
    }

    /// Whether it was opened for writing.
    pub fn may_write(&self) -> bool {
        self.flags.intersects(OFlags::WRONLY | OFlags::RDWR)
    }

    /// Whether it can be mapped so that writes to memory reach it.
    pub fn may_map_for_writing(&self) -> bool {
        self.flags.contains(OFlags::RDWR)
    }
}

/// Handles of one kind.
///
/// A leaf among the locks: held for a moment, never across a syscall.
#[derive(Debug)]
pub struct Handles<T> {
    open: RwLock<HashMap<u64, Arc<T>>, { rank::LEAF }>,
    next: AtomicU64,
}

impl<T> Default for Handles<T> {
    fn default() -> Self {
        Self { open: RwLock::default(), next: AtomicU64::new(1) }
    }
}

impl<T> Handles<T> {
    /// Numbers a new handle.
    pub fn add(&self, handle: T) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.open.write().insert(number, Arc::new(handle));
        number
    }

    /// The handle `number`.
    pub fn get(&self, number: u64) -> Option<Arc<T>> {
        self.open.read().get(&number).cloned()
    }

    /// Whether there is one of which `is_it` is true.
    pub fn any(&self, is_it: impl Fn(&T) -> bool) -> bool {
        self.open.read().values().any(|handle| is_it(handle))
    }

    /// How many there are of which `is_it` is true.
    pub fn count(&self, is_it: impl Fn(&T) -> bool) -> usize {
        self.open.read().values().filter(|handle| is_it(handle)).count()
    }

    /// Ends the handle `number`.
    pub fn remove(&self, number: u64) -> Option<Arc<T>> {
        self.open.write().remove(&number)
    }

    /// How many are open.
    pub fn len(&self) -> usize {
        self.open.read().len()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
