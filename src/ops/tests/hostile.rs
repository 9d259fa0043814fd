//! Layers that mean no good: no panic, no way out of the layer, and an errno that makes sense.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};

use super::Bed;
use super::bed::{build, errno, set_xattr, us};
use super::view;
use crate::error::Errno;
use crate::sys::testing::root_or_skip;

#[test]
fn symlinks_in_layers_are_not_followed_wherever_they_are() {
    let outside = tempfile::tempdir().unwrap();
    build(outside.path(), "secret=s d/secret=s");
    let words = format!(
        "d/f=x top->{0} r/ r@user.overlay.redirect=/top/d q/ q@user.overlay.redirect=/top",
        outside.path().display()
    );
    let second = format!("d->{0} top->{0} r->{0}", outside.path().display());
    let bed = Bed::new(&[&words, &second]);
    assert_eq!(bed.list("d"), ["f"]);
    assert_eq!(bed.list("r"), Vec::<String>::new());
    assert_eq!(bed.list("q"), Vec::<String>::new());
    assert_eq!(errno(bed.attr("top/secret")), Errno::NOTDIR);
    for path in ["d", "r", "q"] {
        bed.write(&format!("{path}/new"), "n").unwrap();
        assert!(!bed.exists(&format!("{path}/secret")));
    }
    assert_eq!(errno(bed.open_file("top", OFlags::RDONLY)), Errno::LOOP);
    assert_eq!(errno(bed.open_file("top", OFlags::WRONLY)), Errno::LOOP);
    assert_eq!(view::dump(outside.path()), ["d/ 755", "d/secret 644 s", "secret 644 s"]);
}

#[test]
fn an_upper_directory_that_becomes_a_symlink_is_not_followed() {
    let outside = tempfile::tempdir().unwrap();
    let bed = Bed::new(&["d/f=x"]);
    bed.mkdir("d/sub").unwrap();
    bed.mkdir("d/sub/deep").unwrap();
    let (d, sub) = (bed.ino("d"), bed.ino("d/sub"));
    fs::rename(bed.path("upper/d"), bed.path("upper/away")).unwrap();
    std::os::unix::fs::symlink(outside.path(), bed.path("upper/d")).unwrap();
    bed.overlay.caches.dirs.clear();
    bed.overlay.caches.names.remove(crate::inode::numbers::ROOT, b"d");
    for dir in [d, sub] {
        assert!(bed.overlay.mkdir(dir, b"made", 0o755, 0, us()).is_err());
        assert!(bed.overlay.unlink(dir, b"f").is_err());
        assert!(bed.overlay.lookup(dir, b"nothing").is_err());
    }
    assert_eq!(view::dump(outside.path()), Vec::<String>::new());
}

#[test]
fn redirects_that_climb_or_are_no_names_are_refused_and_hurt_nothing_else() {
    let long = "n".repeat(300);
    let values = ["..", ".", "", "/", "//a", "/a//b", "/a/", "/../a", "/a/..", "/./a", "a/b", "../a", &long, "/a/\0"];
    for value in values {
        for layer in ["lower0", "upper"] {
            let bed = Bed::with(&["d/own=x good/f=x", "a/b=2 d/below=2"], |config| {
                let dir = if layer == "upper" { config.upper.as_ref().unwrap() } else { &config.lowers[0] };
                build(dir, "d/own=x");
                set_xattr(&dir.join("d"), "user.overlay.redirect", value.as_bytes());
            });
            assert_eq!(errno(bed.attr("d")), Errno::INVAL, "{value:?} in {layer}");
            assert_eq!((bed.list(""), bed.read("good/f")), (vec!["a".into(), "d".into(), "good".into()], "x".into()));
            bed.append("good/f", "y").unwrap();
            assert!(bed.rmdir("d").is_err() && bed.rename("d", "e").is_err());
            assert_eq!(errno(bed.mkdir("d")), Errno::INVAL, "{value:?} in {layer}");
        }
    }
}

#[test]
fn redirects_to_nowhere_show_the_own_part_only() {
    for value in ["nothing", "/nothing", "/a/nothing/deeper", "/f", "/f/g"] {
        let bed = Bed::new(&[&format!("d/own=x d@user.overlay.redirect={value}"), "a/b=2 d/below=2 f=file"]);
        assert_eq!(bed.list("d"), ["own"], "{value}");
        bed.write("d/new", "n").unwrap();
        bed.rename("d", "e").unwrap();
        let bed = bed.check_lasting();
        assert_eq!(bed.list("e"), ["new", "own"], "{value}");
    }
}

