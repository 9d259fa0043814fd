//! The man page tells exactly the mount options that there are, and every subcommand has a page of its own.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use plyfs::config::table::{OPTIONS, Value};
use tempfile::TempDir;

fn page() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("man/plyfs.1")).unwrap()
}

/// The names that head the items of the section on mount options, and whether a value follows each.
fn described(page: &str) -> BTreeSet<(String, bool)> {
    let section = page.split(".Sh ").find(|section| section.starts_with("MOUNT OPTIONS")).unwrap();
    let mut names = BTreeSet::new();
    for line in section.lines().filter_map(|line| line.strip_prefix(".It Cm ")) {
        // Names have commas between them; `Ns` goes on with the value of the one before.
        for item in line.split(" , ") {
            let mut words = item.split(' ').filter(|word| *word != "Cm");
            let name = words.next().unwrap();
            names.insert((name.to_owned(), words.next() == Some("Ns")));
        }
    }
    names
}

#[test]
fn the_man_page_has_every_option_and_no_other() {
    let told = described(&page());
    let names = |set: &BTreeSet<(String, bool)>| set.iter().map(|(name, _)| name.clone()).collect::<BTreeSet<_>>();
    let there: BTreeSet<String> = OPTIONS.iter().flat_map(|spec| spec.names).map(|name| (*name).to_owned()).collect();
    let missing: Vec<_> = there.difference(&names(&told)).cloned().collect();
    let extra: Vec<_> = names(&told).difference(&there).cloned().collect();
    assert!(missing.is_empty() && extra.is_empty(), "not in the man page: {missing:?}; only there: {extra:?}");
    for spec in OPTIONS {
        for name in spec.names {
            let shows = |with| told.contains(&((*name).to_owned(), with));
            match spec.value {
                Value::No => assert!(shows(false), "{name} has no value"),
                Value::Needed(_) => assert!(shows(true), "{name} needs a value"),
                Value::Allowed(_) => {}
            }
        }
    }
}

#[test]
fn the_help_has_every_option() {
    let output = Command::new(env!("CARGO_BIN_EXE_plyfs")).arg("--help").output().unwrap();
    assert!(output.status.success());
    let help = String::from_utf8(output.stdout).unwrap();
    let options = help.split("Mount options:").nth(1).unwrap();
    let words: BTreeSet<&str> = options.split(|c: char| c.is_whitespace() || ",=[".contains(c)).collect();
    for name in OPTIONS.iter().flat_map(|spec| spec.names) {
        assert!(words.contains(name), "{name} is not in --help");
    }
}

/// The pages of the subcommands, as the command writes them.
fn pages() -> &'static TempDir {
    static PAGES: OnceLock<TempDir> = OnceLock::new();
    PAGES.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let output =
            Command::new(env!("CARGO_BIN_EXE_plyfs")).arg("man").arg(dir.path()).env("SOURCE_DATE_EPOCH", "0").output();
        assert!(output.unwrap().status.success());
        dir
    })
}

/// The subcommands that have a page, each as its words.
fn commands() -> Vec<Vec<String>> {
    let names = std::fs::read_dir(pages().path()).unwrap().map(|entry| entry.unwrap().file_name());
    let words = |name: OsString| {
        let words = name.to_str().unwrap().strip_suffix(".1").unwrap().split('-').skip(1);
        words.map(str::to_owned).collect()
    };
    let mut commands: Vec<Vec<String>> = names.map(words).collect();
    commands.sort();
    commands
}

#[test]
fn every_subcommand_has_a_page_and_no_other() {
    let source = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli.rs")).unwrap();
    let words = source.lines().filter_map(|line| line.trim().strip_prefix("Some(\""));
    let dispatched: BTreeSet<&str> =
        words.filter(|line| line.contains("\") =>")).map(|line| line.split('"').next().unwrap()).collect();
    let commands = commands();
    let paged: BTreeSet<&str> = commands.iter().map(|words| words[0].as_str()).collect();
    let dispatched = dispatched.into_iter().filter(|word| !word.is_empty()).collect::<BTreeSet<_>>();
    assert!(dispatched.len() > 5, "few subcommands are found: {dispatched:?}");
    assert_eq!(paged, dispatched, "src/cli/whole.rs lists the subcommands that src/cli.rs knows");
    for words in &commands {
        let output = Command::new(env!("CARGO_BIN_EXE_plyfs")).args(words).arg("--help").output().unwrap();
        let help = String::from_utf8(output.stdout).unwrap();
        assert!(help.contains(&format!("Usage: plyfs {}", words.join(" "))), "{words:?}: {help}");
    }
}

#[test]
fn the_pages_of_subcommands_tell_their_flags_and_their_date() {
    for words in commands() {
        let path = pages().path().join(format!("plyfs-{}.1", words.join("-")));
        let page = std::fs::read_to_string(path).unwrap();
        assert!(page.contains(" 1 1970-01-01 \"plyfs "), "{page}");
        let plain = page.replace("\\-", "-");
        for flag in flags(&words) {
            assert!(plain.contains(&format!("--{flag}")), "--{flag} is not in the page of {words:?}");
        }
    }
}

/// The long flags that the help of a command tells.
fn flags(words: &[String]) -> Vec<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_plyfs")).args(words).arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let flags = help.lines().filter_map(|line| line.trim().strip_prefix("--").or(line.split_once(", --").map(|x| x.1)));
    flags.filter_map(|line| line.split([' ', '=']).next()).map(str::to_owned).collect()
}

#[test]
fn the_man_page_tells_the_flags_of_the_command() {
    let page = page().replace(".Fl ", ".Fl").replace("\\-", "-");
    for words in commands().into_iter().chain([Vec::new()]) {
        for flag in flags(&words) {
            assert!(page.contains(&format!("-{flag}")), "--{flag} is not in the man page");
        }
    }
}

#[test]
fn mandoc_finds_nothing_wrong() {
    let hand_written = Path::new(env!("CARGO_MANIFEST_DIR")).join("man/plyfs.1");
    let pages = std::fs::read_dir(pages().path()).unwrap().map(|entry| entry.unwrap().path());
    for page in pages.chain([hand_written]) {
        match Command::new("mandoc").arg("-Tlint").arg(&page).output() {
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stdout);
                // Whether the pages that it refers to are installed here is not its fault.
                let wrong: Vec<_> = said
                    .lines()
                    .filter(|line| line.contains(".1:") && !line.contains("referenced manual not found"))
                    .collect();
                assert!(wrong.is_empty(), "{wrong:#?}");
            }
            Err(error) => return eprintln!("SKIPPED: mandoc: {error}"),
        }
    }
}
