//! Mount options, parsed and checked: what one mount is made of and how it is to behave.

mod options;
mod split;
pub mod table;
mod values;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

pub use self::options::{MountOptions, Options, Timeouts};

pub use crate::ids::Map;
pub use crate::layer::work::WhiteoutStyle;
pub use crate::override_stat::Key;

/// Everything that the overlay itself has to know about a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Lower layers, topmost first; never empty.
    pub lowers: Vec<PathBuf>,
    /// Layers below them whose files are only the data of metacopies above.
    pub data_layers: Vec<PathBuf>,
    /// The writable layer; without one the mount is read-only.
    pub upper: Option<PathBuf>,
    /// The work directory, on the upper's filesystem; given exactly when `upper` is.
    pub work: Option<PathBuf>,
    /// Nothing may be changed, even where there is an upper.
    pub read_only: bool,
    /// Marks are `user.overlay.*`; `None` decides by what the upper (or the process) allows.
    pub userxattr: Option<bool>,
    /// Whether directories that have a lower part may be renamed, and redirects are followed.
    pub redirect_dir: RedirectDir,
    /// A change of attributes copies no data, and such copies are followed to their data.
    pub metacopy: bool,
    /// The upper belongs to its first lower layer, and the index to the upper.
    pub index: bool,
    /// Neither `fsync` nor copy-up waits for the disk (`volatile`).
    pub volatile: bool,
    /// `fsync` by callers reaches the disk (`fsync=0` turns that off).
    pub fsync: bool,
    /// POSIX ACLs are supported (`noacl` turns them off).
    pub acl: bool,
    /// Directories show a link count of 1.
    pub static_nlink: bool,
    /// Reading does not move access times.
    pub noatime: bool,
    /// Every file shows this owner, and is created with it (`squash_to_root`, `squash_to_uid=`).
    pub squash_uid: Option<u32>,
    /// Every file shows this group, and is created with it (`squash_to_root`, `squash_to_gid=`).
    pub squash_gid: Option<u32>,
    /// Owners and modes of what is written are kept in this attribute (`xattr_permissions=`).
    pub keep_owners: Option<Key>,
    /// How owners are shifted (`uidmapping=`).
    pub uid_map: Map,
    /// How groups are shifted (`gidmapping=`).
    pub gid_map: Map,
    /// How whiteouts are made (`whiteouts=device|xattr|file`); `None` takes the first that the upper allows.
    pub whiteouts: Option<WhiteoutStyle>,
    /// Entries kept by the bounded metadata caches.
    pub cache: CacheSizes,
}

/// The kernel's `redirect_dir` option.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RedirectDir {
    /// Redirects are written and followed.
    #[default]
    On,
    /// Redirects are followed but not written: renaming a merged directory fails with `EXDEV`.
    Follow,
    /// Redirects are neither written nor followed.
    NoFollow,
}

/// How many entries each metadata cache may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheSizes {
    /// Attributes of inodes (`cache_attrs=`).
    pub attrs: usize,
    /// Names known to be missing (`cache_missing=`).
    pub missing: usize,
    /// Names in cached merged listings, summed over all listings, and as many of lower directories (`cache_listings=`).
    pub listings: usize,
    /// Open directory descriptors (`cache_dirs=`); lowered to a quarter of the descriptor limit.
    pub dirs: usize,
}

impl Default for CacheSizes {
    fn default() -> Self {
        Self { attrs: 16_384, missing: 16_384, listings: 262_144, dirs: 1024 }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            lowers: Vec::new(),
            data_layers: Vec::new(),
            upper: None,
            work: None,
            read_only: false,
            userxattr: None,
            redirect_dir: RedirectDir::default(),
            metacopy: false,
            index: false,
            volatile: false,
            fsync: true,
            acl: true,
            static_nlink: false,
            noatime: false,
            squash_uid: None,
            squash_gid: None,
            keep_owners: None,
            uid_map: Map::default(),
            gid_map: Map::default(),
            whiteouts: None,
            cache: CacheSizes::default(),
        }
    }
}
