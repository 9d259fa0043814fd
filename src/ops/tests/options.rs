//! What options change.

use std::fs;

use super::Bed;
use super::bed::{errno, us};
use crate::config::Config;
use crate::error::Errno;
use crate::overlay::Overlay;
use crate::sys::testing::root_or_skip;

/// The errno with which these layers are refused, and the message.
fn refused(adapt: impl FnOnce(&mut Config, &std::path::Path)) -> (Errno, String) {
    let dir = tempfile::tempdir().unwrap();
    for name in ["lower", "upper", "work"] {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    let path = |name: &str| dir.path().join(name);
    let mut config = Config {
        lowers: vec![path("lower")],
        upper: Some(path("upper")),
        work: Some(path("work")),
        userxattr: Some(true),
        ..Config::default()
    };
    adapt(&mut config, dir.path());
    let error = Overlay::open(&config).unwrap_err();
    (error.errno(), error.to_string())
}

#[test]
fn layers_that_are_not_there_are_named_with_their_option() {
    for (adapt, option) in [
        ((|c, p| c.lowers.push(p.join("no"))) as fn(&mut Config, &std::path::Path), "lowerdir="),
        (|c, p| c.upper = Some(p.join("no")), "upperdir="),
        (|c, p| c.work = Some(p.join("no")), "workdir="),
    ] {
        let (errno, message) = refused(adapt);
        assert_eq!(errno, Errno::NOENT);
        assert!(message.contains(option) && message.contains("/no"), "{message}");
    }
    let (errno, _) = refused(|c, p| {
        fs::write(p.join("file"), "").unwrap();
        c.lowers.push(p.join("file"));
    });
    assert_eq!(errno, Errno::NOTDIR);
    let (errno, _) = refused(|c, _| (c.lowers, c.upper, c.work) = (Vec::new(), None, None));
    assert_eq!(errno, Errno::INVAL);
}

#[test]
fn an_upper_or_work_directory_in_use_is_refused() {
    let bed = Bed::new(&["f=x"]);
    for (upper, work) in [("upper", "work2"), ("upper2", "work")] {
        for name in ["upper2", "work2"] {
            fs::create_dir_all(bed.path(name)).unwrap();
        }
        let config = Config {
            lowers: vec![bed.path("lower0")],
            upper: Some(bed.path(upper)),
            work: Some(bed.path(work)),
            userxattr: Some(true),
            ..Config::default()
        };
        assert_eq!(errno(Overlay::open(&config)), Errno::BUSY, "{upper} {work}");
    }
    // Lower layers are shared.
    let other = Bed::with(&[""], |config| config.lowers = vec![bed.path("lower0")]);
    assert_eq!(other.read("f"), "x");
}

#[test]
fn a_work_directory_on_another_filesystem_is_refused() {
    use std::os::unix::fs::MetadataExt;
    let Ok(other) = tempfile::tempdir_in("/dev/shm") else {
        eprintln!("SKIPPED: a work directory on another filesystem (no /dev/shm)");
        return;
    };
    let dev = |path: &std::path::Path| fs::metadata(path).unwrap().dev();
    if dev(other.path()) == dev(&std::env::temp_dir()) {
        eprintln!("SKIPPED: a work directory on another filesystem (/dev/shm is no other)");
        return;
    }
    let (errno, message) = refused(|c, _| c.work = Some(other.path().to_owned()));
    assert_eq!(errno, Errno::XDEV);
    assert!(message.contains("workdir="), "{message}");
}

#[test]
fn what_was_left_in_the_work_directory_is_removed() {
    let bed = Bed::new(&["f=x"]);
    let work = bed.path("work");
    let bed = bed.reopen_with(|_| {
        super::bed::build(&work, "work/#1=left work/#2/a=x work/#2/b/c=x work/#3!");
        super::bed::build(&work, "work/#2/b%0");
    });
    assert_eq!(super::view::dump(&bed.path("work/work")), Vec::<String>::new());
    bed.append("f", "y").unwrap();
}

#[test]
fn the_upper_of_a_volatile_mount_is_refused_until_its_mark_is_removed() {
    let bed = Bed::with(&["f=x"], |config| config.volatile = true);
    bed.append("f", "y").unwrap();
    let layers = bed.stop();
    let error = layers.start().unwrap_err();
    assert_eq!(error.errno(), Errno::INVAL);
    assert!(error.to_string().contains("incompat"), "{error}");
    fs::remove_dir_all(layers.path("work/work/incompat")).unwrap();
    layers.start().unwrap();
}

#[test]
fn squashed_owners_are_shown_and_nothing_on_disk_is_changed() {
    use std::os::unix::fs::MetadataExt;
    let bed = Bed::with(&["d/f=x"], |config| (config.squash_uid, config.squash_gid) = (Some(4711), Some(4712)));
    for path in ["", "d", "d/f"] {
        let attr = bed.attr(path).unwrap();
        assert_eq!((attr.uid, attr.gid), (4711, 4712), "{path}");
    }
    bed.chmod("d/f", 0o600).unwrap();
    assert_eq!(fs::metadata(bed.path("upper/d/f")).unwrap().uid(), us().uid);
    if root_or_skip("files made under a squashed owner") {
        bed.mkdir("new").unwrap();
        assert_eq!(fs::metadata(bed.path("upper/new")).unwrap().uid(), 4711);
        let set = crate::ops::SetAttr { uid: Some(1), ..Default::default() };
        bed.setattr("new", set).unwrap();
        assert_eq!(bed.attr("new").unwrap().uid, 4711);
    }
}

#[test]
fn directories_show_a_link_count_of_one_when_merged_or_asked_to() {
    let bed = Bed::new(&["m/a/ m/b/ l/a/ l/b/", "m/c/"]);
    assert_eq!((bed.attr("m").unwrap().nlink, bed.attr("l").unwrap().nlink), (1, 4));
    let bed = Bed::with(&["m/a/ l/a/ l/b/", "m/c/"], |config| config.static_nlink = true);
    assert_eq!((bed.attr("m").unwrap().nlink, bed.attr("l").unwrap().nlink), (1, 1));
    bed.mkdir("new").unwrap();
    assert_eq!(bed.attr("new").unwrap().nlink, 1);
}

#[test]
fn access_times_of_the_upper_stay_with_noatime() {
    use std::os::unix::fs::MetadataExt;
    let bed = Bed::with(&["d/"], |config| config.noatime = true);
    bed.write("d/f", "x").unwrap();
    let old = crate::times::NewTime::At(crate::attr::Time { sec: 1000, nsec: 5 });
    bed.setattr("d/f", crate::ops::SetAttr { atime: Some(old), ..Default::default() }).unwrap();
    bed.read("d/f");
    let meta = fs::metadata(bed.path("upper/d/f")).unwrap();
    assert_eq!((meta.atime(), meta.atime_nsec()), (1000, 5));
}

#[test]
fn figures_of_the_filesystem_are_those_of_the_upper() {
    let bed = Bed::new(&["f=x"]);
    let (shown, real) = (bed.overlay.statfs().unwrap(), rustix::fs::statvfs(bed.path("upper")).unwrap());
    assert_eq!((shown.f_bsize, shown.f_blocks, shown.f_namemax), (real.f_bsize, real.f_blocks, real.f_namemax));
    Bed::read_only(&["f=x"]).overlay.statfs().unwrap();
}

#[test]
fn the_dialect_is_that_of_the_option() {
    let bed = Bed::new(&["d/f=x"]);
    bed.rename("d", "e").unwrap();
    let names = |path: std::path::PathBuf| {
        let mut buffer = vec![0_u8; 4096];
        let len = rustix::fs::llistxattr(&path, &mut buffer).unwrap();
        super::view::text(&buffer[..len])
    };
    assert!(names(bed.path("upper/e")).contains("user.overlay.redirect"));
    if root_or_skip("marks as trusted attributes") {
        let bed = Bed::with(&["d/f=x"], |config| config.userxattr = None);
        bed.rename("d", "e").unwrap();
        let names = names(bed.path("upper/e"));
        assert!(names.contains("trusted.overlay.redirect") && !names.contains("user.overlay"), "{names}");
        let tree = bed.tree();
        assert_eq!(bed.reopen().tree(), tree);
    }
}
