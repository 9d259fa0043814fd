//! Whether this machine can mount overlays, and what would make it: everything is tried, nothing is guessed.

mod upper;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio, exit};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, open};
use rustix::mount::UnmountFlags;
use rustix::process::{WaitOptions, geteuid, getuid, waitpid};
use rustix::thread::UnshareFlags;
use serde::Serialize;

use crate::error::{Context, Errno, Error, Result};
use crate::mount::{helper, reason, source_of, umount};
use crate::run::unprivileged::subordinate;
use crate::sys::mount::fork;
use crate::sys::namespace::leave;

/// How long a mount may take to be there.
const PATIENCE: Duration = Duration::from_secs(20);

/// How it is with one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It works.
    Ok,
    /// It does not, and plyfs does without.
    Lacking,
    /// It does not, and nothing can be mounted without.
    Broken,
}

/// What was found about one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What it is about.
    pub name: &'static str,
    /// How it is.
    pub state: State,
    /// The same in words.
    pub what: String,
    /// How to get what is lacking.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<&'static str>,
}

impl Check {
    fn ok(name: &'static str, what: impl Into<String>) -> Self {
        Self { name, state: State::Ok, what: what.into(), hint: None }
    }

    fn lacking(name: &'static str, what: impl Into<String>, hint: &'static str) -> Self {
        Self { name, state: State::Lacking, what: what.into(), hint: Some(hint) }
    }

    fn broken(name: &'static str, what: impl Into<String>, hint: &'static str) -> Self {
        Self { name, state: State::Broken, what: what.into(), hint: Some(hint) }
    }
}

/// Tries everything, in a temporary directory on the filesystem of `upper`, or where such directories usually are.
///
/// To be called before anything starts a thread.
///
/// # Errors
/// That there can be no such directory.
pub fn examine(upper: Option<&Path>) -> Result<Vec<Check>> {
    let is_root = geteuid().is_root();
    let mut checks = vec![kernel(), device(is_root)];
    if !is_root {
        checks.push(fusermount());
    }
    checks.push(namespaces());
    if !is_root {
        checks.push(ids());
    }
    let scratch = Scratch::beside(upper)?;
    checks.extend(upper::examine(&scratch.0)?);
    checks.extend(mounts(&scratch.0, is_root)?);
    Ok(checks)
}

fn kernel() -> Check {
    let read = |name| fs::read_to_string(format!("/proc/sys/kernel/{name}")).unwrap_or_default();
    Check::ok("kernel", format!("{} {}", read("ostype").trim(), read("osrelease").trim()))
}

fn device(is_root: bool) -> Check {
    let name = "/dev/fuse";
    match open(name, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
        Ok(_) => Check::ok(name, "opens"),
        // fusermount3 opens it by itself.
        Err(errno @ Errno::ACCESS) if !is_root => {
            Check::lacking(name, reason(errno), "as root: chmod 666 /dev/fuse; without, fusermount3 has to open it")
        }
        Err(errno) => Check::broken(name, reason(errno), "as root: modprobe fuse; in a container, hand the device in"),
    }
}

fn fusermount() -> Check {
    let name = "fusermount3";
    match helper() {
        Some(Ok(version)) => Check::ok(name, version),
        Some(Err(why)) => Check::lacking(name, why, "install the package fuse3 anew"),
        None => Check::lacking(name, "is not there", "users mount by it: install the package fuse3"),
    }
}

fn namespaces() -> Check {
    let name = "user namespaces";
    let tried = || {
        let Some(child) = fork()? else {
            exit(i32::from(leave(UnshareFlags::NEWUSER).is_err()));
        };
        Ok::<_, Errno>(
            waitpid(Some(child), WaitOptions::empty())?.and_then(|(_, status)| status.exit_status()) == Some(0),
        )
    };
    match tried() {
        Ok(true) => Check::ok(name, "can be made"),
        _ => Check::lacking(
            name,
            "cannot be made",
            "plyfs run without root needs them: sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, \
             kernel.apparmor_restrict_unprivileged_userns",
        ),
    }
}

fn ids() -> Check {
    let name = "subordinate ids";
    let hint = "as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER, and install uidmap";
    let maps =
        |program: &str| Command::new(program).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    match (subordinate("/etc/subuid"), subordinate("/etc/subgid")) {
        (Some((start, count)), Some(_)) => match maps("newuidmap").and_then(|_| maps("newgidmap")) {
            Ok(_) => Check::ok(name, format!("{count} from {start}")),
            Err(error) => Check::lacking(name, format!("newuidmap or newgidmap: {error}"), hint),
        },
        _ => Check::lacking(name, format!("user {} has none", getuid().as_raw()), hint),
    }
}

