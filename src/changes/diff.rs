//! What was added, changed and deleted, as docker and podman tell it.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{self, Mode, OFlags};
use serde::Serialize;

use crate::at::At;
use crate::attr::{Attr, Kind as Type};
use crate::error::{Error, Result};
use crate::image::unpack::beneath;
use crate::layer::marks::{DOT_OPAQUE, DOT_WHITEOUT, Dialect, Marks, Opaque, is_xattr_whiteout};
use crate::sys::creds::is_privileged;

use super::Changed;
use super::linked::linked;
use super::view::{Object, View};

/// What happened to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Kind {
    /// It is new.
    #[serde(rename = "A")]
    Added,
    /// It is not what it was; of a directory also that something in it is not.
    #[serde(rename = "C")]
    Changed,
    /// It is gone.
    #[serde(rename = "D")]
    Deleted,
}

impl Kind {
    /// As a letter.
    pub const fn letter(self) -> char {
        match self {
            Self::Added => 'A',
            Self::Changed => 'C',
            Self::Deleted => 'D',
        }
    }
}

/// Paths without a slash before them, and what happened to them, in the order of the paths.
pub type Changes = BTreeMap<Vec<u8>, Kind>;

/// What an entry of an upper is.
#[derive(Debug)]
pub(super) enum Raw {
    /// It hides this name.
    Whiteout(Vec<u8>),
    /// An object of this name.
    Object(Vec<u8>, Attr, Marks),
}

/// The entries of the directory `path` of an upper, by name, and whether it is opaque by one of them.
///
/// # Errors
/// Those of the upper.
pub(super) fn raw_entries(upper: &OwnedFd, path: &[u8]) -> Result<(Vec<Raw>, bool)> {
    let dialect = if is_privileged() { Dialect::Trusted } else { Dialect::User };
    let named = |errno| Error::new(errno, "read").on(format!("upper, {}", path.escape_ascii()));
    let dir = beneath::open(upper.as_fd(), path, OFlags::RDONLY | OFlags::DIRECTORY).map_err(named)?;
    let may_hide = Marks::of_lower(At::fd(&dir), dialect).map_err(named)?.opaque == Opaque::XattrWhiteouts;
    let (mut entries, mut is_opaque) = (Vec::new(), false);
    for entry in fs::Dir::read_from(&dir).map_err(named)? {
        let entry = entry.map_err(named)?;
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        if name == DOT_OPAQUE {
            is_opaque = true;
            continue;
        }
        if let Some(hidden) = name.strip_prefix(DOT_WHITEOUT) {
            entries.push(Raw::Whiteout(hidden.to_vec()));
            continue;
        }
        let at = At::new(&dir, name);
        let attr = at.attr().map_err(named)?;
        let hides = attr.is_whiteout()
            || (may_hide && attr.kind() == Type::File && attr.size == 0 && is_xattr_whiteout(at).map_err(named)?);
        entries.push(if hides {
            Raw::Whiteout(name.to_vec())
        } else {
            Raw::Object(name.to_vec(), attr, Marks::of_lower(at, dialect).map_err(named)?)
        });
    }
    entries.sort_unstable_by(|a, b| a.name().cmp(b.name()));
    Ok((entries, is_opaque))
}

impl Raw {
    fn name(&self) -> &[u8] {
        match self {
            Self::Whiteout(name) | Self::Object(name, ..) => name,
        }
    }
}

/// The path of `name` in the directory `dir`.
pub(super) fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() }
}

/// What the upper changes. Takes time for what is in it, and for directories that were renamed.
///
/// # Errors
/// Those of the layers.
pub fn changes(changed: &Changed) -> Result<Changes> {
    if changed.lowers.is_empty() {
        return told_by_marks(changed);
    }
    let upper = open_upper(changed)?;
    let mut found = Changes::new();
    let whole = View::of(changed)?;
    let base = View::open(changed.lowers.clone())?;
    let mut left: Vec<Vec<u8>> = vec![Vec::new()];
    while let Some(path) = left.pop() {
        let below = base.at(&path)?;
        let (entries, _) = raw_entries(&upper, &path)?;
        for entry in entries {
            let old = |name: &[u8]| below.map_or(Ok(None), |below| base.find(below.ino, name));
            match entry {
                Raw::Whiteout(name) => {
                    let is_there = old(&name)?.is_some();
                    let path = join(&path, &name);
                    // A name that is hidden by .wh. may be there again.
                    if is_there && whole.at(&path)?.is_none() {
                        found.insert(path, Kind::Deleted);
                    }
                }
                Raw::Object(name, attr, marks) => {
                    let old = old(&name)?;
                    let path = join(&path, &name);
                    let is_dir = attr.kind() == Type::Dir;
                    let Some(old) = old else {
                        found.insert(path.clone(), Kind::Added);
                        if is_dir {
                            added_below(&whole, &path, &mut found)?;
                        }
                        continue;
                    };
                    let now = whole.at(&path)?;
                    if now.map_or(Ok(true), |now| differ(&whole, now, &base, old))? {
                        found.insert(path.clone(), Kind::Changed);
                    }
                    if is_dir && old.attr.kind() == Type::Dir {
                        let is_opaque = marks.opaque == Opaque::Yes || raw_entries(&upper, &path)?.1;
                        if is_opaque || marks.redirect.is_some() {
                            compare_below(&whole, &base, &path, &mut found)?;
                        } else {
                            left.push(path);
                        }
                    } else if is_dir {
                        added_below(&whole, &path, &mut found)?;
                    }
                }
            }
        }
    }
    for path in linked(changed, &whole)? {
        if let (Some(now), Some(old)) = (whole.at(&path)?, base.at(&path)?)
            && differ(&whole, now, &base, old)?
        {
            found.entry(path).or_insert(Kind::Changed);
        }
    }
    Ok(with_parents(found))
}

