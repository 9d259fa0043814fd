//! Daemons that are killed under programs that change many objects. Each object is as before or as after the program,
//! but for what the program itself does in steps; what it has said to be done is done; and run again it ends its work.
//!
//! The same programs on a plain directory tell what is after them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant, UNIX_EPOCH};

use super::{Random, kills_and_seed};
use crate::common::*;

/// A program that works in the directory of its name.
struct Program {
    name: &'static str,
    /// Run by a shell at the root of the tree. Once run, it finds nothing more to do.
    script: &'static str,
    /// Whether something between before and after is right, as the program itself does it in steps.
    allows: fn(Option<&Object>, After<'_>) -> bool,
}

/// What is there after a program: `None` is nothing.
type After<'a> = Option<&'a Object>;

const PROGRAMS: [Program; 5] = [
    Program { name: "chmod", script: "chmod -Rv u=rwX,go= chmod", allows: |_, _| false },
    Program { name: "rm", script: "rm -rfv rm", allows: |_, _| false },
    Program {
        name: "mv",
        script: "find mv/from -mindepth 1 -maxdepth 1 -exec mv -fv -t mv/to {} +",
        allows: |_, _| false,
    },
    Program { name: "tar", script: "tar -xvf \"$ARCHIVE\"", allows: is_half_extracted },
    Program {
        name: "append",
        script: "for file in append/*; do [ \"$(stat -c %s \"$file\")\" -gt \"$SIZE\" ] || \
                 { dd if=\"$ARCHIVE\" of=\"$file\" bs=4k count=1 oflag=append conv=notrunc status=none && \
                 echo \"appended '$file'\"; } || exit 1; done",
        // The time of the change is another each time.
        allows: |now, after| now.map(Object::without_time) == after.map(Object::without_time),
    },
];

/// The size of the files that are copied up whole for a few bytes.
const LARGE: usize = 16 << 20;

/// tar removes what it replaces, writes, and sets owner, mode and times in the end; those of directories last of all.
fn is_half_extracted(now: Option<&Object>, after: After<'_>) -> bool {
    match (now, after) {
        (None, _) => true,
        (Some(now), Some(after)) if now.is_dir() => after.is_dir(),
        (Some(now), Some(after)) => now.kind() == after.kind() && after.content.starts_with(&now.content),
        (Some(_), None) => false,
    }
}

/// An object of a tree.
#[derive(Clone, PartialEq, Eq)]
struct Object {
    mode: u32,
    owner: (u32, u32),
    /// Not of directories, in which programs work.
    modified: Option<(i64, i64)>,
    /// What it holds, or leads to.
    content: Vec<u8>,
}

impl Object {
    fn of(path: &Path) -> Self {
        let meta = fs::symlink_metadata(path).unwrap();
        let content = if meta.is_file() {
            fs::read(path).unwrap()
        } else if meta.is_symlink() {
            fs::read_link(path).unwrap().into_os_string().into_encoded_bytes()
        } else {
            Vec::new()
        };
        let modified = (!meta.is_dir()).then(|| (meta.mtime(), meta.mtime_nsec()));
        Self { mode: meta.mode(), owner: (meta.uid(), meta.gid()), modified, content }
    }

    fn kind(&self) -> u32 {
        self.mode & libc::S_IFMT
    }

    fn is_dir(&self) -> bool {
        self.kind() == libc::S_IFDIR
    }

    fn without_time(&self) -> Self {
        Self { modified: None, ..self.clone() }
    }
}

/// Large content is told by its length.
impl std::fmt::Debug for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { mode, owner: (uid, gid), modified, content } = self;
        let start = content[..content.len().min(20)].escape_ascii();
        write!(f, "{mode:o} {uid}:{gid} {modified:?} {} bytes {start}", content.len())
    }
}

type Tree = BTreeMap<PathBuf, Object>;

fn look(root: &Path) -> Tree {
    let (mut tree, mut left) = (Tree::new(), vec![PathBuf::new()]);
    while let Some(path) = left.pop() {
        let object = Object::of(&root.join(&path));
        if object.is_dir() {
            left.extend(fs::read_dir(root.join(&path)).unwrap().map(|entry| path.join(entry.unwrap().file_name())));
        }
        tree.insert(path, object);
    }
    tree
}

