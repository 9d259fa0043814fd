//! How a mount ends: by signals, by its daemon's death, while it is in use, and with an upper that can take no more.

use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount_remount, unmount};
use rustix::process::{Pid, Signal, kill_process};

use crate::common::*;

fn setup() -> Setup {
    Setup::new().lower(|l| l.file("f", "lower").file("d/g", "lower").files("many", 50))
}

fn signal(tree: &Mounted, signal: Signal) {
    kill_process(Pid::from_raw(tree.daemon().unwrap().cast_signed()).unwrap(), signal).unwrap();
}

#[test]
fn a_daemon_that_is_killed_leaves_a_mount_that_answers_enotconn() {
    plyfs_only!("the kernel's overlayfs cannot be killed");
    let mut tree = mount!(setup());
    let file = open(tree.path("f"), OFlags::RDWR).unwrap();
    tree.kill_daemon();
    wait_until("the connection is gone", || lstat(tree.path("new")).err() == Some(Errno::NOTCONN));
    assert_eq!(fs::read_dir(tree.path("")).err().and_then(|error| error.raw_os_error()), Some(libc::ENOTCONN));
    drop(file);
    tree.recover();
    assert_eq!(tree.read("f"), "lower");
}

#[test]
fn a_daemon_that_is_killed_under_load_leaves_nothing_with_auto_unmount() {
    plyfs_only!("the kernel's overlayfs cannot be killed");
    let mut tree = mount!(setup().option("auto_unmount"));
    assert_eq!(tree.read("f"), "lower");
    let file = open(tree.path("f"), OFlags::RDWR).unwrap();
    std::thread::scope(|scope| {
        let walkers = [(); 2].map(|()| scope.spawn(|| while fs::read_dir(tree.path("many")).is_ok() {}));
        tree.kill_daemon();
        wait_until("nobody finds it", || walkers.iter().all(|walker| walker.is_finished()));
        wait_until("the mount is gone", || lstat(tree.path("f")).err() == Some(Errno::NOENT));
    });
    fs::write(tree.path("below"), "").unwrap();
    fs::remove_file(tree.path("below")).unwrap();
    drop(file);
    tree.recover();
    assert_eq!(tree.read("f"), "lower");
}

#[test]
fn signals_in_the_middle_of_load_end_the_mount_and_keep_what_was_written() {
    plyfs_only!("the kernel's overlayfs takes no signals");
    for end in [Signal::TERM, Signal::INT, Signal::HUP] {
        let mut tree = mount!(setup());
        let done = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                // Until the mount is gone from under it, or never goes.
                for number in 0..100_000 {
                    let Ok(mut file) = fs::File::create_new(tree.path(format!("many/new{number}"))) else { break };
                    if file.write_all(&[b'x'; 10_000]).is_err() {
                        break;
                    }
                    drop(file);
                    done.store(number + 1, Ordering::SeqCst);
                }
            });
            wait_until("something is written", || done.load(Ordering::SeqCst) > 20 || writer.is_finished());
            signal(&tree, end);
            wait_until("the writer has lost the mount", || writer.is_finished());
        });
        assert_eq!(tree.wait_for_end(), Some(0), "{end:?}");
        // Not what is below the mountpoint: nothing was written there.
        tree.mount();
        for number in 0..done.load(Ordering::SeqCst) {
            assert_eq!(tree.read(format!("many/new{number}")).len(), 10_000, "{end:?}");
        }
    }
}

#[test]
fn a_busy_mount_is_not_unmounted_but_lazily() {
    let mut tree = mount!(setup());
    let file = open(tree.path("f"), OFlags::RDWR).unwrap();
    assert_eq!(unmount(tree.path(""), UnmountFlags::NOFOLLOW).err(), Some(Errno::BUSY));
    if tree.backend() == Backend::Plyfs {
        let output = std::process::Command::new("fusermount3").arg("-u").arg(tree.path("")).output().unwrap();
        assert!(!output.status.success() && !output.stderr.is_empty());
    }
    assert_eq!(tree.read("f"), "lower");
    unmount(tree.path(""), UnmountFlags::DETACH).unwrap();
    // Who has it open goes on, and what he writes is kept.
    assert_eq!(file.write_at(b"later", 0).unwrap(), 5);
    drop(file);
    tree.wait_for_end();
    tree.mount();
    assert_eq!(tree.read("f"), "later");
}

