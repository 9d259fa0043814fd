//! Making a failing case small.

use std::time::{Duration, Instant};

use super::case::Case;
use super::run::{self, Difference};

/// How long is tried.
const PATIENCE: Duration = Duration::from_secs(60);

/// A case that fails too, from which nothing more can be left out, or not in the time there is.
pub fn shrink(case: &Case, difference: &Difference) -> Case {
    let mut small = case.clone();
    small.operations.truncate(difference.after);
    let start = Instant::now();
    let mut fails = |case: &Case| start.elapsed() < PATIENCE && run::run(case).is_err();
    if !fails(&small) {
        return case.clone();
    }
    // Half of the operations, then a quarter, and so on; the same with the entries of each layer.
    let count = small.operations.len();
    leave_out(&mut small, count, |case| &mut case.operations, &mut fails);
    for layer in 0..small.layers.len() {
        let count = small.layers[layer].len();
        leave_out(&mut small, count, |case| &mut case.layers[layer], &mut fails);
    }
    let count = small.operations.len();
    leave_out(&mut small, count, |case| &mut case.operations, &mut fails);
    small
}

/// Leaves out of a list of a case whatever it fails without.
fn leave_out<T>(
    small: &mut Case,
    count: usize,
    list: impl Fn(&mut Case) -> &mut Vec<T>,
    fails: &mut impl FnMut(&Case) -> bool,
) {
    let mut step = count.div_ceil(2);
    while step > 0 {
        let mut start = 0;
        while start < list(small).len() {
            let mut candidate = small.clone();
            let end = (start + step).min(list(small).len());
            list(&mut candidate).drain(start..end);
            if fails(&candidate) {
                *small = candidate;
            } else {
                start += step;
            }
        }
        step /= 2;
    }
}
