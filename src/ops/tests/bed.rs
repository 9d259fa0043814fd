//! A test bed: layers from a few words, and an overlay whose objects are named by path.

use std::fs;
use std::ops::Deref;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::{CWD, FileType, Mode, OFlags, RenameFlags, XattrFlags};
use tempfile::TempDir;

use crate::attr::{Attr, Kind};
use crate::config::Config;
use crate::error::{Errno, Error, Result};
use crate::inode::numbers::ROOT;
use crate::ops::SetAttr;
use crate::overlay::{Caller, Overlay};

use super::view::{self, dump, fingerprint};

/// An overlay over layers in a temporary directory. When it ends, its lower layers are compared with what they were, and
/// its work directory has to be empty.
#[derive(Debug)]
pub(super) struct Bed {
    pub(super) overlay: Running,
    layers: Layers,
    /// The numbers that were looked up, to be forgotten.
    known: Mutex<Vec<u64>>,
}

/// An overlay that is closed when dropped.
#[derive(Debug)]
pub(super) struct Running(Arc<Overlay>);

impl Deref for Running {
    type Target = Arc<Overlay>;

    fn deref(&self) -> &Arc<Overlay> {
        &self.0
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The layers of a bed, which outlive one overlay.
#[derive(Debug)]
pub(super) struct Layers {
    config: Config,
    before: Vec<Vec<String>>,
    dir: TempDir,
}

impl Layers {
    fn check(&self) {
        for (lower, before) in self.config.lowers.iter().zip(&self.before) {
            assert_eq!(&fingerprint(lower), before, "a lower layer was changed");
        }
        let work = self.dir.path().join("work/work");
        // A volatile mount leaves its mark.
        if work.exists() && !work.join("incompat").exists() {
            assert_eq!(dump(&work), Vec::<String>::new(), "the work directory is empty");
        }
    }
}

impl Layers {
    /// Opens an overlay over the layers.
    pub(super) fn start(&self) -> Result<Running> {
        Overlay::open(&self.config).map(Running)
    }

    /// A path beside the layers.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

impl Drop for Layers {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.check();
        }
    }
}

impl Bed {
    /// A writable overlay over `layers`, topmost first, each of words as [`build`] reads them.
    pub(super) fn new(layers: &[&str]) -> Self {
        Self::with(layers, |_| {})
    }

    /// As [`Bed::new`], with other options, or with more in the layers than words can say.
    pub(super) fn with(layers: &[&str], adapt: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let lowers: Vec<PathBuf> = (0..layers.len()).map(|number| path(&format!("lower{number}"))).collect();
        for (lower, words) in lowers.iter().zip(layers) {
            fs::create_dir(lower).unwrap();
            build(lower, words);
        }
        for name in ["upper", "work"] {
            fs::create_dir(path(name)).unwrap();
        }
        let mut config = Config {
            lowers,
            upper: Some(path("upper")),
            work: Some(path("work")),
            userxattr: Some(true),
            // Waiting for the disk is a test of its own.
            fsync: false,
            ..Config::default()
        };
        adapt(&mut config);
        let before = config.lowers.iter().map(|lower| fingerprint(lower)).collect();
        Self::open(Layers { config, before, dir })
    }

    /// A read-only overlay over `layers` without an upper.
    pub(super) fn read_only(layers: &[&str]) -> Self {
        Self::with(layers, |config| (config.upper, config.work) = (None, None))
    }

    fn open(layers: Layers) -> Self {
        let overlay = layers.start().unwrap();
        Self { overlay, layers, known: Mutex::default() }
    }

    /// Closes the overlay, and opens it anew.
    pub(super) fn reopen(self) -> Self {
        self.reopen_with(|_| {})
    }

    /// As [`Bed::reopen`], with other options.
    pub(super) fn reopen_with(self, adapt: impl FnOnce(&mut Config)) -> Self {
        let mut layers = self.stop();
        layers.check();
        adapt(&mut layers.config);
        Self::open(layers)
    }

