//! Where messages go.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use env_logger::{Builder, Target};

use crate::error::Errno;

use super::failure::Failure;

/// The environment variables that say which messages are wanted; the first that is there counts.
const FILTERS: [&str; 2] = ["PLYFS_LOG", "RUST_LOG"];

/// Sends messages to `file`, or to standard error where there is none.
///
/// # Errors
/// Why the file cannot be written to.
pub(super) fn start(file: Option<&Path>, debug: bool) -> Result<(), Failure> {
    let wanted = FILTERS.iter().find_map(|name| std::env::var(name).ok());
    let mut builder = Builder::new();
    builder.parse_filters(wanted.as_deref().unwrap_or(if debug { "debug" } else { "warn" }));
    if let Some(path) = file {
        // It names files of the mount, so that it is for its owner's eyes.
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
        let file =
            file.map_err(|error| Failure::on("log=", path, Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
        builder.target(Target::Pipe(Box::new(file)));
        // Nobody sees standard error.
        std::panic::set_hook(Box::new(|panic| log::error!("{panic}")));
    }
    builder.try_init().map_err(|error| Failure::new(error.to_string()))
}
