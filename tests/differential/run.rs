//! Running a case on both.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, Gid, Mode, OFlags, RenameFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use super::case::{Case, Entry, Operation};
use super::common::{Backend, Form, Layer, Mounted, Setup, fstat, open, xattrs};

/// The trees are compared each time that so many operations have been done, and the overlays mounted anew.
const LOOK: usize = 15;
const REMOUNT: usize = 60;

/// Runs a case; what differs is the error.
pub fn run(case: &Case) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(|| try_run(case))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default())
    })
}

fn try_run(case: &Case) -> Result<(), String> {
    let setup = || {
        case.layers.iter().fold(Setup::new(), |setup, entries| {
            setup.lower(|layer| {
                entries.iter().for_each(|entry| build(layer, entry));
                layer
            })
        })
    };
    let (mut kernel, mut plyfs) = (setup().mount_by(Backend::Kernel), setup().mount_by(Backend::Plyfs));
    let (mut kernel_held, mut plyfs_held) = (HashMap::new(), HashMap::new());
    let mut detail = Detail { dir_links: !case.has_links(), dir_times: !case.has_links() };
    for (index, operation) in case.operations.iter().enumerate() {
        let expected = perform(&kernel, &mut kernel_held, operation);
        let result = perform(&plyfs, &mut plyfs_held, operation);
        let Operation { kind, path, other, number } = operation;
        if expected != result {
            return Err(format!("{index}: {kind} {path} {other} {number}: kernel {expected:?}, plyfs {result:?}"));
        }
        if kind == "rename" && expected.is_err() {
            // The kernel's overlayfs moves the times of directories even so.
            detail.dir_times = false;
        }
        if index % REMOUNT == REMOUNT - 1 {
            kernel_held.clear();
            plyfs_held.clear();
            kernel.remount();
            plyfs.remount();
        }
        if index % LOOK == LOOK - 1 {
            compare(&kernel, &plyfs, detail).map_err(|text| format!("after {index}: {kind} {path} {other}: {text}"))?;
        }
    }
    drop((kernel_held, plyfs_held));
    compare(&kernel, &plyfs, detail).map_err(|text| format!("in the end: {text}"))?;
    kernel.switch_to(Backend::Plyfs);
    plyfs.switch_to(Backend::Kernel);
    compare(&kernel, &plyfs, detail).map_err(|text| format!("with the uppers swapped: {text}"))
}

/// Makes an entry of a layer; what is in its way stays.
fn build(layer: &Layer, Entry { kind, path, target, mode, size }: &Entry) {
    let full = layer.path(path);
    let parent = full.parent().unwrap();
    if fs::create_dir_all(parent).is_err() {
        return;
    }
    let is_there = fs::symlink_metadata(&full).is_ok();
    let is_dir = full.is_dir() && !full.is_symlink();
    match kind.as_str() {
        "opaque" if is_dir => drop(layer.opaque(path, Form::Trusted)),
        "xattr" if is_dir => drop(layer.xattr(path, "user.x", "1")),
        _ if is_there => {}
        "dir" => drop(layer.dir(path).mode(path, *mode)),
        "file" => {
            let owner = if size % 2 == 1 { 1000 } else { 0 };
            layer.file(path, vec![b'x'; *size]).owner(path, owner, owner).mode(path, *mode).time(path, 1_000_000, 7);
        }
        "symlink" => drop(layer.symlink(path, target)),
        "fifo" => drop(layer.fifo(path)),
        "whiteout" => drop(layer.whiteout(path, Form::Device)),
        "link" if fs::symlink_metadata(layer.path(target)).is_ok_and(|meta| meta.is_file()) => {
            layer.hard_link(path, target);
        }
        _ => {}
    }
}

type Held = HashMap<u32, File>;

