//! From a name to an inode: probes the layers, applies the merge rule, and finds the number by which it is known.

use std::os::fd::AsFd;
use std::sync::Arc;

use crate::at::At;
use crate::attr::{Attr, Kind};
use crate::cache::Known;
use crate::error::{Context, Errno, Error, Result};
use crate::inode::{Extra, Flags, Inode, Link, Links, Lower, State};
use crate::layer::marks::{DOT_OPAQUE, DOT_WHITEOUT, Mark, Marks, Opaque, Redirect, is_xattr_whiteout};
use crate::layer::origin::Origin;
use crate::layer::work::WhiteoutStyle;
use crate::layer::{LayerId, LowerDir};
use crate::merge::{Probe, Step, step};
use crate::name::Name;
use crate::overlay::Overlay;

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

/// What the lower layers hold under a name.
#[derive(Debug)]
pub(crate) enum LowerFound {
    /// Nothing, or a whiteout.
    None,
    /// A file in one layer.
    File(Arc<LowerDir>, Name, Attr),
    /// Directories, topmost first, and the attributes of the first.
    Dirs(Vec<Arc<LowerDir>>, Attr),
}

/// What one lower layer holds under a name.
struct LowerProbe {
    probe: Probe,
    /// There when `probe` is a file or a directory.
    attr: Option<Attr>,
    redirect: Option<Box<[u8]>>,
    xattr_whiteouts: bool,
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
                    && let Some(attr) = self.caches.attrs.get(&ino)
                {
                    return Ok(Some((self.table.look_up(inode), attr)));
                }
            }
            None => {}
        }
        let Some(found) = self.resolve(parent, name)? else {
            self.caches.names.put(parent.ino, name, Known::Missing);
            return Ok(None);
        };
        let (inode, attr) = self.intern(parent, name, found);
        self.caches.names.put(parent.ino, name, Known::Inode(inode.ino));
        self.caches.attrs.put(inode.ino, attr);
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

    /// Takes back `count` lookups of `ino`.
    pub fn forget(&self, ino: u64, count: u64) {
        if let Some(inode) = self.table.forget(ino, count) {
            self.let_go(&inode);
        }
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
            self.found_below(self.probe_lowers(lowers, Some(name.clone()), None, false)?)
        }
    }

    /// Whether the layers below the upper show something under `name` in `parent`.
    ///
    /// # Errors
    /// Those of the layers.
    pub(crate) fn lower_shows(&self, parent: &Arc<Inode>, name: &Name) -> Result<bool> {
        let lower = parent.state.read().lower.clone();
        let Lower::Dirs(lowers) = lower else { return Ok(false) };
        Ok(!matches!(self.probe_lowers(&lowers, Some(name.clone()), None, false)?, LowerFound::None))
    }

    fn resolve_upper(&self, parent: &Arc<Inode>, name: &Name, lowers: &[Arc<LowerDir>]) -> Result<Option<Found>> {
        let dir = self.upper_dir(parent)?;
        let at = At::new(&dir, name.as_bytes());
        let below = |redirect| self.probe_lowers(lowers, Some(name.clone()), redirect, true);
        let dot_style = self.upper_style() == Some(WhiteoutStyle::DotFile);
        if dot_style && name.as_bytes().starts_with(DOT_WHITEOUT) {
            return Ok(None);
        }
        let Some(attr) = at.find().during("look up")? else {
            if dot_style && is_dot_hidden(&dir, name)? {
                return Ok(None);
            }
            return self.found_below(self.probe_lowers(lowers, Some(name.clone()), None, false)?);
        };
        if attr.is_whiteout() {
            return Ok(None);
        }
        let marks = Marks::of_upper(at, self.dialect).during("read the marks in the upper")?;
        if marks.whiteout && attr.kind() == Kind::File && attr.size == 0 {
            let parent = Marks::of_upper(At::fd(&dir), self.dialect).during("read the marks in the upper")?;
            if parent.opaque == Opaque::XattrWhiteouts {
                return Ok(None);
            }
        }
        if marks.metacopy {
            return Err(is_metacopy(name.as_bytes()));
        }
        let mut state = State {
            upper: Some(attr.ino),
            flags: Flags {
                impure: marks.impure,
                immutable: marks.immutable || attr.immutable,
                append_only: marks.append_only || attr.append_only,
                setid: attr.is_setid(),
                has_origin: marks.origin.is_some(),
            },
            // Says that the name itself is in the upper.
            links: Links::One(Link { parent: Arc::clone(parent), name: name.clone(), in_upper: true }),
            ..State::default()
        };
        let origin = marks.origin.as_deref().and_then(Origin::decode);
        let source = origin.as_ref().and_then(|origin| origin.find(&self.stack.lowers));
        if attr.kind() == Kind::Dir {
            // A redirect says where to look, whatever the whiteout of its new name hides.
            let hidden = dot_style && marks.redirect.is_none() && is_dot_hidden(&dir, name)?;
            if marks.opaque != Opaque::Yes && !hidden {
                let redirect = marks.redirect.as_deref().filter(|_| self.follows_redirects());
                let redirect = redirect.map(Redirect::parse).transpose().during("read a redirect")?;
                if let LowerFound::Dirs(dirs, _) = below(redirect)? {
                    state.lower = Lower::Dirs(dirs.into());
                }
            }
            if let Some(redirect) = marks.redirect {
                state.extra_mut().redirect = Some(redirect);
            }
        } else if attr.nlink > 1
            && let (Some(origin), Some(work)) = (&origin, &self.work)
        {
            let index = origin.index_name();
            if At::new(&work.index(), &index).find().during("look up in the index")?.map(|a| a.ino) == Some(attr.ino) {
                let lower_nlink = source.and_then(|source| source.nlink);
                let nlink = link_count(marks.nlink.as_deref(), attr.nlink, lower_nlink);
                state.extra = Some(Box::new(Extra { index: Some(index), nlink: Some(nlink), ..Extra::default() }));
            }
        }
        let ino = match source {
            Some(source) => self.numbers.compose(source.dev, source.ino),
            None => self.upper_number(attr.dev, attr.ino),
        };
        Ok(Some(Found { attr, ino, state }))
    }

    fn follows_redirects(&self) -> bool {
        self.config.redirect_dir != crate::config::RedirectDir::NoFollow
    }

    /// What is found where the upper has nothing under the name.
    fn found_below(&self, found: LowerFound) -> Result<Option<Found>> {
        let (attr, lower) = match found {
            LowerFound::None => return Ok(None),
            LowerFound::File(dir, name, attr) => (attr, Lower::File(dir, name)),
            LowerFound::Dirs(dirs, attr) => (attr, Lower::Dirs(dirs.into())),
        };
        let ino = self.numbers.number(&attr);
        let flags = Flags {
            immutable: attr.immutable,
            append_only: attr.append_only,
            setid: attr.is_setid(),
            ..Flags::default()
        };
        let mut found = Found { attr, ino, state: State { lower, flags, ..State::default() } };
        if attr.nlink > 1 && attr.kind() != Kind::Dir {
            self.find_index(&mut found)?;
        }
        Ok(Some(found))
    }

    /// A lower hard link may have been copied up under another of its names.
    fn find_index(&self, found: &mut Found) -> Result<()> {
        let (Some(work), Lower::File(dir, name)) = (&self.work, &found.state.lower) else { return Ok(()) };
        let index = self.origin_of(dir, name, &found.attr)?.index_name();
        let index_dir = work.index();
        let at = At::new(&index_dir, &index);
        let entry = at.find().during("look up in the index")?;
        let Some(upper) = entry.filter(|upper| upper.kind() == found.attr.kind()) else { return Ok(()) };
        let marks = Marks::of_upper(at, self.dialect).during("read the marks in the index")?;
        let nlink = link_count(marks.nlink.as_deref(), upper.nlink, Some(found.attr.nlink));
        found.state.upper = Some(upper.ino);
        found.state.flags.setid = upper.is_setid();
        found.state.flags.immutable |= marks.immutable;
        found.state.flags.append_only |= marks.append_only;
        found.state.flags.has_origin = true;
        found.state.extra = Some(Box::new(Extra { index: Some(index), nlink: Some(nlink), ..Extra::default() }));
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

    /// Probes the lower layers for `name` in the directories `dirs`, or where `redirect` of a layer above points.
    ///
    /// `in_dir` says that the upper has a directory under the name, so that only directories count.
    fn probe_lowers(
        &self,
        dirs: &[Arc<LowerDir>],
        name: Option<Name>,
        redirect: Option<Redirect>,
        mut in_dir: bool,
    ) -> Result<LowerFound> {
        let mut taken: Vec<Arc<LowerDir>> = Vec::new();
        let mut top: Option<Attr> = None;
        let mut search = Search { dirs: dirs.iter(), next_layer: 0, name, path: None, stopped: false };
        search.follow(redirect);
        while let Some((base, name)) = self.next_place(&mut search)? {
            let fd = self.lower_dir(&base)?;
            let found = self.probe_lower(&base, At::new(&fd, name.as_bytes()))?;
            let step = step(in_dir, found.probe);
            match (step, found.attr) {
                (Step::Skip, _) => {}
                (Step::TakeAndGoOn | Step::TakeAndStop, Some(attr)) => {
                    if attr.kind() != Kind::Dir {
                        return Ok(LowerFound::File(base, name, attr));
                    }
                    top.get_or_insert(attr);
                    in_dir = true;
                    taken.push(LowerDir::child(&base, name, found.xattr_whiteouts));
                    if step == Step::TakeAndStop {
                        break;
                    }
                    if let Some(redirect) = found.redirect.filter(|_| self.follows_redirects()) {
                        search.follow(Some(Redirect::parse(&redirect).during("read a redirect")?));
                    }
                }
                _ => break,
            }
        }
        Ok(match top {
            Some(attr) => LowerFound::Dirs(taken, attr),
            None => LowerFound::None,
        })
    }

    /// The next directory to look into, and the name to look for there.
    fn next_place(&self, search: &mut Search<'_>) -> Result<Option<(Arc<LowerDir>, Name)>> {
        loop {
            if search.path.is_none() {
                let Some(dir) = search.dirs.next() else { return Ok(None) };
                search.next_layer = dir.layer.saturating_add(1);
                let Some(name) = search.name.clone() else { return Ok(None) };
                return Ok(Some((Arc::clone(dir), name)));
            }
            let root = self.lower_roots.get(usize::from(search.next_layer));
            let Some(root) = root.filter(|_| !search.stopped) else { return Ok(None) };
            search.next_layer = search.next_layer.saturating_add(1);
            let dir = self.descend(root, search)?;
            if let (Some(dir), Some((_, last))) = (dir, &search.path) {
                return Ok(Some((dir, last.clone())));
            }
        }
    }

    /// The directory at the search's path in one layer. What hides the path from the layers below, or says that they
    /// know it as another, is noted in `search`.
    fn descend(&self, root: &Arc<LowerDir>, search: &mut Search<'_>) -> Result<Option<Arc<LowerDir>>> {
        let Some((path, _)) = &mut search.path else { return Ok(None) };
        let mut dir = Some(Arc::clone(root));
        let mut below = Vec::with_capacity(path.len());
        for name in path.drain(..) {
            let Some(parent) = dir.take() else {
                below.push(name);
                continue;
            };
            let fd = self.lower_dir(&parent)?;
            let found = self.probe_lower(&parent, At::new(&fd, name.as_bytes()))?;
            match found.probe {
                Probe::Absent => {}
                Probe::Whiteout | Probe::File => search.stopped = true,
                Probe::Dir { opaque } => {
                    search.stopped |= opaque;
                    dir = Some(LowerDir::child(&parent, name.clone(), found.xattr_whiteouts));
                }
            }
            match found.redirect.filter(|_| self.follows_redirects()) {
                None => below.push(name),
                Some(redirect) => match Redirect::parse(&redirect).during("read a redirect")? {
                    Redirect::Name(name) => below.push(name),
                    Redirect::Path(path) => below = path,
                },
            }
        }
        *path = below;
        Ok(dir)
    }

    /// What one lower layer holds.
    fn probe_lower(&self, dir: &LowerDir, at: At<'_>) -> Result<LowerProbe> {
        let plain = |probe| LowerProbe { probe, attr: None, redirect: None, xattr_whiteouts: false };
        if at.name().starts_with(DOT_WHITEOUT) {
            return Ok(plain(Probe::Absent));
        }
        let dot_hidden = || {
            let hidden = dir.may_hold_dot_whiteouts()
                && At::new(&at.dir(), &[DOT_WHITEOUT, at.name()].concat()).find().during("look up")?.is_some();
            Ok::<_, Error>(hidden)
        };
        let Some(attr) = at.find().during("look up")? else {
            return Ok(plain(if dot_hidden()? { Probe::Whiteout } else { Probe::Absent }));
        };
        if attr.is_whiteout() {
            return Ok(plain(Probe::Whiteout));
        }
        if attr.kind() != Kind::Dir {
            // Less on the disk than it shows: its data may be elsewhere. Only then is it worth the call to find out.
            let is_sparse = attr.kind() == Kind::File && attr.blocks.saturating_mul(512) < attr.size;
            if is_sparse && at.xattr(&self.dialect.name(Mark::Metacopy)).during("read marks")?.is_some() {
                return Err(is_metacopy(at.name()));
            }
            let marked = dir.xattr_whiteouts && attr.kind() == Kind::File && attr.size == 0;
            let probe =
                if marked && is_xattr_whiteout(at).during("read marks")? { Probe::Whiteout } else { Probe::File };
            return Ok(LowerProbe { attr: Some(attr), ..plain(probe) });
        }
        let marks = Marks::of_lower(at, self.dialect).during("read marks")?;
        // A redirect says where to look below, whatever the whiteout of the directory's new name hides there.
        let opaque = marks.opaque == Opaque::Yes || (marks.redirect.is_none() && dot_hidden()?) || {
            let path = [at.name(), b"/", DOT_OPAQUE].concat();
            // The one path of two components: a name that was just seen to be a directory, and a fixed one.
            match At::new(&at.dir(), &path).find() {
                // Nobody sees what lies in it or below.
                Err(Errno::ACCESS) => false,
                found => found.during("look up")?.is_some(),
            }
        };
        Ok(LowerProbe {
            probe: Probe::Dir { opaque },
            attr: Some(attr),
            redirect: marks.redirect,
            xattr_whiteouts: marks.opaque == Opaque::XattrWhiteouts,
        })
    }
}

