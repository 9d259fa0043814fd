//! Removing names: whiteouts where a layer below shows something.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::AtFlags;

use crate::at::At;
use crate::cache::{DirKey, Known};
use crate::calls::unlinkat;
use crate::copy_up::Data;
use crate::error::{Context, Errno, Error, Result};
use crate::inode::{Inode, State};
use crate::layer::marks::Mark;
use crate::name::Name;
use crate::overlay::Overlay;

use super::{check_alive, check_unprotected};

impl Overlay {
    /// Removes a name that is no directory.
    ///
    /// # Errors
    /// `ENOENT`, `EISDIR`, `EPERM` for protected files, `EROFS`, those of copy-up and unlink(2).
    pub fn unlink(&self, parent: u64, name: &[u8]) -> Result<()> {
        self.remove(parent, name, false)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR`, `ENOTEMPTY`, `EPERM` for protected ones, `EROFS`, those of copy-up and rmdir(2).
    pub fn rmdir(&self, parent: u64, name: &[u8]) -> Result<()> {
        self.remove(parent, name, true)
    }

    fn remove(&self, parent: u64, name: &[u8], is_dir: bool) -> Result<()> {
        let _distrust = self.distrust_on_panic();
        let (parent, name) = self.place(parent, name)?;
        let inode = self.hold(&parent, &name)?.ok_or(Error::new(Errno::NOENT, "remove"))?;
        match (is_dir, inode.is_dir()) {
            (true, false) => return Err(Error::new(Errno::NOTDIR, "rmdir")),
            (false, true) => return Err(Error::new(Errno::ISDIR, "unlink")),
            _ => {}
        }
        check_unprotected(&parent)?;
        check_unprotected(&inode)?;
        if is_dir && !self.list(&inode)?.is_empty() {
            return Err(Error::new(Errno::NOTEMPTY, "rmdir"));
        }
        self.copy_up(&parent, Data::Later)?;
        self.begin_link_change(&inode, &parent, &name)?;
        let work = self.work()?;
        let dir = self.upper_dir(&parent)?;
        let _entries = parent.entries.lock();
        check_alive(&parent)?;
        let hides = self.lower_shows(&parent, &name)?;
        let mut state = inode.state.write();
        let link = state.links.find(&parent, name.as_bytes()).ok_or(Error::new(Errno::NOENT, "remove"))?;
        let in_upper = if is_dir { state.upper.is_some() } else { link.in_upper };
        let at = At::new(&dir, name.as_bytes());
        let orphan = (in_upper && state.links.as_slice().len() == 1).then(|| self.hold_orphan(at)).flatten();
        match (in_upper, hides) {
            (false, _) => drop(work.place_whiteout(dir.as_fd(), name.as_bytes())?),
            (true, true) => work.replace_with_whiteout(dir.as_fd(), name.as_bytes(), is_dir)?,
            (true, false) => {
                let flags = if is_dir { AtFlags::REMOVEDIR } else { AtFlags::empty() };
                match unlinkat(&dir, name.as_bytes(), flags) {
                    // Whiteouts are left in it.
                    Err(Errno::NOTEMPTY | Errno::EXIST) if is_dir => work.discard(dir.as_fd(), name.as_bytes())?,
                    result => result.during("remove")?,
                }
            }
        }
        self.drop_link(&inode, &mut state, &parent, &name, orphan);
        drop(state);
        if is_dir {
            self.caches.dirs.remove(&DirKey::Upper(inode.ino));
            self.caches.listings.remove(inode.ino);
        }
        self.touched(&inode);
        self.changed(&parent, name.as_bytes());
        self.caches.names.put(parent.ino, &name, Known::Missing);
        Ok(())
    }

    /// Prepares a change of an inode's link count: a lower hard link is copied up, as the count that is left has to be
    /// kept in the index, and the count in the mark is made relative to the upper's.
    ///
    /// # Errors
    /// Those of copy-up.
    pub(super) fn begin_link_change(&self, inode: &Arc<Inode>, parent: &Arc<Inode>, name: &Name) -> Result<()> {
        if inode.is_dir() {
            return Ok(());
        }
        if inode.state.read().upper.is_none() {
            if self.attr_of(inode)?.nlink <= 1 {
                return Ok(());
            }
            self.copy_up_by(inode, parent, name)?;
        }
        self.link_up(inode, parent, name)?;
        self.mark_link_count(inode)
    }

    /// Makes the link count mark of an indexed inode relative to the upper's count, which changes with it from now on.
    ///
    /// # Errors
    /// Those of setxattr(2).
    pub(crate) fn mark_link_count(&self, inode: &Arc<Inode>) -> Result<()> {
        let state = inode.state.read();
        let Some(nlink) = state.nlink() else { return Ok(()) };
        let dialect = self.dialect;
        self.with_real_of(
            inode,
            &state,
            |at, _| {
                let difference = i64::from(nlink).saturating_sub(i64::from(at.attr()?.nlink));
                dialect.set(at, Mark::Nlink, format!("U{difference:+}").as_bytes())
            },
            "set the link count mark",
        )
    }

    /// Notes that a name of an inode is gone, and what is left of it.
    pub(super) fn drop_link(
        &self,
        inode: &Arc<Inode>,
        state: &mut State,
        parent: &Inode,
        name: &Name,
        orphan: Option<Arc<OwnedFd>>,
    ) {
        state.links.remove(parent, name.as_bytes());
        if !self.dialect.marks(inode.kind)
            && state.links.as_slice().is_empty()
            && let (Some(layer), Some(upper)) = (&self.stack.upper, state.upper)
        {
            // A name that is not known yet may be left.
            let left = orphan.as_ref().and_then(|fd| At::fd(fd).attr().ok());
            if left.is_none_or(|attr| attr.nlink == 0) {
                self.unmarked.remove(layer.attr.dev, upper);
            }
        }
        if let Some(orphan) = orphan {
            state.extra_mut().orphan = Some(orphan);
        }
        let Some(extra) = &mut state.extra else { return };
        let Some(nlink) = &mut extra.nlink else { return };
        *nlink = nlink.saturating_sub(1);
        if *nlink == 0
            && let (Some(index), Some(work)) = (extra.index.take(), &self.work)
        {
            log::debug!("inode {} is gone from the index", inode.ino);
            work.remove_index(&index);
        }
    }
}
