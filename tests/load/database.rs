//! A SQLite database in a lower layer: several processes write it at once, some read it since before its copy-up, and
//! writers and daemon are killed in the middle of it. fuse-overlayfs was seen to lose pages there (its issue 475).

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::common::*;

const PROGRAM: &str = include_str!("database.py");
const MODES: [&str; 4] = ["delete", "truncate", "persist", "wal"];
const WRITERS: usize = 3;
const READERS: usize = 2;

/// How much there is, and for how long.
struct Extent {
    /// Journal modes of SQLite.
    modes: &'static [&'static str],
    /// Size of the database in MiB.
    mib: u32,
    /// How many times each writer commits before it is killed.
    commits: usize,
}

/// A process that works on the database, and what it has said.
struct Process {
    name: String,
    running: Running,
    said: PathBuf,
}

impl Process {
    /// The last number that it wrote down; what is not a whole line does not count.
    fn last(&self) -> Option<usize> {
        let said = fs::read_to_string(&self.said).unwrap();
        let (whole, _) = said.rsplit_once('\n')?;
        Some(whole.lines().next_back()?.parse().unwrap_or_else(|_| panic!("{}: {said}", self.name)))
    }

    /// Waits until it has come to `number`, as long as it comes on.
    fn wait_for(&mut self, number: usize) {
        (0..=number).for_each(|number| self.wait_for_step(number));
    }

    fn wait_for_step(&mut self, number: usize) {
        let name = self.name.clone();
        wait_until(&format!("{name} has come to {number}"), || {
            if let Some(status) = self.running.0.try_wait().unwrap() {
                panic!("{name} has ended, {status}: {}", self.errors());
            }
            self.last().is_some_and(|last| last >= number)
        });
    }

    /// What it complained of.
    fn errors(&self) -> String {
        fs::read_to_string(self.said.with_extension("errors")).unwrap()
    }

    /// Kills it, and says how far it has come.
    fn kill(mut self) -> (String, Option<usize>) {
        self.running.0.kill().unwrap();
        self.running.0.wait().unwrap();
        assert_eq!(self.errors(), "", "{}", self.name);
        (self.name.clone(), self.last())
    }
}

/// A database in the lower layer of a mounted overlay.
struct Bed {
    tree: Mounted,
    mode: &'static str,
}

impl Bed {
    fn new(mode: &'static str, options: &[&str], extent: &Extent) -> Self {
        let mut setup = Setup::new().lower(|l| {
            let size = extent.mib.to_string();
            run(python(&["make"]).arg(l.path("db")).args([mode, &size]));
            l
        });
        for option in options {
            setup = setup.option(option);
        }
        Self { tree: setup.mount(), mode }
    }

    fn start(&self, name: String, arguments: &[&str]) -> Process {
        let said = self.tree.beside(&name);
        let mut command = python(&arguments[..1]);
        command.arg(self.tree.path("db")).args(&arguments[1..]).stdin(Stdio::null());
        command.stdout(fs::File::create(&said).unwrap());
        command.stderr(fs::File::create(said.with_extension("errors")).unwrap());
        Process { name, running: Running(command.spawn().unwrap()), said }
    }

    fn writers(&self, round: usize) -> Vec<Process> {
        let names = (0..WRITERS).map(|number| format!("writer-{round}-{number}"));
        names.map(|name| self.start(name.clone(), &["write", self.mode, &name])).collect()
    }

    /// Readers that map the database, where what is mapped shows what is written later.
    fn readers(&self) -> Vec<Process> {
        let mapped = if self.tree.backend() == Backend::Plyfs { "1073741824" } else { "0" };
        (0..READERS).map(|number| self.start(format!("reader-{number}"), &["read", mapped])).collect()
    }

