//! What the layers show together.

use super::Bed;
use super::bed::kind;
use crate::attr::Kind;

/// What `layers` show, as paths and contents; directories with a slash.
fn shown(layers: &[&str]) -> Vec<String> {
    let bed = Bed::new(layers);
    let tree = bed.tree();
    assert_eq!(Bed::read_only(layers).tree(), tree, "without an upper");
    let short = |line: &String| {
        let (path, what) = line.split_once(' ').unwrap();
        match what.split_once(' ') {
            Some(("dir", _)) => format!("{path}/"),
            Some(("file", rest)) => format!("{path}={}", rest.split_once(' ').map_or("", |(_, content)| content)),
            _ => format!("{path} {what}"),
        }
    };
    tree.iter().map(short).collect()
}

#[test]
fn layers_merge_by_the_rule() {
    for (layers, expected) in [
        // The topmost wins.
        (&["f=1", "f=2", "f=3"][..], &["f=1"][..]),
        (&["", "f=2", "f=3"], &["f=2"]),
        (&["l->above", "l=file"], &["l -> above"]),
        // Directories merge, through layers that have nothing under the name.
        (&["d/a=1", "d/b=2", "d/c=3 d/a=3"], &["d/", "d/a=1", "d/b=2", "d/c=3"]),
        (&["d/a=1", "x=", "d/c=3"], &["d/", "d/a=1", "d/c=3", "x="]),
        (&["d/s/a=1", "d/s/b=2", "d/s/t/c=3"], &["d/", "d/s/", "d/s/a=1", "d/s/b=2", "d/s/t/", "d/s/t/c=3"]),
        // They merge down to what is no directory.
        (&["d/a=1", "d=file", "d/c=3"], &["d/", "d/a=1"]),
        (&["d=file", "d/b=2"], &["d=file"]),
        (&["d/a=1", "d->x", "d/c=3"], &["d/", "d/a=1"]),
        (&["d->x", "d/b=2"], &["d -> x"]),
    ] {
        assert_eq!(shown(layers), expected, "{layers:?}");
    }
}

#[test]
fn whiteouts_of_every_form_hide_what_is_below_in_lower_layers() {
    for (layers, expected) in [
        (&["f!", "f=2"][..], &[][..]),
        (&["f!", "f=2", "f=3"], &[]),
        (&["f=1", "f!", "f=3"], &["f=1"]),
        (&["", "d!", "d/b=2"], &[]),
        (&["d/a=1", "d!", "d/c=3"], &["d/", "d/a=1"]),
        (&["d/ d/f!", "d/f=2 d/g=2"], &["d/", "d/g=2"]),
        // As image layers have them.
        (&[".wh.f=", "f=2"], &[]),
        (&["f=1", ".wh.f=", "f=3"], &["f=1"]),
        (&["d/.wh.f=", "d/f=2 d/g=2"], &["d/", "d/g=2"]),
        (&[".wh.d=", "d/b=2"], &[]),
        // In one layer with what it hides below: the entry stays, and is opaque.
        (&[".wh.f= f=1", "f=2"], &["f=1"]),
        (&[".wh.d= d/a=1", "d/b=2"], &["d/", "d/a=1"]),
        (&["d/.wh..wh..opq= d/a=1", "d/b=2"], &["d/", "d/a=1"]),
        (&["d/a=1", "d/.wh..wh..opq= d/b=2", "d/c=3"], &["d/", "d/a=1", "d/b=2"]),
        (&["d/.wh..wh.plnk= d/a=1", "d/b=2"], &["d/", "d/a=1", "d/b=2"]),
        // By an attribute.
        (&["d/f= d/f@user.overlay.whiteout=y d@user.overlay.opaque=x", "d/f=2 d/g=2"], &["d/", "d/g=2"]),
        (&["f= f@user.overlay.whiteout=y .@user.overlay.opaque=x", "f=2 g=2"], &["g=2"]),
        // One that holds something, or lies in a directory not marked for it, is a file.
        (&["d/f=1 d/f@user.overlay.whiteout=y d@user.overlay.opaque=x", "d/f=2"], &["d/", "d/f=1"]),
        (&["d/f= d/f@user.overlay.whiteout=y", "d/f=2"], &["d/", "d/f="]),
    ] {
        assert_eq!(shown(layers), expected, "{layers:?}");
    }
}

#[test]
fn opaque_directories_of_every_form_hide_what_is_below_in_lower_layers() {
    for mark in ["user.overlay.opaque", "user.fuseoverlayfs.opaque"] {
        let top = format!("d/a=1 d@{mark}=y");
        assert_eq!(shown(&[&top, "d/b=2"]), ["d/", "d/a=1"], "{mark}");
        assert_eq!(shown(&["d/z=0", &top, "d/b=2"]), ["d/", "d/a=1", "d/z=0"], "{mark}");
        let other = format!("d/a=1 d@{mark}=n");
        assert_eq!(shown(&[&other, "d/b=2"]), ["d/", "d/a=1", "d/b=2"], "{mark}");
    }
}

