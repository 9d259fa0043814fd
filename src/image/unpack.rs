//! Unpacking a layer: entries of a tar stream become a directory that an overlay can be mounted over.

pub mod beneath;
pub mod form;
pub mod path;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Timespec, Timestamps, XattrFlags};
use rustix::process::{getegid, geteuid};

use crate::at::At;
use crate::attr::Kind;
use crate::error::Errno;
use crate::layer::marks::Dialect;
use crate::override_stat::{ASIDE, Kept, real_mode};

use super::digest::Digest;
use super::limits::Limits;
use super::tar::entry::{Entry, Reason, What};
use super::tar::read::{Keep, Reader};
use super::tar::record::Recorder;

use self::form::{Form, KEY, Owners};
use self::path::{Meaning, meaning, normalize};

/// How much data is moved at once, in bytes.
const BUFFER: usize = 1 << 18;
/// Lines at most of what was left out.
const NOTES: usize = 100;
/// Attributes that are marks of an overlay, or of what stands in for owners; never taken from an image.
const MARKS: [&[u8]; 4] = [b"trusted.overlay.", b"user.overlay.", b"user.fuseoverlayfs.", ASIDE];

/// What became of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpacked {
    /// The digest of its tar stream.
    pub diff_id: Digest,
    /// Bytes of its tar stream.
    pub size: u64,
    /// Entries of its tar stream.
    pub entries: u64,
    /// It says which attributes the root directory has.
    pub has_root: bool,
    /// What was left out, a line each.
    pub notes: Vec<String>,
}

/// How a layer is to be unpacked.
#[derive(Debug, Clone, Copy)]
pub struct How {
    /// The form it is written in.
    pub form: Form,
    /// How much it may ask for.
    pub limits: Limits,
    /// Device nodes are left out where they cannot be made.
    pub skip_devices: bool,
    /// All data is kept in the record of the stream.
    pub keep_all: bool,
}

/// Why a layer could not be unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failed {
    /// At this entry, for this reason.
    At(Option<String>, Reason),
    /// An entry replaced data that the record of the stream counted on: it has to keep all.
    Replaced,
}

/// Unpacks `input` into the empty directory `root`, with a record of the stream in `record`.
///
/// # Errors
/// At which entry, and why; then `root` is not to be used.
pub fn unpack(input: &mut dyn Read, root: OwnedFd, record: Option<File>, how: How) -> Result<Unpacked, Failed> {
    let failed = |reason: std::io::Error| Failed::At(None, reason.to_string());
    let recorder = record.map(Recorder::new).transpose().map_err(failed)?;
    let mut reader = Reader::new(input, recorder, how.limits);
    let mut unpacker = Unpacker {
        root,
        how,
        ids: (geteuid().as_raw(), getegid().as_raw()),
        current: None,
        dirs: BTreeMap::new(),
        paths: 0,
        has_root: false,
        buffer: vec![0; BUFFER],
        left_out: BTreeSet::new(),
    };
    loop {
        let entry = match reader.next_entry() {
            Ok(Some(entry)) => entry,
            Ok(None) => break,
            Err(reason) => return Err(Failed::At(None, reason)),
        };
        unpacker.take(&entry, &mut reader).map_err(|stop| match stop {
            Stop::Reason(reason) => Failed::At(Some(entry.shown()), reason),
            Stop::Replaced => Failed::Replaced,
        })?;
    }
    let entries = reader.entries();
    let (diff_id, size) = reader.finish().map_err(|reason| Failed::At(None, reason))?;
    let (has_root, notes) = unpacker.finish()?;
    Ok(Unpacked { diff_id, size, entries, has_root, notes })
}

enum Stop {
    Reason(Reason),
    Replaced,
}

impl From<Reason> for Stop {
    fn from(reason: Reason) -> Self {
        Self::Reason(reason)
    }
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Self {
        Self::Reason(std::io::Error::from(errno).to_string())
    }
}

struct Unpacker {
    root: OwnedFd,
    how: How,
    /// Who we are: what we make is ours.
    ids: (u32, u32),
    /// The directory of the last entry, which is mostly that of the next.
    current: Option<(Vec<u8>, OwnedFd)>,
    /// The directories and their attributes, which are set in the end: what is made in them changes their times, and
    /// their modes may not let us.
    dirs: BTreeMap<Vec<u8>, Dir>,
    /// Bytes of the paths of directories so far.
    paths: usize,
    has_root: bool,
    buffer: Vec<u8>,
    left_out: BTreeSet<String>,
}

