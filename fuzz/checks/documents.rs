//! The JSON documents of an image, each in its place in a layout: refused in one line, or taken for what they are.

use std::fs;

use plyfs::image::digest::Digest;
use plyfs::image::limits::Limits;
use plyfs::image::platform::Platform;
use plyfs::image::source::{Source, check_config, document};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// The input as an index, as a manifest that an index leads to, and as a config that a manifest leads to.
pub fn check(data: &[u8]) {
    let (platform, limits) = (Platform::host(), Limits::default());
    assert_line(document::index("index", data).err());
    assert_line(document::manifest("manifest", data).err());
    assert_line(check_config("config", data, &platform, &limits).err());
    for place in ["index", "manifest", "config"] {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("blobs/sha256")).unwrap();
        fs::write(dir.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        let blob = |bytes: &[u8], media_type: &str| {
            let digest = Digest::of(bytes);
            fs::write(dir.path().join("blobs/sha256").join(digest.hex()), bytes).unwrap();
            format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{}}}"#, bytes.len())
        };
        let index = |entry: String| format!(r#"{{"schemaVersion":2,"manifests":[{entry}]}}"#);
        let index = match place {
            "index" => data.to_vec(),
            "manifest" => index(blob(data, MANIFEST)).into_bytes(),
            _ => {
                let config = blob(data, CONFIG);
                let manifest = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[]}}"#);
                index(blob(manifest.as_bytes(), MANIFEST)).into_bytes()
            }
        };
        fs::write(dir.path().join("index.json"), index).unwrap();
        let source: Source = format!("oci:{}", dir.path().display()).parse().unwrap();
        assert_line(source.load(&platform, &limits, dir.path()).err());
    }
}

/// What is refused is refused in one line.
fn assert_line(error: Option<plyfs::error::Error>) {
    if let Some(error) = error {
        let line = plyfs::mount::Failure::from(error).to_string();
        assert!(!line.contains('\n') && line.len() < 4000, "{line:?}");
    }
}
