//! The same random operations on plyfs and on the kernel's overlayfs: every result is to be the same, and so are the
//! trees, also after a remount and with the uppers swapped.
//!
//! `PLYFS_SEEDS=FROM..TO` and `PLYFS_OPERATIONS=COUNT` say how much. A case that fails is shrunk and printed as text; put
//! into `regressions/NAME.txt`, it is run from then on.
#![allow(
    unsafe_code,
    missing_docs,
    dead_code,
    unreachable_pub,
    unused_imports,
    unused_macros,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::arithmetic_side_effects,
    clippy::let_underscore_must_use,
    clippy::undocumented_unsafe_blocks
)]

#[macro_use]
#[path = "../common/mod.rs"]
mod common;

mod case;
mod random;
mod run;
mod shrink;

use std::fs;
use std::path::Path;

use case::Case;

/// Runs the seeds of one part of the whole, so that parts run beside each other.
fn part(number: u64, of: u64) {
    let range = std::env::var("PLYFS_SEEDS").unwrap_or_else(|_| "0..200".to_owned());
    let (from, to) = range.split_once("..").expect("PLYFS_SEEDS=FROM..TO");
    let (from, to): (u64, u64) = (from.parse().unwrap(), to.parse().unwrap());
    let operations = std::env::var("PLYFS_OPERATIONS").map_or(300, |count| count.parse().unwrap());
    for seed in (from..to).filter(|seed| seed % of == number) {
        let case = random::case(seed, operations);
        if let Err(message) = run::run(&case) {
            let small = shrink::shrink(&case);
            let message = run::run(&small).err().unwrap_or(message);
            panic!("seed {seed}: {message}\nthe smallest case that fails:\n{small}");
        }
    }
}

#[test]
fn random_operations_do_what_the_kernel_does_1() {
    needs_root!();
    part(0, 4);
}

#[test]
fn random_operations_do_what_the_kernel_does_2() {
    needs_root!();
    part(1, 4);
}

#[test]
fn random_operations_do_what_the_kernel_does_3() {
    needs_root!();
    part(2, 4);
}

#[test]
fn random_operations_do_what_the_kernel_does_4() {
    needs_root!();
    part(3, 4);
}

#[test]
fn cases_that_once_failed_do_what_the_kernel_does() {
    needs_root!();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/differential/regressions");
    let mut count = 0;
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let case: Case = fs::read_to_string(&path).unwrap().parse().unwrap();
        if let Err(message) = run::run(&case) {
            panic!("{}: {message}", path.display());
        }
        count += 1;
    }
    assert!(count > 0);
}

#[test]
fn a_case_survives_being_written_down() {
    let case = random::case(7, 300);
    assert_eq!(case.to_string().parse::<Case>().unwrap(), case);
}
