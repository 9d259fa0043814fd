//! Which errno for what.

use rustix::fs::{OFlags, RenameFlags};

use super::Bed;
use super::bed::{errno, us};
use crate::error::{Errno, Result};
use crate::inode::numbers::ROOT;
use crate::ops::SetAttr;
use crate::times::NewTime;

/// Operations by what they are called, each to fail.
type Operations<'b> = Vec<(&'static str, Box<dyn Fn() -> Result<()> + 'b>)>;

const LAYER: &str = "f=x g=x l->f d/f=x d/sub/x=1 empty/";

#[test]
fn operations_fail_with_the_errno_of_the_kernel() {
    let bed = Bed::new(&[LAYER]);
    // The same whether the objects are in the lower only, or in the upper.
    for round in ["lower", "upper"] {
        let table: [(&str, Result<()>, Errno); 29] = [
            ("create over a file", bed.create("f", OFlags::WRONLY).map(drop), Errno::EXIST),
            ("mkdir over a file", bed.mkdir("f").map(drop), Errno::EXIST),
            ("mkdir over a directory", bed.mkdir("d").map(drop), Errno::EXIST),
            ("symlink over a symlink", bed.symlink("l", "x").map(drop), Errno::EXIST),
            ("mknod over a directory", bed.mknod("d", libc::S_IFIFO, (0, 0)).map(drop), Errno::EXIST),
            ("link over a file", bed.link("f", "g").map(drop), Errno::EXIST),
            ("link a directory", bed.link("d", "d2").map(drop), Errno::PERM),
            ("unlink what is not there", bed.unlink("no"), Errno::NOENT),
            ("unlink a directory", bed.unlink("d"), Errno::ISDIR),
            ("rmdir what is not there", bed.rmdir("no"), Errno::NOENT),
            ("rmdir a file", bed.rmdir("f"), Errno::NOTDIR),
            ("rmdir a symlink", bed.rmdir("l"), Errno::NOTDIR),
            ("rmdir what is not empty", bed.rmdir("d"), Errno::NOTEMPTY),
            ("rename what is not there", bed.rename("no", "x"), Errno::NOENT),
            ("rename a file over a directory", bed.rename("f", "empty"), Errno::ISDIR),
            ("rename a directory over a file", bed.rename("empty", "f"), Errno::NOTDIR),
            ("rename a directory over one not empty", bed.rename("empty", "d"), Errno::NOTEMPTY),
            ("rename with NOREPLACE", bed.rename_with("f", "g", RenameFlags::NOREPLACE), Errno::EXIST),
            ("exchange with nothing", bed.rename_with("f", "no", RenameFlags::EXCHANGE), Errno::NOENT),
            ("leave a whiteout", bed.rename_with("f", "n", RenameFlags::WHITEOUT), Errno::INVAL),
            ("open a directory as a file for writing", bed.open_file("d", OFlags::WRONLY).map(drop), Errno::ISDIR),
            ("open a file as a directory", bed.overlay.read_dir(bed.ino("f"), 0, false, |_| false), Errno::NOTDIR),
            ("readlink of a file", bed.overlay.readlink(bed.ino("f")).map(drop), Errno::INVAL),
            ("truncate a directory", bed.truncate("d", 0).map(drop), Errno::INVAL),
            ("truncate a symlink", bed.truncate("l", 0).map(drop), Errno::INVAL),
            ("chmod a symlink", bed.chmod("l", 0o600).map(drop), Errno::OPNOTSUPP),
            ("getxattr without one", bed.xattr("f", "user.no").map(drop), Errno::NODATA),
            ("removexattr without one", bed.overlay.removexattr(bed.ino("f"), b"user.no", us()), Errno::NODATA),
            ("look up below a file", bed.overlay.lookup(bed.ino("f"), b"x").map(drop), Errno::NOTDIR),
        ];
        for (what, result, expected) in table {
            assert_eq!(errno(result), expected, "{what}, in the {round}");
        }
        if round == "lower" {
            for path in ["f", "g", "d", "d/f", "empty"] {
                bed.chmod(path, 0o700).unwrap();
            }
        }
    }
    bed.check_lasting();
}

