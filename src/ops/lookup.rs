//! Looking up names, attributes, symlinks, and the filesystem's figures.

use std::sync::Arc;

use rustix::fs::StatVfs;

use crate::attr::{Attr, Kind};
use crate::calls::fstatvfs;
use crate::error::{Context, Errno, Error, Result};
use crate::inode::Inode;
use crate::overlay::Overlay;

impl Overlay {
    /// The attributes of `name` in the directory `parent`, which counts as a lookup; `None` where there is none.
    ///
    /// # Errors
    /// `ENAMETOOLONG`, `ENOTDIR`, and those of the layers.
    pub fn lookup(&self, parent: u64, name: &[u8]) -> Result<Option<Attr>> {
        let (parent, name) = self.place(parent, name)?;
        Ok(self.look_up(&parent, &name)?.map(|(_, attr)| attr))
    }

    /// The attributes of `ino`.
    ///
    /// # Errors
    /// Those of statx(2).
    pub fn getattr(&self, ino: u64) -> Result<Attr> {
        self.attr_of(&self.inode(ino)?)
    }

    /// The attributes of an inode, from the cache where they are known.
    pub(crate) fn attr_of(&self, inode: &Arc<Inode>) -> Result<Attr> {
        if let Some(attr) = self.caches.attrs.get(inode.ino) {
            return Ok(attr);
        }
        let since = self.caches.attrs.now();
        let state = inode.state.read();
        let attr = self.with_real_of(inode, &state, |at, _| at.attr(), "stat")?;
        let attr = self.shown(inode, &state, attr);
        self.keep_attr(inode, attr, since);
        Ok(attr)
    }

    /// The target of the symlink `ino`.
    ///
    /// # Errors
    /// `EINVAL` for anything else; those of readlinkat(2).
    pub fn readlink(&self, ino: u64) -> Result<Vec<u8>> {
        let inode = self.inode(ino)?;
        if inode.kind != Kind::Symlink {
            return Err(Error::new(Errno::INVAL, "readlink"));
        }
        self.with_real(&inode, |at, _| at.read_link(), "readlink")
    }

    /// Sizes of the upper's filesystem, or of the topmost lower's.
    ///
    /// # Errors
    /// Those of statfs(2).
    pub fn statfs(&self) -> Result<StatVfs> {
        let top = self.stack.upper.iter().chain(&self.stack.lowers).next();
        let top = top.ok_or(Error::new(Errno::IO, "statfs"))?;
        // A descriptor without O_PATH is not needed since Linux 3.12.
        fstatvfs(top.root()).during("statfs")
    }
}
