//! The house is tidy: what `src/lib.rs` and the documentation say of the code is so.
//!
//! Each rule is a function from text to what is wrong with it, and is tested itself on what it has to find.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::arithmetic_side_effects
)]

#[path = "tidy/rules.rs"]
mod rules;
#[path = "tidy/source.rs"]
mod source;
#[path = "tidy/texts.rs"]
mod texts;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use source::Source;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files at or below a path of the project, in order; none if it is not there.
fn files(path: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![PathBuf::from(path)];
    while let Some(path) = left.pop() {
        match fs::read_dir(root().join(&path)) {
            Ok(entries) => left.extend(entries.map(|entry| path.join(entry.unwrap().file_name()))),
            Err(_) if root().join(&path).exists() => found.push(path),
            Err(_) => {}
        }
    }
    found.sort();
    found
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn rust(path: &str) -> Vec<Source> {
    let files = files(path).into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    let sources: Vec<_> = files.map(|path| Source::new(&path, &read(&path))).collect();
    assert!(!sources.is_empty(), "no source in {path}");
    sources
}

#[track_caller]
fn expect_nothing(wrong: impl IntoIterator<Item = String>) {
    let wrong: Vec<String> = wrong.into_iter().collect();
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn imports_go_down_the_floors_only() {
    let floors = rules::floors(&Source::new("src/lib.rs", &read("src/lib.rs")))
        .unwrap_or_else(|wrong| panic!("\n{}\n", wrong.join("\n")));
    assert!(floors.len() > 10, "few modules have a floor: {floors:?}");
    expect_nothing(rust("src").iter().flat_map(|source| rules::imports(&floors, source)));
}

#[test]
fn only_the_adapter_knows_fuser() {
    expect_nothing(rust("src").iter().flat_map(rules::fuser));
}

#[test]
fn unsafe_is_in_one_room_and_has_its_reasons() {
    expect_nothing(rust("src").iter().flat_map(rules::unsafety));
}

#[test]
fn files_are_small() {
    expect_nothing(rust("src").iter().flat_map(rules::size));
}

#[test]
fn files_say_what_they_are() {
    let all = ["src", "tests", "benches", "fuzz/checks", "fuzz/targets"].into_iter().flat_map(rust);
    expect_nothing(all.flat_map(|source| rules::heading(&source)));
}

#[test]
fn nothing_is_unwrapped() {
    expect_nothing(rust("src").iter().flat_map(rules::unwraps));
}

#[test]
fn layers_are_reached_by_calls_that_can_be_made_to_fail() {
    expect_nothing(rust("src").iter().flat_map(rules::calls));
}

#[test]
fn locks_have_a_rank() {
    expect_nothing(rust("src").iter().flat_map(rules::locks));
}

#[test]
fn tests_are_no_part_of_the_product() {
    expect_nothing(rust("src").iter().flat_map(rules::test_modules));
}

#[test]
fn every_claim_names_its_tests() {
    let tests: BTreeSet<String> =
        ["src", "tests"].into_iter().flat_map(rust).flat_map(|source| texts::tests(&source)).collect();
    for path in ["docs/SEMANTICS.md", "docs/SECURITY.md"].map(Path::new) {
        let text = read(path);
        assert!(text.matches("[test: ").count() > 10, "few claims in {}", path.display());
        expect_nothing(texts::claims(path, &text, &tests));
    }
}

#[test]
fn no_path_is_one_machines_own() {
    let places = [
        ".ci",
        "CHANGELOG.md",
        "Cargo.toml",
        "README.md",
        "benches",
        "docs",
        "fuzz/Cargo.toml",
        "fuzz/checks",
        "fuzz/seeds",
        "fuzz/targets",
        "man",
        "scripts",
        "src",
        "tests",
    ];
    let texts = places.into_iter().flat_map(files).filter_map(|path| {
        let text = String::from_utf8(fs::read(root().join(&path)).unwrap()).ok()?;
        Some((path, text))
    });
    expect_nothing(texts.flat_map(|(path, text)| texts::private_paths(&path, &text)));
}
