//! The data that workloads work on: the topmost lower layer.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Command;

use super::Outcome;

/// How much there is of everything.
#[derive(Debug)]
pub struct Scale {
    /// Directories of 100 small files each.
    pub dirs: usize,
    /// Files that are made anew, renamed, or changed.
    pub changed: usize,
    /// MiB of the large file.
    pub large: usize,
    /// Operations of 4 KiB.
    pub blocks: usize,
    /// Sources of the program that is built.
    pub sources: usize,
    /// Files that are walked to measure memory.
    pub walked: usize,
    /// How often a program is started.
    pub starts: usize,
    /// Whether to wait for the disk before each run.
    pub settles: bool,
}

impl Scale {
    pub const FULL: Self = Self {
        dirs: 100,
        changed: 10_000,
        large: 64,
        blocks: 8192,
        sources: 24,
        walked: 100_000,
        starts: 10,
        settles: true,
    };
    pub const QUICK: Self =
        Self { dirs: 2, changed: 100, large: 2, blocks: 64, sources: 2, walked: 1000, starts: 1, settles: false };
}

/// Files of each directory.
pub const FILES: usize = 100;

/// `srv/small`, `srv/tree`, `srv/large/*`, `srv/repo`, `srv/files.tar`, `srv/build`, below `root`.
pub fn build(root: &Path, scale: &Scale) -> Outcome<()> {
    let srv = root.join("srv");
    fs::create_dir_all(root.join("dev"))?;
    File::create(root.join("dev/null"))?;
    small(&srv.join("small"), scale.dirs)?;
    small(&srv.join("tree"), (scale.changed / FILES / 4).max(1))?;
    fs::create_dir(srv.join("large"))?;
    let block: Vec<u8> = (0..1 << 20).map(|index: u32| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for number in 0..4 {
        let mut file = File::create(srv.join(format!("large/{number}")))?;
        (0..scale.large).try_for_each(|_| file.write_all(&block))?;
    }
    tool(Command::new("tar").arg("-cf").arg(srv.join("files.tar")).arg("-C").arg(&srv).arg("small"))?;
    repository(&srv.join("repo"), (scale.dirs / 5).max(1))?;
    sources(&srv.join("build"), scale.sources)?;
    Ok(())
}

/// `dirs` directories `d0` and following, each with [`FILES`] files `f0` and following of 1 to 8 KiB.
pub fn small(root: &Path, dirs: usize) -> Outcome<()> {
    let content = vec![b'x'; 8192];
    for dir in 0..dirs {
        let dir = root.join(format!("d{dir}"));
        fs::create_dir_all(&dir)?;
        for file in 0..FILES {
            fs::write(dir.join(format!("f{file}")), &content[..1024 + file * 7168 / FILES])?;
        }
    }
    Ok(())
}

/// `count` empty files in directories of 1,000.
pub fn many(root: &Path, count: usize) -> Outcome<()> {
    for dir in 0..count / 1000 {
        let dir = root.join(format!("d{dir}"));
        fs::create_dir_all(&dir)?;
        for file in 0..1000 {
            File::create(dir.join(format!("f{file}")))?;
        }
    }
    Ok(())
}

/// A work tree with two branches, of which every file differs.
fn repository(root: &Path, dirs: usize) -> Outcome<()> {
    small(root, dirs)?;
    let git = |arguments: &[&str]| tool(git(root).args(arguments));
    git(&["init", "--quiet", "--initial-branch=one"])?;
    git(&["add", "."])?;
    git(&["commit", "--quiet", "--message=one"])?;
    git(&["checkout", "--quiet", "-b", "two"])?;
    for dir in 0..dirs {
        for file in 0..FILES {
            fs::write(root.join(format!("d{dir}/f{file}")), format!("another {file}"))?;
        }
    }
    git(&["commit", "--quiet", "--all", "--message=two"])?;
    git(&["checkout", "--quiet", "one"])
}

/// git as it is without anybody's settings.
pub fn git(root: &Path) -> Command {
    let mut command = Command::new("git");
    command.arg("-C").arg(root);
    for (name, value) in [
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_AUTHOR_NAME", "plyfs"),
        ("GIT_AUTHOR_EMAIL", "plyfs@localhost"),
        ("GIT_COMMITTER_NAME", "plyfs"),
        ("GIT_COMMITTER_EMAIL", "plyfs@localhost"),
    ] {
        command.env(name, value);
    }
    command
}

/// A program of `count` sources, which make(1) builds.
fn sources(root: &Path, count: usize) -> Outcome<()> {
    fs::create_dir_all(root)?;
    let mut makefile = BufWriter::new(File::create(root.join("Makefile"))?);
    let names: Vec<String> = (0..count).map(|number| format!("s{number}")).collect();
    let objects: Vec<String> = names.iter().map(|name| format!("{name}.o")).collect();
    writeln!(makefile, "program: {}\n\t$(CC) -o $@ $^", objects.join(" "))?;
    for (number, name) in names.iter().enumerate() {
        let main = if number == 0 { "int main(void) { return 0; }" } else { "" };
        let text =
            format!("#include <stdio.h>\n#include <stdlib.h>\nint {name}(int x) {{ return x + {number}; }}\n{main}\n");
        fs::write(root.join(format!("{name}.c")), text)?;
    }
    Ok(makefile.flush()?)
}

/// Runs a command, which has to succeed.
pub fn tool(command: &mut Command) -> Outcome<()> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(format!("{command:?}: {}: {said}", output.status).into())
}
