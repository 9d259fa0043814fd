//! The man page tells exactly the mount options that there are.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use plyfs::config::table::{OPTIONS, Value};

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

#[test]
fn the_man_page_tells_the_flags_of_the_command() {
    let page = page().replace(".Fl ", ".Fl").replace("\\-", "-");
    let image = |command: &'static str| vec!["image", command, "--help"];
    let images = ["import", "ls", "inspect", "history", "rm", "gc", "verify", "export"].map(image);
    let others = [
        &["--help"][..],
        &["mount", "--help"],
        &["umount", "--help"],
        &["run", "--help"],
        &["diff", "--help"],
        &["commit", "--help"],
        &["explain", "--help"],
    ]
    .map(<[_]>::to_vec);
    for command in others.into_iter().chain(images) {
        let output = Command::new(env!("CARGO_BIN_EXE_plyfs")).args(&command).output().unwrap();
        let help = String::from_utf8(output.stdout).unwrap();
        let flags =
            help.lines().filter_map(|line| line.trim().strip_prefix("--").or(line.split_once(", --").map(|x| x.1)));
        for flag in flags.filter_map(|line| line.split([' ', '=']).next()) {
            assert!(page.contains(&format!("-{flag}")), "--{flag} is not in the man page");
        }
    }
}

#[test]
fn mandoc_finds_nothing_wrong() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("man/plyfs.1");
    match Command::new("mandoc").arg("-Tlint").arg(page).output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stdout);
            // Whether the pages that it refers to are installed here is not its fault.
            let wrong: Vec<_> = said
                .lines()
                .filter(|line| line.contains("plyfs.1:") && !line.contains("referenced manual not found"))
                .collect();
            assert!(wrong.is_empty(), "{wrong:#?}");
        }
        Err(error) => eprintln!("SKIPPED: mandoc: {error}"),
    }
}
