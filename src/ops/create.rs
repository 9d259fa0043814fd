//! Making files, directories, symlinks and nodes.
//!
//! Where nothing is in the way, one call makes the object in its place, with owner, mode and ACL as its filesystem gives
//! them. Over a whiteout, and where its owner is kept aside, it is made in the work directory and takes its place by one
//! rename.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, XattrFlags, makedev};

use crate::acl;
use crate::at::At;
use crate::attr::{Attr, Kind};
use crate::cache::Known;
use crate::calls;
use crate::copy_up::Data;
use crate::error::{Context, Errno, Error, Result};
use crate::handle::Backing;
use crate::inode::{Flags, Inode, State};
use crate::layer::marks::Mark;
use crate::overlay::{Caller, Overlay};
use crate::override_stat::{Kept, real_mode};
use crate::resolve::Found;
use crate::sys::creds::{self, Creds};
use crate::times;

use super::{Opened, check_alive, check_mutable};

/// What is to be made.
#[derive(Debug, Clone, Copy)]
enum What<'a> {
    File(OFlags),
    Dir,
    Symlink(&'a [u8]),
    Node(FileType, (u32, u32)),
}

impl What<'_> {
    /// The type, and the device number of a device node.
    fn kind(self) -> (Kind, (u32, u32)) {
        match self {
            Self::File(_) | Self::Node(FileType::RegularFile, _) => (Kind::File, (0, 0)),
            Self::Dir => (Kind::Dir, (0, 0)),
            Self::Symlink(_) => (Kind::Symlink, (0, 0)),
            Self::Node(FileType::Fifo, _) => (Kind::Fifo, (0, 0)),
            Self::Node(FileType::Socket, _) => (Kind::Socket, (0, 0)),
            Self::Node(FileType::BlockDevice, rdev) => (Kind::Block, rdev),
            Self::Node(_, rdev) => (Kind::Char, rdev),
        }
    }
}

/// A new object's mode, and the umask of who makes it.
#[derive(Debug, Clone, Copy)]
struct Modes {
    mode: u32,
    umask: u32,
}

impl Overlay {
    /// Makes a regular file and opens it with `flags`; returns its attributes, counted as one lookup, and the handle.
    ///
    /// # Errors
    /// `EEXIST`, `ENOENT` in a removed directory, `EPERM` in an immutable one, `EROFS`, those of copy-up and open(2).
    pub fn create(
        &self,
        parent: u64,
        name: &[u8],
        mode: u32,
        umask: u32,
        flags: OFlags,
        caller: Caller,
    ) -> Result<(Attr, Opened)> {
        let access = flags & OFlags::ACCMODE;
        let (inode, attr, fd) = self.make(parent, name, What::File(access), Modes { mode, umask }, caller)?;
        let fd = fd.ok_or(Error::new(Errno::IO, "create"))?;
        let backing = Backing { fd: Arc::new(fd), in_upper: true };
        Ok((attr, self.add_file(inode, access, backing, caller)))
    }

    /// Makes a directory; returns its attributes, counted as one lookup.
    ///
    /// # Errors
    /// As [`Overlay::create`], and those of mkdir(2).
    pub fn mkdir(&self, parent: u64, name: &[u8], mode: u32, umask: u32, caller: Caller) -> Result<Attr> {
        Ok(self.make(parent, name, What::Dir, Modes { mode, umask }, caller)?.1)
    }

    /// Makes a symlink; returns its attributes, counted as one lookup.
    ///
    /// # Errors
    /// As [`Overlay::create`], and those of symlink(2).
    pub fn symlink(&self, parent: u64, name: &[u8], target: &[u8], caller: Caller) -> Result<Attr> {
        let modes = Modes { mode: 0o777, umask: 0 };
        Ok(self.make(parent, name, What::Symlink(target), modes, caller)?.1)
    }

