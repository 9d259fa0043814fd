//! What is compared, and how each is mounted.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::mount::{UnmountFlags, unmount};

use super::Outcome;
use super::workloads::METACOPY;

/// How long a mount may take, and a daemon to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// An overlay filesystem.
#[derive(Debug, Clone)]
pub struct Rival {
    /// What it is called in tables.
    pub name: String,
    /// The daemon; none for the kernel's overlayfs.
    program: Option<PathBuf>,
}

impl Rival {
    pub fn kernel() -> Self {
        Self { name: "kernel overlayfs".to_owned(), program: None }
    }

    /// Mounts it at a place with options of a workload.
    pub fn mount(&self, place: &Place, options: &str) -> Outcome<Mounted> {
        let mnt = place.dir.join("mnt");
        let Some(program) = &self.program else {
            let kind = if place.rootless { ",userxattr" } else { ",redirect_dir=on" };
            let options = format!("{},{options}{kind}", place.layers()).replace(",,", ",");
            let output = Command::new("mount").args(["-t", "overlay", "overlay", "-o", &options]).arg(&mnt).output()?;
            if !output.status.success() {
                return Err(String::from_utf8_lossy(&output.stderr).into());
            }
            return Ok(Mounted { path: mnt, daemon: None });
        };
        let before = device(&mnt)?;
        let mut command = Command::new(program);
        if self.name.starts_with("unionfs") {
            let lowers = place.lowers.iter().map(|lower| format!(":{}=RO", lower.display()));
            let branches = format!("{}=RW{}", place.dir.join("upper").display(), lowers.collect::<String>());
            command.args(["-f", "-o", "cow,dev,suid", &branches]);
        } else {
            let mut all: OsString = place.layers().into();
            all.push(",dev,suid");
            // Others know no such option, and copy all data.
            if options == METACOPY && self.name == "plyfs" {
                all.push(format!(",{options}"));
            }
            command.args(["-f", "-o"]).arg(all);
        }
        command.arg(&mnt).stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(place.dir.join("log"))?);
        let mut daemon = command.spawn()?;
        let start = Instant::now();
        while device(&mnt)? == before {
            if let Some(status) = daemon.try_wait()? {
                let said = fs::read_to_string(place.dir.join("log"))?;
                return Err(format!("{} ended with {status}: {said}", self.name).into());
            }
            if start.elapsed() > PATIENCE {
                daemon.kill()?;
                daemon.wait()?;
                return Err(format!("{} does not mount", self.name).into());
            }
            sleep(Duration::from_millis(2));
        }
        Ok(Mounted { path: mnt, daemon: Some(daemon) })
    }
}

impl FromStr for Rival {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, program) = text.split_once('=').ok_or("not NAME=PROGRAM")?;
        Ok(Self { name: name.to_owned(), program: Some(program.into()) })
    }
}

/// The number of the filesystem at a path, which no daemon is asked for.
fn device(path: &Path) -> Outcome<(u32, u32)> {
    use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
    let stat = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_DONT_SYNC, StatxFlags::empty())?;
    Ok((stat.stx_dev_major, stat.stx_dev_minor))
}

/// An empty upper over lower layers, which goes away with its value.
#[derive(Debug)]
pub struct Place {
    dir: PathBuf,
    lowers: Vec<PathBuf>,
    rootless: bool,
    _keep: tempfile::TempDir,
}

impl Place {
    pub fn new(dir: &Path, lowers: &[PathBuf], rootless: bool) -> Outcome<Self> {
        let keep = tempfile::Builder::new().prefix("place-").tempdir_in(dir)?;
        for name in ["upper", "work", "mnt"] {
            fs::create_dir(keep.path().join(name))?;
        }
        Ok(Self { dir: keep.path().to_owned(), lowers: lowers.to_vec(), rootless, _keep: keep })
    }

    /// A directory beside the mount.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn layers(&self) -> String {
        let lowers: Vec<String> = self.lowers.iter().map(|lower| lower.display().to_string()).collect();
        let path = |name: &str| self.dir.join(name).display().to_string();
        format!("lowerdir={},upperdir={},workdir={}", lowers.join(":"), path("upper"), path("work"))
    }
}

/// What is mounted; unmounted at the latest when dropped.
#[derive(Debug)]
pub struct Mounted {
    path: PathBuf,
    daemon: Option<Child>,
}

impl Mounted {
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn daemon(&self) -> Option<u32> {
        self.daemon.as_ref().map(Child::id)
    }

    /// Unmounts, and waits for the daemon's end.
    pub fn unmount(mut self) -> Outcome<()> {
        self.end()
    }

    fn end(&mut self) -> Outcome<()> {
        if self.path.as_os_str().is_empty() {
            return Ok(());
        }
        let path = std::mem::take(&mut self.path);
        let null = path.join("dev/null");
        if let (Ok(inner), Ok(outer)) = (device(&null), device(&path))
            && inner != outer
        {
            unmount(&null, UnmountFlags::DETACH)?;
        }
        let result = unmount(&path, UnmountFlags::NOFOLLOW).or_else(|_| unmount(&path, UnmountFlags::DETACH));
        if let Some(mut daemon) = self.daemon.take() {
            let start = Instant::now();
            while daemon.try_wait()?.is_none() {
                if start.elapsed() > PATIENCE {
                    daemon.kill()?;
                    daemon.wait()?;
                    return Err("the daemon did not end".into());
                }
                sleep(Duration::from_millis(2));
            }
        }
        Ok(result?)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("cannot unmount: {error}");
        }
    }
}
