//! The work directory: where changes are staged before one rename publishes them.
//!
//! Laid out as the kernel does: `WORKDIR/work` for what is being made, `WORKDIR/index` for lower hard links.

mod clean;
mod index;
mod whiteout;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::sleep;
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, RenameFlags, XattrFlags, flock};
use rustix::thread::{CapabilitySet, capabilities};

use crate::at::At;
use crate::calls;
use crate::counters::Count;
use crate::error::{Context, Errno, Error, Result};
use crate::lock::{Mutex, rank};
use crate::override_stat::Key;

use super::marks::{Dialect, Mark};
use super::{Layer, subject};

pub use self::whiteout::WhiteoutStyle;

/// How long a mount waits for the one before it to let go of the upper.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
const LOCK_INTERVAL: Duration = Duration::from_millis(10);

/// The work directory of a mount.
#[derive(Debug)]
pub struct WorkDir {
    base: OwnedFd,
    work: OwnedFd,
    index: OwnedFd,
    dialect: Dialect,
    style: WhiteoutStyle,
    /// By which attribute the upper keeps owners.
    key: Option<Key>,
    next: AtomicU64,
    /// The name in `work` of the whiteout that all others are hard links to.
    shared_whiteout: Mutex<Option<Vec<u8>>, { rank::WHITEOUT }>,
    /// The filesystem makes hard links of device nodes.
    links_whiteouts: AtomicBool,
    /// Whiteouts that were made.
    pub whiteouts: Count,
    /// Held as long as the mount lives, so that no second one writes to the same upper.
    _locks: [OwnedFd; 2],
}

impl WorkDir {
    /// The directory itself.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.base.as_fd()
    }

    /// Takes `path` as the work directory of `upper` and empties it.
    ///
    /// Marks are written in `dialect`, or in the one that the filesystem and our privilege allow. Whiteouts are made in
    /// `style`, or in the first that the filesystem allows. With `bound_to`, the lower layers, the upper and the index are
    /// bound to them and to each other.
    ///
    /// # Errors
    /// `ESTALE` for an upper, an index and lower layers that do not belong together, `EBUSY` while another mount uses either directory, `EXDEV` when they cannot be renamed between, `EINVAL` after
    /// an unclean end of a volatile mount, `EOPNOTSUPP` where no extended attributes can be set.
    pub fn open(
        path: &Path,
        upper: &Layer,
        dialect: Option<Dialect>,
        style: Option<WhiteoutStyle>,
        volatile: bool,
        bound_to: Option<&[Layer]>,
    ) -> Result<Self> {
        let named = |operation| move |errno| Error::new(errno, operation).on(subject("workdir", path));
        let base = open_dir(CWD, path).map_err(named("open"))?;
        let locks = [lock(upper.root(), "upperdir", &upper.path)?, lock(base.as_fd(), "workdir", path)?];
        if let Some(old) = open_subdir(base.as_fd(), "work").map_err(named("open"))?
            && holds_entries(&old, "incompat").map_err(named("open"))?
        {
            return Err(named("open")(Errno::INVAL).because(
                "it was left by a volatile mount that may have lost data; if that does not matter, remove its \
                 directory work/incompat",
            ));
        }
        clean::remove(base.as_fd(), b"work").map_err(named("clean"))?;
        let work = make_dir(base.as_fd(), b"work").map_err(named("make work in"))?;
        let index = make_dir(base.as_fd(), b"index").map_err(named("make index in"))?;
        check_rename(&work, upper).map_err(named("rename from"))?;
        let dialect = choose_dialect(At::fd(&work), dialect).map_err(|errno| {
            Error::new(errno, "open").on(subject("upperdir", &upper.path)).because(
                "its filesystem takes no extended attributes for whiteouts and opaque directories (try userxattr)",
            )
        })?;
        if let Some(lowers) = bound_to {
            index::bind(&index, upper, lowers, dialect)?;
        }
        if volatile {
            let incompat = make_dir(work.as_fd(), b"incompat").map_err(named("make incompat in"))?;
            let volatile = make_dir(incompat.as_fd(), b"volatile").map_err(named("make incompat in"))?;
            let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
            calls::openat(volatile, "dirty", flags, Mode::empty()).map_err(named("make incompat in"))?;
        }
        let style = match style {
            Some(style) => style,
            None => whiteout::choose_style(&work, dialect),
        };
        Ok(Self {
            base,
            work,
            index,
            dialect,
            style,
            key: upper.key,
            next: AtomicU64::new(0),
            shared_whiteout: Mutex::new(None),
            links_whiteouts: AtomicBool::new(true),
            whiteouts: Count::default(),
            _locks: locks,
        })
    }

    /// The dialect in which marks are written.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// How whiteouts are made.
    pub fn whiteout_style(&self) -> WhiteoutStyle {
        self.style
    }

    /// The directory in which things are staged.
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.work.as_fd()
    }

    /// The directory that holds copied-up hard links, by the handle of their lower inode.
    pub fn index(&self) -> BorrowedFd<'_> {
        self.index.as_fd()
    }

    /// Removes an entry of the index, which nothing needs any more; should that fail, it does no harm.
    pub fn remove_index(&self, name: &[u8]) {
        if let Err(errno) = calls::unlinkat(&self.index, name, AtFlags::empty()) {
            log::warn!("cannot remove {} from the index: {errno}", name.escape_ascii());
        }
    }

    /// Makes something under a name of its own: `make` is called with the work directory and that name.
    ///
    /// # Errors
    /// Those of `make`; then nothing is left behind.
    pub fn stage<T>(&self, make: impl FnOnce(BorrowedFd<'_>, &[u8]) -> Result<T, Errno>) -> Result<(Staged<'_>, T)> {
        let name = self.unused_name();
        let made = make(self.work.as_fd(), &name).during("stage in the work directory")?;
        Ok((Staged { work: self, name: Some(name) }, made))
    }

    fn unused_name(&self) -> Vec<u8> {
        format!("#{:x}", self.next.fetch_add(1, Ordering::Relaxed)).into_bytes()
    }

    /// Takes what lies under a name of ours as staged, so that it is removed; for what a rename put there.
    fn adopt(&self, name: Vec<u8>) -> Staged<'_> {
        Staged { work: self, name: Some(name) }
    }

    /// Moves an entry out of the tree into the work directory, in one step, and removes it from there.
    ///
    /// # Errors
    /// Those of renameat2(2).
    pub fn discard(&self, dir: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
        let staged_name = self.unused_name();
        calls::renameat(dir, name, &self.work, staged_name.as_slice(), RenameFlags::NOREPLACE)
            .during("move to the work directory")?;
        drop(self.adopt(staged_name));
        Ok(())
    }

    /// Removes all that is left, after the last operation.
    ///
    /// # Errors
    /// Those of unlinkat(2).
    pub fn close(&self) -> Result<(), Errno> {
        if At::new(&self.work, b"incompat").find()?.is_some() {
            return Ok(());
        }
        *self.shared_whiteout.lock() = None;
        clean::empty(self.work.as_fd())?;
        calls::fsync(open_dir(self.base.as_fd(), ".")?)
    }
}

