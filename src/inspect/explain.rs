//! Why a path is what it is: what each layer says of it, which one wins, where the data is, and what a write would do.

mod layers;
mod write;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use crate::attr::Kind;
use crate::config::Config;
use crate::error::{Errno, Error, Result};
use crate::inode::numbers::ROOT;
use crate::inode::{DataAt, Inode, Lower};
use crate::layer::{LayerId, LowerDir};
use crate::merge::{Probe, Step};
use crate::name::{Name, shown};
use crate::overlay::Overlay;
use crate::resolve::{Found, Trace, UpperProbe};

use super::says::{Says, word};

/// What there is to be said of a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The path, from the root of the overlay.
    pub path: String,
    /// The path that decides: itself, or that of a parent which is missing or no directory.
    pub at: String,
    /// What the overlay shows there; none where it shows nothing.
    pub shows: Option<&'static str>,
    /// Why.
    pub why: String,
    /// Parents that are more than directories of the same name: hidden, opaque, redirected.
    pub way: Vec<String>,
    /// What each layer says, topmost first.
    pub layers: Vec<LayerView>,
    /// Where its data really is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
    /// What changes of it would do.
    pub write: Vec<String>,
}

/// What one layer says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LayerView {
    /// `upper`, `lower 1` for the topmost lower layer, and so on; `data 1` for one that has data only.
    pub layer: String,
    /// The path that was looked at.
    pub path: PathBuf,
    /// What is there.
    #[serde(flatten)]
    pub says: Says,
    /// What follows from it.
    pub verdict: String,
    /// What it holds under the whole path, where a parent decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beyond: Option<&'static str>,
}

/// Explains `path` in the overlay that `config` says. The layers are only read.
///
/// # Errors
/// Those of the layers; `EINVAL` for a path with `..`.
pub fn explain(config: &Config, path: &Path) -> Result<Explanation> {
    let overlay = Overlay::open(&Config { read_only: true, ..config.clone() })?;
    let mut walk = Walk::new(config, &overlay, names(path)?)?;
    while walk.goes_on()? {}
    walk.explanation()
}

/// The components of a path.
fn names(path: &Path) -> Result<Vec<Name>> {
    let parts = path.as_os_str().as_bytes().split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
    parts.map(Name::new).collect::<Result<_, _>>().map_err(|errno| {
        let reason = if errno == Errno::INVAL { "a path with .. is not explained" } else { "a name is too long" };
        Error::new(errno, "explain").on(path.display().to_string()).because(reason)
    })
}

/// The way from the root to the path, or to where it ends.
struct Walk<'a> {
    config: &'a Config,
    overlay: &'a Overlay,
    names: Vec<Name>,
    /// How many of them have been resolved.
    done: usize,
    /// The directories passed, from the root on, as long as nothing else was found.
    dirs: Vec<Arc<Inode>>,
    /// How the last name was resolved; none for the root.
    last: Option<(Trace, Result<Option<Found>>)>,
    /// For each lower layer, why it is not asked any more.
    out: Vec<Option<String>>,
    way: Vec<String>,
}

impl<'a> Walk<'a> {
    fn new(config: &'a Config, overlay: &'a Overlay, names: Vec<Name>) -> Result<Self> {
        Ok(Self {
            config,
            overlay,
            names,
            done: 0,
            dirs: vec![overlay.inode(ROOT)?],
            last: None,
            out: vec![None; overlay.lower_roots.len()],
            way: Vec::new(),
        })
    }

    /// Resolves the next name; whether there may be one after it.
    fn goes_on(&mut self) -> Result<bool> {
        let (Some(name), Some(parent)) = (self.names.get(self.done).cloned(), self.dirs.last().cloned()) else {
            return Ok(false);
        };
        let trace = self.overlay.trace(&parent, &name)?;
        let found = self.overlay.resolve(&parent, &name);
        self.done = self.done.saturating_add(1);
        let is_dir = matches!(&found, Ok(Some(found)) if found.attr.kind() == Kind::Dir);
        let goes_on = is_dir && self.done < self.names.len();
        if goes_on {
            self.note_way(&trace);
            self.note_out(&trace);
        }
        self.last = Some((trace, found));
        if is_dir && let Some((inode, _)) = self.overlay.look_up(&parent, &name)? {
            self.dirs.push(inode);
        }
        Ok(goes_on)
    }

