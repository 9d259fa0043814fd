//! Faults that tests put into the calls on layers: the N-th call from now on fails, panics, or is the last that happens.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::Errno;
use crate::lock::{Mutex, rank};

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It fails, once.
    Fail(Errno),
    /// It panics, once.
    Panic,
    /// It does not happen, nor does any after it: what is in the layers is what a daemon leaves that dies now.
    Die,
    /// The process is gone.
    Abort,
}

/// Which calls count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Calls {
    /// All of them.
    All,
    /// Those that change something.
    Changes,
}

/// The fault that is to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Which calls count.
    pub(crate) calls: Calls,
    /// The first is 1; 0 is none.
    pub(crate) nth: u32,
    /// What becomes of it.
    pub(crate) fault: Fault,
}

/// What has come of a plan.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// How many calls counted.
    pub(crate) seen: u32,
    /// The call that was hit.
    pub(crate) hit: Option<&'static str>,
}

impl Plan {
    fn pass(&self, outcome: &mut Outcome, call: &'static str, changes: bool) -> Option<Fault> {
        if outcome.hit.is_some() && self.fault == Fault::Die {
            return Some(Fault::Die);
        }
        if self.calls == Calls::Changes && !changes {
            return None;
        }
        outcome.seen = outcome.seen.saturating_add(1);
        if outcome.hit.is_some() || outcome.seen != self.nth {
            return None;
        }
        outcome.hit = Some(call);
        Some(self.fault)
    }
}

thread_local!(static OF_THREAD: RefCell<Option<(Plan, Outcome)>> = const { RefCell::new(None) });
static OF_PROCESS: Mutex<Option<(Plan, Outcome)>, { rank::LEAF }> = Mutex::new(None);
static IS_PROCESS_PLANNED: AtomicBool = AtomicBool::new(false);

/// Plans a fault for the calls of this thread.
#[cfg(test)]
pub(crate) fn plan(plan: Plan) {
    OF_THREAD.set(Some((plan, Outcome::default())));
}

/// Ends this thread's plan, and tells what has come of it.
#[cfg(test)]
pub(crate) fn end() -> Outcome {
    OF_THREAD.take().map(|(_, outcome)| outcome).unwrap_or_default()
}

/// Plans a fault for the calls of all threads, in place of the one before; `None` ends it.
pub(crate) fn plan_for_process(plan: Option<Plan>) {
    *OF_PROCESS.lock() = plan.map(|plan| (plan, Outcome::default()));
    IS_PROCESS_PLANNED.store(plan.is_some(), Ordering::SeqCst);
}

/// To be called before a call that changes something.
pub(super) fn change(call: &'static str) -> Result<(), Errno> {
    pass(call, true)
}

/// To be called before a call that does not.
pub(super) fn read(call: &'static str) -> Result<(), Errno> {
    pass(call, false)
}

#[allow(clippy::panic)]
fn pass(call: &'static str, changes: bool) -> Result<(), Errno> {
    let pass = |planned: &mut Option<(Plan, Outcome)>| {
        planned.as_mut().and_then(|(plan, outcome)| plan.pass(outcome, call, changes))
    };
    let mut fault = OF_THREAD.with_borrow_mut(pass);
    if IS_PROCESS_PLANNED.load(Ordering::SeqCst) {
        fault = fault.or_else(|| pass(&mut OF_PROCESS.lock()));
    }
    match fault {
        None => Ok(()),
        Some(Fault::Fail(errno)) => Err(errno),
        Some(Fault::Die) => Err(Errno::IO),
        Some(Fault::Panic) => panic!("a test asked for it, at {call}"),
        Some(Fault::Abort) => std::process::abort(),
    }
}