/// What the upper alone tells, where nothing is known of what is below: what has the mark of a copy was there before,
/// anything else is taken as new; also a directory that was moved, and all that was moved into what is new.
fn told_by_marks(changed: &Changed) -> Result<Changes> {
    let upper = open_upper(changed)?;
    let mut found = Changes::new();
    let mut left = vec![(Vec::new(), false)];
    while let Some((dir, is_new)) = left.pop() {
        let (entries, _) = raw_entries(&upper, &dir)?;
        let is_there =
            |name: &[u8]| entries.iter().any(|entry| matches!(entry, Raw::Object(..)) && entry.name() == name);
        for entry in &entries {
            let path = join(&dir, entry.name());
            match entry {
                Raw::Whiteout(name) => {
                    if !is_new && !is_there(name) {
                        found.insert(path, Kind::Deleted);
                    }
                }
                Raw::Object(name, attr, marks) => {
                    // A full path, or another name in this directory.
                    let is_own = |from: &[u8]| from.strip_prefix(b"/").map_or(from == name, |from| from == path);
                    let is_moved = marks.redirect.as_ref().is_some_and(|from| !is_own(from));
                    let is_copy = marks.origin.is_some() && !is_new && !is_moved;
                    found.insert(path.clone(), if is_copy { Kind::Changed } else { Kind::Added });
                    if attr.kind() == Type::Dir {
                        left.push((path, !is_copy));
                    }
                }
            }
        }
    }
    Ok(with_parents(found))
}

/// What is another in the tree of the layers `new` than in that of `old`, both topmost first. Looks at all of both.
///
/// # Errors
/// Those of the layers.
pub fn between(new: Vec<PathBuf>, old: Vec<PathBuf>) -> Result<Changes> {
    let mut found = Changes::new();
    compare_below(&View::open(new)?, &View::open(old)?, b"", &mut found)?;
    Ok(with_parents(found))
}

pub(super) fn open_upper(changed: &Changed) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    fs::open(&changed.upper, flags, Mode::empty())
        .map_err(|errno| Error::new(errno, "open").on(changed.upper.display().to_string()))
}

fn added_below(whole: &View, path: &[u8], found: &mut Changes) -> Result<()> {
    let mut left = vec![path.to_vec()];
    while let Some(path) = left.pop() {
        let Some(dir) = whole.at(&path)? else { continue };
        for name in whole.names(dir.ino)? {
            let path = join(&path, &name);
            if whole.find(dir.ino, &name)?.is_some_and(|object| object.attr.kind() == Type::Dir) {
                left.push(path.clone());
            }
            found.insert(path, Kind::Added);
        }
    }
    Ok(())
}

/// Compares all that lies in a directory that both trees have.
fn compare_below(whole: &View, base: &View, path: &[u8], found: &mut Changes) -> Result<()> {
    let mut left = vec![path.to_vec()];
    while let Some(path) = left.pop() {
        let (Some(new), Some(old)) = (whole.at(&path)?, base.at(&path)?) else { continue };
        for name in base.names(old.ino)? {
            if whole.find(new.ino, &name)?.is_none() {
                found.insert(join(&path, &name), Kind::Deleted);
            }
        }
        for name in whole.names(new.ino)? {
            let path = join(&path, &name);
            let Some(now) = whole.find(new.ino, &name)? else { continue };
            let is_dir = now.attr.kind() == Type::Dir;
            match base.find(old.ino, &name)? {
                None => {
                    found.insert(path.clone(), Kind::Added);
                    if is_dir {
                        added_below(whole, &path, found)?;
                    }
                }
                Some(was) => {
                    if differ(whole, now, base, was)? {
                        found.insert(path.clone(), Kind::Changed);
                    }
                    match (is_dir, was.attr.kind() == Type::Dir) {
                        (true, true) => left.push(path),
                        (true, false) => added_below(whole, &path, found)?,
                        _ => {}
                    }
                }
            }
        }
    }
    Ok(())
}

/// Whether two objects differ in what is told of them. The time of a directory tells nothing.
fn differ(new_tree: &View, new: Object, old_tree: &View, old: Object) -> Result<bool> {
    let (now, was) = (new.attr, old.attr);
    let kind = now.kind();
    let is_dir = kind == Type::Dir;
    let same = kind == was.kind()
        && (now.mode, now.uid, now.gid, now.rdev) == (was.mode, was.uid, was.gid, was.rdev)
        && (is_dir || (now.size, now.mtime) == (was.size, was.mtime));
    if !same {
        return Ok(true);
    }
    if kind == Type::Symlink && new_tree.target(new.ino)? != old_tree.target(old.ino)? {
        return Ok(true);
    }
    Ok(new_tree.xattrs(new.ino)? != old_tree.xattrs(old.ino)?)
}

/// Directories in which something changed have changed.
fn with_parents(mut changes: Changes) -> Changes {
    let paths: Vec<Vec<u8>> = changes.keys().cloned().collect();
    for path in paths {
        let (mut parent, _) = beneath::split(&path);
        while !parent.is_empty() && !changes.contains_key(parent) {
            changes.insert(parent.to_vec(), Kind::Changed);
            (parent, _) = beneath::split(parent);
        }
    }
    changes
}
