//! Archives of `docker save`: a list of images, their configs, and layers as they are.

use serde::Deserialize;

use crate::error::Result;
use crate::image::digest::Digest;
use crate::image::limits::Limits;
use crate::image::platform::Platform;
use crate::image::wrong;

use super::files::Files;
use super::{LayerBlob, Loaded, check_config};

/// An image in `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

impl Item {
    fn tags(&self) -> &[String] {
        self.repo_tags.as_deref().unwrap_or_default()
    }
}

/// Loads the image with the tag `reference`, or the only one.
///
/// # Errors
/// What is wrong with the archive or the image.
pub fn load(files: Files, reference: Option<&str>, platform: &Platform, limits: &Limits) -> Result<Loaded> {
    let source = files.name();
    let list = files.find("manifest.json").map_err(|_| wrong(source.as_str(), "not an archive of docker save"))?;
    let items: Vec<Item> = serde_json::from_slice(&list.read(limits.document)?)
        .map_err(|error| wrong(list.name.as_str(), format!("not a list of images: {error}")))?;
    let is_meant = |item: &&Item| reference.is_none_or(|name| item.tags().iter().any(|tag| tag == name));
    let mut fitting = items.iter().filter(is_meant);
    let known = || items.iter().flat_map(Item::tags).map(String::as_str).collect::<Vec<_>>().join(", ");
    let item = match (fitting.next(), fitting.next()) {
        (Some(item), None) => item,
        (None, _) => return Err(wrong(source, format!("it holds no such image; there are: {}", known()))),
        _ => return Err(wrong(source, format!("it holds {} images; name one of: {}", items.len(), known()))),
    };
    let mut blob = files.find(&item.config)?;
    // The config is called by its digest: HEX.json, or blobs/sha256/HEX.
    let stem = item.config.rsplit('/').next().unwrap_or_default();
    blob.digest = Digest::from_hex(stem.strip_suffix(".json").unwrap_or(stem));
    let config = blob.read(limits.document)?;
    let diff_ids = check_config(&blob.name, &config, platform, limits)?;
    let layers = item.layers.as_deref().unwrap_or_default();
    if layers.len() != diff_ids.len() {
        return Err(wrong(blob.name, format!("{} diff IDs, but there are {} layers", diff_ids.len(), layers.len())));
    }
    let layers = layers.iter().zip(diff_ids).map(|(name, diff_id)| Ok(LayerBlob { blob: files.find(name)?, diff_id }));
    let layers = layers.collect::<Result<_>>()?;
    let name = reference.map(str::to_owned).or_else(|| item.tags().first().cloned());
    Ok(Loaded { name, config, layers, _files: files })
}
