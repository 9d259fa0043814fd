//! Running a program on a mounted image: its own root, processes, mounts, and nothing left when it has ended.
//!
//! ```text
//!   plyfs run          in a mount namespace of its own: waits, passes signals on, unmounts
//!     ├ daemon         serves the mount; ends with who waits
//!     └ init           process 1 of a process namespace: prepares the root (root.rs), waits for whatever ends
//!         └ program    user.rs: whose it is
//! ```

mod root;
pub mod unprivileged;
mod user;

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, kill_process, set_parent_process_death_signal, umask, waitpid,
};
use rustix::thread::UnshareFlags;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::error::{Context, Errno, Error, Result};
use crate::mount::{self, Failure};
use crate::sys::mount::{Inherited, fork};
use crate::sys::namespace::leave;

/// What the exit code is when it is not the program's, as of docker and podman.
pub const FAILED: u8 = 125;
const NOT_EXECUTABLE: i32 = 126;
const NOT_FOUND: i32 = 127;
/// How long a program may take to end after it was asked to.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is to be run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Program {
    /// The program and its arguments.
    pub args: Vec<OsString>,
    /// Its environment.
    pub env: Vec<(OsString, OsString)>,
    /// Its working directory, made if it is not there; empty for the root.
    pub workdir: PathBuf,
    /// Whose it is: `USER[:GROUP]`, by name or number; empty for root.
    pub user: String,
}

/// Mounts, runs the program in it, and unmounts; the program's exit code, or 128 and the signal that ended it.
///
/// To be called before anything starts a thread.
///
/// # Errors
/// Why it could not be mounted or run.
pub fn run(request: &mount::Request, inherited: Inherited, program: &Program) -> Result<u8, Failure> {
    leave(UnshareFlags::NEWNS).during("make a mount namespace")?;
    // What is mounted here is seen by nobody else, and goes with the last process in here.
    let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", flags).during("make mounts private")?;
    mount::background(request, inherited)?;
    let code = supervise(&request.mountpoint, program);
    if let Some(remark) = mount::umount(&request.mountpoint, false)? {
        log::warn!("{remark}");
    }
    Ok(code?)
}

/// Runs the program in a process namespace and waits for its end.
fn supervise(mountpoint: &Path, program: &Program) -> Result<u8> {
    leave(UnshareFlags::NEWPID).during("make a process namespace")?;
    let Some(child) = fork().during("start a process")? else {
        exit(init(mountpoint, program).unwrap_or_else(|error| {
            tell(&Failure::from(error).to_string());
            i32::from(FAILED)
        }))
    };
    wait(child, || children(child))
}

/// Waits for the end of `child`, and passes on to `others` what asks for it; the exit code.
///
/// # Errors
/// Those of waitpid(2) and sigaction(2).
fn wait(child: Pid, others: impl Fn() -> Vec<Pid>) -> Result<u8> {
    // The terminal sends its signals to the program as well, which is who they are for.
    let wanted = [SIGCHLD, SIGINT, SIGQUIT, SIGTERM, SIGHUP];
    let mut signals = Signals::new(wanted).map_err(|error| Error::from(error).on("signals"))?;
    let mut is_asked: Option<Instant> = None;
    loop {
        if let Some((_, status)) = waitpid(Some(child), WaitOptions::NOHANG).during("wait for the program")? {
            return Ok(code(status));
        }
        let pending: Vec<i32> = match is_asked {
            None => signals.wait().collect(),
            Some(_) => signals.pending().collect(),
        };
        if pending.iter().any(|signal| matches!(*signal, SIGTERM | SIGHUP)) && is_asked.is_none() {
            is_asked = Some(Instant::now());
            for program in others() {
                send(program, Signal::TERM);
            }
        }
        if let Some(start) = is_asked {
            if start.elapsed() > PATIENCE {
                // With the first of its namespace, all of them end.
                send(child, Signal::KILL);
            }
            sleep(Duration::from_millis(20));
        }
    }
}

