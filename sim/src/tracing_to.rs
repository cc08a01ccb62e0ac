//! The destination of a traced run's events: `--trace FILE`, or `-` for stderr.

use std::fs::File;
use std::io::{self, BufWriter, LineWriter, Write};
use std::path::Path;
use std::process::Command;

use brokkr_sim::plan::{Plan, node_names};
use brokkr_sim::trace::perfetto::Perfetto;
use brokkr_sim::trace::text::Text;
use brokkr_sim::trace::{JsonLines, Sink, Tracer};
use clap::{Args, ValueEnum};

/// Stderr, instead of a file.
pub const STDERR: &str = "-";
/// Suffix of files for Perfetto.
const PERFETTO: &str = ".perfetto.json";

/// How a trace is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum TraceFormat {
    /// Lines of text, without the scheduler's events
    Text,
    /// Every event, a line of JSON each
    Json,
    /// Every event, for ui.perfetto.dev
    Perfetto,
}

/// Whether and how a run is traced.
#[derive(Args, Clone, Default)]
#[group(skip)]
pub struct Tracing {
    /// Write a trace of the run to a file (or, as text, to stderr: -)
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = STDERR)]
    pub trace: Option<String>,
    /// The format [default: perfetto for FILE.perfetto.json, text on stderr, else json]
    #[arg(long, value_enum, requires = "trace")]
    pub trace_format: Option<TraceFormat>,
}

impl Tracing {
    /// Whether the stderr of the run's process is forwarded to the user.
    pub fn is_to_stderr(&self) -> bool {
        self.trace.as_deref() == Some(STDERR)
    }

    /// Lines of JSON to a file.
    pub fn to_file(path: &Path) -> Self {
        Self {
            trace: Some(path.display().to_string()),
            trace_format: Some(TraceFormat::Json),
        }
    }

    /// Whether a file is written.
    pub fn is_to_file(&self) -> bool {
        self.trace.as_deref().is_some_and(|to| to != STDERR)
    }

    /// Passes the arguments to the process of a run.
    ///
    /// # Panics
    /// If the current directory has no path.
    pub fn add_args(&self, command: &mut Command) {
        let Some(to) = self.trace.as_deref() else { return };
        command.arg("--trace");
        match to {
            STDERR => command.arg(to),
            path => command.arg(std::path::absolute(path).expect("this directory has a path")),
        };
        let name = self.trace_format.and_then(|f| f.to_possible_value());
        command.args(name.iter().flat_map(|name| ["--trace-format", name.get_name()]));
    }

    fn format(&self, to: &str) -> TraceFormat {
        self.trace_format.unwrap_or(match to {
            STDERR => TraceFormat::Text,
            _ if to.ends_with(PERFETTO) => TraceFormat::Perfetto,
            _ => TraceFormat::Json,
        })
    }

    /// The tracer of a run of `plan`, if it is to be traced.
    ///
    /// # Errors
    /// The file can't be created.
    pub fn tracer(&self, plan: &Plan) -> Result<Option<Tracer>, String> {
        let Some(to) = self.trace.as_deref() else {
            return Ok(None);
        };
        let out: Box<dyn Write + Send> = match to {
            STDERR => Box::new(io::stderr()),
            path => Box::new(File::create(path).map_err(|e| format!("{path}: {e}"))?),
        };
        // Stderr is line-buffered, to be read as it happens; a process that dies loses the end of a file's buffer.
        let out: Box<dyn Write + Send> = match to {
            STDERR => Box::new(LineWriter::new(out)),
            _ => Box::new(BufWriter::with_capacity(1 << 16, out)),
        };
        let sink: Box<dyn Sink> = match self.format(to) {
            TraceFormat::Text => Box::new(Text(out)),
            TraceFormat::Json => Box::new(JsonLines(out)),
            TraceFormat::Perfetto => Box::new(Perfetto::new(out, node_names(plan))),
        };
        Ok(Some(Tracer::new(sink)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_follows_the_file_name() {
        let of = |to: &str, format| {
            let tracing = Tracing {
                trace: Some(to.to_owned()),
                trace_format: format,
            };
            tracing.format(to)
        };
        assert_eq!(of("-", None), TraceFormat::Text);
        assert_eq!(of("a.jsonl", None), TraceFormat::Json);
        assert_eq!(of("a.perfetto.json", None), TraceFormat::Perfetto);
        assert_eq!(of("-", Some(TraceFormat::Json)), TraceFormat::Json);
    }
}
