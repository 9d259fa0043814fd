//! Changing attributes.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::OFlags;

use crate::attr::{Attr, Kind, Time};
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
    /// A change of owner that leaves both: it moves the time of status change, and takes set-id bits and capabilities.
    fn is_nothing(&self) -> bool {
        self.has_no_more_than_times() && self.atime.is_none() && self.mtime.is_none()
    }

    /// Times, and nothing else.
    fn is_only_times(&self) -> bool {
        self.has_no_more_than_times() && !self.is_nothing()
    }

    /// Only times, and only to the current one, as a plain `touch` asks for.
    fn is_touch(&self) -> bool {
        let now = |time: Option<NewTime>| matches!(time, None | Some(NewTime::Now));
        self.has_no_more_than_times() && now(self.atime) && now(self.mtime)
    }

    fn has_no_more_than_times(&self) -> bool {
        self.mode.is_none() && self.uid.is_none() && self.gid.is_none() && self.size.is_none()
    }

    /// What is known of the attributes after the change without asking: the kernel is to ask before it relies on them.
    fn applied_to(&self, before: Attr) -> Attr {
        let mode = self.mode.map_or(before.mode, |mode| before.kind().mode_bits() | (mode & 0o7777));
        let (uid, gid) = (self.uid.unwrap_or(before.uid), self.gid.unwrap_or(before.gid));
        Attr { mode, uid, gid, size: self.size.unwrap_or(before.size), is_volatile: true, ..before }
    }
}

impl Overlay {
    /// Changes attributes of `ino`, and returns all of them. `file` is the handle by which it is truncated, if any.
    ///
    /// # Errors
    /// `EPERM` for immutable and append-only files, `EROFS`, those of copy-up and of the calls that set attributes. What is
    /// done is no error because nobody can tell any more how it looks: that is for who asks.
    pub fn setattr(&self, ino: u64, set: &SetAttr, file: Option<u64>, caller: Caller) -> Result<Attr> {
        let _distrust = self.distrust_on_panic();
        let inode = self.inode(ino)?;
        if set.is_nothing() {
            if !self.may_change_nothing(&inode, caller)? {
                return self.attr_of(&inode);
            }
        } else if self.is_told(set, file) {
            // Nothing that anybody asks for now.
        } else if set.is_touch() {
            check_mutable(&inode)?
        } else {
            check_unprotected(&inode)?
        }
        let before = self.attr_of(&inode)?;
        let stored = self.stored_ids(set)?;
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
        // With `writeback=1`, times may come in between.
        let capabilities_fell = !set.is_only_times() && capabilities_fell(&inode);
        if set.is_nothing() {
            self.change_nothing(&inode, capabilities_fell, caller)?;
        }
        if set.uid.is_some() || set.gid.is_some() {
            let (uid, gid) = stored;
            // The layer's filesystem takes set-id bits and capabilities away.
            if !inode.is_dir() {
                self.drop_setgid_of_stranger(&inode, caller)?;
            }
            self.with_real(&inode, |at, _| at.chown(uid, gid), "chown")?;
        }
        if let Some(mode) = set.mode {
            if inode.kind == Kind::Symlink {
                return Err(Error::new(Errno::OPNOTSUPP, "chmod"));
            }
            let written = self.last_write(&inode, mode)?;
            self.with_real(&inode, |at, _| at.chmod(mode), "chmod")?;
            if written.is_some() {
                inode.state.write().extra_mut().written = written;
            }
        }
        if set.atime.is_some() || set.mtime.is_some() {
            let times = times::partial(set.atime, set.mtime);
            self.with_real(&inode, |at, _| at.set_times(&times), "set times")?;
        }
        self.touched(&inode);
        let attr = self.attr_of(&inode).unwrap_or_else(|error| {
            log::warn!("changed attributes are told from memory: {error}");
            set.applied_to(before)
        });
        inode.state.write().flags.setid = attr.is_setid();
        Ok(attr)
    }

    /// When the data of a file was changed last that is to get a set-id bit while others may write it without us; waits
    /// until a later write cannot have the same time.
    ///
    /// # Errors
    /// Those of statx(2).
    fn last_write(&self, inode: &Arc<Inode>, mode: u32) -> Result<Option<Time>> {
        if mode & (libc::S_ISUID | libc::S_ISGID) == 0 || inode.through.load(Ordering::SeqCst) == 0 {
            return Ok(None);
        }
        let written = self.real_attr(inode)?.mtime;
        times::wait_until_past(written);
        Ok(Some(written))
    }

    /// What is stored for a new owner and group.
    ///
    /// # Errors
    /// `EINVAL` for those that are not mapped.
    fn stored_ids(&self, set: &SetAttr) -> Result<(Option<u32>, Option<u32>)> {
        let unmapped = || Error::new(Errno::INVAL, "give a file to a user or group that is not mapped");
        let uid = set.uid.map(|uid| self.ids.stored_uid(uid).ok_or_else(unmapped)).transpose()?;
        let gid = set.gid.map(|gid| self.ids.stored_gid(gid).ok_or_else(unmapped)).transpose()?;
        Ok((uid, gid))
    }

