//! Memory that the allocator keeps.
#![allow(unsafe_code)]

/// Gives memory back to the system that is free but still the process's, as after many inodes were forgotten.
///
/// Takes some milliseconds.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim may be called at any time, by any thread.
    let _ = unsafe { libc::malloc_trim(0) };
}