    /// All is there that was said to be: `commits` by the names of their writers.
    fn check(&self, commits: &[(String, Option<usize>)]) {
        let there = run(python(&["check"]).arg(self.tree.path("db")));
        println!("{}: {}", self.mode, there.trim().replace('\n', ", "));
        for (writer, said) in commits {
            let count = there.lines().find_map(|line| line.strip_prefix(&format!("{writer} "))?.parse().ok());
            assert!(count >= *said, "{writer} said {said:?}, there are {count:?} of {there}");
        }
    }
}

fn python(arguments: &[&str]) -> Command {
    let mut command = Command::new("python3");
    command.arg("-c").arg(PROGRAM).args(arguments);
    command
}

/// Whether Python has SQLite.
fn has_sqlite() -> bool {
    Command::new("python3").arg("-c").arg("import sqlite3").status().is_ok_and(|status| status.success())
}

fn work_on_a_database(mode: &'static str, options: &[&str], extent: &Extent) {
    println!("{mode}, {options:?}");
    let mut bed = Bed::new(mode, options, extent);
    let mut readers = bed.readers();
    for reader in &mut readers {
        reader.wait_for(0);
    }
    assert_eq!(errno(lstat(bed.tree.upper("db"))), rustix::io::Errno::NOENT, "reading copies nothing up");
    let mut writers = bed.writers(0);
    for writer in &mut writers {
        writer.wait_for(extent.commits);
    }
    // Who has read since before the copy-up sees what was committed since, and goes on.
    for reader in &mut readers {
        reader.wait_for(extent.commits * WRITERS);
    }
    let mut commits: Vec<_> = writers.into_iter().map(Process::kill).collect();
    bed.check(&commits);
    if bed.tree.backend() == Backend::Plyfs {
        let mut writers = bed.writers(1);
        for writer in &mut writers {
            writer.wait_for(extent.commits / 2 + 1);
        }
        bed.tree.kill_daemon();
        for mut process in writers.into_iter().chain(readers) {
            // What it does next fails in one way or another, or is tried again for long.
            process.running.0.kill().unwrap();
            process.running.0.wait().unwrap();
            assert!(!process.errors().contains("AssertionError"), "{}: {}", process.name, process.errors());
            if process.name.starts_with("writer") {
                commits.push((process.name.clone(), process.last()));
            }
        }
        bed.tree.recover();
    } else {
        readers.into_iter().for_each(|reader| drop(reader.kill()));
        bed.tree.remount();
    }
    bed.check(&commits);
}

fn work_on_databases(options: &[&str], extent: &Extent) {
    needs_root!();
    if !has_sqlite() {
        skip!("needs python3 with sqlite3");
    }
    for mode in extent.modes {
        work_on_a_database(mode, options, extent);
    }
}

const SMALL: Extent = Extent { modes: &MODES, mib: 16, commits: 4 };
const SMALLER: Extent = Extent { modes: &["delete", "wal"], ..SMALL };
const LARGE: Extent = Extent { modes: &MODES, mib: 300, commits: 100 };

#[test]
fn databases_are_intact_over_copy_up_and_kills() {
    work_on_databases(&[], &SMALL);
}

#[test]
fn databases_are_intact_over_copy_up_and_kills_without_passthrough() {
    work_on_databases(&["passthrough=0"], &SMALLER);
}

#[test]
fn databases_are_intact_over_copy_up_and_kills_with_gathered_writes() {
    work_on_databases(&["writeback=1"], &SMALLER);
}

#[test]
#[ignore = "takes many minutes: databases of 300 MiB"]
fn large_databases_are_intact_over_copy_up_and_kills() {
    work_on_databases(&[], &LARGE);
}

#[test]
#[ignore = "takes many minutes: databases of 300 MiB"]
fn large_databases_are_intact_over_copy_up_and_kills_without_passthrough() {
    work_on_databases(&["passthrough=0"], &LARGE);
}

#[test]
#[ignore = "takes many minutes: databases of 300 MiB"]
fn large_databases_are_intact_over_copy_up_and_kills_with_gathered_writes() {
    work_on_databases(&["writeback=1"], &LARGE);
}
