//! Random operations, compared with a model of what a tree is.

use std::collections::BTreeSet;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::thread;

use parking_lot::{Mutex, RwLock, RwLockWriteGuard};
use rustix::fs::{OFlags, RenameFlags};

use super::Bed;
use super::bed::us;
use crate::attr::Attr;
use crate::config::{CacheSizes, WhiteoutStyle};
use crate::error::{Errno, Error, Result};
use crate::inode::numbers::ROOT;
use crate::ops::SetAttr;

const OPERATIONS: usize = 300;
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// The runs: `PLYFS_TEST_SEEDS=FIRST-LAST` or `PLYFS_TEST_SEEDS=ONE`, else as many as do not try anyone's patience.
fn seeds() -> std::ops::RangeInclusive<u64> {
    let Ok(given) = std::env::var("PLYFS_TEST_SEEDS") else { return 0..=19 };
    let (first, last) = given.split_once('-').unwrap_or((&given, &given));
    first.parse().unwrap()..=last.parse().unwrap()
}

/// Xorshift (Marsaglia, 2003).
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % limit
    }

    fn one_in(&mut self, chance: usize) -> bool {
        self.below(chance) == 0
    }

    fn path(&mut self) -> String {
        let depth = 1 + self.below(3);
        (0..depth).map(|_| NAMES[self.below(NAMES.len())]).collect::<Vec<_>>().join("/")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    Dir,
    File,
    Symlink,
}

#[derive(Debug)]
struct Node {
    sort: Sort,
    /// Of a file its data, of a symlink its target.
    content: String,
    mode: u32,
    nlink: u32,
    xattrs: BTreeMap<String, String>,
    /// The number under which the overlay showed it first.
    ino: Option<u64>,
}

/// What a tree is: names, and what they stand for.
#[derive(Debug, Default)]
struct Model {
    nodes: Vec<Node>,
    names: BTreeMap<String, usize>,
}

impl Model {
    fn add(&mut self, path: &str, sort: Sort, content: &str, mode: u32) -> usize {
        let node = Node { sort, content: content.into(), mode, nlink: 1, xattrs: BTreeMap::new(), ino: None };
        self.nodes.push(node);
        self.names.insert(path.into(), self.nodes.len() - 1);
        self.nodes.len() - 1
    }

    fn sort(&self, path: &str) -> Option<Sort> {
        self.names.get(path).map(|node| self.nodes[*node].sort)
    }

    /// What a walk to the parent of `path` says.
    fn check_parent(&self, path: &str) -> Result<(), Errno> {
        for (end, _) in path.match_indices('/') {
            match self.sort(&path[..end]) {
                None => return Err(Errno::NOENT),
                Some(Sort::Dir) => {}
                Some(_) => return Err(Errno::NOTDIR),
            }
        }
        Ok(())
    }

    /// The node at `path`.
    fn find(&self, path: &str) -> Result<usize, Errno> {
        self.check_parent(path)?;
        self.names.get(path).copied().ok_or(Errno::NOENT)
    }

    /// Nothing is at `path`, and something may be put there.
    fn check_free(&self, path: &str) -> Result<(), Errno> {
        self.check_parent(path)?;
        if self.names.contains_key(path) { Err(Errno::EXIST) } else { Ok(()) }
    }

    fn is_empty(&self, dir: &str) -> bool {
        !self.names.keys().any(|path| path.starts_with(&format!("{dir}/")))
    }

    fn remove_all(&mut self, path: &str) {
        let below = format!("{path}/");
        self.names.retain(|name, _| name != path && !name.starts_with(&below));
    }

    /// Moves what is at and below `from`.
    fn take(&mut self, from: &str, to: &str) -> Vec<(String, usize)> {
        let below = format!("{from}/");
        let taken: Vec<(String, usize)> = self
            .names
            .iter()
            .filter(|(path, _)| *path == from || path.starts_with(&below))
            .map(|(path, node)| (format!("{to}{}", &path[from.len()..]), *node))
            .collect();
        self.remove_all(from);
        taken
    }

    fn unlink(&mut self, path: &str) -> Result<(), Errno> {
        let node = self.find(path)?;
        if self.nodes[node].sort == Sort::Dir {
            return Err(Errno::ISDIR);
        }
        self.nodes[node].nlink -= 1;
        self.names.remove(path);
        Ok(())
    }

