//! Changing attributes.

use std::sync::Arc;

use rustix::fs::OFlags;

use crate::attr::{Attr, Kind};
use crate::calls::ftruncate;
use crate::copy_up::{Data, Gate};
use crate::error::{Context, Errno, Error, Result};
use crate::inode::Inode;
use crate::overlay::{Caller, Overlay};
use crate::sys::creds;
use crate::times::{self, NewTime};

use super::{check_mutable, check_unprotected};

/// What is to change; `None` stays.
#[derive(Debug, Clone, Copy, Default)]
pub struct SetAttr {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Size, in bytes.
    pub size: Option<u64>,
    /// Time of last access.
    pub atime: Option<NewTime>,
    /// Time of last change.
    pub mtime: Option<NewTime>,
}

impl SetAttr {
    /// Only times, and only to the current one, as a plain `touch` asks for.
    fn is_touch(&self) -> bool {
        let now = |time: Option<NewTime>| matches!(time, None | Some(NewTime::Now));
        self.mode.is_none()
            && self.uid.is_none()
            && self.gid.is_none()
            && self.size.is_none()
            && now(self.atime)
            && now(self.mtime)
    }
}

impl Overlay {
    /// Changes attributes of `ino`, and returns all of them. `file` is the handle by which it is truncated, if any.
    ///
    /// # Errors
    /// `EPERM` for immutable and append-only files, `EROFS`, those of copy-up and of the calls that set attributes.
    pub fn setattr(&self, ino: u64, set: &SetAttr, file: Option<u64>, caller: Caller) -> Result<Attr> {
        let inode = self.inode(ino)?;
        if set.is_touch() {
            check_mutable(&inode)?
        } else {
            check_unprotected(&inode)?
        }
        let data = match set.size {
            None => Data::Later,
            Some(0) => Data::Drop,
            Some(_) => Data::Keep,
        };
        self.copy_up(&inode, data)?;
        let gate = self.gate_of_metacopy(&inode);
        let _gate = gate.as_ref().map(Gate::lock);
        if let Some(size) = set.size {
            self.truncate(&inode, size, file, caller)?;
        }
        if set.uid.is_some() || set.gid.is_some() {
            let uid = set.uid.map(|uid| self.config.squash_uid.unwrap_or(uid));
            let gid = set.gid.map(|gid| self.config.squash_gid.unwrap_or(gid));
            // The layer's filesystem takes set-id bits and capabilities away.
            self.with_real(&inode, |at, _| at.chown(uid, gid), "chown")?;
        }
        if let Some(mode) = set.mode {
            if inode.kind == Kind::Symlink {
                return Err(Error::new(Errno::OPNOTSUPP, "chmod"));
            }
            self.with_real(&inode, |at, _| at.chmod(mode), "chmod")?;
        }
        if set.atime.is_some() || set.mtime.is_some() {
            let times = times::partial(set.atime, set.mtime);
            self.with_real(&inode, |at, _| at.set_times(&times), "set times")?;
        }
        self.touched(&inode);
        let attr = self.attr_of(&inode)?;
        inode.state.write().flags.setid = attr.is_setid();
        Ok(attr)
    }

    fn truncate(&self, inode: &Arc<Inode>, size: u64, file: Option<u64>, caller: Caller) -> Result<()> {
        if inode.kind != Kind::File {
            return Err(Error::new(Errno::INVAL, "truncate"));
        }
        match file.and_then(|file| self.files.get(file)) {
            Some(file) if file.flags.intersects(OFlags::WRONLY | OFlags::RDWR) => {
                ftruncate(&*self.backing(&file)?.fd, size).during("truncate")?;
            }
            _ => {
                let fd = self.with_real(inode, |at, _| at.open(OFlags::WRONLY), "open to truncate")?;
                ftruncate(fd, size).during("truncate")?;
            }
        }
        self.drop_setid(inode, caller)
    }

    /// Takes set-id bits away after a change of the content by one who may not keep them.
    ///
    /// The layer's filesystem does that with capabilities by itself, but not with the bits, as we may keep them.
    ///
    /// # Errors
    /// Those of chmod(2).
    pub(super) fn drop_setid(&self, inode: &Arc<Inode>, caller: Caller) -> Result<()> {
        if !inode.state.read().flags.setid || creds::keeps_setid(caller.pid) {
            return Ok(());
        }
        let attr = self.with_real(inode, |at, _| at.attr(), "stat")?;
        let mut mode = attr.mode & !libc::S_ISUID;
        // Without group execution the bit stands for mandatory locks, unless the caller is no member of the group.
        if attr.mode & libc::S_IXGRP != 0 || !creds::is_member(caller.pid, caller.gid, attr.gid) {
            mode &= !libc::S_ISGID;
        }
        if mode != attr.mode {
            self.with_real(inode, |at, _| at.chmod(mode), "drop set-id bits")?;
            self.touched(inode);
        }
        inode.state.write().flags.setid = mode & (libc::S_ISUID | libc::S_ISGID) != 0;
        Ok(())
    }
}