#[test]
fn names_are_checked() {
    let bed = Bed::new(&[LAYER]);
    let long = [b'n'; 256];
    for (name, expected) in [
        (&long[..], Errno::NAMETOOLONG),
        (b"", Errno::INVAL),
        (b".", Errno::INVAL),
        (b"..", Errno::INVAL),
        (b"a/b", Errno::INVAL),
        (b"a\0b", Errno::INVAL),
    ] {
        let operations: Operations<'_> = vec![
            ("lookup", Box::new(|| bed.overlay.lookup(ROOT, name).map(drop))),
            ("create", Box::new(|| bed.overlay.create(ROOT, name, 0o644, 0, OFlags::RDWR, us()).map(drop))),
            ("mkdir", Box::new(|| bed.overlay.mkdir(ROOT, name, 0o755, 0, us()).map(drop))),
            ("symlink", Box::new(|| bed.overlay.symlink(ROOT, name, b"t", us()).map(drop))),
            ("mknod", Box::new(|| bed.overlay.mknod(ROOT, name, libc::S_IFIFO, 0, (0, 0), us()).map(drop))),
            ("link", Box::new(|| bed.overlay.link(bed.ino("f"), ROOT, name).map(drop))),
            ("unlink", Box::new(|| bed.overlay.unlink(ROOT, name))),
            ("rmdir", Box::new(|| bed.overlay.rmdir(ROOT, name))),
            ("rename from", Box::new(|| bed.overlay.rename(ROOT, name, ROOT, b"n", RenameFlags::empty()))),
            ("rename to", Box::new(|| bed.overlay.rename(ROOT, b"f", ROOT, name, RenameFlags::empty()))),
        ];
        for (what, operation) in operations {
            assert_eq!(errno(operation()), expected, "{what} of {:?}", name.escape_ascii().to_string());
        }
    }
    assert_eq!(bed.upper(), Vec::<String>::new());
}

#[test]
fn the_longest_name_works_in_every_form_of_whiteout_but_the_dot_file() {
    use crate::config::WhiteoutStyle;
    let name = "n".repeat(255);
    for style in [WhiteoutStyle::Device, WhiteoutStyle::Xattr] {
        let bed = Bed::with(&[&format!("{name}=x")], |config| config.whiteouts = Some(style));
        bed.append(&name, "y").unwrap();
        bed.unlink(&name).unwrap();
        bed.write(&name, "new").unwrap();
        bed.rename(&name, "short").unwrap();
        bed.check_lasting();
    }
    let bed = Bed::with(&[&format!("{name}=x")], |config| config.whiteouts = Some(WhiteoutStyle::DotFile));
    assert_eq!(errno(bed.unlink(&name)), Errno::NAMETOOLONG);
    assert_eq!(bed.read(&name), "x");
}

#[test]
fn a_symlink_target_may_be_long_but_not_too_long() {
    let bed = Bed::new(&[""]);
    bed.symlink("long", &"t".repeat(4095)).unwrap();
    assert_eq!(bed.readlink("long").len(), 4095);
    assert_eq!(errno(bed.symlink("longer", &"t".repeat(4096))), Errno::NAMETOOLONG);
}

#[test]
fn unknown_node_ids_and_handles_are_refused() {
    let bed = Bed::new(&[LAYER]);
    let no = 0xdead;
    assert_eq!(errno(bed.overlay.getattr(no)), Errno::STALE);
    assert_eq!(errno(bed.overlay.lookup(no, b"x")), Errno::STALE);
    assert_eq!(errno(bed.overlay.open_file(no, OFlags::RDONLY, us())), Errno::STALE);
    assert_eq!(errno(bed.overlay.read(no, 0, &mut [0])), Errno::BADF);
    assert_eq!(errno(bed.overlay.write(no, 0, b"x", true, us())), Errno::BADF);
    assert_eq!(errno(bed.overlay.fsync(no, false)), Errno::BADF);
    assert_eq!(errno(bed.overlay.seek(no, 0, true)), Errno::BADF);
    assert_eq!(errno(bed.overlay.read_dir(no, 0, false, |_| false)), Errno::STALE);
    bed.overlay.release(no).unwrap();
    bed.overlay.forget(no, 5);
}

