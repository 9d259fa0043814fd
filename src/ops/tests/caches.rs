//! The caches, and what is known of inodes.

use super::Bed;
use super::bed::errno;
use crate::config::CacheSizes;
use crate::error::Errno;

const TINY: CacheSizes = CacheSizes { attrs: 1, missing: 1, listings: 1, dirs: 1 };
const NONE: CacheSizes = CacheSizes { attrs: 0, missing: 0, listings: 0, dirs: 0 };

const LAYERS: [&str; 2] = ["d/a=1 d/s/t/u=1 e/f=1 g=1", "d/b=2 d/s/v=2 e/h=2"];

/// A bit of everything.
fn work_on(bed: Bed) -> Vec<String> {
    bed.append("d/s/t/u", "+").unwrap();
    bed.write("d/s/new", "n").unwrap();
    bed.rename("d/s", "s").unwrap();
    bed.rename("s/t", "e/t").unwrap();
    bed.unlink("d/b").unwrap();
    bed.mkdir("d/b").unwrap();
    bed.link("e/f", "d/b/f").unwrap();
    bed.rename("e", "d/e").unwrap();
    bed.rename("d", "x").unwrap();
    bed.rename("x/e/t/u", "u").unwrap();
    bed.symlink("x/e/l", "y").unwrap();
    assert_eq!(bed.read("x/b/f"), "1");
    bed.check_lasting().tree()
}

#[test]
fn attributes_of_what_is_gone_are_not_told_of_who_gets_its_number() {
    let bed = Bed::new(&["g=x"]);
    let (attr, file) = bed.create("f", rustix::fs::OFlags::WRONLY).unwrap();
    bed.unlink("f").unwrap();
    // With gathered writes, the kernel has times set of what has no name any more.
    assert_eq!(bed.overlay.getattr(attr.ino).unwrap().nlink, 0);
    assert!(bed.overlay.caches.attrs.get(attr.ino).is_some());
    bed.overlay.release(file).unwrap();
    bed.forget_all();
    assert_eq!(bed.overlay.caches.attrs.get(attr.ino), None);
}

#[test]
fn everything_works_with_caches_of_one_entry() {
    let expected = work_on(Bed::new(&LAYERS));
    for sizes in [TINY, NONE] {
        assert_eq!(work_on(Bed::with(&LAYERS, |config| config.cache = sizes)), expected, "{sizes:?}");
    }
}

#[test]
fn caches_stay_within_their_sizes() {
    let words: String = (0..100).map(|n| format!("d{n}/f{n}=x ")).collect();
    let sizes = CacheSizes { attrs: 5, missing: 6, listings: 7, dirs: 8 };
    let bed = Bed::with(&[&words], |config| config.cache = sizes);
    bed.tree();
    for n in 0..100 {
        assert!(!bed.exists(&format!("d{n}/missing")));
        bed.write(&format!("d{n}/new"), "").unwrap();
    }
    let caches = bed.overlay.caches();
    assert!(caches.attrs.len() <= 5 && caches.dirs.len() <= 8);
    assert!(caches.listings.names() <= 7);
    bed.tree();
}

#[test]
fn repeated_questions_are_answered_from_the_caches() {
    let bed = Bed::new(&LAYERS);
    let ask = || {
        bed.attr("d/s/t/u").unwrap();
        bed.list("d");
        assert!(!bed.exists("d/missing"));
    };
    ask();
    let caches = bed.overlay.caches();
    let misses =
        || (caches.attrs.counter().misses(), caches.names.counter().misses(), caches.listings.counter.misses());
    let (hits, before) =
        ((caches.attrs.counter().hits(), caches.names.counter().hits(), caches.listings.counter.hits()), misses());
    ask();
    ask();
    assert_eq!(misses(), before);
    assert!(caches.attrs.counter().hits() > hits.0);
    assert!(caches.names.counter().hits() >= hits.1 + 10);
    assert_eq!(caches.listings.counter.hits(), hits.2 + 2);
    assert!(bed.overlay.summary().contains("hits"), "{}", bed.overlay.summary());
}

#[test]
fn a_name_known_to_be_missing_is_found_once_it_is_made() {
    let bed = Bed::new(&LAYERS);
    type Make = fn(&Bed, &str);
    let ways: [Make; 7] = [
        |bed, path| bed.write(path, "x").unwrap(),
        |bed, path| _ = bed.mkdir(path).unwrap(),
        |bed, path| _ = bed.symlink(path, "t").unwrap(),
        |bed, path| _ = bed.mknod(path, libc::S_IFIFO, (0, 0)).unwrap(),
        |bed, path| _ = bed.link("g", path).unwrap(),
        |bed, path| bed.rename("d/a", path).unwrap(),
        |bed, path| bed.rename("d/s", path).unwrap(),
    ];
    for (way, make) in ways.into_iter().enumerate() {
        let path = format!("e/n{way}");
        for _ in 0..2 {
            assert!(!bed.exists(&path));
        }
        make(&bed, &path);
        assert!(bed.exists(&path), "way {way}");
        assert!(bed.list("e").contains(&format!("n{way}")), "way {way}");
    }
    for gone in ["d/a", "d/s", "d/s/v"] {
        assert!(!bed.exists(gone));
    }
    bed.rename("e/n6", "d/s").unwrap();
    assert!(bed.exists("d/s/v"));
    bed.check_lasting();
}

