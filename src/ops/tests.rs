//! The core without a mount: real layers in a temporary directory, the overlay's methods called as FUSE would.

mod bed;
mod links;

use bed::Bed;