/// A file whose data is elsewhere.
fn is_metacopy(name: &[u8]) -> Error {
    Error::new(Errno::IO, "look up")
        .on(name.escape_ascii().to_string())
        .because("only its attributes were copied up, which is not supported yet")
}

/// Whether a file `.wh.NAME` of the upper hides `name` in the layers below.
fn is_dot_hidden(dir: &impl AsFd, name: &Name) -> Result<bool> {
    let whiteout = [DOT_WHITEOUT, name.as_bytes()].concat();
    Ok(At::new(dir, &whiteout).find().during("look up")?.is_some())
}

/// Where the lower layers are to be searched.
struct Search<'d> {
    dirs: std::slice::Iter<'d, Arc<LowerDir>>,
    next_layer: LayerId,
    name: Option<Name>,
    /// The directories and the last name of an absolute redirect.
    path: Option<(Vec<Name>, Name)>,
    /// What was found on the path hides it from the layers below.
    stopped: bool,
}

impl Search<'_> {
    fn follow(&mut self, redirect: Option<Redirect>) {
        match redirect {
            None => {}
            Some(Redirect::Name(name)) => match &mut self.path {
                Some((_, last)) => *last = name,
                None => self.name = Some(name),
            },
            Some(Redirect::Path(mut path)) => {
                if let Some(last) = path.pop() {
                    self.path = Some((path, last));
                }
            }
        }
    }
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

