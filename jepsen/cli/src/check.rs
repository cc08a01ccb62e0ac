//! `check`: reads a history and runs the checker of its workload.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

use brokkr_checker::exactly_once::{self, ExactlyOnce};
use brokkr_checker::kafka::{self, Kafka};
use brokkr_checker::linear::{self, CommittedOffsets, Limits, Linear, Model, Registers, Topics};
use brokkr_checker::metadata::{self, Metadata};
use brokkr_checker::topic_ids::{self, TopicIds};
use brokkr_checker::{Malformed, Valid, Verdict};
use brokkr_history::{Operation, Reader};

use crate::arguments::{Check, Format, Workload};
use crate::html::{self, Measures, Timeline};
use crate::input::{Failure, left_out, open, unreadable};
use crate::report;

/// A checker of some workload.
trait Judge {
    fn push(&mut self, operation: Operation) -> Result<(), Malformed>;
    fn verdict(self: Box<Self>) -> Result<Judgement, Malformed>;
}

/// A verdict, and what was measured over time.
struct Judgement {
    verdict: Verdict,
    measures: Measures,
}

impl From<Verdict> for Judgement {
    fn from(verdict: Verdict) -> Self {
        let measures = Measures::default();
        Self { verdict, measures }
    }
}

impl Judge for Kafka {
    fn push(&mut self, operation: Operation) -> Result<(), Malformed> {
        Kafka::push(self, operation)
    }
    fn verdict(self: Box<Self>) -> Result<Judgement, Malformed> {
        let analysis = self.finish();
        let verdict = analysis.verdict();
        let measures = Measures {
            lags: analysis.worst_lags(),
            unread: analysis.unread_totals(),
        };
        Ok(Judgement { verdict, measures })
    }
}

impl<M: Model> Judge for Linear<M> {
    fn push(&mut self, operation: Operation) -> Result<(), Malformed> {
        Linear::push(self, operation)
    }
    fn verdict(self: Box<Self>) -> Result<Judgement, Malformed> {
        self.finish().map(Judgement::from)
    }
}

impl Judge for ExactlyOnce {
    fn push(&mut self, operation: Operation) -> Result<(), Malformed> {
        ExactlyOnce::push(self, operation)
    }
    fn verdict(self: Box<Self>) -> Result<Judgement, Malformed> {
        self.finish().map(Judgement::from)
    }
}

impl Judge for Metadata {
    fn push(&mut self, operation: Operation) -> Result<(), Malformed> {
        Metadata::push(self, operation)
    }
    fn verdict(self: Box<Self>) -> Result<Judgement, Malformed> {
        self.finish().map(Judgement::from)
    }
}

impl Judge for TopicIds {
    fn push(&mut self, operation: Operation) -> Result<(), Malformed> {
        TopicIds::push(self, operation)
    }
    fn verdict(self: Box<Self>) -> Result<Judgement, Malformed> {
        self.finish().map(Judgement::from)
    }
}

fn anomalies(workload: Workload) -> &'static [&'static str] {
    match workload {
        Workload::Kafka => kafka::ANOMALIES,
        Workload::ExactlyOnce => exactly_once::ANOMALIES,
        Workload::Registers | Workload::Offsets | Workload::Topics => linear::ANOMALIES,
        Workload::Metadata => metadata::ANOMALIES,
        Workload::TopicIds => topic_ids::ANOMALIES,
    }
}

fn allowed(args: &Check) -> Result<BTreeSet<&'static str>, Failure> {
    let known = anomalies(args.workload);
    let find = |name: &String| {
        let found = known.iter().copied().find(|k| k == name);
        found.ok_or_else(|| Failure::Usage(format!("no anomaly {name:?}; there are: {}", known.join(", "))))
    };
    args.allow.iter().map(find).collect()
}

