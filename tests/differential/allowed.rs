//! The deliberate differences: what the comparison lets pass, each with its entry in docs/SEMANTICS.md.

use std::collections::{BTreeMap, BTreeSet};

use rustix::fs::Stat;
use rustix::io::Errno;

use super::case::{Bytes, Case, LONGEST, Operation};
use super::common::{Mounted, lstat};
use super::disk::OnDisk;
use super::held::{Held, SLOTS};
use super::perform::{Outcome, owner};
use super::shown::{Kind, Shown};
use super::world::World;

/// Seconds and nanoseconds.
type Time = (i64, u64);

/// What may differ from here on.
#[derive(Debug)]
pub struct Allowed {
    has_links: bool,
    /// Which directories were copied up.
    ///
    /// [SEMANTICS: Of a lower hard link's names, the copy goes to the one by which the kernel asked last.]
    pub aliases: bool,
    /// When files were changed.
    ///
    /// [SEMANTICS: Opening a file for writing of which only the attributes were copied up leaves its modification time.]
    /// [SEMANTICS: With `writeback=1`, the kernel itself keeps the times of files.]
    file_times: bool,
    /// Directories whose times may differ, by their numbers.
    ///
    /// [SEMANTICS: A rename that fails leaves the times of directories.]
    untimed: BTreeSet<u64>,
    has_xattr_whiteouts: bool,
    has_sparse: bool,
    /// When the files that are held, each in its slot, had been changed last as they got a set-id bit.
    ///
    /// [SEMANTICS: A set-id bit that is set while another user has the file open for writing falls when that one closes it]
    set_id: BTreeMap<u32, Time>,
    /// The trees go different ways from here on.
    pub is_over: bool,
}

/// Operations of which plyfs is told the names.
const BY_NAME: [&str; 8] =
    ["rename", "exchange", "noreplace", "unlink", "rmdir", "rename-whiteout", "hold-dir-unlink", "hold-dir-rmdir"];
/// Operations that change nothing.
const READING: [&str; 9] =
    ["read", "list", "stat", "getxattr", "listxattr", "readlink", "access", "seek", "hold-reader"];

impl Allowed {
    pub fn of(case: &Case, world: World) -> Self {
        Self {
            has_links: case.has("link"),
            aliases: false,
            untimed: BTreeSet::new(),
            has_xattr_whiteouts: case.has("xattr-whiteout"),
            has_sparse: case.has("sparse"),
            set_id: BTreeMap::new(),
            is_over: false,
            file_times: world.has_metacopy || world.gathers_writes,
        }
    }

    /// Takes note of an operation that is about to be done.
    pub fn note(&mut self, operation: &Operation, kernel: &Mounted) {
        let kind = operation.kind.as_str();
        let is_linked = |path| {
            lstat(kernel.path(path)).is_ok_and(|stat| stat.st_nlink > 1 && stat.st_mode & libc::S_IFMT != libc::S_IFDIR)
        };
        if self.has_links && !BY_NAME.contains(&kind) && !READING.contains(&kind) {
            self.aliases |= is_linked(operation.path.path()) || is_linked(operation.other.path());
        }
    }

    /// Whether the times of files are compared at all.
    pub fn are_file_times_same(&self) -> bool {
        !self.file_times
    }

    /// Takes note of how an operation has ended, on one side.
    pub fn note_end(&mut self, operation: &Operation, outcome: &Outcome, tree: &Mounted) {
        if operation.kind == "rename" && matches!(outcome, Err(Errno::NOTEMPTY | Errno::EXIST)) {
            let parents = [operation.path.parent(), operation.other.parent()];
            self.untimed.extend(parents.iter().filter_map(|dir| Some(lstat(tree.path(dir.path())).ok()?.st_ino)));
        }
    }

    /// Takes note of set-id bits that were set by `operation` on a file that is held for writing. Once it is written, or
    /// somebody says that it was, the case is over.
    pub fn note_set_id(&mut self, operation: &Operation, outcome: &Outcome, held: &Held) {
        let is_written = |(slot, then): (&u32, &Time)| held.writer(*slot).is_some_and(|stat| modified(&stat) != *then);
        self.is_over |= self.set_id.iter().any(is_written);
        self.set_id.retain(|slot, _| held.writer(*slot).is_some());
        if matches!(operation.kind.as_str(), "chmod" | "hold-chmod") && outcome.is_ok() {
            let writers = (0..SLOTS).filter_map(|slot| Some((slot, held.writer(slot)?)));
            let are_set = writers.filter(|(_, stat)| stat.st_mode & (libc::S_ISUID | libc::S_ISGID) != 0);
            self.set_id.extend(are_set.map(|(slot, stat)| (slot, modified(&stat))));
        }
    }