/// Two layers that hide and merge, with work for every program; `append` is whole in the lower one.
fn setup() -> Setup {
    let files = |l: &Layer, layer: usize| {
        for program in ["chmod/a", "rm/a", "mv/from/a", "tar/a"] {
            for number in 0..12 {
                l.file(format!("{program}/d{}/f{layer}{number}", number % 3), format!("{program} {number}"));
                l.file(format!("{program}{number}/both/f{layer}"), format!("{layer}"));
                l.file(format!("{program}-file{layer}{number}"), program.repeat(500));
            }
        }
    };
    let setup = Setup::new().lower(|l| {
        files(l, 0);
        for program in ["chmod", "rm", "mv/from", "tar"] {
            l.whiteout(format!("{program}/hidden"), Form::Device).whiteout(format!("{program}/a/d0/f11"), Form::Device);
            l.opaque(format!("{program}/opaque"), Form::Trusted).file(format!("{program}/opaque/f"), "f");
            l.symlink(format!("{program}/link"), "a/d0").file(format!("{program}/hard"), "hard");
            l.hard_link(format!("{program}/a/hard"), format!("{program}/hard"));
        }
        (0..6).fold(l, |l, number| l.file(format!("mv/to/a-file0{number}"), "to be replaced"))
    });
    setup.lower(|l| {
        files(l, 1);
        for program in ["chmod", "rm", "mv/from", "tar"] {
            l.file(format!("{program}/hidden/secret"), "s").file(format!("{program}/opaque/secret"), "s");
        }
        (0..2).fold(l, |l, number| l.file(format!("append/f{number}"), vec![b'0' + number; LARGE]))
    })
}

/// What was changed before: there are whiteouts, copies and new files in the upper.
fn age(root: &Path) {
    for dir in ["chmod", "rm", "mv/from", "tar"] {
        let dir = root.join(dir);
        fs::remove_file(dir.join("a/d1/f01")).unwrap();
        fs::remove_dir_all(dir.join("a2")).unwrap();
        fs::rename(dir.join("a3"), dir.join("moved")).unwrap();
        fs::set_permissions(dir.join("a/hard"), fs::Permissions::from_mode(0o640)).unwrap();
        fs::write(dir.join("new"), "new").unwrap();
        let file = fs::File::options().write(true).open(dir.join("new")).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(1_000_000)).unwrap();
    }
}

/// Makes an archive of what is new, what replaces something, and what is there already.
fn pack(tree: &Mounted) -> PathBuf {
    let (source, archive) = (Layer::at(tree.beside("source")), tree.beside("archive"));
    for number in 0..40 {
        source.file(format!("tar/a/d0/f1{number}"), format!("new {number}").repeat(100 * number));
        source.file(format!("tar/new/d{}/f{number}", number % 4), format!("{number}").repeat(2000));
    }
    source.hard_link("tar/new/hard", "tar/new/d1/f1").mode("tar/new/d2/f2", 0o640).owner("tar/new/d2/f2", 1001, 1001);
    symlink("d1/f1", source.path("tar/new/link")).unwrap();
    source.file("tar/hidden/shown", "shown").file("tar/a-file03", "n".repeat(300_000));
    run(Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(source.path("")).arg("tar"));
    archive
}

impl Program {
    fn start(&self, root: &Path, archive: &Path) -> Child {
        let mut command = Command::new("sh");
        command.args(["-c", self.script]).current_dir(root).env("ARCHIVE", archive).env("SIZE", LARGE.to_string());
        command.env("LC_ALL", "C").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// What it said to have done.
    fn said(&self, output: &Output) -> Vec<PathBuf> {
        let (said, failed) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if self.name == "tar" {
            // It names what it begins with, and what it fails at.
            let is_done = |path: &&str| !path.ends_with('/') && !failed.contains(&format!("tar: {path}: "));
            return said.lines().filter(is_done).map(PathBuf::from).collect();
        }
        let done = ["removed ", "renamed ", "appended ", "mode of "];
        let lines = said.lines().filter(|line| done.iter().any(|done| line.starts_with(done)));
        // Between quotes.
        lines.flat_map(|line| line.split('\'').skip(1).step_by(2).map(PathBuf::from)).collect()
    }
}

struct Bed {
    tree: Mounted,
    archive: PathBuf,
    before: Tree,
    after: Tree,
}

impl Bed {
    fn new() -> Self {
        // In memory, where a copy waits for no disk: kills come in between everything.
        let tree = setup().small_upper(256 << 20).mount();
        age(&tree.path(""));
        let (archive, model) = (pack(&tree), tree.beside("model"));
        run(Command::new("cp").arg("-a").arg(tree.path(".")).arg(&model));
        let before = look(&model);
        for program in &PROGRAMS {
            let output = program.start(&model, &archive).wait_with_output().unwrap();
            assert!(output.status.success(), "{}: {output:?}", program.name);
        }
        let after = look(&model);
        fs::remove_dir_all(model).unwrap();
        Self { tree, archive, before, after }
    }

    /// Begins anew, with a daemon of these options.
    fn renew(&mut self, options: &'static str) {
        self.tree.unmount();
        self.tree.empty_upper();
        self.tree.set_options(options);
        self.tree.mount();
        age(&self.tree.path(""));
    }

    fn start(&self, programs: &[&Program]) -> Vec<Child> {
        programs.iter().map(|program| program.start(&self.tree.path(""), &self.archive)).collect()
    }

    /// Whether an object may be so, with these programs in the middle of their work.
    fn is_right(&self, path: &Path, now: Option<&Object>, programs: &[&Program]) -> bool {
        let (before, after) = (self.before.get(path), self.after.get(path));
        now == before
            || programs
                .iter()
                .any(|program| path.starts_with(program.name) && (now == after || (program.allows)(now, after)))
    }

