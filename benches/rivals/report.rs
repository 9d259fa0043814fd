//! What was measured: as a table, as a plot, and as figures for other programs.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::rival::Rival;
use super::stats::{Sample, Spread, geometric_mean, ratios};
use super::workloads::{Group, Workload};
use super::{Args, Outcome, plot};

/// The samples of a workload, by rival.
pub struct Row {
    pub name: String,
    pub group: Group,
    pub samples: Vec<Vec<Sample>>,
}

impl Row {
    pub fn new(workload: &Workload, rivals: usize) -> Self {
        Self { name: workload.name.clone(), group: workload.group, samples: vec![Vec::new(); rivals] }
    }

    /// The time of a rival as a multiple of the kernel's.
    pub fn ratio(&self, rival: usize) -> Option<Spread> {
        ratios(&self.samples[rival], &self.samples[0])
    }

    /// Milliseconds of the kernel's overlayfs, in the median.
    fn kernel(&self) -> Option<f64> {
        let seconds: Option<Vec<f64>> = self.samples[0].iter().map(|sample| sample.clone().ok()).collect();
        Some(super::stats::spread(seconds?)?.median * 1000.0)
    }

    /// One line on a terminal.
    pub fn line(&self, rivals: &[Rival]) -> String {
        let parts = (1..rivals.len()).map(|number| format!("{} {}", rivals[number].name, cell(self.ratio(number))));
        format!("{}: {}", self.name, parts.collect::<Vec<_>>().join(", "))
    }

    /// Why a rival failed it.
    fn failure(&self, rival: usize) -> Option<&str> {
        self.samples[rival].iter().find_map(|sample| sample.as_ref().err()).map(String::as_str)
    }
}

fn cell(ratio: Option<Spread>) -> String {
    ratio.map_or("failed".to_owned(), |Spread { median, low, high }| format!("{median:.2} ({low:.2}–{high:.2})"))
}

/// All rows so far.
pub struct Report {
    pub rivals: Vec<String>,
    pub rows: Vec<Row>,
    /// Bytes for each file, by rival but for the kernel.
    pub memory: Vec<Result<f64, String>>,
    rounds: usize,
    rootless: bool,
}

impl Report {
    pub fn new(args: &Args, rivals: &[Rival]) -> Self {
        Self {
            rivals: rivals.iter().map(|rival| rival.name.clone()).collect(),
            rows: Vec::new(),
            memory: Vec::new(),
            rounds: args.rounds,
            rootless: args.rootless,
        }
    }

    /// `bench.md`, `bench.svg` and `bench.json`, with `-rootless` in their names where they were mounted so.
    pub fn write(&self, out: &Path) -> Outcome<()> {
        let name =
            |extension: &str| out.join(format!("bench{}.{extension}", if self.rootless { "-rootless" } else { "" }));
        fs::write(name("md"), self.markdown())?;
        fs::write(name("svg"), plot::svg(self))?;
        fs::write(name("json"), serde_json::to_string_pretty(&self.json())? + "\n")?;
        Ok(())
    }

    pub fn title(&self) -> String {
        let how = if self.rootless { "rootless, in a user namespace" } else { "as root" };
        format!("Time as a multiple of the kernel overlayfs's, {how}")
    }

    /// The geometric mean of a rival's medians in a group, or in all.
    pub fn mean(&self, rival: usize, group: Option<Group>) -> Option<f64> {
        let rows = self.rows.iter().filter(|row| group.is_none_or(|group| row.group == group));
        geometric_mean(rows.filter_map(|row| row.ratio(rival)).map(|ratio| ratio.median)).map(|(mean, _)| mean)
    }

    /// How many times as long a rival takes as the first in the list after the kernel, in the geometric mean of what both do.
    fn against_first(&self, rival: usize) -> Option<(f64, usize, usize)> {
        let medians: Vec<f64> =
            self.rows.iter().filter_map(|row| ratios(&row.samples[rival], &row.samples[1])).map(|r| r.median).collect();
        let ahead = medians.iter().filter(|median| **median > 1.0).count();
        geometric_mean(medians).map(|(mean, count)| (mean, ahead, count))
    }

