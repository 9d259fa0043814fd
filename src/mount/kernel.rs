//! Mounting and unmounting: by ourselves, or through fusermount3 where that takes more privilege than we have.

use std::ffi::{CString, OsStr, OsString};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, open, statx};
use rustix::mount::{UnmountFlags, unmount as umount2};
use rustix::process::{getgid, getuid};

use crate::config::MountOptions;
use crate::error::Errno;
use crate::mounts;

use super::failure::{Failure, reason};
use super::fusermount;

const DEVICE: &str = "/dev/fuse";
/// What can be done where it cannot be opened, and where it is missing.
const OPEN_IT: &str = "root can open it to users: chmod 666 /dev/fuse";
const LOAD_IT: &str = "as root: modprobe fuse; a container has to be given the device";

/// A mount of ours, at the path that it was mounted at.
#[derive(Debug)]
pub(super) struct Mounted {
    path: PathBuf,
    id: Option<Id>,
}

/// What tells a mount from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Id {
    /// The device number that its files show, which is another filesystem's once ours is gone.
    pub(super) device: (u32, u32),
    /// A number that no other mount ever has, from Linux 6.8 on.
    number: Option<u64>,
}

/// Mounts at `path`, which is a full one, and hands over the device that the kernel will send its requests to.
///
/// # Errors
/// Why it cannot be mounted.
pub(super) fn mount(path: &Path, options: &MountOptions) -> Result<(OwnedFd, Mounted), Failure> {
    let device = match open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
        Ok(device) => match mount_device(&device, path, options) {
            Ok(()) => device,
            Err(Errno::PERM) => {
                // Else the first mount that is made by it would be of this one.
                drop(device);
                fusermount::mount(path, options)?.ok_or_else(|| {
                    Failure::new(format!(
                        "mountpoint {}: no privilege to mount, and no fusermount3 (install the package fuse3)",
                        path.display()
                    ))
                })?
            }
            Err(errno) => return Err(Failure::on("mount on ", path, errno)),
        },
        Err(errno @ Errno::ACCESS) => {
            let mounted = fusermount::mount(path, options).map_err(|failure| match failure.to_string() {
                line if line.contains(DEVICE) => Failure::new(format!("{line} ({OPEN_IT})")),
                _ => failure,
            })?;
            mounted.ok_or_else(|| Failure::new(format!("{DEVICE}: {} ({OPEN_IT})", reason(errno))))?
        }
        Err(errno @ (Errno::NOENT | Errno::NODEV | Errno::NXIO)) => {
            return Err(Failure::new(format!("{DEVICE}: {} ({LOAD_IT})", reason(errno))));
        }
        Err(errno) => return Err(Failure::on("", Path::new(DEVICE), errno)),
    };
    let id = Id::at(path).inspect_err(|errno| log::warn!("{}: cannot be told from others: {errno}", path.display()));
    Ok((device, Mounted { path: path.to_owned(), id: id.ok() }))
}

fn mount_device(device: &OwnedFd, path: &Path, options: &MountOptions) -> Result<(), Errno> {
    let mut data = format!(
        "fd={},rootmode=40000,user_id={},group_id={},default_permissions",
        device.as_raw_fd(),
        getuid().as_raw(),
        getgid().as_raw()
    )
    .into_bytes();
    if options.allow_other || options.allow_root {
        data.extend_from_slice(b",allow_other");
    }
    if let Some(bytes) = options.max_read {
        data.extend_from_slice(format!(",max_read={bytes}").as_bytes());
    }
    for (name, label) in &options.contexts {
        data.extend_from_slice(format!(",{name}=\"").as_bytes());
        data.extend_from_slice(label.as_bytes());
        data.push(b'"');
    }
    let data = CString::new(data).map_err(|_| Errno::INVAL)?;
    let mut kind = OsString::from("fuse.");
    kind.push(&options.subtype);
    rustix::mount::mount(source(options), path, kind, options.flags, data.as_c_str())
}

/// What the list of mounts is to show as the source.
pub(super) fn source(options: &MountOptions) -> &OsStr {
    options.source.as_deref().unwrap_or(OsStr::new("plyfs"))
}

impl Id {
    /// What is mounted at `path`. Asks no daemon.
    pub(super) fn at(path: &Path) -> Result<Self, Errno> {
        /// `STATX_MNT_ID_UNIQUE`
        const UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);
        let stat = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_DONT_SYNC, UNIQUE)?;
        let told = StatxFlags::from_bits_retain(stat.stx_mask).contains(UNIQUE);
        Ok(Self { device: (stat.stx_dev_major, stat.stx_dev_minor), number: told.then_some(stat.stx_mnt_id) })
    }
}

impl Mounted {
    /// Where it is mounted.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The device number that its files show, as far as it is known.
    pub(super) fn device(&self) -> Option<(u32, u32)> {
        self.id.map(|id| id.device)
    }

    /// What the thread that unmounts it is called, by which [`super::umount`] finds the daemon.
    pub(super) fn thread_name(&self) -> String {
        self.device().map_or_else(|| "mount".to_owned(), mounts::thread_name)
    }

    /// Unmounts it, lazily if it is in use. Only to be called while it is being served.
    ///
    /// # Errors
    /// Why it cannot be unmounted.
    pub(super) fn unmount(&self) -> Result<(), Failure> {
        if self.id.is_some() && Id::at(&self.path).ok() != self.id {
            return Err(Failure::new(format!("{}: something else is mounted over it", self.path.display())));
        }
        unmount(&self.path, false).or_else(|_| unmount(&self.path, true))
    }

    /// Takes away what nobody serves any more, if it is still there.
    pub(super) fn clear(&self) {
        // By its device number alone, which is free again with the mount, another could be taken for it.
        if self.id.is_some_and(|id| id.number.is_some())
            && let Err(failure) = self.take_away()
        {
            log::warn!("{failure}");
        }
    }

    /// Unmounts it lazily, if it is still there and nothing is mounted over it. Asks no daemon.
    ///
    /// # Errors
    /// Why it cannot be unmounted.
    pub(super) fn take_away(&self) -> Result<(), Failure> {
        if self.id.is_some_and(|id| Id::at(&self.path) == Ok(id)) { unmount(&self.path, true) } else { Ok(()) }
    }
}

/// Unmounts what is mounted at `path`.
///
/// # Errors
/// Why it cannot be unmounted.
pub(super) fn unmount(path: &Path, lazily: bool) -> Result<(), Failure> {
    let flags = if lazily { UnmountFlags::NOFOLLOW | UnmountFlags::DETACH } else { UnmountFlags::NOFOLLOW };
    match umount2(path, flags) {
        Ok(()) => Ok(()),
        Err(errno @ Errno::PERM) => match fusermount::unmount(path, lazily) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Failure::on("", path, errno)),
            Err(failure) => Err(failure),
        },
        Err(errno) => Err(Failure::on("", path, errno)),
    }
}

/// The value with a backslash before what separates options.
pub(super) fn escaped(value: &OsStr) -> OsString {
    let mut escaped = Vec::with_capacity(value.len());
    for &byte in value.as_bytes() {
        if matches!(byte, b',' | b'\\') {
            escaped.push(b'\\');
        }
        escaped.push(byte);
    }
    OsString::from_vec(escaped)
}
