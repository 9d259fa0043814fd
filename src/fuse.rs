//! The FUSE adapter: decode, call the overlay, reply once. The only importer of `fuser`, with the files below it.

mod adapter;
pub mod agreement;
mod ahead;
mod awake;
mod convert;
#[cfg(feature = "failpoints")]
mod failpoint;
mod ioctl;
mod pool;
mod reply;
mod session;
mod through;

use std::time::Duration;

pub use self::session::Session;

/// How the kernel is to treat this mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How long the kernel may keep entries and attributes; `None` is without end.
    pub timeout: Option<Duration>,
    /// The kernel gathers writes in its page cache (`writeback=1`).
    pub writeback: bool,
    /// Why files of the upper are not read and written without us; `None` where they are, if the kernel allows it
    /// (`passthrough=1`).
    pub no_passthrough: Option<&'static str>,
    /// Requests are counted and timed (`stats=1`).
    pub counts: bool,
    /// Processors are kept awake while requests come fast (`awake=1`).
    pub awake: bool,
    /// Only root and the mounting user may use the mount, though the kernel lets everybody in (`allow_root`).
    pub allow_root: bool,
    /// Threads that read requests.
    pub readers: usize,
}
