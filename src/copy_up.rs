//! Copy-up: before the first change, a lower object gets its part in the upper.
//!
//! Parents first. The copy is staged in the work directory and published by one rename, so that nobody ever sees half of
//! it. No lock that others need is held while data moves.

mod data;
mod metacopy;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, Timestamps, XattrFlags, makedev};

use crate::at::{At, split_names};
use crate::attr::{Attr, Kind};
use crate::cache::Known;
use crate::calls;
use crate::error::{Context, Errno, Error, Result};
use crate::inode::{DataAt, Inode, Link, Links, Lower};
use crate::layer::marks::{Mark, is_opaque_mark};
use crate::layer::origin::Origin;
use crate::layer::work::{Staged, WorkDir};
use crate::lock::{Mutex, MutexGuard, rank};
use crate::name::Name;
use crate::overlay::{Overlay, Stale};
use crate::override_stat::{CAPABILITY, Kept, real_mode};
use crate::sys::creds;
use crate::times;

/// What is copied faster than another thread is woken to do it, in bytes.
const SMALL: u64 = 64 << 10;
/// `TMPFS_MAGIC`, of the filesystem without a disk.
const TMPFS: u64 = 0x0102_1994;

/// What a copy of a file holds when it is published.
#[derive(Debug)]
enum Content {
    /// Nothing.
    Nothing,
    /// The data of its source.
    Source,
    /// The data of another file.
    At(OwnedFd),
    /// None: the data stays there, or in the source.
    Elsewhere(Option<DataAt>),
}

/// Where the copy of a lower hard link goes.
#[derive(Debug)]
struct Index {
    name: Vec<u8>,
    /// How many names there are in the lower layer.
    nlink: u32,
    /// Its mark is relative to the lower's count.
    by_lower: bool,
}

/// An entry of the index that has no name yet, without which it is of no use.
struct Unlinked<'w>(&'w WorkDir, &'w [u8]);

impl Drop for Unlinked<'_> {
    fn drop(&mut self) {
        self.0.remove_index(self.1);
    }
}

/// How much of a file's data its copy needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Data {
    /// All of it.
    Keep,
    /// None: it is truncated next.
    Drop,
    /// None yet: only attributes change.
    Later,
}

impl Overlay {
    /// Gives `inode`, and the directories above it, a part in the upper, with as much of its data as `data` says.
    ///
    /// # Errors
    /// `EROFS` on a read-only mount; whatever keeps the copy from being complete, and then nothing has changed.
    pub(crate) fn copy_up(&self, inode: &Arc<Inode>, data: Data) -> Result<()> {
        let _distrust = self.distrust_on_panic();
        let work = self.work()?;
        let wanted = if self.config.metacopy { data } else { data.now() };
        // From the object up to the first directory that is in the upper, and back down. No recursion: trees are deep.
        let mut below = Vec::new();
        let mut current = Arc::clone(inode);
        loop {
            let parent = {
                let state = current.state.read();
                if state.upper.is_some() {
                    break;
                }
                state.links.as_slice().first().map(|link| Arc::clone(&link.parent))
            };
            below.push(current);
            match parent {
                Some(parent) => current = parent,
                None => break,
            }
        }
        for inode in below.iter().rev() {
            self.gated(inode, || self.copy_up_gated(work, inode, wanted))?;
        }
        if data != Data::Later && inode.state.read().data().is_some() {
            self.gated(inode, || self.complete(inode, data))?;
        }
        // By which of several names it is changed is not known.
        let last = inode.state.read().last_link().cloned();
        last.map_or(Ok(()), |link| self.link_up(inode, &link.parent, &link.name))
    }

    /// As [`Overlay::copy_up`] without data, of an inode that is changed by its name `name` in `parent`: the copy of a
    /// lower hard link goes there.
    ///
    /// # Errors
    /// As [`Overlay::copy_up`].
    pub(crate) fn copy_up_by(&self, inode: &Arc<Inode>, parent: &Inode, name: &Name) -> Result<()> {
        if inode.state.read().upper.is_none() {
            inode.state.write().links.prefer(parent, name.as_bytes());
        }
        self.copy_up(inode, Data::Later)
    }

