//! Small layers of whatever a filesystem can hold, an overlay over them, and a few operations on it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use plyfs::attr::Kind;
use plyfs::config::Config;
use plyfs::inode::numbers::ROOT;
use plyfs::ops::SetAttr;
use plyfs::overlay::{Caller, Overlay};
use rustix::fs::{CWD, FileType, Mode, OFlags, RenameFlags, XattrFlags, lsetxattr, mknodat};
use tempfile::TempDir;

/// Where things may lie in a layer; in the index too, of which the last two are entries.
const PATHS: [&str; 16] = [
    "a",
    "b",
    "c",
    "a/a",
    "a/b",
    "a/c",
    "b/a",
    "b/b",
    "a/b/a",
    "a/b/b",
    ".wh.a",
    "a/.wh.b",
    ".wh..wh..opq",
    "a/.wh..wh..opq",
    "00fb",
    "00fb15000100000000000000000000000000000000",
];
const TARGETS: [&str; 6] = ["a", "/", "..", "../outside", "../../outside/secret", "b/a"];
const MARKS: [&str; 12] = [
    "user.overlay.opaque",
    "user.overlay.whiteout",
    "user.overlay.redirect",
    "user.overlay.metacopy",
    "user.overlay.origin",
    "user.overlay.impure",
    "user.overlay.nlink",
    "user.overlay.protattr",
    "user.overlay.overlay.opaque",
    "user.fuseoverlayfs.opaque",
    "user.fuseoverlayfs.whiteout",
    "user.other",
];
const VALUES: [&[u8]; 20] = [
    b"",
    b"y",
    b"x",
    b"a",
    b"b",
    b"/a",
    b"/b",
    b"/a/b",
    b"/b/a",
    b"..",
    b"/../a",
    b"a/b",
    b"/",
    b"/a/",
    b"U+1",
    b"L-1",
    b"U-4",
    b"\0\xfb\x15\0\x01",
    b"\0\x04\0\0",
    b"i",
];
const SECRET: &str = "this lies outside of every layer";

/// What is left of the input; zeros where nothing is.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::from(self.byte()) % of.len()]
    }

    /// One of the values, or up to 63 bytes of the input.
    fn value(&mut self) -> &'a [u8] {
        let which = self.byte();
        if which < 192 {
            return VALUES[usize::from(which) % VALUES.len()];
        }
        let (value, rest) = self.0.split_at(usize::from(which - 192).min(self.0.len()));
        self.0 = rest;
        value
    }
}

/// The overlay shows nothing from outside, changes no lower layer, leaves nothing half done, and a new mount shows the
/// same.
pub fn check(data: &[u8]) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for name in ["lower0", "lower1", "upper", "work", "work/index", "outside"] {
        fs::create_dir(dir.path().join(name)).expect("a directory");
    }
    fs::write(dir.path().join("outside/secret"), SECRET).expect("a file");
    let mut input = Input(data);
    for _ in 0..input.byte() % 32 {
        put(&dir, &mut input);
    }
    let options = input.byte();
    let config = Config {
        lowers: vec![dir.path().join("lower0"), dir.path().join("lower1")],
        upper: Some(dir.path().join("upper")),
        work: Some(dir.path().join("work")),
        userxattr: Some(true),
        metacopy: options & 1 != 0,
        fsync: false,
        ..Config::default()
    };
    let outside = || ["lower0", "lower1", "outside"].map(|name| below(&dir.path().join(name)));
    let before = outside();
    let Ok(overlay) = Overlay::open(&config) else { return };
    tree(&overlay);
    while !input.0.is_empty() {
        operate(&overlay, &mut input);
    }
    let shown = tree(&overlay);
    overlay.close();
    drop(overlay);
    assert_eq!(outside(), before, "nothing but the upper is changed");
    assert_eq!(below(&dir.path().join("work/work")), Vec::<String>::new(), "the work directory is empty");
    assert!(!shown.iter().any(|line| line.contains(SECRET)), "{shown:#?} shows what is outside");
    let overlay = Overlay::open(&config).expect("what was mounted is mounted again");
    assert_eq!(tree(&overlay), shown, "a new mount shows the same");
    overlay.close();
}

/// Puts something into a layer or into the index, if its parent is there.
fn put(dir: &TempDir, input: &mut Input<'_>) {
    let root = dir.path().join(input.one_of(&["lower0", "lower1", "upper", "work/index"]));
    let what = input.byte();
    let path = root.join(input.one_of(&PATHS));
    // Not through a symlink, which leads outside.
    let parent = path.parent().expect("a parent");
    if parent != root && !fs::symlink_metadata(parent).is_ok_and(|meta| meta.is_dir()) {
        return;
    }
    // What is there already stays, and what the filesystem refuses is not there.
    let mknod = |kind| may_fail(mknodat(CWD, &path, kind, Mode::from_raw_mode(0o644), 0));
    match what % 10 {
        0 | 1 => may_fail(fs::create_dir(&path)),
        2 => may_fail(fs::OpenOptions::new().create_new(true).write(true).open(&path)),
        3 if fs::symlink_metadata(&path).is_err() => fs::write(&path, input.value()).expect("a file is written"),
        4 => may_fail(symlink(input.one_of(&TARGETS), &path)),
        5 => mknod(FileType::Fifo),
        6 => mknod(FileType::CharacterDevice),
        7 => may_fail(fs::hard_link(root.join(input.one_of(&PATHS)), &path)),
        _ => may_fail(lsetxattr(&path, input.one_of(&MARKS), input.value(), XattrFlags::empty())),
    }
}

