//! Doing an operation, on a path. What is done through a file that is open is in `held.rs`.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::fs::{
    Access, AtFlags, CWD, FallocateFlags, FileType, Gid, Mode, OFlags, RenameFlags, Timespec, Timestamps, UTIME_NOW,
    UTIME_OMIT, Uid, XattrFlags,
};
use rustix::io::Errno;

use super::build::{CAPABILITY, acl};
use super::case::Operation;
use super::common::{Mounted, User, as_user_in, fstat, open};
use super::held::{self, Held};

/// What an operation found, or why it failed.
pub type Outcome = Result<String, Errno>;

/// Which user an operation without a word about it is done by, and the group that some others are in.
const GROUP: u32 = 5;

/// Attributes that operations set and remove.
pub const XATTRS: [&str; 7] = [
    "user.x",
    "user.y",
    "user.a-rather-long-name-of-an-attribute",
    "trusted.t",
    // Look like marks, and are stored escaped.
    "trusted.overlay.redirect",
    "user.overlay.opaque",
    CAPABILITY.0,
];

/// The default of what is made: what the umask leaves of it is seen.
const MODES: [u32; 6] = [0o666, 0o777, 0o644, 0o4755, 0o2775, 0o1777];

/// Does an operation as who it is to be done by.
pub fn perform(tree: &Mounted, held: &mut Held, operation: &Operation) -> Outcome {
    match operation.who {
        None => perform_as_root(tree, held, operation),
        Some((uid, in_group)) => {
            let groups: &[u32] = if in_group { &[GROUP] } else { &[] };
            as_user_in(User { uid, gid: uid }, groups, || perform_as_root(tree, held, operation))
        }
    }
}

