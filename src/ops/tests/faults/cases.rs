//! The operations, each on what makes it go another way.

use rustix::fs::{OFlags, RenameFlags};

use super::{Case, ERRNOS};
use crate::calls::failpoint::{Calls, Fault};
use crate::error::Result;
use crate::ops::SetAttr;
use crate::ops::tests::Bed;
use crate::ops::tests::bed::us;
use crate::sys::testing::root_or_skip;

const TOP: &str =
    "f=data g=other l->f d/f=x d/sub/x=1 empty/ p| hard=h hard2==hard d/hard3==hard run=x run%4755 f@user.a=b";
const BELOW: &str = "d/g=y d/sub/y=2 e/f=z e/sub/x=3 d/l->g";
const LAYERS: &[&str] = &[TOP, BELOW];

fn nothing(_: &Bed) -> Result<()> {
    Ok(())
}

pub(super) const fn case(name: &'static str, operation: fn(&Bed) -> Result<()>) -> Case {
    Case { name, layers: LAYERS, adapt: |_| {}, prepare: nothing, operation, rest: None }
}

pub(super) const fn after(
    name: &'static str,
    prepare: fn(&Bed) -> Result<()>,
    operation: fn(&Bed) -> Result<()>,
) -> Case {
    Case { name, layers: LAYERS, adapt: |_| {}, prepare, operation, rest: None }
}

fn set(bed: &Bed, path: &str, set: SetAttr) -> Result<()> {
    bed.setattr(path, set).map(drop)
}

const SET: SetAttr = SetAttr { mode: None, uid: None, gid: None, size: None, atime: None, mtime: None };

pub(super) fn create(bed: &Bed, path: &str) -> Result<()> {
    let (_, file) = bed.create(path, OFlags::WRONLY)?;
    bed.overlay.release(file)
}

fn exchange(bed: &Bed, from: &str, to: &str) -> Result<()> {
    bed.rename_with(from, to, RenameFlags::EXCHANGE)
}

const MAKE: &[Case] = &[
    case("create", |bed| create(bed, "new")),
    case("create in a lower directory", |bed| create(bed, "d/sub/new")),
    after("create over a whiteout", |bed| bed.unlink("f"), |bed| create(bed, "f")),
    case("mkdir", |bed| bed.mkdir("new").map(drop)),
    case("mkdir in a lower directory", |bed| bed.mkdir("e/sub/new").map(drop)),
    after("mkdir over a whiteout", |bed| bed.unlink("f"), |bed| bed.mkdir("f").map(drop)),
    after("mkdir over the whiteout of a directory", |bed| bed.rmdir("empty"), |bed| bed.mkdir("empty").map(drop)),
    case("symlink", |bed| bed.symlink("new", "t").map(drop)),
    after("symlink over a whiteout", |bed| bed.unlink("f"), |bed| bed.symlink("f", "t").map(drop)),
    case("mknod", |bed| bed.mknod("d/new", libc::S_IFIFO | 0o644, (0, 0)).map(drop)),
    after(
        "mknod over a whiteout",
        |bed| bed.unlink("p"),
        |bed| bed.mknod("p", libc::S_IFIFO | 0o600, (0, 0)).map(drop),
    ),
];

const LINK: &[Case] = &[
    case("link a lower file", |bed| bed.link("f", "new").map(drop)),
    case("link into a lower directory", |bed| bed.link("f", "d/sub/new").map(drop)),
    case("link a lower hard link", |bed| bed.link("hard", "e/new").map(drop)),
    after("link an upper file", |bed| create(bed, "u"), |bed| bed.link("u", "new").map(drop)),
    after("link over a whiteout", |bed| bed.unlink("g"), |bed| bed.link("f", "g").map(drop)),
    after(
        "link a hard link that is copied up",
        |bed| bed.append("hard", "+"),
        |bed| bed.link("hard2", "new").map(drop),
    ),
];

