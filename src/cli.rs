//! The command line: what is wanted, and how it went.

mod args;
mod changes;
mod container;
mod image;
mod inspect;
mod progress;
mod ps;
mod stats;
mod whole;

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use rustix::mount::MountFlags;
use rustix::process::geteuid;

use crate::config::{MountOptions, Options};
use crate::error::{Error, Result};
use crate::image::container::Held;
use crate::mount::{self, Failure, Request};
use crate::run::unprivileged::{self, Need};
use crate::sys::mount::Inherited;

use self::args::{Common, Helper, Mount, Program, Ps, Stats, Umount};

/// The command line cannot be understood.
const USAGE: u8 = 2;
/// As what mount(8) calls the command.
const HELPER: &str = "mount.fuse.plyfs";
/// The name by which plyfs takes the place of that program.
const DROP_IN: &str = "fuse-overlayfs";

/// Does what the command line says. To be called first in the process.
pub fn run() -> ExitCode {
    let inherited = Inherited::find();
    let args: Vec<OsString> = std::env::args_os().collect();
    let (program, rest) = args.split_first().map_or((None, args.as_slice()), |(program, rest)| (Some(program), rest));
    if called_as(program, HELPER) {
        return parse::<Helper>(&args).and_then(|args| help_mount(&args, inherited)).unwrap_or_else(|code| code);
    }
    if called_as(program, DROP_IN) && rest.iter().any(|word| word == "--version" || word == "-V") {
        return ended(print(&fuse_overlayfs_version()).map_err(Failure::from));
    }
    // Subcommands are told by the first word alone, so that a source or a mount point may be called as they are.
    let word = rest.first().and_then(|word| word.to_str()).filter(|_| !called_as(program, DROP_IN));
    // What is in a store may belong to users that only a user namespace has; a mount that others are to see cannot.
    let entered = match word {
        Some("run") => unprivileged::enter(Need::Always),
        Some("image" | "diff" | "commit") => unprivileged::enter(Need::ForIds),
        _ => Ok(()),
    };
    if let Err(error) = entered {
        say(&Failure::from(error).to_string());
        return ExitCode::FAILURE;
    }
    match word {
        Some("mount") => parse::<Mount>(rest).and_then(|args| match args.paths.as_slice() {
            [image, mountpoint] => container::mount(&args, image, Path::new(mountpoint), inherited),
            _ => mount(&args.common, from_flags(&args)?, inherited),
        }),
        Some("run") => container::run(rest, inherited),
        Some("diff") => changes::diff(rest),
        Some("commit") => changes::commit(rest),
        Some("image") => image::run(rest),
        Some("explain") => inspect::explain(rest),
        Some("check") => inspect::check(rest),
        Some("doctor") => inspect::doctor(rest),
        Some("completions") => whole::completions(rest),
        Some("man") => whole::man(rest),
        Some("stats") => parse::<Stats>(rest).and_then(|args| report(stats::stats(&args))),
        Some("ps") => parse::<Ps>(rest).and_then(|args| report(ps::ps(&args))),
        Some("umount") => parse::<Umount>(rest).and_then(|args| umount(&args)),
        _ => {
            let whole = program.map_or(rest, |_| args.as_slice());
            let defaults = defaults_of(program);
            parse::<Program>(whole).and_then(|args| mount(&args.common, from_program(&args, defaults)?, inherited))
        }
    }
    .unwrap_or_else(|code| code)
}

/// Reads the command line; what remains to be done otherwise is to end with the code.
fn parse<T: Parser>(args: &[OsString]) -> Result<T, ExitCode> {
    T::try_parse_from(args).map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            if error.print().is_ok() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        _ => {
            // The first paragraph says what is wrong, the others how it should be.
            let text = error.render().to_string();
            let lines = text.lines().map(str::trim).take_while(|line| !line.is_empty());
            let line = lines.collect::<Vec<_>>().join(" ");
            say(line.strip_prefix("error: ").unwrap_or(&line));
            ExitCode::from(USAGE)
        }
    })
}

/// Whether the program was called as `name`, as by a link.
fn called_as(program: Option<&OsString>, name: &str) -> bool {
    program.is_some_and(|program| Path::new(program).file_name() == Some(OsStr::new(name)))
}

/// The first line is what those read who look for the version of fuse-overlayfs: one that has all they may ask for.
fn fuse_overlayfs_version() -> String {
    format!("{DROP_IN}: version 1.14\nplyfs {}", env!("CARGO_PKG_VERSION"))
}

/// What the two ways of mounting come to: options and a mount point.
type Wanted = (Options, PathBuf);