    fn rmdir(&mut self, path: &str) -> Result<(), Errno> {
        let node = self.find(path)?;
        match self.nodes[node].sort {
            Sort::Dir if self.is_empty(path) => {}
            Sort::Dir => return Err(Errno::NOTEMPTY),
            _ => return Err(Errno::NOTDIR),
        }
        self.names.remove(path);
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str, flags: RenameFlags) -> Result<(), Errno> {
        self.check_parent(from)?;
        self.check_parent(to)?;
        let node = self.find(from)?;
        let target = self.names.get(to).copied();
        let exchange = flags.contains(RenameFlags::EXCHANGE);
        match target {
            None if exchange => return Err(Errno::NOENT),
            Some(_) if flags.contains(RenameFlags::NOREPLACE) => return Err(Errno::EXIST),
            Some(target) if target == node => return Ok(()),
            Some(target) if !exchange => match (self.nodes[node].sort, self.nodes[target].sort) {
                (Sort::Dir, Sort::Dir) if !self.is_empty(to) => return Err(Errno::NOTEMPTY),
                (Sort::Dir, Sort::Dir) => {}
                (Sort::Dir, _) => return Err(Errno::NOTDIR),
                (_, Sort::Dir) => return Err(Errno::ISDIR),
                _ => self.nodes[target].nlink -= 1,
            },
            _ => {}
        }
        let taken = self.take(from, to);
        let back = if exchange { self.take(to, from) } else { Vec::new() };
        self.names.remove(to);
        self.names.extend(taken);
        self.names.extend(back);
        Ok(())
    }

    fn link(&mut self, from: &str, to: &str) -> Result<(), Errno> {
        self.check_parent(to)?;
        let node = self.find(from)?;
        if self.nodes[node].sort == Sort::Dir {
            return Err(Errno::PERM);
        }
        self.check_free(to)?;
        self.nodes[node].nlink += 1;
        self.names.insert(to.into(), node);
        Ok(())
    }

    /// The lines of [`super::view::tree`].
    fn tree(&self) -> Vec<String> {
        let line = |(path, node): (&String, &usize)| {
            let node = &self.nodes[*node];
            let mut line = match node.sort {
                Sort::Dir => format!("{path} dir {:o}", node.mode),
                Sort::File => format!("{path} file {:o} {}", node.mode, node.content),
                Sort::Symlink => format!("{path} -> {}", node.content),
            };
            for (name, value) in &node.xattrs {
                write!(line, " {name}={value}").unwrap();
            }
            line
        };
        let mut lines: Vec<String> = self.names.iter().map(line).collect();
        lines.sort();
        lines
    }

    /// Lays a random layer over what is there, and returns the words for it.
    fn lay(&mut self, random: &mut Random, layer: usize, links: bool) -> String {
        let mut words = Vec::new();
        let mut own: BTreeMap<String, usize> = BTreeMap::new();
        let mut hidden = HashSet::new();
        for _ in 0..random.below(25) {
            let path = random.path();
            let parent = path.rsplit_once('/').map(|(parent, _)| parent.to_string());
            let parents: Vec<&str> = path.match_indices('/').map(|(end, _)| &path[..end]).collect();
            // Within a layer a name stands for one thing.
            let in_way = |own: &BTreeMap<String, usize>, this: &Self| {
                own.contains_key(&path)
                    || hidden.contains(&path)
                    || parents.iter().any(|parent| {
                        hidden.contains(*parent)
                            || own.get(*parent).is_some_and(|node| this.nodes[*node].sort != Sort::Dir)
                    })
            };
            if in_way(&own, self) {
                continue;
            }
            for parent in &parents {
                if !own.contains_key(*parent) {
                    words.push(format!("{parent}/"));
                    let node = self.lay_dir(parent);
                    own.insert((*parent).into(), node);
                }
            }
            match random.below(12) {
                0..3 => {
                    words.push(format!("{path}/"));
                    let node = self.lay_dir(&path);
                    own.insert(path, node);
                }
                3 if links => {
                    // A hard link within the layer.
                    let other = own.iter().find(|(_, node)| self.nodes[**node].sort == Sort::File);
                    let Some((other, node)) = other.map(|(other, node)| (other.clone(), *node)) else { continue };
                    words.push(format!("{path}=={other}"));
                    self.remove_all(&path);
                    self.nodes[node].nlink += 1;
                    self.names.insert(path.clone(), node);
                    own.insert(path, node);
                }
                4 => {
                    words.push(format!("{path}->to-{layer}"));
                    self.remove_all(&path);
                    let node = self.add(&path, Sort::Symlink, &format!("to-{layer}"), 0o777);
                    own.insert(path, node);
                }
                5..7 => {
                    let name = path.rsplit('/').next().unwrap();
                    let dir = parent.map_or(String::new(), |parent| format!("{parent}/"));
                    words.push(if random.one_in(2) { format!("{path}!") } else { format!("{dir}.wh.{name}=") });
                    self.remove_all(&path);
                    hidden.insert(path);
                }
                7 if !self.names.keys().any(|name| name.starts_with(&format!("{path}/")) && own.contains_key(name)) => {
                    words.push(format!("{path}/"));
                    words.push(if random.one_in(2) {
                        format!("{path}@user.overlay.opaque=y")
                    } else {
                        format!("{path}/.wh..wh..opq=")
                    });
                    self.remove_all(&path);
                    let node = self.lay_dir(&path);
                    own.insert(path, node);
                }
                _ => {
                    words.push(format!("{path}=layer{layer}"));
                    self.remove_all(&path);
                    let node = self.add(&path, Sort::File, &format!("layer{layer}"), 0o644);
                    own.insert(path, node);
                }
            }
        }
        words.join(" ")
    }

