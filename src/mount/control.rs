//! What is answered on the control socket.

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use crate::cache::{Caches, Counter};
use crate::control::Server;
use crate::control::protocol::{About, Ask, CacheStats, CopyUps, Off, Operation, Stats};
use crate::counters::Summary;
use crate::error::{Errno, Error, Result};
use crate::fuse::agreement::{Agreed, Agreement};
use crate::overlay::Overlay;

use super::about;

/// Serves the control socket of a mount; `None`, which the log tells, where there can be none: a mount is one without.
pub(super) fn serve(about: About, overlay: Arc<Overlay>, agreement: Arc<Agreement>) -> Option<Server> {
    let device = about.device;
    let mount = Mount { about, overlay, agreement };
    let served = Server::start(device, move |ask| mount.answer(ask));
    served.inspect_err(|error| log::warn!("no control socket: {error}")).ok()
}

/// The mount that is asked.
struct Mount {
    about: About,
    overlay: Arc<Overlay>,
    agreement: Arc<Agreement>,
}

impl Mount {
    fn answer(&self, ask: &Ask) -> Result<Value> {
        match ask {
            Ask::About => json(&self.about()),
            Ask::Stats => json(&self.stats()),
        }
    }

    fn about(&self) -> About {
        about::now(&self.about, self.overlay.counters.requests())
    }

    fn stats(&self) -> Stats {
        let overlay = &self.overlay;
        let counters = &overlay.counters;
        let (open, open_through) = overlay.open_files();
        let (inodes, lookups) = overlay.known();
        let Agreed { capabilities, off } = self.agreement.get();
        Stats {
            mount: self.about(),
            operations: counters.summaries().into_iter().map(operation).collect(),
            caches: caches(overlay.caches()),
            copy_ups: CopyUps {
                count: counters.copy_ups.get(),
                bytes: counters.copied.get(),
                metadata_only: counters.metadata_only.get(),
                reflinked: counters.reflinked.get(),
            },
            whiteouts: overlay.whiteouts_made(),
            open_through: open_through as u64,
            open_cached: open.saturating_sub(open_through) as u64,
            inodes: inodes as u64,
            lookups,
            capabilities: capabilities.into_iter().map(str::to_owned).collect(),
            off: off.into_iter().map(|(what, why)| Off { what: what.to_owned(), why }).collect(),
        }
    }
}

fn operation(summary: Summary) -> Operation {
    let Summary { op, requests, errors, total, times: [p50, p90, p99, max] } = summary;
    Operation { name: op.name().to_owned(), requests, errors, total, p50, p90, p99, max }
}

fn caches(caches: &Caches) -> Vec<CacheStats> {
    let cache = |name: &str, entries: usize, counter: &Counter| CacheStats {
        name: name.to_owned(),
        entries: entries as u64,
        hits: counter.hits(),
        misses: counter.misses(),
    };
    vec![
        cache("attributes", caches.attrs.len(), caches.attrs.counter()),
        cache("names", caches.names.len(), caches.names.counter()),
        cache("listings", caches.listings.names(), &caches.listings.counter),
        cache("directories", caches.dirs.len(), &caches.dirs.counter),
        cache("files", caches.files.len(), &caches.files.counter),
    ]
}

fn json(answer: &impl Serialize) -> Result<Value> {
    serde_json::to_value(answer).map_err(|error| Error::new(Errno::PROTO, "answer").because(error.to_string()))
}
