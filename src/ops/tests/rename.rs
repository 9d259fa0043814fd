//! Renames: every pair of things, and directories with parts below.

use rustix::fs::RenameFlags;

use super::Bed;
use super::bed::{errno, get_xattr};
use crate::config::{RedirectDir, WhiteoutStyle};
use crate::error::Errno;

const STYLES: [WhiteoutStyle; 3] = [WhiteoutStyle::Device, WhiteoutStyle::Xattr, WhiteoutStyle::DotFile];

/// What an overlay of [`prepared`] may have under a name.
const FILES: [&str; 4] = ["lowerfile", "copied", "upperfile", "link"];
const DIRS: [&str; 4] = ["lowerdir", "merged", "upperdir", "opaque"];
const FREE: [&str; 2] = ["nothing", "whiteout"];

/// An overlay with a name of every sort, in `.` and `sub`.
fn prepared(style: WhiteoutStyle) -> Bed {
    let mut words = String::new();
    for place in ["", "sub/"] {
        words += &format!(
            "{place}lowerfile=lf {place}copied=c {place}whiteout=w {place}lowerdir/x=lx {place}merged/x=mx \
             {place}merged/gone=g {place}opaque/hidden=h {place}link->to "
        );
    }
    let bed = Bed::with(&[&words, "sub/merged/deep=d merged/deep=d"], |config| config.whiteouts = Some(style));
    for place in ["", "sub/"] {
        let path = |name: &str| format!("{place}{name}");
        bed.append(&path("copied"), "+").unwrap();
        bed.unlink(&path("whiteout")).unwrap();
        bed.write(&path("merged/u"), "u").unwrap();
        bed.unlink(&path("merged/gone")).unwrap();
        bed.unlink(&path("opaque/hidden")).unwrap();
        bed.rmdir(&path("opaque")).unwrap();
        bed.mkdir(&path("opaque")).unwrap();
        bed.write(&path("opaque/o"), "o").unwrap();
        bed.write(&path("upperfile"), "uf").unwrap();
        bed.mkdir(&path("upperdir")).unwrap();
        bed.write(&path("upperdir/ud"), "ud").unwrap();
    }
    bed
}

/// The lines of a tree at and below `path`, as if it were called `as_path`.
fn subtree(tree: &[String], path: &str, as_path: &str) -> Vec<String> {
    tree.iter()
        .filter_map(|line| {
            let rest = line.strip_prefix(path)?;
            rest.starts_with([' ', '/']).then(|| format!("{as_path}{rest}"))
        })
        .collect()
}

/// The tree without what is at and below `paths`.
fn without(tree: &[String], paths: &[&str]) -> Vec<String> {
    let below = |line: &String| paths.iter().any(|path| !subtree(std::slice::from_ref(line), path, "").is_empty());
    tree.iter().filter(|line| !below(line)).cloned().collect()
}

fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

/// Tries each pair of names, in one directory and across two, on a fresh overlay each.
fn each_pair(style: WhiteoutStyle, from: &[&str], to: &[&str], test: impl Fn(&Bed, &str, &str)) {
    for from in from {
        for to in to {
            let places: &[&str] = if style == WhiteoutStyle::Device { &["", "sub/"] } else { &["sub/"] };
            for place in places {
                let to = format!("{place}{to}");
                if *from == to {
                    continue;
                }
                eprintln!("{style:?}: {from} -> {to}");
                let bed = prepared(style);
                test(&bed, from, &to);
                bed.check_lasting();
            }
        }
    }
}

/// Renames, and expects that `from` is found whole under `to`, and all else as it was.
fn moves(bed: &Bed, from: &str, to: &str) {
    let before = bed.tree();
    let ino = bed.ino(from);
    bed.rename(from, to).unwrap();
    let mut expected = without(&before, &[from, to]);
    expected.extend(subtree(&before, from, to));
    assert_eq!(bed.tree(), sorted(expected));
    assert_eq!(bed.ino(to), ino);
    assert!(!bed.exists(from));
}

/// Exchanges, and expects that both are found whole.
fn swaps(bed: &Bed, one: &str, other: &str) {
    let before = bed.tree();
    let (first, second) = (bed.ino(one), bed.ino(other));
    bed.rename_with(one, other, RenameFlags::EXCHANGE).unwrap();
    let mut expected = without(&before, &[one, other]);
    expected.extend(subtree(&before, one, other));
    expected.extend(subtree(&before, other, one));
    assert_eq!(bed.tree(), sorted(expected));
    assert_eq!((bed.ino(other), bed.ino(one)), (first, second));
}

#[test]
fn files_are_renamed_to_free_names_and_over_files() {
    for style in STYLES {
        each_pair(style, &FILES, &FREE, moves);
        each_pair(style, &FILES, &FILES, moves);
    }
}

#[test]
fn directories_are_renamed_to_free_names() {
    for style in STYLES {
        each_pair(style, &DIRS, &FREE, moves);
    }
}