/// Something in the work directory, removed when dropped unless it was committed.
#[derive(Debug)]
pub struct Staged<'w> {
    work: &'w WorkDir,
    name: Option<Vec<u8>>,
}

impl Staged<'_> {
    /// What was staged.
    pub fn at(&self) -> At<'_> {
        At::new(&self.work.work, self.name.as_deref().unwrap_or_default()).keeping(self.work.key)
    }

    /// Publishes it as `name` in `dir`, in one step, and takes what was there in its stead.
    ///
    /// # Errors
    /// Those of renameat2(2); then nothing has changed.
    pub fn exchange(&self, dir: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
        let staged = self.name.as_deref().unwrap_or_default();
        calls::renameat(&self.work.work, staged, dir, name, RenameFlags::EXCHANGE).during("publish")
    }

    /// Publishes it as `name` in `dir`, in one step.
    ///
    /// With [`RenameFlags::EXCHANGE`], what was there before is taken into the work directory and removed.
    ///
    /// # Errors
    /// Those of renameat2(2); then nothing has changed and what was staged is removed.
    pub fn commit(mut self, dir: BorrowedFd<'_>, name: &[u8], flags: RenameFlags) -> Result<()> {
        let staged = self.name.as_deref().unwrap_or_default();
        calls::renameat(&self.work.work, staged, dir, name, flags).during("publish")?;
        if !flags.contains(RenameFlags::EXCHANGE) {
            self.name = None;
        }
        Ok(())
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        if let Some(name) = &self.name
            && let Err(errno) = clean::remove(self.work.work.as_fd(), name)
        {
            // The next mount empties the work directory.
            log::warn!("cannot remove {} from the work directory: {errno}", name.escape_ascii());
        }
    }
}

