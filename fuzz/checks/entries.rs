//! Tar streams of any kind, unpacked: nothing is made but in the layer, and what was taken can be written again.

use std::fs::{self, File};
use std::os::fd::AsFd;

use plyfs::attr::{Kind, Time};
use plyfs::image::digest::Digest;
use plyfs::image::limits::Limits;
use plyfs::image::pack::{Member, Writer};
use plyfs::image::tar::entry::What;
use plyfs::image::tar::record::replay;
use plyfs::image::unpack::form::{Form, Owners};
use plyfs::image::unpack::{Failed, How, make_root, unpack};
use plyfs::layer::marks::Dialect;
use plyfs::layer::work::WhiteoutStyle;

const LIMITS: Limits = Limits { layer_bytes: 1 << 20, entries: 64, layers: 8, document: 1 << 16, paths: 4096 };
const NAMES: [&str; 16] = [
    "a",
    "b",
    "..",
    ".",
    "",
    "a/b",
    "a/../b",
    "/a",
    ".wh.a",
    ".wh..wh..opq",
    ".wh.",
    "a/.wh.b",
    "link",
    "link/x",
    "beside",
    "../beside",
];
const KINDS: [What; 8] = [
    What::Object(Kind::File),
    What::Object(Kind::Dir),
    What::Object(Kind::Symlink),
    What::Object(Kind::Fifo),
    What::Object(Kind::Char),
    What::HardLink,
    What::Object(Kind::Dir),
    What::Object(Kind::File),
];

/// The input as a stream (after a zero byte), or as entries that a stream is made of.
pub fn check(data: &[u8]) {
    match data.split_first() {
        Some((0, stream)) => assert_contained(&with_sums(stream)),
        Some((_, choices)) => assert_contained(&made_of(choices)),
        None => {}
    }
}

/// A stream whose headers have the right checksums, which hardly anybody guesses.
fn with_sums(stream: &[u8]) -> Vec<u8> {
    let mut stream = stream.to_vec();
    for block in stream.chunks_exact_mut(512) {
        if &block[257..262] == b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
    stream
}

/// Entries, each of eight bytes.
fn made_of(choices: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes);
    for choice in choices.as_chunks::<8>().0.iter().take(64) {
        let [kind, path, target, mode, size, xattr, value, holes] = *choice;
        let what = KINDS[usize::from(kind) % KINDS.len()];
        let is_file = what == What::Object(Kind::File);
        let size = if is_file { u64::from(size) } else { 0 };
        let xattrs = match xattr % 4 {
            0 => vec![],
            1 => vec![(b"user.x".to_vec(), vec![value; 3])],
            2 => vec![(b"user.overlay.redirect".to_vec(), b"/".to_vec())],
            _ => vec![(vec![xattr, b'=', value], vec![value])],
        };
        let pieces = [(u64::from(holes), size)];
        let member = Member {
            path: NAMES[usize::from(path) % NAMES.len()].as_bytes(),
            what,
            target: NAMES[usize::from(target) % NAMES.len()].as_bytes(),
            mode: u32::from(mode) << 3,
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            mtime: Time { sec: i64::from(value) - 10, nsec: u32::from(mode) },
            rdev: (u32::from(target), 0),
            xattrs: &xattrs,
            size: if is_file && holes > 0 { size + u64::from(holes) } else { size },
            pieces: (is_file && holes > 0).then_some(&pieces),
        };
        writer.begin(&member).unwrap();
        writer.data(&vec![value; usize::try_from(size).unwrap()]).unwrap();
    }
    writer.finish().unwrap();
    bytes
}

fn assert_contained(stream: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("beside"), "untouched").unwrap();
    let top = File::open(dir.path()).unwrap();
    let form = Form { owners: Owners::Real, dialect: Dialect::User, whiteouts: WhiteoutStyle::Xattr };
    for keep_all in [false, true] {
        let name = if keep_all { "again" } else { "root" };
        let root = make_root(top.as_fd(), name.as_bytes()).unwrap();
        let record = dir.path().join("record");
        let how = How { form, limits: LIMITS, skip_devices: true, keep_all };
        let result = unpack(&mut &stream[..], root, Some(File::create(&record).unwrap()), how);
        let names = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(names.into_iter().all(|name| ["again", "beside", "record", "root"].iter().any(|known| name == *known)));
        assert_eq!(fs::read_to_string(dir.path().join("beside")).unwrap(), "untouched");
        match result {
            Ok(unpacked) => {
                assert_eq!(unpacked.diff_id, Digest::of(stream));
                let mut written = Vec::new();
                let root = File::open(dir.path().join(name)).unwrap();
                replay(File::open(&record).unwrap(), root.as_fd(), &mut written).unwrap();
                assert_eq!(written, stream);
                return;
            }
            Err(Failed::Replaced) => assert!(!keep_all),
            Err(Failed::At(entry, reason)) => {
                assert!(!reason.is_empty() && !reason.contains('\n'), "{entry:?} {reason:?}");
                return;
            }
        }
    }
}
