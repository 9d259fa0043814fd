//! Origins: which lower inode a copied-up file came from, in the kernel's format (`struct ovl_fb`, fs/overlayfs).
//!
//! An origin keeps the inode number the same across copy-up, rename and remount. Its bytes in hexadecimal name the
//! entry of the index that keeps lower hard links one inode.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::at::At;
use crate::attr::Attr;
use crate::calls::{name_to_handle, open_by_handle};
use crate::error::Errno;
use crate::lock::{RwLock, rank};
use crate::sys::handle::FileHandle;

use super::Layer;

const VERSION: u8 = 0;
const MAGIC: u8 = 0xfb;
const HEADER: usize = 21;
/// The flag of an origin written on a machine of the other byte order.
const FLAG_BIG_ENDIAN: u8 = 1;
/// The flag of an origin that can be read on any machine.
const FLAG_ANY_ENDIAN: u8 = 2;
/// The flag of the handle of an upper.
const FLAG_UPPER: u8 = 4;
/// Our own form of handle, for filesystems that have none: the inode number in 8 bytes.
const KIND_INODE: u8 = 0xf1;

/// A lower inode, as stored in an origin mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    uuid: [u8; 16],
    handle: FileHandle,
}

/// What is known of the inode that an origin names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// Device of its filesystem.
    pub dev: u64,
    /// Its number there.
    pub ino: u64,
    /// Its link count there, for who may open handles.
    pub nlink: Option<u32>,
}

/// The numbers of copies that can carry no origin mark: only files and directories take `user.` attributes. They last
/// as long as the mount.
///
/// A leaf among the locks: held for a moment, never across a syscall.
#[derive(Debug, Default)]
pub struct Unmarked {
    /// What is shown, by device and inode number in the upper.
    numbers: RwLock<HashMap<(u64, u64), u64>, { rank::LEAF }>,
    /// There is one: saves most lookups the lock.
    any: AtomicBool,
}

impl Unmarked {
    /// The number shown for an inode of the upper, if it is such a copy.
    pub fn get(&self, dev: u64, ino: u64) -> Option<u64> {
        self.any.load(Ordering::Relaxed).then(|| self.numbers.read().get(&(dev, ino)).copied()).flatten()
    }

    /// Notes which number is shown for a copy.
    pub fn put(&self, dev: u64, ino: u64, shown: u64) {
        self.numbers.write().insert((dev, ino), shown);
        self.any.store(true, Ordering::Relaxed);
    }

    /// Forgets a copy that is gone, as its number in the upper may be used again.
    pub fn remove(&self, dev: u64, ino: u64) {
        if self.any.load(Ordering::Relaxed) {
            self.numbers.write().remove(&(dev, ino));
        }
    }
}

impl Origin {
    /// The origin of the object `at`, with attributes `attr`, in the lower layer `layer`.
    ///
    /// # Errors
    /// Those of name_to_handle_at(2); a filesystem without handles is none.
    pub fn of(layer: &Layer, at: At<'_>, attr: &Attr) -> Result<Self, Errno> {
        let handle = match name_to_handle(at.dir(), at.name()) {
            Ok(handle) if u8::try_from(handle.kind).is_ok() => handle,
            Ok(_) | Err(Errno::OPNOTSUPP | Errno::OVERFLOW | Errno::NOSYS | Errno::PERM) => {
                FileHandle { kind: KIND_INODE.into(), bytes: attr.ino.to_le_bytes().to_vec() }
            }
            Err(errno) => return Err(errno),
        };
        Ok(Self { uuid: layer.uuid, handle })
    }

    /// The bytes of the mark.
    pub fn encode(&self) -> Vec<u8> {
        let flags = if cfg!(target_endian = "big") { FLAG_BIG_ENDIAN } else { 0 };
        let len = u8::try_from(HEADER.saturating_add(self.handle.bytes.len())).unwrap_or(u8::MAX);
        let kind = u8::try_from(self.handle.kind).unwrap_or(KIND_INODE);
        let mut bytes = vec![VERSION, MAGIC, len, flags, kind];
        bytes.extend_from_slice(&self.uuid);
        bytes.extend_from_slice(&self.handle.bytes);
        bytes
    }

    /// The bytes of the mark by which an index names its upper.
    pub fn encode_upper(&self) -> Vec<u8> {
        let mut bytes = self.encode();
        if let Some(flags) = bytes.get_mut(3) {
            *flags |= FLAG_UPPER;
        }
        bytes
    }

    /// Whether it is a handle of the filesystem: some have none.
    pub fn is_handle(&self) -> bool {
        self.handle.kind != i32::from(KIND_INODE)
    }

