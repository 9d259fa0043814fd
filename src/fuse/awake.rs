//! Keeps processors from falling asleep while requests come fast.
//!
//! A caller waits for us, and we wait for the next caller: each time a processor becomes idle, and waking it takes several
//! times as long as the request itself, most of all in a virtual machine. Where we may, the kernel is told meanwhile that
//! every wait is to end at once (`latency.rs`); elsewhere threads that nobody has to wait for spin (`spin.rs`).

mod latency;
mod spin;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use self::latency::Latency;

/// So many requests within so long a time are fast.
const BURST: u64 = 16;
const BURST_TIME: Duration = Duration::from_millis(8);

/// Requests that have come so far, to any session of this process.
static REQUESTS: AtomicU64 = AtomicU64::new(0);
/// Who is told that they come fast.
static KEEPERS: Mutex<Option<Keepers>> = Mutex::new(None);

/// Notes a request.
pub(super) fn note() {
    let count = REQUESTS.fetch_add(1, Ordering::Relaxed);
    if count.is_multiple_of(BURST)
        && let Some(keepers) = &mut *KEEPERS.lock()
    {
        keepers.look();
    }
}

#[derive(Debug)]
struct Keepers {
    threads: Vec<thread::Thread>,
    /// When requests were looked at last.
    looked: Instant,
}

impl Keepers {
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
        match Latency::open() {
            Ok(latency) => awake.start(0, move |ended| latency.serve(ended))?,
            Err(error) => {
                log::debug!("{}: {error}", latency::DEVICE);
                for number in 0..spin::threads() {
                    awake.start(number, spin::serve)?;
                }
            }
        }
        let threads = awake.threads.iter().map(|thread| thread.thread().clone()).collect();
        *KEEPERS.lock() = Some(Keepers { threads, looked: Instant::now() });
        Ok(awake)
    }

    fn start(&mut self, number: usize, serve: impl FnOnce(&AtomicBool) + Send + 'static) -> io::Result<()> {
        let ended = Arc::clone(&self.ended);
        self.threads.push(thread::Builder::new().name(format!("awake-{number}")).spawn(move || serve(&ended))?);
        Ok(())
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        *KEEPERS.lock() = None;
        self.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            if thread.join().is_err() {
                log::error!("a thread that keeps processors awake panicked");
            }
        }
    }
}
