//! Renames that leave a whiteout behind which the filesystem does not leave by itself.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};

use crate::calls;
use crate::error::{Context, Errno, Result};
use crate::layer::marks::Mark;
use crate::layer::work::WorkDir;
use crate::overlay::Overlay;

use super::{Place, Slot};

impl Overlay {
    /// Moves `old` to `new`, and hides the name that it had. `shows` says whether there is something to be replaced,
    /// `slot` what of it is in the upper.
    ///
    /// It is one step if the whiteout can wait in the new place. Else a file has both names in between, as rename(2) has
    /// it, and a directory leaves an empty one: nothing is lost, and nothing that is hidden shows.
    ///
    /// # Errors
    /// Those of linkat(2), renameat2(2), and of making a whiteout; then all is as it was.
    pub(super) fn rename_and_hide(
        &self,
        work: &WorkDir,
        old: &Place,
        new: &Place,
        is_dir: bool,
        shows: bool,
        slot: Slot,
    ) -> Result<()> {
        work.allow_whiteouts(old.dir.as_fd())?;
        if !shows && slot == Slot::Free && work.takes_whiteouts(new.dir.as_fd())? {
            work.place_whiteout(new.dir.as_fd(), new.name.as_bytes())?;
            return exchange(old, new).inspect_err(|_| take_away(new, AtFlags::empty()));
        }
        if !is_dir {
            match move_link(work, old, new, slot) {
                // The filesystem makes no hard link of it.
                Err(error) if matches!(error.errno(), Errno::MLINK | Errno::PERM | Errno::OPNOTSUPP) => {}
                result => return result,
            }
        }
        self.move_by_exchange(work, old, new, is_dir, slot)
    }

    /// Has what is in the new place, or something empty, take the old one, and replaces that by a whiteout.
    fn move_by_exchange(&self, work: &WorkDir, old: &Place, new: &Place, is_dir: bool, slot: Slot) -> Result<()> {
        if slot == Slot::Free {
            let (staged, ()) = work.stage(|dir, name| {
                if is_dir {
                    return calls::mkdirat(dir, name, Mode::RWXU);
                }
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                calls::openat(dir, name, flags, Mode::RUSR | Mode::WUSR).map(drop)
            })?;
            if is_dir {
                self.dialect.set(staged.at(), Mark::Opaque, b"y").during("set the opaque mark")?;
            }
            staged.commit(new.dir.as_fd(), new.name.as_bytes(), RenameFlags::NOREPLACE)?;
        } else if is_dir {
            // In the old place, it is not to show what lies below that.
            self.dialect.set(new.at(), Mark::Opaque, b"y").during("set the opaque mark")?;
        }
        let moved = exchange(old, new).and_then(|()| {
            work.replace_with_whiteout(old.dir.as_fd(), old.name.as_bytes(), is_dir).inspect_err(|_| {
                if let Err(error) = exchange(old, new) {
                    log::warn!("a rename that failed is not undone: {error}");
                }
            })
        });
        if slot == Slot::Free && moved.is_err() {
            take_away(new, if is_dir { AtFlags::REMOVEDIR } else { AtFlags::empty() });
        }
        moved
    }
}

/// Gives a file its new name, and replaces the old one by a whiteout.
fn move_link(work: &WorkDir, old: &Place, new: &Place, slot: Slot) -> Result<()> {
    let hide = || work.replace_with_whiteout(old.dir.as_fd(), old.name.as_bytes(), false);
    let link =
        |dir: BorrowedFd<'_>, name: &[u8]| calls::linkat(&*old.dir, old.name.as_bytes(), dir, name, AtFlags::empty());
    if slot == Slot::Free {
        link(new.dir.as_fd(), new.name.as_bytes()).during("link to the new name")?;
        return hide().inspect_err(|_| take_away(new, AtFlags::empty()));
    }
    let (staged, ()) = work.stage(link)?;
    staged.exchange(new.dir.as_fd(), new.name.as_bytes())?;
    hide().inspect_err(|_| {
        if let Err(error) = staged.exchange(new.dir.as_fd(), new.name.as_bytes()) {
            log::warn!("a rename that failed is not undone: {error}");
        }
    })
}

fn exchange(old: &Place, new: &Place) -> Result<()> {
    calls::renameat(&*old.dir, old.name.as_bytes(), &*new.dir, new.name.as_bytes(), RenameFlags::EXCHANGE)
        .during("rename")
}

/// Takes away what was to be replaced by a rename that failed.
fn take_away(place: &Place, flags: AtFlags) {
    if let Err(errno) = calls::unlinkat(&*place.dir, place.name.as_bytes(), flags) {
        log::warn!("{} was made for nothing, and stays: {errno}", place.name.as_bytes().escape_ascii());
    }
}
