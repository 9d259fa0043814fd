//! A mounted overlay that is unmounted and checked when it goes out of scope.

use std::cell::Cell;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::{panicking, sleep};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount, mount_change, move_mount, unmount,
};
use tempfile::TempDir;

use super::{Detail, Layer, Snapshot};

/// How long a daemon may take to mount or to end, and other processes to let go of a mount.
const PATIENCE: Duration = Duration::from_secs(30);

/// The options of the kernel's overlayfs with an upper, unless told.
const WRITABLE: &str = "redirect_dir=on,index=on,xino=auto";

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
    data: Vec<PathBuf>,
    lower_list: Option<OsString>,
    one_by_one: bool,
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
            data: Vec::new(),
            lower_list: None,
            one_by_one: false,
            options: Vec::new(),
            kernel_options: WRITABLE,
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

    /// Adds a layer in a directory of that name below those that are there.
    pub fn lower_named(mut self, name: &str, build: impl FnOnce(&Layer) -> &Layer) -> Self {
        let layer = Layer::at(self.dir.path().join(name));
        build(&layer);
        self.lowers.push(layer.path(""));
        self
    }

    /// Has the option `lowerdir` be `list`, whatever the layers are.
    pub fn lower_list(mut self, list: impl Into<OsString>) -> Self {
        self.lower_list = Some(list.into());
        self
    }

    /// Mounts with the options `lowerdir+` and `datadir+`, one for each layer.
    pub fn one_by_one(mut self) -> Self {
        self.one_by_one = true;
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

    /// Adds a lower layer that is there already, below those that are there.
    pub fn lower_at(mut self, path: impl Into<PathBuf>) -> Self {
        self.lowers.push(path.into());
        self
    }

    /// Adds a layer for data only below those that are there.
    pub fn data(mut self, build: impl FnOnce(&Layer) -> &Layer) -> Self {
        let layer = Layer::at(self.dir.path().join(format!("data{}", self.data.len())));
        build(&layer);
        self.data.push(layer.path(""));
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

    /// Replaces the options of both backends.
    pub fn both(mut self, options: &'static str) -> Self {
        self.options = vec![options.to_owned()];
        self.kernel_options(options)
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
    pub fn small_upper(self, size: u64) -> Self {
        self.upper_on_tmpfs(&format!("size={size}"))
    }

    /// Puts the upper and the work directory onto a tmpfs of their own with these options.
    pub fn upper_on_tmpfs(mut self, options: &str) -> Self {
        let dir = self.path("small");
        fs::create_dir(&dir).unwrap();
        self.mounts.tmpfs(dir.clone(), &format!("mode=755,{options}"));
        self.upper_in(dir)
    }

    /// Puts the upper and the work directory into `dir`, which is there.
    pub fn upper_in(self, dir: impl AsRef<Path>) -> Self {
        let dir = dir.as_ref();
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
        let mut mounted = self.prepare(backend);
        mounted.mount();
        mounted
    }

    /// All is ready to be mounted with `backend`.
    pub fn prepare(self, backend: Backend) -> Mounted {
        let before = self.below().map(|lower| Snapshot::of(lower, Detail::Layer)).collect();
        Mounted { setup: self, backend, before, daemon: None, is_mounted: false, epoch: 0 }
    }

    /// All layers that nobody may change.
    fn below(&self) -> impl Iterator<Item = &PathBuf> {
        self.lowers.iter().chain(&self.data)
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
        self.setup.lowers[layer].join(path)
    }

    /// The path of `path` in a layer for data only; 0 is the topmost.
    pub fn data(&self, layer: usize, path: impl AsRef<Path>) -> PathBuf {
        self.setup.data[layer].join(path)
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

    /// Has the next mount be with these options alone, by plyfs as by the kernel's overlayfs.
    pub fn set_options(&mut self, options: &'static str) {
        self.setup.kernel_options = options;
        self.setup.options = vec![options.to_owned()];
    }

    /// Has the next mount be of these lower layers.
    pub fn set_lower_list(&mut self, list: impl Into<OsString>) {
        self.setup.lower_list = Some(list.into());
    }

    /// Has the next mount be by `backend`.
    pub fn set_backend(&mut self, backend: Backend) {
        assert!(!self.is_mounted);
        self.backend = backend;
    }

    /// Takes everything out of the upper and the work directory of what is not mounted.
    pub fn empty_upper(&self) {
        assert!(!self.is_mounted);
        for (name, value) in super::xattrs(&self.upper("")) {
            if name.starts_with("trusted.overlay.") || name.starts_with("user.overlay.") {
                rustix::fs::lremovexattr(self.upper(""), &name)
                    .unwrap_or_else(|error| panic!("{name}={value:?}: {error}"));
            }
        }
        for dir in ["upper", "work"] {
            for entry in fs::read_dir(self.setup.path(dir)).unwrap() {
                let entry = entry.unwrap();
                let path = entry.path();
                let result = if entry.file_type().unwrap().is_dir() {
                    fs::remove_dir_all(&path)
                } else {
                    fs::remove_file(&path)
                };
                result.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            }
        }
    }

    /// Unmounts, lets `change` change the layers, and mounts again.
    pub fn change_layers(&mut self, change: impl FnOnce(&Self)) {
        self.unmount();
        change(self);
        self.before = self.setup.below().map(|lower| Snapshot::of(lower, Detail::Layer)).collect();
        self.mount();
    }

    /// Unmounts; the layers stay.
    pub fn unmount(&mut self) {
        if let Err(error) = self.try_unmount() {
            panic!("{error}");
        }
    }

    /// Unmounts what was mounted with `volatile`, which leaves something in the work directory.
    pub fn unmount_dirty(&mut self) {
        let incompat = self.setup.path("work/work/incompat");
        let away = self.setup.path("incompat");
        fs::rename(&incompat, &away).unwrap();
        self.unmount();
        fs::rename(&away, &incompat).unwrap();
    }

    /// Mounts what was unmounted.
    #[track_caller]
    pub fn mount(&mut self) {
        if let Err(error) = self.try_mount() {
            panic!("{error}");
        }
    }

    /// Mounts what was unmounted, or tells why that is refused.
    pub fn try_mount(&mut self) -> Result<(), String> {
        assert!(!self.is_mounted);
        match self.backend {
            Backend::Kernel => self.mount_kernel().map_err(|error| format!("the kernel's overlayfs: {error}"))?,
            Backend::Plyfs => self.mount_plyfs()?,
        }
        self.is_mounted = true;
        Ok(())
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

    /// Waits for the end of a daemon that was asked for it, or whose mount was taken away, and tells its exit status.
    pub fn wait_for_end(&mut self) -> Option<i32> {
        self.is_mounted = false;
        let mut daemon = self.daemon.take()?;
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(status) = daemon.try_wait().unwrap() {
                return status.code();
            }
            sleep(Duration::from_millis(2));
        }
        daemon.kill().unwrap();
        daemon.wait().unwrap();
        panic!("the daemon did not end: {}", self.said());
    }

    /// The options that name the layers.
    fn layers(&self) -> Vec<(&'static str, OsString)> {
        let setup = &self.setup;
        let mut options = Vec::new();
        if let Some(list) = &setup.lower_list {
            options.push(("lowerdir", list.clone()));
        } else if setup.one_by_one {
            options.extend(setup.lowers.iter().map(|lower| ("lowerdir+", lower.into())));
            options.extend(setup.data.iter().map(|layer| ("datadir+", layer.into())));
        } else {
            let lowers: Vec<&OsStr> = setup.lowers.iter().map(|lower| lower.as_os_str()).collect();
            let mut list = lowers.join(OsStr::new(":"));
            for layer in &setup.data {
                list.push("::");
                list.push(layer);
            }
            options.push(("lowerdir", list));
        }
        if setup.writable {
            options.push(("upperdir", setup.path("upper").into()));
            options.push(("workdir", setup.path("work").into()));
        }
        options
    }

    fn mount_kernel(&self) -> Result<(), Errno> {
        let layers = self.layers();
        let options = self.setup.kernel_options;
        let options = if self.setup.writable || options != WRITABLE { options } else { "" };
        if self.setup.one_by_one {
            return self.mount_kernel_one_by_one(&layers, options);
        }
        let mut data = OsString::from(options);
        for (name, value) in layers {
            data.push(if data.is_empty() { "" } else { "," });
            data.push(name);
            data.push("=");
            data.push(value);
        }
        let data = std::ffi::CString::new(std::os::unix::ffi::OsStringExt::into_vec(data)).unwrap();
        mount("overlay", self.path(""), "overlay", MountFlags::empty(), Some(data.as_c_str()))
    }

    /// What mount(2) cannot say.
    fn mount_kernel_one_by_one(&self, layers: &[(&str, OsString)], options: &str) -> Result<(), Errno> {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        for (name, value) in layers {
            fsconfig_set_string(&context, *name, value)?;
        }
        for option in options.split(',') {
            match option.split_once('=') {
                Some((name, value)) => fsconfig_set_string(&context, name, value)?,
                None => fsconfig_set_flag(&context, option)?,
            }
        }
        fsconfig_create(&context)?;
        let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
        move_mount(&mount, "", rustix::fs::CWD, self.path(""), MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
    }

    fn mount_plyfs(&mut self) -> Result<(), String> {
        self.epoch += 1;
        let log = fs::File::create(self.log()).unwrap();
        let mut options = OsString::from("allow_other,dev,suid");
        for (name, value) in self.layers() {
            options.push(format!(",{name}="));
            options.push(value);
        }
        for option in &self.setup.options {
            options.push(",");
            options.push(option);
        }
        let program = std::env::var_os("PLYFS_TEST_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_plyfs").into());
        let mut command = Command::new(program);
        command.arg("-f").arg("-o").arg(options).arg(self.path(""));
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let limits = self.setup.limit.map(|limit| libc::rlimit { rlim_cur: limit, rlim_max: limit });
        unsafe {
            command.pre_exec(move || {
                // A shell has what it runs in the background ignore it.
                libc::signal(libc::SIGINT, libc::SIG_DFL);
                match limits.map_or(0, |limits| libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limits)) {
                    0 => Ok(()),
                    _ => Err(io::Error::last_os_error()),
                }
            });
        }
        let mut daemon = command.spawn().unwrap();
        let start = Instant::now();
        while !is_fuse(&self.path("")) {
            if let Some(status) = daemon.try_wait().unwrap() {
                assert!(!status.success(), "plyfs ended without a mount");
                return Err(format!("plyfs ended with {status}: {}", self.said()));
            }
            if start.elapsed() > PATIENCE {
                let _ = daemon.kill();
                let _ = daemon.wait();
                return Err(format!("plyfs does not mount: {}", self.said()));
            }
            sleep(Duration::from_millis(2));
        }
        self.daemon = Some(daemon);
        Ok(())
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
            self.setup.below().map(|lower| Snapshot::of(lower, Detail::Layer)).collect()
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
