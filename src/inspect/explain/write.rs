//! What a change of a path would do to the upper.

use std::path::Path;

use crate::attr::Kind;
use crate::error::Result;
use crate::inode::DataAt;
use crate::resolve::UpperProbe;

use super::Walk;

impl Walk<'_> {
    /// What changes of the path would do, a line each.
    pub(super) fn write(&self, data: Option<&Path>) -> Result<Vec<String>> {
        if !self.is_writable() {
            return Ok(vec!["nothing can be changed: the overlay is read-only".to_owned()]);
        }
        let Some((parent, name)) = self.place() else {
            return Ok(vec!["an entry made in it is made in the upper".to_owned()]);
        };
        let Some((trace, found)) = &self.last else { return Ok(Vec::new()) };
        let mut lines = Vec::new();
        let is_whole = self.done == self.names.len();
        let Ok(found) = found else {
            return Ok(vec!["any access fails as this did".to_owned()]);
        };
        match found {
            None if !is_whole => lines.push("nothing can be made there: its parent is missing".to_owned()),
            None => {
                let replaces = matches!(trace.upper, Some(UpperProbe::Whiteout));
                let how = if replaces { ", in the place of the whiteout" } else { "" };
                lines.push(format!("make it: made in the upper{how}{}", self.with_parents()));
            }
            Some(_) if !is_whole => lines.push("nothing can be made below what is no directory".to_owned()),
            Some(found) => {
                if found.state.flags.immutable {
                    return Ok(vec!["refused: it is immutable".to_owned()]);
                }
                if found.state.flags.append_only {
                    lines.push("only appending is allowed: it is append-only".to_owned());
                }
                let is_file = found.attr.kind() == Kind::File;
                let is_metacopy = found.state.data().is_some();
                let bytes = bytes(found.attr.size, self.allocated(found.attr.blocks, found.state.data()));
                let by_index = data.is_some_and(|data| self.is_by_index(data));
                if by_index {
                    lines.push(format!("change it: the copy in the index changes, in place{}", self.with_parents()));
                } else if found.state.upper.is_some() {
                    match (found.attr.kind(), is_metacopy) {
                        (Kind::Dir, _) => lines.push("make an entry in it: made in the upper, in place".to_owned()),
                        (_, true) => {
                            lines
                                .push(format!("change its content: {bytes} are copied up into the upper's file first"));
                            lines.push("change its attributes: in place".to_owned());
                        }
                        (_, false) => lines.push("change it: in place".to_owned()),
                    }
                } else if is_file {
                    lines.push(format!("change its content: copied up, {bytes}{}", self.with_parents()));
                    let how = if self.overlay.config.metacopy { "metadata only" } else { "as above" };
                    lines.push(format!("change its attributes: copied up, {how}"));
                } else if found.attr.kind() == Kind::Dir {
                    lines.push(format!("make an entry in it: copied up without its entries{}", self.with_parents()));
                } else {
                    lines.push(format!("change its attributes: copied up{}", self.with_parents()));
                }
                if !by_index && found.state.upper.is_none() && found.attr.nlink > 1 && found.attr.kind() != Kind::Dir {
                    lines.push(format!("its {} names stay one file, by the index", found.attr.nlink));
                }
                let hides = self.overlay.lower_shows(parent, name)?;
                let how = if hides { "a whiteout is left in the upper" } else { "its entry in the upper goes" };
                lines.push(format!("remove it: {how}{}", self.with_parents()));
            }
        }
        Ok(lines)
    }

    /// The parents that a change has copied up first.
    fn with_parents(&self) -> String {
        let parents = self.dirs.iter().take(self.done).enumerate();
        let copied = parents.filter(|(_, dir)| dir.state.read().upper.is_none());
        let copied: Vec<String> = copied.map(|(count, _)| self.shown(count)).collect();
        if copied.is_empty() { String::new() } else { format!("; copied up before: {}", copied.join(" ")) }
    }

    fn allocated(&self, blocks: u64, data: Option<&DataAt>) -> u64 {
        let blocks = match data {
            Some(DataAt::Lower(_, _, blocks)) => *blocks,
            _ => blocks,
        };
        blocks.saturating_mul(512)
    }
}

/// A size, and how much of it there is to be copied, where that is less.
fn bytes(size: u64, allocated: u64) -> String {
    if allocated < size { format!("{size} bytes ({allocated} without holes)") } else { format!("{size} bytes") }
}