    /// Makes a file, fifo, socket or device node, as the type in `mode` says; returns its attributes, counted as one
    /// lookup.
    ///
    /// # Errors
    /// As [`Overlay::create`], and those of mknod(2); `EPERM` for a device 0:0, which would be a whiteout.
    pub fn mknod(
        &self,
        parent: u64,
        name: &[u8],
        mode: u32,
        umask: u32,
        rdev: (u32, u32),
        caller: Caller,
    ) -> Result<Attr> {
        let node = match Kind::of_mode(mode) {
            Some(Kind::Char) if rdev == (0, 0) => return Err(Error::new(Errno::PERM, "make a whiteout")),
            Some(Kind::File) | None => FileType::RegularFile,
            Some(Kind::Fifo) => FileType::Fifo,
            Some(Kind::Socket) => FileType::Socket,
            Some(Kind::Char) => FileType::CharacterDevice,
            Some(Kind::Block) => FileType::BlockDevice,
            Some(Kind::Dir | Kind::Symlink) => return Err(Error::new(Errno::INVAL, "make a node")),
        };
        Ok(self.make(parent, name, What::Node(node, rdev), Modes { mode, umask }, caller)?.1)
    }

    fn make(
        &self,
        parent: u64,
        name: &[u8],
        what: What<'_>,
        modes: Modes,
        caller: Caller,
    ) -> Result<(Arc<Inode>, Attr, Option<OwnedFd>)> {
        let _distrust = self.distrust_on_panic();
        let (parent, name) = self.place(parent, name)?;
        check_mutable(&parent)?;
        if self.hold(&parent, &name)?.is_some() {
            return Err(Error::new(Errno::EXIST, "create"));
        }
        self.copy_up(&parent, Data::Later)?;
        let dir = self.upper_dir(&parent)?;
        let _entries = parent.entries.lock();
        check_alive(&parent)?;
        let creds = self.creds_of(caller, modes.umask)?;
        let at = At::new(&dir, name.as_bytes()).keeping(self.upper_key());
        let made = if at.keeps() {
            // With its owner, it would not come in one call.
            if at.plain().find().during("look up")?.is_some() { Err(Errno::EXIST) } else { Ok(None) }
        } else {
            creds::assume(creds).during("take the caller's ids")?;
            make_at(dir.as_fd(), name.as_bytes(), what, modes.mode)
        };
        let (fd, over_whiteout) = match made {
            Ok(None) if at.keeps() => (self.make_staged(at, what, modes, creds, false)?, false),
            Ok(fd) => (fd, false),
            // Nothing is shown under the name, so it is a whiteout.
            Err(Errno::EXIST) => (self.make_staged(at, what, modes, creds, true)?, true),
            Err(errno) => return Err(Error::new(errno, "create")),
        };
        let since = self.caches.attrs.now();
        let attr = self
            .finish(&parent, at, what, over_whiteout)
            .inspect_err(|_| self.take_back(&parent, at, what, over_whiteout))?;
        let flags = Flags { setid: attr.is_setid(), ..Flags::default() };
        let state = State { upper: Some(attr.ino), flags, ..State::default() };
        let found = Found { ino: self.numbers.number(&attr), attr, state };
        let (inode, attr) = self.intern(&parent, &name, found);
        self.changed(&parent, name.as_bytes());
        self.caches.names.put(parent.ino, &name, Known::Inode(inode.ino));
        self.keep_attr(&inode, attr, since);
        Ok((inode, attr, fd))
    }

    /// Marks what was made, if need be, and returns its attributes.
    fn finish(&self, parent: &Inode, at: At<'_>, what: What<'_>, over_whiteout: bool) -> Result<Attr> {
        if matches!(what, What::Dir) && !over_whiteout && !parent.state.read().lower_dirs().is_empty() {
            // What comes under this name in a layer below, one day, is not to show through.
            self.dialect.set(at, Mark::Opaque, b"y").during("set the opaque mark")?;
        }
        at.attr().during("stat")
    }

    /// Takes away what was made, and what that did to its directory, as far as that is known.
    fn take_back(&self, parent: &Inode, at: At<'_>, what: What<'_>, over_whiteout: bool) {
        let (dir, is_dir) = (at.dir(), matches!(what, What::Dir));
        let before = self.caches.attrs.get(parent.ino);
        let removed = if over_whiteout {
            self.work().and_then(|work| work.replace_with_whiteout(dir, at.name(), is_dir))
        } else {
            let flags = if is_dir { AtFlags::REMOVEDIR } else { AtFlags::empty() };
            calls::unlinkat(dir, at.name(), flags).during("remove")
        };
        let restore =
            |attr: Attr| At::fd(&dir).set_times(&times::exact(attr.atime, attr.mtime)).during("restore times");
        if let Err(error) = removed.and_then(|()| before.map_or(Ok(()), restore)) {
            log::warn!("{} was made for nothing, and stays: {error}", at.name().escape_ascii());
        }
        self.changed(parent, at.name());
    }

