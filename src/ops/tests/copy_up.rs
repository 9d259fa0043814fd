//! Copy-up: what a copy takes along, and when it is made.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::{Arc, Barrier};
use std::thread;

use rustix::fs::OFlags;

use super::Bed;
use super::bed::{errno, get_xattr, set_xattr, us};
use super::view;
use crate::attr::{Kind, Time};
use crate::error::Errno;
use crate::ops::SetAttr;
use crate::times::NewTime;

/// Gives a path of a layer odd times, with nanoseconds.
fn set_times(path: &std::path::Path, sec: i64) -> (Time, Time) {
    let (atime, mtime) = (Time { sec, nsec: 123_456_789 }, Time { sec: sec + 1, nsec: 987_654_321 });
    let times = crate::times::exact(atime, mtime);
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
    (atime, mtime)
}

fn times(bed: &Bed, path: &str) -> (Time, Time) {
    let attr = bed.attr(path).unwrap();
    (attr.atime, attr.mtime)
}

#[test]
fn looking_reading_and_listing_copy_nothing_up() {
    let bed = Bed::new(&["d/f=x d/l->f"]);
    bed.tree();
    let file = bed.open_file("d/f", OFlags::RDONLY).unwrap();
    assert_eq!(bed.read_open(file), "x");
    bed.overlay.release(file).unwrap();
    assert_eq!(bed.upper(), Vec::<String>::new());
}

#[test]
fn every_change_copies_up_the_object_and_its_parents_and_nothing_else() {
    type Change = fn(&Bed);
    let changes: [(&str, Change); 9] = [
        ("open for writing", |bed| {
            let file = bed.open_file("a/b/f", OFlags::WRONLY).unwrap();
            bed.overlay.release(file).unwrap();
        }),
        ("truncate", |bed| _ = bed.truncate("a/b/f", 1).unwrap()),
        ("chmod", |bed| _ = bed.chmod("a/b/f", 0o600).unwrap()),
        ("touch", |bed| {
            bed.setattr("a/b/f", SetAttr { mtime: Some(NewTime::Now), ..SetAttr::default() }).unwrap();
        }),
        ("chown", |bed| {
            bed.setattr("a/b/f", SetAttr { gid: Some(us().gid), ..SetAttr::default() }).unwrap();
        }),
        ("setxattr", |bed| bed.set_xattr("a/b/f", "user.x", "y").unwrap()),
        ("link", |bed| _ = bed.link("a/b/f", "a/b/g").unwrap()),
        ("rename", |bed| bed.rename("a/b/f", "a/b/g").unwrap()),
        ("fallocate", |bed| {
            let file = bed.open_file("a/b/f", OFlags::RDWR).unwrap();
            bed.overlay.fallocate(file, 0, 10, 0, us()).unwrap();
            bed.overlay.release(file).unwrap();
        }),
    ];
    for (what, change) in changes {
        let bed = Bed::new(&["a/b/f=content a/b/other=x a/sibling=x top=x"]);
        change(&bed);
        let upper = bed.upper();
        assert!(upper.iter().any(|line| line.starts_with("a/b/f ") || line.starts_with("a/b/g ")), "{what}: {upper:?}");
        assert!(!upper.iter().any(|line| line.contains("other") || line.contains("sibling") || line.contains("top")));
    }
}

#[test]
fn a_copy_has_the_mode_times_and_attributes_of_its_source() {
    for mode in [0o600, 0o4755, 0o2755, 0o1777, 0o444, 0o555, 0o000] {
        let lower = format!("d/ d/f=content d/f@user.one=1 d/f@user.two= d/f%{mode:o}");
        let bed = Bed::with(&[&lower], |config| {
            let lower = &config.lowers[0];
            if us().uid != 0 && mode == 0 {
                rustix::fs::chmod(lower.join("d/f"), rustix::fs::Mode::RUSR).unwrap();
            }
            set_times(&lower.join("d/f"), 1_000_000_000);
            set_times(&lower.join("d"), 900_000_000);
        });
        let before = bed.attr("d/f").unwrap();
        bed.link("d/f", "d/other").unwrap();
        bed.overlay.caches.attrs.clear();
        let after = bed.attr("d/f").unwrap();
        assert_eq!((after.mode, after.uid, after.gid), (before.mode, before.uid, before.gid), "{mode:o}");
        assert_eq!((after.size, after.nlink), (7, 2));
        assert_eq!((after.mtime, after.atime), (before.mtime, before.atime));
        assert_eq!(bed.xattr("d/f", "user.one").unwrap(), "1");
        assert_eq!(bed.xattr("d/f", "user.two").unwrap(), "");
        assert_eq!(fs::metadata(bed.path("upper/d/f")).unwrap().mode() & 0o7777, before.mode & 0o7777);
    }
}

