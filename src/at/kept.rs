//! Objects of a layer that keeps owner, mode and type aside, as [`override_stat`](crate::override_stat) says.

use rustix::fs::XattrFlags;

use crate::acl;
use crate::attr::{Attr, Kind};
use crate::error::Errno;
use crate::override_stat::{CAPABILITY, Kept, Key, real_mode};

use super::{At, split_names};

impl At<'_> {
    /// The attributes of the object, from those that its filesystem has.
    #[cold]
    pub(super) fn kept_attr(&self, key: Key, own: Attr) -> Result<Attr, Errno> {
        if !key.fits(own.kind()) {
            return Ok(own);
        }
        match self.plain().xattr(key.name())? {
            None => Ok(own),
            Some(value) => Kept::parse(&value).and_then(|kept| kept.apply(own)).ok_or(Errno::IO),
        }
    }

    /// Keeps owner, mode and type of what can carry them.
    ///
    /// # Errors
    /// Those of setxattr(2).
    pub fn keep(&self, key: Key, kept: &Kept) -> Result<(), Errno> {
        self.plain().set_xattr(key.name(), kept.format().as_bytes(), XattrFlags::empty())
    }

    pub(super) fn keep_mode(&self, key: Key, mode: u32) -> Result<(), Errno> {
        let own = self.plain().attr()?;
        if !key.fits(own.kind()) {
            return self.plain().chmod(mode);
        }
        let kept = Kept { mode: mode & 0o7777, ..Kept::of(&self.kept_attr(key, own)?) };
        self.narrow(&own, mode)?;
        if let Some(changed) = self.xattr(acl::ACCESS)?.and_then(|acl| acl::with_mode(&acl, mode)) {
            self.plain().set_xattr(&key.stored(acl::ACCESS), &changed, XattrFlags::empty())?;
        }
        self.keep(key, &kept)
    }

    /// Has the file itself, which has the attributes `own`, be nobody's to use whom the kept mode `mode` keeps out. Whom it
    /// lets in comes through us.
    fn narrow(&self, own: &Attr, mode: u32) -> Result<(), Errno> {
        let narrowed = own.mode & real_mode(mode, own.kind() == Kind::Dir);
        if narrowed == own.mode & 0o7777 { Ok(()) } else { self.plain().chmod(narrowed) }
    }

    pub(super) fn keep_owner(&self, key: Key, uid: Option<u32>, gid: Option<u32>) -> Result<(), Errno> {
        let own = self.plain().attr()?;
        if !key.fits(own.kind()) {
            return match self.plain().chown(uid, gid) {
                // As fuse-overlayfs: it can carry no attribute, and package managers give symlinks away too.
                Err(Errno::PERM | Errno::INVAL) => Ok(()),
                result => result,
            };
        }
        let mut kept = Kept::of(&self.kept_attr(key, own)?);
        (kept.uid, kept.gid) = (uid.unwrap_or(kept.uid), gid.unwrap_or(kept.gid));
        if own.kind() != Kind::Dir {
            kept.drop_setid();
            self.drop_capability()?;
        }
        self.keep(key, &kept)
    }

    /// Takes capabilities away, where there are any: with owners, they are kept from the filesystem, which would do so by
    /// itself.
    ///
    /// # Errors
    /// Those of removexattr(2).
    pub fn drop_capability(&self) -> Result<(), Errno> {
        match self.remove_xattr(CAPABILITY) {
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
            result => result,
        }
    }

    pub(super) fn kept_xattr(&self, key: Key, name: &[u8]) -> Result<Vec<u8>, Errno> {
        match self.plain().xattr_strict(&key.stored(name)) {
            // Other programs leave ACLs where they are.
            Err(Errno::NODATA) if acl::is_acl(name) => self.plain().xattr_strict(name),
            // What is no file or directory has none of what is kept aside.
            Err(Errno::PERM) => Err(Errno::NODATA),
            result => result,
        }
    }

    pub(super) fn kept_xattr_names(&self, key: Key) -> Result<Vec<u8>, Errno> {
        let mut shown: Vec<&[u8]> = Vec::new();
        let names = self.plain().xattr_names()?;
        for name in split_names(&names).filter_map(|name| key.shown(name)) {
            if !shown.contains(&name) {
                shown.push(name);
            }
        }
        Ok(shown.into_iter().flat_map(|name| [name, b"\0"]).flatten().copied().collect())
    }

    pub(super) fn keep_xattr(&self, key: Key, name: &[u8], value: &[u8], flags: XattrFlags) -> Result<(), Errno> {
        if name == acl::ACCESS {
            return self.keep_acl(key, value);
        }
        self.plain().set_xattr(&key.stored(name), value, flags)
    }

    /// An access ACL says the mode as well, or nothing but the mode.
    fn keep_acl(&self, key: Key, value: &[u8]) -> Result<(), Errno> {
        let own = self.plain().attr()?;
        let kept = Kept::of(&self.kept_attr(key, own)?);
        let (mode, is_minimal) = acl::mode_with(value, kept.mode).ok_or(Errno::INVAL)?;
        if is_minimal {
            match self.remove_kept_xattr(key, acl::ACCESS) {
                Err(Errno::NODATA) => {}
                result => result?,
            }
        } else {
            self.plain().set_xattr(&key.stored(acl::ACCESS), value, XattrFlags::empty())?;
        }
        self.narrow(&own, mode)?;
        self.keep(key, &Kept { mode, ..kept })
    }

    pub(super) fn remove_kept_xattr(&self, key: Key, name: &[u8]) -> Result<(), Errno> {
        match self.plain().remove_xattr(&key.stored(name)) {
            Err(Errno::NODATA) if acl::is_acl(name) => self.plain().remove_xattr(name),
            result => result,
        }
    }
}
