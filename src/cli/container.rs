//! Mounting images and containers, and running programs on them.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use oci_spec::image::ImageConfiguration;
use rustix::mount::MountFlags;
use rustix::process::geteuid;

use crate::config::Options;
use crate::control::protocol::ImageRef;
use crate::error::{Errno, Error, Result};
use crate::image::container::{Container, ContainerRef, Held};
use crate::image::store::Store;
use crate::image::store::image::Image;
use crate::image::store::layer::LayerRef;
use crate::image::unpack::form::{Owners, has_ids};
use crate::mount::{Failure, Request};
use crate::run::{self, FAILED, Program, environment};
use crate::sys::creds::is_privileged;
use crate::sys::mount::Inherited;

use super::args::{Mount, Run};
use super::image::open;
use super::{options, parse, say, serve};

/// How long, and how often, to try to take away what was made for a mount that failed.
const TRIES: u32 = 100;
const INTERVAL: Duration = Duration::from_millis(20);

/// `plyfs mount IMAGE MOUNTPOINT`
pub(super) fn mount(
    args: &Mount,
    image: &OsStr,
    mountpoint: &Path,
    inherited: Inherited,
) -> Result<ExitCode, ExitCode> {
    if !args.lower.is_empty() || args.work.is_some() {
        say("an image has its own lower layers and work directory: --lower and --work do not go with it");
        return Err(ExitCode::from(super::USAGE));
    }
    let mut options = options(&args.common.options)?;
    options.mount.log.clone_from(&args.log);
    let wanted = Wanted {
        store: args.store.as_deref(),
        what: image,
        name: args.name.as_deref(),
        upper: args.upper.as_deref(),
        ephemeral: args.ephemeral,
        read_only: args.read_only || options.config.read_only,
    };
    let result = prepare(&wanted, options).map(|prepared| {
        let request = Request { mountpoint: mountpoint.to_owned(), debug: args.common.debug, ..prepared.request };
        let code = serve(&args.common, &request, inherited);
        if !prepared.is_new {
            return code;
        }
        if code != ExitCode::SUCCESS {
            let upper = request.config.upper.clone();
            drop(request);
            forget(args.store.as_deref(), &prepared.name, upper.as_deref());
        } else if !prepared.is_ephemeral && wanted.name.is_none() {
            super::tell(&format!("container {}", prepared.name));
        }
        code
    });
    Ok(super::image::ended(result))
}

/// Takes a container away that was made for a mount which there is not, if nothing was written to it.
fn forget(store: Option<&Path>, name: &str, upper: Option<&Path>) {
    let is_empty = |upper: &Path| std::fs::read_dir(upper).is_ok_and(|mut entries| entries.next().is_none());
    if !upper.is_none_or(is_empty) {
        return;
    }
    let take_away = || {
        let store = open(store)?;
        let lock = store.lock_loudly()?;
        store.remove_container(name, &lock)
    };
    // A daemon that has told why it cannot mount still holds it until it has ended.
    for _ in 0..TRIES {
        match take_away() {
            Ok(true) => return,
            Ok(false) => sleep(INTERVAL),
            Err(error) => return log::warn!("{error}"),
        }
    }
}

/// `plyfs run IMAGE [COMMAND…]`
pub(super) fn run(args: &[OsString], inherited: Inherited) -> Result<ExitCode, ExitCode> {
    let args = parse::<Run>(args)?;
    let mut options = options(&args.options)?;
    if is_privileged() {
        // As in any root filesystem, programs of other users run, and become others.
        options.mount.flags.remove(MountFlags::NOSUID);
    }
    if !has_ids() {
        // There is no other user that a file could be shown to belong to.
        (options.config.squash_uid, options.config.squash_gid) = (Some(0), Some(0));
    }
    let wanted = Wanted {
        store: args.store.as_deref(),
        what: &args.image,
        name: args.name.as_deref(),
        upper: None,
        ephemeral: args.name.is_none(),
        read_only: args.read_only,
    };
    let run = || -> Result<u8, Failure> {
        let prepared = prepare(&wanted, options)?;
        let program = program(&args, &prepared.config);
        let request = Request { ends_with_caller: true, ..prepared.request };
        run::run(&request, inherited, &program)
    };
    Ok(ExitCode::from(run().unwrap_or_else(|failure| {
        say(&failure.to_string());
        FAILED
    })))
}

/// What is to be mounted of the store.
struct Wanted<'a> {
    store: Option<&'a Path>,
    what: &'a OsStr,
    name: Option<&'a str>,
    upper: Option<&'a Path>,
    ephemeral: bool,
    read_only: bool,
}

/// What can be mounted.
struct Prepared {
    request: Request,
    config: ImageConfiguration,
    /// The container's name.
    name: String,
    is_ephemeral: bool,
    /// The container was made for this.
    is_new: bool,
}

