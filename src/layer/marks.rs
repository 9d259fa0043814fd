//! The on-disk format of an overlay: how layers say that a name is hidden, a directory opaque or renamed.
//!
//! Extended attributes as the kernel names them (Documentation/filesystems/overlayfs.rst): `trusted.overlay.*`, or
//! `user.overlay.*` where the overlay has no privilege.

use rustix::fs::XattrFlags;

use crate::at::{At, split_names};
use crate::attr::Kind;
use crate::error::Errno;
use crate::name::Name;
use crate::override_stat::CAPABILITY;

/// The prefix of a name that hides the rest of it in the layers below, as AUFS and OCI images have it.
pub const DOT_WHITEOUT: &[u8] = b".wh.";
/// The name that makes the directory it lies in opaque.
pub const DOT_OPAQUE: &[u8] = b".wh..wh..opq";

/// Which extended attributes carry an overlay's marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `trusted.overlay.*`.
    Trusted,
    /// `user.overlay.*` (`userxattr`).
    User,
}

/// A mark, without its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// `y`: the directory hides what lies below it. `x`: it may hold xattr whiteouts.
    Opaque,
    /// A zero-size file that hides its name.
    Whiteout,
    /// The path or name under which the layers below know this directory.
    Redirect,
    /// Only the attributes were copied up; the data is in a layer below.
    Metacopy,
    /// The file handle of the lower inode that was copied up.
    Origin,
    /// The directory holds entries that came from elsewhere than their name says.
    Impure,
    /// The overlay's link count, relative to that of a layer.
    Nlink,
    /// `i` and `a`: immutable and append-only flags of the copied-up file.
    ProtAttr,
    /// The file handle of the upper that an index belongs to.
    Upper,
}

impl Mark {
    const ALL: [Self; 9] = [
        Self::Opaque,
        Self::Whiteout,
        Self::Redirect,
        Self::Metacopy,
        Self::Origin,
        Self::Impure,
        Self::Nlink,
        Self::ProtAttr,
        Self::Upper,
    ];

    const fn suffix(self) -> &'static [u8] {
        match self {
            Self::Opaque => b"opaque",
            Self::Whiteout => b"whiteout",
            Self::Redirect => b"redirect",
            Self::Metacopy => b"metacopy",
            Self::Origin => b"origin",
            Self::Impure => b"impure",
            Self::Nlink => b"nlink",
            Self::ProtAttr => b"protattr",
            Self::Upper => b"upper",
        }
    }
}

/// Prefixes in which any layer below may say that it hides something.
const FOREIGN_PREFIXES: [&[u8]; 3] = [b"trusted.overlay.", b"user.overlay.", b"user.fuseoverlayfs."];

