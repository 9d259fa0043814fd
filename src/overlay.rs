//! The overlay: what it holds, and how its inodes are reached in the layers. No FUSE type anywhere in it.
//!
//! Its operations are in `ops/`, a file for each kind; how a name becomes an inode is in `resolve.rs`.

mod report;

use std::collections::HashMap;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use rustix::fs::OFlags;
use rustix::process::{Resource, getrlimit};

use crate::at::At;
use crate::attr::{Attr, Kind};
use crate::cache::{Caches, DirKey};
use crate::config::Config;
use crate::counters::Counters;
use crate::error::{Context, Errno, Error, Result};
use crate::handle::{Handles, OpenFile};
use crate::ids::Ids;
use crate::inode::numbers::{Numbers, ROOT};
use crate::inode::table::Table;
use crate::inode::{DataAt, Inode, Links, Lower, State};
use crate::layer::marks::{Dialect, Marks, Opaque};
use crate::layer::origin::Unmarked;
use crate::layer::work::{WhiteoutStyle, WorkDir, open_index};
use crate::layer::{Layer, LayerId, LowerDir, Stack};
use crate::lock::{Mutex, rank};
use crate::name::Name;
use crate::override_stat::{Kept, Key};
use crate::sys;

/// A merged tree of layers.
#[derive(Debug)]
pub struct Overlay {
    pub(crate) config: Config,
    pub(crate) stack: Stack,
    /// There exactly when the overlay may be written to.
    pub(crate) work: Option<WorkDir>,
    /// The index of an upper that is not written to.
    index: Option<OwnedFd>,
    pub(crate) dialect: Dialect,
    pub(crate) numbers: Numbers,
    pub(crate) table: Table,
    pub(crate) caches: Caches,
    /// What it has done.
    pub counters: Counters,
    pub(crate) files: Handles<OpenFile>,
    /// The roots of the lower layers that are merged.
    pub(crate) lower_roots: Vec<Arc<LowerDir>>,
    /// The roots of the data-only layers below them.
    pub(crate) data_roots: Vec<Arc<LowerDir>>,
    /// Held while an entry moves from one directory to another, so that no two moves take each other's locks.
    pub(crate) moves: Mutex<(), { rank::MOVES }>,
    /// One lock for each inode that is being copied up.
    pub(crate) copy_ups: Mutex<HashMap<u64, Arc<Mutex<(), { rank::COPY_UP }>>>, { rank::LEAF }>,
    /// Descriptors held for unlinked files.
    pub(crate) orphans: AtomicUsize,
    pub(crate) max_orphans: usize,
    /// Whether we may make files that belong to others.
    pub(crate) may_chown: bool,
    /// Whose files are to whom.
    pub(crate) ids: Ids,
    /// Numbers of copies that carry no origin mark.
    pub(crate) unmarked: Unmarked,
    root_fd: Arc<OwnedFd>,
    owner: (u32, u32),
    watcher: OnceLock<Watcher>,
}

/// Who is told of inodes that are not what was told last.
struct Watcher(Box<dyn Fn(u64, Stale) + Send + Sync>);

/// What of an inode is not as was told last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stale {
    /// Its attributes: what is copied up has another change time, a directory another link count.
    Attributes,
    /// Its listing: a directory that has moved has another `..`.
    Listing,
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watcher")
    }
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// Filesystem user id.
    pub uid: u32,
    /// Filesystem group id.
    pub gid: u32,
    /// Process, or 0 where it is not to be seen from here.
    pub pid: u32,
}

