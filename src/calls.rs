//! The system calls by which layers are read and changed: all of them, so that tests can have each one fail, or be the
//! last before the daemon dies ([`failpoint`]). Without the feature `failpoints` nothing is added to a call.

#[cfg(feature = "failpoints")]
pub(crate) mod failpoint;

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    self, AtFlags, Dir, FallocateFlags, FileType, Gid, Mode, OFlags, RawDir, RenameFlags, SeekFrom, StatVfs, Statx,
    StatxFlags, Timestamps, Uid, XattrFlags,
};
use rustix::io;
use rustix::path::Arg;

use crate::error::Errno;
use crate::sys::fileattr::{self, FsXattr};
use crate::sys::handle::{self, FileHandle};
use crate::sys::xattr;

type Result<T> = std::result::Result<T, Errno>;

#[cfg(feature = "failpoints")]
use failpoint::{change, read};
#[cfg(not(feature = "failpoints"))]
use unchecked::{change, read};

#[cfg(not(feature = "failpoints"))]
mod unchecked {
    #[inline(always)]
    pub(super) const fn change(_call: &'static str) -> Result<(), crate::error::Errno> {
        Ok(())
    }

    #[inline(always)]
    pub(super) const fn read(_call: &'static str) -> Result<(), crate::error::Errno> {
        Ok(())
    }
}

#[inline]
pub(crate) fn open(path: impl Arg, flags: OFlags) -> Result<OwnedFd> {
    if flags.contains(OFlags::TRUNC) {
        change("open")?
    } else {
        read("open")?
    };
    fs::open(path, flags, Mode::empty())
}

#[inline]
pub(crate) fn openat(dir: impl AsFd, path: impl Arg, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
    if flags.intersects(OFlags::CREATE | OFlags::TRUNC) {
        change("openat")?
    } else {
        read("openat")?
    };
    fs::openat(dir, path, flags, mode)
}

#[inline]
pub(crate) fn mkdirat(dir: impl AsFd, path: impl Arg, mode: Mode) -> Result<()> {
    change("mkdirat")?;
    fs::mkdirat(dir, path, mode)
}

#[inline]
pub(crate) fn mknodat(dir: impl AsFd, path: impl Arg, kind: FileType, mode: Mode, dev: u64) -> Result<()> {
    change("mknodat")?;
    fs::mknodat(dir, path, kind, mode, dev)
}

#[inline]
pub(crate) fn symlinkat(target: impl Arg, dir: impl AsFd, path: impl Arg) -> Result<()> {
    change("symlinkat")?;
    fs::symlinkat(target, dir, path)
}

#[inline]
pub(crate) fn linkat(from: impl AsFd, path: impl Arg, to: impl AsFd, new_path: impl Arg, flags: AtFlags) -> Result<()> {
    change("linkat")?;
    fs::linkat(from, path, to, new_path, flags)
}

#[inline]
pub(crate) fn unlinkat(dir: impl AsFd, path: impl Arg, flags: AtFlags) -> Result<()> {
    change("unlinkat")?;
    fs::unlinkat(dir, path, flags)
}

#[inline]
pub(crate) fn renameat(
    from: impl AsFd,
    path: impl Arg,
    to: impl AsFd,
    new_path: impl Arg,
    flags: RenameFlags,
) -> Result<()> {
    change("renameat")?;
    fs::renameat_with(from, path, to, new_path, flags)
}

#[inline]
pub(crate) fn statx(dir: impl AsFd, path: impl Arg, flags: AtFlags) -> Result<Statx> {
    read("statx")?;
    fs::statx(dir, path, flags, StatxFlags::BASIC_STATS)
}

#[inline]
pub(crate) fn fstatvfs(fd: impl AsFd) -> Result<StatVfs> {
    read("fstatvfs")?;
    fs::fstatvfs(fd)
}

#[inline]
pub(crate) fn readlinkat(dir: impl AsFd, path: impl Arg) -> Result<Vec<u8>> {
    read("readlinkat")?;
    Ok(fs::readlinkat(dir, path, Vec::with_capacity(256))?.into_bytes())
}

/// The entries of a directory that is open for reading.
#[inline]
pub(crate) fn list(dir: OwnedFd) -> Result<Dir> {
    read("getdents")?;
    Dir::new(dir)
}

/// As [`list`], into a buffer of the caller's.
#[inline]
pub(crate) fn list_raw<'b>(
    dir: BorrowedFd<'b>,
    buffer: &'b mut [MaybeUninit<u8>],
) -> Result<RawDir<'b, BorrowedFd<'b>>> {
    read("getdents")?;
    Ok(RawDir::new(dir, buffer))
}

#[inline]
pub(crate) fn chmod(path: impl Arg, mode: Mode) -> Result<()> {
    change("chmod")?;
    fs::chmod(path, mode)
}

#[inline]
pub(crate) fn chownat(
    dir: impl AsFd,
    path: impl Arg,
    owner: Option<Uid>,
    group: Option<Gid>,
    flags: AtFlags,
) -> Result<()> {
    change("chownat")?;
    fs::chownat(dir, path, owner, group, flags)
}

#[inline]
pub(crate) fn utimensat(dir: impl AsFd, path: impl Arg, times: &Timestamps, flags: AtFlags) -> Result<()> {
    change("utimensat")?;
    fs::utimensat(dir, path, times, flags)
}

#[inline]
pub(crate) fn getxattr(path: impl Arg, name: impl Arg, value: &mut [u8]) -> Result<usize> {
    read("getxattr")?;
    fs::getxattr(path, name, value)
}

