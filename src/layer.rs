//! Layers: the directories that an overlay is made of. Fixed once mounted.

pub mod marks;
pub mod origin;
pub mod work;

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use rustix::fs::{Mode, OFlags, fstatfs};

use crate::at::{At, split_names};
use crate::attr::Attr;
use crate::calls;
use crate::error::{Errno, Error, Result};
use crate::name::Name;
use crate::override_stat::Key;
use crate::sys;

/// A layer's number: its place in the list of lowers, topmost first.
pub type LayerId = u16;

/// One directory of a stack.
#[derive(Debug)]
pub struct Layer {
    root: OwnedFd,
    /// Where it was opened, for messages.
    pub path: PathBuf,
    /// The attributes of its root when it was opened.
    pub attr: Attr,
    /// The UUID of its filesystem, or zeros where it has none.
    pub uuid: [u8; 16],
    /// The type of its filesystem (`f_type` of statfs(2)).
    pub magic: u64,
    /// Its filesystem calls whatever it holds immutable, as erofs does: that protects nothing in the overlay.
    pub is_all_immutable: bool,
    /// By which attribute it keeps owners, if its root says so.
    pub key: Option<Key>,
}

const UNCLEAR: &str = "its root has an override_stat attribute that makes no sense";
const EROFS: u64 = 0xe0f5_e1e2;
const IMMUTABLE_FLAG: u32 = 0x10;

impl Layer {
    /// Opens a lower layer. With the privilege to do so, through a clone of its mount that even the kernel holds
    /// read-only.
    ///
    /// # Errors
    /// Those of open(2), naming `path` as `lowerdir=`.
    pub fn open_lower(path: &Path) -> Result<Self> {
        let mut layer = Self::open(path, "lowerdir")?;
        match sys::tree::read_only_clone(layer.root.as_fd()) {
            // The clone is O_PATH, with which file handles cannot be opened.
            Ok(clone) => layer.root = open_readable(clone.as_fd()).unwrap_or(clone),
            Err(errno) => log::debug!("{}: no private mount: {errno}", path.display()),
        }
        Ok(layer)
    }

    /// Opens the upper layer.
    ///
    /// # Errors
    /// Those of open(2), naming `path` as `upperdir=`.
    pub fn open_upper(path: &Path) -> Result<Self> {
        Self::open(path, "upperdir")
    }

    fn open(path: &Path, option: &str) -> Result<Self> {
        let named = |errno| Error::new(errno, "open").on(subject(option, path));
        let root = calls::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC).map_err(named)?;
        let attr = At::fd(&root).attr().map_err(named)?;
        let magic = fstatfs(&root).map_err(named)?.f_type as u64;
        // Who may search the layer but not list it gets along without.
        let root = open_readable(root.as_fd()).unwrap_or(root);
        let uuid = sys::fileattr::filesystem_uuid(root.as_fd()).unwrap_or_default();
        let is_flagged = || sys::fileattr::get_flags(root.as_fd()).is_ok_and(|flags| flags & IMMUTABLE_FLAG != 0);
        let is_all_immutable = attr.immutable && (magic == EROFS || !is_flagged());
        let names = At::fd(&root).xattr_names().map_err(named)?;
        let key = Key::of_root(split_names(&names));
        // Refused here rather than with the first lookup.
        At::fd(&root).keeping(key).attr().map_err(|errno| named(errno).because(UNCLEAR))?;
        Ok(Self { root, path: path.to_owned(), attr, uuid, magic, is_all_immutable, key })
    }

    /// Whether its filesystem lists whatever it finds by name: some find what they do not list, or whatever the case.
    pub fn lists_what_it_finds(&self) -> bool {
        const TMPFS: u64 = 0x0102_1994;
        const EXT4: u64 = 0xef53;
        const XFS: u64 = 0x5846_5342;
        const BTRFS: u64 = 0x9123_683e;
        const F2FS: u64 = 0xf2f5_2010;
        const SQUASHFS: u64 = 0x7371_7368;
        const OVERLAYFS: u64 = 0x794c_7630;
        matches!(self.magic, TMPFS | EXT4 | XFS | BTRFS | F2FS | SQUASHFS | EROFS | OVERLAYFS)
    }

    /// The layer's root directory.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

