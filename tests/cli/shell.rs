//! What is made of the command line: completions, which a shell loads and completes with, and the helper of mount(8).

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Output, Stdio};

use super::{Bed, PLYFS, names, said};

/// What bash offers for the last of some words, by the script of `plyfs completions bash`.
fn offered(words: &[&str]) -> Vec<String> {
    let script = r#"
        source <("$0" completions bash)
        complete -p plyfs >/dev/null || exit 3
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        _plyfs plyfs "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let output = Command::new("bash").args(["-c", script, PLYFS]).args(words).output().unwrap();
    assert_eq!((said(&output).as_str(), output.status.code()), ("", Some(0)), "{words:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_subcommands_and_flags() {
    assert_eq!(offered(&["plyfs", "umo"]), ["umount"]);
    assert_eq!(offered(&["plyfs", "expl"]), ["explain"]);
    assert_eq!(offered(&["plyfs", "image", "ver"]), ["verify"]);
    assert_eq!(offered(&["plyfs", "image", "verify", "--rep"]), ["--repair"]);
    assert_eq!(offered(&["plyfs", "completions", "f"]), ["fish"]);
    assert!(offered(&["plyfs", "mount", "--"]).contains(&"--ephemeral".to_owned()));
}

#[test]
fn every_shell_gets_a_script_and_others_are_refused() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = Command::new(PLYFS).args(["completions", shell]).output().unwrap();
        assert_eq!((said(&output).as_str(), output.status.code()), ("", Some(0)), "{shell}");
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(script.contains("explain") && script.contains("ephemeral"), "{shell}: {script}");
    }
    let output = Command::new(PLYFS).args(["completions", "tcsh"]).output().unwrap();
    assert!(said(&output).starts_with("plyfs: invalid value 'tcsh' for '<SHELL>'"), "{}", said(&output));
    assert_eq!(output.status.code(), Some(2));
    let output = Command::new(PLYFS).args(["man", "/proc/none"]).output().unwrap();
    assert_eq!((said(&output).lines().count(), output.status.code()), (1, Some(1)));
}

/// The command, called as mount(8) calls the helper of its type.
fn helped(bed: &Bed, args: &[&str]) -> Output {
    let helper = bed.path("mount.fuse.plyfs");
    if !helper.exists() {
        symlink(PLYFS, &helper).unwrap();
    }
    Command::new(helper).args(args).current_dir(bed.path("")).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn mount_is_helped_by_the_name_of_its_helper() {
    let bed = Bed::new();
    let layers = "rw,noatime,lowerdir=a:b,upperdir=u,workdir=w";
    let output = helped(&bed, &["the-source", "m", "-f", "-o", layers]);
    assert_eq!((said(&output).as_str(), output.status.code()), ("", Some(0)));
    assert_eq!(bed.entry(), None, "-f does not mount");
    let output = helped(&bed, &["the-source", "m", "-nsv", "-t", "fuse.plyfs", "-o", layers]);
    assert_eq!((said(&output).as_str(), output.status.code()), ("", Some(0)));
    assert_eq!(names(bed.path("m")), ["a", "b"]);
    let entry = bed.entry().unwrap();
    assert!(entry.starts_with("the-source ") && entry.contains(" fuse.plyfs rw,"), "{entry}");
    if rustix::process::geteuid().is_root() {
        assert!(!entry.contains("nodev") && !entry.contains("nosuid"), "{entry}");
    }
    let output = bed.plyfs().args(["umount", "m"]).output().unwrap();
    assert_eq!((said(&output).as_str(), output.status.code()), ("", Some(0)));
    let output = helped(&bed, &["the-source", "m", "-o", "lowerdir=a,nosuid,nodev"]);
    assert_eq!((said(&output).as_str(), output.status.code()), ("", Some(0)));
    let entry = bed.entry().unwrap();
    assert!(entry.contains("nodev") && entry.contains("nosuid"), "{entry}");
    let output = bed.plyfs().args(["umount", "m"]).output().unwrap();
    assert_eq!((said(&output).as_str(), output.status.code()), ("", Some(0)));
    bed.assert_gone();
}

#[test]
fn the_helper_refuses_what_it_cannot_do_in_one_line() {
    let bed = Bed::new();
    for (args, code, line) in [
        (&["s"][..], 2, "the following required arguments were not provided"),
        (&["s", "m", "-N", "1", "-o", "lowerdir=a"], 2, "unexpected argument '-N' found"),
        (&["s", "m", "-f"], 2, "lowerdir: needs at least one layer"),
        (&["s", "m", "-o", "lowerdir=none"], 1, "lowerdir=none: No such file or directory"),
    ] {
        let output = helped(&bed, args);
        assert!(said(&output).starts_with(&format!("plyfs: {line}")), "{args:?}: {}", said(&output));
        assert_eq!((said(&output).lines().count(), output.status.code()), (1, Some(code)), "{args:?}");
    }
    assert!(fs::read_dir(bed.path("m")).unwrap().next().is_none());
}