/// Mounts, changes something, and unmounts, as anybody would.
fn mounts(dir: &Path, is_root: bool) -> Result<Vec<Check>> {
    let name = "mounting";
    let program = std::env::current_exe().map_err(|error| Error::from(error).on("the own program"))?;
    let make = |part: &str| fs::create_dir(dir.join(part)).map_err(|error| Error::from(error).on(part.to_owned()));
    ["lower", "upper", "work", "mnt"].into_iter().try_for_each(make)?;
    fs::create_dir(dir.join("lower/dir"))?;
    fs::write(dir.join("lower/dir/file"), "lower")?;
    let log = dir.join("log");
    let options = "lowerdir=lower,upperdir=upper,workdir=work,fsname=plyfs-doctor,log=log";
    let output = Command::new(program)
        .args(["-o", options, "mnt"])
        .current_dir(dir)
        .env("PLYFS_LOG", "info")
        .stdin(Stdio::null())
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) => {
            return Ok(vec![Check::broken(name, format!("plyfs cannot be started: {error}"), "is /dev/null there?")]);
        }
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().last().unwrap_or("it failed").trim_start_matches("plyfs: ").to_owned();
        return Ok(vec![Check::broken(name, said, "what is broken above says why")]);
    }
    let mountpoint = dir.join("mnt");
    let used = use_mount(&mountpoint);
    let start = Instant::now();
    while umount(&mountpoint, false).is_err() && start.elapsed() < PATIENCE {
        sleep(Duration::from_millis(50));
    }
    if source_of(&mountpoint)?.is_some() {
        rustix::mount::unmount(&mountpoint, UnmountFlags::DETACH).during("unmount")?;
    }
    let mut checks = vec![match used {
        Ok(()) => Check::ok(name, "works: an overlay was mounted, changed and unmounted"),
        Err(error) => Check::broken(name, format!("an overlay was mounted, and using it failed: {error}"), "report it"),
    }];
    let log = fs::read_to_string(log).unwrap_or_default();
    let name = "passthrough";
    checks.push(match (log.contains("files of the upper go through"), is_root) {
        (true, _) => Check::ok(name, "the kernel reads and writes files of the upper directly"),
        (false, true) => {
            Check::lacking(name, "the kernel does not offer it", "Linux 6.9 or later, CONFIG_FUSE_PASSTHROUGH")
        }
        (false, false) => {
            Check::lacking(name, "takes privilege", "mount as root; data is cached by the kernel without")
        }
    });
    Ok(checks)
}

fn use_mount(dir: &Path) -> io::Result<()> {
    if fs::read_to_string(dir.join("dir/file"))? != "lower" {
        return Err(io::Error::other("a lower file is read wrongly"));
    }
    fs::write(dir.join("dir/file"), "upper")?;
    fs::rename(dir.join("dir"), dir.join("renamed"))?;
    if fs::read_to_string(dir.join("renamed/file"))? != "upper" {
        return Err(io::Error::other("what was written is not read"));
    }
    fs::remove_file(dir.join("renamed/file"))
}

/// A directory that is removed with what it holds.
struct Scratch(PathBuf);

impl Scratch {
    /// Beside `upper`, where that is the same filesystem, as what is in the upper is seen by who has it mounted; else in it.
    fn beside(upper: Option<&Path>) -> Result<Self> {
        use std::os::unix::fs::MetadataExt;
        let Some(upper) = upper else { return Self::make(&std::env::temp_dir()) };
        let named = |error: io::Error| Error::from(error).on(upper.display().to_string());
        let full = fs::canonicalize(upper).map_err(named)?;
        if !full.is_dir() {
            return Err(Error::new(Errno::NOTDIR, "examine").on(upper.display().to_string()));
        }
        let device = fs::metadata(&full).map_err(named)?.dev();
        match full.parent().filter(|dir| fs::metadata(dir).is_ok_and(|parent| parent.dev() == device)) {
            Some(parent) => Self::make(parent).or_else(|_| Self::make(&full)),
            None => Self::make(&full),
        }
    }

    fn make(dir: &Path) -> Result<Self> {
        let path = dir.join(format!(".plyfs-doctor.{}", std::process::id()));
        fs::create_dir(&path).map_err(|error| Error::from(error).on(path.display().to_string()))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            log::warn!("{}: {error}", self.0.display());
        }
    }
}
