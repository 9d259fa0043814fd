//! Making whiteouts: as the kernel does where the filesystem allows it, else in the forms that need no device node.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, XattrFlags};

use crate::at::At;
use crate::calls;
use crate::error::{Context, Errno, Error, Result};
use crate::layer::marks::{DOT_WHITEOUT, Dialect, Mark};

use super::WorkDir;

/// In which form deleted names are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhiteoutStyle {
    /// A character device 0:0.
    Device,
    /// An empty file with an `overlay.whiteout` attribute, in a directory with `overlay.opaque` set to `x`.
    Xattr,
    /// An empty file `.wh.NAME`.
    DotFile,
}

/// The name of the file that hides `name` in the style of [`WhiteoutStyle::DotFile`].
pub(super) fn dot_name(name: &[u8]) -> Vec<u8> {
    [DOT_WHITEOUT, name].concat()
}

/// The first style that the filesystem allows.
pub(super) fn choose_style(work: &OwnedFd, dialect: Dialect) -> WhiteoutStyle {
    let probe = b"#probe".as_slice();
    let made = calls::mknodat(work, probe, FileType::CharacterDevice, Mode::empty(), 0);
    let style = match made {
        Ok(()) => WhiteoutStyle::Device,
        Err(errno) => {
            log::info!("the upper's filesystem takes no whiteout devices ({errno}), others are used");
            let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
            let file = calls::openat(work, probe, flags, Mode::RUSR | Mode::WUSR);
            let marked = file.and_then(|_| dialect.set(At::new(work, probe), Mark::Whiteout, b"y"));
            if marked.is_ok() { WhiteoutStyle::Xattr } else { WhiteoutStyle::DotFile }
        }
    };
    if let Err(errno) = calls::unlinkat(work, probe, AtFlags::empty()) {
        log::debug!("no probe to remove from the work directory: {errno}");
    }
    style
}

impl WorkDir {
    /// Hides `name`, which has no entry in `dir` of the upper. Whether it was not hidden before.
    ///
    /// # Errors
    /// `EEXIST` when it has one; those of linkat(2) and mknodat(2).
    pub fn place_whiteout(&self, dir: BorrowedFd<'_>, name: &[u8]) -> Result<bool> {
        match self.style {
            WhiteoutStyle::Device => self.link_whiteout(dir, name).during("make a whiteout")?,
            WhiteoutStyle::Xattr => {
                self.mark_directory(dir)?;
                self.stage_whiteout()?.commit(dir, name, RenameFlags::NOREPLACE)?;
            }
            WhiteoutStyle::DotFile => {
                let is_new = make_dot_file(dir, name)?;
                self.whiteouts.add(is_new.into());
                return Ok(is_new);
            }
        }
        self.whiteouts.add(1);
        Ok(true)
    }

    /// Takes a file `.wh.NAME` away again that hides `name`; should that fail, it hides nothing of the upper.
    pub fn take_whiteout_back(&self, dir: BorrowedFd<'_>, name: &[u8]) {
        if let Err(errno) = calls::unlinkat(dir, dot_name(name), AtFlags::empty()) {
            log::warn!("cannot take back the whiteout of {}: {errno}", name.escape_ascii());
        }
    }

    /// Hides `name`, replacing its entry in `dir` of the upper; a directory is taken away with all that it holds.
    ///
    /// # Errors
    /// Those of renameat2(2), linkat(2) and mknodat(2).
    pub fn replace_with_whiteout(&self, dir: BorrowedFd<'_>, name: &[u8], is_dir: bool) -> Result<()> {
        let flags = if is_dir { RenameFlags::EXCHANGE } else { RenameFlags::empty() };
        match self.style {
            WhiteoutStyle::Device => self.stage_whiteout()?.commit(dir, name, flags)?,
            WhiteoutStyle::Xattr => {
                self.mark_directory(dir)?;
                self.stage_whiteout()?.commit(dir, name, flags)?;
            }
            WhiteoutStyle::DotFile => {
                let is_new = make_dot_file(dir, name)?;
                self.discard(dir, name).inspect_err(|_| {
                    if is_new {
                        self.take_whiteout_back(dir, name);
                    }
                })?;
            }
        }
        self.whiteouts.add(1);
        Ok(())
    }

