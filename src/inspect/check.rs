//! Whether an upper that is not mounted is consistent, and what of it can be mended without losing anything.

mod index;
mod marks;
mod repair;
#[cfg(test)]
mod tests;

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Dir, Mode, OFlags, open};
use serde::Serialize;

use crate::at::At;
use crate::attr::{Attr, Kind};
use crate::config::Config;
use crate::error::{Errno, Error, Result};
use crate::image::unpack::beneath;
use crate::inode::Inode;
use crate::inode::numbers::ROOT;
use crate::layer::marks::{Dialect, Mark, Marks, Metacopy, Opaque};
use crate::layer::origin::Origin;
use crate::layer::work::lock;
use crate::mounts;
use crate::name::{Name, shown};
use crate::overlay::Overlay;
use crate::sys::creds::is_privileged;

use self::repair::Fix;

/// What is wrong, or to be known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Below the upper, or below the work directory.
    pub path: String,
    /// What it is, in one word or two.
    pub kind: &'static str,
    /// The same in a sentence.
    pub what: String,
    /// It is none that has to be mended.
    pub is_info: bool,
    /// How it is mended; none where that could lose something.
    pub repair: Option<String>,
    /// It was mended.
    pub repaired: bool,
}

impl Finding {
    /// Whether it is a problem that is left.
    pub fn is_left(&self) -> bool {
        !self.is_info && !self.repaired
    }
}

/// Checks the upper of `config`, with what of its layers and its work directory is given, and mends it where `repair` says
/// so. Nothing may use it meanwhile, which it is locked against.
///
/// # Errors
/// `EBUSY` for an upper that is in use; those of the layers.
pub fn check(config: &Config, repair: bool) -> Result<Vec<Finding>> {
    let path = config.upper.as_deref().ok_or_else(|| Error::new(Errno::INVAL, "check").because("no upperdir"))?;
    let upper = open_dir(path, "upperdir")?;
    if kernel_uses(path)? {
        let reason = "in use by a mount of the kernel's overlayfs";
        return Err(Error::new(Errno::BUSY, "lock").on(format!("upperdir={}", path.display())).because(reason));
    }
    let _lock = lock(upper.as_fd(), "upperdir", path)?;
    let work = config.work.as_deref().map(|path| Ok::<_, Error>((open_dir(path, "workdir")?, path))).transpose()?;
    let _work_lock = work.as_ref().map(|(dir, path)| lock(dir.as_fd(), "workdir", path)).transpose()?;
    let user = config.userxattr.unwrap_or(!is_privileged());
    let dialect = if user { Dialect::User } else { Dialect::Trusted };
    let overlay = if config.lowers.is_empty() {
        None
    } else {
        let metacopy = dialect == Dialect::Trusted;
        let config = Config { read_only: true, userxattr: Some(user), metacopy, ..config.clone() };
        Some(Overlay::open(&config)?)
    };
    let index = work.as_ref().map(|(dir, _)| index::open(dir)).transpose()?.flatten();
    let mut check =
        Check { upper, work: work.map(|(dir, _)| dir), index, dialect, overlay, found: Vec::new(), origins: (0, 0) };
    check.walk()?;
    check.look_into_work()?;
    check.look_into_index()?;
    check.judge_layers();
    check.finish(repair)
}

struct Check {
    upper: OwnedFd,
    work: Option<OwnedFd>,
    index: Option<OwnedFd>,
    dialect: Dialect,
    /// The layers with the upper, where the lower ones are given.
    overlay: Option<Arc<Overlay>>,
    found: Vec<(Finding, Option<Fix>)>,
    /// How many origins were found in the lower layers, and how many were not.
    origins: (u64, u64),
}

impl Check {
    /// Notes a problem. `fix` is how it is mended, in words as well.
    fn problem(&mut self, path: &[u8], kind: &'static str, what: impl Into<String>, fix: Option<(Fix, String)>) {
        let (fix, repair) = fix.unzip();
        let finding = Finding { path: show(path), kind, what: what.into(), is_info: false, repair, repaired: false };
        self.found.push((finding, fix));
    }

    fn info(&mut self, path: &[u8], kind: &'static str, what: impl Into<String>) {
        let finding =
            Finding { path: show(path), kind, what: what.into(), is_info: true, repair: None, repaired: false };
        self.found.push((finding, None));
    }

    /// Looks at everything in the upper.
    fn walk(&mut self) -> Result<()> {
        let root = self.overlay.as_ref().map(|overlay| overlay.inode(ROOT)).transpose()?;
        let mut left: Vec<(Vec<u8>, Option<Arc<Inode>>)> = vec![(Vec::new(), root)];
        while let Some((path, inode)) = left.pop() {
            let named = |errno| Error::new(errno, "read").on(format!("upper, {}", show(&path)));
            let dir = beneath::open(self.upper.as_fd(), &path, OFlags::RDONLY | OFlags::DIRECTORY).map_err(named)?;
            let dir_marks = Marks::of_upper(At::fd(&dir), self.dialect).map_err(named)?;
            let mut copies = false;
            for entry in Dir::read_from(&dir).map_err(named)? {
                let entry = entry.map_err(named)?;
                let name = entry.file_name().to_bytes();
                if matches!(name, b"." | b"..") {
                    continue;
                }
                let at = At::new(&dir, name);
                let attr = at.attr().map_err(named)?;
                let here = if path.is_empty() { name.to_vec() } else { [path.as_slice(), b"/", name].concat() };
                if attr.is_whiteout() {
                    self.whiteout(&here, inode.as_ref(), name)?;
                    continue;
                }
                if !self.dialect.marks(attr.kind()) {
                    continue;
                }
                self.check_form(&here, at, &attr, dir_marks.opaque)?;
                let marks = Marks::of_upper(at, self.dialect).map_err(named)?;
                copies |= marks.origin.as_ref().is_some_and(|mark| !mark.is_empty());
                self.count_origin(&marks);
                self.check_index_of(&here, &attr, &marks)?;
                let next = self.resolve(&here, inode.as_ref(), name, &attr, &marks)?;
                if attr.kind() == Kind::Dir {
                    left.push((here, next));
                }
            }
            if copies && !dir_marks.impure {
                let fix = Fix::Set(path.clone(), Mark::Impure, b"y".to_vec());
                let what = "holds copies of lower objects, and is not marked impure";
                self.problem(&path, "not impure", what, Some((fix, "marked".to_owned())));
            }
        }
        Ok(())
    }

