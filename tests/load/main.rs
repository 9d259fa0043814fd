//! Programs that work the overlay hard, and find what they wrote.
//!
//! The large sizes are for `scripts/soak`, the others for every run.
#![allow(
    unsafe_code,
    missing_docs,
    dead_code,
    unused_imports,
    unused_macros,
    unreachable_pub,
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

mod copy_up;
mod database;
