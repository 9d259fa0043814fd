//! What the store holds, for people and as JSON.

use serde::Serialize;
use serde_json::{Value, json};

use crate::error::{Errno, Error, Result};
use crate::image::digest::Digest;
use crate::image::store::image::Image;
use crate::image::store::layer::Info;
use crate::image::store::{Store, to_json};

use super::super::print;

/// What was found wrong with a layer.
#[derive(Debug, Serialize)]
pub(super) struct Verified {
    pub(super) layer: Digest,
    pub(super) wrong: Vec<String>,
    pub(super) repaired: bool,
}

/// Prints a record as JSON.
pub(in crate::cli) fn json(record: &impl Serialize) -> Result<()> {
    let text = String::from_utf8(to_json(record)?)
        .map_err(|error| Error::new(Errno::INVAL, "print").because(error.to_string()))?;
    print(text.trim_end())
}

/// The records of an image's layers, as far as they are there.
fn infos(store: &Store, image: &Image) -> Result<Vec<Info>> {
    let read = |id: &Digest| store.read_record::<Info>(&format!("layers/{}/layer.json", id.hex()));
    image.layers.iter().filter_map(|id| read(id).transpose()).collect()
}

/// `plyfs image ls`
pub(super) fn list(store: &Store, as_json: bool) -> Result<()> {
    let images = store.images()?;
    let containers = store.containers()?;
    if as_json {
        let images = images.iter().map(|image| {
            let size: u64 = infos(store, image)?.iter().map(|info| info.size).fold(0, u64::saturating_add);
            Ok(json!({ "name": image.name, "id": image.config, "layers": image.layers, "size": size }))
        });
        return json(&json!({ "images": images.collect::<Result<Vec<Value>>>()?, "containers": containers }));
    }
    if images.is_empty() && containers.is_empty() {
        return Ok(());
    }
    print(&format!("{:<40} {:<12} {:>6} {:>12}", "IMAGE", "ID", "LAYERS", "BYTES"))?;
    for image in &images {
        let size: u64 = infos(store, image)?.iter().map(|info| info.size).fold(0, u64::saturating_add);
        let count = image.layers.len();
        print(&format!("{:<40} {:<12} {count:>6} {size:>12}", image.name.as_str(), image.config.short()))?;
    }
    if !containers.is_empty() {
        print(&format!("\n{:<40} {}", "CONTAINER", "IMAGE"))?;
    }
    for container in &containers {
        print(&format!("{:<40} {}", container.name, container.image))?;
    }
    Ok(())
}

/// `plyfs image inspect`
pub(super) fn inspect(store: &Store, text: &str) -> Result<()> {
    let image = store.image(text)?;
    let config: Value = serde_json::from_slice(&store.config_bytes(&image.config)?)
        .map_err(|error| Error::new(Errno::INVAL, "read config").because(error.to_string()))?;
    json(&json!({ "name": image.name, "id": image.config, "layers": infos(store, &image)?, "config": config }))
}

/// `plyfs image history`, the last step first
pub(super) fn history(store: &Store, text: &str, as_json: bool) -> Result<()> {
    let image = store.image(text)?;
    let config = store.config(&image)?;
    let mut layers = image.layers.iter();
    let mut steps = Vec::new();
    for step in config.history().iter().flatten() {
        let layer = if step.empty_layer() == Some(true) { None } else { layers.next() };
        let size = match layer {
            Some(id) => store.read_record::<Info>(&format!("layers/{}/layer.json", id.hex()))?.map(|info| info.size),
            None => None,
        };
        steps.push(json!({
            "created": step.created(),
            "created_by": step.created_by(),
            "comment": step.comment(),
            "layer": layer,
            "size": size,
        }));
    }
    steps.reverse();
    if as_json {
        return json(&steps);
    }
    let text = |step: &Value, key: &str| step.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    print(&format!("{:<20} {:<12} {:>12} {}", "CREATED", "LAYER", "BYTES", "BY"))?;
    for step in &steps {
        let id: String = text(step, "layer").trim_start_matches("sha256:").chars().take(12).collect();
        let size = step.get("size").and_then(Value::as_u64).map(|size| size.to_string()).unwrap_or_default();
        let created: String = text(step, "created").chars().take(19).collect();
        // A step may be a script of many lines.
        let by: String = text(step, "created_by").split_whitespace().collect::<Vec<_>>().join(" ");
        let by: String = by.chars().filter(|c| !c.is_control()).take(100).collect();
        print(format!("{created:<20} {id:<12} {size:>12} {by}").trim_end())?;
    }
    Ok(())
}
