//! Inode flags, as chattr(1) and lsattr(1) use them.
//!
//! Immutable and append-only are kept in a mark, as on the kernel's overlayfs: on the upper's file itself they would
//! keep the overlay from renaming and removing it.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};

use crate::attr::Kind;
use crate::calls;
use crate::copy_up::{Data, protected_letters};
use crate::error::{Context, Errno, Error, Result};
use crate::inode::Inode;
use crate::layer::marks::Mark;
use crate::overlay::Overlay;
use crate::sys::fileattr::FsXattr;

/// `FS_IMMUTABLE_FL` and `FS_APPEND_FL`.
const IMMUTABLE: u32 = 0x10;
const APPEND: u32 = 0x20;
/// `FS_XFLAG_IMMUTABLE` and `FS_XFLAG_APPEND`.
const X_IMMUTABLE: u32 = 0x08;
const X_APPEND: u32 = 0x10;

impl Overlay {
    /// The flags of `ino` (`FS_IOC_GETFLAGS`).
    ///
    /// # Errors
    /// `ENOTTY` where the layer's filesystem has none.
    pub fn flags(&self, ino: u64) -> Result<u32> {
        let inode = self.inode(ino)?;
        let flags = calls::get_flags(self.open_for_flags(&inode)?.as_fd()).during("read file flags")?;
        let kept = inode.state.read().flags;
        Ok(with_bit(with_bit(flags, IMMUTABLE, kept.immutable), APPEND, kept.append_only))
    }

    /// Sets the flags of `ino` (`FS_IOC_SETFLAGS`). That the caller may, the kernel has checked.
    ///
    /// # Errors
    /// `EROFS`, those of copy-up, and of the layer's filesystem.
    pub fn set_flags(&self, ino: u64, flags: u32) -> Result<()> {
        let inode = self.inode(ino)?;
        self.copy_up(&inode, Data::Later)?;
        let fd = self.open_for_flags(&inode)?;
        let plain = flags & !(IMMUTABLE | APPEND);
        let old = calls::get_flags(fd.as_fd()).during("read file flags")?;
        if old != plain {
            calls::set_flags(fd.as_fd(), plain).during("set file flags")?;
        }
        self.protect(&inode, flags & IMMUTABLE != 0, flags & APPEND != 0)
    }

    /// The extended flags of `ino` (`FS_IOC_FSGETXATTR`).
    ///
    /// # Errors
    /// `ENOTTY` where the layer's filesystem has none.
    pub fn extended_flags(&self, ino: u64) -> Result<FsXattr> {
        let inode = self.inode(ino)?;
        let mut attr = calls::get_xattr_flags(self.open_for_flags(&inode)?.as_fd()).during("read file flags")?;
        let kept = inode.state.read().flags;
        attr.xflags = with_bit(with_bit(attr.xflags, X_IMMUTABLE, kept.immutable), X_APPEND, kept.append_only);
        Ok(attr)
    }

    /// Sets the extended flags of `ino` (`FS_IOC_FSSETXATTR`).
    ///
    /// # Errors
    /// `EROFS`, those of copy-up, and of the layer's filesystem.
    pub fn set_extended_flags(&self, ino: u64, attr: FsXattr) -> Result<()> {
        let inode = self.inode(ino)?;
        self.copy_up(&inode, Data::Later)?;
        let fd = self.open_for_flags(&inode)?;
        let plain = FsXattr { xflags: attr.xflags & !(X_IMMUTABLE | X_APPEND), ..attr };
        calls::set_xattr_flags(fd.as_fd(), plain).during("set file flags")?;
        self.protect(&inode, attr.xflags & X_IMMUTABLE != 0, attr.xflags & X_APPEND != 0)
    }

    fn open_for_flags(&self, inode: &Arc<Inode>) -> Result<OwnedFd> {
        if !matches!(inode.kind, Kind::File | Kind::Dir) {
            return Err(Error::new(Errno::NOTTY, "use file flags"));
        }
        self.with_real(
            inode,
            |at, _| {
                if at.name().is_empty() && inode.is_dir() {
                    calls::openat(at.dir(), ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                } else {
                    at.open_noatime(OFlags::RDONLY | OFlags::NONBLOCK)
                }
            },
            "open for file flags",
        )
    }

    fn protect(&self, inode: &Arc<Inode>, immutable: bool, append_only: bool) -> Result<()> {
        let dialect = self.dialect;
        let kept = inode.state.read().flags;
        if (kept.immutable, kept.append_only) != (immutable, append_only) {
            self.with_real(
                inode,
                |at, _| match protected_letters(immutable, append_only) {
                    Some(letters) => dialect.set(at, Mark::ProtAttr, letters),
                    None => dialect.remove(at, Mark::ProtAttr),
                },
                "set the flags mark",
            )?;
            let mut state = inode.state.write();
            state.flags.immutable = immutable;
            state.flags.append_only = append_only;
        }
        self.touched(inode);
        Ok(())
    }
}

fn with_bit(flags: u32, bit: u32, set: bool) -> u32 {
    if set { flags | bit } else { flags & !bit }
}
