//! The round of an image through the command: imported, mounted, run, changed, told, committed, exported.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::let_underscore_must_use
)]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

const PLYFS: &str = env!("CARGO_BIN_EXE_plyfs");
const PATIENCE: Duration = Duration::from_secs(30);

/// A store, and a small root filesystem in it: an image of one layer called `base`.
struct Bed {
    dir: TempDir,
}

macro_rules! needs {
    ($what:literal, $is_so:expr) => {
        if !$is_so {
            let thread = std::thread::current();
            let line = format!("SKIPPED: {}: needs {}\n", thread.name().unwrap_or("?"), $what);
            std::io::stderr().write_all(line.as_bytes()).unwrap();
            return;
        }
    };
}

macro_rules! needs_root {
    () => {
        needs!("root", geteuid().is_root());
        needs!("/dev/fuse", Path::new("/dev/fuse").exists());
    };
}

impl Bed {
    /// With what `build` makes of an empty directory as the image.
    fn new(build: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::Builder::new().prefix("plyfs-images-").tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["root", "mnt"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        build(&dir.path().join("root"));
        let bed = Self { dir };
        let mut tar = Command::new("tar");
        tar.args(["--numeric-owner", "-cf", "base.tar", "-C", "root", "."]).current_dir(bed.dir.path());
        assert!(tar.status().unwrap().success());
        bed.ok(&["image", "import", "tar:base.tar", "base"]);
        bed
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    fn plyfs<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = Command::new(PLYFS);
        command.args(args).current_dir(self.dir.path()).stdin(Stdio::null());
        command.env("PLYFS_STORE", self.path("store")).env_remove("PLYFS_LOG").env_remove("SOURCE_DATE_EPOCH");
        command
    }

    /// Runs plyfs, which has to succeed; what it prints.
    #[track_caller]
    fn ok<S: AsRef<OsStr>>(&self, args: &[S]) -> String {
        let output = self.plyfs(args).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs plyfs, which has to fail; the line that it says.
    #[track_caller]
    fn fails<S: AsRef<OsStr>>(&self, args: &[S], code: i32) -> String {
        let output = self.plyfs(args).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        said.strip_prefix("plyfs: ").unwrap().trim_end().to_owned()
    }

    /// The container of this name mounted at `mnt`.
    fn mounted<T>(&self, what: &str, options: &[&str], use_it: impl FnOnce(&Path) -> T) -> T {
        let mnt = self.path("mnt");
        self.ok(&[&["mount", what, mnt.to_str().unwrap()], options].concat());
        let result = use_it(&mnt);
        self.ok(&["umount", mnt.to_str().unwrap()]);
        result
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        while unmount(self.path("mnt"), UnmountFlags::DETACH).is_ok() {}
    }
}

/// Everything that a tree shows, by path; names of one file are told by the first of them.
fn tree(root: &Path) -> BTreeMap<String, String> {
    let mut entries = BTreeMap::new();
    let mut inodes: BTreeMap<u64, String> = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(path) = left.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        let kind = meta.file_type();
        let mut text =
            format!("{:o} {}:{} {}.{}", meta.mode(), meta.uid(), meta.gid(), meta.mtime(), meta.mtime_nsec());
        if kind.is_dir() {
            let mut names: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).collect();
            names.sort();
            left.extend(names.into_iter().rev());
        } else if kind.is_symlink() {
            text += &format!(" -> {}", fs::read_link(&path).unwrap().display());
        } else if kind.is_file() {
            text += &format!(
                " {:?}",
                fs::read(&path).unwrap().escape_ascii().to_string().chars().take(100).collect::<String>()
            );
            text += &format!(" {}", meta.size());
        } else if kind.is_char_device() || kind.is_block_device() {
            text += &format!(" {:x}", meta.rdev());
        }
        if !kind.is_dir() && meta.nlink() > 1 {
            text += &format!(" = {}", inodes.entry(meta.ino()).or_insert(name.clone()));
        }
        let mut list = vec![0; 4096];
        let len = rustix::fs::llistxattr(&path, &mut list[..]).unwrap();
        let mut names: Vec<_> = list[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty()).collect();
        names.sort();
        for xattr in names {
            let mut value = vec![0; 4096];
            let len = rustix::fs::lgetxattr(&path, xattr, &mut value[..]).unwrap();
            text += &format!(" {}={}", xattr.escape_ascii(), value[..len].escape_ascii());
        }
        entries.insert(name, text);
    }
    entries
}

