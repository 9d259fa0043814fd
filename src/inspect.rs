//! Looking into an overlay from outside: why it shows what it shows, and whether its upper is whole.
//!
//! Reads the layers by the code that a mount reads them by, and writes nothing but what a repair of an upper asks for.

pub mod check;
pub mod explain;
mod says;

#[cfg(test)]
mod tests;
