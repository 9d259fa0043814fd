//! Listing directories.

use std::collections::HashSet;

use super::Bed;
use super::view::{self, read_dir, text};
use crate::config::WhiteoutStyle;

fn names(entries: &[view::Listed]) -> Vec<String> {
    let mut names: Vec<String> = entries.iter().map(|entry| text(&entry.name)).collect();
    names.retain(|name| name != "." && name != "..");
    names.sort();
    names
}

/// A lower layer with `count` files in `d`.
fn many(count: usize) -> String {
    (0..count).map(|n| format!("d/f{n:04}= ")).collect()
}

#[test]
fn three_thousand_entries_are_listed_once_each_in_parts_of_any_size() {
    let lower = many(3000);
    let bed = Bed::new(&["d/f0001=above d/.wh.f0002= d/only=x", &lower]);
    bed.unlink("d/f0003").unwrap();
    bed.append("d/f0004", "x").unwrap();
    let ino = bed.ino("d");
    let whole = view::entries(&bed.overlay, ino);
    assert_eq!(whole.len(), 3000 + 1 - 2);
    assert_eq!(whole.iter().map(|entry| &entry.name).collect::<HashSet<_>>().len(), whole.len());
    for part in [1, 7, 100, 2999] {
        let dir = ino;
        let (mut offset, mut seen) = (0, Vec::new());
        loop {
            let entries = read_dir(&bed.overlay, dir, offset, part);
            let Some(last) = entries.last() else { break };
            offset = last.next;
            seen.extend(entries);
        }
        assert_eq!(seen[2..], whole, "in parts of {part}");
    }
}

#[test]
fn every_offset_resumes_where_it_says() {
    let bed = Bed::new(&[&many(20), "d/x=x d/y=x"]);
    let dir = bed.ino("d");
    let whole = read_dir(&bed.overlay, dir, 0, usize::MAX);
    for (place, entry) in whole.iter().enumerate() {
        assert_eq!(read_dir(&bed.overlay, dir, entry.next, usize::MAX), whole[place + 1..]);
    }
    for offset in [1 << 62, 1 << 63, u64::MAX - 1, u64::MAX] {
        assert_eq!(read_dir(&bed.overlay, dir, offset, 10), []);
    }
}

#[test]
fn a_listing_is_stable_while_its_entries_are_removed() {
    for style in [WhiteoutStyle::Device, WhiteoutStyle::Xattr, WhiteoutStyle::DotFile] {
        let bed = Bed::with(&[&many(500)], |config| config.whiteouts = Some(style));
        for n in 0..250 {
            bed.write(&format!("d/u{n}"), "").unwrap();
        }
        let dir = bed.ino("d");
        let (mut offset, mut seen) = (0, Vec::new());
        loop {
            let entries = read_dir(&bed.overlay, dir, offset, 10);
            let Some(last) = entries.last() else { break };
            offset = last.next;
            for name in names(&entries) {
                bed.unlink(&format!("d/{name}")).unwrap();
                seen.push(name);
            }
        }
        assert_eq!(seen.len(), 750, "{style:?}");
        assert_eq!(seen.iter().collect::<HashSet<_>>().len(), 750);
        bed.rmdir("d").unwrap();
        bed.check_lasting();
    }
}

#[test]
fn a_rewound_listing_sees_what_is_there_now() {
    let bed = Bed::new(&["d/a= d/b="]);
    let dir = bed.ino("d");
    let begun = read_dir(&bed.overlay, dir, 0, 3);
    bed.write("d/c", "").unwrap();
    bed.unlink("d/a").unwrap();
    bed.rename("d/b", "d/z").unwrap();
    let rest = read_dir(&bed.overlay, dir, begun.last().unwrap().next, 99);
    assert_eq!(names(&[begun, rest].concat()), ["a", "b"], "gone on with");
    assert_eq!(names(&read_dir(&bed.overlay, dir, 0, 99)), ["c", "z"], "rewound");
    assert_eq!(bed.list("d"), ["c", "z"]);
}

#[test]
fn entries_made_during_a_listing_disturb_no_other() {
    let bed = Bed::new(&[&many(100)]);
    let dir = bed.ino("d");
    let first = read_dir(&bed.overlay, dir, 0, 50);
    for n in 0..100 {
        bed.write(&format!("d/new{n}"), "").unwrap();
    }
    let rest = read_dir(&bed.overlay, dir, first.last().unwrap().next, usize::MAX);
    assert_eq!(names(&[first, rest].concat()).iter().filter(|name| name.starts_with('f')).count(), 100);
}

