//! What the filesystem of an upper can do.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{
    CWD, FileType, Mode, OFlags, RenameFlags, XattrFlags, ioctl_ficlone, lsetxattr, mknodat, openat, renameat_with,
};

use crate::error::{Errno, Error, Result};
use crate::mount::reason;
use crate::sys::handle::name_to_handle;

use super::Check;

/// Tries it in the directory `dir`.
///
/// # Errors
/// That nothing can be made there.
pub(super) fn examine(dir: &Path) -> Result<Vec<Check>> {
    let file = dir.join("file");
    fs::write(&file, [b'x'; 8192]).map_err(|error| Error::from(error).on(file.display().to_string()))?;
    let mut checks = xattrs(&file);
    checks.push(whiteout(dir));
    checks.push(renames(dir)?);
    checks.push(temporary(dir));
    checks.push(reflink(dir, &file)?);
    checks.push(handles(dir));
    Ok(checks)
}

fn xattrs(file: &Path) -> Vec<Check> {
    let set = |name: &str| lsetxattr(file, name, b"y", XattrFlags::empty());
    let (trusted, user) = (set("trusted.overlay.opaque"), set("user.overlay.opaque"));
    let (name_trusted, name_user) = ("trusted xattrs", "user xattrs");
    let hint = "marks go to user xattrs instead, and metacopy=on has no effect: be root of the machine";
    let no_marks = "an upper needs one of both: choose another filesystem";
    vec![
        match trusted {
            Ok(()) => Check::ok(name_trusted, "can be set"),
            Err(errno) if user.is_ok() => Check::lacking(name_trusted, reason(errno), hint),
            Err(errno) => Check::broken(name_trusted, reason(errno), no_marks),
        },
        match user {
            Ok(()) => Check::ok(name_user, "can be set"),
            Err(errno) if trusted.is_ok() => Check::lacking(name_user, reason(errno), "userxattr does not work there"),
            Err(errno) => Check::broken(name_user, reason(errno), no_marks),
        },
    ]
}

fn whiteout(dir: &Path) -> Check {
    let name = "whiteout devices";
    match mknodat(CWD, dir.join("whiteout"), FileType::CharacterDevice, Mode::empty(), 0) {
        Ok(()) => Check::ok(name, "can be made"),
        Err(errno) => {
            Check::lacking(name, reason(errno), "whiteouts are xattrs or files instead; the kernel reads no such ones")
        }
    }
}

fn renames(dir: &Path) -> Result<Check> {
    let name = "rename flags";
    let (one, other, third) = (dir.join("one"), dir.join("other"), dir.join("third"));
    for path in [&one, &other] {
        fs::write(path, "x")?;
    }
    let rename = |from: &Path, to: &Path, flags| renameat_with(CWD, from, CWD, to, flags);
    let hint = "an upper needs them: choose another filesystem";
    Ok(match rename(&one, &other, RenameFlags::EXCHANGE).and_then(|()| rename(&one, &third, RenameFlags::NOREPLACE)) {
        Ok(()) => match rename(&third, &one, RenameFlags::WHITEOUT) {
            Ok(()) => Check::ok(name, "exchange, noreplace and whiteout work"),
            Err(errno) => {
                let what = format!("exchange and noreplace work, whiteout does not: {}", reason(errno));
                Check::lacking(name, what, "plyfs needs none; the kernel's overlayfs does")
            }
        },
        Err(errno) => Check::broken(name, reason(errno), hint),
    })
}

fn temporary(dir: &Path) -> Check {
    let name = "O_TMPFILE";
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    match openat(CWD, dir, flags, Mode::RUSR | Mode::WUSR) {
        Ok(_) => Check::ok(name, "works"),
        Err(errno) => Check::lacking(name, reason(errno), "plyfs needs none; the kernel's overlayfs does"),
    }
}

fn reflink(dir: &Path, file: &Path) -> Result<Check> {
    let name = "reflinks";
    let (source, copy) = (File::open(file)?, File::create(dir.join("copy"))?);
    Ok(match ioctl_ficlone(&copy, &source) {
        Ok(()) => Check::ok(name, "copying up within the filesystem copies no data"),
        Err(errno) => {
            Check::lacking(name, reason(errno), "copying up copies the data: btrfs, or XFS with reflink=1, would not")
        }
    })
}

fn handles(dir: &Path) -> Check {
    let name = "file handles";
    let handle = fs::File::open(dir).map_err(|_| Errno::IO).and_then(|dir| name_to_handle(dir.as_fd(), b"file"));
    match handle {
        Ok(_) => Check::ok(name, "can be made"),
        Err(errno) => Check::lacking(name, reason(errno), "origins are inode numbers instead: of no use to the kernel"),
    }
}
