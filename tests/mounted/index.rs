//! `index=on|off`: what belongs together is bound, and refused otherwise; what the index holds in vain is removed.

use std::ffi::OsString;
use std::fs;
use std::process::Command;

use rustix::io::Errno;

use crate::common::*;

const INDEX: &str = "redirect_dir=on,index=on";
const NONE: &str = "redirect_dir=on,index=off";
const ORIGIN: &str = "trusted.overlay.origin";
const UPPER: &str = "trusted.overlay.upper";
const NLINK: &str = "trusted.overlay.nlink";

fn setup() -> Setup {
    Setup::new().lower(|l| l.file("a", "a").hard_link("b", "a").hard_link("c", "a")).lower(|l| l.file("z", "z"))
}

fn list(tree: &Mounted, layers: &[&str]) -> OsString {
    layers.iter().map(|layer| tree.beside(layer).into_os_string()).collect::<Vec<_>>().join(":".as_ref())
}

#[track_caller]
fn assert_stale(tree: &mut Mounted) {
    let error = tree.try_mount().expect_err("other layers were taken");
    let is_stale = error.contains("Stale file handle") || error.contains("belongs to another lower layer or workdir");
    assert!(is_stale, "{error}");
}

/// The only entry of the index.
fn entry(tree: &Mounted) -> std::path::PathBuf {
    let entries: Vec<_> = fs::read_dir(tree.beside("work/index")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let mut entries =
        entries.into_iter().filter(|path| !path.file_name().unwrap().as_encoded_bytes().starts_with(b"#"));
    let entry = entries.next().expect("an entry of the index");
    assert_eq!(entries.next(), None);
    entry
}

#[test]
fn upper_belongs_to_its_first_lower_layer_with_index() {
    needs_root!();
    let mut tree = setup().both(INDEX).mount();
    tree.append("a", "+");
    tree.unmount();
    run(Command::new("cp").arg("-a").arg(tree.beside("l0")).arg(tree.beside("copy")));
    for layers in [&["l1", "l0"][..], &["copy", "l1"], &["copy"]] {
        tree.set_lower_list(list(&tree, layers));
        assert_stale(&mut tree);
    }
    // Only the first counts.
    for layers in [&["l0"][..], &["l0", "copy", "l1"], &["l0", "l1"]] {
        tree.set_lower_list(list(&tree, layers));
        tree.mount();
        assert_eq!((tree.read("a"), tree.read("c")), ("a+".to_owned(), "a+".to_owned()), "{layers:?}");
        tree.unmount();
    }
    tree.set_options(NONE);
    tree.set_lower_list(list(&tree, &["copy", "l1"]));
    tree.mount();
    assert_eq!(tree.read("a"), "a+");
}

#[test]
fn index_belongs_to_one_upper() {
    needs_root!();
    let mut tree = setup().both(INDEX).mount();
    tree.unmount();
    fs::rename(tree.upper(""), tree.beside("away")).unwrap();
    fs::create_dir(tree.upper("")).unwrap();
    assert_stale(&mut tree);
    fs::remove_dir(tree.upper("")).unwrap();
    fs::rename(tree.beside("away"), tree.upper("")).unwrap();
    tree.mount();
}

#[test]
fn what_binds_is_written_as_the_kernel_writes_it() {
    plyfs_only!("both take part");
    needs_root!();
    for first in [Backend::Kernel, Backend::Plyfs] {
        let mut tree = setup().both(INDEX).prepare(first);
        let bound = |tree: &Mounted| {
            let index = tree.beside("work/index");
            (xattr(&tree.upper(""), ORIGIN).unwrap(), xattr(&index, UPPER).unwrap(), xattr(&index, ORIGIN).err())
        };
        tree.mount();
        tree.unmount();
        let written = bound(&tree);
        let second = if first == Backend::Plyfs { Backend::Kernel } else { Backend::Plyfs };
        tree.set_backend(second);
        tree.mount();
        tree.append("b", "+");
        tree.unmount();
        assert_eq!(bound(&tree), written);
        // What the one refuses, the other does.
        for backend in [Backend::Kernel, Backend::Plyfs] {
            tree.set_backend(backend);
            tree.set_lower_list(list(&tree, &["l1", "l0"]));
            assert_stale(&mut tree);
            tree.set_lower_list(list(&tree, &["l0", "l1"]));
        }
        // Without the marks, or with such that mean nothing, they are written anew.
        for backend in [Backend::Kernel, Backend::Plyfs] {
            rustix::fs::lremovexattr(tree.beside("work/index"), UPPER).unwrap();
            set_xattr(&tree.upper(""), ORIGIN, "nothing").unwrap();
            tree.set_backend(backend);
            tree.mount();
            tree.unmount();
            assert_eq!(bound(&tree), written, "{backend:?}");
        }
    }
}

#[test]
fn index_is_cleaned_at_mount() {
    needs_root!();
    let mut tree = setup().both(INDEX).mount();
    tree.append("a", "+");
    let removed_by_hand = |tree: &mut Mounted, nlink: &str| {
        tree.unmount();
        let entry = entry(tree);
        // On plyfs the name may have no link in the upper any more.
        let _ = fs::remove_file(tree.upper("a"));
        set_xattr(&entry, NLINK, nlink).unwrap();
        fs::write(tree.beside("work/index/#99"), "left").unwrap();
        tree.mount();
        assert!(!tree.beside("work/index/#99").exists());
        entry
    };
    // Two names below ask for it.
    let kept = removed_by_hand(&mut tree, "L-1");
    assert_eq!((kept.exists(), tree.read("b")), (true, "a+".to_owned()));
    tree.append("a", "+");
    let gone = removed_by_hand(&mut tree, "L-3");
    assert_eq!((gone.exists(), tree.read("b")), (false, "a".to_owned()));
    // One whose mark names another inode than its name does.
    tree.append("a", "+");
    tree.unmount();
    let stale = entry(&tree);
    set_xattr(&stale, ORIGIN, xattr(&tree.upper(""), ORIGIN).unwrap()).unwrap();
    tree.mount();
    assert!(!stale.exists());
    tree.unmount();
    // What nobody has put there is not touched.
    let unmarked = stale.file_name().unwrap().to_str().unwrap();
    for (name, errno) in [("junk", "Invalid argument"), (unmarked, "No data available")] {
        let path = tree.beside("work/index").join(name);
        fs::write(&path, "").unwrap();
        let error = tree.try_mount().unwrap_err();
        assert!(error.contains(errno), "{error}");
        assert!(path.exists());
        fs::remove_file(path).unwrap();
    }
    tree.mount();
}

#[test]
fn without_index_layers_may_move_and_hard_links_are_kept() {
    needs_root!();
    for options in ["redirect_dir=on", NONE] {
        let mut tree = setup().both(options).mount();
        tree.append("a", "+");
        let kept = tree.backend() == Backend::Plyfs;
        assert_eq!((tree.ino("a") == tree.ino("b"), tree.read("b") == "a+"), (kept, kept), "{options}");
        tree.unmount();
        assert_eq!(xattr(&tree.upper(""), ORIGIN), Err(Errno::NODATA));
        run(Command::new("cp").arg("-a").arg(tree.beside("l0")).arg(tree.beside("copy")));
        tree.set_lower_list(list(&tree, &["copy", "l1"]));
        tree.mount();
        assert_eq!((tree.read("a").as_str(), tree.read("z").as_str()), ("a+", "z"));
    }
}

#[test]
fn metacopy_over_other_layers_is_followed_without_index() {
    needs_root!();
    for (options, is_followed) in [("metacopy=on,index=off", true), ("metacopy=on,index=on", false)] {
        let mut tree = setup().lower(|l| l.file("m", vec![b'm'; 5000])).both("metacopy=on,index=off").mount();
        rustix::fs::chmod(tree.path("m"), rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
        tree.unmount();
        run(Command::new("cp").arg("-a").arg(tree.beside("l2")).arg(tree.beside("copy")));
        tree.set_options(options);
        tree.set_lower_list(list(&tree, &["copy"]));
        tree.mount();
        let read = fs::read(tree.path("m")).map(|data| data.len()).map_err(|error| Errno::from_io_error(&error));
        assert_eq!(read, if is_followed { Ok(5000) } else { Err(Some(Errno::STALE)) }, "{options}");
    }
}

#[test]
fn read_only_mounts_bind_nothing() {
    plyfs_only!("the kernel's overlayfs binds them");
    needs_root!();
    let mut tree = setup().both("index=on,ro").mount();
    tree.unmount();
    assert_eq!(xattr(&tree.upper(""), ORIGIN), Err(Errno::NODATA));
    assert!(!tree.beside("work/index").exists());
}
