//! A mounted overlay that is unmounted and checked when it goes out of scope.

use std::cell::Cell;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::{panicking, sleep};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};
use tempfile::TempDir;

use super::{Detail, Layer, Snapshot};

/// How long a daemon may take to mount or to end, and other processes to let go of a mount.
const PATIENCE: Duration = Duration::from_secs(30);

/// What mounts the overlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    Plyfs,
    Kernel,
}

impl Backend {
    /// The one that this run of the tests is about.
    pub fn chosen() -> Self {
        match std::env::var("PLYFS_TEST_BACKEND").as_deref() {
            Err(_) | Ok("plyfs") => Self::Plyfs,
            Ok("kernel") => Self::Kernel,
            Ok(other) => panic!("PLYFS_TEST_BACKEND={other}: not plyfs or kernel"),
        }
    }
}

/// Layers that are being built, and how they are to be mounted.
#[derive(Debug)]
pub struct Setup {
    mounts: Mounts,
    dir: TempDir,
    lowers: Vec<PathBuf>,
    options: Vec<String>,
    kernel_options: &'static str,
    limit: Option<u64>,
    writable: bool,
    may_panic: bool,
}

impl Setup {
    /// A bed with an empty upper and no lowers.
    pub fn new() -> Self {
        keep_mounts_private();
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
        let base = std::env::var_os("PLYFS_TEST_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        let dir = tempfile::Builder::new().prefix("plyfs-").tempdir_in(base).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["upper", "work", "mnt"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        Self {
            mounts: Mounts(Vec::new()),
            dir,
            lowers: Vec::new(),
            options: Vec::new(),
            kernel_options: "redirect_dir=on,index=on,xino=auto",
            limit: None,
            writable: true,
            may_panic: false,
        }
    }

    /// Adds a layer below those that are there.
    pub fn lower(mut self, build: impl FnOnce(&Layer) -> &Layer) -> Self {
        let layer = Layer::at(self.dir.path().join(format!("l{}", self.lowers.len())));
        build(&layer);
        self.lowers.push(layer.path(""));
        self
    }

    /// Adds a layer on a filesystem of its own, a tmpfs, below those that are there.
    pub fn lower_elsewhere(mut self, build: impl FnOnce(&Layer) -> &Layer) -> Self {
        let layer = Layer::at(self.dir.path().join(format!("l{}", self.lowers.len())));
        self.mounts.tmpfs(layer.path(""), "mode=755");
        build(&layer);
        self.lowers.push(layer.path(""));
        self
    }

    /// Puts something into the upper before the mount.
    pub fn upper(self, build: impl FnOnce(&Layer) -> &Layer) -> Self {
        build(&Layer::at(self.dir.path().join("upper")));
        self
    }

    /// Mounts without an upper.
    pub fn read_only(mut self) -> Self {
        self.writable = false;
        self
    }

    /// Adds a mount option of plyfs.
    pub fn option(mut self, option: &str) -> Self {
        self.options.push(option.to_owned());
        self
    }

    /// Replaces the options by which the kernel's overlayfs is mounted.
    pub fn kernel_options(mut self, options: &'static str) -> Self {
        self.kernel_options = options;
        self
    }

    /// Takes a panic of the daemon for what is wanted.
    pub fn panics(mut self) -> Self {
        self.may_panic = true;
        self
    }

    /// Limits the descriptors that the daemon may have open.
    pub fn descriptors(mut self, limit: u64) -> Self {
        self.limit = Some(limit);
        self
    }

    /// A path beside the layers.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Puts the upper and the work directory onto a filesystem of their own: a tmpfs of `size` bytes.
    pub fn small_upper(mut self, size: u64) -> Self {
        let dir = self.path("small");
        fs::create_dir(&dir).unwrap();
        self.mounts.tmpfs(dir.clone(), &format!("size={size},mode=755"));
        for name in ["upper", "work"] {
            fs::remove_dir(self.path(name)).unwrap();
            fs::create_dir(dir.join(name)).unwrap();
            std::os::unix::fs::symlink(dir.join(name), self.path(name)).unwrap();
        }
        self
    }