/// A base in which there is something to change in every way.
fn build(root: &Path) {
    for dir in ["etc", "keep/deep", "gone/below", "replaced/old", "moved/a/b", "to-file", "proc", "sys", "dev"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    for file in [
        "etc/passwd",
        "etc/chmod",
        "keep/deep/f",
        "gone/below/f",
        "replaced/old/f",
        "moved/a/b/f",
        "to-file/f",
        "to-dir",
        "touched",
    ] {
        fs::write(root.join(file), file).unwrap();
    }
    fs::write(root.join("large"), vec![b'x'; 300_000]).unwrap();
    fs::hard_link(root.join("large"), root.join("larger")).unwrap();
    symlink("etc", root.join("link")).unwrap();
}

/// Changes it in every way.
fn change(root: &Path) {
    fs::write(root.join("etc/passwd"), "changed").unwrap();
    fs::set_permissions(root.join("etc/chmod"), fs::Permissions::from_mode(0o4711)).unwrap();
    fs::remove_file(root.join("keep/deep/f")).unwrap();
    fs::remove_dir_all(root.join("gone")).unwrap();
    fs::remove_dir_all(root.join("replaced")).unwrap();
    fs::create_dir(root.join("replaced")).unwrap();
    fs::write(root.join("replaced/new"), "new").unwrap();
    fs::rename(root.join("moved"), root.join("keep/renamed")).unwrap();
    fs::write(root.join("keep/renamed/a/c"), "c").unwrap();
    fs::remove_dir_all(root.join("to-file")).unwrap();
    fs::write(root.join("to-file"), "a file").unwrap();
    fs::remove_file(root.join("to-dir")).unwrap();
    fs::create_dir_all(root.join("to-dir/below")).unwrap();
    fs::create_dir(root.join("new")).unwrap();
    fs::write(root.join("new/one"), "one").unwrap();
    fs::hard_link(root.join("new/one"), root.join("new/two")).unwrap();
    symlink("../nowhere", root.join("new/link")).unwrap();
    let sparse = fs::File::create(root.join("new/sparse")).unwrap();
    sparse.set_len(3 << 20).unwrap();
    std::os::unix::fs::FileExt::write_at(&sparse, b"in the middle", 1 << 20).unwrap();
    rustix::fs::mknodat(CWD, root.join("new/fifo"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let owner = (Some(Uid::from_raw(3_000_000)), Some(Gid::from_raw(7)));
    rustix::fs::chown(root.join("new/one"), owner.0, owner.1).unwrap();
    // A newline is part of a capability as of anything else.
    let capability = b"\x01\0\0\x02\x0a\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    rustix::fs::setxattr(root.join("new/sparse"), "security.capability", capability, XattrFlags::empty()).unwrap();
    rustix::fs::setxattr(root.join("etc/chmod"), "user.note", b"a\nb", XattrFlags::empty()).unwrap();
    let long = root.join(["long-".repeat(40), "name".repeat(50)].join("/"));
    fs::create_dir_all(long.parent().unwrap()).unwrap();
    fs::write(&long, "long").unwrap();
    let time = Timespec { tv_sec: -5, tv_nsec: 250_000_000 };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, root.join("touched"), &times, rustix::fs::AtFlags::empty()).unwrap();
}

const CHANGES: &str = "\
C /etc
C /etc/chmod
C /etc/passwd
D /gone
C /keep
C /keep/deep
D /keep/deep/f
A /keep/renamed
A /keep/renamed/a
A /keep/renamed/a/b
A /keep/renamed/a/b/f
A /keep/renamed/a/c
A /LONG
A /LONG/NAME
D /moved
A /new
A /new/fifo
A /new/link
A /new/one
A /new/sparse
A /new/two
C /replaced
A /replaced/new
D /replaced/old
C /to-dir
A /to-dir/below
C /to-file
C /touched
";

#[test]
fn the_whole_round() {
    needs_root!();
    let bed = Bed::new(build);
    bed.mounted("base", &["--name", "work"], |mnt| {
        change(mnt);
        // Told while it is mounted, by any of its names.
        let expected = CHANGES.replace("LONG", &"long-".repeat(40)).replace("NAME", &"name".repeat(50));
        let told = bed.ok(&["diff", mnt.to_str().unwrap()]);
        assert_eq!(told, expected);
        assert_eq!(bed.ok(&["diff", "work"]), expected);
        let upper = bed.path("store/containers/work/upper");
        assert_eq!(bed.ok(&["diff", upper.to_str().unwrap()]), expected);
        assert_eq!(bed.ok(&["diff", "work", "base"]), expected);
    });
    let before = bed.mounted("work", &[], tree);
    bed.ok(&["commit", "work", "changed"]);
    assert_eq!(bed.mounted("changed", &["--ephemeral"], tree), before, "the committed image is what was there");
    assert_eq!(bed.mounted("changed", &["--read-only"], tree), before, "read-only too");
    assert_eq!(bed.ok(&["diff", "changed"]), bed.ok(&["diff", "work"]), "the new layer tells the same");
    assert_eq!(bed.ok(&["diff", "changed", "base"]), bed.ok(&["diff", "work"]));
    for (compression, reference) in [("gzip", "one"), ("zstd", "two"), ("none", "three")] {
        bed.ok(&["image", "export", "--compression", compression, "changed", &format!("oci:out:{reference}")]);
        let again = Bed { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(again.path("mnt")).unwrap();
        let source = format!("oci:{}:{reference}", bed.path("out").display());
        let id = again.ok(&["image", "import", &source, "again"]);
        assert!(bed.ok(&["image", "ls", "--json"]).contains(id.split(' ').nth(1).unwrap().trim_end()), "{id}");
        assert_eq!(again.mounted("again", &["--ephemeral"], tree), before);
    }
    bed.ok(&["image", "verify"]);
    let containers = fs::read_dir(bed.path("store/containers")).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(containers.collect::<Vec<_>>(), ["work"], "what was ephemeral is gone");
}

#[test]
fn the_same_tree_is_the_same_layer() {
    needs_root!();
    let bed = Bed::new(build);
    let mut ids = Vec::new();
    for name in ["a", "b"] {
        bed.mounted("base", &["--name", name], |mnt| {
            fs::create_dir(mnt.join("new")).unwrap();
            let names = if name == "a" { ["x", "y"] } else { ["y", "x"] };
            for file in names {
                fs::write(mnt.join("new").join(file), file).unwrap();
            }
            fs::remove_file(mnt.join("etc/passwd")).unwrap();
        });
        let line = bed.ok(&["commit", "--source-date-epoch", "1700000000", name, "same"]);
        ids.push(line.split(' ').nth(1).unwrap().to_owned());
    }
    assert_eq!(ids[0], ids[1]);
    let inspected = bed.ok(&["image", "inspect", "same"]);
    assert!(inspected.contains("2023-11-14T22:13:20Z"), "{inspected}");
    bed.mounted("same", &["--ephemeral"], |mnt| {
        assert_eq!(fs::metadata(mnt.join("new/x")).unwrap().mtime(), 1_700_000_000);
    });
}

#[test]
fn metadata_only_copies_are_expanded() {
    needs_root!();
    let bed = Bed::new(build);
    let before = bed.mounted("base", &["--name", "meta", "-o", "metacopy=on"], |mnt| {
        fs::set_permissions(mnt.join("large"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::read(mnt.join("large")).unwrap()
    });
    let blocks = fs::metadata(bed.path("store/containers/meta/upper/large")).unwrap().blocks();
    assert!(blocks < 100, "no data was copied, but there are {blocks} blocks");
    assert_eq!(bed.ok(&["diff", "meta"]), "C /large\n");
    bed.ok(&["commit", "meta", "expanded"]);
    bed.mounted("expanded", &["--ephemeral"], |mnt| {
        assert_eq!(fs::read(mnt.join("large")).unwrap(), before);
        assert_eq!(fs::metadata(mnt.join("large")).unwrap().permissions().mode() & 0o777, 0o600);
    });
}

/// A root filesystem that programs run in: the machine's busybox.
fn busybox() -> Option<PathBuf> {
    ["/bin/busybox", "/usr/bin/busybox"].iter().map(PathBuf::from).find(|path| path.exists())
}

fn build_busybox(root: &Path) {
    for dir in ["bin", "etc", "tmp"] {
        fs::create_dir(root.join(dir)).unwrap();
    }
    fs::copy(busybox().unwrap(), root.join("bin/busybox")).unwrap();
    for applet in ["sh", "id", "pwd", "sleep", "cat", "kill", "echo", "ls", "touch", "env", "test", "ps"] {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\nweb:x:33:34::/srv:/bin/sh\n").unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\nweb:x:34:\nlog:x:50:web\n").unwrap();
}

#[test]
fn programs_run_in_their_own_root() {
    needs_root!();
    needs!("busybox", busybox().is_some());
    let bed = Bed::new(build_busybox);
    let sh = |script: &str| bed.ok(&["run", "base", "/bin/sh", "-c", script]);
    assert_eq!(sh("pwd; echo $HOME; echo $$"), "/\n/\n2\n");
    assert_eq!(
        sh("test -c /dev/null && test -d /proc/1 && test -d /sys/kernel && echo x >/dev/null && echo ok"),
        "ok\n"
    );
    assert_eq!(sh("ls /dev/fd/ >/dev/null && test -e /dev/pts/ptmx && test -d /dev/shm && echo ok"), "ok\n");
    assert!(sh("cat /proc/1/comm").starts_with("plyfs"));
    let user =
        bed.ok(&["run", "-u", "web", "-w", "/srv/www", "-e", "A=b c", "base", "sh", "-c", "id; pwd; echo $A $HOME"]);
    assert_eq!(user, "uid=33(web) gid=34(web) groups=50(log)\n/srv/www\nb c /srv\n");
    for (script, code) in [("exit 7", 7), ("kill -9 $$", 137), ("exit 0", 0)] {
        assert_eq!(bed.plyfs(&["run", "base", "sh", "-c", script]).status().unwrap().code(), Some(code), "{script}");
    }
    assert_eq!(bed.fails(&["run", "base", "/missing"], 127), "/missing: No such file or directory");
    assert_eq!(bed.fails(&["run", "base", "/etc"], 126), "/etc: Permission denied");
    assert_eq!(bed.fails(&["run", "-u", "nobody", "base", "id"], 125), "user nobody: not in the image");
    assert!(bed.fails(&["run", "none", "id"], 125).starts_with("image none: no such image"));
    assert!(bed.plyfs(&["run"]).output().unwrap().status.code() == Some(2));
    // What was written is gone, unless it is to be kept.
    bed.ok(&["run", "--name", "kept", "base", "touch", "/kept"]);
    bed.ok(&["run", "kept", "touch", "/kept2"]);
    assert!(bed.ok(&["diff", "kept"]).contains("A /kept\nA /kept2\n"));
    let containers = fs::read_dir(bed.path("store/containers")).unwrap().count();
    assert_eq!(containers, 1);
}

#[test]
fn a_program_that_is_interrupted_leaves_nothing() {
    needs_root!();
    needs!("busybox", busybox().is_some());
    let bed = Bed::new(build_busybox);
    for (signal, code) in [(Signal::TERM, Some(143)), (Signal::KILL, None)] {
        let mut child = bed.plyfs(&["run", "base", "sleep", "1000"]).spawn().unwrap();
        let containers = || fs::read_dir(bed.path("store/containers")).unwrap().count();
        let is_running = |name: &str| {
            let store = bed.path("store").to_str().unwrap().to_owned();
            fs::read_dir("/proc").unwrap().flatten().any(|process| {
                let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
                let env = fs::read(process.path().join("environ")).unwrap_or_default();
                let mounts = fs::read_to_string(process.path().join("mounts")).unwrap_or_default();
                line.starts_with(name.as_bytes())
                    && (mounts.contains(&store) || String::from_utf8_lossy(&env).contains(&store))
            })
        };
        wait_until("the program runs", || is_running("sleep"));
        kill_process(Pid::from_child(&child), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), code);
        wait_until("everything has ended", || !is_running("sleep") && !is_running(PLYFS));
        wait_until("the container is gone", || containers() == 0);
    }
}

#[track_caller]
fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        sleep(Duration::from_millis(20));
    }
}

#[test]
fn an_image_cannot_lead_mounts_elsewhere() {
    needs_root!();
    needs!("busybox", busybox().is_some());
    let bed = Bed::new(|root| {
        build_busybox(root);
        symlink("/etc", root.join("dev")).unwrap();
    });
    assert_eq!(bed.fails(&["run", "base", "id"], 125), "/dev: it is no directory in the image");
}

#[test]
fn layers_that_are_mounted_stay() {
    needs_root!();
    let bed = Bed::new(build);
    bed.mounted("base", &["--ephemeral"], |mnt| {
        bed.ok(&["image", "rm", "base"]);
        assert_eq!(bed.ok(&["image", "gc"]), "");
        assert_eq!(fs::read(mnt.join("etc/passwd")).unwrap(), b"etc/passwd");
    });
    assert!(bed.ok(&["image", "gc"]).ends_with("removed\n"));
    assert_eq!(fs::read_dir(bed.path("store/layers")).unwrap().count(), 0);
    let upper = bed.path("elsewhere");
    let said = bed.fails(&["mount", "base", "mnt", "--upper", upper.to_str().unwrap()], 1);
    assert!(said.starts_with("image base: no such image"), "{said}");
}

#[test]
fn imports_that_are_killed_finish_the_next_time() {
    let bed = Bed::new(|root| {
        for number in 0..3000 {
            fs::write(root.join(format!("f{number}")), number.to_string()).unwrap();
        }
    });
    bed.ok(&["image", "rm", "base"]);
    bed.ok(&["image", "gc"]);
    for wait in [1, 5, 20, 50, 100] {
        let mut child = bed.plyfs(&["image", "import", "tar:base.tar", "base"]).stderr(Stdio::null()).spawn().unwrap();
        sleep(Duration::from_millis(wait));
        child.kill().unwrap();
        child.wait().unwrap();
        for layer in fs::read_dir(bed.path("store/layers")).unwrap() {
            assert!(layer.unwrap().path().join("layer.json").exists(), "half a layer");
        }
    }
    bed.ok(&["image", "import", "tar:base.tar", "base"]);
    bed.ok(&["image", "verify"]);
    assert_eq!(fs::read_dir(bed.path("store/staging")).unwrap().count(), 0);
    let output = bed.plyfs(&["image", "import", "tar:base.tar", "base"]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains(": there already"));
}

#[test]
fn one_clear_line_for_what_is_wrong() {
    let bed = Bed::new(|root| fs::write(root.join("f"), "").unwrap());
    assert_eq!(bed.fails(&["image", "import", "tar:none.tar"], 1), "./none.tar: No such file or directory");
    assert!(bed.fails(&["image", "import", "ftp:x"], 2).contains("not oci:DIR[:REF], oci-archive:FILE"));
    assert!(bed.fails(&["image", "import", "tar:base.tar", "no such name"], 2).contains("is no name for an image"));
    assert!(bed.fails(&["image", "inspect", "none"], 1).starts_with("image none: no such image in the store"));
    assert!(bed.fails(&["commit", "none", "new"], 1).starts_with("none: no container of the store"));
    assert!(bed.fails(&["image", "export", "base", "dir:x"], 2).contains("not oci:DIR[:REF]"));
}

#[test]
fn every_command_tells_json() {
    let bed = Bed::new(|root| fs::write(root.join("f"), "").unwrap());
    for args in [
        &["image", "import", "tar:base.tar", "base", "--json"][..],
        &["image", "ls", "--json"],
        &["image", "inspect", "base", "--json"],
        &["image", "history", "base", "--json"],
        &["image", "verify", "--json"],
        &["image", "export", "base", "oci:out", "--json"],
        &["diff", "store/layers", "--json"],
        &["image", "gc", "--json"],
    ] {
        let printed = bed.ok(args);
        assert!(printed.starts_with(['{', '[']) && printed.ends_with(['}', ']', '\n']), "{args:?}: {printed}");
    }
}
