//! The mount options: one table, which the parser, the help and the test of the man page read.

use rustix::mount::MountFlags;

use super::values::{Reason, count, layers, number, on_off, one_zero, path, seconds, text, word};
use super::{Key, Map, Options, RedirectDir, WhiteoutStyle};

/// A mount option, or several that are alike.
#[derive(Debug)]
pub struct Spec {
    /// Its names; one that ends with `*` stands for all that begin so.
    pub names: &'static [&'static str],
    /// Whether it has a value.
    pub value: Value,
    /// What it means, in one line.
    pub help: &'static str,
    pub(super) action: Action,
}

/// Whether an option has a value, and what that is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// It has none.
    No,
    /// It must have one.
    Needed(&'static str),
    /// It may have one.
    Allowed(&'static str),
}

#[derive(Debug)]
pub(super) enum Action {
    Nothing,
    Flag(fn(&mut Options)),
    Set(fn(&mut Options, &[u8]) -> Result<(), Reason>),
    Context,
    Refuse(Reason),
}

/// The option `name`, under the name that the table has for it.
pub(super) fn find(name: &[u8]) -> Option<(&'static str, &'static Spec)> {
    let matches = |known: &str| match known.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix.as_bytes()),
        None => name == known.as_bytes(),
    };
    OPTIONS.iter().find_map(|spec| Some((*spec.names.iter().find(|known| matches(known))?, spec)))
}

const fn flag(name: &'static [&'static str], set: fn(&mut Options), help: &'static str) -> Spec {
    Spec { names: name, value: Value::No, action: Action::Flag(set), help }
}

const fn set(
    name: &'static [&'static str],
    value: &'static str,
    set: fn(&mut Options, &[u8]) -> Result<(), Reason>,
    help: &'static str,
) -> Spec {
    Spec { names: name, value: Value::Needed(value), action: Action::Set(set), help }
}

const fn nothing(names: &'static [&'static str], value: Value, help: &'static str) -> Spec {
    Spec { names, value, action: Action::Nothing, help }
}

const fn refuse(names: &'static [&'static str], value: Value, reason: Reason, help: &'static str) -> Spec {
    Spec { names, value, action: Action::Refuse(reason), help }
}

const UNSUPPORTED: Reason = "not supported";

