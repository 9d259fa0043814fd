//! Reading one directory of a layer, as it is there.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags};

use crate::attr::Kind;
use crate::calls;
use crate::error::{Context, Errno, Result};

/// Room for the entries of one call to the kernel, in bytes.
const BUFFER: usize = 32 << 10;

/// An entry as a layer's filesystem lists it.
#[derive(Debug)]
pub struct Raw<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// Its inode number there.
    pub ino: u64,
    /// Its type; `None` where the filesystem does not say.
    pub kind: Option<Kind>,
}

/// Calls `each` with the entries of `dir`, without `.` and `..`, until it fails.
///
/// # Errors
/// Those of open(2) and getdents(2), and of `each`.
pub fn scan(dir: BorrowedFd<'_>, mut each: impl FnMut(Raw<'_>) -> Result<()>) -> Result<()> {
    let fd = open_listing(dir).during("open directory")?;
    let mut buffer = vec![MaybeUninit::uninit(); BUFFER];
    let mut entries = calls::list_raw(fd.as_fd(), &mut buffer).during("list directory")?;
    while let Some(entry) = entries.next() {
        let entry = entry.during("list directory")?;
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::RegularFile => Some(Kind::File),
            FileType::Directory => Some(Kind::Dir),
            FileType::Symlink => Some(Kind::Symlink),
            FileType::Fifo => Some(Kind::Fifo),
            FileType::Socket => Some(Kind::Socket),
            FileType::CharacterDevice => Some(Kind::Char),
            FileType::BlockDevice => Some(Kind::Block),
            FileType::Unknown => None,
        };
        each(Raw { name, ino: entry.ino(), kind })?;
    }
    Ok(())
}

/// Opens a directory for listing, without moving its access time where that is allowed.
///
/// # Errors
/// Those of openat(2).
pub fn open_listing(dir: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match calls::openat(dir, ".", flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => calls::openat(dir, ".", flags, Mode::empty()),
        result => result,
    }
}
