//! The FUSE adapter: decode, call the overlay, reply once. The only importer of `fuser`, with the files below it.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Errno, Error, Result};
use crate::overlay::Overlay;

/// How the kernel is to treat this mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How long the kernel may keep entries and attributes; `None` is without end.
    pub timeout: Option<Duration>,
    /// The kernel gathers writes in its page cache (`writeback=1`).
    pub writeback: bool,
    /// Only root and the mounting user may use the mount, though the kernel lets everybody in (`allow_root`).
    pub allow_root: bool,
    /// Threads that read requests.
    pub readers: usize,
}

/// A mounted overlay that has answered the kernel's first request.
#[derive(Debug)]
pub struct Session {}

impl Session {
    /// Answers the kernel's INIT on `fd`, an open /dev/fuse that is mounted already.
    ///
    /// # Errors
    /// What went wrong on the FUSE device.
    pub fn start(_fd: OwnedFd, _overlay: Arc<Overlay>, _settings: &Settings) -> Result<Self> {
        Err(Error::new(Errno::NOSYS, "FUSE session"))
    }

    /// Serves requests until the filesystem is unmounted.
    ///
    /// # Errors
    /// What went wrong on the FUSE device.
    pub fn run(self) -> Result<()> {
        Ok(())
    }
}
