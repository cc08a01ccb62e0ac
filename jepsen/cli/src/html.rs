//! A verdict as one HTML page that needs no other file: verdict, counts, throughput and lag over time, and each anomaly with
//! its operations.

use std::collections::BTreeSet;
use std::io::{self, Write};

use brokkr_checker::{Finding, Valid, Verdict};
use brokkr_history::{MicroOp, NEMESIS, Op, Operation, Polls, Type};
use serde_json::Value;

use crate::chart::{Line, Mark, chart, escape};
use crate::report::line;
use crate::series::{Interval, Series};

/// Maximum number of findings shown for an anomaly.
const FINDINGS_MAX: usize = 100;
/// Maximum number of operations shown for a finding.
const OPS_MAX: usize = 16;
/// Maximum number of faults, and of findings, marked in a chart.
const MARKS_MAX: usize = 200;
/// Maximum characters of a fault's description.
const FAULT_CHARS_MAX: usize = 200;

const STYLE: &str = "\
:root{color-scheme:light dark;--ok:#1a7f37;--bad:#c62828;--warn:#b26a00;--read:#1565c0;--line:#8886}
body{font:15px/1.5 system-ui,sans-serif;max-width:960px;margin:2em auto;padding:0 1em}
h1{font-size:1.4em}.verdict{color:#fff;border-radius:4px;padding:.1em .5em}
.valid{background:var(--ok)}.invalid{background:var(--bad)}.unknown{background:var(--warn)}
table{border-collapse:collapse;margin:.5em 0}td,th{border:1px solid var(--line);padding:.15em .6em;text-align:left}
td.n{text-align:right;font-variant-numeric:tabular-nums}
figure{margin:1em 0}figcaption{font-weight:600}small{font-weight:400;opacity:.7}
svg{width:100%;height:auto}svg text{font-size:11px;fill:currentColor;opacity:.7}
polyline{fill:none;stroke-width:1.5}.grid{stroke:var(--line)}.mark{stroke-width:2;opacity:.5}
polyline.ok{stroke:var(--ok)}polyline.fail{stroke:var(--bad)}polyline.info{stroke:var(--warn)}polyline.read{stroke:var(--read)}
.key{font-weight:400;margin-left:1em}.key.ok{color:var(--ok)}.key.fail{color:var(--bad)}.key.info{color:var(--warn)}.key.read{color:var(--read)}
.fault{stroke:var(--warn)}.anomaly{stroke:var(--bad)}
details{margin:.5em 0}summary{cursor:pointer;font-weight:600}
pre{margin:.2em 0 .2em 1em;white-space:pre-wrap;overflow-wrap:anywhere;font-size:12px}
";

/// What a judge measured over time.
#[derive(Default)]
pub(crate) struct Measures {
    /// When each poll began, and its largest lag, in nanoseconds.
    pub(crate) lags: Vec<(i64, i64)>,
    /// The number of records that were acknowledged and not read yet.
    pub(crate) unread: Vec<(i64, u64)>,
}

/// What the page shows over time; collected while the history is read.
pub(crate) struct Timeline {
    series: Series,
    /// Operations of the nemesis: when, and what.
    faults: Vec<(i64, String)>,
    faults_count: usize,
}

impl Timeline {
    pub(crate) fn new() -> Self {
        Self {
            series: Series::new(),
            faults: Vec::new(),
            faults_count: 0,
        }
    }

    /// Adds the next operation of the history.
    pub(crate) fn push(&mut self, operation: &Operation) {
        if operation.process == NEMESIS {
            self.faults_count += 1;
            if self.faults.len() < MARKS_MAX {
                let what = match &operation.op {
                    Op::Other(f, Value::Null) => f.clone(),
                    Op::Other(f, value) => format!("{f} {value}"),
                    op => op.f().to_owned(),
                };
                let what = what.chars().take(FAULT_CHARS_MAX).collect();
                self.faults.push((operation.time, what));
            }
            return;
        }
        let mut interval = Interval::default();
        match operation.type_ {
            Type::Invoke => {}
            Type::Ok => interval.ok = 1,
            Type::Fail => interval.fail = 1,
            Type::Info => interval.info = 1,
        }
        if operation.type_ != Type::Invoke {
            for (i, micro) in operation.op.micro_ops().iter().enumerate() {
                let outcome = operation.details.outcome(i).unwrap_or(operation.type_);
                match micro {
                    MicroOp::Send { .. } => interval.acked += u64::from(outcome == Type::Ok),
                    MicroOp::Poll(polls) if operation.type_ == Type::Ok => {
                        interval.read += polls
                            .iter()
                            .flat_map(Polls::values)
                            .map(|r| r.len() as u64)
                            .sum::<u64>();
                    }
                    MicroOp::Poll(_) => {}
                }
            }
        }
        self.series.add(operation.time, &interval);
    }

    /// Adds the measures of a judge.
    pub(crate) fn add(&mut self, measures: &Measures) {
        for (time, lag) in &measures.lags {
            let lag = Some(*lag);
            let interval = Interval {
                lag,
                ..Interval::default()
            };
            self.series.add(*time, &interval);
        }
        for (time, unread) in &measures.unread {
            let unread = Some(*unread);
            let interval = Interval {
                unread,
                ..Interval::default()
            };
            self.series.add(*time, &interval);
        }
    }
}

fn shown(findings: &[Finding]) -> impl Iterator<Item = (&Finding, &[u64])> {
    let few = findings.iter().take(FINDINGS_MAX);
    few.map(|f| (f, &f.ops[..f.ops.len().min(OPS_MAX)]))
}

/// The indexes of the operations that the page shows.
pub(crate) fn indexes(verdict: &Verdict) -> BTreeSet<u64> {
    let findings = verdict.anomalies.values().flat_map(|f| shown(f));
    findings.flat_map(|(_, ops)| ops).copied().collect()
}

/// Writes the page. `operations` are those of [`indexes`], by index.
pub(crate) fn write(
    out: &mut impl Write,
    title: &str,
    verdict: &Verdict,
    timeline: &Timeline,
    operations: &[Operation],
) -> io::Result<()> {
    let (class, word) = match verdict.valid() {
        Valid::Yes => ("valid", "valid"),
        Valid::No => ("invalid", "INVALID"),
        Valid::Unknown => ("unknown", "inconclusive"),
    };
    let title = escape(title);
    writeln!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{word}: {title}</title>"
    )?;
    writeln!(
        out,
        "<meta name=\"viewport\" content=\"width=device-width\"><style>\n{STYLE}</style></head><body>"
    )?;
    writeln!(
        out,
        "<h1>{title} <span class=\"verdict {class}\">{word}</span></h1>"
    )?;
    if let Some(why) = &verdict.gave_up {
        writeln!(out, "<p>Gave up: {}.</p>", escape(why))?;
    }
    summary(out, verdict)?;
    counts(out, verdict)?;
    charts(out, verdict, timeline, operations)?;
    anomalies(out, verdict, timeline, operations)?;
    writeln!(out, "</body></html>")
}

