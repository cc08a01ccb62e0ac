//! Histories as JSON lines, one at a time.

use std::fmt;
use std::io::{self, BufRead, Write};

use crate::Operation;

/// Writes a history.
pub struct Writer<W: Write> {
    to: W,
}

impl<W: Write> Writer<W> {
    /// Writes to `to`, which should be buffered.
    pub fn new(to: W) -> Self {
        Self { to }
    }

    /// Writes a line.
    pub fn write(&mut self, operation: &Operation) -> io::Result<()> {
        serde_json::to_writer(&mut self.to, operation)?;
        self.to.write_all(b"\n")
    }

    /// What it was written to, flushed.
    pub fn finish(mut self) -> io::Result<W> {
        self.to.flush()?;
        Ok(self.to)
    }
}

/// Why a history can't be read on.
#[derive(Debug)]
pub enum ReadError {
    /// It can't be read at all.
    Io(io::Error),
    /// A line is no operation.
    Line(u64, serde_json::Error),
    /// A line's index isn't the one that is due.
    Index {
        /// The line, from 1.
        line: u64,
        /// Its index.
        index: u64,
        /// The one that is due.
        due: u64,
    },
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(e) => e.fmt(f),
            Self::Line(line, e) => write!(f, "line {line}: {e}"),
            Self::Index { line, index, due } => write!(f, "line {line}: index {index}, not {due}"),
        }
    }
}

impl std::error::Error for ReadError {}

/// Reads a history. After an error there is no next item.
pub struct Reader<R: BufRead> {
    from: R,
    line: u64,
    due: u64,
    text: String,
    done: bool,
}

impl<R: BufRead> Reader<R> {
    /// Reads from `from`.
    pub fn new(from: R) -> Self {
        Self {
            from,
            line: 0,
            due: 0,
            text: String::new(),
            done: false,
        }
    }

    fn read(&mut self) -> Result<Option<Operation>, ReadError> {
        loop {
            self.text.clear();
            if self.from.read_line(&mut self.text).map_err(ReadError::Io)? == 0 {
                return Ok(None);
            }
            self.line += 1;
            if !self.text.trim().is_empty() {
                break;
            }
        }
        let line = self.line;
        let operation: Operation = serde_json::from_str(&self.text).map_err(|e| ReadError::Line(line, e))?;
        if operation.index != self.due {
            let (index, due) = (operation.index, self.due);
            return Err(ReadError::Index { line, index, due });
        }
        self.due += 1;
        Ok(Some(operation))
    }
}

impl<R: BufRead> Iterator for Reader<R> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MicroOp, Op, Type, Val};

    const LINES: &str = r#"{"index":0,"time":0,"type":"invoke","process":3,"f":"assign","value":["t-0","11"]}
{"index":1,"time":5,"type":"invoke","process":0,"f":"txn","value":[["send","t-0",-7],["send","t-0","a"],["poll"]]}
{"index":2,"time":6,"type":"ok","process":0,"f":"txn","value":[["send","t-0",[12,-7]],["send","t-0","a"],["poll",{"11":[[2,null],[5,1]],"t-0":[]}]]}
{"index":3,"time":7,"type":"info","process":9,"f":"crash","value":{"why":[1]}}
"#;

    fn read(text: &str) -> Result<Vec<Operation>, ReadError> {
        Reader::new(text.as_bytes()).collect()
    }

    #[test]
    fn what_is_written_is_what_was_read() {
        let history = read(LINES).expect("it is a history");
        let mut w = Writer::new(Vec::new());
        for o in &history {
            w.write(o).expect("a Vec takes everything");
        }
        let written = w.finish().expect("a Vec takes everything");
        assert_eq!(String::from_utf8_lossy(&written), LINES);
        assert_eq!((history[2].type_, history[2].op.f()), (Type::Ok, "txn"));
        let first = &history[2].op.micro_ops()[0];
        let expected = MicroOp::Send {
            key: "t-0".into(),
            offset: Some(12),
            value: Val::Int(-7),
        };
        assert_eq!(*first, expected);
        assert_eq!(history[0].op, Op::Assign(vec!["t-0".into(), "11".into()]));
    }

    #[test]
    fn integers_are_keys_by_their_text() {
        let line = r#"{"index":0,"type":"invoke","process":0,"f":"send","value":[["send",11,null]]}"#;
        let history = read(line).expect("it is a history");
        let sent = MicroOp::Send {
            key: "11".into(),
            offset: None,
            value: Val::Null,
        };
        assert_eq!(history[0].op, Op::Send(vec![sent]));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let twice = LINES.lines().next().expect("a line").to_owned() + "\n" + LINES;
        assert!(matches!(
            read(&twice),
            Err(ReadError::Index {
                line: 2,
                index: 0,
                due: 1
            })
        ));
        let half = &LINES[..LINES.len() / 2];
        assert!(matches!(read(half), Err(ReadError::Line(_, _))));
        let odd = r#"{"index":0,"type":"ok","process":0,"f":"poll","value":[["pull"]]}"#;
        assert!(matches!(read(odd), Err(ReadError::Line(1, _))));
    }
}
