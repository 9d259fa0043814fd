//! Data: reads, writes, holes and ranges.

use rustix::fs::OFlags;

use super::Bed;
use super::bed::{errno, us};
use crate::config::Config;
use crate::error::Errno;
use crate::ops::SetAttr;

#[test]
fn reads_end_at_the_end_of_the_file() {
    let bed = Bed::new(&["f=0123456789"]);
    let file = bed.open_file("f", OFlags::RDONLY).unwrap();
    let mut buffer = [0; 8];
    for (offset, expected) in [(0, "01234567"), (5, "56789"), (10, ""), (1000, ""), (i64::MAX as u64 - 8, "")] {
        let read = bed.overlay.read(file, offset, &mut buffer).unwrap();
        assert_eq!(&buffer[..read], expected.as_bytes(), "at {offset}");
    }
    assert_eq!(bed.overlay.read(file, 0, &mut []).unwrap(), 0);
    assert_eq!(errno(bed.overlay.read(file, u64::MAX - 3, &mut buffer)), Errno::INVAL);
    bed.overlay.release(file).unwrap();
}

#[test]
fn writes_land_where_they_say_and_beyond_the_end_leave_a_hole() {
    let bed = Bed::new(&["f=0123456789"]);
    let file = bed.open_file("f", OFlags::RDWR).unwrap();
    bed.overlay.write(file, 2, b"ab", true, us()).unwrap();
    bed.overlay.write(file, 12, b"end", true, us()).unwrap();
    assert_eq!(bed.read_open(file), "01ab456789\\x00\\x00end");
    assert_eq!(bed.attr("f").unwrap().size, 15);
    assert_eq!(bed.overlay.write(file, 0, b"", true, us()).unwrap(), 0);
    assert_eq!(errno(bed.overlay.write(file, u64::MAX - 3, b"x", true, us())), Errno::INVAL);
    bed.overlay.release(file).unwrap();
    bed.check_lasting();
}

#[test]
fn a_file_is_made_longer_and_shorter() {
    let bed = Bed::new(&["f=0123456789"]);
    assert_eq!(bed.truncate("f", 4).unwrap().size, 4);
    assert_eq!(bed.truncate("f", 6).unwrap().size, 6);
    assert_eq!(bed.read("f"), "0123\\x00\\x00");
    assert_eq!(bed.truncate("f", 0).unwrap().size, 0);
    let file = bed.open_file("f", OFlags::RDWR).unwrap();
    let set = SetAttr { size: Some(3), ..SetAttr::default() };
    assert_eq!(bed.overlay.setattr(bed.ino("f"), &set, Some(file), us()).unwrap().size, 3);
    // One that may only read is not used for it.
    let reader = bed.open_file("f", OFlags::RDONLY).unwrap();
    let set = SetAttr { size: Some(5), ..SetAttr::default() };
    assert_eq!(bed.overlay.setattr(bed.ino("f"), &set, Some(reader), us()).unwrap().size, 5);
    bed.overlay.release(file).unwrap();
    bed.overlay.release(reader).unwrap();
}

#[test]
fn a_file_that_may_not_be_read_or_written_by_its_mode_is_truncated_by_the_overlay_for_who_may() {
    let bed = Bed::new(&["f=content f%600"]);
    bed.truncate("f", 2).unwrap();
    assert_eq!(bed.read("f"), "co");
}

#[test]
fn ranges_are_reserved_punched_and_zeroed() {
    const KEEP: u32 = 1;
    const PUNCH: u32 = 2;
    let bed = Bed::new(&["f=0123456789"]);
    let file = bed.open_file("f", OFlags::RDWR).unwrap();
    bed.overlay.fallocate(file, 0, 20, KEEP, us()).unwrap();
    assert_eq!(bed.attr("f").unwrap().size, 10);
    bed.overlay.fallocate(file, 0, 12, 0, us()).unwrap();
    assert_eq!(bed.attr("f").unwrap().size, 12);
    bed.overlay.fallocate(file, 2, 3, KEEP | PUNCH, us()).unwrap();
    assert_eq!(bed.read_open(file), "01\\x00\\x00\\x0056789\\x00\\x00");
    bed.overlay.release(file).unwrap();
    let reader = bed.open_file("f", OFlags::RDONLY).unwrap();
    assert_eq!(errno(bed.overlay.fallocate(reader, 0, 1, 0, us())), Errno::BADF);
    bed.overlay.release(reader).unwrap();
}

