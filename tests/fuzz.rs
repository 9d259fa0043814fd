//! The seeds of the fuzz targets, among them what fuzzing has found, replayed without a fuzzer.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

#[path = "../fuzz/checks/mod.rs"]
mod checks;

use std::fs;
use std::path::Path;

/// Checks every seed of a target.
fn replay(target: &str) {
    let (_, check) = checks::ALL.iter().find(|(name, _)| *name == target).unwrap();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let mut seeds: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    seeds.sort();
    assert!(seeds.len() >= 10, "few seeds: {seeds:?}");
    for seed in seeds {
        println!("{}", seed.display());
        check(&fs::read(&seed).unwrap());
    }
}

#[test]
fn seeds_of_option_lists_are_understood_or_refused() {
    replay("options");
}

#[test]
fn seeds_of_marks_are_understood_or_ignored() {
    replay("marks");
}

#[test]
fn seeds_of_the_merge_rule_give_what_it_says() {
    replay("merge");
}

#[test]
fn seeds_of_hostile_layers_show_nothing_outside_and_last() {
    replay("layers");
}

#[test]
fn seeds_of_image_documents_are_understood_or_refused_in_a_line() {
    replay("documents");
}

#[test]
fn seeds_of_tar_entries_stay_within_the_layer() {
    replay("entries");
}

#[test]
fn every_target_has_a_check_and_seeds() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let mut expected: Vec<_> = checks::ALL.iter().map(|(name, _)| (*name).to_owned()).collect();
    expected.sort();
    for (dir, suffix) in [("targets", ".rs"), ("seeds", "")] {
        let entries = fs::read_dir(fuzz.join(dir)).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap().replacen(suffix, "", 1)).collect();
        names.sort();
        assert_eq!(names, expected, "in fuzz/{dir}");
    }
}
