//! Replying: once, whatever happens.

use std::panic::{AssertUnwindSafe, catch_unwind};

use fuser::{
    ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl,
    ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr,
};

use crate::error::{Errno, Error, Result};

/// A reply that can say no.
pub(super) trait Refuse {
    /// Answers with an error.
    fn refuse(self, errno: fuser::Errno);
}

macro_rules! refuse {
    ($($reply:ty),* $(,)?) => {
        $(impl Refuse for $reply {
            fn refuse(self, errno: fuser::Errno) {
                self.error(errno);
            }
        })*
    };
}

refuse!(
    ReplyAttr,
    ReplyCreate,
    ReplyData,
    ReplyDirectory,
    ReplyDirectoryPlus,
    ReplyEmpty,
    ReplyEntry,
    ReplyIoctl,
    ReplyLseek,
    ReplyOpen,
    ReplyStatfs,
    ReplyWrite,
    ReplyXattr
);

/// Runs `work`, and answers with what comes of it. A panic is answered with `EIO`, and the mount lives on.
pub(super) fn answer<R: Refuse, T>(reply: R, work: impl FnOnce() -> Result<T>, send: impl FnOnce(R, T)) {
    match guarded(work) {
        Ok(value) => send(reply, value),
        Err(error) => {
            report(&error);
            reply.refuse(fuser::Errno::from_i32(error.errno().raw_os_error()));
        }
    }
}

/// Runs `work`; a panic becomes `EIO`.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    // Locks are not poisoned, and no state is left half changed: an inode's changes once the layer has changed.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(Error::new(Errno::IO, "serve a request that panicked")))
}

/// Logs an error: aloud where it is the layers that fail, and not the caller's wish.
fn report(error: &Error) {
    match error.errno() {
        Errno::IO | Errno::STALE | Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::UCLEAN => log::error!("{error}"),
        errno => log::debug!("{error} ({})", errno.raw_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::panic)]
    fn a_panic_becomes_eio() {
        let result: Result<()> = guarded(|| panic!("on purpose"));
        assert_eq!(result.unwrap_err().errno(), Errno::IO);
    }
}
