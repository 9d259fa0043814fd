//! What the lower layers hold under a name: probes one after the other, and follows redirects.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crate::at::At;
use crate::attr::{Attr, Kind};
use crate::cache::NameSet;
use crate::config::RedirectDir;
use crate::error::{Context, Errno, Error, Result};
use crate::inode::DataAt;
use crate::layer::marks::{DOT_OPAQUE, DOT_WHITEOUT, Mark, Marks, Metacopy, Opaque, Redirect, is_xattr_whiteout};
use crate::layer::{Layer, LayerId, LowerDir};
use crate::merge::{Above, Probe, Step, step};
use crate::name::Name;
use crate::overlay::Overlay;
use crate::scan::{open_listing, scan};
use crate::sys::fileattr;

/// So many names are looked for one by one in a lower directory before its names are learned.
const WORTH_LISTING: u32 = 4;
/// And so many names it may hold for each that was not there, but no more than the most, so that nobody waits for long.
const NAMES_PER_MISSING: u32 = 64;
const MOST_NAMES: usize = 1 << 14;

/// What the lower layers hold under a name.
#[derive(Debug)]
pub(super) enum LowerFound {
    /// Nothing, or a whiteout.
    None,
    /// A file.
    File(LowerFile),
    /// Directories, topmost first, and the attributes of the first.
    Dirs(Vec<Arc<LowerDir>>, Attr),
}

/// A file of a lower layer.
#[derive(Debug)]
pub(super) struct LowerFile {
    /// The directory that holds it.
    pub dir: Arc<LowerDir>,
    /// Its name there.
    pub name: Name,
    /// Its attributes.
    pub attr: Attr,
    /// Where its data is, for a metacopy.
    pub data: Option<DataAt>,
}

impl LowerFile {
    /// Where the data is that is read through it.
    pub(super) fn into_data(self) -> DataAt {
        self.data.unwrap_or(DataAt::Lower(self.dir, self.name, self.attr.blocks))
    }
}

/// What one lower layer holds under a name.
pub(crate) struct LowerProbe {
    pub(crate) probe: Probe,
    /// There when `probe` is a file or a directory.
    attr: Option<Attr>,
    pub(crate) redirect: Option<Box<[u8]>>,
    pub(crate) xattr_whiteouts: bool,
}

impl Overlay {
    /// Probes the lower layers for `name` in the directories `dirs`, or where `redirect` of a layer above points.
    ///
    /// `above` says what the upper has under the name.
    ///
    /// # Errors
    /// Those of the layers; `EPERM` for a redirect or metacopy that is not to be followed, `EIO` for a metacopy without
    /// its data.
    pub(super) fn probe_lowers(
        &self,
        dirs: &[Arc<LowerDir>],
        name: &Name,
        redirect: Option<Redirect>,
        above: Above,
    ) -> Result<LowerFound> {
        self.probe_lowers_telling(dirs, name, redirect, above, |_, _, _, _| {})
    }

    /// As [`Overlay::probe_lowers`], and tells of each place where it looked, what is there, and what followed from it.
    ///
    /// # Errors
    /// As [`Overlay::probe_lowers`].
    pub(super) fn probe_lowers_telling(
        &self,
        dirs: &[Arc<LowerDir>],
        name: &Name,
        redirect: Option<Redirect>,
        mut above: Above,
        mut tell: impl FnMut(&Arc<LowerDir>, &Name, &LowerProbe, Step),
    ) -> Result<LowerFound> {
        let mut taken: Vec<Arc<LowerDir>> = Vec::new();
        let mut top: Option<Attr> = None;
        let mut file: Option<LowerFile> = None;
        let mut search = Search::new(dirs, name.clone());
        search.follow(redirect);
        while let Some((base, name)) = self.next_place(&mut search)? {
            let found = self.probe_lower(&base, &name)?;
            let step = step(above, found.probe);
            tell(&base, &name, &found, step);
            let attr = match (step, found.attr) {
                (Step::Skip, _) => continue,
                (Step::TakeAndGoOn | Step::TakeAndStop, Some(attr)) => attr,
                _ => break,
            };
            let is_metacopy = found.probe == Probe::Metacopy;
            let refers_to_data = is_metacopy && above != Above::Metacopy && self.is_above_data_layers(&base);
            if (is_metacopy || above == Above::Metacopy) && !self.config.metacopy && !refers_to_data {
                return Err(refused(&name, "its data is in another layer, and metacopy=on is not given"));
            }
            // As the kernel's overlayfs, which does not read the redirects of the last layer then.
            let goes_on = step == Step::TakeAndGoOn;
            let follows = self.follows_redirects() || refers_to_data;
            let redirect = found.redirect.filter(|_| goes_on && (follows || !search.is_at_end()));
            if (redirect.is_some() || search.is_redirected) && !follows {
                return Err(refused(&name, "it is redirected, and redirect_dir=nofollow is given"));
            }
            if attr.kind() == Kind::Dir {
                top.get_or_insert(attr);
                above = Above::Dir;
                taken.push(LowerDir::child(&base, name, found.xattr_whiteouts));
            } else if is_metacopy {
                above = Above::Metacopy;
                file.get_or_insert(LowerFile { dir: base, name, attr, data: None });
            } else if above == Above::Metacopy && attr.kind() != Kind::File {
                return Err(lacks_data(&name));
            } else {
                let data = LowerFile { dir: base, name, attr, data: None };
                return Ok(LowerFound::File(match file {
                    Some(top) => LowerFile { data: Some(data.into_data()), ..top },
                    None => data,
                }));
            }
            if !goes_on {
                break;
            }
            search.follow(redirect.map(|mark| Redirect::parse(&mark)).transpose().during("read a redirect")?);
        }
        match (top, file) {
            (Some(attr), _) => Ok(LowerFound::Dirs(taken, attr)),
            (None, None) => Ok(LowerFound::None),
            (None, Some(file)) => match search.path {
                Some((mut path, last)) if self.has_data_layers() => {
                    path.push(last);
                    Ok(LowerFound::File(LowerFile { data: Some(DataAt::DataOnly(path.into())), ..file }))
                }
                _ if !self.config.metacopy => Err(refused(name, "no layer for data only is named as having its data")),
                _ => Err(lacks_data(name)),
            },
        }
    }