fn perform_as_root(tree: &Mounted, held: &mut Held, operation: &Operation) -> Outcome {
    let Operation { kind, number, .. } = operation;
    let number = *number;
    if let Some(kind) = kind.strip_prefix("hold") {
        return held::perform(tree, held, kind, operation);
    }
    let (path, other) = (tree.path(operation.path.path()), tree.path(operation.other.path()));
    let (path, other) = (path.as_path(), other.as_path());
    let done = |()| String::new();
    match kind.as_str() {
        "create" => made(number, |mode| {
            rustix::fs::open(path, OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC, mode).map(drop)
        }),
        "write" => {
            let file = open(path, OFlags::CREATE | OFlags::WRONLY | OFlags::TRUNC | OFlags::NONBLOCK)?;
            write(&file, 0, number as usize % 5000)
        }
        "overwrite" => {
            let file = open(path, OFlags::RDWR | OFlags::NONBLOCK)?;
            write(&file, u64::from(number % 6000), 1 + number as usize % 300)
        }
        "append" => {
            let file = open(path, OFlags::WRONLY | OFlags::APPEND | OFlags::NONBLOCK)?;
            match rustix::io::write(&file, b"end") {
                Ok(written) => Ok(format!("{written} of {}", fstat(&file).st_size)),
                Err(errno) => Err(errno),
            }
        }
        "truncate" => {
            let path = std::ffi::CString::new(path.as_os_str().as_bytes()).unwrap();
            // SAFETY: the path is a C string.
            match unsafe { libc::truncate(path.as_ptr(), if number % 4 == 0 { 0 } else { (number % 10_000).into() }) } {
                0 => Ok(String::new()),
                _ => Err(last_errno()),
            }
        }
        "mkdir" => made(number, |mode| rustix::fs::mkdir(path, mode)),
        "rmdir" => rustix::fs::rmdir(path).map(done),
        "unlink" => rustix::fs::unlink(path).map(done),
        "rename" => rustix::fs::rename(path, other).map(done),
        "exchange" => rustix::fs::renameat_with(CWD, path, CWD, other, RenameFlags::EXCHANGE).map(done),
        "noreplace" => rustix::fs::renameat_with(CWD, path, CWD, other, RenameFlags::NOREPLACE).map(done),
        "rename-whiteout" => rustix::fs::renameat_with(CWD, path, CWD, other, RenameFlags::WHITEOUT).map(done),
        "link" => rustix::fs::linkat(CWD, path, CWD, other, AtFlags::empty()).map(done),
        "symlink" => rustix::fs::symlink(*pick(&["target", "a", "../b"], number), path).map(done),
        "fifo" => made(number, |mode| rustix::fs::mknodat(CWD, path, FileType::Fifo, mode, 0)),
        "socket" => made(number, |mode| rustix::fs::mknodat(CWD, path, FileType::Socket, mode, 0)),
        "file" => made(number, |mode| rustix::fs::mknodat(CWD, path, FileType::RegularFile, mode, 0)),
        "device" => made(number, |mode| {
            // One in eight would be a whiteout.
            let device = if number.is_multiple_of(8) { 0 } else { rustix::fs::makedev(1, 3) };
            rustix::fs::mknodat(CWD, path, FileType::CharacterDevice, mode, device)
        }),
        "chmod" => rustix::fs::chmod(path, Mode::from_raw_mode(number % 0o10000)).map(done),
        "chown" => {
            let (uid, gid) = owner(number);
            rustix::fs::chownat(CWD, path, uid, gid, AtFlags::SYMLINK_NOFOLLOW).map(done)
        }
        "times" => {
            rustix::fs::utimensat(CWD, path, &times(number), AtFlags::SYMLINK_NOFOLLOW)?;
            // The access time is only here known to be what was set.
            let is_set = number % 4 > 1;
            rustix::fs::lstat(path)
                .map(|stat| if is_set { format!("accessed {}", stat.st_atime) } else { String::new() })
        }
        "setxattr" => {
            let name = *pick(&XATTRS, number);
            let flags = *pick(&[XattrFlags::empty(), XattrFlags::CREATE, XattrFlags::REPLACE], number / 7);
            let value = if name == CAPABILITY.0 { CAPABILITY.1.to_vec() } else { vec![b'v'; number as usize % 90] };
            rustix::fs::lsetxattr(path, name, &value, flags).map(done)
        }
        "getxattr" => {
            let mut value = vec![0; 4096];
            let len = rustix::fs::lgetxattr(path, *pick(&XATTRS, number), &mut value[..])?;
            Ok(value[..len].escape_ascii().to_string())
        }
        "listxattr" => {
            let mut names = vec![0; 4096];
            let len = rustix::fs::llistxattr(path, &mut names[..])?;
            let mut names: Vec<&[u8]> = names[..len].split(|byte| *byte == 0).collect();
            names.sort_unstable();
            Ok(names.join(&b' ').escape_ascii().to_string())
        }
        "removexattr" => rustix::fs::lremovexattr(path, *pick(&XATTRS, number)).map(done),
        "set-acl" | "set-default-acl" => {
            let name = if kind == "set-acl" { "system.posix_acl_access" } else { "system.posix_acl_default" };
            rustix::fs::lsetxattr(path, name, &acl(number as usize >> 2), XattrFlags::empty()).map(done)
        }
        "remove-acl" => rustix::fs::lremovexattr(path, "system.posix_acl_access").map(done),
        "list" => list(path),
        "read" => {
            let mut file = open(path, OFlags::RDONLY | OFlags::NONBLOCK)?;
            if fstat(&file).st_size > 1 << 20 {
                return Ok(fstat(&file).st_size.to_string());
            }
            let mut content = Vec::new();
            file.read_to_end(&mut content).map_err(|error| Errno::from_io_error(&error).unwrap())?;
            Ok(content.escape_ascii().to_string())
        }
        "readlink" => rustix::fs::readlink(path, Vec::new()).map(|target| format!("{target:?}")),
        "stat" => rustix::fs::lstat(path).map(|stat| {
            // No blocks: those of attributes count as well, and depend on the order in which they were set.
            format!("{:o} {}:{} {}", stat.st_mode, stat.st_uid, stat.st_gid, stat.st_rdev)
        }),
        "access" => {
            let access = Access::from_bits_truncate(number % 8);
            rustix::fs::accessat(CWD, path, access, if number & 8 == 0 { AtFlags::EACCESS } else { AtFlags::empty() })
                .map(done)
        }
        "open" => open(path, OFlags::RDWR | OFlags::NONBLOCK).map(|_| String::new()),
        "open-truncated" => open(path, OFlags::RDONLY | OFlags::TRUNC | OFlags::NONBLOCK).map(|_| String::new()),
        "allocate" => {
            let file = open(path, OFlags::RDWR | OFlags::NONBLOCK)?;
            allocate(&file, number)
        }
        "copy-range" => {
            let from = open(path, OFlags::RDONLY | OFlags::NONBLOCK)?;
            let to = open(other, OFlags::WRONLY | OFlags::NONBLOCK)?;
            copy_range(&from, &to, number)
        }
        "seek" => {
            let file = open(path, OFlags::RDONLY | OFlags::NONBLOCK)?;
            seek(&file, number)
        }
        _ => panic!("no such operation: {kind}"),
    }
}

