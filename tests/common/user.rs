//! Acting as another user, in one thread.

/// A user, with the groups.
#[derive(Debug, Clone, Copy)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
}

impl User {
    /// One who is nobody in particular.
    pub const ALICE: Self = Self { uid: 1001, gid: 1001 };
    /// Another.
    pub const BOB: Self = Self { uid: 1002, gid: 1002 };
}

/// Runs `what` as `user` without further groups. The ids of other threads stay.
pub fn as_user<T>(user: User, what: impl FnOnce() -> T) -> T {
    as_user_in(user, &[], what)
}

/// Runs `what` as `user` who is in `groups` too.
pub fn as_user_in<T>(user: User, groups: &[u32], what: impl FnOnce() -> T) -> T {
    let _back = Back;
    set_ids(user, groups);
    what()
}

struct Back;

impl Drop for Back {
    fn drop(&mut self) {
        // The saved user id is root's, which allows to go back.
        check(unsafe { libc::syscall(libc::SYS_setresuid, 0, 0, 0) });
        check(unsafe { libc::syscall(libc::SYS_setresgid, 0, 0, 0) });
        check(unsafe { libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<u32>()) });
    }
}

/// The calls themselves, as those of the C library change all threads.
fn set_ids(user: User, groups: &[u32]) {
    check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) });
    check(unsafe { libc::syscall(libc::SYS_setresgid, user.gid, user.gid, 0) });
    check(unsafe { libc::syscall(libc::SYS_setresuid, user.uid, user.uid, 0) });
}

fn check(result: libc::c_long) {
    assert_eq!(result, 0, "cannot change ids: {}", std::io::Error::last_os_error());
}
