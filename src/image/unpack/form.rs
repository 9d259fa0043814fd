//! The form in which a layer is written here: whose its files are, and how it says what it hides.

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, XattrFlags};
use serde::{Deserialize, Serialize};

use crate::at::At;
use crate::attr::{Attr, Kind};
use crate::error::Errno;
use crate::layer::marks::{Dialect, Mark};
use crate::layer::work::WhiteoutStyle;
use crate::override_stat::Key;
use crate::sys::creds::{is_privileged, may_chown};

/// By which attribute owners are kept that files cannot have.
pub const KEY: Key = Key::Containers;

/// Whose the files of a layer are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Owners {
    /// The image's own, in the user namespace that the layer was unpacked in.
    Real,
    /// Whoever unpacked the layer; the image's own are kept in [`KEY`].
    Override,
}

/// The form of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    /// Whose its files are.
    pub owners: Owners,
    /// The dialect of its marks.
    pub dialect: Dialect,
    /// How whiteouts are made.
    pub whiteouts: WhiteoutStyle,
}

/// Whether this user namespace has as many users as images may have.
pub fn has_ids() -> bool {
    const USERS: u64 = 65_536;
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let counts = map.lines().filter_map(|line| line.split_ascii_whitespace().nth(2)?.parse::<u64>().ok());
    counts.fold(0, u64::saturating_add) >= USERS
}

impl Form {
    /// What this process may write into `dir`: the forms of the kernel's overlayfs, wherever it lets us.
    ///
    /// # Errors
    /// Those of mknodat(2) and setxattr(2), where no form is possible.
    pub fn possible(dir: At<'_>) -> Result<Self, Errno> {
        let dialect = if is_privileged() { Dialect::Trusted } else { Dialect::User };
        let owners = if may_chown() && has_ids() { Owners::Real } else { Owners::Override };
        let probe = b"#probe".as_slice();
        let whiteouts = match fs::mknodat(dir.dir(), probe, FileType::CharacterDevice, Mode::empty(), 0) {
            Ok(()) => {
                fs::unlinkat(dir.dir(), probe, AtFlags::empty())?;
                WhiteoutStyle::Device
            }
            Err(_) => WhiteoutStyle::Xattr,
        };
        // A layer without opaque directories would show what the image has deleted.
        let mark = dialect.name(Mark::Opaque);
        let fd = dir.dir();
        let here = At::fd(&fd);
        here.set_xattr(&mark, b"0", XattrFlags::empty())?;
        here.remove_xattr(&mark)?;
        Ok(Self { owners, dialect, whiteouts })
    }

    /// Hides `at`, which is not there, in the layers below.
    ///
    /// # Errors
    /// Those of mknodat(2) and setxattr(2).
    pub fn hide(&self, at: At<'_>) -> Result<(), Errno> {
        if self.whiteouts == WhiteoutStyle::Device {
            return fs::mknodat(at.dir(), at.name(), FileType::CharacterDevice, Mode::empty(), 0);
        }
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        fs::openat(at.dir(), at.name(), flags, Mode::RUSR | Mode::WUSR)?;
        at.set_xattr(&self.dialect.name(Mark::Whiteout), b"y", XattrFlags::empty())?;
        // An opaque directory has nothing below it that would have to be hidden.
        let fd = at.dir();
        match At::fd(&fd).set_xattr(&self.dialect.name(Mark::Opaque), b"x", XattrFlags::CREATE) {
            Err(Errno::EXIST) => Ok(()),
            result => result,
        }
    }

    /// Whether `at`, which has these attributes, is a whiteout of this form.
    ///
    /// # Errors
    /// Those of listxattr(2).
    pub fn hides(&self, at: At<'_>, attr: &Attr) -> Result<bool, Errno> {
        if attr.is_whiteout() {
            return Ok(true);
        }
        let may = self.whiteouts != WhiteoutStyle::Device && attr.kind() == Kind::File && attr.size == 0;
        Ok(may && crate::layer::marks::is_xattr_whiteout(at)?)
    }

    /// Makes the directory `at` hide all that lies below it.
    ///
    /// # Errors
    /// Those of setxattr(2).
    pub fn make_opaque(&self, at: At<'_>) -> Result<(), Errno> {
        self.dialect.set(at, Mark::Opaque, b"y")
    }
}
