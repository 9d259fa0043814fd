//! Listing directories: the names of all layers, each once, without what is hidden.

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crate::at::At;
use crate::attr::{Attr, Kind};
use crate::error::{Context, Errno, Error, Result};
use crate::inode::Inode;
use crate::inode::numbers::ROOT;
use crate::layer::marks::{DOT_WHITEOUT, Mark, is_xattr_whiteout};
use crate::layer::origin::Origin;
use crate::layer::work::WhiteoutStyle;
use crate::layer::{LayerId, LowerDir};
use crate::listing::{FIRST_PLACE, ListEntry, Listing};
use crate::name::Name;
use crate::overlay::Overlay;
use crate::scan::{Raw, scan};

/// Names of AUFS's own that mean nothing to users.
const DOT_INTERNAL: &[u8] = b".wh..wh.";

/// An entry as a caller is told of it.
#[derive(Debug)]
pub struct Entry<'a> {
    /// Inode number.
    pub ino: u64,
    /// File type.
    pub kind: Kind,
    /// Name; `.` and `..` come first.
    pub name: &'a [u8],
    /// Where to go on after this entry.
    pub next: u64,
    /// Its attributes, where they were asked for and the entry is neither `.` nor `..`; this counts as a lookup.
    pub attr: Option<Attr>,
}

impl Overlay {
    /// Tells `sink` the entries of the directory `ino` from `offset` on, until it answers that it is full. An entry that it
    /// did not take is not counted as looked up.
    ///
    /// Who goes on where he stopped is told of the entries that there were at the beginning, and of each once. There is
    /// nothing to be opened for that: offsets mean the same in every listing of a directory.
    ///
    /// # Errors
    /// `ENOTDIR`, `ESTALE`, and those of the layers.
    pub fn read_dir(
        &self,
        ino: u64,
        offset: u64,
        with_attrs: bool,
        mut sink: impl FnMut(&Entry<'_>) -> bool,
    ) -> Result<()> {
        let dir = self.inode(ino)?;
        if !dir.is_dir() {
            return Err(Error::new(Errno::NOTDIR, "list directory"));
        }
        for next in offset.saturating_add(1)..FIRST_PLACE {
            let (name, ino): (&[u8], u64) = match next {
                1 => (b".", self.own_number(&dir)?),
                _ => (b"..", self.parent_number(&dir)?),
            };
            if sink(&Entry { ino, kind: Kind::Dir, name, next, attr: None }) {
                return Ok(());
            }
        }
        let listing = self.listing_from(&dir, offset)?;
        for entry in listing.after(offset) {
            let name = entry.name.as_bytes();
            let mut shown = Entry { ino: entry.ino, kind: entry.kind, name, next: entry.place, attr: None };
            if with_attrs {
                match self.look_up(&dir, &entry.name) {
                    Ok(Some((inode, attr))) => {
                        shown.kind = inode.kind;
                        shown.ino = inode.ino;
                        shown.attr = Some(attr);
                    }
                    // Gone since: it is not told, as on any filesystem.
                    Ok(None) => continue,
                    // Whoever looks at this entry gets the error; the others are not to suffer from it. Its number is
                    // nobody's, as the kernel forgets what it cannot take.
                    Err(error) => {
                        log::debug!("{error}");
                        shown.ino = self.numbers.make_up();
                    }
                }
            }
            let counted = shown.attr.is_some();
            if sink(&shown) {
                if counted {
                    self.forget(shown.ino, 1);
                }
                return Ok(());
            }
        }
        if listing.after(offset).is_empty() {
            self.caches.listings.end(dir.ino);
        }
        Ok(())
    }

    /// The listing to be told from `offset` on.
    fn listing_from(&self, dir: &Arc<Inode>, offset: u64) -> Result<Arc<Listing>> {
        if offset >= FIRST_PLACE
            && let Some(begun) = self.caches.listings.begun(dir.ino)
        {
            return Ok(begun);
        }
        let listing = self.list(dir)?;
        self.caches.listings.begin(dir.ino, Arc::clone(&listing));
        Ok(listing)
    }

    fn own_number(&self, dir: &Arc<Inode>) -> Result<u64> {
        if dir.ino == ROOT { Ok(self.attr_of(dir)?.ino) } else { Ok(dir.ino) }
    }

    fn parent_number(&self, dir: &Arc<Inode>) -> Result<u64> {
        let parent = dir.state.read().links.as_slice().first().map(|link| Arc::clone(&link.parent));
        self.own_number(parent.as_ref().unwrap_or(dir))
    }

    /// The names that a directory shows now.
    ///
    /// # Errors
    /// Those of the layers.
    pub(crate) fn list(&self, dir: &Arc<Inode>) -> Result<Arc<Listing>> {
        if let Some(listing) = self.caches.listings.get(dir.ino) {
            return Ok(listing);
        }
        let since = self.caches.listings.now();
        let (has_upper, impure, lower) = {
            let state = dir.state.read();
            if dir.ino != ROOT && state.links.as_slice().is_empty() {
                return Ok(Arc::new(Listing::new(Vec::new())));
            }
            (state.upper.is_some(), state.flags.impure, state.lower_dirs().to_vec())
        };
        let parts = lower.len().saturating_add(usize::from(has_upper));
        let mut merge = Merge { overlay: self, seen: HashSet::new(), tracks: parts > 1, entries: Vec::new() };
        if has_upper {
            merge.add_upper(&*self.upper_dir(dir)?, impure)?;
        }
        for dir in &lower {
            merge.add_lower(dir)?;
        }
        let listing = Arc::new(Listing::new(merge.entries));
        self.caches.listings.put(dir.ino, Arc::clone(&listing), since);
        Ok(listing)
    }
}

/// A listing in the making.
struct Merge<'o> {
    overlay: &'o Overlay,
    /// Names that layers above have shown or hidden.
    seen: HashSet<Name>,
    /// There is more than one layer, so that `seen` is needed.
    tracks: bool,
    entries: Vec<ListEntry>,
}

