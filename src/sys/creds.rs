//! Whose file a new file becomes: the filesystem ids and the umask of the calling thread.
//!
//! Linux keeps both per thread, so that one open or mkdir makes a file with the right owner, the group of a
//! set-group-id directory and an inherited ACL, with no moment at which it is somebody else's.
#![allow(unsafe_code)]

use std::cell::Cell;

use rustix::fs::Mode;
use rustix::process::umask;
use rustix::thread::{CapabilitySet, UnshareFlags, capabilities, set_capabilities, unshare_unsafe};

use crate::error::Errno;

/// Who a new file is to belong to, and what its mode is masked with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Creds {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits to clear where no default ACL is inherited.
    pub umask: u32,
}

thread_local! {
    /// What this thread was given last; `None` as long as it shares the process's umask.
    static CURRENT: Cell<Option<Creds>> = const { Cell::new(None) };
}

/// Gives the calling thread these ids and this umask, for good: the next call that makes a file sets its own.
///
/// The thread keeps its capabilities, so that only the ownership of new files changes.
///
/// # Errors
/// `EPERM` when the process may not make files of that owner.
pub fn assume(wanted: Creds) -> Result<(), Errno> {
    let current = match CURRENT.get() {
        Some(current) => current,
        None => detach()?,
    };
    if current == wanted {
        return Ok(());
    }
    // Whatever fails below, the next caller starts from what the kernel says.
    CURRENT.set(None);
    if (current.uid, current.gid) != (wanted.uid, wanted.gid) {
        set_fs_ids(wanted.uid, wanted.gid)?;
    }
    umask(Mode::from_raw_mode(wanted.umask & 0o777));
    CURRENT.set(Some(wanted));
    Ok(())
}

/// Makes the thread's umask its own.
fn detach() -> Result<Creds, Errno> {
    // SAFETY: CLONE_FS gives this thread its own copy of the working directory, root and umask; the process never
    // changes these once it serves requests, so no thread relies on sharing them.
    unsafe { unshare_unsafe(UnshareFlags::FS)? };
    let mask = umask(Mode::empty());
    umask(mask);
    let (uid, gid) = fs_ids();
    Ok(Creds { uid, gid, umask: mask.as_raw_mode() })
}

fn fs_ids() -> (u32, u32) {
    // SAFETY: setfsuid and setfsgid with an invalid id change nothing and return the current one.
    unsafe { (libc::setfsuid(u32::MAX) as u32, libc::setfsgid(u32::MAX) as u32) }
}

fn set_fs_ids(uid: u32, gid: u32) -> Result<(), Errno> {
    let before = capabilities(None)?;
    // SAFETY: both calls change the calling thread only.
    unsafe {
        libc::setfsgid(gid);
        libc::setfsuid(uid);
    }
    // Linux takes the filesystem capabilities away with the last change from user 0; they are still permitted.
    let after = capabilities(None)?;
    if after.effective != before.effective {
        set_capabilities(None, before)?;
    }
    if fs_ids() == (uid, gid) { Ok(()) } else { Err(Errno::PERM) }
}

/// Whether this process may act on any file of the machine as root does: it has `CAP_SYS_ADMIN` in the first user
/// namespace, which `trusted.` attributes need.
pub fn is_privileged() -> bool {
    in_first_namespace() && capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN))
}

/// Whether this process may give files away.
pub fn may_chown() -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::CHOWN))
}

/// Whether the process `pid` keeps set-id bits when it writes to a file: it has `CAP_FSETID` in a user namespace that knows
/// its owner and group (`capable_wrt_inode_uidgid`), which are asked for where it is not ours.
///
/// Falls back to no: dropping the bits is the safe side.
///
/// # Errors
/// Those of asking.
pub fn keeps_setid<E>(pid: u32, owners: impl FnOnce() -> Result<(u32, u32), E>) -> Result<bool, E> {
    const CAP_FSETID: u32 = 4;
    let process = pid.to_string();
    let has_it = status_field(&process, "CapEff:")
        .and_then(|caps| u64::from_str_radix(caps.trim(), 16).ok())
        .is_some_and(|caps| caps & (1 << CAP_FSETID) != 0);
    let maps = has_it.then(|| Some([Map::of(&process, "uid_map")?, Map::of(&process, "gid_map")?]));
    let Some([uids, gids]) = maps.flatten() else { return Ok(false) };
    if uids.is_ours && gids.is_ours {
        return Ok(true);
    }
    let (uid, gid) = owners()?;
    Ok(uids.has(uid) && gids.has(gid))
}

/// Which ids the user namespace of a process has.
struct Map {
    text: String,
    /// As our own namespace: so it has all that we see.
    is_ours: bool,
}

impl Map {
    fn of(process: &str, map: &str) -> Option<Self> {
        let read = |process| std::fs::read_to_string(format!("/proc/{process}/{map}")).ok();
        let text = read(process)?;
        let is_ours = text == read("self")?;
        Some(Self { text, is_ours })
    }

    /// Whether it has an id, which is one of ours: the kernel shows a namespace to others by their ids.
    fn has(&self, id: u32) -> bool {
        self.is_ours
            || self.text.lines().any(|line| {
                let mut fields = line.split_ascii_whitespace().skip(1).map(str::parse::<u32>);
                let (Some(Ok(first)), Some(Ok(count))) = (fields.next(), fields.next()) else { return false };
                id.checked_sub(first).is_some_and(|offset| offset < count)
            })
    }
}

/// Whether the process `pid` is a member of the group `gid`, by its filesystem group or a supplementary one.
pub fn is_member(pid: u32, fsgid: u32, gid: u32) -> bool {
    fsgid == gid
        || status_field(&pid.to_string(), "Groups:")
            .is_some_and(|groups| groups.split_ascii_whitespace().any(|group| group.parse() == Ok(gid)))
}

fn in_first_namespace() -> bool {
    /// The inode number of the first user namespace, fixed by the kernel (`PROC_USER_INIT_INO`).
    const FIRST: &[u8] = b"user:[4026531837]";
    rustix::fs::readlink("/proc/self/ns/user", Vec::new()).is_ok_and(|link| link.as_bytes() == FIRST)
}

/// A field of `/proc/PROCESS/status`, after its colon; `None` where there is no such process or field.
pub fn status_field(process: &str, field: &str) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix(field)).map(str::to_owned)
}
