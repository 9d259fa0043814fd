//! The kernel's requests, one method for each: decode, call the overlay, reply.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, FileHandle, Filesystem, INodeNo, InitFlags, IoctlFlags,
    KernelConfig, LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen,
    ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::OFlags;

use crate::counters::Op;
use crate::error::{Errno, Error};
use crate::ops::SetAttr;
use crate::sys::memory;

use super::super::reply::{
    GENERATION, answer, guarded, keeps, send_empty, send_entry, send_statfs, send_written, send_xattr,
};
use super::super::{convert, ioctl, session};
use super::{Adapter, BUFFER, MANY, holder};

/// Changing one of these may mean to copy its data first.
macro_rules! is_slow {
    ($self:ident, $ino:expr) => {
        $self.overlay.must_copy_data($ino.0)
    };
}

impl Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // The kernel tells with that flag that it can do without.
        let can_be_free = config.capabilities().contains(InitFlags::FUSE_NO_OPEN_SUPPORT);
        self.opens_free = can_be_free && self.overlay.is_read_only() && self.only.is_none();
        let passes =
            session::negotiate(config, self.overlay.has_acls(), self.writeback, self.passthrough, &self.agreement);
        self.through.agree(passes, self.writeback);
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let begun = self.begin_at(Op::Lookup, parent, name);
        let work = || {
            self.caller(request)?;
            #[cfg(feature = "failpoints")]
            super::super::failpoint::obey(name)?;
            self.overlay.lookup(parent.0, name.as_bytes())
        };
        answer(&self.overlay, begun, reply, work, send_entry(self.timeout));
    }

    fn forget(&self, _request: &Request, ino: INodeNo, count: u64) {
        let begun = self.begin(Op::Forget, ino);
        let forgotten = guarded(|| Ok(self.overlay.forget(ino.0, count)));
        begun.end(&self.overlay, forgotten.as_ref().err().map(Error::errno));
        match forgotten {
            // The kernel forgets in masses, when it is short of memory itself.
            Ok(true) if self.forgotten.fetch_add(1, Ordering::Relaxed).is_multiple_of(MANY) => {
                self.pool.run(memory::give_back);
            }
            Ok(_) => {}
            Err(error) => log::error!("{error}"),
        }
    }

    fn getattr(&self, request: &Request, ino: INodeNo, _file: Option<FileHandle>, reply: ReplyAttr) {
        let begun = self.begin(Op::Getattr, ino);
        let work = || {
            self.caller(request)?;
            self.overlay.getattr(ino.0)
        };
        answer(&self.overlay, begun, reply, work, |reply, attr| {
            reply.attr(&keeps(self.timeout, &attr), &convert::attr(&attr))
        });
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        file: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let begun = self.begin(Op::Setattr, ino);
        let (atime, mtime) = (atime.map(convert::new_time), mtime.map(convert::new_time));
        let set = SetAttr { mode, uid, gid, size, atime, mtime };
        let timeout = self.timeout;
        let entered = size.map(|_| self.ahead.enter(ino.0));
        self.dispatch(
            begun,
            request,
            is_slow!(self, ino),
            reply,
            move |overlay, caller| overlay.setattr(ino.0, &set, file.map(|file| file.0), caller),
            move |reply, attr| {
                reply.attr(&keeps(timeout, &attr), &convert::attr(&attr));
                drop(entered);
            },
        );
    }

    fn readlink(&self, request: &Request, ino: INodeNo, reply: ReplyData) {
        let begun = self.begin(Op::Readlink, ino);
        let work = || {
            self.caller(request)?;
            self.overlay.readlink(ino.0)
        };
        answer(&self.overlay, begun, reply, work, |reply, target| reply.data(&target));
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let begun = self.begin_at(Op::Mknod, parent, name);
        let work = || {
            let device = convert::decode_device(rdev);
            self.overlay.mknod(parent.0, name.as_bytes(), mode, umask, device, self.caller(request)?).map(Some)
        };
        answer(&self.overlay, begun, reply, work, send_entry(self.timeout));
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let begun = self.begin_at(Op::Mkdir, parent, name);
        let work = || self.overlay.mkdir(parent.0, name.as_bytes(), mode, umask, self.caller(request)?).map(Some);
        answer(&self.overlay, begun, reply, work, send_entry(self.timeout));
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let begun = self.begin_at(Op::Symlink, parent, name);
        let work = || {
            let target = target.as_os_str().as_bytes();
            self.overlay.symlink(parent.0, name.as_bytes(), target, self.caller(request)?).map(Some)
        };
        answer(&self.overlay, begun, reply, work, send_entry(self.timeout));
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let begun = self.begin_at(Op::Unlink, parent, name);
        let name = name.to_owned();
        self.dispatch(
            begun,
            request,
            self.overlay.removal_copies_data(parent.0, name.as_bytes()),
            reply,
            move |overlay, _| overlay.unlink(parent.0, name.as_bytes()),
            send_empty,
        );
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let begun = self.begin_at(Op::Rmdir, parent, name);
        let work = || {
            self.caller(request)?;
            self.overlay.rmdir(parent.0, name.as_bytes())
        };
        answer(&self.overlay, begun, reply, work, send_empty);
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let begun = self.begin_at(Op::Rename, parent, name);
        let (name, new_name) = (name.to_owned(), new_name.to_owned());
        let flags = rustix::fs::RenameFlags::from_bits_retain(flags.bits());
        self.dispatch(
            begun,
            request,
            self.overlay.rename_copies_data(parent.0, name.as_bytes())
                || self.overlay.rename_copies_data(new_parent.0, new_name.as_bytes()),
            reply,
            move |overlay, _| overlay.rename(parent.0, name.as_bytes(), new_parent.0, new_name.as_bytes(), flags),
            send_empty,
        );
    }

    fn link(&self, request: &Request, ino: INodeNo, new_parent: INodeNo, new_name: &OsStr, reply: ReplyEntry) {
        let begun = self.begin_at(Op::Link, new_parent, new_name);
        let new_name = new_name.to_owned();
        self.dispatch(
            begun,
            request,
            is_slow!(self, ino),
            reply,
            move |overlay, _| overlay.link(ino.0, new_parent.0, new_name.as_bytes()).map(Some),
            send_entry(self.timeout),
        );
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if self.opens_free {
            // The kernel need not ask again: it opens files by itself, and reads them by their inode.
            return self.decline(Op::Open, ino, reply);
        }
        let begun = self.begin(Op::Open, ino);
        let (asked, flags) = (OFlags::from_bits_retain(flags.0.cast_unsigned()), self.open_flags(flags.0));
        let is_slow = match (flags.intersects(OFlags::WRONLY | OFlags::RDWR), flags.contains(OFlags::TRUNC)) {
            // Also to truncate it: somebody may be copying it.
            (true, _) => is_slow!(self, ino),
            // Looks through all processes.
            (false, true) => true,
            _ => false,
        };
        let (overlay, through, ahead) = (Arc::clone(&self.overlay), Arc::clone(&self.through), Arc::clone(&self.ahead));
        let entered = ahead.enter(ino.0);
        self.dispatch(
            begun,
            request,
            is_slow,
            reply,
            move |overlay, caller| match overlay.open_file(ino.0, flags, caller) {
                // We may write it, but not read it.
                Err(error) if error.errno() == Errno::ACCESS && flags != asked => {
                    overlay.open_file(ino.0, asked, caller)
                }
                result => result,
            },
            move |reply, opened| {
                entered.keep();
                let handed = guarded(|| {
                    BUFFER.with_borrow_mut(|buffer| ahead.hand_over(&overlay, ino.0, &opened, buffer));
                    Ok(())
                });
                if let Err(error) = handed {
                    log::error!("{error}");
                }
                through.send_opened(reply, ino.0, &opened, &overlay);
            },
        );
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let begun = self.begin_at(Op::Create, parent, name);
        let flags = self.open_flags(flags);
        let work = || self.overlay.create(parent.0, name.as_bytes(), mode, umask, flags, self.caller(request)?);
        answer(&self.overlay, begun, reply, work, |reply, (attr, opened)| {
            self.ahead.enter(attr.ino).keep();
            self.through.send_created(reply, &attr, &opened, self.timeout, &self.overlay);
        });
    }

    fn read(
        &self,
        _request: &Request,
        ino: INodeNo,
        file: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let begun = self.begin(Op::Read, ino);
        let len = usize::try_from(size).unwrap_or(usize::MAX);
        BUFFER.with_borrow_mut(|buffer| {
            if buffer.len() < len {
                buffer.resize(len, 0);
            }
            let buffer = buffer.get_mut(..len).unwrap_or_default();
            let result = guarded(|| match file.0 {
                0 => self.overlay.read_unopened(ino.0, offset, buffer),
                file => self.overlay.read(file, offset, buffer),
            });
            answer(
                &self.overlay,
                begun,
                reply,
                || result,
                |reply, read| reply.data(buffer.get(..read).unwrap_or_default()),
            );
        });
    }

    fn write(
        &self,
        request: &Request,
        ino: INodeNo,
        file: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let begun = self.begin(Op::Write, ino);
        let drops_setid = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        let work = || {
            let caller = holder(request);
            if self.writeback && write_flags.contains(WriteFlags::FUSE_WRITE_CACHE) {
                self.overlay.write_back(file.0, offset, data, drops_setid, self.keeps_mtimes, caller)
            } else {
                self.overlay.write(file.0, offset, data, drops_setid, caller)
            }
        };
        answer(&self.overlay, begun, reply, work, send_written);
    }

    fn flush(&self, _request: &Request, ino: INodeNo, _file: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        // The kernel need not ask again. Before 5.8 it would not write back then what it has gathered.
        if !self.writeback {
            return self.decline(Op::Flush, ino, reply);
        }
        let begun = self.begin(Op::Flush, ino);
        answer(&self.overlay, begun, reply, || Ok(()), send_empty);
    }

    fn release(
        &self,
        _request: &Request,
        ino: INodeNo,
        file: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let begun = self.begin(Op::Release, ino);
        let work = || {
            self.through.release(ino.0);
            self.ahead.leave(ino.0);
            self.overlay.release(file.0)
        };
        answer(&self.overlay, begun, reply, work, send_empty);
    }

    fn fsync(&self, _request: &Request, ino: INodeNo, file: FileHandle, data_only: bool, reply: ReplyEmpty) {
        let begun = self.begin(Op::Fsync, ino);
        let overlay = Arc::clone(&self.overlay);
        self.pool.run(move || answer(&overlay, begun, reply, || overlay.fsync(file.0, data_only), send_empty));
    }

    fn opendir(&self, _request: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        // There is nothing to be opened: the kernel need not ask again, and keeps listings.
        self.decline(Op::Opendir, ino, reply);
    }

    fn readdir(&self, request: &Request, ino: INodeNo, _dir: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let begun = self.begin(Op::Readdir, ino);
        let work = || {
            self.caller(request)?;
            self.overlay.read_dir(ino.0, offset, false, |entry| {
                let name = OsStr::from_bytes(entry.name);
                reply.add(INodeNo(entry.ino), entry.next, convert::kind(entry.kind), name)
            })
        };
        let result = guarded(work);
        answer(&self.overlay, begun, reply, || result, |reply, ()| reply.ok());
    }

    fn readdirplus(
        &self,
        request: &Request,
        ino: INodeNo,
        _dir: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let begun = self.begin(Op::Readdirplus, ino);
        let work = || {
            self.caller(request)?;
            self.overlay.read_dir(ino.0, offset, true, |entry| {
                let name = OsStr::from_bytes(entry.name);
                let timeout = entry.attr.map_or(self.timeout, |attr| keeps(self.timeout, &attr));
                let attr = entry.attr.as_ref().map_or_else(|| convert::no_attr(entry.ino, entry.kind), convert::attr);
                reply.add(INodeNo(entry.ino), entry.next, name, &timeout, &attr, GENERATION)
            })
        };
        let result = guarded(work);
        answer(&self.overlay, begun, reply, || result, |reply, ()| reply.ok());
    }

    fn fsyncdir(&self, _request: &Request, ino: INodeNo, _dir: FileHandle, _data_only: bool, reply: ReplyEmpty) {
        let begun = self.begin(Op::Fsyncdir, ino);
        let overlay = Arc::clone(&self.overlay);
        self.pool.run(move || answer(&overlay, begun, reply, || overlay.fsync_dir(ino.0), send_empty));
    }

    fn statfs(&self, _request: &Request, ino: INodeNo, reply: ReplyStatfs) {
        let begun = self.begin(Op::Statfs, ino);
        answer(&self.overlay, begun, reply, || self.overlay.statfs(), send_statfs);
    }

    fn setxattr(
        &self,
        request: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let begun = self.begin(Op::Setxattr, ino);
        let (name, value) = (name.to_owned(), value.to_vec());
        self.dispatch(
            begun,
            request,
            is_slow!(self, ino),
            reply,
            move |overlay, caller| overlay.setxattr(ino.0, name.as_bytes(), &value, flags.cast_unsigned(), caller),
            send_empty,
        );
    }

    fn getxattr(&self, request: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let begun = self.begin(Op::Getxattr, ino);
        let work = || {
            self.caller(request)?;
            self.overlay.getxattr(ino.0, name.as_bytes())
        };
        answer(&self.overlay, begun, reply, work, send_xattr(size));
    }

    fn listxattr(&self, request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let begun = self.begin(Op::Listxattr, ino);
        answer(&self.overlay, begun, reply, || self.overlay.listxattr(ino.0, self.caller(request)?), send_xattr(size));
    }

    fn removexattr(&self, request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let begun = self.begin(Op::Removexattr, ino);
        let name = name.to_owned();
        self.dispatch(
            begun,
            request,
            is_slow!(self, ino),
            reply,
            move |overlay, caller| overlay.removexattr(ino.0, name.as_bytes(), caller),
            send_empty,
        );
    }

    fn ioctl(
        &self,
        request: &Request,
        ino: INodeNo,
        _file: FileHandle,
        _flags: IoctlFlags,
        command: u32,
        data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        let begun = self.begin(Op::Ioctl, ino);
        let data = data.to_vec();
        self.dispatch(
            begun,
            request,
            ioctl::changes(command) && is_slow!(self, ino),
            reply,
            move |overlay, _| ioctl::file_flags(overlay, ino.0, command, &data),
            |reply, data| reply.ioctl(0, &data),
        );
    }

    fn fallocate(
        &self,
        request: &Request,
        ino: INodeNo,
        file: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let begun = self.begin(Op::Fallocate, ino);
        let (overlay, caller) = (Arc::clone(&self.overlay), holder(request));
        self.pool.run(move || {
            let work = || overlay.fallocate(file.0, offset, length, mode.cast_unsigned(), caller);
            answer(&overlay, begun, reply, work, send_empty);
        });
    }

    fn lseek(&self, _request: &Request, ino: INodeNo, file: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        if self.writeback {
            // What the kernel has gathered is a hole in our eyes. It need not ask again, and takes all for data.
            return self.decline(Op::Lseek, ino, reply);
        }
        let begun = self.begin(Op::Lseek, ino);
        let work = || {
            let offset = u64::try_from(offset).map_err(|_| Error::new(Errno::NXIO, "seek"))?;
            let hole = match whence {
                libc::SEEK_DATA => false,
                libc::SEEK_HOLE => true,
                _ => return Err(Error::new(Errno::INVAL, "seek")),
            };
            match file.0 {
                0 => self.overlay.seek_unopened(ino.0, offset, hole),
                file => self.overlay.seek(file, offset, hole),
            }
        };
        answer(&self.overlay, begun, reply, work, |reply, offset| {
            reply.offset(i64::try_from(offset).unwrap_or(i64::MAX))
        });
    }

    fn copy_file_range(
        &self,
        request: &Request,
        _from_ino: INodeNo,
        from: FileHandle,
        from_offset: u64,
        to_ino: INodeNo,
        to: FileHandle,
        to_offset: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let begun = self.begin(Op::CopyFileRange, to_ino);
        let (overlay, caller) = (Arc::clone(&self.overlay), holder(request));
        // The reply has 32 bits for what was copied.
        let len = usize::try_from(len.min(0x7fff_f000)).unwrap_or(usize::MAX);
        self.pool.run(move || {
            let work = || overlay.copy_range(from.0, from_offset, to.0, to_offset, len, caller);
            answer(&overlay, begun, reply, work, send_written);
        });
    }

    fn access(&self, _request: &Request, ino: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        // The kernel checks permissions by itself.
        self.decline(Op::Access, ino, reply);
    }

    fn poll(
        &self,
        _request: &Request,
        ino: INodeNo,
        _file: FileHandle,
        _notifier: PollNotifier,
        _events: PollEvents,
        _flags: PollFlags,
        reply: ReplyPoll,
    ) {
        // Files and directories are always ready; the kernel need not ask again.
        self.decline(Op::Poll, ino, reply);
    }
}