    pub fn markdown(&self) -> String {
        let mut text = String::new();
        let samples = self.rounds * 2;
        // Writing to a string does not fail.
        let mut line = |cells: Vec<String>| writeln!(text, "| {} |", cells.join(" | ")).unwrap();
        let mut header = vec![format!("{} (median of {samples}, least–most)", self.title()), "kernel, ms".to_owned()];
        header.extend(self.rivals.iter().skip(1).cloned());
        let columns = header.len();
        line(header);
        line([vec!["---".to_owned()], vec!["---:".to_owned(); columns - 1]].concat());
        for group in Group::ALL {
            let rows: Vec<&Row> = self.rows.iter().filter(|row| row.group == group).collect();
            if rows.is_empty() {
                continue;
            }
            let mut cells = vec![format!("**{}**, geometric mean", group.title()), String::new()];
            cells.extend((1..self.rivals.len()).map(|rival| mean(self.mean(rival, Some(group)))));
            line(cells);
            for row in rows {
                let kernel = row.kernel().map_or("failed".to_owned(), |ms| format!("{ms:.1}"));
                let mut cells = vec![row.name.clone(), kernel];
                cells.extend((1..self.rivals.len()).map(|rival| cell(row.ratio(rival))));
                line(cells);
            }
        }
        let mut cells = vec!["**all**, geometric mean".to_owned(), String::new()];
        cells.extend((1..self.rivals.len()).map(|rival| mean(self.mean(rival, None))));
        line(cells);
        if !self.memory.is_empty() {
            let mut cells = vec!["bytes a file in the daemon, once walked".to_owned(), String::new()];
            cells.extend(
                self.memory
                    .iter()
                    .map(|bytes| bytes.as_ref().map_or_else(|_| "failed".to_owned(), |bytes| format!("{bytes:.0}"))),
            );
            line(cells);
        }
        if let Some(first) = self.rivals.get(1) {
            text.push('\n');
            for rival in 2..self.rivals.len() {
                if let Some((mean, ahead, count)) = self.against_first(rival) {
                    let name = &self.rivals[rival];
                    writeln!(
                        text,
                        "- {name} takes {mean:.2} times as long as {first} in the geometric mean; {first} is ahead in {ahead} \
                         of {count}."
                    )
                    .unwrap();
                }
            }
        }
        for (rival, name) in self.rivals.iter().enumerate() {
            let failed = self.rows.iter().filter_map(|row| Some((row, row.failure(rival)?)));
            let mut by_reason: Vec<(&str, Vec<&str>)> = Vec::new();
            for (row, reason) in failed {
                match by_reason.iter_mut().find(|(known, _)| *known == reason) {
                    Some((_, names)) => names.push(&row.name),
                    None => by_reason.push((reason, vec![&row.name])),
                }
            }
            for (reason, names) in by_reason {
                writeln!(text, "- {name} failed {}: {}", names.join("; "), reason.trim().replace('\n', " ")).unwrap();
            }
        }
        text
    }

    fn json(&self) -> Value {
        let figure = |figure: &Result<f64, String>| match figure {
            Ok(figure) => json!(figure),
            Err(reason) => json!({ "failed": reason }),
        };
        let rows = self.rows.iter().map(|row| {
            let by_rival = self
                .rivals
                .iter()
                .zip(&row.samples)
                .map(|(name, samples)| (name.clone(), samples.iter().map(figure).collect::<Value>()));
            json!({
                "workload": row.name,
                "group": row.group.title(),
                "seconds": by_rival.collect::<serde_json::Map<_, _>>(),
            })
        });
        let memory = self.rivals.iter().skip(1).zip(&self.memory);
        json!({
            "rootless": self.rootless,
            "rounds": self.rounds,
            "workloads": rows.collect::<Value>(),
            "bytes_per_file": memory.map(|(name, bytes)| (name.clone(), figure(bytes))).collect::<serde_json::Map<_, _>>(),
        })
    }
}

fn mean(mean: Option<f64>) -> String {
    mean.map_or(String::new(), |mean| format!("**{mean:.2}**"))
}
