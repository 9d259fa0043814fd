//! From a name to an inode: probes the layers, applies the merge rule, and finds the number by which it is known.

mod below;
mod trace;

use std::os::fd::AsFd;
use std::sync::Arc;

use crate::at::At;
use crate::attr::{Attr, Kind};
use crate::cache::Known;
use crate::error::{Context, Errno, Error, Result};
use crate::inode::{DataAt, Extra, Flags, Inode, Link, Links, Lower, State};
use crate::layer::LowerDir;
use crate::layer::marks::{DOT_WHITEOUT, Marks, Metacopy, Opaque, Redirect, link_count};
use crate::layer::origin::{Origin, Source};
use crate::layer::work::WhiteoutStyle;
use crate::merge::Above;
use crate::name::Name;
use crate::overlay::Overlay;

use self::below::{LowerFile, LowerFound};

pub(crate) use self::trace::{Place, Trace};

/// What the upper holds under a name.
#[derive(Debug)]
pub(crate) enum UpperProbe {
    /// Nothing: the layers below decide.
    Absent,
    /// A whiteout.
    Whiteout,
    /// Anything else.
    Object {
        /// Its attributes.
        attr: Attr,
        /// What its marks say.
        marks: Marks,
        /// It is a directory that hides the layers below.
        opaque: bool,
    },
}

/// What the layers hold under a name.
#[derive(Debug)]
pub(crate) struct Found {
    /// The attributes of the object that wins.
    pub attr: Attr,
    /// Number by which the overlay knows it.
    pub ino: u64,
    /// Its parts, without its links.
    pub state: State,
}

impl Overlay {
    /// The inode under `name` in `parent`, counted as looked up once, and its attributes as shown.
    ///
    /// # Errors
    /// Those of the layers; `ENOENT` is `None`.
    pub(crate) fn look_up(&self, parent: &Arc<Inode>, name: &Name) -> Result<Option<(Arc<Inode>, Attr)>> {
        match self.caches.names.get(parent.ino, name.as_bytes()) {
            Some(Known::Missing) => return Ok(None),
            Some(Known::Inode(ino)) => {
                if let Some(inode) = self.table.get(ino)
                    && inode.state.read().links.find(parent, name.as_bytes()).is_some()
                    && let Some(attr) = self.caches.attrs.get(ino)
                {
                    prefer(&inode, parent, name);
                    return Ok(Some((self.table.look_up(inode), attr)));
                }
            }
            None => {}
        }
        let since = self.caches.attrs.now();
        let Some(found) = self.resolve(parent, name)? else {
            self.caches.names.put(parent.ino, name, Known::Missing);
            return Ok(None);
        };
        let (inode, attr) = self.intern(parent, name, found);
        self.caches.names.put(parent.ino, name, Known::Inode(inode.ino));
        self.keep_attr(&inode, attr, since);
        Ok(Some((inode, attr)))
    }