#[test]
fn every_change_of_a_read_only_overlay_fails_with_erofs() {
    let lower = Bed::read_only(&[LAYER]);
    let with_upper = Bed::with(&[LAYER], |config| config.read_only = true);
    for bed in [lower, with_upper] {
        assert!(bed.overlay.is_read_only());
        let ino = bed.ino("f");
        let set = |set: SetAttr| bed.overlay.setattr(ino, &set, None, us()).map(drop);
        let base = SetAttr::default();
        let operations: Operations<'_> = vec![
            ("create", Box::new(|| bed.create("n", OFlags::WRONLY).map(drop))),
            ("create below", Box::new(|| bed.create("d/n", OFlags::WRONLY).map(drop))),
            ("mkdir", Box::new(|| bed.mkdir("n").map(drop))),
            ("symlink", Box::new(|| bed.symlink("n", "t").map(drop))),
            ("mknod", Box::new(|| bed.mknod("n", libc::S_IFIFO, (0, 0)).map(drop))),
            ("link", Box::new(|| bed.link("f", "n").map(drop))),
            ("unlink", Box::new(|| bed.unlink("f"))),
            ("rmdir", Box::new(|| bed.rmdir("empty"))),
            ("rename", Box::new(|| bed.rename("f", "n"))),
            ("rename over", Box::new(|| bed.rename("f", "g"))),
            ("exchange", Box::new(|| bed.rename_with("f", "g", RenameFlags::EXCHANGE))),
            ("rename a directory", Box::new(|| bed.rename("d", "n"))),
            ("open for writing", Box::new(|| bed.open_file("f", OFlags::WRONLY).map(drop))),
            ("open for both", Box::new(|| bed.open_file("f", OFlags::RDWR).map(drop))),
            ("open to truncate", Box::new(|| bed.open_file("f", OFlags::RDONLY | OFlags::TRUNC).map(drop))),
            ("chmod", Box::new(|| set(SetAttr { mode: Some(0o600), ..base }))),
            ("chown", Box::new(|| set(SetAttr { uid: Some(us().uid), ..base }))),
            ("chgrp", Box::new(|| set(SetAttr { gid: Some(us().gid), ..base }))),
            ("truncate", Box::new(|| set(SetAttr { size: Some(0), ..base }))),
            ("utimes", Box::new(|| set(SetAttr { mtime: Some(NewTime::Now), ..base }))),
            ("setxattr", Box::new(|| bed.set_xattr("f", "user.x", "y"))),
            ("set flags", Box::new(|| bed.overlay.set_flags(ino, 0))),
            ("chmod the root", Box::new(|| bed.chmod("", 0o755).map(drop))),
        ];
        for (what, operation) in operations {
            assert_eq!(errno(operation()), Errno::ROFS, "{what}");
        }
        // What fails anyway does so for its own reason.
        assert_eq!(errno(bed.unlink("no")), Errno::NOENT);
        assert_eq!(errno(bed.mkdir("d")), Errno::EXIST);
        assert_eq!(bed.read("f"), "x");
        assert_eq!(bed.list("d"), ["f", "sub"]);
        assert_eq!(bed.upper(), Vec::<String>::new());
    }
}

#[test]
fn renaming_onto_another_name_of_the_same_file_does_nothing() {
    let bed = Bed::new(&["f=x"]);
    bed.link("f", "g").unwrap();
    bed.rename("f", "g").unwrap();
    assert_eq!(bed.list(""), ["f", "g"]);
    bed.rename("f", "f").unwrap();
    assert_eq!(errno(bed.rename_with("f", "g", RenameFlags::NOREPLACE)), Errno::EXIST);
    bed.check_lasting();
}

#[cfg(debug_assertions)]
#[test]
fn an_operation_that_takes_locks_out_of_order_panics_in_debug_builds() {
    use crate::lock::{Mutex, rank};

    let bed = Bed::new(&["f=x"]);
    let leaf = Mutex::<(), { rank::LEAF }>::new(());
    let held = leaf.lock();
    let operation = std::panic::AssertUnwindSafe(|| bed.attr("f").map(drop));
    let panic = std::panic::catch_unwind(operation).unwrap_err();
    let said = panic.downcast_ref::<String>().unwrap();
    assert!(said.starts_with("a lock of rank ") && said.ends_with(" is taken under one of rank 7"), "{said}");
    drop(held);
    assert_eq!(bed.read("f"), "x");
}
