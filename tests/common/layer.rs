//! Building layers.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};

/// A way to write a mark down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A character device 0:0.
    Device,
    /// `.wh.NAME` and `.wh..wh..opq`.
    DotWh,
    /// `trusted.overlay.*`.
    Trusted,
    /// `user.overlay.*`.
    User,
    /// `user.fuseoverlayfs.*`.
    FuseOverlayfs,
}

impl Form {
    /// What the names of its extended attributes begin with.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Trusted | Self::Device | Self::DotWh => "trusted.overlay.",
            Self::User => "user.overlay.",
            Self::FuseOverlayfs => "user.fuseoverlayfs.",
        }
    }
}

/// A directory in which a layer is built. Paths are relative to it; missing parents are made.
#[derive(Debug, Clone)]
pub struct Layer {
    root: PathBuf,
}

impl Layer {
    /// A layer at `root`, which is made if it is not there.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        fs::create_dir_all(&root).unwrap();
        Self { root }
    }

    /// The path of `path` in the layer.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root.join(path.as_ref())
    }

    fn prepare(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    pub fn dir(&self, path: impl AsRef<Path>) -> &Self {
        fs::create_dir_all(self.path(path)).unwrap();
        self
    }

    pub fn file(&self, path: impl AsRef<Path>, content: impl AsRef<[u8]>) -> &Self {
        fs::write(self.prepare(path), content).unwrap();
        self
    }

    /// Many small files `path/f0` and following, each with its number as content.
    pub fn files(&self, path: impl AsRef<Path>, count: usize) -> &Self {
        let dir = self.path(path);
        fs::create_dir_all(&dir).unwrap();
        for number in 0..count {
            fs::write(dir.join(format!("f{number}")), number.to_string()).unwrap();
        }
        self
    }

    pub fn symlink(&self, path: impl AsRef<Path>, target: impl AsRef<Path>) -> &Self {
        std::os::unix::fs::symlink(target, self.prepare(path)).unwrap();
        self
    }

    /// A further name `path` of `other`, which is in the layer.
    pub fn hard_link(&self, path: impl AsRef<Path>, other: impl AsRef<Path>) -> &Self {
        fs::hard_link(self.path(other), self.prepare(path)).unwrap();
        self
    }

    pub fn fifo(&self, path: impl AsRef<Path>) -> &Self {
        self.node(path, FileType::Fifo, (0, 0))
    }

    pub fn char_device(&self, path: impl AsRef<Path>, major: u32, minor: u32) -> &Self {
        self.node(path, FileType::CharacterDevice, (major, minor))
    }

    fn node(&self, path: impl AsRef<Path>, kind: FileType, (major, minor): (u32, u32)) -> &Self {
        let path = self.prepare(path);
        rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(0o644), rustix::fs::makedev(major, minor)).unwrap();
        self
    }

    pub fn mode(&self, path: impl AsRef<Path>, mode: u32) -> &Self {
        rustix::fs::chmod(self.path(path), Mode::from_raw_mode(mode)).unwrap();
        self
    }

    pub fn owner(&self, path: impl AsRef<Path>, uid: u32, gid: u32) -> &Self {
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        rustix::fs::chownat(CWD, self.path(path), uid, gid, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        self
    }

    /// Sets access and modification time to the same second and nanosecond.
    pub fn time(&self, path: impl AsRef<Path>, seconds: i64, nanoseconds: i64) -> &Self {
        let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, self.path(path), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        self
    }

    pub fn xattr(&self, path: impl AsRef<Path>, name: &str, value: impl AsRef<[u8]>) -> &Self {
        rustix::fs::lsetxattr(self.path(path), name, value.as_ref(), XattrFlags::empty()).unwrap();
        self
    }

    /// Hides `path` in the layers below.
    pub fn whiteout(&self, path: impl AsRef<Path>, form: Form) -> &Self {
        let path = path.as_ref();
        let parent = path.parent().unwrap_or(Path::new(""));
        match form {
            Form::Device => self.char_device(path, 0, 0),
            Form::DotWh => {
                let name = [b".wh.", path.file_name().unwrap().as_bytes()].concat();
                self.file(parent.join(OsStr::from_bytes(&name)), "")
            }
            Form::Trusted | Form::User | Form::FuseOverlayfs => {
                self.file(path, "").xattr(path, &format!("{}whiteout", form.prefix()), "y");
                let opaque = format!("{}opaque", form.prefix());
                if rustix::fs::lgetxattr_query(self.path(parent), &opaque).is_err() {
                    self.xattr(parent, &opaque, "x");
                }
                self
            }
        }
    }

    /// Makes a directory hide what is below it.
    pub fn opaque(&self, path: impl AsRef<Path>, form: Form) -> &Self {
        self.dir(&path);
        match form {
            Form::DotWh => self.file(path.as_ref().join(".wh..wh..opq"), ""),
            _ => self.xattr(path, &format!("{}opaque", form.prefix()), "y"),
        }
    }
}
