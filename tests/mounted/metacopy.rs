//! `metacopy=on`: a change of attributes copies no data up.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;
use std::sync::Barrier;
use std::thread;

use rustix::fs::{AtFlags, CWD, FallocateFlags, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;

use crate::common::*;
use crate::rename::rename;

const ON: &str = "redirect_dir=on,index=on,metacopy=on";
const OFF: &str = "redirect_dir=on,index=on,metacopy=off";
const MARK: &str = "trusted.overlay.metacopy";
const REDIRECT: &str = "trusted.overlay.redirect";
const SIZE: usize = 1 << 20;

/// A megabyte that has no two equal pages.
fn content() -> Vec<u8> {
    (0..SIZE as u32 / 4).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

fn setup() -> Setup {
    let files = ["f", "g", "d/f", "d/sub/f", "h1"];
    Setup::new().both(ON).lower(|l| {
        for file in files {
            l.file(file, content()).mode(file, 0o644).time(file, 1_000_000_000, 123_456_789);
        }
        l.hard_link("h2", "h1").hard_link("d/h3", "h1").file("small", "small").file("empty", "")
    })
}

fn chmod(path: impl AsRef<Path>, mode: u32) -> Result<(), Errno> {
    rustix::fs::chmod(path.as_ref(), Mode::from_raw_mode(mode))
}

/// The user and the group may read, and user 1001 may read and write.
fn acl() -> Vec<u8> {
    let mut acl = vec![2, 0, 0, 0];
    for (tag, rights, id) in
        [(1_u16, 6_u16, u32::MAX), (2, 6, 1001), (4, 4, u32::MAX), (0x10, 6, u32::MAX), (0x20, 4, u32::MAX)]
    {
        acl.extend(tag.to_le_bytes());
        acl.extend(rights.to_le_bytes());
        acl.extend(id.to_le_bytes());
    }
    acl
}

/// `cap_net_raw+ep`, as it is stored.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn set_times(path: &Path) -> Result<(), Errno> {
    let time = Timespec { tv_sec: 1_200_000_000, tv_nsec: 987_654_321 };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
}

fn blocks(path: impl AsRef<Path>) -> u64 {
    fs::symlink_metadata(path).unwrap().blocks()
}

/// Whether `path` in the upper has its attributes only.
#[track_caller]
fn assert_metacopy(tree: &Mounted, path: &str) {
    let upper = tree.upper(path);
    assert_eq!(xattr(&upper, MARK).as_deref(), Ok(&b""[..]), "{path}: the mark");
    let meta = fs::symlink_metadata(&upper).unwrap();
    assert_eq!(meta.len(), SIZE as u64, "{path}: the size");
    assert!(meta.blocks() < FEW_BLOCKS, "{path}: {} blocks", meta.blocks());
}

/// Whether `path` in the upper has its data.
#[track_caller]
fn assert_complete(tree: &Mounted, path: &str) {
    assert_eq!(xattr(&tree.upper(path), MARK), Err(Errno::NODATA), "{path}: the mark");
}

/// Whether `path` shows the data of the lower layer.
#[track_caller]
fn assert_untouched(tree: &Mounted, path: &str) {
    assert!(fs::read(tree.path(path)).unwrap() == content(), "{path}: other data");
    let stat = tree.stat(path);
    assert_eq!(stat.st_size, SIZE as i64, "{path}: the size");
    assert_eq!(stat.st_blocks as u64, blocks(tree.lower(0, "f")), "{path}: the blocks");
}

/// Every change that needs no data; each has its own file.
fn change_attributes(tree: &Mounted) {
    let f = |path: &str| tree.path(path);
    chmod(f("f"), 0o600).unwrap();
    std::os::unix::fs::lchown(f("d/f"), Some(1001), Some(1002)).unwrap();
    set_times(&f("g")).unwrap();
    set_xattr(&f("d/sub/f"), "user.x", "1").unwrap();
    chmod(f("h2"), 0o640).unwrap();
}

#[test]
fn change_of_attributes_copies_no_data() {
    let tree = mount!(Setup::new().both(ON).lower(|l| {
        ["mode", "owner", "times", "xattr", "acl", "capability", "removed"]
            .iter()
            .fold(l.file("f", content()), |l, file| l.file(file, content()))
            .xattr("removed", "user.x", "1")
    }));
    let f = |path: &str| tree.path(path);
    chmod(f("mode"), 0o600).unwrap();
    std::os::unix::fs::lchown(f("owner"), Some(1001), None).unwrap();
    set_times(&f("times")).unwrap();
    set_xattr(&f("xattr"), "user.x", "1").unwrap();
    set_xattr(&f("acl"), "system.posix_acl_access", acl()).unwrap();
    set_xattr(&f("capability"), "security.capability", CAPABILITY).unwrap();
    rustix::fs::lremovexattr(f("removed"), "user.x").unwrap();
    for path in ["mode", "owner", "times", "xattr", "acl", "capability", "removed"] {
        assert_metacopy(&tree, path);
        assert_untouched(&tree, path);
        assert!(!xattrs(&f(path)).iter().any(|(name, _)| name.starts_with("trusted.overlay")), "{path}");
    }
    assert_eq!(tree.stat("mode").st_mode & 0o7777, 0o600);
    assert_eq!(tree.stat("owner").st_uid, 1001);
    assert_eq!((tree.stat("times").st_mtime, tree.stat("times").st_mtime_nsec), (1_200_000_000, 987_654_321));
    assert_eq!(xattr(&f("xattr"), "user.x").as_deref(), Ok(&b"1"[..]));
    assert_eq!(xattr(&f("acl"), "system.posix_acl_access"), Ok(acl()));
    assert_eq!(xattr(&f("capability"), "security.capability").as_deref(), Ok(&CAPABILITY[..]));
    assert_eq!(xattr(&f("removed"), "user.x"), Err(Errno::NODATA));
}

#[test]
fn rename_and_link_copy_no_data() {
    let mut tree = mount!(setup());
    rename(&tree, "f", "f2").unwrap();
    fs::hard_link(tree.path("g"), tree.path("g2")).unwrap();
    rename(&tree, "d/f", "d/sub/moved").unwrap();
    for _ in 0..2 {
        for (path, redirect) in [("f2", "f"), ("g2", "g"), ("d/sub/moved", "/d/f")] {
            assert_metacopy(&tree, path);
            assert_untouched(&tree, path);
            let mark = xattr(&tree.upper(path), REDIRECT).unwrap();
            // A name alone is enough within the directory, and a path is as good.
            assert!(mark == redirect.as_bytes() || mark == format!("/{redirect}").as_bytes(), "{path}: {mark:?}");
        }
        assert!(!tree.exists("f") && !tree.exists("d/f"));
        assert_eq!(tree.ino("g"), tree.ino("g2"));
        assert_eq!(tree.stat("g").st_nlink, 2);
        tree.remount();
    }
}

#[test]
fn opening_for_reading_and_looking_complete_nothing() {
    let tree = mount!(setup());
    chmod(tree.path("f"), 0o600).unwrap();
    let file = open(tree.path("f"), OFlags::RDONLY).unwrap();
    let mut end = [0; 4];
    file.read_exact_at(&mut end, SIZE as u64 - 4).unwrap();
    assert_eq!(end, content()[SIZE - 4..]);
    let path = open(tree.path("f"), OFlags::PATH).unwrap();
    assert_eq!(fstat(&path).st_blocks as u64, blocks(tree.lower(0, "f")));
    assert!(Mapping::new(&file, SIZE, false).read() == content());
    rustix::fs::fsync(&file).unwrap();
    assert_metacopy(&tree, "f");
}

#[test]
fn change_of_data_completes_the_copy() {
    type Change = fn(&Path) -> Result<(), Errno>;
    type Model = fn(Vec<u8>) -> Vec<u8>;
    let changes: &[(&str, Change, Model)] = &[
        ("opened for writing", |f| open(f, OFlags::WRONLY).map(drop), |data| data),
        ("opened for both", |f| open(f, OFlags::RDWR).map(drop), |data| data),
        (
            "written",
            |f| {
                let file = open(f, OFlags::WRONLY)?;
                rustix::io::pwrite(&file, b"new", 4095).map(drop)
            },
            |mut data| {
                data[4095..4098].copy_from_slice(b"new");
                data
            },
        ),
        (
            "appended",
            |f| {
                let file = open(f, OFlags::WRONLY | OFlags::APPEND)?;
                rustix::io::write(&file, b"new").map(drop)
            },
            |mut data| {
                data.extend(b"new");
                data
            },
        ),
        (
            "truncated",
            |f| rustix::fs::ftruncate(open(f, OFlags::WRONLY)?, 5000),
            |mut data| {
                data.truncate(5000);
                data
            },
        ),
        (
            "truncated by name",
            |f| {
                let path = std::ffi::CString::new(f.to_str().unwrap()).unwrap();
                match unsafe { libc::truncate(path.as_ptr(), 5000) } {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error().errno()),
                }
            },
            |mut data| {
                data.truncate(5000);
                data
            },
        ),
        ("emptied", |f| open(f, OFlags::WRONLY | OFlags::TRUNC).map(drop), |_| Vec::new()),
        (
            "allocated",
            |f| {
                let file = open(f, OFlags::WRONLY)?;
                rustix::fs::fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 4096, 4096)
            },
            |mut data| {
                data[4096..8192].fill(0);
                data
            },
        ),
        (
            "allocated beyond its end",
            |f| rustix::fs::fallocate(open(f, OFlags::WRONLY)?, FallocateFlags::empty(), SIZE as u64, 100),
            |mut data| {
                data.resize(SIZE + 100, 0);
                data
            },
        ),
        (
            "mapped",
            |f| {
                let file = open(f, OFlags::RDWR)?;
                Mapping::new(&file, SIZE, true).write(7, b"m");
                rustix::fs::fsync(&file)
            },
            |mut data| {
                data[7] = b'm';
                data
            },
        ),
    ];
    let mut tree = mount!(Setup::new().both(ON).lower(|l| {
        (0..changes.len()).fold(l.file("f", content()), |l, number| l.file(format!("f{number}"), content()))
    }));
    for (number, (what, change, result)) in changes.iter().enumerate() {
        let name = format!("f{number}");
        chmod(tree.path(&name), 0o600).unwrap();
        assert_metacopy(&tree, &name);
        change(&tree.path(&name)).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_complete(&tree, &name);
        assert!(fs::read(tree.path(&name)).unwrap() == result(content()), "{what}: other data");
        assert_eq!(tree.stat(&name).st_mode & 0o7777, 0o600, "{what}");
    }
    tree.remount();
    for (number, (what, _, result)) in changes.iter().enumerate() {
        let name = format!("f{number}");
        assert!(fs::read(tree.path(&name)).unwrap() == result(content()), "{what}: other data after remount");
        assert!(fs::read(tree.upper(&name)).unwrap() == result(content()), "{what}: other data in the upper");
    }
}

