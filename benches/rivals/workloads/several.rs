//! Four processes at once, in one directory and in one each.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::super::Outcome;
use super::metadata::create;
use super::{Bed, Group, Workload};

const PROCESSES: usize = 4;
/// The first argument of a process that works for a workload.
pub const WORKER: &str = "worker";

pub fn all() -> Vec<Workload> {
    let dirs = |bed: &Bed<'_>| (0..PROCESSES).try_for_each(|number| Ok(fs::create_dir_all(bed.srv(&dir(number)))?));
    vec![
        Workload::new(Group::First, "4 processes list and stat", |bed| {
            all_at_once("walk", |number| (bed.srv("small").display().to_string(), number.to_string()))
        }),
        Workload::new(Group::Change, "4 processes create in one directory", |bed| {
            all_at_once("create", |number| (format!("{}/p{number}-", bed.srv(&dir(0)).display()), share(bed)))
        })
        .after(dirs),
        Workload::new(Group::Change, "4 processes create in one directory each", |bed| {
            all_at_once("create", |number| (format!("{}/", bed.srv(&dir(number)).display()), share(bed)))
        })
        .after(dirs),
    ]
}

fn dir(number: usize) -> String {
    format!("several/{number}")
}

fn share(bed: &Bed<'_>) -> String {
    (bed.scale.changed / PROCESSES).to_string()
}

fn all_at_once(kind: &str, arguments: impl Fn(usize) -> (String, String)) -> Outcome<()> {
    let program = std::env::current_exe()?;
    let start = |number| {
        let (path, count) = arguments(number);
        Command::new(&program).args([WORKER, kind, &path, &count]).spawn()
    };
    let children = (0..PROCESSES).map(start).collect::<Result<Vec<_>, _>>()?;
    let mut failed = false;
    for mut child in children {
        failed |= !child.wait()?.success();
    }
    if failed { Err("a process failed".into()) } else { Ok(()) }
}

/// What such a process does.
pub fn work(mut arguments: impl Iterator<Item = String>) -> Outcome<()> {
    let mut next = || arguments.next().ok_or("worker KIND PATH NUMBER");
    let (kind, path, number) = (next()?, next()?, next()?.parse::<usize>()?);
    match kind.as_str() {
        "create" => {
            let (dir, prefix) = path.rsplit_once('/').ok_or("no path")?;
            // The prefix keeps names of one directory apart.
            (0..number).try_for_each(|file| Ok(fs::write(format!("{dir}/{prefix}{file}"), [7; 1024])?))
        }
        "walk" => {
            let mut dirs = fs::read_dir(Path::new(&path))?.collect::<Result<Vec<_>, _>>()?;
            // Each begins elsewhere.
            let middle = dirs.len() * number / PROCESSES;
            dirs.rotate_left(middle);
            for dir in dirs {
                for entry in fs::read_dir(dir.path())? {
                    entry?.metadata()?;
                }
            }
            Ok(())
        }
        _ => create(Path::new(&path), number),
    }
}