    /// Whether `dir` is in the last layer above those for data only, which exist for being referred to from there: that
    /// takes no option.
    fn is_above_data_layers(&self, dir: &LowerDir) -> bool {
        self.has_data_layers() && usize::from(dir.layer).saturating_add(1) >= self.lower_roots.len()
    }

    fn follows_redirects(&self) -> bool {
        self.config.redirect_dir != RedirectDir::NoFollow
    }

    /// The next directory to look into, and the name to look for there.
    fn next_place(&self, search: &mut Search<'_>) -> Result<Option<(Arc<LowerDir>, Name)>> {
        loop {
            if search.path.is_none() {
                let Some(dir) = search.dirs.next() else { return Ok(None) };
                search.next_layer = dir.layer.saturating_add(1);
                return Ok(Some((Arc::clone(dir), search.name.clone())));
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
            let found = self.probe_lower(&parent, &name)?;
            match found.probe {
                Probe::Absent => {}
                Probe::Whiteout | Probe::File | Probe::Metacopy => search.stopped = true,
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

    /// Whether the file `at` is a metacopy.
    fn is_metacopy(&self, at: At<'_>) -> Result<bool> {
        let mark = match at.xattr(&self.dialect.name(Mark::Metacopy)) {
            // Who may not read a file does not see its `user.` attributes.
            Err(Errno::ACCESS) => None,
            mark => mark.during("read marks")?,
        };
        match mark.map_or(Metacopy::No, |mark| Metacopy::parse(&mark)) {
            Metacopy::No => Ok(false),
            Metacopy::Yes => Ok(true),
            Metacopy::Invalid => Err(Error::new(Errno::IO, "read the metacopy mark")),
        }
    }

    /// What one lower layer holds.
    ///
    /// # Errors
    /// Those of the layer.
    pub(crate) fn probe_lower(&self, dir: &Arc<LowerDir>, name: &Name) -> Result<LowerProbe> {
        let plain = |probe| LowerProbe { probe, attr: None, redirect: None, xattr_whiteouts: false };
        if name.as_bytes().starts_with(DOT_WHITEOUT) {
            return Ok(plain(Probe::Absent));
        }
        let known = self.caches.below.get(dir.id);
        let may_hold = |name: &[u8]| known.as_ref().is_none_or(|names| names.may_hold(name));
        let dot_name = [DOT_WHITEOUT, name.as_bytes()].concat();
        let may_be_dot_hidden = dir.may_hold_dot_whiteouts() && may_hold(&dot_name);
        if !may_be_dot_hidden && !may_hold(name.as_bytes()) {
            return Ok(plain(Probe::Absent));
        }
        let fd = self.lower_dir(dir)?;
        let at = At::new(&fd, name.as_bytes()).keeping(self.key_of(dir));
        let dot_hidden = || {
            let hidden = may_be_dot_hidden && At::new(&fd, &dot_name).find().during("look up")?.is_some();
            Ok::<_, Error>(hidden)
        };
        let Some(attr) = at.find().during("look up")? else {
            if dot_hidden()? {
                return Ok(plain(Probe::Whiteout));
            }
            if known.is_none() {
                self.note_missing(dir, &fd);
            }
            return Ok(plain(Probe::Absent));
        };
        if attr.is_whiteout() {
            return Ok(plain(Probe::Whiteout));
        }
        if attr.kind() != Kind::Dir {
            let marked = dir.xattr_whiteouts && attr.kind() == Kind::File && attr.size == 0;
            if marked && is_xattr_whiteout(at).during("read marks")? {
                return Ok(LowerProbe { attr: Some(attr), ..plain(Probe::Whiteout) });
            }
            if attr.kind() == Kind::File && self.is_metacopy(at)? {
                let redirect = at.xattr(&self.dialect.name(Mark::Redirect)).during("read marks")?;
                let redirect = redirect.map(Vec::into_boxed_slice);
                return Ok(LowerProbe { attr: Some(attr), redirect, ..plain(Probe::Metacopy) });
            }
            return Ok(LowerProbe { attr: Some(attr), ..plain(Probe::File) });
        }
        let marks = Marks::of_lower(at, self.dialect).during("read marks")?;
        // A redirect says where to look below, whatever the whiteout of the directory's new name hides there.
        let opaque = marks.opaque == Opaque::Yes || (marks.redirect.is_none() && dot_hidden()?) || {
            let path = [name.as_bytes(), b"/", DOT_OPAQUE].concat();
            // The one path of two components: a name that was just seen to be a directory, and a fixed one.
            match At::new(&fd, &path).find() {
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

    /// Whether a listing of `dir` tells every name that is found there, which is not so where cases are folded.
    fn lists_what_it_finds(&self, dir: &LowerDir, fd: &OwnedFd) -> bool {
        const FOLDS_CASES: u32 = 0x4000_0000;
        let is_known = self.stack.lower(dir.layer).is_some_and(Layer::lists_what_it_finds);
        let flags = || open_listing(fd.as_fd()).ok().and_then(|fd| fileattr::get_flags(fd.as_fd()).ok());
        is_known && flags().unwrap_or_default() & FOLDS_CASES == 0
    }

    /// Learns the names in `dir` once so many were missing there that it is worth it: the longer it is, the more.
    fn note_missing(&self, dir: &LowerDir, fd: &OwnedFd) {
        let missing = dir.note_missing();
        if missing < WORTH_LISTING || !missing.is_power_of_two() || !self.lists_what_it_finds(dir, fd) {
            return;
        }
        let most = usize::try_from(missing.saturating_mul(NAMES_PER_MISSING)).map_or(MOST_NAMES, |n| n.min(MOST_NAMES));
        let mut hashes = Vec::new();
        let mut has_dot_names = false;
        let listed = scan(fd.as_fd(), |raw| {
            if hashes.len() >= most {
                return Err(Error::new(Errno::TOOBIG, "learn the names in a directory"));
            }
            has_dot_names |= raw.name.starts_with(DOT_WHITEOUT);
            hashes.push(NameSet::hash(raw.name));
            Ok(())
        });
        match listed {
            Ok(()) => {
                dir.set_dot_whiteouts(has_dot_names);
                self.caches.below.put(dir.id, Arc::new(NameSet::new(hashes)));
            }
            // Each name is looked for as before.
            Err(error) => log::debug!("{error}"),
        }
    }
}

/// What is not to be followed.
fn refused(name: &Name, reason: &'static str) -> Error {
    Error::new(Errno::PERM, "look up").on(name.as_bytes().escape_ascii().to_string()).because(reason)
}

/// A metacopy of which nothing below has the data.
pub(super) fn lacks_data(name: &Name) -> Error {
    Error::new(Errno::IO, "look up")
        .on(name.as_bytes().escape_ascii().to_string())
        .because("no layer has the data of this metacopy")
}

/// Where the lower layers are to be searched.
struct Search<'d> {
    dirs: std::slice::Iter<'d, Arc<LowerDir>>,
    next_layer: LayerId,
    name: Name,
    /// The directories and the last name of an absolute redirect.
    path: Option<(Vec<Name>, Name)>,
    /// A redirect has been followed.
    is_redirected: bool,
    /// What was found on the path hides it from the layers below.
    stopped: bool,
}

impl<'d> Search<'d> {
    fn new(dirs: &'d [Arc<LowerDir>], name: Name) -> Self {
        Self { dirs: dirs.iter(), next_layer: 0, name, path: None, is_redirected: false, stopped: false }
    }

    /// No directory is left in which to look for the name.
    fn is_at_end(&self) -> bool {
        self.dirs.as_slice().is_empty()
    }

    fn follow(&mut self, redirect: Option<Redirect>) {
        self.is_redirected |= redirect.is_some();
        match redirect {
            None => {}
            Some(Redirect::Name(name)) => match &mut self.path {
                Some((_, last)) => *last = name,
                None => self.name = name,
            },
            Some(Redirect::Path(mut path)) => {
                if let Some(last) = path.pop() {
                    self.path = Some((path, last));
                }
            }
        }
    }
}
