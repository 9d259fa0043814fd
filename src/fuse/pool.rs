//! Workers for what takes long, so that it does not keep quick requests waiting.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

type Job = Box<dyn FnOnce() + Send>;

/// As many as may be waiting for the same copy, or for a slow disk, without keeping others waiting.
const MOST: usize = 256;
/// How long a thread without work stays, unless it is one of the first.
const LINGER: Duration = Duration::from_secs(10);

/// Threads as they are needed, and a queue. The queue is as long as the kernel has requests under way.
pub(super) struct Pool {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    filled: Condvar,
    ended: Condvar,
    /// So many threads stay.
    least: usize,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
    threads: usize,
    idle: usize,
    /// Threads that were started, for their names.
    started: u64,
}

impl Pool {
    /// A pool that keeps `least` threads.
    ///
    /// # Errors
    /// Those of starting a thread.
    pub(super) fn new(least: usize) -> io::Result<Self> {
        let shared = Arc::new(Shared { least, ..Shared::default() });
        // If not even one can be started, nothing slow would ever be done.
        shared.start(&mut shared.queue.lock())?;
        Ok(Self { shared })
    }

    /// Runs `job` in another thread, at once unless there are too many already. It must not panic.
    pub(super) fn run(&self, job: impl FnOnce() + Send + 'static) {
        let mut queue = self.shared.queue.lock();
        queue.jobs.push_back(Box::new(job));
        if queue.idle < queue.jobs.len()
            && queue.threads < MOST
            && let Err(error) = self.shared.start(&mut queue)
        {
            log::warn!("{} threads have to do: {error}", queue.threads);
        }
        drop(queue);
        self.shared.filled.notify_one();
    }
}

impl Shared {
    fn start(self: &Arc<Self>, queue: &mut Queue) -> io::Result<()> {
        let shared = Arc::clone(self);
        let name = format!("worker-{}", queue.started);
        thread::Builder::new().name(name).spawn(move || shared.work())?;
        queue.started = queue.started.wrapping_add(1);
        queue.threads = queue.threads.saturating_add(1);
        Ok(())
    }

    fn work(&self) {
        let mut queue = self.queue.lock();
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                drop(queue);
                if catch_unwind(AssertUnwindSafe(job)).is_err() {
                    log::error!("a reply panicked");
                }
                queue = self.queue.lock();
                continue;
            }
            if queue.closed {
                break;
            }
            queue.idle = queue.idle.saturating_add(1);
            let timed_out = self.filled.wait_for(&mut queue, LINGER).timed_out();
            queue.idle = queue.idle.saturating_sub(1);
            if timed_out && queue.jobs.is_empty() && queue.threads > self.least {
                break;
            }
        }
        queue.threads = queue.threads.saturating_sub(1);
        self.ended.notify_all();
    }
}

impl Drop for Pool {
    /// Waits until everything in the queue is done.
    fn drop(&mut self) {
        let mut queue = self.shared.queue.lock();
        queue.closed = true;
        self.shared.filled.notify_all();
        while queue.threads > 0 {
            self.shared.ended.wait(&mut queue);
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("threads", &self.shared.queue.lock().threads).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn dropping_the_pool_waits_for_every_job() {
        let done = Arc::new(AtomicUsize::new(0));
        let pool = Pool::new(2).unwrap();
        for _ in 0..100 {
            let done = Arc::clone(&done);
            pool.run(move || {
                done.fetch_add(1, Ordering::Relaxed);
            });
        }
        drop(pool);
        assert_eq!(done.load(Ordering::Relaxed), 100);
    }

    #[test]
    fn jobs_that_wait_keep_no_other_waiting() {
        let pool = Pool::new(1).unwrap();
        let gate = Arc::new(parking_lot::Mutex::new(()));
        let held = gate.lock();
        for _ in 0..20 {
            let gate = Arc::clone(&gate);
            pool.run(move || drop(gate.lock()));
        }
        let (sender, done) = std::sync::mpsc::channel();
        pool.run(move || sender.send(()).unwrap());
        done.recv().unwrap();
        drop(held);
    }
}
