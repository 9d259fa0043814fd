//! Images in the store: a name for a config and its layers.

use oci_spec::image::ImageConfiguration;
use serde::{Deserialize, Serialize};

use crate::error::{Errno, Error, Result};
use crate::image::digest::Digest;
use crate::image::name::ImageName;
use crate::image::source::document;

use super::layer::LayerRef;
use super::{Lock, Store};

/// Fewest digits of an image's ID by which it can be called.
const DIGITS: usize = 6;

/// An image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// What it is called.
    pub name: ImageName,
    /// The digest of its config, which is its ID.
    pub config: Digest,
    /// The diff IDs of its layers, the lowest first.
    pub layers: Vec<Digest>,
}

fn place(name: &ImageName) -> String {
    format!("images/{}", name.file_name())
}

impl Store {
    /// All images, by name.
    ///
    /// # Errors
    /// Those of reading them.
    pub fn images(&self) -> Result<Vec<Image>> {
        let mut images = Vec::new();
        for file in self.list("images")? {
            images.extend(self.read_record::<Image>(&format!("images/{file}"))?);
        }
        Ok(images)
    }

    /// The image that is called `text`, by name or by the first digits of its ID.
    ///
    /// # Errors
    /// `ENOENT` where there is none, or more than one.
    pub fn image(&self, text: &str) -> Result<Image> {
        let missing = |why: &str| Error::new(Errno::NOENT, "find image").on(format!("image {text}")).because(why);
        let named = text.parse::<ImageName>().ok().map(|name| self.read_record::<Image>(&place(&name)));
        if let Some(image) = named.transpose()?.flatten() {
            return Ok(image);
        }
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        let is_id = digits.len() >= DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_id {
            return Err(missing("no such image in the store (plyfs image ls)"));
        }
        let mut found: Vec<Image> =
            self.images()?.into_iter().filter(|image| image.config.hex().starts_with(digits)).collect();
        found.dedup_by_key(|image| image.config);
        match (found.pop(), found.pop()) {
            (Some(image), None) => Ok(image),
            (None, _) => Err(missing("no such image in the store (plyfs image ls)")),
            _ => Err(missing("several images have IDs that begin so")),
        }
    }

    /// The bytes of the config of an image.
    ///
    /// # Errors
    /// Those of reading it; `EINVAL` for one that is not what its digest tells.
    pub fn config_bytes(&self, id: &Digest) -> Result<Vec<u8>> {
        let path = format!("blobs/{}", id.hex());
        let named = |errno| Error::new(errno, "read").on(self.path().join(&path).display().to_string());
        let bytes = self.read_file(path.as_bytes()).map_err(named)?;
        if Digest::of(&bytes) != *id {
            return Err(named(Errno::INVAL).because("not what its digest tells"));
        }
        Ok(bytes)
    }

    /// The config of an image.
    ///
    /// # Errors
    /// As [`Store::config_bytes`].
    pub fn config(&self, image: &Image) -> Result<ImageConfiguration> {
        document::config(&format!("config {}", image.config), &self.config_bytes(&image.config)?)
    }

    /// The layers of an image, to be used, the lowest first.
    ///
    /// # Errors
    /// `ENOENT` where one is missing.
    pub fn layers_of(&self, layers: &[Digest]) -> Result<Vec<LayerRef>> {
        let found = layers.iter().map(|id| {
            let missing = || Error::new(Errno::NOENT, "find layer").on(format!("layer {id}"));
            self.layer(id)?.ok_or_else(|| missing().because("it is not in the store: import the image again"))
        });
        found.collect()
    }

    /// Publishes an image under its name, instead of what was called so before. Its layers have to be there, and in use.
    ///
    /// # Errors
    /// Those of writing it.
    pub fn publish_image(&self, image: &Image, config: &[u8], _lock: &Lock) -> Result<()> {
        self.write_file(format!("blobs/{}", image.config.hex()).as_bytes(), config)?;
        self.write_record(&place(&image.name), image)
    }

    /// Takes a name away.
    ///
    /// # Errors
    /// Those of unlink(2).
    pub fn remove_image(&self, name: &ImageName, _lock: &Lock) -> Result<()> {
        self.remove_file(&place(name))
    }
}