    fn lay_dir(&mut self, path: &str) -> usize {
        match self.names.get(path) {
            Some(node) if self.nodes[*node].sort == Sort::Dir => *node,
            _ => {
                self.remove_all(path);
                self.add(path, Sort::Dir, "", 0o755)
            }
        }
    }
}

/// Whether the lower layers of a run have hard links.
fn has_links(seed: u64) -> bool {
    seed.is_multiple_of(2)
}

/// An overlay and the model that it is compared with.
struct Run {
    bed: Option<Bed>,
    model: Model,
    random: Random,
    handles: Vec<(u64, usize)>,
    history: Vec<String>,
    seed: u64,
}

impl Drop for Run {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("seed {}:\n{}", self.seed, self.history.join("\n"));
        }
    }
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut model = Model::default();
        let mut layers: Vec<String> =
            (0..1 + random.below(4)).map(|layer| model.lay(&mut random, layer, has_links(seed))).collect();
        layers.reverse();
        let words: Vec<&str> = layers.iter().map(String::as_str).collect();
        let bed = Bed::with(&words, |config| {
            config.whiteouts =
                [None, Some(WhiteoutStyle::Device), Some(WhiteoutStyle::Xattr), Some(WhiteoutStyle::DotFile)]
                    [seed as usize / 2 % 4];
            if seed.is_multiple_of(3) {
                config.cache = CacheSizes { attrs: 1, missing: 2, listings: 3, dirs: 1 };
            }
        });
        Self { bed: Some(bed), model, random, handles: Vec::new(), history: layers, seed }
    }

    fn bed(&self) -> &Bed {
        self.bed.as_ref().unwrap()
    }

    /// Does one random operation on both, and compares their results.
    fn step(&mut self) {
        let (path, other) = (self.random.path(), self.random.path());
        let choice = self.random.below(20);
        let overlaps = format!("{other}/").starts_with(&format!("{path}/"))
            || format!("{path}/").starts_with(&format!("{other}/"));
        let number = self.history.len();
        let Self { bed: Some(bed), model, history, .. } = self else { return };
        let mut what = |what: String| history.push(what);
        let (real, expected): (Result<()>, Result<(), Errno>) = match choice {
            0..3 => {
                what(format!("create {path}"));
                let expected = model.check_free(&path).map(|()| _ = model.add(&path, Sort::File, "", 0o644));
                (bed.create(&path, OFlags::RDWR).and_then(|(_, file)| bed.overlay.release(file)), expected)
            }
            3..5 => {
                what(format!("mkdir {path}"));
                let expected = model.check_free(&path).map(|()| _ = model.add(&path, Sort::Dir, "", 0o755));
                (bed.mkdir(&path).map(drop), expected)
            }
            5 => {
                what(format!("symlink {path}"));
                let expected = model.check_free(&path).map(|()| _ = model.add(&path, Sort::Symlink, "to", 0o777));
                (bed.symlink(&path, "to").map(drop), expected)
            }
            6..8 => {
                what(format!("unlink {path}"));
                (bed.unlink(&path), model.unlink(&path))
            }
            8 => {
                what(format!("rmdir {path}"));
                (bed.rmdir(&path), model.rmdir(&path))
            }
            9..13 if path == other || !overlaps => {
                let flags = match choice {
                    9 => RenameFlags::NOREPLACE,
                    10 => RenameFlags::EXCHANGE,
                    _ => RenameFlags::empty(),
                };
                what(format!("rename {path} {other} {flags:?}"));
                (bed.rename_with(&path, &other, flags), model.rename(&path, &other, flags))
            }
            13 => {
                what(format!("link {path} {other}"));
                (bed.link(&path, &other).map(drop), model.link(&path, &other))
            }
            14 if model.sort(&path) != Some(Sort::Symlink) => {
                let mode = [0o700, 0o755, 0o644, 0o600][number % 4] | 0o600;
                what(format!("chmod {path} {mode:o}"));
                (
                    bed.chmod(&path, mode | 0o100).map(drop),
                    model.find(&path).map(|node| model.nodes[node].mode = mode | 0o100),
                )
            }
            15 if model.sort(&path) != Some(Sort::Symlink) => {
                what(format!("setxattr {path}"));
                return self.set_xattr(&path, number);
            }
            16..18 if model.sort(&path) == Some(Sort::File) => {
                what(format!("append {path}"));
                let expected = model.find(&path).map(|node| write!(model.nodes[node].content, "+{number}").unwrap());
                (bed.append(&path, &format!("+{number}")), expected)
            }
            18 if model.sort(&path) == Some(Sort::File) => {
                what(format!("overwrite {path}"));
                let expected = model.find(&path).map(|node| model.nodes[node].content = format!("w{number}"));
                (bed.write(&path, &format!("w{number}")), expected)
            }
            19 if model.sort(&path) == Some(Sort::File) => {
                what(format!("open {path}"));
                let file = bed.open_file(&path, OFlags::RDONLY).unwrap();
                let node = model.find(&path).unwrap();
                self.handles.push((file, node));
                return;
            }
            _ => return,
        };
        let last = history.last().unwrap();
        match (&real, expected) {
            (Ok(()), Ok(())) => {}
            (Err(error), Err(expected)) => assert_eq!(error.errno(), expected, "{last}: {error}"),
            (real, expected) => panic!("{last}: {real:?} instead of {expected:?}"),
        }
    }

    fn set_xattr(&mut self, path: &str, number: usize) {
        let real = self.bed().set_xattr(path, "user.n", &number.to_string()).map_err(|error| error.errno());
        let expected = self.model.find(path);
        assert_eq!(real, expected.map(drop), "setxattr {path}");
        if let Ok(node) = expected {
            self.model.nodes[node].xattrs.insert("user.n".into(), number.to_string());
        }
    }

    /// Compares the trees, and what is known of each object.
    fn check(&mut self) {
        let bed = self.bed.as_ref().unwrap();
        assert_eq!(bed.tree(), self.model.tree());
        let mut owners = HashMap::new();
        for (path, node) in &self.model.names {
            let attr = bed.attr(path).unwrap();
            let model = &mut self.model.nodes[*node];
            let ino = *model.ino.get_or_insert(attr.ino);
            assert_eq!(attr.ino, ino, "{path} has another number");
            assert_eq!(*owners.entry(ino).or_insert(*node), *node, "{path} has the number of something else");
            if model.sort != Sort::Dir {
                assert_eq!(attr.nlink, model.nlink, "links of {path}");
            }
        }
        for (file, node) in &self.handles {
            assert_eq!(bed.read_open(*file), self.model.nodes[*node].content, "an open file");
        }
    }

    fn reopen(&mut self) {
        let bed = self.bed.take().unwrap();
        for (file, _) in self.handles.drain(..) {
            bed.overlay.release(file).unwrap();
        }
        // A change of a lower hard link is in the index for its other names, and in no layer.
        if !has_links(self.seed) {
            assert_eq!(bed.tree_over_upper(), self.model.tree(), "with the upper as a lower layer");
        }
        self.bed = Some(bed.reopen());
        // Copies of symlinks carry no mark of where they came from.
        self.model.nodes.iter_mut().filter(|node| node.sort == Sort::Symlink).for_each(|node| node.ino = None);
        self.history.push("reopen".into());
    }
}

