//! Times as utimensat(2) takes them.

use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};

use crate::at::At;
use crate::attr::Time;
use crate::error::Errno;

/// A time to be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewTime {
    /// The current one.
    Now,
    /// This one.
    At(Time),
}

/// Sets what is given, and keeps the rest.
pub fn partial(atime: Option<NewTime>, mtime: Option<NewTime>) -> Timestamps {
    Timestamps { last_access: timespec(atime), last_modification: timespec(mtime) }
}

/// Sets both.
pub fn exact(atime: Time, mtime: Time) -> Timestamps {
    partial(Some(NewTime::At(atime)), Some(NewTime::At(mtime)))
}

/// The times of `at`, to be restored.
///
/// # Errors
/// Those of statx(2).
pub fn of(at: At<'_>) -> Result<Timestamps, Errno> {
    at.attr().map(|attr| exact(attr.atime, attr.mtime))
}

/// The current time, in seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs())
}

/// Waits until what is changed has a later time than `time`, if that is but a moment ago.
pub fn wait_until_past(time: Time) {
    /// The longest by which filesystems are behind the clock.
    const TICK: Duration = Duration::from_millis(10);
    let Ok(seconds) = u64::try_from(time.sec) else { return };
    let end = UNIX_EPOCH.checked_add(Duration::new(seconds, time.nsec)).and_then(|time| time.checked_add(TICK));
    if let Some(left) = end.and_then(|end| end.duration_since(SystemTime::now()).ok())
        && left <= TICK
    {
        sleep(left);
    }
}

fn timespec(time: Option<NewTime>) -> Timespec {
    match time {
        None => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        Some(NewTime::Now) => Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
        Some(NewTime::At(Time { sec, nsec })) => Timespec { tv_sec: sec, tv_nsec: nsec.into() },
    }
}
