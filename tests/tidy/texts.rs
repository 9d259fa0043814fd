//! The rules on what is written for people. Each takes what it checks and returns what is wrong, a line each.

use std::collections::BTreeSet;
use std::path::Path;

use super::source::{Source, first_word};

/// Beginnings of paths that are somebody's own.
const PRIVATE: [&str; 6] = [
    concat!("/wo", "rk/"),
    concat!("/ho", "me/"),
    concat!("/ro", "ot/"),
    concat!("/Us", "ers/"),
    concat!("/tmp/ta", "rget"),
    concat!("/mnt/da", "ta"),
];

/// The names of all functions that are tests.
pub fn tests(source: &Source) -> BTreeSet<String> {
    let code = &source.code;
    let after = code.match_indices("#[test]").filter_map(|(at, _)| code[at..].split_once("fn "));
    after.map(|(_, name)| first_word(name).to_owned()).collect()
}

/// Every item of a list ends with `[test: NAME, …]`, and there are such tests.
pub fn claims(path: &Path, text: &str, tests: &BTreeSet<String>) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut items: Vec<(usize, String)> = Vec::new();
    let mut is_within = false;
    for (number, line) in text.lines().enumerate() {
        if let Some(item) = line.trim_start().strip_prefix("- ") {
            items.push((number + 1, item.to_owned()));
            is_within = true;
        } else if is_within && line.starts_with(' ') {
            if let Some((_, item)) = items.last_mut() {
                item.push(' ');
                item.push_str(line.trim());
            }
        } else {
            is_within = false;
        }
    }
    for (number, item) in items {
        let at = format!("{}:{number}", path.display());
        let names = item.trim_end().strip_suffix(']').and_then(|item| item.rsplit_once("[test: "));
        let Some((_, names)) = names else {
            wrong.push(format!("{at}: does not end with [test: …]"));
            continue;
        };
        let unknown = names.split(',').map(str::trim).filter(|name| !tests.contains(*name));
        wrong.extend(unknown.map(|name| format!("{at}: there is no test {name:?}")));
    }
    wrong
}

/// No path that one machine alone has.
pub fn private_paths(path: &Path, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for private in PRIVATE {
            // A path that starts there, not one that goes on.
            let is_start = |at: &usize| {
                let before = line[..*at].chars().next_back();
                !before.is_some_and(|c| c.is_alphanumeric() || "_-./~}*".contains(c))
            };
            if line.match_indices(private).map(|(at, _)| at).any(|at| is_start(&at)) {
                wrong.push(format!("{}:{}: a path of one machine: {private}", path.display(), number + 1));
            }
        }
    }
    wrong
}

#[test]
fn tests_are_known_by_name() {
    let source = Source::new("tests/x.rs", "#[test]\n#[ignore = \"slow\"]\nfn one() {}\n// #[test]\nfn two() {}\n");
    assert_eq!(tests(&source), BTreeSet::from(["one".to_owned()]));
}

#[test]
fn claims_without_a_test_are_found() {
    let tests = BTreeSet::from(["one".to_owned(), "two".to_owned()]);
    let check = |text: &str| claims(Path::new("x.md"), text, &tests);
    let none: [&str; 0] = [];
    assert_eq!(
        check("Text.\n\n- A claim. [test: one]\n- Another,\n  which is longer. [test: one,\n  two]\n\nText.\n"),
        none
    );
    assert_eq!(check("- A claim.\n\nText [test: one]\n"), ["x.md:1: does not end with [test: …]"]);
    assert_eq!(check("- A [test: one] claim.\n- B [test: two]"), ["x.md:1: does not end with [test: …]"]);
    assert_eq!(check("- A claim. [test: one, three]\n"), ["x.md:1: there is no test \"three\""]);
    assert_eq!(check("- A claim. [test: ]\n"), ["x.md:1: there is no test \"\""]);
}

#[test]
fn private_paths_are_found() {
    let check = |text: &str| private_paths(Path::new("x"), text);
    let (work, home) = (PRIVATE[0], PRIVATE[1]);
    assert_eq!(check(&format!("work{work}x ${{DIR}}{work} a{home}b")).len(), 0);
    assert_eq!(check(&format!("\ncd {work}main")), [format!("x:2: a path of one machine: {work}")]);
    assert_eq!(check(&format!("\"{home}me\"")), [format!("x:1: a path of one machine: {home}")]);
}