    /// Whose a new file becomes.
    fn creds_of(&self, caller: Caller, umask: u32) -> Result<Creds> {
        let (uid, gid) = self.ids.maker(caller.uid, caller.gid);
        if !self.may_chown && uid != self.owner().0 && self.upper_key().is_none() {
            return Err(Error::new(Errno::PERM, "make a file of another user"));
        }
        Ok(Creds { uid, gid, umask })
    }

    /// Makes the object in the work directory, and puts it under its name in the upper, where there may be a whiteout.
    fn make_staged(
        &self,
        at: At<'_>,
        what: What<'_>,
        modes: Modes,
        mut creds: Creds,
        over_whiteout: bool,
    ) -> Result<Option<OwnedFd>> {
        // What the directory would have done had the object been made in it.
        let (dir, key) = (at.dir(), self.upper_key());
        let parent = At::fd(&dir).keeping(key);
        let parent_attr = parent.attr().during("stat")?;
        let is_dir = matches!(what, What::Dir);
        let has_acl = self.config.acl && !matches!(what, What::Symlink(_));
        let default_acl = if has_acl { parent.xattr(acl::DEFAULT).during("read the default ACL")? } else { None };
        let mut inherited = acl::inherit(default_acl.as_deref(), modes.mode, modes.umask, is_dir);
        if parent_attr.mode & libc::S_ISGID != 0 {
            creds.gid = parent_attr.gid;
            if is_dir {
                inherited.mode |= libc::S_ISGID;
            }
        }
        // A symlink can only belong to whom it belongs.
        let is_kept = key.is_some() && (!matches!(what, What::Symlink(_)) || !self.may_chown);
        let ids = if is_kept { self.owner() } else { (creds.uid, creds.gid) };
        creds::assume(Creds { uid: ids.0, gid: ids.1, umask: 0 }).during("take the caller's ids")?;
        let work = self.work()?;
        let (staged, fd) = match key {
            None => work.stage(|dir, name| make_at(dir, name, what, inherited.mode))?,
            Some(_) => {
                let real = match what {
                    What::Node(..) => What::Node(FileType::RegularFile, (0, 0)),
                    what => what,
                };
                work.stage(|dir, name| make_at(dir, name, real, real_mode(inherited.mode, is_dir)))?
            }
        };
        if let Some(key) = key.filter(|_| !matches!(what, What::Symlink(_))) {
            let kind = Some(what.kind());
            let kept = Kept { uid: creds.uid, gid: creds.gid, mode: inherited.mode & 0o7777, kind };
            staged.at().keep(key, &kept).during("keep the owner")?;
        } else if is_dir && inherited.mode & libc::S_ISGID != 0 {
            // mkdir(2) ignores the bit.
            staged.at().chmod(inherited.mode).during("set the mode")?;
        }
        for (acl, value) in [(acl::ACCESS, &inherited.access), (acl::DEFAULT, &inherited.default)] {
            if let Some(value) = value {
                staged.at().set_xattr(acl, value, XattrFlags::empty()).during("set an ACL")?;
            }
        }
        if is_dir && over_whiteout {
            self.dialect.set(staged.at(), Mark::Opaque, b"y").during("set the opaque mark")?;
        }
        let flags = match (over_whiteout, is_dir) {
            (false, _) => RenameFlags::NOREPLACE,
            (true, true) => RenameFlags::EXCHANGE,
            (true, false) => RenameFlags::empty(),
        };
        staged.commit(dir, at.name(), flags)?;
        Ok(fd)
    }
}

/// Makes the object under `name` in `dir`; a file is returned open.
fn make_at(dir: BorrowedFd<'_>, name: &[u8], what: What<'_>, mode: u32) -> Result<Option<OwnedFd>, Errno> {
    let mode = Mode::from_raw_mode(mode & 0o7777);
    match what {
        What::File(access) => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | access;
            calls::openat(dir, name, flags, mode).map(Some)
        }
        What::Dir => calls::mkdirat(dir, name, mode).map(|()| None),
        What::Symlink(target) => calls::symlinkat(target, dir, name).map(|()| None),
        What::Node(kind, rdev) => calls::mknodat(dir, name, kind, mode, makedev(rdev.0, rdev.1)).map(|()| None),
    }
}
