//! Reading and writing file data.

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use rustix::fs::{FallocateFlags, OFlags};
use rustix::io::Errno;

use crate::common::*;

fn read_at(file: &fs::File, len: usize) -> String {
    let mut buffer = vec![0; len];
    let read = file.read_at(&mut buffer, 0).unwrap();
    buffer.truncate(read);
    String::from_utf8(buffer).unwrap()
}

#[test]
fn append_through_a_second_descriptor_never_writes_the_lower_layer() {
    let tree = mount!(Setup::new().lower(|l| l.file("f", "lower\n")));
    let reader = open(tree.path("f"), OFlags::RDONLY).unwrap();
    assert_eq!(read_at(&reader, 100), "lower\n");
    for round in 0..3 {
        let mut writer = open(tree.path("f"), OFlags::WRONLY | OFlags::APPEND).unwrap();
        writeln!(writer, "appended {round}").unwrap();
        assert_eq!(fs::read(tree.lower(0, "f")).unwrap(), b"lower\n");
    }
    assert_eq!(tree.read("f"), "lower\nappended 0\nappended 1\nappended 2\n");
    drop(reader);
    assert_eq!(fs::read(tree.upper("f")).unwrap().len(), 6 + 3 * 11);
    assert_eq!(fs::read(tree.lower(0, "f")).unwrap(), b"lower\n");
}

#[test]
fn mapped_reader_and_a_second_writer_never_write_the_lower_layer() {
    let tree = mount!(Setup::new().lower(|l| l.file("f", "x".repeat(8192))));
    let reader = open(tree.path("f"), OFlags::RDONLY).unwrap();
    let mapping = Mapping::new(&reader, 8192, false);
    assert_eq!(mapping.read()[0], b'x');
    let writer = open(tree.path("f"), OFlags::RDWR).unwrap();
    let writable = Mapping::new(&writer, 8192, true);
    writable.write(100, b"changed");
    writable.sync();
    writer.write_all_at(b"written", 5000).unwrap();
    assert_eq!(fs::read(tree.lower(0, "f")).unwrap(), "x".repeat(8192).into_bytes());
    assert_eq!(&fs::read(tree.path("f")).unwrap()[100..107], b"changed");
    assert_eq!(&fs::read(tree.upper("f")).unwrap()[5000..5007], b"written");
}

#[test]
fn reader_opened_before_copy_up_sees_new_data() {
    plyfs_only!("the kernel's reader goes on with the lower file");
    let tree = mount!(Setup::new().lower(|l| l.file("f", "0123456789")));
    let reader = open(tree.path("f"), OFlags::RDONLY).unwrap();
    assert_eq!(read_at(&reader, 10), "0123456789");
    open(tree.path("f"), OFlags::WRONLY).unwrap().write_all_at(b"ABC", 0).unwrap();
    assert_eq!(read_at(&reader, 10), "ABC3456789");
    tree.append("f", "!");
    assert_eq!(read_at(&reader, 20), "ABC3456789!");
    fs::write(tree.path("f"), "short").unwrap();
    assert_eq!(read_at(&reader, 20), "short");
    assert_eq!(fstat(&reader).st_size, 5);
}

#[test]
fn mapping_made_before_copy_up_sees_new_data() {
    plyfs_only!("the kernel's mapping goes on with the lower file");
    let tree = mount!(Setup::new().lower(|l| l.file("f", "x".repeat(3 * 4096))));
    let reader = open(tree.path("f"), OFlags::RDONLY).unwrap();
    let mapping = Mapping::new(&reader, 3 * 4096, false);
    // The first page is mapped already, the last is not.
    assert_eq!(mapping.read()[..4096], *"x".repeat(4096).as_bytes());
    let writer = open(tree.path("f"), OFlags::RDWR).unwrap();
    writer.write_all_at(b"ABC", 0).unwrap();
    writer.write_all_at(b"DEF", 8192).unwrap();
    assert_eq!(&mapping.read()[..4], b"ABCx");
    assert_eq!(&mapping.read()[8192..8196], b"DEFx");
    let second = Mapping::new(&writer, 3 * 4096, true);
    second.write(4096, b"GHI");
    assert_eq!(&mapping.read()[4096..4100], b"GHIx");
}

