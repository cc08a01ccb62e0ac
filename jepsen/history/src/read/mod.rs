//! Reads histories one operation at a time, as JSON or EDN.

mod decode;
mod form;

use std::fmt;
use std::io::{self, Read};

use form::{Fault, Parser};
pub use form::{Place, Syntax};

use crate::Operation;

/// Why reading a history failed.
#[derive(Debug)]
pub enum ReadError {
    /// IO failed.
    Io(io::Error),
    /// The text is not a history.
    Garbage {
        /// The place.
        at: Place,
        /// A description.
        what: String,
    },
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(e) => e.fmt(f),
            Self::Garbage { at, what } => write!(f, "{at}: {what}"),
        }
    }
}

impl std::error::Error for ReadError {}

impl From<Fault> for ReadError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Io(e) => Self::Io(e),
            Fault::Form { at, what } => Self::Garbage { at, what },
        }
    }
}

/// Reads a history, holding one operation at a time. After an error there is no next item.
///
/// Operations follow one another, or are in one list. Indexes are dense; an operation without one gets the next index.
///
/// A recorder that was killed may leave the beginning of an operation as the last line. That operation is left out, and
/// [`Reader::torn`] says where it is. An operation that is torn anywhere else is an error.
///
/// ```
/// use brokkr_history::Reader;
/// let edn = "{:type :ok, :process 0, :f :poll, :value [[:poll {:x [[0 :a]]}]]}";
/// let json = r#"{"index":0,"type":"ok","process":0,"f":"poll","value":[["poll",{"x":[[0,"a"]]}]]}"#;
/// let read = |text: &'static str| Reader::new(text.as_bytes()).next().unwrap().unwrap();
/// assert_eq!(read(edn), read(json));
/// ```
pub struct Reader<R: Read> {
    parser: Parser<R>,
    at: Place,
    due: u64,
    done: bool,
    torn: Option<Place>,
}

impl<R: Read> Reader<R> {
    /// Reads from `from`, and detects JSON or EDN. It reads ahead into its own buffer.
    pub fn new(from: R) -> Self {
        Self::of(from, None)
    }

    /// Reads `syntax` from `from`.
    pub fn with_syntax(from: R, syntax: Syntax) -> Self {
        Self::of(from, Some(syntax))
    }

    fn of(from: R, syntax: Option<Syntax>) -> Self {
        Self {
            parser: Parser::new(from, syntax),
            at: Place { line: 1, column: 1 },
            due: 0,
            done: false,
            torn: None,
        }
    }

    /// The place of the last operation that was read.
    pub fn place(&self) -> Place {
        self.at
    }

    /// The place of the last line, if it is torn: it has the beginning of an operation, and no end. It is known once there is
    /// no next item.
    pub fn torn(&self) -> Option<Place> {
        self.torn
    }

    fn read(&mut self) -> Result<Option<Operation>, ReadError> {
        let form = match self.parser.next() {
            Ok(Some(form)) => form,
            Ok(None) => return Ok(None),
            Err(fault @ Fault::Io(_)) => return Err(fault.into()),
            Err(fault) => {
                self.torn = self.parser.torn()?;
                return self.torn.map_or(Err(fault.into()), |_| Ok(None));
            }
        };
        self.at = form.at;
        let operation = decode::operation(form, self.due)?;
        self.due += 1;
        Ok(Some(operation))
    }
}

impl<R: Read> Iterator for Reader<R> {
    type Item = Result<Operation, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let read = self.read().transpose();
        self.done = !matches!(read, Some(Ok(_)));
        read
    }
}
