//! Tar streams as layers have them: ustar with PAX and GNU extensions.
//!
//! The crate `tar` tells what a header block says. Its entries are not used: it takes a newline for the end of a PAX
//! record, and file capabilities may hold that byte.

pub mod entry;
pub mod pax;
pub mod read;
pub mod record;
pub mod sparse;

/// The unit of a tar stream, in bytes.
pub const BLOCK: u64 = 512;
