//! The merge rule: from what each layer holds under a name to what the overlay shows. Pure, and the heart of it all.
//!
//! The topmost entry wins. A whiteout makes the name absent. Directories merge down to the first opaque one, or to the
//! first layer that holds something else under the name.

/// What one layer holds under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// Nothing: the layers below decide.
    Absent,
    /// A whiteout: the name is hidden from here down.
    Whiteout,
    /// Anything but a directory.
    File,
    /// A directory; an opaque one hides the layers below.
    Dir {
        /// It hides the layers below.
        opaque: bool,
    },
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

/// Applies the merge rule to one layer; `in_dir` says that a layer above has given a directory.
pub const fn step(in_dir: bool, probe: Probe) -> Step {
    match (in_dir, probe) {
        (_, Probe::Absent) => Step::Skip,
        (_, Probe::Whiteout) | (true, Probe::File) => Step::Stop,
        (false, Probe::File) | (_, Probe::Dir { opaque: true }) => Step::TakeAndStop,
        (_, Probe::Dir { opaque: false }) => Step::TakeAndGoOn,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIR: Probe = Probe::Dir { opaque: false };
    const OPAQUE: Probe = Probe::Dir { opaque: true };
    use Probe::{Absent, File, Whiteout};

    /// The layers, topmost first, whose objects make up the result.
    fn merged(layers: &[Probe]) -> Vec<usize> {
        let mut taken = Vec::new();
        for (index, probe) in layers.iter().enumerate() {
            match step(!taken.is_empty(), *probe) {
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
        ] {
            assert_eq!(merged(layers), expected, "{layers:?}");
        }
    }
}
