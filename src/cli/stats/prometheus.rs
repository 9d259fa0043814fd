//! Numbers in the text format of Prometheus, version 0.0.4.

use std::fmt::Write;

use crate::control::protocol::{Operation, Stats};

/// Nanoseconds in a second.
const SECOND: f64 = 1e9;

/// All numbers, each family with what it is.
pub(super) fn text(stats: &Stats) -> String {
    let mut page = Page { text: String::new(), mountpoint: stats.mount.mountpoint.as_path().to_string_lossy().into() };
    let of_operations = |value: fn(&Operation) -> u64| -> Vec<Sample<'_>> {
        let sample = |operation| (vec![("operation", name_of(operation))], value(operation) as f64);
        stats.operations.iter().map(sample).collect()
    };
    page.summary(&stats.operations);
    page.family("request_errors_total", "counter", "Requests answered by an error.", &of_operations(|op| op.errors));
    for (name, help, value) in [
        ("cache_hits_total", "Questions answered from a cache.", 0),
        ("cache_misses_total", "Questions that a cache could not answer.", 1),
        ("cache_entries", "What a cache holds.", 2),
    ] {
        let samples: Vec<Sample<'_>> = stats
            .caches
            .iter()
            .map(|cache| {
                let value = match value {
                    0 => cache.hits,
                    1 => cache.misses,
                    _ => cache.entries,
                };
                (vec![("cache", cache.name.as_str())], value as f64)
            })
            .collect();
        page.family(name, if name.ends_with("_total") { "counter" } else { "gauge" }, help, &samples);
    }
    let copies = stats.copy_ups;
    for (name, help, value) in [
        ("copy_ups_total", "Copies made in the upper layer.", copies.count),
        ("copy_up_bytes_total", "Bytes of data that were copied up.", copies.bytes),
        ("copy_ups_metadata_only_total", "Copies without their data.", copies.metadata_only),
        ("copy_ups_reflinked_total", "Copies that share their data.", copies.reflinked),
        ("whiteouts_total", "Whiteouts made.", stats.whiteouts),
    ] {
        page.family(name, "counter", help, &[(Vec::new(), value as f64)]);
    }
    let open = [
        (vec![("mode", "passthrough")], stats.open_through as f64),
        (vec![("mode", "cached")], stats.open_cached as f64),
    ];
    page.family("open_files", "gauge", "Open files.", &open);
    for (name, help, value) in [
        ("inodes", "Inodes that the kernel knows.", stats.inodes),
        ("lookups", "Lookups that the kernel has not forgotten.", stats.lookups),
        ("memory_bytes", "Memory of the daemon.", stats.mount.memory),
        ("descriptors", "Descriptors that the daemon has open.", stats.mount.descriptors),
        ("start_time_seconds", "When it was mounted, in seconds since 1970.", stats.mount.since),
    ] {
        page.family(name, "gauge", help, &[(Vec::new(), value as f64)]);
    }
    page.text
}

/// Labels and a value.
type Sample<'a> = (Vec<(&'a str, &'a str)>, f64);

fn name_of(operation: &Operation) -> &str {
    &operation.name
}

struct Page {
    text: String,
    mountpoint: String,
}

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        self.line(&format!("# HELP plyfs_{name} {help}"));
        self.line(&format!("# TYPE plyfs_{name} {kind}"));
    }

    fn family(&mut self, name: &str, kind: &str, help: &str, samples: &[Sample<'_>]) {
        self.head(name, kind, help);
        for (labels, value) in samples {
            self.sample(name, labels, *value);
        }
    }

    fn summary(&mut self, operations: &[Operation]) {
        let name = "request_duration_seconds";
        self.head(name, "summary", "How long requests took, from their arrival to their answer.");
        for operation in operations {
            let Operation { p50, p90, p99, max, .. } = *operation;
            for (quantile, value) in [("0.5", p50), ("0.9", p90), ("0.99", p99), ("1", max)] {
                self.sample(name, &[("operation", &operation.name), ("quantile", quantile)], value as f64 / SECOND);
            }
            let labels = [("operation", operation.name.as_str())];
            self.sample(&format!("{name}_sum"), &labels, operation.total as f64 / SECOND);
            self.sample(&format!("{name}_count"), &labels, operation.requests as f64);
        }
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let mountpoint = ("mountpoint", self.mountpoint.as_str());
        let mut written = String::new();
        for (label, value) in [mountpoint].iter().chain(labels) {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let comma = if written.is_empty() { "" } else { "," };
            written.push_str(&format!("{comma}{label}=\"{value}\""));
        }
        self.line(&format!("plyfs_{name}{{{written}}} {value}"));
    }

    fn line(&mut self, line: &str) {
        // Writing to a string does not fail.
        writeln!(self.text, "{line}").ok();
    }
}

#[cfg(test)]
mod tests {
    use openmetrics_parser::prometheus::parse_prometheus;

    use super::super::tests::some;
    use super::*;

    #[test]
    fn a_parser_reads_back_every_number() {
        let text = text(&some());
        let page = parse_prometheus(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let names: Vec<&str> = page.families.keys().map(String::as_str).collect();
        assert!(names.len() >= 16, "{names:?}");
        for name in &names {
            assert!(name.starts_with("plyfs_"), "{name}");
            let family = &page.families[*name];
            assert!(!family.help.is_empty(), "{name}");
            for sample in family.iter_samples() {
                assert!(sample.get_labelset().unwrap().get_label_value("mountpoint").is_some(), "{name}");
            }
        }
        assert_eq!(page.families["plyfs_request_duration_seconds"].iter_samples().count(), 2);
        assert_eq!(page.families["plyfs_cache_hits_total"].iter_samples().count(), 2);
    }
}
