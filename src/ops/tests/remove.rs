//! Removing things, and what lives on.

use rustix::fs::{OFlags, RenameFlags};

use super::Bed;
use super::bed::{errno, us};
use super::view;
use crate::error::Errno;
use crate::ops::SetAttr;

#[test]
fn a_directory_is_removed_when_it_shows_nothing() {
    let bed = Bed::new(&["d/a=1 d/b=1 e/", "d/c=2 d/.wh.x=", "d/x=3"]);
    for name in ["a", "b", "c"] {
        assert_eq!(errno(bed.rmdir("d")), Errno::NOTEMPTY);
        bed.unlink(&format!("d/{name}")).unwrap();
    }
    bed.rmdir("d").unwrap();
    bed.rmdir("e").unwrap();
    assert_eq!(bed.list(""), Vec::<String>::new());
    bed.check_lasting();
}

#[test]
fn a_removed_directory_holds_nothing_and_takes_nothing() {
    for (lower, what) in [("x=", "new"), ("d/", "lower only"), ("d/f=x d/g/h=x", "merged")] {
        let bed = Bed::new(&[lower, "d/.wh.q="]);
        if !bed.exists("d") {
            bed.mkdir("d").unwrap();
        }
        if what == "merged" {
            bed.unlink("d/f").unwrap();
            bed.unlink("d/g/h").unwrap();
            bed.rmdir("d/g").unwrap();
        }
        let ino = bed.ino("d");
        let file = bed.create("file", OFlags::WRONLY).unwrap();
        bed.overlay.release(file.1).unwrap();
        let open = ino;
        bed.rmdir("d").unwrap();
        assert!(view::read_dir(&bed.overlay, open, 2, 10).is_empty(), "{what}");
        assert!(view::entries(&bed.overlay, ino).is_empty(), "{what}");
        for name in ["f", "g", "new"] {
            assert_eq!(bed.overlay.lookup(ino, name.as_bytes()).unwrap(), None, "{what}: {name}");
        }
        assert_eq!(errno(bed.overlay.create(ino, b"n", 0o644, 0, OFlags::WRONLY, us())), Errno::NOENT, "{what}");
        assert_eq!(errno(bed.overlay.mkdir(ino, b"n", 0o755, 0, us())), Errno::NOENT, "{what}");
        assert_eq!(errno(bed.overlay.symlink(ino, b"n", b"t", us())), Errno::NOENT, "{what}");
        assert_eq!(errno(bed.overlay.mknod(ino, b"n", libc::S_IFIFO, 0, (0, 0), us())), Errno::NOENT, "{what}");
        assert_eq!(errno(bed.overlay.link(file.0.ino, ino, b"n")), Errno::NOENT, "{what}");
        assert_eq!(errno(bed.overlay.unlink(ino, b"f")), Errno::NOENT, "{what}");
        assert_eq!(errno(bed.overlay.rmdir(ino, b"g")), Errno::NOENT, "{what}");
        let to = bed.overlay.rename(crate::inode::numbers::ROOT, b"file", ino, b"n", RenameFlags::empty());
        assert_eq!(errno(to), Errno::NOENT, "{what}");
        let attr = bed.overlay.getattr(ino).unwrap();
        assert_eq!((attr.ino, attr.kind()), (ino, crate::attr::Kind::Dir), "{what}");
        assert!(bed.exists("file"), "{what}");
        bed.check_lasting();
    }
}