    /// Whether a change of `ino` has to copy data first, and that may take long: there is much of it, or it has to reach
    /// a disk.
    pub fn must_copy_data(&self, ino: u64) -> bool {
        let must_copy =
            || self.table.get(ino).is_some_and(|inode| inode.kind == Kind::File && !inode.state.read().is_whole());
        let is_quick = || {
            let is_memory = self.stack.upper.as_ref().is_some_and(|upper| upper.magic == TMPFS);
            let is_small = self.caches.attrs.get(ino).is_some_and(|attr| attr.size <= SMALL);
            is_small && (is_memory || !self.syncs())
        };
        must_copy() && !is_quick()
    }

    /// Whether renaming `name` may have to copy data first, as far as that is known without asking the layers.
    pub fn rename_copies_data(&self, parent: u64, name: &[u8]) -> bool {
        match self.caches.names.get(parent, name) {
            Some(Known::Inode(ino)) => self.must_copy_data(ino),
            Some(Known::Missing) => false,
            None => true,
        }
    }

    /// Whether removing `name` may have to copy data first: that of a file which has other names in a lower layer.
    pub fn removal_copies_data(&self, parent: u64, name: &[u8]) -> bool {
        match self.caches.names.get(parent, name) {
            Some(Known::Inode(ino)) => {
                self.must_copy_data(ino) && self.caches.attrs.get(ino).is_none_or(|attr| attr.nlink > 1)
            }
            Some(Known::Missing) => false,
            None => true,
        }
    }

    /// Gives a name of an indexed inode its entry in the upper.
    ///
    /// # Errors
    /// Those of linkat(2).
    pub(crate) fn link_up(&self, inode: &Arc<Inode>, parent: &Arc<Inode>, name: &Name) -> Result<()> {
        let work = self.work()?;
        self.copy_up(parent, Data::Later)?;
        if inode.state.read().index().is_none() {
            return Ok(());
        }
        let dir = self.upper_dir(parent)?;
        self.mark_impure(parent, dir.as_fd())?;
        let mut state = inode.state.write();
        let known = state.links.find(parent, name.as_bytes()).map(|link| link.in_upper);
        let (Some(false), Some(index)) = (known, state.index()) else { return Ok(()) };
        let index_dir = work.index();
        let by_lower = self.mark_link_count_by_lower(At::new(&index_dir, index), state.nlink())?;
        let times = times::of(At::fd(&dir)).during("stat")?;
        calls::linkat(index_dir, index, &dir, name.as_bytes(), AtFlags::empty()).during("link from the index")?;
        self.restore_times(parent, At::fd(&dir), &times);
        state.links.add(Link { parent: Arc::clone(parent), name: name.clone(), in_upper: true });
        drop(state);
        self.touched(inode);
        self.settle_link_count(inode, by_lower)?;
        Ok(())
    }

    /// Makes the link count mark of an indexed inode relative to the lower's count, so that the upper's may change; whether
    /// the lower inode was found.
    ///
    /// # Errors
    /// Those of setxattr(2).
    fn mark_link_count_by_lower(&self, at: At<'_>, nlink: Option<u32>) -> Result<bool> {
        let mark = at.xattr(&self.dialect.name(Mark::Origin)).during("read the origin mark")?;
        let origin = mark.and_then(|mark| Origin::decode(&mark));
        let lower = origin.and_then(|origin| origin.find(&self.stack.lowers)?.nlink);
        let (Some(nlink), Some(lower)) = (nlink, lower) else { return Ok(false) };
        let mark = format!("L{:+}", i64::from(nlink).saturating_sub(i64::from(lower)));
        self.dialect.set(at, Mark::Nlink, mark.as_bytes()).during("set the link count mark")?;
        Ok(true)
    }

