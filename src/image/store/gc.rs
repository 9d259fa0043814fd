//! Taking away what nobody needs any more.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::error::Result;
use crate::image::digest::Digest;

use super::{Lock, Store};

/// What was taken away.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Removed {
    /// Layers that no image and no container needed.
    pub layers: Vec<Digest>,
    /// Layers that nothing needs but a mount that is still there.
    pub in_use: Vec<Digest>,
    /// Configs that no image needed.
    pub configs: Vec<Digest>,
    /// Containers that were to go with their mount.
    pub containers: Vec<String>,
}

impl Store {
    /// Removes whatever no image and no container that is kept needs, and what was left by who was killed.
    ///
    /// # Errors
    /// Those of removing it.
    pub fn gc(&self, lock: &Lock) -> Result<Removed> {
        self.clean_staging(lock)?;
        let mut removed = Removed { containers: self.clean_containers(lock)?, ..Removed::default() };
        let images = self.images()?;
        let containers = self.containers()?;
        let configs: BTreeSet<Digest> =
            images.iter().map(|image| image.config).chain(containers.iter().map(|other| other.config)).collect();
        let needed: BTreeSet<Digest> = images
            .iter()
            .flat_map(|image| image.layers.iter().copied())
            .chain(containers.iter().flat_map(|container| container.layers.iter().copied()))
            .collect();
        for id in self.layers()?.into_iter().filter(|id| !needed.contains(id)) {
            let list = if self.remove_layer(&id, lock)? { &mut removed.layers } else { &mut removed.in_use };
            list.push(id);
        }
        for hex in self.list("blobs")? {
            if let Some(id) = Digest::from_hex(&hex).filter(|id| !configs.contains(id)) {
                self.remove_file(&format!("blobs/{hex}"))?;
                removed.configs.push(id);
            }
        }
        Ok(removed)
    }
}