#[test]
fn what_is_forgotten_leaves_nothing_behind() {
    let bed = Bed::new(&LAYERS);
    assert!(bed.overlay.summary().starts_with("1 inodes known, 0 files open"));
    bed.append("d/s/t/u", "+").unwrap();
    bed.rename("d", "x").unwrap();
    bed.unlink("x/a").unwrap();
    bed.link("g", "x/g").unwrap();
    bed.tree();
    assert!(bed.overlay.table.len() > 5);
    bed.forget_all();
    assert!(bed.overlay.summary().starts_with("1 inodes known, 0 files open"), "{}", bed.overlay.summary());
    assert!(bed.overlay.copy_ups.lock().is_empty());
    // All of it is found again.
    assert_eq!(bed.read("x/s/t/u"), "1+");
    bed.check_lasting();
}

#[test]
fn a_forgotten_directory_is_reached_by_what_is_still_known_in_it() {
    let bed = Bed::with(&LAYERS, |config| config.cache = TINY);
    let file = bed.ino("d/s/t/u");
    let dirs = ["d", "d/s", "d/s/t"].map(|path| bed.ino(path));
    bed.overlay.table.look_up(bed.overlay.inode(file).unwrap());
    bed.forget_all();
    for dir in dirs {
        assert_eq!(errno(bed.overlay.getattr(dir)), Errno::STALE);
    }
    let set = crate::ops::SetAttr { mode: Some(0o600), ..Default::default() };
    bed.overlay.setattr(file, &set, None, super::bed::us()).unwrap();
    assert_eq!(bed.attr("d/s/t/u").unwrap().mode & 0o777, 0o600);
    bed.rename("d/s", "s").unwrap();
    bed.overlay.setattr(file, &crate::ops::SetAttr { mode: Some(0o611), ..set }, None, super::bed::us()).unwrap();
    assert_eq!(bed.attr("s/t/u").unwrap().mode & 0o777, 0o611);
    bed.overlay.forget(file, 1);
    bed.check_lasting();
}

#[test]
fn attributes_are_fresh_after_every_change() {
    let bed = Bed::new(&LAYERS);
    let attr = |path: &str| bed.attr(path).unwrap();
    attr("d/a");
    bed.append("d/a", "12").unwrap();
    assert_eq!(attr("d/a").size, 3);
    bed.truncate("d/a", 1).unwrap();
    assert_eq!(attr("d/a").size, 1);
    bed.chmod("d/a", 0o640).unwrap();
    assert_eq!(attr("d/a").mode & 0o777, 0o640);
    bed.link("d/a", "d/z").unwrap();
    assert_eq!((attr("d/a").nlink, attr("d/z").nlink), (2, 2));
    bed.unlink("d/a").unwrap();
    assert_eq!(attr("d/z").nlink, 1);
    bed.mkdir("new").unwrap();
    bed.mkdir("new/sub").unwrap();
    assert_eq!(attr("new").nlink, 3);
    bed.rename("new/sub", "sub").unwrap();
    assert_eq!(attr("new").nlink, 2);
    bed.rename("sub", "new/sub").unwrap();
    bed.rmdir("new/sub").unwrap();
    assert_eq!(attr("new").nlink, 2);
}

#[test]
fn names_of_lower_directories_are_learned_where_many_are_missing() {
    let bed = Bed::new(&["d/a=1 d/.wh.c= d/.wh.gone=", "d/b=2 d/c=2 d/gone/x=1 e=1"]);
    for n in 0..4 {
        assert!(!bed.exists(&format!("d/missing{n}")));
    }
    let below = &bed.overlay.caches().below;
    // Three in the upper of the two, of which two are whiteouts; three below.
    assert_eq!(below.names(), 6);
    assert!(!bed.exists("d/other") && !bed.exists("d/c") && !bed.exists("d/gone"));
    assert_eq!((bed.read("d/a"), bed.read("d/b")), ("1".to_owned(), "2".to_owned()));
    bed.write("d/c", "3").unwrap();
    bed.mkdir("d/gone").unwrap();
    assert!(!bed.exists("d/gone/x"));
    bed.rename("d/a", "d/other").unwrap();
    bed.unlink("d/b").unwrap();
    bed.check_lasting();
}

#[test]
fn a_long_lower_directory_is_learned_when_more_names_are_missing() {
    let words: String = (0..300).map(|n| format!("d/f{n}= ")).collect();
    let bed = Bed::new(&[&words]);
    let below = &bed.overlay.caches().below;
    for n in 0..7 {
        assert!(!bed.exists(&format!("d/missing{n}")));
    }
    assert_eq!(below.names(), 0);
    assert!(!bed.exists("d/missing") && bed.exists("d/f299"));
    assert_eq!(below.names(), 300);
}