/// The directory `dir`, open for more than finding names in it.
fn open_readable(dir: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    calls::openat(dir, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// How an option and its path are named in a message: `lowerdir=/a/b`.
pub fn subject(option: &str, path: &Path) -> String {
    format!("{option}={}", path.display())
}

/// The layers of one overlay.
#[derive(Debug)]
pub struct Stack {
    /// The writable layer.
    pub upper: Option<Layer>,
    /// The read-only layers, topmost first, those for data only last; never empty.
    pub lowers: Vec<Layer>,
}

impl Stack {
    /// The lower layer with number `id`.
    pub fn lower(&self, id: LayerId) -> Option<&Layer> {
        self.lowers.get(usize::from(id))
    }
}

/// A directory of a lower layer. What it is called there never changes, as the layer does not.
#[derive(Debug)]
pub struct LowerDir {
    /// Tells lower directories apart.
    pub id: u64,
    /// The layer that it lies in.
    pub layer: LayerId,
    /// The directory that holds it, and its name there; `None` for the layer's root.
    pub place: Option<(Arc<LowerDir>, Name)>,
    /// It may hold zero-size files that an xattr makes whiteouts (`opaque=x`).
    pub xattr_whiteouts: bool,
    /// Whether it holds `.wh.` names, once that is known.
    dot_whiteouts: AtomicU8,
    /// How often a name was looked for here that is not there.
    missing: AtomicU32,
}

const UNKNOWN: u8 = 0;
const SOME: u8 = 1;
const NONE: u8 = 2;

impl LowerDir {
    /// The root of the layer `layer`.
    pub fn root(layer: LayerId, xattr_whiteouts: bool) -> Arc<Self> {
        Self::make(layer, None, xattr_whiteouts)
    }

    /// The directory `name` in `parent`.
    pub fn child(parent: &Arc<Self>, name: Name, xattr_whiteouts: bool) -> Arc<Self> {
        Self::make(parent.layer, Some((Arc::clone(parent), name)), xattr_whiteouts)
    }

    fn make(layer: LayerId, place: Option<(Arc<Self>, Name)>, xattr_whiteouts: bool) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let dot_whiteouts = AtomicU8::new(UNKNOWN);
        Arc::new(Self { id, layer, place, xattr_whiteouts, dot_whiteouts, missing: AtomicU32::new(0) })
    }

    /// Whether a `.wh.` name has to be looked for here.
    pub fn may_hold_dot_whiteouts(&self) -> bool {
        self.dot_whiteouts.load(Ordering::Relaxed) != NONE
    }

    /// Notes what a full listing has shown.
    pub fn set_dot_whiteouts(&self, some: bool) {
        self.dot_whiteouts.store(if some { SOME } else { NONE }, Ordering::Relaxed);
    }

    /// Notes that a name was not there; returns how often that was so by now.
    pub fn note_missing(&self) -> u32 {
        self.missing.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
    }

    /// The path below the layer's root, for messages.
    pub fn path(&self) -> PathBuf {
        let mut names = Vec::new();
        let mut dir = self;
        while let Some((parent, name)) = &dir.place {
            names.push(OsStr::from_bytes(name.as_bytes()));
            dir = parent;
        }
        names.into_iter().rev().collect()
    }
}

impl Drop for LowerDir {
    fn drop(&mut self) {
        // A chain of directories thousands deep must not be dropped by recursion.
        let mut next = self.place.take();
        while let Some((parent, _)) = next {
            next = Arc::into_inner(parent).and_then(|mut dir| dir.place.take());
        }
    }
}
