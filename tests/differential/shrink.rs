//! Making a failing case small.

use super::case::Case;
use super::run;

/// How many cases are tried.
const TRIES: usize = 400;

/// A case that fails too, from which nothing more can be left out, or not in the time there is.
pub fn shrink(case: &Case) -> Case {
    let mut small = case.clone();
    let mut tries = 0;
    let mut fails = |case: &Case| {
        tries += 1;
        tries <= TRIES && run::run(case).is_err()
    };
    // Half of the operations, then a quarter, and so on; the same with the entries of each layer.
    let mut step = small.operations.len() / 2;
    while step > 0 {
        let mut start = 0;
        while start < small.operations.len() {
            let mut candidate = small.clone();
            let end = (start + step).min(candidate.operations.len());
            candidate.operations.drain(start..end);
            if fails(&candidate) {
                small = candidate;
            } else {
                start += step;
            }
        }
        step /= 2;
    }
    for layer in 0..small.layers.len() {
        let mut entry = 0;
        while entry < small.layers[layer].len() {
            let mut candidate = small.clone();
            candidate.layers[layer].remove(entry);
            if fails(&candidate) {
                small = candidate;
            } else {
                entry += 1;
            }
        }
    }
    small
}
