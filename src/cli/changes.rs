//! `plyfs diff` and `plyfs commit`: what a writable layer changes, told and kept.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rustix::fs::{Mode, OFlags};
use serde_json::json;

use crate::changes::Changed;
use crate::changes::commit::{self, commit as commit_layer};
use crate::changes::diff::{Changes, between, changes};
use crate::error::{Errno, Error, Result};
use crate::image::container::ContainerRef;
use crate::image::store::Store;
use crate::image::store::layer::LayerRef;
use crate::mount;
use crate::name::shown;
use crate::times;

use super::args::{Commit, Diff};
use super::container::{source, stack};
use super::image::{ended, open, show};
use super::{parse, print};

/// `plyfs diff`
pub(super) fn diff(args: &[OsString]) -> Result<ExitCode, ExitCode> {
    let args = parse::<Diff>(args)?;
    let run = || {
        let changes = find_changes(&open(args.store.as_deref())?, &args)?;
        if args.json {
            let list: Vec<_> = changes
                .iter()
                .map(|(path, kind)| json!({ "kind": kind, "path": format!("/{}", String::from_utf8_lossy(path)) }))
                .collect();
            return show::json(&list);
        }
        for (path, kind) in &changes {
            print(&format!("{} /{}", kind.letter(), shown(path)))?;
        }
        Ok(())
    };
    Ok(ended(run().map(|()| ExitCode::SUCCESS)))
}

/// `plyfs commit`
pub(super) fn commit(args: &[OsString]) -> Result<ExitCode, ExitCode> {
    let args = parse::<Commit>(args)?;
    let run = || {
        let store = open(args.store.as_deref())?;
        let container = find_container(&store, &args.what)?.ok_or_else(|| {
            let reason = "no container of the store, and nothing that one is mounted at (plyfs image ls)";
            Error::new(Errno::NOENT, "commit").on(shown(args.what.as_bytes())).because(reason)
        })?;
        let used = store.layers_of(&container.container.layers)?;
        let changed = of_container(&container, &used);
        let now = times::now();
        let options = commit::Options {
            name: args.name.clone(),
            now: args.source_date_epoch.unwrap_or(i64::try_from(now).unwrap_or(i64::MAX)),
            clamp: args.source_date_epoch.is_some(),
            comment: args.message.clone(),
        };
        let image = commit_layer(&store, &changed, &container.container.config, &container.container.layers, &options)?;
        if args.json { show::json(&image) } else { print(&format!("{} {}", image.name, image.config)) }
    };
    Ok(ended(run().map(|()| ExitCode::SUCCESS)))
}

fn of_container(container: &ContainerRef, layers: &[LayerRef]) -> Changed {
    Changed { upper: container.upper.clone(), work: Some(container.work.clone()), lowers: stack(layers) }
}

/// The container that is called so, or mounted there, or whose upper that is.
fn find_container(store: &Store, what: &OsStr) -> Result<Option<ContainerRef>> {
    if let Some(container) = what.to_str().map(|name| store.container(name)).transpose()?.flatten() {
        return Ok(Some(container));
    }
    let Ok(path) = std::fs::canonicalize(Path::new(what)) else { return Ok(None) };
    let at = mount::source_of(&path)?;
    for name in store.list("containers")? {
        let Some(container) = store.container(&name)? else { continue };
        if at.as_ref() == Some(&source(store, &name)) {
            // What was written is to be there before the upper is read.
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::syncfs(rustix::fs::open(&path, flags, Mode::empty())?)?;
            return Ok(Some(container));
        }
        if std::fs::canonicalize(&container.upper).is_ok_and(|upper| upper == path) {
            return Ok(Some(container));
        }
    }
    Ok(None)
}

fn find_changes(store: &Store, args: &Diff) -> Result<Changes> {
    if !args.lower.is_empty() {
        return changes(&Changed { upper: PathBuf::from(&args.what), work: None, lowers: args.lower.clone() });
    }
    let base = args.image.as_deref().map(|image| store.image(image)).transpose()?;
    if let Some(container) = find_container(store, &args.what)? {
        let layers = base.map_or(container.container.layers.clone(), |image| image.layers);
        let used = store.layers_of(&layers)?;
        return changes(&of_container(&container, &used));
    }
    if let Some(image) = args.what.to_str().and_then(|text| store.image(text).ok()) {
        let below = image.layers.split_last().map(|(_, below)| below).unwrap_or_default();
        let base = base.map_or(below.to_vec(), |image| image.layers);
        let (new, old) = (store.layers_of(&image.layers)?, store.layers_of(&base)?);
        return match new.split_last() {
            // The topmost layer alone tells.
            Some((top, _)) if base == below && !base.is_empty() => {
                changes(&Changed { upper: top.root.clone(), work: None, lowers: stack(&old) })
            }
            _ if base.is_empty() => Err(Error::new(Errno::INVAL, "compare")
                .on(format!("image {}", image.name))
                .because("it has nothing below its layer: name an image to compare with")),
            _ => between(stack(&new), stack(&old)),
        };
    }
    let upper = PathBuf::from(&args.what);
    if mount::source_of(&std::fs::canonicalize(&upper).unwrap_or_default())?.is_some() {
        let reason = "mounted, but no container of the store: name its upper, and its layers by --lower";
        return Err(Error::new(Errno::INVAL, "compare").on(shown(args.what.as_bytes())).because(reason));
    }
    let used = base.map(|image| store.layers_of(&image.layers)).transpose()?.unwrap_or_default();
    changes(&Changed { upper, work: None, lowers: stack(&used) })
}