/// Performs an operation; what it found, or why it failed.
fn perform(tree: &Mounted, held: &mut Held, operation: &Operation) -> Result<Vec<u8>, Errno> {
    let Operation { kind, number, .. } = operation;
    let (path, other) = (tree.path(&operation.path), tree.path(&operation.other));
    let (path, other) = (path.as_path(), other.as_path());
    let slot = number % 3;
    let create = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
    let nothing = || Vec::new();
    match kind.as_str() {
        "create" => open(path, create).map(|_| nothing()),
        "write" => {
            let file = open(path, OFlags::CREATE | OFlags::WRONLY | OFlags::TRUNC | OFlags::NONBLOCK)?;
            write(&file, 0, *number as usize % 5000)
        }
        "append" => {
            let file = open(path, OFlags::WRONLY | OFlags::APPEND | OFlags::NONBLOCK)?;
            let end = fstat(&file).st_size;
            write(&file, u64::try_from(end).unwrap(), 3)
        }
        "truncate" => {
            let path = std::ffi::CString::new(path.as_os_str().as_bytes()).unwrap();
            // SAFETY: the path is a C string.
            match unsafe { libc::truncate(path.as_ptr(), (number % 10_000).into()) } {
                0 => Ok(nothing()),
                _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap()),
            }
        }
        "mkdir" => rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)).map(|()| nothing()),
        "rmdir" => rustix::fs::rmdir(path).map(|()| nothing()),
        "unlink" => rustix::fs::unlink(path).map(|()| nothing()),
        "rename" => rustix::fs::rename(path, other).map(|()| nothing()),
        "exchange" => rustix::fs::renameat_with(CWD, path, CWD, other, RenameFlags::EXCHANGE).map(|()| nothing()),
        "noreplace" => rustix::fs::renameat_with(CWD, path, CWD, other, RenameFlags::NOREPLACE).map(|()| nothing()),
        "link" => rustix::fs::linkat(CWD, path, CWD, other, AtFlags::empty()).map(|()| nothing()),
        "symlink" => rustix::fs::symlink("target", path).map(|()| nothing()),
        "fifo" => mknod(path, FileType::Fifo, 0),
        "device" => mknod(path, FileType::CharacterDevice, rustix::fs::makedev(1, 3)),
        "chmod" => rustix::fs::chmod(path, Mode::from_raw_mode(number % 0o1000)).map(|()| nothing()),
        "chown" => {
            let (uid, gid) = (Uid::from_raw(number % 3), Gid::from_raw(number % 5));
            rustix::fs::chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).map(|()| nothing())
        }
        "times" => {
            let time = Timespec { tv_sec: i64::from(*number), tv_nsec: 5 };
            let times = Timestamps { last_access: time, last_modification: time };
            rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).map(|()| nothing())
        }
        "setxattr" => {
            rustix::fs::lsetxattr(path, "user.y", &number.to_ne_bytes(), XattrFlags::empty()).map(|()| nothing())
        }
        "removexattr" => {
            rustix::fs::lremovexattr(path, if number % 2 == 0 { "user.x" } else { "user.y" }).map(|()| nothing())
        }
        "list" => list(path),
        "read" => {
            let mut file = open(path, OFlags::RDONLY | OFlags::NONBLOCK)?;
            let mut content = Vec::new();
            file.read_to_end(&mut content).map_err(|error| Errno::from_io_error(&error).unwrap())?;
            Ok(content)
        }
        "stat" => rustix::fs::lstat(path).map(|stat| stat.st_mode.to_ne_bytes().to_vec()),
        "open" => open(path, OFlags::RDWR | OFlags::NONBLOCK).map(|_| nothing()),
        "hold" => {
            held.remove(&slot);
            let file = open(path, OFlags::RDWR | OFlags::NONBLOCK)?;
            if FileType::from_raw_mode(fstat(&file).st_mode) == FileType::RegularFile {
                held.insert(slot, file);
            }
            Ok(nothing())
        }
        "hold-write" => held.get(&slot).map_or(Ok(nothing()), |file| write(file, u64::from(number % 7000), 100)),
        "hold-read" => held.get(&slot).map_or(Ok(nothing()), |file| {
            let mut buffer = vec![0; 20_000];
            let read = file.read_at(&mut buffer, 0).map_err(|error| Errno::from_io_error(&error).unwrap())?;
            buffer.truncate(read);
            Ok(buffer)
        }),
        "hold-stat" => Ok(held.get(&slot).map_or_else(nothing, |file| {
            let stat = fstat(file);
            format!("{} {} {:o}", stat.st_size, stat.st_nlink, stat.st_mode).into_bytes()
        })),
        "allocate" => {
            let file = open(path, OFlags::RDWR | OFlags::NONBLOCK)?;
            let flags = if number % 2 == 0 {
                FallocateFlags::empty()
            } else {
                FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE
            };
            rustix::fs::fallocate(&file, flags, u64::from(number % 4000), 3000).map(|()| nothing())
        }
        _ => panic!("no such operation: {kind}"),
    }
}