impl Overlay {
    /// Opens the layers of `config`.
    ///
    /// # Errors
    /// What kept a layer from being opened, naming the option and the path: see [`Layer`] and [`WorkDir::open`].
    pub fn open(config: &Config) -> Result<Arc<Self>> {
        let lowers = config.lowers.iter().chain(&config.data_layers);
        let lowers = lowers.map(|path| Layer::open_lower(path)).collect::<Result<Vec<_>>>()?;
        let mut upper = config.upper.as_deref().map(Layer::open_upper).transpose()?;
        if let Some(upper) = &mut upper {
            upper.key = upper_key(upper.key, &lowers, config.keep_owners);
        }
        let wanted = config.userxattr.map(|user| if user { Dialect::User } else { Dialect::Trusted });
        let work = match (&upper, &config.work) {
            (Some(upper), Some(work)) if !config.read_only => {
                let bound_to = config.index.then_some(lowers.as_slice());
                match WorkDir::open(work, upper, wanted, config.whiteouts, config.volatile, bound_to) {
                    // As the kernel's overlayfs: what is there can be read all the same.
                    Err(error) if matches!(error.errno(), Errno::NOSPC | Errno::DQUOT) => {
                        log::warn!("{error}; nothing can be changed");
                        None
                    }
                    opened => Some(opened?),
                }
            }
            _ => None,
        };
        // What was copied up under another name of a lower hard link is shown read-only as well.
        let index = match (&work, &config.work) {
            (None, Some(path)) if upper.is_some() => open_index(path)?,
            _ => None,
        };
        if let (Some(upper), true) = (&upper, work.is_some()) {
            mark_root(upper, &lowers)?;
        }
        let dialect = match (&work, wanted) {
            (Some(work), _) => work.dialect(),
            (None, Some(dialect)) => dialect,
            (None, None) if sys::creds::is_privileged() => Dialect::Trusted,
            (None, None) => Dialect::User,
        };
        let top = upper.iter().chain(&lowers).next();
        let top = top.ok_or_else(|| Error::new(Errno::INVAL, "open").because("no lowerdir"))?;
        let root_fd = top.root().try_clone_to_owned()?;
        let mut sizes = config.cache;
        let descriptors = getrlimit(Resource::Nofile).current.and_then(|n| usize::try_from(n).ok()).unwrap_or(1024);
        let quarter = descriptors / 4;
        sizes.dirs = sizes.dirs.clamp(1, quarter.max(1));
        let mut lower_roots = lower_roots(&lowers, dialect)?;
        let data_roots = lower_roots.split_off(config.lowers.len().min(lower_roots.len()));
        let mut config = config.clone();
        if config.metacopy && dialect == Dialect::User {
            log::warn!("metacopy=on has no effect with user.overlay.* marks, which any user may set");
            config.metacopy = false;
        }
        let mut state = State {
            upper: upper.as_ref().map(|layer| layer.attr.ino),
            // All roots merge, whatever they say of themselves, as on the kernel.
            lower: Lower::Dirs(lower_roots.as_slice().into()),
            ..State::default()
        };
        if let Some(upper) = &upper {
            let marks = Marks::of_upper(At::fd(&upper.root()), dialect).during("read the marks of the upper's root")?;
            state.flags.impure = marks.impure;
        }
        let table = Table::default();
        // The root is known as long as the overlay lives.
        drop(table.look_up(Arc::new(Inode::new(ROOT, Kind::Dir, state))));
        let devices = upper.iter().chain(&lowers).map(|layer| layer.attr.dev);
        Ok(Arc::new(Self {
            numbers: Numbers::new(devices),
            stack: Stack { upper, lowers },
            work,
            index,
            dialect,
            table,
            caches: Caches::new(&sizes),
            counters: Counters::default(),
            files: Handles::default(),
            lower_roots,
            data_roots,
            moves: Mutex::new(()),
            copy_ups: Mutex::default(),
            orphans: AtomicUsize::new(0),
            max_orphans: quarter,
            may_chown: sys::creds::may_chown(),
            ids: Ids::new(config.uid_map.clone(), config.gid_map.clone(), (config.squash_uid, config.squash_gid)),
            unmarked: Unmarked::default(),
            root_fd: Arc::new(root_fd),
            watcher: OnceLock::new(),
            owner: (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
            config,
        }))
    }

    /// Empties the work directory; to be called once nothing uses the overlay any more.
    pub fn close(&self) {
        log::info!("{}", self.summary());
        if let Some(work) = &self.work
            && let Err(errno) = work.close()
        {
            log::warn!("cannot empty the work directory: {errno}");
        }
    }

    /// Has `watcher` called with the node id of every inode that has changed by more than the operation that is under
    /// way says. Only the first watcher counts.
    pub fn watch(&self, watcher: impl Fn(u64, Stale) + Send + Sync + 'static) {
        if self.watcher.set(Watcher(Box::new(watcher))).is_err() {
            log::warn!("the overlay is watched already");
        }
    }

    /// Tells the watcher.
    pub(crate) fn tell_stale(&self, inode: &Inode, what: Stale) {
        if let Some(Watcher(watcher)) = self.watcher.get() {
            watcher(inode.ino, what);
        }
    }

    /// Whether there are layers that hold nothing but the data of metacopies.
    pub(crate) fn has_data_layers(&self) -> bool {
        !self.data_roots.is_empty()
    }

    /// Whether nothing can be changed.
    pub fn is_read_only(&self) -> bool {
        self.work.is_none()
    }

    /// Whether marks are `user.overlay.*`.
    pub fn has_user_marks(&self) -> bool {
        self.dialect == Dialect::User
    }

    /// Whether POSIX ACLs are supported.
    pub fn has_acls(&self) -> bool {
        self.config.acl
    }

    /// The user and group that this process runs as.
    pub(crate) fn owner(&self) -> (u32, u32) {
        self.owner
    }

    /// The directories that it reads, and those that it writes.
    pub fn dirs(&self) -> (Vec<BorrowedFd<'_>>, Vec<BorrowedFd<'_>>) {
        let mut read: Vec<_> = self.stack.lowers.iter().map(Layer::root).chain(self.index()).collect();
        let mut written: Vec<_> = self.work.iter().map(WorkDir::root).collect();
        if let Some(upper) = &self.stack.upper {
            if written.is_empty() { &mut read } else { &mut written }.push(upper.root());
        }
        (read, written)
    }

    /// The work directory.
    ///
    /// # Errors
    /// `EROFS` without one.
    pub(crate) fn work(&self) -> Result<&WorkDir> {
        self.work.as_ref().ok_or(Error::new(Errno::ROFS, "write"))
    }

    /// The directory that holds copied-up hard links, if there is one.
    pub(crate) fn index(&self) -> Option<BorrowedFd<'_>> {
        self.work.as_ref().map(WorkDir::index).or(self.index.as_ref().map(OwnedFd::as_fd))
    }

