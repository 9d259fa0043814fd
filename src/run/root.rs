//! The root that a program sees: the image, with /proc, /dev and /sys.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{self, Mode, OFlags, symlink};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive, mount_remount, unmount};
use rustix::process::{chroot, fchdir, pivot_root};

use crate::error::{Errno, Error, Result};
use crate::image::unpack::beneath;

/// Devices that every program may expect.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
/// Names that lead to what the process has open.
const LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
];

/// Makes the mounted image at `path` the root of this process, in its own mount namespace.
///
/// # Errors
/// What could not be mounted.
pub(super) fn enter(path: &Path) -> Result<()> {
    let named = |errno| Error::new(errno, "enter").on(path.display().to_string());
    let root = fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(named)?;
    let at = |name: &'static str| Place::beneath(&root, name);
    let quiet = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    at("proc")?.try_mount(|target| {
        // Where something hides parts of /proc from us, the kernel does not let us have a whole one.
        mount("proc", target, "proc", quiet, None).or_else(|_| mount_bind_recursive("/proc", target))
    })?;
    at("sys")?.try_mount(|target| mount_bind_recursive("/sys", target))?;
    // Opened anew: now it is what was mounted there.
    at("sys")?.try_mount(|target| mount_remount(target, MountFlags::BIND | MountFlags::RDONLY | quiet, c""))?;
    let dev = at("dev")?;
    dev.try_mount(|target| mount("tmpfs", target, "tmpfs", MountFlags::NOSUID | MountFlags::NOEXEC, c"mode=755"))?;
    devices(&root)?;
    fchdir(&root).map_err(named)?;
    // The old root goes below the new one, and away.
    match pivot_root(".", ".") {
        Ok(()) => unmount(".", UnmountFlags::DETACH).map_err(named)?,
        // The very first root filesystem of a machine cannot be moved.
        Err(Errno::INVAL) => chroot(".").map_err(named)?,
        Err(errno) => return Err(named(errno)),
    }
    rustix::process::chdir("/").map_err(named)
}

fn devices(root: &OwnedFd) -> Result<()> {
    let named = |name: &'static str| move |errno| Error::new(errno, "make").on(format!("/dev/{name}"));
    // The filesystem that was mounted there, which again has to be opened anew.
    let dev = Place::beneath(root, "dev")?;
    for name in DEVICES {
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
        fs::openat(&dev.fd, name, flags, Mode::from_raw_mode(0o666)).map_err(named(name))?;
        let target = format!("{}/{name}", dev.path());
        mount_bind(format!("/dev/{name}"), &target).map_err(named(name))?;
    }
    for (name, target) in LINKS {
        symlink(target, format!("{}/{name}", dev.path())).map_err(named(name))?;
    }
    for name in ["pts", "shm"] {
        fs::mkdirat(&dev.fd, name, Mode::from_raw_mode(0o755)).map_err(named(name))?;
    }
    let (pts, shm) = (Place::beneath(root, "dev/pts")?, Place::beneath(root, "dev/shm")?);
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    pts.try_mount(|target| mount("devpts", target, "devpts", flags, c"newinstance,ptmxmode=0666,mode=0620"))?;
    shm.try_mount(|target| mount("tmpfs", target, "tmpfs", flags | MountFlags::NODEV, c"mode=1777"))
}

/// A directory of the image that something is mounted on, reached without following a symlink: the image could lead
/// elsewhere.
struct Place<'a> {
    fd: OwnedFd,
    name: &'a str,
}

impl<'a> Place<'a> {
    fn beneath(root: &OwnedFd, name: &'a str) -> Result<Self> {
        let named = |errno| Error::new(errno, "mount on").on(format!("/{name}"));
        match fs::mkdirat(root, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST | Errno::ROFS) => {}
            Err(errno) => return Err(named(errno)),
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let fd = beneath::open(root.as_fd(), name.as_bytes(), flags).map_err(|errno| match errno {
            Errno::LOOP | Errno::NOTDIR => named(errno).because("it is no directory in the image"),
            errno => named(errno),
        })?;
        Ok(Self { fd, name })
    }

    fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.fd.as_raw_fd())
    }

    fn try_mount(&self, mount: impl FnOnce(&str) -> Result<(), Errno>) -> Result<()> {
        mount(&self.path()).map_err(|errno| Error::new(errno, "mount on").on(format!("/{}", self.name)))
    }
}