    /// Closes the overlay.
    pub(super) fn stop(self) -> Layers {
        let Self { overlay, layers, .. } = self;
        drop(overlay);
        layers
    }

    /// Closes the overlay, and compares the lower layers with what they were.
    pub(super) fn finish(self) {
        self.stop().check();
    }

    /// What the upper holds.
    pub(super) fn upper(&self) -> Vec<String> {
        dump(&self.path("upper"))
    }

    /// A path beside the layers, which are `upper`, `work` and `lower0` and following.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.layers.path(name)
    }

    /// What the overlay shows, a line for each object, its number and link count aside.
    pub(super) fn tree(&self) -> Vec<String> {
        view::tree(&self.overlay)
    }

    /// What another overlay shows in which the upper of this one has become a lower layer.
    pub(super) fn tree_over_upper(&self) -> Vec<String> {
        let mut config = Config { upper: None, work: None, ..self.layers.config.clone() };
        config.lowers.insert(0, self.path("upper"));
        view::tree(&Overlay::open(&config).unwrap())
    }

    /// Checks that a new mount shows the same, and one with this upper as a lower layer.
    pub(super) fn check_lasting(self) -> Self {
        let tree = self.tree();
        assert_eq!(self.tree_over_upper(), tree, "with the upper as a lower layer; it holds {:#?}", self.upper());
        let bed = self.reopen();
        assert_eq!(bed.tree(), tree, "after a new mount; the upper holds {:#?}", bed.upper());
        bed
    }

    /// Forgets every lookup made through the bed.
    pub(super) fn forget_all(&self) {
        for ino in std::mem::take(&mut *self.known.lock()) {
            self.overlay.forget(ino, 1);
        }
    }

    fn note(&self, attr: Attr) -> Attr {
        self.known.lock().push(attr.ino);
        attr
    }

