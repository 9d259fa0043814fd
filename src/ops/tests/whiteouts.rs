//! Whiteouts and opaque directories as they are written, in each of their forms.

use std::fs;

use rustix::fs::RenameFlags;

use super::Bed;
use super::bed::{get_xattr, is_whiteout};
use crate::config::WhiteoutStyle;

const STYLES: [WhiteoutStyle; 3] = [WhiteoutStyle::Device, WhiteoutStyle::Xattr, WhiteoutStyle::DotFile];

const LAYERS: [&str; 2] = ["a=1 d/x=1 d/y=1 d/s/t=1 e/ m/k=1", "a=2 b=2 d/z=2 m/n=2"];

/// Runs `test` with each form.
fn in_each_form(test: impl Fn(Bed)) {
    for style in STYLES {
        eprintln!("{style:?}");
        test(Bed::with(&LAYERS, |config| config.whiteouts = Some(style)));
    }
}

#[test]
fn a_whiteout_has_the_form_asked_for() {
    for style in STYLES {
        let bed = Bed::with(&LAYERS, |config| config.whiteouts = Some(style));
        bed.unlink("d/x").unwrap();
        let dir = bed.path("upper/d");
        match style {
            WhiteoutStyle::Device => assert!(is_whiteout(&dir.join("x"))),
            WhiteoutStyle::Xattr => {
                assert_eq!(fs::metadata(dir.join("x")).unwrap().len(), 0);
                assert_eq!(get_xattr(&dir.join("x"), "user.overlay.whiteout").as_deref(), Some(&b"y"[..]));
                assert_eq!(get_xattr(&dir, "user.overlay.opaque").as_deref(), Some(&b"x"[..]));
            }
            WhiteoutStyle::DotFile => {
                assert_eq!(fs::metadata(dir.join(".wh.x")).unwrap().len(), 0);
                assert!(!dir.join("x").exists());
            }
        }
    }
}

#[test]
fn whiteout_devices_share_one_inode() {
    use std::os::unix::fs::MetadataExt;
    let bed = Bed::new(&LAYERS);
    for path in ["a", "b", "d/x"] {
        bed.unlink(path).unwrap();
    }
    let numbers: Vec<u64> =
        ["a", "b", "d/x"].iter().map(|p| fs::symlink_metadata(bed.path("upper").join(p)).unwrap().ino()).collect();
    assert!(numbers.iter().all(|ino| *ino == numbers[0]), "{numbers:?}");
}

#[test]
fn a_removed_lower_file_stays_removed() {
    in_each_form(|bed| {
        for path in ["a", "b", "d/x", "d/z"] {
            bed.unlink(path).unwrap();
            assert!(!bed.exists(path), "{path}");
        }
        assert_eq!(bed.list(""), ["d", "e", "m"]);
        assert_eq!(bed.list("d"), ["s", "y"]);
        let bed = bed.check_lasting();
        assert!(!bed.exists("a") && !bed.exists("d/z"));
    });
}

#[test]
fn a_removed_lower_directory_stays_removed() {
    in_each_form(|bed| {
        bed.rmdir("e").unwrap();
        for path in ["m/k", "m/n"] {
            bed.unlink(path).unwrap();
        }
        bed.rmdir("m").unwrap();
        assert_eq!(bed.list(""), ["a", "b", "d"]);
        bed.check_lasting();
    });
}

#[test]
fn a_copied_up_file_is_removed_with_what_is_below() {
    in_each_form(|bed| {
        bed.append("a", "+").unwrap();
        bed.append("d/z", "+").unwrap();
        bed.unlink("a").unwrap();
        bed.unlink("d/z").unwrap();
        assert!(!bed.exists("a") && !bed.exists("d/z"));
        bed.check_lasting();
    });
}

#[test]
fn removing_what_only_the_upper_has_leaves_nothing() {
    in_each_form(|bed| {
        bed.write("new", "x").unwrap();
        bed.mkdir("newdir").unwrap();
        bed.write("newdir/f", "x").unwrap();
        bed.unlink("new").unwrap();
        bed.unlink("newdir/f").unwrap();
        bed.rmdir("newdir").unwrap();
        assert_eq!(bed.upper(), Vec::<String>::new());
    });
}

#[test]
fn every_type_is_made_again_where_something_was_removed() {
    in_each_form(|bed| {
        let tries: [(&str, &dyn Fn(&str)); 4] = [
            ("file", &|path| bed.write(path, "new").unwrap()),
            ("dir", &|path| _ = bed.mkdir(path).unwrap()),
            ("symlink", &|path| _ = bed.symlink(path, "target").unwrap()),
            ("fifo", &|path| _ = bed.mknod(path, libc::S_IFIFO | 0o600, (0, 0)).unwrap()),
        ];
        for (what, make) in tries {
            if bed.attr("a").unwrap().kind() == crate::attr::Kind::Dir {
                bed.rmdir("a").unwrap();
            } else {
                bed.unlink("a").unwrap();
            }
            make("a");
            assert!(bed.exists("a"), "{what}");
            assert_eq!(bed.list(""), ["a", "b", "d", "e", "m"], "{what}");
        }
        bed.check_lasting();
    });
}

