//! The whole command line in one piece, and what is made of it: completions for shells, and man pages.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use clap::{Command, CommandFactory};
use clap_mangen::Man;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::error::{Error, Result};

use super::args::{Commit, Completions, Diff, Manual, Mount, Program, Ps, Run, Stats, Umount};
use super::image::args::Images;
use super::image::ended;
use super::inspect::args::{Check, Doctor, Explain};
use super::parse;

/// The command with everything that it can do. What is dispatched is listed here as well.
fn whole() -> Command {
    let subcommands = [
        ("mount", Mount::command()),
        ("umount", Umount::command()),
        ("run", Run::command()),
        ("diff", Diff::command()),
        ("commit", Commit::command()),
        ("image", Images::command()),
        ("explain", Explain::command()),
        ("check", Check::command()),
        ("doctor", Doctor::command()),
        ("ps", Ps::command()),
        ("stats", Stats::command()),
        ("completions", Completions::command()),
        ("man", Manual::command()),
    ];
    let named = subcommands.map(|(name, command)| command.name(name).disable_help_subcommand(true));
    let mut whole = Program::command().subcommands(named).disable_help_subcommand(true);
    whole.build();
    whole
}

/// `plyfs completions`
pub(super) fn completions(args: &[OsString]) -> Result<ExitCode, ExitCode> {
    let args = parse::<Completions>(args)?;
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut whole(), "plyfs", &mut script);
    let written = io::Write::write_all(&mut io::stdout(), &script);
    Ok(ended(written.map(|()| ExitCode::SUCCESS).map_err(|error| Error::from(error).on("standard output"))))
}

/// `plyfs man`
pub(super) fn man(args: &[OsString]) -> Result<ExitCode, ExitCode> {
    let args = parse::<Manual>(args)?;
    let date = args.source_date_epoch.and_then(|time| Timestamp::from_second(time).ok());
    let date = date.unwrap_or_else(Timestamp::now).to_zoned(TimeZone::UTC).date().to_string();
    let write = || {
        fs::create_dir_all(&args.dir).map_err(|error| Error::from(error).on(args.dir.display().to_string()))?;
        whole().get_subcommands().try_for_each(|command| write_page(&args.dir, "plyfs", command, &date))
    };
    Ok(ended(write().map(|()| ExitCode::SUCCESS)))
}

/// Writes the page of a command, and those of what is below it.
fn write_page(dir: &Path, above: &str, command: &Command, date: &str) -> Result<()> {
    let title = format!("{above}-{}", command.get_name());
    let path = dir.join(format!("{title}.1"));
    let man = Man::new(command.clone().display_name(&title))
        .title(title.to_uppercase())
        .date(date)
        .source(format!("plyfs {}", env!("CARGO_PKG_VERSION")))
        .manual("General Commands Manual");
    let render = || {
        let mut page = Vec::new();
        man.render_title(&mut page)?;
        man.render_name_section(&mut page)?;
        man.render_synopsis_section(&mut page)?;
        man.render_description_section(&mut page)?;
        man.render_options_section(&mut page)?;
        if command.has_subcommands() {
            man.render_subcommands_section(&mut page)?;
        }
        page.extend_from_slice(b".SH SEE ALSO\n.BR plyfs (1)\n");
        fs::write(&path, tidy(&String::from_utf8_lossy(&page)))
    };
    render().map_err(|error| Error::from(error).on(path.display().to_string()))?;
    command.get_subcommands().try_for_each(|command| write_page(dir, &title, command, date))
}

/// The same page as mandoc(1) likes it: no space at the end of a line, no break beside a space, no line that is too long.
fn tidy(page: &str) -> String {
    const WIDTH: usize = 78;
    let lines: Vec<&str> = page.lines().map(str::trim_end).collect();
    let is_space = |at: Option<usize>| at.and_then(|at| lines.get(at)).is_some_and(|line| matches!(*line, "" | ".sp"));
    let mut tidied = String::with_capacity(page.len());
    for (at, line) in lines.iter().enumerate() {
        if *line == ".br" && (is_space(at.checked_sub(1)) || is_space(at.checked_add(1))) {
            continue;
        }
        let mut column = 0_usize;
        for (index, word) in line.split(' ').enumerate() {
            let fits =
                column.saturating_add(word.len()) < WIDTH || line.starts_with('.') || word.starts_with(['.', '\'']);
            if index > 0 && fits {
                tidied.push(' ');
            } else if index > 0 {
                tidied.push('\n');
                column = 0;
            }
            tidied.push_str(word);
            column = column.saturating_add(word.len()).saturating_add(1);
        }
        tidied.push('\n');
    }
    tidied
}
