//! A blob: bytes that somebody ships, checked against their digest and size while they are decompressed.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Take};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use flate2::bufread::MultiGzDecoder;

use crate::error::{Error, Result};

use super::digest::{Digest, Hashing};
use super::wrong;

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// By gzip.
    Gzip,
    /// By zstd.
    Zstd,
}

impl Compression {
    /// What the first bytes tell.
    pub fn of(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            // A skippable frame, by which zstd:chunked begins.
            [first, 0x2a, 0x4d, 0x18, ..] if first >> 4 == 5 => Self::Zstd,
            _ => Self::None,
        }
    }

    /// As a word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::None => "plain tar",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// Where a blob is, and what it has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// The file that holds it.
    pub path: PathBuf,
    /// Where in the file it begins.
    pub offset: u64,
    /// How many bytes it has to have.
    pub size: u64,
    /// Its digest, where one is told.
    pub digest: Option<Digest>,
    /// What it is called in messages.
    pub name: String,
    /// The compression that its media type tells.
    pub compression: Option<Compression>,
}

/// Bytes on their way between two threads.
type Chunk = io::Result<Vec<u8>>;
const CHUNK: usize = 1 << 18;
const CHUNKS: usize = 8;

impl Blob {
    /// Opens it as it is.
    ///
    /// # Errors
    /// Why it cannot be opened, or that it has another size.
    pub fn open(&self) -> Result<Hashing<Take<File>>> {
        let failed = |error: io::Error| wrong(self.name.as_str(), error.to_string());
        let mut file = File::open(&self.path).map_err(failed)?;
        let there = file.metadata().map_err(failed)?.len().saturating_sub(self.offset);
        if there < self.size || (self.offset == 0 && there != self.size) {
            return Err(wrong(self.name.as_str(), format!("{there} bytes, not {} as is told", self.size)));
        }
        file.seek(SeekFrom::Start(self.offset)).map_err(failed)?;
        Ok(Hashing::new(file.take(self.size)))
    }

    /// Reads it whole, which has to be of at most `limit` bytes, and checks it.
    ///
    /// # Errors
    /// Why it cannot be read, or that it is not what it has to be.
    pub fn read(&self, limit: u64) -> Result<Vec<u8>> {
        if self.size > limit {
            return Err(wrong(self.name.as_str(), format!("{} bytes, more than the {limit} allowed", self.size)));
        }
        let mut input = self.open()?;
        let mut bytes = Vec::new();
        input.read_to_end(&mut bytes).map_err(|error| wrong(self.name.as_str(), error.to_string()))?;
        self.check(input).map_err(|error| wrong(self.name.as_str(), error.to_string()))?;
        Ok(bytes)
    }

    /// Hands what it decompresses to to `consume`, which has to read to the end. Another thread reads and decompresses;
    /// `advance` is told how many bytes of the blob were read.
    ///
    /// # Errors
    /// That the blob is not what it has to be; those of `consume`.
    pub fn stream<T>(
        &self,
        advance: &(dyn Fn(u64) + Sync),
        consume: impl FnOnce(&mut dyn Read) -> Result<T>,
    ) -> Result<T> {
        let input = self.open()?;
        let (sender, receiver) = sync_channel(CHUNKS);
        let result = thread::scope(|scope| {
            let start = thread::Builder::new().name("decompress".into());
            start
                .spawn_scoped(scope, move || self.send(input, &sender, advance))
                .map_err(|error| wrong(self.name.as_str(), error.to_string()))?;
            consume(&mut Chunks { receiver, chunk: Vec::new(), at: 0 })
        });
        // Broken bytes lead to all kinds of errors; that they are not the right ones is the reason to tell.
        result.map_err(|error| self.broken().unwrap_or(error))
    }

    fn send(&self, input: Hashing<Take<File>>, sender: &SyncSender<Chunk>, advance: &(dyn Fn(u64) + Sync)) {
        if let Err(error) = self.decompress(input, sender, advance) {
            // Nobody may listen any more.
            sender.send(Err(error)).ok();
        }
    }

    fn decompress(
        &self,
        input: Hashing<Take<File>>,
        sender: &SyncSender<Chunk>,
        advance: &(dyn Fn(u64) + Sync),
    ) -> io::Result<()> {
        let mut input = BufReader::with_capacity(CHUNK, Advancing { input, advance });
        let found = Compression::of(io::BufRead::fill_buf(&mut input)?);
        if let Some(told) = self.compression
            && told != found
            && !(self.size == 0 && told == Compression::None)
        {
            return Err(other(&format!("{}, not {} as its media type tells", found.word(), told.word())));
        }
        match found {
            Compression::None => forward(&mut input, sender)?,
            Compression::Gzip => forward(&mut MultiGzDecoder::new(&mut input), sender)?,
            Compression::Zstd => forward(&mut zstd::Decoder::with_buffer(&mut input)?, sender)?,
        };
        // Whatever decompressing left counts as well.
        io::copy(&mut input, &mut io::sink())?;
        self.check(input.into_inner().input)
    }

    fn check(&self, input: Hashing<Take<File>>) -> io::Result<()> {
        let read = input.hasher.len();
        if read != self.size {
            return Err(other(&format!("{read} bytes, not {} as is told", self.size)));
        }
        let digest = input.hasher.finish();
        match self.digest {
            Some(told) if told != digest => Err(other(&format!("its digest is {digest}, not {told} as is told"))),
            _ => Ok(()),
        }
    }

    /// What is wrong with the bytes themselves.
    fn broken(&self) -> Option<Error> {
        let mut input = self.open().ok()?;
        io::copy(&mut input, &mut io::sink()).ok()?;
        self.check(input).err().map(|error| wrong(self.name.as_str(), error.to_string()))
    }
}

fn forward(input: &mut dyn Read, sender: &SyncSender<Chunk>) -> io::Result<()> {
    loop {
        let mut chunk = Vec::with_capacity(CHUNK);
        input.take(CHUNK as u64).read_to_end(&mut chunk)?;
        if chunk.is_empty() {
            return Ok(());
        }
        if sender.send(Ok(chunk)).is_err() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
    }
}

fn other(reason: &str) -> io::Error {
    io::Error::other(reason.to_owned())
}

/// Tells how much was read.
struct Advancing<'a, R> {
    input: R,
    advance: &'a (dyn Fn(u64) + Sync),
}

impl<R: Read> Read for Advancing<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        (self.advance)(read as u64);
        Ok(read)
    }
}

/// Reads what the other thread sends.
struct Chunks {
    receiver: Receiver<Chunk>,
    chunk: Vec<u8>,
    at: usize,
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.chunk.len() {
            match self.receiver.recv() {
                Ok(chunk) => (self.chunk, self.at) = (chunk?, 0),
                // It has ended, and said so before if that was not by the end of the blob.
                Err(_) => return Ok(0),
            }
        }
        let left = self.chunk.get(self.at..).unwrap_or_default();
        let count = left.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..count), left.get(..count)) {
            to.copy_from_slice(from);
        }
        self.at = self.at.saturating_add(count);
        Ok(count)
    }
}
