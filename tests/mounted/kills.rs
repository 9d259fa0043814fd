//! Daemons that are killed in the middle of random operations, one at a time: whatever was answered is there, and of the
//! one that was not, the state before or after it. The same operations on a plain directory tell what these are.

mod programs;

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::process::{Pid, Signal, kill_process};

use crate::common::*;

#[derive(Debug, Clone)]
enum Operation {
    Chmod(PathBuf, u32),
    Append(PathBuf, u8),
    Create(PathBuf),
    Mkdir(PathBuf),
    Symlink(PathBuf),
    Link(PathBuf, PathBuf),
    Remove(PathBuf),
    RemoveDir(PathBuf),
    Rename(PathBuf, PathBuf),
    Exchange(PathBuf, PathBuf),
}

impl Operation {
    fn run(&self, root: &Path) -> io::Result<()> {
        let at = |path: &Path| root.join(path);
        match self {
            Self::Chmod(path, mode) => fs::set_permissions(at(path), fs::Permissions::from_mode(*mode)),
            Self::Append(path, byte) => fs::OpenOptions::new().append(true).open(at(path))?.write_all(&[*byte; 100]),
            Self::Create(path) => fs::OpenOptions::new().write(true).create_new(true).open(at(path)).map(drop),
            Self::Mkdir(path) => fs::create_dir(at(path)),
            Self::Symlink(path) => symlink("target", at(path)),
            Self::Link(from, to) => fs::hard_link(at(from), at(to)),
            Self::Remove(path) => fs::remove_file(at(path)),
            Self::RemoveDir(path) => fs::remove_dir(at(path)),
            Self::Rename(from, to) => fs::rename(at(from), at(to)),
            Self::Exchange(from, to) => Ok(renameat_with(CWD, at(from), CWD, at(to), RenameFlags::EXCHANGE)?),
        }
    }
}

/// Numbers that look random: xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % end
    }

    fn pick<'a>(&mut self, paths: &'a [PathBuf]) -> &'a PathBuf {
        &paths[self.below(paths.len())]
    }

    /// An operation on what there is; it may fail, on both.
    fn operation(&mut self, files: &[PathBuf], dirs: &[PathBuf], number: u32) -> Operation {
        let new = self.pick(dirs).join(format!("n{number}"));
        // The root stays.
        let some_dirs = dirs.get(1..).filter(|dirs| !dirs.is_empty());
        match (self.below(16), some_dirs) {
            (0, _) => Operation::Chmod(self.pick(files).clone(), 0o600 + self.below(0o200) as u32),
            (1, Some(dirs)) => Operation::Chmod(self.pick(dirs).clone(), 0o700 + self.below(0o100) as u32),
            (2 | 3, _) => Operation::Append(self.pick(files).clone(), b'a' + (number % 26) as u8),
            (4, _) => Operation::Create(new),
            (5, _) => Operation::Mkdir(new),
            (6, _) => Operation::Symlink(new),
            (7, _) => Operation::Link(self.pick(files).clone(), new),
            (8, _) if files.len() > 20 => Operation::Remove(self.pick(files).clone()),
            (9, Some(dirs)) => Operation::RemoveDir(self.pick(dirs).clone()),
            (10, _) => Operation::Rename(self.pick(files).clone(), new),
            (11, _) => Operation::Rename(self.pick(files).clone(), self.pick(files).clone()),
            (12, Some(dirs)) => Operation::Rename(self.pick(dirs).clone(), new),
            (13, Some(dirs)) => Operation::Rename(self.pick(dirs).clone(), self.pick(dirs).clone()),
            (14, Some(dirs)) => Operation::Exchange(self.pick(dirs).clone(), self.pick(dirs).clone()),
            _ => Operation::Exchange(self.pick(files).clone(), self.pick(files).clone()),
        }
    }
}

/// A line for each object, and the paths of files and of directories, the root first.
pub fn look(root: &Path) -> (Vec<String>, Vec<PathBuf>, Vec<PathBuf>) {
    let (mut lines, mut files, mut dirs) = (Vec::new(), Vec::new(), vec![PathBuf::new()]);
    let mut next = 0;
    while let Some(dir) = dirs.get(next).cloned() {
        next += 1;
        for entry in fs::read_dir(root.join(&dir)).unwrap() {
            let entry = entry.unwrap();
            let (path, meta) = (dir.join(entry.file_name()), fs::symlink_metadata(entry.path()).unwrap());
            let what = if meta.is_dir() {
                dirs.push(path.clone());
                "dir".to_owned()
            } else if meta.is_symlink() {
                fs::read_link(entry.path()).unwrap().display().to_string()
            } else {
                files.push(path.clone());
                let content = fs::read(entry.path()).unwrap();
                let sum = content.iter().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
                format!("{} links, {} bytes, sum {sum:x}", meta.nlink(), content.len())
            };
            lines.push(format!("{} {:o} {what}", path.display(), meta.permissions().mode()));
        }
    }
    lines.sort();
    files.sort();
    dirs.sort();
    (lines, files, dirs)
}

