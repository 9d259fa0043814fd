//! Unmounting by path, as a command of its own.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::error::Errno;
use crate::mounts::{self, Entry};

use super::failure::Failure;
use super::kernel::unmount;

/// How long a daemon may take to end after its mount has gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// Unmounts the overlay at `path`, and waits until its daemon has ended; `lazily`, it does not wait for who uses it.
///
/// Says what it could not wait for.
///
/// # Errors
/// Why there is nothing to unmount, or why it cannot be.
pub fn umount(path: &Path, lazily: bool) -> Result<Option<String>, Failure> {
    let path = mounts::full_path(path).map_err(|errno| Failure::on("", path, errno))?;
    let table = table()?;
    let Some(entry) = mounts::at(&table, &path) else {
        return Err(Failure::new(format!("{}: not mounted", path.display())));
    };
    if entry.kind != mounts::TYPE {
        let kind = String::from_utf8_lossy(&entry.kind);
        return Err(Failure::new(format!("{}: a mount of type {kind}, not of plyfs", path.display())));
    }
    let daemons = if lazily { Vec::new() } else { mounts::daemons(entry.device) };
    unmount(&path, lazily)?;
    let runs = || format!("{}: unmounted, but its daemon still runs: it is mounted elsewhere, or busy", path.display());
    Ok((!daemons.iter().all(ends)).then(runs))
}

/// What the list of mounts shows as the source of the overlay that is mounted at `path`, a full one; `None` where none is.
///
/// # Errors
/// That there is no list.
pub fn source_of(path: &Path) -> Result<Option<OsString>, Failure> {
    let table = table()?;
    Ok(mounts::at(&table, path).filter(|entry| entry.kind == mounts::TYPE).map(|entry| entry.source.clone()))
}

/// Where the overlay is mounted that `path` lies on; `None` where it lies on none.
///
/// # Errors
/// That there is no such path, or no list of mounts.
pub fn covering(path: &Path) -> Result<Option<PathBuf>, Failure> {
    let table = table()?;
    let full = mounts::full_path(path).map_err(|errno| Failure::on("", path, errno))?;
    Ok(mounts::over(&table, &full).filter(|entry| entry.kind == mounts::TYPE).map(|entry| entry.path.clone()))
}

/// The list of mounts.
fn table() -> Result<Vec<Entry>, Failure> {
    mounts::list().map_err(|error| Failure::new(format!("/proc/self/mountinfo: {error}")))
}

/// Waits for the end of a process; whether it came.
fn ends(process: &OwnedFd) -> bool {
    let timeout = Timespec { tv_sec: i64::try_from(PATIENCE.as_secs()).unwrap_or(i64::MAX), tv_nsec: 0 };
    loop {
        match poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&timeout)) {
            Err(Errno::INTR) => {}
            result => return result.is_ok_and(|ready| ready > 0),
        }
    }
}
