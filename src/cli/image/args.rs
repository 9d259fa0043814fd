//! The command line of `plyfs image`, as it is written.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::image::blob::Compression;
use crate::image::name::ImageName;
use crate::image::platform::Platform;
use crate::image::source::{Source, split_reference};

/// Images in the store: from others, to others, and what there is
#[derive(Debug, Parser)]
#[command(name = "plyfs image", bin_name = "plyfs image", about = "Images in the store", args_override_self = true)]
pub(in crate::cli) struct Images {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Take an image into the store
    Import(Import),
    /// List the images
    Ls(Ls),
    /// Show an image's config and layers as JSON
    Inspect(Inspect),
    /// Show how an image was made
    History(History),
    /// Take names of images, and containers, out of the store
    Rm(Rm),
    /// Remove layers that nothing needs any more
    Gc(Gc),
    /// Check that layers are what their digests tell
    Verify(Verify),
    /// Write an image out as an OCI layout
    Export(Export),
}

#[derive(Debug, Args)]
pub(super) struct Import {
    /// Where the store is
    #[arg(long, value_name = "DIR")]
    pub(super) store: Option<PathBuf>,
    /// Print the image as JSON
    #[arg(long)]
    pub(super) json: bool,
    /// The platform of which an image is wanted, such as linux/arm64
    #[arg(long, value_name = "OS/ARCH")]
    pub(super) platform: Option<Platform>,
    /// The largest layer, in bytes once it is decompressed
    #[arg(long, value_name = "BYTES", value_parser = size)]
    pub(super) max_layer_size: Option<u64>,
    /// The most entries of a layer
    #[arg(long, value_name = "COUNT")]
    pub(super) max_entries: Option<u64>,
    /// Leave device nodes out where they cannot be made
    #[arg(long)]
    pub(super) skip_devices: bool,
    /// Layers to unpack at once
    #[arg(long, value_name = "COUNT", value_parser = jobs)]
    pub(super) jobs: Option<usize>,
    /// oci:DIR[:REF], oci-archive:FILE[:REF], docker-archive:FILE[:REF] or tar:FILE
    #[arg(value_name = "SOURCE")]
    pub(super) source: Source,
    /// What to call it; else as the source does
    #[arg(value_name = "NAME")]
    pub(super) name: Option<ImageName>,
}

#[derive(Debug, Args)]
pub(super) struct Ls {
    /// Where the store is
    #[arg(long, value_name = "DIR")]
    pub(super) store: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Inspect {
    /// Where the store is
    #[arg(long, value_name = "DIR")]
    pub(super) store: Option<PathBuf>,
    /// Print JSON, as without it
    #[arg(long)]
    json: bool,
    /// Its name, or the first digits of its ID
    pub(super) image: String,
}

#[derive(Debug, Args)]
pub(super) struct History {
    /// Where the store is
    #[arg(long, value_name = "DIR")]
    pub(super) store: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    /// Its name, or the first digits of its ID
    pub(super) image: String,
}

#[derive(Debug, Args)]
pub(super) struct Rm {
    /// Where the store is
    #[arg(long, value_name = "DIR")]
    pub(super) store: Option<PathBuf>,
    /// Names of images or containers
    #[arg(required = true, value_name = "NAME")]
    pub(super) images: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct Gc {
    /// Where the store is
    #[arg(long, value_name = "DIR")]
    pub(super) store: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Verify {
    /// Where the store is
    #[arg(long, value_name = "DIR")]
    pub(super) store: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    /// Remove layers that are broken, so that the next import brings them back
    #[arg(long)]
    pub(super) repair: bool,
    /// The image whose layers are to be checked; else all layers are
    pub(super) image: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Export {
    /// Where the store is
    #[arg(long, value_name = "DIR")]
    pub(super) store: Option<PathBuf>,
    /// Print the manifest's digest as JSON
    #[arg(long)]
    pub(super) json: bool,
    /// How layers are compressed
    #[arg(long, value_name = "gzip|zstd|none", default_value = "gzip", value_parser = compression)]
    pub(super) compression: Compression,
    /// Its name, or the first digits of its ID
    pub(super) image: String,
    /// oci:DIR[:REF]
    #[arg(value_name = "TARGET", value_parser = target)]
    pub(super) target: Target,
}

/// A layout to write to, and what the image is called there.
pub(super) type Target = (PathBuf, Option<String>);

fn target(text: &str) -> Result<Target, &'static str> {
    let path = text.strip_prefix("oci:").filter(|path| !path.is_empty()).ok_or("not oci:DIR[:REF]")?;
    let (dir, reference) = split_reference(path);
    Ok((dir.into(), reference.map(str::to_owned)))
}

fn compression(word: &str) -> Result<Compression, &'static str> {
    match word {
        "gzip" => Ok(Compression::Gzip),
        "zstd" => Ok(Compression::Zstd),
        "none" => Ok(Compression::None),
        _ => Err("not gzip, zstd or none"),
    }
}

/// A number of bytes, with K, M, G or T for powers of 1024.
fn size(text: &str) -> Result<u64, &'static str> {
    let powers = [('K', 10), ('M', 20), ('G', 30), ('T', 40)];
    let (digits, shift) =
        powers.iter().find_map(|(letter, shift)| Some((text.strip_suffix(*letter)?, *shift))).unwrap_or((text, 0));
    let number: u64 = digits.parse().map_err(|_| "not a number of bytes, or of K, M, G, T")?;
    number.checked_mul(1 << shift).ok_or("too large")
}

fn jobs(text: &str) -> Result<usize, &'static str> {
    text.parse().ok().filter(|jobs| *jobs > 0).ok_or("not a number of at least 1")
}
