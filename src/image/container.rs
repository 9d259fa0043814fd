//! Containers: a writable layer with a name, over the layers of an image.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{self, FlockOperation, Mode, OFlags, Timespec, Timestamps};
use serde::{Deserialize, Serialize};

use crate::at::At;
use crate::error::{Context, Errno, Error, Result};

use super::digest::Digest;
use super::name::{ImageName, check_container};
use super::store::image::Image;
use super::store::layer::LayerRef;
use super::store::{Lock, Store, open_dir, remove, to_json};
use super::unpack::form::{KEY, Owners};

/// A container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// What it is called.
    pub name: String,
    /// What its image was called when it was made.
    pub image: ImageName,
    /// The digest of the image's config.
    pub config: Digest,
    /// The diff IDs of the image's layers, the lowest first.
    pub layers: Vec<Digest>,
    /// It goes with its mount.
    pub ephemeral: bool,
    /// Where its writable layer is, if not in the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upper: Option<PathBuf>,
}

/// A container whose writable layer is in use: as long as this lives, nobody takes it away.
#[derive(Debug)]
pub struct ContainerRef {
    /// What is known of it.
    pub container: Container,
    /// Its writable layer.
    pub upper: PathBuf,
    /// The work directory beside that.
    pub work: PathBuf,
    dir: OwnedFd,
}

impl ContainerRef {
    /// Hands over what keeps it from being taken away.
    pub fn into_lock(self) -> OwnedFd {
        self.dir
    }
}

/// What a mount of an image keeps from being taken away.
#[derive(Debug, Default)]
pub struct Held {
    layers: Vec<OwnedFd>,
    container: Option<OwnedFd>,
    /// The store and the name of a container that goes with the mount.
    ephemeral: Option<(PathBuf, String)>,
}

impl Held {
    /// Holds layers, and the container over them.
    pub fn new(store: &Store, layers: Vec<LayerRef>, container: ContainerRef) -> Self {
        let is_ephemeral = container.container.ephemeral;
        let ephemeral = is_ephemeral.then(|| (store.path().to_owned(), container.container.name.clone()));
        let layers = layers.into_iter().map(LayerRef::into_lock).collect();
        Self { layers, container: Some(container.into_lock()), ephemeral }
    }

    /// Takes away what goes with the mount, which is gone. The rest is free with the end of the process.
    pub fn end(&self) {
        let Some((path, name)) = &self.ephemeral else { return };
        log::debug!("container {name} over {} layers goes", self.layers.len());
        let take_away = || {
            if let Some(container) = &self.container {
                fs::flock(container, FlockOperation::Unlock)?;
            }
            // Whoever has removed the store meanwhile does not want it made again.
            if !path.join("containers").join(name).exists() {
                return Ok(false);
            }
            let store = Store::open(path)?;
            let lock = store.lock_loudly()?;
            store.remove_container(name, &lock)
        };
        // Whoever uses the store next tries again.
        if let Err(error) = take_away() {
            log::warn!("{error}");
        }
    }
}

impl Store {
    /// Makes a container of `image`, whose layers are in use. Without a name it gets one that is free.
    ///
    /// # Errors
    /// `EEXIST` where there is one of that name; those of making it.
    pub fn make_container(
        &self,
        name: Option<&str>,
        image: &Image,
        layers: &[LayerRef],
        upper: Option<PathBuf>,
        ephemeral: bool,
    ) -> Result<ContainerRef> {
        let invalid = |reason: String| Error::new(Errno::INVAL, "name container").on("container").because(reason);
        name.map_or(Ok(()), check_container).map_err(invalid)?;
        let lock = self.lock_loudly()?;
        self.clean_staging(&lock)?;
        self.clean_containers(&lock)?;
        let name = match name {
            Some(name) => name.to_owned(),
            None => self.free_name(&image.name)?,
        };
        let container = Container {
            name: name.clone(),
            image: image.name.clone(),
            config: image.config,
            layers: image.layers.clone(),
            ephemeral,
            upper: upper.clone(),
        };
        let staging = self.stage(&lock)?;
        std::fs::write(staging.path().join("container.json"), to_json(&container)?)?;
        for part in ["upper", "work"] {
            fs::mkdirat(staging.dir(), part, Mode::RWXU)?;
        }
        let (upper_path, work_path) = match &upper {
            None => (staging.path().join("upper"), staging.path().join("work")),
            Some(upper) => outside(upper)?,
        };
        if is_empty(&upper_path)? {
            take_root(&upper_path, layers)?;
        }
        let place = format!("containers/{name}");
        let dir = staging.publish(&place).map_err(|errno| match errno {
            Errno::EXIST => Error::new(errno, "make").on(format!("container {name}")).because("there is one already"),
            errno => Error::new(errno, "make").on(format!("container {name}")),
        })?;
        fs::flock(&dir, FlockOperation::LockShared)?;
        let at = self.path().join(&place);
        let (upper, work) = match upper {
            None => (at.join("upper"), at.join("work")),
            Some(_) => (upper_path, work_path),
        };
        Ok(ContainerRef { container, upper, work, dir })
    }