#[test]
fn a_listing_with_attributes_counts_one_lookup_for_each_entry_that_was_taken() {
    let bed = Bed::new(&["d/a=1 d/b=22 d/c=333 d/l->x", "d/s/x="]);
    let dir_ino = bed.ino("d");
    let known = bed.overlay.table.len();
    let dir = dir_ino;
    let (mut seen, mut offered) = (Vec::new(), 0);
    bed.overlay
        .read_dir(dir, 0, true, |entry| {
            offered += 1;
            if seen.len() == 3 {
                return true;
            }
            if let Some(attr) = entry.attr {
                assert_eq!((attr.ino, attr.kind()), (entry.ino, entry.kind));
                seen.push(attr.ino);
            } else {
                assert!(matches!(entry.name, b"." | b".."));
            }
            false
        })
        .unwrap();
    assert_eq!((seen.len(), offered), (3, 6));
    assert_eq!(bed.overlay.table.len(), known + 3, "the entry that was not taken is not known");
    for ino in seen {
        bed.overlay.forget(ino, 1);
    }
    assert_eq!(bed.overlay.table.len(), known);
}

#[test]
fn an_entry_removed_since_is_left_out_of_a_listing_with_attributes() {
    let bed = Bed::new(&["d/a=1 d/b=2 d/c=3"]);
    let dir = bed.ino("d");
    read_dir(&bed.overlay, dir, 0, 1);
    bed.unlink("d/b").unwrap();
    let mut seen = Vec::new();
    bed.overlay
        .read_dir(dir, 1, true, |entry| {
            seen.push(text(entry.name));
            false
        })
        .unwrap();
    seen.sort();
    assert_eq!(seen, ["..", "a", "c"]);
}

#[test]
fn two_who_list_one_directory_are_told_of_each_entry_once() {
    let bed = Bed::new(&["d/a= d/b= d/c="]);
    let dir = bed.ino("d");
    let first = read_dir(&bed.overlay, dir, 0, 3);
    bed.write("d/new", "").unwrap();
    assert_eq!(names(&read_dir(&bed.overlay, dir, 0, 99)), ["a", "b", "c", "new"]);
    // The other one has come to the end.
    assert_eq!(read_dir(&bed.overlay, dir, u64::MAX, 99), []);
    let rest = read_dir(&bed.overlay, dir, first.last().unwrap().next, 99);
    let mut all = names(&[first, rest].concat());
    all.retain(|name| name != "new");
    assert_eq!(all, ["a", "b", "c"]);
}

#[test]
fn a_directory_too_long_to_be_kept_is_scanned_once_for_all_its_parts() {
    let bed = Bed::with(&[&many(300)], |config| config.cache.listings = 10);
    let dir = bed.ino("d");
    let (mut offset, mut count) = (0, 0);
    loop {
        let entries = read_dir(&bed.overlay, dir, offset, 10);
        let Some(last) = entries.last() else { break };
        (offset, count) = (last.next, count + entries.len());
        bed.unlink(&format!("d/{}", text(&last.name))).unwrap();
    }
    assert_eq!(count, 302);
    assert_eq!(bed.overlay.caches.listings.counter.misses(), 1);
}

#[test]
fn names_are_bytes() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let odd: [&[u8]; 5] = [b"\xff\xfe", b"new\nline", b"tab\t", b" ", b"\xe4\xb8"];
    let bed = Bed::with(&["d/x="], |config| {
        for name in odd {
            std::fs::write(config.lowers[0].join("d").join(OsStr::from_bytes(name)), name).unwrap();
        }
    });
    let dir = bed.ino("d");
    for name in odd {
        let attr = bed.overlay.lookup(dir, name).unwrap().unwrap();
        assert_eq!(view::content(&bed.overlay, attr.ino), name);
        bed.overlay.rename(dir, name, dir, &[name, b"\xfd"].concat(), rustix::fs::RenameFlags::empty()).unwrap();
    }
    let mut listed: Vec<Vec<u8>> = view::entries(&bed.overlay, dir).into_iter().map(|entry| entry.name).collect();
    listed.sort();
    let mut expected: Vec<Vec<u8>> = odd.iter().map(|name| [name, &b"\xfd"[..]].concat()).collect();
    expected.push(b"x".to_vec());
    expected.sort();
    assert_eq!(listed, expected);
    bed.check_lasting();
}