#[test]
fn writer_sees_its_own_data_and_others_see_it_too() {
    let tree = mount!(Setup::new().lower(|l| l.file("f", "0123456789")));
    let writer = open(tree.path("f"), OFlags::RDWR).unwrap();
    let reader = open(tree.path("f"), OFlags::RDONLY).unwrap();
    writer.write_all_at(b"AB", 3).unwrap();
    assert_eq!(read_at(&writer, 10), "012AB56789");
    assert_eq!(read_at(&reader, 10), "012AB56789");
    writer.set_len(4).unwrap();
    assert_eq!(read_at(&reader, 10), "012A");
    assert_eq!(fstat(&reader).st_size, 4);
}

#[test]
fn overwrite_with_truncation_does_not_show_old_data() {
    let tree = mount!(Setup::new().lower(|l| l.file("f", "old content that is long")));
    drop(open(tree.path("f"), OFlags::WRONLY | OFlags::TRUNC).unwrap());
    assert_eq!(tree.stat("f").st_size, 0);
    fs::write(tree.path("f"), "new").unwrap();
    assert_eq!(tree.read("f"), "new");
    assert_eq!(fs::read(tree.lower(0, "f")).unwrap(), b"old content that is long");
}

#[test]
fn opening_for_reading_copies_nothing_up_and_opening_for_writing_does() {
    let tree = mount!(Setup::new().lower(|l| l.file("f", "x").file("g", "x")));
    assert_eq!(tree.read("f"), "x");
    tree.list("");
    assert!(fs::read_dir(tree.upper("")).unwrap().next().is_none());
    drop(open(tree.path("g"), OFlags::RDWR).unwrap());
    assert_eq!(fs::read(tree.upper("g")).unwrap(), b"x");
}

#[test]
fn appends_of_two_descriptors_do_not_overwrite_each_other() {
    let tree = mount!(Setup::new().lower(|l| l.file("f", "")));
    let mut files: Vec<_> = (0..2).map(|_| open(tree.path("f"), OFlags::WRONLY | OFlags::APPEND).unwrap()).collect();
    for number in 0..100 {
        writeln!(files[number % 2], "line {number}").unwrap();
    }
    let lines: Vec<_> = tree.read("f").lines().map(str::to_owned).collect();
    assert_eq!(lines, (0..100).map(|number| format!("line {number}")).collect::<Vec<_>>());
}

#[test]
fn appends_of_two_processes_do_not_overwrite_each_other() {
    let tree = mount!(Setup::new().lower(|l| l.file("f", "")));
    let path = tree.path("f");
    let script = "i=0; while [ $i -lt 200 ]; do echo \"$1 $i\" >> \"$0\"; i=$((i+1)); done";
    std::thread::scope(|scope| {
        for name in ["a", "b"] {
            let path = &path;
            scope.spawn(move || run(std::process::Command::new("sh").arg("-c").arg(script).arg(path).arg(name)));
        }
    });
    let text = tree.read("f");
    for name in ["a", "b"] {
        for number in 0..200 {
            assert!(text.lines().any(|line| line == format!("{name} {number}")), "{name} {number}");
        }
    }
}

