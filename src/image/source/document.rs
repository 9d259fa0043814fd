//! The JSON documents of an image: read with care, and nothing believed yet.

use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest};
use serde::de::DeserializeOwned;

use crate::error::Result;
use crate::image::blob::Compression;
use crate::image::digest::Digest;
use crate::image::wrong;

/// What a document with a media type is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// A list of manifests.
    Index,
    /// A list of layers, and a config.
    Manifest,
}

/// What a media type of documents tells.
pub fn kind(media_type: &str) -> Option<Type> {
    match media_type {
        "application/vnd.oci.image.index.v1+json" | "application/vnd.docker.distribution.manifest.list.v2+json" => {
            Some(Type::Index)
        }
        "application/vnd.oci.image.manifest.v1+json" | "application/vnd.docker.distribution.manifest.v2+json" => {
            Some(Type::Manifest)
        }
        _ => None,
    }
}

/// What a media type of layers tells: `None` for one that is no layer, or of a form that is not known.
pub fn compression(media_type: &str) -> Option<Compression> {
    let docker = media_type.strip_prefix("application/vnd.docker.image.rootfs.");
    if let Some(docker) = docker {
        return match docker {
            "diff.tar" | "foreign.diff.tar" => Some(Compression::None),
            "diff.tar.gzip" | "foreign.diff.tar.gzip" => Some(Compression::Gzip),
            "diff.tar.zstd" | "foreign.diff.tar.zstd" => Some(Compression::Zstd),
            _ => None,
        };
    }
    let layer = media_type.strip_prefix("application/vnd.oci.image.layer.")?;
    match layer.strip_prefix("nondistributable.").unwrap_or(layer) {
        "v1.tar" => Some(Compression::None),
        "v1.tar+gzip" => Some(Compression::Gzip),
        "v1.tar+zstd" => Some(Compression::Zstd),
        _ => None,
    }
}

/// Reads an index.
///
/// # Errors
/// Why it is none.
pub fn index(name: &str, bytes: &[u8]) -> Result<ImageIndex> {
    parse(name, "an index", bytes)
}

/// Reads a manifest.
///
/// # Errors
/// Why it is none.
pub fn manifest(name: &str, bytes: &[u8]) -> Result<ImageManifest> {
    parse(name, "a manifest", bytes)
}

/// Reads a config.
///
/// # Errors
/// Why it is none.
pub fn config(name: &str, bytes: &[u8]) -> Result<ImageConfiguration> {
    parse(name, "a config", bytes)
}

/// The digest that a descriptor tells.
///
/// # Errors
/// That it is of another algorithm.
pub fn digest(name: &str, descriptor: &Descriptor) -> Result<Digest> {
    descriptor.digest().to_string().parse().map_err(|reason: String| wrong(name, reason))
}

fn parse<T: DeserializeOwned>(name: &str, what: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| wrong(name, format!("not {what}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_tell_what_is_in_them() {
        for (text, expected) in [
            ("application/vnd.oci.image.layer.v1.tar", Some(Compression::None)),
            ("application/vnd.oci.image.layer.v1.tar+gzip", Some(Compression::Gzip)),
            ("application/vnd.oci.image.layer.v1.tar+zstd", Some(Compression::Zstd)),
            ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", Some(Compression::Gzip)),
            ("application/vnd.docker.image.rootfs.diff.tar.gzip", Some(Compression::Gzip)),
            ("application/vnd.oci.image.layer.v1.tar+encrypted", None),
            ("application/vnd.in-toto+json", None),
            ("", None),
        ] {
            assert_eq!(compression(text), expected, "{text}");
        }
        assert_eq!(kind("application/vnd.oci.image.index.v1+json"), Some(Type::Index));
        assert_eq!(kind("application/vnd.docker.distribution.manifest.v2+json"), Some(Type::Manifest));
        assert_eq!(kind("application/vnd.docker.distribution.manifest.v1+prettyjws"), None);
    }
}
