//! Counts the FUSE requests that the kernel sends per operation: a figure that is exact on any machine.
//!
//! `cargo bench --bench requests` as root; `PLYFS_BENCH_PROGRAM` names another program that takes the same options,
//! for comparison.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

fn main() {
    let tracing = Path::new("/sys/kernel/tracing/instances");
    if !tracing.exists() || !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: counting requests takes root and tracefs on /sys/kernel/tracing");
        return;
    }
    let program = std::env::var("PLYFS_BENCH_PROGRAM").unwrap_or_else(|_| env!("CARGO_BIN_EXE_plyfs").into());
    let mount = Mount::new(&program);
    let trace = Trace::new(tracing, mount.connection());
    println!("{:36} requests", "operation");
    for (name, prepare, run) in OPERATIONS {
        // Twice, as the first may have moved what the second asks for: access times.
        prepare(&mount.path);
        prepare(&mount.path);
        sleep(Duration::from_millis(50)); // forgets and releases are sent later
        trace.clear();
        run(&mount.path);
        sleep(Duration::from_millis(50));
        let counts = trace.counts();
        let total: usize = counts.values().sum();
        let detail: Vec<String> = counts.iter().map(|(opcode, count)| format!("{opcode} {count}")).collect();
        println!("{name:36} {total:>3}  {}", detail.join(", "));
    }
}

type Step = fn(&Path);

/// What is counted: its name, what is done before, and the operation itself.
const OPERATIONS: &[(&str, Step, Step)] = &[
    ("stat again", stat, stat),
    ("missing name again", missing, missing),
    ("readlink again", readlink, readlink),
    ("walk 10 directories again", walk, walk),
    ("open, read, close again", read, read),
    ("create, write, close", nothing, |m| fs::write(m.join("new"), "x").unwrap()),
    ("overwrite with O_TRUNC", nothing, |m| fs::write(m.join("new"), "y").unwrap()),
    (
        "append to a lower file",
        |m| look(m, "append"),
        |m| {
            OpenOptions::new().append(true).open(m.join("append")).unwrap().write_all(b"x").unwrap();
        },
    ),
    ("200 writes of 4 KiB", nothing, |m| {
        let mut file = File::create(m.join("writes")).unwrap();
        (0..200).for_each(|_| file.write_all(&[7; 4096]).unwrap());
    }),
    ("mkdir", nothing, |m| fs::create_dir(m.join("dir")).unwrap()),
    ("rename", nothing, |m| fs::rename(m.join("new"), m.join("newer")).unwrap()),
    ("unlink", nothing, |m| fs::remove_file(m.join("newer")).unwrap()),
    (
        "chmod a lower file",
        |m| look(m, "chmod"),
        |m| {
            let mut mode = fs::metadata(m.join("chmod")).unwrap().permissions();
            mode.set_readonly(true);
            fs::set_permissions(m.join("chmod"), mode).unwrap();
        },
    ),
];

fn nothing(_: &Path) {}

fn look(m: &Path, name: &str) {
    fs::metadata(m.join(name)).unwrap();
}

fn stat(m: &Path) {
    fs::metadata(m.join("d0/file")).unwrap();
}

fn missing(m: &Path) {
    fs::metadata(m.join("d0/missing")).unwrap_err();
}

fn readlink(m: &Path) {
    fs::read_link(m.join("link")).unwrap();
}

fn read(m: &Path) {
    File::open(m.join("d0/file")).unwrap().read_to_end(&mut Vec::new()).unwrap();
}

fn walk(m: &Path) {
    for number in 0..10 {
        for entry in fs::read_dir(m.join(format!("d{number}"))).unwrap() {
            entry.unwrap().metadata().unwrap();
        }
    }
}

/// A mount of two lowers and an upper, which ends with it.
struct Mount {
    path: PathBuf,
    daemon: Child,
    _dir: tempfile::TempDir,
}

impl Mount {
    fn new(program: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["a", "b", "upper", "work", "mnt"] {
            fs::create_dir(path(name)).unwrap();
        }
        for number in 0..10 {
            for lower in ["a", "b"] {
                let sub = path(lower).join(format!("d{number}"));
                fs::create_dir(&sub).unwrap();
                fs::write(sub.join(if lower == "a" { "file" } else { "other" }), "content").unwrap();
            }
        }
        fs::write(path("a").join("append"), "content").unwrap();
        fs::write(path("a").join("chmod"), "content").unwrap();
        symlink("target", path("a").join("link")).unwrap();
        let options = format!(
            "lowerdir={}:{},upperdir={},workdir={}",
            path("a").display(),
            path("b").display(),
            path("upper").display(),
            path("work").display()
        );
        let mnt = path("mnt");
        let before = fs::metadata(&mnt).unwrap().dev();
        let mut command = Command::new(program);
        command.args(["-f", "-o", &options]).arg(&mnt).stdin(Stdio::null());
        let daemon = command.spawn().unwrap();
        let mut tries = 0;
        while fs::metadata(&mnt).unwrap().dev() == before {
            tries += 1;
            assert!(tries < 200, "{program} did not mount");
            sleep(Duration::from_millis(25));
        }
        Self { path: mnt, daemon, _dir: dir }
    }

    /// The number of the FUSE connection: the minor of the mount's device.
    fn connection(&self) -> u32 {
        rustix::fs::minor(fs::metadata(&self.path).unwrap().dev())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let unmounted = rustix::mount::unmount(&self.path, rustix::mount::UnmountFlags::DETACH);
        eprintln_if_err("unmount", unmounted);
        eprintln_if_err("wait", self.daemon.wait());
    }
}

/// A trace of one connection's requests, apart from every other trace.
struct Trace {
    dir: PathBuf,
}

impl Trace {
    fn new(instances: &Path, connection: u32) -> Self {
        let dir = instances.join(format!("plyfs-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let trace = Self { dir };
        let event = trace.dir.join("events/fuse/fuse_request_send");
        fs::write(event.join("filter"), format!("connection == {connection}")).unwrap();
        fs::write(event.join("enable"), "1").unwrap();
        trace
    }

    fn clear(&self) {
        fs::write(self.dir.join("trace"), "").unwrap();
    }

    /// How often each opcode was sent since the last `clear`.
    fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for line in fs::read_to_string(self.dir.join("trace")).unwrap().lines() {
            // … fuse_request_send: connection 57 req 12 opcode 1 (FUSE_LOOKUP) len 46
            let Some((_, rest)) = line.split_once(" (FUSE_") else { continue };
            let Some((opcode, _)) = rest.split_once(')') else { continue };
            *counts.entry(opcode.to_owned()).or_insert(0) += 1;
        }
        counts
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        eprintln_if_err("end the trace", fs::write(self.dir.join("events/fuse/fuse_request_send/enable"), "0"));
        eprintln_if_err("remove the trace", fs::remove_dir(&self.dir));
    }
}

fn eprintln_if_err<T, E: std::fmt::Display>(what: &str, result: Result<T, E>) {
    if let Err(error) = result {
        eprintln!("cannot {what}: {error}");
    }
}
