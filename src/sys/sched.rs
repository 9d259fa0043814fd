//! Scheduling.
#![allow(unsafe_code)]

use crate::error::Errno;

/// Has the calling thread run only where no other wants to (`SCHED_IDLE`).
///
/// # Errors
/// Those of sched_setscheduler(2).
pub fn become_idle() -> Result<(), Errno> {
    // The kernel's `struct sched_param`: its one field. The call itself, as not every C library passes it on.
    let priority: libc::c_int = 0;
    // SAFETY: the pointer is to a whole sched_param that lives over the call; 0 is the calling thread.
    match unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, libc::SCHED_IDLE, &raw const priority) } {
        0 => Ok(()),
        _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::PERM)),
    }
}
