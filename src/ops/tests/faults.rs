//! What a call on a layer leaves that fails, that panics, or before which the daemon dies: for each operation, each call
//! that it makes, one after the other.

mod cases;
mod styles;

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::Bed;
use super::view::{self, dump, marked};
use crate::attr::{Attr, Kind};
use crate::calls::failpoint::{self, Calls, Fault, Outcome, Plan};
use crate::config::Config;
use crate::error::{Errno, Error, Result};
use crate::inode::numbers::ROOT;

/// What layers do that have no room left, that break, or that are protected, and what a process with too little does.
const ERRNOS: [Errno; 6] = [Errno::IO, Errno::NOSPC, Errno::DQUOT, Errno::MFILE, Errno::NOMEM, Errno::ROFS];

/// An operation, and what it is done to.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    layers: &'static [&'static str],
    adapt: fn(&mut Config),
    /// What is done before.
    prepare: fn(&Bed) -> Result<()>,
    operation: fn(&Bed) -> Result<()>,
    /// What is left to do if the daemon died half-way, where that is as good as it gets.
    rest: Option<fn(&Bed) -> Result<()>>,
}

impl Case {
    fn bed(&self) -> Bed {
        let bed = Bed::with(self.layers, |config| {
            config.userxattr = None;
            (self.adapt)(config);
        });
        (self.prepare)(&bed).unwrap_or_else(|error| panic!("{}: {error}", self.name));
        bed.forget_all();
        bed
    }

    /// What is shown after the operation, when nothing goes wrong.
    fn done(&self) -> Vec<String> {
        let bed = self.bed();
        (self.operation)(&bed).unwrap_or_else(|error| panic!("{}: {error}", self.name));
        let done = Tree::of(&bed).shown;
        assert_eq!(Tree::of(&bed.reopen()).shown, done, "{}: another tree after a new mount", self.name);
        done
    }

    /// Does the operation with a fault; what a panic becomes is `None`.
    fn attempt(&self, bed: &Bed, plan: Plan) -> (Option<Result<()>>, Outcome) {
        failpoint::plan(plan);
        let result = catch_unwind(AssertUnwindSafe(|| (self.operation)(bed)));
        (result.ok(), failpoint::end())
    }

    /// Sweeps a fault over all calls, and returns what is wrong with what they leave.
    fn sweep(&self, calls: Calls, fault: impl Fn(u32) -> Fault) -> Vec<String> {
        let done = self.done();
        let mut wrong = Vec::new();
        for nth in 1..1000 {
            let plan = Plan { calls, nth, fault: fault(nth) };
            let checked = catch_unwind(AssertUnwindSafe(|| self.check(plan, &done)));
            failpoint::end();
            match checked {
                Ok(true) => {}
                Ok(false) => return wrong,
                Err(payload) => wrong.push(payload.downcast_ref::<String>().cloned().unwrap_or_default()),
            }
        }
        panic!("{}: there is no end of calls", self.name);
    }

    /// Does the operation with a fault, and checks what that leaves; whether there was such a call.
    fn check(&self, plan: Plan, done: &[String]) -> bool {
        let bed = self.bed();
        let (before, upper) = (Tree::of(&bed), marked(&bed.path("upper")));
        let (result, outcome) = self.attempt(&bed, plan);
        let Some(call) = outcome.hit else { return false };
        let what = format!("{}: {:?} at {call} (call {})", self.name, plan.fault, plan.nth);
        let what = match &result {
            Some(Err(error)) => format!("{what}: failed to {error}"),
            Some(Ok(())) => format!("{what}: done"),
            None => format!("{what}: panicked"),
        };
        let bed = if plan.fault == Fault::Die { bed.reopen() } else { bed };
        let mut now = Tree::of(&bed);
        match (result, plan.fault) {
            (Some(Err(error)), Fault::Fail(errno)) => {
                assert_eq!(error.errno(), errno, "{what}");
                if !(self.may_be_done_all_the_same(&error) && now.shown == done) {
                    check_unchanged(&before, &now, &upper, &marked(&bed.path("upper")), &what);
                }
                let left = dump(&bed.path("work/work"));
                let is_shared = left.len() <= 1 && left.iter().all(|line| line.ends_with(" whiteout"));
                // What cannot be removed stays until the next mount.
                assert!(is_shared || call == "unlinkat", "{what}: left {left:?}");
            }
            (Some(Ok(())), Fault::Fail(_)) => {
                assert_eq!(difference(done, &now.shown), NONE, "{what}: not all was done")
            }
            (None, Fault::Panic) | (_, Fault::Die) => {}
            (result, _) => panic!("{what}: {result:?}"),
        }
        let is_half_way = plan.fault == Fault::Die && now.shown != done && now.shown != before.shown;
        if let Some(rest) = self.rest.filter(|_| is_half_way) {
            rest(&bed).unwrap_or_else(|error| panic!("{what}: the rest is not done: {error}"));
            now = Tree::of(&bed);
            assert_eq!(difference(done, &now.shown), NONE, "{what}: the rest");
        } else if now.shown != done {
            assert_eq!(difference(&before.shown, &now.shown), NONE, "{what}: neither as before nor as after");
            (self.operation)(&bed).unwrap_or_else(|error| panic!("{what}: not done by a second try: {error}"));
            now = Tree::of(&bed);
            assert_eq!(difference(done, &now.shown), NONE, "{what}: a second try");
        }
        let bed = bed.reopen();
        let new = Tree::of(&bed).detailed;
        assert_eq!(difference(&now.detailed, &new), NONE, "{what}: a new mount; the upper: {:#?}", bed.upper());
        true
    }