impl Merge<'_> {
    fn add_upper(&mut self, dir: &OwnedFd, impure: bool) -> Result<()> {
        let overlay = self.overlay;
        let dev = At::fd(dir).attr().during("stat")?.dev;
        let dot_style = overlay.upper_style() == Some(WhiteoutStyle::DotFile);
        let opaque = At::fd(dir).xattr(&overlay.dialect.name(Mark::Opaque)).during("read the opaque mark")?;
        let xattr_whiteouts = opaque.as_deref() == Some(b"x");
        // What a `.wh.` name hides is in the layers below; an entry of the upper's own may lie beside it.
        let mut hidden: Vec<Vec<u8>> = Vec::new();
        scan(dir.as_fd(), |raw| {
            if dot_style && let Some(name) = raw.name.strip_prefix(DOT_WHITEOUT) {
                hidden.push(name.to_vec());
                return Ok(());
            }
            let at = At::new(dir, raw.name).keeping(overlay.upper_key());
            let Some(kind) = shown_kind(at, &raw, xattr_whiteouts)? else {
                self.hide(raw.name);
                return Ok(());
            };
            let mut ino = overlay.upper_number(dev, raw.ino);
            if impure
                && let Some(origin) = at.xattr(&overlay.dialect.name(Mark::Origin)).during("read the origin mark")?
                && let Some(source) = Origin::decode(&origin).and_then(|origin| origin.find(&overlay.stack.lowers))
            {
                ino = overlay.numbers.compose(source.dev, source.ino);
            }
            self.show(raw.name, ino, kind, None)
        })?;
        for name in hidden {
            self.hide(&name);
        }
        Ok(())
    }

    fn add_lower(&mut self, dir: &Arc<LowerDir>) -> Result<()> {
        let overlay = self.overlay;
        let fd = overlay.lower_dir(dir)?;
        let dev = At::fd(&fd).attr().during("stat")?.dev;
        let key = overlay.key_of(dir);
        // What a layer's `.wh.` names hide is in the layers below it, not in itself.
        let mut hidden: Vec<Vec<u8>> = Vec::new();
        let mut has_dot_names = false;
        scan(fd.as_fd(), |raw| {
            if let Some(name) = raw.name.strip_prefix(DOT_WHITEOUT) {
                has_dot_names = true;
                if !raw.name.starts_with(DOT_INTERNAL) {
                    hidden.push(name.to_vec());
                }
                return Ok(());
            }
            match shown_kind(At::new(&fd, raw.name).keeping(key), &raw, dir.xattr_whiteouts)? {
                Some(kind) => self.show(raw.name, overlay.numbers.compose(dev, raw.ino), kind, Some(dir.layer)),
                None => {
                    hidden.push(raw.name.to_vec());
                    Ok(())
                }
            }
        })?;
        dir.set_dot_whiteouts(has_dot_names);
        for name in hidden {
            self.hide(&name);
        }
        Ok(())
    }

    fn show(&mut self, name: &[u8], ino: u64, kind: Kind, lower: Option<LayerId>) -> Result<()> {
        let name = Name::new(name).map_err(|errno| Error::new(errno, "list directory"))?;
        if self.tracks && !self.seen.insert(name.clone()) {
            return Ok(());
        }
        self.entries.push(ListEntry::new(name, ino, kind, lower));
        Ok(())
    }

    fn hide(&mut self, name: &[u8]) {
        if self.tracks
            && let Ok(name) = Name::new(name)
        {
            self.seen.insert(name);
        }
    }
}

/// The type of an entry; `None` for a whiteout.
fn shown_kind(at: At<'_>, raw: &Raw<'_>, xattr_whiteouts: bool) -> Result<Option<Kind>> {
    let may_be_marked = (xattr_whiteouts || at.keeps()) && raw.kind == Some(Kind::File);
    if let Some(kind) = raw.kind
        && kind != Kind::Char
        && !may_be_marked
    {
        return Ok(Some(kind));
    }
    let found = match (at.find(), raw.kind) {
        // Whoever looks at this entry gets the error.
        (Err(Errno::IO), Some(kind)) if at.keeps() => return Ok(Some(kind)),
        (found, _) => found,
    };
    let Some(attr) = found.during("stat")? else { return Ok(None) };
    if attr.is_whiteout() {
        return Ok(None);
    }
    if xattr_whiteouts && attr.kind() == Kind::File && attr.size == 0 && is_xattr_whiteout(at).during("read marks")? {
        return Ok(None);
    }
    Ok(Some(attr.kind()))
}