fn prepare(wanted: &Wanted<'_>, options: Options) -> Result<Prepared> {
    let store = open(wanted.store)?;
    let what = wanted.what.to_str().unwrap_or_default();
    let (container, layers, is_new) = match store.container(what)? {
        Some(container) => {
            if wanted.name.is_some() || wanted.upper.is_some() {
                let reason = "a container has its name and its upper already";
                return Err(Error::new(Errno::INVAL, "mount").on(format!("container {what}")).because(reason));
            }
            let layers = store.layers_of(&container.container.layers)?;
            (container, layers, false)
        }
        None => {
            let image = store.image(what)?;
            let layers = store.layers_of(&image.layers)?;
            let upper = wanted.upper.map(absolute).transpose()?;
            let ephemeral = wanted.ephemeral || wanted.read_only;
            (store.make_container(wanted.name, &image, &layers, upper, ephemeral)?, layers, true)
        }
    };
    let (name, upper) = (container.container.name.clone(), container.upper.clone());
    prepare_mount(wanted, options, &store, container, layers, is_new).inspect_err(|_| {
        if is_new {
            forget(wanted.store, &name, Some(&upper));
        }
    })
}

fn prepare_mount(
    wanted: &Wanted<'_>,
    mut options: Options,
    store: &Store,
    container: ContainerRef,
    layers: Vec<LayerRef>,
    is_new: bool,
) -> Result<Prepared> {
    let what = wanted.what.to_string_lossy();
    let Container { name, image, config: id, layers: ids, ephemeral: is_ephemeral, .. } = container.container.clone();
    let image_name = image.to_string();
    let config = store.config(&Image { name: image, config: id, layers: ids })?;
    if !geteuid().is_root() && layers.iter().any(|layer| layer.info.owners == Owners::Real) {
        let reason = "its files belong to your subordinate ids: use plyfs run, or mount it in a shell of \
                      unshare --map-root-user --map-auto --mount";
        return Err(Error::new(Errno::PERM, "mount").on(format!("image {what}")).because(reason));
    }
    let lowers = stack(&layers);
    if lowers.is_empty() {
        return Err(Error::new(Errno::INVAL, "mount").on(format!("image {what}")).because("it has no layers"));
    }
    options.config.lowers = lowers;
    // Read-only too: the root directory is that of the image, which the topmost layer need not tell.
    options.config.upper = Some(container.upper.clone());
    options.config.work = Some(container.work.clone());
    if wanted.read_only {
        options.config.read_only = true;
        options.add(OsStr::new("ro"))?;
    }
    options.mount.source.get_or_insert_with(|| source(store, &name));
    if geteuid().is_root() && !options.mount.allow_root {
        options.mount.allow_other = true;
    }
    options.finish()?;
    let mountpoint = store.path().join("containers").join(&name).join("merged");
    if let Err(error) = std::fs::create_dir(&mountpoint)
        && error.kind() != std::io::ErrorKind::AlreadyExists
    {
        return Err(Error::from(error).on(mountpoint.display().to_string()));
    }
    let request = Request {
        config: options.config,
        mount: options.mount,
        mountpoint,
        debug: false,
        held: Held::new(store, layers, container),
        image: Some(ImageRef { name: image_name, container: name.clone() }),
        ends_with_caller: false,
    };
    Ok(Prepared { request, config, name, is_ephemeral, is_new })
}

/// What the list of mounts shows as the source of a mounted container, by which it is found again.
pub(super) fn source(store: &Store, name: &str) -> OsString {
    let mut source = OsString::from(store.path().join("containers"));
    source.push("/");
    source.push(name);
    source
}

/// The roots of the layers, topmost first. One that is there twice counts where it is topmost: below, it has nothing
/// that it has not there.
pub(super) fn stack(layers: &[LayerRef]) -> Vec<PathBuf> {
    let mut lowers: Vec<PathBuf> = Vec::new();
    for layer in layers.iter().rev() {
        if !lowers.contains(&layer.root) {
            lowers.push(layer.root.clone());
        }
    }
    lowers
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|error| Error::from(error).on(path.display().to_string()))
}

/// What is run: what the command line says, and what the image says where that is silent.
fn program(args: &Run, config: &ImageConfiguration) -> Program {
    let config = config.config().as_ref();
    let list = |list: Option<&Option<Vec<String>>>| list.and_then(Option::as_ref).cloned().unwrap_or_default();
    let text = |text: Option<&Option<String>>| text.and_then(Option::as_ref).cloned().unwrap_or_default();
    let mut command: Vec<OsString> =
        list(config.map(|config| config.entrypoint())).into_iter().map(OsString::from).collect();
    if args.command.is_empty() {
        command.extend(list(config.map(|config| config.cmd())).into_iter().map(OsString::from));
    } else {
        command.extend(args.command.iter().cloned());
    }
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned();
    let term = std::env::var_os("TERM").map(|term| OsStr::from_bytes(&[b"TERM=", term.as_bytes()].concat()).to_owned());
    let from_image = list(config.map(|config| config.env())).into_iter().map(OsString::from);
    let entries: Vec<OsString> =
        [path.into()].into_iter().chain(term).chain(from_image).chain(args.env.iter().cloned()).collect();
    Program {
        args: command,
        env: environment(entries.iter().map(OsString::as_os_str)),
        workdir: args.workdir.clone().unwrap_or_else(|| text(config.map(|config| config.working_dir())).into()),
        user: args.user.clone().unwrap_or_else(|| text(config.map(|config| config.user()))),
    }
}
