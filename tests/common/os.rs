//! System calls that the standard library lacks, and other processes.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::fs::{Dir, Mode, OFlags, Stat, XattrFlags};
use rustix::io::Errno;

/// The extended attributes of what is at `path`, sorted; symlinks are not followed.
pub fn xattrs(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut names = vec![0; 65536];
    let len = match rustix::fs::llistxattr(path, &mut names[..]) {
        Ok(len) => len,
        Err(Errno::OPNOTSUPP) => 0,
        Err(error) => panic!("list attributes of {}: {error}", path.display()),
    };
    let mut list: Vec<(String, Vec<u8>)> = names[..len]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let name = String::from_utf8_lossy(name).into_owned();
            let value = xattr(path, &name).unwrap();
            (name, value)
        })
        .collect();
    list.sort();
    list
}

/// The names of [`xattrs`] that begin with `prefix`.
pub fn xattr_names(path: &Path, prefix: &str) -> Vec<String> {
    xattrs(path).into_iter().map(|(name, _)| name).filter(|name| name.starts_with(prefix)).collect()
}

/// The value of an extended attribute; symlinks are not followed.
pub fn xattr(path: &Path, name: &str) -> Result<Vec<u8>, Errno> {
    let mut value = vec![0; 65536];
    let len = rustix::fs::lgetxattr(path, name, &mut value[..])?;
    value.truncate(len);
    Ok(value)
}

/// Sets an extended attribute; symlinks are not followed.
pub fn set_xattr(path: &Path, name: &str, value: impl AsRef<[u8]>) -> Result<(), Errno> {
    rustix::fs::lsetxattr(path, name, value.as_ref(), XattrFlags::empty())
}

/// An error with an errno.
pub trait HasErrno {
    fn errno(&self) -> Errno;
}

impl HasErrno for Errno {
    fn errno(&self) -> Errno {
        *self
    }
}

impl HasErrno for io::Error {
    fn errno(&self) -> Errno {
        Errno::from_io_error(self).unwrap()
    }
}

/// The errno of what has to fail.
#[track_caller]
pub fn errno<T, E: HasErrno>(result: Result<T, E>) -> Errno {
    match result {
        Ok(_) => panic!("this was to fail"),
        Err(error) => error.errno(),
    }
}

/// Opens with `flags`, and `O_CLOEXEC`; what is made has the mode 644.
pub fn open(path: impl AsRef<Path>, flags: OFlags) -> Result<std::fs::File, Errno> {
    rustix::fs::open(path.as_ref(), flags | OFlags::CLOEXEC, Mode::from_raw_mode(0o644)).map(Into::into)
}

/// lstat(2).
/// truncate(2).
pub fn truncate(path: impl AsRef<Path>, len: i64) -> io::Result<()> {
    let path = CString::new(path.as_ref().as_os_str().as_bytes()).unwrap();
    // SAFETY: the path is a C string.
    match unsafe { libc::truncate(path.as_ptr(), len) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

pub fn lstat(path: impl AsRef<Path>) -> Result<Stat, Errno> {
    rustix::fs::lstat(path.as_ref())
}

/// fstat(2).
pub fn fstat(fd: impl AsFd) -> Stat {
    rustix::fs::fstat(fd).unwrap()
}

/// The names and inode numbers in a directory as listed, with `.` and `..`, in the order in which they come.
pub fn raw_list(path: impl AsRef<Path>) -> Vec<(Vec<u8>, u64)> {
    let mut dir = open_dir(path);
    let mut list = Vec::new();
    while let Some(entry) = dir.read() {
        let entry = entry.unwrap();
        list.push((entry.file_name().to_bytes().to_vec(), entry.ino()));
    }
    list
}

/// Opens a directory to list it.
pub fn open_dir(path: impl AsRef<Path>) -> Dir {
    Dir::new(open(path, OFlags::RDONLY | OFlags::DIRECTORY).unwrap()).unwrap()
}

/// A shared mapping of the beginning of a file.
#[derive(Debug)]
pub struct Mapping {
    address: *mut libc::c_void,
    len: usize,
}

impl Mapping {
    /// Maps `len` bytes, for writing if `writable`.
    pub fn new(file: impl AsFd, len: usize, writable: bool) -> Self {
        let protection = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        let fd = file.as_fd().as_raw_fd();
        let address = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, libc::MAP_SHARED, fd, 0) };
        assert_ne!(address, libc::MAP_FAILED, "mmap: {}", io::Error::last_os_error());
        Self { address, len }
    }

    /// What is mapped, as it is now.
    pub fn read(&self) -> Vec<u8> {
        (0..self.len).map(|index| unsafe { self.address.cast::<u8>().add(index).read_volatile() }).collect()
    }

    /// Writes at `offset`.
    pub fn write(&self, offset: usize, data: &[u8]) {
        assert!(offset + data.len() <= self.len);
        for (index, byte) in data.iter().enumerate() {
            unsafe { self.address.cast::<u8>().add(offset + index).write_volatile(*byte) };
        }
    }

    /// msync(2), waiting.
    pub fn sync(&self) {
        assert_eq!(unsafe { libc::msync(self.address, self.len, libc::MS_SYNC) }, 0);
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        unsafe { libc::munmap(self.address, self.len) };
    }
}

/// Runs `what` in a child process that has none of our open files, and returns what it returns.
///
/// It may change its umask, ids, limits and directory. It is to make system calls, and not to panic.
pub fn in_child(what: impl FnOnce() -> Result<(), Errno>) -> Result<(), Errno> {
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork: {}", io::Error::last_os_error());
    if child == 0 {
        unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
        let code = match std::panic::catch_unwind(std::panic::AssertUnwindSafe(what)) {
            Ok(Ok(())) => 0,
            Ok(Err(error)) => error.raw_os_error(),
            Err(_) => 255,
        };
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    while unsafe { libc::waitpid(child, &raw mut status, 0) } != child {
        assert_eq!(io::Error::last_os_error().raw_os_error(), Some(libc::EINTR));
    }
    assert!(libc::WIFEXITED(status), "the child was ended by signal {}", libc::WTERMSIG(status));
    match libc::WEXITSTATUS(status) {
        0 => Ok(()),
        255 => panic!("the child panicked"),
        code => Err(Errno::from_raw_os_error(code)),
    }
}

/// Runs a command and returns what it prints; it has to succeed.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {} {errors}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Waits until `what` is true; fails after a minute.
#[track_caller]
pub fn wait_until(message: &str, mut what: impl FnMut() -> bool) {
    let start = Instant::now();
    while !what() {
        assert!(start.elapsed() < Duration::from_secs(60), "still not: {message}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A child process that is ended with its value.
#[derive(Debug)]
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
