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

/// Check an upper that is not mounted
#[derive(Debug, Parser)]
#[command(
    name = "plyfs check",
    bin_name = "plyfs check",
    about = "Check an upper that is not mounted",
    args_override_self = true
)]
pub(in crate::cli) struct Check {
    /// The layers below, as mount options: lowerdir=…
    #[arg(short, value_name = "OPTIONS", action = ArgAction::Append, allow_hyphen_values = true)]
    pub(in crate::cli) options: Vec<OsString>,
    /// Its work directory
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) work: Option<PathBuf>,
    /// Mend what can be mended without losing anything
    #[arg(long)]
    pub(in crate::cli) repair: bool,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
    /// The upper
    pub(in crate::cli) upper: PathBuf,
}

/// Try whether this machine can mount, and tell what it lacks
#[derive(Debug, Parser)]
#[command(
    name = "plyfs doctor",
    bin_name = "plyfs doctor",
    about = "Try whether this machine can mount, and tell what it lacks",
    args_override_self = true
)]
pub(in crate::cli) struct Doctor {
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
    /// A directory on the filesystem that is to hold uppers
    pub(in crate::cli) upper: Option<PathBuf>,
}
