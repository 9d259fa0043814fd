//! The same random operations on plyfs and on the kernel's overlayfs: every result is to be the same, and so are the
//! trees and what is on disk, also after a remount and with the uppers swapped.
//!
//! A case is a world (how it is mounted), layers and operations. `guess.rs` has random ones find something to work on;
//! `allowed.rs` knows the deliberate differences, each by its entry in docs/SEMANTICS.md.
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

mod allowed;
mod build;
mod case;
mod disk;
mod guess;
mod held;
mod perform;
mod random;
mod run;
mod shown;
mod shrink;
mod world;

use std::fs;
use std::path::Path;

use case::Case;

/// After so many failures no more seeds are tried.
const ENOUGH: usize = 5;

/// Runs the seeds of one part of the whole, so that parts run beside each other.
fn part(number: u64, of: u64) {
    let range = std::env::var("PLYFS_SEEDS").unwrap_or_else(|_| "0..200".to_owned());
    let (from, to) = range.split_once("..").expect("PLYFS_SEEDS=FROM..TO");
    let (from, to): (u64, u64) = (from.parse().unwrap(), to.parse().unwrap());
    let operations = std::env::var("PLYFS_OPERATIONS").map_or(300, |count| count.parse().unwrap());
    let mut failed = Vec::new();
    for seed in (from..to).filter(|seed| seed % of == number) {
        let case = random::case(seed, operations);
        if let Err(difference) = run::run(&case) {
            let small = shrink::shrink(&case, &difference);
            let difference = run::run(&small).err().unwrap_or(difference);
            let text = format!("seed {seed}: {difference}\nthe smallest case that fails:\n{small}");
            eprintln!("{text}");
            failed.push(text);
        }
        if failed.len() == ENOUGH {
            break;
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
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
    let (mut count, mut failed) = (0, Vec::new());
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let case: Case = fs::read_to_string(&path).unwrap().parse().unwrap();
        if let Err(difference) = run::run(&case) {
            failed.push(format!("{}: {difference}", path.display()));
        }
        count += 1;
    }
    assert!(count > 0);
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn every_difference_that_is_allowed_is_written_down() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/SEMANTICS.md")).unwrap();
    // A line's end is as good as a blank.
    let page = page.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut count = 0;
    for entry in fs::read_dir(root.join("tests/differential")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "rs") || path.ends_with("main.rs") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for found in text.split("[SEMANTICS: ").skip(1) {
            let claim = found.split(']').next().unwrap().trim_end_matches('.');
            assert!(page.contains(&format!("- {claim}")), "{}: {claim:?} is not in docs/SEMANTICS.md", path.display());
            count += 1;
        }
    }
    assert!(count > 5);
}

#[test]
fn a_case_survives_being_written_down() {
    for seed in 0..20 {
        let case = random::case(seed, 300);
        assert_eq!(case.to_string().parse::<Case>().unwrap(), case, "{seed}");
    }
}
