//! The overlay through a mount, operation by operation, as a process sees it.
//!
//! Every test runs against plyfs and, with `PLYFS_TEST_BACKEND=kernel`, against the kernel's overlayfs, which is how the
//! tests themselves are tested.
#![allow(
    unsafe_code,
    missing_docs,
    dead_code,
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

#[cfg(feature = "failpoints")]
mod aborts;
mod acl;
mod attr;
mod confined;
mod crash;
mod create;
mod data_only;
mod devices;
mod endings;
mod filesystems;
mod flags;
mod fsync;
mod index;
mod inode;
mod io;
mod kills;
mod limits;
mod link;
mod locks;
mod lookup;
mod merge;
mod metacopy;
mod mkdir;
mod mknod;
mod nested;
mod options;
mod outside;
mod passthrough;
mod permission;
mod readdir;
mod readonly;
mod redirect_dir;
mod remount;
mod rename;
mod rename_dir;
mod rmdir;
mod statfs;
mod symlink;
mod unlink;
mod userxattr;
mod volatile;
mod xattr;
mod xino;