/// The index in the work directory at `path`, to be read only: nothing is locked, and nothing made.
///
/// # Errors
/// Those of openat(2). One that is not there is none; nor is one that we may not look into, and that is told.
pub fn open_index(path: &Path) -> Result<Option<OwnedFd>> {
    let named = |errno| Error::new(errno, "open").on(subject("workdir", path));
    let base = match open_dir(CWD, path) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        base => base.map_err(named)?,
    };
    let mut index = open_subdir(base.as_fd(), "index");
    // With privilege, it was made with no bits at all.
    if matches!(index, Err(Errno::ACCESS)) && At::new(&base, b"index").chmod(Mode::RWXU.as_raw_mode()).is_ok() {
        index = open_subdir(base.as_fd(), "index");
    }
    if let Err(errno @ Errno::ACCESS) = index {
        log::warn!("{}: {errno}: hard links that were copied up are not told", subject("workdir", path));
        return Ok(None);
    }
    index.map_err(named)
}

/// Removes `name` and what is below it from the directory `dir` of a work directory.
///
/// # Errors
/// Those of openat(2) and unlinkat(2).
pub fn remove_leftover(work: BorrowedFd<'_>, dir: &str, name: &[u8]) -> Result<(), Errno> {
    match open_subdir(work, dir)? {
        Some(dir) => clean::remove(dir.as_fd(), name),
        None => Ok(()),
    }
}

fn open_dir(dir: BorrowedFd<'_>, path: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    calls::openat(dir, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Opens the directory `name`; none if it is something else, as a symlink that leads out of the work directory.
fn open_subdir(dir: BorrowedFd<'_>, name: &str) -> Result<Option<OwnedFd>, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match calls::openat(dir, name, flags, Mode::empty()) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        opened => opened.map(Some),
    }
}

/// Whether `name` is a directory with something in it.
fn holds_entries(dir: &OwnedFd, name: &str) -> Result<bool, Errno> {
    let Some(found) = open_subdir(dir.as_fd(), name)? else { return Ok(false) };
    for entry in calls::list(found)? {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(true);
        }
    }
    Ok(false)
}

fn make_dir(dir: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    // As the kernel's, it is nobody's to look into; without privilege we need the bits ourselves.
    let overrides = capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::DAC_OVERRIDE));
    let mode = if overrides { Mode::empty() } else { Mode::RWXU };
    let is_there = match calls::mkdirat(dir, name, mode) {
        Ok(()) => false,
        Err(Errno::EXIST) => true,
        Err(errno) => return Err(errno),
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = calls::openat(dir, name, flags, Mode::empty())?;
    if is_there {
        At::fd(&made).chmod(mode.as_raw_mode())?;
    }
    Ok(made)
}

/// Locks the directory `path`, which `option` names, against mounts for as long as the result lives.
///
/// # Errors
/// `EBUSY` while a mount uses it.
pub fn lock(dir: BorrowedFd<'_>, option: &str, path: &Path) -> Result<OwnedFd> {
    let named = |errno| Error::new(errno, "lock").on(subject(option, path));
    let fd = open_dir(dir, ".").map_err(named)?;
    let mut waited = Duration::ZERO;
    loop {
        match flock(&fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(fd),
            // A daemon whose mount is gone may still be cleaning up.
            Err(Errno::WOULDBLOCK) if waited < LOCK_PATIENCE => {
                sleep(LOCK_INTERVAL);
                waited = waited.saturating_add(LOCK_INTERVAL);
            }
            Err(Errno::WOULDBLOCK) => return Err(named(Errno::BUSY).because("in use by another mount")),
            Err(errno) => return Err(named(errno)),
        }
    }
}

/// Renames between work directory and upper must be possible: one filesystem, reached by one mount.
fn check_rename(work: &OwnedFd, upper: &Layer) -> Result<(), Errno> {
    let probe = b"#probe";
    calls::mkdirat(work, probe.as_slice(), Mode::RWXU)?;
    // Renaming a directory onto the upper's root itself cannot succeed, but crossing a mount is noticed before that.
    let result = calls::renameat(work, probe.as_slice(), upper.root(), ".", RenameFlags::empty());
    calls::unlinkat(work, probe.as_slice(), AtFlags::REMOVEDIR)?;
    if result == Err(Errno::XDEV) { Err(Errno::XDEV) } else { Ok(()) }
}

fn choose_dialect(at: At<'_>, wanted: Option<Dialect>) -> Result<Dialect, Errno> {
    let works = |dialect: Dialect| {
        let name = dialect.name(Mark::Opaque);
        at.set_xattr(&name, b"0", XattrFlags::empty())?;
        at.remove_xattr(&name)
    };
    match wanted {
        Some(dialect) => works(dialect).map(|()| dialect),
        None => match works(Dialect::Trusted) {
            Ok(()) => Ok(Dialect::Trusted),
            Err(_) => works(Dialect::User).map(|()| Dialect::User),
        },
    }
}
