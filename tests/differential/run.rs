//! Running a case on both.

use std::collections::BTreeMap;
use std::fmt::{self, Debug};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::allowed::Allowed;
use super::build::build;
use super::case::{Bytes, Case, Operation};
use super::common::{Backend, Form, Mounted};
use super::disk::{Disk, disk};
use super::held::Held;
use super::perform::perform;
use super::shown::{self, Kind, Shown, Tree};
use super::world::World;

/// The trees are compared each time that so many operations have been done, and the overlays mounted anew.
const LOOK: usize = 15;
const REMOUNT: usize = 60;

/// What differs.
#[derive(Debug)]
pub struct Difference {
    /// How many operations were done by then.
    pub after: usize,
    text: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "after {} operations: {}", self.after, self.text)
    }
}

/// Runs a case; what differs is the error.
pub fn run(case: &Case) -> Result<(), Difference> {
    let mut after = 0;
    let result = catch_unwind(AssertUnwindSafe(|| try_run(case, &mut after)));
    let result = result.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default())
    });
    result.map_err(|text| Difference { after, text })
}

/// One of the two overlays.
struct Side {
    held: Held,
    mounted: Mounted,
    /// The tree as it was last compared.
    last: Tree,
}

impl Side {
    fn new(case: &Case, world: World, backend: Backend) -> Self {
        let form = if world.is_user { Form::User } else { Form::Trusted };
        let mut setup = world.setup();
        for entries in &case.layers {
            let fill = |layer: &'_ super::common::Layer| entries.iter().for_each(|entry| build(layer, entry, form));
            setup = if world.is_far {
                setup.lower_elsewhere(|layer| {
                    fill(layer);
                    layer
                })
            } else {
                setup.lower(|layer| {
                    fill(layer);
                    layer
                })
            };
        }
        Self { mounted: setup.mount_by(backend), held: Held::default(), last: Tree::new() }
    }
}

/// Both, each by what mounts it now: they take turns.
struct Both<'c> {
    case: &'c Case,
    world: World,
    kernel: Side,
    plyfs: Side,
    allowed: Allowed,
}

fn try_run(case: &Case, after: &mut usize) -> Result<(), String> {
    let world = World::of(case);
    let (kernel, plyfs) = (Side::new(case, world, Backend::Kernel), Side::new(case, world, Backend::Plyfs));
    let mut both = Both { case, world, kernel, plyfs, allowed: Allowed::of(case, world) };
    let result = both.run(after);
    both.unmount();
    result
}

