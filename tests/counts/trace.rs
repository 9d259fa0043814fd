//! Events of the kernel, from a trace of our own beside every other.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{panicking, sleep};
use std::time::Duration;

use rustix::mount::{MountFlags, mount};

const TRACEFS: &str = "/sys/kernel/tracing";
/// What comes later than the call that caused it, such as what pages are written back by, is there after so long a silence.
const SILENCE: Duration = Duration::from_millis(20);

/// A trace, which ends with it.
#[derive(Debug)]
pub struct Trace {
    dir: PathBuf,
    /// The process that has to be idle before all is counted.
    process: Option<u32>,
}

impl Trace {
    /// A trace of one kind of event, as `fuse/fuse_request_send`, where `filter` is true.
    ///
    /// # Errors
    /// Why this machine cannot trace.
    pub fn new(event: &str, filter: &str) -> Result<Self, String> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let instances = Path::new(TRACEFS).join("instances");
        if !instances.exists() {
            mount("tracefs", TRACEFS, "tracefs", MountFlags::empty(), None)
                .map_err(|error| format!("tracefs cannot be mounted on {TRACEFS}: {error}"))?;
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = instances.join(format!("plyfs-{}-{number}", std::process::id()));
        fs::create_dir(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        let trace = Self { dir, process: None };
        // One that is the same on all processors, for the order of events.
        fs::write(trace.dir.join("trace_clock"), "mono").unwrap();
        trace.also(event, filter)?;
        Ok(trace)
    }

    /// Traces another kind of event too, where `filter` is true.
    ///
    /// # Errors
    /// The kernel does not have it.
    pub fn also(&self, event: &str, filter: &str) -> Result<(), String> {
        let switches = self.dir.join("events").join(event);
        if !switches.exists() {
            return Err(format!("the kernel has no event {event}"));
        }
        fs::write(switches.join("filter"), filter).unwrap();
        fs::write(switches.join("enable"), "1").unwrap();
        Ok(())
    }

    /// Leaves out all threads but this one and those of a process, with those that it starts.
    pub fn only(&mut self, process: u32) {
        self.process = Some(process);
        fs::write(self.dir.join("options/event-fork"), "1").unwrap();
        let threads = fs::read_dir(format!("/proc/{process}/task")).unwrap();
        let mut threads: Vec<String> =
            threads.map(|thread| thread.unwrap().file_name().into_string().unwrap()).collect();
        threads.push(rustix::thread::gettid().as_raw_nonzero().to_string());
        fs::write(self.dir.join("set_event_pid"), threads.join(" ")).unwrap();
    }

    /// The events, as the kernel writes them, while `what` runs and until nothing comes any more.
    pub fn during(&self, what: impl FnOnce()) -> Vec<String> {
        self.settled();
        fs::write(self.dir.join("trace"), "").unwrap();
        what();
        let events = self.settled();
        for cpu in fs::read_dir(self.dir.join("per_cpu")).unwrap() {
            let stats = fs::read_to_string(cpu.unwrap().path().join("stats")).unwrap();
            assert!(stats.lines().any(|line| line == "overrun: 0"), "events were lost: {stats}");
        }
        events
    }

    fn settled(&self) -> Vec<String> {
        let mut before = self.events();
        loop {
            sleep(SILENCE);
            let events = self.events();
            if events.len() == before.len() && !self.process.is_some_and(is_running) {
                return events;
            }
            before = events;
        }
    }

    fn events(&self) -> Vec<String> {
        let text = fs::read_to_string(self.dir.join("trace")).unwrap();
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }
}

/// Whether a thread of a process runs, or waits for a processor.
fn is_running(process: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    // A thread that is gone does not run.
    let stats = threads.filter_map(|thread| fs::read_to_string(thread.unwrap().path().join("stat")).ok());
    // 123 (name) S …
    stats.into_iter().any(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('S')))
}

impl Drop for Trace {
    fn drop(&mut self) {
        // Removing it ends it.
        let removed = fs::remove_dir(&self.dir);
        if !panicking() {
            removed.unwrap();
        }
    }
}

/// How often each word came, in the order of their first time: `LOOKUP, 2 READ`; `-` for none.
pub fn counted<S: AsRef<str>>(words: impl IntoIterator<Item = S>) -> String {
    let mut counts: Vec<(String, usize)> = Vec::new();
    for word in words {
        match counts.iter_mut().find(|(known, _)| known == word.as_ref()) {
            Some((_, count)) => *count += 1,
            None => counts.push((word.as_ref().to_owned(), 1)),
        }
    }
    let parts: Vec<String> =
        counts.into_iter().map(|(word, count)| if count == 1 { word } else { format!("{count} {word}") }).collect();
    if parts.is_empty() { "-".to_owned() } else { parts.join(", ") }
}
