//! Inode flags as `chattr` knows them, and a filesystem's UUID: ioctls without a wrapper elsewhere.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};

use crate::error::Errno;

use super::handle::last_errno;

/// `FS_IOC_GETFLAGS` as a FUSE client sends it.
pub const GETFLAGS: u32 = 0x8008_6601;
/// `FS_IOC_SETFLAGS` as a FUSE client sends it.
pub const SETFLAGS: u32 = 0x4008_6602;
/// `FS_IOC_FSGETXATTR`.
pub const FSGETXATTR: u32 = 0x801c_581f;
/// `FS_IOC_FSSETXATTR`.
pub const FSSETXATTR: u32 = 0x401c_5820;
/// `FS_IOC_GETFSUUID`.
const GETFSUUID: u32 = 0x8011_1500;

/// The kernel's `struct fsxattr`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FsXattr {
    /// `FS_XFLAG_*`.
    pub xflags: u32,
    /// Preferred extent size, in bytes.
    pub extsize: u32,
    /// Number of extents.
    pub nextents: u32,
    /// Project id.
    pub projid: u32,
    /// Preferred extent size for copy-on-write, in bytes.
    pub cowextsize: u32,
    /// Unused.
    pub pad: [u8; 8],
}

impl FsXattr {
    /// Size on the wire, in bytes.
    pub const SIZE: usize = 28;

    /// Decodes the kernel's bytes; `None` when there are too few.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let word = |index: usize| -> Option<u32> {
            let start = index.checked_mul(4)?;
            Some(u32::from_ne_bytes(bytes.get(start..start.checked_add(4)?)?.try_into().ok()?))
        };
        let pad = bytes.get(20..28)?.try_into().ok()?;
        Some(Self {
            xflags: word(0)?,
            extsize: word(1)?,
            nextents: word(2)?,
            projid: word(3)?,
            cowextsize: word(4)?,
            pad,
        })
    }

    /// The kernel's bytes.
    pub fn to_bytes(self) -> Vec<u8> {
        [self.xflags, self.extsize, self.nextents, self.projid, self.cowextsize]
            .into_iter()
            .flat_map(u32::to_ne_bytes)
            .chain(self.pad)
            .collect()
    }
}

/// The flags of the file that `fd` is open on.
///
/// # Errors
/// Those of ioctl(2): `ENOTTY` or `EOPNOTSUPP` where the filesystem has none.
pub fn get_flags(fd: BorrowedFd<'_>) -> Result<u32, Errno> {
    let mut flags: u32 = 0;
    // SAFETY: FS_IOC_GETFLAGS writes an int, whatever its number says.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), GETFLAGS as libc::Ioctl, &raw mut flags) };
    if result < 0 { Err(last_errno()) } else { Ok(flags) }
}

/// Sets the flags of the file that `fd` is open on.
///
/// # Errors
/// Those of ioctl(2).
pub fn set_flags(fd: BorrowedFd<'_>, flags: u32) -> Result<(), Errno> {
    // SAFETY: FS_IOC_SETFLAGS reads an int, whatever its number says.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), SETFLAGS as libc::Ioctl, &raw const flags) };
    if result < 0 { Err(last_errno()) } else { Ok(()) }
}

/// The extended flags of the file that `fd` is open on.
///
/// # Errors
/// Those of ioctl(2).
pub fn get_xattr_flags(fd: BorrowedFd<'_>) -> Result<FsXattr, Errno> {
    let mut attr = FsXattr::default();
    // SAFETY: FS_IOC_FSGETXATTR writes a struct fsxattr, which FsXattr is.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), FSGETXATTR as libc::Ioctl, &raw mut attr) };
    if result < 0 { Err(last_errno()) } else { Ok(attr) }
}

/// Sets the extended flags of the file that `fd` is open on.
///
/// # Errors
/// Those of ioctl(2).
pub fn set_xattr_flags(fd: BorrowedFd<'_>, attr: FsXattr) -> Result<(), Errno> {
    // SAFETY: FS_IOC_FSSETXATTR reads a struct fsxattr, which FsXattr is.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), FSSETXATTR as libc::Ioctl, &raw const attr) };
    if result < 0 { Err(last_errno()) } else { Ok(()) }
}

/// The UUID of the filesystem that `fd` lies on, as the kernel's overlayfs knows it.
///
/// # Errors
/// Those of ioctl(2): `ENOTTY` where the filesystem has none or the kernel is older than 6.9.
pub fn filesystem_uuid(fd: BorrowedFd<'_>) -> Result<[u8; 16], Errno> {
    generic_uuid(fd).or_else(|errno| btrfs_uuid(fd).map_err(|_| errno))
}

fn generic_uuid(fd: BorrowedFd<'_>) -> Result<[u8; 16], Errno> {
    /// The kernel's `struct fsuuid2`.
    #[repr(C)]
    struct Uuid {
        len: u8,
        uuid: [u8; 16],
    }
    let mut uuid = Uuid { len: 0, uuid: [0; 16] };
    // SAFETY: FS_IOC_GETFSUUID writes a struct fsuuid2, which Uuid is.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), GETFSUUID as libc::Ioctl, &raw mut uuid) };
    if result < 0 { Err(last_errno()) } else { Ok(uuid.uuid) }
}

/// btrfs has an ioctl of its own.
fn btrfs_uuid(fd: BorrowedFd<'_>) -> Result<[u8; 16], Errno> {
    /// `BTRFS_IOC_FS_INFO`.
    const FS_INFO: u32 = 0x8400_941f;
    /// The kernel's `struct btrfs_ioctl_fs_info_args`, as far as it is of use here.
    #[repr(C)]
    struct Info {
        max_id: u64,
        num_devices: u64,
        uuid: [u8; 16],
        rest: [u8; 992],
    }
    let mut info = Info { max_id: 0, num_devices: 0, uuid: [0; 16], rest: [0; 992] };
    // SAFETY: BTRFS_IOC_FS_INFO writes 1024 bytes, which Info has.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), FS_INFO as libc::Ioctl, &raw mut info) };
    if result < 0 { Err(last_errno()) } else { Ok(info.uuid) }
}
