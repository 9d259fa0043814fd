//! Hard links.

use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, RenameFlags};

use crate::at::At;
use crate::attr::Attr;
use crate::cache::Known;
use crate::calls::linkat;
use crate::copy_up::Data;
use crate::error::{Errno, Error, Result};
use crate::inode::Link;
use crate::overlay::Overlay;

use super::{check_alive, check_mutable, check_unprotected};

impl Overlay {
    /// Gives `ino` a further name; returns its attributes, counted as one lookup.
    ///
    /// # Errors
    /// `EPERM` for directories and protected files, `EEXIST`, `EMLINK`, `EROFS`, those of copy-up and link(2).
    pub fn link(&self, ino: u64, parent: u64, name: &[u8]) -> Result<Attr> {
        let _distrust = self.distrust_on_panic();
        let inode = self.inode(ino)?;
        let (parent, name) = self.place(parent, name)?;
        if inode.is_dir() {
            return Err(Error::new(Errno::PERM, "link a directory"));
        }
        check_unprotected(&inode)?;
        check_mutable(&parent)?;
        if self.hold(&parent, &name)?.is_some() {
            return Err(Error::new(Errno::EXIST, "link"));
        }
        self.copy_up(&inode, Data::Later)?;
        self.copy_up(&parent, Data::Later)?;
        self.mark_link_count(&inode)?;
        let known = {
            let state = inode.state.read();
            state.links.as_slice().first().filter(|_| state.data().is_some()).cloned()
        };
        if let Some(link) = known {
            // The new name may lie in another directory.
            self.set_redirect(&inode, &link.parent, &link.name, false)?;
        }
        let work = self.work()?;
        let before = self.attr_of(&inode)?;
        let dir = self.upper_dir(&parent)?;
        if inode.state.read().flags.has_origin {
            self.mark_impure(&parent, dir.as_fd())?;
        }
        let _entries = parent.entries.lock();
        check_alive(&parent)?;
        let link_to = |from: At<'_>, to: std::os::fd::BorrowedFd<'_>, name: &[u8]| {
            if from.name().is_empty() {
                // Only what never had a name may get one again; Linux decides.
                use std::os::fd::AsRawFd;
                let path = format!("/proc/self/fd/{}", from.dir().as_raw_fd());
                linkat(CWD, path, to, name, AtFlags::SYMLINK_FOLLOW)
            } else {
                linkat(from.dir(), from.name(), to, name, AtFlags::empty())
            }
        };
        let in_place = self.with_real(
            &inode,
            |from, _| match link_to(from, dir.as_fd(), name.as_bytes()) {
                // Nothing is shown under the name, so it is a whiteout.
                Err(Errno::EXIST) => Ok(false),
                result => result.map(|()| true),
            },
            "link",
        )?;
        if !in_place {
            let staged = self.with_real(
                &inode,
                |from, _| {
                    work.stage(|dir, name| link_to(from, dir, name)).map(|(staged, ())| staged).map_err(|e| e.errno())
                },
                "link",
            )?;
            staged.commit(dir.as_fd(), name.as_bytes(), RenameFlags::empty())?;
        }
        let mut state = inode.state.write();
        state.links.add(Link { parent: Arc::clone(&parent), name: name.clone(), in_upper: true });
        if let Some(nlink) = state.extra.as_mut().and_then(|extra| extra.nlink.as_mut()) {
            *nlink = nlink.saturating_add(1);
        }
        drop(state);
        self.touched(&inode);
        self.changed(&parent, name.as_bytes());
        self.caches.names.put(parent.ino, &name, Known::Inode(inode.ino));
        let attr = self.attr_of(&inode).unwrap_or_else(|error| {
            log::warn!("the attributes of a new link are told from memory: {error}");
            Attr { nlink: before.nlink.saturating_add(1), is_volatile: true, ..before }
        });
        self.table.look_up(inode);
        Ok(attr)
    }
}
