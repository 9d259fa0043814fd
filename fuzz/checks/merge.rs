//! The merge rule, on any answers of any number of layers.

use plyfs::merge::{Above, Probe, Step, step};

const DIR: Probe = Probe::Dir { opaque: false };
const OPAQUE: Probe = Probe::Dir { opaque: true };
const PROBES: [Probe; 6] = [Probe::Absent, Probe::Whiteout, Probe::File, Probe::Metacopy, DIR, OPAQUE];

/// A byte for each layer says what it holds.
pub fn check(data: &[u8]) {
    let layers: Vec<Probe> = data.iter().map(|byte| PROBES[usize::from(*byte) % PROBES.len()]).collect();
    assert_eq!(taken(&layers), expected(&layers), "{layers:?}");
}

/// The layers whose objects make up the result, by the rule applied from the top.
fn taken(layers: &[Probe]) -> Vec<usize> {
    let mut taken = Vec::new();
    let mut above = Above::Nothing;
    for (layer, probe) in layers.iter().enumerate() {
        match step(above, *probe) {
            Step::Skip => continue,
            Step::Stop => break,
            Step::TakeAndStop => {
                taken.push(layer);
                break;
            }
            Step::TakeAndGoOn => taken.push(layer),
        }
        above = if *probe == Probe::Metacopy { Above::Metacopy } else { Above::Dir };
    }
    taken
}

/// The same, said of all layers at once.
fn expected(layers: &[Probe]) -> Vec<usize> {
    let there = |from: usize| (from..layers.len()).find(|layer| layers[*layer] != Probe::Absent);
    let Some(top) = there(0) else { return Vec::new() };
    let goes_on = layers[top];
    let ends: &[Probe] = match goes_on {
        Probe::Whiteout => return Vec::new(),
        Probe::File | OPAQUE => return vec![top],
        // Data ends the search for data, an opaque directory that for directories.
        Probe::Metacopy => &[Probe::File],
        _ => &[OPAQUE],
    };
    let mut run: Vec<usize> = (top..layers.len()).filter(|layer| layers[*layer] != Probe::Absent).collect();
    let length = run.iter().take_while(|layer| layers[**layer] == goes_on).count();
    let has_end = run.get(length).is_some_and(|layer| ends.contains(&layers[*layer]));
    run.truncate(length + usize::from(has_end));
    run
}
