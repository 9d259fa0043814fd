//! Renames. Each is one rename in the upper, which leaves a whiteout where a layer below would show through.
//!
//! A directory that has parts below takes a redirect with it: under which path the layers below know it.

mod hide;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, XattrFlags};

use crate::at::{At, split_names};
use crate::attr::Kind;
use crate::cache::Known;
use crate::calls;
use crate::config::RedirectDir;
use crate::copy_up::Data;
use crate::error::{Context, Errno, Error, Result};
use crate::inode::numbers::ROOT;
use crate::inode::{Inode, Link, State};
use crate::layer::marks::Mark;
use crate::layer::work::{WhiteoutStyle, WorkDir};
use crate::name::Name;
use crate::overlay::{Overlay, Stale};
use crate::times;

use super::{check_alive, check_unprotected};

/// A redirect of more bytes may be too long for a filesystem: the longest that the kernel's overlayfs writes.
const LONG: usize = 256;

/// A name in a directory of the overlay, and that directory in the upper.
#[derive(Debug)]
struct Place {
    parent: Arc<Inode>,
    name: Name,
    dir: Arc<OwnedFd>,
}

impl Place {
    fn at(&self) -> At<'_> {
        At::new(&*self.dir, self.name.as_bytes())
    }
}

impl Overlay {
    /// Renames an entry. `flags` may hold `NOREPLACE` or `EXCHANGE`.
    ///
    /// # Errors
    /// `EINVAL` for other flags, as on the kernel's overlayfs; those of renameat2(2); `EXDEV` for a directory with parts
    /// below when redirects are not to be written; `EPERM` for protected files, `EROFS`, those of copy-up.
    pub fn rename(&self, parent: u64, name: &[u8], new_parent: u64, new_name: &[u8], flags: RenameFlags) -> Result<()> {
        if !(RenameFlags::NOREPLACE | RenameFlags::EXCHANGE).contains(flags) {
            return Err(Error::new(Errno::INVAL, "rename"));
        }
        let _distrust = self.distrust_on_panic();
        let exchange = flags.contains(RenameFlags::EXCHANGE);
        let (old_parent, old_name) = self.place(parent, name)?;
        let (new_parent, new_name) = self.place(new_parent, new_name)?;
        let same_dir = old_parent.ino == new_parent.ino;
        let _moves = (!same_dir).then(|| self.moves.lock());
        let inode = self.hold(&old_parent, &old_name)?.ok_or(Error::new(Errno::NOENT, "rename"))?;
        let target = self.hold(&new_parent, &new_name)?;
        match &target {
            None if exchange => return Err(Error::new(Errno::NOENT, "exchange")),
            Some(_) if flags.contains(RenameFlags::NOREPLACE) => return Err(Error::new(Errno::EXIST, "rename")),
            Some(target) if target.ino == inode.ino => return Ok(()),
            _ => {}
        }
        self.check_redirect(&inode)?;
        if exchange && let Some(target) = &target {
            self.check_redirect(target)?;
        }
        if !exchange && let Some(target) = &target {
            self.check_replaceable(&inode, target)?;
        }
        for changed in [Some(&old_parent), Some(&new_parent), Some(&*inode), target.as_deref()].into_iter().flatten() {
            check_unprotected(changed)?;
        }
        self.copy_up_by(&inode, &old_parent, &old_name)?;
        self.link_up(&inode, &old_parent, &old_name)?;
        self.copy_up(&new_parent, Data::Later)?;
        if let Some(target) = &target {
            if exchange {
                self.copy_up_by(target, &new_parent, &new_name)?;
                self.link_up(target, &new_parent, &new_name)?;
            } else {
                self.begin_link_change(target, &new_parent, &new_name)?;
                if target.is_dir() && self.upper_style() == Some(WhiteoutStyle::Xattr) {
                    // It may have to take the old place for a moment.
                    self.copy_up(target, Data::Later)?;
                }
            }
        }
        let old = Place { dir: self.upper_dir(&old_parent)?, parent: old_parent, name: old_name };
        let new = Place { dir: self.upper_dir(&new_parent)?, parent: new_parent, name: new_name };
        self.mark_moved(&inode, &old, &new)?;
        if exchange && let Some(target) = &target {
            self.mark_moved(target, &new, &old)?;
        }
        if !exchange && let Some(target) = target.as_ref().filter(|target| target.is_dir()) {
            // Of the upper alone, which is looked at last, as on the kernel's overlayfs: the marks stay, and do no harm.
            self.check_empty(target)?;
        }
        let (first, second) = if old.parent.ino <= new.parent.ino { (&old, &new) } else { (&new, &old) };
        let _first = first.parent.entries.lock();
        let _second = (!same_dir).then(|| second.parent.entries.lock());
        check_alive(&old.parent)?;
        check_alive(&new.parent)?;
        let target = target.as_deref();
        if exchange {
            self.exchange(&inode, &old, target.ok_or(Error::new(Errno::NOENT, "exchange"))?, &new)?;
        } else {
            self.replace(&inode, &old, target, &new)?;
        }
        for place in [&old, &new] {
            self.changed(&place.parent, place.name.as_bytes());
        }
        for inode in [Some(&*inode), target].into_iter().flatten() {
            self.touched(inode);
            if inode.is_dir() && !same_dir {
                self.tell_stale(inode, Stale::Listing);
            }
        }
        self.caches.names.put(new.parent.ino, &new.name, Known::Inode(inode.ino));
        let left = if exchange { target.map(|target| Known::Inode(target.ino)) } else { Some(Known::Missing) };
        if let Some(left) = left {
            self.caches.names.put(old.parent.ino, &old.name, left);
        }
        Ok(())
    }

