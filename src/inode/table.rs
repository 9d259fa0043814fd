//! The inodes that the kernel knows, by their number.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use super::Inode;

const SHARDS: usize = 16;

/// Every inode with a lookup count above zero.
///
/// A leaf among the locks: held for a moment, never across a syscall.
#[derive(Debug)]
pub struct Table {
    shards: [Mutex<HashMap<u64, Arc<Inode>>>; SHARDS],
}

impl Default for Table {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()) }
    }
}

impl Table {
    fn shard(&self, ino: u64) -> &Mutex<HashMap<u64, Arc<Inode>>> {
        let [first, ..] = &self.shards;
        self.shards.get(ino as usize % SHARDS).unwrap_or(first)
    }

    /// The inode `ino`, if the kernel knows it.
    pub fn get(&self, ino: u64) -> Option<Arc<Inode>> {
        self.shard(ino).lock().get(&ino).cloned()
    }

    /// Counts one lookup of `inode`, which becomes known, unless another of its number is: that one is returned.
    pub fn look_up(&self, inode: Arc<Inode>) -> Arc<Inode> {
        let mut shard = self.shard(inode.ino).lock();
        let known = shard.entry(inode.ino).or_insert(inode);
        // The lock orders this against `forget`.
        known.lookups.fetch_add(1, Ordering::Relaxed);
        Arc::clone(known)
    }

    /// Takes `count` lookups of `ino` back; at zero it is not known any more, and returned.
    pub fn forget(&self, ino: u64, count: u64) -> Option<Arc<Inode>> {
        let mut shard = self.shard(ino).lock();
        let inode = shard.get(&ino)?;
        let left = inode.lookups().saturating_sub(count);
        inode.lookups.store(left, Ordering::Relaxed);
        if left == 0 { shard.remove(&ino) } else { None }
    }

    /// How many inodes are known.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).fold(0, usize::saturating_add)
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