#[test]
fn redirects_in_a_circle_end() {
    let bed = Bed::new(&[
        "a/1=x a@user.overlay.redirect=/b b/2=x b@user.overlay.redirect=/a s/3=x s@user.overlay.redirect=/s/s s/s/4=x \
         s/s@user.overlay.redirect=/s",
        "a/5=x a@user.overlay.redirect=/b b/6=x b@user.overlay.redirect=/a s/s/s/7=x s@user.overlay.redirect=/s/s",
        "a/8=x b/9=x s/10=x",
    ]);
    assert_eq!(
        (bed.list("a"), bed.list("b")),
        (vec!["1".into(), "6".into(), "8".into()], vec!["2".into(), "5".into(), "9".into()])
    );
    assert!(bed.list("s").contains(&"3".to_string()));
    bed.list("s/s");
    bed.rename("s", "t").unwrap();
    bed.rename("t/s", "u").unwrap();
    bed.check_lasting();
}

#[test]
fn broken_origins_are_ignored() {
    let mut handle = vec![0, 0xfb, 29, 0, 1];
    handle.extend([0; 24]);
    let mut random = handle.clone();
    random[5..].fill(0xa5);
    let huge = vec![0xff; 2000];
    for origin in [&b""[..], b"x", b"\0\xfb", &handle[..20], &handle, &random, &huge] {
        let bed = Bed::with(&["d/f=low d/g=low"], |config| {
            let upper = config.upper.as_ref().unwrap();
            build(upper, "d/f=up file=x s->t");
            for path in [".", "d", "d/f", "file"] {
                set_xattr(&upper.join(path), "user.overlay.origin", origin);
                set_xattr(&upper.join(path), "user.overlay.impure", b"y");
            }
        });
        assert_eq!(
            (bed.read("d/f"), bed.read("file"), bed.list("d")),
            ("up".into(), "x".into(), vec!["f".into(), "g".into()])
        );
        bed.append("d/f", "+").unwrap();
        bed.link("d/f", "h").unwrap();
        bed.rename("d", "e").unwrap();
        bed.unlink("file").unwrap();
        let bed = bed.reopen();
        assert_eq!(
            (bed.list(""), bed.list("e")),
            (vec!["e".into(), "h".into(), "s".into()], vec!["f".into(), "g".into()])
        );
        assert_eq!((bed.read("e/f"), bed.read("h"), bed.read("e/g")), ("up+".into(), "up+".into(), "low".into()));
    }
}

#[test]
fn broken_link_count_marks_are_ignored() {
    for value in ["", "U", "U+", "U+99999999999999", "U-9", "L-99", "L+4294967295", "x+1", "\u{7f}"] {
        let bed = Bed::new(&["a=x b==a c=y"]);
        bed.chmod("a", 0o600).unwrap();
        let upper = bed.path("upper/a");
        let bed = bed.reopen_with(|_| set_xattr(&upper, "user.overlay.nlink", value.as_bytes()));
        let nlink = bed.attr("a").unwrap().nlink;
        assert!(nlink >= 1, "{value:?}: {nlink}");
        assert_eq!((bed.ino("a"), bed.read("b")), (bed.ino("b"), "x".into()), "{value:?}");
        // With a count that is too low the last name may go too early; what the lower layer has is not lost by that.
        bed.unlink("a").unwrap();
        let bed = bed.reopen();
        assert_eq!((bed.list(""), bed.read("b")), (vec!["b".into(), "c".into()], "x".into()), "{value:?}");
        bed.link("b", "d").unwrap();
        bed.unlink("b").unwrap();
        bed.unlink("d").unwrap();
        assert_eq!(bed.list(""), ["c"]);
    }
}

#[test]
fn entries_of_the_index_that_are_of_another_type_are_ignored() {
    let bed = Bed::new(&["a=x b==a"]);
    bed.chmod("a", 0o600).unwrap();
    let layers = bed.stop();
    let index = layers.path("work/index");
    let entry = fs::read_dir(&index).unwrap().next().unwrap().unwrap().path();
    fs::remove_file(&entry).unwrap();
    fs::create_dir(&entry).unwrap();
    fs::create_dir(index.join("no handle")).unwrap();
    let overlay = layers.start().unwrap();
    drop(view::tree(&overlay));
    let b = overlay.lookup(crate::inode::numbers::ROOT, b"b").unwrap().unwrap();
    assert_eq!(view::content(&overlay, b.ino), b"x");
}

