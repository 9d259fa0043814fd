//! The bounded LRU metadata caches: attributes, names, merged listings, directory descriptors.
//!
//! All are leaves among the locks: held for a moment, never across a syscall. What they hold may be dropped at any time.

use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lru::LruCache;

use crate::attr::Attr;
use crate::config::CacheSizes;
use crate::listing::Listing;
use crate::lock::{Mutex, rank};
use crate::name::Name;

/// The caches of a mount.
#[derive(Debug)]
pub struct Caches {
    /// Attributes as shown, by inode number.
    pub attrs: Cache<u64, Attr>,
    /// What directories hold under a name.
    pub names: Names,
    /// Listings, by the directory's inode number.
    pub listings: Listings,
    /// Open directories.
    pub dirs: Cache<DirKey, Arc<OwnedFd>>,
}

/// A directory of one layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DirKey {
    /// The upper part of the directory with this inode number.
    Upper(u64),
    /// The lower directory with this id.
    Lower(u64),
}

impl Caches {
    /// Empty caches of these sizes.
    pub fn new(sizes: &CacheSizes) -> Self {
        Self {
            attrs: Cache::new(sizes.attrs),
            names: Names { names: Cache::new(sizes.missing), hasher: RandomState::new() },
            listings: Listings::new(sizes.listings),
            dirs: Cache::new(sizes.dirs),
        }
    }
}

impl fmt::Display for Caches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "attributes {}, names {}, listings {}, directories {}",
            self.attrs.counter, self.names.names.counter, self.listings.counter, self.dirs.counter
        )
    }
}

/// How often a cache had what was asked for.
#[derive(Debug, Default)]
pub struct Counter {
    hits: AtomicU64,
    misses: AtomicU64,
}

impl Counter {
    /// Questions answered from the cache.
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    /// Questions that it could not answer.
    pub fn misses(&self) -> u64 {
        self.misses.load(Ordering::Relaxed)
    }

    fn count<T>(&self, found: Option<T>) -> Option<T> {
        let counter = if found.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        found
    }
}

impl fmt::Display for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} hits {} misses", self.hits(), self.misses())
    }
}

/// A map that forgets what was not asked for the longest.
#[derive(Debug)]
pub struct Cache<K: Eq + Hash, V> {
    map: Mutex<LruCache<K, V>, { rank::LEAF }>,
    /// Hits and misses.
    pub counter: Counter,
}

impl<K: Eq + Hash, V: Clone> Cache<K, V> {
    /// An empty cache for `size` entries, at least one.
    pub fn new(size: usize) -> Self {
        let size = NonZeroUsize::new(size).unwrap_or(NonZeroUsize::MIN);
        Self { map: Mutex::new(LruCache::new(size)), counter: Counter::default() }
    }

    /// What is known of `key`.
    pub fn get(&self, key: &K) -> Option<V> {
        self.counter.count(self.map.lock().get(key).cloned())
    }

    /// Remembers `value`.
    pub fn put(&self, key: K, value: V) {
        // What falls out is dropped after the lock: it may be a descriptor to close.
        let evicted = self.map.lock().push(key, value);
        drop(evicted);
    }

    /// Forgets `key`.
    pub fn remove(&self, key: &K) {
        let removed = self.map.lock().pop(key);
        drop(removed);
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.map.lock().clear();
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.map.lock().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What a directory holds under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// Nothing.
    Missing,
    /// The inode with this number.
    Inode(u64),
}

/// What directories hold under a name, for names that were asked for.
#[derive(Debug)]
pub struct Names {
    /// By a hash of directory and name; the whole of both is compared.
    names: Cache<u64, (u64, Name, Known)>,
    hasher: RandomState,
}

impl Names {
    fn key(&self, dir: u64, name: &[u8]) -> u64 {
        self.hasher.hash_one((dir, name))
    }

    /// What the directory `dir` holds under `name`, if that is known.
    pub fn get(&self, dir: u64, name: &[u8]) -> Option<Known> {
        let found = self.names.map.lock().get(&self.key(dir, name)).and_then(|(known_dir, known_name, known)| {
            (*known_dir == dir && known_name.as_bytes() == name).then_some(*known)
        });
        self.names.counter.count(found)
    }

    /// Remembers what `dir` holds under `name`.
    pub fn put(&self, dir: u64, name: &Name, known: Known) {
        self.names.put(self.key(dir, name.as_bytes()), (dir, name.clone(), known));
    }

    /// Forgets `name` in `dir`.
    pub fn remove(&self, dir: u64, name: &[u8]) {
        self.names.remove(&self.key(dir, name));
    }

