//! An upper as a layer: a tar stream that another can unpack over the same base.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, Write};
use std::os::fd::OwnedFd;

use rustix::process::{getegid, geteuid};

use crate::attr::{Attr, Kind, Time};
use crate::error::{Errno, Error, Result};
use crate::image::pack::{Member, Writer};
use crate::image::tar::entry::What;
use crate::image::unpack::beneath;
use crate::layer::marks::{DOT_OPAQUE, DOT_WHITEOUT, Opaque};

use super::Changed;
use super::diff::{Raw, join, open_upper, raw_entries};
use super::linked::{linked, parents};
use super::view::{Object, View};

/// How much data is moved at once, in bytes.
const BUFFER: usize = 1 << 18;
/// Pieces that a file with holes may be told in; one with more is written whole.
const PIECES: usize = 1 << 16;

/// Writes what the upper changes to `output`. Times later than `latest` are told as that.
///
/// # Errors
/// Those of the layers and of writing.
pub(super) fn write(changed: &Changed, latest: Option<i64>, output: impl Write) -> Result<()> {
    let upper = open_upper(changed)?;
    let base = if changed.lowers.is_empty() { None } else { Some(View::open(changed.lowers.clone())?) };
    let whole = View::of(changed)?;
    let linked = linked(changed, &whole)?;
    let besides = linked.iter().cloned().chain(parents(&linked)).collect();
    let mut packing =
        Packing { upper, base, whole, besides, latest, output: Writer::new(output), links: HashMap::new() };
    packing.all()?;
    packing.output.finish().map_err(written)
}

struct Packing<W> {
    upper: OwnedFd,
    base: Option<View>,
    whole: View,
    /// Names of changed files that the upper does not hold, and the directories on the way to them.
    besides: BTreeSet<Vec<u8>>,
    latest: Option<i64>,
    output: Writer<W>,
    /// The first name of each file of several names.
    links: HashMap<u64, Vec<u8>>,
}

/// What is to be written next. The last is taken first.
enum Step {
    /// An entry of the upper.
    Upper(Vec<u8>, bool),
    /// An object of the merged tree, with all below it.
    Whole(Vec<u8>),
    /// A mark of this name.
    Mark(Vec<u8>),
}

