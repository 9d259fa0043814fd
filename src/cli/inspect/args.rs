//! The command line of what looks into an overlay, as it is written.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgAction, Parser};

/// Tell why a path of an overlay is what it is
#[derive(Debug, Parser)]
#[command(
    name = "plyfs explain",
    bin_name = "plyfs explain",
    about = "Tell why a path of an overlay is what it is",
    args_override_self = true
)]
pub(in crate::cli) struct Explain {
    /// The layers, as mount options: lowerdir=… and what else the overlay is mounted with
    #[arg(short, value_name = "OPTIONS", action = ArgAction::Append, allow_hyphen_values = true)]
    pub(in crate::cli) options: Vec<OsString>,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
    /// The path, from the root of the overlay
    pub(in crate::cli) path: PathBuf,
}
