//! The workloads, and how one is timed.

mod data;
mod metadata;
mod programs;
mod several;

pub use several::{WORKER, work};

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use super::Outcome;
use super::layers::Scale;

/// The options of workloads that are about changes of attributes only.
pub const METACOPY: &str = "metacopy=on";

/// A new mount, and what lies on it.
#[derive(Debug)]
pub struct Bed<'a> {
    pub mnt: PathBuf,
    /// A directory that is not on the mount.
    pub beside: PathBuf,
    pub scale: &'a Scale,
}

impl Bed<'_> {
    /// A path of the layer of data.
    pub fn srv(&self, path: &str) -> PathBuf {
        self.mnt.join("srv").join(path)
    }
}

/// What kind of work it is, which decides what is to be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    Again,
    First,
    Change,
    CopyUp,
    Data,
    Program,
}

impl Group {
    pub const ALL: [Self; 6] = [Self::Again, Self::First, Self::Change, Self::CopyUp, Self::Data, Self::Program];

    pub fn title(self) -> &'static str {
        match self {
            Self::Again => "touched before",
            Self::First => "first touch",
            Self::Change => "changes",
            Self::CopyUp => "copy-up",
            Self::Data => "data",
            Self::Program => "programs",
        }
    }
}

type Step = Box<dyn Fn(&Bed<'_>) -> Outcome<()>>;

/// Something that a filesystem is used for.
pub struct Workload {
    pub name: String,
    pub group: Group,
    pub options: &'static str,
    prepare: Vec<Step>,
    run: Step,
}

impl Workload {
    fn new(group: Group, name: impl Into<String>, run: impl Fn(&Bed<'_>) -> Outcome<()> + 'static) -> Self {
        Self { name: name.into(), group, options: "", prepare: Vec::new(), run: Box::new(run) }
    }

    /// Does something before, which is not timed.
    fn after(mut self, prepare: impl Fn(&Bed<'_>) -> Outcome<()> + 'static) -> Self {
        self.prepare.push(Box::new(prepare));
        self
    }

    /// The seconds that it takes.
    pub fn time(&self, bed: &Bed<'_>) -> Outcome<f64> {
        self.prepare.iter().try_for_each(|prepare| prepare(bed))?;
        if bed.scale.settles {
            // What others, or the preparation, left to be written is not to be waited for in here.
            rustix::fs::syncfs(fs::File::open(&bed.beside)?)?;
        }
        let start = Instant::now();
        (self.run)(bed)?;
        Ok(start.elapsed().as_secs_f64())
    }
}

/// The same work for the first time, and once it has been done twice, as the first time moves access times.
fn first_and_again(name: &str, run: fn(&Bed<'_>) -> Outcome<()>) -> [Workload; 2] {
    [
        Workload::new(Group::First, format!("{name}, first"), run),
        Workload::new(Group::Again, format!("{name}, again"), run).after(run).after(run),
    ]
}

/// All workloads, in the order of the table.
pub fn all() -> Vec<Workload> {
    let mut all = metadata::all();
    all.extend(programs::all());
    all.extend(several::all());
    all.extend(data::all());
    // As the table groups them.
    all.sort_by_key(|workload| Group::ALL.iter().position(|group| *group == workload.group));
    all
}