    fn whiteout(&mut self, path: &[u8], parent: Option<&Arc<Inode>>, name: &[u8]) -> Result<()> {
        if let (Some(overlay), Some(parent)) = (&self.overlay, parent)
            && !overlay.lower_shows(parent, &Name::new(name)?)?
        {
            self.info(path, "idle whiteout", "a whiteout that hides nothing");
        }
        Ok(())
    }

    fn count_origin(&mut self, marks: &Marks) {
        let origin = marks.origin.as_deref().and_then(Origin::decode);
        if let (Some(overlay), Some(origin)) = (&self.overlay, origin) {
            let is_found = origin.find(&overlay.stack.lowers).is_some();
            let count = if is_found { &mut self.origins.0 } else { &mut self.origins.1 };
            *count = count.saturating_add(1);
        }
    }

    /// Whether marks that lead into the layers below lead somewhere; the inode of a directory.
    fn resolve(
        &mut self,
        path: &[u8],
        parent: Option<&Arc<Inode>>,
        name: &[u8],
        attr: &Attr,
        marks: &Marks,
    ) -> Result<Option<Arc<Inode>>> {
        let (Some(overlay), Some(parent)) = (self.overlay.clone(), parent) else { return Ok(None) };
        let name = Name::new(name)?;
        let is_dir = attr.kind() == Kind::Dir;
        match overlay.look_up(parent, &name) {
            Ok(Some((inode, _))) => {
                let leads = !inode.state.read().lower_dirs().is_empty();
                if let (true, false, Some(redirect)) = (is_dir && marks.opaque != Opaque::Yes, leads, &marks.redirect) {
                    let target = redirect.escape_ascii();
                    let fix = (Fix::Detach(path.to_vec()), format!("made opaque, its redirect to {target} removed"));
                    let what = format!("redirected to {target}, which no lower layer has");
                    self.problem(path, "dangling redirect", what, Some(fix));
                }
                Ok(is_dir.then_some(inode))
            }
            Ok(None) => Ok(None),
            Err(error) if attr.kind() == Kind::File && marks.metacopy == Metacopy::Yes => {
                self.problem(path, "dangling metacopy", format!("its data is not found: {error}"), None);
                Ok(None)
            }
            // A mark of wrong form, which has been told.
            Err(error) if matches!(error.errno(), Errno::INVAL | Errno::IO) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Where nothing came from the layers that are given, they are hardly those of this upper, and say nothing about it.
    fn judge_layers(&mut self) {
        let (found, missing) = self.origins;
        if found > 0 || missing == 0 {
            return;
        }
        for (finding, fix) in &mut self.found {
            if fix.as_ref().is_some_and(Fix::goes_by_lowers) {
                *fix = None;
                finding.repair = None;
            }
        }
        let what = format!("none of {missing} origins is in the lower layers: are they those of this upper?");
        self.problem(b"", "other layers", what, None);
    }

    fn finish(self, repair: bool) -> Result<Vec<Finding>> {
        let mut findings = Vec::with_capacity(self.found.len());
        for (mut finding, fix) in self.found.iter().cloned() {
            if let (true, Some(fix)) = (repair, fix) {
                self.mend(&fix).map_err(|error| error.on(finding.path.clone()))?;
                finding.repaired = true;
            }
            findings.push(finding);
        }
        findings.sort_by(|a, b| (a.path.as_str(), a.kind).cmp(&(b.path.as_str(), b.kind)));
        Ok(findings)
    }
}

fn open_dir(path: &Path, option: &str) -> Result<OwnedFd> {
    open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| Error::new(errno, "open").on(format!("{option}={}", path.display())))
}

/// Whether a mount of the kernel's overlayfs that is seen from here writes to the directory.
fn kernel_uses(upper: &Path) -> Result<bool> {
    let same = |path: PathBuf| match (fs::metadata(path), fs::metadata(upper)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    };
    let table = fs::read("/proc/self/mountinfo").map_err(|error| Error::from(error).on("/proc/self/mountinfo"))?;
    Ok(table.split(|byte| *byte == b'\n').filter(|line| find(line, b" - overlay ").is_some()).any(|line| {
        let option = b",upperdir=";
        let Some(value) = find(line, option).and_then(|at| line.get(at.saturating_add(option.len())..)) else {
            return false;
        };
        let value = value.split(|byte| *byte == b',').next().unwrap_or_default();
        same(PathBuf::from(mounts::unescape(value)))
    }))
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

fn show(path: &[u8]) -> String {
    if path.is_empty() { "/".to_owned() } else { shown(path) }
}