    /// Makes the link count mark relative to the upper's count, now that this has grown by the link to a name.
    ///
    /// Should we stop before, a mark that is relative to the lower's count is right all the same. One that was relative to
    /// the upper's is too high by one, which keeps the index for longer, and loses nothing.
    fn settle_link_count(&self, inode: &Arc<Inode>, by_lower: bool) -> Result<()> {
        match self.mark_link_count(inode) {
            Err(error) if by_lower => {
                log::warn!("the link count stays relative to the lower layer: {error}");
                Ok(())
            }
            result => result,
        }
    }

    /// Gives a directory its times back after a copy was put into it. As on the kernel, the copy counts without that.
    fn restore_times(&self, inode: &Inode, dir: At<'_>, times: &Timestamps) {
        if let Err(errno) = dir.set_times(times) {
            log::warn!("cannot restore the times of a directory: {errno}");
            self.touched(inode);
        }
    }

    /// Copies up what `copy` does while nobody else copies `inode` up.
    fn gated(&self, inode: &Arc<Inode>, copy: impl FnOnce() -> Result<()>) -> Result<()> {
        let gate = self.gate(inode);
        let guard = gate.lock();
        let result = copy();
        drop(guard);
        drop(gate);
        if result.is_ok() {
            self.tell_stale(inode, Stale::Attributes);
        }
        result
    }

