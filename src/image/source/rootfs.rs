//! A root filesystem as a plain tar file: an image of one layer.

use std::io::Read;
use std::path::Path;

use serde_json::json;

use crate::error::Result;
use crate::image::digest::Hashing;
use crate::image::limits::Limits;
use crate::image::platform::Platform;
use crate::image::wrong;

use super::files::Files;
use super::{LayerBlob, Loaded};

/// Loads the file at `path`, which lies in the directory `files`.
///
/// Its diff ID is not told by anybody: it is read once to know it.
///
/// # Errors
/// Why it cannot be read.
pub fn load(files: Files, path: &Path, platform: &Platform, limits: &Limits) -> Result<Loaded> {
    let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(|| wrong("tar:", "not a file"))?;
    let blob = files.find(name)?;
    let diff_id = blob.stream(&|_| {}, |input| {
        let mut input = Hashing::new(input.take(limits.layer_bytes));
        std::io::copy(&mut input, &mut std::io::sink()).map_err(|error| wrong(name, error.to_string()))?;
        Ok(input.hasher.finish())
    })?;
    let mut config = json!({
        "architecture": platform.arch,
        "os": platform.os,
        "config": { "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["/bin/sh"] },
        "rootfs": { "type": "layers", "diff_ids": [diff_id] },
        "history": [{ "created_by": "plyfs image import tar" }],
    });
    if let (Some(variant), Some(config)) = (&platform.variant, config.as_object_mut()) {
        config.insert("variant".into(), variant.as_str().into());
    }
    let stem = name.split('.').next().unwrap_or(name);
    Ok(Loaded {
        name: Some(stem.to_owned()),
        config: config.to_string().into_bytes(),
        layers: vec![LayerBlob { blob, diff_id }],
        _files: files,
    })
}
