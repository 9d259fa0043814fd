//! What is being made: a directory of its own, which is published by one rename or goes away.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{self, FlockOperation, Mode, RenameFlags};

use crate::error::{Context, Errno, Error, Result};

use super::{Lock, Store, open_dir, remove};

/// A staged directory, removed when dropped unless it was published.
#[derive(Debug)]
pub struct Staging<'s> {
    store: &'s Store,
    name: Option<String>,
    /// Locked: it is being worked in.
    dir: OwnedFd,
}

impl Store {
    /// Makes a staged directory. The lock has to be held, as otherwise it could be taken for one that was left behind.
    ///
    /// # Errors
    /// Those of mkdirat(2).
    pub fn stage(&self, _lock: &Lock) -> Result<Staging<'_>> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let named = |errno| Error::new(errno, "stage").on(format!("store {}", self.path().display()));
        loop {
            let name = format!("{}.{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            let path = format!("staging/{name}");
            match fs::mkdirat(self.dir(), path.as_str(), Mode::RWXU) {
                // Another process of this number, in another namespace, left it.
                Err(Errno::EXIST) => continue,
                result => result.map_err(named)?,
            }
            let dir = open_dir(self.dir(), path.as_bytes()).map_err(named)?;
            fs::flock(&dir, FlockOperation::NonBlockingLockExclusive).map_err(named)?;
            return Ok(Staging { store: self, name: Some(name), dir });
        }
    }

    /// Removes staged directories that nobody works in any more. The lock has to be held.
    ///
    /// # Errors
    /// Those of removing them.
    pub fn clean_staging(&self, _lock: &Lock) -> Result<()> {
        let staging = self.sub("staging")?;
        for name in self.list("staging")? {
            let is_used = open_dir(staging.as_fd(), name.as_bytes())
                .is_ok_and(|dir| fs::flock(&dir, FlockOperation::NonBlockingLockExclusive).is_err());
            if !is_used {
                remove::tree(staging.as_fd(), name.as_bytes()).during("clean the store")?;
            }
        }
        Ok(())
    }
}

impl Staging<'_> {
    /// The directory.
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.store.path().join("staging").join(self.name.as_deref().unwrap_or_default())
    }

    /// Publishes it at `path` of the store, in one step, and hands over the directory, which stays locked.
    ///
    /// # Errors
    /// `EEXIST` where there is one; those of renameat2(2). Then it is removed.
    pub fn publish(mut self, path: &str) -> Result<OwnedFd, Errno> {
        let name = self.name.as_deref().unwrap_or_default();
        let staged = format!("staging/{name}");
        fs::renameat_with(self.store.dir(), staged, self.store.dir(), path, RenameFlags::NOREPLACE)?;
        self.name = None;
        self.dir.try_clone().map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
    }
}

impl Drop for Staging<'_> {
    fn drop(&mut self) {
        if let Some(name) = &self.name
            && let Ok(staging) = self.store.sub("staging")
            && let Err(errno) = remove::tree(staging.as_fd(), name.as_bytes())
        {
            // Whoever publishes next tries again.
            log::warn!("cannot remove {}: {errno}", self.path().display());
        }
    }
}
