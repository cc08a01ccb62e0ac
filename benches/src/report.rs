//! The figures of all rounds, as a table or as JSON.

use crate::disk::DiskSpeed;
use serde_json::{Value, json};
use std::fmt::Write;

/// One figure of one run.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Figure {
    /// Its name, with the unit.
    pub name: &'static str,
    /// Its value.
    pub value: f64,
}

/// A target in one configuration, and its results in each round.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The target's name.
    pub target: String,
    /// How it flushes, if the work writes.
    pub flush: Option<String>,
    /// Each round's figures.
    pub rounds: Vec<Vec<Figure>>,
    /// The disk's speed before each round.
    pub disk: Vec<DiskSpeed>,
    /// Why there are no further rounds.
    pub failure: Option<String>,
}

/// All subjects of one work.
#[derive(Clone, Debug)]
pub struct Table {
    /// The work's name.
    pub work: String,
    /// What the work does.
    pub about: String,
    /// In the order in which they run.
    pub subjects: Vec<Subject>,
    /// The target the others are compared with.
    pub reference: Option<String>,
}

/// Summary of a figure over all rounds.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Summary {
    /// The smallest.
    pub min: f64,
    /// The median; of an even number of values the mean of the middle two.
    pub median: f64,
    /// The largest.
    pub max: f64,
}

impl Summary {
    /// The summary of the values; `None` if there are none.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let half = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[half]
        } else {
            (sorted[half - 1] + sorted[half]) / 2.0
        };
        Some(Self { min, median, max })
    }
}

impl Subject {
    /// A subject without rounds.
    pub fn new(target: &str, flush: Option<String>) -> Self {
        Self {
            target: target.to_owned(),
            flush,
            rounds: Vec::new(),
            disk: Vec::new(),
            failure: None,
        }
    }

    fn values(&self, name: &str) -> Vec<f64> {
        let value = |round: &Vec<Figure>| round.iter().find(|figure| figure.name == name).map(|f| f.value);
        self.rounds.iter().filter_map(value).collect()
    }

    fn summary(&self, name: &str) -> Option<Summary> {
        Summary::of(&self.values(name))
    }

    fn disk_medians(&self) -> Option<DiskSpeed> {
        let median = |of: fn(&DiskSpeed) -> f64| {
            let values: Vec<f64> = self.disk.iter().map(of).collect();
            Some(Summary::of(&values)?.median)
        };
        Some(DiskSpeed {
            sequential_mb_per_s: median(|d| d.sequential_mb_per_s)?,
            fdatasyncs_per_s: median(|d| d.fdatasyncs_per_s)?,
            fdatasync_p99_ms: median(|d| d.fdatasync_p99_ms)?,
            grouped_mb_per_s: median(|d| d.grouped_mb_per_s)?,
        })
    }
}

