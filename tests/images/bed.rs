//! Where the tests work: a store of its own, and the command on it.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::mount::{UnmountFlags, unmount};
use tempfile::TempDir;

pub(crate) const PLYFS: &str = env!("CARGO_BIN_EXE_plyfs");
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A store, and a small root filesystem in it: an image of one layer called `base`.
pub(crate) struct Bed {
    pub(crate) dir: TempDir,
    /// What the command is called by, if not by itself.
    pub(crate) called_by: Vec<OsString>,
    pub(crate) program: PathBuf,
}

macro_rules! needs {
    ($what:literal, $is_so:expr) => {
        if !$is_so {
            let thread = std::thread::current();
            let line = format!("SKIPPED: {}: needs {}\n", thread.name().unwrap_or("?"), $what);
            std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).unwrap();
            return;
        }
    };
}

macro_rules! needs_root {
    () => {
        needs!("root", rustix::process::geteuid().is_root());
        needs!("/dev/fuse", std::path::Path::new("/dev/fuse").exists());
    };
}

impl Bed {
    /// With what `build` makes of an empty directory as the image.
    pub(crate) fn new(build: impl FnOnce(&Path)) -> Self {
        let bed = Self::empty();
        bed.pack(build);
        bed.ok(&["image", "import", "tar:base.tar", "base"]);
        bed
    }

    /// With nothing in the store.
    pub(crate) fn empty() -> Self {
        let dir = tempfile::Builder::new().prefix("plyfs-images-").tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["root", "mnt"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        Self { dir, called_by: Vec::new(), program: PLYFS.into() }
    }

    /// Makes `base.tar` of what `build` makes of an empty directory.
    pub(crate) fn pack(&self, build: impl FnOnce(&Path)) {
        build(&self.path("root"));
        let mut tar = Command::new("tar");
        tar.args(["--numeric-owner", "-cf", "base.tar", "-C", "root", "."]).current_dir(self.dir.path());
        assert!(tar.status().unwrap().success());
    }

    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn plyfs<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        self.called(&self.program, args)
    }

    /// A program that is called as plyfs is.
    pub(crate) fn called<S: AsRef<OsStr>>(&self, program: impl AsRef<OsStr>, args: &[S]) -> Command {
        let called_by = self.called_by.iter().map(OsString::as_os_str);
        let words: Vec<_> = called_by.chain([program.as_ref()]).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).args(args).current_dir(self.dir.path()).stdin(Stdio::null());
        command.env("PLYFS_STORE", self.path("store")).env_remove("PLYFS_LOG").env_remove("SOURCE_DATE_EPOCH");
        command
    }

    /// Runs plyfs, which has to succeed; what it prints.
    #[track_caller]
    pub(crate) fn ok<S: AsRef<OsStr>>(&self, args: &[S]) -> String {
        let output = self.plyfs(args).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs plyfs, which has to fail; the line that it says.
    #[track_caller]
    pub(crate) fn fails<S: AsRef<OsStr>>(&self, args: &[S], code: i32) -> String {
        let output = self.plyfs(args).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        said.strip_prefix("plyfs: ").unwrap().trim_end().to_owned()
    }

    /// The container of this name mounted at `mnt`.
    pub(crate) fn mounted<T>(&self, what: &str, options: &[&str], use_it: impl FnOnce(&Path) -> T) -> T {
        let mnt = self.path("mnt");
        self.ok(&[&["mount", what, mnt.to_str().unwrap()], options].concat());
        let result = use_it(&mnt);
        self.ok(&["umount", mnt.to_str().unwrap()]);
        result
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        while unmount(self.path("mnt"), UnmountFlags::DETACH).is_ok() {}
    }
}

/// A root filesystem that programs run in: the machine's busybox.
pub(crate) fn busybox() -> Option<PathBuf> {
    ["/bin/busybox", "/usr/bin/busybox"].iter().map(PathBuf::from).find(|path| path.exists())
}

pub(crate) fn build_busybox(root: &Path) {
    for dir in ["bin", "etc", "tmp"] {
        fs::create_dir(root.join(dir)).unwrap();
    }
    fs::copy(busybox().unwrap(), root.join("bin/busybox")).unwrap();
    for applet in [
        "sh", "id", "pwd", "sleep", "cat", "kill", "echo", "ls", "touch", "env", "test", "ps", "rm", "mv", "mkdir",
        "chown",
    ] {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\nweb:x:33:34::/srv:/bin/sh\n").unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\nweb:x:34:\nlog:x:50:web\n").unwrap();
}

#[track_caller]
pub(crate) fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        sleep(Duration::from_millis(20));
    }
}
