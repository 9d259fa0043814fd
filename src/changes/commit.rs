//! A writable layer becomes the topmost layer of a new image.

use std::io::{BufWriter, pipe};
use std::thread;

use serde_json::{Map, Value, json};

use crate::at::At;
use crate::error::{Context, Errno, Error, Result};
use crate::image::digest::Digest;
use crate::image::import::unpack_stream;
use crate::image::limits::Limits;
use crate::image::name::ImageName;
use crate::image::store::Store;
use crate::image::store::image::Image;
use crate::image::unpack::How;
use crate::image::unpack::form::Form;
use crate::image::wrong;

use super::{Changed, layer};

/// How a commit is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// What the new image is to be called.
    pub name: ImageName,
    /// When it is made, in seconds since 1970.
    pub now: i64,
    /// No time in the layer is later than `now`.
    pub clamp: bool,
    /// What the history says.
    pub comment: Option<String>,
}

/// Makes an image of `changed`, which lies over the layers of the config `base` and those of `layers`, lowest first.
///
/// # Errors
/// Those of the layers and of the store; then no image is published.
pub fn commit(store: &Store, changed: &Changed, base: &Digest, layers: &[Digest], options: &Options) -> Result<Image> {
    let form = {
        let lock = store.lock_loudly()?;
        store.clean_staging(&lock)?;
        let scratch = store.stage(&lock)?;
        Form::possible(At::fd(&scratch.dir())).during("write marks of layers into the store")?
    };
    let used = store.layers_of(layers)?;
    let config = store.config_bytes(base)?;
    let how = How { form, limits: Limits::NONE, skip_devices: false, keep_all: false };
    let (mut input, output) = pipe()?;
    let latest = options.clamp.then_some(options.now);
    let (staging, unpacked) = thread::scope(|scope| {
        let writer = scope.spawn(move || layer::write(changed, latest, BufWriter::with_capacity(1 << 16, output)));
        let unpacked = unpack_stream(store, "layer", &mut input, how);
        // Else the writer would wait for us.
        drop(input);
        let written = writer.join().map_err(|_| Error::new(Errno::IO, "write").on("layer"))?;
        match (written, unpacked) {
            // Why there was not enough to unpack is the reason to tell.
            (Err(error), Err(_)) if error.errno() != Errno::PIPE => Err(error),
            (Err(error), Ok(_)) => Err(error),
            (_, unpacked) => unpacked,
        }
    })?;
    let new = store.publish_layer(staging, &unpacked, form.owners)?;
    let config = with_layer(&config, new.info.diff_id, options)?;
    let layers = layers.iter().copied().chain([new.info.diff_id]).collect();
    let image = Image { name: options.name.clone(), config: Digest::of(&config), layers };
    let lock = store.lock_loudly()?;
    store.publish_image(&image, &config, &lock)?;
    drop((used, new, lock));
    Ok(image)
}

/// The config with one more layer. What else it says stays as it is, also what we know nothing of.
fn with_layer(config: &[u8], id: Digest, options: &Options) -> Result<Vec<u8>> {
    let bad = || wrong("config", "not a config of an image");
    let mut config: Map<String, Value> = serde_json::from_slice(config).map_err(|_| bad())?;
    let created = jiff::Timestamp::from_second(options.now).map_err(|_| bad())?.to_string();
    let ids = config.get_mut("rootfs").and_then(|rootfs| rootfs.get_mut("diff_ids")).and_then(Value::as_array_mut);
    ids.ok_or_else(bad)?.push(json!(id));
    let mut step = json!({ "created": created, "created_by": "plyfs commit" });
    if let (Some(comment), Some(step)) = (&options.comment, step.as_object_mut()) {
        step.insert("comment".into(), comment.as_str().into());
    }
    config.insert("created".into(), created.into());
    match config.get_mut("history").and_then(Value::as_array_mut) {
        Some(history) => history.push(step),
        None => drop(config.insert("history".into(), json!([step]))),
    }
    // What a builder notes of the container that it made the last step in.
    for stale in ["container", "container_config", "id", "parent"] {
        config.remove(stale);
    }
    serde_json::to_vec(&config).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_keeps_what_is_not_known() {
        let config = br#"{"rootfs":{"type":"layers","diff_ids":[]},"config":{"Healthcheck":{"x":1}},"container":"y"}"#;
        let options = Options { name: "n".parse().unwrap(), now: 0, clamp: false, comment: Some("why".into()) };
        let id = Digest::of(b"");
        let new: Value = serde_json::from_slice(&with_layer(config, id, &options).unwrap()).unwrap();
        let history = json!([{ "created": "1970-01-01T00:00:00Z", "created_by": "plyfs commit", "comment": "why" }]);
        let rootfs = json!({ "type": "layers", "diff_ids": [id] });
        let expected = json!({
            "rootfs": rootfs, "config": { "Healthcheck": { "x": 1 } }, "created": "1970-01-01T00:00:00Z", "history": history
        });
        assert_eq!(new, expected);
    }
}