    /// For a metacopy, the lock of its completion, which is to be held while its attributes change: completion restores
    /// them.
    pub(crate) fn gate_of_metacopy(&self, inode: &Inode) -> Option<Gate<'_>> {
        inode.state.read().data().is_some().then(|| self.gate(inode))
    }

    /// The lock of copies of `inode`.
    fn gate(&self, inode: &Inode) -> Gate<'_> {
        let lock = Arc::clone(self.copy_ups.lock().entry(inode.ino).or_default());
        Gate { overlay: self, ino: inode.ino, lock: Some(lock) }
    }

    fn copy_up_gated(&self, work: &WorkDir, inode: &Arc<Inode>, data: Data) -> Result<()> {
        let (lower, data_at, protected) = {
            let state = inode.state.read();
            if state.upper.is_some() {
                return Ok(());
            }
            (state.lower.clone(), state.data().cloned(), (state.flags.immutable, state.flags.append_only))
        };
        let (dir, name) = match &lower {
            Lower::File(dir, name) => (dir, name),
            Lower::Dirs(dirs) => match dirs.first().and_then(|dir| dir.place.as_ref()) {
                Some((dir, name)) => (dir, name),
                None => return Err(Error::new(Errno::STALE, "copy up")),
            },
            Lower::None => return Err(Error::new(Errno::STALE, "copy up")),
        };
        let dir_fd = self.lower_dir(dir)?;
        let source = At::new(&dir_fd, name.as_bytes()).keeping(self.key_of(dir));
        let attr = source.attr().during("stat for copy-up")?;
        log::debug!("copy up {}", name.as_bytes().escape_ascii());
        let origin = self.origin_of(dir, name, &attr)?;
        let content = match (data, data_at) {
            (Data::Drop, _) => Content::Nothing,
            (Data::Keep, None) => Content::Source,
            (Data::Keep, Some(at)) => Content::At(self.open_data(&at)?),
            (Data::Later, at) => {
                if let Some(at) = &at {
                    // As the kernel's overlayfs: no copy of what lacks its data.
                    drop(self.open_data(at)?);
                }
                Content::Elsewhere(at)
            }
        };
        let staged = self.stage_copy(work, source, &attr, &content)?;
        let mut index = None;
        if self.dialect.marks(inode.kind) {
            self.dialect.set(staged.at(), Mark::Origin, &origin.encode()).during("set the origin mark")?;
            if inode.kind != Kind::Dir && attr.nlink > 1 {
                // Relative to the lower's count, which further links of the copy leave alone; to the copy's own where
                // the lower inode is not found by its handle.
                let by_lower = origin.find(&self.stack.lowers).and_then(|source| source.nlink) == Some(attr.nlink);
                let mark = if by_lower { "L+0".to_owned() } else { format!("U+{}", attr.nlink.saturating_sub(1)) };
                self.dialect.set(staged.at(), Mark::Nlink, mark.as_bytes()).during("set the link count mark")?;
                index = Some(Index { name: origin.index_name(), nlink: attr.nlink, by_lower });
            }
        }
        let mut left = None;
        if let Content::Elsewhere(at) = content
            && inode.kind == Kind::File
        {
            self.dialect.set(staged.at(), Mark::Metacopy, b"").during("set the metacopy mark")?;
            left = at.or_else(|| Some(DataAt::Lower(Arc::clone(dir), name.clone(), attr.blocks)));
        }
        self.stage_attributes(staged.at(), source, &attr, protected)?;
        let is_metadata_only = left.is_some();
        self.publish(inode, staged, index, left)?;
        self.counters.copy_ups.add(1);
        self.counters.metadata_only.add(is_metadata_only.into());
        Ok(())
    }

    /// Makes an object of the same type, and copies its data.
    fn stage_copy<'w>(&self, work: &'w WorkDir, source: At<'_>, attr: &Attr, content: &Content) -> Result<Staged<'w>> {
        let (uid, gid) = self.owner();
        creds::assume(creds::Creds { uid, gid, umask: 0 }).during("take ids")?;
        let node = |kind: FileType| {
            // What is kept of it says the type.
            let kind = if self.upper_key().is_some() { FileType::RegularFile } else { kind };
            let rdev = if matches!(kind, FileType::BlockDevice | FileType::CharacterDevice) {
                makedev(attr.rdev.0, attr.rdev.1)
            } else {
                0
            };
            work.stage(|dir, name| calls::mknodat(dir, name, kind, Mode::RUSR | Mode::WUSR, rdev))
        };
        let (staged, ()) = match attr.kind() {
            Kind::File => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
                let (staged, file) =
                    work.stage(|dir, name| calls::openat(dir, name, flags, Mode::RUSR | Mode::WUSR))?;
                let source = source.open_noatime(OFlags::RDONLY).during("open for copy-up")?;
                match content {
                    Content::Nothing => {}
                    Content::Source => self.copy_data(&source, &file, attr.size)?,
                    Content::At(data) => self.copy_data(data, &file, attr.size)?,
                    Content::Elsewhere(_) => calls::ftruncate(&file, attr.size).during("size the copy")?,
                }
                copy_flags(source.as_fd(), file.as_fd())?;
                // As the kernel's overlayfs, which syncs no metacopy, for the sake of `chown -R`.
                if self.syncs() && !matches!(content, Content::Elsewhere(_)) {
                    calls::fsync(&file).during("sync the copy")?;
                }
                (staged, ())
            }
            Kind::Dir => work.stage(|dir, name| calls::mkdirat(dir, name, Mode::RWXU))?,
            Kind::Symlink => {
                let target = source.read_link().during("read the symlink")?;
                work.stage(|dir, name| calls::symlinkat(target.as_slice(), dir, name))?
            }
            Kind::Fifo => node(FileType::Fifo)?,
            Kind::Socket => node(FileType::Socket)?,
            Kind::Char => node(FileType::CharacterDevice)?,
            Kind::Block => node(FileType::BlockDevice)?,
        };
        Ok(staged)
    }

    /// Copies the data of a file, and counts it.
    fn copy_data(&self, source: &OwnedFd, copy: &OwnedFd, size: u64) -> Result<()> {
        let is_shared = data::copy(source, copy, size)?;
        self.counters.copied.add(size);
        self.counters.reflinked.add(is_shared.into());
        Ok(())
    }

    /// Gives the copy the owner, attributes, mode and times of its source. In this order: a change of owner takes set-id
    /// bits and capabilities away, a mode may keep us from setting attributes, and everything moves times.
    fn stage_attributes(&self, copy: At<'_>, source: At<'_>, attr: &Attr, marked: (bool, bool)) -> Result<()> {
        let key = self.upper_key().filter(|_| attr.kind() != Kind::Symlink);
        if let Some(key) = key {
            copy.plain().chmod(real_mode(attr.mode, attr.kind() == Kind::Dir)).during("copy the mode")?;
            copy.keep(key, &Kept::of(attr)).during("keep the owner")?;
        } else if (attr.uid, attr.gid) != self.owner() {
            copy.chown(Some(attr.uid), Some(attr.gid)).during("copy the owner")?;
        }
        for name in split_names(&source.xattr_names().during("list attributes")?) {
            // An opaque mark of any dialect would have the copy hide its source once the upper is a lower layer.
            if self.dialect.is_private(name) || is_opaque_mark(name) {
                continue;
            }
            let Some(value) = source.xattr(name).during("read an attribute")? else { continue };
            match copy.set_xattr(name, &value, XattrFlags::empty()) {
                Ok(()) => {}
                // As on the kernel: what the upper cannot store is dropped, unless access depends on it.
                Err(Errno::OPNOTSUPP) if !is_needed(name) => {}
                Err(errno) => {
                    return Err(Error::new(errno, "copy the attribute").on(name.escape_ascii().to_string()));
                }
            }
        }
        if let Some(letters) = protected_letters(marked.0, marked.1) {
            self.dialect.set(copy, Mark::ProtAttr, letters).during("set the flags mark")?;
        }
        if attr.kind() != Kind::Symlink && key.is_none() {
            copy.chmod(attr.mode).during("copy the mode")?;
        }
        copy.set_times(&times::exact(attr.atime, attr.mtime)).during("copy the times")
    }

    /// Whether changes are to reach the disk before they are told to have happened.
    pub(crate) fn syncs(&self) -> bool {
        self.config.fsync && !self.config.volatile
    }

    /// Publishes the copy under a name of the inode, while none can change, and notes that the inode has its part in the
    /// upper.
    ///
    /// The copy of a lower hard link goes to the index first, under the handle of its lower inode, and from there to the
    /// name by which it was reached; the other names find it in the index. The copy of an unlinked file has no name
    /// either, only a descriptor.
    fn publish(
        &self,
        inode: &Arc<Inode>,
        staged: Staged<'_>,
        index: Option<Index>,
        left: Option<DataAt>,
    ) -> Result<()> {
        let work = self.work()?;
        let copy = staged.at().attr().during("stat the copy")?;
        let upper = copy.ino;
        let is_marked = self.dialect.marks(inode.kind);
        loop {
            let Some(link) = inode.state.read().links.as_slice().first().cloned() else {
                let mut state = inode.state.write();
                if !state.links.as_slice().is_empty() {
                    continue;
                }
                let orphan = staged.at().open(OFlags::PATH).during("open the copy")?;
                self.orphans.fetch_add(1, Ordering::Relaxed);
                state.upper = Some(upper);
                state.set_data(left);
                state.flags.kept_capability = self.upper_key().is_some();
                state.extra_mut().orphan = Some(Arc::new(orphan));
                drop(state);
                self.touched(inode);
                return Ok(());
            };
            // Renamed to where nothing was copied up yet, while data moved.
            self.copy_up(&link.parent, Data::Later)?;
            let dir = self.upper_dir(&link.parent)?;
            let entries = link.parent.entries.lock();
            self.mark_impure(&link.parent, dir.as_fd())?;
            let times = times::of(At::fd(&dir)).during("stat")?;
            let mut state = inode.state.write();
            if state.links.find(&link.parent, link.name.as_bytes()).is_none() {
                drop(state);
                drop(entries);
                continue;
            }
            let name = link.name.as_bytes();
            match &index {
                None => staged.commit(dir.as_fd(), name, RenameFlags::NOREPLACE)?,
                Some(Index { name: index, .. }) => {
                    staged.commit(work.index(), index, RenameFlags::NOREPLACE)?;
                    let unlinked = Unlinked(work, index);
                    calls::linkat(work.index(), index.as_slice(), &dir, name, AtFlags::empty())
                        .during("link from the index")?;
                    std::mem::forget(unlinked);
                }
            }
            let by_lower = index.as_ref().map(|index| index.by_lower);
            state.upper = Some(upper);
            state.set_data(left);
            state.flags.has_origin = is_marked;
            state.flags.kept_capability = self.upper_key().is_some();
            if !is_marked {
                self.unmarked.put(copy.dev, upper, inode.ino);
                // No index keeps other lower names of it one inode with the copy.
                state.links = Links::None;
            }
            if let Some(Index { name, nlink, .. }) = index {
                let extra = state.extra_mut();
                extra.index = Some(name);
                extra.nlink = Some(nlink);
            }
            state.links.add(Link { in_upper: true, ..link.clone() });
            drop(state);
            self.restore_times(&link.parent, At::fd(&dir), &times);
            self.touched(inode);
            if let Some(by_lower) = by_lower {
                self.settle_link_count(inode, by_lower)?;
            }
            self.touched(inode);
            return Ok(());
        }
    }

    /// Marks an upper directory as one whose entries may come from elsewhere, so that their numbers are looked up.
    ///
    /// # Errors
    /// Those of setxattr(2).
    pub(crate) fn mark_impure(&self, parent: &Arc<Inode>, dir: BorrowedFd<'_>) -> Result<()> {
        if parent.state.read().flags.impure {
            return Ok(());
        }
        self.dialect.set(At::fd(&dir), Mark::Impure, b"y").during("set the impure mark")?;
        parent.state.write().flags.impure = true;
        Ok(())
    }
}

