//! Asking a daemon: finding its socket, and telling what is wrong where there is none.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::statfs;
use rustix::process::geteuid;
use serde::de::DeserializeOwned;

use crate::error::{Errno, Error, Result};
use crate::mounts::{self, Entry};

use super::place;
use super::protocol::{Ask, Outcome, Request, Response, VERSION};

/// How long a daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// The longest answer, in bytes.
const LONGEST: u64 = 64 << 20;

/// The control socket of a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Socket {
    dir: PathBuf,
    name: String,
    /// The device number that the mount's files show.
    pub device: (u32, u32),
    /// The daemon's process id, where it was not in another namespace.
    pub pid: u32,
}

/// All control sockets that this process may ask, those of dead daemons among them.
pub fn sockets() -> Vec<Socket> {
    let mut found = Vec::new();
    for dir in place::all() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            if let Some(name) = entry.file_name().to_str()
                && let Some((device, pid)) = place::parse(name)
            {
                found.push(Socket { dir: dir.clone(), name: name.to_owned(), device, pid });
            }
        }
    }
    found
}

impl Socket {
    /// Asks; `T` is what [`super::protocol`] tells of the question. The socket of a dead daemon is removed.
    ///
    /// # Errors
    /// `ECONNREFUSED` where nobody listens, `ETIMEDOUT`, those of the connection, and what the daemon says.
    pub fn ask<T: DeserializeOwned>(&self, ask: &Ask) -> Result<T> {
        let failed = |errno| Error::new(errno, "ask the daemon").on(format!("{}/{}", self.dir.display(), self.name));
        let invalid = |error: serde_json::Error| failed(Errno::PROTO).because(error.to_string());
        let dir = place::open(&self.dir)?;
        let socket = place::connect(&dir, &self.name).inspect_err(|errno| {
            if *errno == Errno::CONNREFUSED
                && let Err(errno) = place::remove(&dir, &self.name)
            {
                log::debug!("control socket {}: {errno}", self.name);
            }
        });
        let mut stream = UnixStream::from(socket.map_err(failed)?);
        let io = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::WouldBlock => failed(Errno::TIMEDOUT),
            _ => failed(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
        };
        stream.set_read_timeout(Some(PATIENCE)).map_err(io)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(io)?;
        let mut line = serde_json::to_vec(&Request { version: VERSION, ask: ask.clone() }).map_err(invalid)?;
        line.push(b'\n');
        stream.write_all(&line).map_err(io)?;
        let mut line = Vec::new();
        BufReader::new(stream.take(LONGEST)).read_until(b'\n', &mut line).map_err(io)?;
        if line.is_empty() {
            return Err(failed(Errno::CONNRESET));
        }
        let response: Response = serde_json::from_slice(&line).map_err(invalid)?;
        match response.outcome {
            Outcome::Answer(answer) => serde_json::from_value(answer).map_err(invalid),
            Outcome::Error(reason) => Err(Error::new(Errno::INVAL, "ask the daemon").because(reason)),
        }
    }

    /// Whether nobody listens any more.
    fn is_dead(&self) -> bool {
        let connected = place::open(&self.dir).map(|dir| place::connect(&dir, &self.name));
        connected.is_ok_and(|connected| connected.is_err_and(|errno| errno == Errno::CONNREFUSED))
    }
}

/// The control socket of what is mounted at `path`.
///
/// # Errors
/// That nothing of plyfs is mounted there, that it is another user's, that its daemon is dead, or has no socket.
pub fn of_mount(path: &Path) -> Result<Socket> {
    let full = mounts::full_path(path).map_err(|errno| Error::new(errno, "find").on(path.display().to_string()))?;
    let table = mounts::list().map_err(|error| Error::from(error).on("/proc/self/mountinfo"))?;
    match mounts::at(&table, &full) {
        Some(entry) => of_entry(entry),
        None => Err(none(&full)),
    }
}

/// The control socket of the mount that `path` lies in, where it is mounted, and the path below that. The last name
/// need not be there.
///
/// # Errors
/// As [`of_mount`].
pub fn holding(path: &Path) -> Result<(Socket, PathBuf, PathBuf)> {
    let failed = |errno| Error::new(errno, "find").on(path.display().to_string());
    let full = match (mounts::full_path(path), path.parent(), path.file_name()) {
        (Err(Errno::NOENT), Some(parent), Some(name)) => {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            mounts::full_path(parent).map_err(failed)?.join(name)
        }
        (full, ..) => full.map_err(failed)?,
    };
    let table = mounts::list().map_err(|error| Error::from(error).on("/proc/self/mountinfo"))?;
    let entry = mounts::over(&table, &full);
    let entry = entry.filter(|entry| entry.kind == mounts::TYPE).ok_or_else(|| none(&full))?;
    let below = full.strip_prefix(&entry.path).unwrap_or(&full).to_owned();
    Ok((of_entry(entry)?, entry.path.clone(), below))
}

fn none(path: &Path) -> Error {
    Error::new(Errno::INVAL, "find").on(path.display().to_string()).because("not a mount of plyfs")
}

fn of_entry(entry: &Entry) -> Result<Socket> {
    let mut found = sockets().into_iter().filter(|socket| socket.device == entry.device);
    // One of a dead daemon may be left whose device number is another mount's by now.
    match found.find(|socket| !socket.is_dead()) {
        Some(socket) => Ok(socket),
        None if entry.kind != mounts::TYPE => Err(none(&entry.path)),
        None => {
            let (errno, reason) = match state(entry) {
                State::OfAnother => (Errno::PERM, "a mount of another user"),
                State::Dead => (Errno::NOTCONN, "its daemon is dead: plyfs umount takes the mount away"),
                State::Mute => (Errno::NOENT, "its daemon has no control socket: its log says why"),
            };
            Err(Error::new(errno, "find").on(entry.path.display().to_string()).because(reason))
        }
    }
}

/// Why a mount of plyfs does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It belongs to another user.
    OfAnother,
    /// Nobody serves it any more.
    Dead,
    /// It is served, but has no control socket.
    Mute,
}

/// What is the matter with a mount of plyfs that has no control socket for us.
pub fn state(entry: &Entry) -> State {
    let is_dead = || {
        // The daemon is asked only where none is seen: it may be in another namespace.
        mounts::daemons(entry.device).is_empty() && statfs(&entry.path).is_err_and(|errno| errno == Errno::NOTCONN)
    };
    let user = geteuid();
    match entry.owner {
        Some(owner) if !user.is_root() && owner != user.as_raw() => State::OfAnother,
        _ if is_dead() => State::Dead,
        _ => State::Mute,
    }
}
