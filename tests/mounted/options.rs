//! Options that change what the tree does.

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::common::*;

fn setup(options: &[&str]) -> Setup {
    let setup = Setup::new().lower(|l| l.dir("d/sub").file("f", "content").owner("f", 1001, 1001));
    options.iter().fold(setup, |setup, option| setup.option(option))
}

#[test]
fn squashed_files_show_one_owner_and_are_made_with_it() {
    plyfs_only!("the kernel's overlayfs has no such option");
    let tree = mount!(setup(&["squash_to_uid=1234", "squash_to_gid=2345"]));
    tree.write("new", "");
    for path in ["f", "d", "new"] {
        assert_eq!((tree.stat(path).st_uid, tree.stat(path).st_gid), (1234, 2345), "{path}");
    }
    let made = lstat(tree.upper("new")).unwrap();
    assert_eq!((made.st_uid, made.st_gid), (1234, 2345));
    // The copy is its source's owner's, whatever is shown.
    tree.append("f", "+");
    assert_eq!(lstat(tree.upper("f")).unwrap().st_uid, 1001);
}

#[test]
fn files_squashed_to_root_are_roots() {
    plyfs_only!("the kernel's overlayfs has no such option");
    let tree = mount!(setup(&["squash_to_root"]));
    assert_eq!((tree.stat("f").st_uid, tree.stat("f").st_gid), (0, 0));
}

#[test]
fn noacl_refuses_acls() {
    plyfs_only!("the kernel's overlayfs has no such option");
    let tree = mount!(setup(&["noacl"]));
    let entry = |tag: u8| [tag, 0, 6, 0, 255, 255, 255, 255];
    // The owner, the group and the others.
    let acl = [&[2, 0, 0, 0][..], &entry(1), &entry(4), &entry(0x20)].concat();
    assert_eq!(set_xattr(&tree.path("f"), "system.posix_acl_access", acl), Err(Errno::OPNOTSUPP));
}

#[test]
fn static_nlink_counts_no_subdirectories() {
    plyfs_only!("the kernel's overlayfs has no such option");
    let tree = mount!(setup(&["static_nlink"]));
    assert_eq!((tree.stat("d").st_nlink, tree.stat("f").st_nlink), (1, 1));
}

#[test]
fn writes_gathered_by_the_kernel_are_written() {
    plyfs_only!("the kernel's overlayfs has no such option");
    let mut tree = mount!(setup(&["writeback=1"]));
    for number in 0..100 {
        tree.append("f", "+");
        assert_eq!(tree.read("f").len(), 8 + number);
    }
    let file = open(tree.path("f"), OFlags::WRONLY).unwrap();
    rustix::io::pwrite(&file, b"C", 0).unwrap();
    rustix::fs::fsync(&file).unwrap();
    assert_eq!(&std::fs::read(tree.upper("f")).unwrap()[..8], b"Content+");
    drop(file);
    tree.remount();
    assert_eq!(tree.read("f"), format!("Content{}", "+".repeat(100)));
}

#[test]
fn what_is_gathered_is_no_hole() {
    plyfs_only!("the kernel's overlayfs has no such option");
    let tree = mount!(setup(&["writeback=1"]));
    let file = open(tree.path("new"), OFlags::CREATE | OFlags::RDWR).unwrap();
    rustix::io::write(&file, &[b'x'; 8192]).unwrap();
    assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(0)), Ok(0));
    assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(0)), Ok(8192));
}

#[test]
fn gathered_append_only_files_are_closed_without_an_error() {
    plyfs_only!("the kernel's overlayfs has no such option");
    let tree = mount!(setup(&["writeback=1"]));
    tree.append("f", "+");
    run(std::process::Command::new("chattr").arg("+a").arg(tree.path("f")));
    let file = open(tree.path("f"), OFlags::WRONLY | OFlags::APPEND).unwrap();
    rustix::io::write(&file, b"+").unwrap();
    rustix::fs::fsync(&file).unwrap();
    drop(file);
    run(std::process::Command::new("chattr").arg("-a").arg(tree.path("f")));
    assert_eq!(tree.read("f"), "content++");
}

#[test]
fn gathered_writes_leave_times_alone_that_were_told() {
    plyfs_only!("the kernel's overlayfs has no such option");
    let mut tree = mount!(setup(&["writeback=1"]));
    for number in 0..20 {
        tree.write(format!("new{number}"), "new");
    }
    let before = tree.tree();
    tree.remount();
    before.assert_eq(&tree.tree(), "after a remount");
}

