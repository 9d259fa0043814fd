//! What the values of options mean.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::split::{parts, unescape};

/// Why a value cannot be taken.
pub(super) type Reason = &'static str;

/// Text of any bytes.
pub(super) fn text(value: &[u8]) -> Result<OsString, Reason> {
    if value.is_empty() {
        return Err("needs a value");
    }
    if value.contains(&0) {
        return Err("holds a zero byte");
    }
    Ok(OsString::from_vec(unescape(value)))
}

/// A path.
pub(super) fn path(value: &[u8]) -> Result<PathBuf, Reason> {
    text(value).map(PathBuf::from)
}

/// Paths with colons between them; those after a double colon, of which each has one of its own, are data-only layers.
pub(super) fn layers(value: &[u8]) -> Result<(Vec<PathBuf>, Vec<PathBuf>), Reason> {
    let (mut lowers, mut data) = (Vec::new(), Vec::new());
    let mut parts = parts(value, b':').into_iter();
    while let Some(part) = parts.next() {
        if !part.is_empty() {
            if !data.is_empty() {
                return Err("has a layer to be merged (:) below one for data only (::)");
            }
            lowers.push(path(part)?);
        } else if lowers.is_empty() {
            return Err("names an empty path");
        } else {
            let part = parts.next().filter(|part| !part.is_empty()).ok_or("names an empty path")?;
            data.push(path(part)?);
        }
    }
    Ok((lowers, data))
}

/// A whole number.
pub(super) fn number<T: FromStr>(value: &[u8]) -> Result<T, Reason> {
    parse(value).ok_or("not a number, or too large")
}

/// A number of at least 1.
pub(super) fn count(value: &[u8]) -> Result<usize, Reason> {
    match number(value)? {
        0 => Err("must be at least 1"),
        count => Ok(count),
    }
}

/// Seconds, as long as there is an end to them.
pub(super) fn seconds(value: &[u8]) -> Result<Option<Duration>, Reason> {
    let seconds: f64 = parse(value).ok_or("not a number of seconds")?;
    if seconds.is_nan() || seconds < 0.0 {
        return Err("not a number of seconds");
    }
    // Too many for a duration are as good as no end.
    Ok(Duration::try_from_secs_f64(seconds).ok())
}

/// `on` or `off`.
pub(super) fn on_off(value: &[u8]) -> Result<bool, Reason> {
    match value {
        b"on" => Ok(true),
        b"off" => Ok(false),
        _ => Err("not on or off"),
    }
}

/// `1` or `0`.
pub(super) fn one_zero(value: &[u8]) -> Result<bool, Reason> {
    match value {
        b"1" => Ok(true),
        b"0" => Ok(false),
        _ => Err("not 0 or 1"),
    }
}

/// One of a few words.
pub(super) fn word<T: Copy>(value: &[u8], words: &[(&str, T)], expected: Reason) -> Result<T, Reason> {
    words.iter().find(|(word, _)| word.as_bytes() == value).map(|&(_, meaning)| meaning).ok_or(expected)
}

fn parse<T: FromStr>(value: &[u8]) -> Option<T> {
    str::from_utf8(value).ok()?.parse().ok()
}
