//! The merge rule: from what each layer holds under a name to what the overlay shows. Pure, and the heart of it all.
//!
//! The topmost entry wins. A whiteout makes the name absent. Directories merge down to the first opaque one, or to the
//! first layer that holds something else under the name. A metacopy gives a file's attributes; the next file that is none
//! gives its data.

/// What one layer holds under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// Nothing: the layers below decide.
    Absent,
    /// A whiteout: the name is hidden from here down.
    Whiteout,
    /// Anything but a directory.
    File,
    /// A file whose data is in a layer below.
    Metacopy,
    /// A directory; an opaque one hides the layers below.
    Dir {
        /// It hides the layers below.
        opaque: bool,
    },
}

/// What the layers above have given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Above {
    /// Nothing.
    Nothing,
    /// A directory, with which those below merge.
    Dir,
    /// A file that lacks its data.
    Metacopy,
}

/// What follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Look into the next layer; this one adds nothing.
    Skip,
    /// This layer's object belongs to the result; look further.
    TakeAndGoOn,
    /// This layer's object completes the result.
    TakeAndStop,
    /// The result is complete without this layer.
    Stop,
}

/// Applies the merge rule to one layer, below layers that have given `above`.
pub const fn step(above: Above, probe: Probe) -> Step {
    match (above, probe) {
        (_, Probe::Absent) => Step::Skip,
        (_, Probe::Whiteout) | (Above::Dir, Probe::File | Probe::Metacopy) | (Above::Metacopy, Probe::Dir { .. }) => {
            Step::Stop
        }
        (_, Probe::File | Probe::Dir { opaque: true }) => Step::TakeAndStop,
        (_, Probe::Metacopy | Probe::Dir { opaque: false }) => Step::TakeAndGoOn,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIR: Probe = Probe::Dir { opaque: false };
    const OPAQUE: Probe = Probe::Dir { opaque: true };
    use Probe::{Absent, File, Metacopy, Whiteout};

    /// The layers, topmost first, whose objects make up the result.
    fn merged(layers: &[Probe]) -> Vec<usize> {
        let mut taken = Vec::new();
        let mut above = Above::Nothing;
        for (index, probe) in layers.iter().enumerate() {
            let step = step(above, *probe);
            if matches!(step, Step::TakeAndGoOn) {
                above = if *probe == Metacopy { Above::Metacopy } else { Above::Dir };
            }
            match step {
                Step::Skip => {}
                Step::TakeAndGoOn => taken.push(index),
                Step::TakeAndStop => {
                    taken.push(index);
                    break;
                }
                Step::Stop => break,
            }
        }
        taken
    }

    #[test]
    fn the_topmost_entry_wins_and_directories_merge() {
        for (layers, expected) in [
            (&[][..], &[][..]),
            (&[Absent, Absent], &[]),
            (&[File], &[0]),
            (&[Absent, File, File], &[1]),
            (&[File, DIR], &[0]),
            (&[Whiteout, File], &[]),
            (&[Absent, Whiteout, DIR], &[]),
            (&[File, Whiteout], &[0]),
            (&[DIR, DIR, DIR], &[0, 1, 2]),
            (&[DIR, Absent, DIR], &[0, 2]),
            (&[DIR, File, DIR], &[0]),
            (&[DIR, Whiteout, DIR], &[0]),
            (&[OPAQUE, DIR], &[0]),
            (&[DIR, OPAQUE, DIR], &[0, 1]),
            (&[Absent, OPAQUE, DIR], &[1]),
            (&[Metacopy, File, File], &[0, 1]),
            (&[Metacopy, Absent, Metacopy, File], &[0, 2, 3]),
            (&[Metacopy, Whiteout, File], &[0]),
            (&[Metacopy, DIR], &[0]),
            (&[Metacopy, OPAQUE, File], &[0]),
            (&[DIR, Metacopy, DIR], &[0]),
        ] {
            assert_eq!(merged(layers), expected, "{layers:?}");
        }
    }
}
