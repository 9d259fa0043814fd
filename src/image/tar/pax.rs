//! PAX records: `LENGTH KEY=VALUE\n`, of which the length alone tells where one ends.

use std::collections::BTreeMap;

use super::entry::Reason;

/// What the keys of extended attributes begin with, as every tool for images writes them.
pub const XATTR: &[u8] = b"SCHILY.xattr.";

/// The records of one header.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Records(BTreeMap<Vec<u8>, Vec<u8>>);

impl Records {
    /// Reads them.
    ///
    /// # Errors
    /// What is wrong with the first that makes no sense.
    pub fn parse(mut data: &[u8]) -> Result<Self, Reason> {
        let mut records = BTreeMap::new();
        while !data.is_empty() {
            let (record, rest) = split(data).ok_or("a broken PAX record")?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or("a PAX record without a value")?;
            let (key, value) = record.split_at(equals);
            let value = value.get(1..).unwrap_or_default();
            if key.is_empty() || key.contains(&0) {
                return Err("a PAX record without a key".into());
            }
            if key == b"GNU.sparse.offset" || key == b"GNU.sparse.numbytes" {
                return Err("holes in a form that is not supported (GNU.sparse 0.0)".into());
            }
            if matches!(key, b"path" | b"linkpath") && value.contains(&0) {
                return Err("a name with a zero byte".into());
            }
            if value.is_empty() && !key.starts_with(XATTR) {
                // As POSIX has it, this takes an earlier record back.
                records.remove(key);
            } else {
                records.insert(key.to_vec(), value.to_vec());
            }
            data = rest;
        }
        Ok(Self(records))
    }

    /// Adds a record.
    pub fn set(&mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.0.insert(key.into(), value.into());
    }

    /// There is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of `key`.
    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.0.get(key).map(Vec::as_slice)
    }

    /// The value of `key`, which is a number.
    ///
    /// # Errors
    /// That it is none.
    pub fn number(&self, key: &[u8]) -> Result<Option<u64>, Reason> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let number = str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let number = number.and_then(|text| text.parse().ok());
        number.map(Some).ok_or_else(|| format!("{} is not a number", key.escape_ascii()))
    }

    /// The extended attributes.
    pub fn xattrs(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let name = |key: &[u8]| key.strip_prefix(XATTR).map(<[u8]>::to_vec);
        self.0.iter().filter_map(|(key, value)| Some((name(key)?, value.clone()))).collect()
    }

    /// The records as they are written, in the order of their keys.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (key, value) in &self.0 {
            // " ", "=" and "\n"
            let rest = key.len().saturating_add(value.len()).saturating_add(3);
            let mut len = rest;
            // The digits of the length count as well.
            while rest.saturating_add(len.to_string().len()) != len {
                len = rest.saturating_add(len.to_string().len());
            }
            bytes.extend_from_slice(format!("{len} ").as_bytes());
            bytes.extend_from_slice(key);
            bytes.push(b'=');
            bytes.extend_from_slice(value);
            bytes.push(b'\n');
        }
        bytes
    }
}

/// The first record, without its length and its newline, and what follows it.
fn split(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = data.iter().take(20).position(|byte| *byte == b' ')?;
    let len: usize = str::from_utf8(data.get(..space)?).ok()?.parse().ok()?;
    let record = data.get(space.checked_add(1)?..len)?.strip_suffix(b"\n")?;
    Some((record, data.get(len..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_hold_any_byte() {
        let mut records = Records::default();
        records.set("SCHILY.xattr.security.capability", b"\x01\n\0\n=x\n".as_slice());
        records.set("SCHILY.xattr.user.empty", b"".as_slice());
        records.set("path", b"a/b".as_slice());
        let bytes = records.to_bytes();
        assert_eq!(Records::parse(&bytes).unwrap(), records);
        assert_eq!(records.xattrs().len(), 2);
    }

    #[test]
    fn lengths_count_their_own_digits() {
        for len in 0..300 {
            let mut records = Records::default();
            records.set("k", vec![b'v'; len.max(1)]);
            assert_eq!(Records::parse(&records.to_bytes()).unwrap(), records, "{len}");
        }
    }

    #[test]
    fn what_is_broken_is_refused() {
        for bad in [&b"x"[..], b"99 a=b\n", b"6 a=b", b"0 a=b\n", b"-6 a=b\n", b"6 =bc\n", b"5 ab\n", b" \n"] {
            assert!(Records::parse(bad).is_err(), "{}", bad.escape_ascii());
        }
        assert!(Records::parse(b"6 a=b\n").unwrap().number(b"a").is_err());
        assert_eq!(Records::parse(b"6 a=b\n5 a=\n").unwrap(), Records::default());
    }
}