    /// The inode under `name` in `parent`, held as long as the result lives.
    ///
    /// # Errors
    /// Those of the layers; `ENOENT` is `None`.
    pub(crate) fn hold(&self, parent: &Arc<Inode>, name: &Name) -> Result<Option<Held<'_>>> {
        match self.caches.names.get(parent.ino, name.as_bytes()) {
            Some(Known::Missing) => return Ok(None),
            Some(Known::Inode(ino)) => {
                if let Some(inode) = self.table.get(ino)
                    && inode.state.read().links.find(parent, name.as_bytes()).is_some()
                {
                    return Ok(Some(Held { overlay: self, inode: self.table.look_up(inode) }));
                }
            }
            None => {}
        }
        Ok(self.look_up(parent, name)?.map(|(inode, _)| Held { overlay: self, inode }))
    }

    /// Makes what was found known by its number, counted as looked up once.
    pub(crate) fn intern(&self, parent: &Arc<Inode>, name: &Name, found: Found) -> (Arc<Inode>, Attr) {
        let Found { attr, ino, mut state } = found;
        let kind = attr.kind();
        let link = Link {
            parent: Arc::clone(parent),
            name: name.clone(),
            in_upper: state.upper.is_some() && state.index().is_none(),
        };
        // An alias found through the index only is none in the upper; one that is there says so itself.
        let link = Link { in_upper: link.in_upper || state.links.as_slice().iter().any(|l| l.in_upper), ..link };
        state.links = Links::One(link.clone());
        let upper = state.upper;
        let candidate = Arc::new(Inode::new(ino, kind, state));
        let known = self.table.look_up(Arc::clone(&candidate));
        if Arc::ptr_eq(&known, &candidate) {
            let shown = self.shown(&known, &known.state.read(), attr);
            return (known, shown);
        }
        let mut known_state = known.state.write();
        let is_orphan = known_state.orphan().is_some();
        let same = known.kind == kind
            && match (known_state.upper, upper) {
                (Some(known), Some(found)) => known == found,
                (None, Some(_)) => false,
                // Seen before its copy-up, or a lower hard link of what was copied up.
                (Some(_), None) if !self.dialect.marks(kind) => {
                    known_state.links.find(parent, name.as_bytes()).is_some()
                }
                (_, None) => !is_orphan,
            }
            && (kind != Kind::Dir || known_state.links.find(parent, name.as_bytes()).is_some());
        if same && is_orphan {
            // It had another name all the while: its descriptor has kept the upper's number from being used again.
            self.drop_orphan(&mut known_state);
        }
        if same {
            known_state.links.add(link);
            if known_state.upper.is_none() {
                known_state.links.prefer(parent, name.as_bytes());
            }
            let shown = self.shown(&known, &known_state, attr);
            drop(known_state);
            if upper.is_none() && known.state.read().upper.is_some() {
                // Its attributes are the upper's by now.
                let fresh = self.with_real(&known, |at, _| at.attr(), "stat").unwrap_or(attr);
                let shown = self.shown(&known, &known.state.read(), fresh);
                return (known, shown);
            }
            return (known, shown);
        }
        drop(known_state);
        self.forget(known.ino, 1);
        // Two objects that claim one number, as after a copy of the upper by hand: the second gets its own.
        let own = self.numbers.number(&attr);
        let mut state = std::mem::take(&mut *candidate.state.write());
        state.links = Links::None;
        let ino = if own == ino || self.table.get(own).is_some() { self.numbers.make_up() } else { own };
        let fresh = Arc::new(Inode::new(ino, kind, State { links: Links::One(link), ..state }));
        let fresh = self.table.look_up(fresh);
        let shown = self.shown(&fresh, &fresh.state.read(), attr);
        (fresh, shown)
    }

    /// Takes back `count` lookups of `ino`; returns whether it is not known any more.
    pub fn forget(&self, ino: u64, count: u64) -> bool {
        let Some(inode) = self.table.forget(ino, count) else { return false };
        self.let_go(&inode);
        true
    }

    /// What the layers hold under `name` in `parent`.
    ///
    /// # Errors
    /// Those of the layers; `EIO` for what cannot be shown as it is meant.
    pub(crate) fn resolve(&self, parent: &Arc<Inode>, name: &Name) -> Result<Option<Found>> {
        let (has_upper, lowers) = {
            let state = parent.state.read();
            (state.upper.is_some(), state.lower.clone())
        };
        let Lower::Dirs(lowers) = lowers else {
            return if has_upper { self.resolve_upper(parent, name, &[]) } else { Ok(None) };
        };
        // A listing that is known says in which layers to look, or that there is nothing. What was copied up since it was
        // made is found in the upper.
        let mut lowers = &*lowers;
        if let Some(listing) = self.caches.listings.peek(parent.ino) {
            match listing.find(name.as_bytes()).map(|entry| entry.lower) {
                None => return Ok(None),
                Some(None) => {}
                Some(Some(layer)) => {
                    let start = lowers.iter().position(|dir| dir.layer == layer).unwrap_or(0);
                    lowers = lowers.get(start..).unwrap_or_default();
                }
            }
        }
        if has_upper {
            self.resolve_upper(parent, name, lowers)
        } else {
            self.found_below(self.probe_lowers(lowers, name, None, Above::Nothing)?)
        }
    }

    /// Whether the layers below the upper show something under `name` in `parent`.
    ///
    /// # Errors
    /// Those of the layers.
    pub(crate) fn lower_shows(&self, parent: &Arc<Inode>, name: &Name) -> Result<bool> {
        let lower = parent.state.read().lower.clone();
        let Lower::Dirs(lowers) = lower else { return Ok(false) };
        Ok(!matches!(self.probe_lowers(&lowers, name, None, Above::Nothing)?, LowerFound::None))
    }

    /// What the upper holds under `name` in `parent`, which has a part there.
    ///
    /// # Errors
    /// Those of the upper.
    fn probe_upper(&self, parent: &Arc<Inode>, name: &Name) -> Result<UpperProbe> {
        let dir = self.upper_dir(parent)?;
        let at = At::new(&dir, name.as_bytes()).keeping(self.upper_key());
        let dot_style = self.upper_style() == Some(WhiteoutStyle::DotFile);
        if dot_style && name.as_bytes().starts_with(DOT_WHITEOUT) {
            return Ok(UpperProbe::Whiteout);
        }
        let Some(attr) = at.find().during("look up")? else {
            let hidden = dot_style && is_dot_hidden(&dir, name)?;
            return Ok(if hidden { UpperProbe::Whiteout } else { UpperProbe::Absent });
        };
        if attr.is_whiteout() {
            return Ok(UpperProbe::Whiteout);
        }
        let marks = Marks::of_upper(at, self.dialect).during("read the marks in the upper")?;
        if marks.whiteout && attr.kind() == Kind::File && attr.size == 0 {
            let parent = Marks::of_upper(At::fd(&dir), self.dialect).during("read the marks in the upper")?;
            if parent.opaque == Opaque::XattrWhiteouts {
                return Ok(UpperProbe::Whiteout);
            }
        }
        // A redirect says where to look, whatever the whiteout of its new name hides.
        let hidden = dot_style && attr.kind() == Kind::Dir && marks.redirect.is_none() && is_dot_hidden(&dir, name)?;
        let opaque = marks.opaque == Opaque::Yes || hidden;
        Ok(UpperProbe::Object { attr, marks, opaque })
    }

    fn resolve_upper(&self, parent: &Arc<Inode>, name: &Name, lowers: &[Arc<LowerDir>]) -> Result<Option<Found>> {
        let (attr, marks, opaque) = match self.probe_upper(parent, name)? {
            UpperProbe::Absent => return self.found_below(self.probe_lowers(lowers, name, None, Above::Nothing)?),
            UpperProbe::Whiteout => return Ok(None),
            UpperProbe::Object { attr, marks, opaque } => (attr, marks, opaque),
        };
        let mut state = State {
            upper: Some(attr.ino),
            flags: Flags {
                impure: marks.impure,
                immutable: marks.immutable || attr.immutable,
                append_only: marks.append_only || attr.append_only,
                setid: attr.is_setid(),
                kept_capability: marks.capability && self.upper_key().is_some(),
                has_origin: marks.origin.is_some(),
                ..Flags::default()
            },
            // Says that the name itself is in the upper.
            links: Links::One(Link { parent: Arc::clone(parent), name: name.clone(), in_upper: true }),
            ..State::default()
        };
        let origin = marks.origin.as_deref().and_then(Origin::decode);
        let source = origin.as_ref().and_then(|origin| origin.find(&self.stack.lowers));
        if attr.kind() == Kind::Dir {
            if !opaque {
                let redirect = parse_redirect(&marks)?;
                if let LowerFound::Dirs(dirs, _) = self.probe_lowers(lowers, name, redirect, Above::Dir)? {
                    state.lower = Lower::Dirs(dirs.into());
                }
            }
            if let Some(redirect) = marks.redirect {
                state.extra_mut().redirect = Some(redirect);
            }
        } else {
            if attr.nlink > 1
                && let (Some(origin), Some(index_dir)) = (&origin, self.index())
            {
                let index = origin.index_name();
                let entry = At::new(&index_dir, &index).find().during("look up in the index")?;
                if entry.map(|entry| entry.ino) == Some(attr.ino) {
                    let lower_nlink = source.and_then(|source| source.nlink);
                    let nlink = link_count(marks.nlink.as_deref(), attr.nlink, lower_nlink);
                    let extra = Extra { index: Some(index), nlink: Some(nlink), ..Extra::default() };
                    state.extra = Some(Box::new(extra));
                }
            }
            if attr.kind() == Kind::File && marks.metacopy != Metacopy::No {
                self.find_data(&mut state, &marks, lowers, name, source)?;
            }
        }
        let ino = match source {
            Some(source) => self.numbers.compose(source.dev, source.ino),
            None => self.upper_number(attr.dev, attr.ino),
        };
        Ok(Some(Found { attr, ino, state }))
    }

    /// Finds the data of the metacopy `name` of the upper.
    fn find_data(
        &self,
        state: &mut State,
        marks: &Marks,
        lowers: &[Arc<LowerDir>],
        name: &Name,
        source: Option<Source>,
    ) -> Result<()> {
        if marks.metacopy == Metacopy::Invalid {
            return Err(Error::new(Errno::IO, "read the metacopy mark"));
        }
        let found = match self.probe_lowers(lowers, name, parse_redirect(marks)?, Above::Metacopy)? {
            LowerFound::File(found) => found,
            _ => return Err(below::lacks_data(name)),
        };
        // As the kernel's overlayfs with index=on: what lies there now is not what was copied up.
        if self.config.index
            && source.is_some_and(|source| (source.dev, source.ino) != (found.attr.dev, found.attr.ino))
        {
            return Err(Error::new(Errno::STALE, "find the data of a metacopy"));
        }
        let extra = state.extra_mut();
        extra.data = Some(found.into_data());
        extra.redirect.clone_from(&marks.redirect);
        Ok(())
    }

    /// What is found where the upper has nothing under the name.
    fn found_below(&self, found: LowerFound) -> Result<Option<Found>> {
        let (attr, lower, data) = match found {
            LowerFound::None => return Ok(None),
            LowerFound::File(LowerFile { dir, name, attr, data }) => (attr, Lower::File(dir, name), data),
            LowerFound::Dirs(dirs, attr) => (attr, Lower::Dirs(dirs.into()), None),
        };
        let layer = match &lower {
            Lower::File(dir, _) => Some(dir.layer),
            Lower::Dirs(dirs) => dirs.first().map(|dir| dir.layer),
            Lower::None => None,
        };
        let is_all_immutable = layer.and_then(|layer| self.stack.lower(layer)).is_some_and(|l| l.is_all_immutable);
        let ino = self.numbers.number(&attr);
        let flags = Flags {
            immutable: attr.immutable && !is_all_immutable,
            append_only: attr.append_only,
            setid: attr.is_setid(),
            ..Flags::default()
        };
        let mut found = Found { attr, ino, state: State { lower, flags, ..State::default() } };
        if data.is_some() {
            found.state.extra_mut().data = data;
        }
        if attr.nlink > 1 && attr.kind() != Kind::Dir {
            self.find_index(&mut found)?;
        }
        Ok(Some(found))
    }

    /// A lower hard link may have been copied up under another of its names.
    fn find_index(&self, found: &mut Found) -> Result<()> {
        let (Some(index_dir), Lower::File(dir, name)) = (self.index(), &found.state.lower) else { return Ok(()) };
        let index = self.origin_of(dir, name, &found.attr)?.index_name();
        let at = At::new(&index_dir, &index).keeping(self.upper_key());
        let entry = at.find().during("look up in the index")?;
        let Some(upper) = entry.filter(|upper| upper.kind() == found.attr.kind()) else { return Ok(()) };
        let marks = Marks::of_upper(at, self.dialect).during("read the marks in the index")?;
        let nlink = link_count(marks.nlink.as_deref(), upper.nlink, Some(found.attr.nlink));
        found.state.upper = Some(upper.ino);
        found.state.flags.setid = upper.is_setid();
        found.state.flags.kept_capability = marks.capability && self.upper_key().is_some();
        found.state.flags.immutable |= marks.immutable;
        found.state.flags.append_only |= marks.append_only;
        found.state.flags.has_origin = true;
        let (dir, name) = (Arc::clone(dir), name.clone());
        let extra = found.state.extra_mut();
        extra.index = Some(index);
        extra.nlink = Some(nlink);
        extra.redirect = marks.redirect;
        match marks.metacopy {
            Metacopy::No => extra.data = None,
            Metacopy::Yes if self.config.metacopy => {
                extra.data.get_or_insert(DataAt::Lower(dir, name, found.attr.blocks));
            }
            Metacopy::Yes => return Err(Error::new(Errno::PERM, "find the data of a metacopy")),
            Metacopy::Invalid => return Err(Error::new(Errno::IO, "read the metacopy mark")),
        }
        found.attr = upper;
        Ok(())
    }

    /// The origin of the file `name` in the lower directory `dir`.
    ///
    /// # Errors
    /// Those of name_to_handle_at(2).
    pub(crate) fn origin_of(&self, dir: &Arc<LowerDir>, name: &Name, attr: &Attr) -> Result<Origin> {
        let layer = self.stack.lower(dir.layer).ok_or(Error::new(Errno::IO, "find layer"))?;
        let fd = self.lower_dir(dir)?;
        Origin::of(layer, At::new(&fd, name.as_bytes()), attr).during("make a file handle")
    }
}

