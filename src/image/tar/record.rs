//! A tar stream without the data of its files, kept so that the very same stream can be had again from the layer.
//!
//! A layer's diff ID is the digest of a stream that nobody can make again from the files alone: names of users, the order
//! of entries and the form of headers are not in them. So what is not data is kept as it was, compressed, with notes of
//! which file's data comes in between.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;

use rustix::fs::OFlags;

use crate::image::unpack::beneath;

/// What the file begins with.
const MAGIC: &[u8; 8] = b"plystrm1";
const RAW: u8 = 0;
const DATA: u8 = 1;
/// How many raw bytes are gathered.
const ENOUGH: usize = 1 << 20;
/// The longest path, in bytes; nothing longer is ever written.
const PATH: usize = 1 << 20;

/// Writes such a file.
pub struct Recorder {
    output: zstd::Encoder<'static, File>,
    raw: Vec<u8>,
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder").finish_non_exhaustive()
    }
}

impl Recorder {
    /// Writes to `file`, which is empty.
    ///
    /// # Errors
    /// Those of write(2).
    pub fn new(file: File) -> io::Result<Self> {
        let mut output = zstd::Encoder::new(file, 1)?;
        output.write_all(MAGIC)?;
        Ok(Self { output, raw: Vec::new() })
    }

    /// Keeps bytes of the stream as they are.
    ///
    /// # Errors
    /// Those of write(2).
    pub fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.raw.extend_from_slice(bytes);
        if self.raw.len() >= ENOUGH { self.flush() } else { Ok(()) }
    }

    /// Notes that `len` bytes of the file at `path`, from `offset` on, come next.
    ///
    /// # Errors
    /// Those of write(2).
    pub fn data(&mut self, path: &[u8], offset: u64, len: u64) -> io::Result<()> {
        self.flush()?;
        self.output.write_all(&[DATA])?;
        self.output.write_all(&(path.len() as u64).to_le_bytes())?;
        self.output.write_all(path)?;
        self.output.write_all(&offset.to_le_bytes())?;
        self.output.write_all(&len.to_le_bytes())
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// Those of write(2).
    pub fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        self.output.finish()?;
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.raw.is_empty() {
            self.output.write_all(&[RAW])?;
            self.output.write_all(&(self.raw.len() as u64).to_le_bytes())?;
            self.output.write_all(&self.raw)?;
            self.raw.clear();
        }
        Ok(())
    }
}

/// Writes the stream that was kept in `file` to `output`, with the data from the layer at `root`.
///
/// # Errors
/// Those of reading and writing; `InvalidData` where the file or the layer is not what it was.
pub fn replay(file: File, root: BorrowedFd<'_>, output: &mut dyn Write) -> io::Result<()> {
    let mut input = BufReader::new(zstd::Decoder::new(file)?);
    let mut magic = [0; MAGIC.len()];
    input.read_exact(&mut magic)?;
    if magic != *MAGIC {
        return Err(invalid("not the record of a layer"));
    }
    let mut buffer = vec![0; 1 << 18];
    loop {
        let mut kind = [0];
        if input.read(&mut kind)? == 0 {
            return Ok(());
        }
        match kind {
            [RAW] => {
                let len = number(&mut input)?;
                if io::copy(&mut (&mut input).take(len), output)? != len {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            [DATA] => {
                let len = usize::try_from(number(&mut input)?).ok().filter(|len| *len <= PATH);
                let mut path = vec![0; len.ok_or_else(|| invalid("the record of the layer is broken"))?];
                input.read_exact(&mut path)?;
                let (offset, len) = (number(&mut input)?, number(&mut input)?);
                copy(root, &path, offset, len, &mut buffer, output)?;
            }
            _ => return Err(invalid("the record of the layer is broken")),
        }
    }
}

fn copy(
    root: BorrowedFd<'_>,
    path: &[u8],
    mut offset: u64,
    mut len: u64,
    buffer: &mut [u8],
    output: &mut dyn Write,
) -> io::Result<()> {
    let shown = || path.escape_ascii().to_string();
    let fd = beneath::open(root, path, OFlags::RDONLY | OFlags::NOATIME)
        .or_else(|_| beneath::open(root, path, OFlags::RDONLY))
        .map_err(|errno| invalid(&format!("{}: {errno}", shown())))?;
    let file = File::from(fd);
    while len > 0 {
        let wanted = usize::try_from(len).unwrap_or(usize::MAX).min(buffer.len());
        let part = buffer.get_mut(..wanted).unwrap_or_default();
        let read = file.read_at(part, offset)?;
        if read == 0 {
            return Err(invalid(&format!("{}: the file is shorter than it was", shown())));
        }
        output.write_all(part.get(..read).unwrap_or_default())?;
        offset = offset.saturating_add(read as u64);
        len = len.saturating_sub(read as u64);
    }
    Ok(())
}

fn number(input: &mut impl Read) -> io::Result<u64> {
    let mut bytes = [0; 8];
    input.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.to_owned())
}
