//! plyfs lays read-only layers under one writable layer and shows them as one tree.
pub mod config;
pub mod error;
pub mod fuse;
pub mod overlay;
