//! POSIX ACLs as extended attributes hold them, and how a new file inherits its directory's default ACL.
//!
//! Filesystems do this themselves for what is made in its place; it is needed for what is made in the work directory.
//! The rule is that of POSIX 1003.1e draft 17, 23.1.5.1.

/// The attribute of a file's own ACL.
pub const ACCESS: &[u8] = b"system.posix_acl_access";
/// The attribute of the ACL that new files in a directory get.
pub const DEFAULT: &[u8] = b"system.posix_acl_default";

/// Whether `name` is that of an ACL.
pub fn is_acl(name: &[u8]) -> bool {
    name == ACCESS || name == DEFAULT
}

const VERSION: [u8; 4] = 2_u32.to_le_bytes();
const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// What a new file gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inherited {
    /// Its permission bits, file type not included.
    pub mode: u32,
    /// The value of its access ACL, unless the mode says it all.
    pub access: Option<Vec<u8>>,
    /// The value of its default ACL, for directories.
    pub default: Option<Vec<u8>>,
}

/// What a file made with `mode` under `umask` gets in a directory whose default ACL is `parent`.
///
/// An ACL that cannot be read is taken for none: the filesystem does not store such.
pub fn inherit(parent: Option<&[u8]>, mode: u32, umask: u32, is_dir: bool) -> Inherited {
    match parent.and_then(|acl| Some((acl, mask_entries(acl, mode)?))) {
        None => Inherited { mode: mode & !umask, access: None, default: None },
        Some((acl, (masked, mode, minimal))) => {
            Inherited { mode, access: (!minimal).then_some(masked), default: is_dir.then(|| acl.to_vec()) }
        }
    }
}

/// The mode of a file with mode `mode` that is given the access ACL `acl`, and whether the three classes of the mode say it
/// all; `None` for what is no ACL.
pub fn mode_with(acl: &[u8], mode: u32) -> Option<(u32, bool)> {
    let (_, given, minimal) = mask_entries(acl, 0o777)?;
    Some((mode & !0o777 | given & 0o777, minimal))
}

/// What becomes of an access ACL when the mode is set to `mode`; `None` for what is no ACL.
pub fn with_mode(acl: &[u8], mode: u32) -> Option<Vec<u8>> {
    let (full, ..) = mask_entries(acl, 0o777)?;
    let entries = full.strip_prefix(&VERSION)?;
    let (entries, _) = entries.as_chunks::<8>();
    let has_mask = entries.iter().any(|entry| tag(entry) == MASK);
    let mut result = VERSION.to_vec();
    for entry in entries {
        let [tag_low, tag_high, perm_low, perm_high, id @ ..] = *entry;
        let bits = shift(tag(entry), has_mask).map(|shift| ((mode >> shift) as u16 & 0o7).to_le_bytes());
        let [perm_low, perm_high] = bits.unwrap_or([perm_low, perm_high]);
        result.extend_from_slice(&[tag_low, tag_high, perm_low, perm_high]);
        result.extend_from_slice(&id);
    }
    Some(result)
}

/// The ACL with other users and groups; `None` for what is no ACL, or names one that there is not.
pub fn map_ids(acl: &[u8], uid: impl Fn(u32) -> Option<u32>, gid: impl Fn(u32) -> Option<u32>) -> Option<Vec<u8>> {
    let (entries, []) = acl.strip_prefix(&VERSION)?.as_chunks::<8>() else { return None };
    let mut result = VERSION.to_vec();
    for entry in entries {
        let [tag_low, tag_high, perm_low, perm_high, id @ ..] = *entry;
        let id = match tag(entry) {
            USER => uid(u32::from_le_bytes(id))?.to_le_bytes(),
            GROUP => gid(u32::from_le_bytes(id))?.to_le_bytes(),
            _ => id,
        };
        result.extend_from_slice(&[tag_low, tag_high, perm_low, perm_high]);
        result.extend_from_slice(&id);
    }
    Some(result)
}

/// Where the permissions of an entry are in the mode. Where there is a mask, the group class of the mode is the mask, and the
/// owning group's entry is left alone.
const fn shift(tag: u16, has_mask: bool) -> Option<u32> {
    match tag {
        USER_OBJ => Some(6),
        GROUP_OBJ if !has_mask => Some(3),
        MASK => Some(3),
        OTHER => Some(0),
        _ => None,
    }
}