    /// Whether the types let `inode` replace `target`, and whether that is empty, as far as the layers below have a say in
    /// it. A directory of the upper alone is looked at once everything is copied up, as on the kernel's overlayfs.
    fn check_replaceable(&self, inode: &Inode, target: &Arc<Inode>) -> Result<()> {
        match (inode.is_dir(), target.is_dir()) {
            (true, false) => Err(Error::new(Errno::NOTDIR, "rename")),
            (false, true) => Err(Error::new(Errno::ISDIR, "rename")),
            (true, true) if target.state.read().has_lower() => self.check_empty(target),
            _ => Ok(()),
        }
    }

    fn check_empty(&self, dir: &Arc<Inode>) -> Result<()> {
        if self.list(dir)?.is_empty() { Ok(()) } else { Err(Error::new(Errno::NOTEMPTY, "rename")) }
    }

    fn check_redirect(&self, inode: &Inode) -> Result<()> {
        if inode.is_dir() && inode.state.read().has_lower() && self.config.redirect_dir != RedirectDir::On {
            return Err(Error::new(Errno::XDEV, "rename a directory that has parts below"));
        }
        Ok(())
    }

    /// Marks an inode as one that goes from `from` to `to`, in a way that changes nothing as long as it has not.
    fn mark_moved(&self, inode: &Arc<Inode>, from: &Place, to: &Place) -> Result<()> {
        let (has_lower, has_origin, is_metacopy) = {
            let state = inode.state.read();
            (state.has_lower(), state.flags.has_origin, state.data().is_some())
        };
        if has_lower || has_origin {
            self.mark_impure(&to.parent, to.dir.as_fd())?;
        }
        let same_dir = from.parent.ino == to.parent.ino;
        if is_metacopy {
            // The names of a hard link may come to lie in several directories.
            let is_linked = inode.state.read().index().is_some();
            return self.set_redirect(inode, &from.parent, &from.name, same_dir && !is_linked);
        }
        if !inode.is_dir() {
            return Ok(());
        }
        if has_lower {
            return self.set_redirect(inode, &from.parent, &from.name, same_dir);
        }
        if !to.parent.state.read().lower_dirs().is_empty() {
            // Nothing of its new namesake below is to show through.
            self.dialect.set(from.at(), Mark::Opaque, b"y").during("set the opaque mark")?;
        }
        Ok(())
    }

