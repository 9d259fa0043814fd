//! Hard links of the layers below that were changed under another name: the upper holds one of their names, or none,
//! and the index of the work directory the file.

use std::collections::BTreeSet;

use crate::attr::Kind;
use crate::error::{Errno, Error, Result};
use crate::image::unpack::beneath;

use super::Changed;
use super::diff::join;
use super::view::View;

/// The paths of all files of several names that the upper or its index holds. Looks at the whole tree, unless the index
/// is empty.
///
/// # Errors
/// Those of the layers and of the index.
pub(super) fn linked(changed: &Changed, whole: &View) -> Result<BTreeSet<Vec<u8>>> {
    let mut found = BTreeSet::new();
    if !has_index(changed)? {
        return Ok(found);
    }
    let mut left = vec![(Vec::new(), whole.root()?.ino)];
    while let Some((path, dir)) = left.pop() {
        for name in whole.names(dir)? {
            let Some(object) = whole.find(dir, &name)? else { continue };
            let path = join(&path, &name);
            if object.attr.kind() == Kind::Dir {
                left.push((path, object.ino));
            } else if object.attr.nlink > 1 && whole.is_copied(object.ino)? {
                found.insert(path);
            }
        }
    }
    Ok(found)
}

fn has_index(changed: &Changed) -> Result<bool> {
    let Some(index) = changed.work.as_ref().map(|work| work.join("index")) else { return Ok(false) };
    match std::fs::read_dir(&index) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            Err(Error::new(errno, "read").on(index.display().to_string()))
        }
    }
}

/// The directories on the way to these paths, without the root.
pub(super) fn parents(paths: &BTreeSet<Vec<u8>>) -> BTreeSet<Vec<u8>> {
    let mut parents = BTreeSet::new();
    for path in paths {
        let (mut parent, _) = beneath::split(path);
        while !parent.is_empty() && parents.insert(parent.to_vec()) {
            (parent, _) = beneath::split(parent);
        }
    }
    parents
}
