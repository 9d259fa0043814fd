//! Whose files are to whom: ids of the layers shifted to those that the mount shows, and back.
//!
//! A map is written as containers/storage writes it, `STORED:SHOWN:COUNT` again and again with colons between. What it does not
//! name shows as the overflow id and can be given to nobody, as on mounts with shifted ids (`mount_setattr(2)`). Who is not named
//! makes files of the overflow id, where such mounts have `EOVERFLOW`.

use crate::acl;
use crate::attr::Attr;
use crate::error::Errno;
use crate::override_stat::CAPABILITY;

/// The kernel's overflow id unless its settings say otherwise.
const OVERFLOW: u32 = 65_534;
/// `struct vfs_ns_cap_data` (linux/capability.h): the second revision, and the third, which ends with a user id.
const REVISION_2: u8 = 2;
const REVISION_3: u8 = 3;
const REVISION_2_SIZE: usize = 20;

/// So many ids from `stored` on, shown from `shown` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    stored: u32,
    shown: u32,
    count: u32,
}

/// How ids of one kind are shifted; without ranges, not at all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Map(Vec<Range>);

impl Map {
    /// Reads a map. Empty fields count for nothing, as at the beginning.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &[u8]) -> Result<Self, &'static str> {
        const SHAPE: &str = "not numbers in threes with colons between (STORED:SHOWN:COUNT)";
        let fields = text.split(|byte| *byte == b':').filter(|field| !field.is_empty());
        let number = |field: &[u8]| {
            let digits = str::from_utf8(field).ok().filter(|field| field.bytes().all(|byte| byte.is_ascii_digit()));
            digits.and_then(|digits| digits.parse().ok()).ok_or(SHAPE)
        };
        let numbers = fields.map(number).collect::<Result<Vec<u32>, _>>()?;
        let (triples, []) = numbers.as_chunks::<3>() else { return Err(SHAPE) };
        let mut ranges: Vec<Range> = Vec::new();
        for &[stored, shown, count] in triples {
            let range = Range { stored, shown, count };
            // The largest number is no id.
            let is_whole = |start: u32| start.checked_add(count).is_some();
            if count == 0 || !is_whole(stored) || !is_whole(shown) {
                return Err("names more ids than there are, or none");
            }
            if ranges.iter().any(|other| range.overlaps(other)) {
                return Err("names an id twice");
            }
            ranges.push(range);
        }
        if ranges.is_empty() { Err(SHAPE) } else { Ok(Self(ranges)) }
    }

    /// Whether ids are not shifted at all.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is shown for an id of a layer.
    pub fn shown(&self, id: u32) -> Option<u32> {
        if self.is_empty() {
            return Some(id);
        }
        self.0.iter().find_map(|range| shift(id, range.stored, range.shown, range.count))
    }

    /// The id of a layer that is shown as this one.
    pub fn stored(&self, id: u32) -> Option<u32> {
        if self.is_empty() {
            return Some(id);
        }
        self.0.iter().find_map(|range| shift(id, range.shown, range.stored, range.count))
    }
}

impl Range {
    fn overlaps(&self, other: &Self) -> bool {
        let meet = |a: u32, b: u32| {
            u64::from(a) < u64::from(b).saturating_add(other.count.into())
                && u64::from(b) < u64::from(a).saturating_add(self.count.into())
        };
        meet(self.stored, other.stored) || meet(self.shown, other.shown)
    }
}

fn shift(id: u32, from: u32, to: u32, count: u32) -> Option<u32> {
    let offset = id.checked_sub(from).filter(|offset| *offset < count)?;
    to.checked_add(offset)
}

/// Which owners a mount shows, and what it stores for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ids {
    uids: Map,
    gids: Map,
    squash: (Option<u32>, Option<u32>),
    overflow: (u32, u32),
}

impl Ids {
    /// Those of two maps, and of one owner and group for all files, which count for more.
    pub fn new(uids: Map, gids: Map, squash: (Option<u32>, Option<u32>)) -> Self {
        let setting = |map: &Map, path: &str| {
            let text = if map.is_empty() { None } else { std::fs::read_to_string(path).ok() };
            text.and_then(|text| text.trim().parse().ok()).unwrap_or(OVERFLOW)
        };
        let overflow = (setting(&uids, "/proc/sys/kernel/overflowuid"), setting(&gids, "/proc/sys/kernel/overflowgid"));
        Self { uids, gids, squash, overflow }
    }

