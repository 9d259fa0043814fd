//! What lies in the work directory: leftovers, and the index of hard links.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Dir, Mode, OFlags, openat};

use crate::at::At;
use crate::attr::{Attr, Kind};
use crate::error::{Context, Errno, Result};
use crate::layer::marks::{Marks, link_count};
use crate::layer::origin::Origin;

use super::Check;
use super::repair::Fix;

/// Opens the index of a work directory, where there is one.
///
/// # Errors
/// Those of openat(2).
pub(super) fn open(work: &OwnedFd) -> Result<Option<OwnedFd>> {
    open_in(work, "index")
}

fn open_in(work: &OwnedFd, name: &str) -> Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(work, name, flags, Mode::empty()) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        opened => opened.map(Some).during("open the work directory"),
    }
}

/// The names in a directory.
fn names(dir: &OwnedFd) -> Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir).during("read the work directory")? {
        let name = entry.during("read the work directory")?.file_name().to_bytes().to_vec();
        if !matches!(name.as_slice(), b"." | b"..") {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// The origin that an entry's name tells.
fn origin_of(name: &[u8]) -> Option<Origin> {
    let digits = str::from_utf8(name).ok().filter(|text| text.len() % 2 == 0 && text.is_ascii())?;
    let starts = (0..digits.len()).step_by(2);
    let byte = |at: usize| u8::from_str_radix(digits.get(at..at.checked_add(2)?)?, 16).ok();
    Origin::decode(&starts.map(byte).collect::<Option<Vec<u8>>>()?)
}

impl Check {
    /// Looks for what an operation that did not end has left.
    pub(super) fn look_into_work(&mut self) -> Result<()> {
        let Some(work) = &self.work else { return Ok(()) };
        let Some(dir) = open_in(work, "work")? else { return Ok(()) };
        for name in names(&dir)? {
            let path = [b"work/", name.as_slice()].concat();
            if name == b"incompat" {
                let what = "left by a volatile mount that may have lost data; if that does not matter, remove it";
                self.problem(&path, "volatile", what, None);
                continue;
            }
            let fix = (Fix::Leftover("work", name), "removed".to_owned());
            self.problem(&path, "leftover", "left by an operation that did not end", Some(fix));
        }
        Ok(())
    }

    /// Looks at each entry of the index.
    pub(super) fn look_into_index(&mut self) -> Result<()> {
        let Some(index) = self.index.take() else { return Ok(()) };
        let result = names(&index).and_then(|names| names.iter().try_for_each(|name| self.check_entry(&index, name)));
        self.index = Some(index);
        result
    }

    fn check_entry(&mut self, index: &OwnedFd, name: &[u8]) -> Result<()> {
        let path = [b"index/", name].concat();
        let at = At::new(index, name);
        let attr = at.attr().during("read the index")?;
        if name.starts_with(b"#") {
            let fix = (Fix::Leftover("index", name.to_vec()), "removed".to_owned());
            self.problem(&path, "leftover", "left by an operation that did not end", Some(fix));
            return Ok(());
        }
        let Some(origin) = origin_of(name) else {
            self.problem(&path, "wrong index entry", "its name is none of the index", None);
            return Ok(());
        };
        // Directories and whiteouts are there for NFS, by the kernel's overlayfs.
        if attr.kind() == Kind::Dir || attr.is_whiteout() {
            return Ok(());
        }
        let marks = Marks::of_upper(at, self.dialect).during("read the index")?;
        // Without this entry, what has other names in the upper loses nothing.
        let unlink = |why: &str| {
            let is_named = attr.nlink > 1;
            is_named.then(|| (Fix::Unindex(name.to_vec()), format!("removed; its names in the upper stay, {why}")))
        };
        if marks.origin.as_deref().is_some_and(|mark| mark != origin.encode()) {
            self.problem(&path, "wrong index entry", "its origin is not that of its name", unlink("as they are"));
            return Ok(());
        }
        let Some(overlay) = &self.overlay else { return Ok(()) };
        let Some(source) = origin.find(&overlay.stack.lowers) else {
            self.problem(&path, "lost index entry", "no lower layer has what it is a copy of", unlink("one file"));
            return Ok(());
        };
        let count = link_count(marks.nlink.as_deref(), attr.nlink, source.nlink);
        if attr.nlink == 1 && marks.nlink.is_some() && count == 0 {
            let fix = (Fix::Unindex(name.to_vec()), "removed, as at the next mount by the kernel".to_owned());
            self.problem(&path, "orphaned index entry", "all names of the file are removed", Some(fix));
        }
        Ok(())
    }

    /// A hard link of a lower file that was copied up has to be found by the index.
    pub(super) fn check_index_of(&mut self, path: &[u8], attr: &Attr, marks: &Marks) -> Result<()> {
        let origin = marks.origin.as_deref().and_then(Origin::decode);
        let (Some(index), Some(origin), true) = (&self.index, origin, marks.nlink.is_some()) else { return Ok(()) };
        let name = origin.index_name();
        let entry = At::new(&index.as_fd(), &name).find().during("read the index")?;
        if entry.is_none() && attr.kind() != Kind::Dir {
            let fix = (Fix::Index(path.to_vec(), name), "linked into the index again".to_owned());
            let what = "copied up from a file with several names, and not in the index";
            self.problem(path, "not indexed", what, Some(fix));
        }
        Ok(())
    }
}