    /// Mounts it with the backend of this run.
    pub fn mount(self) -> Mounted {
        self.mount_by(Backend::chosen())
    }

    /// Mounts it with `backend`.
    pub fn mount_by(self, backend: Backend) -> Mounted {
        let before = self.lowers.iter().map(|lower| Snapshot::of(lower, Detail::Layer)).collect();
        let mut mounted = Mounted { setup: self, backend, before, daemon: None, is_mounted: false, epoch: 0 };
        mounted.mount();
        mounted
    }
}

/// Gives the thread, which is a test's, a mount namespace of its own.
///
/// Whoever makes a namespace meanwhile would otherwise take a copy of our mounts along and keep them alive. What a test
/// leaves behind goes with its thread.
fn keep_mounts_private() {
    thread_local!(static IS_PRIVATE: Cell<bool> = const { Cell::new(false) });
    if rustix::process::geteuid().is_root() && !IS_PRIVATE.replace(true) {
        assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNS) }, 0, "unshare: {}", io::Error::last_os_error());
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
    }
}

/// Filesystems that are unmounted in the end.
#[derive(Debug)]
struct Mounts(Vec<PathBuf>);

impl Mounts {
    fn tmpfs(&mut self, path: PathBuf, options: &str) {
        let data = std::ffi::CString::new(options).unwrap();
        mount("tmpfs", &path, "tmpfs", MountFlags::empty(), Some(data.as_c_str())).unwrap();
        self.0.push(path);
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        for path in &self.0 {
            let result = unmount(path, UnmountFlags::DETACH);
            if !panicking() {
                result.unwrap();
            }
        }
    }
}

/// A mounted overlay. When it goes, it is unmounted, and the lower layers are compared with what they were.
#[derive(Debug)]
pub struct Mounted {
    setup: Setup,
    backend: Backend,
    before: Vec<Snapshot>,
    daemon: Option<Child>,
    is_mounted: bool,
    epoch: u32,
}

