//! What each layer says of the name that decides, also those that are not asked.

use std::sync::Arc;

use crate::error::{Errno, Result};
use crate::inspect::says::{Reading, Says};
use crate::layer::LowerDir;
use crate::merge::{Probe, Step};
use crate::name::Name;
use crate::resolve::{Place, Trace, UpperProbe};

use super::{LayerView, Walk, join, lower};

impl Walk<'_> {
    /// What the layers say, topmost first.
    pub(super) fn layers(&self) -> Result<Vec<LayerView>> {
        let names = self.names.get(..self.done).unwrap_or_default();
        let mut views = Vec::new();
        if let Some(upper) = &self.overlay.stack.upper {
            let (says, verdict) = self.upper()?;
            let path = join(&upper.path, names);
            views.push(LayerView { layer: "upper".to_owned(), path, says, verdict, beyond: None });
        }
        let mut hidden = self.hidden_by_upper();
        let mut above = matches!(self.upper_probe(), Some(UpperProbe::Object { .. }));
        for root in &self.overlay.lower_roots {
            let Some(layer) = self.overlay.stack.lower(root.layer) else { continue };
            let place = self.trace().and_then(|trace| trace.places.iter().find(|place| place.dir.layer == root.layer));
            let view = match place {
                _ if self.last.is_none() => {
                    let says = Says { is: "directory", ..Says::default() };
                    LayerView {
                        layer: lower(root.layer),
                        path: layer.path.clone(),
                        says,
                        verdict: "merged".to_owned(),
                        beyond: None,
                    }
                }
                Some(place) => {
                    let (says, verdict) = (self.says(&place.dir, &place.name)?, verdict(place, above));
                    let path = join(&layer.path.join(place.dir.path()), std::slice::from_ref(&place.name));
                    hidden = hides(place).or(hidden);
                    above |= !matches!(place.step, Step::Skip | Step::Stop);
                    LayerView { layer: lower(root.layer), path, says, verdict, beyond: None }
                }
                None => {
                    let says = self.plain(root, names)?;
                    let out = self.out.get(usize::from(root.layer)).cloned().flatten();
                    let hidden = hidden.clone().filter(|_| says.is != "nothing");
                    let verdict = out.or(hidden).unwrap_or_else(|| "not looked into".to_owned());
                    LayerView { layer: lower(root.layer), path: join(&layer.path, names), says, verdict, beyond: None }
                }
            };
            let beyond = if self.done < self.names.len() {
                Some(self.plain(root, &self.names)?.is).filter(|is| *is != "nothing")
            } else {
                None
            };
            views.push(LayerView { beyond, ..view });
        }
        Ok(views)
    }

    fn trace(&self) -> Option<&Trace> {
        self.last.as_ref().map(|(trace, _)| trace)
    }

    fn upper_probe(&self) -> Option<&UpperProbe> {
        self.trace()?.upper.as_ref()
    }

    fn upper(&self) -> Result<(Says, String)> {
        let Some((parent, name)) = self.place() else {
            return Ok((Says { is: "directory", ..Says::default() }, "shown, merged with what lies below".to_owned()));
        };
        let verdict = match self.upper_probe() {
            None => {
                let says = Says { is: "nothing", ..Says::default() };
                return Ok((says, "no parent of it has been copied up".to_owned()));
            }
            Some(UpperProbe::Absent) => "the layers below decide",
            Some(UpperProbe::Whiteout) => "hides the name",
            Some(UpperProbe::Object { opaque: true, .. }) => "shown; hides what lies below",
            Some(UpperProbe::Object { .. }) => "shown",
        };
        let dir = self.overlay.upper_dir(parent)?;
        Ok((self.reading(true).says(&dir, name)?, verdict.to_owned()))
    }

    fn reading(&self, is_upper: bool) -> Reading<'_> {
        Reading { dialect: self.overlay.dialect, is_upper, lowers: &self.overlay.stack.lowers }
    }

    fn says(&self, dir: &Arc<LowerDir>, name: &Name) -> Result<Says> {
        self.reading(false).says(&self.overlay.lower_dir(dir)?, name)
    }

    /// What a layer holds at a path of its own, whatever other layers hide.
    fn plain(&self, root: &Arc<LowerDir>, names: &[Name]) -> Result<Says> {
        let nothing = Says { is: "nothing", ..Says::default() };
        let Some((last, parents)) = names.split_last() else { return Ok(nothing) };
        let mut dir = Arc::clone(root);
        for name in parents {
            let found = self.overlay.probe_lower(&dir, name)?;
            if !matches!(found.probe, Probe::Dir { .. }) {
                return Ok(nothing);
            }
            dir = LowerDir::child(&dir, name.clone(), found.xattr_whiteouts);
        }
        match self.says(&dir, last) {
            // What may not be looked into says nothing.
            Err(error) if error.errno() == Errno::ACCESS => Ok(nothing),
            says => says,
        }
    }

    fn hidden_by_upper(&self) -> Option<String> {
        match self.upper_probe()? {
            UpperProbe::Absent => None,
            UpperProbe::Whiteout => Some("hidden by the whiteout in the upper".to_owned()),
            UpperProbe::Object { opaque: true, .. } => {
                Some("hidden by the upper's directory, which is opaque".to_owned())
            }
            UpperProbe::Object { attr, .. } if attr.kind() == crate::attr::Kind::Dir => None,
            UpperProbe::Object { .. } => Some("hidden by what the upper has".to_owned()),
        }
    }
}

/// What follows from what a layer holds, below layers that have given something (`above`) or not.
fn verdict(place: &Place, above: bool) -> String {
    let verdict = match (place.step, place.probe, above) {
        (Step::Skip, ..) => "the layers below decide",
        (Step::Stop, Probe::Whiteout, false) => "hides the name in the layers below",
        (Step::Stop, ..) => "not shown, and ends the merge",
        (_, Probe::Dir { opaque: false }, false) => "shown",
        (_, Probe::Dir { opaque: false }, true) => "merged",
        (_, Probe::Dir { opaque: true }, false) => "shown; hides what lies below",
        (_, Probe::Dir { opaque: true }, true) => "merged; hides what lies below",
        (_, Probe::Metacopy, false) => "shown, without its data",
        (_, Probe::Metacopy, true) => "passed over: its data is further below",
        (_, _, false) => "shown",
        (_, _, true) => "gives the data",
    };
    verdict.to_owned()
}

/// Why the layers below that place are not asked.
fn hides(place: &Place) -> Option<String> {
    let layer = lower(place.dir.layer);
    match (place.step, place.probe) {
        (Step::Stop, Probe::Whiteout) => Some(format!("hidden by the whiteout in {layer}")),
        (Step::TakeAndStop, Probe::Dir { .. }) => Some(format!("hidden by the directory of {layer}, which is opaque")),
        (Step::Stop | Step::TakeAndStop, _) => Some(format!("hidden by what {layer} has")),
        _ => None,
    }
}
