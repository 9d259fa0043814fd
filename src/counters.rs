//! What a mount has done, in numbers: counted where it happens, without a lock.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use histogram::AtomicHistogram;

/// Times are told apart to a sixteenth of their length.
const GROUPING: u8 = 4;
/// The longest time that is told, as a power of two of nanoseconds: 18 minutes.
const LONGEST: u8 = 40;

macro_rules! operations {
    ($($variant:ident $name:literal),* $(,)?) => {
        /// What the kernel may ask for, called as the protocol calls it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(missing_docs)]
        pub enum Op { $($variant),* }

        impl Op {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Its name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }
        }
    };
}

operations!(
    Lookup "lookup", Forget "forget", Getattr "getattr", Setattr "setattr", Readlink "readlink", Mknod "mknod",
    Mkdir "mkdir", Symlink "symlink", Unlink "unlink", Rmdir "rmdir", Rename "rename", Link "link", Open "open",
    Create "create", Read "read", Write "write", Flush "flush", Release "release", Fsync "fsync", Opendir "opendir",
    Readdir "readdir", Readdirplus "readdirplus", Fsyncdir "fsyncdir", Statfs "statfs", Setxattr "setxattr",
    Getxattr "getxattr", Listxattr "listxattr", Removexattr "removexattr", Ioctl "ioctl", Fallocate "fallocate",
    Lseek "lseek", CopyFileRange "copy_file_range", Access "access", Poll "poll",
);

/// The numbers of one mount.
#[derive(Debug)]
pub struct Counters {
    operations: Vec<Operation>,
    is_off: AtomicBool,
    /// Copies made in the upper.
    pub copy_ups: Count,
    /// How many bytes of data they took along, holes among them.
    pub copied: Count,
    /// Those that left the data where it was.
    pub metadata_only: Count,
    /// Those that share the data of their source.
    pub reflinked: Count,
}

/// How often one thing has happened.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// It has happened so many times more.
    pub fn add(&self, times: u64) {
        self.0.fetch_add(times, Ordering::Relaxed);
    }

    /// How often it has.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The numbers of one operation.
#[derive(Default)]
struct Operation {
    requests: Count,
    errors: Count,
    nanoseconds: Count,
    /// Made with the first request.
    times: OnceLock<Option<AtomicHistogram>>,
}

impl fmt::Debug for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operation").field("requests", &self.requests).finish_non_exhaustive()
    }
}

/// What is known of one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Which it is.
    pub op: Op,
    /// Requests so far.
    pub requests: u64,
    /// Those that were answered by an error.
    pub errors: u64,
    /// How long all took together, in nanoseconds.
    pub total: u64,
    /// How long half of them, 90 and 99 percent, and the longest took at most, in nanoseconds.
    pub times: [u64; QUANTILES.len()],
}

/// What [`Summary::times`] tells.
pub const QUANTILES: [f64; 4] = [0.5, 0.9, 0.99, 1.0];

impl Default for Counters {
    fn default() -> Self {
        Self {
            operations: Op::ALL.iter().map(|_| Operation::default()).collect(),
            is_off: AtomicBool::new(false),
            copy_ups: Count::default(),
            copied: Count::default(),
            metadata_only: Count::default(),
            reflinked: Count::default(),
        }
    }
}

impl Counters {
    /// Has no request be counted or timed.
    pub fn turn_off(&self) {
        self.is_off.store(true, Ordering::Relaxed);
    }

    /// When a request begins, if that is to be known.
    pub fn begin(&self) -> Option<Instant> {
        (!self.is_off.load(Ordering::Relaxed)).then(Instant::now)
    }

    /// Notes a request that began at `begun` and was answered; returns how long it took.
    pub fn end(&self, op: Op, begun: Option<Instant>, failed: bool) -> Duration {
        let (Some(begun), Some(operation)) = (begun, self.operations.get(op as usize)) else { return Duration::ZERO };
        let took = begun.elapsed();
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        operation.requests.add(1);
        operation.nanoseconds.add(nanoseconds);
        if failed {
            operation.errors.add(1);
        }
        // The parameters are within what it allows.
        let times = operation.times.get_or_init(|| AtomicHistogram::new(GROUPING, LONGEST).ok());
        if let Some(times) = times
            && let Err(error) = times.increment(nanoseconds.min((1 << LONGEST) - 1))
        {
            log::debug!("{} took {took:?}: {error}", op.name());
        }
        took
    }

    /// Requests so far.
    pub fn requests(&self) -> u64 {
        self.operations.iter().map(|operation| operation.requests.get()).fold(0, u64::wrapping_add)
    }

    /// What is known of each operation that was asked for.
    pub fn summaries(&self) -> Vec<Summary> {
        let summary = |(op, operation): (&Op, &Operation)| {
            let requests = operation.requests.get();
            (requests > 0).then(|| Summary {
                op: *op,
                requests,
                errors: operation.errors.get(),
                total: operation.nanoseconds.get(),
                times: operation.quantiles(),
            })
        };
        Op::ALL.iter().zip(&self.operations).filter_map(summary).collect()
    }
}

impl Operation {
    fn quantiles(&self) -> [u64; QUANTILES.len()] {
        let mut found = [const { None }; QUANTILES.len()];
        if let Some(Some(times)) = self.times.get()
            && let Err(error) = times.load().quantile_buckets_into(&QUANTILES, &mut found)
        {
            log::debug!("no quantiles: {error}");
        }
        found.map(|bucket| bucket.map_or(0, |bucket| bucket.end()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_counted_with_their_errors_and_times() {
        let counters = Counters::default();
        let start = Instant::now();
        for (age, failed) in [(1, false), (2, false), (3, true), (1000, false)] {
            let begun = start.checked_sub(Duration::from_millis(age));
            counters.end(Op::Lookup, begun, failed);
        }
        counters.end(Op::Read, counters.begin(), false);
        let summaries = counters.summaries();
        assert_eq!(summaries.len(), 2);
        let lookup = summaries[0];
        assert_eq!((lookup.op, lookup.requests, lookup.errors, counters.requests()), (Op::Lookup, 4, 1, 5));
        assert!(lookup.total >= 1_006_000_000);
        assert!(lookup.times[0] >= 2_000_000 && lookup.times[3] >= 1_000_000_000, "{lookup:?}");
        assert!(lookup.times.is_sorted());
    }

    #[test]
    fn what_takes_longer_than_is_told_counts_all_the_same() {
        let counters = Counters::default();
        if let Some(long_ago) = Instant::now().checked_sub(Duration::from_secs(1500)) {
            counters.end(Op::Fsync, Some(long_ago), false);
            assert_eq!(counters.summaries()[0].times[0], (1 << LONGEST) - 1);
        }
    }

    #[test]
    fn turned_off_nothing_is_counted() {
        let counters = Counters::default();
        counters.turn_off();
        assert_eq!(counters.end(Op::Open, counters.begin(), true), Duration::ZERO);
        assert_eq!(counters.requests(), 0);
    }
}
