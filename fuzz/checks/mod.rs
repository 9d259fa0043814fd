//! What has to hold for any input: a module with a function `check` for each fuzz target, which panics where it does not.
//!
//! `fuzz/targets` feeds them with what libFuzzer makes up, `tests/fuzz.rs` with `fuzz/seeds`.

pub mod documents;
pub mod entries;
pub mod layers;
pub mod marks;
pub mod merge;
pub mod options;

/// A check of any input.
pub type Check = fn(&[u8]);

/// All of them, by the name of their target and of their seeds' directory.
pub const ALL: [(&str, Check); 6] = [
    ("documents", documents::check),
    ("entries", entries::check),
    ("layers", layers::check),
    ("marks", marks::check),
    ("merge", merge::check),
    ("options", options::check),
];