#[test]
fn holes_and_data_are_found() {
    let bed = Bed::with(&["f="], |config| {
        use std::os::unix::fs::FileExt;
        let file = std::fs::File::options().write(true).open(config.lowers[0].join("f")).unwrap();
        file.write_all_at(&[1; 4096], 1 << 20).unwrap();
        file.set_len(2 << 20).unwrap();
    });
    for round in ["lower", "upper"] {
        let file = bed.open_file("f", OFlags::RDONLY).unwrap();
        assert_eq!(bed.overlay.seek(file, 0, false).unwrap(), 1 << 20, "{round}");
        assert_eq!(bed.overlay.seek(file, 0, true).unwrap(), 0);
        assert_eq!(bed.overlay.seek(file, 1 << 20, true).unwrap(), (1 << 20) + 4096);
        assert_eq!(errno(bed.overlay.seek(file, (1 << 20) + 4096, false)), Errno::NXIO);
        assert_eq!(errno(bed.overlay.seek(file, 5 << 20, true)), Errno::NXIO);
        bed.overlay.release(file).unwrap();
        bed.chmod("f", 0o600).unwrap();
    }
}

#[test]
fn ranges_are_copied_between_layers() {
    let bed = Bed::new(&["from=0123456789 to=ABCDEFGHIJ"]);
    let (from, to) = (bed.open_file("from", OFlags::RDONLY).unwrap(), bed.open_file("to", OFlags::RDWR).unwrap());
    assert_eq!(bed.overlay.copy_range(from, 2, to, 4, 3, us()).unwrap(), 3);
    assert_eq!(bed.read("to"), "ABCD234HIJ");
    assert_eq!(bed.overlay.copy_range(from, 8, to, 9, 100, us()).unwrap(), 2);
    assert_eq!((bed.read("to").as_str(), bed.attr("to").unwrap().size), ("ABCD234HI89", 11));
    assert_eq!(errno(bed.overlay.copy_range(to, 0, from, 0, 3, us())), Errno::BADF);
    bed.overlay.release(from).unwrap();
    bed.overlay.release(to).unwrap();
}

#[test]
fn syncing_works_on_both_layers_and_is_left_out_where_asked() {
    let ways: [fn(&mut Config); 3] =
        [|config| config.fsync = true, |config| config.fsync = false, |config| config.volatile = true];
    for adapt in ways {
        let bed = Bed::with(&["d/f=x"], adapt);
        for flags in [OFlags::RDONLY, OFlags::RDWR] {
            let file = bed.open_file("d/f", flags).unwrap();
            bed.overlay.fsync(file, false).unwrap();
            bed.overlay.fsync(file, true).unwrap();
            bed.overlay.fsync_dir(bed.ino("d")).unwrap();
            bed.overlay.release(file).unwrap();
        }
        bed.overlay.fsync_dir(bed.ino("")).unwrap();
        bed.finish();
    }
}

#[test]
fn writing_moves_the_times_and_reading_does_not_move_those_of_a_lower_file() {
    use std::os::unix::fs::MetadataExt;
    let bed = Bed::new(&["f=content g=content"]);
    let before = bed.attr("f").unwrap();
    bed.append("f", "+").unwrap();
    let after = bed.attr("f").unwrap();
    assert!(after.mtime > before.mtime && after.ctime > before.ctime);
    let atime = |bed: &Bed| {
        let meta = std::fs::metadata(bed.path("lower0/g")).unwrap();
        (meta.atime(), meta.atime_nsec())
    };
    let before = atime(&bed);
    bed.read("g");
    assert_eq!(atime(&bed), before);
}

#[test]
fn big_files_are_copied_up_whole_and_read_in_any_place() {
    const SIZE: usize = 3 << 20;
    let content: Vec<u8> = (0..SIZE).map(|n| (n / 7 % 251) as u8).collect();
    let bed = Bed::with(&["big="], |config| std::fs::write(config.lowers[0].join("big"), &content).unwrap());
    let reader = bed.open_file("big", OFlags::RDONLY).unwrap();
    let check = |bed: &Bed| {
        let mut buffer = vec![0; 100_000];
        for offset in [0, 1, 4095, 1 << 20, SIZE - 50_000] {
            let read = bed.overlay.read(reader, offset as u64, &mut buffer).unwrap();
            assert!(buffer[..read] == content[offset..offset + read], "at {offset}");
            assert_eq!(read, buffer.len().min(SIZE - offset));
        }
    };
    check(&bed);
    bed.chmod("big", 0o600).unwrap();
    check(&bed);
    bed.overlay.release(reader).unwrap();
    assert!(std::fs::read(bed.path("upper/big")).unwrap() == content);
}
