//! The copy-up of a large file, and who works elsewhere meanwhile.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::fs::OFlags;

use crate::common::*;

const WORKERS: usize = 8;
/// How many operations of each have to be done while data is being copied; one that waits for the copy does two at most.
const ENOUGH: usize = 20;

/// Fills a file with data that is nowhere a hole.
fn fill(path: &Path, size: u64) {
    let file = fs::File::create(path).unwrap();
    let block: Vec<u8> = (0..1 << 20).map(|byte| (byte % 251) as u8).collect();
    for offset in (0..size).step_by(block.len()) {
        file.write_all_at(&block, offset).unwrap();
        file.write_all_at(&offset.to_le_bytes(), offset).unwrap();
    }
}

/// How much of the file that is being staged is there; none before, and after it is published.
fn copied(work: &Path) -> Option<u64> {
    let staged = fs::read_dir(work).unwrap().filter_map(|entry| entry.ok()?.metadata().ok());
    staged.filter(|meta| meta.is_file() && meta.len() > 1 << 20).map(|meta| meta.blocks() * 512).max()
}

/// Changes names, attributes and small files of the upper and of the lower layer, over and over.
fn work(tree: &Mounted, worker: usize, done: &AtomicUsize, is_over: &AtomicBool) {
    let dir = format!("d{worker}");
    for round in 0.. {
        let operations: [&dyn Fn(); 7] = [
            &|| tree.write(format!("{dir}/new"), "new"),
            &|| fs::rename(tree.path(format!("{dir}/new")), tree.path(format!("{dir}/other"))).unwrap(),
            &|| drop(tree.read(format!("{dir}/f{}", round % 500))),
            &|| tree.append(format!("{dir}/f{}", round % 500), "+"),
            &|| fs::set_permissions(tree.path(format!("{dir}/other")), fs::Permissions::from_mode(0o600)).unwrap(),
            &|| assert!(!tree.exists(format!("{dir}/missing{round}"))),
            &|| fs::remove_file(tree.path(format!("{dir}/other"))).unwrap(),
        ];
        for operation in operations {
            operation();
            done.fetch_add(1, Ordering::SeqCst);
            if is_over.load(Ordering::SeqCst) {
                return;
            }
        }
    }
}

/// Copies a file of `size` bytes up from one filesystem to another, which share nothing.
fn others_work_while_a_file_is_copied_up(size: u64) {
    needs_root!();
    let tree = mount!(
        Setup::new()
            .lower(|l| {
                fill(&l.path("big"), size);
                (0..WORKERS).fold(l, |l, worker| l.files(format!("d{worker}"), 500))
            })
            .small_upper(size + (256 << 20))
    );
    let done: Vec<AtomicUsize> = (0..WORKERS).map(|_| AtomicUsize::new(0)).collect();
    let counts = || -> Vec<usize> { done.iter().map(|done| done.load(Ordering::SeqCst)).collect() };
    let is_over = AtomicBool::new(false);
    let staged_in = tree.beside("work").join("work");
    let mut while_copied: Option<(Vec<usize>, Vec<usize>)> = None;
    std::thread::scope(|scope| {
        for (worker, done) in done.iter().enumerate() {
            let (tree, is_over) = (&tree, &is_over);
            scope.spawn(move || work(tree, worker, done, is_over));
        }
        wait_until("all of them work", || counts().iter().all(|count| *count > 0));
        let copy = scope.spawn(|| {
            let file = open(tree.path("big"), OFlags::RDWR).unwrap();
            file.write_all_at(b"changed", 0).unwrap();
        });
        while !copy.is_finished() {
            // What was done before the copy was seen to be on its way, and not at its end, was done meanwhile.
            let now = counts();
            if copied(&staged_in).is_some_and(|copied| copied > 0 && copied < size) {
                match &mut while_copied {
                    None => while_copied = Some((counts(), now)),
                    Some((_, last)) => *last = now,
                }
            }
        }
        is_over.store(true, Ordering::SeqCst);
        copy.join().unwrap();
    });
    let (first, last) = while_copied.expect("the copy is seen while it is made");
    println!("of {:?} operations, {first:?} were done when the copy was first seen, {last:?} when last", counts());
    for (first, last) in first.iter().zip(&last) {
        assert!(last.saturating_sub(*first) >= ENOUGH, "one has waited: {first} to {last}");
    }
    let (lower, upper) = (fs::File::open(tree.lower(0, "big")).unwrap(), fs::File::open(tree.upper("big")).unwrap());
    let (mut expected, mut copy) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    for offset in (0..size).step_by(1 << 20) {
        lower.read_exact_at(&mut expected, offset).unwrap();
        upper.read_exact_at(&mut copy, offset).unwrap();
        if offset == 0 {
            expected[..7].copy_from_slice(b"changed");
        }
        assert!(expected == copy, "another content at {offset}");
    }
}

#[test]
fn nobody_waits_for_the_copy_up_of_another_file() {
    others_work_while_a_file_is_copied_up(384 << 20);
}

#[test]
#[ignore = "takes minutes and 2 GiB: a file of 1 GiB"]
fn nobody_waits_for_the_copy_up_of_another_file_of_1_gib() {
    others_work_while_a_file_is_copied_up(1 << 30);
}
