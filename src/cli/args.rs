//! The command line, as it is written.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgAction, Args, Parser};
use clap_complete::Shell;

use crate::config::table::{OPTIONS, Value};
use crate::image::name::ImageName;

const ABOUT: &str = "Show read-only layers and one writable layer as one tree";
const USAGE: &str = "plyfs -o lowerdir=PATH[:PATH…][,upperdir=PATH,workdir=PATH][,OPTION…] [SOURCE] MOUNTPOINT
       plyfs mount --lower PATH… [--upper PATH --work PATH] MOUNTPOINT
       plyfs mount IMAGE|CONTAINER MOUNTPOINT
       plyfs umount MOUNTPOINT
       plyfs run IMAGE|CONTAINER [COMMAND…]
       plyfs diff | commit | image …
       plyfs explain -o OPTIONS PATH
       plyfs ps | stats …
       plyfs check [--repair] UPPER
       plyfs doctor [UPPER]
       plyfs completions | man …";

/// `plyfs -o OPTIONS [SOURCE] MOUNTPOINT`, as mount programs are called.
#[derive(Debug, Parser)]
#[command(name = "plyfs", version, about = ABOUT, override_usage = USAGE, after_long_help = option_help(),
          args_override_self = true)]
pub(super) struct Program {
    #[command(flatten)]
    pub(super) common: Common,
    /// Read requests by one thread only
    #[arg(short)]
    pub(super) single: bool,
    /// Where to mount; a word before it is what the list of mounts shows as the source
    #[arg(num_args = 1..=2, required = true, value_name = "MOUNTPOINT")]
    pub(super) paths: Vec<OsString>,
}

/// Mount layers at a directory
#[derive(Debug, Parser)]
#[command(name = "plyfs mount", bin_name = "plyfs mount", about = "Mount layers at a directory",
          after_long_help = option_help(), args_override_self = true)]
pub(super) struct Mount {
    /// A lower layer; given again, one more below
    #[arg(long, value_name = "PATH", action = ArgAction::Append)]
    pub(super) lower: Vec<PathBuf>,
    /// The writable layer; without one, the mount is read-only
    #[arg(long, value_name = "PATH")]
    pub(super) upper: Option<PathBuf>,
    /// An empty directory on the filesystem of the writable layer
    #[arg(long, value_name = "PATH")]
    pub(super) work: Option<PathBuf>,
    /// Let nothing be changed
    #[arg(long)]
    pub(super) read_only: bool,
    /// Append messages to this file
    #[arg(long, value_name = "FILE")]
    pub(super) log: Option<PathBuf>,
    #[command(flatten)]
    pub(super) common: Common,
    /// Where the store of images is
    #[arg(long, value_name = "DIR")]
    pub(super) store: Option<PathBuf>,
    /// What to call the container whose writable layer is made
    #[arg(long)]
    pub(super) name: Option<String>,
    /// Remove the writable layer with the mount
    #[arg(long, conflicts_with_all = ["upper", "name", "read_only"])]
    pub(super) ephemeral: bool,
    /// Where to mount; before it, an image or container of the store
    #[arg(num_args = 1..=2, required = true, value_name = "MOUNTPOINT")]
    pub(super) paths: Vec<OsString>,
}

/// Run a program on an image
#[derive(Debug, Parser)]
#[command(
    name = "plyfs run",
    bin_name = "plyfs run",
    about = "Run a program on an image or container",
    args_override_self = true
)]
pub(super) struct Run {
    /// Where the store of images is
    #[arg(long, value_name = "DIR")]
    pub(super) store: Option<PathBuf>,
    /// Keep the writable layer as a container of this name
    #[arg(long)]
    pub(super) name: Option<String>,
    /// Let nothing be changed
    #[arg(long, conflicts_with = "name")]
    pub(super) read_only: bool,
    /// Set a variable, as NAME=VALUE
    #[arg(short, long, value_name = "VARIABLE", action = ArgAction::Append)]
    pub(super) env: Vec<OsString>,
    /// Whose the program is: USER[:GROUP], by name or number
    #[arg(short, long)]
    pub(super) user: Option<String>,
    /// The program's working directory
    #[arg(short, long, value_name = "DIR")]
    pub(super) workdir: Option<PathBuf>,
    /// Mount options, with commas between them
    #[arg(short, value_name = "OPTIONS", action = ArgAction::Append, allow_hyphen_values = true)]
    pub(super) options: Vec<OsString>,
    /// The image or container
    pub(super) image: OsString,
    /// The program and its arguments, if not the image's own
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(super) command: Vec<OsString>,
}

/// Tell what a writable layer changes
#[derive(Debug, Parser)]
#[command(
    name = "plyfs diff",
    bin_name = "plyfs diff",
    about = "Tell what was added (A), changed (C) and deleted (D)",
    args_override_self = true
)]
pub(super) struct Diff {
    /// Where the store of images is
    #[arg(long, value_name = "DIR")]
    pub(super) store: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    /// A layer below an upper that is no container's; given again, one more below
    #[arg(long, value_name = "PATH", action = ArgAction::Append, conflicts_with = "image")]
    pub(super) lower: Vec<PathBuf>,
    /// A container, its mountpoint, an upper, or an image
    #[arg(value_name = "WHAT")]
    pub(super) what: OsString,
    /// The image to compare with, if not the one below
    pub(super) image: Option<String>,
}

