//! Files and directories that stay open while operations go on, and what is done through them.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, XattrFlags};
use rustix::io::Errno;

use super::case::Operation;
use super::common::{Mapping, Mounted, fstat, open};
use super::perform::{Outcome, allocate, copy_range, owner, pick, seek, times, write};

/// What is held open.
#[derive(Debug, Default)]
pub struct Held {
    files: HashMap<u32, (File, Before)>,
    dirs: HashMap<u32, File>,
}

/// What was known of a file when it was opened.
type Before = u64;

/// How many of each there may be.
pub const SLOTS: u32 = 3;

impl Held {
    /// The attributes of the file in a slot, if it is open for writing.
    pub fn writer(&self, slot: u32) -> Option<Stat> {
        let (file, _) = self.files.get(&slot)?;
        let flags = rustix::fs::fcntl_getfl(file).unwrap();
        flags.intersects(OFlags::WRONLY | OFlags::RDWR).then(|| fstat(file))
    }

    /// Closes what an operation is done to.
    pub fn close(&mut self, operation: &Operation) {
        let slot = operation.number % SLOTS;
        self.files.remove(&slot);
        self.dirs.remove(&slot);
    }
}

/// Does the operation `hold` with the suffix `kind`. Without anything in the slot that the number says, nothing is done.
pub fn perform(tree: &Mounted, held: &mut Held, kind: &str, operation: &Operation) -> Outcome {
    let number = operation.number;
    let slot = number % SLOTS;
    let path = tree.path(operation.path.path());
    let done = |()| String::new();
    match kind {
        "" | "-reader" | "-writer" | "-appender" => {
            held.files.remove(&slot);
            let flags = match kind {
                "" => OFlags::RDWR,
                "-reader" => OFlags::RDONLY,
                "-writer" => OFlags::WRONLY,
                _ => OFlags::RDWR | OFlags::APPEND,
            };
            let file = open(path, flags | OFlags::NONBLOCK)?;
            if FileType::from_raw_mode(fstat(&file).st_mode) == FileType::RegularFile {
                let ino = fstat(&file).st_ino;
                held.files.insert(slot, (file, ino));
            }
            return Ok(String::new());
        }
        "-dir" => {
            held.dirs.remove(&slot);
            held.dirs.insert(slot, open(path, OFlags::RDONLY | OFlags::DIRECTORY)?);
            return Ok(String::new());
        }
        _ => {}
    }
    if let Some(kind) = kind.strip_prefix("-dir-") {
        return held.dirs.get(&slot).map_or(Ok(String::new()), |dir| in_dir(dir, kind, operation));
    }
    let Some((file, ino)) = held.files.get(&slot) else { return Ok(String::new()) };
    match kind {
        "-write" => write(file, u64::from(number % 7000), 100),
        "-append" => rustix::io::write(file, b"more").map(|written| written.to_string()),
        "-read" => {
            let mut buffer = vec![0; 20_000];
            let read = file.read_at(&mut buffer, 0).map_err(|error| Errno::from_io_error(&error).unwrap())?;
            Ok(buffer[..read].escape_ascii().to_string())
        }
        "-map" => {
            let size = fstat(file).st_size;
            if size < 100 {
                return Ok("too small".to_owned());
            }
            let flags = rustix::fs::fcntl_getfl(file).unwrap();
            if flags & OFlags::ACCMODE != OFlags::RDWR {
                return Ok("not for writing".to_owned());
            }
            let mapping = Mapping::new(file, 100, true);
            mapping.write(50, b"map");
            mapping.sync();
            Ok(mapping.read().escape_ascii().to_string())
        }
        "-stat" => {
            let stat = fstat(file);
            let same = if stat.st_ino == *ino { "the number it had" } else { "another number" };
            let links = links(file, &stat);
            Ok(format!("{} bytes, {:o}, {}:{}, {links}, {same}", stat.st_size, stat.st_mode, stat.st_uid, stat.st_gid))
        }
        "-truncate" => rustix::fs::ftruncate(file, u64::from(number % 9000)).map(done),
        "-chmod" => rustix::fs::fchmod(file, Mode::from_raw_mode(number % 0o10000)).map(done),
        "-chown" => {
            let (uid, gid) = owner(number / SLOTS);
            rustix::fs::fchown(file, uid, gid).map(done)
        }
        "-times" => rustix::fs::futimens(file, &times(number / SLOTS)).map(done),
        "-sync" => if number & SLOTS == 0 { rustix::fs::fsync(file) } else { rustix::fs::fdatasync(file) }.map(done),
        "-allocate" => allocate(file, number / SLOTS),
        "-seek" => seek(file, number / SLOTS),
        "-setxattr" => rustix::fs::fsetxattr(file, "user.x", b"held", XattrFlags::empty()).map(done),
        "-getxattr" => {
            let mut value = vec![0; 4096];
            let len = rustix::fs::fgetxattr(file, *pick(&["user.x", "user.y"], number / SLOTS), &mut value[..])?;
            Ok(value[..len].escape_ascii().to_string())
        }
        "-copy" => match held.files.get(&(number / SLOTS % SLOTS)) {
            Some((to, _)) => copy_range(file, to, number),
            None => Ok(String::new()),
        },
        "-close" => {
            held.close(operation);
            Ok(String::new())
        }
        _ => panic!("no such operation: hold{kind}"),
    }
}

/// What is done in a directory that is open, by a name in it.
fn in_dir(dir: &File, kind: &str, operation: &Operation) -> Outcome {
    let name = operation.path.path();
    let name = name.file_name().unwrap_or_default();
    let done = |()| String::new();
    let mode = Mode::from_raw_mode(0o755);
    match kind {
        "list" => {
            let mut names: Vec<String> = Vec::new();
            for entry in rustix::fs::Dir::read_from(dir)? {
                let entry = entry?;
                let found = rustix::fs::statat(dir, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW);
                // As in `perform::list`.
                if !matches!(found, Err(Errno::NOENT)) {
                    names.push(entry.file_name().to_bytes().escape_ascii().to_string());
                }
            }
            names.sort();
            Ok(names.join(" "))
        }
        "create" => {
            rustix::fs::openat(dir, name, OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC, mode).map(|_| String::new())
        }
        "mkdir" => rustix::fs::mkdirat(dir, name, mode).map(done),
        "unlink" => rustix::fs::unlinkat(dir, name, AtFlags::empty()).map(done),
        "rmdir" => rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR).map(done),
        "stat" => {
            let stat = rustix::fs::fstat(dir)?;
            Ok(format!("{:o}, {}:{}, {}", stat.st_mode, stat.st_uid, stat.st_gid, links(dir, &stat)))
        }
        "sync" => rustix::fs::fsync(dir).map(done),
        "chmod" => rustix::fs::fchmod(dir, Mode::from_raw_mode(operation.number / SLOTS % 0o10000)).map(done),
        _ => panic!("no such operation: hold-dir-{kind}"),
    }
}

/// How many names what is open has, unless it was removed.
///
/// [SEMANTICS: A removed object that was never copied up has no links any more.]
fn links(file: &File, stat: &Stat) -> String {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap();
    let is_removed = link.as_os_str().as_bytes().ends_with(b" (deleted)");
    if is_removed { "removed".to_owned() } else { format!("{} links", stat.st_nlink) }
}
