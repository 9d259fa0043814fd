//! Programs as people run them, from the overlay and on it.

use std::fs;
use std::process::{Command, Stdio};

use super::super::Outcome;
use super::super::layers::{git, tool};
use super::{Bed, Group, Workload, first_and_again};

pub fn all() -> Vec<Workload> {
    let mut all = Vec::new();
    all.extend(first_and_again("tar of small files", tar));
    for (name, start) in [("python start-up", python as fn(&Bed<'_>) -> Outcome<()>), ("git start-up", git_version)] {
        all.push(Workload::new(Group::First, format!("{name}, first"), start).after(null));
        all.push(
            Workload::new(Group::Again, format!("{name}, again"), move |bed| {
                (0..bed.scale.starts).try_for_each(|_| start(bed))
            })
            .after(null)
            .after(start)
            .after(start),
        );
    }
    let status = |bed: &Bed<'_>| tool(git(&bed.srv("repo")).args(["status", "--short"]));
    all.extend([
        Workload::new(Group::Again, "git status, again", status).after(status).after(status),
        Workload::new(Group::Change, "untar", |bed| {
            tool(Command::new("tar").arg("-xf").arg(bed.srv("files.tar")).arg("-C").arg(bed.srv("new")))
        })
        .after(|bed| Ok(fs::create_dir(bed.srv("new"))?)),
        Workload::new(Group::Program, "git clone", |bed| {
            let mut clone = git(&bed.mnt);
            tool(clone.args(["clone", "--quiet", "--no-hardlinks"]).arg(bed.srv("repo")).arg(bed.srv("clone")))
        }),
        Workload::new(Group::Program, "git checkout of another branch", |bed| {
            tool(git(&bed.srv("repo")).args(["checkout", "--quiet", "two"]))
        })
        .after(status),
        Workload::new(Group::Program, "a parallel build", |bed| {
            tool(chroot(bed).args(["make", "-s", "-j4", "-C", "/srv/build", "CC=gcc"]))
        })
        .after(null),
    ]);
    all
}

/// Reads all small files through tar, which leaves reading out where it writes to /dev/null.
fn tar(bed: &Bed<'_>) -> Outcome<()> {
    let mut command = Command::new("tar");
    let mut child = command.arg("-cf-").arg("-C").arg(bed.srv("small")).arg(".").stdout(Stdio::piped()).spawn()?;
    let mut output = child.stdout.take().ok_or("no output")?;
    let bytes = std::io::copy(&mut output, &mut std::io::sink())?;
    if !child.wait()?.success() || bytes < 1024 {
        return Err("tar failed".into());
    }
    Ok(())
}

/// Has programs find the one device that they need, also where no device can be made.
fn null(bed: &Bed<'_>) -> Outcome<()> {
    Ok(rustix::mount::mount_bind("/dev/null", bed.mnt.join("dev/null"))?)
}

fn chroot(bed: &Bed<'_>) -> Command {
    let mut command = Command::new("chroot");
    command.arg(&bed.mnt).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", "/");
    command
}

fn python(bed: &Bed<'_>) -> Outcome<()> {
    tool(chroot(bed).args(["python3", "-B", "-c", "import json, argparse, subprocess"]))
}

fn git_version(bed: &Bed<'_>) -> Outcome<()> {
    tool(chroot(bed).args(["git", "--version"]))
}
