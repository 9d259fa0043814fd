//! Programs on an image: what they see, how they end, and what is left of them.

use std::fs;
use std::os::unix::fs::symlink;

use rustix::process::{Pid, Signal, kill_process};

use crate::bed::{Bed, PLYFS, build_busybox, busybox, wait_until};

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
