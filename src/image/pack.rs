//! Writing a tar stream: the same bytes for the same entries, whoever writes them and when.

use std::io::{self, Write};

use tar::{EntryType, Header};

use crate::attr::{Kind, Time};

use super::tar::BLOCK;
use super::tar::entry::What;
use super::tar::pax::{Records, XATTR};

/// The largest number that a field of the oldest form holds: seven or eleven octal digits.
const SMALL: u64 = 0o777_7777;
const LARGE: u64 = 0o777_7777_7777;

/// An entry to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member<'a> {
    /// Its path, without a slash before it.
    pub path: &'a [u8],
    /// What it is.
    pub what: What,
    /// The target of a symlink, or the path of the file that a hard link is another name of.
    pub target: &'a [u8],
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
    /// Extended attributes, in the order of their names.
    pub xattrs: &'a [(Vec<u8>, Vec<u8>)],
    /// Bytes of the file.
    pub size: u64,
    /// Where its data is, as offset and length, if it has holes.
    pub pieces: Option<&'a [(u64, u64)]>,
}

/// Writes entries to `W`.
#[derive(Debug)]
pub struct Writer<W> {
    output: W,
    /// Zeros that are due after the data of the last entry.
    padding: u64,
}

impl<W: Write> Writer<W> {
    /// Writes to `output`.
    pub fn new(output: W) -> Self {
        Self { output, padding: 0 }
    }

    /// Writes what comes before the data of an entry. Then all of its data has to be written by [`Writer::data`].
    ///
    /// # Errors
    /// Those of writing.
    pub fn begin(&mut self, member: &Member<'_>) -> io::Result<()> {
        self.pad()?;
        let mut pax = Records::default();
        let mut map = Vec::new();
        let mut stored = member.size;
        if let Some(pieces) = member.pieces {
            map = format!("{}\n", pieces.len()).into_bytes();
            for (offset, len) in pieces {
                map.extend_from_slice(format!("{offset}\n{len}\n").as_bytes());
            }
            map.resize(map.len().next_multiple_of(BLOCK as usize), 0);
            stored = pieces.iter().map(|(_, len)| *len).fold(map.len() as u64, u64::saturating_add);
            pax.set("GNU.sparse.major", "1");
            pax.set("GNU.sparse.minor", "0");
            pax.set("GNU.sparse.name", member.path);
            pax.set("GNU.sparse.realsize", member.size.to_string());
        }
        let mut header = Header::new_ustar();
        let is_dir = member.what == What::Object(Kind::Dir);
        let path = if is_dir { [member.path, b"/"].concat() } else { member.path.to_vec() };
        let fields = header.as_old_mut();
        if !put(&mut fields.name, &path) {
            pax.set("path", path);
        }
        if !put(&mut fields.linkname, member.target) {
            pax.set("linkpath", member.target);
        }
        header.set_mode(member.mode);
        for (key, id) in [("uid", member.uid), ("gid", member.gid)] {
            if u64::from(id) > SMALL {
                pax.set(key, id.to_string());
            }
        }
        header.set_uid(u64::from(member.uid).min(SMALL));
        header.set_gid(u64::from(member.gid).min(SMALL));
        header.set_size(stored.min(LARGE));
        if stored > LARGE {
            pax.set("size", stored.to_string());
        }
        let seconds = u64::try_from(member.mtime.sec).ok().filter(|seconds| *seconds <= LARGE);
        if seconds.is_none() || member.mtime.nsec > 0 {
            pax.set("mtime", time(member.mtime));
        }
        header.set_mtime(seconds.unwrap_or(0));
        header.set_entry_type(match member.what {
            What::HardLink => EntryType::Link,
            What::Object(Kind::File | Kind::Socket) => EntryType::Regular,
            What::Object(Kind::Dir) => EntryType::Directory,
            What::Object(Kind::Symlink) => EntryType::Symlink,
            What::Object(Kind::Fifo) => EntryType::Fifo,
            What::Object(Kind::Char) => EntryType::Char,
            What::Object(Kind::Block) => EntryType::Block,
        });
        header.set_device_major(member.rdev.0)?;
        header.set_device_minor(member.rdev.1)?;
        for (name, value) in member.xattrs {
            pax.set([XATTR, name].concat(), value.as_slice());
        }
        if !pax.is_empty() {
            let records = pax.to_bytes();
            let mut extension = Header::new_ustar();
            put(&mut extension.as_old_mut().name, b"PaxHeaders");
            extension.set_mode(0o644);
            extension.set_uid(0);
            extension.set_gid(0);
            extension.set_mtime(0);
            extension.set_size(records.len() as u64);
            extension.set_entry_type(EntryType::XHeader);
            extension.set_device_major(0)?;
            extension.set_device_minor(0)?;
            extension.set_cksum();
            self.output.write_all(extension.as_bytes())?;
            self.output.write_all(&records)?;
            self.padding = missing(records.len() as u64);
            self.pad()?;
        }
        header.set_cksum();
        self.output.write_all(header.as_bytes())?;
        self.output.write_all(&map)?;
        self.padding = missing(stored);
        Ok(())
    }

