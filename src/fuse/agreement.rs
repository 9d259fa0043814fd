//! What was agreed with the kernel, and what was left off and why.

use fuser::InitFlags;
use parking_lot::Mutex;

/// What was agreed.
#[derive(Debug, Default)]
pub struct Agreement(Mutex<Agreed>);

/// What [`Agreement`] holds.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Agreed {
    /// The capabilities of FUSE that the kernel and we use.
    pub capabilities: Vec<&'static str>,
    /// What is not used, and why.
    pub off: Vec<(&'static str, String)>,
}

impl Agreement {
    /// What was agreed so far.
    pub fn get(&self) -> Agreed {
        self.0.lock().clone()
    }

    /// Notes the capabilities that are used.
    pub(super) fn note(&self, used: InitFlags) {
        self.0.lock().capabilities = used.iter_names().map(|(name, _)| name).collect();
    }

    /// Notes that `what` is not used.
    pub fn leave(&self, what: &'static str, why: impl Into<String>) {
        let mut agreed = self.0.lock();
        agreed.off.retain(|(other, _)| *other != what);
        agreed.off.push((what, why.into()));
    }
}