impl Table {
    /// The figures' names in the order in which they first appear.
    fn names(&self) -> Vec<&'static str> {
        let mut names = Vec::new();
        for figure in self.subjects.iter().flat_map(|s| &s.rounds).flatten() {
            if !names.contains(&figure.name) {
                names.push(figure.name);
            }
        }
        names
    }

    /// Ratio of a subject's median to the reference's, with the same flush setting or the given one.
    fn ratio(&self, subject: &Subject, name: &str, flush: Option<&str>) -> Option<f64> {
        let reference = self.subjects.iter().find(|other| {
            Some(&other.target) == self.reference.as_ref() && other.flush.as_deref() == flush
        })?;
        let (mine, theirs) = (subject.summary(name)?.median, reference.summary(name)?.median);
        (theirs != 0.0).then(|| mine / theirs)
    }

    /// Whether everything was measured and correct.
    pub fn is_complete(&self) -> bool {
        self.subjects.iter().all(|subject| subject.failure.is_none())
    }

    /// A table for people.
    pub fn to_text(&self) -> String {
        let mut text = format!("{}: {}\n", self.work, self.about);
        let header = [
            "",
            "target",
            "flush",
            "min",
            "median",
            "max",
            "ratio",
            "to unflushed",
        ];
        let mut rows = vec![header.map(str::to_owned)];
        for name in self.names() {
            for (i, subject) in self.subjects.iter().enumerate() {
                let Some(summary) = subject.summary(name) else {
                    continue;
                };
                let ratio = |flush: Option<&str>| {
                    self.ratio(subject, name, flush)
                        .map(|r| format!("{}×", figure(r)))
                        .unwrap_or_default()
                };
                let flushes = subject.flush.as_deref() != Some(UNFLUSHED);
                rows.push([
                    if i == 0 { name.to_owned() } else { String::new() },
                    subject.target.clone(),
                    subject.flush.clone().unwrap_or_default(),
                    figure(summary.min),
                    figure(summary.median),
                    figure(summary.max),
                    ratio(subject.flush.as_deref()),
                    if flushes {
                        ratio(Some(UNFLUSHED))
                    } else {
                        String::new()
                    },
                ]);
            }
        }
        align(&mut text, &rows);
        for subject in &self.subjects {
            let flush = subject.flush.as_deref().unwrap_or("");
            if let Some(speed) = subject.disk_medians() {
                let _infallible = writeln!(text, "  the disk before {} {flush}: {speed}", subject.target);
            }
            if let Some(failure) = &subject.failure {
                let _infallible = writeln!(text, "  FAILED: {} {flush}: {failure}", subject.target);
            }
        }
        text
    }

    /// JSON for programs.
    pub fn to_json(&self) -> Value {
        let subject = |subject: &Subject| {
            let figures: serde_json::Map<String, Value> = self
                .names()
                .into_iter()
                .filter_map(|name| {
                    let summary = subject.summary(name)?;
                    let figure = json!({
                        "rounds": subject.values(name),
                        "min": summary.min,
                        "median": summary.median,
                        "max": summary.max,
                        "ratio": self.ratio(subject, name, subject.flush.as_deref()),
                        "ratio_to_unflushed": self.ratio(subject, name, Some(UNFLUSHED)),
                    });
                    Some((name.to_owned(), figure))
                })
                .collect();
            json!({
                "target": subject.target,
                "flush": subject.flush,
                "figures": figures,
                "disk": subject.disk.iter().map(|d| json!({
                    "sequential_mb_per_s": d.sequential_mb_per_s,
                    "fdatasyncs_per_s": d.fdatasyncs_per_s,
                    "fdatasync_p99_ms": d.fdatasync_p99_ms,
                    "grouped_mb_per_s": d.grouped_mb_per_s,
                })).collect::<Vec<_>>(),
                "failure": subject.failure,
            })
        };
        json!({
            "work": self.work,
            "about": self.about,
            "reference": self.reference,
            "subjects": self.subjects.iter().map(subject).collect::<Vec<_>>(),
        })
    }
}

/// The flush label of a broker that leaves flushing to the kernel.
pub const UNFLUSHED: &str = "kafka";

fn figure(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn align(text: &mut String, rows: &[[String; 8]]) {
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: [usize; 8] = std::array::from_fn(width);
    for row in rows {
        let mut line = String::from(" ");
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            let _infallible = if column < 3 {
                write!(line, " {cell:<width$}")
            } else {
                write!(line, "  {cell:>width$}")
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(target: &str, flush: &str, values: &[f64]) -> Subject {
        let mut subject = Subject::new(target, Some(flush.to_owned()));
        subject.rounds = values
            .iter()
            .map(|value| {
                vec![Figure {
                    name: "MB/s",
                    value: *value,
                }]
            })
            .collect();
        subject
    }

    #[test]
    fn the_median_does_not_depend_on_the_order() {
        let of = |values: &[f64]| Summary::of(values).map(|s| (s.min, s.median, s.max));
        assert_eq!(of(&[3.0, 1.0, 2.0]), Some((1.0, 2.0, 3.0)));
        assert_eq!(of(&[4.0, 1.0, 2.0, 8.0]), Some((1.0, 3.0, 8.0)));
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn ratios_are_to_the_reference_with_the_same_flush_setting() {
        let table = Table {
            work: "w".into(),
            about: String::new(),
            subjects: vec![
                subject("a", "1", &[60.0, 80.0, 70.0]),
                subject("b", "1", &[10.0]),
                subject("b", UNFLUSHED, &[35.0]),
            ],
            reference: Some("b".into()),
        };
        assert_eq!(table.ratio(&table.subjects[0], "MB/s", Some("1")), Some(7.0));
        assert_eq!(
            table.ratio(&table.subjects[0], "MB/s", Some(UNFLUSHED)),
            Some(2.0)
        );
        assert_eq!(table.ratio(&table.subjects[0], "p99", Some("1")), None);
        let first = table
            .to_text()
            .lines()
            .nth(2)
            .map(|l| l.split_whitespace().collect::<Vec<_>>().join(" "));
        assert_eq!(first.as_deref(), Some("MB/s a 1 60.0 70.0 80.0 7.00× 2.00×"));
    }
}
