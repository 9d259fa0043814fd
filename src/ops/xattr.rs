//! Extended attributes. The overlay's own are not to be seen; what looks like them is stored under another name.

use rustix::fs::XattrFlags;

use crate::acl;
use crate::at::{At, split_names};
use crate::copy_up::{Data, Gate};
use crate::error::{Context, Errno, Error, Result};
use crate::overlay::{Caller, Overlay};
use crate::override_stat::CAPABILITY;

use super::check_unprotected;

impl Overlay {
    /// The value of an attribute.
    ///
    /// # Errors
    /// `ENODATA`, and those of getxattr(2).
    pub fn getxattr(&self, ino: u64, name: &[u8]) -> Result<Vec<u8>> {
        self.check_acl_name(name)?;
        let is_acl = name == acl::ACCESS || name == acl::DEFAULT;
        let stored = self.dialect.escape(name);
        let get = |at: At<'_>| match at.xattr_strict(&stored) {
            // On a filesystem without ACLs it has none; any other error the kernel takes for that of the access.
            Err(Errno::OPNOTSUPP) if is_acl => Err(Errno::NODATA),
            result => result,
        };
        let value = self.with_real(&self.inode(ino)?, |at, _| get(at), "getxattr")?;
        self.ids.show_xattr(name, value).during("getxattr")
    }

    /// The names of all attributes that the caller may see, each ended by a NUL.
    ///
    /// # Errors
    /// Those of listxattr(2).
    pub fn listxattr(&self, ino: u64, caller: Caller) -> Result<Vec<u8>> {
        let names = self.with_real(&self.inode(ino)?, |at, _| at.xattr_names(), "listxattr")?;
        let mut shown = Vec::with_capacity(names.len());
        for name in split_names(&names) {
            // The layer's filesystem shows these to us, but would not to every caller.
            if name.starts_with(b"trusted.") && caller.uid != 0 || self.check_acl_name(name).is_err() {
                continue;
            }
            if let Some(name) = self.dialect.unescape(name) {
                shown.extend_from_slice(&name);
                shown.push(0);
            }
        }
        Ok(shown)
    }

    /// Sets an attribute; `flags` are those of setxattr(2).
    ///
    /// # Errors
    /// `EEXIST`, `ENODATA`, `EPERM` for protected files, `EROFS`, those of copy-up and setxattr(2).
    pub fn setxattr(&self, ino: u64, name: &[u8], value: &[u8], flags: u32, caller: Caller) -> Result<()> {
        self.check_acl_name(name)?;
        let inode = self.inode(ino)?;
        check_unprotected(&inode)?;
        let flags = XattrFlags::from_bits_retain(flags);
        let stored = self.dialect.escape(name);
        let value = self.ids.store_xattr(name, value).during("setxattr")?;
        self.copy_up(&inode, Data::Later)?;
        let gate = self.gate_of_metacopy(&inode);
        let _gate = gate.as_ref().map(Gate::lock);
        self.with_real(&inode, |at, _| at.set_xattr(&stored, &value, flags), "setxattr")?;
        if name == CAPABILITY {
            inode.state.write().flags.kept_capability = self.upper_key().is_some();
        }
        if name == acl::ACCESS {
            self.drop_setgid_of_stranger(&inode, caller)?;
        }
        self.touched(&inode);
        Ok(())
    }

    /// Removes an attribute.
    ///
    /// # Errors
    /// `ENODATA`, `EPERM` for protected files, `EROFS`, those of copy-up and removexattr(2).
    pub fn removexattr(&self, ino: u64, name: &[u8], caller: Caller) -> Result<()> {
        self.check_acl_name(name)?;
        let inode = self.inode(ino)?;
        check_unprotected(&inode)?;
        let drops_setgid = name == acl::ACCESS && self.without_setgid(&inode, caller)?.is_some();
        let name = self.dialect.escape(name);
        if inode.state.read().upper.is_none() && !drops_setgid {
            // Fails before anything is copied up; of an object in the upper, an ACL that is not there can be removed.
            self.with_real(&inode, |at, _| at.xattr_strict(&name), "removexattr")?;
        }
        self.copy_up(&inode, Data::Later)?;
        let gate = self.gate_of_metacopy(&inode);
        let _gate = gate.as_ref().map(Gate::lock);
        if drops_setgid {
            self.drop_setgid_of_stranger(&inode, caller)?;
        }
        self.with_real(&inode, |at, _| at.remove_xattr(&name), "removexattr")?;
        if name == CAPABILITY {
            inode.state.write().flags.capabilities_fell = true;
        }
        self.touched(&inode);
        Ok(())
    }

    fn check_acl_name(&self, name: &[u8]) -> Result<()> {
        if !self.config.acl && (name == acl::ACCESS || name == acl::DEFAULT) {
            return Err(Error::new(Errno::OPNOTSUPP, "use an ACL"));
        }
        Ok(())
    }
}
