//! Which system calls the daemon makes for which request.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use syscalls::Sysno;

use super::common::*;
use super::trace::Trace;

/// Calls whose number differs from run to run: the allocator's, those that hand work to another thread, and those that a
/// thread makes for its first request, or for one of another user.
const UNCOUNTED: [&str; 11] =
    ["brk", "mmap", "munmap", "mremap", "mprotect", "madvise", "futex", "getrandom", "unshare", "setfsuid", "setfsgid"];

/// A trace of the requests of a mount and of its daemon's system calls.
#[derive(Debug)]
pub struct Watch {
    trace: Trace,
    /// The descriptor of the daemon by which it talks with the kernel, in hexadecimal.
    device: String,
}

impl Watch {
    /// Watches what this thread has the daemon do.
    ///
    /// # Errors
    /// Why this machine cannot trace.
    pub fn new(tree: &Mounted) -> Result<Self, String> {
        let daemon = tree.daemon().unwrap();
        let connection = rustix::fs::minor(fs::metadata(tree.path("")).unwrap().dev());
        let mut trace = Trace::new("fuse/fuse_request_send", &format!("connection == {connection}"))?;
        trace.only(daemon);
        trace
            .also("raw_syscalls/sys_enter", &format!("common_pid != {}", rustix::thread::gettid().as_raw_nonzero()))?;
        let mut fds = fs::read_dir(format!("/proc/{daemon}/fd")).unwrap().map(|fd| fd.unwrap());
        let device = fds.find(|fd| fs::read_link(fd.path()).is_ok_and(|path| path == Path::new("/dev/fuse")));
        let device = device.unwrap().file_name().into_string().unwrap().parse::<u32>().unwrap();
        Ok(Self { trace, device: format!("{device:x}") })
    }

    /// The names of the calls that the daemon makes between a request of that kind and the next one, while `run` runs.
    pub fn calls(&self, opcode: &str, run: impl FnOnce()) -> Vec<String> {
        let mut is_wanted = false;
        let mut was_asked = false;
        let mut calls = Vec::new();
        let events = self.trace.during(run);
        for event in &events {
            if let Some((_, rest)) = event.split_once(" (FUSE_") {
                is_wanted = rest.starts_with(&format!("{opcode})"));
                was_asked |= is_wanted;
            } else if let Some((_, call)) = event.split_once(" sys_enter: NR ").filter(|_| is_wanted) {
                // NR 332 (3, 7ffc…, …)
                let (number, arguments) = call.split_once(" (").unwrap();
                let name = Sysno::from(number.parse::<i32>().unwrap()).name();
                let is_talk = ["read", "writev"].contains(&name) && arguments.split_once(',').unwrap().0 == self.device;
                if !is_talk && !UNCOUNTED.contains(&name) {
                    calls.push(name.to_owned());
                }
            }
        }
        assert!(was_asked, "the kernel did not ask for {opcode}: {events:#?}");
        calls
    }
}
