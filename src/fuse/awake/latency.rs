//! The kernel's own means: a demand on how long a processor may take to wake, which keeps those that have nothing to do in
//! a loop instead of asleep (Documentation/power/pm_qos_interface.rst). Only root may make it.

use std::fs::File;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::REQUESTS;

/// Takes the demand: microseconds, as a number of 32 bits. It holds until it is written anew or the file is closed.
pub(super) const DEVICE: &str = "/dev/cpu_dma_latency";
/// The kernel's own default, which demands nothing.
const ANY: i32 = 2_000_000_000;
/// Between two looks at whether requests still come fast; with fewer than this in between the demand ends.
const LOOK: Duration = Duration::from_millis(2);
const FEW: u64 = 4;

/// The device, on which nothing is demanded.
#[derive(Debug)]
pub(super) struct Latency(File);

impl Latency {
    /// # Errors
    /// Those of open(2) and write(2).
    pub(super) fn open() -> io::Result<Self> {
        let latency = Self(File::options().write(true).open(DEVICE)?);
        latency.demand(ANY)?;
        Ok(latency)
    }

    fn demand(&self, microseconds: i32) -> io::Result<()> {
        (&self.0).write_all(&microseconds.to_ne_bytes())
    }

    /// Makes the demand each time that this thread is woken, and ends it when no more requests come.
    pub(super) fn serve(&self, ended: &AtomicBool) {
        while !ended.load(Ordering::Relaxed) {
            thread::park();
            if let Err(error) = self.hold(ended) {
                log::warn!("{DEVICE}: {error}");
                return;
            }
        }
    }

    fn hold(&self, ended: &AtomicBool) -> io::Result<()> {
        self.demand(0)?;
        let mut seen = REQUESTS.load(Ordering::Relaxed);
        while !ended.load(Ordering::Relaxed) {
            thread::sleep(LOOK);
            let requests = REQUESTS.load(Ordering::Relaxed);
            if requests.wrapping_sub(seen) < FEW {
                break;
            }
            seen = requests;
        }
        self.demand(ANY)
    }
}