    /// Writes data of the entry.
    ///
    /// # Errors
    /// Those of writing.
    pub fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.output.write_all(bytes)
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// Those of writing.
    pub fn finish(mut self) -> io::Result<()> {
        self.pad()?;
        self.output.write_all(&[0; 2 * BLOCK as usize])?;
        self.output.flush()
    }

    fn pad(&mut self) -> io::Result<()> {
        let zeros = [0; BLOCK as usize];
        let due = usize::try_from(self.padding).unwrap_or_default();
        self.padding = 0;
        self.output.write_all(zeros.get(..due).unwrap_or_default())
    }
}

/// Zeros that are missing to a whole block.
fn missing(len: u64) -> u64 {
    len.checked_next_multiple_of(BLOCK).map_or(0, |end| end.saturating_sub(len))
}

/// Puts as much of `value` into the field as it holds; whether that is all.
fn put(field: &mut [u8], value: &[u8]) -> bool {
    let len = value.len().min(field.len());
    if let (Some(field), Some(value)) = (field.get_mut(..len), value.get(..len)) {
        field.copy_from_slice(value);
    }
    len == value.len() && value.is_ascii()
}

/// Seconds with a fraction.
fn time(time: Time) -> String {
    if time.nsec == 0 {
        return time.sec.to_string();
    }
    // A fraction goes away from zero, nanoseconds go up.
    let (sign, sec, nsec) = if time.sec < 0 {
        ("-", time.sec.saturating_add(1).unsigned_abs(), 1_000_000_000_u32.saturating_sub(time.nsec))
    } else {
        ("", time.sec.unsigned_abs(), time.nsec)
    };
    format!("{sign}{sec}.{nsec:09}").trim_end_matches('0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::limits::Limits;
    use crate::image::tar::read::{Keep, Reader};

    #[test]
    fn what_is_written_is_read_again() {
        let long = "d/".repeat(200) + "name";
        let xattrs = [(b"security.capability".to_vec(), b"\x01\n\0".to_vec())];
        let plain = Member {
            path: b"f",
            what: What::Object(Kind::File),
            target: b"",
            mode: 0o4755,
            uid: 3_000_000_000,
            gid: 7,
            mtime: Time { sec: 12, nsec: 345 },
            rdev: (0, 0),
            xattrs: &xattrs,
            size: 4,
            pieces: None,
        };
        let old = Time { sec: -2, nsec: 750_000_000 };
        let members = [
            (plain.clone(), &b"data"[..]),
            (Member { path: long.as_bytes(), mtime: old, ..plain.clone() }, b"data"),
            (
                Member {
                    path: "\u{e4}".as_bytes(),
                    what: What::Object(Kind::Symlink),
                    target: b"x",
                    size: 0,
                    ..plain.clone()
                },
                b"",
            ),
            (Member { what: What::HardLink, target: long.as_bytes(), size: 0, ..plain.clone() }, b""),
            (Member { what: What::Object(Kind::Char), rdev: (1, 3), size: 0, ..plain.clone() }, b""),
            (Member { size: 100_000, pieces: Some(&[(4096, 3), (100_000, 0)]), ..plain.clone() }, b"abc"),
        ];
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes);
        for (member, data) in &members {
            writer.begin(member).unwrap();
            writer.data(data).unwrap();
        }
        writer.finish().unwrap();
        let mut reader = Reader::new(bytes.as_slice(), None, Limits::default());
        for (member, data) in &members {
            let entry = reader.next_entry().unwrap().unwrap();
            assert_eq!((entry.path.as_slice(), entry.what), (member.path, member.what));
            assert_eq!((entry.target.as_slice(), entry.mode), (member.target, member.mode));
            assert_eq!((entry.uid, entry.gid, entry.mtime), (member.uid, member.gid, member.mtime));
            assert_eq!((entry.rdev, entry.size), (member.rdev, member.size));
            assert_eq!(entry.xattrs, member.xattrs);
            assert_eq!(entry.sparse.as_deref(), member.pieces);
            let mut buffer = [0; 10];
            let read = reader.read(&mut buffer, Keep::Nothing).unwrap();
            assert_eq!(&buffer[..read], *data);
        }
        assert!(reader.next_entry().unwrap().is_none());
    }
}
