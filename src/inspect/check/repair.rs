//! Mending: each by one call that leaves the upper as consistent as it was, or more so.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, OFlags};

use crate::at::At;
use crate::calls;
use crate::error::{Context, Errno, Error, Result};
use crate::image::unpack::beneath;
use crate::layer::marks::Mark;
use crate::layer::work::remove_leftover;

use super::Check;

/// How something is mended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fix {
    /// Take a mark away.
    Remove(Vec<u8>, Mark),
    /// Set a mark.
    Set(Vec<u8>, Mark, Vec<u8>),
    /// Have a directory that leads nowhere hide what lies below it, as it did, and take its redirect away.
    Detach(Vec<u8>),
    /// Remove what lies in a directory of the work directory.
    Leftover(&'static str, Vec<u8>),
    /// Remove an entry of the index.
    Unindex(Vec<u8>),
    /// Link a file of the upper into the index.
    Index(Vec<u8>, Vec<u8>),
}

impl Fix {
    /// Whether it is right only if the lower layers are.
    pub(super) fn goes_by_lowers(&self) -> bool {
        matches!(self, Self::Detach(_) | Self::Unindex(_))
    }
}

impl Check {
    pub(super) fn mend(&self, fix: &Fix) -> Result<()> {
        match fix {
            Fix::Remove(path, mark) => self.with(path, |at| self.dialect.remove(at, *mark).during("remove a mark")),
            Fix::Set(path, mark, value) => {
                self.with(path, |at| self.dialect.set(at, *mark, value).during("set a mark"))
            }
            Fix::Detach(path) => self.with(path, |at| {
                // In this order: in between, the directory shows the same.
                self.dialect.set(at, Mark::Opaque, b"y").during("set a mark")?;
                self.dialect.remove(at, Mark::Redirect).during("remove a mark")
            }),
            Fix::Leftover(dir, name) => {
                remove_leftover(work(&self.work)?.as_fd(), dir, name).during("remove a leftover")
            }
            Fix::Unindex(name) => {
                calls::unlinkat(work(&self.index)?, name.as_slice(), AtFlags::empty()).during("remove an index entry")
            }
            Fix::Index(path, name) => self.with(path, |at| {
                calls::linkat(at.dir(), at.name(), work(&self.index)?, name.as_slice(), AtFlags::empty())
                    .or_else(|errno| if errno == Errno::EXIST { Ok(()) } else { Err(errno) })
                    .during("link into the index")
            }),
        }
    }

    /// Calls `f` with the object at `path` of the upper.
    fn with<T>(&self, path: &[u8], f: impl FnOnce(At<'_>) -> Result<T>) -> Result<T> {
        if path.is_empty() {
            return f(At::fd(&self.upper));
        }
        let (parent, name) = beneath::split(path);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let parent = beneath::open(self.upper.as_fd(), parent, flags).during("open a directory of the upper")?;
        f(At::new(&parent, name))
    }
}

fn work(dir: &Option<OwnedFd>) -> Result<&OwnedFd> {
    dir.as_ref().ok_or_else(|| Error::new(Errno::INVAL, "open the work directory"))
}
