//! How much an image may ask for before it is refused.

/// The limits of one import.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a layer's tar stream once it is decompressed, and of any one file of it with its holes.
    pub layer_bytes: u64,
    /// Entries of a layer.
    pub entries: u64,
    /// Layers of an image.
    pub layers: usize,
    /// Bytes of a manifest, an index or a config.
    pub document: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { layer_bytes: 64 << 30, entries: 4_000_000, layers: 500, document: 4 << 20 }
    }
}
