//! What a daemon leaves that is killed in the middle of something.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::common::*;
use crate::rename::rename;

fn setup() -> Setup {
    Setup::new()
        .lower(|l| {
            for number in 0..200 {
                l.file(format!("copied/f{number}"), "x".repeat(50_000))
                    .file(format!("removed/f{number}"), "r")
                    .file(format!("moved/d{number}/inner"), "m")
                    .file(format!("replaced/f{number}"), "old");
            }
            l
        })
        .lower(|l| (0..200).fold(l, |l, number| l.file(format!("moved/d{number}/below"), "b")))
}

/// Changes everything in the way of its number; returns at the first error, when the daemon is gone.
fn change(tree: &Mounted, number: usize) -> std::io::Result<()> {
    use std::os::unix::fs::FileExt;
    let file = fs::OpenOptions::new().write(true).open(tree.path(format!("copied/f{number}")))?;
    file.write_all_at(b"y", 49_999)?;
    fs::remove_file(tree.path(format!("removed/f{number}")))?;
    rename(tree, &format!("moved/d{number}"), &format!("copied/d{number}"))?;
    fs::write(tree.path(format!("replaced/tmp{number}")), "new")?;
    rename(tree, &format!("replaced/tmp{number}"), &format!("replaced/f{number}"))?;
    Ok(())
}

#[test]
fn killed_daemon_leaves_the_old_state_or_the_new_one() {
    plyfs_only!("the kernel's overlayfs cannot be killed");
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos();
    println!("seed {seed}");
    let mut tree = mount!(setup());
    let mut done = 0;
    for round in 0..5 {
        let next = AtomicUsize::new(done);
        let stopped = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !stopped.load(Ordering::SeqCst) {
                        let number = next.fetch_add(1, Ordering::SeqCst);
                        if number >= 200 || change(&tree, number).is_err() {
                            break;
                        }
                    }
                });
            }
            std::thread::sleep(Duration::from_micros(u64::from(seed.rotate_left(round * 5) % 40_000)));
            tree.kill_daemon();
            stopped.store(true, Ordering::SeqCst);
        });
        tree.recover();
        done = next.load(Ordering::SeqCst).min(200);
        check(&tree, done, seed);
        if done == 200 {
            break;
        }
    }
}

fn check(tree: &Mounted, done: usize, seed: u32) {
    let (mut old, mut new) = ("x".repeat(50_000), "x".repeat(49_999) + "y");
    old.shrink_to_fit();
    new.shrink_to_fit();
    for number in 0..200 {
        let message = format!("{number} of {done}, seed {seed}");
        let copied = tree.read(format!("copied/f{number}"));
        assert!(copied == old || copied == new, "{message}");
        let places = [format!("moved/d{number}"), format!("copied/d{number}")];
        let there: Vec<_> = places.iter().filter(|path| tree.exists(path)).collect();
        assert_eq!(there.len(), 1, "{message}: {there:?}");
        assert_eq!(tree.list(there[0]), ["below", "inner"], "{message}");
        let replaced = tree.read(format!("replaced/f{number}"));
        assert!(replaced == "old" || replaced == "new", "{message}: {replaced}");
        if tree.exists(format!("removed/f{number}")) {
            assert_eq!(tree.read(format!("removed/f{number}")), "r", "{message}");
        }
        if number >= done {
            assert!(copied == old && tree.exists(format!("removed/f{number}")) && replaced == "old", "{message}");
        }
    }
}

#[test]
fn what_was_answered_before_the_kill_is_there_after_it() {
    plyfs_only!("the kernel's overlayfs cannot be killed");
    let mut tree = mount!(setup());
    for number in 0..10 {
        change(&tree, number).unwrap();
    }
    let before = tree.tree();
    tree.kill_daemon();
    tree.recover();
    before.assert_eq(&tree.tree(), "another tree after the kill");
    for number in 10..20 {
        change(&tree, number).unwrap();
    }
}

/// Has the daemon do what the order says with one of its next calls on layers.
#[cfg(feature = "failpoints")]
pub fn order(tree: &Mounted, order: &str) {
    assert_eq!(lstat(tree.path(format!("plyfs-failpoint-{order}"))).err(), Some(rustix::io::Errno::NOENT));
}

#[cfg(feature = "failpoints")]
#[test]
fn a_request_that_panics_is_eio_and_the_mount_lives_on() {
    plyfs_only!("the kernel's overlayfs is not to panic");
    let tree = mount!(setup().panics());
    for number in 0..3 {
        order(&tree, "panic-1");
        assert_eq!(lstat(tree.path(format!("removed/f{number}"))).err(), Some(rustix::io::Errno::IO));
        // In a worker, and where a name goes.
        let (copied, removed) = (format!("copied/f{}", number + 10), format!("removed/f{}", number + 10));
        assert!(tree.exists(&copied) && tree.exists(&removed));
        order(&tree, "panic-change-1");
        let opened = open(tree.path(&copied), rustix::fs::OFlags::RDWR);
        assert_eq!(opened.err(), Some(rustix::io::Errno::IO));
        tree.append(&copied, "+");
        order(&tree, "panic-change-1");
        assert_eq!(errno(fs::remove_file(tree.path(&removed))), rustix::io::Errno::IO);
        fs::remove_file(tree.path(&removed)).unwrap();
        assert_eq!(tree.read("copied/f1").len(), 50_000);
        tree.write("new", "x");
    }
    for operation in ["lookup", "open", "unlink"] {
        assert!(tree.said().contains(&format!("{operation}: panicked: a test asked for it")), "{}", tree.said());
    }
}

#[cfg(feature = "failpoints")]
#[test]
fn the_errno_of_a_layer_reaches_the_caller() {
    plyfs_only!("the kernel's overlayfs has no such switch");
    use rustix::io::Errno;
    let mut tree = mount!(setup());
    let mut number = 0;
    for errno in [Errno::NOSPC, Errno::IO, Errno::DQUOT, Errno::MFILE, Errno::ROFS] {
        for nth in 1..4 {
            let before = tree.tree();
            let fail = || order(&tree, &format!("fail-{nth}-{}", errno.raw_os_error()));
            number += 1;
            fail();
            let opened = open(tree.path(format!("copied/f{number}")), rustix::fs::OFlags::RDWR);
            // The first is FICLONE, without which the data is copied.
            order(&tree, "off");
            if let Err(error) = opened {
                assert_eq!(error, errno, "{nth}");
                assert_eq!(lstat(tree.upper(format!("copied/f{number}"))).err(), Some(Errno::NOENT), "{nth}");
            }
            before.assert_eq(&tree.tree(), "another tree");
        }
        order(&tree, &format!("fail-1-{}", errno.raw_os_error()));
        assert_eq!(rename(&tree, &format!("removed/f{number}"), "removed/new").err(), Some(errno));
        order(&tree, "off");
        assert!(tree.exists(format!("removed/f{number}")) && !tree.exists("removed/new"));
    }
    tree.remount();
}

/// So do locks that are taken out of order, at which debug builds panic.
#[cfg(feature = "failpoints")]
#[test]
fn a_panic_of_the_daemon_fails_a_test_that_does_not_ask_for_it() {
    plyfs_only!("the kernel's overlayfs is not to panic");
    needs_root!();
    let mut tree = setup().mount();
    order(&tree, "panic-1");
    assert_eq!(lstat(tree.path("removed/f1")).err(), Some(rustix::io::Errno::IO));
    let unmounted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| tree.unmount()));
    let said = unmounted.unwrap_err().downcast_ref::<String>().cloned().unwrap_or_default();
    assert!(said.contains("the daemon panicked"), "{said}");
}
