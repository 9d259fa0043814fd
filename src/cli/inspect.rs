//! `plyfs explain`, `check` and `doctor`: looking into overlays without mounting them, and at the machine.

pub(super) mod args;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use crate::config::Config;
use crate::doctor::{State, examine};
use crate::error::Result;
use crate::inspect::check::{Finding, check as check_upper};
use crate::inspect::explain::{Explanation, LayerView, explain as explain_path};
use crate::mount::{Failure, covering};

use self::args::{Check, Doctor, Explain};
use super::image::{ended, show};
use super::{options, parse, print, refuse, say};

/// `plyfs explain`
pub(super) fn explain(args: &[OsString]) -> Result<ExitCode, ExitCode> {
    let args = parse::<Explain>(args)?;
    if args.options.is_empty() {
        return Err(without_options(&args.path));
    }
    let config = config(&args.options)?;
    let run = || {
        let explanation = explain_path(&config, &args.path)?;
        if args.json { show::json(&explanation) } else { tell(&explanation) }
    };
    Ok(ended(run().map(|()| ExitCode::SUCCESS)))
}

/// What mount options say of the layers. An upper without a work directory can be looked at as well.
fn config(lists: &[OsString]) -> Result<Config, ExitCode> {
    let mut options = options(lists)?;
    let alone = if options.config.work.is_none() { options.config.upper.take() } else { None };
    options.finish().map_err(refuse)?;
    options.config.upper = options.config.upper.or(alone);
    for warning in &options.warnings {
        say(&Failure::new(warning.as_str()).to_string());
    }
    Ok(options.config)
}

fn without_options(path: &Path) -> ExitCode {
    let line = match covering(path) {
        Ok(Some(mountpoint)) => format!(
            "{}: on the mount at {}: name its layers, and the path within it (plyfs explain -o lowerdir=… PATH)",
            path.display(),
            mountpoint.display()
        ),
        Ok(None) => format!(
            "{}: not on a mount of plyfs: name the layers of an overlay (plyfs explain -o lowerdir=… PATH)",
            path.display()
        ),
        Err(failure) => failure.to_string(),
    };
    say(&Failure::new(line).to_string());
    ExitCode::FAILURE
}

/// Writes an explanation for people.
fn tell(explained: &Explanation) -> Result<()> {
    let shows = explained.shows.unwrap_or("not there");
    print(&format!("{}: {shows}; {}", explained.path, explained.why))?;
    for line in &explained.way {
        print(&format!("  on the way  {line}"))?;
    }
    let width = explained.layers.iter().map(|view| view.layer.len()).max().unwrap_or_default();
    for view in &explained.layers {
        print(&format!("  {:width$}  {}: {}", view.layer, view.path.display(), sentence(view)))?;
    }
    if let Some(data) = &explained.data {
        let what = if explained.shows == Some("file") { "data" } else { "is" };
        print(&format!("  {what:width$}  {}", data.display()))?;
    }
    for (index, line) in explained.write.iter().enumerate() {
        let what = if index == 0 { "write" } else { "" };
        print(&format!("  {what:width$}  {line}"))?;
    }
    Ok(())
}

/// What a layer says, and what follows from it.
fn sentence(view: &LayerView) -> String {
    let says = &view.says;
    let mut parts = vec![match says.whiteout {
        Some(form) => format!("{} ({form})", says.is),
        None => says.is.to_owned(),
    }];
    parts.extend(says.size.map(|size| format!("{size} bytes")));
    parts.extend(says.mode.iter().zip(&says.owner).map(|(mode, owner)| format!("{mode} {owner}")));
    parts.extend(says.links.map(|links| format!("{links} links")));
    parts.extend(says.opaque.map(|form| format!("opaque ({form})")));
    parts.extend(says.redirect.as_ref().map(|target| format!("redirect to {target}")));
    parts.extend(says.metacopy.then(|| "metacopy, its data is further below".to_owned()));
    parts.extend(says.origin.as_ref().map(|origin| format!("origin {origin}")));
    parts.extend(says.notes.iter().cloned());
    let beyond = view.beyond.map(|is| format!(" (and a {is} at the whole path)")).unwrap_or_default();
    format!("{} -> {}{beyond}", parts.join(", "), view.verdict)
}

/// `plyfs check`
pub(super) fn check(args: &[OsString]) -> Result<ExitCode, ExitCode> {
    let args = parse::<Check>(args)?;
    let mut options = options(&args.options)?;
    options.config.upper = Some(args.upper.clone());
    if args.work.is_some() {
        options.config.work.clone_from(&args.work);
    }
    for warning in &options.warnings {
        say(&Failure::new(warning.as_str()).to_string());
    }
    let run = || {
        let findings = check_upper(&options.config, args.repair)?;
        if args.json {
            show::json(&findings)?;
        } else {
            findings.iter().try_for_each(|finding| print(&line(finding)))?;
        }
        let is_whole = !findings.iter().any(Finding::is_left);
        Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    };
    Ok(ended(run()))
}

/// A finding on one line.
fn line(finding: &Finding) -> String {
    let end = match (&finding.repair, finding.repaired, finding.is_info) {
        (Some(repair), true, _) => format!(" [{repair}]"),
        (Some(_), false, _) => " [--repair mends it]".to_owned(),
        (None, _, false) => " [left as it is, to lose nothing]".to_owned(),
        (None, _, true) => String::new(),
    };
    format!("{}: {}: {}{end}", finding.path, finding.kind, finding.what)
}

/// `plyfs doctor`
pub(super) fn doctor(args: &[OsString]) -> Result<ExitCode, ExitCode> {
    let args = parse::<Doctor>(args)?;
    let run = || {
        let checks = examine(args.upper.as_deref())?;
        if args.json {
            show::json(&checks)?;
        } else {
            for check in &checks {
                let state = match check.state {
                    State::Ok => "ok     ",
                    State::Lacking => "lacking",
                    State::Broken => "BROKEN ",
                };
                let hint = check.hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
                print(&format!("{state}  {:<17} {}{hint}", check.name, check.what))?;
            }
        }
        let works = checks.iter().all(|check| check.state != State::Broken);
        Ok(if works { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    };
    Ok(ended(run()))
}