#[test]
fn random_operations_have_the_results_that_a_model_has() {
    for seed in seeds() {
        let mut run = Run::new(seed);
        run.check();
        for operation in 1..=OPERATIONS {
            run.step();
            if operation % 10 == 0 {
                run.check();
            }
            if run.random.one_in(40) {
                run.handles.drain(..).for_each(|(file, _)| run.bed.as_ref().unwrap().overlay.release(file).unwrap());
                run.bed().forget_all();
                run.history.push("forget".into());
            }
            if operation % 50 == 0 {
                run.reopen();
                run.check();
            }
        }
    }
}

/// What the kernel sees to before it asks: a directory is not changed, removed or replaced while another thread changes or
/// searches it, no two threads move things between directories, and none moves a directory below itself.
#[derive(Default)]
struct Order {
    dirs: [RwLock<()>; 32],
    moves: Mutex<()>,
}

impl Order {
    fn slot(ino: u64) -> usize {
        ino as usize % 32
    }

    fn dir(&self, ino: u64) -> &RwLock<()> {
        &self.dirs[Self::slot(ino)]
    }

    /// Keeps all others out of some directories.
    fn change(&self, dirs: &[u64]) -> Vec<RwLockWriteGuard<'_, ()>> {
        let slots: BTreeSet<usize> = dirs.iter().map(|dir| Self::slot(*dir)).collect();
        slots.into_iter().map(|slot| self.dirs[slot].write()).collect()
    }
}

