//! Images from layouts and archives into a store: what is taken, what is refused, and what is left behind.
#![allow(clippy::arithmetic_side_effects)]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::digest::Digest;
use super::import::{Options, import};
use super::limits::Limits;
use super::platform::Platform;
use super::progress::Silent;
use super::store::Store;
use super::store::image::Image;
use super::unpack::tests::Stream;
use super::{store, verify};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// A layout that is being built, and a store to import it into.
struct Bed {
    dir: tempfile::TempDir,
    platform: Platform,
    limits: Limits,
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

impl Bed {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("oci/blobs/sha256")).unwrap();
        fs::write(dir.path().join("oci/oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        let platform = "linux/amd64".parse().unwrap();
        let limits = Limits { layer_bytes: 1 << 20, entries: 1000, ..Limits::default() };
        Self { dir, platform, limits }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn store(&self) -> Store {
        Store::open(&self.path("store")).unwrap()
    }

    fn blob(&self, bytes: &[u8], media_type: &str) -> Value {
        let digest = Digest::of(bytes);
        fs::write(self.path("oci/blobs/sha256").join(digest.hex()), bytes).unwrap();
        json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
    }

    fn config(&self, diff_ids: &[Digest]) -> Value {
        let config = json!({
            "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": diff_ids }
        });
        self.blob(config.to_string().as_bytes(), "application/vnd.oci.image.config.v1+json")
    }

    fn manifest(&self, config: Value, layers: &[Value]) -> Value {
        let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers });
        self.blob(manifest.to_string().as_bytes(), MANIFEST)
    }

    fn index(&self, manifests: &[Value]) {
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
        fs::write(self.path("oci/index.json"), index.to_string()).unwrap();
    }

    /// A layout of these layers, as it should be.
    fn image(&self, layers: &[Vec<u8>]) {
        let ids: Vec<_> = layers.iter().map(|layer| Digest::of(layer)).collect();
        let blobs: Vec<_> = layers.iter().map(|layer| self.blob(&gzip(layer), LAYER)).collect();
        self.index(&[self.manifest(self.config(&ids), &blobs)]);
    }

    fn import_from(&self, source: &str) -> Result<Image, String> {
        let options = Options {
            name: Some("test".parse().unwrap()),
            platform: self.platform.clone(),
            limits: self.limits,
            skip_devices: false,
            jobs: 2,
        };
        import(&self.store(), &source.parse().unwrap(), &options, &Silent).map_err(|error| error.to_string())
    }

    fn import(&self) -> Result<Image, String> {
        self.import_from(&format!("oci:{}", self.path("oci").display()))
    }

    /// Imports what has to be refused with this in the line, and leaves no image and nothing staged.
    #[track_caller]
    fn refuses(&self, expected: &str) {
        let line = self.import().unwrap_err();
        assert!(line.contains(expected), "{line:?} without {expected:?}");
        assert!(!line.contains('\n'), "{line:?}");
        assert_eq!(self.store().images().unwrap(), []);
        assert_eq!(self.store().list("staging").unwrap(), [""; 0]);
        assert_eq!(self.store().list("layers").unwrap(), [""; 0]);
    }
}

fn layer(name: &str) -> Vec<u8> {
    Stream::default().dir("./").dir("d").file(&format!("d/{name}"), name).end()
}

#[test]
fn layers_are_unpacked_once_and_shared() {
    let bed = Bed::new();
    let (base, one, two) = (layer("base"), layer("one"), layer("two"));
    bed.image(&[base.clone(), one]);
    let first = bed.import().unwrap();
    bed.image(&[base.clone(), two]);
    let second = bed.import().unwrap();
    assert_eq!((first.layers[0], second.layers[0]), (Digest::of(&base), Digest::of(&base)));
    let store = bed.store();
    assert_eq!(store.layers().unwrap().len(), 3);
    for id in store.layers().unwrap() {
        assert_eq!(verify::layer(&store.layer(&id).unwrap().unwrap()).unwrap(), [""; 0]);
    }
    let lock = store.lock(|| {}).unwrap();
    // The name is the second image's now.
    let removed = store.gc(&lock).unwrap();
    assert_eq!((removed.layers, removed.configs), (vec![first.layers[1]], vec![first.config]));
    assert_eq!(store.layers().unwrap().len(), 2);
}

