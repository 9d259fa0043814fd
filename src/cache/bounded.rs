//! What is known of directories, bounded by the names in all of them.

use std::sync::Arc;

use lru::LruCache;

/// What holds so many names, at least one: who holds none is to be bounded too.
pub(super) trait Names {
    fn names(&self) -> usize;
}

/// Values that hold no more than so many names together, but for the `least` that were asked for last.
#[derive(Debug)]
pub(super) struct Bounded<V> {
    map: LruCache<u64, Arc<V>>,
    names: usize,
    limit: usize,
    least: usize,
}

impl<V: Names> Bounded<V> {
    pub(super) fn new(limit: usize, least: usize) -> Self {
        Self { map: LruCache::unbounded(), names: 0, limit, least }
    }

    /// How many names there are in all.
    pub(super) fn names(&self) -> usize {
        self.names
    }

    pub(super) fn get(&mut self, dir: u64) -> Option<Arc<V>> {
        self.map.get(&dir).cloned()
    }

    /// Returns what goes for it, to be dropped without the lock.
    pub(super) fn put(&mut self, dir: u64, value: Arc<V>) -> Vec<Arc<V>> {
        let mut dropped = Vec::new();
        if value.names() > self.limit && self.least == 0 {
            return dropped;
        }
        self.names = self.names.saturating_add(value.names());
        if let Some((_, old)) = self.map.push(dir, value) {
            self.names = self.names.saturating_sub(old.names());
            dropped.push(old);
        }
        while self.names > self.limit && self.map.len() > self.least {
            let Some((_, old)) = self.map.pop_lru() else { break };
            self.names = self.names.saturating_sub(old.names());
            dropped.push(old);
        }
        dropped
    }

    /// Returns what was known, to be dropped without the lock.
    pub(super) fn clear(&mut self) -> Vec<Arc<V>> {
        self.names = 0;
        std::iter::from_fn(|| self.map.pop_lru()).map(|(_, value)| value).collect()
    }

    pub(super) fn remove(&mut self, dir: u64) -> Option<Arc<V>> {
        let removed = self.map.pop(&dir)?;
        self.names = self.names.saturating_sub(removed.names());
        Some(removed)
    }
}
