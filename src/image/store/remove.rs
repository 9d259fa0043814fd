//! Removing trees of any depth with few descriptors.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{self, AtFlags, Dir, RenameFlags};

use crate::at::At;
use crate::attr::Kind;
use crate::error::Errno;

/// Directories that are open at once.
const DEPTH: u32 = 32;

/// Removes `name` in `dir`, with all that it holds; nothing to remove is no error.
///
/// What lies too deep is moved up into `dir`, beside `name`, and removed from there.
///
/// # Errors
/// Those of unlinkat(2) and renameat2(2).
pub fn tree(dir: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    let mut left = vec![name.to_vec()];
    while let Some(name) = left.pop() {
        one(dir, &name, DEPTH, dir, &mut left)?;
    }
    Ok(())
}

fn one(
    dir: BorrowedFd<'_>,
    name: &[u8],
    depth: u32,
    top: BorrowedFd<'_>,
    left: &mut Vec<Vec<u8>>,
) -> Result<(), Errno> {
    match fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(errno),
    }
    let at = At::new(&dir, name);
    if at.attr()?.kind() != Kind::Dir {
        return fs::unlinkat(dir, name, AtFlags::empty());
    }
    let Some(deeper) = depth.checked_sub(1) else {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let moved = format!("#deep{:x}.{:x}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)).into_bytes();
        // Without privilege, moving a directory takes the right to write to it.
        at.chmod(0o700)?;
        fs::renameat_with(dir, name, top, moved.as_slice(), RenameFlags::NOREPLACE)?;
        left.push(moved);
        return Ok(());
    };
    let sub = match super::open_dir(dir, name) {
        Err(Errno::ACCESS) => {
            at.chmod(0o700)?;
            super::open_dir(dir, name)?
        }
        sub => sub?,
    };
    if !rustix::process::geteuid().is_root() {
        fs::fchmod(&sub, fs::Mode::RWXU)?;
    }
    for entry in Dir::read_from(&sub)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            one(sub.as_fd(), name, deeper, top, left)?;
        }
    }
    fs::unlinkat(dir, name, AtFlags::REMOVEDIR)
}

#[cfg(test)]
mod tests {
    use std::fs::{create_dir, create_dir_all, write};

    use super::*;

    #[test]
    fn deep_trees_go_and_nothing_beside_them() {
        let dir = tempfile::tempdir().unwrap();
        let mut deep = dir.path().join("gone");
        create_dir(&deep).unwrap();
        for level in 0..150 {
            deep = deep.join(format!("d{level}"));
            create_dir(&deep).unwrap();
            write(deep.join("f"), "x").unwrap();
        }
        create_dir_all(dir.path().join("kept/x")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("kept"), dir.path().join("gone/link")).unwrap();
        let fd = std::fs::File::open(dir.path()).unwrap();
        tree(fd.as_fd(), b"gone").unwrap();
        tree(fd.as_fd(), b"gone").unwrap();
        let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["kept"]);
        assert!(dir.path().join("kept/x").exists());
    }
}
