//! How far an import is: bars on a terminal, a line for each part elsewhere.

use std::collections::HashMap;
use std::io::IsTerminal;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use parking_lot::Mutex;

use crate::image::progress::Progress;

/// Shows it on standard error.
pub(super) struct Shown {
    bars: Option<MultiProgress>,
    running: Mutex<HashMap<String, ProgressBar>>,
}

impl Shown {
    pub(super) fn new() -> Self {
        let bars = std::io::stderr().is_terminal().then(MultiProgress::new);
        Self { bars, running: Mutex::default() }
    }

    fn line(&self, line: &str) {
        // Above the bars that are there; only what cannot be written is not shown.
        if self.bars.as_ref().is_none_or(|bars| bars.println(line).is_err()) {
            super::tell(line);
        }
    }
}

impl Progress for Shown {
    fn begin(&self, name: &str, size: u64) {
        let Some(bars) = &self.bars else { return };
        let style = ProgressStyle::with_template("{prefix} {bar:40} {bytes:>10}/{total_bytes} {bytes_per_sec:>14}");
        let bar = bars.add(ProgressBar::new(size)).with_prefix(name.to_owned());
        self.running.lock().insert(name.to_owned(), style.map_or(bar.clone(), |style| bar.with_style(style)));
    }

    fn advance(&self, name: &str, bytes: u64) {
        if let Some(bar) = self.running.lock().get(name) {
            bar.inc(bytes);
        }
    }

    fn end(&self, name: &str, line: &str) {
        if let Some(bar) = self.running.lock().remove(name) {
            bar.finish_and_clear();
        }
        self.line(&format!("layer {name}: {line}"));
    }

    fn note(&self, line: &str) {
        self.line(line);
    }
}
