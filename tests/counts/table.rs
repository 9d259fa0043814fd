//! The tables of docs/PERFORMANCE.md, which are what the tests expect.
//!
//! `PLYFS_COUNTS=write` writes down what was counted instead of comparing it; `PLYFS_COUNTS=print` only prints it, as for
//! another program that `PLYFS_TEST_BIN` names.

use std::fs;
use std::path::Path;
use std::sync::Mutex;

/// Compares what was counted with the first table below a heading.
#[track_caller]
pub fn check(heading: &str, columns: &[&str], rows: &[Vec<String>]) {
    static FILE: Mutex<()> = Mutex::new(());
    let _alone = FILE.lock();
    let counted = markdown(columns, rows);
    let mode = std::env::var("PLYFS_COUNTS").unwrap_or_default();
    if mode == "print" {
        println!("{}", counted.join("\n"));
        return;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/PERFORMANCE.md");
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let at = lines.iter().position(|line| *line == heading).unwrap_or_else(|| panic!("no heading {heading:?}"));
    let start = at + lines[at..].iter().position(|line| line.starts_with('|')).expect("a table");
    let end = start + lines[start..].iter().take_while(|line| line.starts_with('|')).count();
    if mode == "write" {
        let counted = counted.iter().map(String::as_str);
        let text: Vec<&str> =
            lines[..start].iter().copied().chain(counted).chain(lines[end..].iter().copied()).collect();
        fs::write(&path, text.join("\n") + "\n").unwrap();
        return;
    }
    let wrong: Vec<String> = difference(&lines[start..end], &counted);
    assert!(
        wrong.is_empty(),
        "docs/PERFORMANCE.md, {heading:?}: not what was counted. If it is to change, run this again with \
         PLYFS_COUNTS=write.\n{}",
        wrong.join("\n")
    );
}

fn markdown(columns: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let line = |cells: &[String]| format!("| {} |", cells.join(" | "));
    let header: Vec<String> = columns.iter().map(|column| (*column).to_owned()).collect();
    let mut lines = vec![line(&header), line(&vec!["---".to_owned(); columns.len()])];
    lines.extend(rows.iter().map(|row| line(row)));
    lines
}

/// The lines of either that the other lacks.
fn difference(expected: &[&str], counted: &[String]) -> Vec<String> {
    let gone = expected.iter().filter(|line| !counted.iter().any(|other| other == *line));
    let new = counted.iter().filter(|line| !expected.contains(&line.as_str()));
    gone.map(|line| format!("expected {line}")).chain(new.map(|line| format!("counted  {line}"))).collect()
}

#[test]
fn tables_that_differ_are_told_apart() {
    let table = markdown(&["a", "b"], &[vec!["1".to_owned(), "2".to_owned()]]);
    assert_eq!(table, ["| a | b |", "| --- | --- |", "| 1 | 2 |"]);
    assert!(difference(&["| a | b |", "| --- | --- |", "| 1 | 2 |"], &table).is_empty());
    assert_eq!(
        difference(&["| a | b |", "| --- | --- |", "| 1 | 3 |"], &table),
        ["expected | 1 | 3 |", "counted  | 1 | 2 |"]
    );
}
