//! Metacopies: files of which only the attributes were copied up, and whose data follows when it is to change.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{OFlags, XattrFlags};

use crate::at::At;
use crate::attr::{Attr, Kind};
use crate::calls;
use crate::error::{Context, Errno, Error, Result};
use crate::inode::{DataAt, Inode};
use crate::layer::LowerDir;
use crate::layer::marks::Mark;
use crate::name::Name;
use crate::overlay::Overlay;
use crate::override_stat::CAPABILITY;
use crate::times;

use super::Data;

impl Overlay {
    /// Opens the data of a metacopy for reading.
    ///
    /// # Errors
    /// Those of openat(2); `ENOENT` where no data-only layer has it.
    pub(crate) fn open_data(&self, at: &DataAt) -> Result<OwnedFd> {
        match at {
            DataAt::Lower(dir, name, _) => {
                let dir = self.lower_dir(dir)?;
                At::new(&dir, name.as_bytes()).open_noatime(OFlags::RDONLY).during("open the data of a metacopy")
            }
            DataAt::DataOnly(path) => {
                for root in &self.data_roots {
                    if let Some(data) = self.open_data_in(root, path)? {
                        return Ok(data);
                    }
                }
                Err(Error::new(Errno::NOENT, "open the data of a metacopy"))
            }
        }
    }

    /// The file at `path` in one layer. Neither marks nor symlinks count on the way.
    ///
    /// # Errors
    /// Those of the layer.
    pub(crate) fn open_data_in(&self, root: &Arc<LowerDir>, path: &[Name]) -> Result<Option<OwnedFd>> {
        let mut dir = Arc::clone(root);
        for (index, name) in path.iter().enumerate() {
            let fd = self.lower_dir(&dir)?;
            let at = At::new(&fd, name.as_bytes());
            let is_last = index.saturating_add(1) == path.len();
            match at.find().during("look up the data of a metacopy")?.map(|attr| attr.kind()) {
                Some(Kind::Dir) if !is_last => dir = LowerDir::child(&dir, name.clone(), false),
                Some(Kind::File) if is_last => {
                    return at.open_noatime(OFlags::RDONLY).during("open the data of a metacopy").map(Some);
                }
                _ => return Ok(None),
            }
        }
        Ok(None)
    }

    /// Copies the data of a metacopy to where its attributes are.
    ///
    /// In place, as its names and its number are to stay. The mark goes last: until then the data is read where it was,
    /// whatever has been written here.
    ///
    /// # Errors
    /// Whatever keeps the data from being complete; then it stays a metacopy.
    pub(super) fn complete(&self, inode: &Arc<Inode>, data: Data) -> Result<()> {
        let Some(source) = inode.state.read().data().cloned() else { return Ok(()) };
        log::debug!("copy the data of inode {} up", inode.ino);
        let file = self.with_real(inode, |at, _| at.open(OFlags::RDWR), "open for copy-up")?;
        let copy = At::fd(&file).keeping(self.upper_key());
        let before = copy.attr().during("stat")?;
        let capability = copy.xattr(CAPABILITY).during("read an attribute")?;
        let copied = match data {
            Data::Drop => calls::ftruncate(&file, 0).during("truncate the copy"),
            Data::Keep | Data::Later => self.fill(&file, &source, before.size),
        };
        // Writing moves times and may take bits away, neither of which is the caller's doing.
        let restored = restore(copy, &before, capability.as_deref());
        if let Err(error) = copied.and(restored) {
            // Gives the space back.
            if let Err(errno) = calls::ftruncate(&file, 0).and_then(|()| calls::ftruncate(&file, before.size)) {
                log::warn!("cannot empty a copy that failed: {errno}");
            }
            restore(copy, &before, capability.as_deref())?;
            return Err(error);
        }
        let mut state = inode.state.write();
        self.dialect.remove(copy, Mark::Metacopy).during("remove the metacopy mark")?;
        state.set_data(None);
        drop(state);
        self.touched(inode);
        Ok(())
    }

    fn fill(&self, file: &OwnedFd, source: &DataAt, size: u64) -> Result<()> {
        let source = self.open_data(source)?;
        self.copy_data(&source, file, size)?;
        // A source that is longer may have been taken whole.
        calls::ftruncate(file, size).during("size the copy")?;
        if self.syncs() {
            calls::fsync(file).during("sync the copy")?;
        }
        Ok(())
    }
}

/// Gives a file back what writing its data has changed.
fn restore(file: At<'_>, before: &Attr, capability: Option<&[u8]>) -> Result<()> {
    if file.attr().during("stat")?.mode != before.mode {
        file.chmod(before.mode).during("restore the mode")?;
    }
    if let Some(value) = capability
        && file.xattr(CAPABILITY).during("read an attribute")?.as_deref() != Some(value)
    {
        file.set_xattr(CAPABILITY, value, XattrFlags::empty()).during("restore the capability")?;
    }
    file.set_times(&times::exact(before.atime, before.mtime)).during("restore the times")
}