fn write(file: &File, offset: u64, len: usize) -> Result<Vec<u8>, Errno> {
    file.write_all_at(&vec![b'w'; len], offset).map_err(|error| Errno::from_io_error(&error).unwrap())?;
    Ok(Vec::new())
}

fn mknod(path: &Path, kind: FileType, device: u64) -> Result<Vec<u8>, Errno> {
    rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(0o644), device).map(|()| Vec::new())
}

/// The names in a directory. A whiteout that the kernel's overlayfs lists, where only one layer has the directory, is
/// none.
fn list(path: &Path) -> Result<Vec<u8>, Errno> {
    let entries = fs::read_dir(path).map_err(|error| Errno::from_io_error(&error).unwrap())?;
    let mut names: Vec<Vec<u8>> = entries
        .map(|entry| entry.unwrap())
        .filter(|entry| fs::symlink_metadata(entry.path()).is_ok())
        .map(|entry| entry.file_name().as_bytes().to_vec())
        .collect();
    names.sort();
    Ok(names.join(&b'/'))
}

/// What of directories is compared.
#[derive(Debug, Clone, Copy)]
struct Detail {
    dir_links: bool,
    dir_times: bool,
}

fn compare(kernel: &Mounted, plyfs: &Mounted, detail: Detail) -> Result<(), String> {
    let (expected, shown) = (tree(kernel, detail), tree(plyfs, detail));
    let mut differences = Vec::new();
    for path in expected.keys().chain(shown.keys().filter(|path| !expected.contains_key(*path))) {
        let (expected, shown) = (expected.get(path), shown.get(path));
        if expected != shown {
            differences.push(format!("{}: kernel {expected:?}, plyfs {shown:?}", path.escape_ascii()));
        }
    }
    differences.truncate(5);
    if differences.is_empty() { Ok(()) } else { Err(differences.join("\n")) }
}

fn tree(mounted: &Mounted, detail: Detail) -> BTreeMap<Vec<u8>, String> {
    let mut entries = BTreeMap::new();
    let mut left = vec![mounted.path("")];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let Ok(meta) = fs::symlink_metadata(&path) else { continue };
            if meta.is_dir() {
                left.push(path.clone());
            }
            let relative = path.strip_prefix(mounted.path("")).unwrap().as_os_str().as_bytes().to_vec();
            entries.insert(relative, describe(&path, &meta, detail));
        }
    }
    entries
}

fn describe(path: &Path, meta: &fs::Metadata, detail: Detail) -> String {
    let is_dir = meta.is_dir();
    let mut text = format!("mode {:o}, owner {}:{}", meta.mode(), meta.uid(), meta.gid());
    if !is_dir || detail.dir_links {
        text += &format!(", {} links", meta.nlink());
    }
    // What was set, and not what the clock said.
    if meta.mtime() < 1_500_000_000 && (!is_dir || detail.dir_times) {
        text += &format!(", modified {}.{}", meta.mtime(), meta.mtime_nsec());
    }
    if meta.is_file() {
        let mut hasher = DefaultHasher::new();
        fs::read(path).unwrap().hash(&mut hasher);
        text += &format!(", {} bytes, hash {:x}", meta.size(), hasher.finish());
    } else if meta.file_type().is_symlink() {
        text += &format!(", to {}", fs::read_link(path).unwrap().display());
    } else if meta.file_type().is_char_device() {
        text += &format!(", device {:x}", meta.rdev());
    }
    for (name, value) in xattrs(path) {
        text += &format!(", {name}={}", value.escape_ascii());
    }
    text
}
