//! A merged listing: the names that a directory shows, as they were at one moment.

use std::hash::{DefaultHasher, Hasher};

use crate::attr::Kind;
use crate::layer::LayerId;
use crate::name::Name;

/// The first place of an entry: those before it are for `.` and `..`.
pub const FIRST_PLACE: u64 = 3;

/// A name in a listing.
#[derive(Debug, Clone)]
pub struct ListEntry {
    /// The name.
    pub name: Name,
    /// The inode number shown.
    pub ino: u64,
    /// The file type.
    pub kind: Kind,
    /// The lower layer that it comes from; `None` for the upper.
    pub lower: Option<LayerId>,
    /// Its place among all names that there could be: the same in every listing, whatever else is made or removed, so that
    /// whoever stopped here can go on with another listing of the directory.
    pub place: u64,
}

impl ListEntry {
    /// An entry.
    pub fn new(name: Name, ino: u64, kind: Kind, lower: Option<LayerId>) -> Self {
        let place = place_of(name.as_bytes());
        Self { name, ino, kind, lower, place }
    }
}

/// Where a name stands, by its hash: two names at one place are as good as never.
pub(crate) fn place_of(name: &[u8]) -> u64 {
    // Without random keys: layers are listed in the same order by every mount.
    let mut hasher = DefaultHasher::new();
    hasher.write(name);
    // Positive for programs that take it for a signed number.
    (hasher.finish() >> 2).saturating_add(FIRST_PLACE)
}

/// The names of a directory, without `.` and `..`, in the order of their places.
#[derive(Debug)]
pub struct Listing {
    entries: Vec<ListEntry>,
}

impl Listing {
    /// A listing of these entries.
    pub fn new(mut entries: Vec<ListEntry>) -> Self {
        entries.sort_unstable_by(|a, b| (a.place, a.name.as_bytes()).cmp(&(b.place, b.name.as_bytes())));
        let mut free = FIRST_PLACE;
        for entry in &mut entries {
            entry.place = entry.place.max(free);
            free = entry.place.saturating_add(1);
        }
        Self { entries }
    }

    /// The entries behind a place.
    pub fn after(&self, place: u64) -> &[ListEntry] {
        let start = self.entries.partition_point(|entry| entry.place <= place);
        self.entries.get(start..).unwrap_or_default()
    }

    /// The entry called `name`.
    pub fn find(&self, name: &[u8]) -> Option<&ListEntry> {
        // Those that have been moved on for want of a place come right behind it.
        let place = place_of(name);
        let candidates = self.after(place.saturating_sub(1)).iter().enumerate();
        let mut candidates = candidates.take_while(|(index, entry)| entry.place == place.saturating_add(*index as u64));
        candidates.find(|(_, entry)| entry.name.as_bytes() == name).map(|(_, entry)| entry)
    }

    /// How many names there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str) -> ListEntry {
        ListEntry::new(Name::new(name.as_bytes()).unwrap(), 5, Kind::File, None)
    }

    #[test]
    fn entries_have_the_same_place_in_every_listing_and_are_found_by_name() {
        let all = Listing::new(vec![entry("b"), entry("a"), entry("c")]);
        assert_eq!(all.after(0).len(), 3);
        for found in all.after(0) {
            let rest = Listing::new(all.after(0).iter().filter(|e| e.name != found.name).cloned().collect());
            assert!(rest.after(found.place).iter().map(|e| &e.name).eq(all.after(found.place).iter().map(|e| &e.name)));
            assert!(rest.find(found.name.as_bytes()).is_none() && all.find(found.name.as_bytes()).is_some());
        }
        assert!(all.find(b"d").is_none() && all.find(b"").is_none());
        assert!(all.after(u64::MAX).is_empty());
    }

    #[test]
    fn names_at_one_place_are_told_apart() {
        let at = |name: &str, place| ListEntry { place, ..entry(name) };
        let place = place_of(b"b");
        let listing = Listing::new(vec![at("x", place), at("b", place), at("a", place - 1), at("c", place)]);
        let places: Vec<u64> = listing.after(0).iter().map(|entry| entry.place).collect();
        assert_eq!(places, [place - 1, place, place + 1, place + 2]);
        assert_eq!(listing.find(b"b").unwrap().place, place);
    }
}
