//! Owner, mode and type of a file, kept in an attribute of it where the file itself cannot have them:
//! `UID:GID:MODE:TYPE`, as podman's library and fuse-overlayfs read and write it. A layer says by the attribute of its
//! root that its files are kept so, and by which name.
//!
//! What else would change who may use the file itself is kept aside as well: ACLs, and with [`Key::Containers`]
//! everything in `security.`, under the name of the attribute with [`ASIDE`] before it.

use std::borrow::Cow;

use crate::acl;
use crate::attr::{Attr, Kind};

/// What the name of an attribute begins with that is kept aside.
pub const ASIDE: &[u8] = b"user.containers.override_";
/// The attribute that holds a program's capabilities.
pub const CAPABILITY: &[u8] = b"security.capability";

/// By which attribute a layer keeps owners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// `security.fuseoverlayfs.override_stat`, which takes privilege (`xattr_permissions=1`).
    Security,
    /// `user.containers.override_stat` (`xattr_permissions=2`).
    Containers,
    /// `user.fuseoverlayfs.override_stat`, as fuse-overlayfs wrote it before 1.14.
    FuseOverlayfs,
}

impl Key {
    /// The name of the attribute.
    pub const fn name(self) -> &'static [u8] {
        match self {
            Self::Security => b"security.fuseoverlayfs.override_stat",
            Self::Containers => b"user.containers.override_stat",
            Self::FuseOverlayfs => b"user.fuseoverlayfs.override_stat",
        }
    }

    /// The one that counts in a layer whose root has the attributes `names`: that of fuse-overlayfs, where there are
    /// several.
    pub fn of_root<'n>(names: impl Iterator<Item = &'n [u8]> + Clone) -> Option<Self> {
        let all = [Self::Security, Self::Containers, Self::FuseOverlayfs];
        all.into_iter().find(|key| names.clone().any(|name| name == key.name()))
    }

    /// Whether an object of this type, as its filesystem has it, can carry the attribute: `user.` ones are for files and
    /// directories.
    pub const fn fits(self, kind: Kind) -> bool {
        matches!((self, kind), (Self::Security, _) | (_, Kind::File | Kind::Dir))
    }

    /// Under which name an attribute is stored.
    pub fn stored(self, name: &[u8]) -> Cow<'_, [u8]> {
        if self.is_aside(name) { Cow::Owned([ASIDE, name].concat()) } else { Cow::Borrowed(name) }
    }

    /// What is shown for an attribute `name` of an object; `None` for what is not to be seen.
    pub fn shown(self, name: &[u8]) -> Option<&[u8]> {
        match name.strip_prefix(ASIDE) {
            Some(rest) if self.is_aside(rest) => Some(rest),
            _ if self.is_hidden(name) => None,
            _ => Some(name),
        }
    }

    fn is_aside(self, name: &[u8]) -> bool {
        self.is_hidden(name) || acl::is_acl(name)
    }

    fn is_hidden(self, name: &[u8]) -> bool {
        name == self.name() || name.starts_with(ASIDE) || self == Self::Containers && name.starts_with(b"security.")
    }
}

/// Owner, mode and type of an object as they are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits, without the type.
    pub mode: u32,
    /// The type, if it is told, and the device number of a device node.
    pub kind: Option<(Kind, (u32, u32))>,
}

impl Kept {
    /// What is to be kept of an object with these attributes.
    pub const fn of(attr: &Attr) -> Self {
        Self { uid: attr.uid, gid: attr.gid, mode: attr.mode & 0o7777, kind: Some((attr.kind(), attr.rdev)) }
    }

    /// Reads a value; `None` for what makes no sense. What follows the type is left to those who write it.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let mut fields = str::from_utf8(value).ok()?.split(':');
        let (uid, gid) = (parse_id(fields.next()?)?, parse_id(fields.next()?)?);
        let mode = digits(fields.next()?).and_then(|mode| u32::from_str_radix(mode, 8).ok())? & 0o7777;
        let kind = fields.next().map(parse_kind);
        Some(Self { uid, gid, mode, kind: if let Some(kind) = kind { Some(kind?) } else { None } })
    }

    /// The value.
    pub fn format(&self) -> String {
        let Self { uid, gid, mode, kind } = self;
        let (kind, (major, minor)) = kind.unwrap_or((Kind::File, (0, 0)));
        let kind = match kind {
            Kind::File => "file".to_owned(),
            Kind::Dir => "dir".to_owned(),
            Kind::Symlink => "symlink".to_owned(),
            Kind::Fifo => "pipe".to_owned(),
            Kind::Socket => "socket".to_owned(),
            Kind::Char => format!("char-{major}-{minor}"),
            Kind::Block => format!("block-{major}-{minor}"),
        };
        format!("{uid}:{gid}:{mode:04o}:{kind}")
    }

    /// The attributes of an object whose own ones are `attr`; `None` where its file cannot stand for that type. Only a
    /// plain file stands for others.
    pub fn apply(&self, mut attr: Attr) -> Option<Attr> {
        let own = attr.kind();
        let (kind, rdev) = match self.kind {
            None => (own, attr.rdev),
            Some((kind, _)) if kind == own => (own, attr.rdev),
            Some((kind @ (Kind::Fifo | Kind::Socket | Kind::Char | Kind::Block), rdev)) if own == Kind::File => {
                (kind, rdev)
            }
            Some(_) => return None,
        };
        (attr.uid, attr.gid, attr.mode, attr.rdev) = (self.uid, self.gid, kind.mode_bits() | self.mode, rdev);
        Some(attr)
    }

    /// Takes the set-id bits away that fall with a change of owner, as the kernel does.
    pub fn drop_setid(&mut self) {
        self.mode &= !libc::S_ISUID;
        if self.mode & libc::S_IXGRP != 0 {
            self.mode &= !libc::S_ISGID;
        }
    }
}

/// The mode that a file has whose own one is kept: what lets us read and change it, and nobody more than may.
pub const fn real_mode(mode: u32, is_dir: bool) -> u32 {
    mode & 0o777 | if is_dir { 0o700 } else { 0o600 }
}

/// The largest number is no id.
fn parse_id(field: &str) -> Option<u32> {
    digits(field)?.parse().ok().filter(|id| *id != u32::MAX)
}

/// Nothing but digits: no sign, which numbers may have otherwise.
fn digits(field: &str) -> Option<&str> {
    field.bytes().all(|byte| byte.is_ascii_digit()).then_some(field)
}

fn parse_kind(field: &str) -> Option<(Kind, (u32, u32))> {
    let plain = |kind| Some((kind, (0, 0)));
    match field {
        "file" => plain(Kind::File),
        "dir" => plain(Kind::Dir),
        "symlink" => plain(Kind::Symlink),
        "pipe" => plain(Kind::Fifo),
        "socket" => plain(Kind::Socket),
        device => {
            let (kind, numbers) = device.split_once('-')?;
            let (major, minor) = numbers.split_once('-')?;
            let rdev = (digits(major)?.parse().ok()?, digits(minor)?.parse().ok()?);
            match kind {
                "char" => Some((Kind::Char, rdev)),
                "block" => Some((Kind::Block, rdev)),
                _ => None,
            }
        }
    }
}

#[cfg(test)]
mod tests;