#[test]
fn a_directory_made_again_shows_nothing_of_the_old_one_also_as_a_lower_layer() {
    in_each_form(|bed| {
        for path in ["m/k", "m/n"] {
            bed.unlink(path).unwrap();
        }
        bed.rmdir("m").unwrap();
        bed.mkdir("m").unwrap();
        assert_eq!(bed.list("m"), Vec::<String>::new());
        bed.write("m/new", "x").unwrap();
        let bed = bed.check_lasting();
        assert_eq!(bed.list("m"), ["new"]);
        assert!(!bed.exists("m/k"));
        bed.unlink("m/new").unwrap();
        bed.rmdir("m").unwrap();
        let bed = bed.check_lasting();
        assert!(!bed.exists("m"));
    });
}

#[test]
fn a_directory_made_where_a_file_was_removed_is_opaque() {
    in_each_form(|bed| {
        bed.unlink("b").unwrap();
        bed.mkdir("b").unwrap();
        bed.mkdir("b/deep").unwrap();
        bed.check_lasting();
    });
}

#[test]
fn a_new_directory_in_a_merged_one_does_not_show_what_comes_below_later() {
    let bed = Bed::new(&LAYERS);
    bed.mkdir("d/new").unwrap();
    assert_eq!(get_xattr(&bed.path("upper/d/new"), "user.overlay.opaque").as_deref(), Some(&b"y"[..]));
}

#[test]
fn a_file_made_again_and_removed_again_stays_removed() {
    in_each_form(|bed| {
        for round in 0..3 {
            bed.unlink("d/x").unwrap();
            bed.write("d/x", &format!("round{round}")).unwrap();
        }
        bed.unlink("d/x").unwrap();
        let bed = bed.check_lasting();
        assert!(!bed.exists("d/x"));
    });
}

#[test]
fn a_renamed_file_leaves_a_whiteout_and_takes_the_place_of_one() {
    in_each_form(|bed| {
        bed.unlink("b").unwrap();
        bed.rename("a", "b").unwrap();
        assert_eq!(bed.list(""), ["b", "d", "e", "m"]);
        let bed = bed.check_lasting();
        assert_eq!(bed.read("b"), "1");
        bed.rename("b", "d/x").unwrap();
        let bed = bed.check_lasting();
        assert!(!bed.exists("b") && !bed.exists("a"));
        assert_eq!(bed.read("d/x"), "1");
    });
}

#[test]
fn a_link_takes_the_place_of_a_whiteout() {
    in_each_form(|bed| {
        bed.unlink("b").unwrap();
        bed.link("d/y", "b").unwrap();
        assert_eq!(bed.attr("b").unwrap().ino, bed.ino("d/y"));
        let bed = bed.check_lasting();
        assert_eq!(bed.read("b"), "1");
    });
}

#[test]
fn a_merged_directory_that_moves_and_comes_back_is_whole() {
    in_each_form(|bed| {
        bed.rename("d", "moved").unwrap();
        assert_eq!(bed.list("moved"), ["s", "x", "y", "z"]);
        assert!(!bed.exists("d"));
        let bed = bed.check_lasting();
        bed.rename("moved", "d").unwrap();
        assert_eq!(bed.list("d"), ["s", "x", "y", "z"]);
        bed.check_lasting();
    });
}

#[test]
fn exchanged_directories_keep_what_they_hold() {
    in_each_form(|bed| {
        bed.rename_with("d", "m", RenameFlags::EXCHANGE).unwrap();
        assert_eq!(
            (bed.list("m"), bed.list("d")),
            (vec!["s".into(), "x".into(), "y".into(), "z".into()], vec!["k".into(), "n".into()])
        );
        let bed = bed.check_lasting();
        bed.rename_with("d", "m", RenameFlags::EXCHANGE).unwrap();
        bed.check_lasting();
    });
}

#[test]
fn an_upper_with_whiteouts_is_read_the_same_without_being_written() {
    for style in STYLES {
        let bed = Bed::with(&LAYERS, |config| config.whiteouts = Some(style));
        bed.unlink("a").unwrap();
        bed.unlink("d/x").unwrap();
        bed.rmdir("e").unwrap();
        bed.unlink("b").unwrap();
        bed.mkdir("b").unwrap();
        let tree = bed.tree();
        let bed = bed.reopen_with(|config| config.read_only = true);
        assert_eq!(bed.tree(), tree, "{style:?}");
    }
}
