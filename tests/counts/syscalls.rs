//! The system calls by which the daemon answers a request.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxFlags};

use super::common::*;
use super::table;
use super::trace::counted;
use super::watch::Watch;

/// One request, and what is done before it so that it is the one asked. Each has a directory of its own in the upper and
/// in every lower, which it is given; what its name calls lower is in the lowest.
struct Request {
    opcode: &'static str,
    name: &'static str,
    prepare: Step,
    run: Step,
    /// Whether the kernel is to keep nothing, so that it asks again.
    again: bool,
}

type Step = fn(&Path);

/// Too long to be handed over with its open, in bytes.
const LONG: usize = 200 << 10;

const fn request(opcode: &'static str, name: &'static str, prepare: Step, run: Step) -> Request {
    Request { opcode, name, prepare, run, again: false }
}

const fn again(opcode: &'static str, name: &'static str, run: Step) -> Request {
    Request { opcode, name, prepare: run, run, again: true }
}

const REQUESTS: &[Request] = &[
    request("LOOKUP", "an upper file", nothing, |d| stat(d, "upper")),
    request("LOOKUP", "a lower file", nothing, |d| stat(d, "lower")),
    request("LOOKUP", "a merged directory", nothing, |d| stat(d, "merged")),
    request("LOOKUP", "a missing name", nothing, missing),
    again("LOOKUP", "an upper file, again", |d| stat(d, "upper")),
    again("LOOKUP", "a lower file, again", |d| stat(d, "lower")),
    again("LOOKUP", "a merged directory, again", |d| stat(d, "merged")),
    again("LOOKUP", "a missing name, again", missing),
    request("GETATTR", "an upper file", |d| stat(d, "upper"), |d| getattr(d, "upper")),
    request("GETATTR", "a lower file", |d| stat(d, "lower"), |d| getattr(d, "lower")),
    request("GETATTR", "a directory that changed", |d| create(d, "new"), |d| getattr(d, "")),
    request("OPEN", "a lower file, to read", |d| stat(d, "lower"), read),
    request("OPEN", "a lower file of 200 KiB, to read", |d| stat(d, "long"), read_long),
    request("READ", "a lower file of 200 KiB", |d| stat(d, "long"), read_long),
    request("RELEASE", "a lower file", |d| stat(d, "lower"), read),
    request("OPEN", "an upper file, to write", |d| stat(d, "upper"), append),
    request("GETXATTR", "before the first write", |d| stat(d, "upper"), append),
    request("CREATE", "in a directory of the upper", nothing, |d| create(d, "new")),
    request("CREATE", "in a lower directory", |d| stat(d, "below"), |d| create(d, "below/new")),
    request("RELEASE", "of what was created", nothing, |d| create(d, "new")),
    request("MKDIR", "in a directory of the upper", nothing, |d| fs::create_dir(d.join("new")).unwrap()),
    request("UNLINK", "an upper file", |d| stat(d, "upper"), |d| fs::remove_file(d.join("upper")).unwrap()),
    // The second, as the first makes the whiteout that the others are links of.
    request("UNLINK", "a lower file", whiteout, |d| fs::remove_file(d.join("lower")).unwrap()),
    request(
        "RENAME",
        "an upper file",
        |d| stat(d, "upper"),
        |d| {
            fs::rename(d.join("upper"), d.join("new")).unwrap();
        },
    ),
    request("SETATTR", "an upper file", |d| stat(d, "upper"), |d| chmod(d, "upper")),
    request("SETATTR", "a lower file of 7 bytes", |d| stat(d, "lower"), |d| chmod(d, "lower")),
    request("READDIRPLUS", "1,000 entries of one layer", |d| stat(d, "many"), |d| list(d, "many")),
    request("READDIRPLUS", "1,000 entries, 10 of the upper", |d| stat(d, "mixed"), |d| list(d, "mixed")),
];

fn nothing(_: &Path) {}

fn stat(d: &Path, name: &str) {
    lstat(d.join(name)).unwrap();
}

fn missing(d: &Path) {
    errno(lstat(d.join("missing")));
}

fn getattr(d: &Path, name: &str) {
    // Asks the daemon whatever the kernel has.
    let force = AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_FORCE_SYNC;
    rustix::fs::statx(CWD, d.join(name), force, StatxFlags::BASIC_STATS).unwrap();
}

fn read(d: &Path) {
    assert_eq!(fs::read(d.join("lower")).unwrap(), b"content");
}

