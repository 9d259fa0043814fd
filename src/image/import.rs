//! Importing: what a source ships becomes layers and a name in the store, all of it or nothing.

use std::fs::File;
use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use parking_lot::Mutex;
use rustix::fs::{self, Mode, OFlags};

use crate::at::At;
use crate::error::{Context, Error, Result};

use super::digest::Digest;
use super::limits::Limits;
use super::name::ImageName;
use super::platform::Platform;
use super::progress::Progress;
use super::source::{LayerBlob, Source};
use super::store::Store;
use super::store::image::Image;
use super::store::layer::LayerRef;
use super::store::staging::Staging;
use super::unpack::form::Form;
use super::unpack::{self, Failed, How, Unpacked};
use super::wrong;

/// What is wanted of an import.
#[derive(Debug, Clone)]
pub struct Options {
    /// What the image is to be called; else as its source calls it.
    pub name: Option<ImageName>,
    /// The platform of which an image is wanted.
    pub platform: Platform,
    /// How much it may ask for.
    pub limits: Limits,
    /// Device nodes are left out where they cannot be made.
    pub skip_devices: bool,
    /// Layers that are unpacked at once.
    pub jobs: usize,
}

/// Imports the image of `source`.
///
/// # Errors
/// What is wrong with the image, naming blob and entry; then no image is published. Layers that were whole before stay
/// in the store, for the next try.
pub fn import(store: &Store, source: &Source, options: &Options, progress: &dyn Progress) -> Result<Image> {
    let scratch = {
        let lock = store.lock_loudly()?;
        store.clean_staging(&lock)?;
        store.stage(&lock)?
    };
    let loaded = source.load(&options.platform, &options.limits, &scratch.path())?;
    let name = match (&options.name, &loaded.name) {
        (Some(name), _) => name.clone(),
        (None, Some(name)) => name.parse().map_err(|reason: String| wrong("NAME", reason))?,
        (None, None) => {
            return Err(wrong(source.path.display().to_string(), "the image has no name there: give one"));
        }
    };
    let how = How {
        form: Form::possible(At::fd(&scratch.dir())).during("write marks of layers into the store")?,
        limits: options.limits,
        skip_devices: options.skip_devices,
        keep_all: false,
    };
    let layers = unpack_all(store, &loaded.layers, how, options.jobs, progress)?;
    let image = Image {
        name,
        config: Digest::of(&loaded.config),
        layers: loaded.layers.iter().map(|layer| layer.diff_id).collect(),
    };
    let lock = store.lock_loudly()?;
    store.publish_image(&image, &loaded.config, &lock)?;
    drop((layers, lock));
    Ok(image)
}

/// Unpacks the layers that are not there, several at once. All of them are in use when it returns.
fn unpack_all(
    store: &Store,
    layers: &[LayerBlob],
    how: How,
    jobs: usize,
    progress: &dyn Progress,
) -> Result<Vec<LayerRef>> {
    let found: Mutex<Vec<LayerRef>> = Mutex::default();
    let failed: Mutex<Option<Error>> = Mutex::default();
    let (next, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let work = || {
        while let Some(layer) = layers.get(next.fetch_add(1, Ordering::Relaxed)) {
            // One diff ID may be there twice, as that of an empty layer often is.
            let before = layers.iter().position(|other| other.diff_id == layer.diff_id);
            let is_again = before.and_then(|at| layers.get(at)).is_some_and(|first| !std::ptr::eq(first, layer));
            if is_over.load(Ordering::Relaxed) || is_again {
                continue;
            }
            match unpack_one(store, layer, how, progress) {
                Ok(layer) => found.lock().push(layer),
                Err(error) => {
                    is_over.store(true, Ordering::Relaxed);
                    failed.lock().get_or_insert(error);
                }
            }
        }
    };
    thread::scope(|scope| {
        for number in 1..jobs.min(layers.len()) {
            let start = thread::Builder::new().name(format!("unpack {number}"));
            if let Err(error) = start.spawn_scoped(scope, work) {
                log::warn!("one thread less: {error}");
            }
        }
        work();
    });
    match failed.into_inner() {
        Some(error) => Err(error),
        None => Ok(found.into_inner()),
    }
}

fn unpack_one(store: &Store, layer: &LayerBlob, how: How, progress: &dyn Progress) -> Result<LayerRef> {
    let name = layer.diff_id.short();
    if let Some(found) = store.layer(&layer.diff_id)? {
        progress.end(&name, "there already");
        return Ok(found);
    }
    progress.begin(&name, layer.blob.size);
    let advance = |bytes| progress.advance(&name, bytes);
    let result = layer.blob.stream(&advance, |input| unpack_stream(store, &layer.blob.name, input, how));
    let (staging, unpacked) = match result {
        Err(error) if error.source_is::<Again>() => layer
            .blob
            .stream(&|_| {}, |input| unpack_stream(store, &layer.blob.name, input, How { keep_all: true, ..how }))?,
        result => result?,
    };
    if unpacked.diff_id != layer.diff_id {
        let reason = format!("its diff ID is {}, not {} as the config tells", unpacked.diff_id, layer.diff_id);
        return Err(wrong(layer.blob.name.as_str(), reason));
    }
    let layer = store.publish_layer(staging, &unpacked, how.form.owners)?;
    for note in &unpacked.notes {
        progress.note(&format!("layer {name}: left out: {note}"));
    }
    progress.end(&name, &format!("{} entries, {} bytes", unpacked.entries, unpacked.size));
    Ok(layer)
}

/// Unpacks a tar stream, called `blob` in messages, into a staged directory.
///
/// # Errors
/// At which entry, and why.
pub fn unpack_stream<'s>(
    store: &'s Store,
    blob: &str,
    input: &mut dyn Read,
    how: How,
) -> Result<(Staging<'s>, Unpacked)> {
    let staging = store.stage(&store.lock_loudly()?)?;
    let root = unpack::make_root(staging.dir(), b"root").during("make a directory for the layer")?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let record = fs::openat(staging.dir(), "stream", flags, Mode::RUSR | Mode::WUSR).during("make the record")?;
    let unpacked = unpack::unpack(input, root, Some(File::from(record)), how).map_err(|failed| match failed {
        Failed::At(None, reason) => wrong(blob, reason),
        Failed::At(Some(entry), reason) => wrong(format!("{blob}: entry {entry}"), reason),
        Failed::Replaced => wrong(blob, "").because(Again),
    })?;
    Ok((staging, unpacked))
}

/// The layer has to be unpacked again, with all data kept in the record of its stream.
#[derive(Debug)]
struct Again;

impl std::fmt::Display for Again {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an entry replaces another")
    }
}

impl std::error::Error for Again {}
