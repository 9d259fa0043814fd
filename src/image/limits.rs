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
    /// Bytes of the paths of a layer's directories, which are kept in memory.
    pub paths: usize,
}

impl Limits {
    /// None but those of what a machine can hold: for what is our own.
    pub const NONE: Self = Self {
        layer_bytes: u64::MAX / 2,
        entries: u64::MAX,
        layers: usize::MAX,
        document: u64::MAX,
        paths: usize::MAX,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self { layer_bytes: 64 << 30, entries: 4_000_000, layers: 500, document: 4 << 20, paths: 256 << 20 }
    }
}