#[test]
fn opaque_marks_of_any_value_are_read() {
    let long = "y".repeat(1000);
    for value in ["", "Y", "yy", "x ", "0", &long] {
        let bed = Bed::new(&[&format!("d/a=1 d@user.overlay.opaque={value}"), "d/b=2"]);
        assert_eq!(bed.list("d"), ["a", "b"], "{value:?}");
    }
}

#[test]
fn odd_whiteout_names_hide_nothing_else() {
    let bed = Bed::new(&[
        "d/.wh.= d/.wh..= d/.wh...= d/.wh..wh.x= d/.wh.dir/x=1 e/.wh..wh..opq/x=1 e/a=1 .wh..= .wh.=",
        "d/a=2 d/dir/y=2 e/b=2",
    ]);
    assert_eq!(
        (bed.list(""), bed.list("d"), bed.list("e")),
        (vec!["d".into(), "e".into()], vec!["a".into()], vec!["a".into()])
    );
    bed.rename("d", "f").unwrap();
    bed.unlink("f/a").unwrap();
    bed.rmdir("f").unwrap();
    bed.check_lasting();
}

#[test]
fn whiteouts_that_were_moved_into_an_upper_by_hand_do_not_show() {
    let bed = Bed::with(&["d/a=1"], |config| {
        build(config.upper.as_ref().unwrap(), "new/ new/w! new/x=1 w!");
    });
    assert_eq!((bed.list(""), bed.list("new")), (vec!["d".into(), "new".into()], vec!["x".into()]));
    bed.write("w", "made").unwrap();
    bed.write("new/w", "made").unwrap();
    bed.unlink("new/w").unwrap();
    bed.unlink("new/x").unwrap();
    bed.rmdir("new").unwrap();
    bed.check_lasting();
}

#[test]
fn a_directory_of_nothing_but_whiteouts_in_an_upper_without_lower_part_is_removed_and_replaced() {
    for rename in [false, true] {
        let bed = Bed::with(&["d/a=1"], |config| {
            build(config.upper.as_ref().unwrap(), "new/ new/w! new/v!");
        });
        if rename {
            bed.rename("d", "new").unwrap();
            assert_eq!(bed.list("new"), ["a"]);
        } else {
            bed.rmdir("new").unwrap();
        }
        bed.check_lasting();
    }
}

#[test]
fn a_metacopy_in_the_upper_is_refused_and_never_shown_as_empty() {
    let bed = Bed::with(&["f=data g=x"], |config| {
        build(config.upper.as_ref().unwrap(), "f= f@user.overlay.metacopy=");
    });
    assert_eq!(errno(bed.attr("f")), Errno::PERM);
    assert_eq!(bed.list(""), ["f", "g"]);
}

#[test]
fn unreadable_directories_are_refused_to_who_may_not_read_them() {
    if us().uid == 0 {
        eprintln!("SKIPPED: unreadable directories (root reads them)");
        return;
    }
    let bed = Bed::with(&["d/f=x g=x"], |config| build(&config.lowers[0], "d%000 g%000"));
    let d = bed.ino("d");
    assert_eq!(errno(bed.overlay.lookup(d, b"f")), Errno::ACCESS);
    let open = d;
    assert_eq!(errno(bed.overlay.read_dir(open, 0, false, |_| false)), Errno::ACCESS);
    assert_eq!(errno(bed.append("g", "y")), Errno::ACCESS);
    assert_eq!(errno(bed.mkdir("d/new")), Errno::ACCESS);
    assert!(bed.list("").len() == 2);
    build(&bed.path("lower0"), "d%755");
    std::mem::forget(bed);
}

#[test]
fn what_is_no_file_is_not_opened() {
    // Opening the pipe would wait for its other end for ever, opening a device might do anything.
    let bed = Bed::with(&["pipe| d/f=x link->d"], |config| build(config.upper.as_ref().unwrap(), "up|"));
    for flags in [OFlags::RDONLY, OFlags::WRONLY, OFlags::RDWR | OFlags::TRUNC] {
        for (path, expected) in [("pipe", Errno::NXIO), ("up", Errno::NXIO), ("d", Errno::ISDIR), ("link", Errno::LOOP)]
        {
            assert_eq!(errno(bed.open_file(path, flags)), expected, "{path}");
        }
    }
    assert_eq!(bed.upper(), ["up 644 special"], "nothing was copied up");
}

