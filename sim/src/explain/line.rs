//! The time and the text of an explanation's line.

use crate::exec::Nanos;

/// A longer line is cut.
const TEXT_CHARS_MAX: usize = 150;

/// A time, as an explanation shows it.
pub fn seconds(t: Nanos) -> String {
    format!("{:>4}.{:06}", t / 1_000_000_000, t % 1_000_000_000 / 1_000)
}

/// The beginning of a long text.
pub fn cut(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    match line.char_indices().nth(TEXT_CHARS_MAX) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line.to_owned(),
    }
}
