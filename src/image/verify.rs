//! Checking what is in the store: whether layers are still what their diff IDs tell, on the disk as well.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write, pipe};
use std::os::fd::{AsFd, BorrowedFd};
use std::thread;

use rustix::fs::OFlags;

use crate::at::At;
use crate::attr::Kind;
use crate::error::{Errno, Error, Result};

use super::limits::Limits;
use super::store::layer::LayerRef;
use super::tar::entry::{Entry, What};
use super::tar::read::Reader;
use super::tar::record::replay;
use super::unpack::beneath;
use super::unpack::form::{KEY, Owners};
use super::unpack::path::{Meaning, meaning};

/// What is wrong with a layer, a line each; nothing if it is what it was.
///
/// # Errors
/// Why it could not be looked at.
pub fn layer(layer: &LayerRef) -> Result<Vec<String>> {
    let named = |errno| Error::new(errno, "verify").on(format!("layer {}", layer.info.diff_id));
    let root = layer.open_root().map_err(named)?;
    let stream = layer.stream().map_err(named)?;
    let (input, output) = pipe()?;
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut output = BufWriter::with_capacity(1 << 16, output);
            replay(stream, root.as_fd(), &mut output).and_then(|()| output.flush())
        });
        let compared = compare(input, root.as_fd(), layer);
        let written = writer.join().map_err(|_| named(Errno::IO))?;
        Ok(match (written, compared) {
            (Err(error), _) => vec![error.to_string()],
            (Ok(()), Err(reason)) => vec![reason],
            (Ok(()), Ok(lines)) => lines,
        })
    })
}

fn compare(input: impl std::io::Read, root: BorrowedFd<'_>, layer: &LayerRef) -> Result<Vec<String>, String> {
    let mut reader = Reader::new(input, None, Limits::NONE);
    // A later entry may be in the place of an earlier one.
    let mut wrong: BTreeMap<Vec<u8>, String> = BTreeMap::new();
    while let Some(entry) = reader.next_entry()? {
        let path = match meaning(&entry.path)? {
            Meaning::Object(path) => path,
            Meaning::Root => Vec::new(),
            _ => continue,
        };
        match differs(root, &path, &entry, layer.info.owners) {
            Some(reason) => drop(wrong.insert(path, reason)),
            None => drop(wrong.remove(&path)),
        }
    }
    let (diff_id, _) = reader.finish()?;
    let mut lines: Vec<String> =
        wrong.into_iter().map(|(path, reason)| format!("{}: {reason}", path.escape_ascii())).collect();
    if diff_id != layer.info.diff_id {
        lines.push(format!("its content has the digest {diff_id}"));
    }
    Ok(lines)
}

/// How what is on the disk differs from the entry.
fn differs(root: BorrowedFd<'_>, path: &[u8], entry: &Entry, owners: Owners) -> Option<String> {
    let fd = match beneath::open(root, path, OFlags::PATH) {
        Ok(fd) => fd,
        // Without privilege, device nodes may have been left out.
        Err(Errno::NOENT) if matches!(entry.what, What::Object(Kind::Char | Kind::Block)) => return None,
        Err(errno) => return Some(errno.to_string()),
    };
    let key = (owners == Owners::Override).then_some(KEY);
    let attr = match At::fd(&fd).keeping(key).attr() {
        Ok(attr) => attr,
        Err(errno) => return Some(errno.to_string()),
    };
    let What::Object(kind) = entry.what else { return None };
    if attr.kind() != kind {
        return Some("of another type".into());
    }
    if kind == Kind::File && attr.size != entry.size {
        return Some(format!("{} bytes instead of {}", attr.size, entry.size));
    }
    if attr.mtime != entry.mtime {
        return Some("changed at another time".into());
    }
    // Of symlinks, no owner is kept.
    let has_owner = owners == Owners::Real || kind != Kind::Symlink;
    if has_owner && (attr.uid, attr.gid) != (entry.uid, entry.gid) {
        return Some(format!("of owner {}:{} instead of {}:{}", attr.uid, attr.gid, entry.uid, entry.gid));
    }
    if kind != Kind::Symlink && attr.mode & 0o7777 != entry.mode {
        return Some(format!("of mode {:o} instead of {:o}", attr.mode & 0o7777, entry.mode));
    }
    if kind == Kind::Symlink && At::fd(&fd).read_link().ok().as_deref() != Some(&entry.target) {
        return Some("a symlink to elsewhere".into());
    }
    None
}