/// What a directory is to be in the end.
struct Dir {
    mode: u32,
    ids: (u32, u32),
    times: Timestamps,
}

impl Unpacker {
    fn take<R: Read>(&mut self, entry: &Entry, reader: &mut Reader<R>) -> Result<(), Stop> {
        match meaning(&entry.path)? {
            Meaning::Root if entry.what == What::Object(Kind::Dir) => {
                self.has_root = true;
                self.dirs.insert(Vec::new(), self.dir_of(entry));
                let root = self.root.try_clone().map_err(|error| error.to_string())?;
                self.set_xattrs(At::fd(&root), entry)
            }
            Meaning::Root => Err(Stop::Reason("the root of a layer that is no directory".into())),
            Meaning::Object(path) => self.object(&path, entry, reader),
            Meaning::Whiteout(path) => self.whiteout(&path),
            Meaning::Opaque(path) => {
                let form = self.how.form;
                let dir = self.dir(&path)?;
                Ok(form.make_opaque(At::fd(&dir))?)
            }
            Meaning::Nothing => Ok(()),
        }
    }

    fn object<R: Read>(&mut self, path: &[u8], entry: &Entry, reader: &mut Reader<R>) -> Result<(), Stop> {
        let (parent, name) = beneath::split(path);
        let dir = self.enter(parent)?;
        let result = self.make(&dir, path, name, entry, reader);
        self.current = Some((parent.to_vec(), dir));
        result
    }

    fn make<R: Read>(
        &mut self,
        dir: &OwnedFd,
        path: &[u8],
        name: &[u8],
        entry: &Entry,
        reader: &mut Reader<R>,
    ) -> Result<(), Stop> {
        let at = At::new(dir, name);
        match entry.what {
            What::Object(Kind::Dir) => self.make_dir(at, path, entry),
            What::Object(Kind::File) => {
                let file = self.retry(at, path, |at| create(at, entry.mode))?;
                self.write(&file, path, entry, reader)?;
                self.finish_file(&file, at, entry)
            }
            What::Object(Kind::Symlink) => {
                if entry.target.is_empty() {
                    return Err(Stop::Reason("a symlink to nothing".into()));
                }
                self.retry(at, path, |at| fs::symlinkat(entry.target.as_slice(), at.dir(), at.name()))?;
                self.set_attributes(at, entry)
            }
            What::Object(kind @ (Kind::Fifo | Kind::Char | Kind::Block | Kind::Socket)) => {
                self.make_node(at, path, kind, entry)
            }
            What::HardLink => self.make_link(at, path, entry),
        }
    }

