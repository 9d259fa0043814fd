//! Reading a tar stream, entry by entry, with its digest and a record of what is not data.

use std::io::{self, Read};

use tar::{EntryType, Header};

use crate::image::digest::{Digest, Hashing};
use crate::image::limits::Limits;

use super::BLOCK;
use super::entry::{Entry, Long, Reason};
use super::pax::Records;
use super::record::Recorder;
use super::sparse;

/// Bytes that the extended headers of one entry may have.
const HEADERS: u64 = 8 << 20;
const BLOCK_SIZE: usize = BLOCK as usize;

/// Reads entries from `R`.
#[derive(Debug)]
pub struct Reader<R> {
    input: Hashing<R>,
    recorder: Option<Recorder>,
    limits: Limits,
    entries: u64,
    /// Bytes of the current entry's data that were not read yet, and zeros after them.
    left: u64,
    padding: u64,
}

/// What becomes of data in the record of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// It is kept with the stream.
    Bytes,
    /// It is noted elsewhere where it can be had again.
    Nothing,
}

impl<R: Read> Reader<R> {
    /// Reads from `input`, and keeps what is not data with `recorder`.
    pub fn new(input: R, recorder: Option<Recorder>, limits: Limits) -> Self {
        Self { input: Hashing::new(input), recorder, limits, entries: 0, left: 0, padding: 0 }
    }

    /// How many entries there were.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// The record of the stream.
    pub fn recorder(&mut self) -> Option<&mut Recorder> {
        self.recorder.as_mut()
    }

