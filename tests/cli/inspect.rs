//! Looking into overlays: what is said, and how bad input is refused.

use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::fs::{XattrFlags, lsetxattr};
use rustix::process::geteuid;

use super::{Bed, names, needs_root, said, skip};

/// What a command that succeeds prints.
#[track_caller]
fn printed(bed: &Bed, args: &[&str]) -> String {
    let output = bed.plyfs().args(args).output().unwrap();
    assert_eq!((said(&output).as_str(), output.status.code()), ("", Some(0)), "{args:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Checks that a command is refused with a line that begins so.
#[track_caller]
fn refused(bed: &Bed, args: &[&str], code: i32, line: &str) {
    let output = bed.plyfs().args(args).output().unwrap();
    let said = said(&output);
    assert!(said.starts_with(&format!("plyfs: {line}")) && said.lines().count() == 1, "{args:?}: {said}");
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(code), &b""[..]), "{args:?}");
}

#[test]
fn a_path_is_explained_to_people_and_as_json() {
    let bed = Bed::new();
    fs::write(bed.path("b/a"), "below").unwrap();
    let layers = "lowerdir=a:b,upperdir=u,workdir=w";
    let text = printed(&bed, &["explain", "-o", layers, "a"]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "/a: file; lower 1 is the topmost layer that has it");
    assert!(lines[2].starts_with("  lower 1  a/a: file, 1 bytes, 0644 "), "{text}");
    assert!(lines[3].ends_with(" -> hidden by what lower 1 has"), "{text}");
    assert_eq!(lines[4], "  data     a/a");
    assert_eq!(lines[5], "  write    change its content: copied up, 1 bytes");
    let json: serde_json::Value =
        serde_json::from_str(&printed(&bed, &["explain", "--json", "-o", layers, "/none"])).unwrap();
    assert_eq!(json["shows"], serde_json::Value::Null);
    assert_eq!(json["layers"].as_array().unwrap().len(), 3);
    assert_eq!(json["layers"][2]["is"], "nothing");
    // Options as the list of mounts shows them of the kernel's overlayfs, and an upper alone.
    let kernel = format!("rw,relatime,{layers},redirect_dir=on,index=on,uuid=on,nouserxattr");
    let output = bed.plyfs().args(["explain", "-o", &kernel, "a"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let text = printed(&bed, &["explain", "-o", "lowerdir=a,upperdir=u", "a"]);
    assert!(text.ends_with("nothing can be changed: the overlay is read-only\n"), "{text}");
}

#[test]
fn what_cannot_be_explained_is_told_in_one_line() {
    let bed = Bed::new();
    refused(&bed, &["explain"], 2, "the following required arguments were not provided");
    refused(&bed, &["explain", "--wrong", "x"], 2, "unexpected argument '--wrong' found");
    refused(&bed, &["explain", "-o", "upperdir=u,workdir=w", "a"], 2, "lowerdir: needs at least one layer");
    refused(&bed, &["explain", "-o", "lowerdir=none", "a"], 1, "lowerdir=none: No such file or directory");
    refused(&bed, &["explain", "-o", "lowerdir=a", "../a"], 1, "../a: a path with .. is not explained");
    refused(&bed, &["explain", "a/a"], 1, "a/a: not on a mount of plyfs: ");
    refused(&bed, &["explain", "none"], 1, "none: No such file or directory");
}

#[test]
fn a_machine_is_examined_and_nothing_is_left() {
    let bed = Bed::new();
    let output = bed.plyfs().args(["doctor", "u"]).output().unwrap();
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!((said(&output).as_str(), output.status.code()), ("", Some(0)), "{text}");
    for line in ["kernel", "/dev/fuse", "user namespaces", "user xattrs", "reflinks", "mounting", "passthrough"] {
        assert!(text.lines().any(|told| told.get(9..).is_some_and(|rest| rest.starts_with(line))), "{line}: {text}");
    }
    assert!(text.contains("ok       mounting          works"), "{text}");
    assert_eq!(names(bed.path("")), ["a", "b", "m", "u", "w"]);
    assert!(names(bed.path("u")).is_empty());
    let json: serde_json::Value = serde_json::from_str(&printed(&bed, &["doctor", "--json"])).unwrap();
    assert!(json.as_array().unwrap().iter().all(|check| check["state"] != "broken"), "{json}");
    refused(&bed, &["doctor", "none"], 1, "none: No such file or directory");
    refused(&bed, &["doctor", "a/a"], 1, &format!("{}: Not a directory", "a/a"));
    refused(&bed, &["doctor", "u", "w"], 2, "unexpected argument 'w' found");
}

#[test]
fn a_machine_that_cannot_mount_is_told_with_exit_code_1() {
    needs_root!();
    let bed = Bed::new();
    let script = "mount -t tmpfs none /dev && mknod /dev/null c 1 3 && exec \"$0\" doctor u";
    let output = bed.unshared(&["-m"], "sh", script).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("BROKEN   /dev/fuse") && text.contains("BROKEN   mounting"), "{text}");
    assert_eq!(names(bed.path("")), ["a", "b", "m", "u", "w"]);
}

/// What a mount shows: paths, and the data of files.
fn shown(dir: &Path) -> Vec<String> {
    let (mut lines, mut left) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                lines.push(format!("{}/", path.display()));
                left.push(path);
            } else {
                lines.push(format!("{} {}", path.display(), fs::read_to_string(&path).unwrap()));
            }
        }
    }
    lines.sort();
    lines
}