/// What is asked for by the name of the program alone. Container engines mount for all users of a container, by
/// `fuse-overlayfs`, which allows that without being told to. `suid` and `nodev` do not reach a mount program.
fn defaults_of(program: Option<&OsString>) -> Options {
    let mut options = Options::default();
    if called_as(program, DROP_IN) && geteuid().is_root() {
        options.mount.allow_other = true;
        options.mount.flags.remove(MountFlags::NOSUID);
    }
    options
}

fn from_program(args: &Program, defaults: Options) -> Result<Wanted, ExitCode> {
    let mut options = add(defaults, &args.common.options)?;
    if args.single {
        options.mount.readers = 1;
    }
    let (source, mountpoint) = match args.paths.as_slice() {
        [source, mountpoint] => (Some(source), mountpoint),
        [mountpoint] => (None, mountpoint),
        // The parser lets one or two through.
        _ => return Err(ExitCode::from(USAGE)),
    };
    name_source(&mut options.mount, source.map(OsString::as_os_str));
    Ok((options, PathBuf::from(mountpoint)))
}

fn from_flags(args: &Mount) -> Result<Wanted, ExitCode> {
    let mut options = options(&args.common.options)?;
    if !args.lower.is_empty() {
        options.config.lowers.clone_from(&args.lower);
    }
    if args.upper.is_some() {
        options.config.upper.clone_from(&args.upper);
    }
    if args.work.is_some() {
        options.config.work.clone_from(&args.work);
    }
    if args.log.is_some() {
        options.mount.log.clone_from(&args.log);
    }
    if args.read_only {
        options.add(OsStr::new("ro")).map_err(refuse)?;
    }
    let [mountpoint] = args.paths.as_slice() else { return Err(ExitCode::from(USAGE)) };
    Ok((options, PathBuf::from(mountpoint)))
}

fn options(lists: &[OsString]) -> Result<Options, ExitCode> {
    add(Options::default(), lists)
}

fn add(mut options: Options, lists: &[OsString]) -> Result<Options, ExitCode> {
    for list in lists {
        options.add(list).map_err(refuse)?;
    }
    Ok(options)
}

fn name_source(mount: &mut MountOptions, source: Option<&OsStr>) {
    if mount.source.is_none()
        && let Some(source) = source.filter(|source| !source.is_empty())
    {
        mount.source = Some(source.to_owned());
    }
}

fn mount(common: &Common, wanted: Wanted, inherited: Inherited) -> Result<ExitCode, ExitCode> {
    let (mut options, mountpoint) = wanted;
    options.finish().map_err(refuse)?;
    for warning in &options.warnings {
        say(&Failure::new(warning.as_str()).to_string());
    }
    let request = Request {
        config: options.config,
        mount: options.mount,
        mountpoint,
        debug: common.debug,
        held: Held::default(),
        image: None,
        ends_with_caller: false,
    };
    Ok(serve(common, &request, inherited))
}

/// Mounts for mount(8), which is to say with device nodes and set-id bits for root, unless it says otherwise.
fn help_mount(args: &Helper, inherited: Inherited) -> Result<ExitCode, ExitCode> {
    let mut lists = args.options.clone();
    if geteuid().is_root() {
        lists.insert(0, "dev,suid".into());
    }
    let mut options = options(&lists)?;
    name_source(&mut options.mount, Some(&args.source));
    if args.fake {
        options.finish().map_err(refuse)?;
        return Ok(ExitCode::SUCCESS);
    }
    let common = Common { options: Vec::new(), foreground: false, debug: false };
    mount(&common, (options, args.mountpoint.clone()), inherited)
}

fn serve(common: &Common, request: &Request, inherited: Inherited) -> ExitCode {
    ended(if common.foreground || common.debug {
        mount::foreground(request)
    } else {
        mount::background(request, inherited)
    })
}

fn umount(args: &Umount) -> Result<ExitCode, ExitCode> {
    Ok(ended(mount::umount(&args.mountpoint, args.lazy).map(|remark| {
        if let Some(remark) = remark {
            say(&remark);
        }
    })))
}

fn report(result: Result<()>) -> Result<ExitCode, ExitCode> {
    Ok(ended(result.map_err(Failure::from)))
}

fn ended(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say(&failure.to_string());
            ExitCode::FAILURE
        }
    }
}

fn refuse(error: crate::error::Error) -> ExitCode {
    say(&Failure::from(error).to_string());
    ExitCode::from(USAGE)
}

/// Writes one line to standard output.
fn print(line: &str) -> Result<()> {
    writeln!(io::stdout(), "{line}").map_err(|error| Error::from(error).on("standard output"))
}

/// Writes one line of news to standard error, if that is there.
fn tell(line: &str) {
    writeln!(io::stderr(), "{line}").ok();
}

/// Writes one line to standard error, if that is there.
fn say(line: &str) {
    writeln!(io::stderr(), "plyfs: {line}").ok();
}
