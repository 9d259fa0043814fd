//! The files of a source: those of a directory, or the members of an archive, which are read where they lie.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::error::{Errno, Error, Result};
use crate::image::blob::{Blob, Compression};
use crate::image::digest::Digest;
use crate::image::limits::Limits;
use crate::image::unpack::path::normalize;
use crate::image::wrong;

/// Members that an archive may have.
const MEMBERS: usize = 100_000;
/// Links that may lead from one member to another.
const LINKS: usize = 8;

/// Where the files are.
#[derive(Debug)]
pub enum Files {
    /// In a directory.
    Dir(PathBuf),
    /// In an archive.
    Archive(Archive),
}

/// A tar archive.
#[derive(Debug)]
pub struct Archive {
    /// What to open.
    path: PathBuf,
    /// What it is called in messages.
    shown: String,
    members: BTreeMap<Vec<u8>, Member>,
    /// Holds what the archive was decompressed to.
    _decompressed: Option<File>,
}

#[derive(Debug)]
enum Member {
    /// Data at this offset, of this size.
    File(u64, u64),
    /// Another name.
    Link(Vec<u8>),
}

impl Files {
    /// The files of the directory `path`.
    ///
    /// # Errors
    /// That there is none.
    pub fn dir(path: &Path) -> Result<Self> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let meta = std::fs::metadata(path).map_err(|error| of(path, &error))?;
        if meta.is_dir() { Ok(Self::Dir(path.to_owned())) } else { Err(wrong(shown(path), "not a directory")) }
    }

    /// The members of the archive `path`, which is decompressed into `scratch` if it is compressed.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub fn archive(path: &Path, limits: &Limits, scratch: &Path) -> Result<Self> {
        let failed = |error: io::Error| of(path, &error);
        let size = regular(path)?;
        let mut start = [0; 8];
        let read = File::open(path).and_then(|mut file| file.read(&mut start)).map_err(failed)?;
        let compression = Compression::of(start.get(..read).unwrap_or_default());
        let shown = shown(path);
        let (open, decompressed) = if compression == Compression::None {
            (path.to_owned(), None)
        } else {
            let blob =
                Blob { path: path.to_owned(), offset: 0, size, digest: None, name: shown.clone(), compression: None };
            let file = decompress(&blob, limits, scratch)?;
            (PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd())), Some(file))
        };
        let members = members(&open).map_err(failed)?;
        Ok(Self::Archive(Archive { path: open, shown, members, _decompressed: decompressed }))
    }

    /// The file `name`, as a blob that is not checked further.
    ///
    /// # Errors
    /// That there is none.
    pub fn find(&self, name: &str) -> Result<Blob> {
        let blob = |path, offset, size, name| Blob { path, offset, size, digest: None, name, compression: None };
        match self {
            Self::Dir(dir) => {
                let path = dir.join(name);
                let size = regular(&path)?;
                let name = shown(&path);
                Ok(blob(path, 0, size, name))
            }
            Self::Archive(archive) => {
                let subject = || format!("{}: {name}", archive.shown);
                let (offset, size) = archive.find(name).map_err(|reason| wrong(subject(), reason))?;
                Ok(blob(archive.path.clone(), offset, size, subject()))
            }
        }
    }

    /// The blob with this digest and size, in the place that an OCI layout has for it.
    ///
    /// # Errors
    /// That there is none.
    pub fn blob(&self, digest: Digest, size: u64) -> Result<Blob> {
        let found = self.find(&format!("blobs/sha256/{}", digest.hex()));
        let mut blob = found.map_err(|error| wrong(digest.to_string(), format!("no such blob: {error}")))?;
        blob.name = digest.to_string();
        if blob.size != size {
            return Err(wrong(blob.name, format!("{} bytes, not {size} as is told", blob.size)));
        }
        blob.digest = Some(digest);
        Ok(blob)
    }

    /// What the source is called.
    pub fn name(&self) -> String {
        match self {
            Self::Dir(path) => shown(path),
            Self::Archive(archive) => archive.shown.clone(),
        }
    }
}

