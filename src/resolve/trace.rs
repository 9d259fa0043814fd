//! How a name is resolved, told place by place, for who wants to know why the overlay shows what it shows.

use std::sync::Arc;

use crate::attr::Kind;
use crate::error::Result;
use crate::inode::{Inode, Lower};
use crate::layer::LowerDir;
use crate::layer::marks::Metacopy;
use crate::merge::{Above, Probe, Step};
use crate::name::Name;
use crate::overlay::Overlay;

use super::{UpperProbe, parse_redirect};

/// Where a lower layer was asked, and what it said.
#[derive(Debug)]
pub(crate) struct Place {
    /// The directory.
    pub(crate) dir: Arc<LowerDir>,
    /// The name there.
    pub(crate) name: Name,
    /// What it is.
    pub(crate) probe: Probe,
    /// What followed from it.
    pub(crate) step: Step,
    /// Under which path or name the layers below are asked.
    pub(crate) redirect: Option<Box<[u8]>>,
}

/// How a name was resolved.
#[derive(Debug)]
pub(crate) struct Trace {
    /// What the upper said; none where the parent has no part there.
    pub(crate) upper: Option<UpperProbe>,
    /// The lower layers that were asked, in this order.
    pub(crate) places: Vec<Place>,
}

impl Overlay {
    /// Resolves `name` in `parent` as [`Overlay::resolve`] does, and tells how.
    ///
    /// # Errors
    /// Those of the layers. What only keeps a name from being shown is none: `resolve` tells it.
    pub(crate) fn trace(&self, parent: &Arc<Inode>, name: &Name) -> Result<Trace> {
        let (has_upper, lower) = {
            let state = parent.state.read();
            (state.upper.is_some(), state.lower.clone())
        };
        let upper = if has_upper { Some(self.probe_upper(parent, name)?) } else { None };
        let (above, redirect) = match &upper {
            None | Some(UpperProbe::Absent) => (Above::Nothing, None),
            Some(UpperProbe::Object { attr, marks, opaque: false }) if attr.kind() == Kind::Dir => {
                (Above::Dir, parse_redirect(marks).ok().flatten())
            }
            Some(UpperProbe::Object { attr, marks, .. })
                if attr.kind() == Kind::File && marks.metacopy == Metacopy::Yes =>
            {
                (Above::Metacopy, parse_redirect(marks).ok().flatten())
            }
            Some(_) => return Ok(Trace { upper, places: Vec::new() }),
        };
        let mut places = Vec::new();
        if let Lower::Dirs(dirs) = lower {
            let found = self.probe_lowers_telling(&dirs, name, redirect, above, |dir, name, found, step| {
                places.push(Place {
                    dir: Arc::clone(dir),
                    name: name.clone(),
                    probe: found.probe,
                    step,
                    redirect: found.redirect.clone(),
                });
            });
            // Refused ones as well have been told of up to where it was refused.
            if let Err(error) = found {
                log::debug!("{error}");
            }
        }
        Ok(Trace { upper, places })
    }
}
