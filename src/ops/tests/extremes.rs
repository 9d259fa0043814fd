//! Layers that are as large as can be, in one way or another.

use std::fs;
use std::path::Path;

use rustix::fs::OFlags;
use tempfile::TempDir;

use super::Bed;
use super::bed::{build, errno, set_xattr, us};
use crate::config::Config;
use crate::error::Errno;
use crate::inode::numbers::ROOT;
use crate::overlay::Overlay;

/// A directory in memory, where filesystems set the widest bounds; none where that takes no `user.` attributes.
fn in_memory() -> Option<TempDir> {
    let dir = tempfile::tempdir_in("/dev/shm").ok()?;
    let is_tmpfs = rustix::fs::statfs(dir.path()).ok()?.f_type == 0x0102_1994;
    let value = vec![b'v'; 1 << 16];
    let takes = rustix::fs::lsetxattr(dir.path(), "user.test", &value, rustix::fs::XattrFlags::empty());
    (is_tmpfs && takes.is_ok()).then_some(dir)
}

#[test]
fn attributes_of_64_kib_are_read_copied_and_are_no_marks() {
    let Some(memory) = in_memory() else {
        eprintln!("SKIPPED: attributes of 64 KiB (no tmpfs with user attributes in /dev/shm)");
        return;
    };
    let huge = vec![b'y'; 1 << 16];
    let bed = Bed::with(&["unused="], |config| {
        config.lowers = vec![memory.path().join("0"), memory.path().join("1")];
        fs::create_dir_all(&config.lowers[0]).unwrap();
        fs::create_dir_all(&config.lowers[1]).unwrap();
        build(&config.lowers[0], "f=x d/a=1 r/a=1 o/a=1 m= n=x");
        build(&config.lowers[1], "d/b=2 r/b=2 o/b=2 m=data");
        let lower = |name: &str| config.lowers[0].join(name);
        set_xattr(&lower("f"), "user.huge", &huge);
        set_xattr(&lower("d"), "user.overlay.opaque", &huge);
        set_xattr(&lower("r"), "user.overlay.redirect", &huge);
        set_xattr(&lower("o"), "user.overlay.origin", &huge);
        set_xattr(&lower("m"), "user.overlay.metacopy", &huge);
        set_xattr(&lower("n"), "user.overlay.nlink", &huge);
        // All on one filesystem, so that the upper takes as much.
        config.upper = Some(memory.path().join("upper"));
        config.work = Some(memory.path().join("work"));
        fs::create_dir(memory.path().join("upper")).unwrap();
        fs::create_dir(memory.path().join("work")).unwrap();
    });
    assert_eq!((bed.list("d"), bed.list("o")), (vec!["a".into(), "b".into()], vec!["a".into(), "b".into()]));
    assert_eq!(errno(bed.attr("r")), Errno::INVAL);
    assert_eq!(errno(bed.attr("m")), Errno::IO);
    bed.append("f", "+").unwrap();
    bed.append("n", "+").unwrap();
    assert_eq!((bed.read("f"), bed.read("n")), ("x+".into(), "x+".into()));
    assert_eq!(bed.xattr("f", "user.huge").unwrap().len(), 1 << 16);
    let bed = bed.reopen();
    assert_eq!(bed.xattr("f", "user.huge").unwrap().len(), 1 << 16);
    bed.finish();
}

#[test]
fn names_of_255_bytes_are_hidden_redirected_and_found_again() {
    let long = |letter: &str| letter.repeat(255);
    let (file, dir) = (long("f"), long("d"));
    // The marks of such names may be too long for a name of their own.
    let whiteout = format!(".wh.{}", &long("w")[..251]);
    let below = format!("{file}=x {dir}/{file}=y {}=hidden {}=seen", &long("w")[..251], long("w"));
    let bed = Bed::new(&[&format!("{whiteout}= {dir}/a=1"), &below]);
    assert_eq!(bed.list(""), [dir.clone(), file.clone(), long("w")]);
    bed.append(&file, "+").unwrap();
    bed.rename(&dir, &long("e")).unwrap();
    bed.unlink(&long("w")).unwrap();
    bed.rename(&file, &format!("{}/{}", long("e"), long("g"))).unwrap();
    assert_eq!(errno(bed.mkdir(&"n".repeat(256))), Errno::NAMETOOLONG);
    let bed = bed.check_lasting();
    assert_eq!(bed.list(""), [long("e")]);
    assert_eq!(bed.read(&format!("{}/{}", long("e"), long("g"))), "x+");
}

/// Makes so many names in `dir`, of one file.
fn fill(dir: &Path, count: usize) {
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join("n0"), "x").unwrap();
    for number in 1..count {
        fs::hard_link(dir.join("n0"), dir.join(format!("n{number}"))).unwrap();
    }
}

fn list_a_directory_of(count: usize) {
    let Some(memory) = in_memory() else {
        eprintln!("SKIPPED: a directory of {count} entries (no tmpfs with user attributes in /dev/shm)");
        return;
    };
    let path = |name: &str| memory.path().join(name);
    fill(&path("0/d"), count);
    build(&path("0"), "alone/f=x");
    fs::create_dir(path("1")).unwrap();
    build(&path("1"), "d/n1=hidden d/other=y");
    for name in ["upper", "work"] {
        fs::create_dir(path(name)).unwrap();
    }
    let config = Config {
        lowers: vec![path("0"), path("1")],
        upper: Some(path("upper")),
        work: Some(path("work")),
        userxattr: Some(true),
        fsync: false,
        ..Config::default()
    };
    let overlay = Overlay::open(&config).unwrap();
    let dir = overlay.lookup(ROOT, b"d").unwrap().unwrap().ino;
    let list = || {
        let mut seen = vec![false; count];
        let mut others = Vec::new();
        let listed = overlay.read_dir(dir, 0, false, |entry| {
            let number: Option<usize> =
                std::str::from_utf8(entry.name).unwrap().strip_prefix('n').and_then(|n| n.parse().ok());
            match number {
                Some(number) if seen.get(number) == Some(&false) => seen[number] = true,
                _ => others.push(entry.name.to_vec()),
            }
            false
        });
        listed.unwrap();
        others.sort();
        (seen.iter().filter(|seen| **seen).count(), others)
    };
    let names = |names: &[&str]| names.iter().map(|name| name.as_bytes().to_vec()).collect::<Vec<_>>();
    assert_eq!(list(), (count, names(&[".", "..", "other"])));
    for number in [0, count / 2, count - 1] {
        assert!(overlay.lookup(dir, format!("n{number}").as_bytes()).unwrap().is_some());
    }
    overlay.unlink(dir, b"n7").unwrap();
    let (_, opened) = overlay.create(dir, b"made", 0o644, 0, OFlags::WRONLY, us()).unwrap();
    overlay.release(opened.file).unwrap();
    assert_eq!(list(), (count - 1, names(&[".", "..", "made", "other"])));
    assert_eq!(errno(overlay.rmdir(ROOT, b"d")), Errno::NOTEMPTY);
    overlay.close();
}

#[test]
fn a_directory_of_100_000_entries_is_listed_whole() {
    list_a_directory_of(100_000);
}

#[test]
#[ignore = "takes a minute in debug builds: a directory of a million entries"]
fn a_directory_of_a_million_entries_is_listed_whole() {
    list_a_directory_of(1_000_000);
}
