//! `plyfs ps`: the mounts of this user, or all for root.

use jiff::Timestamp;
use rustix::process::geteuid;
use serde::Serialize;

use crate::control::client::{self, State};
use crate::control::protocol::{About, Ask, Text};
use crate::error::{Error, Result};
use crate::mounts;
use crate::name::on_one_line;

use super::args::Ps;
use super::image::show::json;
use super::print;

/// A mount, as it is printed.
#[derive(Debug, Serialize)]
struct Row {
    mountpoint: Text,
    /// What keeps it from being told more of; nothing for a mount that answers.
    state: &'static str,
    #[serde(flatten)]
    about: Option<About>,
}

/// Lists them.
///
/// # Errors
/// Those of reading the list of mounts and of printing.
pub(super) fn ps(args: &Ps) -> Result<()> {
    let rows = rows()?;
    if args.json {
        return json(&rows);
    }
    if rows.is_empty() {
        return Ok(());
    }
    print(&format!(
        "{:<32} {:>6} {:<16} {:>7} {:>9} {}",
        "MOUNTPOINT", "LAYERS", "SINCE", "MEMORY", "REQUESTS", "IMAGE"
    ))?;
    for row in &rows {
        let mountpoint = escaped(&row.mountpoint);
        let Some(about) = &row.about else {
            print(&format!("{mountpoint:<32} {}", row.state))?;
            continue;
        };
        let image = about.image.as_ref().map(|image| format!("{} ({})", image.name, image.container));
        let line = format!(
            "{mountpoint:<32} {:>6} {:<16} {:>7} {:>9} {}",
            layers(about).len(),
            since(about.since),
            bytes(about.memory),
            about.requests,
            image.unwrap_or_default()
        );
        print(line.trim_end())?;
        if args.layers {
            for (what, layer) in layers(about) {
                print(&format!("  {what:<5} {}", escaped(layer)))?;
            }
        }
    }
    Ok(())
}

fn rows() -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut answered = Vec::new();
    for socket in client::sockets() {
        match socket.ask::<About>(&Ask::About) {
            Ok(about) => {
                answered.push(about.device);
                rows.push(Row { mountpoint: about.mountpoint.clone(), state: "serving", about: Some(about) });
            }
            // Of a dead daemon: its mount is told below, if it is still there.
            Err(error) => log::debug!("{error}"),
        }
    }
    let table = mounts::list().map_err(|error| Error::from(error).on("/proc/self/mountinfo"))?;
    for entry in table.iter().filter(|entry| entry.kind == mounts::TYPE && !answered.contains(&entry.device)) {
        let state = match client::state(entry) {
            State::OfAnother => continue,
            State::Dead => "dead: plyfs umount takes it away",
            State::Mute => "no control socket",
        };
        rows.push(Row { mountpoint: Text::from(entry.path.as_path()), state, about: None });
    }
    rows.sort_by(|one, other| one.mountpoint.as_path().cmp(other.mountpoint.as_path()));
    log::debug!("{} mounts of user {}", rows.len(), geteuid().as_raw());
    Ok(rows)
}

/// The layers, topmost first, and what each is.
fn layers(about: &About) -> Vec<(&'static str, &Text)> {
    let upper = about.upper.iter().map(|layer| ("upper", layer));
    let lowers = about.lowers.iter().map(|layer| ("lower", layer));
    upper.chain(lowers).chain(about.data_layers.iter().map(|layer| ("data", layer))).collect()
}

/// A path on one line.
pub(super) fn escaped(path: &Text) -> String {
    on_one_line(&path.as_path().to_string_lossy())
}

/// A point in time, to the minute.
pub(super) fn since(seconds: u64) -> String {
    let time = i64::try_from(seconds).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    time.map(|time| time.strftime("%Y-%m-%d %H:%M").to_string()).unwrap_or_default()
}

/// A number of bytes, in three digits and a unit.
pub(super) fn bytes(bytes: u64) -> String {
    scaled(bytes, &["B", "K", "M", "G", "T"], 1024.0, 1000.0)
}

/// A number in the first unit in which it is below `most`; each is `step` times the one before.
pub(super) fn scaled(number: u64, units: &[&str], step: f64, most: f64) -> String {
    let mut value = number as f64;
    let mut units = units.iter();
    let mut unit = units.next().copied().unwrap_or_default();
    let mut is_first = true;
    for larger in units {
        if value < most {
            break;
        }
        value /= step;
        (unit, is_first) = (larger, false);
    }
    let digits = usize::from(value < 9.95 && !is_first);
    format!("{value:.digits$}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_bytes_are_short() {
        for (number, shown) in [(0, "0B"), (999, "999B"), (1024, "1.0K"), (40 << 20, "40M"), (5_000_000_000, "4.7G")] {
            assert_eq!(bytes(number), shown);
        }
    }
}