    fn free_name(&self, image: &ImageName) -> Result<String> {
        let last = image.as_str().rsplit('/').next().unwrap_or_default();
        let stem: String = last.chars().take_while(|c| c.is_ascii_alphanumeric() || "._-".contains(*c)).collect();
        let taken = self.list("containers")?;
        let names = (1_u64..).map(|number| format!("{stem}-{number}"));
        names.into_iter().find(|name| !taken.contains(name)).ok_or_else(|| Error::new(Errno::EXIST, "name container"))
    }

    /// The container `name`, to be used; `None` where there is none.
    ///
    /// # Errors
    /// Those of opening it.
    pub fn container(&self, name: &str) -> Result<Option<ContainerRef>> {
        if check_container(name).is_err() {
            return Ok(None);
        }
        let place = format!("containers/{name}");
        let dir = match open_dir(self.dir(), place.as_bytes()) {
            Err(Errno::NOENT) => return Ok(None),
            dir => dir.map_err(|errno| Error::new(errno, "open").on(format!("container {name}")))?,
        };
        fs::flock(&dir, FlockOperation::LockShared)?;
        let Some(container) = self.read_record::<Container>(&format!("{place}/container.json"))? else {
            return Ok(None);
        };
        let at = self.path().join(&place);
        let (upper, work) = match &container.upper {
            None => (at.join("upper"), at.join("work")),
            Some(upper) => beside(upper),
        };
        Ok(Some(ContainerRef { container, upper, work, dir }))
    }

    /// All containers, by name.
    ///
    /// # Errors
    /// Those of reading them.
    pub fn containers(&self) -> Result<Vec<Container>> {
        let mut containers = Vec::new();
        for name in self.list("containers")? {
            containers.extend(self.read_record::<Container>(&format!("containers/{name}/container.json"))?);
        }
        Ok(containers)
    }

    /// Takes a container away, unless it is in use: then tells `false`. The lock has to be held.
    ///
    /// # Errors
    /// Those of removing it.
    pub fn remove_container(&self, name: &str, lock: &Lock) -> Result<bool> {
        let place = format!("containers/{name}");
        let dir = open_dir(self.dir(), place.as_bytes())
            .map_err(|errno| Error::new(errno, "open").on(format!("container {name}")))?;
        if fs::flock(&dir, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK) {
            return Ok(false);
        }
        let staging = self.stage(lock)?;
        fs::renameat(self.dir(), place.as_str(), staging.dir(), "container").during("remove the container")?;
        remove::tree(staging.dir(), b"container").during("remove the container")?;
        Ok(true)
    }

    /// Takes containers away that were to go with a mount which is gone. The lock has to be held.
    ///
    /// # Errors
    /// Those of removing them.
    pub fn clean_containers(&self, lock: &Lock) -> Result<Vec<String>> {
        let mut gone = Vec::new();
        for container in self.containers()?.into_iter().filter(|container| container.ephemeral) {
            if self.remove_container(&container.name, lock)? {
                gone.push(container.name);
            }
        }
        Ok(gone)
    }
}

/// The work directory of a writable layer that is not in the store lies beside it.
fn beside(upper: &std::path::Path) -> (PathBuf, PathBuf) {
    let mut work = upper.as_os_str().to_owned();
    work.push(".work");
    (upper.to_owned(), work.into())
}

fn outside(upper: &std::path::Path) -> Result<(PathBuf, PathBuf)> {
    let (upper, work) = beside(upper);
    for dir in [&upper, &work] {
        match std::fs::create_dir(dir) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
                return Err(Error::new(errno, "make").on(dir.display().to_string()));
            }
            _ => {}
        }
    }
    Ok((upper, work))
}

fn is_empty(dir: &std::path::Path) -> Result<bool> {
    Ok(std::fs::read_dir(dir)?.next().is_none())
}

/// Gives an empty upper the attributes of the root directory that the topmost layer which has one tells: the overlay
/// shows those of the upper.
fn take_root(upper: &std::path::Path, layers: &[LayerRef]) -> Result<()> {
    let top = layers.iter().rev().find(|layer| layer.info.has_root).or(layers.last());
    let Some(top) = top else { return Ok(()) };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let (from, to) = (top.open_root()?, fs::open(upper, flags, Mode::empty())?);
    let (from, to) = (At::fd(&from), At::fd(&to));
    let attr = from.attr()?;
    if top.info.owners == Owners::Real {
        to.chown(Some(attr.uid), Some(attr.gid))?;
    }
    for name in crate::at::split_names(&from.xattr_names()?) {
        let is_mark = name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.");
        let is_ours = !is_mark && (top.info.owners == Owners::Real || name == KEY.name() || name.starts_with(b"user."));
        if let (true, Some(value)) = (is_ours, from.xattr(name)?) {
            to.set_xattr(name, &value, rustix::fs::XattrFlags::empty())?;
        }
    }
    to.chmod(attr.mode)?;
    let time = |time: crate::attr::Time| Timespec { tv_sec: time.sec, tv_nsec: time.nsec.into() };
    to.set_times(&Timestamps { last_access: time(attr.mtime), last_modification: time(attr.mtime) })?;
    Ok(())
}