#[test]
fn directories_are_renamed_over_empty_ones() {
    for style in STYLES {
        each_pair(style, &DIRS, &DIRS, |bed, from, to| {
            assert_eq!(errno(bed.rename(from, to)), Errno::NOTEMPTY);
            for name in bed.list(to) {
                bed.unlink(&format!("{to}/{name}")).unwrap();
            }
            moves(bed, from, to);
        });
    }
}

#[test]
fn everything_is_exchanged_with_everything() {
    let all: Vec<&str> = FILES.iter().chain(&DIRS).copied().collect();
    for style in STYLES {
        each_pair(style, &all, &all, swaps);
    }
}

#[test]
fn noreplace_renames_to_free_names_only() {
    let all: Vec<&str> = FILES.iter().chain(&DIRS).copied().collect();
    each_pair(WhiteoutStyle::Xattr, &all, &FREE, |bed, from, to| {
        bed.rename_with(from, to, RenameFlags::NOREPLACE).unwrap();
        assert!(bed.exists(to) && !bed.exists(from));
    });
    each_pair(WhiteoutStyle::Xattr, &["lowerfile", "merged"], &all, |bed, from, to| {
        assert_eq!(errno(bed.rename_with(from, to, RenameFlags::NOREPLACE)), Errno::EXIST);
    });
}

#[test]
fn a_redirect_is_a_name_within_one_directory_and_a_path_across_two() {
    let bed = Bed::new(&["a/b/f=x a/c/g=x"]);
    let redirect =
        |path: &str| get_xattr(&bed.path("upper").join(path), "user.overlay.redirect").map(|v| super::view::text(&v));
    bed.rename("a/b", "a/b2").unwrap();
    assert_eq!(redirect("a/b2").as_deref(), Some("b"));
    bed.rename("a/b2", "a/b3").unwrap();
    assert_eq!(redirect("a/b3").as_deref(), Some("b"));
    bed.rename("a/b3", "b4").unwrap();
    assert_eq!(redirect("b4").as_deref(), Some("/a/b"));
    bed.rename("a", "z").unwrap();
    bed.rename("z/c", "c").unwrap();
    assert_eq!(redirect("c").as_deref(), Some("/a/c"));
    bed.rename("b4", "z/b").unwrap();
    assert_eq!(redirect("z/b").as_deref(), Some("/a/b"));
    let bed = bed.check_lasting();
    assert_eq!((bed.list("z/b"), bed.list("c")), (vec!["f".into()], vec!["g".into()]));
}

#[test]
fn a_chain_of_renames_keeps_every_directory() {
    for style in STYLES {
        let mut bed = Bed::with(&["a/f=a b/f=b c/f=c", "a/l=a b/l=b c/l=c"], |config| config.whiteouts = Some(style));
        // In a circle.
        for round in 0..3 {
            bed.rename("c", "t").unwrap();
            bed.rename("b", "c").unwrap();
            bed.rename("a", "b").unwrap();
            bed.rename("t", "a").unwrap();
            bed = bed.check_lasting();
            let turned = ["c", "b", "a"][round];
            assert_eq!((bed.read("a/f").as_str(), bed.read("a/l").as_str()), (turned, turned), "{style:?} {round}");
        }
        assert_eq!((bed.read("b/f"), bed.read("c/l")), ("b".into(), "c".into()));
    }
}

#[test]
fn a_directory_renamed_and_back_is_what_it_was() {
    for style in STYLES {
        let bed = Bed::with(&["d/f=1 d/s/g=1", "d/h=2 e/x=2"], |config| config.whiteouts = Some(style));
        let tree = bed.tree();
        for (there, back) in [("d", "d2"), ("d", "e/d"), ("d/s", "s"), ("e", "d/e")] {
            bed.rename(there, back).unwrap();
            assert_ne!(bed.tree(), tree);
            assert_eq!(bed.tree_over_upper(), bed.tree(), "{style:?} {there}");
            bed.rename(back, there).unwrap();
            assert_eq!(bed.tree(), tree, "{style:?} {there}");
        }
        assert_eq!(bed.check_lasting().tree(), tree);
    }
}

#[test]
fn what_is_made_at_the_old_name_of_a_renamed_directory_is_empty() {
    for style in STYLES {
        let bed = Bed::with(&["d/f=1 d/s/g=1", "d/h=2"], |config| config.whiteouts = Some(style));
        bed.rename("d", "moved").unwrap();
        bed.mkdir("d").unwrap();
        assert_eq!(bed.list("d"), Vec::<String>::new());
        bed.write("d/new", "n").unwrap();
        let bed = bed.check_lasting();
        assert_eq!((bed.list("d"), bed.list("moved")), (vec!["new".into()], vec!["f".into(), "h".into(), "s".into()]));
        // And again, below the moved one.
        bed.rename("moved/s", "d/s").unwrap();
        bed.mkdir("moved/s").unwrap();
        let bed = bed.check_lasting();
        assert_eq!((bed.list("d/s"), bed.list("moved/s")), (vec!["g".into()], vec![]));
    }
}

