//! Namespaces of the whole process, which has one thread then.
#![allow(unsafe_code)]

use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::error::Errno;

/// Moves this process into namespaces of its own; with [`UnshareFlags::NEWPID`], its next child.
///
/// # Errors
/// Those of unshare(2): `EPERM` without the privilege, `EINVAL` for a process of several threads.
pub fn leave(flags: UnshareFlags) -> Result<(), Errno> {
    // SAFETY: of what the flags may stop sharing, descriptors alone could surprise another owner, and they are not among
    // those that are passed here; the kernel refuses user namespaces to a process of several threads.
    unsafe { unshare_unsafe(flags & !UnshareFlags::FILES) }
}