const REMOVE: &[Case] = &[
    case("unlink a lower file", |bed| bed.unlink("f")),
    case("unlink in a lower directory", |bed| bed.unlink("d/sub/y")),
    after("unlink an upper file", |bed| create(bed, "u"), |bed| bed.unlink("u")),
    after("unlink a copied up file", |bed| bed.append("f", "+"), |bed| bed.unlink("f")),
    case("unlink a symlink", |bed| bed.unlink("l")),
    case("unlink a lower hard link", |bed| bed.unlink("hard2")),
    case("unlink a lower hard link below", |bed| bed.unlink("d/hard3")),
    after("unlink a hard link that is copied up", |bed| bed.append("hard", "+"), |bed| bed.unlink("hard2")),
    after(
        "unlink the last name of a hard link",
        |bed| bed.unlink("hard").and_then(|()| bed.unlink("hard2")),
        |bed| bed.unlink("d/hard3"),
    ),
    case("rmdir a lower directory", |bed| bed.rmdir("empty")),
    after("rmdir an upper directory", |bed| bed.mkdir("u").map(drop), |bed| bed.rmdir("u")),
    after("rmdir a copied up directory", |bed| bed.chmod("empty", 0o700).map(drop), |bed| bed.rmdir("empty")),
    after(
        "rmdir a directory of whiteouts",
        |bed| ["d/sub/x", "d/sub/y"].iter().try_for_each(|path| bed.unlink(path)),
        |bed| bed.rmdir("d/sub"),
    ),
    after(
        "rmdir an opaque directory of whiteouts",
        |bed| bed.rmdir("empty").and_then(|()| bed.mkdir("empty").map(drop)),
        |bed| bed.rmdir("empty"),
    ),
];

const RENAME: &[Case] = &[
    case("rename a lower file", |bed| bed.rename("f", "new")),
    case("rename a lower file over another", |bed| bed.rename("f", "g")),
    case("rename a lower file to a lower directory", |bed| bed.rename("f", "e/sub/new")),
    case("rename a symlink", |bed| bed.rename("l", "d/l2")),
    case("rename a fifo", |bed| bed.rename("p", "d/p2")),
    after("rename an upper file", |bed| create(bed, "u"), |bed| bed.rename("u", "new")),
    after("rename an upper file over a lower one", |bed| create(bed, "u"), |bed| bed.rename("u", "f")),
    after(
        "rename an upper file over an upper one",
        |bed| create(bed, "u").and_then(|()| create(bed, "v")),
        |bed| bed.rename("u", "v"),
    ),
    after(
        "rename an upper file over a whiteout",
        |bed| create(bed, "u").and_then(|()| bed.unlink("f")),
        |bed| bed.rename("u", "f"),
    ),
    after("rename a lower file over a whiteout", |bed| bed.unlink("g"), |bed| bed.rename("f", "g")),
    case("rename a lower hard link", |bed| bed.rename("hard2", "new")),
    case("rename over a lower hard link", |bed| bed.rename("f", "hard2")),
    case("rename a merged directory", |bed| bed.rename("d", "new")),
    case("rename a merged directory to another", |bed| bed.rename("d/sub", "e/new")),
    case("rename a lower directory over an empty one", |bed| bed.rename("e", "empty")),
    after("rename an upper directory", |bed| bed.mkdir("u").map(drop), |bed| bed.rename("u", "d/u")),
    after("rename an upper directory over a lower one", |bed| bed.mkdir("u").map(drop), |bed| bed.rename("u", "empty")),
    after(
        "rename an upper directory over a whiteout",
        |bed| bed.mkdir("u").and_then(|_| bed.unlink("f")),
        |bed| bed.rename("u", "f"),
    ),
    after(
        "rename a directory over one of whiteouts",
        |bed| ["d/sub/x", "d/sub/y"].iter().try_for_each(|path| bed.unlink(path)),
        |bed| bed.rename("e/sub", "d/sub"),
    ),
    after("rename a directory again", |bed| bed.rename("d", "new"), |bed| bed.rename("new", "e/d")),
];

const EXCHANGE: &[Case] = &[
    case("exchange lower files", |bed| exchange(bed, "f", "g")),
    case("exchange files of two directories", |bed| exchange(bed, "f", "d/g")),
    case("exchange directories", |bed| exchange(bed, "d", "e")),
    case("exchange directories of two directories", |bed| exchange(bed, "d/sub", "e/sub")),
    case("exchange a file and a directory", |bed| exchange(bed, "f", "d")),
    case("exchange a hard link", |bed| exchange(bed, "hard", "d/f")),
    after("exchange an upper directory", |bed| bed.mkdir("u").map(drop), |bed| exchange(bed, "u", "d")),
];

