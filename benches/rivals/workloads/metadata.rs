//! Names, attributes and small files.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::super::Outcome;
use super::super::layers::FILES;
use super::{Bed, Group, METACOPY, Workload, first_and_again};

pub fn all() -> Vec<Workload> {
    let mut all = Vec::new();
    all.extend(first_and_again("find with stat", |bed| walk(&bed.srv("small"))));
    all.extend(first_and_again("stat of known names", |bed| stats(bed, "f", true)));
    all.extend(first_and_again("stat of missing names", |bed| stats(bed, "g", false)));
    all.extend(first_and_again("open, read, close", reads));
    all.extend([
        Workload::new(Group::Change, "create small files", |bed| create(&bed.srv("new"), bed.scale.changed))
            .after(|bed| Ok(fs::create_dir(bed.srv("new"))?)),
        Workload::new(Group::Change, "rename", |bed| {
            let dir = bed.srv("new");
            (0..bed.scale.changed)
                .try_for_each(|file| Ok(fs::rename(dir.join(format!("f{file}")), dir.join(format!("g{file}")))?))
        })
        .after(created),
        Workload::new(Group::Change, "unlink", |bed| {
            let dir = bed.srv("new");
            (0..bed.scale.changed).try_for_each(|file| Ok(fs::remove_file(dir.join(format!("f{file}")))?))
        })
        .after(created),
        Workload::new(Group::Change, "rm -rf of a lower tree", |bed| Ok(fs::remove_dir_all(bed.srv("tree"))?)),
        Workload::new(Group::CopyUp, "chmod -R of small lower files", |bed| {
            chmod(&files(&bed.srv("small"), bed.scale.changed / 50))
        }),
        Workload::new(Group::CopyUp, "append to small lower files", |bed| {
            append(&files(&bed.srv("small"), bed.scale.changed / 50))
        }),
        Workload::new(Group::CopyUp, "append to large lower files", |bed| append(&large(bed))),
        Workload {
            options: METACOPY,
            ..Workload::new(Group::CopyUp, "chmod of large lower files, metacopy", |bed| chmod(&large(bed)))
        },
    ]);
    all
}

fn walk(dir: &Path) -> Outcome<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.metadata()?.is_dir() {
            walk(&entry.path())?;
        }
    }
    Ok(())
}

/// Every name of the small files once, or as many that are not there.
fn stats(bed: &Bed<'_>, prefix: &str, is_there: bool) -> Outcome<()> {
    for dir in 0..bed.scale.dirs {
        for file in 0..FILES {
            let found = fs::symlink_metadata(bed.srv(&format!("small/d{dir}/{prefix}{file}")));
            if found.is_ok() != is_there {
                return Err(format!("{prefix}{file}: {found:?}").into());
            }
        }
    }
    Ok(())
}

fn reads(bed: &Bed<'_>) -> Outcome<()> {
    let mut content = vec![0; 8192];
    for dir in 0..bed.scale.dirs {
        for file in 0..FILES {
            let mut file = File::open(bed.srv(&format!("small/d{dir}/f{file}")))?;
            if file.read(&mut content)? < 1024 {
                return Err("a short read".into());
            }
        }
    }
    Ok(())
}

/// `count` files of 1 KiB.
pub fn create(dir: &Path, count: usize) -> Outcome<()> {
    (0..count).try_for_each(|file| {
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o644).open(dir.join(format!("f{file}")))?;
        Ok(file.write_all(&[7; 1024])?)
    })
}

fn created(bed: &Bed<'_>) -> Outcome<()> {
    fs::create_dir(bed.srv("new"))?;
    create(&bed.srv("new"), bed.scale.changed)
}

/// The first of the small files.
fn files(root: &Path, count: usize) -> Vec<PathBuf> {
    (0..count).map(|number| root.join(format!("d{}/f{}", number / FILES, number % FILES))).collect()
}

fn large(bed: &Bed<'_>) -> Vec<PathBuf> {
    (0..4).map(|number| bed.srv(&format!("large/{number}"))).collect()
}

fn chmod(files: &[PathBuf]) -> Outcome<()> {
    files.iter().try_for_each(|file| Ok(fs::set_permissions(file, Permissions::from_mode(0o600))?))
}

fn append(files: &[PathBuf]) -> Outcome<()> {
    files.iter().try_for_each(|file| Ok(OpenOptions::new().append(true).open(file)?.write_all(b"x")?))
}