    /// As on the kernel's overlayfs, a file that is to be truncated is so once it is copied up.
    fn may_be_done_all_the_same(&self, error: &Error) -> bool {
        let truncates = ["truncate to nothing", "overwrite"].contains(&self.name);
        truncates && ["open", "open to truncate", "truncate"].contains(&error.operation())
    }
}

/// The tree is as it was. So is the upper, but for copies, and for marks that mean nothing yet.
fn check_unchanged(before: &Tree, now: &Tree, upper: &[String], upper_now: &[String], what: &str) {
    let path = |line: &str| line.split(' ').nth(1).unwrap_or_default().to_owned();
    let changed = difference(upper, upper_now);
    let is_copy = |line: &str| line.starts_with('+') && line.contains(".overlay.origin=");
    let is_whiteout = |line: &str| [" whiteout", ".whiteout=y", "/.wh."].iter().any(|form| line.contains(form));
    let is_opaque = |dir: &str| changed.iter().any(|line| path(line) == dir && line.contains(".opaque=y"));
    for line in &changed {
        // Of a directory that shows nothing, the whiteouts may go first.
        let dir = path(line).rsplit_once('/').map(|(dir, _)| format!("{dir}/"));
        let is_cleared = line.starts_with('-') && is_whiteout(line) && dir.is_some_and(|dir| is_opaque(&dir));
        let has_other = changed.iter().filter(|other| path(other) == path(line)).count() > 1;
        assert!(is_copy(line) || is_cleared || has_other, "{what}: changed in the upper: {changed:#?}");
    }
    // When something was made and taken back in a directory that was just copied up, its times have moved.
    let is_taken_back = what.contains("to stat:") || what.contains("to set the opaque mark:");
    if is_taken_back && changed.iter().any(|line| is_copy(line)) {
        assert_eq!(difference(&before.shown, &now.shown), NONE, "{what}: changed all the same");
    } else {
        assert_eq!(difference(&before.detailed, &now.detailed), NONE, "{what}: changed all the same");
    }
}

const NONE: [String; 0] = [];

/// The lines that are only in one of both.
fn difference(one: &[String], other: &[String]) -> Vec<String> {
    let only = |sign: &str, these: &[String], those: &[String]| {
        these.iter().filter(|line| !those.contains(line)).map(|line| format!("{sign} {line}")).collect::<Vec<_>>()
    };
    [only("-", one, other), only("+", other, one)].concat()
}

/// What a tree holds.
#[derive(Debug)]
struct Tree {
    /// What is the same for everyone who makes it so.
    shown: Vec<String>,
    /// The same, with all that tells it from another one that looks the same.
    detailed: Vec<String>,
}

impl Tree {
    fn of(bed: &Bed) -> Self {
        const MORE: &str = " number ";
        let more =
            |attr: &Attr| format!(" {}:{} {}{MORE}{}, {:?}", attr.uid, attr.gid, links(attr), attr.ino, attr.mtime);
        let mut detailed = view::tree_with(&bed.overlay, more);
        let shown = detailed.iter().map(|line| line.split(MORE).next().unwrap_or_default().to_owned()).collect();
        detailed.push(more(&bed.overlay.getattr(ROOT).unwrap()));
        Self { shown, detailed }
    }
}

/// The link count; that of a directory changes with its copy-up.
fn links(attr: &Attr) -> String {
    if attr.kind() == Kind::Dir { String::new() } else { format!("{} links", attr.nlink) }
}
