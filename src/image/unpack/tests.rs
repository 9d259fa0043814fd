//! Tar streams of all kinds, unpacked: what they become, and what they cannot do.
#![allow(clippy::arithmetic_side_effects)]

use std::fs as files;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::*;
use crate::image::tar::pax::Records;
use crate::layer::work::WhiteoutStyle;
use crate::sys::testing::root_or_skip;

/// A tar stream, entry by entry.
#[derive(Default)]
pub(crate) struct Stream(pub(crate) Vec<u8>);

impl Stream {
    pub(crate) fn entry(mut self, kind: u8, path: &str, target: &str, data: &[u8]) -> Self {
        let mut header = ::tar::Header::new_ustar();
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.as_mut_bytes()[157..157 + target.len()].copy_from_slice(target.as_bytes());
        header.set_mode(0o640);
        header.set_uid(rustix::process::geteuid().as_raw().into());
        header.set_gid(rustix::process::getegid().as_raw().into());
        header.set_mtime(1_000_000_000);
        header.set_size(data.len() as u64);
        header.set_entry_type(::tar::EntryType::new(kind));
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.data(data)
    }

    fn data(mut self, data: &[u8]) -> Self {
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn file(self, path: &str, data: &str) -> Self {
        self.entry(b'0', path, "", data.as_bytes())
    }

    pub(crate) fn dir(self, path: &str) -> Self {
        self.entry(b'5', path, "", b"")
    }

    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut pax = Records::default();
        for (key, value) in records {
            pax.set(*key, *value);
        }
        self.entry(b'x', "pax", "", &pax.to_bytes())
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

fn how() -> How {
    let form = Form { owners: Owners::Real, dialect: Dialect::User, whiteouts: WhiteoutStyle::Xattr };
    let limits = Limits { layer_bytes: 1 << 20, entries: 100, ..Limits::default() };
    How { form, limits, skip_devices: false, keep_all: false }
}

fn unpack_to(dir: &Path, stream: &[u8], how: How) -> Result<Unpacked, Failed> {
    let root = fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    unpack(&mut &stream[..], make_root(root.as_fd(), b"root").unwrap(), None, how)
}

/// Why the stream is refused; nothing may be made beside the layer.
fn refused(stream: Vec<u8>) -> String {
    let dir = tempfile::tempdir().unwrap();
    files::write(dir.path().join("beside"), "untouched").unwrap();
    let result = unpack_to(dir.path(), &stream, how());
    let mut names: Vec<_> = files::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["beside", "root"]);
    assert_eq!(files::read_to_string(dir.path().join("beside")).unwrap(), "untouched");
    match result {
        Err(Failed::At(entry, reason)) => format!("{}: {reason}", entry.unwrap_or_default()),
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn entries_become_what_they_say() {
    if !root_or_skip("entries with owners") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let stream = Stream::default()
        .dir("./")
        .dir("d/")
        .file("d/f", "data")
        .entry(b'1', "d/hard", "d/f", b"")
        .entry(b'2', "d/link", "../../anywhere", b"")
        .entry(b'6', "fifo", "", b"")
        .entry(b'g', "pax_global_header", "", b"18 comment=ignored\n")
        .file("implied/parents/f", "")
        .entry(b'0', "old-style-dir/", "", b"")
        .pax(&[("path", b"renamed"), ("mtime", b"12.25"), ("SCHILY.xattr.user.t", b"a\nb\0c")])
        .file("x", "long")
        .end();
    let unpacked = unpack_to(dir.path(), &stream, how()).unwrap();
    let root = dir.path().join("root");
    assert_eq!((unpacked.size, unpacked.has_root), (stream.len() as u64, true));
    assert_eq!(unpacked.diff_id, Digest::of(&stream));
    let meta = |path: &str| files::symlink_metadata(root.join(path)).unwrap();
    assert_eq!(files::read(root.join("d/f")).unwrap(), b"data");
    assert_eq!((meta("d/f").nlink(), meta("d/f").ino()), (2, meta("d/hard").ino()));
    assert_eq!((meta("d").permissions().mode() & 0o7777, meta("d").mtime()), (0o640, 1_000_000_000));
    assert_eq!(files::read_link(root.join("d/link")).unwrap(), Path::new("../../anywhere"));
    assert_eq!(meta("d/link").mtime(), 1_000_000_000);
    assert_eq!(meta("fifo").mode() & libc::S_IFMT, libc::S_IFIFO);
    assert_eq!(meta("implied/parents").permissions().mode() & 0o7777, 0o755);
    assert!(meta("old-style-dir").is_dir());
    assert_eq!((meta("renamed").mtime(), meta("renamed").mtime_nsec()), (12, 250_000_000));
    let fd = files::File::open(&root).unwrap();
    assert_eq!(At::new(&fd, b"renamed").xattr(b"user.t").unwrap().as_deref(), Some(&b"a\nb\0c"[..]));
}

#[test]
fn marks_become_those_of_an_overlay() {
    if !root_or_skip("marks of layers") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let stream = Stream::default()
        .file("a/.wh.gone", "")
        .file("b/.wh..wh..opq", "")
        .file(".wh..wh.plnk/1", "x")
        // Hidden below, and there again: in either order.
        .file("c/.wh.d1", "")
        .dir("c/d1")
        .dir("c/d2")
        .file("c/.wh.d2", "")
        .file("c/.wh.f1", "")
        .file("c/f1", "new")
        .file("c/f2", "new")
        .file("c/.wh.f2", "")
        .end();
    unpack_to(dir.path(), &stream, how()).unwrap();
    let root = files::File::open(dir.path().join("root")).unwrap();
    let xattr = |path: &str, name: &str| {
        let (parent, name_of) = beneath::split(path.as_bytes());
        let parent = beneath::open(root.as_fd(), parent, OFlags::PATH).unwrap();
        At::new(&parent, name_of).xattr(name.as_bytes()).unwrap()
    };
    let opaque = |path: &str| xattr(path, "user.overlay.opaque").as_deref() == Some(b"y");
    assert!(xattr("a/gone", "user.overlay.whiteout").is_some());
    assert_eq!(xattr("a", "user.overlay.opaque").as_deref(), Some(&b"x"[..]));
    assert!(opaque("b") && opaque("c/d1") && opaque("c/d2"));
    for file in ["c/f1", "c/f2"] {
        assert_eq!(files::read_to_string(dir.path().join("root").join(file)).unwrap(), "new");
    }
    assert!(!dir.path().join("root/.wh..wh.plnk").exists());
}

#[test]
fn nothing_leaves_the_layer() {
    let link = || Stream::default().entry(b'2', "link", "..", b"").entry(b'2', "abs", "/etc", b"");
    let cases = [
        (Stream::default().file("../beside", "x").end(), "../beside: a path that climbs (..)"),
        (Stream::default().file("a/../../beside", "x").end(), "a/../../beside: a path that climbs (..)"),
        (Stream::default().file("/beside", "x").end(), "/beside: an absolute path"),
        (link().file("link/beside", "x").end(), "link/beside: link is a symlink or no directory in this layer"),
        (link().file("abs/passwd", "x").end(), "abs/passwd: abs is a symlink or no directory"),
        (link().dir("link/d").end(), "link/d: link is a symlink"),
        (link().file("link/.wh.beside", "x").end(), "link/.wh.beside: link is a symlink"),
        (link().file("link/.wh..wh..opq", "x").end(), "link/.wh..wh..opq: link is a symlink"),
        (link().entry(b'1', "h", "link/beside", b"").end(), "h: a hard link through what is no directory"),
        (Stream::default().entry(b'1', "h", "../beside", b"").end(), "h: a hard link to a path that climbs"),
        (Stream::default().entry(b'1', "h", "/etc/passwd", b"").end(), "h: a hard link to an absolute path"),
        (Stream::default().entry(b'1', "h", "beside", b"").end(), "h: a hard link to a file that the layer does not"),
        (Stream::default().dir("d").entry(b'1', "h", "d", b"").end(), "h: a hard link to what is no file"),
        (Stream::default().entry(b'1', "h", "h", b"").end(), "h: a hard link to itself"),
        (Stream::default().pax(&[("path", b"../../beside")]).file("x", "x").end(), "../../beside: a path that climbs"),
    ];
    for (stream, expected) in cases {
        let line = refused(stream);
        assert!(line.starts_with(expected), "{line:?} instead of {expected:?}");
    }
}

#[test]
fn broken_streams_are_refused() {
    let file = |data: &str| Stream::default().file("f", data);
    let mut lies = file("x").0;
    lies[124..135].copy_from_slice(b"77777777777");
    let mut wrong_sum = file("x").0;
    wrong_sum[0] = b'g';
    let truncated = file("some data").0[..515].to_vec();
    let cases = [
        (wrong_sum, "wrong checksum"),
        (lies, "wrong checksum"),
        (truncated, "f: the archive ends in the middle of an entry"),
        (Stream::default().entry(b'Z', "z", "", b"").end(), "unknown type 'Z'"),
        (Stream::default().pax(&[("size", b"99999999999999")]).file("f", "").end(), "--max-layer-size"),
        (Stream::default().pax(&[("size", b"18446744073709551615")]).file("f", "").end(), "--max-layer-size"),
        (Stream::default().pax(&[("size", b"-1")]).file("f", "").end(), "size is not a number"),
        (Stream::default().pax(&[("uid", b"4294967295")]).file("f", "").end(), "no such id"),
        (Stream::default().pax(&[("mtime", b"soon")]).file("f", "").end(), "a time that is none"),
        (Stream::default().pax(&[("a", b"b")]).0, "an extended header without an entry"),
        (Stream::default().pax(&[("a", b"b")]).pax(&[("a", b"b")]).file("f", "").end(), "two extended headers"),
        (Stream::default().file(".wh.", "").end(), ".wh.: a whiteout of no name"),
        (Stream::default().file("d/.wh...", "").end(), "d/.wh...: a whiteout of no name"),
        (Stream::default().file(".wh.x/y", "").end(), ".wh.x/y: it lies in a whiteout"),
        (Stream::default().entry(b'3', "null", "", b"").end(), "null: a device that would be a whiteout (0, 0)"),
        (Stream::default().entry(b'2', "s", "", b"").end(), "s: a symlink to nothing"),
        (Stream::default().file("f", &"x".repeat(2 << 20)).end(), "--max-layer-size"),
        (
            (0..101).fold(Stream::default(), |stream, n| stream.file(&format!("f{n}"), "")).end(),
            "more than 100 entries",
        ),
    ];
    for (stream, expected) in cases {
        let line = refused(stream);
        assert!(line.contains(expected), "{line:?} without {expected:?}");
    }
}

#[test]
fn holes_stay_holes_and_cannot_lie() {
    if !root_or_skip("sparse entries") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let header = |size: &'static [u8]| {
        let records: [(&str, &[u8]); 4] = [
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"sparse"),
            ("GNU.sparse.realsize", size),
        ];
        Stream::default().pax(&records)
    };
    let mut data = b"2\n4096\n5\n1000000\n0\n".to_vec();
    data.resize(512, 0);
    data.extend_from_slice(b"hello");
    let unpacked =
        unpack_to(dir.path(), &header(b"1000000").entry(b'0', "GNUSparseFile.0/sparse", "", &data).end(), how());
    unpacked.unwrap();
    let meta = files::metadata(dir.path().join("root/sparse")).unwrap();
    assert_eq!(meta.len(), 1_000_000);
    assert!(meta.blocks() < 100, "{} blocks", meta.blocks());
    assert_eq!(&files::read(dir.path().join("root/sparse")).unwrap()[4096..4102], b"hello\0");
    for (size, expected) in [
        (&b"9000000000000000000"[..], "--max-layer-size"),
        (b"100", "a size that its holes do not fit"),
        (b"x", "GNU.sparse.realsize is not a number"),
    ] {
        let line = refused(header(size).entry(b'0', "s", "", &data).end());
        assert!(line.contains(expected), "{line:?} without {expected:?}");
    }
    let line = refused(header(b"1000000").entry(b'0', "s", "", b"1\n").end());
    assert!(line.contains("holes that make no sense"), "{line:?}");
}

#[test]
fn marks_of_overlays_are_not_taken_from_an_image() {
    if !root_or_skip("marks in images") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let marks: &[(&str, &[u8])] = &[
        ("SCHILY.xattr.user.overlay.redirect", b"/etc"),
        ("SCHILY.xattr.user.overlay.opaque", b"y"),
        ("SCHILY.xattr.trusted.overlay.metacopy", b""),
        ("SCHILY.xattr.user.containers.override_stat", b"0:0:0777"),
    ];
    let unpacked = unpack_to(dir.path(), &Stream::default().pax(marks).dir("d").end(), how()).unwrap();
    assert_eq!(unpacked.notes.len(), 4);
    let root = files::File::open(dir.path().join("root")).unwrap();
    assert_eq!(At::new(&root, b"d").xattr_names().unwrap(), b"");
    // However many there are, no more are told than anyone would read.
    let many = (0..300).fold(Stream::default(), |stream, n| {
        stream.pax(&[(&format!("SCHILY.xattr.user.overlay.{n}"), &b"x"[..])]).file(&format!("f{n}"), "")
    });
    let limits = Limits { entries: 1000, ..how().limits };
    let dir = tempfile::tempdir().unwrap();
    let unpacked = unpack_to(dir.path(), &many.end(), How { limits, ..how() }).unwrap();
    assert_eq!((unpacked.notes.len(), unpacked.notes.contains(&"and more".to_owned())), (101, true));
}

#[test]
fn what_replaces_data_asks_for_a_record_of_all() {
    if !root_or_skip("entries that replace others") {
        return;
    }
    let stream =
        Stream::default().file("f", "one").file("f", "two").dir("d").file("d/x", "").file("d", "now a file").end();
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(unpack_to(dir.path(), &stream, how()), Err(Failed::Replaced));
    let dir = tempfile::tempdir().unwrap();
    unpack_to(dir.path(), &stream, How { keep_all: true, ..how() }).unwrap();
    assert_eq!(files::read_to_string(dir.path().join("root/f")).unwrap(), "two");
    assert_eq!(files::read_to_string(dir.path().join("root/d")).unwrap(), "now a file");
}