#[test]
fn marks_on_objects_of_other_types_mean_nothing() {
    if !root_or_skip("marks on symlinks and pipes") {
        return;
    }
    let words = "file=x dir/f=1 link->dir pipe| full=y";
    let below = "file/below=1 dir/g=2 link/below=1 pipe/below=1 full=z";
    let trusted = |layers: &[&str], adapt: &dyn Fn(&Path)| {
        Bed::with(layers, |config| {
            config.userxattr = Some(false);
            adapt(&config.lowers[0]);
            let upper = config.upper.as_ref().unwrap();
            build(upper, "up=x updir/f=1 uplink->dir uppipe|");
            adapt(upper);
        })
    };
    let expected = trusted(&[words, below], &|_| {}).tree();
    let marks = [
        ("opaque", &b"y"[..], "file link pipe full up uplink uppipe"),
        ("opaque", b"x", "file link pipe up uplink uppipe"),
        ("redirect", b"/dir", "file link pipe full up uplink uppipe"),
        ("redirect", b"/../outside", "file link pipe full up uplink uppipe"),
        ("metacopy", b"", "dir link pipe updir uplink uppipe"),
        ("metacopy", b"\xff", "dir link pipe updir uplink uppipe"),
        ("whiteout", b"y", "file dir link pipe full up updir uplink uppipe"),
        ("nlink", b"U+7", "dir link pipe updir uplink uppipe"),
        ("impure", b"y", "file link pipe up uplink uppipe"),
    ];
    for (mark, value, objects) in marks {
        let bed = trusted(&[words, below], &|layer| {
            for path in objects.split(' ').map(|name| layer.join(name)) {
                if path.symlink_metadata().is_ok() {
                    set_xattr(&path, &format!("trusted.overlay.{mark}"), value);
                }
            }
        });
        assert_eq!(bed.tree(), expected, "{mark}={}", value.escape_ascii());
        bed.rename("dir", "moved").unwrap();
        bed.append("file", "+").unwrap();
        for name in ["link", "pipe", "up", "uplink", "uppipe"] {
            bed.rename(name, &format!("{name}2")).unwrap();
        }
        bed.unlink("full").unwrap();
        bed.check_lasting();
    }
}

#[test]
fn redirects_through_what_is_no_directory_lead_nowhere() {
    let outside = tempfile::tempdir().unwrap();
    build(outside.path(), "x/secret=s secret=s");
    for target in ["pipe", "file", "whiteout", "link"] {
        let below = format!("pipe| file=x link->{} d/below=1", outside.path().display());
        let bed = Bed::with(&["d/own=1 w/", &below], |config| {
            if target == "whiteout" && us().uid == 0 {
                build(&config.lowers[1], "whiteout!");
            }
            for (dir, redirect) in [("d", format!("/{target}/x")), ("w", format!("/{target}"))] {
                set_xattr(&config.lowers[0].join(dir), "user.overlay.redirect", redirect.as_bytes());
            }
        });
        assert_eq!((bed.list("d"), bed.list("w")), (vec!["own".to_string()], vec![]), "{target}");
        bed.write("d/new", "n").unwrap();
        bed.write("w/new", "n").unwrap();
        bed.check_lasting();
    }
    assert_eq!(view::dump(outside.path()), ["secret 644 s", "x/ 755", "x/secret 644 s"]);
}