#[test]
fn completion_keeps_attributes() {
    let mut tree = mount!(setup());
    let f = tree.path("f");
    std::os::unix::fs::lchown(&f, Some(1001), Some(1002)).unwrap();
    chmod(&f, 0o6755).unwrap();
    set_xattr(&f, "user.x", "1").unwrap();
    set_xattr(&f, "trusted.x", "2").unwrap();
    set_xattr(&f, "security.capability", CAPABILITY).unwrap();
    set_xattr(&f, "system.posix_acl_access", acl()).unwrap();
    set_times(&f).unwrap();
    let before = (tree.stat("f"), xattrs(&f));
    drop(open(&f, OFlags::RDWR).unwrap());
    assert_complete(&tree, "f");
    for _ in 0..2 {
        let after = (tree.stat("f"), xattrs(&f));
        assert_eq!((after.0.st_mode, after.0.st_uid, after.0.st_gid), (before.0.st_mode, 1001, 1002));
        // The kernel's overlayfs takes completion for a change of the data.
        if tree.backend() == Backend::Plyfs {
            assert_eq!((after.0.st_mtime, after.0.st_mtime_nsec), (1_200_000_000, 987_654_321));
        }
        assert_eq!((after.0.st_ino, after.0.st_size), (before.0.st_ino, before.0.st_size));
        assert_eq!(after.1, before.1);
        assert!(fs::read(&f).unwrap() == content());
        tree.remount();
    }
}