    /// Whether one has data, or a hole, where the other has none.
    ///
    /// [SEMANTICS: A copy has the holes of its source.]
    pub fn is_hole(&self, operation: &Operation, kernel: &Outcome, plyfs: &Outcome) -> bool {
        let seeks = matches!(operation.kind.as_str(), "seek" | "hold-seek");
        let is_one = matches!((kernel, plyfs), (Ok(_), Err(Errno::NXIO)) | (Err(Errno::NXIO), Ok(_)));
        self.has_sparse && seeks && is_one
    }

    /// Whether what is on disk differs as the copies of hard links do that went to other names: one of them is not there, or
    /// has another number of links; so are the directories that hold them.
    pub fn is_alias(&self, kernel: Option<&OnDisk>, plyfs: Option<&OnDisk>) -> bool {
        let may_be_one = |entry: &OnDisk| entry.is_linked || entry.is_dir;
        self.aliases
            && match (kernel, plyfs) {
                (Some(kernel), Some(plyfs)) if kernel.is_dir && plyfs.is_dir => kernel.lasting == plyfs.lasting,
                (Some(kernel), Some(plyfs)) => kernel.is_linked && plyfs.is_linked,
                (kernel, plyfs) => kernel.or(plyfs).is_some_and(may_be_one),
            }
    }

    /// Whether the times of what has a number are to be the same on both.
    pub fn are_times_same(&self, shown: &Shown) -> bool {
        match shown.kind {
            Kind::Dir => !self.aliases && !self.untimed.contains(&shown.marks.ino),
            Kind::File => !self.file_times && (!self.aliases || shown.links == 1),
            Kind::Other => !self.aliases || shown.links == 1,
        }
    }

    /// Whether a file that was removed and never copied up is changed by plyfs, and not by the kernel's overlayfs.
    ///
    /// [SEMANTICS: A removed file that was never copied up can be changed by who has it open.]
    pub fn is_removed(operation: &Operation, kernel: &Outcome, plyfs: &Outcome) -> bool {
        let is_held = operation.kind.starts_with("hold-") && !operation.kind.starts_with("hold-dir");
        is_held && matches!(kernel, Err(Errno::EXIST | Errno::NOENT | Errno::STALE)) && plyfs.is_ok()
    }

    /// Whether another than its owner has set the owner of a set-id file to what it is.
    ///
    /// [SEMANTICS: While a set-id file is open for writing, another than its owner may set the owner to what it is.]
    pub fn is_no_change(operation: &Operation, kernel: &Outcome, plyfs: &Outcome) -> bool {
        let number = match operation.kind.as_str() {
            "chown" => operation.number,
            "hold-chown" => operation.number / SLOTS,
            _ => return false,
        };
        let is_none = owner(number) == (None, None);
        is_none && operation.who.is_some() && *kernel == Err(Errno::PERM) && plyfs.is_ok()
    }

    /// Whether plyfs has done what the kernel's overlayfs refused, on purpose; then the case is over.
    ///
    /// [SEMANTICS: A directory that holds nothing but xattr whiteouts can be removed.]
    /// [SEMANTICS: A redirect may be longer than 256 bytes.]
    pub fn parts(&mut self, operation: &Operation, kernel: &Outcome, plyfs: &Outcome) -> bool {
        let Operation { kind, path, other, .. } = operation;
        let removes = matches!(kind.as_str(), "rmdir" | "rename" | "hold-dir-rmdir");
        let is_long = |path: &Bytes| path.0.len() >= LONGEST.len();
        self.is_over |= plyfs.is_ok()
            && match kernel {
                Err(Errno::NOTEMPTY) => self.has_xattr_whiteouts && removes,
                Err(Errno::XDEV) => is_long(path) || is_long(other),
                _ => false,
            };
        self.is_over
    }
}

/// When a file was changed last.
fn modified(stat: &Stat) -> Time {
    (stat.st_mtime, stat.st_mtime_nsec)
}