    /// Hits and misses.
    pub fn counter(&self) -> &Counter {
        &self.names.counter
    }
}

/// Merged listings, bounded by the names in all of them.
#[derive(Debug)]
pub struct Listings {
    inner: Mutex<ListingsInner, { rank::LEAF }>,
    limit: usize,
    /// Hits and misses.
    pub counter: Counter,
}

#[derive(Debug)]
struct ListingsInner {
    map: LruCache<u64, Arc<Listing>>,
    names: usize,
    /// Counts changes to any directory, so that a listing made meanwhile is not kept.
    changes: u64,
}

impl Listings {
    fn new(limit: usize) -> Self {
        let inner = ListingsInner { map: LruCache::unbounded(), names: 0, changes: 0 };
        Self { inner: Mutex::new(inner), limit, counter: Counter::default() }
    }

    /// The listing of `dir`.
    pub fn get(&self, dir: u64) -> Option<Arc<Listing>> {
        self.counter.count(self.inner.lock().map.get(&dir).cloned())
    }

    /// The listing of `dir`, for a lookup: a miss is not counted.
    pub fn peek(&self, dir: u64) -> Option<Arc<Listing>> {
        self.inner.lock().map.get(&dir).cloned()
    }

    /// A time to be told to [`Listings::put`].
    pub fn now(&self) -> u64 {
        self.inner.lock().changes
    }

    /// Keeps a listing whose making began at `since`, unless a directory has changed since then.
    pub fn put(&self, dir: u64, listing: Arc<Listing>, since: u64) {
        let mut dropped = Vec::new();
        let mut inner = self.inner.lock();
        if inner.changes != since || listing.len() > self.limit {
            return;
        }
        inner.names = inner.names.saturating_add(listing.len());
        if let Some((_, old)) = inner.map.push(dir, listing) {
            inner.names = inner.names.saturating_sub(old.len());
            dropped.push(old);
        }
        while inner.names > self.limit {
            let Some((_, old)) = inner.map.pop_lru() else { break };
            inner.names = inner.names.saturating_sub(old.len());
            dropped.push(old);
        }
        drop(inner);
        drop(dropped);
    }

    /// Notes that `dir` has changed.
    pub fn remove(&self, dir: u64) {
        let mut inner = self.inner.lock();
        inner.changes = inner.changes.wrapping_add(1);
        let removed = inner.map.pop(&dir);
        if let Some(removed) = &removed {
            inner.names = inner.names.saturating_sub(removed.len());
        }
        drop(inner);
        drop(removed);
    }

    /// How many names all listings hold.
    pub fn names(&self) -> usize {
        self.inner.lock().names
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::Kind;
    use crate::listing::ListEntry;

    fn listing(names: usize) -> Arc<Listing> {
        let entry = |index: usize| ListEntry {
            name: Name::new(format!("n{index}").as_bytes()).unwrap(),
            ino: 2,
            kind: Kind::File,
            lower: None,
        };
        Arc::new(Listing::new((0..names).map(entry).collect()))
    }

    #[test]
    fn a_cache_is_bounded_and_counts() {
        let cache = Cache::new(2);
        for key in 0..3 {
            cache.put(key, key);
        }
        assert_eq!((cache.get(&0), cache.get(&1), cache.get(&2)), (None, Some(1), Some(2)));
        assert_eq!((cache.counter.hits(), cache.counter.misses(), cache.len()), (2, 1, 2));
        cache.remove(&1);
        assert_eq!(cache.get(&1), None);
    }

    #[test]
    fn names_are_told_apart_by_directory() {
        let caches = Caches::new(&CacheSizes::default());
        let name = Name::new(b"x").unwrap();
        caches.names.put(1, &name, Known::Missing);
        caches.names.put(2, &name, Known::Inode(9));
        assert_eq!(caches.names.get(1, b"x"), Some(Known::Missing));
        assert_eq!(caches.names.get(2, b"x"), Some(Known::Inode(9)));
        assert_eq!(caches.names.get(2, b"y"), None);
        caches.names.remove(2, b"x");
        assert_eq!(caches.names.get(2, b"x"), None);
    }

    #[test]
    fn listings_are_bounded_by_their_names() {
        let listings = Listings::new(10);
        for dir in 0..4 {
            listings.put(dir, listing(4), listings.now());
        }
        assert_eq!(listings.names(), 8);
        assert!(listings.get(0).is_none() && listings.get(3).is_some());
        listings.put(9, listing(11), listings.now());
        assert!(listings.get(9).is_none(), "too long to keep");
    }

    #[test]
    fn a_listing_made_while_something_changed_is_not_kept() {
        let listings = Listings::new(10);
        let since = listings.now();
        listings.remove(5);
        listings.put(5, listing(1), since);
        assert!(listings.get(5).is_none());
    }
}