#[test]
fn written_metacopy_loses_capabilities_and_another_users_set_id_bits() {
    let tree = mount!(setup());
    for name in ["f", "g"] {
        chmod(tree.path(name), 0o6777).unwrap();
        set_xattr(&tree.path(name), "security.capability", CAPABILITY).unwrap();
        assert_metacopy(&tree, name);
    }
    tree.append("f", "+");
    assert_eq!(tree.stat("f").st_mode & 0o7777, 0o6777);
    as_user(User::ALICE, || tree.append("g", "+"));
    assert_eq!(tree.stat("g").st_mode & 0o7777, 0o777);
    for name in ["f", "g"] {
        assert_eq!(xattr(&tree.path(name), "security.capability"), Err(Errno::NODATA), "{name}");
        assert!(fs::read(tree.path(name)).unwrap() == [content(), b"+".to_vec()].concat(), "{name}");
    }
}

#[test]
fn metacopy_of_a_set_id_file_with_capability_keeps_them() {
    let tree = mount!(Setup::new().both(ON).lower(|l| {
        l.file("f", content()).mode("f", 0o4755).xattr("f", "security.capability", CAPABILITY).xattr("f", "user.x", "1")
    }));
    set_times(&tree.path("f")).unwrap();
    assert_metacopy(&tree, "f");
    assert_eq!(tree.stat("f").st_mode & 0o7777, 0o4755);
    assert_eq!(xattr(&tree.path("f"), "security.capability").as_deref(), Ok(&CAPABILITY[..]));
    drop(open(tree.path("f"), OFlags::WRONLY).unwrap());
    assert_complete(&tree, "f");
    assert_eq!(tree.stat("f").st_mode & 0o7777, 0o4755);
    assert_eq!(xattr(&tree.path("f"), "security.capability").as_deref(), Ok(&CAPABILITY[..]));
    assert_eq!(xattr(&tree.path("f"), "user.x").as_deref(), Ok(&b"1"[..]));
}

#[test]
fn reader_opened_before_the_metacopy_sees_what_is_written_after_it() {
    let tree = mount!(setup());
    let of_lower = open(tree.path("f"), OFlags::RDONLY).unwrap();
    chmod(tree.path("f"), 0o600).unwrap();
    let of_metacopy = open(tree.path("f"), OFlags::RDONLY).unwrap();
    assert_eq!(fstat(&of_lower).st_mode & 0o7777, 0o600);
    let writer = open(tree.path("f"), OFlags::WRONLY).unwrap();
    writer.write_all_at(b"new", 100).unwrap();
    for (what, file) in [("of the lower file", &of_lower), ("of the metacopy", &of_metacopy)] {
        let mut data = [0; 5];
        file.read_exact_at(&mut data, 99).unwrap();
        assert_eq!(data[1..4], *b"new", "the reader {what}");
        assert_eq!(fstat(file).st_size, SIZE as i64);
    }
}