    /// Does `make`, and does it again in the place of what is there.
    fn retry<T>(&mut self, at: At<'_>, path: &[u8], make: impl Fn(At<'_>) -> Result<T, Errno>) -> Result<T, Stop> {
        match make(at) {
            Err(Errno::EXIST) => {
                self.remove(at, path)?;
                Ok(make(at)?)
            }
            result => Ok(result?),
        }
    }

    fn make_dir(&mut self, at: At<'_>, path: &[u8], entry: &Entry) -> Result<(), Stop> {
        match fs::mkdirat(at.dir(), at.name(), Mode::RWXU) {
            Err(Errno::EXIST) => {
                let attr = at.attr()?;
                if attr.kind() != Kind::Dir {
                    let hides = self.how.form.hides(at, &attr)?;
                    self.remove(at, path)?;
                    fs::mkdirat(at.dir(), at.name(), Mode::RWXU)?;
                    if hides {
                        self.how.form.make_opaque(at)?;
                    }
                }
            }
            result => result?,
        }
        self.keep_dir(path, self.dir_of(entry))?;
        self.set_xattrs(at, entry)
    }

    /// Notes what the directory at `path` is to be in the end.
    fn keep_dir(&mut self, path: &[u8], dir: Dir) -> Result<(), Reason> {
        self.paths = self.paths.saturating_add(path.len());
        if self.paths > self.how.limits.paths {
            return Err(format!("directories whose paths have more than {} bytes", self.how.limits.paths));
        }
        self.dirs.insert(path.to_vec(), dir);
        Ok(())
    }

    /// Notes that something of the image is left out, unless there are too many such things to tell.
    fn leave_out(&mut self, what: String) {
        if self.left_out.len() < NOTES {
            self.left_out.insert(what);
        } else if !self.left_out.contains(&what) {
            self.left_out.insert("and more".into());
        }
    }

    fn make_node(&mut self, at: At<'_>, path: &[u8], kind: Kind, entry: &Entry) -> Result<(), Stop> {
        let is_device = matches!(kind, Kind::Char | Kind::Block);
        if kind == Kind::Char && entry.rdev == (0, 0) {
            return Err(Stop::Reason("a device that would be a whiteout (0, 0)".into()));
        }
        if !is_device && self.how.form.owners == Owners::Override {
            // A plain file can say whose it is.
            self.retry(at, path, |at| create(at, entry.mode))?;
            return self.set_attributes(at, entry);
        }
        let kind = match kind {
            Kind::Char => FileType::CharacterDevice,
            Kind::Block => FileType::BlockDevice,
            Kind::Socket => FileType::Socket,
            _ => FileType::Fifo,
        };
        let rdev = fs::makedev(entry.rdev.0, entry.rdev.1);
        let mode = Mode::from_raw_mode(entry.mode);
        match self.retry(at, path, |at| fs::mknodat(at.dir(), at.name(), kind, mode, rdev)) {
            Err(_) if is_device && !self.may_make_devices(at) => {
                if self.how.skip_devices {
                    self.leave_out("device nodes".into());
                    return Ok(());
                }
                Err(Stop::Reason("a device node, which takes privilege to make (--skip-devices)".into()))
            }
            Err(stop) => Err(stop),
            Ok(()) => self.set_attributes(at, entry),
        }
    }

    /// Whether devices can be made at all.
    fn may_make_devices(&self, at: At<'_>) -> bool {
        let null = fs::makedev(1, 3);
        let probe = b"#device".as_slice();
        let made = fs::mknodat(at.dir(), probe, FileType::CharacterDevice, Mode::empty(), null);
        made.is_ok() && fs::unlinkat(at.dir(), probe, AtFlags::empty()).is_ok()
    }

    fn make_link(&mut self, at: At<'_>, path: &[u8], entry: &Entry) -> Result<(), Stop> {
        let target = normalize(&entry.target).map_err(|reason| format!("a hard link to {reason}"))?;
        if target == path {
            return Err(Stop::Reason("a hard link to itself".into()));
        }
        let (parent, name) = beneath::split(&target);
        let missing = |errno: Errno| match errno {
            Errno::NOENT => Stop::Reason("a hard link to a file that the layer does not hold".into()),
            Errno::LOOP | Errno::XDEV | Errno::NOTDIR => {
                Stop::Reason("a hard link through what is no directory".into())
            }
            errno => errno.into(),
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let from = beneath::open(self.root.as_fd(), parent, flags).map_err(missing)?;
        let attr = At::new(&from, name).attr().map_err(missing)?;
        if attr.kind() == Kind::Dir || self.how.form.hides(At::new(&from, name), &attr)? {
            return Err(Stop::Reason("a hard link to what is no file".into()));
        }
        self.retry(at, path, |at| fs::linkat(&from, name, at.dir(), at.name(), AtFlags::empty()))
    }

    fn write<R: Read>(
        &mut self,
        file: &OwnedFd,
        path: &[u8],
        entry: &Entry,
        reader: &mut Reader<R>,
    ) -> Result<(), Stop> {
        let mut output = File::from(file.try_clone().map_err(|error| error.to_string())?);
        let keep = if self.how.keep_all { Keep::Bytes } else { Keep::Nothing };
        let whole = [(0, entry.stored)];
        let pieces = entry.sparse.as_deref().unwrap_or(&whole);
        if entry.sparse.is_some() {
            fs::ftruncate(file, entry.size)?;
        }
        for (offset, len) in pieces.iter().copied().filter(|(_, len)| *len > 0) {
            if let (Keep::Nothing, Some(recorder)) = (keep, reader.recorder()) {
                recorder.data(path, offset, len).map_err(|error| error.to_string())?;
            }
            if offset > 0 {
                output.seek(SeekFrom::Start(offset)).map_err(|error| error.to_string())?;
            }
            let mut left = len;
            while left > 0 {
                let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
                let buffer = self.buffer.get_mut(..wanted).unwrap_or_default();
                let read = reader.read(buffer, keep)?;
                if read == 0 {
                    return Err(Stop::Reason("the data of the file ends before its size".into()));
                }
                output.write_all(buffer.get(..read).unwrap_or_default()).map_err(|error| error.to_string())?;
                left = left.saturating_sub(read as u64);
            }
        }
        Ok(())
    }

    fn finish_file(&mut self, file: &OwnedFd, at: At<'_>, entry: &Entry) -> Result<(), Stop> {
        if self.how.form.owners == Owners::Real && (entry.uid, entry.gid) != self.ids {
            fs::fchown(file, Some(fs::Uid::from_raw(entry.uid)), Some(fs::Gid::from_raw(entry.gid)))?;
        }
        self.set_xattrs(at, entry)?;
        // Changing owner and content takes set-id bits away.
        fs::fchmod(file, Mode::from_raw_mode(self.mode(entry.mode, Kind::File)))?;
        fs::futimens(file, &times(entry))?;
        Ok(())
    }

    fn set_attributes(&mut self, at: At<'_>, entry: &Entry) -> Result<(), Stop> {
        let is_symlink = entry.what == What::Object(Kind::Symlink);
        if self.how.form.owners == Owners::Real && (entry.uid, entry.gid) != self.ids {
            at.chown(Some(entry.uid), Some(entry.gid))?;
        }
        self.set_xattrs(at, entry)?;
        if !is_symlink {
            at.chmod(self.mode(entry.mode, Kind::Fifo))?;
        }
        Ok(at.set_times(&times(entry))?)
    }

    fn set_xattrs(&mut self, at: At<'_>, entry: &Entry) -> Result<(), Stop> {
        let mut at = at;
        if let (Owners::Override, Some(kept)) = (self.how.form.owners, kept(entry)) {
            at.keep(KEY, &kept)?;
            at = at.keeping(Some(KEY));
        }
        for (name, value) in &entry.xattrs {
            let shown = || name.escape_ascii().to_string();
            if MARKS.iter().any(|mark| name.starts_with(mark)) {
                self.leave_out(format!("the attribute {}, which is a mark of an overlay", shown()));
                continue;
            }
            match at.set_xattr(name, value, XattrFlags::empty()) {
                Ok(()) => {}
                Err(Errno::PERM | Errno::OPNOTSUPP) if self.how.form.dialect == Dialect::User => {
                    self.leave_out(format!("the attribute {}, which takes privilege to set", shown()));
                }
                Err(errno) => return Err(Stop::Reason(format!("the attribute {}: {errno}", shown()))),
            }
        }
        Ok(())
    }

    /// The mode that a file gets: its own, or what lets us read and change it.
    fn mode(&self, mode: u32, kind: Kind) -> u32 {
        match (self.how.form.owners, kind) {
            (Owners::Real, _) => mode,
            (Owners::Override, kind) => real_mode(mode, kind == Kind::Dir),
        }
    }

    fn dir_of(&self, entry: &Entry) -> Dir {
        Dir { mode: self.mode(entry.mode, Kind::Dir), ids: (entry.uid, entry.gid), times: times(entry) }
    }

    fn whiteout(&mut self, path: &[u8]) -> Result<(), Stop> {
        let (parent, name) = beneath::split(path);
        let form = self.how.form;
        let dir = self.dir(parent)?;
        let at = At::new(&dir, name);
        match at.find()? {
            // What the layer itself holds hides the name already, and a directory all that is below it.
            Some(attr) if attr.kind() == Kind::Dir => Ok(form.make_opaque(at)?),
            Some(_) => Ok(()),
            None => Ok(form.hide(at)?),
        }
    }

    /// The directory at `path`, made if it is not there.
    fn dir(&mut self, path: &[u8]) -> Result<OwnedFd, Stop> {
        let dir = self.enter(path)?;
        let copy = dir.try_clone().map_err(|error| error.to_string())?;
        self.current = Some((path.to_vec(), dir));
        Ok(copy)
    }

    /// Takes the current directory if it is `path`, and opens it otherwise.
    fn enter(&mut self, path: &[u8]) -> Result<OwnedFd, Stop> {
        if let Some((current, dir)) = self.current.take()
            && current == path
        {
            return Ok(dir);
        }
        match beneath::open(self.root.as_fd(), path, OFlags::RDONLY | OFlags::DIRECTORY) {
            Err(Errno::NOENT) => self.make_dirs(path),
            Err(errno) => Err(leads_out(errno, path)),
            Ok(dir) => Ok(dir),
        }
    }

    /// Makes the directories on the way to `path` that are not there, as other tools do.
    fn make_dirs(&mut self, path: &[u8]) -> Result<OwnedFd, Stop> {
        let (parent, name) = beneath::split(path);
        let dir = self.enter(parent)?;
        match fs::mkdirat(&dir, name, Mode::RWXU) {
            Ok(()) => {
                let times = Timestamps { last_access: EPOCH, last_modification: EPOCH };
                self.keep_dir(path, Dir { mode: 0o755, ids: (0, 0), times })?;
                if self.how.form.owners == Owners::Override {
                    At::new(&dir, name).keep(KEY, &MADE_DIR)?;
                }
            }
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        beneath::open(dir.as_fd(), name, OFlags::RDONLY | OFlags::DIRECTORY).map_err(|errno| leads_out(errno, path))
    }

    /// Takes away what is at `path`, to make room for another entry.
    fn remove(&mut self, at: At<'_>, path: &[u8]) -> Result<(), Stop> {
        let attr = at.attr()?;
        let hides = self.how.form.hides(at, &attr)?;
        if !hides && matches!(attr.kind(), Kind::File | Kind::Dir) && !self.how.keep_all {
            return Err(Stop::Replaced);
        }
        if attr.kind() == Kind::Dir {
            let below = [path, b"/"].concat();
            self.dirs.retain(|dir, _| dir != path && !dir.starts_with(&below));
        }
        Ok(crate::image::store::remove::tree(at.dir(), at.name())?)
    }

    /// Gives the directories their attributes, the deepest first.
    fn finish(mut self) -> Result<(bool, Vec<String>), Failed> {
        if !self.has_root {
            // Whatever the root is to be, a layer below says.
            let times = Timestamps { last_access: EPOCH, last_modification: EPOCH };
            self.dirs.insert(Vec::new(), Dir { mode: 0o755, ids: (0, 0), times });
            if self.how.form.owners == Owners::Override {
                let root = At::fd(&self.root);
                root.keep(KEY, &MADE_DIR).map_err(|errno| Failed::At(None, std::io::Error::from(errno).to_string()))?;
            }
        }
        for (path, dir) in self.dirs.iter().rev() {
            self.finish_dir(path, dir).map_err(|errno| {
                let reason = std::io::Error::from(errno).to_string();
                Failed::At(Some(path.escape_ascii().to_string()), reason)
            })?;
        }
        Ok((self.has_root, self.left_out.into_iter().collect()))
    }

    fn finish_dir(&self, path: &[u8], dir: &Dir) -> Result<(), Errno> {
        let fd = beneath::open(self.root.as_fd(), path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        if self.how.form.owners == Owners::Real && dir.ids != self.ids {
            fs::fchown(&fd, Some(fs::Uid::from_raw(dir.ids.0)), Some(fs::Gid::from_raw(dir.ids.1)))?;
        }
        fs::fchmod(&fd, Mode::from_raw_mode(dir.mode))?;
        fs::futimens(&fd, &dir.times)
    }
}

/// What is kept of a directory that no entry describes.
const MADE_DIR: Kept = Kept { uid: 0, gid: 0, mode: 0o755, kind: Some((Kind::Dir, (0, 0))) };

/// What is kept of an entry; `None` for symlinks, which can carry nothing, and for devices.
const fn kept(entry: &Entry) -> Option<Kept> {
    match entry.what {
        What::Object(kind @ (Kind::File | Kind::Dir | Kind::Fifo | Kind::Socket)) => {
            Some(Kept { uid: entry.uid, gid: entry.gid, mode: entry.mode & 0o7777, kind: Some((kind, (0, 0))) })
        }
        _ => None,
    }
}

const EPOCH: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

fn create(at: At<'_>, mode: u32) -> Result<OwnedFd, Errno> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // The rest of the mode is set once the data is there.
    fs::openat(at.dir(), at.name(), flags, Mode::from_raw_mode(mode & 0o700 | 0o600))
}

fn times(entry: &Entry) -> Timestamps {
    let time = Timespec { tv_sec: entry.mtime.sec, tv_nsec: entry.mtime.nsec.into() };
    Timestamps { last_access: time, last_modification: time }
}

/// Why a directory on the way cannot be entered.
fn leads_out(errno: Errno, path: &[u8]) -> Stop {
    match errno {
        // With a symlink in the last place, a directory was wanted.
        Errno::LOOP | Errno::XDEV | Errno::NOTDIR => Stop::Reason(format!(
            "{} is a symlink or no directory in this layer, which nothing can lie in",
            path.escape_ascii()
        )),
        errno => errno.into(),
    }
}

/// The empty directory at `dir`, to unpack into.
///
/// # Errors
/// Those of mkdirat(2).
pub fn make_root(dir: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    fs::mkdirat(dir, name, Mode::RWXU)?;
    fs::openat(dir, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

#[cfg(test)]
pub(crate) mod tests;
