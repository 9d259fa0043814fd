//! Scheduling.
#![allow(unsafe_code)]

use crate::error::Errno;

/// Has the calling thread run only where no other wants to (`SCHED_IDLE`).
///
/// # Errors
/// Those of sched_setscheduler(2).
pub fn become_idle() -> Result<(), Errno> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the pointer is to a whole sched_param that lives over the call; 0 is the calling thread.
    match unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters) } {
        0 => Ok(()),
        _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::PERM)),
    }
}