    fn check(&self, programs: &[&Program], outputs: &[Output], what: &str) {
        let now = look(&self.tree.path(""));
        for path in now.keys().chain(self.before.keys()) {
            let object = now.get(path);
            assert!(
                self.is_right(path, object, programs),
                "{what}: {} is {object:?}, was {:?}, is to be {:?}",
                path.display(),
                self.before.get(path),
                self.after.get(path)
            );
        }
        // One of both names, and what was replaced is there until then.
        for (from, to) in self.moves() {
            let is_at = |path: &Path, tree: &Tree| now.get(path) == tree.get(path);
            let has_moved = !now.contains_key(&from) && is_at(&to, &self.after);
            let stays = is_at(&from, &self.before) && is_at(&to, &self.before);
            assert!(has_moved != stays, "{what}: {} and {}", from.display(), to.display());
        }
        for (program, output) in programs.iter().zip(outputs) {
            for path in program.said(output) {
                let (object, after) = (now.get(&path), self.after.get(&path));
                let is_done = object == after || (program.name == "append" && (program.allows)(object, after));
                assert!(is_done, "{what}: {} was said to be done: {object:?}, {after:?}", path.display());
            }
        }
    }

    /// Where each object of `mv/from` goes.
    fn moves(&self) -> impl Iterator<Item = (PathBuf, PathBuf)> {
        let inside = self.before.keys().filter_map(|path| Some((path, path.strip_prefix("mv/from").ok()?)));
        inside
            .filter(|(_, rest)| !rest.as_os_str().is_empty())
            .map(|(path, rest)| (path.clone(), Path::new("mv/to").join(rest)))
    }

    /// All of these programs are done, and nothing else.
    fn check_done(&self, programs: &[&Program], what: &str) {
        let now = look(&self.tree.path(""));
        for path in now.keys().chain(self.before.keys()).chain(self.after.keys()) {
            let of = programs.iter().find(|program| path.starts_with(program.name));
            let wanted = if of.is_some() { self.after.get(path) } else { self.before.get(path) };
            let is_done = |program: &&Program| program.name == "append" && (program.allows)(now.get(path), wanted);
            let is_right = now.get(path) == wanted || of.is_some_and(is_done);
            assert!(is_right, "{what}: {} is {:?}, not {wanted:?}", path.display(), now.get(path));
        }
    }
}

fn wait_for(children: Vec<Child>) -> Vec<Output> {
    children.into_iter().map(|child| child.wait_with_output().unwrap()).collect()
}

#[test]
fn a_daemon_that_is_killed_under_programs_leaves_each_object_as_before_or_after() {
    plyfs_only!("the kernel's overlayfs cannot be killed");
    needs_root!();
    let (kills, seed) = kills_and_seed(12);
    let mut random = Random(seed | 1);
    let mut bed = Bed::new();
    // Each alone, and all at once.
    let all: Vec<&Program> = PROGRAMS.iter().collect();
    let mut rounds: Vec<(Vec<&Program>, Duration)> =
        all.iter().map(|program| (vec![*program], Duration::ZERO)).chain([(all.clone(), Duration::ZERO)]).collect();
    let options = ["redirect_dir=on", "metacopy=on", "passthrough=0"];
    let (mut count, mut late) = (0, 0);
    while count < kills {
        let options = options[(count as usize / rounds.len() + count as usize) % options.len()];
        let next = count as usize % rounds.len();
        let (programs, lasts) = &mut rounds[next];
        bed.renew(options);
        if lasts.is_zero() {
            let start = Instant::now();
            for output in wait_for(bed.start(programs)) {
                assert!(output.status.success(), "{output:?}");
            }
            *lasts = start.elapsed();
            bed.check_done(programs, "without a kill");
            bed.renew(options);
        }
        let children = bed.start(programs);
        std::thread::sleep(lasts.mul_f64(random.below(1000) as f64 / 1000.0));
        bed.tree.kill_daemon();
        let outputs = wait_for(children);
        if outputs.iter().all(|output| output.status.success()) {
            // It was done before.
            late += 1;
            *lasts = lasts.mul_f64(0.8);
            bed.tree.recover();
            continue;
        }
        let names: Vec<_> = programs.iter().map(|program| program.name).collect();
        let what = format!("kill {count} of {names:?} with {options}, seed {seed}");
        bed.tree.recover();
        let left: Vec<_> = fs::read_dir(bed.tree.beside("work/work")).unwrap().collect();
        assert!(left.is_empty(), "{what}: the new mount leaves {left:?}");
        bed.check(programs, &outputs, &what);
        for output in wait_for(bed.start(programs)) {
            assert!(output.status.success(), "{what}, run again: {output:?}");
        }
        bed.check_done(programs, &what);
        bed.tree.remount();
        bed.check_done(programs, &what);
        count += 1;
    }
    println!("{count} kills in the middle, {late} too late");
}
