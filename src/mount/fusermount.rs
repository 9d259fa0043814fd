//! fusermount3, the set-user-id program by which users mount and unmount.

use std::ffi::{OsStr, OsString};
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rustix::mount::MountFlags;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType, recvmsg, socketpair,
};

use crate::config::MountOptions;
use crate::error::Errno;

use super::failure::{Failure, reason};
use super::kernel::{escaped, source};

/// What it may be called, the newer one first.
const PROGRAMS: [&str; 2] = ["fusermount3", "fusermount"];

/// Mounts at `path`; `None` where there is no such program.
///
/// # Errors
/// What the program says.
pub(super) fn mount(path: &Path, options: &MountOptions) -> Result<Option<OwnedFd>, Failure> {
    let list = list(options);
    for program in PROGRAMS {
        let failed = |errno| Failure::new(format!("{program}: {}", reason(errno)));
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).map_err(failed)?;
        let mut command = Command::new(program);
        command.arg("-o").arg(&list).arg("--").arg(path);
        // It sends the device to the descriptor that this names: its standard input.
        command.env("_FUSE_COMMFD", "0").stdin(theirs).stdout(Stdio::null()).stderr(Stdio::piped());
        let Some(child) = start(&mut command, program)? else { continue };
        // The command holds the other end too, for as long as it lives.
        drop(command);
        let device = receive(&ours);
        let output = child.wait_with_output().map_err(|error| failed(errno(&error)))?;
        return match device {
            Ok(Some(device)) if output.status.success() => {
                if let Some(said) = said(&output) {
                    log::warn!("{said}");
                }
                Ok(Some(device))
            }
            Ok(_) => Err(refused(path, program, &output)),
            Err(errno) => Err(failed(errno)),
        };
    }
    Ok(None)
}

/// What the program says of its version, or why it does not run; `None` where there is none.
pub fn version() -> Option<Result<String, String>> {
    PROGRAMS.iter().find_map(|program| {
        match Command::new(program).arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).output() {
            Ok(output) => Some(Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => Some(Err(format!("{program}: {}", reason(errno(&error))))),
        }
    })
}

/// Unmounts what is at `path`; `false` where there is no such program.
///
/// # Errors
/// What the program says.
pub(super) fn unmount(path: &Path, lazily: bool) -> Result<bool, Failure> {
    for program in PROGRAMS {
        let mut command = Command::new(program);
        command.arg(if lazily { "-uz" } else { "-u" }).arg("--").arg(path);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let Some(child) = start(&mut command, program)? else { continue };
        let output = child.wait_with_output();
        let output = output.map_err(|error| Failure::new(format!("{program}: {}", reason(errno(&error)))))?;
        return if output.status.success() { Ok(true) } else { Err(refused(path, program, &output)) };
    }
    Ok(false)
}

/// The options as the program takes them.
fn list(options: &MountOptions) -> OsString {
    let flags = [
        (MountFlags::RDONLY, "ro", "rw"),
        (MountFlags::NOSUID, "nosuid", "suid"),
        (MountFlags::NODEV, "nodev", "dev"),
        (MountFlags::NOEXEC, "noexec", "exec"),
        (MountFlags::SYNCHRONOUS, "sync", "async"),
        (MountFlags::NOATIME, "noatime", "atime"),
    ];
    let mut list = OsString::from("default_permissions");
    for (flag, set, clear) in flags {
        list.push(",");
        list.push(if options.flags.contains(flag) { set } else { clear });
    }
    if options.flags.contains(MountFlags::DIRSYNC) {
        list.push(",dirsync");
    }
    if options.allow_other || options.allow_root {
        list.push(",allow_other");
    }
    if let Some(bytes) = options.max_read {
        list.push(format!(",max_read={bytes}"));
    }
    let mut push = |name: &str, value: &OsStr| {
        list.push(",");
        list.push(name);
        list.push("=");
        list.push(escaped(value));
    };
    push("fsname", source(options));
    push("subtype", &options.subtype);
    for (name, label) in &options.contexts {
        push(name, label);
    }
    list
}

/// Starts the program, if there is one.
fn start(command: &mut Command, program: &str) -> Result<Option<std::process::Child>, Failure> {
    match command.spawn() {
        Ok(child) => Ok(Some(child)),
        Err(error) if errno(&error) == Errno::NOENT => Ok(None),
        Err(error) => Err(Failure::new(format!("{program}: {}", reason(errno(&error))))),
    }
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// The descriptor that comes with a message, unless the other end is closed without one.
fn receive(socket: &OwnedFd) -> Result<Option<OwnedFd>, Errno> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        match recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            result => break result,
        }
    };
    received?;
    let rights = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    Ok(rights)
}

/// The last line that the program wrote.
fn said(output: &Output) -> Option<String> {
    let text = String::from_utf8_lossy(&output.stderr);
    text.lines().map(str::trim).rfind(|line| !line.is_empty()).map(str::to_owned)
}

fn refused(path: &Path, program: &str, output: &Output) -> Failure {
    match said(output) {
        Some(said) => Failure::new(format!("{}: {said}", path.display())),
        None => Failure::new(format!("{}: {program} ended with {}", path.display(), output.status)),
    }
}
