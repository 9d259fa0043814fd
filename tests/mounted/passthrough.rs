//! Opens that go through to the upper's file, and opens that are cached, in every order.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};

use crate::common::*;

/// What a file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum For {
    Reading,
    Writing,
    Both,
    Appending,
    Truncating,
}

const ALL: [For; 5] = [For::Reading, For::Writing, For::Both, For::Appending, For::Truncating];

fn open_for(path: &std::path::Path, what: For) -> File {
    let mut options = OpenOptions::new();
    match what {
        For::Reading => options.read(true),
        For::Writing => options.write(true),
        For::Both => options.read(true).write(true),
        For::Appending => options.append(true),
        For::Truncating => options.write(true).truncate(true),
    };
    options.open(path).unwrap()
}

/// Writes by a handle as it was opened for, to the file and to what it is to be.
fn write(file: &File, what: For, number: usize, model: &mut Vec<u8>) {
    let text = format!("<{number}>");
    let at = match what {
        For::Reading => return,
        // Linux appends whatever the offset.
        For::Appending => model.len(),
        _ => number * 10,
    };
    file.write_all_at(text.as_bytes(), at as u64).unwrap();
    model.resize(model.len().max(at + text.len()), 0);
    model[at..at + text.len()].copy_from_slice(text.as_bytes());
}

/// What a file shows by read and by a mapping.
fn shown(file: &File) -> Vec<u8> {
    let len = usize::try_from(file.metadata().unwrap().size()).unwrap();
    let mut read = vec![0; len + 10];
    let count = file.read_at(&mut read, 0).unwrap();
    read.truncate(count);
    if len > 0 {
        assert!(Mapping::new(file, len, false).read() == read, "read and mapped");
    }
    read
}

fn every_order(setup: Setup, prepare: impl Fn(&Mounted, &str)) {
    let tree = mount!(setup);
    let kernel = tree.backend() == Backend::Kernel;
    for (number, orders) in ALL.iter().flat_map(|a| ALL.map(|b| ALL.map(|c| [*a, b, c]))).flatten().enumerate() {
        let name = format!("f{number}");
        prepare(&tree, &name);
        let mut model = b"what the lower layer has".to_vec();
        let mut files: Vec<(For, File)> = Vec::new();
        let mut changed = false;
        for (index, what) in orders.into_iter().enumerate() {
            let file = open_for(&tree.path(&name), what);
            if what == For::Truncating {
                model.clear();
            }
            changed |= what != For::Reading;
            files.push((what, file));
            for (number, (what, file)) in files.iter().enumerate() {
                write(file, *what, index * 3 + number, &mut model);
            }
            for (other, file) in files.iter().filter(|(what, _)| matches!(what, For::Reading | For::Both)) {
                // The kernel's overlayfs goes on with the lower file.
                if !(kernel && changed && *other == For::Reading) {
                    assert_eq!(shown(file).escape_ascii().to_string(), model.escape_ascii().to_string(), "{orders:?}");
                }
            }
            assert_eq!(tree.stat(&name).st_size, model.len() as i64, "{orders:?}");
        }
        // Closed in another order for each.
        while !files.is_empty() {
            files.remove(number % files.len());
            assert_eq!(shown(&open_for(&tree.path(&name), For::Reading)), model, "{orders:?}");
        }
        assert_eq!(fs::read(tree.path(&name)).unwrap(), model, "{orders:?}");
    }
}

#[test]
fn opens_of_a_lower_file_agree_in_every_order() {
    let setup =
        Setup::new().lower(|l| (0..125).fold(l, |l, number| l.file(format!("f{number}"), "what the lower layer has")));
    every_order(setup, |_, _| {});
}

#[test]
fn opens_of_an_upper_file_agree_in_every_order() {
    every_order(Setup::new().lower(|l| l.dir("d")), |tree, name| tree.write(name, "what the lower layer has"));
}