impl Archive {
    fn find(&self, name: &str) -> std::result::Result<(u64, u64), String> {
        let mut path = normalize(name.as_bytes())?;
        for _ in 0..LINKS {
            match self.members.get(&path) {
                Some(Member::File(offset, size)) => return Ok((*offset, *size)),
                Some(Member::Link(target)) => path.clone_from(target),
                None => return Err("not in the archive".into()),
            }
        }
        Err("links that lead nowhere".into())
    }
}

/// The size of a regular file: what else a path may name could keep us waiting.
fn regular(path: &Path) -> Result<u64> {
    let meta = std::fs::metadata(path).map_err(|error| of(path, &error))?;
    if meta.is_file() { Ok(meta.len()) } else { Err(wrong(shown(path), "not a file")) }
}

fn decompress(blob: &Blob, limits: &Limits, scratch: &Path) -> Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = rustix::fs::open(scratch, flags, Mode::RUSR | Mode::WUSR)
        .map_err(|errno| Error::new(errno, "open").on(shown(scratch)))?;
    let mut file = File::from(file);
    let limit = limits.layer_bytes;
    blob.stream(&|_| {}, |input| {
        let copied = io::copy(&mut input.take(limit.saturating_add(1)), &mut file);
        let copied = copied.map_err(|error| wrong(blob.name.as_str(), error.to_string()))?;
        if copied > limit {
            return Err(wrong(
                blob.name.as_str(),
                format!("more than {limit} bytes once decompressed (--max-layer-size)"),
            ));
        }
        Ok(())
    })?;
    file.flush().and_then(|()| file.rewind()).map_err(Error::from)?;
    Ok(file)
}

fn members(path: &Path) -> io::Result<BTreeMap<Vec<u8>, Member>> {
    let mut archive = tar::Archive::new(BufReader::new(File::open(path)?));
    let mut members = BTreeMap::new();
    for entry in archive.entries_with_seek()? {
        let entry = entry?;
        let Ok(name) = normalize(&entry.path_bytes()) else { continue };
        let kind = entry.header().entry_type();
        let member = if kind.is_file() || kind.is_contiguous() {
            Member::File(entry.raw_file_position(), entry.size())
        } else if let (true, Some(target)) = (kind.is_symlink() || kind.is_hard_link(), entry.link_name_bytes()) {
            // A symlink is meant from the directory that it lies in, as docker save once linked equal layers.
            let target = if kind.is_symlink() { relative(&name, &target) } else { normalize(&target).ok() };
            let Some(target) = target else { continue };
            Member::Link(target)
        } else {
            continue;
        };
        members.insert(name, member);
        if members.len() > MEMBERS {
            return Err(io::Error::other(format!("more than {MEMBERS} members")));
        }
    }
    Ok(members)
}

/// Where a symlink at `name` leads to in its archive.
fn relative(name: &[u8], target: &[u8]) -> Option<Vec<u8>> {
    let mut parts: Vec<&[u8]> = name.split(|byte| *byte == b'/').collect();
    parts.pop();
    for part in target.split(|byte| *byte == b'/') {
        match part {
            b".." => drop(parts.pop()?),
            b"" | b"." => {}
            part => parts.push(part),
        }
    }
    normalize(&parts.join(&b'/')).ok()
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn of(path: &Path, error: &io::Error) -> Error {
    let errno = Errno::from_io_error(error).unwrap_or(Errno::IO);
    if Errno::from_io_error(error).is_some() {
        Error::new(errno, "open").on(shown(path))
    } else {
        Error::new(errno, "read").on(shown(path)).because(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symlinks_lead_within_the_archive() {
        assert_eq!(relative(b"a/layer.tar", b"../b/layer.tar"), Some(b"b/layer.tar".to_vec()));
        assert_eq!(relative(b"a", b"b"), Some(b"b".to_vec()));
        assert_eq!(relative(b"a/x", b"../../etc/passwd"), None);
    }
}
