//! Looking into an overlay from outside: why it shows what it shows.
//!
//! Reads the layers by the code that a mount reads them by, and writes nothing.

pub mod explain;
mod says;

#[cfg(test)]
mod tests;
