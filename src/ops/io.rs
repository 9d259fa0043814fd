//! Open files: their data, and what else is done through a handle.
//!
//! A file that was opened before its copy-up goes on with the upper's file, so that it sees what is written later.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::{FallocateFlags, OFlags, SeekFrom};

use crate::at::At;
use crate::attr::Kind;
use crate::calls;
use crate::copy_up::Data;
use crate::error::{Context, Errno, Error, Result};
use crate::handle::{Backing, OpenFile};
use crate::inode::Inode;
use crate::overlay::{Caller, Overlay, Stale};
use crate::running::is_running;
use crate::scan::open_listing;
use crate::times::{self, NewTime};

use super::check_mutable;

/// A file that was opened.
#[derive(Debug)]
pub struct Opened {
    /// The handle.
    pub file: u64,
    backing: Backing,
    flags: OFlags,
    is_setid: bool,
}

impl Opened {
    /// The file of the upper behind it, if whoever reads and writes that directly does the same as through us.
    pub fn may_go_through(&self) -> Option<BorrowedFd<'_>> {
        (self.backing.in_upper && !self.is_setid).then(|| self.backing.fd.as_fd())
    }

    /// Whether it can be mapped so that writes to memory reach it.
    pub fn may_map_for_writing(&self) -> bool {
        self.flags.contains(OFlags::RDWR)
    }

    /// Whether it cannot be read.
    pub fn is_write_only(&self) -> bool {
        self.flags.contains(OFlags::WRONLY)
    }

    /// Whether its data is in the upper layer.
    pub fn is_in_upper(&self) -> bool {
        self.backing.in_upper
    }
}

/// Devices, sockets and pipes are the kernel's to open: a daemon that did would wait for a pipe's other end.
const fn check_openable(kind: Kind) -> Result<(), Errno> {
    match kind {
        Kind::File => Ok(()),
        Kind::Dir => Err(Errno::ISDIR),
        Kind::Symlink => Err(Errno::LOOP),
        Kind::Fifo | Kind::Socket | Kind::Char | Kind::Block => Err(Errno::NXIO),
    }
}

impl Overlay {
    /// Opens a file. Of `flags`, access mode, `O_TRUNC` and `O_APPEND` count.
    ///
    /// # Errors
    /// `EISDIR`, `ELOOP` and `ENXIO` for what is no file, `EPERM` for protected files, `ETXTBSY` for a running program,
    /// `EROFS`, those of copy-up and open(2).
    pub fn open_file(&self, ino: u64, flags: OFlags, caller: Caller) -> Result<Opened> {
        let inode = self.inode(ino)?;
        check_openable(inode.kind).during("open")?;
        let truncates = flags.contains(OFlags::TRUNC);
        let writes = truncates || flags.intersects(OFlags::WRONLY | OFlags::RDWR);
        if writes {
            check_mutable(&inode)?;
            // The kernel looks by itself when the file is opened for writing; else only after we have truncated it.
            if !flags.intersects(OFlags::WRONLY | OFlags::RDWR) && is_running(inode.ino) {
                return Err(Error::new(Errno::TXTBSY, "truncate a running program"));
            }
            if inode.state.read().flags.append_only && (truncates || !flags.contains(OFlags::APPEND)) {
                return Err(Error::new(Errno::PERM, "open an append-only file"));
            }
            self.copy_up(&inode, if truncates { Data::Drop } else { Data::Keep })?;
        }
        // The kernel sends offsets with every write, and calls fsync for synchronous ones.
        let access = flags & OFlags::ACCMODE;
        let backing = self.open_backing(&inode, access | (flags & OFlags::TRUNC))?;
        if truncates {
            self.drop_setid(&inode, caller)?;
        }
        if truncates {
            self.touched(&inode);
        }
        Ok(self.add_file(inode, access, backing, caller))
    }

    /// Numbers an open file.
    pub(super) fn add_file(&self, inode: Arc<Inode>, flags: OFlags, backing: Backing, caller: Caller) -> Opened {
        let flags_of = inode.state.read().flags;
        let is_setid = flags_of.setid || flags_of.kept_capability;
        let opened = Opened { file: 0, backing: backing.clone(), flags, is_setid };
        Opened { file: self.files.add(OpenFile::new(inode, flags, backing, caller.uid)), ..opened }
    }

