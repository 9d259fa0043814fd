//! The store: unpacked layers by diff ID, configs by digest, images by name, containers.
//!
//! ```text
//! STORE/plyfs-store              the store's format
//!       lock                     held while names and layers are published or taken away
//!       layers/HEX/root          what is mounted
//!                 /stream        the rest of the tar stream (tar/record.rs)
//!                 /layer.json    what else is known of the layer
//!       blobs/HEX                configs
//!       images/NAME.json         names
//!       containers/NAME/         upper, work, container.json
//!       staging/                 what is not whole yet
//! ```
//!
//! Whatever is made here is made in `staging` and published by one rename. Who uses a layer, a container or a staged
//! directory holds a lock on it (flock(2)), which goes with the process: what is left in `staging` without one is of
//! somebody who was killed, and is removed by the next who publishes something.

pub mod gc;
pub mod image;
pub mod layer;
pub mod remove;
pub mod staging;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{self, AtFlags, FlockOperation, Mode, OFlags};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Errno, Error, Result};

/// What the file `plyfs-store` says.
const FORMAT: &[u8] = b"plyfs store, format 1\n";
/// How long to wait for another process before saying so, and between two tries.
const PATIENCE: Duration = Duration::from_secs(1);
const INTERVAL: Duration = Duration::from_millis(20);
/// The largest record of a store, in bytes.
const RECORD: u64 = 64 << 20;

/// A store.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    dir: OwnedFd,
}

/// The store's lock, while it is held.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code)] OwnedFd);

/// Where the store is unless told: `PLYFS_STORE`, or a place for data of the machine or of the user.
///
/// # Errors
/// `ENOENT` where nobody says what the user's home is.
pub fn default_path() -> Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(path) = set("PLYFS_STORE") {
        return Ok(path);
    }
    if rustix::process::geteuid().is_root() && crate::sys::creds::is_privileged() {
        return Ok("/var/lib/plyfs".into());
    }
    let data = set("XDG_DATA_HOME").or_else(|| set("HOME").map(|home| home.join(".local/share")));
    data.map(|data| data.join("plyfs")).ok_or_else(|| {
        Error::new(Errno::NOENT, "open").on("store").because("neither PLYFS_STORE nor HOME is set (--store)")
    })
}

