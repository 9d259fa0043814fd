//! What a mount tells of itself on its control socket.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{geteuid, getpid};

use crate::config::{Config, RedirectDir, WhiteoutStyle};
use crate::control::protocol::{About, Text};
use crate::overlay::Overlay;
use crate::sys::creds::status_field;
use crate::times;

use super::Request;
use super::kernel::{self, Mounted};

/// What is known of a mount before paths lose their meaning: full ones of its layers.
pub(super) fn layers(config: &Config) -> Layers {
    let full = |path: &PathBuf| {
        let full = fs::canonicalize(path).or_else(|_| std::path::absolute(path));
        Text::from(full.as_deref().unwrap_or(path))
    };
    Layers {
        upper: config.upper.as_ref().map(full),
        work: config.work.as_ref().map(full),
        lowers: config.lowers.iter().map(full).collect(),
        data: config.data_layers.iter().map(full).collect(),
    }
}

/// The paths of a mount's layers.
#[derive(Debug)]
pub(super) struct Layers {
    upper: Option<Text>,
    work: Option<Text>,
    lowers: Vec<Text>,
    data: Vec<Text>,
}

/// What does not change as long as it is mounted.
pub(super) fn about(request: &Request, layers: Layers, mounted: &Mounted, overlay: &Overlay) -> About {
    About {
        program: env!("CARGO_PKG_VERSION").to_owned(),
        pid: getpid().as_raw_nonzero().get().unsigned_abs(),
        uid: geteuid().as_raw(),
        mountpoint: mounted.path().into(),
        source: kernel::source(&request.mount).to_owned().into(),
        device: mounted.device().unwrap_or_default(),
        since: times::now(),
        upper: layers.upper,
        work: layers.work,
        lowers: layers.lowers,
        data_layers: layers.data,
        options: options(&request.config, overlay),
        read_only: overlay.is_read_only(),
        image: request.image.clone(),
        requests: 0,
        memory: 0,
        descriptors: 0,
    }
}

/// The same, with what does change.
pub(super) fn now(about: &About, requests: u64) -> About {
    About { requests, memory: memory(), descriptors: descriptors(), ..about.clone() }
}

/// The mount options that say how layers are read, with what was chosen where nothing was said.
fn options(config: &Config, overlay: &Overlay) -> Vec<String> {
    let redirects = match config.redirect_dir {
        RedirectDir::On => "on",
        RedirectDir::Follow => "follow",
        RedirectDir::NoFollow => "nofollow",
    };
    let mut options = vec![format!("redirect_dir={redirects}")];
    options.push(format!("metacopy={}", if config.metacopy { "on" } else { "off" }));
    let whiteouts = config.whiteouts.map(|style| match style {
        WhiteoutStyle::Device => "device",
        WhiteoutStyle::Xattr => "xattr",
        WhiteoutStyle::DotFile => "file",
    });
    options.extend(whiteouts.map(|style| format!("whiteouts={style}")));
    if overlay.has_user_marks() {
        options.push("userxattr".to_owned());
    }
    if config.read_only {
        options.push("ro".to_owned());
    }
    options
}

/// Memory of this process, in bytes.
fn memory() -> u64 {
    let field = status_field("self", "VmRSS:");
    let kib = field.and_then(|field| field.split_ascii_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

/// Descriptors that this process has open.
fn descriptors() -> u64 {
    // One is that by which they are counted.
    fs::read_dir(Path::new("/proc/self/fd")).map_or(0, |open| open.count().saturating_sub(1) as u64)
}