    /// Tells of a parent that is not just a directory of the same name in all layers.
    fn note_way(&mut self, trace: &Trace) {
        let here = self.shown(self.done);
        if let Some(UpperProbe::Object { marks, opaque, .. }) = &trace.upper {
            if let Some(redirect) = &marks.redirect {
                self.way.push(format!("{here}: redirected by the upper to {}", redirect.escape_ascii()));
            }
            if *opaque {
                self.way.push(format!("{here}: opaque in the upper, so that no layer below is looked into"));
            }
        }
        for place in &trace.places {
            let layer = lower(place.dir.layer);
            if let Some(redirect) = &place.redirect {
                self.way.push(format!("{here}: redirected by {layer} to {}", redirect.escape_ascii()));
            }
            match (place.step, place.probe) {
                (Step::TakeAndStop, Probe::Dir { opaque: true }) => {
                    self.way.push(format!("{here}: opaque in {layer}, so that no layer below it is looked into"));
                }
                (Step::Stop, probe) => {
                    let what = if probe == Probe::Whiteout { "a whiteout" } else { "no directory" };
                    self.way.push(format!("{here}: {what} in {layer}, which ends the merge"));
                }
                _ => {}
            }
        }
    }

    /// Notes which layers are not asked below the directory that was just found.
    fn note_out(&mut self, trace: &Trace) {
        let here = self.shown(self.done);
        let mut ended = match &trace.upper {
            Some(UpperProbe::Object { opaque: true, .. }) => Some(format!("hidden: {here} is opaque in the upper")),
            _ => None,
        };
        for (id, out) in (0..LayerId::MAX).zip(&mut self.out) {
            let Some(place) = trace.places.iter().find(|place| place.dir.layer == id) else {
                if out.is_none() {
                    *out = Some(ended.clone().unwrap_or_else(|| format!("it has no {here}")));
                }
                continue;
            };
            let layer = lower(id);
            *out = match (place.step, place.probe) {
                (Step::Skip, _) => Some(format!("it has no {here}")),
                (Step::Stop, Probe::Whiteout) => Some(format!("{here} is a whiteout in it")),
                (Step::Stop, _) => Some(format!("{here} is no directory in it")),
                _ => None,
            };
            match (place.step, place.probe) {
                (Step::TakeAndStop, _) => ended = Some(format!("hidden: {here} is opaque in {layer}")),
                (Step::Stop, Probe::Whiteout) => ended = Some(format!("hidden: {here} is a whiteout in {layer}")),
                (Step::Stop, _) => ended = Some(format!("hidden: {here} is no directory in {layer}")),
                _ => {}
            }
        }
    }

    /// The path of the first `count` names.
    fn shown(&self, count: usize) -> String {
        if count == 0 {
            return "/".to_owned();
        }
        let names = self.names.iter().take(count);
        names.map(|name| format!("/{}", shown(name.as_bytes()))).collect()
    }

    /// The directory that holds the last name, and the name; none for the root.
    fn place(&self) -> Option<(&Arc<Inode>, &Name)> {
        let at = self.done.checked_sub(1)?;
        Some((self.dirs.get(at)?, self.names.get(at)?))
    }

    fn explanation(self) -> Result<Explanation> {
        let (shows, why) = self.verdict()?;
        let layers = self.layers()?;
        let data = self.data()?;
        let why = match &data {
            Some(data) if self.is_by_index(data) => {
                format!("{why}; another of its hard links was copied up: by the index, that copy is shown")
            }
            _ => why,
        };
        let write = self.write(data.as_deref())?;
        let (path, at) = (self.shown(self.names.len()), self.shown(self.done));
        Ok(Explanation { path, at, shows, why, way: self.way, layers, data, write })
    }

    /// What the overlay shows, and why.
    fn verdict(&self) -> Result<(Option<&'static str>, String)> {
        let here = self.shown(self.done);
        let Some((trace, found)) = &self.last else {
            return Ok((Some("directory"), "the roots of all layers are merged, whatever they say".to_owned()));
        };
        let is_whole = self.done == self.names.len();
        match found {
            Err(error) => Ok((None, format!("{here} cannot be shown: {error}"))),
            Ok(None) => Ok((None, absent(trace, &here))),
            Ok(Some(found)) if !is_whole => {
                let kind = found.attr.kind();
                let target = if kind == Kind::Symlink { self.target()? } else { None };
                let hint = target.map(|target| format!(" to {target}: ask for the path that this leads to"));
                Ok((None, format!("{here} is a {}{}", word(kind), hint.unwrap_or_default())))
            }
            Ok(Some(found)) => Ok((Some(word(found.attr.kind())), present(trace))),
        }
    }

    fn target(&self) -> Result<Option<String>> {
        let Some((parent, name)) = self.place() else { return Ok(None) };
        let Some((inode, _)) = self.overlay.look_up(parent, name)? else { return Ok(None) };
        Ok(Some(shown(&self.overlay.readlink(inode.ino)?)))
    }

