//! Copying a file's data: shared by reference where the filesystem can, else copied with its holes kept.

use std::os::fd::OwnedFd;

use rustix::fs::SeekFrom;

use crate::calls;
use crate::error::{Context, Errno, Error, Result};

/// How much is copied by one call, so that a signal or an error is not waited for too long.
const CHUNK: u64 = 64 << 20;
/// The buffer for filesystems between which the kernel does not copy.
const BUFFER: usize = 256 << 10;

/// Copies `size` bytes of `source` to the empty file `copy`; whether they share the data now.
///
/// # Errors
/// Those of reading and writing; `EIO` when the source holds less than `size` bytes.
pub(super) fn copy(source: &OwnedFd, copy: &OwnedFd, size: u64) -> Result<bool> {
    if size == 0 {
        return Ok(false);
    }
    if calls::clone_data(copy, source).is_ok() {
        return Ok(true);
    }
    // The end may be a hole.
    calls::ftruncate(copy, size).during("size the copy")?;
    let mut position = 0;
    while position < size {
        let Some((start, end)) = next_data(source, position, size)? else { break };
        copy_range(source, copy, start, end)?;
        position = end;
    }
    Ok(false)
}

/// The next range that is no hole.
fn next_data(source: &OwnedFd, position: u64, size: u64) -> Result<Option<(u64, u64)>> {
    let start = match calls::seek(source, SeekFrom::Data(position)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        // A filesystem that knows no holes.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some((position, size))),
        Err(errno) => return Err(Error::new(errno, "seek data")),
    };
    let end = calls::seek(source, SeekFrom::Hole(start)).during("seek hole")?;
    Ok((start < size).then_some((start, end.min(size))))
}

fn copy_range(source: &OwnedFd, copy: &OwnedFd, start: u64, end: u64) -> Result<()> {
    let (mut from, mut to) = (start, start);
    while from < end {
        let want = end.saturating_sub(from).min(CHUNK);
        match calls::copy_file_range(source, &mut from, copy, &mut to, want as usize) {
            Ok(0) => return Err(Error::new(Errno::IO, "copy data").because("the lower file has become shorter")),
            Ok(_) => {}
            Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS | Errno::PERM) => {
                return copy_by_buffer(source, copy, from, end);
            }
            Err(errno) => return Err(Error::new(errno, "copy data")),
        }
    }
    Ok(())
}

fn copy_by_buffer(source: &OwnedFd, copy: &OwnedFd, start: u64, end: u64) -> Result<()> {
    let mut buffer = vec![0; BUFFER];
    let mut position = start;
    while position < end {
        let want = usize::try_from(end.saturating_sub(position)).unwrap_or(BUFFER).min(BUFFER);
        let chunk = buffer.get_mut(..want).unwrap_or_default();
        let read = calls::pread(source, &mut *chunk, position).during("read for copy-up")?;
        if read == 0 {
            return Err(Error::new(Errno::IO, "copy data").because("the lower file has become shorter"));
        }
        let mut rest = chunk.get(..read).unwrap_or_default();
        while !rest.is_empty() {
            let written = calls::pwrite(copy, rest, position).during("write the copy")?;
            position = position.saturating_add(written as u64);
            rest = rest.get(written..).unwrap_or_default();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::{FileExt, MetadataExt};

    use super::*;

    fn pair() -> (tempfile::TempDir, OwnedFd, OwnedFd) {
        let dir = tempfile::tempdir().unwrap();
        let open = |name| File::options().read(true).write(true).create_new(true).open(dir.path().join(name)).unwrap();
        let (source, copy) = (open("source"), open("copy"));
        (dir, source.into(), copy.into())
    }

    #[test]
    fn data_is_copied_and_holes_are_kept() {
        let (dir, source, target) = pair();
        let size = 8 << 20;
        let file = File::from(source.try_clone().unwrap());
        file.set_len(size).unwrap();
        file.write_all_at(&[1; 5000], 1 << 20).unwrap();
        file.write_all_at(b"end", (4 << 20) + 1).unwrap();
        copy(&source, &target, size).unwrap();
        let read = |name| std::fs::read(dir.path().join(name)).unwrap();
        assert!(read("source") == read("copy"));
        let copied = std::fs::metadata(dir.path().join("copy")).unwrap();
        assert_eq!(copied.len(), size);
        assert!(copied.blocks() * 512 < 1 << 20, "holes were filled: {} blocks", copied.blocks());
    }

    #[test]
    fn the_buffer_does_what_the_kernel_does_not() {
        let (dir, source, target) = pair();
        let bytes: Vec<u8> = (0..BUFFER * 2 + 77).map(|i| (i % 251) as u8).collect();
        File::from(source.try_clone().unwrap()).write_all_at(&bytes, 0).unwrap();
        copy_by_buffer(&source, &target, 0, bytes.len() as u64).unwrap();
        assert!(std::fs::read(dir.path().join("copy")).unwrap() == bytes);
    }

    #[test]
    fn a_source_that_is_too_short_is_an_error() {
        let (_dir, source, target) = pair();
        File::from(source.try_clone().unwrap()).write_all_at(b"abc", 0).unwrap();
        assert_eq!(copy_by_buffer(&source, &target, 0, 10).unwrap_err().errno(), Errno::IO);
    }
}
