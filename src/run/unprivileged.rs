//! A user namespace for who is not root: root of it, with the user's subordinate ids where there are some.

use std::fs::{File, read_to_string, write};
use std::io::{ErrorKind, Read, Write};
use std::process::{Command, Stdio, exit};

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, geteuid, getgid, getpid, getuid, set_parent_process_death_signal};
use rustix::thread::{UnshareFlags, set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::error::{Context, Errno, Error, Result};
use crate::sys::mount::fork;
use crate::sys::namespace::leave;

use super::{FAILED, wait};

/// Whether a user namespace is wanted where it has but one user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// To mount and to change roots.
    Always,
    /// To give files to the users of an image.
    ForIds,
}

/// Goes on in a user namespace, unless this is root already. The caller's process waits for the one that goes on, and ends
/// with its exit code.
///
/// To be called before anything starts a thread.
///
/// # Errors
/// Those of fork(2) and unshare(2); that the ids cannot be mapped.
pub fn enter(need: Need) -> Result<()> {
    if geteuid().is_root() {
        return Ok(());
    }
    let ranges = subordinate("/etc/subuid").zip(subordinate("/etc/subgid"));
    if ranges.is_none() && need == Need::ForIds {
        return Ok(());
    }
    let (uid, gid) = (getuid().as_raw(), getgid().as_raw());
    let pipe = || pipe_with(PipeFlags::CLOEXEC).during("make a pipe");
    let ((ready, tell_ready), (mapped, tell_mapped)) = (pipe()?, pipe()?);
    match fork().during("start a process")? {
        Some(child) => {
            drop((tell_ready, mapped));
            let result = map(child, File::from(ready), File::from(tell_mapped), uid, gid, ranges);
            if let Err(error) = result {
                super::send(child, Signal::KILL);
                super::tell(&crate::mount::Failure::from(error).to_string());
                exit(i32::from(FAILED));
            }
            exit(i32::from(wait(child, || vec![child]).unwrap_or(FAILED)));
        }
        None => {
            drop((ready, tell_mapped));
            set_parent_process_death_signal(Some(Signal::TERM)).during("bind to the caller")?;
            leave(UnshareFlags::NEWUSER).during("make a user namespace")?;
            if ranges.is_none() {
                map_one(uid, gid)?;
            }
            File::from(tell_ready).write_all(b"x")?;
            if File::from(mapped).read(&mut [0])? == 0 {
                // Whoever was to map the ids has said why not.
                exit(i32::from(FAILED));
            }
            become_root()
        }
    }
}

/// Maps the ids of the process `child`, which waits for it.
fn map(
    child: Pid,
    mut ready: File,
    mut tell: File,
    uid: u32,
    gid: u32,
    ranges: Option<((u32, u32), (u32, u32))>,
) -> Result<()> {
    // Nothing comes from who has failed already.
    if ready.read(&mut [0])? == 0 {
        return Ok(());
    }
    if let Some((uids, gids)) = ranges {
        for (program, id, (start, count)) in [("newuidmap", uid, uids), ("newgidmap", gid, gids)] {
            let words = [child.as_raw_nonzero().get().unsigned_abs(), 0, id, 1, 1, start, count];
            let words = words.map(|word| word.to_string());
            let status = Command::new(program).args(words).stdin(Stdio::null()).status();
            let failed = |reason: String| Error::new(Errno::PERM, "map ids").on(program).because(reason);
            match status {
                Ok(status) if status.success() => {}
                Ok(status) => return Err(failed(status.to_string())),
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    return Err(failed("there is no such program (install the package uidmap)".to_owned()));
                }
                Err(error) => return Err(failed(error.to_string())),
            }
        }
    }
    Ok(tell.write_all(b"x")?)
}

/// Maps the own ids to those of root, which takes nobody's help.
fn map_one(uid: u32, gid: u32) -> Result<()> {
    for (file, text) in
        [("setgroups", "deny".to_owned()), ("uid_map", format!("0 {uid} 1")), ("gid_map", format!("0 {gid} 1"))]
    {
        let path = format!("/proc/{}/{file}", getpid().as_raw_nonzero());
        write(&path, text).map_err(|error| Error::from(error).on(path))?;
    }
    Ok(())
}

fn become_root() -> Result<()> {
    let (uid, gid) = (rustix::fs::Uid::ROOT, rustix::fs::Gid::ROOT);
    match set_thread_groups(&[]) {
        // Where one user is all there is, groups stay as they are.
        Err(Errno::PERM) => {}
        result => result.during("leave groups")?,
    }
    set_thread_res_gid(gid, gid, gid).during("become root of the namespace")?;
    set_thread_res_uid(uid, uid, uid).during("become root of the namespace")
}

/// The first range of ids that the list at `path` gives to the user, as start and count.
pub(crate) fn subordinate(path: &str) -> Option<(u32, u32)> {
    range(&read_to_string(path).ok()?, &read_to_string("/etc/passwd").unwrap_or_default(), getuid().as_raw())
}

fn range(list: &str, passwd: &str, uid: u32) -> Option<(u32, u32)> {
    let number = uid.to_string();
    let is_user = |line: &&str| line.split(':').nth(2) == Some(&number);
    let name = passwd.lines().find(is_user).and_then(|line| line.split(':').next());
    list.lines().find_map(|line| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        let (start, count) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        (Some(owner) == name || owner == number).then_some((start, count))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_those_of_the_user() {
        let passwd = "root:x:0:0::/:/bin/sh\nme:x:1000:1000::/:/bin/sh\n";
        for (list, expected) in [
            ("me:100000:65536\n", Some((100_000, 65_536))),
            ("you:1:2\n1000:300000:10\n", Some((300_000, 10))),
            ("you:1:2\nme:x:3\n\nme:5:6", Some((5, 6))),
            ("me:1\n", None),
            ("", None),
        ] {
            assert_eq!(range(list, passwd, 1000), expected, "{list}");
        }
        assert_eq!(range("me:1:2", "", 1000), None);
    }
}