#[test]
fn hard_links_of_a_file_that_may_not_be_written_are_copied_up_and_counted() {
    for mode in [0o444, 0o400] {
        let bed = Bed::new(&[&format!("a=x b==a a%{mode:o}")]);
        bed.rename("a", "c").unwrap();
        bed.link("b", "d").unwrap();
        assert_eq!(bed.attr("b").unwrap().nlink, 3);
        bed.unlink("c").unwrap();
        let bed = bed.reopen();
        assert_eq!((bed.attr("b").unwrap().nlink, bed.attr("d").unwrap().mode & 0o777), (2, mode));
        assert_eq!(bed.ino("b"), bed.ino("d"));
    }
}

#[test]
fn times_keep_their_nanoseconds_also_those_of_the_parents() {
    let bed = Bed::with(&["a/b/f=x"], |config| {
        for (path, sec) in [("a/b/f", 1_111_111_111), ("a/b", -5), ("a", 4_000_000_000), (".", 77)] {
            set_times(&config.lowers[0].join(path), sec);
        }
        set_times(config.upper.as_ref().unwrap(), 66);
    });
    let paths = ["a/b/f", "a/b", "a", ""];
    let before = paths.map(|path| times(&bed, path));
    bed.chmod("a/b/f", 0o611).unwrap();
    bed.overlay.caches.attrs.clear();
    assert_eq!(paths.map(|path| times(&bed, path)), before);
    let bed = bed.reopen();
    assert_eq!(paths.map(|path| times(&bed, path)), before);
}

#[test]
fn a_directory_is_copied_up_with_its_mode_and_attributes_but_without_its_entries() {
    let bed = Bed::new(&["d/f=x d/g=x d%2750 d@user.dir=yes"]);
    bed.write("d/new", "n").unwrap();
    let upper = bed.path("upper/d");
    assert_eq!(fs::metadata(&upper).unwrap().mode() & 0o7777, 0o2750);
    assert_eq!(get_xattr(&upper, "user.dir").as_deref(), Some(&b"yes"[..]));
    assert_eq!(fs::read_dir(&upper).unwrap().count(), 1);
    assert_eq!(bed.list("d"), ["f", "g", "new"]);
}

#[test]
fn symlinks_and_fifos_are_copied_up_as_what_they_are() {
    let bed = Bed::new(&["d/ d/l->no/where d/p| d/p%640"]);
    bed.rename("d/l", "d/l2").unwrap();
    bed.chmod("d/p", 0o600).unwrap();
    assert_eq!(bed.upper()[1..], ["d/l whiteout", "d/l2 -> no/where", "d/p 600 special"]);
    assert_eq!(bed.attr("d/p").unwrap().kind(), Kind::Fifo);
    let bed = bed.check_lasting();
    assert_eq!(bed.readlink("d/l2"), "no/where");
}

#[test]
fn a_symlink_keeps_its_times_over_copy_up() {
    let bed = Bed::with(&["l->x"], |config| _ = set_times(&config.lowers[0].join("l"), 55));
    let before = times(&bed, "l");
    bed.link("l", "l2").unwrap();
    bed.overlay.caches.attrs.clear();
    assert_eq!(times(&bed, "l2"), before);
}

