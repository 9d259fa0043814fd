//! A mount's life: checked, mounted, served, unmounted.

mod about;
mod background;
mod check;
mod confine;
mod control;
mod failure;
mod fusermount;
mod kernel;
mod logging;
mod signals;
mod umount;
mod watcher;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;

use rustix::fs::{AtFlags, CWD, Mode, StatxFlags, statx};
use rustix::mount::MountFlags;
use rustix::process::{Resource, Rlimit, chdir, getrlimit, setrlimit, umask};

use crate::config::{Config, MountOptions};
use crate::control::protocol::ImageRef;
use crate::fuse::agreement::Agreement;
use crate::fuse::{Session, Settings};
use crate::image::container::Held;
use crate::overlay::Overlay;
use crate::running;
use crate::sys::creds::is_privileged;
use crate::sys::mount::Inherited;

pub use self::failure::{Failure, reason};
pub use self::fusermount::version as helper;
pub use self::umount::{covering, source_of, umount};

use self::background::Caller;
use self::kernel::Mounted;
use self::watcher::Watcher;

/// What is to be mounted, and where.
#[derive(Debug)]
pub struct Request {
    /// What the overlay is made of.
    pub config: Config,
    /// How it is to be mounted.
    pub mount: MountOptions,
    /// Where it is to be mounted.
    pub mountpoint: PathBuf,
    /// Everything is to be logged.
    pub debug: bool,
    /// What is in use as long as it is mounted.
    pub held: Held,
    /// What of the store is mounted.
    pub image: Option<ImageRef>,
    /// A daemon in the background ends with who started it.
    pub ends_with_caller: bool,
}

/// Mounts and serves in this process, until the mount is gone.
///
/// # Errors
/// Why it cannot be mounted or served.
pub fn foreground(request: &Request) -> Result<(), Failure> {
    logging::start(request.mount.log.as_deref(), request.debug)?;
    serve(request, None)
}

/// Mounts and serves in a child process; returns once the mount answers.
///
/// To be called before anything starts a thread, with the descriptors that the process was started with.
///
/// # Errors
/// Why it cannot be mounted.
pub fn background(request: &Request, inherited: Inherited) -> Result<(), Failure> {
    background::run(request.ends_with_caller, |caller| {
        if let Some(log) = &request.mount.log {
            logging::start(Some(log), request.debug)?;
        }
        serve(request, Some((caller, inherited)))
    })
}

fn serve(request: &Request, caller: Option<(&Caller, Inherited)>) -> Result<(), Failure> {
    // Modes are the caller's of each request to decide.
    umask(Mode::empty());
    raise_descriptor_limit();
    let mountpoint = check::mountpoint(&request.mountpoint)?;
    check::layers(&request.config)?;
    let layers = about::layers(&request.config);
    let overlay = Overlay::open(&request.config)?;
    // Paths may have been relative, or descriptors of the caller's, up to here.
    let caller = caller.map(|(caller, inherited)| {
        inherited.close();
        caller
    });
    chdir("/").map_err(|errno| Failure::on("", Path::new("/"), errno))?;

    let signals = signals::take().map_err(|error| Failure::new(format!("cannot take signals: {error}")))?;
    let mut options = request.mount.clone();
    if overlay.is_read_only() {
        options.flags |= MountFlags::RDONLY;
    }
    let (device, mounted) = kernel::mount(&mountpoint, &options)?;
    let mounted = Cleared(Arc::new(mounted));
    if let Err(errno) = confine::drop_capabilities() {
        log::warn!("capabilities that nothing takes are kept: {errno}");
    }
    let watcher = request.mount.auto_unmount.then(|| Watcher::start(&mounted.0)).transpose()?;
    let no_thread = |error| Failure::new(format!("cannot start a thread: {error}"));
    if request.mount.landlock {
        running::look_from_here().map_err(no_thread)?;
    }
    let result = thread::scope(|scope| {
        let (started, begun) = mpsc::channel();
        let (overlay, options) = (&overlay, &request.mount);
        let serve = move || serve_requests(device, overlay, options, &started);
        let serving = thread::Builder::new().name("serve".into()).spawn_scoped(scope, serve).map_err(no_thread)?;
        // What it could not start with is its result.
        let mut control = None;
        if let Ok(agreement) = begun.recv() {
            if let Err(error) = signals::watch(signals, Arc::clone(&mounted.0), Arc::clone(overlay)) {
                mounted.0.clear();
                return Err(no_thread(error));
            }
            let about = about::about(request, layers, &mounted.0, overlay);
            control = control::serve(about, Arc::clone(overlay), agreement);
            if let Some(caller) = caller {
                tell(caller, &mounted.0);
            }
        }
        let result = serving.join();
        drop(control);
        result.unwrap_or_else(|_| Err(Failure::new("the thread that serves requests panicked")))
    });
    drop(mounted);
    drop(watcher);
    overlay.close();
    request.held.end();
    result
}

