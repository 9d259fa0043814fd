//! What an operation costs as layers and directories grow, in system calls of the daemon.

use std::fs;

use super::common::*;
use super::watch::Watch;

/// The calls of a request on a mount of `layers` layers, each with a directory `d`; the lowest has `files` files in it, half
/// of which the topmost has too.
fn calls(
    layers: usize,
    files: usize,
    opcode: &str,
    prepare: impl FnOnce(&Mounted),
    run: impl FnOnce(&Mounted),
) -> Result<usize, String> {
    let mut setup = Setup::new().option("awake=0");
    for number in 0..layers {
        setup = setup.lower(|layer| match number {
            _ if number == layers - 1 => layer.files("d", files),
            0 => layer.files("d", files / 2),
            _ => layer.dir("d"),
        });
    }
    let tree = setup.mount();
    let watch = Watch::new(&tree)?;
    prepare(&tree);
    Ok(watch.calls(opcode, || run(&tree)).len())
}

fn list(tree: &Mounted, files: usize) {
    assert_eq!(fs::read_dir(tree.path("d")).unwrap().count(), files);
}

fn missing(tree: &Mounted) {
    assert_eq!(errno(lstat(tree.path("d/missing"))), rustix::io::Errno::NOENT);
}

#[test]
fn a_lookup_over_100_layers_takes_less_than_3_times_that_over_1_once_the_directory_is_listed() {
    needs_root!();
    let lookup = |layers| calls(layers, 10, "LOOKUP", |tree| list(tree, 10), missing);
    let created = |layers| {
        calls(
            layers,
            10,
            "CREATE",
            |tree| [list(tree, 10), tree.write("d/first", "")][1],
            |tree| tree.write("d/new", ""),
        )
    };
    let (one, hundred) = match (lookup(1), lookup(100)) {
        (Ok(one), Ok(hundred)) => (one, hundred),
        (Err(reason), _) | (_, Err(reason)) => skip!(reason),
    };
    assert!(hundred < 3 * one.max(1), "a lookup takes {one} calls over 1 layer, {hundred} over 100");
    let (one, hundred) = (created(1).unwrap(), created(100).unwrap());
    assert!(hundred < 3 * one.max(1), "a creation takes {one} calls over 1 layer, {hundred} over 100");
}

#[test]
fn a_listing_takes_calls_in_proportion_to_its_entries() {
    needs_root!();
    for layers in [1, 2] {
        let listing =
            |files| calls(layers, files, "READDIRPLUS", |tree| assert!(tree.exists("d")), |tree| list(tree, files));
        let (few, many) = match (listing(500), listing(4000)) {
            (Ok(few), Ok(many)) => (few, many),
            (Err(reason), _) | (_, Err(reason)) => skip!(reason),
        };
        assert!(many <= 8 * few + few / 10, "{layers} layers: {few} calls for 500 entries, {many} for 4,000");
    }
}
