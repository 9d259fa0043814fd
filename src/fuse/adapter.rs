//! The overlay as a FUSE filesystem; what it does with each request is in `requests.rs`.
//!
//! What is quick is answered where it arrives: waking another thread would take longer than most requests do. What has
//! to copy data, or to wait for the disk, goes to a worker.

mod requests;

use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use fuser::{INodeNo, Request};
use rustix::fs::OFlags;

use crate::counters::Op;
use crate::error::{Errno, Error, Result};
use crate::overlay::{Caller, Overlay};
use crate::sys::creds;

use super::Settings;
use super::agreement::Agreement;
use super::ahead::Ahead;
use super::awake::Awake;
use super::pool::Pool;
use super::reply::{Begun, Refuse, answer};
use super::through::Through;

/// Threads for what takes long.
const WORKERS: usize = 4;
/// After so many forgotten inodes, memory is given back.
const MANY: u64 = 1 << 16;
/// As good as without end.
const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);

thread_local! {
    /// What a read is read into, kept for the next.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The overlay as a FUSE filesystem.
#[derive(Debug)]
pub(super) struct Adapter {
    overlay: Arc<Overlay>,
    pool: Pool,
    /// Ends with the adapter.
    _awake: Option<Awake>,
    /// How long the kernel may keep entries and attributes.
    timeout: Duration,
    writeback: bool,
    /// Writing back leaves modification times: the kernel tells them. In a user namespace, it cannot always; with several
    /// readers, that could come in between.
    keeps_mtimes: bool,
    passthrough: bool,
    through: Arc<Through>,
    ahead: Arc<Ahead>,
    agreement: Arc<Agreement>,
    /// Files are opened without asking: nothing changes, and everybody may.
    opens_free: bool,
    /// How many inodes the kernel has forgotten.
    forgotten: AtomicU64,
    /// The only user besides root who may use the mount, if others may not.
    only: Option<u32>,
}

impl Adapter {
    /// # Errors
    /// Those of starting threads.
    pub(super) fn new(overlay: Arc<Overlay>, settings: &Settings) -> io::Result<Self> {
        let only = settings.allow_root.then(|| rustix::process::geteuid().as_raw());
        // What the kernel keeps, it shows to everybody.
        let timeout = if only.is_some() { Duration::ZERO } else { settings.timeout.unwrap_or(FOREVER) };
        let pool = Pool::new(WORKERS)?;
        let agreement = Arc::new(Agreement::default());
        if let Some(why) = settings.no_passthrough {
            agreement.leave("passthrough", why);
        }
        if settings.readers > 1 {
            agreement.leave("data with opens", "threads= is above 1");
        }
        if !settings.awake {
            agreement.leave("awake", "awake=0 is given");
        }
        if !settings.counts {
            agreement.leave("counting", "stats=0 is given");
            overlay.counters.turn_off();
        }
        Ok(Self {
            overlay,
            pool,
            _awake: settings.awake.then(Awake::new).transpose()?,
            timeout,
            writeback: settings.writeback,
            keeps_mtimes: settings.readers <= 1 && creds::is_privileged(),
            passthrough: settings.no_passthrough.is_none(),
            through: Arc::new(Through::new(Arc::clone(&agreement))),
            ahead: Arc::default(),
            agreement,
            opens_free: false,
            forgotten: AtomicU64::new(0),
            only,
        })
    }

    /// What hands data over, to be turned on once there is a session.
    pub(super) fn ahead(&self) -> Arc<Ahead> {
        Arc::clone(&self.ahead)
    }

    /// What is agreed with the kernel.
    pub(super) fn agreement(&self) -> Arc<Agreement> {
        Arc::clone(&self.agreement)
    }

    /// Who asks.
    ///
    /// # Errors
    /// `EACCES` when the mount is not for him.
    fn caller(&self, request: &Request) -> Result<Caller> {
        let caller = holder(request);
        match self.only {
            Some(only) if caller.uid != only && caller.uid != 0 => {
                Err(Error::new(Errno::ACCESS, "use a mount of another user"))
            }
            _ => Ok(caller),
        }
    }

    /// A request about the inode `ino` has arrived.
    fn begin(&self, op: Op, ino: INodeNo) -> Begun {
        Begun::new(&self.overlay, op, ino.0, None)
    }

    /// A request about `name` in the directory `parent` has arrived.
    fn begin_at(&self, op: Op, parent: INodeNo, name: &OsStr) -> Begun {
        Begun::new(&self.overlay, op, parent.0, Some(name))
    }

    /// Answers a request that nothing has to be done for: the kernel need not ask again.
    fn decline(&self, op: Op, ino: INodeNo, reply: impl Refuse) {
        let begun = self.begin(op, ino);
        reply.refuse(fuser::Errno::ENOSYS);
        begun.end(&self.overlay, Some(Errno::NOSYS));
    }

    /// Answers here, or in the pool if that will take long.
    fn dispatch<R, T>(
        &self,
        begun: Begun,
        request: &Request,
        is_slow: bool,
        reply: R,
        work: impl FnOnce(&Overlay, Caller) -> Result<T> + Send + 'static,
        send: impl FnOnce(R, T) + Send + 'static,
    ) where
        R: Refuse + Send + 'static,
    {
        let caller = self.caller(request);
        if is_slow {
            let overlay = Arc::clone(&self.overlay);
            self.pool.run(move || answer(&overlay, begun, reply, || work(&overlay, caller?), send));
        } else {
            answer(&self.overlay, begun, reply, || work(&self.overlay, caller?), send);
        }
    }

    /// The flags to open a file with.
    fn open_flags(&self, flags: i32) -> OFlags {
        let flags = OFlags::from_bits_retain(flags.cast_unsigned());
        // To write back a page of which only a part was written, the kernel reads it.
        if self.writeback && flags & OFlags::ACCMODE == OFlags::WRONLY {
            flags & !OFlags::ACCMODE | OFlags::RDWR
        } else {
            flags
        }
    }
}

/// Who asks by a handle: who opened the file has let him.
fn holder(request: &Request) -> Caller {
    Caller { uid: request.uid(), gid: request.gid(), pid: request.pid() }
}
