//! Uppers that are broken in one way each: named, mended, and whole again.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::OFlags;

use crate::attr::Kind;
use crate::error::Errno;
use crate::inode::numbers::ROOT;
use crate::overlay::{Caller, Overlay};

use super::super::tests::Layers;
use super::{Finding, check};

/// Who runs the tests, who need not be root.
fn caller() -> Caller {
    Caller { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw(), pid: 0 }
}

/// An upper with a copied-up file and hard link, a renamed directory, whiteouts and a new directory.
fn used() -> Layers {
    let layers = Layers::new();
    layers.file("1/dir/file", "lower");
    layers.file("1/dir/gone", "lower");
    layers.file("1/old/deep", "lower");
    layers.file("1/one", "linked");
    fs::hard_link(layers.dir.path().join("1/one"), layers.dir.path().join("1/two")).unwrap();
    let overlay = Overlay::open(&layers.config).unwrap();
    let find = |dir, name: &str| overlay.lookup(dir, name.as_bytes()).unwrap().unwrap().ino;
    let write = |ino| {
        let file = overlay.open_file(ino, OFlags::WRONLY, caller()).unwrap().file;
        overlay.write(file, 0, b"UPPER", true, caller()).unwrap();
        overlay.release(file).unwrap();
    };
    let dir = find(ROOT, "dir");
    write(find(dir, "file"));
    write(find(ROOT, "one"));
    overlay.unlink(dir, b"gone").unwrap();
    overlay.rename(ROOT, b"old", ROOT, b"new", rustix::fs::RenameFlags::empty()).unwrap();
    overlay.mkdir(ROOT, b"made", 0o755, 0, caller()).unwrap();
    overlay.close();
    layers
}

fn look(layers: &Layers, repair: bool) -> Vec<Finding> {
    check(&layers.config, repair).unwrap()
}

/// What is left of an upper's problems, as paths and kinds.
fn kinds(findings: &[Finding]) -> Vec<(&str, &str)> {
    let left = findings.iter().filter(|finding| finding.is_left());
    left.map(|finding| (finding.path.as_str(), finding.kind)).collect()
}

/// What the overlay shows, a line for each object: its path, and its data or the names in it.
fn tree(layers: &Layers) -> Vec<String> {
    let overlay = Overlay::open(&layers.config).unwrap();
    let (mut lines, mut left) = (Vec::new(), vec![(String::new(), ROOT)]);
    while let Some((path, dir)) = left.pop() {
        let mut names = Vec::new();
        overlay
            .read_dir(dir, 0, false, |entry| {
                names.push(String::from_utf8_lossy(entry.name).into_owned());
                false
            })
            .unwrap();
        for name in names.into_iter().filter(|name| name != "." && name != "..") {
            let path = format!("{path}/{name}");
            let attr = overlay.lookup(dir, name.as_bytes()).unwrap().unwrap();
            let is_dir = attr.kind() == Kind::Dir;
            lines.push(format!("{path} {:o} {}", attr.mode, if is_dir { 0 } else { attr.size }));
            if is_dir {
                left.push((path, attr.ino));
            }
        }
    }
    overlay.close();
    lines.sort();
    lines
}

#[test]
fn an_upper_that_a_mount_has_left_is_whole() {
    let layers = used();
    let found = look(&layers, false);
    assert!(found.iter().all(|finding| finding.is_info), "{found:#?}");
}

/// Breaks an upper, and checks that it is named, mended, and shows what it showed.
#[track_caller]
fn mends(kind: &str, path: &str, harm: impl FnOnce(&Layers)) {
    let layers = used();
    let before = tree(&layers);
    harm(&layers);
    assert_eq!(kinds(&look(&layers, false)), [(path, kind)]);
    let repaired = look(&layers, true);
    let mended: Vec<_> =
        repaired.iter().filter(|finding| finding.repaired).map(|finding| finding.path.as_str()).collect();
    assert_eq!(mended, [path], "{repaired:#?}");
    assert_eq!(kinds(&look(&layers, false)), [], "after the repair");
    assert_eq!(tree(&layers), before);
}

#[test]
fn marks_of_wrong_form_are_mended() {
    mends("wrong mark", "made", |layers| layers.mark("upper/made", "impure", "z"));
    mends("wrong mark", "dir/file", |layers| layers.mark("upper/dir/file", "opaque", "y"));
    mends("wrong mark", "dir", |layers| layers.mark("upper/dir", "opaque", "q"));
    mends("wrong mark", "one", |layers| layers.mark("upper/one", "nlink", "some"));
    mends("wrong mark", "dir/file", |layers| layers.mark("upper/dir/file", "protattr", "zz"));
    mends("wrong mark", "made", |layers| layers.mark("upper/made", "origin", "nonsense"));
    mends("wrong mark", "made", |layers| layers.mark("upper/made", "metacopy", ""));
    mends("wrong mark", "dir/file", |layers| layers.mark("upper/dir/file", "whiteout", "y"));
    mends("not impure", "dir", |layers| {
        let path = layers.dir.path().join("upper/dir");
        rustix::fs::lremovexattr(&path, "user.overlay.impure").unwrap();
    });
}