#[test]
fn lower_hard_links_are_one_metacopy() {
    let mut tree = mount!(setup());
    let ino = tree.ino("h1");
    chmod(tree.path("h2"), 0o600).unwrap();
    set_xattr(&tree.path("d/h3"), "user.x", "1").unwrap();
    for _ in 0..2 {
        for name in ["h1", "h2", "d/h3"] {
            let stat = tree.stat(name);
            assert_eq!((stat.st_ino, stat.st_nlink, stat.st_mode & 0o7777), (ino, 3, 0o600), "{name}");
            assert_eq!(xattr(&tree.path(name), "user.x").as_deref(), Ok(&b"1"[..]), "{name}");
            assert_untouched(&tree, name);
        }
        tree.remount();
    }
    tree.append("h1", "+");
    // Which names lie in the upper by now is not the same on both.
    let copied = ["h1", "h2", "d/h3"].into_iter().find(|name| lstat(tree.upper(name)).is_ok());
    assert_complete(&tree, copied.expect("a copy"));
    for _ in 0..2 {
        for name in ["h1", "h2", "d/h3"] {
            assert_eq!((tree.stat(name).st_ino, tree.stat(name).st_size), (ino, SIZE as i64 + 1), "{name}");
            assert_eq!(fs::read(tree.path(name)).unwrap().last(), Some(&b'+'), "{name}");
        }
        tree.remount();
    }
}

#[test]
fn names_of_a_metacopy_come_and_go() {
    let mut tree = mount!(setup());
    chmod(tree.path("f"), 0o600).unwrap();
    fs::hard_link(tree.path("f"), tree.path("d/l")).unwrap();
    rename(&tree, "f", "d/sub/moved").unwrap();
    fs::remove_file(tree.path("d/sub/moved")).unwrap();
    for _ in 0..2 {
        assert_untouched(&tree, "d/l");
        assert_metacopy(&tree, "d/l");
        assert_eq!(tree.stat("d/l").st_nlink, 1);
        assert!(!tree.exists("f"));
        tree.remount();
    }
    let reader = open(tree.path("d/l"), OFlags::RDONLY).unwrap();
    fs::remove_file(tree.path("d/l")).unwrap();
    let mut data = vec![0; SIZE];
    reader.read_exact_at(&mut data, 0).unwrap();
    assert!(data == content());
    drop(reader);
    chmod(tree.path("g"), 0o600).unwrap();
    fs::remove_file(tree.path("g")).unwrap();
    assert!(tree.is_whiteout("g") && tree.is_whiteout("f") && !tree.exists("g"));
    tree.write("g", "another");
    assert_complete(&tree, "g");
    assert_eq!(tree.read("g"), "another");
}

#[test]
fn metacopy_moves_on_and_on() {
    let mut tree = mount!(setup());
    let ino = tree.ino("d/sub/f");
    for target in ["d/f2", "f2", "d/sub/f2", "d/sub/f", "h4"] {
        let from = ["d/sub/f", "d/f2", "f2", "d/sub/f2", "d/sub/f"];
        let place = ["d/f2", "f2", "d/sub/f2", "d/sub/f", "h4"].iter().position(|name| *name == target).unwrap();
        rename(&tree, from[place], target).unwrap();
        assert_untouched(&tree, target);
        assert_metacopy(&tree, target);
        assert_eq!(tree.ino(target), ino);
        tree.remount();
        assert_untouched(&tree, target);
        assert_eq!(tree.ino(target), ino);
    }
    // Another file where it was, and it over another one.
    tree.write("d/sub/f", "another");
    rename(&tree, "h4", "g").unwrap();
    tree.remount();
    assert_untouched(&tree, "g");
    assert_eq!(tree.read("d/sub/f"), "another");
}

#[test]
fn directories_of_metacopies_move() {
    let mut tree = mount!(setup());
    chmod(tree.path("d/sub/f"), 0o600).unwrap();
    rename(&tree, "d/sub", "s").unwrap();
    rename(&tree, "d", "s/d").unwrap();
    chmod(tree.path("s/d/f"), 0o600).unwrap();
    rename(&tree, "s/d/f", "top").unwrap();
    for _ in 0..2 {
        for path in ["s/f", "top"] {
            assert_untouched(&tree, path);
            assert_metacopy(&tree, path);
        }
        tree.remount();
    }
    tree.append("s/f", "+");
    tree.append("top", "+");
    tree.remount();
    for path in ["s/f", "top"] {
        assert_eq!(fs::read(tree.path(path)).unwrap(), [content(), b"+".to_vec()].concat());
    }
}