    /// The next entry; `None` at the end of the archive. What was not read of the one before is passed over.
    ///
    /// # Errors
    /// What is wrong with the stream.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, Reason> {
        let mut long = Long::default();
        let mut pax: Option<Records> = None;
        let mut headers = 0_u64;
        loop {
            self.pass()?;
            let Some(header) = self.header()? else {
                let is_open = pax.is_some() || long.path.is_some() || long.target.is_some();
                return if is_open { Err("an extended header without an entry".into()) } else { Ok(None) };
            };
            let kind = header.entry_type();
            let is_extension = matches!(
                kind,
                EntryType::XHeader | EntryType::XGlobalHeader | EntryType::GNULongName | EntryType::GNULongLink
            );
            if !is_extension {
                self.entries = self.entries.saturating_add(1);
                if self.entries > self.limits.entries {
                    return Err(format!("more than {} entries (--max-entries)", self.limits.entries));
                }
                return self.entry(&header, &pax.unwrap_or_default(), long).map(Some);
            }
            let size = header.entry_size().map_err(text)?;
            headers = headers.saturating_add(size);
            if headers > HEADERS {
                return Err(format!("an extended header of more than {HEADERS} bytes"));
            }
            self.announce(size)?;
            let data = self.all(size)?;
            match kind {
                // Comments of whoever made the archive, such as git; what they say of owners nobody follows.
                EntryType::XGlobalHeader => {}
                EntryType::XHeader if pax.is_none() => pax = Some(Records::parse(&data)?),
                EntryType::GNULongName if long.path.is_none() => long.path = Some(until_zero(data)),
                EntryType::GNULongLink if long.target.is_none() => long.target = Some(until_zero(data)),
                _ => return Err("two extended headers for one entry".into()),
            }
        }
    }

    /// Reads data of the current entry; 0 at its end.
    ///
    /// # Errors
    /// That the stream ends, or why it cannot be read.
    pub fn read(&mut self, buffer: &mut [u8], keep: Keep) -> Result<usize, Reason> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let buffer = buffer.get_mut(..wanted).unwrap_or_default();
        if buffer.is_empty() {
            return Ok(0);
        }
        let read = self.some(buffer)?;
        if read == 0 {
            return Err(ends());
        }
        self.left = self.left.saturating_sub(read as u64);
        if keep == Keep::Bytes {
            self.keep(buffer.get(..read).unwrap_or_default())?;
        }
        Ok(read)
    }

    /// Reads what comes after the last entry, and tells the digest and length of the whole stream.
    ///
    /// # Errors
    /// Why it cannot be read or kept.
    pub fn finish(mut self) -> Result<(Digest, u64), Reason> {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let read = self.some(&mut buffer)?;
            if read == 0 {
                break;
            }
            self.keep(buffer.get(..read).unwrap_or_default())?;
        }
        if let Some(recorder) = self.recorder {
            recorder.finish().map_err(text)?;
        }
        let len = self.input.hasher.len();
        Ok((self.input.hasher.finish(), len))
    }

    fn entry(&mut self, header: &Header, pax: &Records, long: Long) -> Result<Entry, Reason> {
        let mut entry = Entry::new(header, pax, long)?;
        self.announce(entry.stored)?;
        if header.entry_type() == EntryType::GNUSparse {
            // Blocks that go on with the list stand before the data, and count as no part of it.
            let (mut map, size, mut goes_on) = sparse::old(header)?;
            while goes_on {
                let block = self.block()?.ok_or_else(ends)?;
                goes_on = sparse::old_more(&mut map, &block)?;
            }
            (entry.size, entry.sparse) = (size, Some(map));
        } else if let Some((form, size)) = sparse::pax(pax)? {
            if let Some(name) = pax.get(b"GNU.sparse.name") {
                entry.path = name.to_vec();
            }
            let map = match form {
                sparse::Pax::Here(map) => map,
                sparse::Pax::Before => {
                    let (map, blocks) = sparse::before(|| self.block_of_data())?;
                    entry.stored = entry.stored.saturating_sub(blocks.saturating_mul(BLOCK));
                    map
                }
            };
            (entry.size, entry.sparse) = (size, Some(map));
        }
        if let Some(map) = &entry.sparse {
            sparse::check(map, entry.size, entry.stored)?;
        }
        if entry.size > self.limits.layer_bytes {
            return Err(format!(
                "{}: a file of {} bytes, more than {} (--max-layer-size)",
                entry.shown(),
                entry.size,
                self.limits.layer_bytes
            ));
        }
        if entry.path.is_empty() || entry.path.contains(&0) || entry.target.contains(&0) {
            return Err("a name that is none".into());
        }
        Ok(entry)
    }

    /// Passes over what is left of the current entry.
    fn pass(&mut self) -> Result<(), Reason> {
        let mut buffer = [0; BLOCK_SIZE];
        while self.read(&mut buffer, Keep::Bytes)? > 0 {}
        while self.padding > 0 {
            let wanted = usize::try_from(self.padding).unwrap_or(BLOCK_SIZE).min(BLOCK_SIZE);
            let part = buffer.get_mut(..wanted).unwrap_or_default();
            self.fill(part)?;
            self.padding = self.padding.saturating_sub(wanted as u64);
        }
        Ok(())
    }

    /// Says that `size` bytes of data follow.
    fn announce(&mut self, size: u64) -> Result<(), Reason> {
        let end = size.checked_next_multiple_of(BLOCK).filter(|_| size <= self.limits.layer_bytes);
        let end = end.ok_or_else(|| {
            format!("an entry of {size} bytes, more than {} (--max-layer-size)", self.limits.layer_bytes)
        })?;
        self.left = size;
        self.padding = end.saturating_sub(size);
        Ok(())
    }

    /// The next header; `None` at the end of the archive.
    fn header(&mut self) -> Result<Option<Header>, Reason> {
        let Some(block) = self.block()? else { return Ok(None) };
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let mut header = Header::new_old();
        header.as_mut_bytes().copy_from_slice(&block);
        // The sum of all bytes, with those of the sum itself taken as blanks; some writers took them as signed.
        let blank = |at: usize, byte: u8| if (148..156).contains(&at) { b' ' } else { byte };
        let bytes = || block.iter().enumerate().map(|(at, byte)| blank(at, *byte));
        let unsigned: u32 = bytes().map(u32::from).sum();
        let signed: i32 = bytes().map(|byte| i32::from(byte.cast_signed())).sum();
        let told = header.cksum().map_err(text)?;
        if told != unsigned && i32::try_from(told) != Ok(signed) {
            return Err("no tar header where one has to be (wrong checksum)".into());
        }
        Ok(Some(header))
    }

    fn block(&mut self) -> Result<Option<[u8; BLOCK_SIZE]>, Reason> {
        let mut block = [0; BLOCK_SIZE];
        let read = self.some(&mut block)?;
        if read == 0 {
            return Ok(None);
        }
        self.keep(block.get(..read).unwrap_or_default())?;
        self.fill(block.get_mut(read..).unwrap_or_default())?;
        Ok(Some(block))
    }

    /// A block that is part of the current entry's data.
    fn block_of_data(&mut self) -> Result<[u8; BLOCK_SIZE], Reason> {
        self.left = self.left.checked_sub(BLOCK).ok_or("holes that make no sense")?;
        self.block()?.ok_or_else(ends)
    }

    fn all(&mut self, size: u64) -> Result<Vec<u8>, Reason> {
        // As much as there is, not as much as is said.
        let mut data = Vec::new();
        let mut buffer = [0; BLOCK_SIZE];
        while (data.len() as u64) < size {
            let read = self.read(&mut buffer, Keep::Bytes)?;
            data.extend_from_slice(buffer.get(..read).unwrap_or_default());
        }
        Ok(data)
    }

    fn fill(&mut self, mut buffer: &mut [u8]) -> Result<(), Reason> {
        while !buffer.is_empty() {
            let read = self.some(buffer)?;
            if read == 0 {
                return Err(ends());
            }
            let (filled, rest) = buffer.split_at_mut(read);
            self.keep(filled)?;
            buffer = rest;
        }
        Ok(())
    }

    fn some(&mut self, buffer: &mut [u8]) -> Result<usize, Reason> {
        loop {
            match self.input.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.to_string()),
                Ok(_) if self.input.hasher.len() > self.limits.layer_bytes => {
                    return Err(format!(
                        "more than {} bytes once decompressed (--max-layer-size)",
                        self.limits.layer_bytes
                    ));
                }
                Ok(read) => return Ok(read),
            }
        }
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), Reason> {
        self.recorder.as_mut().map_or(Ok(()), |recorder| recorder.raw(bytes)).map_err(text)
    }
}

fn until_zero(mut data: Vec<u8>) -> Vec<u8> {
    let end = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    data.truncate(end);
    data
}

fn ends() -> Reason {
    "the archive ends in the middle of an entry".into()
}

fn text(error: io::Error) -> Reason {
    error.to_string()
}
