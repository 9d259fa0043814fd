//! How a mount ends: by signals, by unmounting, with its terminal, and by the death of its daemon.

use super::*;

/// A process that has its working directory in a mount, as long as this lives.
struct Inside(Child);

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Bed {
    fn stay_inside(&self) -> Inside {
        Inside(Command::new("sleep").arg("1000").current_dir(self.path("m")).spawn().unwrap())
    }

    /// The process that waits for the daemon's death.
    fn watcher(&self) -> Option<i32> {
        let daemon = self.daemon()?;
        fs::read_to_string(format!("/proc/{daemon}/task/{daemon}/children")).ok()?.trim().parse().ok()
    }
}

/// Whether the process is there, and not only what is left of it for its parent.
fn runs(pid: i32) -> bool {
    fs::read_link(format!("/proc/{pid}/exe")).is_ok()
}

#[test]
fn signals_end_it() {
    needs_root!();
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let bed = Bed::new();
        bed.mount();
        fs::remove_file(bed.path("m/b")).unwrap();
        fs::write(bed.path("m/a"), "changed").unwrap();
        bed.signal(signal);
        bed.assert_gone();
        assert_eq!(fs::read_to_string(bed.path("u/a")).unwrap(), "changed");
    }
}

#[test]
fn in_the_foreground_control_c_ends_it() {
    needs_root!();
    let bed = Bed::new();
    let child = bed.serve();
    assert_eq!(names(bed.path("m")), ["a", "b"]);
    kill(child.id() as i32, Signal::INT);
    assert_eq!(ends_with(child, 0), "");
    bed.assert_gone();
}

#[test]
fn unmounting_ends_it() {
    needs_root!();
    for command in [&["umount"][..], &["fusermount3", "-u"], &[PLYFS, "umount"], &[PLYFS, "umount", "--lazy"]] {
        let bed = Bed::new();
        let child = bed.serve();
        fs::remove_file(bed.path("m/a")).unwrap();
        let output = Command::new(command[0]).args(&command[1..]).arg(bed.path("m")).output();
        if output.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
            skip(command[0]);
            unmount(bed.path("m"), UnmountFlags::empty()).unwrap();
        } else {
            assert!(output.as_ref().unwrap().status.success(), "{command:?}: {output:?}");
        }
        assert_eq!(ends_with(child, 0), "", "{command:?}");
        bed.assert_gone();
    }
}

#[test]
fn a_busy_mount_goes_with_its_last_user() {
    needs_root!();
    let bed = Bed::new();
    let child = bed.serve();
    let file = fs::File::create(bed.path("m/open")).unwrap();
    let output = bed.plyfs().args(["umount", "m"]).output().unwrap();
    let line = format!("plyfs: {}: Device or resource busy\n", bed.path("m").display());
    assert_eq!((said(&output), output.status.code()), (line, Some(1)));
    kill(child.id() as i32, Signal::TERM);
    wait_until("the mount is gone", || bed.entry().is_none());
    // Still served.
    file.set_len(5).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 5);
    drop(file);
    assert_eq!(ends_with(child, 0), "");
    bed.assert_gone();
    assert_eq!(fs::metadata(bed.path("u/open")).unwrap().len(), 5);
}

#[test]
fn a_second_control_c_ends_at_once() {
    needs_root!();
    let bed = Bed::new();
    let child = bed.serve();
    let _file = fs::File::create(bed.path("m/open")).unwrap();
    kill(child.id() as i32, Signal::INT);
    wait_until("the mount is gone", || bed.entry().is_none());
    kill(child.id() as i32, Signal::INT);
    ends_with(child, 1);
}

#[test]
fn what_is_mounted_over_it_stays() {
    needs_root!();
    let bed = Bed::new();
    let child = bed.serve();
    let over = rustix::mount::mount("none", bed.path("m"), "tmpfs", rustix::mount::MountFlags::empty(), None);
    over.unwrap();
    kill(child.id() as i32, Signal::INT);
    sleep(Duration::from_millis(300));
    assert!(bed.entry().unwrap().contains(" tmpfs "));
    kill(child.id() as i32, Signal::INT);
    let said = ends_with(child, 1);
    assert!(said.contains("something else is mounted over it"), "{said}");
}

#[test]
fn a_dead_mount_can_be_unmounted() {
    needs_root!();
    let bed = Bed::new();
    bed.mount();
    let user = bed.stay_inside();
    bed.signal(Signal::KILL);
    wait_until("nobody serves it", || {
        fs::read_dir(bed.path("m")).err().and_then(|error| error.raw_os_error()) == Some(libc::ENOTCONN)
    });
    let output = bed.plyfs().args(["umount", "m"]).output().unwrap();
    let line = format!("plyfs: {}: Device or resource busy\n", bed.path("m").display());
    assert_eq!((said(&output), output.status.code()), (line, Some(1)));
    let output = bed.plyfs().args(["umount", "--lazy", "m"]).output().unwrap();
    assert_eq!((said(&output).as_str(), output.status.code()), ("", Some(0)));
    assert_eq!(bed.entry(), None);
    bed.mount();
    assert_eq!(names(bed.path("m")), ["a", "b"]);
    drop(user);

    bed.signal(Signal::KILL);
    wait_until("the daemon has ended", || bed.daemon().is_none());
    let output = bed.plyfs().args(["umount", "m"]).output().unwrap();
    assert_eq!((said(&output).as_str(), output.status.code()), ("", Some(0)));
    assert_eq!(bed.entry(), None);
}

