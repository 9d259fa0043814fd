//! Whose a program is: `USER[:GROUP]`, by the image's own /etc/passwd and /etc/group.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::OpenOptionsExt;

use rustix::fs::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::error::{Context, Errno, Error, Result};

/// The largest list of users or groups, in bytes.
const LIST: u64 = 16 << 20;

/// A user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// The groups that it is also in.
    pub(super) groups: Vec<u32>,
    pub(super) home: OsString,
}

/// Finds the user; to be called with the image as root.
///
/// # Errors
/// `ENOENT` for a name that the image does not know.
pub(super) fn find(spec: &str) -> Result<User> {
    choose(spec, &read("/etc/passwd"), &read("/etc/group"))
}

/// Becomes the user, for good.
///
/// # Errors
/// `EPERM` without the privilege, `EINVAL` for a user that there is not in this namespace.
pub(super) fn become_user(user: &User) -> Result<()> {
    let groups: Vec<Gid> = user.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    match set_thread_groups(&groups) {
        // In a user namespace of one user, nobody has further groups.
        Err(Errno::PERM) if std::fs::read_to_string("/proc/self/setgroups").is_ok_and(|word| word.trim() == "deny") => {
        }
        result => result.during("take the groups of the user")?,
    }
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    set_thread_res_gid(gid, gid, gid).during("take the group of the user")?;
    set_thread_res_uid(uid, uid, uid).during("become the user")
}

/// Reads a list of the image; what is no file is as good as empty.
fn read(path: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    if let Ok(file) = file.and_then(|file| if file.metadata()?.is_file() { Ok(file) } else { Err(Errno::INVAL.into()) })
        && let Err(error) = file.take(LIST).read_to_end(&mut bytes)
    {
        log::warn!("{path}: {error}");
    }
    bytes
}

/// The lines of such a list, in fields.
fn lines(list: &[u8]) -> impl Iterator<Item = Vec<&[u8]>> {
    list.split(|byte| *byte == b'\n').map(|line| line.split(|byte| *byte == b':').collect())
}

fn number(field: Option<&&[u8]>) -> Option<u32> {
    str::from_utf8(field?).ok()?.parse().ok()
}

fn choose(spec: &str, passwd: &[u8], group: &[u8]) -> Result<User> {
    let missing = |what: &str, name: &str| {
        Error::new(Errno::NOENT, "find").on(format!("{what} {name}")).because("not in the image")
    };
    let (name, group_name) = spec.split_once(':').map_or((spec, None), |(name, group)| (name, Some(group)));
    let name = if name.is_empty() { "0" } else { name };
    let as_number: Option<u32> = name.parse().ok();
    let is_meant = |fields: &Vec<&[u8]>| match as_number {
        Some(uid) => number(fields.get(2)) == Some(uid),
        None => fields.first() == Some(&name.as_bytes()),
    };
    let entry = lines(passwd).find(is_meant);
    let uid =
        entry.as_ref().and_then(|fields| number(fields.get(2))).or(as_number).ok_or_else(|| missing("user", name))?;
    let gid = match group_name.filter(|name| !name.is_empty()) {
        Some(name) => {
            let found = lines(group).find(|fields| fields.first() == Some(&name.as_bytes()));
            let found = found.and_then(|fields| number(fields.get(2)));
            found.or(name.parse().ok()).ok_or_else(|| missing("group", name))?
        }
        None => entry.as_ref().and_then(|fields| number(fields.get(3))).unwrap_or(0),
    };
    let login = entry.as_ref().and_then(|fields| fields.first().copied());
    let is_member = |fields: &Vec<&[u8]>| {
        let members = fields.get(3).copied().unwrap_or_default();
        login.is_some_and(|login| members.split(|byte| *byte == b',').any(|member| member == login))
    };
    // A group that is told is the only one.
    let groups = match group_name {
        Some(_) => Vec::new(),
        None => lines(group).filter(is_member).filter_map(|fields| number(fields.get(2))).take(1000).collect(),
    };
    let home = entry.as_ref().and_then(|fields| fields.get(5)).filter(|home| !home.is_empty());
    Ok(User { uid, gid, groups, home: OsString::from_vec(home.map_or(b"/".to_vec(), |home| home.to_vec())) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:www:/var/www:/bin/sh\nbroken\n:::::\nx:y:z:\n";
    const GROUP: &[u8] = b"root:x:0:\nweb:x:34:\nlog:x:50:root,web\nssl:x:51:web\nbroken\n";

    #[test]
    fn users_are_those_of_the_image() {
        let user = |spec| choose(spec, PASSWD, GROUP).map(|user| (user.uid, user.gid, user.groups, user.home));
        let expect = |uid, gid, groups: &[u32], home: &str| (uid, gid, groups.to_vec(), OsString::from(home));
        for (spec, expected) in [
            ("", expect(0, 0, &[50], "/root")),
            ("web", expect(33, 34, &[50, 51], "/var/www")),
            ("33", expect(33, 34, &[50, 51], "/var/www")),
            ("web:log", expect(33, 50, &[], "/var/www")),
            ("1234", expect(1234, 0, &[], "/")),
            ("1234:5678", expect(1234, 5678, &[], "/")),
        ] {
            assert_eq!(user(spec).unwrap(), expected, "{spec}");
        }
        for (spec, line) in [("nobody", "user nobody"), ("web:none", "group none"), ("-1", "user -1")] {
            assert!(user(spec).unwrap_err().to_string().contains(line), "{spec}");
        }
    }
}
