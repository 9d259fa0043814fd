//! An overlay to be read without a mount, by directories and names.

use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::OFlags;

use crate::at::split_names;
use crate::attr::{Attr, Kind};
use crate::config::{Config, RedirectDir};
use crate::error::{Errno, Result};
use crate::inode::numbers::ROOT;
use crate::overlay::{Caller, Overlay};
use crate::sys::creds::is_privileged;

use super::Changed;

/// Who reads: ourselves.
const READER: Caller = Caller { uid: 0, gid: 0, pid: 0 };

/// A tree that does not change.
#[derive(Debug)]
pub(super) struct View(Arc<Overlay>);

/// An object of a tree.
#[derive(Debug, Clone, Copy)]
pub(super) struct Object {
    /// Its number in the tree.
    pub(super) ino: u64,
    pub(super) attr: Attr,
}

impl View {
    /// The tree that the layers show, topmost first.
    pub(super) fn open(layers: Vec<PathBuf>) -> Result<Self> {
        let config = Config {
            lowers: layers,
            read_only: true,
            redirect_dir: RedirectDir::On,
            metacopy: is_privileged(),
            ..Config::default()
        };
        Overlay::open(&config).map(Self)
    }

    /// The tree that an upper shows over the layers below it.
    pub(super) fn of(changed: &Changed) -> Result<Self> {
        if changed.work.is_none() {
            return Self::open([&changed.upper].into_iter().chain(&changed.lowers).cloned().collect());
        }
        let config = Config {
            lowers: changed.lowers.clone(),
            upper: Some(changed.upper.clone()),
            work: changed.work.clone(),
            read_only: true,
            redirect_dir: RedirectDir::On,
            metacopy: is_privileged(),
            ..Config::default()
        };
        Overlay::open(&config).map(Self)
    }

    /// Whether the upper or its index holds the object.
    pub(super) fn is_copied(&self, ino: u64) -> Result<bool> {
        Ok(self.0.inode(ino)?.state.read().upper.is_some())
    }

    /// Whether owners are kept aside.
    pub(super) fn keeps_owners(&self) -> bool {
        self.0.keeps_owners()
    }

    pub(super) fn root(&self) -> Result<Object> {
        Ok(Object { ino: ROOT, attr: self.0.getattr(ROOT)? })
    }

    /// The entry `name` of a directory.
    pub(super) fn find(&self, dir: u64, name: &[u8]) -> Result<Option<Object>> {
        Ok(self.0.lookup(dir, name)?.map(|attr| Object { ino: attr.ino, attr }))
    }

    /// The object at `path`, with slashes between its components.
    pub(super) fn at(&self, path: &[u8]) -> Result<Option<Object>> {
        let mut object = self.root()?;
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            if object.attr.kind() != Kind::Dir {
                return Ok(None);
            }
            match self.find(object.ino, name)? {
                Some(next) => object = next,
                None => return Ok(None),
            }
        }
        Ok(Some(object))
    }

    /// The names in a directory, in order.
    pub(super) fn names(&self, dir: u64) -> Result<Vec<Vec<u8>>> {
        let mut names = Vec::new();
        self.0.read_dir(dir, 0, false, |entry| {
            if !matches!(entry.name, b"." | b"..") {
                names.push(entry.name.to_vec());
            }
            // There is always room for more.
            false
        })?;
        names.sort_unstable();
        Ok(names)
    }

    pub(super) fn target(&self, ino: u64) -> Result<Vec<u8>> {
        self.0.readlink(ino)
    }

    /// The extended attributes, in the order of their names.
    pub(super) fn xattrs(&self, ino: u64) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let list = self.0.listxattr(ino, READER)?;
        let mut xattrs = Vec::new();
        for name in split_names(&list) {
            match self.0.getxattr(ino, name) {
                Ok(value) => xattrs.push((name.to_vec(), value)),
                Err(error) if error.errno() == Errno::NODATA => {}
                Err(error) => return Err(error),
            }
        }
        xattrs.sort_unstable();
        Ok(xattrs)
    }

    /// Opens a file for reading.
    pub(super) fn read(&self, ino: u64) -> Result<Reading<'_>> {
        let opened = self.0.open_file(ino, OFlags::RDONLY, READER)?;
        Ok(Reading { overlay: &self.0, file: opened.file })
    }
}

/// An open file.
pub(super) struct Reading<'v> {
    overlay: &'v Overlay,
    file: u64,
}

impl Reading<'_> {
    pub(super) fn at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        self.overlay.read(self.file, offset, buffer)
    }

    /// Where the next data (or hole) begins, from `offset` on; `None` where there is none.
    pub(super) fn seek(&self, offset: u64, hole: bool) -> Result<Option<u64>> {
        match self.overlay.seek(self.file, offset, hole) {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.errno() == Errno::NXIO => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.overlay.release(self.file) {
            log::debug!("{error}");
        }
    }
}