#[test]
fn a_redirect_that_leads_nowhere_is_detached_and_hides_what_it_hid() {
    let layers = used();
    layers.file("1/made/below", "must not come to light");
    layers.mark("upper/made", "opaque", "x");
    layers.mark("upper/made", "redirect", "/nowhere");
    let before = tree(&layers);
    assert_eq!(kinds(&look(&layers, false)), [("made", "dangling redirect")]);
    let found = look(&layers, true);
    assert!(
        found.iter().any(|finding| finding.repair.as_deref().is_some_and(|text| text.contains("/nowhere"))),
        "{found:?}"
    );
    assert_eq!(kinds(&look(&layers, false)), []);
    assert_eq!(tree(&layers), before);
}

#[test]
fn nothing_is_mended_by_the_layers_of_another_upper() {
    let mut layers = used();
    layers.config.lowers = vec![layers.dir.path().join("2")];
    let found = look(&layers, true);
    // Where origins are told by handles, which are those of the same filesystem, they are found all the same.
    if kinds(&found).contains(&("/", "other layers")) {
        assert!(found.iter().all(|finding| !finding.repaired), "{found:#?}");
        assert!(kinds(&found).contains(&("new", "dangling redirect")), "{found:#?}");
    }
}

#[test]
fn leftovers_are_removed_and_what_a_volatile_mount_left_is_told() {
    mends("leftover", "work/#3", |layers| layers.file("work/work/#3/deep/file", "x"));
    let layers = used();
    layers.file("work/work/incompat/volatile/dirty", "");
    assert_eq!(kinds(&look(&layers, true)), [("work/incompat", "volatile")]);
}

#[test]
fn the_index_is_mended_where_no_data_is_lost() {
    let entry = |layers: &Layers| {
        let mut entries =
            fs::read_dir(layers.dir.path().join("work/index")).unwrap().map(|entry| entry.unwrap().path());
        let entry = entries.next().unwrap();
        assert!(entries.next().is_none());
        entry
    };
    // The file has lost its entry.
    let layers = used();
    let (before, name) = (tree(&layers), entry(&layers));
    fs::remove_file(&name).unwrap();
    assert_eq!(kinds(&look(&layers, true)), []);
    assert_eq!(entry(&layers), name);
    assert_eq!((kinds(&look(&layers, false)), tree(&layers)), (vec![], before));
    // An entry that is not of its name: the file keeps its names in the upper.
    let layers = used();
    let name = entry(&layers);
    layers.mark(&format!("work/index/{}", name.file_name().unwrap().to_str().unwrap()), "origin", "");
    assert_eq!(kinds(&look(&layers, false)), [(index_path(&name).as_str(), "wrong index entry")]);
    look(&layers, true);
    assert_eq!(fs::read(layers.dir.path().join("upper/one")).unwrap(), b"UPPERd");
    // The last name of the data is that of the index: told, and left.
    let layers = used();
    let name = entry(&layers);
    fs::remove_file(layers.dir.path().join("upper/one")).unwrap();
    layers.mark(&format!("work/index/{}", name.file_name().unwrap().to_str().unwrap()), "origin", "");
    assert_eq!(kinds(&look(&layers, true)), [(index_path(&name).as_str(), "wrong index entry")]);
    assert_eq!(fs::read(&name).unwrap(), b"UPPERd");
    // No name of the file is left at all.
    let layers = used();
    let name = entry(&layers);
    fs::remove_file(layers.dir.path().join("upper/one")).unwrap();
    layers.mark(&format!("work/index/{}", name.file_name().unwrap().to_str().unwrap()), "nlink", "U-1");
    assert_eq!(kinds(&look(&layers, false)), [(index_path(&name).as_str(), "orphaned index entry")]);
    assert_eq!(kinds(&look(&layers, true)), []);
    assert!(!name.exists());
}

fn index_path(entry: &Path) -> String {
    format!("index/{}", String::from_utf8_lossy(entry.file_name().unwrap().as_bytes()))
}

#[test]
fn a_whiteout_by_mark_gets_its_directory_marked() {
    let layers = used();
    layers.file("1/made/hidden", "lower");
    layers.file("upper/dir/gone2", "");
    layers.mark("upper/dir/gone2", "whiteout", "y");
    assert_eq!(kinds(&look(&layers, false)), [("dir/gone2", "idle mark")]);
    assert_eq!(kinds(&look(&layers, true)), []);
    assert!(!tree(&layers).iter().any(|line| line.starts_with("/dir/gone2")), "it hides now");
    // In an opaque directory it is seen, and stays.
    layers.file("upper/made/seen", "");
    layers.mark("upper/made/seen", "whiteout", "y");
    assert_eq!(kinds(&look(&layers, true)), [("made/seen", "idle mark")]);
}

#[test]
fn an_upper_in_use_is_refused() {
    let layers = used();
    let overlay = Overlay::open(&layers.config).unwrap();
    let error = check(&layers.config, true).unwrap_err();
    assert_eq!(error.errno(), Errno::BUSY);
    overlay.close();
    drop(overlay);
    check(&layers.config, true).unwrap();
}
