//! Replying: once, whatever happens.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use fuser::{
    Generation, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry,
    ReplyIoctl, ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr,
};

use log::Level;
use rustix::fs::StatVfs;

use crate::attr::{Attr, Kind};
use crate::counters::Op;
use crate::error::{Errno, Error, Result};
use crate::overlay::Overlay;

use super::{awake, convert};

/// Node ids are not given to another inode while the kernel knows them.
pub(super) const GENERATION: Generation = Generation(0);

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
    ReplyPoll,
    ReplyStatfs,
    ReplyWrite,
    ReplyXattr
);

/// A request that has arrived, to be answered once.
#[derive(Debug)]
pub(super) struct Begun {
    op: Op,
    at: Option<Instant>,
    /// What it is about, where each request is traced.
    subject: Option<Box<str>>,
}

impl Begun {
    /// A request about the inode `ino`, or `name` in it.
    pub(super) fn new(overlay: &Overlay, op: Op, ino: u64, name: Option<&OsStr>) -> Self {
        awake::note();
        let subject = log::log_enabled!(Level::Trace).then(|| subject(overlay, ino, name));
        Self { op, at: overlay.counters.begin(), subject }
    }

    /// Notes that it was answered.
    pub(super) fn end(self, overlay: &Overlay, errno: Option<Errno>) {
        let took = overlay.counters.end(self.op, self.at, errno.is_some());
        if let Some(subject) = self.subject {
            let result = errno.map_or_else(|| "ok".to_owned(), |errno| std::io::Error::from(errno).to_string());
            log::trace!("{} {subject}: {result}, {} us", self.op.name(), took.as_micros());
        }
    }
}

/// How a request names what it is about: a node id, and a path where one is known.
fn subject(overlay: &Overlay, ino: u64, name: Option<&OsStr>) -> Box<str> {
    let mut path = overlay.path_of(ino).unwrap_or_else(|| "?".into());
    if let Some(name) = name {
        path.push(name);
    }
    format!("{ino} {}", path.as_os_str().as_bytes().escape_ascii()).into()
}

/// Runs `work`, and answers with what comes of it. A panic is answered with `EIO`, and the mount lives on.
pub(super) fn answer<R: Refuse, T>(
    overlay: &Overlay,
    begun: Begun,
    reply: R,
    work: impl FnOnce() -> Result<T>,
    send: impl FnOnce(R, T),
) {
    let errno = match guarded(work) {
        Ok(value) => {
            send(reply, value);
            None
        }
        Err(error) => {
            report(&error);
            reply.refuse(fuser::Errno::from_i32(error.errno().raw_os_error()));
            Some(error.errno())
        }
    };
    begun.end(overlay, errno);
}

/// Runs `work`; a panic becomes `EIO`.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let operation = operation_of(&work);
    // Locks are not poisoned, and no state is left half changed: an inode's changes once the layer has changed.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| {
        let said = payload.downcast_ref::<String>().map(String::as_str);
        let said = said.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("of something");
        log::error!("{operation}: panicked: {said}");
        Err(Error::new(Errno::IO, "serve a request that panicked"))
    })
}

/// The method of the adapter in which a closure is written, which is named as the operation that it serves.
fn operation_of<W>(_work: &W) -> &'static str {
    let path = std::any::type_name::<W>();
    let method = path.split_once("Adapter>::").and_then(|(_, method)| method.split("::").next());
    method.unwrap_or("serve a request")
}

/// Logs an error: aloud where it is the layers that fail, and not the caller's wish.
fn report(error: &Error) {
    match error.errno() {
        Errno::IO | Errno::STALE | Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::UCLEAN => log::error!("{error}"),
        errno => log::debug!("{error} ({})", errno.raw_os_error()),
    }
}

/// How long the kernel may keep attributes, where others may be kept for `timeout`.
pub(super) fn keeps(timeout: Duration, attr: &Attr) -> Duration {
    if attr.is_volatile { Duration::ZERO } else { timeout }
}

/// Sends an entry, or that there is none; the kernel may keep it that long.
pub(super) fn send_entry(timeout: Duration) -> impl FnOnce(ReplyEntry, Option<Attr>) + Send {
    move |reply, attr| {
        // Node id 0: the kernel may keep that there is no such name.
        match attr {
            Some(attr) => reply.entry(&keeps(timeout, &attr), &convert::attr(&attr), GENERATION),
            None => reply.entry(&timeout, &convert::no_attr(0, Kind::File), GENERATION),
        }
    }
}

/// Sends what has neither data nor attributes.
pub(super) fn send_empty(reply: ReplyEmpty, (): ()) {
    reply.ok();
}

/// Sends how many bytes were written.
pub(super) fn send_written(reply: ReplyWrite, written: usize) {
    reply.written(u32::try_from(written).unwrap_or(u32::MAX));
}

/// Sends the filesystem's figures.
pub(super) fn send_statfs(reply: ReplyStatfs, stat: StatVfs) {
    let small = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    reply.statfs(
        stat.f_blocks,
        stat.f_bfree,
        stat.f_bavail,
        stat.f_files,
        stat.f_ffree,
        small(stat.f_bsize),
        small(stat.f_namemax),
        small(stat.f_frsize),
    );
}

/// Sends an attribute's value, or a list of names, as far as there is room for it.
pub(super) fn send_xattr(size: u32) -> impl FnOnce(ReplyXattr, Vec<u8>) {
    move |reply, value| match u32::try_from(value.len()) {
        Ok(len) if size == 0 => reply.size(len),
        Ok(len) if len <= size => reply.data(&value),
        _ => reply.error(fuser::Errno::ERANGE),
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
