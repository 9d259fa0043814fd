//! Daemons that die at each of the calls by which an operation changes the layers, one after the other: a process that is
//! gone in the middle, and not an error that is answered.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;

use rustix::fs::RenameFlags;

use crate::common::*;
use crate::crash::order;
use crate::kills::{difference, look};
use crate::rename::{rename, rename_with};

struct Case {
    name: &'static str,
    operation: fn(&Mounted) -> io::Result<()>,
    /// In how many calls it is done, or more.
    calls: u32,
}

fn append(tree: &Mounted, path: &str) -> io::Result<()> {
    io::Write::write_all(&mut fs::OpenOptions::new().append(true).open(tree.path(path))?, b"appended")
}

fn chmod(tree: &Mounted, path: &str) -> io::Result<()> {
    fs::set_permissions(tree.path(path), fs::Permissions::from_mode(0o640))
}

const COPY_UPS: [Case; 4] = [
    Case { name: "copy-up, parents first", operation: |tree| append(tree, "a/b/c/f"), calls: 8 },
    Case { name: "copy-up of a hard link", operation: |tree| append(tree, "hard"), calls: 4 },
    Case { name: "copy-up of attributes", operation: |tree| chmod(tree, "a/f"), calls: 3 },
    Case { name: "copy-up of a directory", operation: |tree| chmod(tree, "a/b"), calls: 3 },
];

const RENAMES: [Case; 5] = [
    Case { name: "file to a new name", operation: |tree| Ok(rename(tree, "a/f", "e/new")?), calls: 3 },
    Case { name: "file over another", operation: |tree| Ok(rename(tree, "a/f", "e/f")?), calls: 3 },
    Case { name: "merged directory", operation: |tree| Ok(rename(tree, "a", "e/new")?), calls: 3 },
    Case { name: "directory over an empty one", operation: |tree| Ok(rename(tree, "a/b", "empty")?), calls: 3 },
    Case { name: "exchange", operation: |tree| Ok(rename_with(tree, "a", "e/f", RenameFlags::EXCHANGE)?), calls: 3 },
];

fn setup() -> Setup {
    let setup = Setup::new().lower(|l| {
        l.file("a/f", "a file").file("a/b/c/f", "f".repeat(100_000)).file("hard", "hard").hard_link("e/hard", "hard");
        l.file("e/f", "to be replaced").dir("empty").whiteout("a/hidden", Form::Device)
    });
    setup.lower(|l| l.file("a/hidden", "s").file("a/b/below", "b").file("e/below", "b")).small_upper(16 << 20)
}

/// Does `case` once for each call, which is the last of the daemon.
fn die_at_each_call(tree: &mut Mounted, case: &Case, options: &'static str) {
    let renew = |tree: &mut Mounted| {
        tree.unmount();
        tree.empty_upper();
        tree.set_options(options);
        tree.mount();
    };
    renew(tree);
    let shown = |tree: &Mounted| look(&tree.path("")).0;
    let before = shown(tree);
    (case.operation)(tree).unwrap();
    let after = shown(tree);
    assert_ne!(before, after, "{}", case.name);
    let mut deaths = 0;
    loop {
        renew(tree);
        order(tree, &format!("abort-{}", deaths + 1));
        let Err(error) = (case.operation)(tree) else { break };
        deaths += 1;
        let what = format!("{} with {options}, at call {deaths}", case.name);
        assert!(matches!(error.raw_os_error(), Some(libc::ENOTCONN | libc::ECONNABORTED)), "{what}: {error}");
        tree.recover();
        assert_eq!(
            fs::read_dir(tree.beside("work/work")).unwrap().count(),
            0,
            "{what}: the new mount leaves something"
        );
        let now = shown(tree);
        if now != after {
            assert_eq!(difference(&before, &now), [""; 0], "{what}: neither as before nor as after");
            (case.operation)(tree).unwrap_or_else(|error| panic!("{what}, a second try: {error}"));
            assert_eq!(difference(&after, &shown(tree)), [""; 0], "{what}: a second try");
        }
    }
    order(tree, "off");
    assert_eq!(difference(&after, &shown(tree)), [""; 0], "{}", case.name);
    println!("{} with {options}: {deaths} calls", case.name);
    assert!(deaths >= case.calls, "{} with {options}: {deaths} calls", case.name);
}

fn die_at_all(cases: &[Case], options: &[&'static str]) {
    let mut tree = setup().mount();
    for options in options {
        cases.iter().for_each(|case| die_at_each_call(&mut tree, case, options));
    }
}

#[test]
fn a_daemon_that_aborts_at_any_call_of_a_copy_up_leaves_it_done_or_not() {
    plyfs_only!("the kernel's overlayfs cannot abort");
    needs_root!();
    die_at_all(&COPY_UPS, &["redirect_dir=on", "metacopy=on"]);
}

#[test]
fn a_daemon_that_aborts_at_any_call_of_a_rename_leaves_it_done_or_not() {
    plyfs_only!("the kernel's overlayfs cannot abort");
    needs_root!();
    die_at_all(&RENAMES, &["redirect_dir=on"]);
}