/// Takes from a default ACL what `mode` does not grant: the new access ACL, the new mode, and whether the three classes
/// of the mode say it all.
fn mask_entries(acl: &[u8], mode: u32) -> Option<(Vec<u8>, u32, bool)> {
    let entries = acl.strip_prefix(&VERSION)?;
    let (entries, []) = entries.as_chunks::<8>() else { return None };
    let has_mask = entries.iter().any(|entry| tag(entry) == MASK);
    let mut result = VERSION.to_vec();
    let mut new_mode = mode & !0o777;
    let mut minimal = true;
    for entry in entries {
        let shift = shift(tag(entry), has_mask);
        minimal &= matches!(tag(entry), USER_OBJ | GROUP_OBJ | OTHER);
        let [tag_low, tag_high, perm_low, perm_high, id @ ..] = *entry;
        let mut perm = u16::from_le_bytes([perm_low, perm_high]);
        if let Some(shift) = shift {
            perm &= (mode >> shift) as u16 & 0o7;
            new_mode |= u32::from(perm) << shift;
        }
        let [perm_low, perm_high] = perm.to_le_bytes();
        result.extend_from_slice(&[tag_low, tag_high, perm_low, perm_high]);
        result.extend_from_slice(&id);
    }
    Some((result, new_mode, minimal))
}

fn tag(entry: &[u8; 8]) -> u16 {
    let [low, high, ..] = *entry;
    u16::from_le_bytes([low, high])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut bytes = VERSION.to_vec();
        for (tag, perm, id) in entries {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(perm.to_le_bytes());
            bytes.extend(id.to_le_bytes());
        }
        bytes
    }

    const NOBODY: u32 = u32::MAX;

    #[test]
    fn without_a_default_acl_the_umask_counts() {
        assert_eq!(inherit(None, 0o666, 0o027, false), Inherited { mode: 0o640, access: None, default: None });
        let garbage = inherit(Some(b"\x02\0\0\0abc"), 0o4777, 0o022, true);
        assert_eq!(garbage, Inherited { mode: 0o4755, access: None, default: None });
    }

    #[test]
    fn a_minimal_default_acl_replaces_the_umask() {
        let parent = acl(&[(USER_OBJ, 7, NOBODY), (GROUP_OBJ, 5, NOBODY), (OTHER, 0, NOBODY)]);
        let file = inherit(Some(&parent), 0o666, 0o777, false);
        assert_eq!(file, Inherited { mode: 0o640, access: None, default: None });
        let dir = inherit(Some(&parent), 0o1777, 0o777, true);
        assert_eq!(dir, Inherited { mode: 0o1750, access: None, default: Some(parent) });
    }

    #[test]
    fn with_a_mask_the_group_class_of_the_mode_is_the_mask() {
        let parent = acl(&[
            (USER_OBJ, 7, NOBODY),
            (USER, 7, 1000),
            (GROUP_OBJ, 5, NOBODY),
            (MASK, 7, NOBODY),
            (OTHER, 5, NOBODY),
        ]);
        let file = inherit(Some(&parent), 0o640, 0o022, false);
        assert_eq!(file.mode, 0o640);
        assert_eq!(
            file.access,
            Some(acl(&[
                (USER_OBJ, 6, NOBODY),
                (USER, 7, 1000),
                (GROUP_OBJ, 5, NOBODY),
                (MASK, 4, NOBODY),
                (OTHER, 0, NOBODY),
            ]))
        );
        assert_eq!(file.default, None);
    }

    #[test]
    fn a_mode_and_an_acl_say_the_same() {
        let full = acl(&[
            (USER_OBJ, 7, NOBODY),
            (USER, 6, 1000),
            (GROUP_OBJ, 4, NOBODY),
            (MASK, 5, NOBODY),
            (OTHER, 1, NOBODY),
        ]);
        assert_eq!(mode_with(&full, 0o4000), Some((0o4751, false)));
        let changed = with_mode(&full, 0o2620).unwrap();
        let entries =
            [(USER_OBJ, 6, NOBODY), (USER, 6, 1000), (GROUP_OBJ, 4, NOBODY), (MASK, 2, NOBODY), (OTHER, 0, NOBODY)];
        assert_eq!(changed, acl(&entries));
        assert_eq!(mode_with(&changed, 0), Some((0o620, false)));
        let minimal = acl(&[(USER_OBJ, 6, NOBODY), (GROUP_OBJ, 4, NOBODY), (OTHER, 0, NOBODY)]);
        assert_eq!(mode_with(&minimal, 0o1777), Some((0o1640, true)));
        assert_eq!(
            with_mode(&minimal, 0o751),
            Some(acl(&[(USER_OBJ, 7, NOBODY), (GROUP_OBJ, 5, NOBODY), (OTHER, 1, NOBODY)]))
        );
        assert_eq!((mode_with(b"", 0), with_mode(b"\x02\0\0\0abc", 0)), (None, None));
    }
}
