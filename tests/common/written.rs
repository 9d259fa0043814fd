//! What an overlay wrote into its upper, to be compared with what another one wrote.

use std::fs;
use std::os::unix::fs::MetadataExt;

use super::{Detail, Mounted, Snapshot, xattrs};

/// More than what extended attributes take, and much less than the data of a file that counts.
pub const FEW_BLOCKS: u64 = 64;

/// What the upper and the index hold, a line each, as far as it does not depend on the time or on who wrote it.
pub fn written(tree: &Mounted) -> Vec<String> {
    let mut list = Vec::new();
    for path in Snapshot::of(&tree.upper(""), Detail::Layer).paths() {
        let meta = fs::symlink_metadata(tree.upper(&path)).unwrap();
        let mut line = format!("/{path}: mode {:o}, owner {}:{}", meta.mode(), meta.uid(), meta.gid());
        if meta.is_file() {
            let is_sparse = meta.blocks() < FEW_BLOCKS;
            line += &format!(", {} links, {} bytes, no data: {is_sparse}", meta.nlink(), meta.len());
        }
        for (name, value) in xattrs(&tree.upper(&path)) {
            // A number drawn for each upper, and what binds an index to its lower layer.
            let is_binding = path.is_empty() && name.ends_with(".overlay.origin");
            if !is_binding && !name.ends_with(".overlay.uuid") {
                line += &format!(", {name}={}", value.escape_ascii());
            }
        }
        list.push(line);
    }
    let mut index = Vec::new();
    if let Ok(entries) = fs::read_dir(tree.beside("work/index")) {
        index.extend(entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()));
    }
    // The kernel's overlayfs stages there as well, and clears that away with the next mount.
    index.retain(|name| !name.starts_with('#'));
    index.sort();
    list.extend(index);
    list
}

/// Fails with the first line that differs.
#[track_caller]
pub fn assert_same_lines(found: &[String], wanted: &[String], what: &str) {
    for (found, wanted) in found.iter().zip(wanted) {
        assert_eq!(found, wanted, "{what}");
    }
    assert_eq!(found.len(), wanted.len(), "{what}");
}
