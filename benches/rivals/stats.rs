//! The few statistics that ratios need.

/// The seconds that a workload took, or why it did not end well.
pub type Sample = Result<f64, String>;

/// The middle of several ratios, and how far they lie apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub low: f64,
    pub high: f64,
}

/// The ratios of samples that were taken in the same turn; none where one failed.
pub fn ratios(ours: &[Sample], theirs: &[Sample]) -> Option<Spread> {
    let pairs = ours.iter().zip(theirs).map(|(ours, theirs)| Some(ours.as_ref().ok()? / theirs.as_ref().ok()?));
    spread(pairs.collect::<Option<Vec<f64>>>()?)
}

/// The median, the least and the most.
pub fn spread(mut values: Vec<f64>) -> Option<Spread> {
    values.sort_by(f64::total_cmp);
    let (low, high) = (*values.first()?, *values.last()?);
    let (a, b) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
    Some(Spread { median: (a + b) / 2.0, low, high })
}

/// The geometric mean, and of how many values.
pub fn geometric_mean(values: impl IntoIterator<Item = f64>) -> Option<(f64, usize)> {
    let logs: Vec<f64> = values.into_iter().map(f64::ln).collect();
    (!logs.is_empty()).then(|| ((logs.iter().sum::<f64>() / logs.len() as f64).exp(), logs.len()))
}
