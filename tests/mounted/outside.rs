//! Layers that lead outside: nobody looks there. What lies outside is a filesystem that notes each request that it gets,
//! and, for file handles, which lead to other places of a layer's own filesystem, a directory that is watched.

use std::ffi::{CString, OsStr};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    AccessFlags, BackgroundSession, FileAttr, FileHandle, FileType, Filesystem, Generation, INodeNo, LockOwner,
    OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyXattr,
    Request,
};
use rustix::fs::{AtFlags, CWD, OFlags, XattrFlags, inotify};

use crate::common::*;

const SECRET: &str = "nobody is to read this";

/// A directory `d` and a file `secret` at the root, and in `d` again; nothing of it is cached.
struct Watched(Arc<Mutex<Vec<String>>>);

impl Watched {
    fn note(&self, what: String) {
        self.0.lock().unwrap().push(what);
    }
}

fn attr(ino: INodeNo) -> FileAttr {
    let kind = if ino.0 == 2 { FileType::RegularFile } else { FileType::Directory };
    FileAttr {
        ino,
        size: SECRET.len() as u64,
        blocks: 1,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm: 0o777,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        flags: 0,
        blksize: 4096,
    }
}

impl Filesystem for Watched {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.note(format!("lookup {} in {parent:?}", name.display()));
        match name.as_bytes() {
            b"secret" => reply.entry(&Duration::ZERO, &attr(INodeNo(2)), Generation(0)),
            b"d" => reply.entry(&Duration::ZERO, &attr(INodeNo(3)), Generation(0)),
            _ => reply.error(fuser::Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.note(format!("getattr {ino:?}"));
        reply.attr(&Duration::ZERO, &attr(ino));
    }

    fn access(&self, _: &Request, ino: INodeNo, _: AccessFlags, reply: ReplyEmpty) {
        self.note(format!("access {ino:?}"));
        reply.ok();
    }

    fn statfs(&self, _: &Request, ino: INodeNo, reply: ReplyStatfs) {
        self.note(format!("statfs {ino:?}"));
        reply.statfs(0, 0, 0, 0, 0, 4096, 255, 4096);
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, _: u32, reply: ReplyXattr) {
        self.note(format!("getxattr {} {ino:?}", name.display()));
        reply.error(fuser::Errno::ENODATA);
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.note(format!("open {ino:?}"));
        reply.opened(FileHandle(0), fuser::FopenFlags::empty());
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.note(format!("opendir {ino:?}"));
        reply.opened(FileHandle(0), fuser::FopenFlags::empty());
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        _: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        reply.data(SECRET.as_bytes().get(offset as usize..).unwrap_or_default());
    }

    fn readdir(&self, _: &Request, _: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        for (number, (ino, name)) in [(2, "secret"), (3, "d")].into_iter().enumerate().skip(offset as usize) {
            let _ = reply.add(INodeNo(ino), number as u64 + 1, attr(INodeNo(ino)).kind, name);
        }
        reply.ok();
    }
}

/// A [`Watched`] filesystem that is mounted.
struct Outside {
    _session: BackgroundSession,
    seen: Arc<Mutex<Vec<String>>>,
    dir: tempfile::TempDir,
}

impl Outside {
    /// In the mount namespace of the test's thread, which is that of the overlay as well.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let seen = Arc::default();
        let session = fuser::spawn_mount(Watched(Arc::clone(&seen)), dir.path(), &fuser::Config::default()).unwrap();
        let outside = Self { _session: session, seen, dir };
        wait_until("it is mounted", || fs::read_to_string(outside.path().join("d/secret")).is_ok_and(|s| s == SECRET));
        outside
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// What was asked since.
    fn looks(&self) -> Vec<String> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

/// A directory whose files and directories tell who opens them.
struct Vault {
    path: PathBuf,
    events: std::os::fd::OwnedFd,
}

impl Vault {
    fn new(path: PathBuf) -> Self {
        Layer::at(&path).file("secret", SECRET).file("d/secret", SECRET);
        let events = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC).unwrap();
        for dir in [&path, &path.join("d")] {
            inotify::add_watch(&events, dir, inotify::WatchFlags::ALL_EVENTS).unwrap();
        }
        Self { path, events }
    }

