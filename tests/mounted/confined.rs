//! What the daemon may still do once it serves: open its layers, and nothing else.

use std::fs;

#[cfg(feature = "failpoints")]
use rustix::fs::lstat;
#[cfg(feature = "failpoints")]
use rustix::io::Errno;

use super::common::{Backend, Mounted, Setup};

fn setup() -> Setup {
    Setup::new().lower(|layer| layer.file("f", "lower").dir("d"))
}

/// What `/proc` says of each thread of the daemon under a field.
fn threads(tree: &Mounted, field: &str) -> Vec<(String, String)> {
    let daemon = tree.daemon().unwrap();
    let tasks = fs::read_dir(format!("/proc/{daemon}/task")).unwrap();
    let of = |task: fs::DirEntry| {
        let read = |file| fs::read_to_string(task.path().join(file)).unwrap();
        let status = read("status");
        let value = status.lines().find_map(|line| line.strip_prefix(field)).unwrap().trim().to_owned();
        (read("comm").trim().to_owned(), value)
    };
    tasks.map(|task| of(task.unwrap())).collect()
}

#[test]
fn what_serves_requests_gains_no_rights() {
    plyfs_only!("the kernel's overlayfs is no process");
    let tree = mount!(setup());
    tree.append("f", "+");
    let threads = threads(&tree, "NoNewPrivs:");
    // One reads requests, one works.
    assert!(threads.len() >= 4, "{threads:?}");
    for (name, value) in threads {
        // Who unmounts may need a set-user-id program for it; and none of these handles a request.
        let stays = ["plyfs", "look", "control"].contains(&name.as_str()) || name.starts_with("mount ");
        assert_eq!(value, if stays { "0" } else { "1" }, "{name}");
    }
}

#[test]
fn the_daemon_keeps_the_capabilities_that_it_uses_and_no_more() {
    plyfs_only!("the kernel's overlayfs is no process");
    needs_root!();
    let tree = mount!(setup());
    // chown, dac_override, dac_read_search, fowner, fsetid, setgid, setuid, linux_immutable, sys_admin, sys_resource,
    // mknod, setfcap, mac_admin; and sys_ptrace where no request is handled
    let bits = [0, 1, 2, 3, 4, 6, 7, 9, 21, 24, 27, 31, 33];
    let most: u64 = bits.iter().map(|bit| 1 << bit).sum();
    let ptrace = 1 << 19;
    for field in ["CapPrm:", "CapEff:", "CapBnd:", "CapInh:"] {
        for (name, value) in threads(&tree, field) {
            let handles_requests = name.starts_with("fuser") || name.starts_with("worker");
            let most = if handles_requests && field != "CapBnd:" { most } else { most | ptrace };
            assert_eq!(u64::from_str_radix(&value, 16).unwrap() & !most, 0, "{name}: {field}");
        }
    }
}

#[cfg(feature = "failpoints")]
#[test]
fn what_is_no_layer_cannot_be_opened() {
    plyfs_only!("the kernel's overlayfs is no process");
    let mut tree = mount!(setup());
    let outside = |tree: &Mounted| lstat(tree.path("plyfs-failpoint-outside")).unwrap_err();
    if tree.said().contains("not closed into the layers") {
        skip!("the kernel has no Landlock");
    }
    assert_eq!(outside(&tree), Errno::ACCESS);
    // Not because nothing could be opened.
    assert_eq!(tree.read("f"), "lower");
    tree.write("d/new", "x");
    tree.set_options("landlock=0");
    tree.remount();
    assert_eq!(outside(&tree), Errno::NOENT);
    assert_eq!(tree.backend(), Backend::Plyfs);
}