fn judge(args: &Check, allow: BTreeSet<&'static str>) -> Box<dyn Judge> {
    let limits = Limits {
        steps_max: args.steps_max,
        bytes_max: args.memory_max.saturating_mul(1 << 20),
    };
    match args.workload {
        Workload::Kafka => Box::new(Kafka::new(kafka::Options {
            ww_deps: args.ww_deps,
            intermediate_reads: args.intermediate_reads,
            lag_max: args.lag_max,
            allow,
        })),
        Workload::ExactlyOnce => Box::new(ExactlyOnce::new(exactly_once::ExactlyOnceOptions {
            inputs: args.input.clone(),
            outputs: args.output.clone(),
            group: args.group.clone(),
            allow,
        })),
        Workload::Registers => Box::new(Linear::new(Registers, limits)),
        Workload::Offsets => Box::new(Linear::new(CommittedOffsets, limits)),
        Workload::Topics => Box::new(Linear::new(Topics, limits)),
        Workload::Metadata => Box::new(Metadata::default()),
        Workload::TopicIds => Box::new(TopicIds::default()),
    }
}

pub(crate) fn check(args: &Check) -> Result<ExitCode, Failure> {
    let allow = allowed(args)?;
    let mut judge = judge(args, allow.clone());
    let mut timeline = args.html.is_some().then(Timeline::new);
    let mut reader = Reader::new(open(&args.file)?);
    while let Some(operation) = reader.next() {
        let operation = operation.map_err(|e| unreadable(&args.file, e))?;
        timeline.iter_mut().for_each(|t| t.push(&operation));
        judge
            .push(operation)
            .map_err(|e| Failure::History(Some(reader.place()), e.to_string()))?;
    }
    let torn = reader.torn();
    let Judgement {
        mut verdict,
        measures,
    } = judge
        .verdict()
        .map_err(|e| Failure::History(None, e.to_string()))?;
    verdict.allowed.extend(allow);
    for required in &args.require {
        verdict
            .require(&required.what, required.least)
            .map_err(|e| Failure::Usage(e.to_string()))?;
    }
    if let (Some(path), Some(mut timeline)) = (&args.html, timeline) {
        timeline.add(&measures);
        write_html(args, path, &verdict, &timeline)?;
    }
    let mut out = io::stdout().lock();
    match args.format {
        Format::Json => {
            let mut json = verdict.to_json();
            if let Some(at) = torn {
                json["torn"] = at.line.into();
            }
            let mut text = json.to_string();
            text.push('\n');
            out.write_all(text.as_bytes()).map_err(Failure::Output)?;
        }
        Format::Text => {
            let operations = shown(args, &report::indexes(&verdict))?;
            if let Some(at) = torn {
                writeln!(out, "{}", left_out(at)).map_err(Failure::Output)?;
            }
            report::write(&mut out, &verdict, &operations).map_err(Failure::Output)?;
        }
    }
    out.flush().map_err(Failure::Output)?;
    Ok(ExitCode::from(match verdict.valid() {
        Valid::Yes => 0,
        Valid::No => 1,
        Valid::Unknown => 3,
    }))
}

fn write_html(args: &Check, path: &Path, verdict: &Verdict, timeline: &Timeline) -> Result<(), Failure> {
    let operations = shown(args, &html::indexes(verdict))?;
    let failed = |e: io::Error| Failure::io(path, &e);
    let mut out = BufWriter::new(File::create(path).map_err(failed)?);
    let title = match args.file.file_name() {
        Some(name) if args.file != Path::new("-") => name.to_string_lossy().into_owned(),
        _ => "history".to_owned(),
    };
    html::write(&mut out, &title, verdict, timeline, &operations).map_err(failed)?;
    out.flush().map_err(failed)
}

/// The operations of these indexes, read from the file a second time; empty if the history came from standard input.
fn shown(args: &Check, indexes: &BTreeSet<u64>) -> Result<Vec<Operation>, Failure> {
    let Some(last) = indexes.last().filter(|_| args.file != Path::new("-")) else {
        return Ok(Vec::new());
    };
    let mut operations = Vec::new();
    for operation in Reader::new(open(&args.file)?) {
        let operation = operation.map_err(|e| unreadable(&args.file, e))?;
        if operation.index > *last {
            break;
        }
        if indexes.contains(&operation.index) {
            operations.push(operation);
        }
    }
    Ok(operations)
}