#[test]
fn small_and_empty_files_are_metacopies_too() {
    let mut tree = mount!(setup());
    for (name, data) in [("small", "small"), ("empty", "")] {
        chmod(tree.path(name), 0o600).unwrap();
        assert_eq!(xattr(&tree.upper(name), MARK).as_deref(), Ok(&b""[..]), "{name}");
        assert_eq!((tree.read(name).as_str(), tree.stat(name).st_size), (data, data.len() as i64));
    }
    tree.remount();
    for (name, data) in [("small", "small+"), ("empty", "+")] {
        tree.append(name, "+");
        assert_complete(&tree, name);
        assert_eq!(tree.read(name), data);
    }
}

#[test]
fn new_and_written_files_are_no_metacopies() {
    let tree = mount!(setup());
    tree.write("new", "new");
    chmod(tree.path("new"), 0o600).unwrap();
    tree.append("f", "+");
    chmod(tree.path("f"), 0o600).unwrap();
    assert_complete(&tree, "new");
    assert_complete(&tree, "f");
}

#[test]
fn executable_metacopy_runs() {
    let program = fs::read("/bin/true").unwrap();
    let tree = mount!(Setup::new().both(ON).lower(|l| l.file("run", &program).mode("run", 0o644)));
    chmod(tree.path("run"), 0o755).unwrap();
    assert_eq!(xattr(&tree.upper("run"), MARK).as_deref(), Ok(&b""[..]));
    run(&mut Command::new(tree.path("run")));
}

#[test]
fn holes_are_kept_on_completion() {
    let tree = mount!(Setup::new().both(ON).lower(|l| {
        l.file("f", "begin");
        let file = fs::OpenOptions::new().write(true).open(l.path("f")).unwrap();
        file.write_all_at(b"end", 64 << 20).unwrap();
        l
    }));
    chmod(tree.path("f"), 0o600).unwrap();
    assert_eq!(blocks(tree.path("f")), blocks(tree.lower(0, "f")));
    tree.append("f", "+");
    // The kernel's overlayfs copies a megabyte at a time.
    assert!(blocks(tree.upper("f")) < 4096, "{} blocks", blocks(tree.upper("f")));
    let mut end = [0; 5];
    open(tree.path("f"), OFlags::RDONLY).unwrap().read_exact_at(&mut end, (64 << 20) - 1).unwrap();
    assert_eq!(end, *b"\0end+");
}

#[test]
fn random_writes_after_a_change_of_attributes() {
    let mut tree = mount!(setup());
    let mut model = content();
    let mut state = 0x1234_5678_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    chmod(tree.path("f"), 0o600).unwrap();
    let reader = open(tree.path("f"), OFlags::RDONLY).unwrap();
    let mut writer = open(tree.path("f"), OFlags::RDWR).unwrap();
    for step in 0..300 {
        let (at, len) = (random(SIZE), 1 + random(20_000));
        match random(8) {
            0 => {
                let size = random(2 * SIZE);
                rustix::fs::ftruncate(&writer, size as u64).unwrap();
                model.resize(size, 0);
            }
            1 => {
                chmod(tree.path("f"), 0o600 + random(64) as u32).unwrap();
            }
            _ => {
                let data = vec![step as u8 + 1; len];
                writer.write_all_at(&data, at as u64).unwrap();
                model.resize(model.len().max(at + len), 0);
                model[at..at + len].copy_from_slice(&data);
            }
        }
        let (at, len) = (random(model.len().max(1)), 5000);
        let wanted = &model[at.min(model.len())..(at + len).min(model.len())];
        let mut data = vec![0; wanted.len()];
        reader.read_exact_at(&mut data, at as u64).unwrap();
        assert!(data == wanted, "step {step}: other data at {at}");
    }
    writer.flush().unwrap();
    drop((reader, writer));
    tree.remount();
    assert!(fs::read(tree.path("f")).unwrap() == model);
}

#[test]
fn many_who_write_one_metacopy_complete_it_once() {
    const WRITERS: usize = 8;
    let tree = mount!(setup());
    chmod(tree.path("f"), 0o600).unwrap();
    let barrier = Barrier::new(WRITERS + 1);
    thread::scope(|scope| {
        for number in 0..WRITERS {
            let (tree, barrier) = (tree.path("f"), &barrier);
            scope.spawn(move || {
                barrier.wait();
                let file = open(tree, OFlags::WRONLY).unwrap();
                file.write_all_at(&[number as u8; 100], (number * SIZE / WRITERS) as u64).unwrap();
            });
        }
        barrier.wait();
        for mode in 0..16 {
            chmod(tree.path("f"), 0o600 + mode).unwrap();
        }
    });
    let mut wanted = content();
    for number in 0..WRITERS {
        wanted[number * SIZE / WRITERS..][..100].fill(number as u8);
    }
    assert!(fs::read(tree.path("f")).unwrap() == wanted);
    assert_eq!(tree.stat("f").st_mode & 0o7777, 0o617);
    assert_complete(&tree, "f");
}

