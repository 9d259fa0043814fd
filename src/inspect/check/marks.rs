//! Marks of wrong form: those that say nothing, to the kernel's overlayfs as little as to plyfs.

use crate::at::{At, split_names};
use crate::attr::{Attr, Kind};
use crate::error::{Context, Result};
use crate::layer::marks::{Mark, Metacopy, Opaque, Redirect};

use super::Check;
use super::repair::Fix;

impl Check {
    /// Checks the form of the marks of one object, in a directory whose own opaque mark is `dir`.
    pub(super) fn check_form(&mut self, path: &[u8], at: At<'_>, attr: &Attr, dir: Opaque) -> Result<()> {
        let names = at.xattr_names().during("read marks")?;
        for name in split_names(&names) {
            let Some(mark) = self.dialect.mark(name) else { continue };
            let Some(value) = at.xattr(name).during("read marks")? else { continue };
            self.check_mark(path, attr, dir, mark, &value);
        }
        Ok(())
    }

    fn check_mark(&mut self, path: &[u8], attr: &Attr, dir: Opaque, mark: Mark, value: &[u8]) {
        let kind = attr.kind();
        let is_dir = kind == Kind::Dir;
        let shown = value.escape_ascii();
        let remove = || Some((Fix::Remove(path.to_vec(), mark), "removed, as it says nothing".to_owned()));
        let set = |value: &[u8]| {
            let fix = Fix::Set(path.to_vec(), mark, value.to_vec());
            Some((fix, format!("set to {}", value.escape_ascii())))
        };
        let wrong = "wrong mark";
        match mark {
            Mark::Opaque if !is_dir || !matches!(value, b"y" | b"x") => {
                self.problem(path, wrong, format!("the opaque mark of a {} is {shown:?}", word(kind)), remove());
            }
            Mark::Impure if !is_dir => self.problem(path, wrong, "an impure mark on no directory", remove()),
            Mark::Impure if value != b"y" => {
                self.problem(path, wrong, format!("the impure mark is \"{shown}\""), set(b"y"));
            }
            Mark::Redirect if Redirect::parse(value).is_err() => {
                let fix = (Fix::Detach(path.to_vec()), format!("made opaque, its redirect \"{shown}\" removed"));
                self.problem(path, wrong, format!("the redirect \"{shown}\" is no path"), is_dir.then_some(fix));
            }
            Mark::Metacopy if kind != Kind::File => {
                self.problem(path, wrong, format!("a metacopy mark on a {}", word(kind)), remove());
            }
            // It may have its data or not.
            Mark::Metacopy if Metacopy::parse(value) == Metacopy::Invalid => {
                self.problem(path, wrong, format!("the metacopy mark is \"{shown}\""), None);
            }
            Mark::Origin if !is_origin(value) => {
                self.problem(path, wrong, format!("the origin mark is no file handle: {shown}"), remove());
            }
            Mark::Nlink if !is_link_count(value) => {
                self.problem(path, wrong, format!("the link count mark is \"{shown}\""), remove());
            }
            Mark::ProtAttr if value.is_empty() || !value.iter().all(|flag| matches!(flag, b'i' | b'a')) => {
                let known: Vec<u8> = value.iter().copied().filter(|flag| matches!(flag, b'i' | b'a')).collect();
                let fix = if known.is_empty() { remove() } else { set(&known) };
                self.problem(path, wrong, format!("the mark of protected attributes is \"{shown}\""), fix);
            }
            Mark::Whiteout if kind != Kind::File || attr.size > 0 => {
                self.problem(path, wrong, "a whiteout mark on what is no empty file", remove());
            }
            Mark::Whiteout if dir != Opaque::XattrWhiteouts => {
                let parent = path.iter().rposition(|byte| *byte == b'/').and_then(|at| path.get(..at));
                let fix = Fix::Set(parent.unwrap_or_default().to_vec(), Mark::Opaque, b"x".to_vec());
                // What an opaque directory holds is seen, whatever it was meant to hide.
                let fix = (dir == Opaque::No).then(|| (fix, "its directory marked opaque=x".to_owned()));
                let what = "a whiteout by its mark, in a directory that is not marked opaque=x";
                self.problem(path, "idle mark", what, fix);
            }
            _ => {}
        }
    }
}

/// Whether a mark has the form of an origin, of whichever machine. An empty one says that there was none to be known.
fn is_origin(value: &[u8]) -> bool {
    match value {
        [] => true,
        [0, 0xfb, len, _, _, rest @ ..] => usize::from(*len) == value.len() && rest.len() >= 16,
        _ => false,
    }
}

/// Whether a mark is like `U+1` or `L-2`.
fn is_link_count(value: &[u8]) -> bool {
    match value {
        [b'U' | b'L', b'+' | b'-', digits @ ..] => !digits.is_empty() && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

fn word(kind: Kind) -> &'static str {
    crate::inspect::says::word(kind)
}
