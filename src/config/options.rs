//! What all options together say.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use rustix::mount::MountFlags;

use crate::error::{Errno, Error, Result};

use super::split::{self, Item};
use super::table::{self, Action, Value};
use super::{Config, RedirectDir};

/// How much of a value is repeated in a message.
const SHOWN: usize = 200;

/// Everything that mount options say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    /// What the overlay has to know.
    pub config: Config,
    /// What only concerns the mount.
    pub mount: MountOptions,
    /// What is to be told to who gave the options, a line each.
    pub warnings: Vec<String>,
}

/// How an overlay is to be mounted and served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountOptions {
    /// What the list of mounts shows as the source (`fsname=`).
    pub source: Option<OsString>,
    /// What the list of mounts shows after `fuse.` (`subtype=`).
    pub subtype: OsString,
    /// The flags of mount(2).
    pub flags: MountFlags,
    /// Options for the kernel's security modules, by name.
    pub contexts: Vec<(&'static str, OsString)>,
    /// Other users may use the mount.
    pub allow_other: bool,
    /// Root may use the mount.
    pub allow_root: bool,
    /// The mount goes away with its daemon, whatever that dies of.
    pub auto_unmount: bool,
    /// The largest read that the kernel is to ask for.
    pub max_read: Option<u32>,
    /// How long the kernel may keep what it was told.
    pub timeouts: Timeouts,
    /// The kernel gathers writes in its page cache.
    pub writeback: bool,
    /// Files of the upper are read and written without the daemon; `None` decides by the other options.
    pub passthrough: Option<bool>,
    /// Processors are kept awake while requests come fast.
    pub awake: bool,
    /// What serves requests is closed into the layers.
    pub landlock: bool,
    /// Requests are counted and timed (`stats=1`).
    pub stats: bool,
    /// Threads that read requests.
    pub readers: usize,
    /// Where messages are written to once nobody looks any more.
    pub log: Option<PathBuf>,
}

/// How long the kernel may keep what it was told; `None` is without end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timeouts {
    /// Everything.
    pub all: Option<Duration>,
    /// Attributes.
    pub attributes: Option<Duration>,
    /// Names.
    pub entries: Option<Duration>,
    /// Names that are missing.
    pub negatives: Option<Duration>,
}

impl Timeouts {
    /// The shortest one.
    pub fn shortest(&self) -> Option<Duration> {
        [self.all, self.attributes, self.entries, self.negatives].into_iter().flatten().min()
    }
}

impl Default for MountOptions {
    fn default() -> Self {
        Self {
            source: None,
            subtype: "plyfs".into(),
            flags: MountFlags::NOSUID | MountFlags::NODEV,
            contexts: Vec::new(),
            allow_other: false,
            allow_root: false,
            auto_unmount: false,
            max_read: None,
            timeouts: Timeouts::default(),
            writeback: false,
            passthrough: None,
            awake: true,
            landlock: true,
            stats: true,
            // A second one costs more in wake-ups than it gains: what takes long is done elsewhere.
            readers: 1,
            log: None,
        }
    }
}

impl Options {
    /// Adds a list of options, with commas between them; a later one wins.
    ///
    /// # Errors
    /// `EINVAL`, naming the option and its value, when it cannot be understood or honoured.
    pub fn add(&mut self, list: &OsStr) -> Result<()> {
        let mut rest = list.as_bytes();
        while !rest.is_empty() {
            let (item, after) = split::next(rest).map_err(|reason| refused(rest, reason))?;
            if item.name.is_empty() && item.value.is_some() {
                return Err(refused(rest, "no option before the equals sign"));
            }
            if !item.name.is_empty() {
                let written = rest.get(..rest.len().saturating_sub(after.len())).unwrap_or(rest);
                let written = written.strip_suffix(b",").unwrap_or(written);
                self.set(&item).map_err(|reason| refused(written, reason))?;
            }
            rest = after;
        }
        Ok(())
    }

    fn set(&mut self, item: &Item<'_>) -> Result<(), &'static str> {
        let Some((name, spec)) = table::find(item.name) else {
            self.warnings.push(format!("unknown option {} ignored", String::from_utf8_lossy(item.name)));
            return Ok(());
        };
        match (spec.value, item.value) {
            (Value::No, Some(_)) => return Err("takes no value"),
            (Value::Needed(_), None) => return Err("needs a value"),
            _ => {}
        }
        let value = item.value.unwrap_or_default();
        match spec.action {
            Action::Nothing => Ok(()),
            Action::Flag(set) => {
                set(self);
                Ok(())
            }
            Action::Set(set) => set(self, value),
            Action::Context => super::values::text(value).map(|value| self.set_context(name, value)),
            Action::Refuse(reason) => Err(reason),
        }
    }

    fn set_context(&mut self, name: &'static str, value: OsString) {
        self.mount.contexts.retain(|(other, _)| *other != name);
        self.mount.contexts.push((name, value));
    }

    /// Checks what only all options together can tell.
    ///
    /// # Errors
    /// `EINVAL` without a lower layer, with an upper that has no work directory, with options that exclude each other.
    pub fn finish(&mut self) -> Result<()> {
        if self.config.lowers.is_empty() {
            return Err(refused(b"lowerdir", "needs at least one layer"));
        }
        if let Some(upper) = &self.config.upper
            && self.config.work.is_none()
        {
            let written = [b"upperdir=", upper.as_os_str().as_bytes()].concat();
            return Err(refused(&written, "needs a workdir beside it"));
        }
        if self.config.metacopy {
            match (self.config.redirect_dir, &self.config.upper) {
                (RedirectDir::On, _) | (RedirectDir::Follow, None) => {}
                (RedirectDir::Follow, Some(_)) => return Err(refused(b"metacopy=on", "needs redirect_dir=on")),
                (RedirectDir::NoFollow, _) => return Err(refused(b"metacopy=on", "needs redirects to be followed")),
            }
        }
        if self.config.metacopy && self.config.userxattr == Some(true) {
            return Err(refused(b"metacopy=on", "does not go with userxattr, whose marks any user may set"));
        }
        if self.mount.writeback && self.mount.passthrough == Some(true) {
            return Err(refused(b"passthrough=1", "does not go with writeback=1"));
        }
        if self.config.upper.is_none() {
            if let Some(work) = self.config.work.take() {
                self.warnings.push(format!("workdir={} ignored, as there is no upperdir", work.display()));
            }
            self.mount.flags |= MountFlags::RDONLY;
        }
        Ok(())
    }
}

/// What is wrong with an option, which is repeated as it was written.
fn refused(written: &[u8], reason: &'static str) -> Error {
    let mut shown = String::from_utf8_lossy(written).into_owned();
    if let Some((end, _)) = shown.char_indices().nth(SHOWN) {
        shown.truncate(end);
        shown.push('…');
    }
    Error::new(Errno::INVAL, "read option").on(shown).because(reason)
}
