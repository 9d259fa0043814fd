//! The daemon's side: one thread, which sleeps until somebody asks.

use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Dir, Mode, chmod, readlink, renameat};
use rustix::net::sockopt::socket_peercred;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen,
    recv, send, shutdown, socket_with,
};
use rustix::process::{geteuid, getpid};
use serde_json::Value;

use crate::error::{Context, Errno, Error, Result};

use super::place;
use super::protocol::{Ask, Outcome, Request, Response, VERSION};

/// The longest request, in bytes.
const LONGEST: usize = 16 << 10;
/// How many clients are served at a time; one more ends the eldest.
const MOST_CLIENTS: usize = 8;
/// How long a client may take to ask, and again to take the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait where a client cannot be taken in, as when descriptors are short.
const RESPITE: Duration = Duration::from_millis(200);

/// A control socket that is served as long as this lives.
#[derive(Debug)]
pub struct Server {
    dir: OwnedFd,
    name: String,
    listener: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves the mount with this device number: `answer` is asked, by one thread only.
    ///
    /// # Errors
    /// Why there is no place for a socket, or none can be made.
    pub fn start(device: (u32, u32), answer: impl Fn(&Ask) -> Result<Value> + Send + 'static) -> Result<Self> {
        let pid = getpid().as_raw_nonzero().get().unsigned_abs();
        let name = place::name(device, pid);
        let (dir, listener) = place_socket(&name)?;
        let listener = Arc::new(listener);
        let thread = {
            let listener = Arc::clone(&listener);
            let serve = move || serve(&listener, &answer);
            thread::Builder::new().name("control".into()).spawn(serve)
        };
        let mut server = Self { dir, name, listener, thread: None };
        // Should there be no thread, the socket goes again.
        server.thread = Some(thread.map_err(|error| Error::from(error).on("control socket"))?);
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(errno) = place::remove(&self.dir, &self.name) {
            log::debug!("control socket: {errno}");
        }
        if let Err(errno) = shutdown(&*self.listener, Shutdown::Both) {
            log::warn!("control socket: {errno}");
            return;
        }
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            log::error!("the thread of the control socket panicked");
        }
    }
}

/// A listening socket of this name, in the first place where there can be one.
fn place_socket(name: &str) -> Result<(OwnedFd, OwnedFd)> {
    let mut last = Error::new(Errno::NOENT, "make").on("control socket");
    for path in place::own() {
        match place::make(&path).and_then(|dir| Ok((listen_in(&dir, name)?, dir))) {
            Ok((listener, dir)) => {
                log::info!("control socket {}/{name}", path.display());
                return Ok((dir, listener));
            }
            Err(error) => {
                log::debug!("no control socket in {}: {error}", path.display());
                last = error;
            }
        }
    }
    Err(last)
}

fn listen_in(dir: &OwnedFd, name: &str) -> Result<OwnedFd> {
    let socket =
        socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
            .during("make a control socket")?;
    // Under its name once it listens: whoever finds one that does not takes it for a dead daemon's.
    let new = format!(".{name}.new");
    for old in [&new, name] {
        place::remove(dir, old).during("make a control socket")?;
    }
    clean(dir);
    let path = place::path_in(dir, &new);
    let address = SocketAddrUnix::new(path.as_str()).during("make a control socket")?;
    bind(&socket, &address).during("make a control socket")?;
    let made = chmod(path.as_str(), Mode::RUSR | Mode::WUSR)
        .and_then(|()| listen(&socket, i32::try_from(MOST_CLIENTS).unwrap_or(1)))
        .and_then(|()| renameat(dir, new.as_str(), dir, name));
    if let Err(errno) = made {
        place::remove(dir, &new).during("remove a control socket")?;
        return Err(Error::new(errno, "make a control socket"));
    }
    Ok(socket)
}

/// Removes the sockets of daemons that are dead, as far as that costs nothing: no process is theirs.
fn clean(dir: &OwnedFd) {
    for entry in Dir::read_from(dir).into_iter().flatten().flatten() {
        let Ok(name) = entry.file_name().to_str() else { continue };
        // What is dead, but not buried, has no program.
        let runs = |pid| readlink(format!("/proc/{pid}/exe"), Vec::new()).is_ok();
        if place::parse(name).is_some_and(|(_, pid)| !runs(pid))
            && place::connect(dir, name).is_err_and(|errno| errno == Errno::CONNREFUSED)
            && let Err(errno) = place::remove(dir, name)
        {
            log::debug!("control socket {name}: {errno}");
        }
    }
}

