//! What the paths of entries mean: where in the layer, and whether they are marks.

use crate::image::tar::entry::Reason;
use crate::layer::marks::{DOT_OPAQUE, DOT_WHITEOUT};
use crate::name::Name;

/// What a name is by AUFS's and OCI's rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meaning {
    /// The layer's root.
    Root,
    /// An object at this path.
    Object(Vec<u8>),
    /// The name at this path is hidden.
    Whiteout(Vec<u8>),
    /// The directory at this path is opaque.
    Opaque(Vec<u8>),
    /// AUFS's own bookkeeping, which means nothing elsewhere.
    Nothing,
}

/// The path beneath the layer's root: components with a slash between them.
///
/// # Errors
/// That it is absolute, climbs, or has a component that is no name.
pub fn normalize(path: &[u8]) -> Result<Vec<u8>, Reason> {
    if path.starts_with(b"/") {
        return Err("an absolute path".into());
    }
    let mut normal = Vec::with_capacity(path.len());
    for part in path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")) {
        if part == b".." {
            return Err("a path that climbs (..)".into());
        }
        Name::check(part).map_err(|_| "a name that is too long or holds a zero byte")?;
        if !normal.is_empty() {
            normal.push(b'/');
        }
        normal.extend_from_slice(part);
    }
    Ok(normal)
}

/// What an entry at `path` is.
///
/// # Errors
/// Those of [`normalize`]; that a whiteout hides nothing, or that a mark has something below it.
pub fn meaning(path: &[u8]) -> Result<Meaning, Reason> {
    let path = normalize(path)?;
    if path.is_empty() {
        return Ok(Meaning::Root);
    }
    let (dir, name) = super::beneath::split(&path);
    if dir.split(|byte| *byte == b'/').any(|part| part.starts_with(DOT_WHITEOUT)) {
        // AUFS keeps a directory of its own, .wh..wh.plnk; nothing else can lie in a whiteout.
        let is_aufs = dir.split(|byte| *byte == b'/').any(|part| part.starts_with(b".wh..wh."));
        return if is_aufs { Ok(Meaning::Nothing) } else { Err("it lies in a whiteout".into()) };
    }
    if name == DOT_OPAQUE {
        return Ok(Meaning::Opaque(dir.to_vec()));
    }
    let Some(hidden) = name.strip_prefix(DOT_WHITEOUT) else { return Ok(Meaning::Object(path)) };
    if hidden.starts_with(b".wh.") {
        return Ok(Meaning::Nothing);
    }
    Name::check(hidden).map_err(|_| "a whiteout of no name")?;
    let hidden = if dir.is_empty() { hidden.to_vec() } else { [dir, b"/", hidden].concat() };
    Ok(Meaning::Whiteout(hidden))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_mean_what_they_say() {
        let object = |path: &str| Ok(Meaning::Object(path.into()));
        for (path, means) in [
            ("a", object("a")),
            ("./a//b/./c/", object("a/b/c")),
            (".", Ok(Meaning::Root)),
            ("./", Ok(Meaning::Root)),
            (".wh.a", Ok(Meaning::Whiteout(b"a".to_vec()))),
            ("d/.wh.a", Ok(Meaning::Whiteout(b"d/a".to_vec()))),
            ("d/.wh..a", Ok(Meaning::Whiteout(b"d/.a".to_vec()))),
            ("d/.wh..wh..opq", Ok(Meaning::Opaque(b"d".to_vec()))),
            (".wh..wh..opq", Ok(Meaning::Opaque(vec![]))),
            (".wh..wh.plnk", Ok(Meaning::Nothing)),
            (".wh..wh.plnk/1.2", Ok(Meaning::Nothing)),
            ("d/.whx", object("d/.whx")),
            ("...", object("...")),
        ] {
            assert_eq!(meaning(path.as_bytes()), means, "{path}");
        }
        for bad in ["/a", "/", "../a", "a/../../b", "a/..", ".wh.", "d/.wh.", ".wh...", "d/.wh..", ".wh.a/b"] {
            assert!(meaning(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(meaning(&[b'x'; 256]).is_err());
        assert!(meaning(b"a\0b").is_err());
    }
}
