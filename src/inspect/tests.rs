//! Explanations of small layers.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::fs::{XattrFlags, lsetxattr};
use tempfile::TempDir;

use crate::config::Config;
use crate::error::Errno;

use super::explain::{Explanation, explain};

/// Layers in a temporary directory: `upper`, `1`, `2`, `3`.
pub(super) struct Layers {
    pub(super) dir: TempDir,
    pub(super) config: Config,
}

impl Layers {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["upper", "work", "1", "2", "3"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let path = |name: &str| dir.path().join(name);
        let config = Config {
            lowers: vec![path("1"), path("2"), path("3")],
            upper: Some(path("upper")),
            work: Some(path("work")),
            // What any user may set.
            userxattr: Some(true),
            ..Config::default()
        };
        Self { dir, config }
    }

    /// Makes a file, and the directories that it lies in.
    pub(super) fn file(&self, path: &str, content: &str) {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub(super) fn mark(&self, path: &str, mark: &str, value: &str) {
        let path = self.dir.path().join(path);
        lsetxattr(&path, format!("user.overlay.{mark}"), value.as_bytes(), XattrFlags::empty()).unwrap();
    }

    fn explain(&self, path: &str) -> Explanation {
        explain(&self.config, Path::new(path)).unwrap()
    }
}

/// The verdicts of the layers, topmost first.
fn verdicts(explained: &Explanation) -> Vec<&str> {
    explained.layers.iter().map(|view| view.verdict.as_str()).collect()
}

#[track_caller]
fn data(explained: &Explanation) -> String {
    fs::read_to_string(explained.data.as_ref().unwrap()).unwrap()
}

#[test]
fn the_topmost_layer_is_told_to_win_and_why_the_others_do_not() {
    let layers = Layers::new();
    layers.file("2/a/f", "two");
    layers.file("3/a/f", "three");
    let told = layers.explain("/a/f");
    assert_eq!((told.shows, told.why.as_str()), (Some("file"), "lower 2 is the topmost layer that has it"));
    assert_eq!(
        verdicts(&told),
        ["no parent of it has been copied up", "it has no /a", "shown", "hidden by what lower 2 has"]
    );
    assert_eq!(data(&told), "two");
    assert_eq!(told.write[0], "change its content: copied up, 3 bytes; copied up before: /a");
    assert_eq!(told.write[2], "remove it: a whiteout is left in the upper; copied up before: /a");

    layers.file("upper/a/f", "mine");
    let told = layers.explain("a//./f");
    assert_eq!(told.why, "the upper has it, which is above all other layers");
    assert_eq!((data(&told).as_str(), told.write[0].as_str()), ("mine", "change it: in place"));
}

#[test]
fn directories_are_told_to_merge_down_to_what_ends_it() {
    let layers = Layers::new();
    layers.file("1/d/x", "");
    layers.file("2/d/.wh..wh..opq", "");
    layers.file("3/d/y", "");
    let told = layers.explain("d");
    assert_eq!(told.why, "lower 1 is the topmost layer that has it, merged with lower 2");
    let hidden = "hidden by the directory of lower 2, which is opaque";
    assert_eq!(verdicts(&told), ["the layers below decide", "shown", "merged; hides what lies below", hidden]);
    let told = layers.explain("d/y");
    assert_eq!((told.shows, told.why.as_str()), (None, "no layer that is looked into has /d/y"));
    assert_eq!(told.way, ["/d: opaque in lower 2, so that no layer below it is looked into"]);
    assert_eq!(told.layers[3].says.is, "file", "what is hidden is told all the same");
    assert_eq!(told.layers[3].verdict, "hidden: /d is opaque in lower 2");
    assert_eq!(told.write, ["make it: made in the upper; copied up before: /d"]);
}

#[test]
fn what_is_not_there_is_told_to_be_hidden_or_missing() {
    let layers = Layers::new();
    layers.file("2/.wh.a", "");
    layers.file("3/a/b/c", "deep");
    let told = layers.explain("a/b/c");
    assert_eq!((told.shows, told.at.as_str()), (None, "/a"));
    assert_eq!(told.why, "/a is hidden by a whiteout in lower 2");
    assert_eq!(told.layers[2].says.whiteout, Some(".wh. file"));
    assert_eq!((told.layers[3].says.is, told.layers[3].beyond), ("directory", Some("file")));
    assert_eq!(told.write, ["nothing can be made there: its parent is missing"]);

    assert_eq!(layers.explain("none/at/all").why, "no layer that is looked into has /none");
    layers.file("1/file", "x");
    assert_eq!(layers.explain("file/below").why, "/file is a file");
    symlink("elsewhere", layers.dir.path().join("1/link")).unwrap();
    assert_eq!(layers.explain("link/x").why, "/link is a symlink to elsewhere: ask for the path that this leads to");
    assert_eq!(layers.explain("link").shows, Some("symlink"));
}

#[test]
fn redirects_are_told_where_they_lead() {
    let layers = Layers::new();
    layers.file("2/old/deep/f", "found");
    layers.file("upper/new/own", "");
    layers.mark("upper/new", "redirect", "/old/deep");
    let told = layers.explain("new/f");
    assert_eq!(told.way, ["/new: redirected by the upper to /old/deep"]);
    assert_eq!(told.layers[2].path, layers.dir.path().join("2/old/deep/f"));
    assert_eq!(data(&told), "found");
    let told = layers.explain("new");
    assert_eq!(told.layers[0].says.redirect.as_deref(), Some("/old/deep"));
    assert_eq!(told.why, "the upper has it, merged with lower 2");
}

#[test]
fn metacopies_are_told_where_their_data_is_and_refused_without_metacopy() {
    let mut layers = Layers::new();
    layers.file("1/f", "");
    layers.mark("1/f", "metacopy", "");
    layers.file("3/f", "whole");
    let told = layers.explain("f");
    assert_eq!(told.shows, None);
    assert!(told.why.starts_with("/f cannot be shown: "), "{}", told.why);
    assert_eq!(told.write, ["any access fails as this did"]);
    // Of a dialect that any user may write, metacopies are not believed but for data that is named by a redirect.
    layers.mark("1/f", "redirect", "/store");
    layers.file("3/store", "data only");
    layers.config.data_layers = vec![layers.config.lowers.remove(2)];
    layers.config.lowers.remove(1);
    let told = layers.explain("f");
    assert_eq!((told.shows, data(&told).as_str()), (Some("file"), "data only"), "{told:?}");
    assert_eq!(told.layers[1].verdict, "shown, without its data");
}

#[test]
fn marks_and_foreign_attributes_are_told() {
    let layers = Layers::new();
    layers.file("upper/d/f", "");
    layers.mark("upper/d", "opaque", "y");
    layers.mark("upper/d", "impure", "y");
    layers.mark("upper/d/f", "protattr", "i");
    let path = layers.dir.path().join("upper/d/f");
    lsetxattr(&path, "user.containers.override_stat", b"0:0:0644", XattrFlags::empty()).unwrap();
    let told = layers.explain("d");
    assert_eq!(told.layers[0].says.opaque, Some("overlay.opaque=y"));
    assert_eq!(told.layers[0].says.notes, ["impure"]);
    let told = layers.explain("d/f");
    let notes = ["immutable", "user.containers.override_stat=0:0:0644"];
    assert_eq!(told.layers[0].says.notes, notes);
    assert_eq!(told.write, ["refused: it is immutable"]);
}

#[test]
fn a_hard_link_is_told_to_be_shown_by_the_index() {
    let layers = Layers::new();
    layers.file("1/one", "lower");
    fs::hard_link(layers.dir.path().join("1/one"), layers.dir.path().join("1/two")).unwrap();
    let overlay = crate::overlay::Overlay::open(&layers.config).unwrap();
    let one = overlay.lookup(crate::inode::numbers::ROOT, b"one").unwrap().unwrap();
    let caller = crate::overlay::Caller { uid: 0, gid: 0, pid: 0 };
    let file = overlay.open_file(one.ino, rustix::fs::OFlags::WRONLY, caller).unwrap().file;
    overlay.write(file, 0, b"UPPER", true, caller).unwrap();
    overlay.release(file).unwrap();
    overlay.close();
    drop(overlay);
    let told = layers.explain("two");
    assert!(told.why.ends_with("by the index, that copy is shown"), "{}", told.why);
    assert_eq!(data(&told), "UPPER");
    assert_eq!(told.write[0], "change it: the copy in the index changes, in place");
    assert_eq!(layers.explain("one").data, Some(layers.dir.path().join("upper/one")));
}

#[test]
fn explaining_writes_nothing_and_takes_no_lock() {
    let layers = Layers::new();
    layers.file("1/f", "x");
    let overlay = crate::overlay::Overlay::open(&layers.config).unwrap();
    assert_eq!(layers.explain("f").shows, Some("file"), "while it is mounted");
    overlay.close();
    drop(overlay);
    fs::remove_dir_all(layers.dir.path().join("work")).unwrap();
    layers.explain("f");
    assert!(!layers.dir.path().join("work").exists());
    assert_eq!(fs::read_dir(layers.dir.path().join("upper")).unwrap().count(), 0);
}

#[test]
fn paths_that_climb_are_refused() {
    let layers = Layers::new();
    let error = explain(&layers.config, Path::new("a/../b")).unwrap_err();
    assert_eq!(error.errno(), Errno::INVAL);
}
