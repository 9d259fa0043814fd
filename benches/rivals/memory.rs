//! What a daemon keeps in memory for each file that the kernel knows.

use std::fs;
use std::path::Path;

use super::Outcome;
use super::rival::{Place, Rival};

pub const NAME: &str = "memory";

/// Bytes for each of `files` files, once all have been seen.
pub fn per_file(rival: &Rival, place: &Place, files: usize) -> Outcome<f64> {
    let mounted = rival.mount(place, "")?;
    let daemon = mounted.daemon().ok_or("no daemon")?;
    let before = resident(daemon)?;
    let mut seen = 0;
    for dir in fs::read_dir(mounted.path())? {
        for entry in fs::read_dir(dir?.path())? {
            entry?.metadata()?;
            seen += 1;
        }
    }
    let after = resident(daemon)?;
    mounted.unmount()?;
    if seen != files {
        return Err(format!("{seen} files were seen").into());
    }
    Ok((after - before) / files as f64)
}

/// Resident bytes of a process.
fn resident(process: u32) -> Outcome<f64> {
    let status = fs::read_to_string(Path::new("/proc").join(process.to_string()).join("status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? * 1024.0)
}
