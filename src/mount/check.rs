//! What can be told to be wrong before anything is mounted, in plainer words than an errno.

use std::fs::canonicalize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, openat, statx};

use crate::config::Config;
use crate::error::Errno;

use super::failure::Failure;

/// The full path of a mount point, which is a directory.
///
/// # Errors
/// What is wrong with it.
pub(super) fn mountpoint(path: &Path) -> Result<PathBuf, Failure> {
    let named = |errno| Failure::on("mountpoint ", path, errno);
    open(CWD, path).map_err(named)?;
    canonicalize(path).map_err(|error| named(Errno::from_io_error(&error).unwrap_or(Errno::IO)))
}

/// Checks that upper and work directory go together, and that no lower layer lies in them.
///
/// # Errors
/// What is wrong with them.
pub(super) fn layers(config: &Config) -> Result<(), Failure> {
    let (Some(upper), Some(work)) = (&config.upper, &config.work) else { return Ok(()) };
    let upper_dir = Dir::open("upperdir=", upper)?;
    let work_dir = Dir::open("workdir=", work)?;
    let wrong =
        |what: &str| Err(Failure::new(format!("workdir={}: {what} upperdir {}", work.display(), upper.display())));
    if upper_dir.id.device != work_dir.id.device {
        return wrong("not on the filesystem of");
    }
    if upper_dir.mount != work_dir.mount {
        return wrong("not under the same mount as");
    }
    if upper_dir.id == work_dir.id {
        return wrong("the same directory as");
    }
    if work_dir.is_inside(&upper_dir) {
        return wrong("inside of");
    }
    if upper_dir.is_inside(&work_dir) {
        return wrong("holds");
    }
    for lower in config.lowers.iter().chain(&config.data_layers) {
        let dir = Dir::open("lowerdir=", lower)?;
        for (option, path, writable) in [("upperdir", upper, &upper_dir), ("workdir", work, &work_dir)] {
            // What is written to the one would change the other. That an upper lies in a lower layer does no harm.
            if dir.id == writable.id || dir.is_inside(writable) {
                let line = format!("lowerdir={}: inside of {option} {}", lower.display(), path.display());
                return Err(Failure::new(line));
            }
        }
    }
    Ok(())
}

/// A directory, and what it is known by.
struct Dir {
    fd: OwnedFd,
    id: Id,
    /// Which mount it was reached through, where the kernel tells.
    mount: Option<u64>,
}

#[derive(PartialEq, Eq)]
struct Id {
    device: (u32, u32),
    inode: u64,
}

impl Dir {
    fn open(option: &str, path: &Path) -> Result<Self, Failure> {
        open(CWD, path).and_then(Self::new).map_err(|errno| Failure::on(option, path, errno))
    }

    fn new(fd: OwnedFd) -> Result<Self, Errno> {
        let wanted = StatxFlags::INO | StatxFlags::MNT_ID;
        let stat = statx(&fd, "", AtFlags::EMPTY_PATH, wanted)?;
        let told = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::MNT_ID);
        let id = Id { device: (stat.stx_dev_major, stat.stx_dev_minor), inode: stat.stx_ino };
        Ok(Self { fd, id, mount: told.then_some(stat.stx_mnt_id) })
    }

    /// Whether it is below `other`, as far as its parents may be looked at.
    fn is_inside(&self, other: &Self) -> bool {
        let parent = |dir: &Self| open(dir.fd.as_fd(), Path::new("..")).and_then(Self::new).ok();
        let mut below = parent(self);
        let mut last = None;
        while let Some(dir) = below {
            if dir.id == other.id {
                return true;
            }
            // The root is its own parent.
            if last.as_ref() == Some(&dir.id) {
                return false;
            }
            below = parent(&dir);
            last = Some(dir.id);
        }
        false
    }
}

fn open(dir: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Errno> {
    openat(dir, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}
