//! The core without a mount: real layers in a temporary directory, the overlay's methods called as FUSE would.

mod bed;
mod caches;
mod copy_up;
mod create;
mod errors;
mod extremes;
#[cfg(feature = "failpoints")]
mod faults;
mod flags;
mod hostile;
mod io;
mod links;
mod merge;
mod numbers;
mod options;
mod owners;
mod random;
mod readdir;
mod remove;
mod rename;
mod setid;
mod view;
mod whiteouts;
mod xattr;

use bed::Bed;
