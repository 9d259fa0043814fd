//! Ioctls: inode flags, as chattr(1) reads and sets them.

use crate::error::{Errno, Error, Result};
use crate::overlay::Overlay;
use crate::sys::fileattr::{self, FsXattr};

/// Whether a command changes the file.
pub(super) const fn changes(command: u32) -> bool {
    matches!(command, fileattr::SETFLAGS | fileattr::FSSETXATTR)
}

/// Reads or sets inode flags.
///
/// # Errors
/// `ENOTTY` for any other command, `EINVAL` when its argument is too short; those of the overlay.
pub(super) fn file_flags(overlay: &Overlay, ino: u64, command: u32, data: &[u8]) -> Result<Vec<u8>> {
    let short = || Error::new(Errno::INVAL, "read an ioctl's argument");
    match command {
        fileattr::GETFLAGS => overlay.flags(ino).map(|flags| flags.to_ne_bytes().to_vec()),
        fileattr::SETFLAGS => {
            let flags = data.first_chunk().ok_or_else(short)?;
            overlay.set_flags(ino, u32::from_ne_bytes(*flags)).map(|()| Vec::new())
        }
        fileattr::FSGETXATTR => overlay.extended_flags(ino).map(FsXattr::to_bytes),
        fileattr::FSSETXATTR => {
            let flags = FsXattr::from_bytes(data).ok_or_else(short)?;
            overlay.set_extended_flags(ino, flags).map(|()| Vec::new())
        }
        _ => Err(Error::new(Errno::NOTTY, "ioctl")),
    }
}
