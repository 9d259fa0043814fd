//! The overlay itself, without a mount: what it takes to look up, list, hide and copy up over 1 to 100 layers.
//!
//! `cargo bench --bench core`; the layers are made in the system's temporary directory.
#![allow(
    clippy::indexing_slicing,
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use plyfs::config::Config;
use plyfs::inode::numbers::ROOT;
use plyfs::ops::SetAttr;
use plyfs::overlay::{Caller, Overlay};
use tempfile::TempDir;

/// How many lower layers there are.
const LAYERS: [usize; 5] = [1, 3, 10, 30, 100];
/// Files in the lowest layer; each layer has as many again of its own where listings are merged.
const FILES: usize = 100;

/// Layers, and an overlay on them.
struct Bed {
    overlay: Arc<Overlay>,
    /// The node id of a directory that every layer has.
    dir: u64,
    _layers: TempDir,
}

impl Bed {
    /// The files are in the lowest layer, or `spread` over all.
    fn new(count: usize, spread: bool) -> Self {
        let layers = tempfile::tempdir().unwrap();
        let lowers: Vec<PathBuf> = (0..count).map(|number| layers.path().join(format!("l{number}"))).collect();
        for lower in &lowers {
            fs::create_dir_all(lower.join("d")).unwrap();
        }
        for file in 0..FILES {
            let lower = if spread { file % count } else { count - 1 };
            fs::write(lowers[lower].join(format!("d/f{file}")), [7; 4096]).unwrap();
        }
        let (upper, work) = (layers.path().join("upper"), layers.path().join("work"));
        fs::create_dir(&upper).unwrap();
        fs::create_dir(&work).unwrap();
        let config = Config { lowers, upper: Some(upper), work: Some(work), fsync: false, ..Config::default() };
        let overlay = Overlay::open(&config).unwrap();
        let dir = overlay.lookup(ROOT, b"d").unwrap().unwrap().ino;
        Self { overlay, dir, _layers: layers }
    }

    fn look_up(&self, prefix: &str) -> usize {
        let names = (0..FILES).map(|file| format!("{prefix}{file}"));
        names.filter(|name| self.overlay.lookup(self.dir, name.as_bytes()).unwrap().is_some()).count()
    }

    fn list(&self) -> usize {
        let mut count = 0;
        self.overlay
            .read_dir(self.dir, 0, true, |_| {
                count += 1;
                false
            })
            .unwrap();
        count
    }

    fn known(&self) -> Vec<u64> {
        (0..FILES)
            .map(|file| self.overlay.lookup(self.dir, format!("f{file}").as_bytes()).unwrap().unwrap().ino)
            .collect()
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.overlay.close();
    }
}

/// On a new overlay each time, made ready by `ready`.
fn fresh(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, spread: bool, ready: impl Fn(&Bed), run: impl Fn(&Bed)) {
    for count in LAYERS {
        group.bench_function(BenchmarkId::new(name, count), |bencher| {
            bencher.iter_batched_ref(
                || {
                    let bed = Bed::new(count, spread);
                    ready(&bed);
                    bed
                },
                |bed| run(bed),
                BatchSize::PerIteration,
            );
        });
    }
}

fn lookup(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("lookup");
    group.throughput(Throughput::Elements(FILES as u64)).sample_size(20);
    fresh(&mut group, "cold", false, |_| {}, |bed| assert_eq!(bed.look_up("f"), FILES));
    fresh(
        &mut group,
        "listed",
        false,
        |bed| assert_eq!(bed.list(), FILES + 2),
        |bed| assert_eq!(bed.look_up("f"), FILES),
    );
    fresh(&mut group, "missing", false, |_| {}, |bed| assert_eq!(bed.look_up("g"), 0));
    fresh(
        &mut group,
        "missing, listed",
        false,
        |bed| assert_eq!(bed.list(), FILES + 2),
        |bed| assert_eq!(bed.look_up("g"), 0),
    );
    for count in LAYERS {
        let bed = Bed::new(count, false);
        group.bench_function(BenchmarkId::new("warm", count), |bencher| bencher.iter(|| bed.look_up("f")));
    }
}

fn listing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("listing");
    group.throughput(Throughput::Elements(FILES as u64)).sample_size(20);
    fresh(&mut group, "cold", true, |_| {}, |bed| assert_eq!(bed.list(), FILES + 2));
    fresh(&mut group, "again", true, |bed| assert_eq!(bed.list(), FILES + 2), |bed| assert_eq!(bed.list(), FILES + 2));
}

fn changes(criterion: &mut Criterion) {
    let us = Caller {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        pid: std::process::id(),
    };
    let mut group = criterion.benchmark_group("changes");
    group.throughput(Throughput::Elements(FILES as u64)).sample_size(20);
    let known = |bed: &Bed| drop(bed.known());
    fresh(&mut group, "whiteout", false, known, |bed| {
        (0..FILES).for_each(|file| bed.overlay.unlink(bed.dir, format!("f{file}").as_bytes()).unwrap());
    });
    fresh(&mut group, "copy-up of 4 KiB, with its lookup", false, known, |bed| {
        for ino in bed.known() {
            let set = SetAttr { mode: Some(0o600), ..SetAttr::default() };
            bed.overlay.setattr(ino, &set, None, us).unwrap();
        }
    });
}

criterion_group!(benches, lookup, listing, changes);
criterion_main!(benches);