/// A thread that works on a tree as the kernel would.
struct Worker<'b> {
    bed: &'b Bed,
    order: &'b Order,
    random: Random,
}

impl Worker<'_> {
    fn lookup(&self, dir: u64, name: &str) -> Result<Attr> {
        let _searched = self.order.dir(dir).read();
        self.bed.overlay.lookup(dir, name.as_bytes())?.ok_or(Error::new(Errno::NOENT, "look up"))
    }

    /// The directory of a path, and its last name.
    fn place<'p>(&self, path: &'p str) -> Result<(u64, &'p str)> {
        let (parents, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut dir = ROOT;
        for parent in parents.split('/').filter(|parent| !parent.is_empty()) {
            dir = self.lookup(dir, parent)?.ino;
        }
        Ok((dir, name))
    }

    /// The numbers of a directory and of those above it, as `..` tells.
    fn path_to(&self, mut dir: u64) -> Result<Vec<u64>> {
        let mut path = vec![dir];
        while dir != ROOT {
            let mut parent = dir;
            self.bed.overlay.read_dir(dir, 1, false, |entry| {
                parent = entry.ino;
                true
            })?;
            if parent == dir {
                return Err(Error::new(Errno::NOENT, "find a removed directory"));
            }
            if parent == dir {
                return Err(Error::new(Errno::NOENT, "find the parent of a removed directory"));
            }
            dir = if parent == self.bed.overlay.getattr(ROOT)?.ino { ROOT } else { parent };
            path.push(dir);
        }
        Ok(path)
    }

    fn node(&self, path: &str) -> Result<u64> {
        let (dir, name) = self.place(path)?;
        Ok(self.lookup(dir, name)?.ino)
    }

    fn rename(&self, path: &str, other: &str, flags: RenameFlags) -> Result<()> {
        let ((dir, name), (new_dir, new_name)) = (self.place(path)?, self.place(other)?);
        let _moves = (dir != new_dir).then(|| self.order.moves.lock());
        let (inode, target) = (self.lookup(dir, name)?.ino, self.lookup(new_dir, new_name).map_or(0, |attr| attr.ino));
        if dir != new_dir && (self.path_to(new_dir)?.contains(&inode) || self.path_to(dir)?.contains(&target)) {
            return Err(Error::new(Errno::INVAL, "move a directory below itself"));
        }
        let _changed = self.order.change(&[dir, new_dir, target]);
        if self.number_of(new_dir, new_name)? != target {
            return Err(Error::new(Errno::NOENT, "find what is to be replaced"));
        }
        self.bed.overlay.rename(dir, name.as_bytes(), new_dir, new_name.as_bytes(), flags)
    }

    fn rmdir(&self, path: &str) -> Result<()> {
        let (dir, name) = self.place(path)?;
        let inode = self.lookup(dir, name)?.ino;
        let _changed = self.order.change(&[dir, inode]);
        if self.number_of(dir, name)? != inode {
            return Err(Error::new(Errno::NOENT, "find what is to be removed"));
        }
        self.bed.overlay.rmdir(dir, name.as_bytes())
    }

    /// The number of what lies under a name of a directory from which others are kept out, or 0.
    fn number_of(&self, dir: u64, name: &str) -> Result<u64> {
        Ok(self.bed.overlay.lookup(dir, name.as_bytes())?.map_or(0, |attr| attr.ino))
    }

    fn step(&mut self) -> Result<()> {
        let (path, other) = (self.random.path(), self.random.path());
        let (overlay, choice) = (&self.bed.overlay, self.random.below(14));
        let changed = |dir| self.order.dir(dir).write();
        match choice {
            0 | 1 => {
                let (dir, name) = self.place(&path)?;
                let _changed = changed(dir);
                let (_, file) = overlay.create(dir, name.as_bytes(), 0o644, 0, OFlags::RDWR, us())?;
                overlay.release(file.file)
            }
            2 | 3 => {
                let (dir, name) = self.place(&path)?;
                let _changed = changed(dir);
                overlay.mkdir(dir, name.as_bytes(), 0o755, 0, us()).map(|_| ())
            }
            4 => {
                let (dir, name) = self.place(&path)?;
                let _changed = changed(dir);
                overlay.unlink(dir, name.as_bytes())
            }
            5 => self.rmdir(&path),
            6..9 => self.rename(&path, &other, if choice == 6 { RenameFlags::EXCHANGE } else { RenameFlags::empty() }),
            9 => {
                let ino = self.node(&path)?;
                let (dir, name) = self.place(&other)?;
                let _changed = changed(dir);
                overlay.link(ino, dir, name.as_bytes()).map(|_| ())
            }
            10 => {
                let set = SetAttr { mode: Some(0o755), ..SetAttr::default() };
                overlay.setattr(self.node(&path)?, &set, None, us()).map(|_| ())
            }
            11 => {
                let file = overlay.open_file(self.node(&path)?, OFlags::RDWR, us())?.file;
                let result = overlay.write(file, 0, b"+", true, us()).map(|_| ());
                overlay.release(file).unwrap();
                result
            }
            12 => {
                let ino = self.node(&path)?;
                let _searched = self.order.dir(ino).read();
                overlay.read_dir(ino, 0, true, |_| false)
            }
            _ => {
                let file = overlay.open_file(self.node(&path)?, OFlags::RDONLY, us())?.file;
                let result = overlay.read(file, 0, &mut [0; 16]).map(|_| ());
                overlay.release(file).unwrap();
                result
            }
        }
    }
}