#[inline]
pub(crate) fn lgetxattr(path: impl Arg, name: impl Arg, value: &mut [u8]) -> Result<usize> {
    read("getxattr")?;
    fs::lgetxattr(path, name, value)
}

/// As [`sys::xattr::get`](xattr::get).
#[inline]
pub(crate) fn getxattrat(dir: BorrowedFd<'_>, path: &CStr, name: &CStr, value: &mut [u8]) -> Option<Result<usize>> {
    match read("getxattr") {
        Ok(()) => xattr::get(dir, path, name, value),
        Err(errno) => Some(Err(errno)),
    }
}

#[inline]
pub(crate) fn listxattr(path: impl Arg, list: &mut [u8]) -> Result<usize> {
    read("listxattr")?;
    fs::listxattr(path, list)
}

#[inline]
pub(crate) fn llistxattr(path: impl Arg, list: &mut [u8]) -> Result<usize> {
    read("listxattr")?;
    fs::llistxattr(path, list)
}

/// As [`sys::xattr::list`](xattr::list).
#[inline]
pub(crate) fn listxattrat(dir: BorrowedFd<'_>, path: &CStr, list: &mut [u8]) -> Option<Result<usize>> {
    match read("listxattr") {
        Ok(()) => xattr::list(dir, path, list),
        Err(errno) => Some(Err(errno)),
    }
}

#[inline]
pub(crate) fn setxattr(path: impl Arg, name: impl Arg, value: &[u8], flags: XattrFlags) -> Result<()> {
    change("setxattr")?;
    fs::setxattr(path, name, value, flags)
}

#[inline]
pub(crate) fn lsetxattr(path: impl Arg, name: impl Arg, value: &[u8], flags: XattrFlags) -> Result<()> {
    change("setxattr")?;
    fs::lsetxattr(path, name, value, flags)
}

#[inline]
pub(crate) fn removexattr(path: impl Arg, name: impl Arg) -> Result<()> {
    change("removexattr")?;
    fs::removexattr(path, name)
}

#[inline]
pub(crate) fn lremovexattr(path: impl Arg, name: impl Arg) -> Result<()> {
    change("removexattr")?;
    fs::lremovexattr(path, name)
}

#[inline]
pub(crate) fn get_flags(fd: BorrowedFd<'_>) -> Result<u32> {
    read("get flags")?;
    fileattr::get_flags(fd)
}

#[inline]
pub(crate) fn set_flags(fd: BorrowedFd<'_>, flags: u32) -> Result<()> {
    change("set flags")?;
    fileattr::set_flags(fd, flags)
}

#[inline]
pub(crate) fn get_xattr_flags(fd: BorrowedFd<'_>) -> Result<FsXattr> {
    read("get flags")?;
    fileattr::get_xattr_flags(fd)
}

#[inline]
pub(crate) fn set_xattr_flags(fd: BorrowedFd<'_>, flags: FsXattr) -> Result<()> {
    change("set flags")?;
    fileattr::set_xattr_flags(fd, flags)
}

#[inline]
pub(crate) fn name_to_handle(dir: BorrowedFd<'_>, name: &[u8]) -> Result<FileHandle> {
    read("name_to_handle_at")?;
    handle::name_to_handle(dir, name)
}

#[inline]
pub(crate) fn open_by_handle(mount: BorrowedFd<'_>, file: &FileHandle) -> Result<OwnedFd> {
    read("open_by_handle_at")?;
    handle::open_by_handle(mount, file)
}

#[inline]
pub(crate) fn pread(fd: impl AsFd, buffer: &mut [u8], offset: u64) -> Result<usize> {
    read("pread")?;
    io::pread(fd, buffer, offset)
}

#[inline]
pub(crate) fn pwrite(fd: impl AsFd, data: &[u8], offset: u64) -> Result<usize> {
    change("pwrite")?;
    io::pwrite(fd, data, offset)
}

#[inline]
pub(crate) fn seek(fd: impl AsFd, from: SeekFrom) -> Result<u64> {
    read("lseek")?;
    fs::seek(fd, from)
}

#[inline]
pub(crate) fn ftruncate(fd: impl AsFd, size: u64) -> Result<()> {
    change("ftruncate")?;
    fs::ftruncate(fd, size)
}

#[inline]
pub(crate) fn fallocate(fd: impl AsFd, mode: FallocateFlags, offset: u64, len: u64) -> Result<()> {
    change("fallocate")?;
    fs::fallocate(fd, mode, offset, len)
}

#[inline]
pub(crate) fn copy_file_range(
    from: impl AsFd,
    offset: &mut u64,
    to: impl AsFd,
    new_offset: &mut u64,
    len: usize,
) -> Result<usize> {
    change("copy_file_range")?;
    fs::copy_file_range(from, Some(offset), to, Some(new_offset), len)
}

/// Has `to` share the data of `from`.
#[inline]
pub(crate) fn clone_data(to: impl AsFd, from: impl AsFd) -> Result<()> {
    change("ioctl FICLONE")?;
    fs::ioctl_ficlone(to, from)
}

#[inline]
pub(crate) fn fsync(fd: impl AsFd) -> Result<()> {
    change("fsync")?;
    fs::fsync(fd)
}

#[inline]
pub(crate) fn fdatasync(fd: impl AsFd) -> Result<()> {
    change("fdatasync")?;
    fs::fdatasync(fd)
}