fn may_fail<T, E>(_: Result<T, E>) {}

fn operate(overlay: &Arc<Overlay>, input: &mut Input<'_>) {
    let what = input.byte();
    let (path, other) = (input.one_of(&PATHS), input.one_of(&PATHS));
    let (Some((dir, name)), Some((other_dir, other_name))) = (place(overlay, path), place(overlay, other)) else {
        return;
    };
    let node = || overlay.lookup(dir, name).ok().flatten().map(|attr| attr.ino);
    // Which of them fail, and how, is for the tests that know what to expect.
    match (what % 10, node()) {
        (0, _) => may_fail(overlay.mkdir(dir, name, 0o755, 0, us())),
        (1, _) => {
            if let Ok((_, opened)) = overlay.create(dir, name, 0o644, 0, OFlags::WRONLY, us()) {
                overlay.release(opened.file).expect("it is open");
            }
        }
        (2, _) => may_fail(overlay.symlink(dir, name, b"../outside/secret", us())),
        (3, _) => may_fail(overlay.unlink(dir, name)),
        (4, _) => may_fail(overlay.rmdir(dir, name)),
        (5, _) => may_fail(overlay.rename(dir, name, other_dir, other_name, RenameFlags::empty())),
        (6, _) => may_fail(overlay.rename(dir, name, other_dir, other_name, RenameFlags::EXCHANGE)),
        (7, Some(ino)) => may_fail(overlay.link(ino, other_dir, other_name)),
        (8, Some(ino)) => {
            let set = SetAttr { mode: Some(0o755), ..SetAttr::default() };
            may_fail(overlay.setattr(ino, &set, None, us()));
        }
        (9, Some(ino)) => {
            if let Ok(opened) = overlay.open_file(ino, OFlags::WRONLY, us()) {
                may_fail(overlay.write(opened.file, 1, b"w", true, us()));
                overlay.release(opened.file).expect("it is open");
            }
        }
        _ => {}
    }
}

/// The directory that holds `path`, and the last name of it.
fn place<'p>(overlay: &Overlay, path: &'p str) -> Option<(u64, &'p [u8])> {
    let mut names = path.split('/').map(str::as_bytes);
    let last = names.next_back()?;
    let dir = names.try_fold(ROOT, |dir, name| {
        let attr = overlay.lookup(dir, name).ok()??;
        (attr.kind() == Kind::Dir).then_some(attr.ino)
    })?;
    Some((dir, last))
}

/// What the overlay shows, a line for each object or what it cannot be looked up for.
fn tree(overlay: &Overlay) -> Vec<String> {
    let mut lines = Vec::new();
    let mut dirs = vec![(ROOT, PathBuf::new())];
    while let Some((dir, path)) = dirs.pop() {
        assert!(path.components().count() < 32, "{path:?} goes on and on");
        let mut names = Vec::new();
        let listed = overlay.read_dir(dir, 0, false, |entry| {
            names.push(String::from_utf8(entry.name.to_vec()).expect("all names are text"));
            false
        });
        if let Err(error) = listed {
            lines.push(format!("{path:?}: {}", error.errno()));
            continue;
        }
        for name in names.iter().filter(|name| !matches!(name.as_str(), "." | "..")) {
            let path = path.join(name);
            let what = match overlay.lookup(dir, name.as_bytes()) {
                Ok(Some(attr)) => {
                    if attr.kind() == Kind::Dir {
                        dirs.push((attr.ino, path.clone()));
                    }
                    format!("{:?} {:o} {}", attr.kind(), attr.mode, content(overlay, attr.ino, attr.kind()))
                }
                Ok(None) => panic!("{path:?} is listed only"),
                Err(error) => error.errno().to_string(),
            };
            lines.push(format!("{path:?}: {what}"));
        }
    }
    lines.sort();
    lines
}

fn content(overlay: &Overlay, ino: u64, kind: Kind) -> String {
    match kind {
        Kind::Symlink => String::from_utf8_lossy(&overlay.readlink(ino).expect("a symlink is read")).into_owned(),
        Kind::File => match overlay.open_file(ino, OFlags::RDONLY, us()) {
            Ok(opened) => {
                let mut content = [0; 256];
                let read = overlay.read(opened.file, 0, &mut content).expect("an open file is read");
                overlay.release(opened.file).expect("it is open");
                content[..read].escape_ascii().to_string()
            }
            Err(error) => error.errno().to_string(),
        },
        _ => String::new(),
    }
}

/// All that lies below a directory of a layer, with what any change moves.
fn below(dir: &Path) -> Vec<String> {
    use std::os::unix::fs::MetadataExt;
    let mut lines = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        for entry in entries {
            let path = entry.expect("an entry").path();
            let meta = fs::symlink_metadata(&path).expect("it was listed");
            lines.push(format!("{path:?} {:o} {} {}.{}", meta.mode(), meta.nlink(), meta.ctime(), meta.ctime_nsec()));
            if meta.is_dir() {
                dirs.push(path);
            }
        }
    }
    lines.sort();
    lines
}

fn us() -> Caller {
    Caller {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        pid: std::process::id(),
    }
}
