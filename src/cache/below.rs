//! Which names lower directories hold, as far as it takes to know which they do not.

use std::sync::Arc;

use crate::listing::place_of;
use crate::lock::{Mutex, rank};

use super::bounded::{Bounded, Names};

/// The names in lower directories, bounded by their number in all.
#[derive(Debug)]
pub struct Below(Mutex<Bounded<NameSet>, { rank::LEAF }>);

impl Below {
    /// Nothing is known; up to `limit` names will be.
    pub fn new(limit: usize) -> Self {
        Self(Mutex::new(Bounded::new(limit, 0)))
    }

    /// The names in the lower directory with this id.
    pub fn get(&self, dir: u64) -> Option<Arc<NameSet>> {
        self.0.lock().get(dir)
    }

    /// Keeps the names in a lower directory.
    pub fn put(&self, dir: u64, names: Arc<NameSet>) {
        let dropped = self.0.lock().put(dir, names);
        drop(dropped);
    }

    /// How many names are known in all.
    pub fn names(&self) -> usize {
        self.0.lock().names()
    }
}

/// A set of names. What is not in it is not there; what is may be another name of the same hash.
#[derive(Debug)]
pub struct NameSet(Box<[u64]>);

impl NameSet {
    /// The set of the names with these hashes.
    pub fn new(mut hashes: Vec<u64>) -> Self {
        hashes.sort_unstable();
        Self(hashes.into())
    }

    /// The hash of a name.
    pub fn hash(name: &[u8]) -> u64 {
        place_of(name)
    }

    /// Whether it may hold `name`.
    pub fn may_hold(&self, name: &[u8]) -> bool {
        self.0.binary_search(&Self::hash(name)).is_ok()
    }
}

impl Names for NameSet {
    fn names(&self) -> usize {
        self.0.len().max(1)
    }
}