#[test]
fn auto_unmount_takes_away_the_mount_of_a_killed_daemon() {
    needs_root!();
    for is_used in [false, true] {
        let bed = Bed::new();
        bed.mount_with(",auto_unmount");
        fs::write(bed.path("m/new"), "new").unwrap();
        let user = is_used.then(|| bed.stay_inside());
        let watcher = bed.watcher().unwrap();
        // It outlives all but its daemon.
        for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
            kill(watcher, signal);
        }
        bed.signal(Signal::KILL);
        wait_until("the mount is gone", || bed.entry().is_none());
        wait_until("the watcher has ended", || !runs(watcher));
        assert_eq!(bed.daemon(), None);
        assert_eq!(names(bed.path("m")).len(), 0);
        fs::write(bed.path("m/below"), "").unwrap();
        fs::remove_file(bed.path("m/below")).unwrap();
        bed.mount();
        assert_eq!(names(bed.path("m")), ["a", "b", "new"]);
        drop(user);
    }
}

#[test]
fn auto_unmount_leaves_what_is_mounted_over_it() {
    needs_root!();
    let bed = Bed::new();
    bed.mount_with(",auto_unmount");
    let over = rustix::mount::mount("none", bed.path("m"), "tmpfs", rustix::mount::MountFlags::empty(), None);
    over.unwrap();
    let watcher = bed.watcher().unwrap();
    bed.signal(Signal::KILL);
    wait_until("the watcher has ended", || !runs(watcher));
    assert!(bed.entry().unwrap().contains(" tmpfs "));
}

#[test]
fn the_watcher_of_auto_unmount_ends_with_its_daemon_and_keeps_nothing() {
    needs_root!();
    for command in [&["umount"][..], &[PLYFS, "umount"], &["kill"]] {
        let bed = Bed::new();
        let script = "exec 7</etc/passwd; exec \"$0\" -o lowerdir=a:b,upperdir=u,workdir=w,auto_unmount m";
        let mut mount = Command::new("sh");
        mount.args(["-c", script, PLYFS]).current_dir(bed.dir.path()).stdin(Stdio::piped());
        // Reads both pipes to their end, which does not come as long as somebody holds them.
        let output = mount.output().unwrap();
        assert_eq!((said(&output).as_str(), output.status.code()), ("", Some(0)));
        let watcher = bed.watcher().unwrap();
        let process = PathBuf::from(format!("/proc/{watcher}"));
        // It is there before the daemon serves, but not to the end of its start.
        wait_until("it has nothing but the pipe", || names(process.join("fd")) == ["0", "1", "2"]);
        for fd in ["0", "1", "2"] {
            assert!(fs::read_link(process.join("fd").join(fd)).unwrap().to_str().unwrap().starts_with("pipe:"));
        }
        assert_eq!(fs::read_link(process.join("cwd")).unwrap(), Path::new("/"));
        if command == ["kill"] {
            bed.signal(Signal::TERM);
        } else {
            let output = Command::new(command[0]).args(&command[1..]).arg(bed.path("m")).output().unwrap();
            assert!(output.status.success(), "{command:?}: {output:?}");
        }
        // Who has waited for the daemon has waited for both.
        assert!(!runs(watcher) || command != [PLYFS, "umount"]);
        wait_until("the watcher has ended", || !runs(watcher));
        bed.assert_gone();
    }
}

#[test]
fn a_terminal_that_goes_away_ends_a_daemon_in_the_foreground_only() {
    needs_root!();
    for (flags, lasts) in [("-f", false), ("-f -o auto_unmount", false), ("", true), ("-o auto_unmount", true)] {
        let bed = Bed::new();
        let plyfs = format!("{PLYFS} {flags} -o lowerdir=a:b,upperdir=u,workdir=w m");
        let mut session = Command::new("script");
        session.args(["-qc", &format!("{plyfs} && exec sleep 1000"), "/dev/null"]).current_dir(bed.dir.path());
        session.env("SHELL", "/bin/sh").stdin(Stdio::null()).stdout(Stdio::null());
        let mut session = match session.spawn() {
            Ok(session) => session,
            Err(error) => return skip(&format!("script: {error}")),
        };
        wait_until("the mount is there", || bed.entry().is_some());
        assert_eq!(names(bed.path("m")), ["a", "b"]);
        // With it goes the terminal, of which those in its session are told.
        session.kill().unwrap();
        session.wait().unwrap();
        if lasts {
            fs::write(bed.path("m/new"), "").unwrap();
            let output = bed.plyfs().args(["umount", "m"]).output().unwrap();
            assert_eq!((said(&output).as_str(), output.status.code()), ("", Some(0)));
        } else {
            wait_until("the mount is gone", || bed.entry().is_none());
        }
        bed.assert_gone();
    }
}

#[test]
fn an_aborted_connection_leaves_no_mount() {
    needs_root!();
    let bed = Bed::new();
    let child = bed.serve();
    let device = fs::metadata(bed.path("m")).unwrap().dev();
    let control = bed.path("a");
    rustix::mount::mount("none", &control, "fusectl", rustix::mount::MountFlags::empty(), None).unwrap();
    fs::write(control.join(rustix::fs::minor(device).to_string()).join("abort"), "1").unwrap();
    unmount(&control, UnmountFlags::DETACH).unwrap();
    ends_with(child, 0);
    wait_until("the mount is gone", || bed.entry().is_none());
}
