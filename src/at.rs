//! An object in a layer, named by a directory descriptor and one component: how every layer is reached.
//!
//! One component and `O_NOFOLLOW` keep every access inside the layer, whatever symlinks it holds. Calls that Linux
//! offers for paths only go through `/proc/self/fd/N/NAME`.
//!
//! In a layer that keeps owners aside ([`override_stat`]), it is shown and changed as what is kept says.
//!
//! [`override_stat`]: crate::override_stat

mod kept;

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Timestamps, Uid, XattrFlags};

use crate::attr::Attr;
use crate::calls;
use crate::error::Errno;
use crate::override_stat::Key;

/// The largest value and the largest list of names that Linux allows, in bytes.
const XATTR_MAX: usize = 65_536;

/// An object: `name` in `dir`, or `dir` itself (an `O_PATH` descriptor of any type) when `name` is empty.
#[derive(Debug, Clone, Copy)]
pub struct At<'a> {
    dir: BorrowedFd<'a>,
    name: &'a [u8],
    key: Option<Key>,
}

impl<'a> At<'a> {
    /// The entry `name` of the directory `dir`.
    pub fn new(dir: &'a impl AsFd, name: &'a [u8]) -> Self {
        Self { dir: dir.as_fd(), name, key: None }
    }

    /// The object that `fd` is open on.
    pub fn fd(fd: &'a impl AsFd) -> Self {
        Self { dir: fd.as_fd(), name: b"", key: None }
    }

    /// The same object, in a layer that keeps owners by `key`.
    pub const fn keeping(self, key: Option<Key>) -> Self {
        Self { key, ..self }
    }

    /// The same object as its filesystem has it, whatever is kept aside.
    pub const fn plain(self) -> Self {
        self.keeping(None)
    }

    /// Whether its layer keeps owners aside.
    pub const fn keeps(&self) -> bool {
        self.key.is_some()
    }