fn read_long(d: &Path) {
    assert_eq!(fs::read(d.join("long")).unwrap().len(), LONG);
}

fn append(d: &Path) {
    use std::io::Write as _;
    fs::OpenOptions::new().append(true).open(d.join("upper")).unwrap().write_all(b"x").unwrap();
}

fn create(d: &Path, name: &str) {
    File::create_new(d.join(name)).unwrap();
}

fn whiteout(d: &Path) {
    // After some missing names, those of the lower directories are learned.
    for number in 0..4 {
        errno(lstat(d.join(format!("missing{number}"))));
    }
    fs::remove_file(d.join("second")).unwrap();
    stat(d, "lower");
}

fn chmod(d: &Path, name: &str) {
    fs::set_permissions(d.join(name), Permissions::from_mode(0o640)).unwrap();
}

fn list(d: &Path, name: &str) {
    assert_eq!(fs::read_dir(d.join(name)).unwrap().count(), 1000);
}

fn setup(lowers: usize) -> Setup {
    let all = |layer: &Layer, build: fn(&Layer, String)| {
        (0..REQUESTS.len()).for_each(|number| build(layer, format!("{number}/")));
    };
    let mut setup = Setup::new().option("awake=0").upper(|layer| {
        all(layer, |layer, d| {
            layer.file(d.clone() + "upper", "content").dir(d + "merged");
        });
        REQUESTS.iter().enumerate().filter(|(_, request)| request.opcode == "READDIRPLUS").for_each(|(number, _)| {
            layer.files(format!("{number}/mixed"), 10);
        });
        layer
    });
    for number in 0..lowers {
        let is_lowest = number == lowers - 1;
        setup = setup.lower(|layer| {
            all(layer, |layer, d| {
                layer.dir(d + "merged");
            });
            if !is_lowest {
                return layer;
            }
            all(layer, |layer, d| {
                layer.file(d.clone() + "long", vec![7; LONG]);
                layer.file(d.clone() + "lower", "content").file(d.clone() + "second", "content").dir(d + "below");
            });
            REQUESTS.iter().enumerate().filter(|(_, request)| request.opcode == "READDIRPLUS").for_each(
                |(number, _)| {
                    layer.files(format!("{number}/many"), 1000).files(format!("{number}/mixed"), 1000);
                },
            );
            layer
        });
    }
    setup
}

/// The system calls of each request; of those that are asked again if `again`.
fn count(setup: Setup, again: bool) -> Result<Vec<(usize, String)>, String> {
    let tree = setup.mount();
    let watch = Watch::new(&tree)?;
    let requests = REQUESTS.iter().enumerate().filter(|(_, request)| request.again == again);
    let counts = requests.map(|(number, request)| {
        let dir = tree.path(number.to_string());
        fs::metadata(&dir).unwrap();
        (request.prepare)(&dir);
        (number, counted(watch.calls(request.opcode, || (request.run)(&dir))))
    });
    Ok(counts.collect())
}

/// Why other calls are to be expected on this machine than those that were written down.
fn other_calls() -> Option<String> {
    const EXT4: i64 = 0xef53;
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    let version: (u32, u32) = (numbers.next()?, numbers.next()?);
    let setup = Setup::new();
    let kind = rustix::fs::statfs(setup.path("upper")).unwrap().f_type;
    if version < (6, 13) {
        return Some("Linux before 6.13 does not list attributes by directory and name".to_owned());
    }
    (kind != EXT4).then(|| "the temporary directory is not on ext4".to_owned())
}

#[test]
fn system_calls_per_request_are_as_documented() {
    needs_root!();
    if let Some(reason) = other_calls() {
        skip!(reason);
    }
    let mut columns = vec!["request", "of"];
    let mut rows: Vec<Vec<String>> =
        REQUESTS.iter().map(|request| vec![request.opcode.to_owned(), request.name.to_owned()]).collect();
    for (kind, lowers) in [("1 lower", 1), ("3 lowers", 3)] {
        columns.push(kind);
        for (setup, again) in [(setup(lowers), false), (setup(lowers).option("timeout=0"), true)] {
            match count(setup, again) {
                Ok(counts) => counts.into_iter().for_each(|(number, count)| rows[number].push(count)),
                Err(reason) => skip!(reason),
            }
        }
    }
    table::check("## System calls per request", &columns, &rows);
}
