//! Leaving the caller: a child serves the mount, and the caller waits until it answers.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::exit;

use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags, open};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitOptions, set_parent_process_death_signal, setsid, waitpid};

use crate::error::Errno;
use crate::sys::mount::{fork, replace_stdio};

use super::failure::{Failure, reason};

/// How the child tells that the mount answers; anything else is why it does not.
const ANSWERS: u8 = 0;

/// How the child reaches the caller, once.
#[derive(Debug)]
pub(super) struct Caller(Mutex<Option<File>>);

impl Caller {
    /// Lets the caller go on.
    pub(super) fn succeed(&self) {
        self.send(&[ANSWERS]);
    }

    /// Tells the caller why there is no mount, unless he was told something before.
    pub(super) fn fail(&self, failure: &Failure) {
        self.send(failure.to_string().as_bytes());
    }

    fn send(&self, message: &[u8]) {
        if let Some(mut pipe) = self.0.lock().take()
            && let Err(error) = pipe.write_all(message)
        {
            log::debug!("the caller does not listen: {error}");
        }
    }
}

/// Runs `serve` in a child of its own session, and returns once that has told its caller how it went.
///
/// # Errors
/// What the child told, or that it ended without.
pub(super) fn run(ends_with_caller: bool, serve: impl FnOnce(&Caller) -> Result<(), Failure>) -> Result<(), Failure> {
    let failed = |errno| Failure::new(format!("cannot go to the background: {}", reason(errno)));
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
    match fork().map_err(failed)? {
        Some(child) => {
            drop(writer);
            listen(reader, child)
        }
        None => {
            drop(reader);
            let caller = Caller(Mutex::new(Some(writer.into())));
            let result = leave(ends_with_caller).map_err(failed).and_then(|()| serve(&caller));
            if let Err(failure) = &result {
                log::error!("{failure}");
                caller.fail(failure);
            }
            exit(i32::from(result.is_err()));
        }
    }
}

/// Has nothing more to do with the caller's terminal and its standard streams.
fn leave(ends_with_caller: bool) -> Result<(), Errno> {
    if ends_with_caller {
        set_parent_process_death_signal(Some(Signal::TERM))?;
    }
    setsid()?;
    let null = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    replace_stdio(null.as_fd())
}

fn listen(pipe: OwnedFd, child: Pid) -> Result<(), Failure> {
    let mut message = Vec::new();
    if let Err(error) = File::from(pipe).read_to_end(&mut message) {
        log::debug!("cannot listen to the daemon: {error}");
    }
    match message.as_slice() {
        [ANSWERS] => Ok(()),
        [] => Err(Failure::new(match waitpid(Some(child), WaitOptions::empty()) {
            Ok(Some((_, status))) => match status.terminating_signal() {
                Some(signal) => format!("the daemon was ended by signal {signal}"),
                None => "the daemon ended before the mount answered".to_owned(),
            },
            _ => "the daemon is lost".to_owned(),
        })),
        line => Err(Failure::new(String::from_utf8_lossy(line))),
    }
}