    /// Where the data of what is shown really is.
    fn data(&self) -> Result<Option<PathBuf>> {
        let upper = || self.overlay.stack.upper.as_ref().map(|upper| join(&upper.path, &self.names));
        let Some((_, found)) = &self.last else { return Ok(upper().or_else(|| self.config.lowers.first().cloned())) };
        let Ok(Some(found)) = found else { return Ok(None) };
        if self.done < self.names.len() {
            return Ok(None);
        }
        match found.state.data() {
            Some(DataAt::Lower(dir, name, _)) => return Ok(self.lower_path(dir, name)),
            Some(DataAt::DataOnly(path)) => {
                for root in &self.overlay.data_roots {
                    if self.overlay.open_data_in(root, path)?.is_some() {
                        return Ok(self.overlay.stack.lower(root.layer).map(|layer| join(&layer.path, path)));
                    }
                }
                return Ok(None);
            }
            None => {}
        }
        // The copy of a lower hard link may have been made under another of its names.
        let is_named = found.state.links.as_slice().iter().any(|link| link.in_upper);
        if let (Some(index), Some(work), false) = (found.state.index(), &self.config.work, is_named) {
            return Ok(Some(work.join("index").join(OsStr::from_bytes(index))));
        }
        if found.state.upper.is_some() {
            return Ok(upper());
        }
        match &found.state.lower {
            Lower::File(dir, name) => Ok(self.lower_path(dir, name)),
            Lower::Dirs(dirs) => Ok(dirs.first().and_then(|dir| {
                let layer = self.overlay.stack.lower(dir.layer)?;
                Some(layer.path.join(dir.path()))
            })),
            Lower::None => Ok(None),
        }
    }

    fn lower_path(&self, dir: &LowerDir, name: &Name) -> Option<PathBuf> {
        let layer = self.overlay.stack.lower(dir.layer)?;
        Some(join(&layer.path.join(dir.path()), std::slice::from_ref(name)))
    }

    fn is_by_index(&self, data: &Path) -> bool {
        self.config.work.as_ref().is_some_and(|work| data.starts_with(work.join("index")))
    }

    fn is_writable(&self) -> bool {
        self.config.upper.is_some() && self.config.work.is_some() && !self.config.read_only
    }
}

/// Why nothing is shown.
fn absent(trace: &Trace, here: &str) -> String {
    if matches!(trace.upper, Some(UpperProbe::Whiteout)) {
        return format!("{here} is hidden by a whiteout in the upper");
    }
    match trace.places.iter().find(|place| place.probe == Probe::Whiteout) {
        Some(place) => format!("{here} is hidden by a whiteout in {}", lower(place.dir.layer)),
        None => format!("no layer that is looked into has {here}"),
    }
}

/// Why that is shown which is shown.
fn present(trace: &Trace) -> String {
    let taken = trace.places.iter().filter(|place| matches!(place.step, Step::TakeAndGoOn | Step::TakeAndStop));
    let lowers: Vec<String> = taken.map(|place| lower(place.dir.layer)).collect();
    match &trace.upper {
        Some(UpperProbe::Object { attr, marks, opaque }) => match (attr.kind(), lowers.as_slice()) {
            (Kind::Dir, []) if *opaque => "the upper has it, and hides what lies below".to_owned(),
            (Kind::Dir, []) => "the upper has it, and no other layer".to_owned(),
            (Kind::Dir, lowers) => format!("the upper has it, merged with {}", lowers.join(", ")),
            (_, [.., data]) if !matches!(marks.metacopy, crate::layer::marks::Metacopy::No) => {
                format!("the upper has its attributes, {data} its data")
            }
            _ => "the upper has it, which is above all other layers".to_owned(),
        },
        _ => match lowers.as_slice() {
            [] => "it is shown".to_owned(),
            [one] => format!("{one} is the topmost layer that has it"),
            [top, rest @ ..] => match trace.places.iter().find(|place| lower(place.dir.layer) == *top) {
                Some(place) if place.probe == Probe::Metacopy => {
                    format!("{top} is the topmost layer that has it, and its data is that of {}", rest.join(", "))
                }
                _ => format!("{top} is the topmost layer that has it, merged with {}", rest.join(", ")),
            },
        },
    }
}

/// What a lower layer is called.
fn lower(id: LayerId) -> String {
    format!("lower {}", usize::from(id).saturating_add(1))
}

fn join(path: &Path, names: &[Name]) -> PathBuf {
    names.iter().fold(path.to_owned(), |path, name| path.join(OsStr::from_bytes(name.as_bytes())))
}