impl Data {
    /// What is needed where data is not left for later.
    fn now(self) -> Self {
        if self == Self::Later { Self::Keep } else { self }
    }
}

/// The lock of copies of one inode, which goes with the last who holds it.
#[derive(Debug)]
pub(crate) struct Gate<'o> {
    overlay: &'o Overlay,
    ino: u64,
    lock: Option<Arc<Mutex<(), { rank::COPY_UP }>>>,
}

impl Gate<'_> {
    pub(crate) fn lock(&self) -> Option<MutexGuard<'_, ()>> {
        self.lock.as_ref().map(|lock| lock.lock())
    }
}

impl Drop for Gate<'_> {
    fn drop(&mut self) {
        let mut gates = self.overlay.copy_ups.lock();
        // The map and this one hold it: nobody else waits.
        if self.lock.as_ref().is_some_and(|lock| Arc::strong_count(lock) <= 2) {
            gates.remove(&self.ino);
        }
        // Still under the lock, so that of two who end at once the second finds itself alone.
        self.lock = None;
        drop(gates);
    }
}

/// Attributes without which a copy would give other access than its source.
fn is_needed(name: &[u8]) -> bool {
    name.starts_with(b"system.posix_acl_") || name == CAPABILITY
}

/// The value of the flags mark.
pub(crate) fn protected_letters(immutable: bool, append_only: bool) -> Option<&'static [u8]> {
    match (immutable, append_only) {
        (true, true) => Some(b"ai"),
        (true, false) => Some(b"i"),
        (false, true) => Some(b"a"),
        (false, false) => None,
    }
}

/// Copies the flags that the kernel's overlayfs copies to the file itself.
fn copy_flags(source: BorrowedFd<'_>, copy: BorrowedFd<'_>) -> Result<()> {
    /// `FS_SYNC_FL` and `FS_NOATIME_FL`.
    const KEPT: u32 = 0x8 | 0x80;
    match calls::get_flags(source) {
        Ok(flags) if flags & KEPT != 0 => {
            let own = calls::get_flags(copy).during("read file flags")?;
            calls::set_flags(copy, own | (flags & KEPT)).during("copy file flags")
        }
        // A filesystem that has no flags has none to keep.
        _ => Ok(()),
    }
}
