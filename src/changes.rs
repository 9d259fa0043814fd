//! What a writable layer changes of the layers below: told, and as a layer of an image.
//!
//! Everything starts from the upper: what is not in it has not changed. Two overlays without a mount tell the rest: one of
//! the layers below, as it was, and one with the upper on top, as it is; so redirects, metacopies and whiteouts of every
//! form mean here what they mean in a mount.

pub mod commit;
pub mod diff;
mod layer;
mod linked;
mod view;

use std::path::PathBuf;

/// An upper, and the layers below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// The upper.
    pub upper: PathBuf,
    /// Its work directory, which tells of hard links; none where that is not known, or there are none.
    pub work: Option<PathBuf>,
    /// The layers below, topmost first; none where they are not known.
    pub lowers: Vec<PathBuf>,
}
