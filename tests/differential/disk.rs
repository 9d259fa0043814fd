//! What an overlay has left on disk: the upper and the index, mark by mark.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use plyfs::layer::Layer;
use plyfs::layer::origin::Origin;

use super::case::Bytes;
use super::common::{Mounted, xattrs};
use super::shown::{LONG_AGO, is_whiteout};

/// What is there, by path.
pub type Disk = BTreeMap<Bytes, OnDisk>;

/// An entry of the upper or the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnDisk {
    /// What of it does not depend on what lies in it.
    pub lasting: String,
    /// The rest.
    rest: String,
    pub is_dir: bool,
    /// It has, or had below, more than one name.
    pub is_linked: bool,
}

/// What names a lower inode, in origin marks and in the index.
struct Lowers {
    layers: Vec<Layer>,
    names: BTreeMap<(u64, u64), String>,
}

impl Lowers {
    fn of(mounted: &Mounted, count: usize) -> Self {
        let mut names = BTreeMap::new();
        let mut layers = Vec::new();
        for number in 0..count {
            let root = mounted.lower(number, "");
            each_below(&root, &mut |path, meta| {
                let relative = Bytes(path.strip_prefix(&root).unwrap().as_os_str().as_bytes().to_vec());
                names.entry((device(meta), meta.ino())).or_insert_with(|| format!("layer {number} {relative}"));
            });
            layers.push(Layer::open_lower(&root).unwrap());
        }
        Self { layers, names }
    }

    /// The lower inode that an origin names.
    fn name(&self, origin: &[u8]) -> String {
        let found = Origin::decode(origin).and_then(|origin| origin.find(&self.layers));
        let name = found.and_then(|found| self.names.get(&(found.dev, found.ino)));
        name.cloned().unwrap_or_else(|| format!("unknown {}", origin.escape_ascii()))
    }
}

/// What is in the upper, and in the index, of an overlay with so many lower layers that is not mounted.
pub fn disk(mounted: &Mounted, lowers: usize, file_times_differ: bool) -> Disk {
    let lowers = Lowers::of(mounted, lowers);
    let mut disk = Disk::new();
    let upper = [Layer::open_upper(&mounted.upper("")).unwrap()];
    for (label, root) in [("upper", mounted.upper("")), ("index", mounted.beside("work/index"))] {
        // `work` may be a symlink.
        let Ok(root) = fs::canonicalize(root) else { continue };
        each_below(&root, &mut |path, meta| {
            let relative = path.strip_prefix(&root).unwrap().as_os_str().as_bytes();
            if label == "index" && relative.starts_with(b"#") {
                // The whiteout that all others are links of; plyfs has it in `work`, and removes it in the end.
                return;
            }
            let key = match label {
                "index" if !relative.is_empty() => {
                    format!("index of {}", lowers.name(&from_hex(relative))).into_bytes()
                }
                _ => [label.as_bytes(), b"/", relative].concat(),
            };
            if label == "index" && relative.is_empty() && xattrs(path).is_empty() {
                // It is there without being used.
                return;
            }
            disk.insert(Bytes(key), describe(path, meta, &lowers, &upper, file_times_differ));
        });
    }
    disk
}

/// The device of a file, as [`plyfs::attr::Attr`] has it.
fn device(meta: &fs::Metadata) -> u64 {
    u64::from(rustix::fs::major(meta.dev())) << 32 | u64::from(rustix::fs::minor(meta.dev()))
}

fn each_below(root: &Path, found: &mut impl FnMut(&Path, &fs::Metadata)) {
    let mut left: Vec<PathBuf> = vec![root.to_owned()];
    while let Some(path) = left.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        if meta.is_dir() {
            let mut entries: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).collect();
            entries.sort();
            left.extend(entries.into_iter().rev());
        }
        found(&path, &meta);
    }
}

fn describe(path: &Path, meta: &fs::Metadata, lowers: &Lowers, upper: &[Layer], file_times_differ: bool) -> OnDisk {
    let is_dir = meta.is_dir();
    let mut rest = String::new();
    if is_whiteout(path) {
        return OnDisk { lasting: "whiteout".to_owned(), rest, is_dir, is_linked: false };
    }
    let mut is_linked = !is_dir && meta.nlink() > 1;
    let mut text = format!("mode {:o}, owner {}:{}", meta.mode(), meta.uid(), meta.gid());
    if !meta.is_dir() {
        text += &format!(", {} links, {} bytes", meta.nlink(), meta.size());
    }
    if meta.is_file() && meta.size() > 0 && !has_data(path) {
        text += ", no data";
    }
    if meta.mtime() < LONG_AGO && !(meta.is_file() && file_times_differ) {
        rest += &format!(", modified {}", meta.mtime());
    }
    for (name, value) in xattrs(path) {
        // [SEMANTICS: An upper gets no UUID.]
        if name.ends_with(".overlay.uuid") {
            continue;
        }
        // [SEMANTICS: A directory that was marked impure stays so.]
        if name.ends_with(".overlay.impure") && !has_copies(path) {
            continue;
        }
        let is_this_upper = || Origin::decode(&value).and_then(|origin| origin.find(upper)).map(|found| found.ino);
        let value = match name.rsplit('.').next() {
            Some("origin") if name.ends_with(".overlay.origin") => lowers.name(&value),
            Some("upper") if is_this_upper() == Some(upper[0].attr.ino) => "this upper".to_owned(),
            _ => value.escape_ascii().to_string(),
        };
        is_linked |= name.ends_with(".overlay.nlink");
        *if name.ends_with(".overlay.impure") { &mut rest } else { &mut text } += &format!(", {name}={value}");
    }
    OnDisk { lasting: text, rest, is_dir, is_linked }
}

/// Whether an entry of a directory says where it was copied from.
fn has_copies(dir: &Path) -> bool {
    let is_copy = |path: PathBuf| xattrs(&path).iter().any(|(name, _)| name.ends_with(".overlay.origin"));
    fs::read_dir(dir).unwrap().any(|entry| is_copy(entry.unwrap().path()))
}

fn from_hex(name: &[u8]) -> Vec<u8> {
    let digit = |digit: u8| char::from(digit).to_digit(16).map(|digit| digit as u8);
    name.chunks(2).filter_map(|pair| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?)).collect()
}

/// Whether a file is not one hole.
fn has_data(path: &Path) -> bool {
    rustix::fs::seek(fs::File::open(path).unwrap(), rustix::fs::SeekFrom::Data(0)).is_ok()
}
