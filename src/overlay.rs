//! The overlay: one method per operation, no FUSE type anywhere in it.

use std::sync::Arc;

use crate::config::Config;
use crate::error::{Errno, Error, Result};

/// A merged tree of layers.
#[derive(Debug)]
pub struct Overlay {}

impl Overlay {
    /// Opens the layers of `config`.
    ///
    /// # Errors
    /// What kept a layer from being opened, naming the option and the path.
    pub fn open(_config: &Config) -> Result<Arc<Self>> {
        Err(Error::new(Errno::NOSYS, "open"))
    }

    /// Empties the work directory; to be called once nothing uses the overlay any more.
    pub fn close(&self) {}
}