impl Dialect {
    /// What the names of all marks begin with.
    pub const fn prefix(self) -> &'static [u8] {
        match self {
            Self::Trusted => b"trusted.overlay.",
            Self::User => b"user.overlay.",
        }
    }

    /// The attribute that carries `mark`.
    pub fn name(self, mark: Mark) -> Vec<u8> {
        [self.prefix(), mark.suffix()].concat()
    }

    /// The mark that an attribute carries, if it does.
    pub fn mark(self, name: &[u8]) -> Option<Mark> {
        let suffix = name.strip_prefix(self.prefix())?;
        Mark::ALL.into_iter().find(|mark| mark.suffix() == suffix)
    }

    /// Whether an attribute is the overlay's own and not to be seen through the mount.
    pub fn is_private(self, name: &[u8]) -> bool {
        name.strip_prefix(self.prefix()).is_some_and(|rest| !rest.starts_with(b"overlay."))
    }

    /// The name under which a layer stores what the mount is given as `name`: one that looks like a mark is escaped by
    /// a further `overlay.`, so that overlays can be nested.
    pub fn escape(self, name: &[u8]) -> Vec<u8> {
        match name.strip_prefix(self.prefix()) {
            Some(rest) => [self.prefix(), b"overlay.", rest].concat(),
            None => name.to_vec(),
        }
    }

    /// What the mount shows for an attribute `name` of a layer; `None` for the overlay's own.
    pub fn unescape(self, name: &[u8]) -> Option<Vec<u8>> {
        match name.strip_prefix(self.prefix()) {
            Some(rest) => rest.strip_prefix(b"overlay.").map(|rest| [self.prefix(), rest].concat()),
            None => Some(name.to_vec()),
        }
    }

    /// Whether objects of this type can carry marks: Linux has `user.` attributes for files and directories only.
    pub const fn marks(self, kind: Kind) -> bool {
        matches!((self, kind), (Self::Trusted, _) | (_, Kind::File | Kind::Dir))
    }

    /// Sets `mark` on `at`.
    ///
    /// # Errors
    /// Those of setxattr(2).
    pub fn set(self, at: At<'_>, mark: Mark, value: &[u8]) -> Result<(), Errno> {
        let name = self.name(mark);
        match at.set_xattr(&name, value, XattrFlags::empty()) {
            // Without privilege, a `user.` attribute takes the right to write, which the owner may have given up.
            Err(Errno::ACCESS) => {
                let at = at.plain();
                let mode = at.attr()?.mode;
                at.chmod(mode | libc::S_IWUSR)?;
                let result = at.set_xattr(&name, value, XattrFlags::empty());
                at.chmod(mode)?;
                result
            }
            result => result,
        }
    }

    /// Removes `mark` from `at`, if it is there.
    ///
    /// # Errors
    /// Those of removexattr(2), without `ENODATA`.
    pub fn remove(self, at: At<'_>, mark: Mark) -> Result<(), Errno> {
        match at.remove_xattr(&self.name(mark)) {
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
            result => result,
        }
    }
}

/// Where a redirected directory is to be looked for in the layers below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Redirect {
    /// Under another name in the same parent.
    Name(Name),
    /// At a path from the root of each layer.
    Path(Vec<Name>),
}

impl Redirect {
    /// Decodes a redirect mark.
    ///
    /// # Errors
    /// `EINVAL` for what names nothing or climbs: an empty component, `.`, `..`, a `/` in a relative one.
    pub fn parse(value: &[u8]) -> Result<Self, Errno> {
        match value.strip_prefix(b"/") {
            None => Name::new(value).map(Self::Name).map_err(|_| Errno::INVAL),
            Some(path) => path
                .split(|byte| *byte == b'/')
                .map(Name::new)
                .collect::<Result<_, _>>()
                .map(Self::Path)
                .map_err(|_| Errno::INVAL),
        }
    }
}

/// Whether a directory hides what lies below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Opaque {
    /// It does not.
    #[default]
    No,
    /// It does.
    Yes,
    /// It does not, but files in it may be whiteouts by their xattr.
    XattrWhiteouts,
}

/// Whether a file has its attributes only, and its data is in a layer below.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Metacopy {
    /// It has its data.
    #[default]
    No,
    /// It has not.
    Yes,
    /// It says so in a way that is not understood.
    Invalid,
}

impl Metacopy {
    /// Decodes a metacopy mark: empty, or a version (0), the mark's length, flags, and a digest (`struct ovl_metacopy`,
    /// fs/overlayfs).
    pub const fn parse(value: &[u8]) -> Self {
        match value {
            [] => Self::Yes,
            [0, len, _, _, ..] if *len as usize == value.len() => Self::Yes,
            _ => Self::Invalid,
        }
    }
}

/// What a layer's marks say about one object.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Marks {
    /// The opaque mark.
    pub opaque: Opaque,
    /// The redirect, as stored.
    pub redirect: Option<Box<[u8]>>,
    /// Whether the data lies in a layer below.
    pub metacopy: Metacopy,
    /// The origin, as stored.
    pub origin: Option<Box<[u8]>>,
    /// The impure mark.
    pub impure: bool,
    /// The link count, as stored.
    pub nlink: Option<Box<[u8]>>,
    /// Immutable by mark.
    pub immutable: bool,
    /// Append-only by mark.
    pub append_only: bool,
    /// An empty file with this mark may be a whiteout.
    pub whiteout: bool,
    /// Not of the overlay: the file has capabilities.
    pub capability: bool,
}

