//! A case: a world, layers, and operations on them, with a form as text.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// What a test does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Case {
    /// How it is mounted, as `world.rs` knows it: words with blanks between them.
    pub world: String,
    /// The lower layers, topmost first, each with its entries in the order in which they are made.
    pub layers: Vec<Vec<Entry>>,
    pub operations: Vec<Operation>,
}

/// An entry of a layer, as `build.rs` makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub kind: String,
    pub path: Bytes,
    /// The target of a symlink or link, the name of an attribute.
    pub target: Bytes,
    pub mode: u32,
    /// The size of a file in bytes; says of anything else what its kind leaves open.
    pub size: usize,
}

/// An operation, as `perform.rs` does it; `remount` mounts anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    pub kind: String,
    /// Who does it, if not root: a user id, with a `+` one who is in group 5.
    pub who: Option<(u32, bool)>,
    pub path: Bytes,
    pub other: Bytes,
    /// Says what the kind leaves open.
    pub number: u32,
}

/// The longest name there can be.
pub const LONGEST: [u8; 255] = [b'l'; 255];

/// A path or name. As text, all but printable ASCII is `%` and two hexadecimal digits, and [`LONGEST`] is `%l`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Bytes(pub Vec<u8>);

impl Bytes {
    pub fn path(&self) -> PathBuf {
        Path::new(OsStr::from_bytes(&self.0)).to_owned()
    }

    /// The path of the directory that holds it; empty for the root.
    pub fn parent(&self) -> Self {
        let end = self.0.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        Self(self.0[..end].to_vec())
    }

    /// As text it is one word.
    fn of_text(text: &str) -> Option<Self> {
        if text == "-" {
            return Some(Self::default());
        }
        let mut bytes = Vec::new();
        let mut rest = text.as_bytes();
        while let [first, after @ ..] = rest {
            rest = after;
            if let (b'%', [b'l', after @ ..]) = (first, rest) {
                bytes.extend_from_slice(&LONGEST);
                rest = after;
            } else if *first == b'%' {
                let (digits, after) = rest.split_at_checked(2)?;
                bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
                rest = after;
            } else {
                bytes.push(*first);
            }
        }
        Some(Self(bytes))
    }
}

impl From<&str> for Bytes {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if matches!(self.0.as_slice(), b"" | b"-") {
            return f.write_str(if self.0.is_empty() { "-" } else { "%2d" });
        }
        for (index, name) in self.0.split(|byte| *byte == b'/').enumerate() {
            f.write_str(if index == 0 { "" } else { "/" })?;
            if name == LONGEST {
                f.write_str("%l")?;
                continue;
            }
            for byte in name {
                match byte {
                    byte if byte.is_ascii_graphic() && *byte != b'%' => write!(f, "{}", char::from(*byte))?,
                    byte => write!(f, "%{byte:02x}")?,
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Case {
    /// Some layer has an entry of that kind.
    pub fn has(&self, kind: &str) -> bool {
        self.layers.iter().flatten().any(|entry| entry.kind == kind)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, path, other, number, who } = self;
        match who {
            None => write!(f, "{kind}")?,
            Some((uid, false)) => write!(f, "{kind}@{uid}")?,
            Some((uid, true)) => write!(f, "{kind}@{uid}+")?,
        }
        write!(f, " {path} {other} {number}")
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.world.is_empty() {
            writeln!(f, "world {}", self.world)?;
        }
        for layer in &self.layers {
            writeln!(f, "layer")?;
            for Entry { kind, path, target, mode, size } in layer {
                writeln!(f, "  {kind} {path} {target} {mode:o} {size}")?;
            }
        }
        writeln!(f, "operations")?;
        self.operations.iter().try_for_each(|operation| writeln!(f, "  {operation}"))
    }
}

impl FromStr for Case {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut case = Self::default();
        let mut in_operations = false;
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let bad = || format!("not understood: {line}");
            let bytes = |text| Bytes::of_text(text).ok_or_else(bad);
            match words.as_slice() {
                ["world", world @ ..] => case.world = world.join(" "),
                ["layer"] => case.layers.push(Vec::new()),
                ["operations"] => in_operations = true,
                [kind, path, other, number] if in_operations => {
                    let (kind, who) = match kind.split_once('@') {
                        None => (*kind, None),
                        Some((kind, who)) => {
                            let uid = who.trim_end_matches('+').parse().map_err(|_| bad())?;
                            (kind, Some((uid, who.ends_with('+'))))
                        }
                    };
                    case.operations.push(Operation {
                        kind: kind.to_owned(),
                        who,
                        path: bytes(path)?,
                        other: bytes(other)?,
                        number: number.parse().map_err(|_| bad())?,
                    });
                }
                [kind, path, target, mode, size] => case.layers.last_mut().ok_or_else(bad)?.push(Entry {
                    kind: (*kind).to_owned(),
                    path: bytes(path)?,
                    target: bytes(target)?,
                    mode: u32::from_str_radix(mode, 8).map_err(|_| bad())?,
                    size: size.parse().map_err(|_| bad())?,
                }),
                _ => return Err(bad()),
            }
        }
        Ok(case)
    }
}
