//! The values of marks, as any layer may have them.

use plyfs::layer::marks::{Dialect, Mark, Marks, Redirect, link_count};
use plyfs::layer::origin::Origin;

const MARKS: [Mark; 8] = [
    Mark::Opaque,
    Mark::Whiteout,
    Mark::Redirect,
    Mark::Metacopy,
    Mark::Origin,
    Mark::Impure,
    Mark::Nlink,
    Mark::ProtAttr,
];

/// The first byte says which mark has the rest as its value.
pub fn check(data: &[u8]) {
    let Some((which, value)) = data.split_first() else { return };
    let mark = MARKS[usize::from(*which) % MARKS.len()];
    let mut marks = Marks::default();
    marks.take(mark, value.to_vec());
    match mark {
        Mark::Redirect => redirect(value),
        Mark::Origin => origin(value),
        Mark::Nlink => nlink(value),
        _ => {}
    }
    names(value);
}

/// What is followed names something below a layer's root.
fn redirect(value: &[u8]) {
    let Ok(redirect) = Redirect::parse(value) else { return };
    let (names, rest) = match redirect {
        Redirect::Name(name) => (vec![name], value),
        Redirect::Path(names) => (names, value.strip_prefix(b"/").expect("only absolute redirects are paths")),
    };
    assert!(!names.is_empty());
    for name in &names {
        let name = name.as_bytes();
        assert!(!matches!(name, b"" | b"." | b"..") && !name.contains(&b'/') && !name.contains(&0) && name.len() < 256);
    }
    let joined = names.iter().map(|name| name.as_bytes()).collect::<Vec<_>>().join(&b'/');
    assert_eq!(joined, rest, "nothing is left out");
}

/// What is read of an origin names an entry of the index, and only that origin does.
fn origin(value: &[u8]) {
    let Some(origin) = Origin::decode(value) else { return };
    let name = origin.index_name();
    assert!(name.iter().all(u8::is_ascii_hexdigit), "an index name is hexadecimal");
    let encoded = origin.encode();
    assert_eq!(Origin::decode(&encoded).as_ref(), Some(&origin), "an origin survives its mark");
    // The flags may say less than is written.
    assert_eq!((&encoded[..3], &encoded[4..]), (&value[..3], &value[4..]));
}

/// An object that is shown has at least the links that its layer knows of, or what its mark adds to them.
fn nlink(value: &[u8]) {
    for (upper, lower) in [(1, None), (2, Some(1)), (u32::MAX, Some(u32::MAX)), (0, Some(0))] {
        let count = link_count(Some(value), upper, lower);
        if value.is_empty() || !matches!(value[0], b'U' | b'L') {
            assert_eq!(count, link_count(None, upper, lower), "what is no mark counts as none");
        }
    }
}

/// Whatever a caller names an attribute comes back as it was, and is never taken for a mark.
fn names(name: &[u8]) {
    for dialect in [Dialect::Trusted, Dialect::User] {
        for name in [name.to_vec(), [dialect.prefix(), name].concat()] {
            let stored = dialect.escape(&name);
            assert!(dialect.mark(&stored).is_none() && !dialect.is_private(&stored), "it is no mark");
            assert_eq!(dialect.unescape(&stored).as_ref(), Some(&name));
        }
    }
}