    /// Reads a mark; `None` for what is no origin, or one of another machine.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let [VERSION, MAGIC, len, flags, kind, rest @ ..] = bytes else { return None };
        let native = if cfg!(target_endian = "big") { FLAG_BIG_ENDIAN } else { 0 };
        if usize::from(*len) != bytes.len() || (flags & FLAG_ANY_ENDIAN == 0 && flags & FLAG_BIG_ENDIAN != native) {
            return None;
        }
        let (uuid, handle) = rest.split_first_chunk::<16>()?;
        Some(Self { uuid: *uuid, handle: FileHandle { kind: i32::from(*kind), bytes: handle.to_vec() } })
    }

    /// The name of this inode's entry in the index.
    pub fn index_name(&self) -> Vec<u8> {
        let bytes = self.encode();
        let mut name = String::with_capacity(bytes.len().saturating_mul(2));
        for byte in bytes {
            // Writing to a String does not fail.
            write!(name, "{byte:02x}").unwrap_or_default();
        }
        name.into_bytes()
    }

    /// The bytes of the mark that an entry of the index is named by.
    pub fn of_index_name(name: &[u8]) -> Option<Vec<u8>> {
        let digit = |digit: &u8| char::from(*digit).to_digit(16);
        let byte = |pair: &[u8]| match pair {
            [high, low] => u8::try_from(digit(high)?.checked_mul(16)?.checked_add(digit(low)?)?).ok(),
            _ => None,
        };
        name.chunks(2).map(byte).collect()
    }

    /// The inode, if it is still there in one of `layers`.
    pub fn find(&self, layers: &[Layer]) -> Option<Source> {
        layers.iter().filter(|layer| layer.uuid == self.uuid).find_map(|layer| self.find_in(layer))
    }

    fn find_in(&self, layer: &Layer) -> Option<Source> {
        let source = |ino| Source { dev: layer.attr.dev, ino, nlink: None };
        if self.handle.kind == i32::from(KIND_INODE) {
            return Some(source(u64::from_le_bytes(self.handle.bytes.as_slice().try_into().ok()?)));
        }
        match open_by_handle(layer.root(), &self.handle) {
            Ok(fd) => {
                let attr = At::fd(&fd).attr().ok()?;
                Some(Source { dev: attr.dev, ino: attr.ino, nlink: Some(attr.nlink) })
            }
            Err(Errno::PERM) => Some(source(self.handle_inode(layer.magic)?)),
            Err(Errno::STALE) => None,
            Err(errno) => {
                log::warn!("{}: cannot look an origin up: {errno}", layer.path.display());
                None
            }
        }
    }

    /// The inode number in the handles of the filesystems that containers live on, for who may not open handles.
    fn handle_inode(&self, magic: u64) -> Option<u64> {
        /// `FILEID_INO32_GEN`, and XFS's form of it with 64 bits.
        const INO32_GEN: i32 = 1;
        const XFS_INO64_GEN: i32 = 0x81;
        /// `FILEID_BTRFS_WITHOUT_PARENT`.
        const BTRFS: i32 = 0x4d;
        const EXT4: u64 = 0xef53;
        const XFS: u64 = 0x5846_5342;
        const F2FS: u64 = 0xf2f5_2010;
        const TMPFS: u64 = 0x0102_1994;
        const BTRFS_MAGIC: u64 = 0x9123_683e;
        let word = |index: usize| -> Option<u64> {
            let start = index.checked_mul(4)?;
            let bytes = self.handle.bytes.get(start..start.checked_add(4)?)?;
            Some(u64::from(u32::from_ne_bytes(bytes.try_into().ok()?)))
        };
        let long = |low: usize, high: usize| Some(word(low)? | (word(high)? << 32));
        match (magic, self.handle.kind) {
            (EXT4 | XFS | F2FS, INO32_GEN) => word(0),
            (XFS, XFS_INO64_GEN) | (BTRFS_MAGIC, BTRFS) => long(0, 1),
            (TMPFS, INO32_GEN) => long(1, 2),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::path::Path;

    use super::*;

    #[test]
    fn an_origin_survives_its_mark() {
        let origin =
            Origin { uuid: *b"0123456789abcdef", handle: FileHandle { kind: 1, bytes: vec![1, 2, 3, 4, 5, 6, 7, 8] } };
        let bytes = origin.encode();
        assert_eq!(bytes[..5], [0, 0xfb, 29, 0, 1]);
        assert_eq!(Origin::decode(&bytes), Some(origin.clone()));
        assert!(origin.index_name().starts_with(b"00fb1d0001303132"));
        assert_eq!(Origin::of_index_name(&origin.index_name()), Some(bytes.clone()));
        for name in [&b"0"[..], b"0x", b"#1"] {
            assert_eq!(Origin::of_index_name(name), None, "{name:?}");
        }
        assert_eq!(origin.encode_upper()[..5], [0, 0xfb, 29, 4, 1]);
        assert_eq!(origin.index_name().len(), bytes.len() * 2);
    }

    #[test]
    fn what_is_no_origin_is_none() {
        let good = Origin { uuid: [7; 16], handle: FileHandle { kind: 1, bytes: vec![0; 8] } }.encode();
        let with = |index: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[index] = value;
            bytes
        };
        for bad in [vec![], vec![0], good[..20].to_vec(), with(0, 1), with(1, 0), with(2, 99), with(3, 1)] {
            assert_eq!(Origin::decode(&bad), None, "{bad:?}");
        }
        assert!(Origin::decode(&with(3, FLAG_ANY_ENDIAN)).is_some());
    }

    #[test]
    fn a_handle_tells_the_inode_number_even_without_privilege() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), "x").unwrap();
        let layer = Layer::open_upper(Path::new(dir.path())).unwrap();
        let fd = File::open(dir.path()).unwrap();
        let at = At::new(&fd, b"f");
        let attr = at.attr().unwrap();
        let origin = Origin::of(&layer, at, &attr).unwrap();
        let found = origin.find(&[layer]).unwrap();
        assert_eq!((found.dev, found.ino), (attr.dev, attr.ino));
        let layer = Layer::open_upper(Path::new(dir.path())).unwrap();
        if origin.handle.kind != i32::from(KIND_INODE) {
            assert_eq!(origin.handle_inode(layer.magic), Some(attr.ino));
        }
    }
}
