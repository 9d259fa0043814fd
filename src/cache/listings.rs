//! Merged listings: those that hold, and those that somebody is in the middle of.

use std::sync::Arc;

use crate::listing::Listing;
use crate::lock::{Mutex, rank};

use super::Counter;
use super::bounded::{Bounded, Names};

/// Merged listings, bounded by the names in all of them.
#[derive(Debug)]
pub struct Listings {
    inner: Mutex<Inner, { rank::LEAF }>,
    /// Hits and misses.
    pub counter: Counter,
}

#[derive(Debug)]
struct Inner {
    /// What directories hold, by inode number.
    current: Bounded<Listing>,
    /// What directories held when somebody began to list them, who goes on with that.
    begun: Bounded<Listing>,
    /// How many changes there were to directories.
    changes: u64,
    /// Which of them was the last, for parts of all directories.
    last: [u64; PARTS],
}

const PARTS: usize = 64;

impl Listings {
    /// Nothing is known; listings of up to `limit` names will be.
    pub fn new(limit: usize) -> Self {
        let inner = Inner {
            current: Bounded::new(limit, 0),
            // Whoever lists a directory that is too long to be kept is not to begin anew with each part of it.
            begun: Bounded::new(limit, 2),
            changes: 0,
            last: [0; PARTS],
        };
        Self { inner: Mutex::new(inner), counter: Counter::default() }
    }

    /// The listing of `dir`.
    pub fn get(&self, dir: u64) -> Option<Arc<Listing>> {
        self.counter.count(self.inner.lock().current.get(dir))
    }

    /// The listing of `dir`, for a lookup: a miss is not counted.
    pub fn peek(&self, dir: u64) -> Option<Arc<Listing>> {
        self.inner.lock().current.get(dir)
    }

    /// A time to be told to [`Listings::put`].
    pub fn now(&self) -> u64 {
        self.inner.lock().changes
    }

    /// Keeps a listing whose making began at `since`, unless the directory may have changed since then.
    pub fn put(&self, dir: u64, listing: Arc<Listing>, since: u64) {
        let mut inner = self.inner.lock();
        let dropped = if inner.last(dir).is_some_and(|last| *last <= since) {
            inner.current.put(dir, listing)
        } else {
            Vec::new()
        };
        drop(inner);
        drop(dropped);
    }

    /// Notes that `dir` has changed.
    pub fn remove(&self, dir: u64) {
        let mut inner = self.inner.lock();
        inner.changes = inner.changes.saturating_add(1);
        let change = inner.changes;
        if let Some(last) = inner.last(dir) {
            *last = change;
        }
        let removed = inner.current.remove(dir);
        drop(inner);
        drop(removed);
    }

    /// Notes that any directory may have changed.
    pub fn clear(&self) {
        let mut inner = self.inner.lock();
        inner.changes = inner.changes.saturating_add(1);
        inner.last = [inner.changes; PARTS];
        let removed = inner.current.clear();
        drop(inner);
        drop(removed);
    }

    /// Notes that somebody lists `dir` from its beginning on, and is told this.
    pub fn begin(&self, dir: u64, listing: Arc<Listing>) {
        let dropped = self.inner.lock().begun.put(dir, listing);
        drop(dropped);
    }

    /// What somebody goes on with who has begun to list `dir`, unless others have begun too many since.
    pub fn begun(&self, dir: u64) -> Option<Arc<Listing>> {
        self.inner.lock().begun.get(dir)
    }

    /// Notes that somebody has come to the end of `dir`.
    pub fn end(&self, dir: u64) {
        let removed = self.inner.lock().begun.remove(dir);
        drop(removed);
    }

    /// How many names all listings hold that are kept.
    pub fn names(&self) -> usize {
        self.inner.lock().current.names()
    }
}

impl Names for Listing {
    fn names(&self) -> usize {
        self.len().max(1)
    }
}

impl Inner {
    fn last(&mut self, dir: u64) -> Option<&mut u64> {
        self.last.get_mut(dir as usize % PARTS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::Kind;
    use crate::listing::ListEntry;
    use crate::name::Name;

    fn listing(names: usize) -> Arc<Listing> {
        let entry =
            |index: usize| ListEntry::new(Name::new(format!("n{index}").as_bytes()).unwrap(), 2, Kind::File, None);
        Arc::new(Listing::new((0..names).map(entry).collect()))
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
    fn a_listing_made_while_its_directory_changed_is_not_kept() {
        let listings = Listings::new(10);
        let since = listings.now();
        listings.remove(5);
        listings.put(5, listing(1), since);
        listings.put(6, listing(1), since);
        assert!(listings.get(5).is_none() && listings.get(6).is_some());
    }

    #[test]
    fn who_has_begun_goes_on_with_what_there_was() {
        let listings = Listings::new(10);
        for dir in 0..3 {
            listings.begin(dir, listing(20));
            listings.remove(dir);
        }
        assert!(listings.begun(0).is_none(), "too many too long ones");
        assert_eq!(listings.begun(2).map(|listing| listing.len()), Some(20));
        listings.end(2);
        assert!(listings.begun(2).is_none() && listings.begun(1).is_some());
    }
}