    /// Prepares `dir` for a whiteout that is moved into it.
    ///
    /// # Errors
    /// Those of setxattr(2).
    pub fn allow_whiteouts(&self, dir: BorrowedFd<'_>) -> Result<()> {
        match self.style {
            WhiteoutStyle::Xattr => self.mark_directory(dir),
            WhiteoutStyle::Device | WhiteoutStyle::DotFile => Ok(()),
        }
    }

    /// Whether `dir` may hold whiteouts: an opaque one has none by xattr.
    ///
    /// # Errors
    /// Those of getxattr(2).
    pub fn takes_whiteouts(&self, dir: BorrowedFd<'_>) -> Result<bool> {
        if self.style != WhiteoutStyle::Xattr {
            return Ok(true);
        }
        let mark = At::fd(&dir).xattr(&self.dialect.name(Mark::Opaque)).during("read the opaque mark")?;
        Ok(mark.as_deref() != Some(b"y"))
    }

    /// A whiteout in the work directory, ready to be published.
    ///
    /// # Errors
    /// Those of linkat(2) and mknodat(2).
    pub fn stage_whiteout(&self) -> Result<super::Staged<'_>> {
        if self.style == WhiteoutStyle::Device {
            return self.stage(|dir, name| self.link_whiteout(dir, name)).map(|(staged, ())| staged);
        }
        let (staged, _) = self.stage(|dir, name| {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            // Without privilege, a `user.` attribute takes the right to write.
            calls::openat(dir, name, flags, Mode::RUSR | Mode::WUSR)
        })?;
        self.dialect.set(staged.at(), Mark::Whiteout, b"y").during("mark a whiteout")?;
        Ok(staged)
    }

    /// Makes a hard link of the shared whiteout: one syscall, and one inode for them all.
    fn link_whiteout(&self, dir: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
        if self.links_whiteouts.load(Ordering::Relaxed) {
            let mut shared = self.shared_whiteout.lock();
            if let Some(first) = shared.as_deref() {
                match calls::linkat(&self.work, first, dir, name, AtFlags::empty()) {
                    // Too many links: the next one starts a new inode.
                    Err(Errno::MLINK) => {}
                    Err(Errno::PERM | Errno::OPNOTSUPP | Errno::XDEV) => {
                        self.links_whiteouts.store(false, Ordering::Relaxed);
                    }
                    result => return result,
                }
            }
            if self.links_whiteouts.load(Ordering::Relaxed) {
                let first = self.unused_name();
                make_device(self.work.as_fd(), &first)?;
                let result = calls::linkat(&self.work, first.as_slice(), dir, name, AtFlags::empty());
                let old = shared.replace(first);
                if let Some(old) = old {
                    calls::unlinkat(&self.work, old, AtFlags::empty())?;
                }
                if result.is_ok() || result == Err(Errno::EXIST) {
                    return result;
                }
            }
        }
        make_device(dir, name)
    }

    /// Notes that `dir` may hold xattr whiteouts.
    fn mark_directory(&self, dir: BorrowedFd<'_>) -> Result<()> {
        let at = At::fd(&dir);
        let name = self.dialect.name(Mark::Opaque);
        let set = at.xattr(&name).during("read the opaque mark")?;
        if set.as_deref() == Some(b"y") {
            // An opaque directory hides everything anyway; there is nothing below to be whited out.
            return Err(Error::new(Errno::IO, "make a whiteout").because("the directory is opaque"));
        }
        if set.as_deref() == Some(b"x") {
            return Ok(());
        }
        at.set_xattr(&name, b"x", XattrFlags::empty()).during("mark a directory of whiteouts")
    }
}

fn make_device(dir: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    calls::mknodat(dir, name, FileType::CharacterDevice, Mode::empty(), 0)
}

/// Whether there was none.
fn make_dot_file(dir: BorrowedFd<'_>, name: &[u8]) -> Result<bool> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    match calls::openat(dir, dot_name(name), flags, Mode::RUSR | Mode::RGRP | Mode::ROTH) {
        Ok(_) => Ok(true),
        // From an earlier time: what was made in its place does not take it away.
        Err(Errno::EXIST) => Ok(false),
        Err(errno) => Err(Error::new(errno, "make a whiteout")),
    }
}
