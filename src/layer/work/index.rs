//! The index with `index=on`: it belongs to one upper, which belongs to one first lower layer, and is freed at mount of
//! entries that name nothing any more. All as the kernel's overlayfs does, so that one refuses what the other does.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags};

use crate::at::At;
use crate::attr::Kind;
use crate::calls;
use crate::error::{Context, Errno, Error, Result};
use crate::layer::marks::{Dialect, Mark, counted_links};
use crate::layer::origin::Origin;
use crate::layer::{Layer, subject};

use super::clean;

/// What the names of things that are being made begin with.
const STAGED: &[u8] = b"#";

/// Binds the upper to its first lower layer and the index to the upper, or checks that they are bound so, and cleans the
/// index. Where a layer's filesystem has no handles it does nothing, as then there is nothing to bind by.
///
/// # Errors
/// `ESTALE` for another upper or first lower layer, `EINVAL` and `ENODATA` for what cannot be in an index.
pub(super) fn bind(index: &OwnedFd, upper: &Layer, lowers: &[Layer], dialect: Dialect) -> Result<()> {
    let refused = |operation| {
        move |errno| {
            let error = Error::new(errno, operation).on(subject("upperdir", &upper.path));
            if errno == Errno::STALE {
                error.because("it belongs to another lower layer or workdir (see index=off)")
            } else {
                error
            }
        }
    };
    let root_of = |layer: &Layer| Origin::of(layer, At::fd(&layer.root()), &layer.attr);
    let of_upper = root_of(upper).map_err(refused("make a handle of"))?;
    let of_lowers: Vec<_> = lowers.iter().map(root_of).collect::<Result<_, _>>().map_err(refused("verify"))?;
    let Some(of_first) = of_lowers.first() else { return Ok(()) };
    if let Some(origin) = of_lowers.iter().chain([&of_upper]).find(|origin| !origin.is_handle()) {
        log::warn!("a layer's filesystem has no file handles, falling back to index=off: {origin:?}");
        return Ok(());
    }
    verify(At::fd(&upper.root()), dialect, Mark::Origin, &of_first.encode()).map_err(refused("verify"))?;
    verify(At::fd(index), dialect, Mark::Upper, &of_upper.encode_upper()).map_err(refused("verify the index of"))?;
    let readable = calls::openat(index, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    for entry in calls::list(readable.during("open the index")?).during("list the index")? {
        let entry = entry.during("list the index")?;
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        let named = |errno| Error::new(errno, "verify").on(format!("entry {} of the index", name.escape_ascii()));
        if name.starts_with(STAGED) {
            clean::remove(index.as_fd(), name).map_err(named)?;
        } else if !is_needed(At::new(index, name), lowers, dialect).map_err(named)? {
            calls::unlinkat(index, name, AtFlags::empty()).map_err(named)?;
        }
    }
    Ok(())
}

/// Checks that `mark` has this value, and sets it where it is missing or means nothing.
fn verify(at: At<'_>, dialect: Dialect, mark: Mark, value: &[u8]) -> Result<(), Errno> {
    match at.xattr(&dialect.name(mark))? {
        Some(old) if Origin::decode(&old).is_some() => {
            if old == value {
                Ok(())
            } else {
                Err(Errno::STALE)
            }
        }
        _ => dialect.set(at, mark, value),
    }
}

/// Whether an entry of the index may be asked for by a name that is left.
fn is_needed(at: At<'_>, lowers: &[Layer], dialect: Dialect) -> Result<bool, Errno> {
    let bytes = Origin::of_index_name(at.name()).ok_or(Errno::INVAL)?;
    let origin = Origin::decode(&bytes).ok_or(Errno::INVAL)?;
    let Some(attr) = at.find()? else { return Ok(true) };
    // Whiteouts and directories are there for NFS, with the kernel's overlayfs.
    if attr.is_whiteout() || attr.kind() == Kind::Dir {
        return Ok(true);
    }
    let mark = at.xattr(&dialect.name(Mark::Origin))?.ok_or(Errno::NODATA)?;
    if mark != bytes {
        return Ok(false);
    }
    if attr.nlink > 1 {
        return Ok(true);
    }
    let Some(source) = origin.find(lowers) else { return Ok(false) };
    let mark = at.xattr(&dialect.name(Mark::Nlink))?.unwrap_or_default();
    let links = counted_links(&mark, attr.nlink, source.nlink);
    // Without the privilege to open handles, how many names there are below is not known.
    Ok(source.nlink.is_none() || links.is_some_and(|links| links > 0))
}
