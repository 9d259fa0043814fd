//! Names of directory entries: validated bytes, never UTF-8. And how bytes are shown to people.

use std::fmt;
use std::sync::Arc;

use crate::error::Errno;

/// One component of a path: not empty, not `.` or `..`, at most 255 bytes, without `/` and NUL.
///
/// Cloning shares the bytes, so that a name can stand in several tables without being stored again.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<[u8]>);

impl Name {
    /// The longest name that Linux allows, in bytes.
    pub const MAX: usize = 255;

    /// Checks `bytes`.
    ///
    /// # Errors
    /// `ENAMETOOLONG` for more than 255 bytes, `EINVAL` for what is no component.
    pub fn new(bytes: &[u8]) -> Result<Self, Errno> {
        Self::check(bytes)?;
        Ok(Self(bytes.into()))
    }

    /// Checks `bytes` without keeping them; the errors are those of [`Name::new`].
    ///
    /// # Errors
    /// `ENAMETOOLONG` for more than 255 bytes, `EINVAL` for what is no component.
    pub fn check(bytes: &[u8]) -> Result<(), Errno> {
        match bytes {
            b"" | b"." | b".." => Err(Errno::INVAL),
            _ if bytes.len() > Self::MAX => Err(Errno::NAMETOOLONG),
            _ if bytes.iter().any(|byte| matches!(byte, 0 | b'/')) => Err(Errno::INVAL),
            _ => Ok(()),
        }
    }

    /// The bytes of the name.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

/// A path or a name on one line, as it is where that is possible.
pub fn shown(bytes: &[u8]) -> String {
    match str::from_utf8(bytes) {
        Ok(text) if !text.contains(char::is_control) => text.to_owned(),
        _ => bytes.escape_ascii().to_string(),
    }
}

/// A text on one line: control characters are escaped.
pub fn on_one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.into() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_single_components_of_any_bytes() {
        for good in [&b"a"[..], b"...", b".wh.x", b"\xff\xfe", b"new\nline", &[b'x'; 255]] {
            assert!(Name::new(good).is_ok(), "{good:?}");
        }
        for bad in [&b""[..], b".", b"..", b"a/b", b"/", b"nul\0"] {
            assert_eq!(Name::new(bad), Err(Errno::INVAL), "{bad:?}");
        }
        assert_eq!(Name::new(&[b'x'; 256]), Err(Errno::NAMETOOLONG));
    }
}