impl Mounted {
    /// The path of `path` in the mount.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.setup.path("mnt").join(path)
    }

    /// The path of `path` in the upper.
    pub fn upper(&self, path: impl AsRef<Path>) -> PathBuf {
        self.setup.path("upper").join(path)
    }

    /// The path of `path` in a lower layer; 0 is the topmost.
    pub fn lower(&self, layer: usize, path: impl AsRef<Path>) -> PathBuf {
        self.setup.path(&format!("l{layer}")).join(path)
    }

    /// A path beside the layers.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.setup.path(name)
    }

    /// What mounts it.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// The process id of the daemon, if there is one.
    pub fn daemon(&self) -> Option<u32> {
        self.daemon.as_ref().map(Child::id)
    }

    /// The whole content of a file, which is text.
    #[track_caller]
    pub fn read(&self, path: impl AsRef<Path>) -> String {
        fs::read_to_string(self.path(path)).unwrap()
    }

    /// Makes or overwrites a file.
    #[track_caller]
    pub fn write(&self, path: impl AsRef<Path>, content: impl AsRef<[u8]>) {
        fs::write(self.path(path), content).unwrap();
    }

    /// Writes at the end of a file that is there.
    #[track_caller]
    pub fn append(&self, path: impl AsRef<Path>, content: &str) {
        use std::io::Write as _;
        let mut file = fs::OpenOptions::new().append(true).open(self.path(path)).unwrap();
        file.write_all(content.as_bytes()).unwrap();
    }

    /// The names in a directory, sorted, without `.` and `..`.
    #[track_caller]
    pub fn list(&self, path: impl AsRef<Path>) -> Vec<String> {
        let entries = fs::read_dir(self.path(path)).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// lstat(2) of `path`, which is there.
    #[track_caller]
    pub fn stat(&self, path: impl AsRef<Path>) -> rustix::fs::Stat {
        let path = self.path(path);
        super::lstat(&path).unwrap_or_else(|error| panic!("stat {}: {error}", path.display()))
    }

    /// The inode number of `path`.
    #[track_caller]
    pub fn ino(&self, path: impl AsRef<Path>) -> u64 {
        self.stat(path).st_ino
    }

    pub fn exists(&self, path: impl AsRef<Path>) -> bool {
        match super::lstat(self.path(path)) {
            Ok(_) => true,
            Err(Errno::NOENT | Errno::NOTDIR) => false,
            Err(error) => panic!("stat: {error}"),
        }
    }

    /// The whole tree.
    pub fn tree(&self) -> Snapshot {
        Snapshot::of(&self.path(""), Detail::Shown)
    }

    /// Whether the upper has a whiteout of the kernel's form there.
    pub fn is_whiteout(&self, path: impl AsRef<Path>) -> bool {
        super::lstat(self.upper(path))
            .is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFCHR && stat.st_rdev == 0)
    }

    /// Whether a directory in the upper is marked opaque.
    pub fn is_opaque(&self, path: impl AsRef<Path>) -> bool {
        super::xattr(&self.upper(path), "trusted.overlay.opaque").as_deref() == Ok(b"y")
    }

    /// Unmounts, and mounts again.
    pub fn remount(&mut self) {
        self.unmount();
        self.mount();
    }

    /// Goes on with the other kind of overlay.
    pub fn switch_to(&mut self, backend: Backend) {
        self.unmount();
        self.backend = backend;
        self.mount();
    }

    /// Unmounts; the layers stay.
    pub fn unmount(&mut self) {
        if let Err(error) = self.try_unmount() {
            panic!("{error}");
        }
    }

    /// Mounts what was unmounted.
    pub fn mount(&mut self) {
        assert!(!self.is_mounted);
        match self.backend {
            Backend::Kernel => self.mount_kernel(),
            Backend::Plyfs => self.mount_plyfs(),
        }
        self.is_mounted = true;
    }

    /// Kills the daemon, whose mount stays.
    pub fn kill_daemon(&self) {
        let daemon = self.daemon.as_ref().expect("a daemon");
        let pid = rustix::process::Pid::from_child(daemon);
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }

    /// Clears away the mount of a daemon that was killed, and mounts again.
    pub fn recover(&mut self) {
        self.daemon.take().unwrap().wait().unwrap();
        self.is_mounted = false;
        let _ = unmount(self.path(""), UnmountFlags::DETACH);
        self.mount();
    }

    fn layers(&self) -> OsString {
        let mut data = OsString::from("lowerdir=");
        for (number, lower) in self.setup.lowers.iter().enumerate() {
            if number > 0 {
                data.push(":");
            }
            data.push(lower);
        }
        if self.setup.writable {
            for (name, path) in [(",upperdir=", "upper"), (",workdir=", "work")] {
                data.push(name);
                data.push(self.setup.path(path));
            }
        }
        data
    }

    fn mount_kernel(&self) {
        let mut data = self.layers();
        if self.setup.writable {
            data.push(",");
            data.push(self.setup.kernel_options);
        }
        let data = std::ffi::CString::new(std::os::unix::ffi::OsStringExt::into_vec(data)).unwrap();
        mount("overlay", self.path(""), "overlay", MountFlags::empty(), Some(data.as_c_str()))
            .unwrap_or_else(|error| panic!("the kernel's overlayfs: {error}"));
    }

    fn mount_plyfs(&mut self) {
        self.epoch += 1;
        let log = fs::File::create(self.log()).unwrap();
        let mut options = self.layers();
        options.push(",allow_other,dev,suid");
        for option in &self.setup.options {
            options.push(",");
            options.push(option);
        }
        let program = std::env::var_os("PLYFS_TEST_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_plyfs").into());
        let mut command = Command::new(program);
        command.arg("-f").arg("-o").arg(options).arg(self.path(""));
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        if let Some(limit) = self.setup.limit {
            let limits = libc::rlimit { rlim_cur: limit, rlim_max: limit };
            unsafe {
                command.pre_exec(move || match libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limits) {
                    0 => Ok(()),
                    _ => Err(io::Error::last_os_error()),
                });
            }
        }
        let mut daemon = command.spawn().unwrap();
        let start = Instant::now();
        while !is_fuse(&self.path("")) {
            if let Some(status) = daemon.try_wait().unwrap() {
                panic!("plyfs ended with {status}: {}", self.said());
            }
            if start.elapsed() > PATIENCE {
                let _ = daemon.kill();
                let _ = daemon.wait();
                panic!("plyfs does not mount: {}", self.said());
            }
            sleep(Duration::from_millis(2));
        }
        self.daemon = Some(daemon);
    }

    fn log(&self) -> PathBuf {
        self.setup.path(&format!("log{}", self.epoch))
    }

    /// What the daemon wrote.
    pub fn said(&self) -> String {
        fs::read(self.log()).map(|log| String::from_utf8_lossy(&log).into_owned()).unwrap_or_default()
    }

    fn try_unmount(&mut self) -> Result<(), String> {
        if !self.is_mounted {
            return Ok(());
        }
        self.is_mounted = false;
        let start = Instant::now();
        let mut problems = Vec::new();
        loop {
            match unmount(self.path(""), UnmountFlags::NOFOLLOW) {
                Ok(()) => break,
                // A process that another test starts has our open files for a moment.
                Err(Errno::BUSY) if start.elapsed() < PATIENCE && !panicking() => sleep(Duration::from_millis(5)),
                Err(error) => {
                    problems.push(format!("unmount: {error}"));
                    let _ = unmount(self.path(""), UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
                    break;
                }
            }
        }
        if let Some(mut daemon) = self.daemon.take() {
            problems.extend(end(&mut daemon));
            let said = self.said();
            if said.contains("panic") && !self.setup.may_panic {
                problems.push(format!("the daemon panicked: {said}"));
            }
            let work = self.setup.path("work/work");
            if self.setup.writable && work.exists() {
                let left: Vec<_> = fs::read_dir(work).unwrap().map(|entry| entry.unwrap().file_name()).collect();
                if !left.is_empty() {
                    problems.push(format!("left in the work directory: {left:?}"));
                }
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
    }
}

/// Waits for the end of a daemon whose mount is gone.
fn end(daemon: &mut Child) -> Option<String> {
    let start = Instant::now();
    loop {
        match daemon.try_wait().unwrap() {
            Some(status) if status.success() => return None,
            Some(status) => return Some(format!("the daemon ended with {status}")),
            None if start.elapsed() > PATIENCE => {
                let _ = daemon.kill();
                let _ = daemon.wait();
                return Some("the daemon did not end".to_owned());
            }
            None => sleep(Duration::from_millis(2)),
        }
    }
}

fn is_fuse(path: &Path) -> bool {
    const FUSE: i64 = 0x6573_5546;
    rustix::fs::statfs(path).is_ok_and(|stat| stat.f_type == FUSE)
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let said = if self.daemon.is_some() { self.said() } else { String::new() };
        let result = self.try_unmount();
        if panicking() {
            eprintln!("the daemon said: {said:?}; unmount: {result:?}");
        }
        let lowers: Vec<_> = if panicking() || result.is_err() {
            Vec::new()
        } else {
            self.setup.lowers.iter().map(|lower| Snapshot::of(lower, Detail::Layer)).collect()
        };
        if !panicking() {
            if let Err(error) = result {
                panic!("{error}");
            }
            for (number, (before, after)) in self.before.iter().zip(&lowers).enumerate() {
                before.assert_eq(after, &format!("lower layer {number} was changed"));
            }
        }
    }
}
