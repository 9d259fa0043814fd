//! Container images: from the blobs that others ship to layers that can be mounted, and back.
//!
//! ```text
//!   oci:DIR  oci-archive:FILE  docker-archive:FILE  tar:FILE
//!      │ source.rs: which blobs an image is made of
//!      │ blob.rs: bytes, checked against digest and size, decompressed
//!      │ tar/read.rs: entries; tar/record.rs: what is needed to get the very same stream back
//!      │ unpack.rs: a directory that an overlay can be mounted over
//!   store.rs ── layers/HEX/{root,stream,layer.json}  blobs/HEX  images/NAME.json  containers/NAME/{upper,work}
//!      │ pack.rs: a tree as a tar stream
//!      │ export.rs: an OCI layout
//!   oci:DIR
//! ```
//!
//! What an image says is not believed: a path is followed beneath the layer's own directory only, and every digest and
//! size is checked before a layer is in the store.

pub mod blob;
pub mod container;
pub mod digest;
pub mod export;
pub mod import;
pub mod limits;
pub mod name;
pub mod pack;
pub mod platform;
pub mod progress;
pub mod source;
pub mod store;
pub mod tar;
pub mod unpack;
pub mod verify;

use crate::error::{Errno, Error};

/// What is wrong with an image: with which of its parts, and why.
pub fn wrong(subject: impl Into<String>, reason: impl Into<String>) -> Error {
    Error::new(Errno::INVAL, "read image").on(subject.into()).because(reason.into())
}

#[cfg(test)]
mod tests;
