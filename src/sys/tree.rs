//! Private copies of a layer's mount, read-only to the kernel itself.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::mount::{OpenTreeFlags, open_tree};

use crate::error::Errno;

use super::handle::last_errno;

/// A detached read-only clone of the mount at `dir`, without the mounts below it and without access times.
///
/// Even a mistake of ours cannot write through it, and a later mount over the layer does not show through it.
///
/// # Errors
/// Those of open_tree(2) and mount_setattr(2): `EPERM` without `CAP_SYS_ADMIN`, `ENOSYS` on an old kernel.
pub fn read_only_clone(dir: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let clone = open_tree(dir, "", flags)?;
    let attr = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOATIME,
        attr_clr: libc::MOUNT_ATTR__ATIME,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: the path is an empty C string, `attr` is a whole mount_attr of the size that is passed, and both outlive
    // the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            clone.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    if result < 0 { Err(last_errno()) } else { Ok(clone) }
}