impl Both<'_> {
    fn run(&mut self, after: &mut usize) -> Result<(), String> {
        for (index, operation) in self.case.operations.iter().enumerate() {
            let at = |text| format!("{operation}: {text}");
            *after = index + 1;
            if operation.kind == "remount" {
                self.remount(false).map_err(at)?;
                continue;
            }
            self.perform(operation).map_err(at)?;
            if self.allowed.is_over {
                return Ok(());
            }
            if index % LOOK == LOOK - 1 {
                self.compare(true).map_err(at)?;
            }
            if index % REMOUNT == REMOUNT - 1 {
                self.remount(index / REMOUNT % 2 == 1).map_err(at)?;
            }
        }
        self.compare(true).map_err(|text| format!("in the end: {text}"))?;
        self.remount(true).map_err(|text| format!("with the uppers swapped: {text}"))
    }

    fn unmount(&mut self) {
        for side in [&mut self.kernel, &mut self.plyfs] {
            side.held = Held::default();
            self.world.unmount(&mut side.mounted);
        }
    }

    fn perform(&mut self, operation: &Operation) -> Result<(), String> {
        // Not always: to be looked at is itself an operation.
        let watched = if operation.number & 64 == 0 { watched(operation) } else { Vec::new() };
        let before = [&self.kernel, &self.plyfs].map(|side| look(&side.mounted, &watched));
        self.allowed.note(operation, &self.kernel.mounted);
        let expected = perform(&self.kernel.mounted, &mut self.kernel.held, operation);
        let result = perform(&self.plyfs.mounted, &mut self.plyfs.held, operation);
        self.allowed.note_end(operation, &expected, &self.kernel.mounted);
        self.allowed.note_end(operation, &result, &self.plyfs.mounted);
        self.allowed.note_set_id(operation, &expected, &self.kernel.held);
        if self.allowed.is_hole(operation, &expected, &result) {
            return Ok(());
        }
        if Allowed::is_removed(operation, &expected, &result) {
            self.kernel.held.close(operation);
            self.plyfs.held.close(operation);
            return Ok(());
        }
        if Allowed::is_no_change(operation, &expected, &result) {
            return Ok(());
        }
        if self.allowed.parts(operation, &expected, &result) {
            return Ok(());
        }
        differs("result", &expected, &result)?;
        let after = [&self.kernel, &self.plyfs].map(|side| look(&side.mounted, &watched));
        for path in &watched {
            let [expected, result] =
                [0, 1].map(|side| self.became(before[side].get(path), after[side].get(path), true));
            differs(&path.to_string(), &expected, &result)?;
        }
        Ok(())
    }

    /// Compares the trees, and what has become of each since they were compared last.
    fn compare(&mut self, with_times: bool) -> Result<(), String> {
        let (kernel, plyfs) = (shown::tree(&self.kernel.mounted), shown::tree(&self.plyfs.mounted));
        let mut found = Vec::new();
        for path in kernel.keys().chain(plyfs.keys().filter(|path| !kernel.contains_key(*path))) {
            let [mut kernel_was, mut plyfs_was] = [self.kernel.last.get(path), self.plyfs.last.get(path)];
            // What was removed and made again may have got the same number, or not.
            if with_times && has_number_of(kernel_was, kernel.get(path)) != has_number_of(plyfs_was, plyfs.get(path)) {
                (kernel_was, plyfs_was) = (None, None);
            }
            let expected = self.became(kernel_was, kernel.get(path), with_times);
            let result = self.became(plyfs_was, plyfs.get(path), with_times);
            found.extend(differs(&path.to_string(), &expected, &result).err());
        }
        (self.kernel.last, self.plyfs.last) = (kernel, plyfs);
        found.truncate(4);
        if found.is_empty() { Ok(()) } else { Err(found.join("\n")) }
    }

    /// What became of an entry.
    fn became(&self, before: Option<&Shown>, after: Option<&Shown>, with_times: bool) -> Option<String> {
        let after = after?;
        let is_dir = after.kind == Kind::Dir;
        let links = if is_dir && self.allowed.aliases { String::new() } else { format!(", {} links", after.links) };
        let with_times = with_times && self.allowed.are_times_same(after);
        // [SEMANTICS: With `userxattr`, symlinks and device nodes can carry no marks.]
        let is_unmarked = self.world.is_user && after.kind == Kind::Other;
        let text = after.text.split(", the same as ").next().filter(|_| is_unmarked).unwrap_or(&after.text);
        let since = match before {
            Some(_) if is_unmarked => "there before",
            Some(before) => after.marks.since(&before.marks, with_times, is_dir),
            None => "new",
        };
        let set = if with_times { after.marks.set() } else { String::new() };
        Some(format!("{text}{links}{set}, {since}"))
    }

    fn disk(&self, side: &Side) -> Disk {
        disk(&side.mounted, self.case.layers.len(), !self.allowed.are_file_times_same())
    }

    /// Compares what is on disk, and mounts both anew, each by the other if they are to swap.
    fn remount(&mut self, swap: bool) -> Result<(), String> {
        self.unmount();
        let (kernel, plyfs) = (self.disk(&self.kernel), self.disk(&self.plyfs));
        let mut found = Vec::new();
        for path in kernel.keys().chain(plyfs.keys().filter(|path| !kernel.contains_key(*path))) {
            if !self.allowed.is_alias(kernel.get(path), plyfs.get(path)) {
                found.extend(differs(&format!("on disk, {path}"), &kernel.get(path), &plyfs.get(path)).err());
            }
        }
        found.truncate(4);
        if !found.is_empty() {
            return Err(found.join("\n"));
        }
        if swap {
            std::mem::swap(&mut self.kernel, &mut self.plyfs);
        }
        self.kernel.mounted.set_backend(Backend::Kernel);
        self.plyfs.mounted.set_backend(Backend::Plyfs);
        self.kernel.mounted.mount();
        self.plyfs.mounted.mount();
        // Mounting may move the times of the root.
        self.compare(false).map_err(|text| format!("mounted anew: {text}"))
    }
}

/// The paths that an operation may change, and the directories that hold them.
fn watched(operation: &Operation) -> Vec<Bytes> {
    let mut paths =
        vec![operation.path.clone(), operation.path.parent(), operation.other.clone(), operation.other.parent()];
    paths.sort();
    paths.dedup();
    paths
}

fn look(mounted: &Mounted, paths: &[Bytes]) -> BTreeMap<Bytes, Shown> {
    let found = |path: &Bytes| Some((path.clone(), shown::entry(&mounted.path(path.path()))?));
    paths.iter().filter_map(found).collect()
}

fn has_number_of(before: Option<&Shown>, after: Option<&Shown>) -> bool {
    before.zip(after).is_some_and(|(before, after)| before.marks.ino == after.marks.ino)
}

fn differs<T: PartialEq + Debug>(what: &str, kernel: &T, plyfs: &T) -> Result<(), String> {
    if kernel == plyfs { Ok(()) } else { Err(format!("{what}:\n  kernel {kernel:?}\n  plyfs  {plyfs:?}")) }
}
