//! `plyfs stats`: what a mount has done, and what it holds.

mod prometheus;

use crate::control::client;
use crate::control::protocol::{Ask, CacheStats, Operation, Stats};
use crate::error::Result;

use super::args::Stats as Args;
use super::image::show::json;
use super::print;
use super::ps::{bytes, escaped, scaled, since};

/// Prints them.
///
/// # Errors
/// That there is no such mount, or that it cannot be asked; those of printing.
pub(super) fn stats(args: &Args) -> Result<()> {
    let stats: Stats = client::of_mount(&args.mountpoint)?.ask(&Ask::Stats)?;
    if args.json {
        json(&stats)
    } else if args.prometheus {
        print(prometheus::text(&stats).trim_end())
    } else {
        lines(&stats).iter().try_for_each(|line| print(line))
    }
}

/// For people, no wider than 80 columns but for paths and reasons.
fn lines(stats: &Stats) -> Vec<String> {
    let about = &stats.mount;
    let layers = about.lowers.len().saturating_add(about.data_layers.len());
    let upper = if about.upper.is_some() { ", an upper" } else { "" };
    let mut lines = vec![
        format!("{}: {layers} lower layers{upper}, since {} UTC", escaped(&about.mountpoint), since(about.since)),
        format!(
            "daemon {}: {} of memory, {} descriptors, {} requests",
            about.pid,
            bytes(about.memory),
            about.descriptors,
            about.requests
        ),
        String::new(),
        format!(
            "{:<16} {:>10} {:>8} {:>8} {:>8} {:>8} {:>8}",
            "OPERATION", "REQUESTS", "ERRORS", "50 %", "90 %", "99 %", "LONGEST"
        ),
    ];
    lines.extend(stats.operations.iter().map(operation));
    lines.push(String::new());
    lines.push(format!("{:<16} {:>10} {:>8} {:>8} {:>8}", "CACHE", "ENTRIES", "HITS", "MISSES", "HIT RATE"));
    lines.extend(stats.caches.iter().map(cache));
    let copies = stats.copy_ups;
    lines.extend([
        String::new(),
        format!(
            "copy-ups      {}, {} of data; {} of metadata only, {} reflinked",
            copies.count,
            bytes(copies.bytes),
            copies.metadata_only,
            copies.reflinked
        ),
        format!("whiteouts     {}", stats.whiteouts),
        format!("open files    {} passed through, {} cached", stats.open_through, stats.open_cached),
        format!("kernel knows  {} inodes by {} lookups", stats.inodes, stats.lookups),
    ]);
    let agreed: Vec<String> =
        stats.capabilities.iter().map(|name| name.trim_start_matches("FUSE_").to_lowercase()).collect();
    lines.extend(labelled("agreed", &agreed));
    lines.extend(stats.off.iter().map(|off| format!("off           {}: {}", off.what, off.why)));
    lines
}

fn operation(operation: &Operation) -> String {
    let Operation { name, requests, errors, p50, p90, p99, max, .. } = operation;
    let [p50, p90, p99, max] = [p50, p90, p99, max].map(|time| duration(*time));
    format!("{name:<16} {requests:>10} {errors:>8} {p50:>8} {p90:>8} {p99:>8} {max:>8}")
}

fn cache(cache: &CacheStats) -> String {
    let rate = hit_rate(cache).map_or_else(|| "-".to_owned(), |rate| format!("{rate:.1} %"));
    format!("{:<16} {:>10} {:>8} {:>8} {rate:>8}", cache.name, cache.entries, cache.hits, cache.misses)
}

/// How many of a hundred questions a cache answered; `None` where there was none.
fn hit_rate(cache: &CacheStats) -> Option<f64> {
    let asked = cache.hits.saturating_add(cache.misses);
    (asked > 0).then(|| cache.hits as f64 * 100.0 / asked as f64)
}

/// A time in nanoseconds, in three digits and a unit.
fn duration(nanoseconds: u64) -> String {
    scaled(nanoseconds, &["ns", "us", "ms", "s"], 1000.0, 999.5)
}

/// Words on lines that are not too long, under one label.
fn labelled(label: &str, words: &[String]) -> Vec<String> {
    const WIDTH: usize = 79;
    const INDENT: usize = 14;
    let mut lines = Vec::new();
    let mut line = format!("{label:<INDENT$}");
    for word in words {
        if line.len().saturating_add(word.len()) > WIDTH && line.len() > INDENT {
            lines.push(line.trim_end().to_owned());
            line = " ".repeat(INDENT);
        }
        line.push_str(word);
        line.push(' ');
    }
    lines.push(line.trim_end().to_owned());
    lines
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::control::protocol::{About, CopyUps, Off, Text};

    /// Numbers of every kind.
    pub(in crate::cli) fn some() -> Stats {
        let operation = |name: &str, requests| Operation {
            name: name.to_owned(),
            requests,
            errors: 3,
            total: 2_500_000_000,
            p50: 13_311,
            p90: 27_000,
            p99: 1_500_000,
            max: 12_000_000_000,
        };
        let mount = About {
            program: "0.1.0".to_owned(),
            pid: 4711,
            uid: 0,
            mountpoint: Text::Text("/mnt/a \"b\"\\c\nd".to_owned()),
            source: Text::Text("plyfs".to_owned()),
            device: (0, 53),
            since: 1_700_000_000,
            upper: None,
            work: None,
            lowers: vec![Text::Text("/l".to_owned())],
            data_layers: Vec::new(),
            options: Vec::new(),
            read_only: true,
            image: None,
            requests: 12,
            memory: 20 << 20,
            descriptors: 17,
        };
        Stats {
            mount,
            operations: vec![operation("lookup", 5_000_000), operation("copy_file_range", 1)],
            caches: vec![
                CacheStats { name: "attributes".to_owned(), entries: 16_384, hits: 999, misses: 1 },
                CacheStats { name: "files".to_owned(), entries: 0, hits: 0, misses: 0 },
            ],
            copy_ups: CopyUps { count: 4, bytes: 5 << 30, metadata_only: 1, reflinked: 2 },
            whiteouts: 6,
            open_through: 1,
            open_cached: 2,
            inodes: 10,
            lookups: 20,
            capabilities: (0..20).map(|n| format!("FUSE_CAPABILITY_{n}")).collect(),
            off: vec![Off { what: "passthrough".to_owned(), why: "no privilege".to_owned() }],
        }
    }

    #[test]
    fn lines_fit_a_terminal_and_tell_all() {
        let lines = lines(&some());
        for line in &lines {
            assert!(line.chars().count() < 80 && !line.contains('\n'), "{line:?}");
        }
        let text = lines.join("\n");
        for told in [
            "5000000",
            "13us",
            "1.5ms",
            "12s",
            "99.9 %",
            "5.0G",
            "capability_19",
            "off           passthrough: no privilege",
        ] {
            assert!(text.contains(told), "{told} is not in\n{text}");
        }
    }

    #[test]
    fn times_are_short() {
        for (time, shown) in
            [(0, "0ns"), (999, "999ns"), (1000, "1.0us"), (13_311, "13us"), (999_600, "1.0ms"), (61_000_000_000, "61s")]
        {
            assert_eq!(duration(time), shown);
        }
    }
}
