//! What one layer says under a name, in words.

use std::os::fd::AsFd;

use serde::Serialize;

use crate::at::At;
use crate::attr::{Attr, Kind};
use crate::error::{Context, Result};
use crate::layer::Layer;
use crate::layer::marks::{DOT_OPAQUE, DOT_WHITEOUT, Dialect, Marks, Metacopy, Opaque, is_xattr_whiteout};
use crate::layer::origin::Origin;
use crate::name::Name;

/// Attributes that keep owners and modes which the files themselves have not.
const OVERRIDES: [&[u8]; 3] =
    [b"user.containers.override_stat", b"user.fuseoverlayfs.override_stat", b"trusted.fuseoverlayfs.override_stat"];

/// What a layer holds under a name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Says {
    /// `file`, `directory`, `whiteout`, …; `nothing` where it holds nothing.
    pub is: &'static str,
    /// In which form the whiteout is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub whiteout: Option<&'static str>,
    /// Why the directory hides what lies below it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opaque: Option<&'static str>,
    /// Under which name or path the layers below know it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redirect: Option<String>,
    /// Its data is in a layer below.
    #[serde(skip_serializing_if = "is_false")]
    pub metacopy: bool,
    /// Which lower inode it came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// What else it carries that is to be known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Its size in bytes, for a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// The permission bits, in octal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Its owner and group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Its link count, where that is above one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub links: Option<u32>,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// In which layer a name is looked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading<'a> {
    pub(super) dialect: Dialect,
    pub(super) is_upper: bool,
    /// The lower layers, in which origins are looked for.
    pub(super) lowers: &'a [Layer],
}

impl Reading<'_> {
    /// What lies under `name` in the directory `dir` of a layer.
    ///
    /// # Errors
    /// Those of the layer.
    pub(super) fn says(self, dir: &impl AsFd, name: &Name) -> Result<Says> {
        let at = At::new(dir, name.as_bytes());
        let dot_name = [DOT_WHITEOUT, name.as_bytes()].concat();
        let has_dot_whiteout = At::new(dir, &dot_name).find().during("look up")?.is_some();
        let Some(attr) = at.find().during("look up")? else {
            return Ok(if has_dot_whiteout {
                whiteout(".wh. file")
            } else {
                Says { is: "nothing", ..Says::default() }
            });
        };
        if attr.is_whiteout() {
            return Ok(whiteout("device 0:0"));
        }
        if attr.kind() == Kind::File && attr.size == 0 && is_xattr_whiteout(at).during("read marks")? {
            let marks = self.marks(At::fd(dir))?;
            if marks.opaque == Opaque::XattrWhiteouts {
                return Ok(whiteout("overlay.whiteout in a directory with overlay.opaque=x"));
            }
        }
        let mut says = self.object(at, &attr)?;
        if attr.kind() == Kind::Dir && says.opaque.is_none() {
            let opaque = At::new(dir, &[name.as_bytes(), b"/", DOT_OPAQUE].concat()).find();
            if opaque.is_ok_and(|found| found.is_some()) {
                says.opaque = Some(".wh..wh..opq in it");
            } else if has_dot_whiteout && says.redirect.is_none() {
                says.opaque = Some("a .wh. file beside it");
            }
        }
        Ok(says)
    }

    fn marks(self, at: At<'_>) -> Result<Marks> {
        let marks = if self.is_upper { Marks::of_upper } else { Marks::of_lower };
        marks(at, self.dialect).during("read marks")
    }

    fn object(self, at: At<'_>, attr: &Attr) -> Result<Says> {
        let kind = attr.kind();
        let mut says = Says {
            is: word(kind),
            size: (kind == Kind::File).then_some(attr.size),
            mode: Some(format!("{:04o}", attr.mode & 0o7777)),
            owner: Some(format!("{}:{}", attr.uid, attr.gid)),
            links: (kind != Kind::Dir && attr.nlink > 1).then_some(attr.nlink),
            ..Says::default()
        };
        let marks = self.marks(at)?;
        match marks.opaque {
            Opaque::No => {}
            Opaque::Yes => says.opaque = Some("overlay.opaque=y"),
            Opaque::XattrWhiteouts => says.notes.push("overlay.opaque=x: it may hold xattr whiteouts".to_owned()),
        }
        says.redirect = marks.redirect.as_deref().map(|value| value.escape_ascii().to_string());
        match marks.metacopy {
            Metacopy::No => {}
            Metacopy::Yes => says.metacopy = true,
            Metacopy::Invalid => says.notes.push("a metacopy mark that nobody understands".to_owned()),
        }
        says.origin = marks.origin.as_deref().filter(|mark| !mark.is_empty()).map(|mark| self.origin(mark));
        if marks.whiteout {
            says.notes.push("overlay.whiteout, which counts in a directory with overlay.opaque=x only".to_owned());
        }
        if marks.impure {
            says.notes.push("impure".to_owned());
        }
        if let Some(nlink) = &marks.nlink {
            says.notes.push(format!("link count {}", nlink.escape_ascii()));
        }
        for (is_set, flag) in [(marks.immutable, "immutable"), (marks.append_only, "append-only")] {
            if is_set || (flag == "immutable" && attr.immutable) || (flag == "append-only" && attr.append_only) {
                says.notes.push(flag.to_owned());
            }
        }
        for name in OVERRIDES {
            // Of some types of files nobody may ask for such attributes.
            if let Ok(Some(value)) = at.xattr(name) {
                let (name, value) = (name.escape_ascii(), value.escape_ascii());
                says.notes.push(format!("{name}={value}"));
            }
        }
        Ok(says)
    }

    fn origin(self, mark: &[u8]) -> String {
        let Some(origin) = Origin::decode(mark) else { return "a mark that is none".to_owned() };
        let Some(source) = origin.find(self.lowers) else { return "an inode that none of the layers has".to_owned() };
        let layers = self.lowers.iter().enumerate().filter(|(_, layer)| layer.attr.dev == source.dev);
        let numbers: Vec<String> = layers.map(|(index, _)| index.saturating_add(1).to_string()).collect();
        format!("inode {} on the filesystem of lower {}", source.ino, numbers.join(", "))
    }
}

fn whiteout(form: &'static str) -> Says {
    Says { is: "whiteout", whiteout: Some(form), ..Says::default() }
}

/// What a type of file is called.
pub(super) const fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::File => "file",
        Kind::Dir => "directory",
        Kind::Symlink => "symlink",
        Kind::Fifo => "fifo",
        Kind::Socket => "socket",
        Kind::Char => "character device",
        Kind::Block => "block device",
    }
}
