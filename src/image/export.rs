//! Writing an image out as an OCI layout, for others.

use std::fs::{File, create_dir_all, read, rename};
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::thread;

use flate2::{Compression as Level, GzBuilder};
use serde_json::{Value, json};

use crate::error::{Errno, Error, Result};

use super::blob::Compression;
use super::digest::{Digest, Hashing};
use super::progress::Progress;
use super::source::layout::REF_NAME;
use super::store::Store;
use super::store::image::Image;
use super::store::layer::LayerRef;
use super::tar::record::replay;
use super::wrong;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Writes `image` into the layout in `dir`, which is made if it is not there, as `reference`; the manifest's digest.
///
/// # Errors
/// Those of writing; `EINVAL` for a layer that is not any more what its diff ID tells. The layout names the image once
/// all of it is there.
pub fn export(
    store: &Store,
    image: &Image,
    dir: &Path,
    reference: &str,
    compression: Compression,
    progress: &dyn Progress,
) -> Result<Digest> {
    let layout = Layout { dir: dir.to_owned() };
    layout.prepare()?;
    let layers = store.layers_of(&image.layers)?;
    let mut written: Vec<Value> = Vec::new();
    let jobs = thread::available_parallelism().map_or(1, usize::from);
    for some in layers.chunks(jobs) {
        let some = thread::scope(|scope| {
            let layout = &layout;
            let start = |layer| scope.spawn(move || layout.layer(layer, compression, progress));
            let threads: Vec<_> = some.iter().map(start).collect();
            let join = |thread: thread::ScopedJoinHandle<'_, Result<Value>>| {
                thread.join().map_err(|_| Error::new(Errno::IO, "write").on(dir.display().to_string()))?
            };
            threads.into_iter().map(join).collect::<Result<Vec<Value>>>()
        })?;
        written.extend(some);
    }
    let config = layout.blob(&store.config_bytes(&image.config)?, CONFIG)?;
    let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": written });
    let manifest = manifest.to_string();
    let mut entry = layout.blob(manifest.as_bytes(), MANIFEST)?;
    if let Some(entry) = entry.as_object_mut() {
        entry.insert("annotations".into(), json!({ REF_NAME: reference }));
    }
    layout.add(entry, reference)?;
    Ok(Digest::of(manifest.as_bytes()))
}

struct Layout {
    dir: PathBuf,
}

impl Layout {
    fn failed(&self, error: &io::Error) -> Error {
        let errno = Errno::from_io_error(error).unwrap_or(Errno::IO);
        Error::new(errno, "write").on(self.dir.display().to_string()).because(error.to_string())
    }

    fn prepare(&self) -> Result<()> {
        create_dir_all(self.dir.join("blobs/sha256")).map_err(|error| self.failed(&error))?;
        self.put("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)
    }

    /// Writes a file in one step.
    fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let staged = self.dir.join(format!(".plyfs-{}-{}", std::process::id(), name.replace('/', "-")));
        let write = || {
            let mut file = File::create(&staged)?;
            file.write_all(bytes)?;
            rename(&staged, self.dir.join(name))
        };
        write().map_err(|error| self.failed(&error))
    }

    fn blob(&self, bytes: &[u8], media_type: &str) -> Result<Value> {
        let digest = Digest::of(bytes);
        self.put(&format!("blobs/sha256/{}", digest.hex()), bytes)?;
        Ok(json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() }))
    }

    /// Writes a layer's blob, and tells its descriptor.
    fn layer(&self, layer: &LayerRef, compression: Compression, progress: &dyn Progress) -> Result<Value> {
        let id = layer.info.diff_id;
        let name = id.short();
        progress.begin(&name, layer.info.size);
        let staged = self.dir.join(format!(".plyfs-{}-{}", std::process::id(), id.hex()));
        let result = self.compress(layer, compression, &staged, &|bytes| progress.advance(&name, bytes));
        if result.is_err()
            && let Err(error) = std::fs::remove_file(&staged)
        {
            log::debug!("{}: {error}", staged.display());
        }
        let (digest, size) = result?;
        let place = self.dir.join("blobs/sha256").join(digest.hex());
        rename(&staged, place).map_err(|error| self.failed(&error))?;
        progress.end(&name, &format!("{size} bytes"));
        let suffix = match compression {
            Compression::None => "",
            Compression::Gzip => "+gzip",
            Compression::Zstd => "+zstd",
        };
        Ok(json!({ "mediaType": format!("{LAYER}{suffix}"), "digest": digest, "size": size }))
    }

    fn compress(
        &self,
        layer: &LayerRef,
        compression: Compression,
        staged: &Path,
        advance: &dyn Fn(u64),
    ) -> Result<(Digest, u64)> {
        let failed = |error: io::Error| self.failed(&error);
        let id = layer.info.diff_id;
        let file = File::create(staged).map_err(failed)?;
        let mut output = Hashing::new(BufWriter::with_capacity(1 << 18, file));
        let root = layer.open_root()?;
        let stream = layer.stream()?;
        let broken = |error: io::Error| match error.kind() {
            io::ErrorKind::InvalidData => wrong(format!("layer {id}"), error.to_string()),
            _ => self.failed(&error),
        };
        let plain = |output: &mut dyn Write| {
            let mut plain = Hashing::new(Advancing { output, advance });
            replay(stream, root.as_fd(), &mut plain).map_err(broken)?;
            let found = plain.hasher.finish();
            if found != id {
                return Err(wrong(format!("layer {id}"), format!("its content has the digest {found}")));
            }
            Ok(())
        };
        match compression {
            Compression::None => plain(&mut output)?,
            Compression::Gzip => {
                // No time and no name, so that it is the same each time.
                let mut encoder = GzBuilder::new().mtime(0).write(&mut output, Level::new(6));
                plain(&mut encoder)?;
                encoder.finish().map_err(failed)?;
            }
            Compression::Zstd => {
                let mut encoder = zstd::Encoder::new(&mut output, 3).map_err(failed)?;
                plain(&mut encoder)?;
                encoder.finish().map_err(failed)?;
            }
        }
        output.flush().map_err(failed)?;
        let size = output.hasher.len();
        Ok((output.hasher.finish(), size))
    }

    /// Names the image in the index, instead of what was called so before.
    fn add(&self, entry: Value, reference: &str) -> Result<()> {
        let path = self.dir.join("index.json");
        let mut manifests = match read(&path) {
            Ok(bytes) => {
                let index: Value = serde_json::from_slice(&bytes)
                    .map_err(|error| wrong(path.display().to_string(), format!("not an index: {error}")))?;
                index.get("manifests").and_then(Value::as_array).cloned().unwrap_or_default()
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(self.failed(&error)),
        };
        let is_other = |entry: &Value| {
            let name = entry.get("annotations").and_then(|annotations| annotations.get(REF_NAME));
            name.and_then(Value::as_str) != Some(reference)
        };
        manifests.retain(is_other);
        manifests.push(entry);
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
        self.put("index.json", index.to_string().as_bytes())
    }
}

/// Tells how much was written.
struct Advancing<'a> {
    output: &'a mut dyn Write,
    advance: &'a dyn Fn(u64),
}

impl Write for Advancing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.output.write(bytes)?;
        (self.advance)(written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}
