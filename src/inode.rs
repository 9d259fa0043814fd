//! Inodes of the overlay: an identity that never changes, and a state that copy-up, links and renames change.

pub mod numbers;
pub mod table;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::attr::{Kind, Time};
use crate::layer::LowerDir;
use crate::lock::{Mutex, RwLock, rank};
use crate::name::Name;

/// A file or directory of the overlay that somebody knows by its number.
#[derive(Debug)]
pub struct Inode {
    /// Node id and inode number shown. Immutable.
    pub ino: u64,
    /// File type. Immutable.
    pub kind: Kind,
    /// How often the kernel was told of it, less how often it has forgotten.
    lookups: AtomicU64,
    /// For directories: held while a name in it changes.
    pub entries: Mutex<(), { rank::ENTRIES }>,
    /// Open files through which its data changes without us, so that its attributes cannot be kept here.
    pub through: AtomicU32,
    /// Those of them that can be mapped for writing, so that its attributes cannot be kept anywhere.
    pub mappable: AtomicU32,
    /// The kernel was given its data with an open.
    pub is_handed_over: AtomicBool,
    /// Where it is. Changed under the write lock only, which is held while names or layers of it change on disk.
    pub state: RwLock<State, { rank::STATE }>,
}

/// Where an inode is.
#[derive(Debug, Default)]
pub struct State {
    /// The names by which it is known.
    pub links: Links,
    /// Its inode number in the upper layer, once it has a part there.
    pub upper: Option<u64>,
    /// Its part in the lower layers.
    pub lower: Lower,
    /// What few inodes have.
    pub extra: Option<Box<Extra>>,
    /// Flags that are asked for often.
    pub flags: Flags,
}

/// Parts of a state that few inodes have.
#[derive(Debug, Default)]
pub struct Extra {
    /// The name of its entry in the index, for a lower hard link that was copied up.
    pub index: Option<Vec<u8>>,
    /// The overlay's link count, for an indexed inode.
    pub nlink: Option<u32>,
    /// Where the layers below know this directory or metacopy, as its redirect mark says.
    pub redirect: Option<Box<[u8]>>,
    /// For a metacopy: where its data is.
    pub data: Option<DataAt>,
    /// The upper file, after its last name is gone.
    pub orphan: Option<Arc<OwnedFd>>,
    /// When its data had been changed last as it got a set-id bit while it was open for writing without us.
    pub written: Option<Time>,
}

/// Where the data of a file is, when it is not with its attributes.
#[derive(Debug, Clone)]
pub enum DataAt {
    /// In a file of a lower layer, which has so many allocated blocks of 512 bytes.
    Lower(Arc<LowerDir>, Name, u64),
    /// At a path in the data-only layers, where it is looked for when the file is opened.
    DataOnly(Arc<[Name]>),
}

/// Flags of a state.
#[derive(Debug, Clone, Copy, Default)]
pub struct Flags {
    /// The upper directory carries the impure mark.
    pub impure: bool,
    /// No change is allowed.
    pub immutable: bool,
    /// Only growing is allowed.
    pub append_only: bool,
    /// It has a set-id bit.
    pub setid: bool,
    /// Its capabilities were removed, and nothing was set since.
    pub capabilities_fell: bool,
    /// It may have capabilities that are kept aside, which its filesystem does not take away with a write.
    pub kept_capability: bool,
    /// Its upper part came from a lower inode, as its origin mark says.
    pub has_origin: bool,
}

/// The part of an inode in the lower layers.
#[derive(Debug, Clone, Default)]
pub enum Lower {
    /// None: it was made in the upper.
    #[default]
    None,
    /// A file: its place in one layer.
    File(Arc<LowerDir>, Name),
    /// A directory: all lower directories that it merges, topmost first.
    Dirs(Arc<[Arc<LowerDir>]>),
}

/// A name of an inode.
#[derive(Debug, Clone)]
pub struct Link {
    /// The directory that holds it.
    pub parent: Arc<Inode>,
    /// The name there.
    pub name: Name,
    /// Whether the upper has an entry for it (a hard link in a lower may have been copied up under another name).
    pub in_upper: bool,
}

/// The known names of an inode: mostly one.
#[derive(Debug, Default)]
pub enum Links {
    /// It is unlinked, or the root.
    #[default]
    None,
    /// One.
    One(Link),
    /// Hard links.
    Many(Vec<Link>),
}

impl Links {
    /// All of them.
    pub fn as_slice(&self) -> &[Link] {
        match self {
            Self::None => &[],
            Self::One(link) => std::slice::from_ref(link),
            Self::Many(links) => links,
        }
    }

    /// The link `name` in `parent`.
    pub fn find(&self, parent: &Inode, name: &[u8]) -> Option<&Link> {
        self.as_slice().iter().find(|link| link.is(parent, name))
    }