#[test]
fn opens_of_a_file_that_was_read_before_its_copy_up_agree_in_every_order() {
    let setup =
        Setup::new().lower(|l| (0..125).fold(l, |l, number| l.file(format!("f{number}"), "what the lower layer has")));
    every_order(setup, |tree, name| {
        // Pages of the lower file, which are not to be seen once it is copied up.
        assert_eq!(tree.read(name), "what the lower layer has");
        fs::set_permissions(tree.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    });
}

#[test]
fn times_of_a_file_that_is_mapped_for_writing_are_never_old() {
    let tree = mount!(Setup::new().lower(|l| l.file("lower", vec![b'l'; 4096])));
    tree.write("new", vec![b'n'; 4096]);
    for name in ["lower", "new"] {
        let file = open_for(&tree.path(name), For::Both);
        let mapping = Mapping::new(&file, 4096, true);
        for round in 0..3_u8 {
            set_times(&tree.path(name), 1_000_000_000);
            assert_eq!(tree.stat(name).st_mtime, 1_000_000_000);
            mapping.write(0, &[round]);
            mapping.sync();
            assert_ne!(tree.stat(name).st_mtime, 1_000_000_000, "{name}, round {round}");
        }
        drop(mapping);
        drop(file);
        assert_eq!(fs::read(tree.path(name)).unwrap()[0], 2);
    }
}

fn set_times(path: &std::path::Path, seconds: i64) {
    let time = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::empty()).unwrap();
}

#[test]
fn a_file_that_becomes_set_id_while_a_stranger_has_it_open_loses_the_bit() {
    let tree = mount!(Setup::new().lower(|l| l.dir("d")));
    tree.write("f", "x");
    fs::set_permissions(tree.path("f"), fs::Permissions::from_mode(0o666)).unwrap();
    let path = tree.path("f");
    let other = as_user(User::ALICE, move || open_for(&path, For::Writing));
    fs::set_permissions(tree.path("f"), fs::Permissions::from_mode(0o4777)).unwrap();
    as_user(User::ALICE, || other.write_all_at(b"y", 0)).unwrap();
    drop(other);
    // The kernel's overlayfs takes the bit with the write, and plyfs when it is told that the file is closed.
    wait_until("the bit is gone", || tree.stat("f").st_mode & 0o7777 == 0o777);
    assert_eq!(tree.read("f"), "y");
}

#[test]
fn a_file_that_becomes_set_id_while_a_stranger_has_it_open_keeps_the_bit_if_nobody_writes() {
    let tree = mount!(Setup::new().lower(|l| l.dir("d")));
    for round in 0..20 {
        let path = tree.path(format!("f{round}"));
        fs::write(&path, "x").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        let other = as_user(User::ALICE, || open_for(&path, For::Writing));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o4777)).unwrap();
        drop(other);
        // Whoever opens it next has waited for the end of the one before.
        drop(as_user(User::ALICE, || open_for(&path, For::Writing)));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o4777, "{round}");
    }
}

#[test]
fn data_that_came_with_an_open_is_never_old() {
    const FILES: usize = 200;
    let setup = Setup::new()
        .lower(|layer| (0..FILES).fold(layer, |layer, number| layer.file(format!("f{number}"), vec![b'o'; 5000])));
    let tree = mount!(setup);
    for number in 0..FILES {
        let path = tree.path(format!("f{number}"));
        let (read, changed) = (&path, &path);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let seen = fs::read(read).unwrap();
                // Zeros: a read may see what is being cut off, as on any filesystem.
                assert!(seen.iter().all(|byte| b"on\0".contains(byte)), "{seen:?}");
            });
            scope.spawn(move || match number % 4 {
                0 => fs::write(changed, b"n").unwrap(),
                1 => truncate(changed, 1).unwrap(),
                2 => open_for(changed, For::Writing).write_all_at(&[b'n'; 4999], 1).unwrap(),
                _ => open_for(changed, For::Appending).write_all_at(b"n", 0).unwrap(),
            });
        });
        let expected = match number % 4 {
            0 => b"n".to_vec(),
            1 => b"o".to_vec(),
            2 => [b"o".to_vec(), vec![b'n'; 4999]].concat(),
            _ => [vec![b'o'; 5000], b"n".to_vec()].concat(),
        };
        let file = open_for(&path, For::Reading);
        assert!(shown(&file) == expected, "{number}");
        assert_eq!(tree.stat(format!("f{number}")).st_size, expected.len() as i64);
    }
}