/// Make an image of a writable layer
#[derive(Debug, Parser)]
#[command(
    name = "plyfs commit",
    bin_name = "plyfs commit",
    about = "Make an image of a container's writable layer",
    args_override_self = true
)]
pub(super) struct Commit {
    /// Where the store of images is
    #[arg(long, value_name = "DIR")]
    pub(super) store: Option<PathBuf>,
    /// Print the image as JSON
    #[arg(long)]
    pub(super) json: bool,
    /// When it is made, and the latest time of any of its files, in seconds since 1970
    #[arg(long, value_name = "SECONDS", env = "SOURCE_DATE_EPOCH")]
    pub(super) source_date_epoch: Option<i64>,
    /// What the history says of it
    #[arg(short, long, value_name = "TEXT")]
    pub(super) message: Option<String>,
    /// A container, or its mountpoint
    #[arg(value_name = "CONTAINER")]
    pub(super) what: OsString,
    /// What to call the image
    pub(super) name: ImageName,
}

/// Unmount, and wait until everything is done
#[derive(Debug, Parser)]
#[command(
    name = "plyfs umount",
    bin_name = "plyfs umount",
    about = "Unmount, and wait until everything is done",
    args_override_self = true
)]
pub(super) struct Umount {
    /// Do not wait for who still uses it
    #[arg(short, long)]
    pub(super) lazy: bool,
    /// What to unmount
    pub(super) mountpoint: PathBuf,
}

/// List what is mounted
#[derive(Debug, Parser)]
#[command(name = "plyfs ps", bin_name = "plyfs ps", about = "List your mounts", args_override_self = true)]
pub(super) struct Ps {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    /// Print the layers of each mount below it
    #[arg(short, long)]
    pub(super) layers: bool,
}

/// Tell what a mount has done
#[derive(Debug, Parser)]
#[command(
    name = "plyfs stats",
    bin_name = "plyfs stats",
    about = "Tell what a mount has done, and what it holds",
    args_override_self = true
)]
pub(super) struct Stats {
    /// Print JSON
    #[arg(long, conflicts_with = "prometheus")]
    pub(super) json: bool,
    /// Print the text format of Prometheus
    #[arg(long)]
    pub(super) prometheus: bool,
    /// Where it is mounted
    pub(super) mountpoint: PathBuf,
}

/// Print a script by which a shell completes commands
#[derive(Debug, Parser)]
#[command(
    name = "plyfs completions",
    bin_name = "plyfs completions",
    about = "Print a script by which a shell completes commands",
    args_override_self = true
)]
pub(super) struct Completions {
    /// The shell
    pub(super) shell: Shell,
}

/// Write the man pages of the subcommands
#[derive(Debug, Parser)]
#[command(
    name = "plyfs man",
    bin_name = "plyfs man",
    about = "Write the man pages of the subcommands",
    args_override_self = true
)]
pub(super) struct Manual {
    /// The date that they tell, in seconds since 1970; else today
    #[arg(long, value_name = "SECONDS", env = "SOURCE_DATE_EPOCH")]
    pub(super) source_date_epoch: Option<i64>,
    /// Where to
    pub(super) dir: PathBuf,
}

/// `mount.fuse.plyfs SOURCE MOUNTPOINT`, as mount(8) calls its helpers.
#[derive(Debug, Parser)]
#[command(name = "mount.fuse.plyfs", about = ABOUT, args_override_self = true,
          override_usage = "mount.fuse.plyfs SOURCE MOUNTPOINT [-fnsv] [-t TYPE] [-o OPTION[,OPTION…]]")]
pub(super) struct Helper {
    /// Mount options, with commas between them
    #[arg(short, value_name = "OPTIONS", action = ArgAction::Append, allow_hyphen_values = true)]
    pub(super) options: Vec<OsString>,
    /// Check the options, and do not mount
    #[arg(short)]
    pub(super) fake: bool,
    /// Accepted: there is no mtab to be kept
    #[arg(short)]
    no_mtab: bool,
    /// Accepted: unknown options never fail
    #[arg(short)]
    sloppy: bool,
    /// Accepted: there is nothing more to tell
    #[arg(short)]
    verbose: bool,
    /// Accepted: there is one type only
    #[arg(short = 't', value_name = "TYPE")]
    kind: Option<OsString>,
    /// What the list of mounts shows as the source
    pub(super) source: OsString,
    /// Where to mount
    pub(super) mountpoint: PathBuf,
}

/// What both ways of mounting have.
#[derive(Debug, Args)]
pub(super) struct Common {
    /// Mount options, with commas between them (--help lists them)
    #[arg(short, value_name = "OPTIONS", action = ArgAction::Append, allow_hyphen_values = true)]
    pub(super) options: Vec<OsString>,
    /// Stay in the foreground
    #[arg(short, long)]
    pub(super) foreground: bool,
    /// Stay in the foreground and log everything
    #[arg(short, long)]
    pub(super) debug: bool,
}

/// All mount options, a line each.
fn option_help() -> String {
    let mut help = String::from("Mount options:\n");
    for spec in OPTIONS {
        let (open, what, close) = match spec.value {
            Value::No => ("", "", ""),
            Value::Needed(what) => ("=", what, ""),
            Value::Allowed(what) => ("[=", what, "]"),
        };
        let names = spec.names.join(", ");
        if names.len() > 60 {
            help.push_str(&format!("  {}\n", wrapped(&names)));
            help.push_str(&format!("      {}\n", spec.help));
        } else {
            help.push_str(&format!("  {names}{open}{what}{close}\n      {}\n", spec.help));
        }
    }
    help
}

/// The same words on lines that are not too long.
fn wrapped(words: &str) -> String {
    const WIDTH: usize = 76;
    let mut text = String::new();
    let mut column = 0_usize;
    for word in words.split(' ') {
        let needed = word.len().saturating_add(1);
        if column > 0 && column.saturating_add(needed) > WIDTH {
            text.push_str("\n  ");
            column = 0;
        } else if column > 0 {
            text.push(' ');
        }
        text.push_str(word);
        column = column.saturating_add(needed);
    }
    text
}
