//! File handles: a name for an inode that survives renames and remounts.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::error::Errno;

/// The longest handle that Linux makes, in bytes (`MAX_HANDLE_SZ`).
const MAX_HANDLE: usize = 128;

/// A filesystem's own handle of one of its inodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileHandle {
    /// The filesystem's number for this form of handle.
    pub kind: i32,
    /// The handle itself.
    pub bytes: Vec<u8>,
}

/// The kernel's `struct file_handle` with room for the longest handle.
#[repr(C)]
struct RawHandle {
    len: u32,
    kind: i32,
    bytes: [u8; MAX_HANDLE],
}

/// The handle of the entry `name` in `dir`, or of `dir` itself when `name` is empty; symlinks are not followed.
///
/// # Errors
/// Those of name_to_handle_at(2): `EOPNOTSUPP` where the filesystem has no handles.
pub fn name_to_handle(dir: BorrowedFd<'_>, name: &[u8]) -> Result<FileHandle, Errno> {
    let mut path = Vec::from(name);
    path.push(0);
    let mut raw = RawHandle { len: MAX_HANDLE as u32, kind: 0, bytes: [0; MAX_HANDLE] };
    let mut mount_id: libc::c_int = 0;
    let flags = if name.is_empty() { libc::AT_EMPTY_PATH } else { 0 };
    // SAFETY: `path` ends with a NUL, `raw` has the layout of struct file_handle with the room that `len` announces,
    // and all three outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            dir.as_raw_fd(),
            path.as_ptr(),
            &raw mut raw,
            &raw mut mount_id,
            flags,
        )
    };
    if result < 0 {
        return Err(last_errno());
    }
    let bytes = raw.bytes.get(..raw.len as usize).ok_or(Errno::OVERFLOW)?.to_vec();
    Ok(FileHandle { kind: raw.kind, bytes })
}

/// Opens what `handle` names as `O_PATH`, on the filesystem that `mount` lies on.
///
/// # Errors
/// Those of open_by_handle_at(2): `ESTALE` for an inode that is gone, `EPERM` without the privilege.
pub fn open_by_handle(mount: BorrowedFd<'_>, handle: &FileHandle) -> Result<OwnedFd, Errno> {
    let mut raw = RawHandle { len: 0, kind: handle.kind, bytes: [0; MAX_HANDLE] };
    raw.bytes.get_mut(..handle.bytes.len()).ok_or(Errno::STALE)?.copy_from_slice(&handle.bytes);
    raw.len = handle.bytes.len() as u32;
    // SAFETY: `raw` has the layout of struct file_handle, its `len` bytes are initialized, and it outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_open_by_handle_at,
            mount.as_raw_fd(),
            &raw mut raw,
            libc::O_PATH | libc::O_CLOEXEC | libc::O_NOFOLLOW,
        )
    };
    if result < 0 {
        return Err(last_errno());
    }
    let fd = i32::try_from(result).map_err(|_| Errno::BADF)?;
    // SAFETY: the call succeeded, so `fd` is a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The errno that the last failed libc call left.
pub(super) fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
