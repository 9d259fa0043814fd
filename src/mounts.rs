//! The list of mounts, as the kernel tells it, and the daemons behind them.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::error::Errno;

/// The type that plyfs mounts as.
pub const TYPE: &[u8] = b"fuse.plyfs";

/// A line of the list of mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The device number that its files show.
    pub device: (u32, u32),
    /// Where it is mounted.
    pub path: PathBuf,
    /// Type of the filesystem.
    pub kind: Vec<u8>,
    /// What it shows as its source.
    pub source: OsString,
    /// Who mounted it, as FUSE tells.
    pub owner: Option<u32>,
}

/// The mounts of this process's namespace; a later one lies over an earlier.
///
/// # Errors
/// Those of reading the list.
pub fn list() -> io::Result<Vec<Entry>> {
    Ok(parse(&fs::read("/proc/self/mountinfo")?))
}

fn parse(table: &[u8]) -> Vec<Entry> {
    table.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<Entry> {
    let mut fields = line.split(|byte| *byte == b' ');
    let device = fields.nth(2)?;
    let path = fields.nth(1)?;
    // Fields that may be there or not end with a dash.
    let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
    let (kind, source, options) = (fields.next()?, fields.next()?, fields.next().unwrap_or_default());
    let (major, minor) = str::from_utf8(device).ok()?.split_once(':')?;
    let owner = options.split(|byte| *byte == b',').find_map(|option| option.strip_prefix(b"user_id="));
    Some(Entry {
        device: (major.parse().ok()?, minor.parse().ok()?),
        path: unescape(path).into(),
        kind: kind.to_owned(),
        source: unescape(source),
        owner: owner.and_then(|owner| str::from_utf8(owner).ok()?.parse().ok()),
    })
}

/// Puts the characters back that the list of mounts writes as `\` and three octal digits.
pub fn unescape(field: &[u8]) -> OsString {
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

/// What is mounted at `path`, uppermost.
pub fn at<'m>(mounts: &'m [Entry], path: &Path) -> Option<&'m Entry> {
    mounts.iter().rev().find(|entry| entry.path == path)
}

/// What `path`, a full one, lies on: what is mounted innermost counts, whatever it is.
pub fn over<'m>(mounts: &'m [Entry], path: &Path) -> Option<&'m Entry> {
    path.ancestors().find_map(|dir| at(mounts, dir))
}

/// The full path, even of a mount whose daemon is dead or which is not for us.
///
/// # Errors
/// Those of realpath(3).
pub fn full_path(path: &Path) -> Result<PathBuf, Errno> {
    let errno = |error: &io::Error| Errno::from_io_error(error).unwrap_or(Errno::IO);
    match (fs::canonicalize(path), path.file_name()) {
        (Ok(full), _) => Ok(full),
        (Err(error), Some(name)) if matches!(errno(&error), Errno::NOTCONN | Errno::ACCESS) => {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            Ok(fs::canonicalize(parent).map_err(|error| errno(&error))?.join(name))
        }
        (Err(error), _) => Err(errno(&error)),
    }
}

/// What the daemon of the mount with this device number calls the thread that unmounts it, by which it is found.
pub fn thread_name((major, minor): (u32, u32)) -> String {
    format!("mount {major}:{minor}")
}

/// The daemons of the mount with this device number. There may be another besides the one that is looked for: that of a
/// mount which is gone, so that its number was free again, but not all of its work is done.
pub fn daemons(device: (u32, u32)) -> Vec<OwnedFd> {
    let thread = thread_name(device);
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

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"22 28 0:21 / /sys rw,nosuid shared:7 - sysfs sysfs rw\n\
        40 28 0:50 / /mnt\\040a rw - tmpfs tmpfs rw\n\
        41 40 0:53 / /mnt\\040a rw,nosuid shared:1 master:2 - fuse.plyfs plyfs rw,user_id=1000,group_id=0\n";

    #[test]
    fn the_uppermost_mount_is_found() {
        let mounts = parse(TABLE);
        let found =
            |path: &str| at(&mounts, Path::new(path)).map(|entry| (entry.device, entry.kind.as_slice(), entry.owner));
        assert_eq!(found("/mnt a"), Some(((0, 53), TYPE, Some(1000))));
        assert_eq!(found("/sys"), Some(((0, 21), b"sysfs".as_slice(), None)));
        assert_eq!(found("/mnt"), None);
    }

    #[test]
    fn octal_digits_are_characters() {
        assert_eq!(unescape(b"a\\040b\\134\\0"), "a b\\\\0");
    }
}
