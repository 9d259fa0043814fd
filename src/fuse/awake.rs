//! Keeps processors from falling asleep while requests come fast.
//!
//! A caller waits for us, and we wait for the next caller: each time a processor becomes idle, and waking it takes several
//! times as long as the request itself, most of all in a virtual machine. Two threads that run only where nothing else
//! wants to (`SCHED_IDLE`) spin meanwhile, one for either side. They end soon after the last request, and stay away
//! from a machine that is busy.

use std::hint::black_box;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::sys::sched;

/// The caller's side, and ours.
const SPINNERS: usize = 2;
/// So many requests within so long a time are fast.
const BURST: u64 = 16;
const BURST_TIME: Duration = Duration::from_millis(2);
/// How long after the last request they spin on.
const LINGER: Duration = Duration::from_micros(200);
/// Turns between two looks at the clock.
const TURNS: u32 = 200;
/// Who is kept from running for so long shares the processor with somebody who has work for it. Then it does not sleep
/// anyway, and spinning only disturbs.
const SLICE: Duration = Duration::from_micros(500);
/// How long they leave it alone then.
const PAUSE: Duration = Duration::from_millis(50);

/// Requests that have come so far, to any session of this process.
static REQUESTS: AtomicU64 = AtomicU64::new(0);
/// The threads that spin.
static SPINNING: Mutex<Option<Spinners>> = Mutex::new(None);

/// Notes a request.
pub(super) fn note() {
    let count = REQUESTS.fetch_add(1, Ordering::Relaxed);
    if count.is_multiple_of(BURST)
        && let Some(spinners) = &mut *SPINNING.lock()
    {
        spinners.look();
    }
}

#[derive(Debug)]
struct Spinners {
    threads: Vec<thread::Thread>,
    /// When requests were looked at last.
    looked: Instant,
}

impl Spinners {
    fn look(&mut self) {
        let now = Instant::now();
        if now.duration_since(self.looked) < BURST_TIME {
            self.threads.iter().for_each(thread::Thread::unpark);
        }
        self.looked = now;
    }
}

/// Keeps processors awake as long as it lives.
#[derive(Debug, Default)]
pub(super) struct Awake {
    threads: Vec<JoinHandle<()>>,
    ended: Arc<AtomicBool>,
}

impl Awake {
    /// Starts the threads.
    ///
    /// # Errors
    /// Those of starting threads.
    pub(super) fn new() -> io::Result<Self> {
        let mut awake = Self::default();
        let processors = thread::available_parallelism().map_or(1, usize::from);
        for number in 0..SPINNERS.min(processors) {
            let ended = Arc::clone(&awake.ended);
            let serve = move || match sched::become_idle() {
                Ok(()) => serve(&ended),
                // At any other priority they would be in the way.
                Err(errno) => log::debug!("no idle scheduling: {errno}"),
            };
            awake.threads.push(thread::Builder::new().name(format!("awake-{number}")).spawn(serve)?);
        }
        let threads = awake.threads.iter().map(|thread| thread.thread().clone()).collect();
        *SPINNING.lock() = Some(Spinners { threads, looked: Instant::now() });
        Ok(awake)
    }
}

fn serve(ended: &AtomicBool) {
    while !ended.load(Ordering::Relaxed) {
        thread::park();
        if !spin(ended) {
            thread::sleep(PAUSE);
        }
    }
}

/// Spins until there are no requests any more; returns whether nobody else wanted the processor.
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

impl Drop for Awake {
    fn drop(&mut self) {
        *SPINNING.lock() = None;
        self.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            if thread.join().is_err() {
                log::error!("a thread that keeps a processor awake panicked");
            }
        }
    }
}
