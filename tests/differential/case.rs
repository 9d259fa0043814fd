//! A case: layers, and operations on them, with a form as text.

use std::fmt;
use std::str::FromStr;

/// What a test does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Case {
    /// The lower layers, topmost first, each with its entries in the order in which they are made.
    pub layers: Vec<Vec<Entry>>,
    pub operations: Vec<Operation>,
}

/// An entry of a layer. Paths are bytes without blanks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// `dir`, `file`, `symlink`, `fifo`, `link`, `whiteout`, `opaque` or `xattr`.
    pub kind: String,
    pub path: String,
    /// The target of a symlink or link.
    pub target: String,
    pub mode: u32,
    /// Size of a file, in bytes; its owner is 1000 when this is odd.
    pub size: usize,
}

/// An operation, as `run.rs` knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    pub kind: String,
    pub path: String,
    pub other: String,
    pub number: u32,
}

impl Case {
    /// Some lower file has more than one name.
    pub fn has_links(&self) -> bool {
        self.layers.iter().flatten().any(|entry| entry.kind == "link")
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for layer in &self.layers {
            writeln!(f, "layer")?;
            for Entry { kind, path, target, mode, size } in layer {
                writeln!(f, "  {kind} {path} {target} {mode:o} {size}")?;
            }
        }
        writeln!(f, "operations")?;
        for Operation { kind, path, other, number } in &self.operations {
            writeln!(f, "  {kind} {path} {other} {number}")?;
        }
        Ok(())
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
            match words.as_slice() {
                ["layer"] => case.layers.push(Vec::new()),
                ["operations"] => in_operations = true,
                [kind, path, other, number] if in_operations => case.operations.push(Operation {
                    kind: (*kind).to_owned(),
                    path: (*path).to_owned(),
                    other: (*other).to_owned(),
                    number: number.parse().map_err(|_| bad())?,
                }),
                [kind, path, target, mode, size] => case.layers.last_mut().ok_or_else(bad)?.push(Entry {
                    kind: (*kind).to_owned(),
                    path: (*path).to_owned(),
                    target: (*target).to_owned(),
                    mode: u32::from_str_radix(mode, 8).map_err(|_| bad())?,
                    size: size.parse().map_err(|_| bad())?,
                }),
                _ => return Err(bad()),
            }
        }
        Ok(case)
    }
}
