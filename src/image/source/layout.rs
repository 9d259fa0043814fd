//! OCI image layouts, as directories and as archives.

use oci_spec::image::{Descriptor, ImageManifest};

use crate::error::Result;
use crate::image::limits::Limits;
use crate::image::platform::Platform;
use crate::image::wrong;

use super::document::{self, Type};
use super::files::Files;
use super::{LayerBlob, Loaded, check_config};

/// Indexes that may lie in each other.
const DEPTH: usize = 4;
/// The annotation that names an image of a layout.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Loads the image called `reference`, or the only one.
///
/// # Errors
/// What is wrong with the layout or the image.
pub fn load(files: Files, reference: Option<&str>, platform: &Platform, limits: &Limits) -> Result<Loaded> {
    let source = files.name();
    let layout = files.find("oci-layout").map_err(|_| wrong(source.as_str(), "not an OCI image layout"))?;
    let version: serde_json::Value = serde_json::from_slice(&layout.read(limits.document)?)
        .map_err(|error| wrong(layout.name.as_str(), error.to_string()))?;
    if version.get("imageLayoutVersion").and_then(|version| version.as_str()) != Some("1.0.0") {
        return Err(wrong(layout.name, "a layout of another version than 1.0.0"));
    }
    let index = files.find("index.json")?;
    let entries = document::index(&index.name, &index.read(limits.document)?)?;
    let entry = choose(&source, entries.manifests(), reference, platform)?;
    let name = ref_name(entry).map(str::to_owned);
    let manifest = resolve(&files, entry, platform, limits)?;
    let (config, layers) = parts(&files, &manifest, platform, limits)?;
    Ok(Loaded { name, config, layers, _files: files })
}

fn ref_name(entry: &Descriptor) -> Option<&str> {
    entry.annotations().as_ref()?.get(REF_NAME).map(String::as_str)
}

/// The entry of the index that is meant.
fn choose<'a>(
    source: &str,
    entries: &'a [Descriptor],
    reference: Option<&str>,
    platform: &Platform,
) -> Result<&'a Descriptor> {
    let known = || entries.iter().filter_map(ref_name).collect::<Vec<_>>().join(", ");
    let fitting: Vec<&Descriptor> = match reference {
        Some(reference) => entries.iter().filter(|entry| ref_name(entry) == Some(reference)).collect(),
        None => entries.iter().collect(),
    };
    match fitting.as_slice() {
        [entry] => Ok(entry),
        [] => Err(wrong(
            source,
            reference.map_or("it holds no image".to_owned(), |reference| {
                format!("it holds no image {reference}; there are: {}", known())
            }),
        )),
        several => {
            let is_ours = |entry: &&&Descriptor| is_for(entry, platform) == Some(true);
            let mut ours = several.iter().filter(is_ours);
            match (ours.next(), ours.next()) {
                (Some(entry), None) => Ok(entry),
                _ => Err(wrong(source, format!("it holds {} images; name one of: {}", several.len(), known()))),
            }
        }
    }
}

/// Whether the manifest is for the platform, if the descriptor tells.
fn is_for(entry: &Descriptor, platform: &Platform) -> Option<bool> {
    let told = entry.platform().as_ref()?;
    Some(platform.takes(&told.os().to_string(), &told.architecture().to_string(), told.variant().as_deref()))
}

/// Follows indexes to the manifest for the platform.
fn resolve(files: &Files, entry: &Descriptor, platform: &Platform, limits: &Limits) -> Result<ImageManifest> {
    let mut entry = entry.clone();
    for _ in 0..DEPTH {
        let digest = document::digest("index.json", &entry)?;
        let name = digest.to_string();
        let media_type = entry.media_type().to_string();
        let kind = document::kind(&media_type);
        let bytes = match kind {
            Some(_) => files.blob(digest, entry.size())?.read(limits.document)?,
            None => return Err(wrong(name, format!("unknown media type {media_type:?}"))),
        };
        if kind == Some(Type::Manifest) {
            return document::manifest(&name, &bytes);
        }
        let index = document::index(&name, &bytes)?;
        let mut fitting = index.manifests().iter().filter(|entry| is_for(entry, platform).unwrap_or(true));
        let Some(next) = fitting.next() else {
            return Err(wrong(name, format!("no image for {platform} in this index (--platform)")));
        };
        entry = next.clone();
    }
    Err(wrong(entry.digest().to_string(), format!("an index within more than {DEPTH} others")))
}

fn parts(
    files: &Files,
    manifest: &ImageManifest,
    platform: &Platform,
    limits: &Limits,
) -> Result<(Vec<u8>, Vec<LayerBlob>)> {
    let config = manifest.config();
    let name = format!("config {}", config.digest());
    let digest = document::digest(&name, config)?;
    let media_type = config.media_type().to_string();
    if !matches!(
        media_type.as_str(),
        "application/vnd.oci.image.config.v1+json" | "application/vnd.docker.container.image.v1+json"
    ) {
        return Err(wrong(name, format!("unknown media type {media_type:?}: not a container image")));
    }
    let bytes = files.blob(digest, config.size())?.read(limits.document)?;
    let diff_ids = check_config(&name, &bytes, platform, limits)?;
    if diff_ids.len() != manifest.layers().len() {
        return Err(wrong(
            name,
            format!("{} diff IDs, but the manifest has {} layers", diff_ids.len(), manifest.layers().len()),
        ));
    }
    let layers = manifest.layers().iter().zip(diff_ids).map(|(layer, diff_id)| {
        let digest = document::digest("layer", layer)?;
        let media_type = layer.media_type().to_string();
        let compression = document::compression(&media_type)
            .ok_or_else(|| wrong(digest.to_string(), format!("unknown media type {media_type:?}")))?;
        let mut blob = files.blob(digest, layer.size())?;
        blob.compression = Some(compression);
        Ok(LayerBlob { blob, diff_id })
    });
    Ok((bytes, layers.collect::<Result<_>>()?))
}
