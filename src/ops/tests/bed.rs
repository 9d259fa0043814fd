//! A test bed: layers from a few words, and an overlay whose objects are named by path.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{OFlags, RenameFlags};
use tempfile::TempDir;

use crate::attr::{Attr, Kind};
use crate::config::Config;
use crate::error::{Errno, Result};
use crate::inode::numbers::ROOT;
use crate::ops::SetAttr;
use crate::overlay::{Caller, Overlay};

/// An overlay over layers in a temporary directory. Its lower layers are compared with what they were when it ends.
pub(super) struct Bed {
    pub(super) overlay: Arc<Overlay>,
    config: Config,
    before: Vec<Vec<String>>,
    dir: TempDir,
}

impl Bed {
    /// A writable overlay over `layers`, topmost first, each of words as [`build`] reads them.
    pub(super) fn new(layers: &[&str]) -> Self {
        Self::with(layers, |_| {})
    }

    /// As [`Bed::new`], with other options.
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
        let before = lowers.iter().map(|lower| dump(lower)).collect();
        let mut config = Config {
            lowers,
            upper: Some(path("upper")),
            work: Some(path("work")),
            userxattr: Some(true),
            ..Config::default()
        };
        adapt(&mut config);
        Self { overlay: Overlay::open(&config).unwrap(), config, before, dir }
    }

    /// Closes the overlay, and opens it anew.
    pub(super) fn reopen(self) -> Self {
        let Self { overlay, config, before, dir } = self;
        overlay.close();
        drop(overlay);
        assert_eq!(dump(&dir.path().join("work/work")), Vec::<String>::new(), "the work directory is empty");
        Self { overlay: Overlay::open(&config).unwrap(), config, before, dir }
    }

    /// What the upper holds.
    pub(super) fn upper(&self) -> Vec<String> {
        dump(&self.path("upper"))
    }

    /// A path beside the layers, which are `upper`, `work` and `lower0` and following.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Compares the lower layers with what they were.
    pub(super) fn finish(self) {
        self.overlay.close();
        for (lower, before) in self.config.lowers.iter().zip(&self.before) {
            assert_eq!(&dump(lower), before, "a lower layer was changed");
        }
    }

    /// Looks `path` up, component by component.
    pub(super) fn attr(&self, path: &str) -> Result<Attr> {
        let mut attr = self.overlay.getattr(ROOT)?;
        let mut ino = ROOT;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let found = self.overlay.lookup(ino, name.as_bytes())?;
            attr = found.ok_or(crate::error::Error::new(Errno::NOENT, "look up"))?;
            ino = attr.ino;
        }
        Ok(attr)
    }

    /// The node id of `path`.
    pub(super) fn ino(&self, path: &str) -> u64 {
        if path.is_empty() { ROOT } else { self.attr(path).unwrap().ino }
    }

    /// The parent's node id and the last name of `path`.
    pub(super) fn place<'p>(&self, path: &'p str) -> (u64, &'p [u8]) {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        (self.ino(parent), name.as_bytes())
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
        let dir = self.overlay.open_dir(self.ino(path)).unwrap();
        let mut names = Vec::new();
        self.overlay
            .read_dir(dir, 0, false, |entry| {
                names.push(String::from_utf8_lossy(entry.name).into_owned());
                false
            })
            .unwrap();
        self.overlay.release_dir(dir);
        names.retain(|name| name != "." && name != "..");
        names.sort();
        names
    }

    /// The whole content of a file.
    pub(super) fn read(&self, path: &str) -> String {
        let file = self.overlay.open_file(self.ino(path), OFlags::RDONLY, us()).unwrap();
        let content = self.read_open(file);
        self.overlay.release(file);
        content
    }

    /// The whole content of an open file.
    pub(super) fn read_open(&self, file: u64) -> String {
        let mut buffer = vec![0; 1 << 16];
        let read = self.overlay.read(file, 0, &mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..read]).into_owned()
    }

    /// Makes or overwrites a file.
    pub(super) fn write(&self, path: &str, content: &str) -> Result<()> {
        let file = if self.exists(path) {
            self.overlay.open_file(self.ino(path), OFlags::WRONLY | OFlags::TRUNC, us())?
        } else {
            let (parent, name) = self.place(path);
            self.overlay.create(parent, name, 0o644, 0, OFlags::WRONLY, us())?.1
        };
        let written = self.overlay.write(file, 0, content.as_bytes(), true, us());
        self.overlay.release(file);
        assert_eq!(written?, content.len());
        Ok(())
    }

    /// Writes at the end of a file.
    pub(super) fn append(&self, path: &str, content: &str) -> Result<()> {
        let attr = self.attr(path)?;
        let file = self.overlay.open_file(attr.ino, OFlags::WRONLY | OFlags::APPEND, us())?;
        let written = self.overlay.write(file, attr.size, content.as_bytes(), true, us());
        self.overlay.release(file);
        written.map(|_| ())
    }

    pub(super) fn mkdir(&self, path: &str) -> Result<Attr> {
        let (parent, name) = self.place(path);
        self.overlay.mkdir(parent, name, 0o755, 0, us())
    }

    pub(super) fn unlink(&self, path: &str) -> Result<()> {
        let (parent, name) = self.place(path);
        self.overlay.unlink(parent, name)
    }

    pub(super) fn rmdir(&self, path: &str) -> Result<()> {
        let (parent, name) = self.place(path);
        self.overlay.rmdir(parent, name)
    }

    pub(super) fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.rename_with(from, to, RenameFlags::empty())
    }

    pub(super) fn rename_with(&self, from: &str, to: &str, flags: RenameFlags) -> Result<()> {
        let ((parent, name), (new_parent, new_name)) = (self.place(from), self.place(to));
        self.overlay.rename(parent, name, new_parent, new_name, flags)
    }

    pub(super) fn link(&self, from: &str, to: &str) -> Result<Attr> {
        let (parent, name) = self.place(to);
        self.overlay.link(self.ino(from), parent, name)
    }

    pub(super) fn chmod(&self, path: &str, mode: u32) -> Result<Attr> {
        let set = SetAttr { mode: Some(mode), ..SetAttr::default() };
        self.overlay.setattr(self.ino(path), &set, None, us())
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
/// link to `other`. Whiteouts and opaque marks are files, as `.wh.name=`.
fn build(root: &Path, words: &str) {
    for word in words.split_whitespace() {
        if let Some(dir) = word.strip_suffix('/') {
            fs::create_dir_all(root.join(dir)).unwrap();
        } else if let Some((name, target)) = word.split_once("->") {
            symlink(target, root.join(name)).unwrap();
        } else if let Some((name, other)) = word.split_once("==") {
            fs::hard_link(root.join(other), root.join(name)).unwrap();
        } else {
            let (name, content) = word.split_once('=').unwrap();
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
    }
}

/// Everything below `dir`, one line each: path, type and mode, and content; times and owners of a layer are in it too.
fn dump(dir: &Path) -> Vec<String> {
    fn visit(dir: &Path, prefix: &Path, lines: &mut Vec<String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let (path, name) = (entry.path(), prefix.join(entry.file_name()));
            let meta = entry.metadata().unwrap();
            let kind = meta.file_type();
            let mode = meta.permissions().mode() & 0o7777;
            let shown = String::from_utf8_lossy(name.as_os_str().as_bytes()).into_owned();
            lines.push(if kind.is_dir() {
                format!("{shown}/ {mode:o}")
            } else if kind.is_symlink() {
                format!("{shown} -> {}", fs::read_link(&path).unwrap().display())
            } else if kind.is_char_device() && meta.rdev() == 0 {
                format!("{shown} whiteout")
            } else if kind.is_file() {
                format!("{shown} {mode:o} {}", String::from_utf8_lossy(&fs::read(&path).unwrap_or_default()))
            } else {
                format!("{shown} {mode:o} special")
            });
            if kind.is_dir() {
                visit(&path, &name, lines);
            }
        }
    }
    let mut lines = Vec::new();
    visit(dir, Path::new(""), &mut lines);
    lines.sort();
    lines
}

/// The errno of a failed operation.
pub(super) fn errno<T: std::fmt::Debug>(result: Result<T>) -> Errno {
    result.unwrap_err().errno()
}

/// The type of what is under a path.
pub(super) fn kind(bed: &Bed, path: &str) -> Kind {
    bed.attr(path).unwrap().kind()
}
