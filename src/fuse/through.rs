//! Which opens go through to the file of the upper layer without us (FUSE passthrough).
//!
//! The kernel has all opens of an inode agree: either all use its page cache and ask us, or all go to one and the same
//! backing file. The first open decides for as long as the file is open by anybody:
//!
//! - A file of the upper, with its data there, goes through.
//! - A file of a lower layer does not: who writes to it would have to go to another file than those who read it already,
//!   and they are to see what is written. It is cached, also after its copy-up, as long as one of them has it open.
//! - A file with a set-id bit does not: who goes through is not asked for the bits that fall when he writes.
//!
//! Pages of a cached open are kept for the next one only while the file is in a lower layer, where nobody can have gone
//! through in between.

use std::collections::HashMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fuser::{BackingId, FileHandle, FopenFlags, ReplyCreate, ReplyOpen};
use parking_lot::Mutex;

use crate::attr::Attr;
use crate::error::Errno;
use crate::ops::Opened;
use crate::overlay::Overlay;

use super::agreement::Agreement;
use super::convert;
use super::reply::GENERATION;

/// How the open files of an inode reach their data.
#[derive(Debug)]
enum Opens {
    /// Through the page cache, so many of them.
    Cached(usize),
    /// To this backing file, so many of them.
    Through(usize, Arc<BackingId>),
}

/// What the opens of all inodes do.
#[derive(Debug)]
pub(super) struct Through {
    /// By node id.
    opens: Mutex<HashMap<u64, Opens>>,
    is_on: AtomicBool,
    agreement: Arc<Agreement>,
    /// The kernel gathers writes, and may have to read what it writes back.
    gathers: AtomicBool,
}

impl Through {
    /// Of a mount on which nothing is open.
    pub(super) fn new(agreement: Arc<Agreement>) -> Self {
        Self { opens: Mutex::default(), is_on: AtomicBool::new(false), agreement, gathers: AtomicBool::new(false) }
    }

    /// Notes what was agreed with the kernel: whether files go through, and whether it gathers writes.
    pub(super) fn agree(&self, passes: bool, gathers: bool) {
        self.is_on.store(passes, Ordering::Relaxed);
        self.gathers.store(gathers, Ordering::Relaxed);
    }

    /// Whether files may go through.
    fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    /// Answers an open of `ino`.
    pub(super) fn send_opened(&self, reply: ReplyOpen, ino: u64, opened: &Opened, overlay: &Overlay) {
        let file = FileHandle(opened.file);
        match self.open(ino, opened, |fd| reply.open_backing(fd)) {
            Some(backing) => {
                overlay.pass_through(opened.file);
                reply.opened_passthrough(file, FopenFlags::empty(), &backing);
            }
            None => reply.opened(file, self.cached(opened)),
        }
    }

    /// Answers the creation of a file, of which the kernel may keep what it is told for `timeout`.
    pub(super) fn send_created(
        &self,
        reply: ReplyCreate,
        attr: &Attr,
        opened: &Opened,
        timeout: Duration,
        overlay: &Overlay,
    ) {
        let (file, shown) = (FileHandle(opened.file), convert::attr(attr));
        match self.open(attr.ino, opened, |fd| reply.open_backing(fd)) {
            Some(backing) => {
                overlay.pass_through(opened.file);
                // The kernel does not know the inode yet, and cannot be told that its attributes may not be kept.
                let timeout = if opened.may_map_for_writing() { Duration::ZERO } else { timeout };
                reply.created_passthrough(&timeout, &shown, GENERATION, file, FopenFlags::empty(), &backing);
            }
            None => reply.created(&timeout, &shown, GENERATION, file, self.cached(opened)),
        }
    }

    /// How a file is opened that does not go through. Nothing but the mount changes data, so that the pages of earlier
    /// opens hold, unless somebody may have gone through in between.
    fn cached(&self, opened: &Opened) -> FopenFlags {
        if self.gathers.load(Ordering::Relaxed) && opened.is_write_only() {
            return FopenFlags::FOPEN_DIRECT_IO;
        }
        if opened.is_in_upper() && self.is_on() { FopenFlags::empty() } else { FopenFlags::FOPEN_KEEP_CACHE }
    }

    /// Counts an open of `ino`, and decides how it reaches its data: `Some` if it goes through. `register` makes a file
    /// known to the kernel.
    fn open(
        &self,
        ino: u64,
        opened: &Opened,
        register: impl FnOnce(BorrowedFd<'_>) -> io::Result<BackingId>,
    ) -> Option<Arc<BackingId>> {
        if !self.is_on() {
            return None;
        }
        let mut opens = self.opens.lock();
        match opens.get_mut(&ino) {
            Some(Opens::Cached(count)) => {
                *count = count.saturating_add(1);
                return None;
            }
            Some(Opens::Through(count, backing)) => {
                *count = count.saturating_add(1);
                return Some(Arc::clone(backing));
            }
            None => {}
        }
        let backing = opened.may_go_through().and_then(|file| match register(file) {
            Ok(backing) => Some(Arc::new(backing)),
            Err(error) => {
                self.refused(&error);
                None
            }
        });
        let made = match &backing {
            Some(backing) => Opens::Through(1, Arc::clone(backing)),
            None => Opens::Cached(1),
        };
        opens.insert(ino, made);
        backing
    }

    /// Counts a release of `ino`.
    pub(super) fn release(&self, ino: u64) {
        let mut opens = self.opens.lock();
        let left = match opens.get_mut(&ino) {
            Some(Opens::Cached(count) | Opens::Through(count, _)) => {
                *count = count.saturating_sub(1);
                *count
            }
            None => return,
        };
        let ended = if left == 0 { opens.remove(&ino) } else { None };
        drop(opens);
        // Tells the kernel.
        drop(ended);
    }

    /// A reason that holds for the whole mount is not asked for again.
    fn refused(&self, error: &io::Error) {
        log::debug!("a file does not go through: {error}");
        let errno = Errno::from_io_error(error).unwrap_or(Errno::IO);
        if matches!(errno, Errno::PERM | Errno::LOOP | Errno::OPNOTSUPP | Errno::NOTTY | Errno::NOSYS | Errno::INVAL) {
            self.is_on.store(false, Ordering::Relaxed);
            self.agreement.leave("passthrough", format!("the kernel refuses a file of the upper: {error}"));
        }
    }
}
