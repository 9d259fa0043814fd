//! The deliberate differences: what the comparison lets pass, each with its entry in docs/SEMANTICS.md.

use std::collections::BTreeSet;

use rustix::io::Errno;

use super::case::{Bytes, Case, LONGEST, Operation};
use super::common::{Mounted, lstat};
use super::held::SLOTS;
use super::perform::{Outcome, owner};
use super::shown::{Kind, Shown};
use super::world::World;

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
