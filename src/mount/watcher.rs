//! `auto_unmount`: a process of its own that takes the mount away once its daemon is dead, whatever it died of.

use std::io::{copy, sink, stdin};
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::retry_on_intr;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, setsid, waitpid};

use crate::sys::mount::start_apart;

use super::failure::{Failure, reason};
use super::kernel::Mounted;

/// The process that watches the daemon; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Watcher {
    process: Pid,
    /// What the daemon alone holds, so that the other end tells of its death.
    _alive: OwnedFd,
}

impl Watcher {
    /// Starts it. To be called before anything starts a thread.
    ///
    /// # Errors
    /// Why there is no other process.
    pub(super) fn start(mounted: &Mounted) -> Result<Self, Failure> {
        let failed = |errno| Failure::new(format!("auto_unmount: {}", reason(errno)));
        let (end, alive) = pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
        let process = start_apart(end.as_fd(), || watch(mounted)).map_err(failed)?;
        Ok(Self { process, _alive: alive })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // What is mounted there from now on is another's.
        let ended = kill_process(self.process, Signal::KILL)
            .and_then(|()| retry_on_intr(|| waitpid(Some(self.process), WaitOptions::empty())));
        if let Err(errno) = ended {
            log::warn!("auto_unmount: process {}: {errno}", self.process);
        }
    }
}

/// Unmounts after the daemon; the code to end with. The daemon's signals do nothing here: its handlers reach nobody.
fn watch(mounted: &Mounted) -> i32 {
    // Else what ends the daemon from its terminal would end this process too.
    if setsid().is_err() {
        return 1;
    }
    // Nothing is written to the other end: it ends with who holds it.
    let ended = copy(&mut stdin(), &mut sink());
    i32::from(ended.is_err() || mounted.take_away().is_err())
}
