//! One entry of a tar stream, put together from its header and what extends it.

use tar::{EntryType, Header};

use crate::attr::{Kind, Time};

use super::pax::Records;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// An object of this type.
    Object(Kind),
    /// One more name of a file before it.
    HardLink,
}

/// An entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its path, as written.
    pub path: Vec<u8>,
    /// What it is.
    pub what: What,
    /// The target of a symlink or hard link, as written.
    pub target: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of the last change.
    pub mtime: Time,
    /// Major and minor number of a device.
    pub rdev: (u32, u32),
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Bytes of data in the stream.
    pub stored: u64,
    /// Bytes of the file, its holes included.
    pub size: u64,
    /// Where the data belongs, as offset and length, in files with holes.
    pub sparse: Option<Vec<(u64, u64)>>,
}

/// Why an entry cannot be taken.
pub type Reason = String;

impl Entry {
    /// Puts together what `header` and the records before it say.
    ///
    /// # Errors
    /// What of it makes no sense.
    pub fn new(header: &Header, pax: &Records, long: Long) -> Result<Self, Reason> {
        let text = |error: std::io::Error| error.to_string();
        let path = pax.get(b"path").map(<[u8]>::to_vec).or(long.path).unwrap_or_else(|| header.path_bytes().into());
        let kind = header.entry_type();
        let what = match kind {
            // Before POSIX, a name's slash told directories.
            EntryType::Regular | EntryType::Continuous if path.ends_with(b"/") => What::Object(Kind::Dir),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => What::Object(Kind::File),
            EntryType::Link => What::HardLink,
            EntryType::Symlink => What::Object(Kind::Symlink),
            EntryType::Char => What::Object(Kind::Char),
            EntryType::Block => What::Object(Kind::Block),
            EntryType::Directory => What::Object(Kind::Dir),
            EntryType::Fifo => What::Object(Kind::Fifo),
            other => return Err(format!("unknown type {:?}", char::from(other.as_byte()))),
        };
        let target = pax
            .get(b"linkpath")
            .map(<[u8]>::to_vec)
            .or(long.target)
            .or_else(|| header.link_name_bytes().map(|name| name.into()))
            .unwrap_or_default();
        let stored = match pax.number(b"size")? {
            Some(size) => size,
            None => header.entry_size().map_err(text)?,
        };
        let id = |name: &[u8], from_header: std::io::Result<u64>, field: &[u8]| {
            let id = match pax.number(name)? {
                Some(id) => id,
                None => number(from_header, field)?,
            };
            // The last one stands for none.
            u32::try_from(id).ok().filter(|id| *id != u32::MAX).ok_or_else(|| format!("no such id: {id}"))
        };
        let mtime = match pax.get(b"mtime") {
            Some(value) => time(value).ok_or("a time that is none")?,
            None => {
                let sec = number(header.mtime(), &header.as_old().mtime)?;
                Time { sec: i64::try_from(sec).unwrap_or(i64::MAX), nsec: 0 }
            }
        };
        let rdev = if matches!(what, What::Object(Kind::Char | Kind::Block)) {
            let numbers = header.as_ustar().map(|ustar| (&ustar.dev_major, &ustar.dev_minor));
            let numbers = numbers.or(header.as_gnu().map(|gnu| (&gnu.dev_major, &gnu.dev_minor)));
            let (major, minor) = numbers.ok_or("a device without numbers")?;
            (
                number(header.device_major().map(Option::unwrap_or_default), major)?,
                number(header.device_minor().map(Option::unwrap_or_default), minor)?,
            )
        } else {
            (0, 0)
        };
        Ok(Self {
            path,
            what,
            target,
            mode: number(header.mode(), &header.as_old().mode)? & 0o7777,
            uid: id(b"uid", header.uid(), &header.as_old().uid)?,
            gid: id(b"gid", header.gid(), &header.as_old().gid)?,
            mtime,
            rdev,
            xattrs: pax.xattrs(),
            stored,
            size: stored,
            sparse: None,
        })
    }

    /// The path for a message.
    pub fn shown(&self) -> String {
        let mut shown = self.path.escape_ascii().to_string();
        if shown.len() > 300 {
            shown.truncate(300);
            shown.push('…');
        }
        shown
    }
}

/// What GNU's entries for long names say of the next entry.
#[derive(Debug, Default)]
pub struct Long {
    /// Its path.
    pub path: Option<Vec<u8>>,
    /// What it links to.
    pub target: Option<Vec<u8>>,
}

/// A number of the header; a field without digits is 0, as some writers leave what means nothing.
fn number<T: Default>(number: std::io::Result<T>, field: &[u8]) -> Result<T, Reason> {
    match number {
        Err(_) if field.iter().all(|byte| matches!(byte, 0 | b' ')) => Ok(T::default()),
        number => number.map_err(|error| error.to_string()),
    }
}

/// Seconds with a fraction, as PAX writes them.
fn time(value: &[u8]) -> Option<Time> {
    let text = str::from_utf8(value).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let sec: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    let nsec: u32 = digits.parse().ok()?;
    if whole.starts_with('-') && nsec > 0 {
        return Some(Time { sec: sec.checked_sub(1)?, nsec: 1_000_000_000_u32.checked_sub(nsec)? });
    }
    Some(Time { sec, nsec })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_fractions() {
        for (text, sec, nsec) in [
            ("0", 0, 0),
            ("12.5", 12, 500_000_000),
            ("12.000000001", 12, 1),
            ("12.0000000019", 12, 1),
            ("-1.25", -2, 750_000_000),
            ("-3", -3, 0),
            ("7.", 7, 0),
        ] {
            assert_eq!(time(text.as_bytes()), Some(Time { sec, nsec }), "{text}");
        }
        for bad in ["", ".5", "x", "1.x", "1.-1", "99999999999999999999"] {
            assert_eq!(time(bad.as_bytes()), None, "{bad}");
        }
    }
}