    /// Notes that the data of an open file is read and written without us from now on.
    pub fn pass_through(&self, file: u64) {
        let Some(file) = self.files.get(file) else { return };
        if file.is_through.swap(true, Ordering::SeqCst) || !file.may_write() {
            return;
        }
        file.inode.through.fetch_add(1, Ordering::SeqCst);
        if file.may_map_for_writing() {
            file.inode.mappable.fetch_add(1, Ordering::SeqCst);
            self.tell_stale(&file.inode, Stale::Attributes);
        }
        self.touched(&file.inode);
    }

    /// Reads the whole data of a lower file that was opened for reading for the first time, into `buffer`, which is made as
    /// long as need be; `None` if it was opened before, or has no data or more than `most` bytes.
    ///
    /// # Errors
    /// Those of pread(2).
    pub fn read_first<'b>(&self, opened: &Opened, most: usize, buffer: &'b mut Vec<u8>) -> Result<Option<&'b [u8]>> {
        let Some(file) = self.files.get(opened.file) else { return Ok(None) };
        if opened.is_in_upper() || file.may_write() || file.inode.is_handed_over.swap(true, Ordering::Relaxed) {
            return Ok(None);
        }
        let size = usize::try_from(self.attr_of(&file.inode)?.size).unwrap_or(usize::MAX);
        if size == 0 || size > most {
            return Ok(None);
        }
        if buffer.len() < size {
            buffer.resize(size, 0);
        }
        let buffer = buffer.get_mut(..size).unwrap_or_default();
        let read = read_at(&opened.backing.fd, 0, buffer)?;
        Ok((read == size).then_some(buffer))
    }

    fn open_backing(&self, inode: &Arc<Inode>, flags: OFlags) -> Result<Backing> {
        let data = inode.state.read().data().cloned();
        // Of one without size, the data went before its mark did, when a daemon died: nothing of it is to be read.
        if let Some(at) = data
            && self.attr_of(inode)?.size > 0
        {
            return Ok(Backing { fd: Arc::new(self.open_data(&at)?), in_upper: false });
        }
        let noatime = self.config.noatime;
        self.with_real(
            inode,
            |at, in_upper| {
                let fd = if in_upper && !noatime { at.open(flags) } else { at.open_noatime(flags) };
                fd.map(|fd| Backing { fd: Arc::new(fd), in_upper })
            },
            "open",
        )
    }

    /// The file behind a handle: the upper's once there is one.
    pub(super) fn backing(&self, file: &OpenFile) -> Result<Backing> {
        let backing = file.backing.read().clone();
        if backing.in_upper || !file.inode.state.read().is_whole() {
            return Ok(backing);
        }
        let mut slot = file.backing.write();
        if !slot.in_upper {
            *slot = self.open_backing(&file.inode, file.flags)?;
        }
        Ok(slot.clone())
    }

    /// The open file `file`.
    ///
    /// # Errors
    /// `EBADF`.
    pub(super) fn file(&self, file: u64) -> Result<Arc<OpenFile>> {
        self.files.get(file).ok_or(Error::new(Errno::BADF, "find open file"))
    }

    /// Reads at `offset` into `buffer`, and returns how many bytes were read: fewer only at the end of the file.
    ///
    /// # Errors
    /// Those of pread(2).
    pub fn read(&self, file: u64, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        read_at(&self.backing(&*self.file(file)?)?.fd, offset, buffer)
    }

    /// As [`Overlay::read`], of a file on a read-only mount that was opened without asking us.
    ///
    /// # Errors
    /// Those of pread(2) and of opening it.
    pub fn read_unopened(&self, ino: u64, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        read_at(&*self.unopened(ino)?, offset, buffer)
    }

    /// The file behind an inode that never changes.
    fn unopened(&self, ino: u64) -> Result<Arc<OwnedFd>> {
        if !self.is_read_only() {
            return Err(Error::new(Errno::BADF, "read without a handle"));
        }
        if let Some(fd) = self.caches.files.get(&ino) {
            return Ok(fd);
        }
        let fd = self.open_backing(&self.inode(ino)?, OFlags::RDONLY)?.fd;
        self.caches.files.put(ino, Arc::clone(&fd));
        Ok(fd)
    }

    /// Writes `data` at `offset`, and returns how many bytes were written: fewer when space ran out. `drops_setid` says
    /// that the kernel wants set-id bits gone.
    ///
    /// # Errors
    /// Those of pwrite(2).
    pub fn write(&self, file: u64, offset: u64, data: &[u8], drops_setid: bool, caller: Caller) -> Result<usize> {
        let file = self.file(file)?;
        let backing = self.backing(&file)?;
        if !backing.in_upper {
            return Err(Error::new(Errno::BADF, "write"));
        }
        self.drop_capability(&file.inode)?;
        let mut done = 0;
        let mut result = Ok(());
        while let Some(rest) = data.get(done..).filter(|rest| !rest.is_empty()) {
            match calls::pwrite(&*backing.fd, rest, offset.saturating_add(done as u64)) {
                Ok(0) => break,
                Ok(written) => done = done.saturating_add(written),
                Err(Errno::INTR) => {}
                Err(errno) => {
                    result = Err(Error::new(errno, "write"));
                    break;
                }
            }
        }
        if drops_setid {
            self.drop_setid(&file.inode, caller)?;
        }
        self.touched(&file.inode);
        // What was written before an error counts.
        if done == 0 { result.map(|()| 0) } else { Ok(done) }
    }

    /// As [`Overlay::write`], of pages that the kernel has gathered. Writes everything, as the kernel would not write the
    /// rest. With `keeps_mtime` the modification time stays: the kernel keeps it meanwhile, and tells when it has moved.
    ///
    /// # Errors
    /// As [`Overlay::write`], also after a part was written, and those of statx(2) and utimensat(2).
    pub fn write_back(
        &self,
        file: u64,
        offset: u64,
        data: &[u8],
        drops_setid: bool,
        keeps_mtime: bool,
        caller: Caller,
    ) -> Result<usize> {
        let open = self.file(file)?;
        let backing = self.backing(&open)?;
        let at = At::fd(&backing.fd);
        let mtime = if keeps_mtime { Some(at.attr().during("stat")?.mtime) } else { None };
        let mut done = 0;
        while let Some(rest) = data.get(done..).filter(|rest| !rest.is_empty()) {
            match self.write(file, offset.saturating_add(done as u64), rest, drops_setid, caller)? {
                0 => return Err(Error::new(Errno::IO, "write")),
                written => done = done.saturating_add(written),
            }
        }
        if let Some(mtime) = mtime {
            at.set_times(&times::partial(None, Some(NewTime::At(mtime)))).during("restore times")?;
        }
        self.touched(&open.inode);
        Ok(done)
    }

    /// Ends a handle.
    ///
    /// # Errors
    /// Those of taking set-id bits away after another user may have written without us.
    pub fn release(&self, file: u64) -> Result<()> {
        let Some(file) = self.files.remove(file) else { return Ok(()) };
        if !file.is_through.load(Ordering::SeqCst) || !file.may_write() {
            return Ok(());
        }
        file.inode.through.fetch_sub(1, Ordering::SeqCst);
        if file.may_map_for_writing() {
            file.inode.mappable.fetch_sub(1, Ordering::SeqCst);
        }
        self.touched(&file.inode);
        if file.uid == 0 || !file.inode.state.read().flags.setid {
            return Ok(());
        }
        // The bits were set while it was open. Its owner might set them again anyway.
        let attr = self.real_attr(&file.inode)?;
        let is_unwritten = file.inode.state.read().extra.as_ref().and_then(|extra| extra.written) == Some(attr.mtime);
        if attr.uid == file.uid || is_unwritten {
            return Ok(());
        }
        self.with_real(
            &file.inode,
            |at, _| at.chmod(attr.mode & !(libc::S_ISUID | libc::S_ISGID)),
            "drop set-id bits",
        )?;
        file.inode.state.write().flags.setid = false;
        self.touched(&file.inode);
        self.tell_stale(&file.inode, Stale::Attributes);
        Ok(())
    }

    /// Brings a file's data, and its attributes unless `data_only`, to the disk.
    ///
    /// # Errors
    /// Those of fsync(2).
    pub fn fsync(&self, file: u64, data_only: bool) -> Result<()> {
        let backing = self.backing(&*self.file(file)?)?;
        if !backing.in_upper || !self.syncs() {
            return Ok(());
        }
        if data_only { calls::fdatasync(&*backing.fd) } else { calls::fsync(&*backing.fd) }.during("fsync")
    }

    /// Brings a directory's entries to the disk.
    ///
    /// # Errors
    /// Those of fsync(2).
    pub fn fsync_dir(&self, ino: u64) -> Result<()> {
        let inode = self.inode(ino)?;
        if !self.syncs() || inode.state.read().upper.is_none() || self.is_read_only() {
            return Ok(());
        }
        let fd = open_listing(self.upper_dir(&inode)?.as_fd()).during("open directory")?;
        calls::fsync(fd).during("fsync")
    }

    /// Reserves or frees space.
    ///
    /// # Errors
    /// Those of fallocate(2).
    pub fn fallocate(&self, file: u64, offset: u64, len: u64, mode: u32, caller: Caller) -> Result<()> {
        let file = self.file(file)?;
        let backing = self.backing(&file)?;
        if !backing.in_upper {
            return Err(Error::new(Errno::BADF, "fallocate"));
        }
        calls::fallocate(&*backing.fd, FallocateFlags::from_bits_retain(mode), offset, len).during("fallocate")?;
        self.drop_setid(&file.inode, caller)?;
        self.touched(&file.inode);
        Ok(())
    }

    /// Finds the next data (or hole, if `hole`) at or after `offset`.
    ///
    /// # Errors
    /// `ENXIO` where there is none.
    pub fn seek(&self, file: u64, offset: u64, hole: bool) -> Result<u64> {
        seek_in(&self.backing(&*self.file(file)?)?.fd, offset, hole)
    }

    /// As [`Overlay::seek`], in a file on a read-only mount that was opened without asking us.
    ///
    /// # Errors
    /// `ENXIO` where there is none; those of opening it.
    pub fn seek_unopened(&self, ino: u64, offset: u64, hole: bool) -> Result<u64> {
        seek_in(&*self.unopened(ino)?, offset, hole)
    }

    /// Copies a range from one open file to another, and returns how many bytes were copied.
    ///
    /// # Errors
    /// Those of copy_file_range(2): `EXDEV` and `EOPNOTSUPP` make the kernel copy by itself.
    pub fn copy_range(
        &self,
        from: u64,
        mut from_offset: u64,
        to: u64,
        mut to_offset: u64,
        len: usize,
        caller: Caller,
    ) -> Result<usize> {
        let (from, to) = (self.file(from)?, self.file(to)?);
        let (source, target) = (self.backing(&from)?, self.backing(&to)?);
        if !target.in_upper {
            return Err(Error::new(Errno::BADF, "copy range"));
        }
        let copied = calls::copy_file_range(&*source.fd, &mut from_offset, &*target.fd, &mut to_offset, len)
            .during("copy range")?;
        self.drop_setid(&to.inode, caller)?;
        self.touched(&to.inode);
        Ok(copied)
    }
}

fn read_at(fd: &OwnedFd, offset: u64, buffer: &mut [u8]) -> Result<usize> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match calls::pread(fd, rest, offset.saturating_add(done as u64)) {
            Ok(0) => break,
            Ok(read) => done = done.saturating_add(read),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::new(errno, "read")),
        }
    }
    Ok(done)
}

fn seek_in(fd: &OwnedFd, offset: u64, hole: bool) -> Result<u64> {
    let from = if hole { SeekFrom::Hole(offset) } else { SeekFrom::Data(offset) };
    calls::seek(fd, from).during("seek")
}