#[test]
fn holes_are_kept_on_copy_up() {
    const MIB: u64 = 1 << 20;
    let tree = mount!(Setup::new().lower(|l| {
        let file = fs::File::create(l.path("f")).unwrap();
        file.set_len(64 * MIB).unwrap();
        file.write_all_at(b"start", 0).unwrap();
        file.write_all_at(b"middle", 32 * MIB).unwrap();
        l
    }));
    tree.append("f", "end");
    let upper = lstat(tree.upper("f")).unwrap();
    assert_eq!(upper.st_size as u64, 64 * MIB + 3);
    assert!(upper.st_blocks < 16384, "{} blocks", upper.st_blocks);
    let file = open(tree.path("f"), OFlags::RDONLY).unwrap();
    assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(MIB)), Ok(32 * MIB));
    assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(0)).unwrap() % 4096, 0);
    assert!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(0)).unwrap() <= MIB);
    assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(65 * MIB)), Err(Errno::NXIO));
    let mut buffer = [0; 6];
    file.read_exact_at(&mut buffer, 32 * MIB).unwrap();
    assert_eq!(&buffer, b"middle");
    assert!(tree.stat("f").st_blocks < 16384);
}

#[test]
fn big_sparse_file_is_copied_up_and_written_beyond_4_gib() {
    const GIB: u64 = 1 << 30;
    let tree = mount!(Setup::new().lower(|l| {
        let file = fs::File::create(l.path("f")).unwrap();
        file.set_len(6 * GIB).unwrap();
        file.write_all_at(b"there", 5 * GIB).unwrap();
        l
    }));
    let file = open(tree.path("f"), OFlags::RDWR).unwrap();
    file.write_all_at(b"written", 4 * GIB + 1).unwrap();
    let mut buffer = [0; 7];
    file.read_exact_at(&mut buffer, 4 * GIB + 1).unwrap();
    assert_eq!(&buffer, b"written");
    file.read_exact_at(&mut buffer[..5], 5 * GIB).unwrap();
    assert_eq!(&buffer[..5], b"there");
    assert_eq!(tree.stat("f").st_size as u64, 6 * GIB);
    assert!(lstat(tree.upper("f")).unwrap().st_blocks < 16384);
}

#[test]
fn fallocate_extends_keeps_and_punches() {
    let tree = mount!(Setup::new().lower(|l| l.file("f", "x".repeat(20_000))));
    let file = open(tree.path("f"), OFlags::RDWR).unwrap();
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 40_000).unwrap();
    assert_eq!(fstat(&file).st_size, 40_000);
    rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, 0, 80_000).unwrap();
    assert_eq!(fstat(&file).st_size, 40_000);
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&file, punch, 4096, 8192).unwrap();
    let content = fs::read(tree.path("f")).unwrap();
    assert!(content[..4096].iter().all(|byte| *byte == b'x'));
    assert!(content[4096..12288].iter().all(|byte| *byte == 0));
    assert!(content[12288..20_000].iter().all(|byte| *byte == b'x'));
    assert!(content[20_000..].iter().all(|byte| *byte == 0));
    assert_eq!(content.len(), 40_000);
    let reader = open(tree.path("f"), OFlags::RDONLY).unwrap();
    assert_eq!(rustix::fs::fallocate(&reader, FallocateFlags::empty(), 0, 1), Err(Errno::BADF));
    assert_eq!(rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 0), Err(Errno::INVAL));
}

#[test]
fn fallocate_zeroes_a_range() {
    let tree = mount!(Setup::new().lower(|l| l.file("f", "x".repeat(20_000))));
    let file = open(tree.path("f"), OFlags::RDWR).unwrap();
    match rustix::fs::fallocate(&file, FallocateFlags::ZERO_RANGE, 1000, 10_000) {
        Err(Errno::OPNOTSUPP) => return,
        result => result.unwrap(),
    }
    let content = fs::read(tree.path("f")).unwrap();
    assert!(content[1000..11_000].iter().all(|byte| *byte == 0));
    assert_eq!(content.iter().filter(|byte| **byte == b'x').count(), 10_000);
}

