//! Two threads that run only where nothing else wants to (`SCHED_IDLE`) spin, one for the caller's side and one for ours.
//! They end soon after the last request, and stay away from a machine that is busy.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::sys::sched;

use super::REQUESTS;

/// How long after the last request they spin on.
const LINGER: Duration = Duration::from_micros(200);
/// Turns between two looks at the clock.
const TURNS: u32 = 200;
/// Who is kept from running for so long shares the processor with somebody who has work for it. Then it does not sleep
/// anyway, and spinning only disturbs.
const SLICE: Duration = Duration::from_micros(500);
/// How long they leave it alone then.
const PAUSE: Duration = Duration::from_millis(50);

/// How many threads are to spin.
pub(super) fn threads() -> usize {
    thread::available_parallelism().map_or(1, usize::from).min(2)
}

/// Spins each time that this thread is woken, until there are no requests any more.
pub(super) fn serve(ended: &AtomicBool) {
    if let Err(errno) = sched::become_idle() {
        // At any other priority it would be in the way.
        log::debug!("no idle scheduling: {errno}");
        return;
    }
    while !ended.load(Ordering::Relaxed) {
        thread::park();
        if !spin(ended) {
            thread::sleep(PAUSE);
        }
    }
}

/// Returns whether nobody else wanted the processor.
fn spin(ended: &AtomicBool) -> bool {
    let mut seen = REQUESTS.load(Ordering::Relaxed);
    let mut looked = Instant::now();
    let mut since = looked;
    while !ended.load(Ordering::Relaxed) {
        // Without a pause instruction, at which a hypervisor takes the processor away.
        for turn in 0..TURNS {
            black_box(turn);
        }
        let now = Instant::now();
        if now.duration_since(looked) > SLICE {
            return false;
        }
        looked = now;
        let requests = REQUESTS.load(Ordering::Relaxed);
        if requests != seen {
            (seen, since) = (requests, now);
        } else if now.duration_since(since) > LINGER {
            break;
        }
    }
    true
}