/// An ACL with an entry for the user 12345.
fn acl() -> Vec<u8> {
    let entries: [(u16, u16, u32); 5] =
        [(1, 6, u32::MAX), (2, 7, 12345), (4, 4, u32::MAX), (16, 7, u32::MAX), (32, 0, u32::MAX)];
    let mut value = 2_u32.to_le_bytes().to_vec();
    for (tag, perm, id) in entries {
        value.extend(tag.to_le_bytes());
        value.extend(perm.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    value
}

#[test]
fn acls_are_kept_over_copy_up() {
    let bed = Bed::with(&["f=x d/f=x"], |config| {
        set_xattr(&config.lowers[0].join("f"), "system.posix_acl_access", &acl());
        set_xattr(&config.lowers[0].join("d"), "system.posix_acl_default", &acl());
    });
    bed.append("f", "y").unwrap();
    bed.append("d/f", "y").unwrap();
    assert_eq!(get_xattr(&bed.path("upper/f"), "system.posix_acl_access"), Some(acl()));
    assert_eq!(get_xattr(&bed.path("upper/d"), "system.posix_acl_default"), Some(acl()));
    assert_eq!(bed.overlay.getxattr(bed.ino("f"), b"system.posix_acl_access").unwrap(), acl());
}

#[test]
fn holes_are_kept_on_copy_up() {
    const SIZE: u64 = 64 << 20;
    let bed = Bed::with(&["sparse="], |config| {
        let file = File::options().write(true).open(config.lowers[0].join("sparse")).unwrap();
        file.write_all_at(b"start", 0).unwrap();
        file.write_all_at(b"middle", SIZE / 2).unwrap();
        file.set_len(SIZE).unwrap();
    });
    bed.chmod("sparse", 0o600).unwrap();
    let (lower, upper) =
        (fs::metadata(bed.path("lower0/sparse")).unwrap(), fs::metadata(bed.path("upper/sparse")).unwrap());
    assert_eq!(upper.len(), SIZE);
    assert!(upper.blocks() <= lower.blocks(), "{} blocks of {}", upper.blocks(), lower.blocks());
    assert!(fs::read(bed.path("lower0/sparse")).unwrap() == fs::read(bed.path("upper/sparse")).unwrap());
}

#[test]
fn a_reader_that_opened_before_the_copy_up_sees_the_new_data() {
    let bed = Bed::new(&["f=old"]);
    let reader = bed.open_file("f", OFlags::RDONLY).unwrap();
    assert_eq!(bed.read_open(reader), "old");
    bed.append("f", "+new").unwrap();
    assert_eq!(bed.read_open(reader), "old+new");
    bed.write("f", "other").unwrap();
    assert_eq!(bed.read_open(reader), "other");
    bed.overlay.release(reader).unwrap();
}

#[test]
fn appending_through_a_second_handle_never_writes_the_lower_file() {
    let bed = Bed::new(&["f=low"]);
    let reader = bed.open_file("f", OFlags::RDONLY).unwrap();
    let writer = bed.open_file("f", OFlags::WRONLY | OFlags::APPEND).unwrap();
    bed.overlay.write(writer, 3, b"er", true, us()).unwrap();
    assert_eq!(errno(bed.overlay.write(reader, 0, b"no", true, us())), Errno::BADF);
    assert_eq!(bed.read_open(reader), "lower");
    for file in [reader, writer] {
        bed.overlay.release(file).unwrap();
    }
    assert_eq!(fs::read(bed.path("lower0/f")).unwrap(), b"low");
}

#[test]
fn an_open_lower_file_that_was_removed_is_still_copied_up_and_written() {
    let bed = Bed::new(&["d/f=lower"]);
    let ino = bed.ino("d/f");
    let reader = bed.open_file("d/f", OFlags::RDONLY).unwrap();
    bed.unlink("d/f").unwrap();
    assert_eq!(bed.read_open(reader), "lower");
    assert_eq!(bed.overlay.getattr(ino).unwrap().nlink, 0);
    // As by /proc/self/fd.
    let writer = bed.overlay.open_file(ino, OFlags::RDWR, us()).unwrap().file;
    bed.overlay.write(writer, 5, b"+", true, us()).unwrap();
    assert_eq!((bed.read_open(writer), bed.read_open(reader)), ("lower+".into(), "lower+".into()));
    let attr = bed.overlay.getattr(ino).unwrap();
    assert_eq!((attr.nlink, attr.size, attr.ino), (0, 6, ino));
    assert!(!bed.exists("d/f"));
    for file in [reader, writer] {
        bed.overlay.release(file).unwrap();
    }
    bed.check_lasting();
}

#[test]
fn truncating_open_copies_no_data_and_leaves_what_is_written() {
    let bed = Bed::new(&["f=long-content"]);
    let file = bed.open_file("f", OFlags::WRONLY | OFlags::TRUNC).unwrap();
    assert_eq!(bed.attr("f").unwrap().size, 0);
    bed.overlay.write(file, 0, b"ab", true, us()).unwrap();
    bed.overlay.release(file).unwrap();
    assert_eq!(bed.read("f"), "ab");
    bed.check_lasting();
}

#[test]
fn a_copy_up_that_fails_leaves_nothing_and_the_next_one_works() {
    let bed = Bed::new(&["d/f=content"]);
    bed.ino("d/f");
    // The upper loses what the copy is to go to, behind the overlay's back.
    bed.mkdir("d/made").unwrap();
    fs::rename(bed.path("upper/d"), bed.path("upper/away")).unwrap();
    bed.overlay.caches.dirs.clear();
    assert!(bed.append("d/f", "+").is_err());
    assert_eq!(view::dump(&bed.path("work/work")), Vec::<String>::new());
    fs::rename(bed.path("upper/away"), bed.path("upper/d")).unwrap();
    bed.append("d/f", "+").unwrap();
    assert_eq!(bed.read("d/f"), "content+");
}

#[test]
fn copy_up_by_many_threads_at_once_happens_once() {
    const THREADS: usize = 8;
    let big = "x".repeat(200_000);
    for round in 0..5 {
        let bed = Bed::new(&[&format!("a/b/f={big}")]);
        let ino = bed.ino("a/b/f");
        let barrier = Barrier::new(THREADS);
        thread::scope(|scope| {
            for number in 0..THREADS {
                let (overlay, barrier) = (Arc::clone(&bed.overlay), &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    let file = overlay.open_file(ino, OFlags::RDWR, us()).unwrap().file;
                    let offset = (number * 10) as u64;
                    assert_eq!(overlay.write(file, offset, format!("{number}").as_bytes(), true, us()).unwrap(), 1);
                    overlay.release(file).unwrap();
                });
            }
        });
        let content = bed.read("a/b/f");
        assert_eq!(content.len(), big.len(), "round {round}");
        for number in 0..THREADS {
            assert_eq!(content[number * 10..=number * 10], format!("{number}"), "round {round}");
        }
        assert_eq!(view::dump(&bed.path("work/work")), Vec::<String>::new());
        assert!(bed.overlay.copy_ups.lock().is_empty());
    }
}

#[test]
fn other_operations_do_not_wait_for_a_copy_up() {
    let bed = Bed::new(&["d/big=big d/other=x d/sub/f=x"]);
    let big = bed.ino("d/big");
    let reader = bed.open_file("d/big", OFlags::RDONLY).unwrap();
    // As long as this is held, a copy-up of the file does not end.
    let gate = Arc::clone(bed.overlay.copy_ups.lock().entry(big).or_default());
    let running = gate.lock();
    let overlay = Arc::clone(&bed.overlay);
    let writer = thread::spawn(move || {
        let set = SetAttr { mode: Some(0o600), ..SetAttr::default() };
        overlay.setattr(big, &set, None, us()).unwrap();
    });
    // The map, this function and the thread that waits.
    while Arc::strong_count(&gate) < 3 {
        thread::yield_now();
    }
    thread::scope(|scope| {
        // By a thread that does not hold it.
        let others = scope.spawn(|| {
            assert_eq!(bed.attr("d/big").unwrap().size, 3);
            assert_eq!(bed.read_open(reader), "big");
            assert_eq!(bed.read("d/other"), "x");
            assert_eq!(bed.list("d"), ["big", "other", "sub"]);
            bed.write("d/new", "new").unwrap();
            bed.append("d/other", "y").unwrap();
            bed.rename("d/other", "d/sub/other").unwrap();
            bed.rename("d/sub", "sub").unwrap();
            bed.unlink("d/new").unwrap();
        });
        others.join().unwrap();
    });
    assert!(!writer.is_finished());
    drop(running);
    drop(gate);
    writer.join().unwrap();
    assert_eq!(bed.attr("d/big").unwrap().mode & 0o777, 0o600);
    bed.overlay.release(reader).unwrap();
    bed.check_lasting();
}

#[test]
fn the_parents_of_a_copy_are_marked_impure_and_the_copy_has_an_origin() {
    let bed = Bed::new(&["a/b/f=x"]);
    bed.chmod("a/b/f", 0o600).unwrap();
    for (path, mark) in [("upper", "impure"), ("upper/a", "impure"), ("upper/a/b", "impure")] {
        assert_eq!(get_xattr(&bed.path(path), &format!("user.overlay.{mark}")).as_deref(), Some(&b"y"[..]), "{path}");
    }
    for path in ["upper/a", "upper/a/b", "upper/a/b/f"] {
        let origin = get_xattr(&bed.path(path), "user.overlay.origin").unwrap();
        assert_eq!(origin[..2], [0, 0xfb], "{path}");
    }
}

#[test]
fn who_watches_is_told_of_what_was_copied_up() {
    let bed = Bed::new(&["d/f=x"]);
    let told = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let list = Arc::clone(&told);
    bed.overlay.watch(move |ino, _| list.lock().push(ino));
    let (d, f) = (bed.ino("d"), bed.ino("d/f"));
    bed.chmod("d/f", 0o600).unwrap();
    assert_eq!(*told.lock(), [d, f]);
}

#[test]
fn a_copied_up_file_survives_many_reopens() {
    let mut bed = Bed::new(&["d/f=0"]);
    for round in 1..6 {
        bed.append("d/f", &round.to_string()).unwrap();
        bed = bed.reopen();
    }
    assert_eq!(bed.read("d/f"), "012345");
}