#[test]
fn a_layer_in_use_is_not_removed() {
    let bed = Bed::new();
    bed.image(&[layer("x")]);
    let image = bed.import().unwrap();
    let store = bed.store();
    let used = store.layers_of(&image.layers).unwrap();
    let lock = store.lock(|| {}).unwrap();
    store.remove_image(&image.name, &lock).unwrap();
    assert_eq!(store.gc(&lock).unwrap().in_use, image.layers);
    assert!(used[0].root.join("d/x").exists());
    drop(used);
    assert_eq!(store.gc(&lock).unwrap().layers, image.layers);
}

#[test]
fn what_was_left_by_who_was_killed_is_cleaned_up() {
    let bed = Bed::new();
    let store = bed.store();
    let lock = store.lock(|| {}).unwrap();
    let staged = store.stage(&lock).unwrap();
    fs::create_dir_all(bed.path("store/staging/1.0/root/d")).unwrap();
    store.clean_staging(&lock).unwrap();
    assert_eq!(store.list("staging").unwrap().len(), 1, "the one that is worked in stays");
    drop((staged, lock));
    assert_eq!(store.list("staging").unwrap(), [""; 0]);
}

#[test]
fn a_layer_from_before_a_crash_is_checked_once() {
    let bed = Bed::new();
    bed.image(&[layer("x")]);
    let id = bed.import().unwrap().layers[0];
    let store = bed.store();
    let record = bed.path("store/layers").join(id.hex()).join("layer.json");
    let told = fs::read_to_string(&record).unwrap();
    let boot = store.layer(&id).unwrap().unwrap().info.boot.unwrap();
    let from_before = told.replace(&boot, "another boot");
    fs::write(&record, &from_before).unwrap();
    assert_eq!(store.layer(&id).unwrap().unwrap().info.boot, None);
    assert_eq!(store.layer(&id).unwrap().unwrap().info.boot, None, "it is written down");
    fs::write(&record, &from_before).unwrap();
    fs::write(bed.path("store/layers").join(id.hex()).join("root/d/x"), "").unwrap();
    assert!(store.layer(&id).unwrap().is_none());
    assert_eq!(bed.import().unwrap().layers, [id], "the next import brings it back");
    assert!(store.layer(&id).unwrap().is_some());
}

#[test]
fn damage_is_found() {
    let bed = Bed::new();
    bed.image(&[layer("x")]);
    let image = bed.import().unwrap();
    let store = bed.store();
    let layer = store.layer(&image.layers[0]).unwrap().unwrap();
    let check = || verify::layer(&layer).unwrap().join("; ");
    let path = layer.root.join("d/x");
    fs::write(&path, "y").unwrap();
    assert!(check().contains("d/x: changed at another time") && check().contains("its content has the digest"));
    fs::write(&path, "").unwrap();
    assert!(check().contains("d/x: the file is shorter than it was"), "{}", check());
    fs::remove_file(&path).unwrap();
    assert!(check().contains("d/x: "), "{}", check());
}

#[test]
fn blobs_have_to_be_what_is_told() {
    let good = gzip(&layer("x"));
    let id = [Digest::of(&layer("x"))];
    let bed = Bed::new();
    let put = |bytes: &[u8], told: &Value| {
        let hex = told["digest"].as_str().unwrap().trim_start_matches("sha256:").to_owned();
        fs::write(bed.path("oci/blobs/sha256").join(hex), bytes).unwrap();
        bed.index(&[bed.manifest(bed.config(&id), std::slice::from_ref(told))]);
    };
    let blob = bed.blob(&good, LAYER);
    let digest = blob["digest"].as_str().unwrap().to_owned();
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    put(&flipped, &blob);
    bed.refuses(&format!("{digest}: its digest is sha256:"));
    put(&good[..good.len() - 20], &blob);
    bed.refuses(&format!("{digest}: {} bytes, not {} as is told", good.len() - 20, good.len()));
    // Truncated by who made it: its digest and size are right.
    let short = bed.blob(&good[..good.len() - 20], LAYER);
    put(&good[..good.len() - 20], &short);
    bed.refuses(&format!("{}: ", short["digest"].as_str().unwrap()));
    let garbage = bed.blob(b"no gzip at all", LAYER);
    put(b"no gzip at all", &garbage);
    bed.refuses("plain tar, not gzip as its media type tells");
    let other = bed.blob(&gzip(&layer("other")), LAYER);
    put(&gzip(&layer("other")), &other);
    bed.refuses(&format!("its diff ID is {}, not {} as the config tells", Digest::of(&layer("other")), id[0]));
    put(&good, &bed.blob(&good, "application/vnd.example.layer"));
    bed.refuses(&format!("{digest}: unknown media type \"application/vnd.example.layer\""));
    bed.index(&[bed.manifest(bed.config(&[]), &[bed.blob(&good, LAYER)])]);
    bed.refuses("0 diff IDs, but the manifest has 1 layers");
    fs::remove_file(bed.path("oci/blobs/sha256").join(Digest::of(&good).hex())).unwrap();
    bed.index(&[bed.manifest(bed.config(&id), &[blob])]);
    bed.refuses(&format!("{digest}: no such blob"));
}

