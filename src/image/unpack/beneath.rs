//! Paths beneath a directory, whatever symlinks there are on the way: the kernel itself refuses to leave it (openat2(2)).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, Mode, OFlags, ResolveFlags};

use crate::error::Errno;

/// Components of one call, in bytes: less than the kernel takes.
const PART: usize = 3072;

/// Opens `path` beneath `root` without following a symlink; empty for `root` itself.
///
/// # Errors
/// Those of openat2(2): `ELOOP` for a symlink on the way, `EXDEV` for a path that leaves.
pub fn open(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let step = |dir: BorrowedFd<'_>, path: &[u8], flags| loop {
        match fs::openat2(dir, path, flags, Mode::empty(), resolve) {
            // The kernel could not tell whether a rename was going on.
            Err(Errno::AGAIN) => {}
            result => return result,
        }
    };
    let mut rest = path;
    let mut dir: Option<OwnedFd> = None;
    while rest.len() > PART {
        let end = rest.get(..PART).and_then(|part| part.iter().rposition(|byte| *byte == b'/'));
        let (part, after) = rest.split_at_checked(end.ok_or(Errno::NAMETOOLONG)?).ok_or(Errno::INVAL)?;
        let at = dir.as_ref().map_or(root, |dir| dir.as_fd());
        dir = Some(step(at, part, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW)?);
        rest = after.strip_prefix(b"/").unwrap_or(after);
    }
    step(dir.as_ref().map_or(root, |dir| dir.as_fd()), if rest.is_empty() { b"." } else { rest }, flags)
}

/// The directory that `path` lies in, and its last component.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (path.get(..at).unwrap_or_default(), path.get(at.saturating_add(1)..).unwrap_or_default()),
        None => (b"", path),
    }
}
