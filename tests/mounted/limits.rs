//! Little room: descriptors, space.

use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::common::*;

/// A layer of `dirs` directories of 100 files each.
fn big_layer(l: &Layer, dirs: usize) -> &Layer {
    for dir in 0..dirs {
        l.files(format!("d{}/e{dir}", dir % 10), 100);
    }
    l
}

fn walk_and_change(dirs: usize) {
    let tree = mount!(Setup::new().lower(|l| big_layer(l, dirs)).lower(|l| l.dir("d0")).descriptors(256));
    for _ in 0..2 {
        assert_eq!(tree.tree().len(), dirs * 101 + 11);
    }
    for dir in 0..dirs {
        tree.append(format!("d{}/e{dir}/f1", dir % 10), "+");
        tree.write(format!("d{}/e{dir}/new", dir % 10), "");
        fs::remove_file(tree.path(format!("d{}/e{dir}/f2", dir % 10))).unwrap();
    }
    assert_eq!(tree.tree().len(), dirs * 101 + 11);
    for dir in 0..10.min(dirs) {
        fs::rename(tree.path(format!("d{dir}")), tree.path(format!("renamed{dir}"))).unwrap();
    }
    assert_eq!(tree.tree().len(), dirs * 101 + 11);
    fs::remove_dir_all(tree.path("renamed0")).unwrap();
    assert_eq!(tree.tree().len(), dirs * 101 + 11 - dirs / 10 * 101 - 1);
}

#[test]
fn few_descriptors_are_enough_for_a_big_tree() {
    walk_and_change(200);
}

#[test]
#[ignore = "takes minutes: 100,000 files"]
fn few_descriptors_are_enough_for_a_very_big_tree() {
    walk_and_change(1000);
}

#[test]
fn a_thousand_files_are_open_at_once() {
    let tree = mount!(Setup::new().lower(|l| l.files("d", 1100)).descriptors(4096));
    let files: Vec<_> = (0..1024)
        .map(|number| {
            let flags = if number % 2 == 0 { OFlags::RDONLY } else { OFlags::RDWR };
            open(tree.path(format!("d/f{number}")), flags).unwrap()
        })
        .collect();
    for (number, file) in files.iter().enumerate() {
        let mut buffer = [0; 8];
        let read = file.read_at(&mut buffer, 0).unwrap();
        assert_eq!(&buffer[..read], number.to_string().as_bytes());
    }
    assert_eq!(tree.list("d").len(), 1100);
}

#[test]
fn running_out_of_descriptors_is_an_error_that_passes() {
    plyfs_only!("the kernel opens the layers' files in the process that asks");
    let tree = mount!(Setup::new().lower(|l| l.files("d", 400)).descriptors(256));
    let mut files = Vec::new();
    for number in 0..400 {
        match open(tree.path(format!("d/f{number}")), OFlags::RDONLY) {
            Ok(file) => files.push(file),
            Err(error) => assert!(matches!(error, Errno::MFILE | Errno::NFILE), "{error}"),
        }
    }
    assert!(files.len() < 256 && files.len() > 100, "{}", files.len());
    drop(files);
    for number in 0..400 {
        let path = format!("d/f{number}");
        // The last handle is given back after close(2) returns.
        wait_until("files can be opened", || open(tree.path(&path), OFlags::RDONLY).is_ok());
    }
    assert_eq!(tree.list("d").len(), 400);
}

#[test]
fn hundreds_of_directories_are_open_at_once() {
    let tree = mount!(Setup::new().lower(|l| (0..300).fold(l, |l, number| l.file(format!("d{number}/f"), ""))));
    let mut dirs: Vec<_> = (0..300).map(|number| open_dir(tree.path(format!("d{number}")))).collect();
    tree.write("d7/new", "");
    for dir in &mut dirs {
        assert!(std::iter::from_fn(|| dir.read()).count() >= 3);
    }
}

#[test]
fn full_disk_is_enospc_and_it_goes_on_when_there_is_space() {
    let content = "x".repeat(3 << 20);
    let tree =
        mount!(Setup::new().lower(|l| l.file("a", &content).file("b", &content).file("c", "c")).small_upper(8 << 20));
    let mut file = fs::File::create(tree.path("filler")).unwrap();
    let error = loop {
        if let Err(error) = file.write_all(&[1; 65536]).and_then(|()| file.sync_data()) {
            break error;
        }
    };
    assert_eq!(error.errno(), Errno::NOSPC);
    drop(file);
    // There is no room for a copy: the lower file stays as it is, and nothing is half there.
    let open_big = || open(tree.path("a"), OFlags::RDWR);
    assert_eq!(errno(open_big()), Errno::NOSPC);
    assert_eq!(tree.read("a"), content);
    assert_eq!(errno(lstat(tree.upper("a"))), Errno::NOENT);
    fs::remove_file(tree.path("filler")).unwrap();
    wait_until("the space is given back", || open_big().is_ok());
    tree.append("a", "+");
    tree.write("c", "changed");
    fs::rename(tree.path("a"), tree.path("b")).unwrap();
    assert_eq!(tree.read("b").len(), content.len() + 1);
    assert_eq!(tree.list(""), ["b", "c"]);
}

#[test]
fn full_disk_is_told_by_fsync_where_writes_are_gathered() {
    plyfs_only!("the kernel's overlayfs has no such option");
    let tree = mount!(Setup::new().option("writeback=1").lower(|l| l.file("a", "content")).small_upper(256 << 10));
    let file = open(tree.path("new"), OFlags::CREATE | OFlags::WRONLY).unwrap();
    rustix::io::write(&file, &vec![1; 512 << 10]).unwrap();
    assert_eq!(errno(rustix::fs::fsync(&file)), Errno::NOSPC);
    drop(file);
    fs::remove_file(tree.path("new")).unwrap();
    wait_until("the space is given back", || {
        let file = open(tree.path("a"), OFlags::WRONLY | OFlags::TRUNC).unwrap();
        rustix::io::write(&file, b"changed").and_then(|_| rustix::fs::fsync(&file)).is_ok()
    });
    assert_eq!(fs::read(tree.upper("a")).unwrap(), b"changed");
}

#[test]
fn full_disk_of_inodes_leaves_names_as_they_were() {
    let tree = mount!(Setup::new().lower(|l| l.files("d", 200)).small_upper(256 << 10));
    let mut made = 0;
    let error = loop {
        match open(tree.path(format!("d/new{made}")), OFlags::CREATE | OFlags::WRONLY) {
            // Where the kernel gathers writes, they fail later.
            Ok(file) => match rustix::io::write(&file, &[1; 4096]).and_then(|_| rustix::fs::fsync(&file)) {
                Ok(()) => made += 1,
                Err(error) => break error,
            },
            Err(error) => break error,
        }
        assert!(made < 10_000);
    };
    assert_eq!(error, Errno::NOSPC);
    assert_eq!(tree.read("d/f7"), "7");
    for number in 0..made {
        fs::remove_file(tree.path(format!("d/new{number}"))).unwrap();
    }
    wait_until("the space is given back", || fs::write(tree.path("d/f7"), "changed").is_ok());
    assert_eq!(tree.read("d/f7"), "changed");
}
