//! What an operation costs, in requests of the kernel and in system calls of the daemon: figures that are exact on any
//! machine, so that tests hold them.
//!
//! The tables of docs/PERFORMANCE.md are what is expected ([`table`] tells how they are written anew). Needs root, and tracefs,
//! which is mounted where it is not.
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

mod growth;
mod requests;
mod syscalls;
mod table;
mod trace;
mod watch;