    /// Whether a layer keeps owners aside.
    pub(crate) fn keeps_owners(&self) -> bool {
        self.upper_key().is_some() || self.stack.lowers.iter().any(|layer| layer.key.is_some())
    }

    /// By which attribute the upper keeps owners.
    pub(crate) fn upper_key(&self) -> Option<Key> {
        self.stack.upper.as_ref().and_then(|upper| upper.key)
    }

    /// By which attribute the layer of a lower directory keeps owners.
    pub(crate) fn key_of(&self, dir: &LowerDir) -> Option<Key> {
        self.stack.lower(dir.layer).and_then(|layer| layer.key)
    }

    /// In which form the upper's whiteouts are, as far as that has to be known to read them.
    pub(crate) fn upper_style(&self) -> Option<WhiteoutStyle> {
        self.work.as_ref().map(WorkDir::whiteout_style).or(self.config.whiteouts)
    }

    /// The number shown for the inode `ino` of the upper, on the device `dev`, when no mark says where it came from.
    pub(crate) fn upper_number(&self, dev: u64, ino: u64) -> u64 {
        self.unmarked.get(dev, ino).unwrap_or_else(|| self.numbers.compose(dev, ino))
    }

    /// The inode `ino`.
    ///
    /// # Errors
    /// `ESTALE` when the kernel was never told of it.
    pub(crate) fn inode(&self, ino: u64) -> Result<Arc<Inode>> {
        self.table.get(ino).ok_or(Error::new(Errno::STALE, "find inode"))
    }

