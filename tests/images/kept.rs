//! What stays and what goes: layers in use, and commands that are killed.

use std::fs;
use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use crate::bed::Bed;
use crate::tree::build;

#[test]
fn layers_that_are_mounted_stay() {
    needs_root!();
    let bed = Bed::new(build);
    bed.mounted("base", &["--ephemeral"], |mnt| {
        bed.ok(&["image", "rm", "base"]);
        assert_eq!(bed.ok(&["image", "gc"]), "");
        assert_eq!(fs::read(mnt.join("etc/passwd")).unwrap(), b"etc/passwd");
    });
    assert!(bed.ok(&["image", "gc"]).ends_with("removed\n"));
    assert_eq!(fs::read_dir(bed.path("store/layers")).unwrap().count(), 0);
    let upper = bed.path("elsewhere");
    let said = bed.fails(&["mount", "base", "mnt", "--upper", upper.to_str().unwrap()], 1);
    assert!(said.starts_with("image base: no such image"), "{said}");
}

#[test]
fn imports_that_are_killed_finish_the_next_time() {
    let bed = Bed::new(|root| {
        for number in 0..3000 {
            fs::write(root.join(format!("f{number}")), number.to_string()).unwrap();
        }
    });
    bed.ok(&["image", "rm", "base"]);
    bed.ok(&["image", "gc"]);
    for wait in [1, 5, 20, 50, 100] {
        let mut child = bed.plyfs(&["image", "import", "tar:base.tar", "base"]).stderr(Stdio::null()).spawn().unwrap();
        sleep(Duration::from_millis(wait));
        child.kill().unwrap();
        child.wait().unwrap();
        for layer in fs::read_dir(bed.path("store/layers")).unwrap() {
            assert!(layer.unwrap().path().join("layer.json").exists(), "half a layer");
        }
    }
    bed.ok(&["image", "import", "tar:base.tar", "base"]);
    bed.ok(&["image", "verify"]);
    assert_eq!(fs::read_dir(bed.path("store/staging")).unwrap().count(), 0);
    let output = bed.plyfs(&["image", "import", "tar:base.tar", "base"]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains(": there already"));
}

#[test]
fn a_mount_that_fails_leaves_no_container() {
    needs_root!();
    let bed = Bed::new(build);
    for options in [&[][..], &["--ephemeral"], &["--read-only"], &["--name", "named"]] {
        let said = bed.fails(&[&["mount", "base", "missing"], options].concat(), 1);
        assert!(said.contains("missing: No such file or directory"), "{said}");
        assert_eq!(fs::read_dir(bed.path("store/containers")).unwrap().count(), 0, "{options:?}");
    }
}

#[test]
fn a_store_that_is_removed_under_a_mount_is_not_made_again() {
    needs_root!();
    let bed = Bed::new(build);
    bed.mounted("base", &["--ephemeral"], |_| fs::remove_dir_all(bed.path("store")).unwrap());
    assert!(!bed.path("store").exists());
}

/// Kills the command after each of some times; what is left is whole.
fn killed(bed: &Bed, args: &[&str]) {
    for wait in [1, 3, 8, 20, 40, 70, 100, 150] {
        let mut child = bed.plyfs(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        sleep(Duration::from_millis(wait));
        child.kill().unwrap();
        child.wait().unwrap();
        for layer in fs::read_dir(bed.path("store/layers")).unwrap() {
            assert!(layer.unwrap().path().join("layer.json").exists(), "half a layer after {wait} ms of {args:?}");
        }
        bed.ok(&["image", "ls"]);
    }
}

#[test]
fn commits_and_removals_that_are_killed_finish_the_next_time() {
    needs_root!();
    let bed = Bed::new(build);
    bed.mounted("base", &["--name", "work"], |mnt| {
        for number in 0..1000 {
            fs::write(mnt.join(format!("f{number}")), "x").unwrap();
        }
    });
    killed(&bed, &["commit", "--source-date-epoch", "1", "work", "committed"]);
    let told = bed.ok(&["commit", "--source-date-epoch", "1", "work", "committed"]);
    assert_eq!(
        bed.ok(&["commit", "--source-date-epoch", "1", "work", "again"]).split(' ').nth(1),
        told.split(' ').nth(1)
    );
    bed.ok(&["image", "verify"]);
    bed.ok(&["image", "rm", "committed", "again", "work"]);
    killed(&bed, &["image", "gc"]);
    bed.ok(&["image", "gc"]);
    bed.ok(&["image", "verify"]);
    let count = |name: &str| fs::read_dir(bed.path("store").join(name)).unwrap().count();
    assert_eq!((count("layers"), count("staging"), count("blobs")), (1, 0, 1));
    bed.mounted("base", &["--ephemeral"], |mnt| assert_eq!(fs::read(mnt.join("etc/passwd")).unwrap(), b"etc/passwd"));
}
