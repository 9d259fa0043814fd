//! The same, with whiteouts of other forms, and with copies of attributes alone.

use super::cases::{after, case, create, failing, sweep};
use super::{Case, Fault};
use crate::calls::failpoint::Calls;
use crate::config::{Config, WhiteoutStyle};
use crate::error::{Errno, Result};
use crate::ops::tests::Bed;

const fn half_way(case: Case, rest: fn(&Bed) -> Result<()>) -> Case {
    Case { rest: Some(rest), ..case }
}

/// Removes the second name of a file, which is there until its rename is done.
fn unlink_second(bed: &Bed, name: &str, kept: &str) -> Result<()> {
    assert_eq!(bed.attr(name)?.ino, bed.attr(kept)?.ino, "{name} and {kept}");
    bed.unlink(name)
}

const HIDDEN: &[Case] = &[
    case("unlink a lower file", |bed| bed.unlink("f")),
    case("unlink in a lower directory", |bed| bed.unlink("d/sub/y")),
    after("unlink a copied up file", |bed| bed.append("f", "+"), |bed| bed.unlink("f")),
    case("rmdir a lower directory", |bed| bed.rmdir("empty")),
    after("rmdir a copied up directory", |bed| bed.chmod("empty", 0o700).map(drop), |bed| bed.rmdir("empty")),
    after(
        "rmdir a directory of whiteouts",
        |bed| ["d/sub/x", "d/sub/y"].iter().try_for_each(|path| bed.unlink(path)),
        |bed| bed.rmdir("d/sub"),
    ),
    after("create over a whiteout", |bed| bed.unlink("f"), |bed| create(bed, "f")),
    after("mkdir over a whiteout", |bed| bed.unlink("f"), |bed| bed.mkdir("f").map(drop)),
    case("rename a lower file", |bed| bed.rename("f", "new")),
    half_way(case("rename a lower file over another", |bed| bed.rename("f", "g")), |bed| unlink_second(bed, "f", "g")),
    half_way(
        after("rename a lower file over an upper one", |bed| create(bed, "u"), |bed| bed.rename("f", "u")),
        |bed| unlink_second(bed, "f", "u"),
    ),
    after("rename a lower file over a whiteout", |bed| bed.unlink("g"), |bed| bed.rename("f", "g")),
    after(
        "rename a lower file to an upper directory",
        |bed| bed.mkdir("u").and_then(|_| bed.mkdir("u/v")).map(drop),
        |bed| bed.rename("f", "u/v/new"),
    ),
    half_way(
        after(
            "rename a lower file to an opaque directory",
            |bed| bed.rmdir("empty").and_then(|()| bed.mkdir("empty").map(drop)),
            |bed| bed.rename("f", "empty/new"),
        ),
        |bed| unlink_second(bed, "f", "empty/new"),
    ),
    after("rename an upper file over a lower one", |bed| create(bed, "u"), |bed| bed.rename("u", "f")),
    half_way(case("rename a lower hard link over a file", |bed| bed.rename("hard2", "f")), |bed| {
        unlink_second(bed, "hard2", "f")
    }),
    case("rename a merged directory", |bed| bed.rename("d", "new")),
    case("rename a merged directory to another", |bed| bed.rename("d/sub", "e/new")),
    // An empty directory is left.
    half_way(case("rename a lower directory over an empty one", |bed| bed.rename("e", "empty")), |bed| bed.rmdir("e")),
    half_way(
        after(
            "rename a directory over one of whiteouts",
            |bed| ["d/sub/x", "d/sub/y"].iter().try_for_each(|path| bed.unlink(path)),
            |bed| bed.rename("e/sub", "d/sub"),
        ),
        |bed| bed.rmdir("e/sub"),
    ),
    half_way(
        after(
            "rename a directory to an opaque one",
            |bed| bed.rmdir("empty").and_then(|()| bed.mkdir("empty").map(drop)),
            |bed| bed.rename("e", "empty/new"),
        ),
        // Where one is to go, or where one was.
        |bed| match bed.list("e").is_empty() {
            true => bed.rmdir("e"),
            false => bed.rename("e", "empty/new"),
        },
    ),
];

