//! The round of an image through the command: imported, mounted, run, changed, told, committed, exported.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::let_underscore_must_use
)]

#[macro_use]
mod bed;
mod kept;
mod round;
mod running;
mod tree;
mod unprivileged;

use std::fs;

use bed::Bed;

#[test]
fn one_clear_line_for_what_is_wrong() {
    let bed = Bed::new(|root| fs::write(root.join("f"), "").unwrap());
    assert_eq!(bed.fails(&["image", "import", "tar:none.tar"], 1), "./none.tar: No such file or directory");
    assert!(bed.fails(&["image", "import", "ftp:x"], 2).contains("not oci:DIR[:REF], oci-archive:FILE"));
    assert!(bed.fails(&["image", "import", "tar:base.tar", "no such name"], 2).contains("is no name for an image"));
    assert!(bed.fails(&["image", "inspect", "none"], 1).starts_with("image none: no such image in the store"));
    assert!(bed.fails(&["commit", "none", "new"], 1).starts_with("none: no container of the store"));
    assert!(bed.fails(&["image", "export", "base", "dir:x"], 2).contains("not oci:DIR[:REF]"));
}

#[test]
fn every_command_tells_json() {
    let bed = Bed::new(|root| fs::write(root.join("f"), "").unwrap());
    for args in [
        &["image", "import", "tar:base.tar", "base", "--json"][..],
        &["image", "ls", "--json"],
        &["image", "inspect", "base", "--json"],
        &["image", "history", "base", "--json"],
        &["image", "verify", "--json"],
        &["image", "export", "base", "oci:out", "--json"],
        &["diff", "store/layers", "--json"],
        &["image", "gc", "--json"],
    ] {
        let printed = bed.ok(args);
        assert!(printed.starts_with(['{', '[']) && printed.ends_with(['}', ']', '\n']), "{args:?}: {printed}");
    }
}