#[test]
fn an_unlinked_open_file_is_read_and_written() {
    for lower in ["x=", "d/f=lower"] {
        let bed = Bed::new(&[lower]);
        if !bed.exists("d") {
            bed.mkdir("d").unwrap();
            bed.write("d/f", "lower").unwrap();
        }
        let ino = bed.ino("d/f");
        let file = bed.open_file("d/f", OFlags::RDWR).unwrap();
        bed.unlink("d/f").unwrap();
        assert!(!bed.exists("d/f"));
        bed.overlay.write(file, 5, b"-more", true, us()).unwrap();
        assert_eq!(bed.read_open(file), "lower-more");
        let attr = bed.overlay.getattr(ino).unwrap();
        assert_eq!((attr.nlink, attr.size), (0, 10));
        let set = SetAttr { mode: Some(0o600), size: Some(2), ..SetAttr::default() };
        let attr = bed.overlay.setattr(ino, &set, Some(file), us()).unwrap();
        assert_eq!((attr.mode & 0o777, attr.size), (0o600, 2));
        bed.overlay.setxattr(ino, b"user.late", b"1", 0, us()).unwrap();
        assert_eq!(bed.overlay.getxattr(ino, b"user.late").unwrap(), b"1");
        let second = bed.overlay.open_file(ino, OFlags::RDONLY, us()).unwrap().file;
        assert_eq!(bed.read_open(second), "lo");
        // A new file of that name is another one.
        bed.write("d/f", "new").unwrap();
        assert_ne!(bed.ino("d/f"), ino);
        assert_eq!((bed.read_open(file), bed.read("d/f")), ("lo".into(), "new".into()));
        bed.overlay.release(file).unwrap();
        bed.overlay.release(second).unwrap();
        bed.check_lasting();
    }
}

#[test]
fn a_file_replaced_by_a_rename_lives_on_while_it_is_open() {
    let bed = Bed::new(&["f=old g=new"]);
    bed.append("f", "+").unwrap();
    let ino = bed.ino("f");
    let file = bed.open_file("f", OFlags::RDWR).unwrap();
    bed.rename("g", "f").unwrap();
    bed.overlay.write(file, 0, b"OLD", true, us()).unwrap();
    assert_eq!((bed.read_open(file), bed.read("f")), ("OLD+".into(), "new".into()));
    assert_eq!(bed.overlay.getattr(ino).unwrap().nlink, 0);
    bed.overlay.release(file).unwrap();
    bed.check_lasting();
}

#[test]
fn unlinking_one_of_two_names_leaves_the_other() {
    let bed = Bed::new(&["d/f=x"]);
    bed.link("d/f", "g").unwrap();
    assert_eq!(bed.attr("g").unwrap().nlink, 2);
    bed.unlink("d/f").unwrap();
    assert_eq!((bed.read("g").as_str(), bed.attr("g").unwrap().nlink), ("x", 1));
    bed.append("g", "y").unwrap();
    let bed = bed.check_lasting();
    assert_eq!((bed.read("g").as_str(), bed.attr("g").unwrap().nlink), ("xy", 1));
}

#[test]
fn descriptors_of_unlinked_files_are_bounded_and_given_back() {
    let bed = Bed::new(&[""]);
    let limit = bed.overlay.max_orphans;
    let count = (limit + 10).min(2000);
    let held = || bed.overlay.orphans.load(std::sync::atomic::Ordering::Relaxed);
    let mut files = Vec::new();
    for number in 0..count {
        let (attr, file) = bed.create(&format!("f{number}"), OFlags::RDWR).unwrap();
        bed.overlay.release(file).unwrap();
        files.push(attr.ino);
        bed.unlink(&format!("f{number}")).unwrap();
    }
    assert_eq!(held(), count.min(limit));
    for ino in &files[..held()] {
        assert_eq!(bed.overlay.getattr(*ino).unwrap().nlink, 0);
    }
    bed.forget_all();
    assert_eq!(held(), 0);
    assert!(bed.upper().is_empty());
}

#[test]
fn removing_in_a_lower_directory_copies_up_the_directory_only() {
    let bed = Bed::new(&["d/big=x d/other=x"]);
    bed.unlink("d/big").unwrap();
    assert_eq!(bed.upper().iter().map(|l| l.split(' ').next().unwrap()).collect::<Vec<_>>(), ["d/", "d/big"]);
}

#[test]
fn names_that_were_removed_are_free_for_every_type() {
    let bed = Bed::new(&["d/f=x e/g=x"]);
    bed.unlink("e/g").unwrap();
    bed.rmdir("e").unwrap();
    bed.rename("d/f", "e").unwrap();
    bed.rmdir("d").unwrap();
    bed.symlink("d", "e").unwrap();
    let bed = bed.check_lasting();
    assert_eq!((bed.read("e"), bed.readlink("d")), ("x".into(), "e".into()));
}