/// A table of the anomalies.
fn summary(out: &mut impl Write, verdict: &Verdict) -> io::Result<()> {
    if verdict.anomalies.is_empty() {
        return writeln!(out, "<p>No anomalies.</p>");
    }
    writeln!(
        out,
        "<table><tr><th>anomaly</th><th>invariant</th><th>findings</th><th></th></tr>"
    )?;
    for (name, findings) in ordered(verdict) {
        let id = verdict.invariants.get(name).copied().unwrap_or("");
        let count = findings.len();
        let allowed = findings.iter().filter(|f| verdict.is_allowed(name, f)).count();
        let allowed = match allowed {
            0 => String::new(),
            all if all == count => "allowed".to_owned(),
            some => format!("{some} allowed"),
        };
        writeln!(
            out,
            "<tr><td><a href=\"#{name}\">{name}</a></td><td>{id}</td><td class=\"n\">{count}</td><td>{allowed}</td></tr>"
        )?;
    }
    writeln!(out, "</table>")
}

/// Anomalies that make the history invalid come first.
fn ordered(verdict: &Verdict) -> Vec<(&'static str, &[Finding])> {
    let all = verdict.anomalies.iter().map(|(name, f)| (*name, f.as_slice()));
    let mut all: Vec<_> = all.collect();
    all.sort_by_key(|(name, _)| verdict.is_all_allowed(name));
    all
}

fn counts(out: &mut impl Write, verdict: &Verdict) -> io::Result<()> {
    writeln!(out, "<h2>Judged</h2>\n<table><tr>")?;
    for name in verdict.counted.keys() {
        writeln!(out, "<th>{}</th>", name.replace('_', " "))?;
    }
    writeln!(out, "</tr><tr>")?;
    for n in verdict.counted.values() {
        writeln!(out, "<td class=\"n\">{n}</td>")?;
    }
    writeln!(out, "</tr></table>")?;
    if let Some(Value::Object(stats)) = verdict.notes.get("stats") {
        let outcomes = ["ok", "fail", "info", "unfinished"];
        writeln!(
            out,
            "<table><tr><th>operation</th><th>{}</th></tr>",
            outcomes.join("</th><th>")
        )?;
        for (f, n) in stats {
            let cells = outcomes.map(|o| format!("<td class=\"n\">{}</td>", n[o]));
            writeln!(out, "<tr><td>{}</td>{}</tr>", escape(f), cells.concat())?;
        }
        writeln!(out, "</table>")?;
    }
    for (name, note) in verdict.notes.iter().filter(|(name, _)| **name != "stats") {
        writeln!(
            out,
            "<p>{}: <code>{}</code></p>",
            name.replace('_', " "),
            escape(&note.to_string())
        )?;
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "numbers of a chart")]
fn float(n: u64) -> f64 {
    n as f64
}

#[expect(clippy::cast_precision_loss, reason = "seconds of a chart")]
fn seconds(nanos: i128) -> f64 {
    nanos as f64 / 1e9
}

