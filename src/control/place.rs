//! Where control sockets are.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, fstat, mkdirat, openat, stat, unlinkat};
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};
use rustix::process::geteuid;

use crate::error::{Errno, Error, Result};

/// Where sockets of this user may be; a daemon takes the first that it can use.
pub(super) fn own() -> Vec<PathBuf> {
    let user = geteuid();
    let mut places: Vec<PathBuf> = Vec::new();
    if let Some(dir) = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from)
        // Who has become another user may still have that one's.
        && dir.is_absolute()
        && stat(&dir).is_ok_and(|stat| stat.st_uid == user.as_raw())
    {
        places.push(dir.join("plyfs"));
    }
    if user.is_root() {
        places.push("/run/plyfs".into());
    }
    // Which may be the first as well.
    let usual = PathBuf::from(format!("/run/user/{}/plyfs", user.as_raw()));
    if !places.contains(&usual) {
        places.push(usual);
    }
    places.push(std::env::temp_dir().join(format!("plyfs-{}", user.as_raw())));
    places
}

/// Where sockets may be that this process may talk to: root's are all.
pub(super) fn all() -> Vec<PathBuf> {
    let mut places = own();
    if geteuid().is_root() {
        let entries = |dir: &Path| std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
        places.extend(entries(Path::new("/run/user")).map(|dir| dir.join("plyfs")));
        let is_ours =
            |path: &PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"plyfs-"));
        places.extend(entries(&std::env::temp_dir()).filter(is_ours));
    }
    places.sort();
    places.dedup();
    places
}

/// A directory for sockets, made if it is not there.
///
/// # Errors
/// That it cannot be made, is another user's, or is open to others.
pub(super) fn make(path: &Path) -> Result<OwnedFd> {
    let named = |errno| Error::new(errno, "make").on(path.display().to_string());
    match mkdirat(CWD, path, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(named(errno)),
    }
    let dir = open(path)?;
    let stat = fstat(&dir).map_err(named)?;
    if stat.st_uid != geteuid().as_raw() {
        return Err(named(Errno::PERM).because("belongs to another user"));
    }
    if stat.st_mode & 0o077 != 0 {
        return Err(named(Errno::PERM).because("is open to other users"));
    }
    Ok(dir)
}

/// Opens a directory for sockets.
///
/// # Errors
/// Those of open(2).
pub(super) fn open(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).map_err(|errno| Error::new(errno, "open").on(path.display().to_string()))
}

/// Connects to the socket `name` in a directory for sockets.
///
/// # Errors
/// Those of connect(2): `ECONNREFUSED` where nobody listens any more.
pub(super) fn connect(dir: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    net::connect(&socket, &SocketAddrUnix::new(path_in(dir, name))?)?;
    Ok(socket)
}

/// Removes a socket.
///
/// # Errors
/// Those of unlink(2), without `ENOENT`.
pub(super) fn remove(dir: &OwnedFd, name: &str) -> Result<(), Errno> {
    match unlinkat(dir, name, AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(()),
        result => result,
    }
}

/// A path that is short enough for a socket, and stays in the directory that was looked at.
pub(super) fn path_in(dir: &OwnedFd, name: &str) -> String {
    format!("/proc/self/fd/{}/{name}", dir.as_raw_fd())
}

/// What the socket of a mount is called.
pub(super) fn name((major, minor): (u32, u32), pid: u32) -> String {
    format!("{major}-{minor}-{pid}.sock")
}

/// The device number and process id that a socket is called by.
pub(super) fn parse(name: &str) -> Option<((u32, u32), u32)> {
    let mut parts = name.strip_suffix(".sock")?.split('-');
    let mut next = || parts.next()?.parse().ok();
    let parsed = ((next()?, next()?), next()?);
    parts.next().is_none().then_some(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_told_by_their_names() {
        assert_eq!(parse(&name((0, 53), 4711)), Some(((0, 53), 4711)));
        for other in ["0-53.sock", "0-53-1-2.sock", "0-53-x.sock", ".0-53-1.new", "a"] {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_directory_that_others_may_enter_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("plyfs");
        make(&place).unwrap();
        make(&place).unwrap();
        std::fs::set_permissions(&place, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        assert_eq!(make(&place).unwrap_err().errno(), Errno::PERM);
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&place, &link).unwrap();
        assert!(make(&link).is_err());
    }
}
