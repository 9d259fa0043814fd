//! A session: the agreement with the kernel, and the threads that read its requests.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use fuser::{Config, INodeNo, InitFlags, KernelConfig, SessionACL};

use crate::error::{Errno, Error, Result};
use crate::overlay::{Overlay, Stale};

use super::Settings;
use super::adapter::Adapter;
use super::agreement::Agreement;

/// The largest write that the kernel is to send, in bytes.
const MAX_WRITE: u32 = 1 << 20;
/// How many requests of read-ahead and write-back the kernel may have under way.
const MAX_BACKGROUND: u16 = 64;

/// What is asked of the kernel for every mount; what an older one does not know is left out.
///
/// Locks are not in it: without them the kernel handles `flock` and `fcntl` locks by itself.
const WANTED: InitFlags = InitFlags::FUSE_ASYNC_READ
    .union(InitFlags::FUSE_ATOMIC_O_TRUNC)
    .union(InitFlags::FUSE_BIG_WRITES)
    // The umask is for the overlay to apply, as it depends on default ACLs.
    .union(InitFlags::FUSE_DONT_MASK)
    .union(InitFlags::FUSE_HAS_IOCTL_DIR)
    .union(InitFlags::FUSE_DO_READDIRPLUS)
    .union(InitFlags::FUSE_ASYNC_DIO)
    .union(InitFlags::FUSE_PARALLEL_DIROPS)
    .union(InitFlags::FUSE_NO_OPENDIR_SUPPORT)
    // Saves a request for `security.capability` with every write; the overlay takes set-id bits away instead.
    .union(InitFlags::FUSE_HANDLE_KILLPRIV_V2)
    .union(InitFlags::FUSE_MAX_PAGES)
    .union(InitFlags::FUSE_CACHE_SYMLINKS)
    // Nothing but the mount changes data, so that pages stay when attributes are read anew.
    .union(InitFlags::FUSE_EXPLICIT_INVAL_DATA);

/// A mounted overlay that has answered the kernel's first request.
#[derive(Debug)]
pub struct Session {
    inner: fuser::Session<Adapter>,
    agreement: Arc<Agreement>,
}

impl Session {
    /// Answers the kernel's INIT on `fd`, an open /dev/fuse that is mounted already. Starts threads, so that the process
    /// must not fork after it.
    ///
    /// # Errors
    /// What went wrong on the FUSE device.
    pub fn start(fd: OwnedFd, overlay: Arc<Overlay>, settings: &Settings) -> Result<Self> {
        let adapter = Adapter::new(Arc::clone(&overlay), settings).map_err(|error| failed("start threads", error))?;
        let (ahead, agreement) = (adapter.ahead(), adapter.agreement());
        let mut config = Config::default();
        config.n_threads = Some(settings.readers.max(1));
        // Who may use the mount is the kernel's decision, and the adapter's for `allow_root`.
        let inner = fuser::Session::from_fd(adapter, fd, SessionACL::All, config)
            .map_err(|error| failed("answer the kernel", error))?;
        let notifier = inner.notifier();
        if settings.readers <= 1 {
            ahead.turn_on(notifier.clone());
        }
        overlay.watch(move |ino, what| {
            // A negative offset: no pages.
            let offset = if what == Stale::Listing { 0 } else { -1 };
            if let Err(error) = notifier.inval_inode(INodeNo(ino), offset, 0) {
                log::debug!("the kernel keeps what it knows of inode {ino}: {error}");
            }
        });
        Ok(Self { inner, agreement })
    }

    /// What was agreed with the kernel.
    pub fn agreement(&self) -> Arc<Agreement> {
        Arc::clone(&self.agreement)
    }

    /// Serves requests until the filesystem is unmounted.
    ///
    /// # Errors
    /// What went wrong on the FUSE device.
    pub fn run(self) -> Result<()> {
        match self.inner.run() {
            // Unmounted while a request was on its way to us.
            Err(error) if error.raw_os_error() == Some(libc::ECONNABORTED) => Ok(()),
            result => result.map_err(|error| failed("serve requests", error)),
        }
    }
}

fn failed(operation: &'static str, error: io::Error) -> Error {
    Error::new(Errno::from_io_error(&error).unwrap_or(Errno::IO), operation).because(error)
}

/// Agrees with the kernel on what this mount does; returns whether files may go through.
pub(super) fn negotiate(
    config: &mut KernelConfig,
    acl: bool,
    writeback: bool,
    passthrough: bool,
    agreement: &Agreement,
) -> bool {
    let mut wanted = WANTED;
    wanted.set(InitFlags::FUSE_POSIX_ACL, acl);
    wanted.set(InitFlags::FUSE_WRITEBACK_CACHE, writeback);
    let offered = config.capabilities().contains(InitFlags::FUSE_PASSTHROUGH);
    // At 1, the mount can still be a layer of the kernel's overlayfs.
    let passes = passthrough && offered && config.set_max_stack_depth(1).is_ok();
    wanted.set(InitFlags::FUSE_PASSTHROUGH, passes);
    if passthrough && !passes {
        agreement.leave("passthrough", "the kernel does not offer it");
    }
    if !acl {
        agreement.leave("acl", "noacl is given");
    }
    let missing = wanted.difference(config.capabilities());
    for (name, _) in missing.iter_names() {
        agreement.leave(name, "the kernel does not offer it");
    }
    agreement.note(wanted & config.capabilities());
    if let Err(missing) = config.add_capabilities(wanted & config.capabilities()) {
        log::warn!("the kernel offered what it does not take: {missing:?}");
    }
    // Each of these only lowers a default to what the kernel allows, so that the nearest will do.
    if let Err(nearest) = config.set_max_write(MAX_WRITE) {
        log::debug!("the largest write is {nearest} bytes");
    }
    if let Err(nearest) = config.set_max_background(MAX_BACKGROUND) {
        log::debug!("{nearest} requests in the background");
    }
    if passes {
        log::info!("files of the upper go through");
    }
    passes
}