/// All mount options.
pub static OPTIONS: &[Spec] = &[
    // Layers.
    set(
        &["lowerdir"],
        "PATH[:PATH…][::PATH…]",
        |o, v| layers(v).map(|(lowers, data)| (o.config.lowers, o.config.data_layers) = (lowers, data)),
        "the lower layers, topmost first, and after :: those for data only",
    ),
    set(
        &["lowerdir+"],
        "PATH",
        |o, v| {
            if !o.config.data_layers.is_empty() {
                return Err("has to come before the layers for data only");
            }
            path(v).map(|lower| o.config.lowers.push(lower))
        },
        "one more lower layer below",
    ),
    set(
        &["datadir+"],
        "PATH",
        |o, v| path(v).map(|layer| o.config.data_layers.push(layer)),
        "one more layer for data only below",
    ),
    set(&["upperdir"], "PATH", |o, v| path(v).map(|upper| o.config.upper = Some(upper)), "the writable layer"),
    set(
        &["workdir"],
        "PATH",
        |o, v| path(v).map(|work| o.config.work = Some(work)),
        "an empty directory on the filesystem of the upper layer",
    ),
    // What the overlay does.
    set(
        &["redirect_dir"],
        "on|follow|nofollow|off",
        |o, v| {
            let words = [
                ("on", RedirectDir::On),
                ("follow", RedirectDir::Follow),
                ("off", RedirectDir::Follow),
                ("nofollow", RedirectDir::NoFollow),
            ];
            word(v, &words, "not on, follow, nofollow or off").map(|to| o.config.redirect_dir = to)
        },
        "whether directories of lower layers can be renamed [on]",
    ),
    set(
        &["metacopy"],
        "on|off",
        |o, v| on_off(v).map(|on| o.config.metacopy = on),
        "whether a change of attributes leaves the data where it is [off]",
    ),
    set(
        &["index"],
        "on|off",
        |o, v| on_off(v).map(|on| o.config.index = on),
        "whether the upper belongs to its first lower layer [off]",
    ),
    set(
        &["whiteouts"],
        "device|xattr|file",
        |o, v| {
            let words =
                [("device", WhiteoutStyle::Device), ("xattr", WhiteoutStyle::Xattr), ("file", WhiteoutStyle::DotFile)];
            word(v, &words, "not device, xattr or file").map(|to| o.config.whiteouts = Some(to))
        },
        "how deleted names are written [the first that the upper's filesystem allows]",
    ),
    flag(&["userxattr"], |o| o.config.userxattr = Some(true), "marks are user.overlay.* attributes"),
    flag(&["volatile"], |o| o.config.volatile = true, "nothing waits for the disk"),
    set(&["fsync"], "0|1", |o, v| one_zero(v).map(|on| o.config.fsync = on), "whether fsync reaches the disk [1]"),
    flag(&["acl"], |o| o.config.acl = true, "POSIX ACLs are supported (as is the default)"),
    flag(&["noacl"], |o| o.config.acl = false, "POSIX ACLs are not supported"),
    flag(&["static_nlink"], |o| o.config.static_nlink = true, "directories show a link count of 1"),
    flag(
        &["squash_to_root"],
        |o| (o.config.squash_uid, o.config.squash_gid) = (Some(0), Some(0)),
        "every file shows root as its owner and group",
    ),
    set(
        &["squash_to_uid"],
        "UID",
        |o, v| number(v).map(|uid| o.config.squash_uid = Some(uid)),
        "every file shows this owner",
    ),
    set(
        &["squash_to_gid"],
        "GID",
        |o, v| number(v).map(|gid| o.config.squash_gid = Some(gid)),
        "every file shows this group",
    ),
    // Speed.
    set(
        &["timeout"],
        "SECONDS",
        |o, v| seconds(v).map(|timeout| o.mount.timeouts.all = timeout),
        "how long the kernel may keep names and attributes [without end]",
    ),
    set(
        &["attr_timeout"],
        "SECONDS",
        |o, v| seconds(v).map(|timeout| o.mount.timeouts.attributes = timeout),
        "as timeout; the shortest one holds",
    ),
    set(
        &["entry_timeout"],
        "SECONDS",
        |o, v| seconds(v).map(|timeout| o.mount.timeouts.entries = timeout),
        "as timeout; the shortest one holds",
    ),
    set(
        &["negative_timeout"],
        "SECONDS",
        |o, v| seconds(v).map(|timeout| o.mount.timeouts.negatives = timeout),
        "as timeout; the shortest one holds",
    ),
    set(
        &["writeback"],
        "0|1",
        |o, v| one_zero(v).map(|on| o.mount.writeback = on),
        "whether the kernel gathers writes [0]",
    ),
    set(
        &["passthrough"],
        "0|1",
        |o, v| one_zero(v).map(|on| o.mount.passthrough = Some(on)),
        "whether the kernel reads and writes the upper directly [1 if it can]",
    ),
    set(
        &["awake"],
        "0|1",
        |o, v| one_zero(v).map(|on| o.mount.awake = on),
        "whether idle processors stay awake while requests come fast [1]",
    ),
    set(
        &["stats"],
        "0|1",
        |o, v| one_zero(v).map(|on| o.mount.stats = on),
        "whether requests are counted and timed, for plyfs stats [1]",
    ),
    flag(&["writeback_cache"], |o| o.mount.writeback = true, "as writeback=1"),
    set(
        &["threads"],
        "COUNT",
        |o, v| count(v).map(|readers| o.mount.readers = readers),
        "threads that read requests [1]",
    ),
    set(
        &["threaded"],
        "0|1",
        |o, v| one_zero(v).map(|on| o.mount.readers = if on { o.mount.readers } else { 1 }),
        "0 is as threads=1; 1 changes nothing",
    ),
    set(
        &["cache_attrs"],
        "COUNT",
        |o, v| count(v).map(|size| o.config.cache.attrs = size),
        "attributes kept in memory [16384]",
    ),
    set(
        &["cache_missing"],
        "COUNT",
        |o, v| count(v).map(|size| o.config.cache.missing = size),
        "missing names kept in memory [16384]",
    ),
    set(
        &["cache_listings"],
        "COUNT",
        |o, v| count(v).map(|size| o.config.cache.listings = size),
        "names of merged directories kept in memory [262144]",
    ),
    set(
        &["cache_dirs"],
        "COUNT",
        |o, v| count(v).map(|size| o.config.cache.dirs = size),
        "directories of layers kept open [1024]",
    ),
    set(
        &["max_read"],
        "BYTES",
        |o, v| number(v).map(|bytes| o.mount.max_read = Some(bytes)),
        "the largest read that the kernel asks for",
    ),
    // Who may use it, and what it is called.
    flag(&["allow_other"], |o| o.mount.allow_other = true, "other users may use the mount"),
    flag(&["allow_root"], |o| o.mount.allow_root = true, "root may use the mount, but no other user"),
    flag(&["auto_unmount"], |o| o.mount.auto_unmount = true, "the mount goes away with its daemon, even a killed one"),
    set(
        &["landlock"],
        "0|1",
        |o, v| one_zero(v).map(|on| o.mount.landlock = on),
        "whether the daemon closes itself into its layers [1 if it can]",
    ),
    nothing(&["default_permissions"], Value::No, "the kernel checks permissions (always)"),
    set(
        &["fsname"],
        "NAME",
        |o, v| text(v).map(|name| o.mount.source = Some(name)),
        "the source in the list of mounts [plyfs]",
    ),
    set(
        &["subtype"],
        "NAME",
        |o, v| text(v).map(|name| o.mount.subtype = name),
        "the type in the list of mounts, after fuse. [plyfs]",
    ),
    set(&["log"], "FILE", |o, v| path(v).map(|log| o.mount.log = Some(log)), "messages are appended to this file"),
    Spec {
        names: &["context", "fscontext", "defcontext", "rootcontext"],
        value: Value::Needed("LABEL"),
        action: Action::Context,
        help: "handed to the kernel's security module",
    },
    // Of every mount.
    flag(
        &["ro"],
        |o| {
            o.config.read_only = true;
            o.mount.flags |= MountFlags::RDONLY;
        },
        "nothing can be changed",
    ),
    flag(
        &["rw"],
        |o| {
            o.config.read_only = false;
            o.mount.flags -= MountFlags::RDONLY;
        },
        "the mount can be written to, if there is an upperdir",
    ),
    flag(&["suid"], |o| o.mount.flags -= MountFlags::NOSUID, "set-id bits and file capabilities have effect"),
    flag(&["nosuid"], |o| o.mount.flags |= MountFlags::NOSUID, "they have none (as is the default)"),
    flag(&["dev"], |o| o.mount.flags -= MountFlags::NODEV, "device nodes can be opened"),
    flag(&["nodev"], |o| o.mount.flags |= MountFlags::NODEV, "they cannot (as is the default)"),
    flag(&["exec"], |o| o.mount.flags -= MountFlags::NOEXEC, "programs can be run (as is the default)"),
    flag(&["noexec"], |o| o.mount.flags |= MountFlags::NOEXEC, "programs cannot be run"),
    flag(&["symfollow"], |o| o.mount.flags -= MountFlags::NOSYMFOLLOW, "symlinks are followed (as is the default)"),
    flag(&["nosymfollow"], |o| o.mount.flags |= MountFlags::NOSYMFOLLOW, "symlinks are not followed"),
    flag(&["sync"], |o| o.mount.flags |= MountFlags::SYNCHRONOUS, "every write waits for the disk"),
    flag(&["async"], |o| o.mount.flags -= MountFlags::SYNCHRONOUS, "writes do not wait (as is the default)"),
    flag(&["dirsync"], |o| o.mount.flags |= MountFlags::DIRSYNC, "every change of a directory waits for the disk"),
    flag(
        &["atime"],
        |o| {
            o.config.noatime = false;
            o.mount.flags -= MountFlags::NOATIME;
        },
        "reading moves access times in the upper (as is the default)",
    ),
    flag(
        &["noatime"],
        |o| {
            o.config.noatime = true;
            o.mount.flags |= MountFlags::NOATIME;
        },
        "reading does not move access times",
    ),
    flag(&["diratime"], |o| o.mount.flags -= MountFlags::NODIRATIME, "the same for directories only"),
    flag(&["nodiratime"], |o| o.mount.flags |= MountFlags::NODIRATIME, "the same for directories only"),
    flag(&["relatime"], |o| o.mount.flags |= MountFlags::RELATIME, "shown in the list of mounts"),
    flag(&["strictatime"], |o| o.mount.flags |= MountFlags::STRICTATIME, "shown in the list of mounts"),
    flag(&["lazytime"], |o| o.mount.flags |= MountFlags::LAZYTIME, "shown in the list of mounts"),
    nothing(&["norelatime", "nostrictatime", "nolazytime"], Value::No, "as is the default"),
    nothing(
        &[
            "defaults",
            "auto",
            "noauto",
            "nouser",
            "users",
            "owner",
            "group",
            "nofail",
            "_netdev",
            "silent",
            "loud",
            "mand",
            "nomand",
            "iversion",
            "noiversion",
        ],
        Value::No,
        "nothing to do",
    ),
    nothing(&["user", "comment", "x-*", "X-*"], Value::Allowed("TEXT"), "nothing to do"),
    refuse(&["remount"], Value::No, "mount it anew to change options", "not supported"),
    // Of the kernel's overlayfs and of fuse-overlayfs.
    set(
        &["xino"],
        "on|off|auto",
        |_, v| word(v, &[("on", ()), ("off", ()), ("auto", ())], "not on, off or auto"),
        "nothing to do: inode numbers are always unique",
    ),
    set(&["nfs_export"], "on|off", |_, v| if on_off(v)? { Err(UNSUPPORTED) } else { Ok(()) }, "on is not supported"),
    set(
        &["verity"],
        "on|off|require",
        |_, v| match v {
            b"on" | b"off" => Ok(()),
            b"require" => Err(UNSUPPORTED),
            _ => Err("not on, off or require"),
        },
        "require is not supported",
    ),
    set(
        &["uuid"],
        "on|off|auto|null",
        |_, v| word(v, &[("on", ()), ("off", ()), ("auto", ()), ("null", ())], "not on, off, auto or null"),
        "nothing to do",
    ),
    nothing(&["override_creds"], Value::No, "layers are accessed with the rights of who mounts (always)"),
    refuse(&["nooverride_creds"], Value::No, UNSUPPORTED, "not supported"),
    set(
        &["uidmapping"],
        "STORED:SHOWN:COUNT[:…]",
        |o, v| Map::parse(v).map(|map| o.config.uid_map = map),
        "owners of the layers are shown as other users",
    ),
    set(
        &["gidmapping"],
        "STORED:SHOWN:COUNT[:…]",
        |o, v| Map::parse(v).map(|map| o.config.gid_map = map),
        "groups of the layers are shown as other groups",
    ),
    set(
        &["xattr_permissions"],
        "0|1|2",
        |o, v| {
            let words = [("0", None), ("1", Some(Key::Security)), ("2", Some(Key::Containers))];
            word(v, &words, "not 0, 1 or 2").map(|to| o.config.keep_owners = to)
        },
        "keeps owners in attributes, of root (1) or users (2) [as the layers do]",
    ),
    refuse(&["force_mask"], Value::Allowed("MODE"), UNSUPPORTED, "not supported"),
    set(
        &["plugins"],
        "PATH",
        |o, v| text(v).map(|_| o.warnings.push("plugins= ignored, as there are none".to_owned())),
        "ignored, which is told",
    ),
    nothing(&["noxattrs", "fast_ino"], Value::Allowed("0|1"), "nothing to do"),
    // Of libfuse.
    nothing(
        &[
            "allow_idmap",
            "async_read",
            "atomic_o_trunc",
            "auto_cache",
            "big_writes",
            "clone_fd",
            "debug",
            "direct_io",
            "hard_remove",
            "intr",
            "kernel_cache",
            "large_read",
            "no_remote_flock",
            "no_remote_lock",
            "no_remote_posix_lock",
            "no_splice_move",
            "no_splice_read",
            "no_splice_write",
            "noauto_cache",
            "noforget",
            "nonempty",
            "nopath",
            "readdir_ino",
            "splice_move",
            "splice_read",
            "splice_write",
            "sync_read",
            "use_ino",
        ],
        Value::No,
        "nothing to do",
    ),
    nothing(
        &[
            "ac_attr_timeout",
            "congestion_threshold",
            "intr_signal",
            "max_background",
            "max_idle_threads",
            "max_readahead",
            "max_threads",
            "max_write",
            "remember",
        ],
        Value::Needed("NUMBER"),
        "nothing to do",
    ),
];
