//! The first event in which two traces differ.

use std::fmt;
use std::io::{self, BufRead};

use super::Event;

/// Where two traces first differ.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    /// The number of the first line that differs, from 1.
    pub line: u64,
    /// That line of each trace; none if the trace has ended before.
    pub lines: [Option<String>; 2],
}

/// Compares two traces in JSON lines. None if they are equal.
///
/// # Errors
/// Errors of the readers.
pub fn first_difference(a: impl BufRead, b: impl BufRead) -> io::Result<Option<Difference>> {
    let (mut a, mut b) = (a.lines(), b.lines());
    for line in 1.. {
        let lines = [a.next().transpose()?, b.next().transpose()?];
        if lines == [None, None] {
            break;
        }
        if lines[0] != lines[1] {
            return Ok(Some(Difference { line, lines }));
        }
    }
    Ok(None)
}

impl Difference {
    /// The event of each trace in words.
    pub fn sides(&self) -> [String; 2] {
        [readable(&self.lines[0]), readable(&self.lines[1])]
    }
}

/// An event as text, or the line itself.
fn readable(line: &Option<String>) -> String {
    match line {
        None => "nothing more: the run has ended".to_owned(),
        Some(line) => match serde_json::from_str::<Event>(line) {
            Ok(event) => {
                let by = event
                    .by
                    .map_or_else(String::new, |by| format!(" (caused by event {by})"));
                let who = event.task.as_deref().unwrap_or("a timer or device");
                format!(
                    "at {}.{:09} s, node {} life {}, {who}: {}{by}",
                    event.t / 1_000_000_000,
                    event.t % 1_000_000_000,
                    event.node,
                    event.life,
                    event.what
                )
            }
            Err(_) => line.clone(),
        },
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b] = self.sides();
        write!(
            f,
            "the first event that differs is number {}: {a}; the other time: {b}",
            self.line
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = r#"{"n":1,"t":1000000000,"node":0,"life":0,"e":"timer"}
{"n":2,"t":1000000005,"node":1,"life":2,"task":"partition","id":3,"by":1,"e":"sync","file":"data/t0-0/0.log","len":9}
"#;

    fn compare(a: &str, b: &str) -> Option<Difference> {
        first_difference(a.as_bytes(), b.as_bytes()).expect("memory can be read")
    }

    #[test]
    fn the_first_event_that_differs_is_named() {
        assert_eq!(compare(A, A), None);
        let other = A.replace("t0-0", "t0-1");
        let text = compare(A, &other).expect("they differ").to_string();
        for part in [
            "number 2",
            "1.000000005 s",
            "node 1 life 2",
            "partition",
            "t0-0",
            "t0-1",
            "event 1",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn a_shorter_trace_differs_at_its_end() {
        let short = A.lines().next().expect("a line");
        let d = compare(A, short).expect("they differ");
        assert_eq!((d.line, d.lines[1].is_none()), (2, true));
        assert!(d.to_string().contains("the run has ended"));
    }
}
