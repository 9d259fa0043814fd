//! What a process needs to leave its caller and serve a mount: fork, and other hands' descriptors.
#![allow(unsafe_code)]

use std::fs;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::process::exit;

use rustix::process::Pid;

use crate::error::Errno;

use super::handle::last_errno;

/// The descriptors that this process was started with, other than standard input, output and error.
#[derive(Debug)]
pub struct Inherited(Vec<RawFd>);

impl Inherited {
    /// Finds them. To be called before the process opens anything: what is open then belongs to nobody in it.
    pub fn find() -> Self {
        let Ok(entries) = fs::read_dir("/proc/self/fd") else { return Self::find_without_proc() };
        let numbers: Vec<RawFd> =
            entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).filter(|fd| *fd > 2).collect();
        // The one that the list was read by is closed by now.
        Self(numbers.into_iter().filter(|fd| fs::symlink_metadata(format!("/proc/self/fd/{fd}")).is_ok()).collect())
    }

    fn find_without_proc() -> Self {
        /// As far as anybody would go; a larger number costs time.
        const MOST: RawFd = 4096;
        // SAFETY: asks for a flag of a descriptor, or is told that there is none.
        Self((3..MOST).filter(|fd| unsafe { libc::fcntl(*fd, libc::F_GETFD) } >= 0).collect())
    }

    /// Closes them.
    pub fn close(self) {
        for fd in self.0 {
            // SAFETY: it was open before this process opened anything, so that nothing owns the descriptor, or in a parent
            // whose owners never run here.
            if unsafe { libc::close(fd) } < 0 {
                log::debug!("cannot close descriptor {fd}: {}", last_errno());
            }
        }
    }
}

/// Splits this process in two: tells the parent who its child is, and the child `None`.
///
/// # Errors
/// `EDEADLK` when the process has other threads, which the child would lack; those of fork(2).
pub fn fork() -> Result<Option<Pid>, Errno> {
    if fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() > 1) {
        return Err(Errno::DEADLK);
    }
    // SAFETY: there is no other thread that could hold a lock, in the allocator or elsewhere, that the child needs.
    match unsafe { libc::fork() } {
        -1 => Err(last_errno()),
        pid => Ok(Pid::from_raw(pid)),
    }
}

/// Starts a child that does `work`, and ends with the code that this comes to. Of the descriptors of this process it has
/// `file` alone, as its standard input, output and error.
///
/// # Errors
/// Those of [`fork`].
pub fn start_apart(file: BorrowedFd<'_>, work: impl FnOnce() -> i32) -> Result<Pid, Errno> {
    if let Some(child) = fork()? {
        return Ok(child);
    }
    if replace_stdio(file).is_err() {
        exit(1);
    }
    // Their owners are in the callers of this, to whom this process never returns.
    Inherited::find().close();
    exit(work());
}

/// Puts `file` in the place of standard input, output and error.
///
/// # Errors
/// Those of dup2(2).
pub fn replace_stdio(file: BorrowedFd<'_>) -> Result<(), Errno> {
    for standard in 0..=2 {
        // SAFETY: nothing owns these three; the standard library takes them to be open, which they stay.
        if unsafe { libc::dup2(file.as_raw_fd(), standard) } < 0 {
            return Err(last_errno());
        }
    }
    Ok(())
}
