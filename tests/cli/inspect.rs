//! Looking into overlays: what is said, and how bad input is refused.

use std::fs;

use super::{Bed, said};

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
