//! A merged listing: the names that a directory shows, as they were at one moment.

use std::sync::OnceLock;

use crate::attr::Kind;
use crate::layer::LayerId;
use crate::name::Name;

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
}

/// The names of a directory, without `.` and `..`, in a fixed order.
#[derive(Debug)]
pub struct Listing {
    entries: Vec<ListEntry>,
    /// The places of the entries in the order of their names, made when a name is first looked for.
    sorted: OnceLock<Vec<u32>>,
}

impl Listing {
    /// A listing of these entries.
    pub fn new(entries: Vec<ListEntry>) -> Self {
        Self { entries, sorted: OnceLock::new() }
    }

    /// The entries from place `start` on.
    pub fn from(&self, start: usize) -> &[ListEntry] {
        self.entries.get(start..).unwrap_or_default()
    }

    /// The entry called `name`.
    pub fn find(&self, name: &[u8]) -> Option<&ListEntry> {
        let at = |place: &u32| self.entries.get(*place as usize);
        let sorted = self.sorted.get_or_init(|| {
            let mut places: Vec<u32> = (0..u32::try_from(self.entries.len()).unwrap_or(u32::MAX)).collect();
            places.sort_unstable_by_key(|place| at(place).map(|entry| entry.name.as_bytes()));
            places
        });
        let index = sorted.binary_search_by_key(&Some(name), |place| at(place).map(|e| e.name.as_bytes())).ok()?;
        sorted.get(index).and_then(at)
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

    #[test]
    fn entries_keep_their_order_and_are_found_by_name() {
        let entry =
            |name: &str| ListEntry { name: Name::new(name.as_bytes()).unwrap(), ino: 5, kind: Kind::File, lower: None };
        let listing = Listing::new(vec![entry("b"), entry("a"), entry("c")]);
        assert_eq!(listing.from(1)[0].name.as_bytes(), b"a");
        assert!(listing.from(4).is_empty());
        assert!(listing.find(b"c").is_some() && listing.find(b"a").is_some());
        assert!(listing.find(b"d").is_none() && listing.find(b"").is_none());
    }
}