/// Serves until the socket is shut down.
fn serve(listener: &OwnedFd, answer: &dyn Fn(&Ask) -> Result<Value>) {
    let mut clients: Vec<Client> = Vec::new();
    loop {
        let now = Instant::now();
        clients.retain(|client| client.deadline > now);
        let wait = clients.iter().map(|client| client.deadline.saturating_duration_since(now)).min();
        let wait = wait.and_then(|wait| Timespec::try_from(wait.saturating_add(Duration::from_millis(1))).ok());
        let mut watched = vec![PollFd::new(listener, PollFlags::IN)];
        watched.extend(clients.iter().map(|client| PollFd::new(&client.socket, client.waits_for())));
        match poll(&mut watched, wait.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => {
                log::error!("control socket: {errno}");
                return;
            }
        }
        let ready: Vec<PollFlags> = watched.iter().map(PollFd::revents).collect();
        let mut ready = ready.into_iter();
        let called = ready.next().unwrap_or(PollFlags::empty());
        if called.contains(PollFlags::HUP) {
            return;
        }
        clients.retain_mut(|client| ready.next().is_none_or(|ready| ready.is_empty()) || client.go_on(answer));
        if !called.is_empty() {
            take_in(listener, &mut clients);
        }
    }
}

/// Takes a client in.
fn take_in(listener: &OwnedFd, clients: &mut Vec<Client>) {
    match accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
        Ok(socket) => {
            if clients.len() >= MOST_CLIENTS {
                clients.remove(0);
            }
            clients.push(Client::new(socket));
        }
        Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => {}
        Err(errno) => {
            log::warn!("control socket: {errno}");
            thread::sleep(RESPITE);
        }
    }
}

/// Somebody who asks.
struct Client {
    socket: OwnedFd,
    /// It is the user of this process, or root.
    is_allowed: bool,
    request: Vec<u8>,
    /// What is left to be sent.
    response: Vec<u8>,
    deadline: Instant,
}

impl Client {
    fn new(socket: OwnedFd) -> Self {
        let is_allowed = socket_peercred(&socket).is_ok_and(|peer| peer.uid.is_root() || peer.uid == geteuid());
        Self { socket, is_allowed, request: Vec::new(), response: Vec::new(), deadline: after(PATIENCE) }
    }

    fn waits_for(&self) -> PollFlags {
        if self.response.is_empty() { PollFlags::IN } else { PollFlags::OUT }
    }

    /// Goes on; whether there is more to be done.
    fn go_on(&mut self, answer: &dyn Fn(&Ask) -> Result<Value>) -> bool {
        if self.response.is_empty() && !self.hear(answer) {
            return false;
        }
        if self.response.is_empty() {
            return true;
        }
        while !self.response.is_empty() {
            match send(&self.socket, &self.response, SendFlags::NOSIGNAL) {
                Ok(sent) => drop(self.response.drain(..sent.min(self.response.len()))),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return true,
                Err(_) => return false,
            }
        }
        false
    }

    /// Hears what there is of a request, and answers it once it is complete; `false` when nobody is there any more.
    fn hear(&mut self, answer: &dyn Fn(&Ask) -> Result<Value>) -> bool {
        let mut buffer = [0; 4096];
        let heard = match recv(&self.socket, &mut buffer, RecvFlags::empty()) {
            Ok((0, _)) => return false,
            Ok((heard, _)) => buffer.get(..heard).unwrap_or_default(),
            Err(Errno::AGAIN | Errno::INTR) => return true,
            Err(_) => return false,
        };
        self.request.extend_from_slice(heard);
        let response = match self.request.split(|byte| *byte == b'\n').next() {
            Some(request) if request.len() < self.request.len() && self.is_allowed => respond(request, answer),
            Some(request) if request.len() < self.request.len() => refusal("a mount of another user"),
            _ => return self.request.len() <= LONGEST,
        };
        self.response = line(&response);
        self.deadline = after(PATIENCE);
        true
    }
}

fn after(time: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(time).unwrap_or(now)
}

fn refusal(reason: impl Into<String>) -> Response {
    Response { version: VERSION, outcome: Outcome::Error(reason.into()) }
}

fn line(response: &Response) -> Vec<u8> {
    let mut line = serde_json::to_vec(response).unwrap_or_default();
    line.push(b'\n');
    line
}

fn respond(request: &[u8], answer: &dyn Fn(&Ask) -> Result<Value>) -> Response {
    #[derive(serde::Deserialize)]
    struct Version {
        version: u32,
    }
    match serde_json::from_slice::<Version>(request) {
        Ok(Version { version: VERSION }) => {}
        Ok(Version { version }) => {
            return refusal(format!("protocol version {version}: the daemon speaks version {VERSION}"));
        }
        Err(error) => return refusal(format!("not a request: {error}")),
    }
    let ask = match serde_json::from_slice::<Request>(request) {
        Ok(request) => request.ask,
        Err(error) => return refusal(format!("not a request: {error}")),
    };
    match catch_unwind(AssertUnwindSafe(|| answer(&ask))) {
        Ok(Ok(value)) => Response { version: VERSION, outcome: Outcome::Answer(value) },
        Ok(Err(error)) => refusal(error.to_string()),
        Err(_) => {
            log::error!("control socket: panicked");
            refusal("the daemon panicked")
        }
    }
}