    /// The directory descriptor.
    pub fn dir(&self) -> BorrowedFd<'a> {
        self.dir
    }

    /// The name in the directory; empty for the descriptor itself.
    pub fn name(&self) -> &'a [u8] {
        self.name
    }

    fn flags(&self) -> AtFlags {
        if self.name.is_empty() { AtFlags::EMPTY_PATH } else { AtFlags::SYMLINK_NOFOLLOW }
    }

    fn proc_path(&self) -> Vec<u8> {
        let mut path = format!("/proc/self/fd/{}", self.dir.as_raw_fd()).into_bytes();
        if !self.name.is_empty() {
            path.push(b'/');
            path.extend_from_slice(self.name);
        }
        path
    }

    /// The object's attributes in its layer.
    ///
    /// # Errors
    /// Those of statx(2); `ENOENT` where there is none; `EIO` for owners that are kept, but make no sense.
    pub fn attr(&self) -> Result<Attr, Errno> {
        let attr = calls::statx(self.dir, self.name, self.flags())?.into();
        match self.key {
            None => Ok(attr),
            Some(key) => self.kept_attr(key, attr),
        }
    }

    /// The object's attributes, or `None` where there is no such name.
    ///
    /// # Errors
    /// Those of statx(2), without `ENOENT` and what a name that cannot exist gives.
    pub fn find(&self) -> Result<Option<Attr>, Errno> {
        match self.attr() {
            Ok(attr) => Ok(Some(attr)),
            Err(Errno::NOENT | Errno::NAMETOOLONG | Errno::NOTDIR | Errno::INVAL) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Opens the object without following a symlink.
    ///
    /// # Errors
    /// Those of openat(2).
    pub fn open(&self, flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::CLOEXEC;
        if self.name.is_empty() {
            // A descriptor's entry in /proc is a link to the very object, even when its name is gone.
            calls::open(self.proc_path(), flags)
        } else {
            calls::openat(self.dir, self.name, flags | OFlags::NOFOLLOW, Mode::empty())
        }
    }

    /// Opens the object for reading its data without moving its access time, where that is allowed.
    ///
    /// # Errors
    /// Those of openat(2).
    pub fn open_noatime(&self, flags: OFlags) -> Result<OwnedFd, Errno> {
        match self.open(flags | OFlags::NOATIME) {
            Err(Errno::PERM) => self.open(flags),
            result => result,
        }
    }

    /// The target of a symlink.
    ///
    /// # Errors
    /// Those of readlinkat(2).
    pub fn read_link(&self) -> Result<Vec<u8>, Errno> {
        calls::readlinkat(self.dir, self.name)
    }

    /// Sets permission bits; never called on a symlink.
    ///
    /// # Errors
    /// Those of chmod(2).
    pub fn chmod(&self, mode: u32) -> Result<(), Errno> {
        if let Some(key) = self.key {
            return self.keep_mode(key, mode);
        }
        calls::chmod(self.proc_path(), Mode::from_raw_mode(mode & 0o7777))
    }

    /// Sets owner and group; `None` keeps.
    ///
    /// # Errors
    /// Those of fchownat(2).
    pub fn chown(&self, uid: Option<u32>, gid: Option<u32>) -> Result<(), Errno> {
        if let Some(key) = self.key {
            return self.keep_owner(key, uid, gid);
        }
        calls::chownat(self.dir, self.name, uid.map(Uid::from_raw), gid.map(Gid::from_raw), self.flags())
    }

    /// Sets access and modification time.
    ///
    /// # Errors
    /// Those of utimensat(2).
    pub fn set_times(&self, times: &Timestamps) -> Result<(), Errno> {
        if self.name.is_empty() {
            calls::utimensat(CWD, self.proc_path(), times, AtFlags::empty())
        } else {
            calls::utimensat(self.dir, self.name, times, AtFlags::SYMLINK_NOFOLLOW)
        }
    }

    /// The value of an extended attribute, or `None` where it has none or the filesystem knows none.
    ///
    /// # Errors
    /// Those of lgetxattr(2), without `ENODATA` and `EOPNOTSUPP`.
    pub fn xattr(&self, name: &[u8]) -> Result<Option<Vec<u8>>, Errno> {
        match self.xattr_strict(name) {
            Ok(value) => Ok(Some(value)),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// The value of an extended attribute.
    ///
    /// # Errors
    /// Those of lgetxattr(2).
    pub fn xattr_strict(&self, name: &[u8]) -> Result<Vec<u8>, Errno> {
        if let Some(key) = self.key {
            return self.kept_xattr(key, name);
        }
        retry_with_room(256, |buf| {
            if self.name.is_empty() {
                return calls::getxattr(self.proc_path(), name, buf);
            }
            let direct = with_c_strings(self.name, name, |path, name| calls::getxattrat(self.dir, path, name, buf))?;
            direct.unwrap_or_else(|| calls::lgetxattr(self.proc_path(), name, buf))
        })
    }

    /// The names of all extended attributes, each ended by a NUL; empty where the filesystem knows none.
    ///
    /// # Errors
    /// Those of llistxattr(2), without `EOPNOTSUPP`.
    pub fn xattr_names(&self) -> Result<Vec<u8>, Errno> {
        if let Some(key) = self.key {
            return self.kept_xattr_names(key);
        }
        let list = retry_with_room(512, |buf| {
            if self.name.is_empty() {
                return calls::listxattr(self.proc_path(), buf);
            }
            let direct = with_c_strings(self.name, b"", |path, _| calls::listxattrat(self.dir, path, buf))?;
            direct.unwrap_or_else(|| calls::llistxattr(self.proc_path(), buf))
        });
        match list {
            Err(Errno::OPNOTSUPP) => Ok(Vec::new()),
            other => other,
        }
    }

    /// Sets an extended attribute.
    ///
    /// # Errors
    /// Those of lsetxattr(2).
    pub fn set_xattr(&self, name: &[u8], value: &[u8], flags: XattrFlags) -> Result<(), Errno> {
        if let Some(key) = self.key {
            return self.keep_xattr(key, name, value, flags);
        }
        let path = self.proc_path();
        if self.name.is_empty() {
            calls::setxattr(&path, name, value, flags)
        } else {
            calls::lsetxattr(&path, name, value, flags)
        }
    }

    /// Removes an extended attribute.
    ///
    /// # Errors
    /// Those of lremovexattr(2).
    pub fn remove_xattr(&self, name: &[u8]) -> Result<(), Errno> {
        if let Some(key) = self.key {
            return self.remove_kept_xattr(key, name);
        }
        let path = self.proc_path();
        if self.name.is_empty() { calls::removexattr(&path, name) } else { calls::lremovexattr(&path, name) }
    }
}

/// Calls `call` with both ended by a NUL.
fn with_c_strings<T>(one: &[u8], two: &[u8], call: impl FnOnce(&CStr, &CStr) -> T) -> Result<T, Errno> {
    let (mut first, mut second) = ([0; 512], [0; 512]);
    let ended = |bytes: &[u8], room: &mut [u8; 512]| {
        room.get_mut(..bytes.len()).filter(|room| room.len() < 512).ok_or(Errno::NAMETOOLONG)?.copy_from_slice(bytes);
        Ok::<_, Errno>(())
    };
    ended(one, &mut first)?;
    ended(two, &mut second)?;
    let text = |bytes| CStr::from_bytes_until_nul(bytes).map_err(|_| Errno::INVAL);
    Ok(call(text(&first)?, text(&second)?))
}

/// Calls `read` with a small buffer first, then with the largest that Linux may need.
fn retry_with_room(first: usize, read: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut buf = vec![0; first];
    let len = match read(&mut buf) {
        Err(Errno::RANGE) => {
            buf = vec![0; XATTR_MAX];
            read(&mut buf)?
        }
        result => result?,
    };
    buf.truncate(len);
    Ok(buf)
}

/// Splits a list of names that are each ended by a NUL.
pub fn split_names(list: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    list.split(|byte| *byte == 0).filter(|name| !name.is_empty())
}