    /// Puts the ids that are shown in place of a layer's.
    pub fn show(&self, attr: &mut Attr) {
        attr.uid = self.squash.0.or_else(|| self.uids.shown(attr.uid)).unwrap_or(self.overflow.0);
        attr.gid = self.squash.1.or_else(|| self.gids.shown(attr.gid)).unwrap_or(self.overflow.1);
    }

    /// What is stored for a user; `None` for one that no file can belong to.
    pub fn stored_uid(&self, uid: u32) -> Option<u32> {
        self.squash.0.or_else(|| self.uids.stored(uid))
    }

    /// What is stored for a group; `None` for one that no file can belong to.
    pub fn stored_gid(&self, gid: u32) -> Option<u32> {
        self.squash.1.or_else(|| self.gids.stored(gid))
    }

    /// Whose a file is that this caller makes, as it is stored: nobody's where he is not mapped. Engines make files so in a tree
    /// with shifted ids before they give them away.
    pub fn maker(&self, uid: u32, gid: u32) -> (u32, u32) {
        (self.stored_uid(uid).unwrap_or(self.overflow.0), self.stored_gid(gid).unwrap_or(self.overflow.1))
    }

    /// What is shown for the value of an attribute.
    ///
    /// # Errors
    /// `ENODATA` for capabilities of a namespace that has no part in the mount.
    pub fn show_xattr(&self, name: &[u8], value: Vec<u8>) -> Result<Vec<u8>, Errno> {
        if self.uids.is_empty() && self.gids.is_empty() {
            return Ok(value);
        }
        if acl::is_acl(name) {
            let uid = |uid| Some(self.uids.shown(uid).unwrap_or(self.overflow.0));
            let gid = |gid| Some(self.gids.shown(gid).unwrap_or(self.overflow.1));
            return Ok(acl::map_ids(&value, uid, gid).unwrap_or(value));
        }
        if name == CAPABILITY {
            return with_root(value, true, |root| self.uids.shown(root)).ok_or(Errno::NODATA);
        }
        Ok(value)
    }

    /// What is stored for a value that an attribute is given.
    ///
    /// # Errors
    /// `EINVAL` where it names somebody who has no part in the mount.
    pub fn store_xattr(&self, name: &[u8], value: &[u8]) -> Result<Vec<u8>, Errno> {
        let value = value.to_vec();
        if self.uids.is_empty() && self.gids.is_empty() {
            return Ok(value);
        }
        if acl::is_acl(name) {
            return acl::map_ids(&value, |uid| self.uids.stored(uid), |gid| self.gids.stored(gid)).ok_or(Errno::INVAL);
        }
        if name == CAPABILITY {
            return with_root(value, false, |root| self.uids.stored(root)).ok_or(Errno::INVAL);
        }
        Ok(value)
    }
}

/// Capabilities that count in the user namespaces of `map(root)` instead of those of root, by which their third revision
/// ends. The second stands for root 0, and is used for it; it is left as it is unless `all` are to be mapped.
fn with_root(mut value: Vec<u8>, all: bool, map: impl Fn(u32) -> Option<u32>) -> Option<Vec<u8>> {
    let root = match (value.get(3), value.as_slice()) {
        (Some(&REVISION_3), [.., a, b, c, d]) if value.len() == REVISION_2_SIZE.saturating_add(4) => {
            u32::from_le_bytes([*a, *b, *c, *d])
        }
        (Some(&REVISION_2), _) if all && value.len() == REVISION_2_SIZE => 0,
        _ => return Some(value),
    };
    let root = map(root)?;
    value.truncate(REVISION_2_SIZE);
    if root != 0 {
        value.extend(root.to_le_bytes());
    }
    if let Some(revision) = value.get_mut(3) {
        *revision = if root == 0 { REVISION_2 } else { REVISION_3 };
    }
    Some(value)
}

#[cfg(test)]
mod tests;