#[test]
fn copy_file_range_copies_between_layers() {
    let tree = mount!(Setup::new().lower(|l| l.file("from", "0123456789").file("to", "----------")));
    let (from, to) = (open(tree.path("from"), OFlags::RDONLY).unwrap(), open(tree.path("to"), OFlags::RDWR).unwrap());
    let (mut from_offset, mut to_offset) = (2, 5);
    let copied = rustix::fs::copy_file_range(&from, Some(&mut from_offset), &to, Some(&mut to_offset), 4).unwrap();
    assert_eq!((copied, from_offset, to_offset), (4, 6, 9));
    assert_eq!(tree.read("to"), "-----2345-");
    fs::copy(tree.path("from"), tree.path("new")).unwrap();
    assert_eq!(tree.read("new"), "0123456789");
    assert_eq!(fs::read(tree.lower(0, "to")).unwrap(), b"----------");
}

#[test]
fn copy_file_range_copies_between_filesystems() {
    let tree =
        mount!(Setup::new().lower(|l| l.file("to", "----------")).lower_elsewhere(|l| l.file("from", "0123456789")));
    let (from, to) = (open(tree.path("from"), OFlags::RDONLY).unwrap(), open(tree.path("to"), OFlags::RDWR).unwrap());
    let copied = rustix::fs::copy_file_range(&from, Some(&mut 2), &to, Some(&mut 5), 4);
    // Who gets that from the kernel's overlayfs has to copy by himself.
    let is_kernel = Backend::chosen() == Backend::Kernel;
    assert_eq!(copied, if is_kernel { Err(Errno::XDEV) } else { Ok(4) });
    assert_eq!(tree.read("to"), if is_kernel { "----------" } else { "-----2345-" });
}

#[test]
fn copy_file_range_within_one_file() {
    let tree = mount!(Setup::new().lower(|l| l.file("f", "0123456789")));
    let file = open(tree.path("f"), OFlags::RDWR).unwrap();
    let (mut from, mut to) = (0, 10);
    assert_eq!(rustix::fs::copy_file_range(&file, Some(&mut from), &file, Some(&mut to), 10), Ok(10));
    assert_eq!(tree.read("f"), "01234567890123456789");
}

#[test]
fn sendfile_and_splice_read_lower_and_upper_files() {
    let tree = mount!(Setup::new().lower(|l| l.file("lower", "x".repeat(100_000))));
    tree.write("upper", "y".repeat(100_000));
    for name in ["lower", "upper"] {
        let from = open(tree.path(name), OFlags::RDONLY).unwrap();
        let to = open(tree.path(format!("{name}-copy")), OFlags::CREATE | OFlags::WRONLY).unwrap();
        let mut left = 100_000;
        while left > 0 {
            let sent = rustix::fs::sendfile(&to, &from, None, left).unwrap();
            assert_ne!(sent, 0);
            left -= sent;
        }
        assert_eq!(tree.read(name), tree.read(format!("{name}-copy")));
    }
}

#[test]
fn direct_io_reads_and_writes() {
    #[repr(align(4096))]
    struct Page([u8; 4096]);
    let tree = mount!(Setup::new().lower(|l| l.file("f", "x".repeat(8192))));
    let direct =
        |access| fs::OpenOptions::new().read(true).write(access).custom_flags(libc::O_DIRECT).open(tree.path("f"));
    let Ok(reader) = direct(false) else {
        skip!("no direct reads here");
    };
    let mut page = Page([0; 4096]);
    reader.read_exact_at(&mut page.0, 4096).unwrap();
    assert_eq!(page.0, [b'x'; 4096]);
    let writer = direct(true).unwrap();
    writer.write_all_at(&Page([b'y'; 4096]).0, 4096).unwrap();
    writer.read_exact_at(&mut page.0, 4096).unwrap();
    assert_eq!(page.0, [b'y'; 4096]);
    let content = fs::read(tree.path("f")).unwrap();
    assert_eq!((content[4095], content[4096], content.len()), (b'x', b'y', 8192));
    writer.set_len(4096).unwrap();
    assert_eq!(tree.stat("f").st_size, 4096);
}