    /// The upper part of a directory, which has one.
    ///
    /// Takes the state locks of the directory and of its ancestors, each for a moment; the caller must not hold one of
    /// them for writing.
    ///
    /// # Errors
    /// `ENOENT` for a removed directory, `ESTALE` when the upper was changed behind our back.
    pub(crate) fn upper_dir(&self, dir: &Arc<Inode>) -> Result<Arc<OwnedFd>> {
        const ATTEMPTS: u32 = 16;
        let mut result = Err(Error::new(Errno::STALE, "open upper directory"));
        for _ in 0..ATTEMPTS {
            result = self.try_upper_dir(dir);
            match &result {
                // An ancestor was renamed on the way.
                Err(error) if matches!(error.errno(), Errno::STALE | Errno::NOENT | Errno::NOTDIR) => {}
                _ => break,
            }
            if dir.state.read_recursive().links.as_slice().is_empty() {
                break;
            }
        }
        result
    }

    fn try_upper_dir(&self, dir: &Arc<Inode>) -> Result<Arc<OwnedFd>> {
        let mut below: Vec<(Arc<Inode>, Name)> = Vec::new();
        let mut current = Arc::clone(dir);
        let mut fd = loop {
            if current.ino == ROOT {
                break Arc::clone(&self.root_fd);
            }
            if let Some(fd) = self.caches.dirs.get(&DirKey::Upper(current.ino)) {
                break fd;
            }
            let (parent, name) = {
                let state = current.state.read_recursive();
                if let Some(orphan) = state.orphan() {
                    break Arc::clone(orphan);
                }
                let link = state.links.as_slice().first().ok_or(Error::new(Errno::NOENT, "open upper directory"))?;
                (Arc::clone(&link.parent), link.name.clone())
            };
            below.push((current, name));
            current = parent;
        };
        for (inode, name) in below.into_iter().rev() {
            let at = At::new(&fd, name.as_bytes());
            let opened = at.open(OFlags::PATH | OFlags::DIRECTORY).during("open upper directory")?;
            // A rename between reading the name and opening it would show another directory.
            let attr = At::fd(&opened).attr().during("open upper directory")?;
            if inode.state.read_recursive().upper != Some(attr.ino) {
                return Err(Error::new(Errno::STALE, "open upper directory"));
            }
            fd = Arc::new(opened);
            self.caches.dirs.put(DirKey::Upper(inode.ino), Arc::clone(&fd));
        }
        Ok(fd)
    }

    /// A directory of a lower layer.
    ///
    /// # Errors
    /// Those of openat(2).
    pub(crate) fn lower_dir(&self, dir: &Arc<LowerDir>) -> Result<Arc<OwnedFd>> {
        let mut below: Vec<&Arc<LowerDir>> = Vec::new();
        let mut current = dir;
        let mut fd = loop {
            if let Some(fd) = self.caches.dirs.get(&DirKey::Lower(current.id)) {
                break fd;
            }
            match &current.place {
                Some((parent, _)) => {
                    below.push(current);
                    current = parent;
                }
                None => {
                    let layer = self.stack.lower(current.layer).ok_or(Error::new(Errno::IO, "find layer"))?;
                    let root = Arc::new(layer.root().try_clone_to_owned()?);
                    self.caches.dirs.put(DirKey::Lower(current.id), Arc::clone(&root));
                    break root;
                }
            }
        };
        for dir in below.into_iter().rev() {
            let Some((_, name)) = &dir.place else { continue };
            let at = At::new(&fd, name.as_bytes());
            fd = Arc::new(at.open(OFlags::PATH | OFlags::DIRECTORY).during("open lower directory")?);
            self.caches.dirs.put(DirKey::Lower(dir.id), Arc::clone(&fd));
        }
        Ok(fd)
    }

