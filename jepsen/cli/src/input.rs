//! Opens a history, and the errors of reading one.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use brokkr_history::{Place, ReadError};

/// Why there is no verdict.
pub(crate) enum Failure {
    /// The history can't be read.
    History(Option<Place>, String),
    /// An option is invalid.
    Usage(String),
    /// The output can't be written.
    Output(io::Error),
}

impl Failure {
    pub(crate) fn io(path: &Path, e: &io::Error) -> Self {
        Self::History(None, format!("{}: {e}", path.display()))
    }
}

/// Opens a file, or the standard input.
pub(crate) fn open(path: &Path) -> Result<Box<dyn Read>, Failure> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdin().lock()));
    }
    let file = File::open(path).map_err(|e| Failure::io(path, &e))?;
    Ok(Box::new(file))
}

/// The failure of reading the history at `path`.
pub(crate) fn unreadable(path: &Path, e: ReadError) -> Failure {
    match e {
        ReadError::Io(e) => Failure::io(path, &e),
        ReadError::Garbage { at, what } => Failure::History(Some(at), what),
    }
}

/// Says that the last line is torn.
pub(crate) fn left_out(torn: Place) -> String {
    format!("{torn}: the last line is torn, and left out: its recorder ended while it wrote it")
}
