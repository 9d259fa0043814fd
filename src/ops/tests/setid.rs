//! Set-id bits fall when one who may not keep them changes the content.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use rustix::fs::OFlags;

use super::Bed;
use super::bed::{errno, us};
use crate::error::Errno;
use crate::ops::SetAttr;
use crate::overlay::Caller;
use crate::sys::testing::root_or_skip;

/// A process without privilege, that ends with this.
struct Stranger(Option<Child>);

impl Stranger {
    fn new() -> Self {
        if us().uid != 0 {
            return Self(None);
        }
        let child =
            Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).uid(12345).gid(12345).spawn().unwrap();
        // It has taken its ids by the time spawn returns.
        Self(Some(child))
    }

    fn caller(&self) -> Caller {
        match &self.0 {
            Some(child) => Caller { uid: 12345, gid: 12345, pid: child.id() },
            None => us(),
        }
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            drop(child.stdin.take());
            child.wait().unwrap();
        }
    }
}

/// Changes of the content, and whether they are made by a process without privilege.
const CHANGES: [(&str, fn(&Bed, Caller)); 5] = [
    ("write", |bed, caller| {
        let file = bed.overlay.open_file(bed.ino("f"), OFlags::WRONLY, caller).unwrap().file;
        bed.overlay.write(file, 0, b"y", true, caller).unwrap();
        bed.overlay.release(file).unwrap();
    }),
    ("truncate", |bed, caller| {
        let set = SetAttr { size: Some(1), ..SetAttr::default() };
        bed.overlay.setattr(bed.ino("f"), &set, None, caller).unwrap();
    }),
    ("open to truncate", |bed, caller| {
        let file = bed.overlay.open_file(bed.ino("f"), OFlags::WRONLY | OFlags::TRUNC, caller).unwrap().file;
        bed.overlay.release(file).unwrap();
    }),
    ("allocate", |bed, caller| {
        let file = bed.overlay.open_file(bed.ino("f"), OFlags::WRONLY, caller).unwrap().file;
        bed.overlay.fallocate(file, 0, 100, 0, caller).unwrap();
        bed.overlay.release(file).unwrap();
    }),
    ("copy a range", |bed, caller| {
        let from = bed.overlay.open_file(bed.ino("g"), OFlags::RDONLY, caller).unwrap().file;
        let to = bed.overlay.open_file(bed.ino("f"), OFlags::WRONLY, caller).unwrap().file;
        bed.overlay.copy_range(from, 0, to, 0, 1, caller).unwrap();
        bed.overlay.release(from).unwrap();
        bed.overlay.release(to).unwrap();
    }),
];

#[test]
fn set_id_bits_fall_when_one_without_privilege_changes_the_content() {
    let stranger = Stranger::new();
    for (what, change) in CHANGES {
        for (mode, left) in [(0o4755, 0o755), (0o6777, 0o777), (0o2755, 0o755), (0o1755, 0o1755)] {
            let bed = Bed::new(&[&format!("f=x g=x f%{mode:o}")]);
            change(&bed, stranger.caller());
            assert_eq!(bed.attr("f").unwrap().mode & 0o7777, left, "{what} of {mode:o}");
            let bed = bed.reopen();
            assert_eq!(bed.attr("f").unwrap().mode & 0o7777, left, "{what} of {mode:o}, on disk");
        }
    }
}

#[test]
fn set_id_bits_stay_when_root_changes_the_content() {
    if !root_or_skip("set-id bits that root keeps") {
        return;
    }
    for (what, change) in CHANGES {
        let bed = Bed::new(&["f=x g=x f%6755"]);
        change(&bed, us());
        assert_eq!(bed.attr("f").unwrap().mode & 0o7777, 0o6755, "{what}");
    }
}

#[test]
fn set_id_bits_stay_over_copy_up_by_a_change_of_attributes() {
    let bed = Bed::new(&["f=x f%6755"]);
    bed.set_xattr("f", "user.x", "y").unwrap();
    assert_eq!(bed.attr("f").unwrap().mode & 0o7777, 0o6755);
    bed.rename("f", "g").unwrap();
    let bed = bed.reopen();
    assert_eq!(bed.attr("g").unwrap().mode & 0o7777, 0o6755);
}

#[test]
fn set_id_bits_set_later_fall_too() {
    let stranger = Stranger::new();
    let bed = Bed::new(&["f=x g=x"]);
    bed.chmod("f", 0o4755).unwrap();
    CHANGES[0].1(&bed, stranger.caller());
    assert_eq!(bed.attr("f").unwrap().mode & 0o7777, 0o755);
}

#[test]
fn setting_the_owner_to_what_it_is_takes_setid_bits_and_capabilities() {
    let bed = Bed::new(&["f=x", "g=x"]);
    bed.chmod("f", 0o6755).unwrap();
    let before = bed.attr("f").unwrap();
    let nothing = |name: &str| bed.overlay.setattr(bed.ino(name), &SetAttr::default(), None, us()).unwrap();
    let after = nothing("f");
    assert_eq!(after.mode & 0o7777, 0o755);
    assert!(after.ctime > before.ctime);
    // By who is no member of the group, also the bit that has no effect.
    bed.chmod("f", 0o2644).unwrap();
    let stranger = Stranger::new();
    if us().uid != 0 {
        return;
    }
    let by_stranger = || bed.overlay.setattr(bed.ino("f"), &SetAttr::default(), None, stranger.caller());
    assert_eq!(errno(by_stranger()), Errno::PERM);
    let file = bed.overlay.open_file(bed.ino("f"), OFlags::WRONLY, us()).unwrap().file;
    // This may be a write of his.
    assert_eq!(by_stranger().unwrap().mode & 0o7777, 0o2644);
    bed.overlay.release(file).unwrap();
    bed.overlay.setattr(bed.ino("f"), &SetAttr { uid: Some(12345), ..SetAttr::default() }, None, us()).unwrap();
    bed.chmod("f", 0o2644).unwrap();
    assert_eq!(by_stranger().unwrap().mode & 0o7777, 0o644);
    // For root's write to a file with capabilities, the kernel removes them, and asks for the same.
    const CAPABILITIES: &[u8] = &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    bed.chmod("g", 0o4755).unwrap();
    bed.overlay.setxattr(bed.ino("g"), b"security.capability", CAPABILITIES, 0, us()).unwrap();
    bed.overlay.removexattr(bed.ino("g"), b"security.capability", us()).unwrap();
    assert_eq!(nothing("g").mode & 0o7777, 0o4755);
    assert_eq!(nothing("g").mode & 0o7777, 0o755);
}
