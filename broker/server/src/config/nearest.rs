//! Finds the name that a misspelled one was meant to be.

/// The name most like this one, if one is like it.
pub(super) fn nearest(name: &str, names: impl Iterator<Item = String>) -> Option<String> {
    const ALIKE: f64 = 0.75;
    let score = |other: String| (strsim::normalized_damerau_levenshtein(name, &other), other);
    let best = names.map(score).max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 >= ALIKE).then_some(best.1)
}