    /// Calls `f` with the object that gives an inode its attributes, and whether it is in the upper. Its names cannot
    /// change meanwhile.
    ///
    /// # Errors
    /// Those of `f`; `ESTALE` for an inode of which nothing is left.
    pub(crate) fn with_real<T>(
        &self,
        inode: &Arc<Inode>,
        f: impl FnOnce(At<'_>, bool) -> Result<T, Errno>,
        operation: &'static str,
    ) -> Result<T> {
        let state = inode.state.read();
        self.with_real_of(inode, &state, f, operation)
    }

    /// As [`Overlay::with_real`], for who holds the state's lock.
    ///
    /// # Errors
    /// As [`Overlay::with_real`].
    pub(crate) fn with_real_of<T>(
        &self,
        inode: &Arc<Inode>,
        state: &State,
        f: impl FnOnce(At<'_>, bool) -> Result<T, Errno>,
        operation: &'static str,
    ) -> Result<T> {
        if state.upper.is_none() {
            return match &state.lower {
                Lower::File(dir, name) => {
                    f(At::new(&self.lower_dir(dir)?, name.as_bytes()).keeping(self.key_of(dir)), false)
                }
                Lower::Dirs(dirs) => match dirs.first() {
                    Some(dir) => f(At::fd(&self.lower_dir(dir)?).keeping(self.key_of(dir)), false),
                    None => Err(Errno::STALE),
                },
                Lower::None => Err(Errno::STALE),
            }
            .during(operation);
        }
        let in_upper = |at: At<'_>| f(at.keeping(self.upper_key()), true).during(operation);
        if inode.ino == ROOT {
            return in_upper(At::fd(&self.root_fd));
        }
        if let Some(orphan) = state.orphan() {
            return in_upper(At::fd(orphan));
        }
        if let Some(link) = state.links.as_slice().iter().find(|link| link.in_upper) {
            return in_upper(At::new(&self.upper_dir(&link.parent)?, link.name.as_bytes()));
        }
        match (state.index(), self.index()) {
            (Some(index), Some(dir)) => in_upper(At::new(&dir, index)),
            _ => Err(Error::new(Errno::STALE, operation)),
        }
    }

    /// The attributes of the object that gives an inode its own, with the owner that is shown.
    ///
    /// # Errors
    /// Those of statx(2).
    pub(crate) fn real_attr(&self, inode: &Arc<Inode>) -> Result<Attr> {
        let mut attr = self.with_real(inode, |at, _| at.attr(), "stat")?;
        self.ids.show(&mut attr);
        Ok(attr)
    }

    /// Keeps the attributes shown for an inode, which were read after `since`, unless they may change without us.
    pub(crate) fn keep_attr(&self, inode: &Inode, attr: Attr, since: u64) {
        // Whoever opens it so that they may notes a change after that.
        if inode.through.load(Ordering::SeqCst) == 0 {
            self.caches.attrs.put(inode.ino, attr, since);
        }
    }

    /// For the length of a change: should it panic, nothing cached is believed any more.
    pub(crate) fn distrust_on_panic(&self) -> impl Drop {
        struct Distrust<'o>(&'o Overlay);
        impl Drop for Distrust<'_> {
            fn drop(&mut self) {
                if std::thread::panicking() {
                    self.0.caches.forget_tree();
                }
            }
        }
        Distrust(self)
    }

    /// Forgets what is cached of an inode's attributes.
    pub(crate) fn touched(&self, inode: &Inode) {
        self.caches.attrs.remove(inode.ino);
    }

    /// Forgets what is cached of a directory, of which `name` has changed.
    pub(crate) fn changed(&self, dir: &Inode, name: &[u8]) {
        self.caches.names.remove(dir.ino, name);
        self.caches.listings.remove(dir.ino);
        self.caches.attrs.remove(dir.ino);
    }

    /// Keeps the upper file of an inode whose last name goes away, so that who has it open can go on.
    ///
    /// To be called before the name goes. With too many of them, only what is open already goes on.
    pub(crate) fn hold_orphan(&self, at: At<'_>) -> Option<Arc<OwnedFd>> {
        if self.orphans.load(Ordering::Relaxed) >= self.max_orphans {
            return None;
        }
        let fd = at.open(OFlags::PATH).ok()?;
        self.orphans.fetch_add(1, Ordering::Relaxed);
        Some(Arc::new(fd))
    }

