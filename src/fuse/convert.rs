//! Between the overlay's types and FUSE's.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo, TimeOrNow};

use crate::attr::{Attr, Kind, Time};
use crate::times::NewTime;

pub(super) const fn kind(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Dir => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
        Kind::Char => FileType::CharDevice,
        Kind::Block => FileType::BlockDevice,
    }
}

pub(super) fn attr(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.ino),
        size: attr.size,
        blocks: attr.blocks,
        atime: system_time(attr.atime),
        mtime: system_time(attr.mtime),
        ctime: system_time(attr.ctime),
        crtime: UNIX_EPOCH,
        kind: kind(attr.kind()),
        perm: u16::try_from(attr.mode & 0o7777).unwrap_or_default(),
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: encode_device(attr.rdev),
        blksize: attr.blksize,
        flags: 0,
    }
}

/// Attributes of an entry of which no more than these is known.
pub(super) fn no_attr(ino: u64, of: Kind) -> FileAttr {
    FileAttr {
        ino: INodeNo(ino),
        // No file is that long: the kernel lists the name, and takes nothing of this for its attributes.
        size: u64::MAX,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: kind(of),
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

/// A time that no clock can hold becomes 1970.
fn system_time(time: Time) -> SystemTime {
    let seconds = Duration::from_secs(time.sec.unsigned_abs());
    let whole = if time.sec < 0 { UNIX_EPOCH.checked_sub(seconds) } else { UNIX_EPOCH.checked_add(seconds) };
    whole.and_then(|whole| whole.checked_add(Duration::from_nanos(time.nsec.into()))).unwrap_or(UNIX_EPOCH)
}

pub(super) fn new_time(time: TimeOrNow) -> NewTime {
    match time {
        TimeOrNow::Now => NewTime::Now,
        TimeOrNow::SpecificTime(time) => NewTime::At(wire_time(time)),
    }
}

/// The time that the kernel sent. fuser 0.18 makes of `-s` seconds and `n` nanoseconds, which is `-s + n`, the time
/// `-(s + n)`.
fn wire_time(time: SystemTime) -> Time {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => Time { sec: i64::try_from(since.as_secs()).unwrap_or(i64::MAX), nsec: since.subsec_nanos() },
        Err(before) => {
            let before = before.duration();
            let sec = 0_i64.checked_sub_unsigned(before.as_secs()).unwrap_or(i64::MIN);
            Time { sec, nsec: before.subsec_nanos() }
        }
    }
}

/// A device number as FUSE writes it: the kernel's 32 bits, 12 of the major and 20 of the minor.
fn encode_device((major, minor): (u32, u32)) -> u32 {
    (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & 0xfff00) << 12)
}

/// The inverse of [`encode_device`].
pub(super) fn decode_device(device: u32) -> (u32, u32) {
    ((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xfff00))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_any_century_survive() {
        let times =
            [(0, 0), (1, 999_999_999), (-1, 0), (-2, 800_000_000), (1 << 40, 1), (-(1 << 40), 1), (i64::MIN, 0)];
        for (sec, nsec) in times {
            let time = system_time(Time { sec, nsec });
            let back = match time.duration_since(UNIX_EPOCH) {
                Ok(since) => i128::try_from(since.as_nanos()).unwrap(),
                Err(before) => -i128::try_from(before.duration().as_nanos()).unwrap(),
            };
            assert_eq!(back, i128::from(sec) * 1_000_000_000 + i128::from(nsec), "{sec}.{nsec}");
        }
    }

    #[test]
    fn times_before_1970_are_read_as_the_kernel_meant_them() {
        for (sec, nsec) in [(5, 7), (-1, 0), (-1, 800_000_000), (-3, 1), (i64::MIN, 0)] {
            // As fuser decodes them.
            let decoded = if sec >= 0 {
                UNIX_EPOCH + Duration::new(sec.unsigned_abs(), nsec)
            } else {
                UNIX_EPOCH - Duration::new(sec.unsigned_abs(), nsec)
            };
            assert_eq!(wire_time(decoded), Time { sec, nsec });
        }
    }

    #[test]
    fn device_numbers_survive() {
        for device in [(0, 0), (1, 3), (8, 1), (259, 70_000), (4095, 1_048_575)] {
            assert_eq!(decode_device(encode_device(device)), device);
        }
    }
}