/// One of `choices`, by the number of an operation.
pub fn pick<T>(choices: &[T], number: u32) -> &T {
    &choices[number as usize % choices.len()]
}

pub fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap()
}

/// Makes something with a mode and under a umask that the number says.
fn made(number: u32, make: impl FnOnce(Mode) -> Result<(), Errno>) -> Outcome {
    let umask = *pick(&[0o022, 0o022, 0, 0o077], number / 64);
    let before = rustix::process::umask(Mode::from_raw_mode(umask));
    let result = make(Mode::from_raw_mode(*pick(&MODES, number)));
    rustix::process::umask(before);
    result.map(|()| String::new())
}

/// An owner and a group to be set, or to stay.
pub fn owner(number: u32) -> (Option<Uid>, Option<Gid>) {
    let uid = *pick(&[None, Some(0), Some(1000), Some(7)], number);
    let gid = *pick(&[None, Some(0), Some(1000), Some(GROUP)], number / 4);
    (uid.map(Uid::from_raw), gid.map(Gid::from_raw))
}

/// Times to be set: to some second, to the current one, or to stay.
pub fn times(number: u32) -> Timestamps {
    let time = |choice: u32| match choice % 4 {
        0 => Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
        1 => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        _ => Timespec { tv_sec: i64::from(number), tv_nsec: 5 },
    };
    Timestamps { last_access: time(number), last_modification: time(number / 4) }
}

pub fn write(file: &File, offset: u64, len: usize) -> Outcome {
    file.write_all_at(&vec![b'w'; len], offset).map_err(|error| Errno::from_io_error(&error).unwrap())?;
    Ok(String::new())
}

pub fn allocate(file: &File, number: u32) -> Outcome {
    let flags = *pick(
        &[
            FallocateFlags::empty(),
            FallocateFlags::KEEP_SIZE,
            FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
            FallocateFlags::PUNCH_HOLE,
        ],
        number,
    );
    rustix::fs::fallocate(file, flags, u64::from(number % 4000), 3000).map(|()| String::new())
}

pub fn copy_range(from: &File, to: &File, number: u32) -> Outcome {
    let (mut from_offset, mut to_offset) = (u64::from(number % 1000), u64::from(number % 3000));
    let copied = rustix::fs::copy_file_range(from, Some(&mut from_offset), to, Some(&mut to_offset), 2000)?;
    Ok(copied.to_string())
}

/// Whether there is data, or a hole, after some offset.
pub fn seek(file: &File, number: u32) -> Outcome {
    if FileType::from_raw_mode(fstat(file).st_mode) != FileType::RegularFile {
        return Ok("no file".to_owned());
    }
    let offset = u64::from(number % 8000);
    let from = if number & 1 == 0 { rustix::fs::SeekFrom::Data(offset) } else { rustix::fs::SeekFrom::Hole(offset) };
    rustix::fs::seek(file, from).map(|_| String::new())
}

/// The names in a directory, with their types, and whether their numbers are those of stat(2).
///
/// A whiteout that the kernel's overlayfs lists, where only one layer has the directory, is none.
/// [SEMANTICS: A whiteout in a directory that only one layer has is not listed.]
fn list(path: &Path) -> Outcome {
    let mut entries = Vec::new();
    for entry in rustix::fs::Dir::new(open(path, OFlags::RDONLY | OFlags::DIRECTORY)?)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        // Who may not search the directory sees the names only.
        let numbered = match fs::symlink_metadata(path.join(std::ffi::OsStr::from_bytes(name))) {
            Ok(meta) if meta.file_type().is_char_device() && meta.rdev() == 0 => continue,
            Ok(meta) if meta.ino() == entry.ino() => "",
            Ok(_) => " with another number",
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(_) => " unknown",
        };
        entries.push(format!("{} {:?}{numbered}", name.escape_ascii(), entry.file_type()));
    }
    entries.sort();
    Ok(entries.join(", "))
}