#[test]
fn upper_is_written_as_the_kernel_writes_it() {
    plyfs_only!("both take part");
    needs_root!();
    let steps: &[fn(&Mounted)] = &[
        change_attributes,
        |tree| {
            rename(tree, "f", "f2").unwrap();
            rename(tree, "d/f", "moved").unwrap();
            fs::hard_link(tree.path("g"), tree.path("d/link")).unwrap();
            rename(tree, "h1", "d/h4").unwrap();
            chmod(tree.path("small"), 0o600).unwrap();
            rename(tree, "empty", "d/empty").unwrap();
            rename(tree, "d/sub", "sub2").unwrap();
            rename(tree, "sub2/f", "sub2/g").unwrap();
        },
        |tree| {
            for file in ["f2", "d/link", "d/h4", "small"] {
                tree.append(file, "+");
            }
            fs::remove_file(tree.path("h2")).unwrap();
        },
    ];
    let mut tree = setup().prepare(Backend::Kernel);
    let mut wanted = Vec::new();
    tree.mount();
    for step in steps {
        step(&tree);
        tree.remount();
        tree.tree();
        wanted.push(written(&tree));
    }
    tree.unmount();
    tree.empty_upper();
    tree.set_backend(Backend::Plyfs);
    tree.mount();
    for (number, (step, wanted)) in steps.iter().zip(wanted).enumerate() {
        step(&tree);
        tree.remount();
        tree.tree();
        let found = written(&tree);
        assert_same_lines(&found, &wanted, &format!("step {number}"));
    }
}

#[test]
fn metacopies_move_between_plyfs_and_the_kernel_in_every_state() {
    plyfs_only!("both take part");
    let mut tree = mount!(setup());
    let numbers = |tree: &Mounted| -> Vec<(String, u64, i64)> {
        let paths = tree.tree().paths().into_iter();
        paths.map(|path| (path.clone(), tree.ino(&path), tree.stat(&path).st_blocks)).collect()
    };
    let steps: &[fn(&Mounted)] = &[
        change_attributes,
        |tree| rename(tree, "f", "d/sub/f2").unwrap(),
        |tree| fs::hard_link(tree.path("g"), tree.path("d/link")).unwrap(),
        |tree| rename(tree, "d", "dd").unwrap(),
        |tree| rename(tree, "dd/sub/f2", "f2").unwrap(),
        |tree| chmod(tree.path("f2"), 0o4711).unwrap(),
        |tree| tree.append("dd/link", "+"),
        |tree| fs::remove_file(tree.path("h1")).unwrap(),
        |tree| tree.append("h2", "+"),
        |tree| tree.append("f2", "+"),
        |tree| rename(tree, "f2", "f3").unwrap(),
    ];
    for first in [Backend::Plyfs, Backend::Kernel] {
        tree.unmount();
        tree.empty_upper();
        tree.set_backend(first);
        tree.mount();
        let mut next = first;
        for (number, step) in steps.iter().enumerate() {
            step(&tree);
            let (before, of_files) = (tree.tree(), numbers(&tree));
            next = if next == Backend::Plyfs { Backend::Kernel } else { Backend::Plyfs };
            tree.switch_to(next);
            before.assert_eq(&tree.tree(), &format!("after step {number}, on {next:?}"));
            let strange: Vec<_> = numbers(&tree)
                .into_iter()
                .zip(of_files)
                .filter(|((path, _, blocks), (_, _, before))| {
                    blocks != before && !fs::symlink_metadata(tree.path(path)).unwrap().is_dir()
                })
                .collect();
            assert!(strange.is_empty(), "after step {number}, on {next:?}: {strange:?}");
        }
    }
}

#[test]
fn metacopies_are_found_through_several_layers() {
    needs_root!();
    let mut first = setup().mount();
    change_attributes(&first);
    rename(&first, "f", "d/f2").unwrap();
    first.unmount();
    // Its upper is a lower layer now.
    let mut second = Setup::new().both(ON).lower_at(first.upper("")).lower_at(first.lower(0, "")).mount();
    let shown = |tree: &Mounted| {
        for path in ["d/f2", "d/f", "g", "d/sub/f", "h2"] {
            assert_untouched_in(tree, path, 1);
        }
    };
    shown(&second);
    assert_eq!(second.stat("d/f2").st_mode & 0o7777, 0o600);
    chmod(second.path("d/f2"), 0o604).unwrap();
    rename(&second, "d/f2", "f3").unwrap();
    rename(&second, "g", "d/g").unwrap();
    chmod(second.path("d/sub/f"), 0o604).unwrap();
    let again = |tree: &Mounted| {
        for path in ["f3", "d/f", "d/g", "d/sub/f"] {
            assert_untouched_in(tree, path, 1);
        }
        assert_eq!(tree.stat("f3").st_mode & 0o7777, 0o604);
        assert_eq!(xattr(&tree.path("d/sub/f"), "user.x").as_deref(), Ok(&b"1"[..]));
        assert!(!tree.exists("f") && !tree.exists("d/f2") && !tree.exists("g"));
    };
    again(&second);
    for path in ["f3", "d/g", "d/sub/f"] {
        assert_metacopy(&second, path);
    }
    second.remount();
    again(&second);
    second.unmount();
    let third =
        Setup::new().both(ON).lower_at(second.upper("")).lower_at(first.upper("")).lower_at(first.lower(0, "")).mount();
    for path in ["f3", "d/f", "d/g", "d/sub/f"] {
        assert_untouched_in(&third, path, 2);
        third.append(path, "+");
        assert_complete(&third, path);
        assert_eq!(fs::read(third.path(path)).unwrap(), [content(), b"+".to_vec()].concat(), "{path}");
    }
}