#[test]
fn the_smallest_caches_and_no_timeouts_show_the_same_tree() {
    plyfs_only!("the kernel's overlayfs has no such options");
    let small = ["cache_attrs=1", "cache_missing=1", "cache_listings=1", "cache_dirs=1", "timeout=0", "threads=4"];
    let mut tree = mount!(setup(&small));
    tree.write("d/sub/new", "n");
    std::fs::rename(tree.path("d"), tree.path("e")).unwrap();
    assert_eq!((tree.list(""), tree.list("e/sub")), (vec!["e".to_owned(), "f".to_owned()], vec!["new".to_owned()]));
    let before = tree.tree();
    tree.remount();
    before.assert_eq(&tree.tree(), "after a remount");
}

#[test]
fn volatile_mounts_are_marked_for_the_next() {
    let tree = mount!(setup(&["volatile"]).kernel_options("volatile"));
    tree.append("f", "+");
    assert_eq!(tree.read("f"), "content+");
    assert!(tree.beside("work/work/incompat/volatile").exists());
    // Whoever takes the mark away vouches for the upper.
    std::fs::remove_dir_all(tree.beside("work/work/incompat")).unwrap();
}

#[test]
fn options_are_taken_together_or_refused_as_by_the_kernel() {
    needs_root!();
    let is_kernel = Backend::chosen() == Backend::Kernel;
    for metacopy in ["", "metacopy=on,", "metacopy=off,"] {
        for redirect in ["", "redirect_dir=on,", "redirect_dir=follow,", "redirect_dir=off,", "redirect_dir=nofollow,"]
        {
            for more in ["xino=auto", "index=on,xino=on", "index=off,xino=off", "index=on,volatile"] {
                for is_writable in [true, false] {
                    let options = format!("{metacopy}{redirect}{more}");
                    let setup = setup(&[]).lower(|l| l.dir("second")).both(Box::leak(options.clone().into_boxed_str()));
                    let setup = if is_writable { setup } else { setup.read_only() };
                    let mut tree = setup.prepare(Backend::chosen());
                    let is_on = metacopy == "metacopy=on,";
                    let follows = redirect == "redirect_dir=follow," || redirect == "redirect_dir=off,";
                    let is_refused = is_on && (redirect == "redirect_dir=nofollow," || (follows && is_writable));
                    assert_eq!(tree.try_mount().is_err(), is_refused, "{options}, writable: {is_writable}");
                    if is_refused || !is_writable {
                        continue;
                    }
                    // Without a word, the kernel's overlayfs here writes redirects only where metacopy needs them.
                    let renames = redirect == "redirect_dir=on," || (redirect.is_empty() && (is_on || !is_kernel));
                    let renamed = rustix::fs::rename(tree.path("d"), tree.path("e"));
                    assert_eq!(renamed, if renames { Ok(()) } else { Err(Errno::XDEV) }, "{options}");
                    rustix::fs::chmod(tree.path("f"), rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
                    let mark = xattr(&tree.upper("f"), "trusted.overlay.metacopy");
                    assert_eq!(mark.is_ok(), is_on, "{options}");
                    if more.ends_with("volatile") {
                        tree.unmount_dirty();
                    }
                }
            }
        }
    }
}

#[test]
fn what_is_not_supported_is_refused() {
    needs_root!();
    let is_refused = |options| {
        let mut tree = setup(&[]).both(options).prepare(Backend::chosen());
        tree.try_mount().is_err()
    };
    for options in ["nfs_export=on,metacopy=on", "nfs_export=on,index=off"] {
        assert!(is_refused(options), "{options}");
    }
    let is_plyfs = Backend::chosen() == Backend::Plyfs;
    for options in ["nfs_export=on", "nfs_export=on,index=on", "verity=require"] {
        assert_eq!(is_refused(options), is_plyfs, "{options}");
    }
}

#[test]
fn upper_without_space_for_a_work_directory_is_mounted_read_only() {
    needs_root!();
    let setup = Setup::new().lower(|l| l.file("f", "content")).upper_on_tmpfs("nr_inodes=4");
    std::fs::write(setup.path("small/last"), "").unwrap();
    let mut tree = setup.prepare(Backend::chosen());
    for options in ["redirect_dir=on", "redirect_dir=on,index=on", "volatile"] {
        tree.set_options(options);
        tree.mount();
        assert_eq!(tree.read("f"), "content", "{options}");
        assert_eq!(open(tree.path("f"), OFlags::WRONLY).err(), Some(Errno::ROFS), "{options}");
        assert_eq!(errno(std::fs::write(tree.path("new"), "")), Errno::ROFS, "{options}");
        tree.unmount();
    }
}
