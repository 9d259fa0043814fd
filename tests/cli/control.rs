//! The control socket of a mount, and `plyfs ps`.

use std::io::Write;
use std::os::unix::net::UnixStream;

use serde_json::Value;

use super::*;

impl Bed {
    /// plyfs with its control sockets in a place of their own.
    pub(super) fn apart(&self) -> Command {
        let place = self.path("run");
        fs::create_dir_all(&place).unwrap();
        let mut command = self.plyfs();
        command.env("XDG_RUNTIME_DIR", place);
        command
    }

    /// Mounts in the background, with the control socket in its place.
    pub(super) fn mount_apart(&self, more: &str) {
        let options = format!("lowerdir=a:b,upperdir=u,workdir=w{more}");
        let output = self.apart().args(["-o", &options, "m"]).output().unwrap();
        assert_eq!((said(&output).as_str(), output.status.code()), ("", Some(0)));
    }

    /// What a command tells that succeeds.
    #[track_caller]
    pub(super) fn told(&self, args: &[&str]) -> String {
        let output = self.apart().args(args).output().unwrap();
        assert_eq!((said(&output).as_str(), output.status.code()), ("", Some(0)), "{args:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The sockets that there are.
    pub(super) fn sockets(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path("run/plyfs")).into_iter().flatten();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    /// This bed's mount among those that `plyfs ps` tells.
    fn row(&self) -> Option<Value> {
        let rows: Vec<Value> = serde_json::from_str(&self.told(&["ps", "--json"])).unwrap();
        let mountpoint = self.path("m");
        rows.into_iter().find(|row| row["mountpoint"].as_str() == mountpoint.to_str())
    }
}

/// Sends bytes to a socket, and tells what is answered until its end.
fn ask(socket: &Path, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    // The daemon may have stopped listening before the end of what is too long.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

fn descriptors(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

#[test]
fn ps_tells_what_is_mounted_and_the_socket_goes_with_it() {
    needs_root!();
    let bed = Bed::new();
    bed.mount_apart("");
    fs::read_to_string(bed.path("m/a")).unwrap();
    let place = fs::metadata(bed.path("run/plyfs")).unwrap();
    assert_eq!((place.mode() & 0o777, bed.sockets().len()), (0o700, 1));
    let row = bed.row().unwrap();
    assert_eq!(row["state"], "serving");
    assert_eq!(row["pid"].as_i64().map(|pid| pid as i32), bed.daemon());
    let paths =
        |names: &[&str]| names.iter().map(|name| bed.path(name).to_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(row["lowers"], serde_json::json!(paths(&["a", "b"])));
    assert_eq!((&row["upper"], &row["work"]), (&paths(&["u"])[0].clone().into(), &paths(&["w"])[0].clone().into()));
    assert_eq!((&row["image"], &row["read_only"]), (&Value::Null, &Value::Bool(false)));
    for number in ["requests", "memory", "descriptors", "since"] {
        assert!(row[number].as_u64().unwrap() > 0, "{number} of {row}");
    }
    let table = bed.told(&["ps", "--layers"]);
    let mountpoint = bed.path("m").display().to_string();
    let mut lines = table.lines().skip_while(|line| !line.starts_with(&mountpoint));
    let rest = lines.next().unwrap().strip_prefix(&mountpoint).unwrap();
    assert_eq!(rest.split_whitespace().next(), Some("3"));
    let layers: Vec<String> = lines.take(3).map(str::to_owned).collect();
    let expected = [("upper", "u"), ("lower", "a"), ("lower", "b")];
    assert_eq!(layers, expected.map(|(what, name)| format!("  {what} {}", bed.path(name).display())));
    bed.told(&["umount", "m"]);
    assert_eq!((bed.sockets(), bed.row()), (Vec::new(), None));
}

#[test]
fn a_dead_daemon_is_told_and_its_socket_removed() {
    needs_root!();
    let bed = Bed::new();
    bed.mount_apart("");
    let daemon = bed.daemon().unwrap();
    kill(daemon, Signal::KILL);
    wait_until("the daemon is dead", || bed.daemon().is_none());
    assert_eq!(bed.sockets().len(), 1);
    // The kernel closes what a process had open after the process is no longer seen.
    wait_until("the mount is told to be dead", || bed.row().unwrap()["state"] == "dead: plyfs umount takes it away");
    assert_eq!(bed.sockets(), Vec::<PathBuf>::new());
    bed.told(&["umount", "m"]);
    assert_eq!(bed.row(), None);
    // The next daemon removes it as well.
    bed.mount_apart("");
    bed.signal(Signal::KILL);
    wait_until("the daemon is dead", || bed.daemon().is_none());
    bed.told(&["umount", "m"]);
    assert_eq!(bed.sockets().len(), 1);
    bed.mount_apart("");
    assert_eq!(bed.sockets().len(), 1);
}

#[test]
fn hostile_clients_keep_nobody_waiting_and_nothing_open() {
    needs_root!();
    let bed = Bed::new();
    bed.mount_apart("");
    // What is cached takes descriptors as well.
    assert_eq!(names(bed.path("m")), ["a", "b"]);
    bed.row().unwrap();
    let (daemon, [socket]) = (bed.daemon().unwrap(), bed.sockets().try_into().unwrap());
    let before = descriptors(daemon);
    let error = |text: &str| format!("{{\"version\":1,\"error\":\"{text}\"}}\n");
    assert_eq!(ask(&socket, &vec![b'x'; 1 << 20]), "", "too long");
    assert!(ask(&socket, b"\n").starts_with("{\"version\":1,\"error\":\"not a request: "));
    assert!(
        ask(&socket, b"{\"version\":1,\"ask\":\"nonsense\"}\n")
            .starts_with("{\"version\":1,\"error\":\"not a request: ")
    );
    assert_eq!(
        ask(&socket, b"{\"version\":2,\"ask\":\"about\"}\n"),
        error("protocol version 2: the daemon speaks version 1")
    );
    let deep = [&b"{\"version\":1,\"ask\":"[..], &[b'['; 10_000], b"\n"].concat();
    assert!(ask(&socket, &deep).contains("not a request"));
    // Those who say nothing, or half of it, give way to who asks.
    let mut silent: Vec<UnixStream> = (0..50).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    for stream in &mut silent {
        let _ = stream.write_all(b"{\"version\":1,");
    }
    bed.row().unwrap();
    assert!(descriptors(daemon) <= before + 8, "{} descriptors, then {}", before, descriptors(daemon));
    assert_eq!(names(bed.path("m")), ["a", "b"]);
    wait_until("they are sent away", || descriptors(daemon) <= before);
    drop(silent);
    bed.row().unwrap();
}

#[test]
fn other_users_are_refused() {
    needs_root!();
    let bed = Bed::new();
    bed.mount_apart("");
    let [socket]: [PathBuf; 1] = bed.sockets().try_into().unwrap();
    // Their own places are looked into, which another's is not among.
    let program = bed.path("plyfs");
    fs::copy(PLYFS, &program).unwrap();
    let as_nobody = |args: &[&str]| {
        let mut command = Command::new(&program);
        command.args(args).current_dir(bed.dir.path()).env_remove("XDG_RUNTIME_DIR").uid(65534).gid(65534);
        command.output().unwrap()
    };
    let output = as_nobody(&["ps", "--json"]);
    assert_eq!((output.stdout.as_slice(), output.status.code()), (&b"[]\n"[..], Some(0)), "{}", said(&output));
    // Were the socket open to all, the daemon would look at who asks.
    fs::set_permissions(bed.path("run/plyfs"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o777)).unwrap();
    let script = "import socket,sys\ns=socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\n\
                  s.sendall(b'{\"version\":1,\"ask\":\"about\"}\\n')\nprint(s.recv(9999).decode(),end='')";
    let output = Command::new("python3").args(["-c", script]).arg(&socket).uid(65534).gid(65534).output().unwrap();
    let refused = "{\"version\":1,\"error\":\"a mount of another user\"}\n";
    assert_eq!(String::from_utf8_lossy(&output.stdout), refused, "{}", said(&output));
}

#[test]
fn a_mount_is_one_without_a_socket() {
    let bed = Bed::new();
    // In a user namespace, root's place is not ours to write to; and without any other there is none.
    let script = r#"
        set -e
        "$0" -o lowerdir=a:b,upperdir=u,workdir=w m; "$0" ps | grep -c "^$PWD/m  *3 "; "$0" umount m
        export TMPDIR=/nonexistent; unset XDG_RUNTIME_DIR
        mount -t tmpfs -o ro tmpfs /run
        "$0" -o lowerdir=a:b,upperdir=u,workdir=w,log=log m; cat m/a; echo; grep -c 'no control socket' log
        "$0" ps | grep "^$PWD/m " | grep -o 'no control socket'
        "$0" umount m
    "#;
    fs::create_dir(bed.path("run")).unwrap();
    let mut command = bed.unshared(&["-Urm"], "sh", script);
    let output = command.env("XDG_RUNTIME_DIR", bed.path("run")).output().unwrap();
    if said(&output).starts_with("unshare:") {
        return skip(&said(&output));
    }
    assert_eq!((said(&output).as_str(), output.status.code()), ("", Some(0)));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1\na\n1\nno control socket\n");
}

#[test]
fn stats_tell_what_a_mount_has_done() {
    needs_root!();
    let bed = Bed::new();
    fs::write(bed.path("a/big"), vec![7; 100_000]).unwrap();
    bed.mount_apart("");
    fs::write(bed.path("m/a"), "more").unwrap();
    fs::OpenOptions::new().append(true).open(bed.path("m/big")).unwrap().write_all(b"x").unwrap();
    fs::remove_file(bed.path("m/b")).unwrap();
    fs::read_dir(bed.path("m/missing")).unwrap_err();
    fs::read_dir(bed.path("m/a")).unwrap_err();
    let open = fs::File::open(bed.path("m/big")).unwrap();
    assert!(rustix::fs::getxattr(bed.path("m/a"), "user.none", &mut [0_u8; 8][..]).is_err());
    let stats: Value = serde_json::from_str(&bed.told(&["stats", "--json", "m"])).unwrap();
    let operation = |name: &str| stats["operations"].as_array().unwrap().iter().find(|op| op["name"] == name).unwrap();
    assert_eq!(operation("unlink")["requests"], 1);
    assert!(operation("getxattr")["errors"].as_u64().unwrap() >= 1, "{stats}");
    for name in ["lookup", "open", "unlink"] {
        let [p50, p99, max, total] = ["p50", "p99", "max", "total"].map(|key| operation(name)[key].as_u64().unwrap());
        assert!(p50 > 0 && p50 <= p99 && p99 <= max && total > 0, "{name} in {stats}");
    }
    let copies = &stats["copy_ups"];
    assert_eq!((&copies["count"], &copies["metadata_only"]), (&2.into(), &0.into()), "{stats}");
    assert_eq!((&copies["bytes"], &stats["whiteouts"]), (&100_000.into(), &1.into()), "{stats}");
    let open_files = ["open_through", "open_cached"].map(|key| stats[key].as_u64().unwrap());
    assert_eq!(open_files.iter().sum::<u64>(), 1);
    drop(open);
    assert!(stats["inodes"].as_u64().unwrap() >= 3 && stats["lookups"].as_u64() >= stats["inodes"].as_u64());
    assert!(stats["capabilities"].as_array().unwrap().contains(&"FUSE_DO_READDIRPLUS".into()));
    assert!(bed.told(&["stats", "m"]).contains("copy-ups      2, "));
    assert!(bed.told(&["stats", "--prometheus", "m"]).contains("\nplyfs_whiteouts_total{mountpoint="));
}

#[test]
fn what_is_not_used_is_told_with_the_reason() {
    needs_root!();
    let bed = Bed::new();
    bed.mount_apart(",passthrough=0,noacl,threads=2,stats=0");
    assert_eq!(names(bed.path("m")), ["a", "b"]);
    let stats = bed.told(&["stats", "m"]);
    for line in [
        "off           passthrough: passthrough=0 is given",
        "off           acl: noacl is given",
        "off           data with opens: threads= is above 1",
        "off           counting: stats=0 is given",
    ] {
        assert!(stats.lines().any(|told| told == line), "{line} is not in\n{stats}");
    }
    assert!(stats.contains(" 0 requests\n"));
}

#[test]
fn what_cannot_be_looked_into_is_told_in_one_line() {
    needs_root!();
    let bed = Bed::new();
    let fails = |args: &[&str], code: i32, line: &str| {
        let output = bed.apart().args(args).output().unwrap();
        assert_eq!((said(&output), output.status.code()), (format!("plyfs: {line}\n"), Some(code)), "{args:?}");
    };
    let path = |name: &str| bed.path(name).display().to_string();
    fails(&["stats"], 2, "the following required arguments were not provided: <MOUNTPOINT>");
    fails(&["stats", "--json", "--prometheus", "m"], 2, "the argument '--json' cannot be used with '--prometheus'");
    fails(&["ps", "m"], 2, "unexpected argument 'm' found");
    fails(&["stats", "m"], 1, &format!("{}: not a mount of plyfs", path("m")));
    fails(&["stats", "missing"], 1, "missing: No such file or directory");
    fails(&["stats", "/proc"], 1, "/proc: not a mount of plyfs");
    bed.mount_apart("");
    let program = bed.path("plyfs");
    fs::copy(PLYFS, &program).unwrap();
    let output =
        Command::new(&program).args(["stats", "m"]).current_dir(bed.dir.path()).uid(65534).gid(65534).output().unwrap();
    let line = format!("plyfs: {}: a mount of another user\n", path("m"));
    assert_eq!((said(&output), output.status.code()), (line, Some(1)));
    bed.signal(Signal::KILL);
    wait_until("the daemon is dead", || bed.daemon().is_none());
    fails(&["stats", "m"], 1, &format!("{}: its daemon is dead: plyfs umount takes the mount away", path("m")));
}

#[test]
fn each_request_is_traced_on_a_line() {
    needs_root!();
    for variable in ["RUST_LOG", "PLYFS_LOG"] {
        let bed = Bed::new();
        let options = "lowerdir=a:b,upperdir=u,workdir=w,log=log";
        let output = bed.apart().env(variable, "plyfs=trace").args(["-o", options, "m"]).output().unwrap();
        assert_eq!((said(&output).as_str(), output.status.code()), ("", Some(0)));
        fs::create_dir(bed.path("m/d")).unwrap();
        fs::read_to_string(bed.path("m/d/missing")).unwrap_err();
        fs::remove_dir(bed.path("m/d")).unwrap();
        bed.told(&["umount", "m"]);
        let log = fs::read_to_string(bed.path("log")).unwrap();
        let dir = log
            .lines()
            .find_map(|line| line.split_once("lookup ")?.1.strip_suffix(" us")?.split_once(" /d/missing: ok, "));
        let (ino, time) = dir.unwrap_or_else(|| panic!("not traced in {log}"));
        assert!(ino.parse::<u64>().unwrap() > 1 && time.parse::<u64>().is_ok(), "{ino} {time}");
        for traced in ["mkdir 1 /d: ok, ", "rmdir 1 /d: ok, "] {
            assert!(log.contains(traced), "{traced} is not in {log}");
        }
        assert!(!log.contains("TRACE fuser"), "{log}");
    }
}