    /// Whether what the kernel asks for as [`Overlay::change_nothing`] is to be done. Not even a mark keeps anybody from
    /// it, but set-id bits are their owner's to take. What another asks for may be a write: that takes them by itself.
    ///
    /// # Errors
    /// `EPERM` for another while nobody can write.
    fn may_change_nothing(&self, inode: &Arc<Inode>, caller: Caller) -> Result<bool> {
        if inode.is_dir() || caller.uid == 0 || !inode.state.read().flags.setid {
            return Ok(true);
        }
        let attr = self.attr_of(inode)?;
        if attr.uid == caller.uid || without_setid(&attr, caller) == attr.mode {
            return Ok(true);
        }
        if self.files.any(|file| file.inode.ino == inode.ino && file.may_write()) {
            return Ok(false);
        }
        Err(Error::new(Errno::PERM, "take set-id bits"))
    }

    /// What the kernel asks for when the owner is to be set to what it is, and, once capabilities have fallen, before a
    /// write. The former takes set-id bits as well, also of who may keep them. Of a file that had capabilities, the two
    /// are the same requests.
    fn change_nothing(&self, inode: &Arc<Inode>, capabilities_fell: bool, caller: Caller) -> Result<()> {
        let owners = || self.attr_of(inode).map(|attr| (attr.uid, attr.gid));
        if capabilities_fell && creds::keeps_setid(caller.pid, owners)? {
            return Ok(());
        }
        if !inode.is_dir() {
            self.drop_setgid_of_stranger(inode, caller)?;
        }
        self.with_real(inode, |at, _| at.chown(None, None), "chown")
    }

    /// Takes the set-group-id bit of a file of a group that the caller is no member of, which would otherwise run as that
    /// group by what he has made of it.
    ///
    /// # Errors
    /// Those of chmod(2).
    pub(super) fn drop_setgid_of_stranger(&self, inode: &Arc<Inode>, caller: Caller) -> Result<()> {
        if let Some(mode) = self.without_setgid(inode, caller)? {
            self.with_real(inode, |at, _| at.chmod(mode), "drop the set-group-id bit")?;
        }
        Ok(())
    }

    /// The mode of a file without a set-group-id bit that the caller may not keep; `None` if it has no such bit.
    ///
    /// # Errors
    /// Those of statx(2).
    pub(super) fn without_setgid(&self, inode: &Arc<Inode>, caller: Caller) -> Result<Option<u32>> {
        if !inode.state.read().flags.setid {
            return Ok(None);
        }
        let attr = self.real_attr(inode)?;
        let is_kept = caller.uid == 0 || creds::is_member(caller.pid, caller.gid, attr.gid);
        Ok((attr.mode & libc::S_ISGID != 0 && !is_kept).then_some(attr.mode & !libc::S_ISGID))
    }

    /// Whether the kernel tells what the times of a file became by writes that it has gathered: only then it names a handle.
    fn is_told(&self, set: &SetAttr, file: Option<u64>) -> bool {
        set.is_only_times() && file.and_then(|file| self.files.get(file)).is_some_and(|file| file.may_write())
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

    /// Takes capabilities that are kept aside away from a file whose content changes, whoever changes it.
    ///
    /// # Errors
    /// Those of removexattr(2).
    pub(super) fn drop_capability(&self, inode: &Arc<Inode>) -> Result<()> {
        if !inode.state.read().flags.kept_capability {
            return Ok(());
        }
        self.with_real(inode, |at, _| at.drop_capability(), "drop capabilities")?;
        inode.state.write().flags.kept_capability = false;
        Ok(())
    }

    /// Takes set-id bits away after a change of the content by one who may not keep them.
    ///
    /// The layer's filesystem does that with capabilities by itself, but not with the bits, as we may keep them.
    ///
    /// # Errors
    /// Those of chmod(2).
    pub(super) fn drop_setid(&self, inode: &Arc<Inode>, caller: Caller) -> Result<()> {
        self.drop_capability(inode)?;
        let owners = || self.attr_of(inode).map(|attr| (attr.uid, attr.gid));
        if !inode.state.read().flags.setid || creds::keeps_setid(caller.pid, owners)? {
            return Ok(());
        }
        let attr = self.real_attr(inode)?;
        let mode = without_setid(&attr, caller);
        if mode != attr.mode {
            self.with_real(inode, |at, _| at.chmod(mode), "drop set-id bits")?;
            self.touched(inode);
        }
        inode.state.write().flags.setid = mode & (libc::S_ISUID | libc::S_ISGID) != 0;
        Ok(())
    }
}

/// Whether an inode's capabilities were removed, and nothing was set since.
fn capabilities_fell(inode: &Inode) -> bool {
    inode.state.read().flags.capabilities_fell && std::mem::take(&mut inode.state.write().flags.capabilities_fell)
}

/// A mode without the set-id bits that fall when a caller who may not keep them changes the content.
fn without_setid(attr: &Attr, caller: Caller) -> u32 {
    let mode = attr.mode & !libc::S_ISUID;
    // Without group execution the bit stands for mandatory locks, unless the caller is no member of the group.
    if attr.mode & libc::S_IXGRP != 0 || !creds::is_member(caller.pid, caller.gid, attr.gid) {
        mode & !libc::S_ISGID
    } else {
        mode
    }
}