#[test]
fn documents_have_to_make_sense() {
    let bed = Bed::new();
    bed.image(&[layer("x")]);
    bed.import().unwrap();
    let index = fs::read_to_string(bed.path("oci/index.json")).unwrap();
    let manifest: Value = serde_json::from_str(&index).unwrap();
    let manifest = manifest["manifests"][0].clone();

    let bed = Bed::new();
    fs::write(bed.path("oci/index.json"), "{").unwrap();
    bed.refuses("index.json: not an index");
    bed.index(&[]);
    bed.refuses("it holds no image");
    bed.index(std::slice::from_ref(&manifest));
    bed.refuses("no such blob");
    let mut unknown = bed.blob(b"{}", "application/vnd.example+json");
    bed.index(&[unknown.clone()]);
    bed.refuses("unknown media type \"application/vnd.example+json\"");
    unknown["mediaType"] = MANIFEST.into();
    bed.index(&[unknown]);
    bed.refuses("not a manifest");
    let artifact = bed.blob(b"{}", "application/vnd.example.config");
    bed.index(&[bed.manifest(artifact, &[])]);
    bed.refuses("not a container image");
    let mut sha512 = manifest;
    sha512["digest"] = format!("sha512:{}", "0".repeat(128)).into();
    bed.index(&[sha512]);
    bed.refuses("not a sha256 digest");
    bed.index(&[bed.blob(&vec![b' '; 5 << 20], MANIFEST)]);
    bed.refuses("5242880 bytes, more than the 4194304 allowed");
}

#[test]
fn indexes_lead_to_the_platform_and_do_not_loop() {
    let mut bed = Bed::new();
    let wrap = |bed: &Bed, entries: &[Value]| {
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries });
        bed.blob(index.to_string().as_bytes(), INDEX)
    };
    bed.image(&[layer("x")]);
    let index: Value = serde_json::from_slice(&fs::read(bed.path("oci/index.json")).unwrap()).unwrap();
    let mut ours = index["manifests"][0].clone();
    ours["platform"] = json!({ "os": "linux", "architecture": "amd64" });
    let mut theirs = ours.clone();
    theirs["platform"] = json!({ "os": "linux", "architecture": "s390x" });
    bed.index(&[wrap(&bed, &[theirs.clone()])]);
    bed.refuses("no image for linux/amd64 in this index");
    // No index can hold itself, whose digest it would have to know; but one can be in another, on and on.
    let mut deep = wrap(&bed, &[ours.clone()]);
    for _ in 0..8 {
        deep = wrap(&bed, &[deep]);
    }
    bed.index(&[deep]);
    bed.refuses("an index within more than 4 others");
    // It says that it is for another platform, and is not.
    bed.platform = "linux/s390x".parse().unwrap();
    bed.index(&[wrap(&bed, &[theirs])]);
    bed.refuses("an image for linux/amd64, not for linux/s390x");
    bed.platform = "linux/amd64".parse().unwrap();
    bed.index(&[wrap(&bed, &[ours])]);
    bed.import().unwrap();
}

#[test]
fn bombs_are_refused() {
    let mut bed = Bed::new();
    // Eight megabytes of zeros are some kilobytes.
    bed.image(&[Stream::default().file("zeros", &"\0".repeat(8 << 20)).end()]);
    bed.refuses("more than 1048576");
    // What comes after the end of the archive counts as well.
    bed.image(&[[Stream::default().file("f", "").end(), vec![0; 8 << 20]].concat()]);
    bed.refuses("more than 1048576 bytes once decompressed");
    bed.limits.layer_bytes = 1 << 40;
    bed.limits.paths = 10_000;
    let dirs = (0..300).fold(Stream::default(), |stream, n| stream.dir(&format!("{}{n}", "d/".repeat(40)))).end();
    bed.image(&[dirs]);
    bed.refuses("directories whose paths have more than 10000 bytes");
    let many = (0..2000).fold(Stream::default(), |stream, n| stream.file(&format!("f{n}"), "")).end();
    bed.image(&[many]);
    bed.refuses("more than 1000 entries (--max-entries)");
}