#[test]
fn copies_of_opaque_directories_hide_nothing_of_their_source_as_a_lower_layer() {
    for mark in ["d/.wh..wh..opq=", "d@user.overlay.opaque=y", "d@user.fuseoverlayfs.opaque=y"] {
        let bed = Bed::new(&[&format!("d/a=1 {mark}"), "d/b=2"]);
        bed.write("d/new", "n").unwrap();
        assert_eq!(bed.list("d"), ["a", "new"], "{mark}");
        let bed = bed.check_lasting();
        assert_eq!(bed.list("d"), ["a", "new"], "{mark}");
    }
}

#[test]
fn roots_merge_whatever_they_say_of_themselves() {
    assert_eq!(shown(&["a=1 .@user.overlay.opaque=y", "b=2"]), ["a=1", "b=2"]);
}

#[test]
fn names_of_whiteouts_are_not_shown_and_not_found() {
    let bed = Bed::new(&["d/.wh.f= d/.wh..wh..opq= d/.wh..wh.aufs= .wh.g= k!", "d/f=2 g=2 k=2"]);
    assert_eq!(bed.list("d"), Vec::<String>::new());
    assert_eq!(bed.list(""), ["d"]);
    for name in ["d/.wh.f", "d/.wh..wh..opq", "d/.wh..wh.aufs", ".wh.g", "d/f", "g", "k"] {
        assert!(!bed.exists(name), "{name}");
    }
}

#[test]
fn the_upper_merges_with_the_lowers_by_the_same_rule() {
    let bed = Bed::with(&["f=l d/a=l d/b=l o/a=l w=l", "g=l2"], |config| {
        let upper = config.upper.as_ref().unwrap();
        super::bed::build(upper, "f=u d/a=u o/c=u o@user.overlay.opaque=y w! g/x=u");
    });
    assert_eq!(bed.read("f"), "u");
    assert_eq!(
        (bed.list("d"), bed.read("d/a"), bed.read("d/b")),
        (vec!["a".into(), "b".into()], "u".into(), "l".into())
    );
    assert_eq!(bed.list("o"), ["c"]);
    assert_eq!(bed.list("g"), ["x"]);
    assert!(!bed.exists("w"));
    assert_eq!(bed.list(""), ["d", "f", "g", "o"]);
    assert_eq!(bed.tree_over_upper(), bed.tree());
}

#[test]
fn opaque_marks_of_other_programs_do_not_count_in_the_upper() {
    let bed = Bed::with(&["d/b=l"], |config| {
        super::bed::build(config.upper.as_ref().unwrap(), "d/a=u d@user.fuseoverlayfs.opaque=y");
    });
    assert_eq!(bed.list("d"), ["a", "b"]);
}

#[test]
fn thirty_layers_are_one_tree() {
    let words: Vec<String> = (0..30).map(|n| format!("d/only{n}={n} d/all={n}")).collect();
    let layers: Vec<&str> = words.iter().map(String::as_str).collect();
    let bed = Bed::new(&layers);
    assert_eq!(bed.list("d").len(), 31);
    assert_eq!((bed.read("d/all"), bed.read("d/only29")), ("0".into(), "29".into()));
}

#[test]
fn attributes_of_a_merged_directory_are_those_of_its_topmost_part() {
    let bed = Bed::new(&["d/ d%701 d@user.a=top", "d/ d%755 d@user.a=low d@user.b=low"]);
    assert_eq!(bed.attr("d").unwrap().mode & 0o7777, 0o701);
    assert_eq!(bed.xattr("d", "user.a").unwrap(), "top");
    assert!(bed.xattr("d", "user.b").is_err());
    assert_eq!(kind(&bed, "d"), Kind::Dir);
}

#[test]
fn a_directory_is_looked_into_the_same_before_and_after_it_is_listed() {
    let layers = ["d/a=1 d/.wh.c=", "d/b=2 d/c=2 d/e!", "d/c=3 d/e=3 d/f=3"];
    for list_first in [false, true] {
        let bed = Bed::new(&layers);
        if list_first {
            assert_eq!(bed.list("d"), ["a", "b", "f"]);
        }
        let found: Vec<bool> = ["a", "b", "c", "e", "f", "g"].iter().map(|n| bed.exists(&format!("d/{n}"))).collect();
        assert_eq!(found, [true, true, false, false, true, false], "listed first: {list_first}");
    }
}