pub fn difference(one: &[String], other: &[String]) -> Vec<String> {
    let only = |sign: &str, these: &[String], those: &[String]| {
        these.iter().filter(|line| !those.contains(line)).map(|line| format!("{sign} {line}")).collect::<Vec<_>>()
    };
    [only("-", one, other), only("+", other, one)].concat()
}

fn setup() -> Setup {
    let layer = |l: &Layer, number: usize| {
        for file in 0..6 {
            l.file(format!("d{number}/f{file}"), format!("{number}{file}").repeat(1000));
            l.file(format!("both/sub/f{number}{file}"), "s");
        }
        l.file(format!("d{number}/big"), "b".repeat(4 << 20));
    };
    Setup::new()
        .lower(|l| {
            layer(l, 0);
            l.file("hard", "h").hard_link("both/hard2", "hard").dir("empty")
        })
        .lower(|l| {
            layer(l, 1);
            l
        })
}

/// Does random operations until the daemon is killed, which it is so many times.
fn kill_and_look(kills: u32, seed: u64) {
    let mut tree = mount!(setup());
    let model = tree.beside("model");
    let copied = std::process::Command::new("cp").arg("-a").arg(tree.path(".")).arg(&model).status().unwrap();
    assert!(copied.success());
    let mut random = Random(seed | 1);
    let mut number = 0;
    for kill in 0..kills {
        let pid = Pid::from_raw(tree.daemon().unwrap().cast_signed()).unwrap();
        let wait = Duration::from_micros(random.below(30_000) as u64);
        let killer = std::thread::spawn(move || {
            std::thread::sleep(wait);
            kill_process(pid, Signal::KILL).unwrap();
        });
        let (before, mut files, mut dirs) = look(&model);
        let mut before = before;
        loop {
            number += 1;
            let operation = random.operation(&files, &dirs, number);
            let result = operation.run(&tree.path(""));
            let failed = result.as_ref().err().and_then(io::Error::raw_os_error);
            let gone = matches!(failed, Some(libc::ENOTCONN | libc::ECONNABORTED));
            let wanted = operation.run(&model);
            let (after, new_files, new_dirs) = look(&model);
            if !gone {
                let errno = |result: &io::Result<()>| result.as_ref().err().and_then(io::Error::raw_os_error);
                assert_eq!(errno(&result), errno(&wanted), "{operation:?}, seed {seed}");
                (before, files, dirs) = (after, new_files, new_dirs);
                continue;
            }
            killer.join().unwrap();
            tree.recover();
            let (now, ..) = look(&tree.path(""));
            if now != after {
                let (to_before, to_after) = (difference(&before, &now), difference(&after, &now));
                assert!(
                    now == before,
                    "kill {kill} during {operation:?}, seed {seed}: {to_before:#?} since before, {to_after:#?} from after"
                );
                operation.run(&tree.path("")).map_err(|error| error.raw_os_error()).unwrap_or_else(|errno| {
                    assert_eq!(
                        errno,
                        wanted.err().and_then(|error| error.raw_os_error()),
                        "{operation:?}, seed {seed}"
                    );
                });
            }
            break;
        }
    }
    // The last daemon ends well, which leaves the work directory empty.
    tree.remount();
    assert_eq!(difference(&look(&model).0, &look(&tree.path("")).0), [""; 0], "seed {seed}");
}

/// How many kills, unless `PLYFS_KILLS` says otherwise, and what they are drawn from.
fn kills_and_seed(kills: u32) -> (u32, u64) {
    let kills = std::env::var("PLYFS_KILLS").map_or(kills, |kills| kills.parse().unwrap());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = std::env::var("PLYFS_KILL_SEED").map_or(now.as_nanos() as u64, |seed| seed.parse().unwrap());
    println!("seed {seed}");
    (kills, seed)
}

#[test]
fn a_daemon_that_is_killed_at_random_leaves_each_operation_done_or_not() {
    plyfs_only!("the kernel's overlayfs cannot be killed");
    let (kills, seed) = kills_and_seed(40);
    kill_and_look(kills, seed);
}
