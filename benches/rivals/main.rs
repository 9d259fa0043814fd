//! Times workloads on the kernel's overlayfs, plyfs, and other overlays in userspace, by turns.
//!
//! `scripts/bench` builds the layers and runs this. Each workload runs on every rival in turn, there and back again
//! (A B C C B A), on a new mount each time; ratios are taken within one turn, so that what else the machine does falls on
//! both sides. A workload that a rival fails is reported as failed, and the run goes on.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod layers;
mod memory;
mod plot;
mod report;
mod rival;
mod stats;
mod workloads;

use std::fs;
use std::path::PathBuf;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};

use layers::Scale;
use report::{Report, Row};
use rival::{Place, Rival};
use workloads::Workload;

/// Any error, which is only ever shown.
type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

#[derive(Debug, Parser)]
#[command(about = "Times workloads on plyfs and its rivals by turns; see scripts/bench")]
struct Args {
    /// Lower layers that are there, topmost first; one of data is laid over them
    #[arg(long, value_delimiter = ':')]
    layers: Vec<PathBuf>,
    /// A directory for uppers and mounts, on one filesystem with the layers
    #[arg(long)]
    dir: PathBuf,
    /// Where the table, the plot and the figures go
    #[arg(long)]
    out: PathBuf,
    /// Rivals as NAME=PROGRAM; the kernel's overlayfs is always there
    #[arg(long = "rival")]
    rivals: Vec<Rival>,
    /// Only workloads whose name contains one of these
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Turns there and back again
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Little data, to see that all works
    #[arg(long)]
    quick: bool,
    /// Files that are walked to measure memory, in thousands
    #[arg(long, value_name = "THOUSANDS")]
    walked: Option<usize>,
    /// Fails where plyfs keeps more bytes for each file walked
    #[arg(long, value_name = "BYTES")]
    most: Option<f64>,
    /// The mounts are made in a user namespace
    #[arg(long)]
    rootless: bool,
    /// Given by cargo bench
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let result = match arguments.next().as_deref() {
        Some(workloads::WORKER) => workloads::work(arguments),
        // `cargo test --benches`
        None => return eprintln!("SKIPPED: run by scripts/bench"),
        Some("--test") => return,
        Some(_) => run(&Args::parse()),
    };
    if let Err(error) = result {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

fn run(args: &Args) -> Outcome<()> {
    let mut scale = if args.quick { Scale::QUICK } else { Scale::FULL };
    scale.walked = args.walked.map_or(scale.walked, |thousands| thousands * 1000);
    let mut rivals = vec![Rival::kernel()];
    rivals.extend(args.rivals.iter().cloned());
    let wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|part| name.contains(part.as_str()));
    let all = workloads::all();
    let chosen: Vec<&Workload> = all
        .iter()
        .filter(|workload| wanted(&workload.name) && !(workload.options == workloads::METACOPY && args.rootless))
        .collect();
    fs::create_dir_all(&args.out)?;
    let data = args.dir.join("data");
    layers::build(&data, &scale)?;
    let mut lowers = vec![data];
    lowers.extend(args.layers.iter().cloned());

    let progress = Progress::new(chosen.len() * args.rounds * 2 * rivals.len());
    let mut report = Report::new(args, &rivals);
    for workload in chosen {
        progress.says(&workload.name);
        let mut row = Row::new(workload, rivals.len());
        for turn in 0..args.rounds * 2 {
            let mut order: Vec<usize> = (0..rivals.len()).collect();
            if turn % 2 == 1 {
                order.reverse();
            }
            for number in order {
                let place = Place::new(&args.dir, &lowers, args.rootless)?;
                let sample = time(workload, &rivals[number], &place, &scale);
                row.samples[number].push(sample.map_err(|error| error.to_string()));
                progress.step();
            }
        }
        progress.line(&row.line(&rivals));
        report.rows.push(row);
        // What was measured so far is not lost with what comes.
        report.write(&args.out)?;
    }
    if wanted(memory::NAME) {
        progress.says(memory::NAME);
        let tree = args.dir.join("many");
        layers::many(&tree, scale.walked)?;
        for rival in rivals.iter().skip(1) {
            let place = Place::new(&args.dir, std::slice::from_ref(&tree), args.rootless)?;
            report.memory.push(memory::per_file(rival, &place, scale.walked).map_err(|error| error.to_string()));
        }
        report.write(&args.out)?;
    }
    progress.end();
    println!("{}", report.markdown());
    match (args.most, report.memory.first()) {
        (Some(_), None) => Err("memory was not measured".into()),
        (Some(_), Some(Err(reason))) => Err(reason.clone().into()),
        (Some(most), Some(Ok(bytes))) if *bytes > most => Err(format!("{bytes:.0} bytes a file").into()),
        _ => Ok(()),
    }
}

/// The seconds that a workload takes on a new mount.
fn time(workload: &Workload, rival: &Rival, place: &Place, scale: &Scale) -> Outcome<f64> {
    let mounted = rival.mount(place, workload.options)?;
    let bed = workloads::Bed { mnt: mounted.path().to_owned(), beside: place.dir().to_owned(), scale };
    let seconds = workload.time(&bed);
    let unmounted = mounted.unmount();
    let seconds = seconds?;
    unmounted?;
    Ok(seconds)
}

/// A bar on a terminal, a line for each workload elsewhere.
struct Progress(ProgressBar);

impl Progress {
    fn new(steps: usize) -> Self {
        let bar = ProgressBar::new(steps as u64);
        let style = ProgressStyle::with_template("{bar:32.cyan/black.bright} {percent:>3} %  {eta:>4} left  {msg}");
        bar.set_style(style.expect("a template").progress_chars("━╸━"));
        Self(bar)
    }

    fn says(&self, name: &str) {
        self.0.set_message(name.to_owned());
    }

    fn step(&self) {
        self.0.inc(1);
    }

    fn line(&self, line: &str) {
        if self.0.is_hidden() { eprintln!("{line}") } else { self.0.println(line) }
    }

    fn end(&self) {
        self.0.finish_and_clear();
    }
}