fn charts(
    out: &mut impl Write,
    verdict: &Verdict,
    timeline: &Timeline,
    operations: &[Operation],
) -> io::Result<()> {
    let series = &timeline.series;
    let intervals = || series.intervals();
    if intervals().len() < 2 {
        return writeln!(out, "<p>The history takes no time, so there are no charts.</p>");
    }
    let width = seconds(series.width());
    let total = width * float(intervals().len() as u64);
    let since = |time: i64| seconds(series.since(time));
    let fault = |(time, what): &(i64, String)| Mark {
        at: since(*time),
        class: "fault",
        what: what.clone(),
    };
    let mut marks: Vec<_> = timeline.faults.iter().map(fault).collect();
    marks.extend(finding_marks(verdict, operations).map(|(time, what)| Mark {
        at: since(time),
        class: "anomaly",
        what,
    }));
    let rate = |of: fn(&Interval) -> u64| intervals().map(|i| Some(float(of(i)) / width)).collect();
    let line = |name, class, of| Line {
        name,
        class,
        values: rate(of),
    };
    writeln!(out, "<h2>Over time</h2>")?;
    let lines = [
        line("acknowledged", "ok", |i| i.acked),
        line("read", "read", |i| i.read),
    ];
    if intervals().any(|i| i.acked + i.read > 0) {
        out.write_all(chart("Records", "per second", total, &lines, &marks).as_bytes())?;
    }
    let lines = [
        line("ok", "ok", |i| i.ok),
        line("fail", "fail", |i| i.fail),
        line("info", "info", |i| i.info),
    ];
    out.write_all(chart("Operations", "per second", total, &lines, &marks).as_bytes())?;
    if intervals().any(|i| i.unread.is_some()) {
        let line = Line {
            name: "most",
            class: "info",
            values: intervals().map(|i| i.unread.map(float)).collect(),
        };
        let title = "Acknowledged and not read yet";
        out.write_all(chart(title, "records", total, &[line], &marks).as_bytes())?;
    }
    let lag = |i: &Interval| i.lag.map(|nanos| seconds(i128::from(nanos)));
    if intervals().any(|i| i.lag.is_some()) {
        let values = intervals().map(lag).collect();
        let line = Line {
            name: "worst",
            class: "read",
            values,
        };
        out.write_all(chart("Lag of consumers", "seconds", total, &[line], &marks).as_bytes())?;
    }
    if timeline.faults_count > timeline.faults.len() {
        let (all, shown) = (timeline.faults_count, timeline.faults.len());
        writeln!(
            out,
            "<p>The first {shown} of {all} operations of the nemesis are marked.</p>"
        )?;
    }
    Ok(())
}

/// When the last operation of a finding happened, for the findings that make the history invalid.
fn finding_marks<'a>(
    verdict: &'a Verdict,
    operations: &'a [Operation],
) -> impl Iterator<Item = (i64, String)> + 'a {
    let findings = verdict
        .anomalies
        .iter()
        .flat_map(|(name, f)| f.iter().map(move |f| (*name, f)));
    let invalid = findings.filter(|(name, f)| !verdict.is_allowed(name, f));
    let mark = |(name, f): (&str, &Finding)| {
        let operation = operation(operations, *f.ops.last()?)?;
        Some((operation.time, format!("{name}: {}", f.text)))
    };
    invalid.filter_map(mark).take(MARKS_MAX)
}

fn operation(operations: &[Operation], index: u64) -> Option<&Operation> {
    let at = operations.binary_search_by_key(&index, |o| o.index).ok()?;
    Some(&operations[at])
}

fn anomalies(
    out: &mut impl Write,
    verdict: &Verdict,
    timeline: &Timeline,
    operations: &[Operation],
) -> io::Result<()> {
    for (name, findings) in ordered(verdict) {
        let open = if verdict.is_all_allowed(name) { "" } else { " open" };
        let id = verdict
            .invariants
            .get(name)
            .map_or(String::new(), |id| format!(" ({id})"));
        writeln!(
            out,
            "<details id=\"{name}\"{open}><summary>{name}{id}: {}</summary><ol>",
            findings.len()
        )?;
        for (finding, ops) in shown(findings) {
            write!(out, "<li>{}", escape(&finding.text))?;
            if let Some(why) = &finding.waived {
                write!(out, " <small>(allowed: {})</small>", escape(why))?;
            }
            writeln!(out)?;
            for operation in ops.iter().filter_map(|op| operation(operations, *op)) {
                let at = seconds(timeline.series.since(operation.time));
                writeln!(out, "<pre>{at:.3} s  {}</pre>", escape(&line(operation)))?;
            }
            if finding.ops.len() > ops.len() {
                writeln!(
                    out,
                    "<pre>… and {} more operations</pre>",
                    finding.ops.len() - ops.len()
                )?;
            }
            writeln!(out, "</li>")?;
        }
        writeln!(out, "</ol>")?;
        if findings.len() > FINDINGS_MAX {
            writeln!(
                out,
                "<p>… and {} more; the JSON report has all.</p>",
                findings.len() - FINDINGS_MAX
            )?;
        }
        writeln!(out, "</details>")?;
    }
    Ok(())
}