    /// Notes under which name the layers below know what is called `name` in `parent` now; by its path, unless it
    /// `stays` in that directory.
    pub(super) fn set_redirect(&self, inode: &Arc<Inode>, parent: &Arc<Inode>, name: &Name, stays: bool) -> Result<()> {
        let known = inode.state.read().redirect().map(Box::<[u8]>::from);
        let redirect: Box<[u8]> = match known {
            Some(known) if stays || known.starts_with(b"/") => return Ok(()),
            None if stays => name.as_bytes().into(),
            known => {
                let mut path = self.lower_path(parent);
                path.push(b'/');
                path.extend_from_slice(known.as_deref().unwrap_or(name.as_bytes()));
                path.into()
            }
        };
        match self.with_real(inode, |at, _| self.dialect.set(at, Mark::Redirect, &redirect), "set the redirect mark") {
            // Too long a path for the filesystem: the caller may still copy. A short one fails for want of space.
            Err(error)
                if matches!(error.errno(), Errno::TOOBIG | Errno::RANGE)
                    || (error.errno() == Errno::NOSPC && redirect.len() > LONG) =>
            {
                Err(Error::new(Errno::XDEV, "set the redirect mark"))
            }
            result => result,
        }?;
        inode.state.write().extra_mut().redirect = Some(redirect);
        Ok(())
    }

    /// The path under which the layers below know a directory; empty for the root.
    fn lower_path(&self, dir: &Arc<Inode>) -> Vec<u8> {
        let mut parts: Vec<Box<[u8]>> = Vec::new();
        let mut current = Arc::clone(dir);
        while current.ino != ROOT {
            let parent = {
                let state = current.state.read();
                let redirect = state.redirect();
                if let Some(path) = redirect.and_then(|redirect| redirect.strip_prefix(b"/")) {
                    parts.push(path.into());
                    break;
                }
                let Some(link) = state.links.as_slice().first() else { break };
                parts.push(redirect.unwrap_or(link.name.as_bytes()).into());
                Arc::clone(&link.parent)
            };
            current = parent;
        }
        parts.iter().rev().flat_map(|part| [b"/".as_slice(), part].concat()).collect()
    }

    fn exchange(&self, inode: &Arc<Inode>, old: &Place, target: &Arc<Inode>, new: &Place) -> Result<()> {
        let (low, high) = if inode.ino < target.ino { (inode, target) } else { (target, inode) };
        let (mut low, mut high) = (low.state.write(), high.state.write());
        let (state, target_state) = if inode.ino < target.ino { (&mut low, &mut high) } else { (&mut high, &mut low) };
        check_link(state, old)?;
        check_link(target_state, new)?;
        calls::renameat(&*old.dir, old.name.as_bytes(), &*new.dir, new.name.as_bytes(), RenameFlags::EXCHANGE)
            .during("exchange")?;
        move_link(state, old, new);
        move_link(target_state, new, old);
        Ok(())
    }

    fn replace(&self, inode: &Arc<Inode>, old: &Place, target: Option<&Arc<Inode>>, new: &Place) -> Result<()> {
        let work = self.work()?;
        let leaves_whiteout = self.lower_shows(&old.parent, &old.name)?;
        let slot = slot(new, target)?;
        if slot == Slot::Dir && !is_physically_empty(new)? {
            self.clear(work, new)?;
        }
        let target = match target {
            Some(target) if target.ino < inode.ino => Some((target, Some(target.state.write()))),
            Some(target) => Some((target, None)),
            None => None,
        };
        let mut state = inode.state.write();
        let target = target.map(|(target, state)| (target, state.unwrap_or_else(|| target.state.write())));
        check_link(&state, old)?;
        let mut orphan = None;
        if let Some((_, target_state)) = &target {
            check_link(target_state, new)?;
            if target_state.links.as_slice().len() == 1 && slot != Slot::Free {
                orphan = self.hold_orphan(new.at());
            }
        }
        let plain = |flags| {
            calls::renameat(&*old.dir, old.name.as_bytes(), &*new.dir, new.name.as_bytes(), flags).during("rename")
        };
        if leaves_whiteout && slot != Slot::Whiteout {
            let hide = || {
                keep_times_if_failed([old, new], || {
                    self.rename_and_hide(work, old, new, inode.is_dir(), target.is_some(), slot)
                })
            };
            match work.whiteout_style() {
                WhiteoutStyle::Device => match plain(RenameFlags::WHITEOUT) {
                    // The filesystem cannot leave a whiteout by itself.
                    Err(error) if error.errno() == Errno::INVAL => hide()?,
                    result => result?,
                },
                // It hides nothing of the upper, so that it can come first.
                WhiteoutStyle::DotFile => keep_times_if_failed([old, new], || {
                    let is_new = work.place_whiteout(old.dir.as_fd(), old.name.as_bytes())?;
                    let moved = plain(if slot == Slot::Free { RenameFlags::NOREPLACE } else { RenameFlags::empty() });
                    if moved.is_err() && is_new {
                        work.take_whiteout_back(old.dir.as_fd(), old.name.as_bytes());
                    }
                    moved
                })?,
                WhiteoutStyle::Xattr => hide()?,
            }
        } else if leaves_whiteout {
            work.allow_whiteouts(old.dir.as_fd())?;
            plain(RenameFlags::EXCHANGE)?;
        } else if slot == Slot::Whiteout && inode.is_dir() {
            plain(RenameFlags::EXCHANGE)?;
            // One that stays hides nothing.
            if let Err(errno) = calls::unlinkat(&*old.dir, old.name.as_bytes(), AtFlags::empty()) {
                log::warn!("cannot remove a whiteout: {errno}");
            }
        } else {
            plain(RenameFlags::empty())?;
        }
        move_link(&mut state, old, new);
        if let Some((target, mut target_state)) = target {
            self.drop_link(target, &mut target_state, &new.parent, &new.name, orphan);
        }
        Ok(())
    }