/// The processes that `pid` has started.
fn children(pid: Pid) -> Vec<Pid> {
    let path = format!("/proc/{0}/task/{0}/children", pid.as_raw_nonzero());
    let list = std::fs::read_to_string(path).unwrap_or_default();
    list.split_ascii_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
}

fn send(pid: Pid, signal: Signal) {
    match kill_process(pid, signal) {
        Ok(()) | Err(Errno::SRCH) => {}
        Err(errno) => log::warn!("cannot send a signal to process {}: {errno}", pid.as_raw_nonzero()),
    }
}

/// The first process of the namespace: prepares the root, starts the program, and buries whoever ends.
fn init(mountpoint: &Path, program: &Program) -> Result<i32> {
    // With whoever started us, all end.
    set_parent_process_death_signal(Some(Signal::KILL)).during("bind to the caller")?;
    leave(UnshareFlags::NEWNS).during("make a mount namespace")?;
    umask(rustix::fs::Mode::from_raw_mode(0o022));
    root::enter(mountpoint)?;
    let Some(child) = fork().during("start a process")? else { exit(start(program)) };
    loop {
        match waitpid(None, WaitOptions::empty()) {
            Ok(Some((ended, status))) if ended == child => return Ok(code(status).into()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::new(errno, "wait for the program")),
        }
    }
}

fn code(status: WaitStatus) -> u8 {
    let code = status.exit_status().or(status.terminating_signal().map(|signal| signal.saturating_add(128)));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

/// Becomes the program; only returns, with an exit code, if it cannot.
fn start(program: &Program) -> i32 {
    let Some((name, args)) = program.args.split_first() else {
        tell("the image names no command: give one");
        return i32::from(FAILED);
    };
    match prepare(program) {
        Ok(home) => {
            let mut command = Command::new(name);
            command.args(args).env_clear().envs(program.env.iter().map(|(name, value)| (name, value)));
            if !program.env.iter().any(|(name, _)| name == "HOME") {
                command.env("HOME", home);
            }
            let error = command.exec();
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            tell(&Failure::from(Error::new(errno, "run").on(name.to_string_lossy())).to_string());
            if error.kind() == std::io::ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE }
        }
        Err(error) => {
            tell(&Failure::from(error).to_string());
            i32::from(FAILED)
        }
    }
}

/// Goes to the working directory and becomes the user; the user's home.
fn prepare(program: &Program) -> Result<OsString> {
    let user = user::find(&program.user)?;
    let workdir = if program.workdir.as_os_str().is_empty() { Path::new("/") } else { &program.workdir };
    let failed = |error: std::io::Error| Error::from(error).on(format!("working directory {}", workdir.display()));
    if !workdir.exists() {
        std::fs::create_dir_all(workdir).map_err(failed)?;
    }
    user::become_user(&user)?;
    std::env::set_current_dir(workdir).map_err(failed)?;
    Ok(user.home)
}

/// Writes one line to standard error, if that is there.
fn tell(line: &str) {
    writeln!(std::io::stderr(), "plyfs: {line}").ok();
}

/// The environment of a config, with what the caller adds; a later one wins.
pub fn environment<'a>(entries: impl Iterator<Item = &'a OsStr>) -> Vec<(OsString, OsString)> {
    use std::os::unix::ffi::OsStrExt;
    let mut env: Vec<(OsString, OsString)> = Vec::new();
    for entry in entries {
        let bytes = entry.as_bytes();
        let Some(at) = bytes.iter().position(|byte| *byte == b'=').filter(|at| *at > 0) else { continue };
        let (name, value) = bytes.split_at(at);
        let (name, value) = (OsStr::from_bytes(name), OsStr::from_bytes(value.get(1..).unwrap_or_default()));
        if bytes.contains(&0) {
            continue;
        }
        env.retain(|(other, _)| other != name);
        env.push((name.to_owned(), value.to_owned()));
    }
    env
}
