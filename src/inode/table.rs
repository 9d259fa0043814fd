//! The inodes that the kernel knows, by their number.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use crate::lock::{Mutex, rank};

use super::Inode;

const SHARDS: usize = 16;
/// For so few entries memory does not matter.
const FEW: usize = 64;

/// Every inode with a lookup count above zero.
///
/// A leaf among the locks: held for a moment, never across a syscall.
#[derive(Debug)]
pub struct Table {
    shards: [Mutex<Shard, { rank::LEAF }>; SHARDS],
}

#[derive(Debug, Default)]
struct Shard {
    known: HashMap<u64, Arc<Inode>>,
    /// Forgotten, but still held as the parent of one that is known: found anew, it is to be the same object, as what is
    /// below reaches its layers through it.
    forgotten: HashMap<u64, Weak<Inode>>,
    /// How many forgotten ones there may be before those are dropped that nobody holds any more.
    sweep_at: usize,
}

impl Shard {
    fn keep(&mut self, ino: u64, inode: &Arc<Inode>) {
        if self.forgotten.len() >= self.sweep_at.max(FEW) {
            self.forgotten.retain(|_, inode| inode.strong_count() > 0);
            self.sweep_at = self.forgotten.len().saturating_mul(2);
        }
        self.forgotten.insert(ino, Arc::downgrade(inode));
    }
}

impl Default for Table {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()) }
    }
}

impl Table {
    fn shard(&self, ino: u64) -> &Mutex<Shard, { rank::LEAF }> {
        let [first, ..] = &self.shards;
        self.shards.get(ino as usize % SHARDS).unwrap_or(first)
    }

    /// The inode `ino`, if the kernel knows it.
    pub fn get(&self, ino: u64) -> Option<Arc<Inode>> {
        self.shard(ino).lock().known.get(&ino).cloned()
    }

    /// Counts one lookup of `inode`, which becomes known, unless another of its number is: that one is returned.
    pub fn look_up(&self, inode: Arc<Inode>) -> Arc<Inode> {
        let mut shard = self.shard(inode.ino).lock();
        let Shard { known, forgotten, .. } = &mut *shard;
        let known = known.entry(inode.ino).or_insert_with(|| {
            let held = forgotten.remove(&inode.ino).and_then(|held| held.upgrade());
            held.unwrap_or(inode)
        });
        // The lock orders this against `forget`.
        known.lookups.fetch_add(1, Ordering::Relaxed);
        Arc::clone(known)
    }

    /// Takes `count` lookups of `ino` back; at zero it is not known any more, and returned.
    pub fn forget(&self, ino: u64, count: u64) -> Option<Arc<Inode>> {
        let mut shard = self.shard(ino).lock();
        let inode = shard.known.get(&ino)?;
        let left = inode.lookups().saturating_sub(count);
        inode.lookups.store(left, Ordering::Relaxed);
        if left > 0 {
            return None;
        }
        let inode = shard.known.remove(&ino)?;
        let room = shard.known.capacity();
        if room > FEW && shard.known.len() < room / 4 {
            shard.known.shrink_to(room / 2);
        }
        if inode.is_dir() && Arc::strong_count(&inode) > 1 {
            shard.keep(ino, &inode);
        }
        Some(inode)
    }

    /// How many inodes are known.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().known.len()).fold(0, usize::saturating_add)
    }

    /// How often the kernel was told of all of them, less how often it has forgotten.
    pub fn lookups(&self) -> u64 {
        let of_shard = |shard: &Mutex<Shard, { rank::LEAF }>| {
            shard.lock().known.values().map(|inode| inode.lookups()).fold(0, u64::saturating_add)
        };
        self.shards.iter().map(of_shard).fold(0, u64::saturating_add)
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::Kind;
    use crate::inode::State;

    #[test]
    fn an_inode_is_known_until_every_lookup_is_forgotten() {
        let table = Table::default();
        let file = || Arc::new(Inode::new(7, Kind::File, State::default()));
        let first = table.look_up(file());
        assert!(Arc::ptr_eq(&first, &table.look_up(file())));
        assert!(table.forget(7, 1).is_none());
        assert!(Arc::ptr_eq(&first, &table.get(7).unwrap()));
        assert!(table.forget(7, 1).is_some());
        assert!(table.get(7).is_none() && table.is_empty());
        assert!(table.forget(7, 1).is_none());
    }
}