/// Starts a session, says so, and serves until the mount is gone. Everything that handles requests is started in here, and
/// closed in with it.
fn serve_requests(
    device: OwnedFd,
    overlay: &Arc<Overlay>,
    options: &MountOptions,
    started: &mpsc::Sender<Arc<Agreement>>,
) -> Result<(), Failure> {
    let closed = if options.landlock {
        let (read, written) = overlay.dirs();
        confine::close_into(&read, &written)
    } else {
        Err("landlock=0 is given".to_owned())
    };
    match &closed {
        Ok(()) => log::info!("closed into the layers by Landlock"),
        Err(reason) => log::info!("not closed into the layers: {reason}"),
    }
    let session = Session::start(device, Arc::clone(overlay), &settings(options))?;
    let agreement = session.agreement();
    if let Err(reason) = closed {
        agreement.leave("landlock", reason);
    }
    // Who waits for it has gone if it is not heard.
    if started.send(agreement).is_err() {
        return Ok(());
    }
    session.run().map_err(Failure::from)
}

/// Tells the caller that the mount answers, once it does.
fn tell(caller: &Caller, mounted: &Mounted) {
    // Not from what the kernel knows: the daemon is asked.
    match statx(CWD, mounted.path(), AtFlags::STATX_FORCE_SYNC, StatxFlags::BASIC_STATS) {
        Ok(_) => caller.succeed(),
        Err(errno) => {
            caller.fail(&Failure::on("mount on ", mounted.path(), errno));
            mounted.clear();
        }
    }
}

/// A mount that is taken away with its last use here, if it is still there.
struct Cleared(Arc<Mounted>);

impl Drop for Cleared {
    fn drop(&mut self) {
        self.0.clear();
    }
}

fn settings(options: &MountOptions) -> Settings {
    Settings {
        timeout: options.timeouts.shortest(),
        writeback: options.writeback,
        no_passthrough: no_passthrough(options),
        counts: options.stats,
        awake: options.awake,
        // Who lets everybody in means it, whatever else he says.
        allow_root: options.allow_root && !options.allow_other,
        readers: options.readers,
    }
}

/// Why files of the upper do not go through. Without the privilege for it the kernel refuses; files that go through
/// move the access times of the upper, and cannot have their writes gathered.
fn no_passthrough(options: &MountOptions) -> Option<&'static str> {
    match options.passthrough {
        Some(false) => Some("passthrough=0 is given"),
        None if options.flags.contains(MountFlags::NOATIME) => Some("noatime is given"),
        _ if options.writeback => Some("writeback=1 is given"),
        _ if !is_privileged() => Some("no privilege"),
        _ => None,
    }
}

/// Every open file of the mount is a descriptor here.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(errno) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        log::debug!("the descriptor limit stays at {:?}: {errno}", limit.current);
    }
}
