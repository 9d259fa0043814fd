//! The requests that the kernel sends per operation.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use super::common::*;
use super::table;
use super::trace::{Trace, counted};

/// What is counted. Every operation has a directory of its own, which both lowers hold, and which it is given.
struct Operation {
    name: &'static str,
    /// The least that the kernel allows with passthrough; see docs/PERFORMANCE.md where plyfs needs more.
    least: &'static str,
    prepare: Step,
    /// How often it is prepared.
    times: usize,
    run: Step,
    writes: bool,
}

type Step = fn(&Path);

/// Done twice before: what is read for the first time moves access times, for which the second may have to ask.
const fn again(name: &'static str, least: &'static str, run: Step) -> Operation {
    Operation { name, least, prepare: run, times: 2, run, writes: false }
}

const fn reads(name: &'static str, least: &'static str, prepare: Step, run: Step) -> Operation {
    Operation { name, least, prepare, times: 1, run, writes: false }
}

const fn writes(name: &'static str, least: &'static str, prepare: Step, run: Step) -> Operation {
    Operation { name, least, prepare, times: 1, run, writes: true }
}

const OPERATIONS: &[Operation] = &[
    again("stat again", "0", stat),
    again("stat of a missing name again", "0", missing),
    again("readlink again", "0", readlink),
    again("walk 10 directories again", "0", walk),
    again("what git status does: 40 stats, 10 listings", "0", git_status),
    again("open, read, close again", "2; 0 read-only", read),
    again("map a file for reading again", "2; 0 read-only", map),
    again("run a program again", "3; 1 read-only", execute),
    reads("walk 10 directories, first", "30", nothing, walk),
    reads("walk 10 directories, second", "10", walk, walk),
    reads("stat, first", "1", nothing, stat),
    reads("open, read, close, first", "3", nothing, read),
    reads("open, read, close, second", "2", read, read),
    reads("an extended attribute", "1", stat, |d| {
        assert_eq!(xattr(&d.join("file"), "user.none"), Err(rustix::io::Errno::NODATA));
    }),
    writes("create, write, close", "3", nothing, |d| write(d, "new")),
    writes("create, write, close, twice in a directory", "6", nothing, |d| {
        write(d, "new");
        write(d, "newer");
    }),
    writes("overwrite with O_TRUNC", "2", |d| write(d, "new"), |d| write(d, "new")),
    writes("overwrite a lower file with O_TRUNC", "2", stat, |d| write(d, "file")),
    writes("append to a lower file", "2", stat, |d| append(d, "file")),
    writes("append again", "2", |d| append(d, "file"), |d| append(d, "file")),
    writes("200 writes of 4 KiB to a new file", "3", nothing, |d| {
        let mut file = File::create(d.join("new")).unwrap();
        (0..200).for_each(|_| file.write_all(&[7; 4096]).unwrap());
    }),
    writes(
        "read 16 KiB of the upper",
        "2",
        |d| fs::write(d.join("new"), vec![7; 1 << 14]).unwrap(),
        |d| {
            assert_eq!(fs::read(d.join("new")).unwrap().len(), 1 << 14);
        },
    ),
    writes(
        "write to a mapped file",
        "2",
        |d| fs::write(d.join("new"), [7; 4096]).unwrap(),
        |d| {
            let file = OpenOptions::new().read(true).write(true).open(d.join("new")).unwrap();
            Mapping::new(&file, 4096, true).write(0, b"x");
        },
    ),
    writes("open, truncate, close", "3", |d| write(d, "new"), truncate),
    writes("mkdir", "2", nothing, |d| fs::create_dir(d.join("new")).unwrap()),
    writes("symlink", "2", nothing, |d| symlink("file", d.join("new")).unwrap()),
    writes("link", "2", |d| write(d, "new"), |d| fs::hard_link(d.join("new"), d.join("other")).unwrap()),
    writes("rename", "2", |d| write(d, "new"), |d| fs::rename(d.join("new"), d.join("other")).unwrap()),
    writes("rename a lower file", "2", stat, |d| fs::rename(d.join("file"), d.join("other")).unwrap()),
    writes(
        "replace a file by rename",
        "2",
        |d| write(d, "new"),
        |d| {
            fs::rename(d.join("new"), d.join("file")).unwrap();
        },
    ),
    writes("unlink", "1", |d| write(d, "new"), |d| fs::remove_file(d.join("new")).unwrap()),
    writes("unlink a lower file", "1", stat, |d| fs::remove_file(d.join("file")).unwrap()),
    writes("rmdir", "1", mkdir, |d| fs::remove_dir(d.join("new")).unwrap()),
    writes("chmod", "1", |d| write(d, "new"), |d| chmod(d, "new")),
    writes("chmod a lower file", "1", stat, |d| chmod(d, "file")),
    writes(
        "fsync",
        "3",
        |d| write(d, "new"),
        |d| {
            OpenOptions::new().write(true).open(d.join("new")).unwrap().sync_all().unwrap();
        },
    ),
];

