//! Signals: how a daemon is asked to end, and what its caches do.

use std::ffi::c_int;
use std::io;
use std::process::exit;
use std::sync::{Arc, mpsc};
use std::thread::{self, sleep};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use crate::overlay::Overlay;
use crate::sys::creds::status_field;

use super::kernel::Mounted;

/// How long a detached mount may stay in use before its users lose it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Takes the signals; what arrives from now on is kept for [`watch`].
///
/// # Errors
/// Those of sigaction(2).
pub(super) fn take() -> io::Result<Signals> {
    let wanted = [SIGINT, SIGTERM, SIGHUP, SIGUSR1];
    let ignored = ignored();
    // What our caller has us ignore, as nohup does, stays so.
    Signals::new(wanted.into_iter().filter(|signal| ignored.checked_shr(bit(*signal)).unwrap_or(0) & 1 == 0))
}

fn bit(signal: c_int) -> u32 {
    u32::try_from(signal.saturating_sub(1)).unwrap_or(u32::MAX)
}

/// The set of signals that this process ignores.
fn ignored() -> u64 {
    status_field("self", "SigIgn:").and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or(0)
}

/// Acts on signals from now on, on a thread of its own, which has its name when this returns.
///
/// # Errors
/// Those of starting a thread.
pub(super) fn watch(mut signals: Signals, mounted: Arc<Mounted>, overlay: Arc<Overlay>) -> io::Result<()> {
    let name = mounted.thread_name();
    let (named, begun) = mpsc::channel();
    thread::Builder::new().name(name).spawn(move || {
        drop(named);
        let mut is_ending = false;
        for signal in signals.forever() {
            match signal {
                SIGUSR1 => overlay.log_counters(),
                SIGINT if is_ending => exit(1),
                _ if is_ending => {}
                _ => {
                    is_ending = true;
                    let mounted = Arc::clone(&mounted);
                    // Unmounting may take its time, and a second SIGINT must not wait for it.
                    if let Err(error) = thread::Builder::new().name("end".into()).spawn(move || end(&mounted)) {
                        log::error!("cannot start a thread: {error}");
                        exit(1);
                    }
                }
            }
        }
    })?;
    // Whoever unmounts finds the daemon by that name. A thread gives itself its name first.
    _ = begun.recv() == Ok(());
    Ok(())
}

/// Unmounts, upon which the session ends, and with it the process.
fn end(mounted: &Mounted) {
    if let Err(failure) = mounted.unmount() {
        log::error!("{failure}");
    }
    sleep(PATIENCE);
    log::error!("{}: still in use, ended nevertheless", mounted.path().display());
    exit(1);
}
