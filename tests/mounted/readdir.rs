//! Listing directories.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::io::Errno;

use crate::common::*;

/// A directory stream of the C library, for telldir and seekdir.
struct Stream(*mut libc::DIR);

impl Stream {
    fn open(path: &Path) -> Self {
        let path = CString::new(path.as_os_str().as_bytes()).unwrap();
        let stream = unsafe { libc::opendir(path.as_ptr()) };
        assert!(!stream.is_null());
        Self(stream)
    }

    fn next(&mut self) -> Option<String> {
        let entry = unsafe { libc::readdir64(self.0) };
        (!entry.is_null())
            .then(|| unsafe { std::ffi::CStr::from_ptr((*entry).d_name.as_ptr()) }.to_string_lossy().into_owned())
    }

    fn position(&mut self) -> libc::c_long {
        unsafe { libc::telldir(self.0) }
    }

    fn seek(&mut self, position: libc::c_long) {
        unsafe { libc::seekdir(self.0, position) }
    }

    fn rewind(&mut self) {
        unsafe { libc::rewinddir(self.0) }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        unsafe { libc::closedir(self.0) };
    }
}

fn setup_of_three() -> Setup {
    Setup::new()
        .lower(|l| l.file("d/a", "").file("d/both", "").whiteout("d/gone", Form::Device).dir("d/sub"))
        .lower(|l| l.file("d/b", "").file("d/both", "").file("d/gone", "").dir("d/sub"))
        .upper(|l| l.file("d/u", ""))
}

#[test]
fn no_name_is_listed_twice_and_no_whiteout_at_all() {
    let tree = mount!(setup_of_three());
    let names: Vec<_> = raw_list(tree.path("d")).into_iter().map(|(name, _)| name).collect();
    let set: BTreeSet<_> = names.iter().cloned().collect();
    assert_eq!(names.len(), set.len(), "twice: {names:?}");
    assert_eq!(tree.list("d"), ["a", "b", "both", "sub", "u"]);
}

#[test]
fn dot_and_dot_dot_are_listed_with_their_numbers() {
    let tree = mount!(setup_of_three());
    let list: BTreeMap<_, _> = raw_list(tree.path("d/sub")).into_iter().collect();
    assert_eq!(list[b".".as_slice()], tree.ino("d/sub"));
    assert_eq!(list[b"..".as_slice()], tree.ino("d"));
    let list: BTreeMap<_, _> = raw_list(tree.path("d")).into_iter().collect();
    assert_eq!(list[b".".as_slice()], tree.ino("d"));
    assert_eq!(list[b"..".as_slice()], tree.ino(""));
}

#[test]
fn listed_numbers_are_those_of_stat() {
    let tree = mount!(setup_of_three());
    let check = || {
        for (name, ino) in raw_list(tree.path("d")) {
            if name != b"." && name != b".." {
                let name = String::from_utf8(name).unwrap();
                assert_eq!(ino, tree.ino(format!("d/{name}")), "{name}");
            }
        }
    };
    check();
    tree.append("d/b", "copied up");
    fs::rename(tree.path("d/both"), tree.path("d/renamed")).unwrap();
    fs::create_dir(tree.path("d/new")).unwrap();
    check();
}

#[test]
fn listed_types_are_those_of_the_entries() {
    let tree = mount!(Setup::new().lower(|l| {
        l.file("d/file", "x").dir("d/dir").symlink("d/link", "x").fifo("d/fifo").char_device("d/null", 1, 3)
    }));
    tree.write("d/new", "");
    for entry in fs::read_dir(tree.path("d")).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.file_type().unwrap(), entry.path().symlink_metadata().unwrap().file_type(), "{entry:?}");
    }
}

#[test]
fn rewound_listing_sees_new_entries_and_not_removed_ones() {
    let tree = mount!(setup_of_three());
    let mut stream = Stream::open(&tree.path("d"));
    while stream.next().is_some() {}
    tree.write("d/new", "");
    fs::remove_file(tree.path("d/a")).unwrap();
    stream.rewind();
    let mut names = BTreeSet::new();
    while let Some(name) = stream.next() {
        assert!(names.insert(name));
    }
    assert!(names.contains("new"), "{names:?}");
    assert!(!names.contains("a"), "{names:?}");
}

#[test]
fn listing_sees_what_was_made_and_removed_since_the_last() {
    let tree = mount!(setup_of_three());
    for round in 0..5 {
        let name = format!("d/new{round}");
        tree.write(&name, "");
        assert!(tree.list("d").contains(&format!("new{round}")));
        fs::remove_file(tree.path(&name)).unwrap();
        assert_eq!(tree.list("d"), ["a", "b", "both", "sub", "u"]);
    }
}

