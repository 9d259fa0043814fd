//! The bounded LRU metadata caches: attributes, names, merged listings, directory descriptors.
//!
//! All are leaves among the locks: held for a moment, never across a syscall. What they hold may be dropped at any time.

mod below;
mod bounded;
mod listings;

use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lru::LruCache;

use crate::attr::Attr;
use crate::config::CacheSizes;
use crate::lock::{Mutex, rank};
use crate::name::Name;

pub use self::below::{Below, NameSet};
pub use self::listings::Listings;

/// The caches of a mount.
#[derive(Debug)]
pub struct Caches {
    /// Attributes as shown, by inode number.
    pub attrs: Attrs,
    /// What directories hold under a name.
    pub names: Names,
    /// Listings, by the directory's inode number.
    pub listings: Listings,
    /// Which names lower directories hold, by the directory's id.
    pub below: Below,
    /// Open directories.
    pub dirs: Cache<DirKey, Arc<OwnedFd>>,
    /// Open files of a read-only mount, by inode number.
    pub files: Cache<u64, Arc<OwnedFd>>,
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
            attrs: Attrs::new(sizes.attrs),
            names: Names { names: Cache::new(sizes.missing), hasher: RandomState::new() },
            listings: Listings::new(sizes.listings),
            below: Below::new(sizes.listings),
            dirs: Cache::new(sizes.dirs),
            files: Cache::new(sizes.dirs),
        }
    }
}

impl Caches {
    /// Forgets all that is known of the tree, where it is not known what has changed.
    pub fn forget_tree(&self) {
        self.attrs.clear();
        self.names.clear();
        self.listings.clear();
    }
}

impl fmt::Display for Caches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "attributes {}, names {}, listings {}, directories {}",
            self.attrs.cache.counter, self.names.names.counter, self.listings.counter, self.dirs.counter
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

/// Attributes as shown, by inode number.
#[derive(Debug)]
pub struct Attrs {
    cache: Cache<u64, Attr>,
    /// How many changes there were.
    changes: AtomicU64,
    /// Which of them was the last, for parts of all inodes.
    last: [AtomicU64; Self::PARTS],
}

impl Attrs {
    const PARTS: usize = 64;

    fn new(size: usize) -> Self {
        let last = std::array::from_fn(|_| AtomicU64::new(0));
        Self { cache: Cache::new(size), changes: AtomicU64::new(0), last }
    }

    fn last(&self, ino: u64) -> &AtomicU64 {
        let [first, ..] = &self.last;
        self.last.get(ino as usize % Self::PARTS).unwrap_or(first)
    }

    /// What is known of the inode `ino`.
    pub fn get(&self, ino: u64) -> Option<Attr> {
        self.cache.get(&ino)
    }

    /// A time to be told to [`Attrs::put`].
    pub fn now(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }

    /// Keeps attributes whose reading began at `since`, unless they may have changed since then: none are kept then.
    pub fn put(&self, ino: u64, attr: Attr, since: u64) {
        let is_current = || self.last(ino).load(Ordering::SeqCst) <= since;
        if is_current() {
            self.cache.put(ino, attr);
        }
        if !is_current() {
            self.cache.remove(&ino);
        }
    }

    /// Notes that the inode `ino` has changed.
    pub fn remove(&self, ino: u64) {
        let change = self.changes.fetch_add(1, Ordering::SeqCst).wrapping_add(1);
        self.last(ino).fetch_max(change, Ordering::SeqCst);
        self.cache.remove(&ino);
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.cache.clear();
    }

    /// How many inodes something is known of.
    pub fn len(&self) -> usize {
        self.cache.len()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Hits and misses.
    pub fn counter(&self) -> &Counter {
        &self.cache.counter
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

    /// Forgets everything.
    pub fn clear(&self) {
        self.names.clear();
    }

    /// How many names something is known of.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
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

#[cfg(test)]
mod tests {
    use super::*;

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
    fn attributes_read_before_a_change_are_not_kept() {
        let attrs = Attrs::new(10);
        let root = std::fs::File::open("/").unwrap();
        let attr = crate::at::At::fd(&root).attr().unwrap();
        let since = attrs.now();
        attrs.remove(7);
        attrs.put(7, attr, since);
        assert_eq!(attrs.get(7), None);
        attrs.put(7, attr, attrs.now());
        assert_eq!(attrs.get(7), Some(attr));
        // Of the same part.
        let since = attrs.now();
        attrs.remove(7 + Attrs::PARTS as u64);
        attrs.put(7, Attr { size: 1, ..attr }, since);
        assert_eq!(attrs.get(7), None, "nor those that were known before");
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
}
