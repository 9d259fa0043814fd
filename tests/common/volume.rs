//! Filesystems in image files, to put layers onto.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{UnmountFlags, unmount};

/// A filesystem that a layer may lie on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filesystem {
    Tmpfs,
    Ext4,
    Xfs,
    Btrfs,
    Squashfs,
    Erofs,
}

impl Filesystem {
    /// What mount(8) calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tmpfs => "tmpfs",
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
            Self::Squashfs => "squashfs",
            Self::Erofs => "erofs",
        }
    }

    /// The program that makes one of what a directory holds, or an empty one.
    fn maker(self) -> Option<&'static str> {
        match self {
            Self::Tmpfs => None,
            Self::Ext4 => Some("mkfs.ext4"),
            Self::Xfs => Some("mkfs.xfs"),
            Self::Btrfs => Some("mkfs.btrfs"),
            Self::Squashfs => Some("mksquashfs"),
            Self::Erofs => Some("mkfs.erofs"),
        }
    }

    /// Why it cannot be had here, if so.
    pub fn is_missing(self) -> Option<String> {
        if let Some(maker) = self.maker() {
            let found = std::env::var_os("PATH").is_some_and(|path| {
                let more = ["/usr/sbin", "/sbin"].map(PathBuf::from);
                std::env::split_paths(&path).chain(more).any(|dir| dir.join(maker).is_file())
            });
            if !found {
                return Some(format!("no {maker}"));
            }
        }
        // The kernel may have it as a module that is not there yet; asking to load it does no harm.
        let known = || fs::read_to_string("/proc/filesystems").unwrap().lines().any(|line| line.ends_with(self.name()));
        if !known() {
            let _ = Command::new("modprobe").arg(self.name()).output();
        }
        (!known()).then(|| format!("the kernel has no {}", self.name()))
    }
}

/// A filesystem that is mounted as long as its value lives.
#[derive(Debug)]
pub struct Volume {
    /// Where it is mounted.
    pub path: PathBuf,
}

impl Volume {
    /// An empty one that can be written to, at `path`, which is made; its image is beside it.
    pub fn empty(filesystem: Filesystem, path: PathBuf) -> Self {
        let size: u64 = match filesystem {
            Filesystem::Tmpfs => return Self::mount(filesystem, Path::new("tmpfs"), path, "mode=755"),
            // The least that its tools take.
            Filesystem::Xfs => 320 << 20,
            _ => 128 << 20,
        };
        Self::in_image(filesystem, &path.with_extension("image"), size, path)
    }

    /// An empty one of `size` bytes, which is made in the file `image`.
    pub fn in_image(filesystem: Filesystem, image: &Path, size: u64, path: PathBuf) -> Self {
        match filesystem {
            Filesystem::Ext4 => format(image, size, "mkfs.ext4", &["-q", "-F", "-b", "4096"]),
            Filesystem::Xfs => format(image, size, "mkfs.xfs", &["-q", "-f"]),
            Filesystem::Btrfs => format(image, size, "mkfs.btrfs", &["-q", "-f"]),
            _ => panic!("{filesystem:?} is never empty in an image"),
        }
        Self::mounted(filesystem, image, path)
    }

    /// One that is in the file `image` already.
    pub fn mounted(filesystem: Filesystem, image: &Path, path: PathBuf) -> Self {
        Self::mount(filesystem, image, path, "loop")
    }

    /// One with what `source` holds, at `path`; read-only where the filesystem is.
    pub fn of(filesystem: Filesystem, source: &Path, path: PathBuf) -> Self {
        let image = path.with_extension("image");
        match filesystem {
            Filesystem::Squashfs => {
                let options = ["-quiet", "-no-progress", "-processors", "1", "-noappend"];
                tool("mksquashfs", Command::new("mksquashfs").arg(source).arg(&image).args(options));
            }
            Filesystem::Erofs => tool("mkfs.erofs", Command::new("mkfs.erofs").arg("--quiet").arg(&image).arg(source)),
            _ => {
                let volume = Self::empty(filesystem, path);
                let mut copy = Command::new("cp");
                tool("cp", copy.arg("-a").arg("--sparse=always").arg(source.join(".")).arg(&volume.path));
                return volume;
            }
        }
        Self::mount(filesystem, &image, path, "loop,ro")
    }

    fn mount(filesystem: Filesystem, device: &Path, path: PathBuf, options: &str) -> Self {
        fs::create_dir_all(&path).unwrap();
        let mut mount = Command::new("mount");
        tool("mount", mount.args(["-t", filesystem.name(), "-o", options]).arg(device).arg(&path));
        Self { path }
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let result = unmount(&self.path, UnmountFlags::DETACH);
        if !std::thread::panicking() {
            result.unwrap();
        }
    }
}

fn format(image: &Path, size: u64, program: &str, options: &[&str]) {
    fs::File::create(image).unwrap().set_len(size).unwrap();
    tool(program, Command::new(program).args(options).arg(image));
}

/// Runs a tool, which may lie where only root looks for it.
#[track_caller]
fn tool(what: &str, command: &mut Command) {
    let path = std::env::var("PATH").unwrap_or_default();
    let output = command.env("PATH", format!("{path}:/usr/sbin:/sbin")).output();
    let output = output.unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
}
