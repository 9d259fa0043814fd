//! POSIX ACLs and file capabilities.

use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::common::*;

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";
/// cap_net_raw+ep, revision 2.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Tags of ACL entries.
const USER_OBJ: u16 = 1;
const USER: u16 = 2;
const GROUP_OBJ: u16 = 4;
const GROUP: u16 = 8;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// An ACL as the kernel takes it.
fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut value = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        value.extend(tag.to_le_bytes());
        value.extend(permissions.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    value
}

const NOBODY: u32 = u32::MAX;

/// `rw` for the owner, `user` of 1001, nothing for others.
fn alice(permissions: u16) -> Vec<u8> {
    acl(&[
        (USER_OBJ, 6, NOBODY),
        (USER, permissions, 1001),
        (GROUP_OBJ, 4, NOBODY),
        (MASK, 7, NOBODY),
        (OTHER, 0, NOBODY),
    ])
}

fn may_read(path: &Path) -> bool {
    match open(path, OFlags::RDONLY) {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error, Errno::ACCESS);
            false
        }
    }
}

#[test]
fn acls_are_enforced_for_other_users() {
    let tree = mount!(Setup::new().lower(|l| {
        l.file("alice", "x").mode("alice", 0o600).xattr("alice", ACCESS, alice(6)).file("not-alice", "x").xattr(
            "not-alice",
            ACCESS,
            alice(0),
        )
    }));
    tree.write("upper", "x");
    set_xattr(&tree.path("upper"), ACCESS, alice(4)).unwrap();
    let check = || {
        as_user(User::ALICE, || {
            assert!(
                may_read(&tree.path("alice")) && may_read(&tree.path("upper")) && !may_read(&tree.path("not-alice"))
            );
            assert_eq!(errno(open(tree.path("upper"), OFlags::WRONLY)), Errno::ACCESS);
            drop(open(tree.path("alice"), OFlags::WRONLY).unwrap());
        });
        as_user(User::BOB, || {
            assert!(
                !may_read(&tree.path("alice")) && !may_read(&tree.path("upper")) && !may_read(&tree.path("not-alice"))
            );
        });
    };
    check();
    check();
}

#[test]
fn named_groups_count() {
    let value =
        acl(&[(USER_OBJ, 6, NOBODY), (GROUP_OBJ, 0, NOBODY), (GROUP, 4, 4242), (MASK, 4, NOBODY), (OTHER, 0, NOBODY)]);
    let tree = mount!(Setup::new().lower(|l| l.file("f", "x").xattr("f", ACCESS, value)));
    as_user(User::ALICE, || assert!(!may_read(&tree.path("f"))));
    as_user_in(User::ALICE, &[4242], || assert!(may_read(&tree.path("f"))));
}

#[test]
fn acls_are_kept_over_copy_up() {
    let mut tree = mount!(Setup::new().lower(|l| {
        l.file("f", "x").xattr("f", ACCESS, alice(6)).dir("d").xattr("d", ACCESS, alice(7)).xattr(
            "d",
            DEFAULT,
            alice(5),
        )
    }));
    tree.append("f", "y");
    tree.write("d/new", "");
    for _ in 0..2 {
        assert_eq!(xattr(&tree.path("f"), ACCESS).unwrap(), alice(6));
        assert_eq!(xattr(&tree.path("d"), ACCESS).unwrap(), alice(7));
        assert_eq!(xattr(&tree.path("d"), DEFAULT).unwrap(), alice(5));
        as_user(User::ALICE, || assert!(may_read(&tree.path("f"))));
        tree.remount();
    }
}

#[test]
fn chmod_changes_the_mask_and_setting_an_acl_the_mode() {
    let tree = mount!(Setup::new().lower(|l| l.file("f", "x").xattr("f", ACCESS, alice(6))));
    assert_eq!(tree.stat("f").st_mode & 0o777, 0o670);
    as_user(User::ALICE, || assert!(may_read(&tree.path("f"))));
    rustix::fs::chmod(tree.path("f"), Mode::from_raw_mode(0o600)).unwrap();
    as_user(User::ALICE, || assert!(!may_read(&tree.path("f"))));
    assert_eq!(tree.stat("f").st_mode & 0o777, 0o600);
    let plain = acl(&[(USER_OBJ, 7, NOBODY), (GROUP_OBJ, 5, NOBODY), (OTHER, 4, NOBODY)]);
    set_xattr(&tree.path("f"), ACCESS, plain).unwrap();
    assert_eq!(tree.stat("f").st_mode & 0o777, 0o754);
    as_user(User::ALICE, || assert!(may_read(&tree.path("f"))));
    assert_eq!(xattr(&tree.path("f"), ACCESS), Err(Errno::NODATA));
}

#[test]
fn removed_acl_counts_no_more() {
    let tree = mount!(Setup::new().lower(|l| l.file("f", "x").xattr("f", ACCESS, alice(6))));
    as_user(User::ALICE, || assert!(may_read(&tree.path("f"))));
    rustix::fs::lremovexattr(tree.path("f"), ACCESS).unwrap();
    as_user(User::ALICE, || assert!(!may_read(&tree.path("f"))));
    assert_eq!(xattr(&tree.path("f"), ACCESS), Err(Errno::NODATA));
}