#[track_caller]
fn assert_untouched_in(tree: &Mounted, path: &str, layer: usize) {
    assert!(fs::read(tree.path(path)).unwrap() == content(), "{path}: other data");
    assert_eq!(tree.stat(path).st_blocks as u64, blocks(tree.lower(layer, "f")), "{path}: the blocks");
}

#[test]
fn metacopies_of_lower_layers_are_shown_without_an_upper() {
    needs_root!();
    let mut first = setup().mount();
    change_attributes(&first);
    rename(&first, "f", "d/f2").unwrap();
    first.unmount();
    let both = || Setup::new().lower_at(first.upper("")).lower_at(first.lower(0, "")).read_only();
    let tree = both().both("metacopy=on").mount();
    for path in ["d/f2", "d/f", "g", "d/sub/f", "h2"] {
        assert_untouched_in(&tree, path, 1);
    }
    assert_eq!(tree.stat("d/f2").st_mode & 0o7777, 0o600);
    drop(tree);
    let tree = both().mount();
    for name in ["d/f2", "d/f", "g", "d/sub/f", "h2"] {
        assert_eq!(lstat(tree.path(name)).err(), Some(Errno::PERM), "{name}");
    }
}

#[test]
fn small_metacopies_of_lower_layers_are_refused_as_well() {
    needs_root!();
    let mut first = setup().mount();
    chmod(first.path("small"), 0o600).unwrap();
    chmod(first.path("empty"), 0o600).unwrap();
    first.unmount();
    let tree = Setup::new().lower_at(first.upper("")).lower_at(first.lower(0, "")).read_only().mount();
    for name in ["small", "empty"] {
        assert_eq!(lstat(tree.path(name)).err(), Some(Errno::PERM), "{name}");
    }
}

#[test]
fn metacopies_are_refused_without_metacopy_and_found_again_with_it() {
    let mut tree = mount!(setup());
    change_attributes(&tree);
    rename(&tree, "f", "f2").unwrap();
    chmod(tree.path("small"), 0o600).unwrap();
    rename(&tree, "empty", "empty2").unwrap();
    let before = tree.tree();
    for options in [OFF, "redirect_dir=follow,metacopy=off", "redirect_dir=off", "redirect_dir=nofollow"] {
        tree.set_options(options);
        tree.remount();
        for name in ["f2", "g", "d/f", "d/sub/f", "h2", "small", "empty2"] {
            let path = tree.path(name);
            assert_eq!(lstat(&path).err(), Some(Errno::PERM), "{options}: stat {name}");
            assert_eq!(errno(open(&path, OFlags::RDONLY)), Errno::PERM, "{options}: open {name}");
            assert_eq!(errno(open(&path, OFlags::WRONLY | OFlags::TRUNC)), Errno::PERM, "{options}: empty {name}");
            assert_eq!(chmod(&path, 0o777), Err(Errno::PERM), "{options}: chmod {name}");
            assert_eq!(errno(fs::remove_file(&path)), Errno::PERM, "{options}: unlink {name}");
            assert_eq!(errno(fs::rename(&path, tree.path("there"))), Errno::PERM, "{options}: rename {name}");
            assert_eq!(errno(fs::hard_link(&path, tree.path("there"))), Errno::PERM, "{options}: link {name}");
        }
        assert!(tree.exists("d/sub"), "{options}");
    }
    tree.set_options(ON);
    tree.remount();
    before.assert_eq(&tree.tree(), "with metacopy again");
}

#[test]
fn metacopy_of_which_the_data_is_gone_is_eio() {
    needs_root!();
    let names = ["none", "dir", "whiteout", "symlink"];
    let setup = Setup::new().both(ON).lower(|l| names.iter().fold(l, |l, name| l.file(name, content())));
    let mut tree = setup.mount();
    for name in names {
        chmod(tree.path(name), 0o600).unwrap();
    }
    tree.change_layers(|tree| {
        let lower = Layer::at(tree.lower(0, ""));
        for name in names {
            fs::remove_file(tree.lower(0, name)).unwrap();
        }
        lower.dir("dir").whiteout("whiteout", Form::Device).symlink("symlink", "dir");
    });
    for name in names {
        let path = tree.path(name);
        assert_eq!(lstat(&path).err(), Some(Errno::IO), "stat {name}");
        assert_eq!(errno(open(&path, OFlags::RDONLY)), Errno::IO, "open {name}");
        assert_eq!(chmod(&path, 0o777), Err(Errno::IO), "chmod {name}");
        assert_eq!(errno(fs::remove_file(&path)), Errno::IO, "unlink {name}");
    }
}

