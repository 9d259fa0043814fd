//! Unmounting by path, as a command of its own.

use std::ffi::OsString;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::error::Errno;

use super::failure::Failure;
use super::kernel::{thread_name, unmount};

/// How long a daemon may take to end after its mount has gone.
const PATIENCE: Duration = Duration::from_secs(10);
/// The type that plyfs mounts as.
const TYPE: &[u8] = b"fuse.plyfs";

/// Unmounts the overlay at `path`, and waits until its daemon has ended; `lazily`, it does not wait for who uses it.
///
/// Says what it could not wait for.
///
/// # Errors
/// Why there is nothing to unmount, or why it cannot be.
pub fn umount(path: &Path, lazily: bool) -> Result<Option<String>, Failure> {
    let path = full(path)?;
    let table = table()?;
    let Some(entry) = find(&table, &path) else {
        return Err(Failure::new(format!("{}: not mounted", path.display())));
    };
    if entry.kind != TYPE {
        let kind = String::from_utf8_lossy(entry.kind);
        return Err(Failure::new(format!("{}: a mount of type {kind}, not of plyfs", path.display())));
    }
    let daemons = if lazily { Vec::new() } else { find_daemons(&thread_name(entry.device)) };
    unmount(&path, lazily)?;
    let runs = || format!("{}: unmounted, but its daemon still runs: it is mounted elsewhere, or busy", path.display());
    Ok((!daemons.iter().all(ends)).then(runs))
}

/// What the list of mounts shows as the source of the overlay that is mounted at `path`, a full one; `None` where none is.
///
/// # Errors
/// That there is no list.
pub fn source_of(path: &Path) -> Result<Option<OsString>, Failure> {
    let table = table()?;
    let entry = find(&table, path).filter(|entry| entry.kind == TYPE);
    Ok(entry.map(|entry| unescape(entry.source)))
}

/// Where the overlay is mounted that `path` lies on; `None` where it lies on none.
///
/// # Errors
/// That there is no such path, or no list of mounts.
pub fn covering(path: &Path) -> Result<Option<PathBuf>, Failure> {
    let table = table()?;
    // What is mounted innermost counts, whatever it is.
    let mounted = full(path)?.ancestors().find_map(|dir| Some((dir.to_owned(), find(&table, dir)?.kind == TYPE)));
    Ok(mounted.and_then(|(dir, is_ours)| is_ours.then_some(dir)))
}

/// The full path, even of a mount whose daemon is dead.
fn full(path: &Path) -> Result<PathBuf, Failure> {
    let failed = |error: std::io::Error| Failure::on("", path, Errno::from_io_error(&error).unwrap_or(Errno::IO));
    match (fs::canonicalize(path), path.file_name()) {
        (Ok(full), _) => Ok(full),
        (Err(error), Some(name)) if Errno::from_io_error(&error) == Some(Errno::NOTCONN) => {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            Ok(fs::canonicalize(parent).map_err(failed)?.join(name))
        }
        (Err(error), _) => Err(failed(error)),
    }
}

/// The list of mounts.
fn table() -> Result<Vec<u8>, Failure> {
    fs::read("/proc/self/mountinfo").map_err(|error| Failure::new(format!("/proc/self/mountinfo: {error}")))
}

/// A line of the list of mounts.
#[derive(Debug, PartialEq, Eq)]
struct Entry<'a> {
    device: (u32, u32),
    kind: &'a [u8],
    source: &'a [u8],
}

/// What is mounted at `path`, uppermost.
fn find<'a>(table: &'a [u8], path: &Path) -> Option<Entry<'a>> {
    table.split(|byte| *byte == b'\n').rev().find_map(|line| {
        let mut fields = line.split(|byte| *byte == b' ');
        let device = fields.nth(2)?;
        let at = fields.nth(1)?;
        if unescape(at) != path.as_os_str() {
            return None;
        }
        // Fields that may be there or not end with a dash.
        let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
        let (kind, source) = (fields.next()?, fields.next()?);
        let (major, minor) = str::from_utf8(device).ok()?.split_once(':')?;
        Some(Entry { device: (major.parse().ok()?, minor.parse().ok()?), kind, source })
    })
}

/// Puts the characters back that the list of mounts writes as `\` and three octal digits.
fn unescape(field: &[u8]) -> OsString {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let code = match (byte, after.get(..3)) {
            (b'\\', Some(digits)) => str::from_utf8(digits).ok().and_then(|digits| u8::from_str_radix(digits, 8).ok()),
            _ => None,
        };
        plain.push(code.unwrap_or(byte));
        rest = if code.is_some() { after.get(3..).unwrap_or_default() } else { after };
    }
    OsString::from_vec(plain)
}

/// The processes that have a thread of this name. There may be another besides the one that is looked for: that of a
/// mount which is gone, so that its device number was free again, but not all of its work is done.
fn find_daemons(thread: &str) -> Vec<OwnedFd> {
    let is_daemon = |process: &Path| {
        let threads = fs::read_dir(process.join("task")).ok();
        threads.into_iter().flatten().flatten().any(|entry| {
            fs::read(entry.path().join("comm")).is_ok_and(|comm| comm.strip_suffix(b"\n") == Some(thread.as_bytes()))
        })
    };
    let daemon = |entry: fs::DirEntry| {
        let pid = entry.file_name().to_str()?.parse().ok().and_then(Pid::from_raw)?;
        if is_daemon(&entry.path()) { pidfd_open(pid, PidfdFlags::empty()).ok() } else { None }
    };
    fs::read_dir("/proc").map_or_else(|_| Vec::new(), |entries| entries.flatten().filter_map(daemon).collect())
}

/// Waits for the end of a process; whether it came.
fn ends(process: &OwnedFd) -> bool {
    let timeout = Timespec { tv_sec: i64::try_from(PATIENCE.as_secs()).unwrap_or(i64::MAX), tv_nsec: 0 };
    loop {
        match poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&timeout)) {
            Err(Errno::INTR) => {}
            result => return result.is_ok_and(|ready| ready > 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"22 28 0:21 / /sys rw,nosuid shared:7 - sysfs sysfs rw\n\
        40 28 0:50 / /mnt\\040a rw - tmpfs tmpfs rw\n\
        41 40 0:53 / /mnt\\040a rw,nosuid shared:1 master:2 - fuse.plyfs plyfs rw,user_id=0\n";

    #[test]
    fn the_uppermost_mount_is_found() {
        assert_eq!(
            find(TABLE, Path::new("/mnt a")),
            Some(Entry { device: (0, 53), kind: b"fuse.plyfs", source: b"plyfs" })
        );
        assert_eq!(find(TABLE, Path::new("/sys")), Some(Entry { device: (0, 21), kind: b"sysfs", source: b"sysfs" }));
        assert_eq!(find(TABLE, Path::new("/mnt")), None);
    }

    #[test]
    fn octal_digits_are_characters() {
        assert_eq!(unescape(b"a\\040b\\134\\0"), "a b\\\\0");
    }
}