    /// Lets go of what an inode holds that nobody knows any more.
    pub(crate) fn let_go(&self, inode: &Inode) {
        let mut state = inode.state.write();
        if is_unlinked(inode, &state) {
            // Its number is free for another once its descriptor is closed.
            self.touched(inode);
        }
        self.drop_orphan(&mut state);
        drop(state);
        if inode.is_dir() {
            self.caches.dirs.remove(&DirKey::Upper(inode.ino));
        }
    }

    /// Lets go of the descriptor of an unlinked file.
    pub(crate) fn drop_orphan(&self, state: &mut State) {
        if state.extra.as_mut().and_then(|extra| extra.orphan.take()).is_some() {
            self.orphans.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// An inode's attributes as shown, from those of the object that gives them.
    pub(crate) fn shown(&self, inode: &Inode, state: &State, mut attr: Attr) -> Attr {
        // The root's node id is fixed, its number is not.
        attr.ino = if inode.ino == ROOT { self.numbers.number(&attr) } else { inode.ino };
        attr.nlink = match inode.kind {
            Kind::Dir if is_unlinked(inode, state) => 0,
            Kind::Dir => {
                let parts = state.lower_dirs().len().saturating_add(usize::from(state.upper.is_some()));
                // As the kernel: the subdirectories of a merged directory are not counted.
                if self.config.static_nlink || parts > 1 { 1 } else { attr.nlink }
            }
            _ => match state.nlink() {
                Some(nlink) => nlink,
                None if state.upper.is_none() && attr.nlink == 1 && is_unlinked(inode, state) => 0,
                None => attr.nlink,
            },
        };
        match state.data() {
            None => {}
            Some(DataAt::Lower(_, _, blocks)) => attr.blocks = *blocks,
            // As the kernel's overlayfs, which does not look for the data just to tell this.
            Some(DataAt::DataOnly(_)) => {
                let blksize = u64::from(attr.blksize.max(512));
                attr.blocks = attr.size.checked_next_multiple_of(blksize).unwrap_or(attr.size) / 512;
            }
        }
        attr.is_volatile = inode.mappable.load(Ordering::SeqCst) > 0;
        self.ids.show(&mut attr);
        attr
    }
}

fn is_unlinked(inode: &Inode, state: &State) -> bool {
    inode.ino != ROOT && matches!(state.links, Links::None)
}

/// By which attribute an upper keeps owners: the one that its root has, else what is asked for; else, where a layer below it
/// does and we are not root, it does as well, as files cannot be given away then.
fn upper_key(own: Option<Key>, lowers: &[Layer], wanted: Option<Key>) -> Option<Key> {
    let as_below = || lowers.iter().any(|layer| layer.key.is_some()) && !sys::creds::is_privileged();
    own.or(wanted).or_else(|| as_below().then_some(Key::Containers))
}

/// Has the root of an upper that keeps owners say so. Where it has not so far, it is as the root below that says it.
fn mark_root(upper: &Layer, lowers: &[Layer]) -> Result<()> {
    let root = upper.root();
    let at = At::fd(&root);
    let Some(key) = upper.key else { return Ok(()) };
    if at.xattr(key.name()).during("read the upper's root")?.is_some() {
        return Ok(());
    }
    let below = lowers.iter().find(|layer| layer.key.is_some()).filter(|_| !sys::creds::is_privileged());
    let attr = match below {
        Some(below) => At::fd(&below.root()).keeping(below.key).attr().during("stat")?,
        None => upper.attr,
    };
    at.keep(key, &Kept::of(&attr)).during("mark the upper as one that keeps owners")
}

fn lower_roots(lowers: &[Layer], dialect: Dialect) -> Result<Vec<Arc<LowerDir>>> {
    let root = |(index, layer): (usize, &Layer)| {
        let marks = Marks::of_lower(At::fd(&layer.root()), dialect).during("read the marks of a layer's root")?;
        let id = LayerId::try_from(index).map_err(|_| Error::new(Errno::TOOBIG, "number the layers"))?;
        Ok(LowerDir::root(id, marks.opaque == Opaque::XattrWhiteouts))
    };
    lowers.iter().enumerate().map(root).collect()
}