#[test]
fn whatever_lies_in_a_work_directory_leads_nowhere_else() {
    let outside = tempfile::tempdir().unwrap();
    // As a volatile mount leaves it: who looks there refuses to mount.
    build(outside.path(), "incompat/volatile/dirty= kept=k");
    let before = view::fingerprint(outside.path());
    let link = format!("->{}", outside.path().display());
    let deep = format!("work/{}/", ["d"; 60].join("/"));
    let cases = [
        (format!("work{link}"), true),
        (format!("work/incompat{link}"), true),
        (format!("work/sub{link} work/#1{link} work/f=x"), true),
        ("work=file".to_owned(), true),
        ("work|".to_owned(), true),
        (deep, true),
        (format!("index{link}"), false),
        ("index=file".to_owned(), false),
        ("index|".to_owned(), false),
        (format!("index/00fb{link} index/x| index/d/f=x"), true),
    ];
    for (words, mounts) in cases {
        let layers = Bed::new(&["a=x b==a d/f=x"]).stop();
        for made in ["work/work", "work/index"] {
            fs::remove_dir(layers.path(made)).unwrap();
        }
        if let Some((dir @ ("work" | "index"), _)) = words.split_once('/') {
            fs::create_dir(layers.path("work").join(dir)).unwrap();
        }
        build(&layers.path("work"), &words);
        match layers.start() {
            Ok(overlay) => {
                assert!(mounts, "{words}");
                let a = overlay.lookup(crate::inode::numbers::ROOT, b"a").unwrap().unwrap();
                let set = crate::ops::SetAttr { mode: Some(0o600), ..Default::default() };
                overlay.setattr(a.ino, &set, None, us()).unwrap();
                drop(view::tree(&overlay));
            }
            Err(error) => {
                assert!(!mounts, "{words}: {error}");
                assert!(error.to_string().contains("workdir="), "{words}: {error}");
            }
        }
        assert_eq!(view::fingerprint(outside.path()), before, "{words}");
    }
}

/// A directory with `depth` levels below it, each called `level-0001` and so on; removed when dropped.
struct Deep(PathBuf);

impl Deep {
    fn build(root: &Path, depth: usize) -> Self {
        let mut dir: OwnedFd = openat(CWD, root, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        for level in 0..depth {
            let name = name_of(level);
            mkdirat(&dir, name.as_str(), Mode::RWXU).unwrap();
            dir = openat(&dir, name.as_str(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        Self(root.to_owned())
    }
}

impl Drop for Deep {
    fn drop(&mut self) {
        // What removes temporary directories gives up on paths as long.
        for dir in ["upper", "lower0"] {
            let status = Command::new("rm").arg("-rf").arg(self.0.parent().unwrap().join(dir)).status().unwrap();
            assert!(status.success());
        }
    }
}

fn name_of(level: usize) -> String {
    format!("level-{level:04}")
}

#[test]
fn paths_beyond_path_max_are_reached_by_descending() {
    const DEPTH: usize = 10_000;
    let mut deep = None;
    let bed = Bed::with(&["x="], |config| deep = Some(Deep::build(&config.lowers[0], DEPTH)));
    let descend = |bed: &Bed, depth: usize| {
        (0..depth).fold(crate::inode::numbers::ROOT, |dir, level| {
            bed.overlay.lookup(dir, name_of(level).as_bytes()).unwrap().unwrap().ino
        })
    };
    let bottom = descend(&bed, DEPTH);
    let (made, file) = bed.overlay.create(bottom, b"file", 0o644, 0, OFlags::RDWR, us()).unwrap();
    let file = file.file;
    bed.overlay.write(file, 0, b"deep", true, us()).unwrap();
    bed.overlay.release(file).unwrap();
    assert_eq!(view::entries(&bed.overlay, bottom).len(), 1);
    // Half of it moves to the root.
    let half = descend(&bed, DEPTH / 2);
    bed.overlay
        .rename(
            half,
            name_of(DEPTH / 2).as_bytes(),
            crate::inode::numbers::ROOT,
            b"half",
            rustix::fs::RenameFlags::empty(),
        )
        .unwrap_or_else(|error| assert_eq!(error.errno(), Errno::XDEV, "{error}"));
    let bed = bed.reopen();
    if !bed.exists("half") {
        let bottom = descend(&bed, DEPTH);
        assert_eq!(bed.overlay.lookup(bottom, b"file").unwrap().unwrap().ino, made.ino);
    }
    drop(bed.stop().path(""));
    drop(deep);
}

#[test]
fn a_metacopy_in_a_lower_layer_is_refused_and_never_shown_as_empty() {
    let bed = Bed::with(&["f= f@user.overlay.metacopy= g=x", "f=data"], |config| {
        fs::File::options().write(true).open(config.lowers[0].join("f")).unwrap().set_len(4).unwrap();
    });
    assert_eq!(errno(bed.attr("f")), Errno::PERM);
    assert_eq!(bed.read("g"), "x");
}
