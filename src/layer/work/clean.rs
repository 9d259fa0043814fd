//! Removing what lies in the work directory.

use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, Mode, OFlags};

use crate::at::At;
use crate::attr::Kind;
use crate::calls;
use crate::error::Errno;

/// How deep a tree in the work directory may be: replaced directories hold whiteouts only, whatever more was put there
/// is not ours.
const MAX_DEPTH: u32 = 64;

/// Removes `name` from `dir`, with all that it holds; nothing to remove is no error.
///
/// # Errors
/// Those of unlinkat(2), `ELOOP` for a tree that is too deep.
pub(super) fn remove(dir: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    remove_to(dir, name, MAX_DEPTH)
}

/// Removes everything in `dir`.
///
/// # Errors
/// As [`remove`].
pub(super) fn empty(dir: BorrowedFd<'_>) -> Result<(), Errno> {
    empty_to(dir, MAX_DEPTH)
}

fn remove_to(dir: BorrowedFd<'_>, name: &[u8], depth: u32) -> Result<(), Errno> {
    match calls::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(errno),
    }
    match calls::unlinkat(dir, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTEMPTY | Errno::EXIST | Errno::ACCESS) => {}
        Err(errno) => return Err(errno),
    }
    let at = At::new(&dir, name);
    if at.attr()?.kind() == Kind::Dir {
        // Left without permission bits by a privileged mount or by its owner.
        at.chmod(0o700)?;
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let sub = calls::openat(dir, name, flags, Mode::empty())?;
    empty_to(std::os::fd::AsFd::as_fd(&sub), depth.checked_sub(1).ok_or(Errno::LOOP)?)?;
    calls::unlinkat(dir, name, AtFlags::REMOVEDIR)
}

fn empty_to(dir: BorrowedFd<'_>, depth: u32) -> Result<(), Errno> {
    let readable = calls::openat(dir, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    for entry in calls::list(readable)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            remove_to(dir, name, depth)?;
        }
    }
    Ok(())
}