/// The overlay's link count, from a mark like `U+1` (relative to the upper's count) or `L-1` (to the lower's).
fn link_count(mark: Option<&[u8]>, upper: u32, lower: Option<u32>) -> u32 {
    // The index itself is one of the upper's links.
    let fallback = upper.saturating_sub(1).max(1);
    let parsed = mark.and_then(|mark| {
        let (base, difference) = mark.split_first()?;
        let base = match base {
            b'U' => upper,
            b'L' => lower?,
            _ => return None,
        };
        base.checked_add_signed(std::str::from_utf8(difference).ok()?.parse().ok()?)
    });
    parsed.unwrap_or(fallback)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_counts_are_relative_to_a_layer() {
        for (mark, upper, lower, expected) in [
            (Some("U+0"), 3, None, 3),
            (Some("U-1"), 3, None, 2),
            (Some("U+2"), 1, Some(9), 3),
            (Some("L+0"), 1, Some(4), 4),
            (Some("L-1"), 1, Some(4), 3),
            (Some("L+0"), 3, None, 2),
            (Some("U-9"), 3, None, 2),
            (Some("X+1"), 3, None, 2),
            (Some(""), 2, None, 1),
            (None, 1, None, 1),
        ] {
            assert_eq!(link_count(mark.map(str::as_bytes), upper, lower), expected, "{mark:?}");
        }
    }
}
