//! The rules on source files. Each takes what it checks and returns what is wrong, a line each.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{Source, closed, first_word, has_word, line_of, words};

/// Lines of code that a file may have, its tests not counted.
const FILE_LINES: usize = 600;
/// Lines that a module of tests within a file may have.
const TEST_MODULE_LINES: usize = 200;
/// Lines of code that there may be between a SAFETY comment and its `unsafe`.
const SAFETY_LINES: usize = 3;

/// Where each module lives: its floor, and its place on it from the left.
pub type Floors = BTreeMap<String, (usize, usize)>;

/// Reads the table of floors from the documentation of the crate, and the modules from its code.
pub fn floors(lib: &Source) -> Result<Floors, Vec<String>> {
    let mut floors = Floors::new();
    let mut wrong = Vec::new();
    for line in lib.text.lines() {
        let Some((floor, modules)) = line.strip_prefix("//! F").and_then(|line| line.split_once(' ')) else { continue };
        let Ok(floor) = floor.parse() else { continue };
        for (place, module) in modules.split_whitespace().enumerate() {
            if floors.insert(module.to_owned(), (floor, place)).is_some() {
                wrong.push(format!("src/lib.rs: {module} is on two floors"));
            }
        }
    }
    let there: BTreeSet<&str> = words(&lib.product, "mod").map(|at| first_word(&lib.product[at + 4..])).collect();
    for module in floors.keys().filter(|module| !there.contains(module.as_str())) {
        wrong.push(format!("src/lib.rs: there is no module {module}, but it has a floor"));
    }
    for module in there.iter().filter(|module| !floors.contains_key(**module)) {
        wrong.push(format!("src/lib.rs: the module {module} has no floor"));
    }
    if wrong.is_empty() { Ok(floors) } else { Err(wrong) }
}

/// Imports go down, and within a floor to the left.
pub fn imports(floors: &Floors, source: &Source) -> Vec<String> {
    let path = source.module();
    let [module, ..] = &path[..] else { return Vec::new() };
    // The roots are not part of the house: they see all of it.
    let Some(own) = floors.get(module) else {
        let is_root = path.len() == 1 && (module == "lib" || module == "main");
        return if is_root { Vec::new() } else { vec![at(source, 0, &format!("the module {module} has no floor"))] };
    };
    let mut wrong = Vec::new();
    for (position, name) in modules_named(&source.product, path.len()) {
        match floors.get(name) {
            Some(_) if name == module => {}
            Some(other) if other < own => {}
            Some(other) if other.0 == own.0 => {
                wrong.push(at(source, position, &format!("{name} is to the right of {module} on floor {}", own.0)));
            }
            Some(_) => wrong.push(at(source, position, &format!("{name} is above {module}"))),
            None => wrong.push(at(source, position, &format!("crate::{name} has no floor"))),
        }
    }
    wrong
}

/// The modules of the crate that the code of a file names, `depth` levels below the crate.
fn modules_named(code: &str, depth: usize) -> Vec<(usize, &str)> {
    let up = "super::".repeat(depth);
    let by_super = code.match_indices(&up).filter(|(at, _)| !code[..*at].ends_with("super::"));
    let mut found = Vec::new();
    for (start, root) in code.match_indices("crate::").chain(by_super) {
        let mut at = start + root.len();
        if !code[at..].starts_with('{') {
            found.push((start, first_word(&code[at..])));
            continue;
        }
        // A group: the first word of each of its members.
        let end = closed(code, at);
        while at + 1 < end {
            at += 1;
            at += code[at..end].len() - code[at..end].trim_start().len();
            let name = first_word(&code[at..end]);
            if !name.is_empty() {
                found.push((at, name));
            }
            at = next_member(code, at, end);
        }
    }
    found
}

/// The comma before the next member of a group, or the group's end.
fn next_member(code: &str, mut at: usize, end: usize) -> usize {
    while at < end {
        match code.as_bytes()[at] {
            b',' => return at,
            b'{' => at = closed(code, at),
            _ => at += 1,
        }
    }
    end
}

/// Only the adapter knows the crate that speaks FUSE.
pub fn fuser(source: &Source) -> Vec<String> {
    if source.module().first().is_some_and(|module| module == "fuse") {
        return Vec::new();
    }
    words(&source.code, "fuser").map(|position| at(source, position, "fuser is for src/fuse only")).collect()
}