#[test]
fn three_thousand_files_removed_while_listed_are_seen_once_each() {
    let tree = mount!(Setup::new().lower(|l| l.files("d", 1500)).upper(|l| {
        for number in 1500..3000 {
            l.file(format!("d/f{number}"), "");
        }
        l
    }));
    let mut seen = BTreeSet::new();
    let mut dir = open_dir(tree.path("d"));
    while let Some(entry) = dir.read() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        if name == "." || name == ".." {
            continue;
        }
        fs::remove_file(tree.path("d").join(&name)).unwrap();
        assert!(seen.insert(name));
    }
    assert_eq!(seen.len(), 3000);
    drop(dir);
    fs::remove_dir(tree.path("d")).unwrap();
}

#[test]
fn entries_made_during_a_listing_disturb_no_other_entry() {
    let tree = mount!(Setup::new().lower(|l| l.files("d", 2000)));
    let mut seen = BTreeSet::new();
    let mut dir = open_dir(tree.path("d"));
    let mut number = 0;
    while let Some(entry) = dir.read() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        if number < 500 {
            tree.write(format!("d/new{number}"), "");
            number += 1;
        }
        assert!(seen.insert(name.clone()), "{name} twice");
    }
    for number in 0..2000 {
        assert!(seen.contains(&format!("f{number}")), "f{number}");
    }
}

#[test]
fn telldir_and_seekdir_come_back_to_every_entry() {
    let tree = mount!(Setup::new().lower(|l| l.files("d", 300)).lower(|l| l.files("d", 200).file("d/x", "")));
    let mut stream = Stream::open(&tree.path("d"));
    let mut positions = Vec::new();
    loop {
        let position = stream.position();
        let Some(name) = stream.next() else { break };
        positions.push((position, name));
    }
    assert_eq!(positions.len(), 303);
    for (position, name) in positions.iter().rev().step_by(7) {
        stream.seek(*position);
        assert_eq!(stream.next().as_ref(), Some(name));
    }
}

#[test]
fn removed_directory_that_is_open_lists_nothing() {
    let tree = mount!(Setup::new().lower(|l| l.dir("lower")));
    fs::create_dir(tree.path("upper")).unwrap();
    for name in ["lower", "upper"] {
        let mut dir = open_dir(tree.path(name));
        fs::remove_dir(tree.path(name)).unwrap();
        let names: Vec<_> = std::iter::from_fn(|| dir.read())
            .map(|entry| entry.unwrap().file_name().to_bytes().to_vec())
            .filter(|name| name != b"." && name != b"..")
            .collect();
        assert_eq!(names, Vec::<Vec<u8>>::new(), "{name}");
    }
}

#[test]
fn large_merged_directory_is_listed_whole() {
    let tree = mount!(Setup::new().lower(|l| l.files("d", 4000)).lower(|l| l.files("d", 5000)));
    assert_eq!(tree.list("d").len(), 5000);
    for number in 0..1000 {
        fs::remove_file(tree.path(format!("d/f{number}"))).unwrap();
    }
    assert_eq!(tree.list("d").len(), 4000);
}

#[test]
fn two_listings_of_one_directory_do_not_disturb_each_other() {
    let tree = mount!(Setup::new().lower(|l| l.files("d", 500)));
    let (mut one, mut two) = (Stream::open(&tree.path("d")), Stream::open(&tree.path("d")));
    let mut counts = (0, 0);
    for _ in 0..100 {
        counts.0 += usize::from(one.next().is_some());
    }
    while two.next().is_some() {
        counts.1 += 1;
    }
    while one.next().is_some() {
        counts.0 += 1;
    }
    assert_eq!(counts, (502, 502));
}

#[test]
fn entry_that_cannot_be_looked_up_is_listed_without_made_up_attributes() {
    plyfs_only!("the kernel's overlayfs fails to list the directory");
    let tree = mount!(Setup::new().lower(|l| {
        l.file("whole", "x").file("metacopy", "").xattr("metacopy", "trusted.overlay.metacopy", "");
        fs::OpenOptions::new().write(true).open(l.path("metacopy")).unwrap().set_len(10_000).unwrap();
        l
    }));
    assert_eq!(tree.list(""), ["metacopy", "whole"]);
    assert_eq!(lstat(tree.path("metacopy")).err(), Some(Errno::PERM));
    assert_eq!(tree.read("whole"), "x");
}