/// The copy of a lower hard link goes to the name by which it was asked for last: mostly that is the one to be used.
fn prefer(inode: &Inode, parent: &Inode, name: &Name) {
    let is_other = {
        let state = inode.state.read();
        state.upper.is_none() && matches!(state.links, Links::Many(_))
    };
    if is_other {
        inode.state.write().links.prefer(parent, name.as_bytes());
    }
}

fn parse_redirect(marks: &Marks) -> Result<Option<Redirect>> {
    marks.redirect.as_deref().map(Redirect::parse).transpose().during("read a redirect")
}

/// Whether a file `.wh.NAME` of the upper hides `name` in the layers below.
fn is_dot_hidden(dir: &impl AsFd, name: &Name) -> Result<bool> {
    let whiteout = [DOT_WHITEOUT, name.as_bytes()].concat();
    Ok(At::new(dir, &whiteout).find().during("look up")?.is_some())
}

/// An inode that the kernel may not know, held by a lookup of our own.
#[derive(Debug)]
pub(crate) struct Held<'o> {
    overlay: &'o Overlay,
    inode: Arc<Inode>,
}

impl std::ops::Deref for Held<'_> {
    type Target = Arc<Inode>;

    fn deref(&self) -> &Arc<Inode> {
        &self.inode
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.overlay.forget(self.inode.ino, 1);
    }
}
