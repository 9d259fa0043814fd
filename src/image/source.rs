//! Where an image comes from, and which blobs it is made of.

pub mod docker;
pub mod document;
pub mod files;
pub mod layout;
pub mod rootfs;

use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::error::Result;

use super::blob::Blob;
use super::digest::Digest;
use super::limits::Limits;
use super::platform::Platform;
use super::wrong;

/// A source, as it is written on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    kind: Kind,
    /// The directory or file.
    pub path: PathBuf,
    /// Which of its images.
    pub reference: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Oci,
    OciArchive,
    DockerArchive,
    Tar,
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let kinds = [
            ("oci", Kind::Oci),
            ("oci-archive", Kind::OciArchive),
            ("docker-archive", Kind::DockerArchive),
            ("tar", Kind::Tar),
        ];
        let split = text.split_once(':').filter(|(_, path)| !path.is_empty());
        let found = split.and_then(|(word, path)| Some((kinds.iter().find(|kind| kind.0 == word)?.1, path)));
        let Some((kind, path)) = found else {
            return Err(format!("{text}: not oci:DIR[:REF], oci-archive:FILE, docker-archive:FILE or tar:FILE"));
        };
        let (path, reference) = if kind == Kind::Tar { (path, None) } else { split_reference(path) };
        Ok(Self { kind, path: path.into(), reference: reference.map(str::to_owned) })
    }
}

/// Splits `DIR:REF`: what is there is the path, however many colons it has; else the first colon ends it.
pub fn split_reference(text: &str) -> (&str, Option<&str>) {
    if Path::new(text).exists() {
        return (text, None);
    }
    let splits =
        || text.match_indices(':').filter_map(|(at, _)| Some((text.get(..at)?, text.get(at.checked_add(1)?..)?)));
    let is_there = splits().collect::<Vec<_>>().into_iter().rfind(|(path, _)| Path::new(path).exists());
    match is_there.or_else(|| splits().next()) {
        Some((path, reference)) if !reference.is_empty() => (path, Some(reference)),
        Some((path, _)) => (path, None),
        None => (text, None),
    }
}

/// What an image is made of. Nothing of it is checked but the documents.
#[derive(Debug)]
pub struct Loaded {
    /// What the source calls it.
    pub name: Option<String>,
    /// Its config, as it is.
    pub config: Vec<u8>,
    /// Its layers, the lowest first.
    pub layers: Vec<LayerBlob>,
    /// Keeps open what the blobs lie in.
    _files: files::Files,
}

/// A layer as it is shipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerBlob {
    /// The blob.
    pub blob: Blob,
    /// The digest of what it decompresses to.
    pub diff_id: Digest,
}

impl Source {
    /// Finds out what the image is made of. `scratch` is a directory for what has to be decompressed on the way.
    ///
    /// # Errors
    /// What is wrong with the source or its documents.
    pub fn load(&self, platform: &Platform, limits: &Limits, scratch: &Path) -> Result<Loaded> {
        let files = match self.kind {
            Kind::Oci => files::Files::dir(&self.path)?,
            Kind::OciArchive | Kind::DockerArchive => files::Files::archive(&self.path, limits, scratch)?,
            Kind::Tar => files::Files::dir(self.path.parent().unwrap_or(Path::new(".")))?,
        };
        match self.kind {
            Kind::Oci | Kind::OciArchive => layout::load(files, self.reference.as_deref(), platform, limits),
            Kind::DockerArchive => docker::load(files, self.reference.as_deref(), platform, limits),
            Kind::Tar => rootfs::load(files, &self.path, platform, limits),
        }
    }
}

/// Checks that a config goes with its layers and the platform; its diff IDs.
///
/// # Errors
/// What does not go together.
pub fn check_config(name: &str, config: &[u8], platform: &Platform, limits: &Limits) -> Result<Vec<Digest>> {
    let parsed = document::config(name, config)?;
    let (os, arch) = (parsed.os().to_string(), parsed.architecture().to_string());
    if !platform.takes(&os, &arch, parsed.variant().as_deref()) {
        return Err(wrong(name, format!("an image for {os}/{arch}, not for {platform} (--platform)")));
    }
    let ids = parsed.rootfs().diff_ids();
    if ids.len() > limits.layers {
        return Err(wrong(name, format!("{} layers, more than {}", ids.len(), limits.layers)));
    }
    ids.iter().map(|id| id.parse().map_err(|reason: String| wrong(name, reason))).collect()
}

#[cfg(test)]
mod tests;