#[test]
fn shared_mapping_writes_move_mtime_and_ctime() {
    let tree = mount!(Setup::new().lower(|l| l.file("f", "x".repeat(4096)).time("f", 1_000_000_000, 0)));
    let file = open(tree.path("f"), OFlags::RDWR).unwrap();
    let mapping = Mapping::new(&file, 4096, true);
    let before = tree.stat("f");
    assert_eq!(before.st_mtime, 1_000_000_000);
    wait_until("the clock of the filesystem moves on", || {
        tree.write("clock", "");
        let now = tree.stat("clock");
        (now.st_ctime, now.st_ctime_nsec) != (before.st_ctime, before.st_ctime_nsec)
    });
    mapping.write(10, b"written");
    mapping.sync();
    let after = tree.stat("f");
    assert_ne!(after.st_mtime, 1_000_000_000);
    assert_ne!((after.st_ctime, after.st_ctime_nsec), (before.st_ctime, before.st_ctime_nsec));
    drop(mapping);
    assert_eq!(&fs::read(tree.path("f")).unwrap()[10..17], b"written");
}

#[test]
fn private_mapping_is_written_without_changing_the_file() {
    let tree = mount!(Setup::new().lower(|l| l.file("f", "content")));
    let file = open(tree.path("f"), OFlags::RDONLY).unwrap();
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    use std::os::fd::AsRawFd;
    let address = unsafe { libc::mmap(std::ptr::null_mut(), 7, protection, libc::MAP_PRIVATE, file.as_raw_fd(), 0) };
    assert_ne!(address, libc::MAP_FAILED);
    unsafe { address.cast::<u8>().write_volatile(b'C') };
    assert_eq!(tree.read("f"), "content");
    unsafe { libc::munmap(address, 7) };
}

#[test]
fn executables_run() {
    let tree = mount!(Setup::new().lower(|l| {
        fs::copy("/bin/cat", l.path("cat")).unwrap();
        l.file("script", "#!/bin/sh\necho \"$1\"\n").mode("script", 0o755).file("plain", "x")
    }));
    assert_eq!(run(std::process::Command::new(tree.path("cat")).arg(tree.path("plain"))), "x");
    assert_eq!(run(std::process::Command::new(tree.path("script")).arg("hello")), "hello\n");
    assert_eq!(errno(std::process::Command::new(tree.path("plain")).output()), Errno::ACCESS);
    let program = fs::read(tree.path("cat")).unwrap();
    tree.write("copy", program);
    rustix::fs::chmod(tree.path("copy"), rustix::fs::Mode::from_raw_mode(0o755)).unwrap();
    wait_until("nobody has the program open for writing", || {
        !matches!(std::process::Command::new(tree.path("copy")).arg("/dev/null").status(), Err(error)
            if error.kind() == std::io::ErrorKind::ExecutableFileBusy)
    });
    assert_eq!(run(std::process::Command::new(tree.path("copy")).arg(tree.path("plain"))), "x");
}

/// A tree with a program that runs, made in the upper, where kernel and plyfs agree that it is busy.
fn run_sleep(tree: &Mounted) -> Running {
    fs::copy(tree.path("sleep"), tree.path("upper-sleep")).unwrap();
    let mut command = std::process::Command::new(tree.path("upper-sleep"));
    let mut child = None;
    wait_until("the program starts", || match command.arg("1000").spawn() {
        Ok(started) => {
            child = Some(Running(started));
            true
        }
        Err(error) => error.kind() != std::io::ErrorKind::ExecutableFileBusy,
    });
    child.unwrap()
}

fn sleep_in_a_layer(l: &Layer) -> &Layer {
    fs::copy("/bin/sleep", l.path("sleep")).unwrap();
    l
}

#[test]
fn running_program_is_not_written() {
    let tree = mount!(Setup::new().lower(sleep_in_a_layer));
    let _running = run_sleep(&tree);
    assert_eq!(errno(open(tree.path("upper-sleep"), OFlags::WRONLY)), Errno::TXTBSY);
    fs::remove_file(tree.path("upper-sleep")).unwrap();
}