#[test]
fn a_redirect_leads_through_layers_that_were_uppers_themselves() {
    for style in STYLES {
        let bed = Bed::with(&["a/b/f=1", "a/b/g=2"], |config| config.whiteouts = Some(style));
        bed.rename("a/b", "b").unwrap();
        bed.rename("a", "c").unwrap();
        bed.write("b/new", "n").unwrap();
        let (tree, upper) = (bed.tree(), bed.path("upper"));
        let over = Bed::with(&[""], |config| {
            let mut lowers = vec![upper.clone()];
            lowers.extend((0..2).map(|number| bed.path(&format!("lower{number}"))));
            config.lowers = lowers;
            config.whiteouts = Some(style);
        });
        assert_eq!(over.tree(), tree);
        over.rename("b", "c/again").unwrap();
        over.rename("c", "d").unwrap();
        assert_eq!(over.list("d/again"), ["f", "g", "new"]);
        over.check_lasting();
    }
}

#[test]
fn merged_directories_are_not_renamed_without_redirects_and_others_are() {
    for mode in [RedirectDir::Follow, RedirectDir::NoFollow] {
        let bed = Bed::with(&["d/f=x e/ f=x"], |config| config.redirect_dir = mode);
        bed.mkdir("new").unwrap();
        bed.mkdir("other").unwrap();
        assert_eq!(errno(bed.rename("d", "moved")), Errno::XDEV);
        assert_eq!(errno(bed.rename("e", "moved")), Errno::XDEV);
        assert_eq!(errno(bed.rename_with("new", "d", RenameFlags::EXCHANGE)), Errno::XDEV);
        assert_eq!(errno(bed.rename_with("d", "new", RenameFlags::EXCHANGE)), Errno::XDEV);
        assert_eq!(bed.upper().len(), 2, "nothing was copied up");
        bed.rename("new", "moved").unwrap();
        bed.rename_with("moved", "other", RenameFlags::EXCHANGE).unwrap();
        bed.rename("f", "d/f").unwrap();
        bed.rename("moved", "e").unwrap();
        let bed = bed.check_lasting();
        assert_eq!(bed.list(""), ["d", "e", "other"]);
    }
}

#[test]
fn redirects_are_followed_or_not_as_asked() {
    let bed = Bed::new(&["d/f=x"]);
    bed.rename("d", "moved").unwrap();
    let bed = bed.reopen_with(|config| config.redirect_dir = RedirectDir::Follow);
    assert_eq!(bed.list("moved"), ["f"]);
    let bed = bed.reopen_with(|config| config.redirect_dir = RedirectDir::NoFollow);
    assert_eq!(errno(bed.attr("moved")), Errno::PERM);
}

#[test]
fn an_empty_merged_directory_that_holds_whiteouts_is_replaced() {
    for style in STYLES {
        let bed = Bed::with(&["from/f=x to/a=1 to/b=1 to/s/"], |config| config.whiteouts = Some(style));
        bed.unlink("to/a").unwrap();
        bed.unlink("to/b").unwrap();
        bed.rmdir("to/s").unwrap();
        bed.rename("from", "to").unwrap();
        assert_eq!((bed.list(""), bed.list("to")), (vec!["to".into()], vec!["f".into()]));
        bed.check_lasting();
    }
}

#[test]
fn files_inside_a_renamed_directory_are_reached_by_old_node_ids() {
    let bed = Bed::new(&["d/s/f=x"]);
    let (dir, sub, file) = (bed.ino("d"), bed.ino("d/s"), bed.ino("d/s/f"));
    bed.rename("d", "e").unwrap();
    assert_eq!(bed.overlay.lookup(sub, b"f").unwrap().unwrap().ino, file);
    let handle = bed.overlay.open_file(file, rustix::fs::OFlags::RDWR, super::bed::us()).unwrap().file;
    bed.overlay.write(handle, 0, b"y", true, super::bed::us()).unwrap();
    bed.overlay.release(handle).unwrap();
    bed.overlay.mkdir(dir, b"made", 0o755, 0, super::bed::us()).unwrap();
    assert_eq!((bed.read("e/s/f"), bed.list("e")), ("y".into(), vec!["made".into(), "s".into()]));
    bed.check_lasting();
}

#[test]
fn a_parent_moved_to_where_nothing_was_copied_up_is_copied_up_first() {
    let bed = Bed::new(&["a/b/c/f=x p/q/r/g=x"]);
    bed.rename("a/b/c", "p/q/r/c").unwrap();
    bed.rename("p/q", "a/q").unwrap();
    assert_eq!(bed.read("a/q/r/c/f"), "x");
    bed.check_lasting();
}