#[test]
fn a_broken_upper_is_mended_and_mounts_by_plyfs_and_by_the_kernel() {
    needs_root!();
    let bed = Bed::new();
    fs::create_dir_all(bed.path("b/old/deep")).unwrap();
    fs::write(bed.path("b/old/deep/f"), "deep").unwrap();
    fs::hard_link(bed.path("b/b"), bed.path("b/b2")).unwrap();
    bed.mount();
    refused(&bed, &["check", "u"], 1, "upperdir=u: in use by another mount");
    fs::rename(bed.path("m/old"), bed.path("m/new")).unwrap();
    fs::create_dir(bed.path("m/made")).unwrap();
    fs::write(bed.path("m/made/f"), "made").unwrap();
    fs::write(bed.path("m/b"), "linked").unwrap();
    fs::remove_file(bed.path("m/a")).unwrap();
    let before = shown(&bed.path("m"));
    printed(&bed, &["umount", "m"]);
    let check = ["check", "u", "--work", "w", "-o", "lowerdir=a:b"];
    assert_eq!(printed(&bed, &check), "", "what a mount has left is whole");

    let mark = |path: &str, mark: &str, value: &str| {
        lsetxattr(bed.path(path), format!("trusted.overlay.{mark}"), value.as_bytes(), XattrFlags::empty()).unwrap();
    };
    mark("u/made", "impure", "z");
    mark("u/made/f", "origin", "nothing");
    mark("u/b", "protattr", "q");
    fs::create_dir_all(bed.path("w/work/#9/left")).unwrap();
    let index: Vec<_> = fs::read_dir(bed.path("w/index")).unwrap().flatten().collect();
    fs::remove_file(index[0].path()).unwrap();
    let output = bed.plyfs().args(check).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    for line in
        ["made: wrong mark: ", "made/f: wrong mark: ", "b: wrong mark: ", "b: not indexed: ", "work/#9: leftover: "]
    {
        assert!(
            text.lines().any(|told| told.starts_with(line) && told.ends_with(" [--repair mends it]")),
            "{line}: {text}"
        );
    }
    let mended = printed(&bed, &[&check[..], &["--repair"]].concat());
    assert_eq!(mended.lines().count(), text.lines().count(), "{mended}");
    assert_eq!(printed(&bed, &check), "", "after the repair");

    bed.mount();
    assert_eq!(shown(&bed.path("m")), before);
    printed(&bed, &["umount", "m"]);
    let options = format!(
        "lowerdir={}:{},upperdir={},workdir={},redirect_dir=on,index=on",
        bed.path("a").display(),
        bed.path("b").display(),
        bed.path("u").display(),
        bed.path("w").display()
    );
    let mounted = Command::new("mount").args(["-t", "overlay", "overlay", "-o", &options]).arg(bed.path("m")).output();
    if !mounted.unwrap().status.success() {
        return skip("the kernel's overlayfs cannot be mounted here");
    }
    refused(&bed, &["check", "u"], 1, "upperdir=u: in use by a mount of the kernel's overlayfs");
    let by_kernel = shown(&bed.path("m"));
    rustix::mount::unmount(bed.path("m"), rustix::mount::UnmountFlags::empty()).unwrap();
    assert_eq!(by_kernel, before);
    refused(&bed, &["check", "none"], 1, "upperdir=none: No such file or directory");
    refused(&bed, &["check"], 2, "the following required arguments were not provided");
}
