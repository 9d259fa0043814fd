//! Which programs run.

use std::fs::read_dir;
use std::io;
use std::sync::{OnceLock, mpsc};
use std::thread;

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

type Question = (u64, mpsc::Sender<bool>);

/// Who looks for threads that may not.
static WHO_LOOKS: OnceLock<mpsc::Sender<Question>> = OnceLock::new();

/// Has a thread look that may what the calling one may: no other process can be looked at from within Landlock.
///
/// # Errors
/// Those of starting a thread.
pub fn look_from_here() -> io::Result<()> {
    let (ask, asked) = mpsc::channel::<Question>();
    thread::Builder::new().name("look".into()).spawn(move || {
        for (ino, answer) in asked {
            // Who has asked may have gone.
            answer.send(look(ino)).ok();
        }
    })?;
    WHO_LOOKS.get_or_init(|| ask);
    Ok(())
}

/// Whether a process that we may look at runs the program with the inode number `ino` from a filesystem without a device
/// of its own, such as a FUSE mount. Asks no filesystem, so that it cannot wait for ourselves.
pub fn is_running(ino: u64) -> bool {
    let (answer, answered) = mpsc::channel();
    let asked = WHO_LOOKS.get().is_some_and(|ask| ask.send((ino, answer)).is_ok());
    match asked.then(|| answered.recv()) {
        Some(Ok(is_running)) => is_running,
        _ => look(ino),
    }
}

fn look(ino: u64) -> bool {
    let is_it = |process: std::fs::DirEntry| {
        let stat = statx(CWD, process.path().join("exe"), AtFlags::STATX_DONT_SYNC, StatxFlags::INO);
        stat.is_ok_and(|stat| stat.stx_ino == ino && stat.stx_dev_major == 0)
    };
    read_dir("/proc").is_ok_and(|processes| processes.flatten().any(is_it))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn only_programs_that_run_do() {
        let ours = std::fs::metadata("/proc/self/exe").unwrap();
        assert!(!is_running(u64::MAX));
        // This one runs, and counts where it lies on a filesystem without a device.
        assert_eq!(is_running(ours.ino()), rustix::fs::major(ours.dev()) == 0);
    }
}