impl Marks {
    /// Reads the marks of an object in the upper layer: only this mount's own dialect counts there, as users may set
    /// the other one.
    ///
    /// # Errors
    /// Those of listxattr(2) and getxattr(2).
    pub fn of_upper(at: At<'_>, dialect: Dialect) -> Result<Self, Errno> {
        Self::read(at, dialect, false)
    }

    /// Reads the marks of an object in a lower layer, where the opaque mark counts in every dialect.
    ///
    /// # Errors
    /// Those of listxattr(2) and getxattr(2).
    pub fn of_lower(at: At<'_>, dialect: Dialect) -> Result<Self, Errno> {
        Self::read(at, dialect, true)
    }

    fn read(at: At<'_>, dialect: Dialect, foreign: bool) -> Result<Self, Errno> {
        let mut marks = Self::default();
        for name in split_names(&at.xattr_names()?) {
            marks.capability |= name == CAPABILITY;
            let mark = match dialect.mark(name) {
                None if foreign && is_opaque_mark(name) && marks.opaque == Opaque::No => Some(Mark::Opaque),
                mark => mark,
            };
            if let Some(mark) = mark
                && let Some(value) = at.xattr(name)?
            {
                marks.take(mark, value);
            }
        }
        Ok(marks)
    }

    /// Notes what one mark says; a value that means nothing says nothing.
    pub fn take(&mut self, mark: Mark, value: Vec<u8>) {
        match mark {
            Mark::Opaque => {
                self.opaque = match value.as_slice() {
                    b"y" => Opaque::Yes,
                    b"x" => Opaque::XattrWhiteouts,
                    _ => Opaque::No,
                }
            }
            Mark::Redirect => self.redirect = Some(value.into()),
            Mark::Metacopy => self.metacopy = Metacopy::parse(&value),
            Mark::Origin => self.origin = Some(value.into()),
            Mark::Impure => self.impure = value == b"y",
            Mark::Nlink => self.nlink = Some(value.into()),
            Mark::ProtAttr => {
                self.immutable = value.contains(&b'i');
                self.append_only = value.contains(&b'a');
            }
            Mark::Whiteout => self.whiteout = true,
            Mark::Upper => {}
        }
    }
}

/// Whether `name` is the opaque mark of any dialect that counts in lower layers.
pub fn is_opaque_mark(name: &[u8]) -> bool {
    FOREIGN_PREFIXES.iter().any(|prefix| name.strip_prefix(*prefix) == Some(Mark::Opaque.suffix()))
}

/// Whether a zero-size file in a directory marked for that is a whiteout.
///
/// # Errors
/// Those of listxattr(2).
pub fn is_xattr_whiteout(at: At<'_>) -> Result<bool, Errno> {
    let names = at.xattr_names()?;
    Ok(split_names(&names)
        .any(|name| FOREIGN_PREFIXES.iter().any(|prefix| name.strip_prefix(*prefix) == Some(Mark::Whiteout.suffix()))))
}

/// The overlay's link count, as [`counted_links`] or as good as can be.
pub fn link_count(mark: Option<&[u8]>, upper: u32, lower: Option<u32>) -> u32 {
    // The index itself is one of the upper's links.
    mark.and_then(|mark| counted_links(mark, upper, lower)).unwrap_or(upper.saturating_sub(1).max(1))
}

/// The link count that a mark like `U+1` (relative to the upper's count) or `L-1` (to the lower's) says.
pub fn counted_links(mark: &[u8], upper: u32, lower: Option<u32>) -> Option<u32> {
    let (base, difference) = mark.split_first()?;
    let base = match base {
        b'U' => upper,
        b'L' => lower?,
        _ => return None,
    };
    base.checked_add_signed(std::str::from_utf8(difference).ok()?.parse().ok()?)
}

#[cfg(test)]
mod tests;