const METACOPY: &[Case] = &[
    case("chmod a lower file", |bed| bed.chmod("f", 0o600).map(drop)),
    case("chmod a hard link", |bed| bed.chmod("hard2", 0o600).map(drop)),
    after("chmod again", |bed| bed.chmod("f", 0o600).map(drop), |bed| bed.chmod("f", 0o640).map(drop)),
    case("append to a lower file", |bed| bed.append("f", "+")),
    after("append to a metacopy", |bed| bed.chmod("f", 0o600).map(drop), |bed| bed.append("f", "+")),
    after("append to a linked metacopy", |bed| bed.chmod("hard", 0o600).map(drop), |bed| bed.append("d/hard3", "+")),
    after("append to a set-id metacopy", |bed| bed.chmod("run", 0o4711).map(drop), |bed| bed.append("run", "+")),
    after("truncate a metacopy", |bed| bed.chmod("f", 0o600).map(drop), |bed| bed.truncate("f", 2).map(drop)),
    after("truncate to nothing", |bed| bed.chmod("f", 0o600).map(drop), |bed| bed.truncate("f", 0).map(drop)),
    case("rename a lower file", |bed| bed.rename("f", "d/new")),
    after("rename a metacopy", |bed| bed.chmod("f", 0o600).map(drop), |bed| bed.rename("f", "d/new")),
    after("append to a renamed metacopy", |bed| bed.rename("f", "d/new"), |bed| bed.append("d/new", "+")),
    after("link a metacopy", |bed| bed.chmod("f", 0o600).map(drop), |bed| bed.link("f", "d/new").map(drop)),
    after("unlink a metacopy", |bed| bed.chmod("f", 0o600).map(drop), |bed| bed.unlink("f")),
];

fn with(cases: &[Case], adapt: fn(&mut Config)) -> Vec<Case> {
    cases.iter().map(|case| Case { adapt, ..*case }).collect()
}

fn hidden_by_xattrs() -> Vec<Case> {
    with(HIDDEN, |config| config.whiteouts = Some(WhiteoutStyle::Xattr))
}

/// Each of these is one step.
fn hidden_by_dot_files() -> Vec<Case> {
    let cases = with(HIDDEN, |config| config.whiteouts = Some(WhiteoutStyle::DotFile));
    cases.into_iter().map(|case| Case { rest: None, ..case }).collect()
}

fn metacopies() -> Vec<Case> {
    with(METACOPY, |config| config.metacopy = true)
}

#[test]
fn a_call_that_fails_leaves_things_as_they_were_with_xattr_whiteouts() {
    sweep(&[&hidden_by_xattrs()], Calls::Changes, failing(0));
}

#[test]
fn a_rename_that_cannot_make_a_hard_link_is_done_all_the_same() {
    let cases: Vec<Case> = hidden_by_xattrs().into_iter().filter(|case| case.rest.is_some()).collect();
    sweep(&[&cases], Calls::Changes, |_| Fault::Fail(Errno::MLINK));
}

#[test]
fn a_call_that_fails_leaves_things_as_they_were_with_dot_files() {
    sweep(&[&hidden_by_dot_files()], Calls::Changes, failing(1));
}

#[test]
fn a_call_that_fails_leaves_things_as_they_were_with_metacopies() {
    sweep(&[&metacopies()], Calls::Changes, failing(2));
}

#[test]
fn a_daemon_that_dies_at_any_call_loses_nothing_and_shows_nothing_again_with_xattr_whiteouts() {
    sweep(&[&hidden_by_xattrs()], Calls::Changes, |_| Fault::Die);
}

#[test]
fn a_daemon_that_dies_at_any_call_leaves_the_old_state_or_the_new_one_with_dot_files() {
    sweep(&[&hidden_by_dot_files()], Calls::Changes, |_| Fault::Die);
}

#[test]
fn a_daemon_that_dies_at_any_call_leaves_the_old_state_or_the_new_one_with_metacopies() {
    sweep(&[&metacopies()], Calls::Changes, |_| Fault::Die);
}

#[test]
fn a_rename_is_done_where_the_filesystem_leaves_no_whiteout() {
    let cases: Vec<Case> = HIDDEN.iter().filter(|case| case.rest.is_some()).copied().collect();
    sweep(&[&cases], Calls::Changes, |_| Fault::Fail(Errno::INVAL));
}