    /// Replaces a directory that shows nothing, but holds whiteouts, by one that is empty indeed.
    fn clear(&self, work: &WorkDir, place: &Place) -> Result<()> {
        let from = place.at();
        let attr = from.attr().during("stat")?;
        let (staged, ()) = work.stage(|dir, name| calls::mkdirat(dir, name, Mode::RWXU))?;
        let to = staged.at();
        to.chown(Some(attr.uid), Some(attr.gid)).during("copy the owner")?;
        to.chmod(attr.mode).during("copy the mode")?;
        for name in split_names(&from.xattr_names().during("list attributes")?) {
            if let Some(value) = from.xattr(name).during("read an attribute")? {
                to.set_xattr(name, &value, XattrFlags::empty()).during("copy an attribute")?;
            }
        }
        self.dialect.set(to, Mark::Opaque, b"y").during("set the opaque mark")?;
        to.set_times(&times::exact(attr.atime, attr.mtime)).during("copy the times")?;
        staged.commit(place.dir.as_fd(), place.name.as_bytes(), RenameFlags::EXCHANGE)
    }
}

/// What lies in the upper where an entry is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Free,
    Whiteout,
    File,
    Dir,
}

fn slot(new: &Place, target: Option<&Arc<Inode>>) -> Result<Slot> {
    let Some(attr) = new.at().find().during("stat")? else { return Ok(Slot::Free) };
    Ok(match target {
        // Nothing is shown, so what is there is a whiteout.
        None => Slot::Whiteout,
        Some(_) if attr.kind() == Kind::Dir => Slot::Dir,
        Some(_) => Slot::File,
    })
}

fn is_physically_empty(place: &Place) -> Result<bool> {
    let fd = place.at().open(OFlags::RDONLY | OFlags::DIRECTORY).during("open directory")?;
    for entry in calls::list(fd).during("list directory")? {
        let entry = entry.during("list directory")?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Has what fails to change directories leave their times, which making something and taking it back would move.
fn keep_times_if_failed(places: [&Place; 2], change: impl FnOnce() -> Result<()>) -> Result<()> {
    let dirs = places.map(|place| At::fd(&*place.dir));
    let before = [dirs[0].attr().during("stat")?, dirs[1].attr().during("stat")?];
    change().inspect_err(|_| {
        for (dir, attr) in dirs.iter().zip(before) {
            if let Err(errno) = dir.set_times(&times::exact(attr.atime, attr.mtime)) {
                log::warn!("the times of a directory have moved for nothing: {errno}");
            }
        }
    })
}

fn check_link(state: &State, place: &Place) -> Result<()> {
    match state.links.find(&place.parent, place.name.as_bytes()) {
        Some(_) => Ok(()),
        None => Err(Error::new(Errno::NOENT, "rename")),
    }
}

fn move_link(state: &mut State, from: &Place, to: &Place) {
    state.links.remove(&from.parent, from.name.as_bytes());
    state.links.add(Link { parent: Arc::clone(&to.parent), name: to.name.clone(), in_upper: true });
}