#[test]
fn an_upper_that_becomes_read_only_is_erofs_and_reading_goes_on() {
    needs_root!();
    let ext4 = Filesystem::Ext4;
    if let Some(reason) = ext4.is_missing() {
        skip!(reason);
    }
    let setup = setup();
    let volume = Volume::empty(ext4, setup.path("volume"));
    let mut tree = setup.upper_in(&volume.path).mount();
    tree.write("u", "upper");
    fs::remove_file(tree.path("many/f1")).unwrap();
    rustix::fs::sync();
    mount_remount(&volume.path, MountFlags::RDONLY, c"").unwrap();
    let before = tree.tree();
    assert_eq!(errno(open(tree.path("f"), OFlags::RDWR)), Errno::ROFS);
    assert_eq!(errno(open(tree.path("u"), OFlags::RDWR)), Errno::ROFS);
    let refused = [
        ("create", fs::write(tree.path("new"), "")),
        ("mkdir", fs::create_dir(tree.path("new"))),
        ("symlink", std::os::unix::fs::symlink("t", tree.path("new"))),
        ("link", fs::hard_link(tree.path("u"), tree.path("new"))),
        ("unlink", fs::remove_file(tree.path("f"))),
        ("unlink in the upper", fs::remove_file(tree.path("u"))),
        ("rename", fs::rename(tree.path("u"), tree.path("new"))),
        ("rename a lower directory", fs::rename(tree.path("d"), tree.path("new"))),
        ("chmod", chmod(&tree, "d/g")),
    ];
    for (what, result) in refused {
        assert_eq!(result.err().and_then(|error| error.raw_os_error()), Some(libc::EROFS), "{what}");
    }
    before.assert_eq(&tree.tree(), "another tree");
    mount_remount(&volume.path, MountFlags::empty(), c"").unwrap();
    tree.append("f", "+");
    assert_eq!(tree.read("f"), "lower+");
    tree.remount();
    assert_eq!(tree.read("f"), "lower+");
    mount_remount(&volume.path, MountFlags::RDONLY, c"").unwrap();
    // It ends all the same, though it cannot clean up.
    if tree.backend() == Backend::Plyfs {
        unmount(tree.path(""), UnmountFlags::NOFOLLOW).unwrap();
        assert_eq!(tree.wait_for_end(), Some(0));
    } else {
        tree.unmount();
    }
    mount_remount(&volume.path, MountFlags::empty(), c"").unwrap();
}

fn chmod(tree: &Mounted, path: &str) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(tree.path(path), fs::Permissions::from_mode(0o600))
}

/// Fills a filesystem by all kinds of changes, takes some of them back, and goes on.
fn fill(volume: &Volume, setup: Setup) {
    let mut tree = setup.upper_in(&volume.path).mount();
    let filler = tree.beside("volume").join("filler");
    let mut file = fs::File::create(&filler).unwrap();
    while file.write_all(&[1; 1 << 16]).is_ok() {}
    while file.write_all(&[1; 512]).is_ok() {}
    let synced = file.sync_all();
    assert!(matches!(synced.as_ref().map_err(std::io::Error::raw_os_error), Ok(()) | Err(Some(libc::ENOSPC))));
    drop(file);
    let before = tree.tree();
    let mut refused = 0;
    for number in 0..40 {
        let path = |kind: &str| tree.path(format!("many/{kind}{number}"));
        let copied = fs::OpenOptions::new().append(true).open(path("f")).and_then(|mut file| file.write_all(b"+++"));
        let made = fs::File::create_new(path("new")).and_then(|mut file| file.write_all(&[b'n'; 5000]));
        let big = open(tree.path(format!("big{}", number % 4)), OFlags::RDWR).map(drop).map_err(Into::into);
        let renamed = fs::rename(tree.path(format!("dirs/d{number}")), tree.path(format!("dirs/r{number}")));
        for result in [copied, made, big, renamed] {
            if let Err(error) = result {
                assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "{number}: {error}");
                refused += 1;
            }
        }
    }
    assert!(refused > 4, "{refused} were refused");
    let shown = tree.tree();
    assert!(shown.len() >= before.len());
    // What it shows while it is full is what is on the disk. A mount itself takes some space.
    tree.kill_daemon();
    fs::remove_file(filler).unwrap();
    tree.recover();
    shown.assert_eq(&tree.tree(), "another tree after a new mount");
    for number in 0..4 {
        let file = open(tree.path(format!("big{number}")), OFlags::RDWR).unwrap();
        file.write_at(b"go on", 0).unwrap();
    }
    for number in 0..40 {
        if tree.exists(format!("dirs/d{number}")) {
            fs::rename(tree.path(format!("dirs/d{number}")), tree.path(format!("dirs/r{number}"))).unwrap();
        }
        assert_eq!(tree.list(format!("dirs/r{number}")), ["inner"]);
    }
    let shown = tree.tree();
    tree.remount();
    shown.assert_eq(&tree.tree(), "another tree after a new mount");
}

#[test]
fn full_filesystems_refuse_and_go_on_once_there_is_space() {
    plyfs_only!("the daemon is killed");
    needs_root!();
    for filesystem in [Filesystem::Ext4, Filesystem::Xfs] {
        if let Some(reason) = filesystem.is_missing() {
            skip!(reason);
        }
        let setup = Setup::new().lower(|l| {
            let l = l.files("many", 50);
            let l = (0..4).fold(l, |l, number| l.file(format!("big{number}"), "b".repeat(1 << 20)));
            (0..40).fold(l, |l, number| l.file(format!("dirs/d{number}/inner"), "i"))
        });
        let volume = Volume::empty(filesystem, setup.path("volume"));
        fill(&volume, setup);
    }
}