#[test]
fn running_program_is_not_truncated_by_who_opens_it_for_reading() {
    let tree = mount!(Setup::new().lower(sleep_in_a_layer));
    let running = run_sleep(&tree);
    let size = tree.stat("upper-sleep").st_size;
    assert_eq!(errno(open(tree.path("upper-sleep"), OFlags::RDONLY | OFlags::TRUNC)), Errno::TXTBSY);
    assert_eq!(tree.stat("upper-sleep").st_size, size);
    assert_eq!(fs::read(tree.upper("upper-sleep")).unwrap().len() as i64, size);
    drop(running);
    open(tree.path("upper-sleep"), OFlags::RDONLY | OFlags::TRUNC).unwrap();
    assert_eq!(tree.stat("upper-sleep").st_size, 0);
}

#[test]
fn random_reads_and_writes_are_those_of_a_plain_file() {
    let tree = mount!(Setup::new().lower(|l| l.file("f", "0123456789".repeat(10_000))));
    let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64 | 1;
    println!("seed {seed}");
    let mut state = seed;
    let mut random = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let mut model = "0123456789".repeat(10_000).into_bytes();
    let mut file = open(tree.path("f"), OFlags::RDWR).unwrap();
    for step in 0..1500 {
        let offset = random(150_000);
        let len = random(9000) as usize;
        match random(5) {
            0 | 1 => {
                let byte = random(256) as u8;
                if model.len() < offset as usize + len {
                    model.resize(offset as usize + len, 0);
                }
                model[offset as usize..][..len].fill(byte);
                file.seek(SeekFrom::Start(offset)).unwrap();
                file.write_all(&vec![byte; len]).unwrap();
            }
            2 if step % 5 == 0 => {
                model.resize(offset as usize, 0);
                file.set_len(offset).unwrap();
            }
            3 if step % 7 == 0 => {
                file = open(tree.path("f"), OFlags::RDWR).unwrap();
            }
            _ => {
                let mut buffer = vec![0; len];
                let read = file.read_at(&mut buffer, offset).unwrap();
                let expected = model.get(offset as usize..).unwrap_or_default();
                assert_eq!(buffer[..read], expected[..len.min(expected.len())], "step {step}, seed {seed}");
            }
        }
    }
    let mut content = Vec::new();
    open(tree.path("f"), OFlags::RDONLY).unwrap().read_to_end(&mut content).unwrap();
    assert!(content == model, "seed {seed}");
}

#[test]
fn copy_up_by_many_threads_at_once_happens_once() {
    let content = "x".repeat(1 << 20);
    let tree = mount!(Setup::new().lower(|l| l.file("f", &content)));
    std::thread::scope(|scope| {
        for thread in 0..8_u64 {
            let tree = &tree;
            scope.spawn(move || {
                let file = open(tree.path("f"), OFlags::RDWR).unwrap();
                file.write_all_at(&[b'0' + thread as u8], thread * 1000).unwrap();
            });
        }
    });
    let after = fs::read(tree.path("f")).unwrap();
    assert_eq!(after.len(), content.len());
    for thread in 0..8 {
        assert_eq!(after[thread * 1000], b'0' + thread as u8);
    }
}

#[test]
fn reading_at_and_beyond_the_end() {
    let tree = mount!(Setup::new().lower(|l| l.file("f", "0123456789").file("empty", "")));
    let file = open(tree.path("f"), OFlags::RDONLY).unwrap();
    let mut buffer = [0; 10];
    assert_eq!(file.read_at(&mut buffer, 8).unwrap(), 2);
    assert_eq!(file.read_at(&mut buffer, 10).unwrap(), 0);
    assert_eq!(file.read_at(&mut buffer, 1 << 40).unwrap(), 0);
    assert_eq!(tree.read("empty"), "");
    assert_eq!(errno(open(tree.path(""), OFlags::RDONLY).unwrap().read_at(&mut buffer, 0)), Errno::ISDIR);
    assert_eq!(errno(file.write_at(b"x", 0)), Errno::BADF);
}
