//! Hands the data of a small lower file to the kernel with its first open, instead of waiting to be asked for it: one
//! request less for the data, and one for the attributes, as a READ makes the kernel forget the access time.
//!
//! The kernel puts the data into its page cache (`FUSE_NOTIFY_STORE`) and waits for its pages meanwhile, so that it must be
//! certain that nobody else has to do with the file. Otherwise we would wait for ourselves where a READ of those pages is on
//! its way, or put old data over new. So whoever opens or truncates a file is counted where his request arrives, in order;
//! with several threads that read requests there is no such order.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use fuser::{INodeNo, Notifier};
use parking_lot::Mutex;

use crate::ops::Opened;
use crate::overlay::Overlay;

/// The longest file, in bytes: what the kernel reads ahead from the beginning of a file.
const MOST: usize = 128 << 10;

/// Who has to do with the data of which files.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// How many, by node id.
    users: Mutex<HashMap<u64, usize>>,
    notifier: OnceLock<Notifier>,
}

impl Ahead {
    /// Has data handed over from now on. To be called where one thread only reads requests.
    pub(super) fn turn_on(&self, notifier: Notifier) {
        if self.notifier.set(notifier).is_err() {
            log::debug!("data is handed over already");
        }
    }

    /// Notes that somebody is about to open or truncate `ino`, until the result is dropped.
    pub(super) fn enter(self: &Arc<Self>, ino: u64) -> Entered {
        let mut users = self.users.lock();
        let count = users.entry(ino).or_default();
        *count = count.saturating_add(1);
        Entered { ahead: Arc::clone(self), ino: Some(ino) }
    }

    /// Notes that one who was [kept](Entered::keep) has closed `ino`.
    pub(super) fn leave(&self, ino: u64) {
        let mut users = self.users.lock();
        let left = users.get_mut(&ino).map(|count| {
            *count = count.saturating_sub(1);
            *count
        });
        if left == Some(0) {
            users.remove(&ino);
        }
    }

    /// Hands the data of `ino` over, which was just opened by one who has entered.
    pub(super) fn hand_over(&self, overlay: &Overlay, ino: u64, opened: &Opened, buffer: &mut Vec<u8>) {
        let Some(notifier) = self.notifier.get() else { return };
        if self.users.lock().get(&ino) != Some(&1) {
            return;
        }
        let data = match overlay.read_first(opened, MOST, buffer) {
            Ok(data) => data,
            // It will be asked for, and the error told.
            Err(error) => return log::debug!("{error}"),
        };
        if let Some(data) = data
            && let Err(error) = notifier.store(INodeNo(ino), 0, data)
        {
            log::debug!("the kernel takes no data: {error}");
        }
    }
}

/// One who has to do with a file's data.
#[derive(Debug)]
#[must_use]
pub(super) struct Entered {
    ahead: Arc<Ahead>,
    /// `None` once he is kept.
    ino: Option<u64>,
}

impl Entered {
    /// He has opened it, and will close it.
    pub(super) fn keep(mut self) {
        self.ino = None;
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        if let Some(ino) = self.ino {
            self.ahead.leave(ino);
        }
    }
}
