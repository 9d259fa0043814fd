//! How far an import is, for who waits for it.

/// Is told what happens; from several threads at once.
pub trait Progress: Sync {
    /// Work on the part `name` begins; it has `size` bytes.
    fn begin(&self, name: &str, size: u64);
    /// `bytes` more of `name` are done.
    fn advance(&self, name: &str, bytes: u64);
    /// `name` is done, or did not have to be: `line` says how it went.
    fn end(&self, name: &str, line: &str);
    /// Something that is to be told.
    fn note(&self, line: &str);
}

/// Tells nobody.
#[derive(Debug, Clone, Copy)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _: &str, _: u64) {}
    fn advance(&self, _: &str, _: u64) {}
    fn end(&self, _: &str, _: &str) {}
    fn note(&self, _: &str) {}
}