    /// Looks `path` up, component by component.
    pub(super) fn attr(&self, path: &str) -> Result<Attr> {
        let mut attr = self.overlay.getattr(ROOT)?;
        let mut ino = ROOT;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let found = self.overlay.lookup(ino, name.as_bytes())?;
            attr = self.note(found.ok_or(Error::new(Errno::NOENT, "look up"))?);
            ino = attr.ino;
        }
        Ok(attr)
    }

    /// The node id of `path`.
    pub(super) fn node(&self, path: &str) -> Result<u64> {
        if path.is_empty() { Ok(ROOT) } else { Ok(self.attr(path)?.ino) }
    }

    /// The node id of `path`, which is there.
    pub(super) fn ino(&self, path: &str) -> u64 {
        self.node(path).unwrap()
    }

    /// The parent's node id and the last name of `path`.
    pub(super) fn place<'p>(&self, path: &'p str) -> Result<(u64, &'p [u8])> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let dir = if parent.is_empty() { None } else { Some(self.attr(parent)?) };
        match dir {
            Some(dir) if dir.kind() != Kind::Dir => Err(Error::new(Errno::NOTDIR, "look up")),
            dir => Ok((dir.map_or(ROOT, |dir| dir.ino), name.as_bytes())),
        }
    }

    pub(super) fn exists(&self, path: &str) -> bool {
        match self.attr(path) {
            Ok(_) => true,
            Err(error) if matches!(error.errno(), Errno::NOENT | Errno::NOTDIR) => false,
            Err(error) => panic!("{path}: {error}"),
        }
    }

    /// The names in a directory, sorted, without `.` and `..`.
    pub(super) fn list(&self, path: &str) -> Vec<String> {
        let mut names: Vec<String> =
            view::entries(&self.overlay, self.ino(path)).into_iter().map(|entry| view::text(&entry.name)).collect();
        names.sort();
        names
    }

    /// The whole content of a file.
    pub(super) fn read(&self, path: &str) -> String {
        view::text(&view::content(&self.overlay, self.ino(path)))
    }

    /// The first 64 KiB of an open file.
    pub(super) fn read_open(&self, file: u64) -> String {
        let mut buffer = vec![0; 1 << 16];
        let read = self.overlay.read(file, 0, &mut buffer).unwrap();
        view::text(&buffer[..read])
    }

    pub(super) fn open_file(&self, path: &str, flags: OFlags) -> Result<u64> {
        self.overlay.open_file(self.node(path)?, flags, us()).map(|opened| opened.file)
    }

    /// Makes or overwrites a file.
    pub(super) fn write(&self, path: &str, content: &str) -> Result<()> {
        let file = if self.exists(path) {
            self.open_file(path, OFlags::WRONLY | OFlags::TRUNC)?
        } else {
            self.create(path, OFlags::WRONLY)?.1
        };
        let written = self.overlay.write(file, 0, content.as_bytes(), true, us());
        self.overlay.release(file).unwrap();
        assert_eq!(written?, content.len());
        Ok(())
    }

    /// Writes at the end of a file.
    pub(super) fn append(&self, path: &str, content: &str) -> Result<()> {
        let attr = self.attr(path)?;
        let file = self.overlay.open_file(attr.ino, OFlags::WRONLY | OFlags::APPEND, us())?.file;
        let written = self.overlay.write(file, attr.size, content.as_bytes(), true, us());
        self.overlay.release(file)?;
        written.map(|_| ())
    }

    pub(super) fn create(&self, path: &str, flags: OFlags) -> Result<(Attr, u64)> {
        let (parent, name) = self.place(path)?;
        let (attr, file) = self.overlay.create(parent, name, 0o644, 0, flags, us())?;
        Ok((self.note(attr), file.file))
    }

    pub(super) fn mkdir(&self, path: &str) -> Result<Attr> {
        let (parent, name) = self.place(path)?;
        self.overlay.mkdir(parent, name, 0o755, 0, us()).map(|attr| self.note(attr))
    }

    pub(super) fn symlink(&self, path: &str, target: &str) -> Result<Attr> {
        let (parent, name) = self.place(path)?;
        self.overlay.symlink(parent, name, target.as_bytes(), us()).map(|attr| self.note(attr))
    }

    pub(super) fn mknod(&self, path: &str, mode: u32, rdev: (u32, u32)) -> Result<Attr> {
        let (parent, name) = self.place(path)?;
        self.overlay.mknod(parent, name, mode, 0, rdev, us()).map(|attr| self.note(attr))
    }

    pub(super) fn readlink(&self, path: &str) -> String {
        view::text(&self.overlay.readlink(self.ino(path)).unwrap())
    }

    pub(super) fn unlink(&self, path: &str) -> Result<()> {
        let (parent, name) = self.place(path)?;
        self.overlay.unlink(parent, name)
    }

    pub(super) fn rmdir(&self, path: &str) -> Result<()> {
        let (parent, name) = self.place(path)?;
        self.overlay.rmdir(parent, name)
    }

    pub(super) fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.rename_with(from, to, RenameFlags::empty())
    }

    pub(super) fn rename_with(&self, from: &str, to: &str, flags: RenameFlags) -> Result<()> {
        let ((parent, name), (new_parent, new_name)) = (self.place(from)?, self.place(to)?);
        self.overlay.rename(parent, name, new_parent, new_name, flags)
    }

    pub(super) fn link(&self, from: &str, to: &str) -> Result<Attr> {
        let (parent, name) = self.place(to)?;
        self.overlay.link(self.node(from)?, parent, name).map(|attr| self.note(attr))
    }

    pub(super) fn setattr(&self, path: &str, set: SetAttr) -> Result<Attr> {
        self.overlay.setattr(self.node(path)?, &set, None, us())
    }

    pub(super) fn chmod(&self, path: &str, mode: u32) -> Result<Attr> {
        self.setattr(path, SetAttr { mode: Some(mode), ..SetAttr::default() })
    }

    pub(super) fn truncate(&self, path: &str, size: u64) -> Result<Attr> {
        self.setattr(path, SetAttr { size: Some(size), ..SetAttr::default() })
    }

    pub(super) fn xattr(&self, path: &str, name: &str) -> Result<String> {
        self.overlay.getxattr(self.node(path)?, name.as_bytes()).map(|value| view::text(&value))
    }

    pub(super) fn set_xattr(&self, path: &str, name: &str, value: &str) -> Result<()> {
        self.overlay.setxattr(self.node(path)?, name.as_bytes(), value.as_bytes(), 0, us())
    }
}