impl Store {
    /// Opens the store at `path`, which is made if it is not there.
    ///
    /// # Errors
    /// Those of open(2) and mkdir(2); `EINVAL` for a directory that is something else.
    pub fn open(path: &Path) -> Result<Self> {
        let named = |errno| Error::new(errno, "open").on(format!("store {}", path.display()));
        std::fs::create_dir_all(path).map_err(|error| named(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
        let path = path.canonicalize().map_err(|error| named(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
        let dir =
            fs::open(&path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(named)?;
        let store = Self { path, dir };
        match store.read_file(b"plyfs-store") {
            Ok(format) if format == FORMAT => {}
            Ok(_) => return Err(named(Errno::INVAL).because("a store of another format")),
            Err(Errno::NOENT) => store.format().map_err(|error| named(error.errno()).because(error.to_string()))?,
            Err(errno) => return Err(named(errno)),
        }
        Ok(store)
    }

    fn format(&self) -> Result<()> {
        for entry in fs::Dir::read_from(&self.dir)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            let is_ours = [&b"."[..], b"..", b"layers", b"blobs", b"images", b"containers", b"staging", b"lock"];
            if !is_ours.contains(&name) {
                return Err(Error::new(Errno::NOTEMPTY, "make a store").because("there is something else in it"));
            }
        }
        fs::fchmod(&self.dir, Mode::RWXU)?;
        for name in ["layers", "blobs", "images", "containers", "staging"] {
            match fs::mkdirat(&self.dir, name, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        let _lock = self.lock(|| {})?;
        self.write_file(b"plyfs-store", FORMAT)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its directory.
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Waits for the store's lock; `wait` is called once when that takes long.
    ///
    /// # Errors
    /// Those of open(2) and flock(2).
    pub fn lock(&self, wait: impl FnOnce()) -> Result<Lock> {
        let named = |errno| Error::new(errno, "lock").on(format!("store {}", self.path.display()));
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
        let fd = fs::openat(&self.dir, "lock", flags, Mode::RUSR | Mode::WUSR).map_err(named)?;
        let start = Instant::now();
        let mut wait = Some(wait);
        loop {
            match fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Lock(fd)),
                Err(Errno::WOULDBLOCK | Errno::INTR) => {
                    if start.elapsed() > PATIENCE
                        && let Some(wait) = wait.take()
                    {
                        wait();
                    }
                    sleep(INTERVAL);
                }
                Err(errno) => return Err(named(errno)),
            }
        }
    }

    /// Waits for the store's lock, and says so where that takes long.
    ///
    /// # Errors
    /// As [`Store::lock`].
    pub fn lock_loudly(&self) -> Result<Lock> {
        self.lock(|| log::warn!("{}: waiting for another plyfs", self.path.display()))
    }

    /// A directory of the store.
    ///
    /// # Errors
    /// Those of openat(2).
    pub fn sub(&self, name: &str) -> Result<OwnedFd> {
        open_dir(self.dir.as_fd(), name.as_bytes())
            .map_err(|errno| Error::new(errno, "open").on(self.path.join(name).display().to_string()))
    }

    /// The names in a directory of the store, in order.
    ///
    /// # Errors
    /// Those of openat(2) and getdents(2).
    pub fn list(&self, name: &str) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::Dir::read_from(self.sub(name)?)? {
            let entry = entry?;
            // Whatever is no text was not made by us.
            if let Ok(name) = entry.file_name().to_str()
                && !name.starts_with('.')
            {
                names.push(name.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    /// Reads the record at `path`; `None` where there is none.
    ///
    /// # Errors
    /// Those of open(2) and read(2); `EINVAL` for what is no such record.
    pub fn read_record<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>> {
        let named = |errno| Error::new(errno, "read").on(self.path.join(path).display().to_string());
        match self.read_file(path.as_bytes()) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map(Some).map_err(|error| named(Errno::INVAL).because(error.to_string()))
            }
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(named(errno)),
        }
    }

    /// Publishes a record at `path`, in one step. The lock has to be held.
    ///
    /// # Errors
    /// Those of open(2), write(2) and rename(2).
    pub fn write_record(&self, path: &str, record: &impl Serialize) -> Result<()> {
        self.write_file(path.as_bytes(), &to_json(record)?)
    }

    /// The bytes of the file at `path`.
    ///
    /// # Errors
    /// Those of open(2) and read(2); `EFBIG` for one that is no record of ours.
    pub fn read_file(&self, path: &[u8]) -> Result<Vec<u8>, Errno> {
        let file = fs::openat(&self.dir, path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let mut bytes = Vec::new();
        let result = File::from(file).take(RECORD).read_to_end(&mut bytes);
        result.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        if bytes.len() as u64 == RECORD { Err(Errno::FBIG) } else { Ok(bytes) }
    }

    /// Publishes a file at `path`, in one step. The lock has to be held.
    ///
    /// # Errors
    /// Those of open(2), write(2), fsync(2) and rename(2).
    pub fn write_file(&self, path: &[u8], bytes: &[u8]) -> Result<()> {
        let shown = || self.path.join(std::ffi::OsStr::from_bytes(path)).display().to_string();
        let named = |errno| Error::new(errno, "write").on(shown());
        // One at a time: the lock is held.
        let staged = "staging/record";
        let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::CLOEXEC;
        let fd = fs::openat(&self.dir, staged, flags, Mode::RUSR | Mode::WUSR).map_err(named)?;
        let mut file = File::from(fd);
        let written = file.write_all(bytes).and_then(|()| file.sync_data());
        written.map_err(|error| named(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
        fs::renameat(&self.dir, staged, &self.dir, path).map_err(named)
    }

    /// Removes the file at `path`, if it is there.
    ///
    /// # Errors
    /// Those of unlink(2).
    pub fn remove_file(&self, path: &str) -> Result<()> {
        match fs::unlinkat(&self.dir, path, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(Error::new(errno, "remove").on(self.path.join(path).display().to_string())),
        }
    }
}

/// Opens the directory `name` in `dir`.
///
/// # Errors
/// Those of openat(2).
pub fn open_dir(dir: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    fs::openat(dir, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// A record as JSON, for people to read as well.
///
/// # Errors
/// `EINVAL` for what has no JSON.
pub fn to_json(record: &impl Serialize) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(record)
        .map_err(|error| Error::new(Errno::INVAL, "write a record").because(error.to_string()))?;
    bytes.push(b'\n');
    Ok(bytes)
}
