//! The form in which a layer is written here: whose its files are, and how it says what it hides.

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, XattrFlags};
use serde::{Deserialize, Serialize};

use crate::at::At;
use crate::attr::{Attr, Kind};
use crate::error::Errno;
use crate::layer::marks::{Dialect, Mark};
use crate::layer::work::WhiteoutStyle;
use crate::sys::creds::{is_privileged, may_chown};

/// The attribute in which owner, group and mode are kept where a file cannot have them: `UID:GID:0MODE`, as the library
/// of podman and buildah writes it.
pub const OVERRIDE: &[u8] = b"user.containers.override_stat";

/// Whose the files of a layer are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Owners {
    /// The image's own, in the user namespace that the layer was unpacked in.
    Real,
    /// Whoever unpacked the layer; the image's own are kept in [`OVERRIDE`].
    Override,
}

/// Whose a file is, and its mode, as [`OVERRIDE`] has it; `None` for what makes no sense.
pub fn parse_override(value: &[u8]) -> Option<(u32, u32, u32)> {
    let mut fields = str::from_utf8(value).ok()?.split(':');
    let (uid, gid) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((uid, gid, u32::from_str_radix(fields.next()?, 8).ok()? & 0o7777))
}

/// The mode that a file has whose own one is kept in [`OVERRIDE`]: what lets us read and change it.
pub const fn overridden_mode(mode: u32, is_dir: bool) -> u32 {
    mode & 0o777 | if is_dir { 0o700 } else { 0o600 }
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
fn has_ids() -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_of_owners_is_read_again() {
        assert_eq!(parse_override(b"0:43:0100664"), Some((0, 43, 0o664)));
        assert_eq!(parse_override(b"33:34:04755:file"), Some((33, 34, 0o4755)));
        for bad in [&b""[..], b"1", b"1:2", b"1:2:9", b"-1:2:7", b"\xff"] {
            assert_eq!(parse_override(bad), None, "{}", bad.escape_ascii());
        }
        assert_eq!((overridden_mode(0o4000, false), overridden_mode(0o555, true)), (0o600, 0o755));
    }
}