    /// Whether anything was opened, read or changed since.
    fn was_opened(&self) -> bool {
        let mut buffer = [0; 4096];
        let mut any = false;
        while rustix::io::read(&self.events, &mut buffer).is_ok() {
            any = true;
        }
        any
    }

    /// The file handle of what is there, as an origin mark has it.
    fn handle(&self, name: &str) -> Vec<u8> {
        let path = CString::new(self.path.join(name).as_os_str().as_bytes()).unwrap();
        let mut raw = [0_u8; 8 + 128];
        raw[..4].copy_from_slice(&128_u32.to_ne_bytes());
        let mut mount = 0;
        // SAFETY: the buffer is a struct file_handle of 128 bytes.
        let result = unsafe {
            libc::syscall(libc::SYS_name_to_handle_at, libc::AT_FDCWD, path.as_ptr(), &raw mut raw, &raw mut mount, 0)
        };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
        let len = u32::from_ne_bytes(raw[..4].try_into().unwrap()) as usize;
        [&raw[4..5], &raw[8..8 + len]].concat()
    }
}

/// Reads and changes all that is below `dir`, without following a symlink itself, and whatever fails. Returns what it has
/// read.
fn disturb(dir: &Path, read: &mut Vec<u8>) {
    for name in ["secret", "d", ".wh.secret", "new"] {
        let _ = lstat(dir.join(name));
    }
    let Ok(entries) = fs::read_dir(dir) else { return };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())).collect::<Vec<_>>() {
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        let _ = fs::read_link(&path);
        let mut names = [0; 1024];
        let _ = rustix::fs::llistxattr(&path, &mut names);
        if meta.is_file()
            && let Ok(file) = open(&path, OFlags::RDWR | OFlags::NOFOLLOW)
        {
            let mut content = vec![0; 4096];
            let len = file.read_at(&mut content, 0).unwrap_or(0);
            read.extend(&content[..len]);
            let _ = file.write_at(b"changed", 3);
        }
        let _ = rustix::fs::lsetxattr(&path, "user.new", b"x", XattrFlags::empty());
        let _ = rustix::fs::chownat(CWD, &path, None, None, AtFlags::SYMLINK_NOFOLLOW);
        if meta.is_dir() {
            disturb(&path, read);
            let _ = fs::write(path.join("made"), "made");
            let _ = fs::create_dir(path.join("made-dir"));
        }
        let other = path.with_file_name("moved");
        if fs::rename(&path, &other).is_ok() {
            if meta.is_dir() {
                let _ = fs::read_dir(&other).map(Iterator::count);
                let _ = lstat(other.join("secret"));
            }
            let _ = fs::hard_link(&other, path.with_file_name("linked"));
            let _ = fs::remove_file(path.with_file_name("linked"));
            let _ = fs::rename(&other, &path);
        }
    }
}

/// A layer of all that leads out: `out` is a way to what lies outside.
fn hostile<'l>(l: &'l Layer, out: &Path) -> &'l Layer {
    l.symlink("top", out).symlink("both", out).symlink("file", out.join("secret")).symlink("sub/deep", out.join("d"));
    l.symlink(".wh.gone", out.join("secret")).symlink("sub/.wh..wh..opq", out).symlink("over", out);
    l.file("under/f", "x").dir("under/d")
}

