//! Bringing data to the disk. What really survives a crash is tested elsewhere; here it has to be answered.

use std::fs;
use std::os::fd::AsFd;

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::common::*;

#[test]
fn files_of_every_kind_are_synced() {
    let tree = mount!(Setup::new().lower(|l| l.file("lower", "x").file("copied", "x")));
    tree.write("upper", "x");
    tree.append("copied", "y");
    for name in ["lower", "copied", "upper"] {
        let file = open(tree.path(name), OFlags::RDONLY).unwrap();
        rustix::fs::fsync(&file).unwrap();
        rustix::fs::fdatasync(&file).unwrap();
        let file = open(tree.path(name), OFlags::RDWR).unwrap();
        rustix::io::pwrite(&file, b"z", 0).unwrap();
        rustix::fs::fsync(&file).unwrap();
        rustix::fs::fdatasync(&file).unwrap();
    }
}

#[test]
fn directories_are_synced() {
    let tree = mount!(Setup::new().lower(|l| l.dir("lower").file("merged/0", "")).lower(|l| l.file("merged/1", "")));
    fs::create_dir(tree.path("upper")).unwrap();
    tree.write("merged/new", "");
    for name in ["", "lower", "merged", "upper"] {
        let dir = open(tree.path(name), OFlags::RDONLY | OFlags::DIRECTORY).unwrap();
        rustix::fs::fsync(dir.as_fd()).unwrap();
    }
}

#[test]
fn removed_files_and_directories_are_synced() {
    let tree = mount!(Setup::new().lower(|l| l.file("f", "x").dir("d")));
    let file = open(tree.path("f"), OFlags::RDWR).unwrap();
    let dir = open(tree.path("d"), OFlags::RDONLY | OFlags::DIRECTORY).unwrap();
    fs::remove_file(tree.path("f")).unwrap();
    fs::remove_dir(tree.path("d")).unwrap();
    rustix::io::pwrite(&file, b"z", 0).unwrap();
    rustix::fs::fsync(&file).unwrap();
    assert!(matches!(rustix::fs::fsync(&dir), Ok(()) | Err(Errno::NOENT)));
}

#[test]
fn synchronous_writes_and_syncfs() {
    let tree = mount!(Setup::new().lower(|l| l.file("f", "x")));
    let file = open(tree.path("f"), OFlags::WRONLY | OFlags::SYNC).unwrap();
    rustix::io::pwrite(&file, b"synced", 0).unwrap();
    rustix::fs::syncfs(&file).unwrap();
    assert_eq!(fs::read(tree.upper("f")).unwrap(), b"synced");
    let file = open(tree.path("f"), OFlags::WRONLY | OFlags::DSYNC | OFlags::APPEND).unwrap();
    rustix::io::write(&file, b"!").unwrap();
    assert_eq!(fs::read(tree.upper("f")).unwrap(), b"synced!");
}

#[test]
fn written_data_is_in_the_upper_after_unmount() {
    let mut tree = mount!(Setup::new().lower(|l| l.file("f", "x".repeat(100_000))));
    {
        let file = open(tree.path("f"), OFlags::RDWR).unwrap();
        let mapping = Mapping::new(&file, 100_000, true);
        mapping.write(50_000, b"mapped");
        rustix::io::pwrite(&file, b"written", 70_000).unwrap();
    }
    tree.unmount();
    let content = fs::read(tree.upper("f")).unwrap();
    assert_eq!((&content[50_000..50_006], &content[70_000..70_007]), (b"mapped".as_slice(), b"written".as_slice()));
}
