//! Uppers on filesystems that refuse for real: a quota that is used up, a device that fails.

use std::fs;
use std::io::Write;
use std::process::Command;

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

use crate::common::*;

fn setup() -> Setup {
    let layer = |l: &Layer| {
        l.files("d", 20);
        for number in 0..4 {
            l.file(format!("big{number}"), vec![b'0' + number; 3 << 20]);
        }
    };
    Setup::new().lower(|l| {
        layer(l);
        l
    })
}

/// Copies `path` up, by a change in the middle of it.
fn change(tree: &Mounted, path: &str) -> Result<(), Errno> {
    let file = open(tree.path(path), OFlags::RDWR)?;
    rustix::io::pwrite(&file, b"changed", 100)?;
    rustix::fs::fsync(&file)
}

#[test]
fn a_quota_that_is_used_up_is_edquot_and_it_goes_on_when_there_is_more() {
    needs_root!();
    let btrfs = Filesystem::Btrfs;
    if let Some(reason) = btrfs.is_missing() {
        skip!(reason);
    }
    let setup = setup();
    let volume = Volume::empty(btrfs, setup.path("volume"));
    let quota = |arguments: &[&str]| run(Command::new("btrfs").args(arguments).arg(&volume.path));
    quota(&["quota", "enable"]);
    let mut tree = setup.upper_in(&volume.path).mount();
    quota(&["qgroup", "limit", "6M"]);
    change(&tree, "big0").unwrap();
    // The quota counts what is on the disk.
    let filled = fs::File::create(tree.path("filler"))
        .and_then(|mut file| (0..100).try_for_each(|_| file.write_all(&[1; 1 << 16]).and_then(|()| file.sync_data())));
    assert_eq!(filled.unwrap_err().raw_os_error(), Some(libc::EDQUOT));
    rustix::fs::sync();
    let before = tree.tree();
    assert_eq!(change(&tree, "big1"), Err(Errno::DQUOT));
    assert_eq!(change(&tree, "big2"), Err(Errno::DQUOT));
    assert_eq!(lstat(tree.upper("big1")).err(), Some(Errno::NOENT));
    before.assert_eq(&tree.tree(), "another tree");
    quota(&["qgroup", "limit", "none"]);
    change(&tree, "big1").unwrap();
    fs::remove_file(tree.path("filler")).unwrap();
    tree.write("d/new", "new");
    let shown = tree.tree();
    tree.remount();
    shown.assert_eq(&tree.tree(), "another tree after a new mount");
    let content = fs::read(tree.path("big1")).unwrap();
    assert!(content[..100] == [b'1'; 100] && &content[100..107] == b"changed" && content.len() == 3 << 20);
}

#[test]
fn a_device_that_fails_is_eio_and_what_is_below_is_still_read() {
    needs_root!();
    if let Some(reason) = Filesystem::Ext4.is_missing() {
        skip!(reason);
    }
    let setup = setup();
    // A device is a file of another overlay, and has failed when that one's daemon is gone.
    let mut below = Setup::new().lower(|l| l).option("passthrough=0").mount_by(Backend::Plyfs);
    let image = below.path("image");
    let volume = Volume::in_image(Filesystem::Ext4, &image, 64 << 20, setup.path("volume"));
    let mut tree = setup.upper_in(&volume.path).mount();
    change(&tree, "big0").unwrap();
    tree.write("d/new", "new");
    rustix::fs::sync();
    let before = tree.tree();
    below.kill_daemon();
    assert_eq!(change(&tree, "big1"), Err(Errno::IO));
    // The filesystem itself may take no more from then on.
    let result = change(&tree, "big2");
    assert!(matches!(result, Err(Errno::IO | Errno::ROFS)), "{result:?}");
    for path in ["big1", "big2"] {
        // The kernel's overlayfs syncs a copy too.
        assert_eq!(lstat(tree.upper(path)).err(), Some(Errno::NOENT), "{path}");
    }
    before.assert_eq(&tree.tree(), "another tree");
    assert_eq!(fs::read(tree.path("big3")).unwrap(), vec![b'3'; 3 << 20]);
    assert_eq!(tree.read("d/f7"), "7");
    // It ends, though it may not be able to clean up.
    if tree.backend() == Backend::Plyfs {
        unmount(tree.path(""), UnmountFlags::NOFOLLOW).unwrap();
        assert_eq!(tree.wait_for_end(), Some(0));
    } else {
        tree.unmount();
    }
    drop(volume);
    // With a device again and the journal replayed, all of it is there that was before.
    below.recover();
    let _volume = Volume::mounted(Filesystem::Ext4, &image, tree.beside("volume"));
    tree.mount();
    before.assert_eq(&tree.tree(), "another tree on a device that is well again");
    change(&tree, "big1").unwrap();
    tree.remount();
    assert_eq!(&fs::read(tree.path("big1")).unwrap()[100..107], b"changed");
}
