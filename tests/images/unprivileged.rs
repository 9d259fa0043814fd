//! Images of a user without privilege, with subordinate ids and without.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::bed::{Bed, PLYFS, build_busybox, busybox};

/// Whom nobody else has heard of, and the first of the subordinate ids.
const GUEST: u32 = 4711;
const FIRST: u32 = 300_000;

/// Tells the guest to all programs of a mount namespace, and waits until nobody needs that any more. Whatever is changed
/// goes with the namespace.
const KEEPER: &str = r#"set -e
for list in passwd group subuid subgid; do cat /etc/$list >$list; done
echo "guest:x:$2:$2::$1:/bin/sh" >>passwd
echo "guest:x:$2:" >>group
for list in subuid subgid; do [ -z "$3" ] || echo "guest:$3:65536" >>$list; done
for list in passwd group subuid subgid; do mount --bind $list /etc/$list; done
mknod fuse c 10 229
chmod 666 fuse
mount --bind fuse /dev/fuse
echo ready
exec cat"#;

/// A store of the guest's.
struct Guest {
    bed: Bed,
    keeper: Child,
}

impl Guest {
    fn new(first: Option<u32>) -> Self {
        let mut bed = Bed::empty();
        let program = bed.path("plyfs");
        // The tests may have been built where only root may look.
        fs::copy(PLYFS, &program).unwrap();
        chown(bed.dir.path(), Some(GUEST), Some(GUEST)).unwrap();
        chown(bed.path("mnt"), Some(GUEST), Some(GUEST)).unwrap();
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", KEEPER, "sh"]).arg(bed.dir.path());
        command.arg(GUEST.to_string()).arg(first.map_or(String::new(), |first| first.to_string()));
        command.current_dir(bed.dir.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut keeper = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(keeper.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        let words = [
            "nsenter".to_owned(),
            format!("--target={}", keeper.id()),
            "--mount".to_owned(),
            format!("--wdns={}", bed.dir.path().display()),
            "setpriv".to_owned(),
            format!("--reuid={GUEST}"),
            format!("--regid={GUEST}"),
            "--clear-groups".to_owned(),
        ];
        bed.called_by = words.into_iter().map(OsString::from).collect();
        bed.program = program;
        bed.pack(build_owned);
        Self { bed, keeper }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        self.keeper.wait().unwrap();
    }
}

/// Programs, and files of several users and modes.
fn build_owned(root: &Path) {
    build_busybox(root);
    for dir in ["srv", "dev", "proc", "sys"] {
        fs::create_dir(root.join(dir)).unwrap();
    }
    for (path, mode, uid, gid) in [
        ("srv/f", 0o604, 33, 34),
        ("etc/shadow", 0o640, 0, 42),
        ("etc/closed", 0o000, 33, 0),
        ("bin/tool", 0o6755, 33, 34),
        ("srv", 0o2750, 33, 34),
    ] {
        let path = root.join(path);
        if !path.exists() {
            fs::write(&path, "text\n").unwrap();
        }
        chown(&path, Some(uid), Some(gid)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    symlink("shadow", root.join("etc/link")).unwrap();
}

/// What is changed in a container.
const SCRIPT: &str = "echo more >>/etc/shadow; touch /etc/new; rm /srv/f; mkdir /d; mv /etc/passwd /etc/users";

/// Runs the script in a container, and makes an image of that; what it is called by its digest.
fn round(bed: &Bed, script: &str) -> String {
    bed.ok(&["run", "--name", "work", "base", "sh", "-c", script]);
    let told = bed.ok(&["commit", "--source-date-epoch", "1", "work", "changed"]);
    assert!(bed.ok(&["diff", "work"]).contains("C /etc/shadow\n"));
    told.split(' ').nth(1).unwrap().trim_end().to_owned()
}

/// What root makes of the same.
fn of_root(guest: &Guest, script: &str) -> (Bed, String) {
    let bed = Bed::empty();
    fs::copy(guest.bed.path("base.tar"), bed.path("base.tar")).unwrap();
    bed.ok(&["image", "import", "tar:base.tar", "base"]);
    let id = round(&bed, script);
    (bed, id)
}

fn has(program: &str) -> bool {
    std::env::split_paths(&std::env::var_os("PATH").unwrap()).any(|dir| dir.join(program).exists())
}

/// The directory of the only layer that the guest has imported.
fn layer(bed: &Bed) -> PathBuf {
    let mut layers = fs::read_dir(bed.path("store/layers")).unwrap();
    layers.next().unwrap().unwrap().path().join("root")
}

/// Takes all away that there is.
fn clear(bed: &Bed, names: &[&str]) {
    bed.ok(&["image", "verify"]);
    bed.ok(&[&["image", "rm"], names].concat());
    let told = bed.ok(&["image", "gc"]);
    for list in ["layers", "staging", "containers", "blobs", "images"] {
        assert_eq!(fs::read_dir(bed.path("store").join(list)).unwrap().count(), 0, "{list}: {told}");
    }
}

#[test]
fn files_belong_to_subordinate_ids() {
    needs_root!();
    needs!("busybox", busybox().is_some());
    needs!("newuidmap", has("newuidmap"));
    let guest = Guest::new(Some(FIRST));
    let bed = &guest.bed;
    bed.ok(&["image", "import", "tar:base.tar", "base"]);
    assert!(bed.ok(&["image", "ls"]).contains("base:latest"));
    let meta = |path: &str| fs::symlink_metadata(layer(bed).join(path)).unwrap();
    // The guest is root in the image.
    assert_eq!((meta("srv").uid(), meta("srv").gid()), (FIRST + 32, FIRST + 33));
    assert_eq!((meta("etc/shadow").uid(), meta("etc/shadow").gid()), (GUEST, FIRST + 41));
    assert_eq!(meta("bin/tool").mode() & 0o7777, 0o6755);
    let told = bed.ok(&["run", "base", "sh", "-c", "id; ls -ln /etc/shadow /etc/closed; cat /etc/shadow"]);
    let columns: Vec<Vec<&str>> = told.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(columns[0], ["uid=0(root)", "gid=0(root)"], "{told}");
    assert_eq!((columns[1][0], columns[1][2], columns[1][3]), ("----------", "33", "0"), "{told}");
    assert_eq!((columns[2][0], columns[2][2], columns[2][3]), ("-rw-r-----", "0", "42"), "{told}");
    assert_eq!(columns[3], ["text"]);
    assert_eq!(bed.ok(&["run", "-u", "web", "base", "id"]), "uid=33(web) gid=34(web) groups=50(log)\n");
    let script = format!("{SCRIPT}; touch /srv/new; chown 33:50 /etc/new");
    let id = round(bed, &script);
    let (root, of_root) = of_root(&guest, &script);
    assert_eq!(id, of_root, "root makes the same image, to the byte");
    bed.ok(&["image", "export", "changed", "oci:out:x"]);
    let again = root.ok(&["image", "import", &format!("oci:{}:x", bed.path("out").display()), "again"]);
    assert!(again.contains(&id), "{again}");
    let said = bed.fails(&["mount", "base", "mnt"], 1);
    assert!(said.ends_with("in a shell of unshare --map-root-user --map-auto --mount"), "{said}");
    // There, the mount shows the image's users, and takes what they may do.
    let script = "$0 mount --name other base mnt && ls -ln mnt/etc/shadow && echo x >mnt/srv/x && chown 33:50 mnt/srv/x && $0 umount mnt";
    let mut shell = bed.called("unshare", &["--map-root-user", "--map-auto", "--mount", "sh", "-c", script]);
    let output = shell.arg(&bed.program).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(shown.split_whitespace().collect::<Vec<_>>().starts_with(&["-rw-r-----", "1", "0", "42"]), "{shown}");
    assert_eq!(bed.ok(&["diff", "other"]), "C /srv\nA /srv/x\n");
    let meta = fs::symlink_metadata(bed.path("store/containers/other/upper/srv/x")).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (FIRST + 32, FIRST + 49));
    clear(bed, &["base", "changed", "work", "other"]);
}

#[test]
fn owners_are_kept_where_there_are_no_subordinate_ids() {
    needs_root!();
    needs!("busybox", busybox().is_some());
    let guest = Guest::new(None);
    let bed = &guest.bed;
    bed.ok(&["image", "import", "tar:base.tar", "base"]);
    let meta = |path: &str| fs::symlink_metadata(layer(bed).join(path)).unwrap();
    assert_eq!((meta("srv").uid(), meta("etc/shadow").gid()), (GUEST, GUEST));
    assert_eq!(bed.ok(&["run", "base", "cat", "/etc/shadow"]), "text\n");
    let id = round(bed, SCRIPT);
    let (_, of_root) = of_root(&guest, SCRIPT);
    assert_eq!(id, of_root, "root makes the same image, to the byte");
    bed.ok(&["image", "export", "changed", "oci:out:x"]);
    // In a mount of the guest's own, all is as in the image.
    bed.ok(&["mount", "--name", "seen", "base", "mnt"]);
    let files = ["mnt/srv", "mnt/etc/shadow", "mnt/etc/closed", "mnt/bin/tool"];
    let shown = bed.called("stat", &[&["-c", "%a %u:%g %F"], &files[..]].concat()).output().unwrap();
    bed.ok(&["umount", "mnt"]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert_eq!(shown, "2750 33:34 directory\n640 0:42 regular file\n0 33:0 regular file\n6755 33:34 regular file\n");
    clear(bed, &["base", "changed", "work", "seen"]);
}

#[test]
fn devices_are_refused_or_left_out() {
    needs_root!();
    let guest = Guest::new(None);
    let bed = &guest.bed;
    bed.pack(|root| {
        let mode = rustix::fs::Mode::from_raw_mode(0o666);
        let kind = rustix::fs::FileType::CharacterDevice;
        rustix::fs::mknodat(rustix::fs::CWD, root.join("dev/null"), kind, mode, rustix::fs::makedev(1, 3)).unwrap();
    });
    let said = bed.fails(&["image", "import", "tar:base.tar", "base"], 1);
    assert!(
        said.ends_with("entry ./dev/null: a device node, which takes privilege to make (--skip-devices)"),
        "{said}"
    );
    for list in ["layers", "staging", "images"] {
        assert_eq!(fs::read_dir(bed.path("store").join(list)).unwrap().count(), 0, "{list}");
    }
    let output = bed.plyfs(&["image", "import", "--skip-devices", "tar:base.tar", "base"]).output().unwrap();
    assert!(output.status.success());
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains(": left out: device nodes\n"), "{told}");
}
