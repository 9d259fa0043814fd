//! `plyfs image`: what is in the store, and how it gets there and out again.

pub(super) mod args;
pub(super) mod show;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::thread::available_parallelism;

use serde_json::json;

use crate::error::{Context, Errno, Error, Result};
use crate::image::digest::Digest;
use crate::image::export::export;
use crate::image::import::{self, import};
use crate::image::limits::Limits;
use crate::image::platform::Platform;
use crate::image::store::image::Image;
use crate::image::store::{self, Store};
use crate::image::verify;
use crate::mount::Failure;

use super::progress::Shown;
use super::{parse, print, say};

use self::args::{Command, Export, Gc, Images, Import, Rm, Verify};

/// Does what `plyfs image …` says.
pub(super) fn run(args: &[OsString]) -> Result<ExitCode, ExitCode> {
    let args = parse::<Images>(args)?;
    let result = match &args.command {
        Command::Import(args) => run_import(args),
        Command::Ls(args) => open(args.store.as_deref()).and_then(|store| show::list(&store, args.json)),
        Command::Inspect(args) => open(args.store.as_deref()).and_then(|store| show::inspect(&store, &args.image)),
        Command::History(args) => {
            open(args.store.as_deref()).and_then(|store| show::history(&store, &args.image, args.json))
        }
        Command::Rm(args) => run_rm(args),
        Command::Gc(args) => run_gc(args),
        Command::Export(args) => run_export(args),
        Command::Verify(args) => return Ok(ended(run_verify(args))),
    };
    Ok(ended(result.map(|()| ExitCode::SUCCESS)))
}

/// Opens the store that is told, or the usual one.
pub(super) fn open(path: Option<&Path>) -> Result<Store> {
    match path {
        Some(path) => Store::open(path),
        None => Store::open(&store::default_path()?),
    }
}

/// The exit code of what was done; tells what went wrong.
pub(super) fn ended(result: Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        say(&Failure::from(error).to_string());
        ExitCode::FAILURE
    })
}

fn run_import(args: &Import) -> Result<()> {
    let store = open(args.store.as_deref())?;
    let defaults = Limits::default();
    let options = import::Options {
        name: args.name.clone(),
        platform: args.platform.clone().unwrap_or_else(Platform::host),
        limits: Limits {
            layer_bytes: args.max_layer_size.unwrap_or(defaults.layer_bytes),
            entries: args.max_entries.unwrap_or(defaults.entries),
            ..defaults
        },
        skip_devices: args.skip_devices,
        jobs: args.jobs.unwrap_or_else(|| available_parallelism().map_or(1, usize::from)),
    };
    let image = import(&store, &args.source, &options, &Shown::new())?;
    if args.json { show::json(&image) } else { print(&format!("{} {}", image.name, image.config)) }
}

fn run_export(args: &Export) -> Result<()> {
    let store = open(args.store.as_deref())?;
    let image = store.image(&args.image)?;
    let (dir, reference) = &args.target;
    // As other tools do, the tag names it there.
    let tag = image.name.as_str().rsplit_once(':').map_or("latest", |(_, tag)| tag);
    let reference = reference.as_deref().unwrap_or(tag);
    let digest = export(&store, &image, dir, reference, args.compression, &Shown::new())?;
    if args.json {
        show::json(&json!({ "manifest": digest, "ref": reference }))
    } else {
        print(&format!("{}:{reference} {digest}", dir.display()))
    }
}

fn run_rm(args: &Rm) -> Result<()> {
    let store = open(args.store.as_deref())?;
    let lock = store.lock_loudly()?;
    for text in &args.images {
        if let Ok(image) = store.image(text) {
            store.remove_image(&image.name, &lock)?;
            print(&format!("image {} removed", image.name))?;
        } else if store.container(text)?.is_some() {
            if !store.remove_container(text, &lock)? {
                return Err(Error::new(Errno::BUSY, "remove").on(format!("container {text}")).because("it is mounted"));
            }
            print(&format!("container {text} removed"))?;
        } else {
            store.image(text)?;
        }
    }
    Ok(())
}

fn run_gc(args: &Gc) -> Result<()> {
    let store = open(args.store.as_deref())?;
    let lock = store.lock_loudly()?;
    let removed = store.gc(&lock)?;
    if args.json {
        return show::json(&removed);
    }
    for id in &removed.layers {
        print(&format!("layer {id} removed"))?;
    }
    for id in &removed.in_use {
        print(&format!("layer {id} is not needed, but mounted"))?;
    }
    for name in &removed.containers {
        print(&format!("container {name} removed"))?;
    }
    Ok(())
}

fn run_verify(args: &Verify) -> Result<ExitCode> {
    let store = open(args.store.as_deref())?;
    let ids = match &args.image {
        Some(text) => {
            let Image { config, layers, .. } = store.image(text)?;
            store.config_bytes(&config)?;
            layers
        }
        None => {
            for image in store.images()? {
                store.config_bytes(&image.config)?;
            }
            store.layers()?
        }
    };
    let mut report = Vec::new();
    for id in ids {
        let wrong = match store.layer(&id) {
            Ok(Some(layer)) => verify::layer(&layer)?,
            Ok(None) => vec!["it is missing".to_owned()],
            Err(error) => vec![Failure::from(error).to_string()],
        };
        let repaired = args.repair && !wrong.is_empty() && take_away(&store, &id)?;
        if !args.json {
            for line in &wrong {
                print(&format!("layer {id}: {line}"))?;
            }
            let state = match (wrong.is_empty(), repaired) {
                (true, _) => "is whole",
                (false, true) => "is removed: import its image again",
                (false, false) => "is broken",
            };
            print(&format!("layer {id}: {state}"))?;
        }
        report.push(show::Verified { layer: id, wrong, repaired });
    }
    let is_whole = report.iter().all(|layer| layer.wrong.is_empty());
    if args.json {
        show::json(&report)?;
    }
    Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn take_away(store: &Store, id: &Digest) -> Result<bool> {
    let lock = store.lock_loudly()?;
    if store.remove_layer(id, &lock)? {
        return Ok(true);
    }
    Err(Errno::BUSY).during("remove a broken layer that is mounted")
}