/// `unsafe` is for one room, and each has its reason above it.
pub fn unsafety(source: &Source) -> Vec<String> {
    let is_room = source.module().first().is_some_and(|module| module == "sys");
    let lines: Vec<&str> = source.text.lines().collect();
    let code: Vec<&str> = source.code.lines().collect();
    let mut wrong = Vec::new();
    for position in words(&source.code, "unsafe") {
        let line = line_of(&source.code, position);
        if !is_room {
            wrong.push(at(source, position, "unsafe is for src/sys only"));
        } else if !has_reason(&lines, &code, line - 1) {
            wrong.push(at(source, position, "unsafe without a SAFETY comment"));
        }
    }
    wrong
}

fn has_reason(lines: &[&str], code: &[&str], line: usize) -> bool {
    let above = |from: usize| (0..from).rev();
    let comment = above(line)
        .take(SAFETY_LINES)
        .take_while(|above| !has_word(code[*above], "unsafe"))
        .find(|above| lines[*above].trim_start().starts_with("//"));
    comment.is_some_and(|last| {
        above(last + 1)
            .map(|above| lines[above].trim_start())
            .take_while(|line| line.starts_with("//"))
            .any(|line| line.strip_prefix("// SAFETY: ").is_some_and(|reason| !reason.trim().is_empty()))
    })
}

/// The modules that reach layers, and what else of the crate for system calls they may use: it is no call on a layer.
const REACH_LAYERS: [&str; 10] =
    ["at", "cache", "copy_up", "inode", "layer", "listing", "ops", "overlay", "resolve", "scan"];
const NO_CALLS_ON_LAYERS: [&str; 5] = ["flock", "fstatfs", "major", "makedev", "minor"];

/// Layers are reached by the calls of one module, where each can be made to fail.
pub fn calls(source: &Source) -> Vec<String> {
    if !source.module().first().is_some_and(|module| REACH_LAYERS.contains(&module.as_str())) {
        return Vec::new();
    }
    let code = &source.product;
    let mut wrong = Vec::new();
    for root in ["rustix::fs::", "rustix::io::", "std::fs::"] {
        for (start, _) in code.match_indices(root) {
            let rest = start + root.len();
            let names: Vec<&str> = if code[rest..].starts_with('{') {
                code[rest + 1..closed(code, rest)].split(',').map(|name| first_word(name.trim())).collect()
            } else {
                vec![first_word(&code[rest..])]
            };
            let is_call = |name: &&str| name.starts_with(char::is_lowercase) && !NO_CALLS_ON_LAYERS.contains(name);
            for name in names.into_iter().filter(is_call) {
                wrong.push(at(source, start, &format!("{root}{name}: layers are reached by crate::calls")));
            }
        }
    }
    wrong
}

/// Locks know their place in the order, but for those around the overlay, under which none of its own is taken.
pub fn locks(source: &Source) -> Vec<String> {
    let around = ["cli", "fuse", "image", "lock", "mount"];
    if source.module().first().is_some_and(|module| around.contains(&module.as_str())) {
        return Vec::new();
    }
    let found = ["parking_lot", "sync::Mutex", "sync::RwLock"].into_iter().flat_map(|lock| {
        source
            .product
            .match_indices(lock)
            .map(move |(position, _)| at(source, position, &format!("{lock}: use crate::lock")))
    });
    let groups = source.product.match_indices("std::sync::{").flat_map(|(start, root)| {
        let group = start + root.len() - 1;
        let names = source.product[group..closed(&source.product, group)].split([',', '{']).map(str::trim);
        names
            .map(first_word)
            .filter(|name| ["Mutex", "RwLock"].contains(name))
            .map(|name| at(source, start, &format!("sync::{name}: use crate::lock")))
            .collect::<Vec<_>>()
    });
    found.chain(groups).collect()
}

/// Files and their modules of tests are small.
pub fn size(source: &Source) -> Vec<String> {
    let mut wrong = Vec::new();
    let tests: usize = source.test_modules.iter().map(|lines| lines.len()).sum();
    let lines = source.text.lines().count() - tests;
    if !source.is_test() && lines > FILE_LINES {
        wrong.push(at(source, 0, &format!("{lines} lines of code; at most {FILE_LINES}")));
    }
    for module in source.test_modules.iter().filter(|module| module.len() > TEST_MODULE_LINES) {
        let message = format!("{} lines of tests within a file; at most {TEST_MODULE_LINES}", module.len());
        wrong.push(format!("{}:{}: {message}", source.path.display(), module.start + 1));
    }
    wrong
}

/// Every file says what it is.
pub fn heading(source: &Source) -> Vec<String> {
    let said = source.text.lines().next().and_then(|line| line.strip_prefix("//! "));
    if said.is_some_and(|said| !said.trim().is_empty()) {
        return Vec::new();
    }
    vec![at(source, 0, "does not start with a line of //!")]
}