const ATTR: &[Case] = &[
    case("chmod a lower file", |bed| bed.chmod("f", 0o600).map(drop)),
    case("chmod a lower file below", |bed| bed.chmod("d/sub/y", 0o600).map(drop)),
    case("chmod a merged directory", |bed| bed.chmod("d", 0o700).map(drop)),
    case("chmod a hard link", |bed| bed.chmod("hard2", 0o600).map(drop)),
    after("chmod an upper file", |bed| create(bed, "u"), |bed| bed.chmod("u", 0o600).map(drop)),
    case("chown", |bed| set(bed, "f", SetAttr { uid: Some(us().uid), gid: Some(us().gid), ..SET })),
    case("chown and chmod", |bed| set(bed, "d/f", SetAttr { uid: Some(us().uid), mode: Some(0o611), ..SET })),
    case("truncate", |bed| bed.truncate("f", 2).map(drop)),
    case("truncate to nothing", |bed| bed.truncate("d/f", 0).map(drop)),
    case("set an attribute", |bed| bed.set_xattr("f", "user.new", "value")),
    case("replace an attribute", |bed| bed.set_xattr("f", "user.a", "value")),
    case("remove an attribute", |bed| bed.overlay.removexattr(bed.node("f")?, b"user.a", us())),
    after(
        "set an attribute of an upper directory",
        |bed| bed.mkdir("u").map(drop),
        |bed| bed.set_xattr("u", "user.n", "v"),
    ),
    case("make immutable", |bed| bed.overlay.set_flags(bed.node("f")?, 0x10)),
];

const DATA: &[Case] = &[
    case("append to a lower file", |bed| bed.append("f", "+")),
    case("append to a lower file below", |bed| bed.append("d/sub/y", "+")),
    case("append to a hard link", |bed| bed.append("d/hard3", "+")),
    case("append to a set-id file", |bed| bed.append("run", "+")),
    case("overwrite", |bed| {
        let file = bed.open_file("f", OFlags::WRONLY | OFlags::TRUNC)?;
        bed.overlay.release(file)
    }),
];

/// Which errno is next: all of them, in turn.
pub(super) fn failing(shift: u32) -> impl Fn(u32) -> Fault {
    move |nth| Fault::Fail(ERRNOS[(nth + shift) as usize % ERRNOS.len()])
}

/// What a sweep over some operations finds wrong.
pub(super) fn sweep(cases: &[&[Case]], calls: Calls, fault: impl Fn(u32) -> Fault) {
    // Without privilege, marks say less of what was copied up.
    if !root_or_skip("calls that go wrong") {
        return;
    }
    let wrong: Vec<String> = cases.iter().copied().flatten().flat_map(|case| case.sweep(calls, &fault)).collect();
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_call_that_fails_leaves_things_as_they_were_when_something_is_made_or_linked() {
    sweep(&[MAKE, LINK], Calls::All, failing(0));
}

#[test]
fn a_call_that_fails_leaves_things_as_they_were_when_something_is_removed() {
    sweep(&[REMOVE], Calls::All, failing(1));
}

#[test]
fn a_call_that_fails_leaves_things_as_they_were_when_something_is_renamed() {
    sweep(&[RENAME], Calls::All, failing(2));
}

#[test]
fn a_call_that_fails_leaves_things_as_they_were_when_things_are_exchanged() {
    sweep(&[EXCHANGE], Calls::All, failing(3));
}

#[test]
fn a_call_that_fails_leaves_things_as_they_were_when_attributes_or_data_change() {
    sweep(&[ATTR, DATA], Calls::All, failing(4));
}

#[test]
fn a_daemon_that_dies_at_any_call_leaves_the_old_state_or_the_new_one_of_what_it_makes_or_removes() {
    sweep(&[MAKE, LINK, REMOVE], Calls::Changes, |_| Fault::Die);
}

#[test]
fn a_daemon_that_dies_at_any_call_leaves_the_old_state_or_the_new_one_of_what_it_renames() {
    sweep(&[RENAME, EXCHANGE], Calls::Changes, |_| Fault::Die);
}

#[test]
fn a_daemon_that_dies_at_any_call_leaves_the_old_state_or_the_new_one_of_what_it_changes() {
    sweep(&[ATTR, DATA], Calls::Changes, |_| Fault::Die);
}

#[test]
#[ignore = "takes minutes; scripts/soak runs it"]
fn a_panic_at_any_call_of_any_operation_leaves_all_locks_free_and_the_inodes_of_use() {
    sweep(&[MAKE, LINK, REMOVE, RENAME, EXCHANGE, ATTR, DATA], Calls::Changes, |_| Fault::Panic);
}

#[test]
fn a_panic_at_any_call_leaves_all_locks_free_and_the_inodes_of_use() {
    let some = [MAKE, LINK, REMOVE, RENAME, EXCHANGE, ATTR, DATA].map(|cases| &cases[..1]);
    sweep(&some, Calls::Changes, |_| Fault::Panic);
}