/// This process, as a caller.
pub(super) fn us() -> Caller {
    Caller {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        pid: std::process::id(),
    }
}

/// Makes what `words` say below `root`, in their order: `dir/`, `file=content`, `link->target`, `name==other` for a hard
/// link to `other`, `name|` for a fifo, `name!` for a whiteout device, `name@attribute=value` for an extended attribute,
/// `name%600` for permission bits.
///
/// The other whiteouts and opaque marks are files, as `.wh.name=`.
pub(super) fn build(root: &Path, words: &str) {
    // The umask of this thread is that of the last file made through an overlay.
    let chmod = |path: &Path, mode| rustix::fs::chmod(path, Mode::from_raw_mode(mode)).unwrap();
    let mkdirs = |path: &Path| {
        let missing = path.ancestors().take_while(|path| !path.exists()).collect::<Vec<_>>();
        for path in missing.into_iter().rev() {
            fs::create_dir(path).unwrap();
            chmod(path, 0o755);
        }
    };
    let mknod = |name: &str, kind, mode| {
        rustix::fs::mknodat(CWD, root.join(name), kind, Mode::from_raw_mode(mode), 0).unwrap();
    };
    for word in words.split_whitespace() {
        if let Some(dir) = word.strip_suffix('/') {
            mkdirs(&root.join(dir));
        } else if let Some(name) = word.strip_suffix('|') {
            mknod(name, FileType::Fifo, 0o644);
        } else if let Some(name) = word.strip_suffix('!') {
            mknod(name, FileType::CharacterDevice, 0);
        } else if let Some((name, rest)) = word.split_once('@') {
            let (attribute, value) = rest.split_once('=').unwrap();
            set_xattr(&root.join(name), attribute, value.as_bytes());
        } else if let Some((name, mode)) = word.split_once('%') {
            chmod(&root.join(name), u32::from_str_radix(mode, 8).unwrap());
        } else if let Some((name, target)) = word.split_once("->") {
            symlink(target, root.join(name)).unwrap();
        } else if let Some((name, other)) = word.split_once("==") {
            fs::hard_link(root.join(other), root.join(name)).unwrap();
        } else {
            let (name, content) = word.split_once('=').unwrap();
            let path = root.join(name);
            mkdirs(path.parent().unwrap());
            fs::write(&path, content).unwrap();
            chmod(&path, 0o644);
        }
    }
}

/// Sets an attribute in a layer, behind the overlay's back.
pub(super) fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).unwrap_or_else(|errno| panic!("{name}: {errno}"));
}

/// The value of an attribute in a layer.
pub(super) fn get_xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut buffer = vec![0; 4096];
    let len = rustix::fs::lgetxattr(path, name, &mut buffer).ok()?;
    buffer.truncate(len);
    Some(buffer)
}

/// Whether a path of a layer is a whiteout device.
pub(super) fn is_whiteout(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.mode() & libc::S_IFMT == libc::S_IFCHR && meta.rdev() == 0)
}

/// The errno of a failed operation.
pub(super) fn errno<T: std::fmt::Debug>(result: Result<T>) -> Errno {
    result.unwrap_err().errno()
}

/// The type of what is under a path.
pub(super) fn kind(bed: &Bed, path: &str) -> Kind {
    bed.attr(path).unwrap().kind()
}