    /// Adds a link, or updates the one that is there.
    pub fn add(&mut self, link: Link) {
        let links = match std::mem::take(self) {
            Self::None => return *self = Self::One(link),
            Self::One(first) => vec![first],
            Self::Many(links) => links,
        };
        let mut links = links;
        match links.iter_mut().find(|known| known.is(&link.parent, link.name.as_bytes())) {
            Some(known) => known.in_upper |= link.in_upper,
            None => links.push(link),
        }
        *self = Self::from(links);
    }

    /// Puts the link `name` in `parent` first, so that a copy goes there.
    pub fn prefer(&mut self, parent: &Inode, name: &[u8]) {
        if let Self::Many(links) = self
            && let Some(index) = links.iter().position(|link| link.is(parent, name))
            && let Some(until) = links.get_mut(..=index)
        {
            until.rotate_right(1);
        }
    }

    /// Removes the link `name` in `parent`.
    pub fn remove(&mut self, parent: &Inode, name: &[u8]) {
        let mut links = match std::mem::take(self) {
            Self::None => return,
            Self::One(first) => vec![first],
            Self::Many(links) => links,
        };
        links.retain(|link| !link.is(parent, name));
        *self = Self::from(links);
    }
}

impl From<Vec<Link>> for Links {
    fn from(mut links: Vec<Link>) -> Self {
        match links.len() {
            0 => Self::None,
            1 => links.pop().map_or(Self::None, Self::One),
            _ => Self::Many(links),
        }
    }
}

impl Link {
    fn is(&self, parent: &Inode, name: &[u8]) -> bool {
        self.parent.ino == parent.ino && self.name.as_bytes() == name
    }
}

impl State {
    /// The lower directories that it merges.
    pub fn lower_dirs(&self) -> &[Arc<LowerDir>] {
        match &self.lower {
            Lower::Dirs(dirs) => dirs,
            _ => &[],
        }
    }

    /// Whether it has a part in a lower layer.
    pub fn has_lower(&self) -> bool {
        !matches!(self.lower, Lower::None)
    }

    /// The parts that few inodes have, made if need be.
    pub fn extra_mut(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }

    /// Where the data is, when it is not with the attributes.
    pub fn data(&self) -> Option<&DataAt> {
        self.extra.as_ref()?.data.as_ref()
    }

    /// Notes where the data is, when it is not with the attributes.
    pub fn set_data(&mut self, data: Option<DataAt>) {
        if data.is_some() || self.data().is_some() {
            self.extra_mut().data = data;
        }
    }

    /// Whether there is nothing left to be copied up.
    pub fn is_whole(&self) -> bool {
        self.upper.is_some() && self.data().is_none()
    }

    /// The only name there is of an indexed inode, if the upper has no entry for it.
    pub fn last_link(&self) -> Option<&Link> {
        match self.links.as_slice() {
            [link] if self.nlink() == Some(1) && !link.in_upper => Some(link),
            _ => None,
        }
    }

    /// The redirect mark of an upper directory or metacopy.
    pub fn redirect(&self) -> Option<&[u8]> {
        self.extra.as_ref()?.redirect.as_deref()
    }

    /// The overlay's link count of an indexed inode.
    pub fn nlink(&self) -> Option<u32> {
        self.extra.as_ref()?.nlink
    }

    /// The entry of an indexed inode.
    pub fn index(&self) -> Option<&[u8]> {
        self.extra.as_ref()?.index.as_deref()
    }

    /// The upper file of an unlinked inode.
    pub fn orphan(&self) -> Option<&Arc<OwnedFd>> {
        self.extra.as_ref()?.orphan.as_ref()
    }
}

impl Inode {
    /// An inode that nobody has looked up yet.
    pub fn new(ino: u64, kind: Kind, state: State) -> Self {
        Self {
            ino,
            kind,
            lookups: AtomicU64::new(0),
            entries: Mutex::new(()),
            through: AtomicU32::new(0),
            mappable: AtomicU32::new(0),
            is_handed_over: AtomicBool::new(false),
            state: RwLock::new(state),
        }
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == Kind::Dir
    }

    /// How often the kernel knows it.
    pub fn lookups(&self) -> u64 {
        self.lookups.load(Ordering::Relaxed)
    }
}

impl Drop for Inode {
    fn drop(&mut self) {
        // A chain of directories thousands deep must not be dropped by recursion.
        let mut next = std::mem::take(&mut self.state.get_mut().links);
        while let Links::One(link) = next {
            next = match Arc::into_inner(link.parent) {
                Some(mut parent) => std::mem::take(&mut parent.state.get_mut().links),
                None => break,
            };
        }
    }
}