impl<W: Write> Packing<W> {
    fn all(&mut self) -> Result<()> {
        let root = self.whole.root()?;
        self.object(b".", root)?;
        let mut left = Vec::new();
        self.push_upper(b"", &mut left)?;
        while let Some(step) = left.pop() {
            match step {
                Step::Mark(path) => self.mark(&path)?,
                Step::Whole(path) => {
                    let Some(object) = self.whole.at(&path)? else { continue };
                    self.object(&path, object)?;
                    if object.attr.kind() == Kind::Dir {
                        let names = self.whole.names(object.ino)?;
                        left.extend(names.iter().rev().map(|name| Step::Whole(join(&path, name))));
                    }
                }
                Step::Upper(path, is_replaced) => {
                    let Some(object) = self.whole.at(&path)? else { continue };
                    self.object(&path, object)?;
                    if object.attr.kind() != Kind::Dir {
                        continue;
                    }
                    let was = match &self.base {
                        Some(base) => base.at(&path)?,
                        None => None,
                    };
                    let is_over_dir = was.is_some_and(|was| was.attr.kind() == Kind::Dir);
                    if is_replaced {
                        // What lies below in the base is not what lies below here: this is all there is.
                        let names = self.whole.names(object.ino)?;
                        left.extend(names.iter().rev().map(|name| Step::Whole(join(&path, name))));
                        if is_over_dir {
                            left.push(Step::Mark(join(&path, DOT_OPAQUE)));
                        }
                    } else {
                        self.push_upper(&path, &mut left)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// What the directory `path` of the upper holds, in order.
    fn push_upper(&mut self, path: &[u8], left: &mut Vec<Step>) -> Result<()> {
        let below = match &self.base {
            Some(base) => base.at(path)?.filter(|dir| dir.attr.kind() == Kind::Dir),
            None => None,
        };
        let (entries, is_opaque) = match raw_entries(&self.upper, path) {
            // On the way to what the upper does not hold.
            Err(error) if error.errno() == Errno::NOENT && self.besides.contains(path) => (Vec::new(), false),
            entries => entries?,
        };
        // By name: the marks come where the names that they hide would.
        let mut steps: BTreeMap<Vec<u8>, Step> = BTreeMap::new();
        for entry in entries {
            match entry {
                Raw::Whiteout(name) => {
                    let hides = match (&self.base, below) {
                        (Some(base), Some(below)) => base.find(below.ino, &name)?.is_some(),
                        (base, _) => base.is_none(),
                    };
                    if hides && self.whole.at(&join(path, &name))?.is_none() {
                        steps.insert(name.clone(), Step::Mark(join(path, &[DOT_WHITEOUT, &name].concat())));
                    }
                }
                Raw::Object(name, attr, marks) => {
                    let is_dir = attr.kind() == Kind::Dir;
                    let is_replaced = is_dir && (marks.opaque == Opaque::Yes || marks.redirect.is_some());
                    steps.insert(name.clone(), Step::Upper(join(path, &name), is_replaced));
                }
            }
        }
        for beside in &self.besides {
            let (parent, name) = beneath::split(beside);
            if parent == path {
                steps.entry(name.to_vec()).or_insert_with(|| Step::Upper(beside.clone(), false));
            }
        }
        left.extend(steps.into_values().rev());
        if is_opaque && below.is_some() {
            left.push(Step::Mark(join(path, DOT_OPAQUE)));
        }
        Ok(())
    }

    fn mark(&mut self, path: &[u8]) -> Result<()> {
        let mark = Member { path, what: What::Object(Kind::File), mode: 0o600, ..NOTHING };
        self.output.begin(&mark).map_err(written)
    }

    fn object(&mut self, path: &[u8], object: Object) -> Result<()> {
        let attr = object.attr;
        let kind = attr.kind();
        // A socket means nothing without who listens to it; tar has none.
        if kind == Kind::Socket {
            return Ok(());
        }
        let xattrs = self.whole.xattrs(object.ino)?;
        let attr = self.with_owner(attr);
        let member = Member { path, what: What::Object(kind), ..self.of(&attr, &xattrs) };
        if kind != Kind::Dir && attr.nlink > 1 {
            if let Some(first) = self.links.get(&object.ino) {
                let link = Member { what: What::HardLink, target: first, xattrs: &[], ..member };
                return self.output.begin(&link).map_err(written);
            }
            self.links.insert(object.ino, path.to_vec());
        }
        match kind {
            Kind::Symlink => {
                let target = self.whole.target(object.ino)?;
                self.output.begin(&Member { target: &target, ..member }).map_err(written)
            }
            Kind::File => self.file(&Member { size: attr.size, ..member }, object.ino),
            _ => self.output.begin(&member).map_err(written),
        }
    }

    fn file(&mut self, member: &Member<'_>, ino: u64) -> Result<()> {
        let file = self.whole.read(ino)?;
        let mut pieces = Vec::new();
        let mut at = 0;
        while at < member.size && pieces.len() < PIECES {
            let Some(start) = file.seek(at, false)? else { break };
            let end = file.seek(start, true)?.unwrap_or(member.size).min(member.size);
            if end <= start {
                break;
            }
            pieces.push((start, end.saturating_sub(start)));
            at = end;
        }
        let is_whole = pieces.as_slice() == [(0, member.size)] || member.size == 0;
        if is_whole || pieces.len() >= PIECES {
            self.output.begin(member).map_err(written)?;
            pieces = vec![(0, member.size)];
        } else {
            // As GNU tar does, an empty piece at the end tells the size.
            pieces.push((member.size, 0));
            self.output.begin(&Member { pieces: Some(&pieces), ..member.clone() }).map_err(written)?;
        }
        let mut buffer = vec![0; BUFFER];
        for (mut offset, mut len) in pieces {
            while len > 0 {
                let wanted = usize::try_from(len).unwrap_or(usize::MAX).min(buffer.len());
                let part = buffer.get_mut(..wanted).unwrap_or_default();
                let read = file.at(offset, part)?;
                if read == 0 {
                    let shown = member.path.escape_ascii().to_string();
                    return Err(Error::new(rustix::io::Errno::IO, "read").on(shown).because("it became shorter"));
                }
                self.output.data(part.get(..read).unwrap_or_default()).map_err(written)?;
                offset = offset.saturating_add(read as u64);
                len = len.saturating_sub(read as u64);
            }
        }
        Ok(())
    }

    /// Whose the object is in the image: where files could not be given away, what carries no owner of the image's is root's.
    fn with_owner(&self, mut attr: Attr) -> Attr {
        let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
        if uid == 0 || self.whole.keeps_owners() && attr.kind() != Kind::Symlink {
            return attr;
        }
        attr.uid = if attr.uid == uid { 0 } else { attr.uid };
        attr.gid = if attr.gid == gid { 0 } else { attr.gid };
        attr
    }

    fn of<'a>(&self, attr: &Attr, xattrs: &'a [(Vec<u8>, Vec<u8>)]) -> Member<'a> {
        let mtime = match self.latest {
            Some(latest) if attr.mtime.sec >= latest => Time { sec: latest, nsec: 0 },
            _ => attr.mtime,
        };
        Member { mode: attr.mode & 0o7777, uid: attr.uid, gid: attr.gid, mtime, rdev: attr.rdev, xattrs, ..NOTHING }
    }
}

const NOTHING: Member<'static> = Member {
    path: b"",
    what: What::Object(Kind::File),
    target: b"",
    mode: 0,
    uid: 0,
    gid: 0,
    mtime: Time { sec: 0, nsec: 0 },
    rdev: (0, 0),
    xattrs: &[],
    size: 0,
    pieces: None,
};

fn written(error: io::Error) -> Error {
    Error::from(error).on("layer")
}