#[test]
fn a_line_names_blob_and_entry() {
    let bed = Bed::new();
    let bad = Stream::default().dir("d").file("d/../../etc/passwd", "x").end();
    bed.image(&[layer("fine"), bad.clone()]);
    let line = bed.import().unwrap_err();
    let blob = Digest::of(&gzip(&bad));
    assert!(line.contains(&format!("{blob}: entry d/../../etc/passwd: a path that climbs")), "{line}");
    assert_eq!(bed.store().images().unwrap(), []);
}

#[test]
fn layers_that_replace_their_own_entries_are_kept_whole() {
    let bed = Bed::new();
    let odd = Stream::default().file("f", "one").file("f", "two").end();
    bed.image(std::slice::from_ref(&odd));
    let image = bed.import().unwrap();
    let store = bed.store();
    let layer = store.layer(&image.layers[0]).unwrap().unwrap();
    assert_eq!(fs::read_to_string(layer.root.join("f")).unwrap(), "two");
    let mut stream = Vec::new();
    let root = layer.open_root().unwrap();
    super::tar::record::replay(layer.stream().unwrap(), std::os::fd::AsFd::as_fd(&root), &mut stream).unwrap();
    assert_eq!(stream, odd);
}

#[test]
fn archives_are_read_as_well() {
    let bed = Bed::new();
    bed.image(&[layer("x")]);
    let pack = |dir: &Path, to: &Path| {
        let mut builder = ::tar::Builder::new(fs::File::create(to).unwrap());
        builder.append_dir_all("", dir).unwrap();
        builder.finish().unwrap();
    };
    pack(&bed.path("oci"), &bed.path("oci.tar"));
    let image = bed.import_from(&format!("oci-archive:{}", bed.path("oci.tar").display())).unwrap();
    fs::write(bed.path("oci.tar.gz"), gzip(&fs::read(bed.path("oci.tar")).unwrap())).unwrap();
    assert_eq!(bed.import_from(&format!("oci-archive:{}", bed.path("oci.tar.gz").display())).unwrap(), image);

    // As docker save once wrote it: equal layers linked to each other.
    let docker = bed.path("docker");
    fs::create_dir_all(docker.join("aa")).unwrap();
    fs::create_dir_all(docker.join("bb")).unwrap();
    fs::write(docker.join("aa/layer.tar"), layer("x")).unwrap();
    std::os::unix::fs::symlink("../aa/layer.tar", docker.join("bb/layer.tar")).unwrap();
    let id = Digest::of(&layer("x"));
    let config =
        json!({ "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": [id, id] } });
    let name = format!("{}.json", Digest::of(config.to_string().as_bytes()).hex());
    fs::write(docker.join(&name), config.to_string()).unwrap();
    let list = json!([{ "Config": name, "RepoTags": ["a/b:1"], "Layers": ["aa/layer.tar", "bb/layer.tar"] }]);
    fs::write(docker.join("manifest.json"), list.to_string()).unwrap();
    let archive = bed.path("docker.tar");
    let mut builder = ::tar::Builder::new(fs::File::create(&archive).unwrap());
    builder.follow_symlinks(false);
    builder.append_dir_all("", &docker).unwrap();
    builder.finish().unwrap();
    let image = bed.import_from(&format!("docker-archive:{}", archive.display())).unwrap();
    assert_eq!(image.layers, [id, id]);
    let missing = bed.import_from(&format!("docker-archive:{}:a/c", archive.display())).unwrap_err();
    assert!(missing.contains("it holds no such image; there are: a/b:1"), "{missing}");

    fs::write(bed.path("root.tar.gz"), gzip(&layer("x"))).unwrap();
    let image = bed.import_from(&format!("tar:{}", bed.path("root.tar.gz").display())).unwrap();
    assert_eq!(image.layers, [id]);
    let nothing = bed.import_from(&format!("tar:{}", bed.path("missing").display())).unwrap_err();
    assert!(nothing.contains("missing"), "{nothing}");
}

#[test]
fn a_store_is_not_made_over_something_else() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("mine"), "").unwrap();
    let error = store::Store::open(dir.path()).unwrap_err().to_string();
    assert!(error.contains("there is something else in it"), "{error}");
}