/// The daemon does not panic.
pub fn unwraps(source: &Source) -> Vec<String> {
    let calls = [".unwrap()", ".expect(", ".unwrap_err()", ".expect_err("];
    let found = calls.iter().flat_map(|call| source.product.match_indices(call));
    found.map(|(position, call)| at(source, position, &format!("{call} outside of tests"))).collect()
}

/// Modules of tests are compiled for tests only.
pub fn test_modules(source: &Source) -> Vec<String> {
    let mods = words(&source.product, "mod").filter(|at| first_word(&source.product[at + 4..]) == "tests");
    mods.map(|position| at(source, position, "a module of tests without #[cfg(test)]")).collect()
}

fn at(source: &Source, position: usize, what: &str) -> String {
    format!("{}:{}: {what}", source.path.display(), line_of(&source.text, position))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIB: &str =
        "//! F0  error name\n//! F1  layer\n//! F5  fuse\nmod error;\npub mod fuse;\nmod layer;\nmod name;\n";

    fn house() -> Floors {
        floors(&Source::new("src/lib.rs", LIB)).unwrap()
    }

    #[track_caller]
    fn finds(rule: impl Fn(&Source) -> Vec<String>, path: &str, text: &str, expected: &[&str]) {
        assert_eq!(rule(&Source::new(path, text)), expected, "{path}:\n{text}");
    }

    #[test]
    fn every_module_has_one_floor() {
        assert_eq!(house().len(), 4);
        assert_eq!(house()["name"], (0, 1));
        let wrong = |text: &str| floors(&Source::new("src/lib.rs", text)).unwrap_err();
        assert_eq!(wrong(&format!("{LIB}mod new;\n")), ["src/lib.rs: the module new has no floor"]);
        assert_eq!(
            wrong(&LIB.replace("error name", "error name gone")),
            ["src/lib.rs: there is no module gone, but it has a floor"]
        );
        assert_eq!(wrong(&LIB.replace("F1  layer", "F1  layer name")), ["src/lib.rs: name is on two floors"]);
    }

    #[test]
    fn imports_up_and_to_the_right_are_found() {
        let house = house();
        let rule = |source: &Source| imports(&house, source);
        finds(rule, "src/layer.rs", "use crate::error::Error;\nuse crate::name;", &[]);
        finds(rule, "src/layer/marks.rs", "use crate::layer::Layer;\nuse super::Stack;", &[]);
        finds(rule, "src/name.rs", "use crate::error;", &[]);
        finds(rule, "src/error.rs", "use crate::name;", &["src/error.rs:1: name is to the right of error on floor 0"]);
        finds(rule, "src/name.rs", "\nuse crate::layer::Layer;", &["src/name.rs:2: layer is above name"]);
        finds(rule, "src/layer/marks.rs", "fn f(x: crate::fuse::X) {}", &["src/layer/marks.rs:1: fuse is above layer"]);
        finds(
            rule,
            "src/layer/marks.rs",
            "use crate::{\n    error::{self, Fuse},\n    fuse::X,\n};",
            &["src/layer/marks.rs:3: fuse is above layer"],
        );
        finds(rule, "src/layer.rs", "use super::fuse;", &["src/layer.rs:1: fuse is above layer"]);
        finds(
            rule,
            "src/layer/marks.rs",
            "use super::{a, b};\nuse super::super::fuse;",
            &["src/layer/marks.rs:2: fuse is above layer"],
        );
        finds(rule, "src/layer.rs", "use crate::nowhere;", &["src/layer.rs:1: crate::nowhere has no floor"]);
        finds(rule, "src/new.rs", "", &["src/new.rs:1: the module new has no floor"]);
        finds(rule, "src/main.rs", "use plyfs::fuse;", &[]);
    }

    #[test]
    fn tests_comments_and_strings_may_name_what_is_above() {
        let house = house();
        let rule = |source: &Source| imports(&house, source);
        let text = "// crate::fuse\nconst A: &str = \"crate::fuse\";\n#[cfg(test)]\nmod tests { use crate::fuse; }";
        finds(rule, "src/name.rs", text, &[]);
        finds(rule, "src/name/tests.rs", "use crate::fuse;", &[]);
    }

    #[test]
    fn fuser_is_found_outside_of_its_room() {
        finds(fuser, "src/fuse.rs", "use fuser::Session;", &[]);
        finds(fuser, "src/fuse/reply.rs", "use fuser::Session;", &[]);
        finds(fuser, "src/mount.rs", "//! Not fuser.\nuse crate::fuse::fuser_session;", &[]);
        finds(fuser, "src/mount.rs", "fn f(_: ::fuser::X) {}", &["src/mount.rs:1: fuser is for src/fuse only"]);
    }

    #[test]
    fn unsafe_is_found_outside_of_its_room_and_without_a_reason() {
        finds(unsafety, "src/at.rs", "#![deny(unsafe_code)]\n// unsafe\n", &[]);
        finds(unsafety, "src/at.rs", "// SAFETY: no.\nunsafe { f() }", &["src/at.rs:2: unsafe is for src/sys only"]);
        let bare = &["src/sys/x.rs:3: unsafe without a SAFETY comment"];
        finds(unsafety, "src/sys/x.rs", "// SAFETY: sound,\n// as follows.\nlet x =\n    unsafe { f() };", &[]);
        finds(unsafety, "src/sys/x.rs", "\n\nunsafe { f() }", bare);
        finds(unsafety, "src/sys/x.rs", "// SAFETY:\n\nunsafe { f() }", bare);
        finds(unsafety, "src/sys/x.rs", "// SAFETY: of the first.\nunsafe { f() }\nunsafe { f() }", bare);
        finds(
            unsafety,
            "src/sys.rs",
            "// Quick.\n\nunsafe { f() }",
            &["src/sys.rs:3: unsafe without a SAFETY comment"],
        );
    }

    #[test]
    fn long_files_and_long_tests_are_found() {
        let code = "x\n".repeat(FILE_LINES - 1);
        let tests = |lines| format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "x\n".repeat(lines - 3));
        finds(size, "src/x.rs", &format!("{code}x\n{}", tests(TEST_MODULE_LINES)), &[]);
        finds(size, "src/x.rs", &format!("{code}x\nx\n"), &["src/x.rs:1: 601 lines of code; at most 600"]);
        finds(
            size,
            "src/x.rs",
            &tests(TEST_MODULE_LINES + 1),
            &["src/x.rs:1: 201 lines of tests within a file; at most 200"],
        );
    }

    #[test]
    fn files_without_a_heading_are_found() {
        finds(heading, "src/x.rs", "//! What it is.\n", &[]);
        for text in ["", "use x;\n//! Late.\n", "//!\n", "// Not documentation.\n"] {
            finds(heading, "src/x.rs", text, &["src/x.rs:1: does not start with a line of //!"]);
        }
    }

    #[test]
    fn unwraps_are_found() {
        finds(unwraps, "src/x.rs", "a.unwrap_or(1); // .unwrap()\n#[cfg(test)]\nfn f() { a.unwrap() }", &[]);
        finds(unwraps, "src/x.rs", "a\n    .unwrap();", &["src/x.rs:2: .unwrap() outside of tests"]);
        finds(unwraps, "src/x.rs", "a.expect(\"\");", &["src/x.rs:1: .expect( outside of tests"]);
    }

    #[test]
    fn calls_past_the_module_for_them_are_found() {
        finds(calls, "src/at.rs", "use rustix::fs::{AtFlags, flock};\nuse crate::calls;\ncalls::statx();", &[]);
        finds(calls, "src/mount.rs", "use rustix::fs::statx;", &[]);
        let path = "src/ops/io.rs";
        finds(
            calls,
            path,
            "fn f() { rustix::fs::statx() }",
            &["src/ops/io.rs:1: rustix::fs::statx: layers are reached by crate::calls"],
        );
        finds(
            calls,
            path,
            "use rustix::fs::{self, Mode, unlinkat};",
            &[
                "src/ops/io.rs:1: rustix::fs::self: layers are reached by crate::calls",
                "src/ops/io.rs:1: rustix::fs::unlinkat: layers are reached by crate::calls",
            ],
        );
        finds(calls, path, "#[cfg(test)]\nmod tests { use std::fs::write; }", &[]);
    }

    #[test]
    fn locks_without_a_rank_are_found() {
        finds(locks, "src/cache.rs", "use crate::lock::Mutex;\nuse std::sync::{Arc, Weak};", &[]);
        finds(locks, "src/lock.rs", "use parking_lot::Mutex;", &[]);
        finds(locks, "src/cache.rs", "use parking_lot::Mutex;", &["src/cache.rs:1: parking_lot: use crate::lock"]);
        finds(locks, "src/cache.rs", "use std::sync::Mutex;", &["src/cache.rs:1: sync::Mutex: use crate::lock"]);
        finds(locks, "src/cache.rs", "use std::sync::{Arc, Mutex};", &["src/cache.rs:1: sync::Mutex: use crate::lock"]);
    }

    #[test]
    fn modules_of_tests_in_the_product_are_found() {
        finds(test_modules, "src/x.rs", "#[cfg(test)]\nmod tests;", &[]);
        finds(test_modules, "src/x.rs", "mod tests;", &["src/x.rs:1: a module of tests without #[cfg(test)]"]);
    }
}