#[test]
fn threads_in_one_tree_end_in_a_tree_that_lasts() {
    const THREADS: u64 = 4;
    // Whoever came first has taken what this one was to work on.
    const FINE: [Errno; 7] =
        [Errno::NOENT, Errno::EXIST, Errno::NOTDIR, Errno::ISDIR, Errno::NOTEMPTY, Errno::PERM, Errno::INVAL];
    for seed in seeds().step_by(2) {
        let bed = Bed::with(&["a/b/c=1 a/d=1 b/c/d=1 c=1", "a/b/e=2 b/a=2 d/e/a=2"], |config| {
            config.whiteouts = [None, Some(WhiteoutStyle::Xattr), Some(WhiteoutStyle::DotFile)][seed as usize % 3];
            if seed % 2 == 1 {
                config.cache = CacheSizes { attrs: 1, missing: 1, listings: 1, dirs: 1 };
            }
        });
        let order = Order::default();
        thread::scope(|scope| {
            for number in 0..THREADS {
                let random = Random::new(seed * THREADS + number + 1000);
                let mut worker = Worker { bed: &bed, order: &order, random };
                scope.spawn(move || {
                    for step in 0..300 {
                        if let Err(error) = worker.step() {
                            assert!(FINE.contains(&error.errno()), "seed {seed}, step {step}: {error}");
                        }
                    }
                });
            }
        });
        bed.check_lasting();
    }
}
