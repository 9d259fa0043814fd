//! Rust source, read just closely enough to tell code from comments, strings and tests.

use std::ops::Range;
use std::path::{Path, PathBuf};

/// A file of the project, its path relative to the project's root.
#[derive(Debug)]
pub struct Source {
    pub path: PathBuf,
    /// What the file says.
    pub text: String,
    /// The same, line by line, with blanks for comments and for what literals hold.
    pub code: String,
    /// The code without what is compiled for tests only.
    pub product: String,
    /// Lines of each inline module of tests.
    pub test_modules: Vec<Range<usize>>,
}

impl Source {
    pub fn new(path: impl AsRef<Path>, text: &str) -> Self {
        let code = blank_comments_and_literals(text);
        let mut product = code.clone();
        let mut test_modules = Vec::new();
        for item in test_items(&code) {
            let line = |at: usize| code[..at].matches('\n').count();
            if code[item.clone()].contains('{') && has_word(&code[item.clone()], "mod") {
                test_modules.push(line(item.start)..line(item.end) + 1);
            }
            product.replace_range(item.clone(), &blanks(&code[item]));
        }
        let path = path.as_ref().to_owned();
        if is_test_file(&path) {
            product = blanks(&code);
        }
        Self { path, text: text.to_owned(), code, product, test_modules }
    }

    /// Whether the whole file is compiled for tests only.
    pub fn is_test(&self) -> bool {
        is_test_file(&self.path)
    }

    /// The modules from the crate down to this file's: `ops`, `rename` for `src/ops/rename.rs`.
    pub fn module(&self) -> Vec<String> {
        let path = self.path.with_extension("");
        path.iter().skip(1).map(|part| part.to_string_lossy().into_owned()).collect()
    }
}

fn is_test_file(path: &Path) -> bool {
    path.starts_with("src") && path.with_extension("").iter().any(|part| part == "tests")
}

/// Blanks of the same shape.
fn blanks(text: &str) -> String {
    text.chars().map(|c| if c == '\n' { c.to_string() } else { " ".repeat(c.len_utf8()) }).collect()
}

/// Positions of `word` in `code` where it is no part of a longer word.
pub fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    code.match_indices(word)
        .map(|(at, _)| at)
        .filter(move |at| !is_part(code[..*at].chars().next_back()) && !is_part(code[at + word.len()..].chars().next()))
}

pub fn has_word(code: &str, word: &str) -> bool {
    words(code, word).next().is_some()
}

/// The word that `text` starts with.
pub fn first_word(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

/// The number of the line, from 1, at a position.
pub fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// Items under `#[cfg(test)]` or `#[cfg(all(test, …))]`.
fn test_items(code: &str) -> Vec<Range<usize>> {
    let mut items: Vec<Range<usize>> = Vec::new();
    for (start, _) in code.match_indices("#[cfg(") {
        let attribute = closed(code, start + 1);
        let condition = &code[start..attribute];
        if items.last().is_some_and(|last| last.contains(&start))
            || !(condition.starts_with("#[cfg(test)") || condition.starts_with("#[cfg(all(test,"))
        {
            continue;
        }
        let mut end = attribute;
        loop {
            match code[end..].find(['{', ';', '(', '[']).map(|more| end + more) {
                Some(at) if code[at..].starts_with('{') => break end = closed(code, at),
                Some(at) if code[at..].starts_with(';') => break end = at + 1,
                Some(at) => end = closed(code, at),
                None => break end = code.len(),
            }
        }
        items.push(start..end);
    }
    items
}

/// Where the bracket at `open` has been closed.
pub fn closed(code: &str, open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, c) in code[open..].char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' if depth == 1 => return open + at + 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    code.len()
}

fn blank_comments_and_literals(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let (length, is_code) = match c {
            '/' if rest.starts_with("//") => (rest.find('\n').unwrap_or(rest.len()), false),
            '/' if rest.starts_with("/*") => (block_comment(rest), false),
            '"' => (string(rest), false),
            '\'' => match char_literal(rest) {
                Some(length) => (length, false),
                None => (1, true),
            },
            // A word is taken whole, so that the prefix of a raw string is not mistaken for the end of a word.
            _ if c.is_alphanumeric() || c == '_' => {
                let word = first_word(rest);
                let after = &rest[word.len()..];
                match word {
                    "r" | "br" | "cr" if after.starts_with(['"', '#']) => match raw_string(after) {
                        Some(length) => (word.len() + length, false),
                        None => (word.len(), true),
                    },
                    _ => (word.len(), true),
                }
            }
            _ => (c.len_utf8(), true),
        };
        let (taken, left) = rest.split_at(length);
        if is_code {
            code.push_str(taken)
        } else {
            code.push_str(&blanks(taken))
        }
        rest = left;
    }
    code
}

fn block_comment(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

fn string(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => drop(chars.next()),
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of `#"…"#`, or none for a raw identifier.
fn raw_string(text: &str) -> Option<usize> {
    let hashes = text.len() - text.trim_start_matches('#').len();
    if !text[hashes..].starts_with('"') {
        return None;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    Some(text[hashes + 1..].find(&end).map_or(text.len(), |at| hashes + 1 + at + end.len()))
}

/// The length of a character literal, or none for a lifetime.
fn char_literal(text: &str) -> Option<usize> {
    let mut chars = text.char_indices().skip(1);
    let (_, first) = chars.next()?;
    if first == '\\' {
        chars.next();
        return chars.find(|(_, c)| *c == '\'').map(|(at, _)| at + 1);
    }
    chars.next().filter(|(_, c)| *c == '\'').map(|(at, _)| at + 1)
}

#[test]
fn comments_and_literals_are_not_code() {
    let text = "a(\"un\\\"wrap\"); // b\n/* c /* d */ e */ f('x', '\\'', 'life) r#\"g\"h\"# r#i \u{e4}";
    let code = Source::new("src/x.rs", text).code;
    assert_eq!(code.len(), text.len());
    let seen: Vec<&str> = code.split_whitespace().collect();
    assert_eq!(seen, ["a(", ");", "f(", ",", ",", "'life)", "r#i", "\u{e4}"]);
}

#[test]
fn test_items_are_no_product() {
    let text = "one();\n#[cfg(test)]\nuse two;\n#[cfg(test)]\n#[path = \"x\"]\nmod three {\n    fn f(a: [u8; 2]) { four() }\n}\n\
                #[cfg(not(test))]\nfive();\n#[cfg(all(test, feature = \"x\"))]\nfn six(a: [u8; 2]) -> u8 { 6 }\nseven();\n";
    let source = Source::new("src/x.rs", text);
    let seen: String = source.product.split_whitespace().collect();
    assert_eq!(seen, "one();#[cfg(not(test))]five();seven();");
    assert_eq!(source.test_modules, [Range { start: 3, end: 8 }]);
    assert_eq!(source.product.lines().count(), text.lines().count());
    assert!(Source::new("src/ops/tests/x.rs", text).product.trim().is_empty());
    assert!(Source::new("src/ops/tests.rs", text).product.trim().is_empty());
}

#[test]
fn words_are_whole() {
    assert_eq!(words("fuser fuser_x xfuser (fuser)", "fuser").collect::<Vec<_>>(), [0, 22]);
}