#[test]
fn default_acl_is_inherited_by_files_and_directories() {
    let mut tree = mount!(
        Setup::new()
            .lower(|l| {
                for dir in ["plain", "over"] {
                    l.dir(dir).xattr(dir, DEFAULT, alice(7));
                }
                l
            })
            .lower(|l| l.file("over/file", "old").file("over/dir/old", ""))
    );
    fs::remove_file(tree.path("over/file")).unwrap();
    fs::remove_dir_all(tree.path("over/dir")).unwrap();
    for dir in ["plain", "over"] {
        // The umask does not count where a default ACL is.
        in_child(|| {
            rustix::process::umask(Mode::from_raw_mode(0o077));
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
            rustix::fs::open(tree.path(dir).join("file"), flags, Mode::from_raw_mode(0o666))?;
            rustix::fs::mkdir(tree.path(dir).join("dir"), Mode::from_raw_mode(0o777))
        })
        .unwrap();
    }
    for _ in 0..2 {
        for dir in ["plain", "over"] {
            let (file, sub) = (format!("{dir}/file"), format!("{dir}/dir"));
            let expected = acl(&[
                (USER_OBJ, 6, NOBODY),
                (USER, 7, 1001),
                (GROUP_OBJ, 4, NOBODY),
                (MASK, 6, NOBODY),
                (OTHER, 0, NOBODY),
            ]);
            assert_eq!(xattr(&tree.path(&file), ACCESS).unwrap(), expected, "{file}");
            assert_eq!(tree.stat(&file).st_mode & 0o777, 0o660, "{file}");
            assert_eq!(xattr(&tree.path(&file), DEFAULT), Err(Errno::NODATA), "{file}");
            assert_eq!(xattr(&tree.path(&sub), DEFAULT).unwrap(), alice(7), "{sub}");
            assert_eq!(tree.stat(&sub).st_mode & 0o777, 0o670, "{sub}");
        }
        tree.remount();
    }
}

#[test]
fn default_acl_without_named_entries_replaces_the_umask() {
    let value = acl(&[(USER_OBJ, 7, NOBODY), (GROUP_OBJ, 7, NOBODY), (OTHER, 5, NOBODY)]);
    let tree = mount!(Setup::new().lower(|l| l.dir("d").xattr("d", DEFAULT, value)).lower(|l| l.file("d/over", "")));
    fs::remove_file(tree.path("d/over")).unwrap();
    for name in ["d/new", "d/over"] {
        in_child(|| {
            rustix::process::umask(Mode::from_raw_mode(0o077));
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
            rustix::fs::open(tree.path(name), flags, Mode::from_raw_mode(0o666)).map(drop)
        })
        .unwrap();
        assert_eq!(tree.stat(name).st_mode & 0o777, 0o664, "{name}");
    }
}

#[test]
fn only_the_owner_sets_acls() {
    let tree = mount!(
        Setup::new().lower(|l| l.file("mine", "").owner("mine", 1001, 1001).file("f", "").mode("f", 0o666).dir("d"))
    );
    as_user(User::ALICE, || {
        set_xattr(&tree.path("mine"), ACCESS, alice(6)).unwrap();
        assert_eq!(set_xattr(&tree.path("f"), ACCESS, alice(6)), Err(Errno::PERM));
        assert_eq!(set_xattr(&tree.path("d"), DEFAULT, alice(6)), Err(Errno::PERM));
    });
    assert_eq!(set_xattr(&tree.path("f"), DEFAULT, alice(6)), Err(Errno::ACCESS));
    assert_eq!(set_xattr(&tree.path("f"), ACCESS, acl(&[(99, 7, NOBODY)])), Err(Errno::INVAL));
}

#[test]
fn setting_an_acl_by_one_who_is_not_in_the_group_drops_sgid() {
    let tree = mount!(Setup::new().lower(|l| l.file("f", "").owner("f", 1001, 4242).mode("f", 0o2755)));
    as_user(User::ALICE, || set_xattr(&tree.path("f"), ACCESS, alice(7)).unwrap());
    assert_eq!(format!("{:o}", tree.stat("f").st_mode & 0o7000), "0");
}

#[test]
fn getfacl_and_cp_see_acls() {
    let tree = mount!(Setup::new().lower(|l| l.file("f", "x").xattr("f", ACCESS, alice(6))));
    if Command::new("getfacl").arg("--version").output().is_err() {
        skip!("needs getfacl");
    }
    run(Command::new("cp").arg("-p").arg(tree.path("f")).arg(tree.path("copy")));
    assert!(run(Command::new("getfacl").arg("-n").arg(tree.path("copy"))).contains("user:1001:rw-"));
}

#[test]
fn capability_is_kept_over_copy_up_by_chmod_and_rename() {
    let mut tree = mount!(Setup::new().lower(|l| {
        l.file("chmod", "x").xattr("chmod", "security.capability", CAPABILITY).file("rename", "x").xattr(
            "rename",
            "security.capability",
            CAPABILITY,
        )
    }));
    rustix::fs::chmod(tree.path("chmod"), Mode::from_raw_mode(0o755)).unwrap();
    fs::rename(tree.path("rename"), tree.path("renamed")).unwrap();
    for _ in 0..2 {
        for name in ["chmod", "renamed"] {
            assert_eq!(xattr(&tree.path(name), "security.capability").as_deref(), Ok(CAPABILITY.as_slice()), "{name}");
        }
        tree.remount();
    }
}

#[test]
fn capability_can_be_set_through_the_mount() {
    let tree = mount!(Setup::new().lower(|l| l.file("f", "x")));
    set_xattr(&tree.path("f"), "security.capability", CAPABILITY).unwrap();
    assert_eq!(xattr(&tree.path("f"), "security.capability").as_deref(), Ok(CAPABILITY.as_slice()));
    assert_eq!(xattr(&tree.upper("f"), "security.capability").as_deref(), Ok(CAPABILITY.as_slice()));
    as_user(User::ALICE, || {
        assert_eq!(set_xattr(&tree.path("f"), "security.capability", CAPABILITY), Err(Errno::PERM));
    });
}
