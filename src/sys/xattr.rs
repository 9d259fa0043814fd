//! Extended attributes by directory and name: getxattrat(2) and its kin (Linux 6.13), which spare the way through /proc.
//! They take no `O_PATH` descriptor without a name, and do not follow a symlink here.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::AtFlags;

use crate::error::Errno;

/// The same on every architecture.
const SYS_GETXATTRAT: libc::c_long = 464;
const SYS_LISTXATTRAT: libc::c_long = 465;

/// `struct xattr_args`.
#[repr(C, align(8))]
struct Args {
    value: u64,
    size: u32,
    flags: u32,
}

/// The kernel does not know these calls.
static IS_MISSING: AtomicBool = AtomicBool::new(false);

/// Reads the attribute `name` of `path` in `dir` into `buffer`; `None` where the kernel cannot do it this way.
pub fn get(dir: BorrowedFd<'_>, path: &CStr, name: &CStr, buffer: &mut [u8]) -> Option<Result<usize, Errno>> {
    if IS_MISSING.load(Ordering::Relaxed) {
        return None;
    }
    let size = u32::try_from(buffer.len()).unwrap_or(u32::MAX);
    let mut args = Args { value: buffer.as_mut_ptr() as u64, size, flags: 0 };
    // SAFETY: all pointers are to what lives over the call; the kernel writes at most `size` bytes to the buffer, which
    // has as many.
    let result = unsafe {
        libc::syscall(
            SYS_GETXATTRAT,
            dir.as_raw_fd(),
            path.as_ptr(),
            AtFlags::SYMLINK_NOFOLLOW.bits(),
            name.as_ptr(),
            &raw mut args,
            size_of::<Args>(),
        )
    };
    told(result)
}

/// Reads the names of the attributes of `path` in `dir` into `buffer`; `None` where the kernel cannot do it this way.
pub fn list(dir: BorrowedFd<'_>, path: &CStr, buffer: &mut [u8]) -> Option<Result<usize, Errno>> {
    if IS_MISSING.load(Ordering::Relaxed) {
        return None;
    }
    // SAFETY: the pointers are to what lives over the call; the kernel writes at most as many bytes to the buffer as it
    // is told that it has.
    let result = unsafe {
        libc::syscall(
            SYS_LISTXATTRAT,
            dir.as_raw_fd(),
            path.as_ptr(),
            AtFlags::SYMLINK_NOFOLLOW.bits(),
            buffer.as_mut_ptr(),
            buffer.len(),
        )
    };
    told(result)
}

fn told(result: libc::c_long) -> Option<Result<usize, Errno>> {
    if let Ok(len) = usize::try_from(result) {
        return Some(Ok(len));
    }
    match Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO) {
        // Filters of system calls answer what they do not know in either way.
        Errno::NOSYS | Errno::PERM => {
            IS_MISSING.store(true, Ordering::Relaxed);
            None
        }
        errno => Some(Err(errno)),
    }
}