fn nothing(_: &Path) {}

fn stat(d: &Path) {
    fs::metadata(d.join("file")).unwrap();
}

fn missing(d: &Path) {
    assert_eq!(errno(lstat(d.join("missing"))), rustix::io::Errno::NOENT);
}

fn readlink(d: &Path) {
    fs::read_link(d.join("link")).unwrap();
}

fn walk(d: &Path) {
    for number in 0..10 {
        let entries = fs::read_dir(d.join(format!("d{number}"))).unwrap();
        let seen: Vec<_> = entries.map(|entry| entry.unwrap().metadata().unwrap()).collect();
        assert_eq!(seen.len(), 4);
    }
}

fn git_status(d: &Path) {
    for number in 0..10 {
        for name in ["file", "other", "f0", "f1"] {
            lstat(d.join(format!("d{number}/{name}"))).unwrap();
        }
    }
    walk(d);
}

fn read(d: &Path) {
    File::open(d.join("file")).unwrap().read_to_end(&mut Vec::new()).unwrap();
}

fn map(d: &Path) {
    assert_eq!(Mapping::new(File::open(d.join("file")).unwrap(), 4, false).read(), b"cont");
}

fn execute(d: &Path) {
    run(&mut Command::new(d.join("program")));
}

fn write(d: &Path, name: &str) {
    fs::write(d.join(name), "content").unwrap();
}

fn append(d: &Path, name: &str) {
    OpenOptions::new().append(true).open(d.join(name)).unwrap().write_all(b"x").unwrap();
}

fn truncate(d: &Path) {
    OpenOptions::new().write(true).open(d.join("new")).unwrap().set_len(3).unwrap();
}

fn mkdir(d: &Path) {
    fs::create_dir(d.join("new")).unwrap();
}

fn chmod(d: &Path, name: &str) {
    fs::set_permissions(d.join(name), Permissions::from_mode(0o640)).unwrap();
}

/// Two lowers with a merged directory for each operation.
fn setup() -> Setup {
    let program = ["/bin/true", "/usr/bin/true"].into_iter().find_map(|path| fs::read(path).ok()).expect("true");
    Setup::new()
        .option("awake=0")
        .lower(|layer| {
            (0..OPERATIONS.len()).fold(layer, |layer, number| {
                let dir = |name: &str| format!("{number}/{name}");
                layer.file(dir("file"), "content").symlink(dir("link"), "file");
                layer.file(dir("program"), &program).mode(dir("program"), 0o755);
                (0..10)
                    .fold(layer, |layer, d| layer.file(dir(&format!("d{d}/file")), "").files(dir(&format!("d{d}")), 2))
            })
        })
        .lower(|layer| {
            (0..OPERATIONS.len()).fold(layer, |layer, number| {
                (0..10).fold(layer, |layer, d| layer.file(format!("{number}/d{d}/other"), ""))
            })
        })
}

/// What each operation asks of the daemon; `writes` too where that can be.
fn count(setup: Setup, writable: bool) -> Result<Vec<String>, String> {
    let tree = setup.mount();
    let connection = rustix::fs::minor(fs::metadata(tree.path("")).unwrap().dev());
    let trace = Trace::new("fuse/fuse_request_send", &format!("connection == {connection}"))?;
    let counts = OPERATIONS.iter().enumerate().map(|(number, operation)| {
        if operation.writes && !writable {
            return String::new();
        }
        let dir = tree.path(number.to_string());
        (0..operation.times).for_each(|_| (operation.prepare)(&dir));
        // What changed the directory has the kernel ask for its attributes once; that is counted by an operation of its own.
        fs::metadata(&dir).unwrap();
        let events = trace.during(|| (operation.run)(&dir));
        counted(events.iter().map(|event| opcode(event)))
    });
    Ok(counts.collect())
}

/// `… fuse_request_send: connection 57 req 12 opcode 1 (FUSE_LOOKUP) len 46`
fn opcode(event: &str) -> &str {
    let rest = event.split_once(" (FUSE_").map(|(_, rest)| rest);
    rest.and_then(|rest| rest.split_once(')')).unwrap_or_else(|| panic!("not a request: {event}")).0
}

#[test]
fn requests_per_operation_are_as_documented() {
    needs_root!();
    let kinds = [
        ("with passthrough", count(setup(), true)),
        ("without", count(setup().option("passthrough=0"), true)),
        ("read-only", count(setup().read_only(), false)),
    ];
    let mut columns = vec!["operation", "least"];
    let mut rows: Vec<Vec<String>> =
        OPERATIONS.iter().map(|operation| vec![operation.name.to_owned(), operation.least.to_owned()]).collect();
    for (kind, counts) in kinds {
        let counts = match counts {
            Ok(counts) => counts,
            Err(reason) => skip!(reason),
        };
        columns.push(kind);
        rows.iter_mut().zip(counts).for_each(|(row, count)| row.push(count));
    }
    table::check("## Requests per operation", &columns, &rows);
}
