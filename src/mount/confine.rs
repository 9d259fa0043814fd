//! Closing the daemon in: what serves requests can open the layers and nothing else, runs no program that has more rights, and
//! has no capability that serving does not take.
//!
//! Landlock and `no_new_privs` hold for a thread and those that it starts. The thread that mounts and unmounts stays as it
//! was: it reads nothing of the layers, and fusermount3 is of no use to who can gain no rights.

use std::fs::File;
use std::os::fd::BorrowedFd;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus, PathBeneath,
    RestrictionStatus, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use rustix::fs::{Mode, OFlags, open};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set, remove_capability_from_bounding_set,
    set_capabilities, set_no_new_privs,
};

use crate::error::Errno;

/// The newest rules that are asked for; the kernel takes those of them that it knows.
const RULES: ABI = ABI::V6;
/// What is opened beside the layers, where it is there: whose a request is, and what keeps processors awake.
const READ: &str = "/proc";
const WRITTEN: [&str; 2] = ["/dev/fuse", "/dev/cpu_dma_latency"];

/// What serving takes where root mounts, and what each is for.
const KEPT: CapabilitySet = CapabilitySet::SYS_ADMIN // `trusted.` attributes, passthrough, unmounting
    .union(CapabilitySet::DAC_OVERRIDE) // layers are the mounter's to read and write
    .union(CapabilitySet::DAC_READ_SEARCH) // origins, by their handles
    .union(CapabilitySet::CHOWN) // owners of copies
    .union(CapabilitySet::FOWNER) // modes and times of others' files
    .union(CapabilitySet::FSETID) // set-id bits of copies
    .union(CapabilitySet::SETUID) // new files are their makers'
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::MKNOD) // whiteouts, device nodes
    .union(CapabilitySet::SETFCAP) // capabilities of copies
    .union(CapabilitySet::MAC_ADMIN) // labels of copies
    .union(CapabilitySet::LINUX_IMMUTABLE) // inode flags
    .union(CapabilitySet::SYS_RESOURCE) // what the filesystem keeps for root, as the kernel's overlayfs
    .union(CapabilitySet::SYS_PTRACE); // which programs run, see `running.rs`

/// What of it only the threads have that are not closed in.
const OUTSIDE: CapabilitySet = CapabilitySet::SYS_PTRACE;

/// Gives up for good what capabilities serving does not take. To be called before anything starts a thread.
///
/// # Errors
/// Those of capset(2).
pub(super) fn drop_capabilities() -> Result<(), Errno> {
    let has = capabilities(None)?;
    // A program that a hostile layer had us run would get none either.
    if has.effective.contains(CapabilitySet::SETPCAP) {
        for capability in CapabilitySet::all().difference(KEPT).iter() {
            // One that the kernel does not know is in no set.
            if capability_is_in_bounding_set(capability) == Ok(true) {
                remove_capability_from_bounding_set(capability)?;
            }
        }
    }
    keep(has, KEPT)
}

fn keep(has: CapabilitySets, kept: CapabilitySet) -> Result<(), Errno> {
    let (effective, permitted) = (has.effective & kept, has.permitted & kept);
    set_capabilities(None, CapabilitySets { effective, permitted, inheritable: CapabilitySet::empty() })
}

/// Closes the calling thread, and those that it starts from now on, into directories that it may read, and into those that
/// it may write as well.
///
/// # Errors
/// Why it is not closed in. It gains no rights all the same.
pub(super) fn close_into(read: &[BorrowedFd<'_>], written: &[BorrowedFd<'_>]) -> Result<(), String> {
    let gain_nothing = || {
        set_no_new_privs(true)?;
        keep(capabilities(None)?, KEPT.difference(OUTSIDE))
    };
    gain_nothing().map_err(|errno: Errno| errno.to_string())?;
    let status = restrict(read, written).map_err(|error| error.to_string())?;
    match (status.ruleset, status.landlock) {
        (RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced, _) => Ok(()),
        (_, LandlockStatus::NotEnabled) => Err("Landlock is not enabled".to_owned()),
        (_, LandlockStatus::NotImplemented) => Err("the kernel has no Landlock".to_owned()),
        (_, LandlockStatus::Available { .. }) => Err("the kernel's Landlock lets nothing be renamed".to_owned()),
    }
}

fn restrict(read: &[BorrowedFd<'_>], written: &[BorrowedFd<'_>]) -> Result<RestrictionStatus, RulesetError> {
    let all = AccessFs::from_all(RULES);
    // Without REFER, which came second, nothing could be moved between two directories.
    let rules = Ruleset::default().set_compatibility(CompatLevel::SoftRequirement).handle_access(AccessFs::Refer)?;
    let rules = rules.set_compatibility(CompatLevel::BestEffort).handle_access(all)?;
    let mut rules = rules.handle_access(AccessNet::from_all(RULES))?.scope(Scope::from_all(RULES))?.create()?;
    rules = add(rules, READ, AccessFs::ReadFile | AccessFs::ReadDir)?;
    for path in WRITTEN {
        rules = add(rules, path, AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev)?;
    }
    // Programs are run by the mount's users, but files that go through are opened with our rights.
    for dir in read {
        rules = rules.add_rule(PathBeneath::new(dir, AccessFs::from_read(RULES)))?;
    }
    for dir in written {
        rules = rules.add_rule(PathBeneath::new(dir, all))?;
    }
    rules.restrict_self()
}

/// Allows what is at a path, if it is there.
fn add<T: RulesetCreatedAttr>(rules: T, path: &str, access: BitFlags<AccessFs>) -> Result<T, RulesetError> {
    // Only named, so that no right to it is needed.
    match open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
        Ok(fd) => rules.add_rule(PathBeneath::new(File::from(fd), access)),
        Err(_) => Ok(rules),
    }
}
