//! The operations: what a caller can do to the tree. Each is a method of [`Overlay`].

mod attr;
mod create;
mod flags;
mod io;
mod link;
mod lookup;
mod readdir;
mod remove;
mod rename;
mod xattr;

use std::sync::Arc;

use crate::error::{Errno, Error, Result};
use crate::inode::Inode;
use crate::inode::numbers::ROOT;
use crate::name::Name;
use crate::overlay::Overlay;

pub use self::attr::SetAttr;
pub use self::io::Opened;
pub use self::readdir::Entry;

#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    clippy::string_slice,
    clippy::let_underscore_must_use,
    clippy::type_complexity
)]
mod tests;

impl Overlay {
    /// The directory `ino`, and `name` checked.
    fn place(&self, ino: u64, name: &[u8]) -> Result<(Arc<Inode>, Name)> {
        let dir = self.inode(ino)?;
        if !dir.is_dir() {
            return Err(Error::new(Errno::NOTDIR, "find directory"));
        }
        let name = Name::new(name).map_err(|errno| Error::new(errno, "name"))?;
        Ok((dir, name))
    }
}

/// Fails with `ENOENT` when `dir` was removed; to be called with its entries locked.
fn check_alive(dir: &Inode) -> Result<()> {
    if dir.ino != ROOT && dir.state.read().links.as_slice().is_empty() {
        return Err(Error::new(Errno::NOENT, "change a removed directory"));
    }
    Ok(())
}

/// Fails with `EPERM` when no change of `inode` is allowed.
fn check_mutable(inode: &Inode) -> Result<()> {
    if inode.state.read().flags.immutable {
        return Err(Error::new(Errno::PERM, "change an immutable file"));
    }
    Ok(())
}

/// Fails with `EPERM` when no change of `inode` is allowed, or only growing.
fn check_unprotected(inode: &Inode) -> Result<()> {
    check_mutable(inode)?;
    if inode.state.read().flags.append_only {
        return Err(Error::new(Errno::PERM, "change an append-only file"));
    }
    Ok(())
}
