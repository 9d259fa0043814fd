//! Takes lists of options apart: commas, quotes, and the backslash that takes a character's meaning away.

/// One option of a list, as it is written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Item<'a> {
    /// What is left of the `=`.
    pub(super) name: &'a [u8],
    /// What is right of it, without the quotes around it; backslashes are still in it.
    pub(super) value: Option<&'a [u8]>,
}

/// The first option of a list, and the rest of the list.
///
/// # Errors
/// Why a quoted value cannot be read.
pub(super) fn next(list: &[u8]) -> Result<(Item<'_>, &[u8]), &'static str> {
    let end = list.iter().position(|byte| matches!(byte, b',' | b'=')).unwrap_or(list.len());
    let (name, rest) = list.split_at(end);
    match rest.split_first() {
        Some((b'=', value)) => {
            let (value, rest) = first_value(value)?;
            Ok((Item { name, value: Some(value) }, rest))
        }
        Some((_, rest)) => Ok((Item { name, value: None }, rest)),
        None => Ok((Item { name, value: None }, &[])),
    }
}

/// The value that a list begins with, and what is behind the comma after it.
fn first_value(list: &[u8]) -> Result<(&[u8], &[u8]), &'static str> {
    let Some(quoted) = list.strip_prefix(b"\"") else {
        return Ok(split_once(list, b',').unwrap_or((list, &[])));
    };
    let (value, rest) = split_once(quoted, b'"').ok_or("the quote is not closed")?;
    match rest.split_first() {
        None => Ok((value, rest)),
        Some((b',', rest)) => Ok((value, rest)),
        Some(_) => Err("there is more after the closing quote"),
    }
}

/// Splits at the first `separator` that has no backslash before it.
fn split_once(bytes: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let mut is_escaped = false;
    let at = bytes.iter().position(|&byte| {
        let is_end = byte == separator && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        is_end
    })?;
    let (before, after) = bytes.split_at(at);
    Some((before, after.split_first().map_or(after, |(_, rest)| rest)))
}

/// All parts between `separator`s that have no backslash before them.
pub(super) fn parts(bytes: &[u8], separator: u8) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    let mut rest = bytes;
    while let Some((part, after)) = split_once(rest, separator) {
        parts.push(part);
        rest = after;
    }
    parts.push(rest);
    parts
}

/// Takes the backslashes away; what follows one stays as it is.
pub(super) fn unescape(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(bytes.len());
    let mut bytes = bytes.iter().copied();
    while let Some(byte) = bytes.next() {
        plain.push(if byte == b'\\' { bytes.next().unwrap_or(byte) } else { byte });
    }
    plain
}
