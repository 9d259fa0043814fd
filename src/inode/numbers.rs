//! Inode numbers: unique over all layers, and the same after copy-up, rename and remount.
//!
//! The scheme is the kernel's `xino`: the number in the layer's filesystem, with the filesystem in the high bits. All
//! that lies on the upper's (else the first lower's) filesystem keeps its plain number.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::lock::{Mutex, RwLock, rank};

use crate::attr::Attr;

/// The node id of the root, fixed by the FUSE protocol.
pub const ROOT: u64 = 1;

const SHIFT: u32 = 56;
/// The high bits of numbers that could not be composed; they last as long as the mount.
const MADE_UP: u64 = 0xff << SHIFT;

/// Composes inode numbers.
#[derive(Debug)]
pub struct Numbers {
    /// The devices of the filesystems; the place of one is its number.
    devices: RwLock<Vec<u64>, { rank::LEAF }>,
    next: AtomicU64,
    /// What was made up for which inode, so that it stays the same.
    made_up: Mutex<HashMap<(u64, u64), u64>, { rank::LEAF }>,
}

impl Numbers {
    /// Numbers for layers on `devices`; the first one's are plain.
    pub fn new(devices: impl IntoIterator<Item = u64>) -> Self {
        let mut known = Vec::new();
        for device in devices {
            if !known.contains(&device) {
                known.push(device);
            }
        }
        Self { devices: RwLock::new(known), next: AtomicU64::new(0), made_up: Mutex::default() }
    }

    /// The number shown for an object of a layer.
    pub fn number(&self, attr: &Attr) -> u64 {
        self.compose(attr.dev, attr.ino)
    }

    /// The number shown for the inode `ino` on the device `dev`.
    pub fn compose(&self, dev: u64, ino: u64) -> u64 {
        let filesystem = self.filesystem(dev);
        match filesystem {
            _ if ino <= ROOT => self.make_up_for(dev, ino),
            Some(0) => ino,
            Some(filesystem) if ino >> SHIFT == 0 => (filesystem << SHIFT) | ino,
            _ => self.make_up_for(dev, ino),
        }
    }

    fn make_up_for(&self, dev: u64, ino: u64) -> u64 {
        *self.made_up.lock().entry((dev, ino)).or_insert_with(|| self.make_up())
    }

    /// A number of which nothing is known but that it is not in use.
    pub fn make_up(&self) -> u64 {
        MADE_UP | (self.next.fetch_add(1, Ordering::Relaxed) & !MADE_UP)
    }

    fn filesystem(&self, dev: u64) -> Option<u64> {
        let place = |devices: &[u64]| devices.iter().position(|known| *known == dev);
        let found = place(&self.devices.read());
        let index = match found {
            Some(index) => index,
            None => {
                // A subvolume or a mount inside a layer.
                let mut devices = self.devices.write();
                place(&devices).unwrap_or_else(|| {
                    devices.push(dev);
                    devices.len().saturating_sub(1)
                })
            }
        };
        u64::try_from(index).ok().filter(|index| *index < MADE_UP >> SHIFT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_filesystem_is_plain_and_the_others_are_told_apart() {
        let numbers = Numbers::new([10, 20, 10]);
        assert_eq!(numbers.compose(10, 42), 42);
        assert_eq!(numbers.compose(20, 42), (1 << 56) | 42);
        assert_eq!(numbers.compose(30, 42), (2 << 56) | 42);
        assert_eq!(numbers.compose(30, 43), (2 << 56) | 43);
    }

    #[test]
    fn numbers_that_cannot_be_composed_are_made_up() {
        let numbers = Numbers::new([10, 20]);
        let made_up = [numbers.compose(10, ROOT), numbers.compose(10, 0), numbers.compose(20, 1 << 56)];
        for (index, number) in made_up.iter().enumerate() {
            assert!(number >> 56 == 0xff);
            assert!(!made_up[..index].contains(number));
        }
        assert_eq!(numbers.compose(10, ROOT), made_up[0]);
    }
}