/// A layer above it, whose marks lead to what it has.
fn leading<'l>(l: &'l Layer, out: &Path) -> &'l Layer {
    let up = "../".repeat(12);
    let absolute = out.to_string_lossy().into_owned();
    let climbs = [absolute.clone(), format!("/{up}{absolute}"), format!("{up}{absolute}"), "..".into(), "/..".into()];
    let within = ["/top", "/top/d", "/both/d", "/sub/deep", "top", "/file", "/under/../top"].map(String::from);
    for (number, redirect) in climbs.iter().chain(&within).enumerate() {
        l.dir(format!("r{number}")).xattr(format!("r{number}"), "trusted.overlay.redirect", redirect);
        let file = format!("m{number}");
        l.file(&file, "").xattr(&file, "trusted.overlay.redirect", redirect).xattr(
            &file,
            "trusted.overlay.metacopy",
            "",
        );
        fs::File::options().write(true).open(l.path(&file)).unwrap().set_len(10).unwrap();
    }
    l.file("both/f", "f").file("over/f", "f").file("sub/f", "f").dir("d")
}

#[test]
fn nobody_looks_where_layers_lead_outside() {
    plyfs_only!("it is the daemon that is watched");
    needs_root!();
    let outside = Outside::new();
    assert!(!outside.looks().is_empty(), "a look is seen");
    lstat(outside.path()).unwrap();
    assert_eq!(outside.looks().len(), 1, "the least look is seen");
    for options in ["metacopy=on", "redirect_dir=on", "userxattr"] {
        let out = outside.path();
        let mut tree = Setup::new()
            .upper(|l| leading(l, out).dir("u").symlink("r0/l", out).symlink("e", out))
            .lower(|l| leading(l, out).file("u/f", "f").file("e/f", "f").file("under/d/f", "f"))
            .lower(|l| hostile(l, out))
            .lower(|l| l.symlink("under", out).symlink("u", out).symlink("r1", out))
            .option(options)
            .prepare(Backend::Plyfs);
        outside.looks();
        let mut read = Vec::new();
        for _ in 0..2 {
            tree.mount();
            disturb(&tree.path(""), &mut read);
            assert_eq!(outside.looks(), [""; 0], "with {options}");
            tree.unmount();
        }
        assert!(
            read.windows(7).any(|part| part == b"changed"),
            "something is read and changed: {}",
            read.escape_ascii()
        );
        assert!(!read.windows(6).any(|part| part == b"nobody"), "the secret is read: {}", read.escape_ascii());
    }
}

#[test]
fn nobody_opens_what_an_origin_leads_to_outside_of_the_layer() {
    plyfs_only!("it is the daemon that is watched");
    needs_root!();
    let setup = Setup::new().lower(|l| l.file("f", "own").file("d/g", "own").file("m", "own")).option("metacopy=on");
    let vault = Vault::new(setup.path("vault"));
    vault.was_opened();
    assert_eq!(fs::read_to_string(vault.path.join("d/secret")).unwrap(), SECRET);
    assert!(vault.was_opened(), "a look is seen");
    let mut tree = setup.mount();
    tree.append("f", "+");
    tree.append("d/g", "+");
    fs::set_permissions(tree.path("m"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let origin = "trusted.overlay.origin";
    for name in ["secret", "d", "d/secret"] {
        tree.unmount();
        for path in ["f", "d", "d/g", "m"] {
            let mark = xattr(&tree.upper(path), origin).unwrap();
            let handle = vault.handle(name);
            let mut forged = [&mark[..4], &handle[..1], &mark[5..21], &handle[1..]].concat();
            forged[2] = u8::try_from(forged.len()).unwrap();
            set_xattr(&tree.upper(path), origin, forged).unwrap();
        }
        vault.was_opened();
        tree.mount();
        assert_eq!((tree.read("f"), tree.list("d")), ("own+".into(), vec!["g".into()]), "{name}");
        // Its data is found by its name.
        let read = fs::read_to_string(tree.path("m"));
        assert!(read.as_ref().map_or(true, |content| content == "own"), "{name}: {read:?}");
        let mut read = Vec::new();
        disturb(&tree.path("").join("d"), &mut read);
        assert!(!read.windows(6).any(|part| part == b"nobody"), "{name}: the secret is read");
        assert!(!vault.was_opened(), "{name}: it was opened");
    }
    assert_eq!(fs::read_to_string(vault.path.join("secret")).unwrap(), SECRET);
}
