//! What rustix lacks. The only room with `unsafe`, and as little of it as can be.

pub mod creds;
pub mod fileattr;
pub mod handle;
pub mod memory;
pub mod mount;
pub mod namespace;
pub mod sched;
pub mod tree;
pub mod xattr;

#[cfg(test)]
pub(crate) mod testing;
