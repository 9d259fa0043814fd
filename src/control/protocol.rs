//! What can be asked, and what is answered.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The version of what is written here. Other versions are refused; a field may be added to an answer without a new one.
pub const VERSION: u32 = 1;

/// A line to the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// [`VERSION`].
    pub version: u32,
    /// What is asked.
    pub ask: Ask,
}

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// What the mount is: answered by [`About`].
    About,
    /// What it has done: answered by [`Stats`].
    Stats,
}

/// A line from the daemon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// [`VERSION`].
    pub version: u32,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// What was asked for.
    Answer(Value),
    /// Why not, in one line.
    Error(String),
}

/// What a mount is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// The version of the daemon.
    pub program: String,
    /// Its process id.
    pub pid: u32,
    /// Its user id.
    pub uid: u32,
    /// Where it is mounted, in the daemon's view.
    pub mountpoint: Text,
    /// What the list of mounts shows as the source.
    pub source: Text,
    /// The device number that its files show.
    pub device: (u32, u32),
    /// When it was mounted, in seconds since 1970.
    pub since: u64,
    /// The writable layer; not there on a mount without one.
    pub upper: Option<Text>,
    /// The work directory beside that.
    pub work: Option<Text>,
    /// The lower layers, topmost first.
    pub lowers: Vec<Text>,
    /// The layers for data only below them.
    pub data_layers: Vec<Text>,
    /// Mount options that say how the layers are read, as they are written after `-o`.
    pub options: Vec<String>,
    /// Nothing can be changed.
    pub read_only: bool,
    /// The image and the container that are mounted, where they are of the store.
    pub image: Option<ImageRef>,
    /// Requests answered so far.
    pub requests: u64,
    /// Memory of the daemon, in bytes.
    pub memory: u64,
    /// Descriptors that the daemon has open.
    pub descriptors: u64,
}

/// What a mount has done so far, and what it holds now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// What it is.
    pub mount: About,
    /// The operations that were asked for.
    pub operations: Vec<Operation>,
    /// The caches.
    pub caches: Vec<CacheStats>,
    /// What was copied to the upper.
    pub copy_ups: CopyUps,
    /// Whiteouts made.
    pub whiteouts: u64,
    /// Open files that the kernel reads and writes directly.
    pub open_through: u64,
    /// Open files that it reads and writes by its page cache and us.
    pub open_cached: u64,
    /// Inodes that the kernel knows.
    pub inodes: u64,
    /// How often it was told of them in all, less how often it has forgotten.
    pub lookups: u64,
    /// The capabilities of FUSE that were agreed with the kernel.
    pub capabilities: Vec<String>,
    /// What is not used, and why.
    pub off: Vec<Off>,
}

/// An operation. Times are in nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// What the protocol calls it.
    pub name: String,
    /// Requests so far.
    pub requests: u64,
    /// Those that were answered by an error.
    pub errors: u64,
    /// How long all took together.
    pub total: u64,
    /// How long half of them took at most.
    pub p50: u64,
    /// How long 90 percent took at most.
    pub p90: u64,
    /// How long 99 percent took at most.
    pub p99: u64,
    /// How long the longest took.
    pub max: u64,
}

/// A cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheStats {
    /// What it holds.
    pub name: String,
    /// How much of that.
    pub entries: u64,
    /// Questions answered from it.
    pub hits: u64,
    /// Questions that it could not answer.
    pub misses: u64,
}

/// What was copied to the upper.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyUps {
    /// Copies.
    pub count: u64,
    /// Bytes of their data, holes among them.
    pub bytes: u64,
    /// Those without their data.
    pub metadata_only: u64,
    /// Those that share their data with what was copied.
    pub reflinked: u64,
}

/// What is not used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Off {
    /// What.
    pub what: String,
    /// Why not.
    pub why: String,
}

/// What of the store is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRef {
    /// The image's name.
    pub name: String,
    /// The container's name.
    pub container: String,
}

/// Text, or bytes that are none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Text {
    /// Text.
    Text(String),
    /// Bytes that are no text.
    Bytes(Vec<u8>),
}

impl From<OsString> for Text {
    fn from(text: OsString) -> Self {
        text.into_string().map_or_else(|bytes| Self::Bytes(bytes.into_vec()), Self::Text)
    }
}

impl From<&Path> for Text {
    fn from(path: &Path) -> Self {
        path.as_os_str().to_owned().into()
    }
}

impl From<Text> for PathBuf {
    fn from(text: Text) -> Self {
        match text {
            Text::Text(text) => text.into(),
            Text::Bytes(bytes) => OsString::from_vec(bytes).into(),
        }
    }
}

impl Text {
    /// As a path.
    pub fn as_path(&self) -> &Path {
        match self {
            Self::Text(text) => Path::new(text),
            Self::Bytes(bytes) => Path::new(std::ffi::OsStr::from_bytes(bytes)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_responses_are_written_as_documented() {
        let request = Request { version: VERSION, ask: Ask::About };
        assert_eq!(serde_json::to_string(&request).unwrap(), r#"{"version":1,"ask":"about"}"#);
        let refused = Response { version: VERSION, outcome: Outcome::Error("no".into()) };
        let text = serde_json::to_string(&refused).unwrap();
        assert_eq!(text, r#"{"version":1,"error":"no"}"#);
        assert_eq!(serde_json::from_str::<Response>(&text).unwrap(), refused);
    }

    #[test]
    fn names_that_are_no_text_come_through() {
        for bytes in [&b"/a\xff b"[..], b"/plain", b""] {
            let path = PathBuf::from(OsString::from_vec(bytes.to_vec()));
            let json = serde_json::to_string(&Text::from(path.as_path())).unwrap();
            assert_eq!(PathBuf::from(serde_json::from_str::<Text>(&json).unwrap()), path);
        }
    }
}
