//! Layers in the store: found, used, published, taken away.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{self, FlockOperation, Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::error::{Errno, Error, Result};
use crate::image::digest::Digest;
use crate::image::unpack::Unpacked;
use crate::image::unpack::form::Owners;
use crate::image::verify;

use super::staging::Staging;
use super::{Lock, Store, open_dir, remove, to_json};

/// What is known of a layer besides its files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// The digest of its tar stream.
    pub diff_id: Digest,
    /// Bytes of its tar stream.
    pub size: u64,
    /// Entries of its tar stream.
    pub entries: u64,
    /// It says which attributes the root directory has.
    pub has_root: bool,
    /// Whose its files are.
    pub owners: Owners,
    /// The boot of the machine that it was unpacked in, as long as nobody has seen that it reached the disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
}

/// The boot of the machine that this is, if the kernel tells.
fn this_boot() -> Option<String> {
    Some(std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned())
}

/// A layer that is in use: as long as this lives, in this process or a child of it, nobody takes the layer away.
#[derive(Debug)]
pub struct LayerRef {
    /// What is known of it.
    pub info: Info,
    /// What is to be mounted.
    pub root: PathBuf,
    dir: OwnedFd,
}

impl LayerRef {
    /// Its root directory.
    ///
    /// # Errors
    /// Those of openat(2).
    pub fn open_root(&self) -> Result<OwnedFd, Errno> {
        open_dir(self.dir.as_fd(), b"root")
    }

    /// The record of its tar stream.
    ///
    /// # Errors
    /// Those of openat(2).
    pub fn stream(&self) -> Result<File, Errno> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        fs::openat(&self.dir, "stream", flags, Mode::empty()).map(File::from)
    }

    /// Hands over what keeps the layer from being taken away.
    pub fn into_lock(self) -> OwnedFd {
        self.dir
    }
}

fn place(id: &Digest) -> String {
    format!("layers/{}", id.hex())
}

impl Store {
    /// The layer with this diff ID, to be used; `None` where there is none.
    ///
    /// # Errors
    /// Those of openat(2); what is wrong with its record.
    pub fn layer(&self, id: &Digest) -> Result<Option<LayerRef>> {
        let place = place(id);
        loop {
            let named = |errno| Error::new(errno, "open").on(self.path().join(&place).display().to_string());
            let dir = match open_dir(self.dir(), place.as_bytes()) {
                Err(Errno::NOENT) => return Ok(None),
                dir => dir.map_err(named)?,
            };
            match fs::flock(&dir, FlockOperation::LockShared) {
                Err(Errno::INTR) => continue,
                result => result.map_err(named)?,
            }
            let Some(info) = self.read_record::<Info>(&format!("{place}/layer.json"))? else {
                // It was taken away before we had the lock, or somebody took away what makes it whole.
                if open_dir(self.dir(), place.as_bytes()).is_ok() {
                    return Err(named(Errno::NOENT).because("it is not whole (plyfs image verify --repair)"));
                }
                continue;
            };
            // The one that we locked may be gone, and another in its place.
            let now = open_dir(self.dir(), place.as_bytes());
            let inode = |fd: &OwnedFd| fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino));
            if now.and_then(|now| Ok(inode(&now)? == inode(&dir)?)) != Ok(true) {
                continue;
            }
            let layer = LayerRef { info, root: self.path().join(&place).join("root"), dir };
            return if layer.info.boot.is_none() || layer.info.boot == this_boot() {
                Ok(Some(layer))
            } else {
                self.after_boot(layer)
            };
        }
    }

    /// Checks a layer that was unpacked before the machine was started anew: what was in memory only, when it stopped, is
    /// lost. Waiting for the disk with each import would take longer than the import.
    fn after_boot(&self, layer: LayerRef) -> Result<Option<LayerRef>> {
        let id = layer.info.diff_id;
        let wrong = verify::layer(&layer)?;
        let lock = self.lock_loudly()?;
        if let Some(line) = wrong.first() {
            log::warn!("layer {id} was lost when the machine stopped ({line})");
            drop(layer);
            self.remove_layer(&id, &lock)?;
            return Ok(None);
        }
        let layer = LayerRef { info: Info { boot: None, ..layer.info }, ..layer };
        self.write_record(&format!("{}/layer.json", place(&id)), &layer.info)?;
        Ok(Some(layer))
    }

    /// Publishes an unpacked layer, and hands it over to be used; one that is there already wins.
    ///
    /// # Errors
    /// Those of writing it to the disk and of renameat2(2).
    pub fn publish_layer(&self, staging: Staging<'_>, unpacked: &Unpacked, owners: Owners) -> Result<LayerRef> {
        let info = Info {
            diff_id: unpacked.diff_id,
            size: unpacked.size,
            entries: unpacked.entries,
            has_root: unpacked.has_root,
            owners,
            boot: Some(this_boot().unwrap_or_default()),
        };
        let path = staging.path().join("layer.json");
        std::fs::write(&path, to_json(&info)?)?;
        let lock = self.lock_loudly()?;
        let place = place(&info.diff_id);
        match staging.publish(&place) {
            Ok(dir) => {
                fs::flock(&dir, FlockOperation::LockShared)?;
                drop(lock);
                Ok(LayerRef { info, root: self.path().join(&place).join("root"), dir })
            }
            Err(Errno::EXIST) => {
                drop(lock);
                self.layer(&info.diff_id)?.ok_or_else(|| Error::new(Errno::NOENT, "open").on(place))
            }
            Err(errno) => Err(Error::new(errno, "publish").on(place)),
        }
    }

    /// Takes a layer away, unless it is in use: then tells `false`. The lock has to be held.
    ///
    /// # Errors
    /// Those of renameat2(2) and of removing it.
    pub fn remove_layer(&self, id: &Digest, lock: &Lock) -> Result<bool> {
        let place = place(id);
        let named = |errno| Error::new(errno, "remove").on(self.path().join(&place).display().to_string());
        let dir = match open_dir(self.dir(), place.as_bytes()) {
            Err(Errno::NOENT) => return Ok(true),
            dir => dir.map_err(named)?,
        };
        match fs::flock(&dir, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => return Ok(false),
            result => result.map_err(named)?,
        }
        // Half a layer is never seen under its name.
        let staging = self.stage(lock)?;
        fs::renameat(self.dir(), place.as_str(), staging.dir(), "layer").map_err(named)?;
        remove::tree(staging.dir(), b"layer").map_err(named)?;
        Ok(true)
    }

    /// The diff IDs of all layers.
    ///
    /// # Errors
    /// Those of listing them.
    pub fn layers(&self) -> Result<Vec<Digest>> {
        Ok(self.list("layers")?.iter().filter_map(|hex| Digest::from_hex(hex)).collect())
    }
}