#[test]
fn marks_of_other_lengths_are_refused_and_of_this_version_read() {
    let (version, length, flags, digest) = (0, 4, 0, 0);
    let setup = Setup::new().both(ON).lower(|l| l.file("f", "data").file("g", "data").file("h", "data")).upper(|u| {
        u.file("f", "").xattr("f", MARK, [version, length, flags, digest]);
        u.file("g", "").xattr("g", MARK, [1, length, flags, digest]);
        u.file("h", "").xattr("h", MARK, [version, length]);
        for name in ["f", "g", "h"] {
            fs::OpenOptions::new().write(true).open(u.path(name)).unwrap().set_len(4).unwrap();
        }
        u
    });
    let tree = mount!(setup);
    assert_eq!(tree.read("f"), "data");
    assert_eq!(lstat(tree.path("h")).err(), Some(Errno::IO));
    // The kernel's overlayfs looks at the version only where it verifies digests.
    let wanted = if tree.backend() == Backend::Plyfs { Some(Errno::IO) } else { None };
    assert_eq!(lstat(tree.path("g")).err(), wanted);
}

#[test]
fn metacopy_needs_redirects_and_marks_that_only_root_sets() {
    needs_root!();
    for options in [
        "metacopy=on,redirect_dir=off",
        "metacopy=on,redirect_dir=follow",
        "metacopy=on,redirect_dir=nofollow",
        "userxattr,metacopy=on",
    ] {
        let mut tree = setup().prepare(Backend::chosen());
        tree.set_options(options);
        assert!(tree.try_mount().is_err(), "{options}");
    }
    for options in ["metacopy=on", "metacopy=on,index=off", "metacopy=on,xino=off"] {
        let mut tree = setup().prepare(Backend::chosen());
        tree.set_options(options);
        tree.mount();
        chmod(tree.path("f"), 0o600).unwrap();
        assert_metacopy(&tree, "f");
    }
}

#[test]
fn without_metacopy_every_change_copies_data() {
    let mut tree = setup().prepare(Backend::chosen());
    needs_root!();
    for options in ["redirect_dir=on,index=on", OFF] {
        tree.set_options(options);
        tree.mount();
        chmod(tree.path("f"), 0o600).unwrap();
        assert_complete(&tree, "f");
        assert!(fs::read(tree.upper("f")).unwrap() == content());
        tree.unmount();
        tree.empty_upper();
    }
}

#[test]
fn completion_that_is_killed_leaves_the_metacopy_or_the_file() {
    plyfs_only!("the kernel's overlayfs cannot be killed");
    const ROUNDS: u64 = 12;
    let setup = Setup::new().both(ON);
    let mut tree = mount!(setup.lower(|l| (0..ROUNDS).fold(l, |l, number| l.file(format!("f{number}"), content()))));
    for number in 0..ROUNDS {
        let name = format!("f{number}");
        chmod(tree.path(&name), 0o600).unwrap();
        thread::scope(|scope| {
            let path = tree.path(&name);
            // It fails when the daemon is gone.
            scope.spawn(move || open(path, OFlags::WRONLY).map(drop).ok());
            thread::sleep(std::time::Duration::from_micros(number * 300));
            tree.kill_daemon();
        });
        tree.recover();
        assert!(fs::read(tree.path(&name)).unwrap() == content(), "{name}: other data");
        assert_eq!((tree.stat(&name).st_mode & 0o777, tree.stat(&name).st_size), (0o600, SIZE as i64), "{name}");
        let upper = fs::read(tree.upper(&name)).unwrap();
        assert!(xattr(&tree.upper(&name), MARK).is_ok() || upper == content(), "{name}: unmarked without its data");
        tree.append(&name, "+");
        assert!(fs::read(tree.path(&name)).unwrap() == [content(), b"+".to_vec()].concat(), "{name}");
    }
}

#[test]
fn many_names_of_a_lower_file_share_an_index_entry_in_every_state() {
    let mut tree = mount!(setup());
    let entries = |tree: &Mounted| -> Vec<std::path::PathBuf> {
        let entries = fs::read_dir(tree.beside("work/index")).unwrap().map(|entry| entry.unwrap().path());
        // The kernel's overlayfs stages there as well.
        entries.filter(|path| !path.file_name().unwrap().to_string_lossy().starts_with('#')).collect()
    };
    chmod(tree.path("h1"), 0o600).unwrap();
    let index = entries(&tree);
    assert_eq!(index.len(), 1, "{index:?}");
    assert_eq!(xattr(&index[0], MARK).as_deref(), Ok(&b""[..]));
    assert_eq!(lstat(&index[0]).unwrap().st_ino, lstat(tree.upper("h1")).unwrap().st_ino);
    tree.append("h1", "+");
    assert_eq!(xattr(&index[0], MARK), Err(Errno::NODATA));
    tree.remount();
    assert_eq!(fs::read(tree.path("d/h3")).unwrap().len(), SIZE + 1);
    for name in ["h1", "h2", "d/h3"] {
        fs::remove_file(tree.path(name)).unwrap();
    }
    // Nothing is left of it but that it is gone.
    for entry in entries(&tree) {
        assert_eq!(lstat(&entry).unwrap().st_size, 0, "{entry:?}");
    }
    tree.remount();
    assert!(!tree.exists("h1") && !tree.exists("d/h3"));
}
