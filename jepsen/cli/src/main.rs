//! The binary `brokkr-jepsen`: judges histories from any source.
#![expect(
    clippy::disallowed_methods,
    reason = "a command line tool reads files; it does not run in the simulator"
)]

mod check;
mod report;

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use brokkr_history::{Place, Reader, Syntax, Writer};
use clap::{Args, Parser, Subcommand, ValueEnum};

/// Judges histories of what clients did and which responses they got.
#[derive(Parser)]
#[command(name = "brokkr-jepsen", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Decides whether a history is valid, and reports what is wrong with it
    #[command(after_help = "\
Exit codes: 0 valid, 1 invalid, 2 no history or a wrong option, 3 inconclusive.

A history is JSON lines (or a JSON array), or Jepsen's EDN.")]
    Check(Check),
    /// Writes a history in another notation
    Convert(Convert),
}

#[derive(Args)]
struct Check {
    /// The history; `-` is the standard input
    file: PathBuf,
    /// The workload that the history is of
    #[arg(long, value_enum, default_value_t = Workload::Kafka)]
    workload: Workload,
    /// Whether offsets of records order their senders (kafka)
    #[arg(long)]
    ww_deps: bool,
    /// Report reads that end amid another operation's sends, G1b (kafka)
    #[arg(long)]
    intermediate_reads: bool,
    /// The report's format
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// An anomaly that does not make the history invalid; may be given several times
    #[arg(long, value_name = "ANOMALY")]
    allow: Vec<String>,
    /// A key or topic that is input (exactly-once)
    #[arg(long, default_value = "in")]
    input: Vec<String>,
    /// A key or topic that is output (exactly-once)
    #[arg(long, default_value = "out")]
    output: Vec<String>,
    /// Maximum steps of the search for one object (registers, offsets, topics)
    #[arg(long, default_value_t = 10_000_000)]
    steps_max: u64,
}

#[derive(Args)]
struct Convert {
    /// The history; `-` is the standard input
    file: PathBuf,
    /// The notation to write to standard output
    #[arg(long, value_enum)]
    to: Notation,
}

/// The workload of a history.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Workload {
    /// Sends and polls: Jepsen's Kafka workload
    Kafka,
    /// Input, output and committed offset as one unit
    ExactlyOnce,
    /// Linearizable registers: read, write, cas
    Registers,
    /// Linearizable committed offsets: commit, committed
    Offsets,
    /// Linearizable answers of a controller: create-topic, delete-topic
    Topics,
    /// Answers of brokers that may be out of date: metadata, committed
    Metadata,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Notation {
    Json,
    Edn,
}

/// Why there is no verdict.
enum Failure {
    /// The history can't be read.
    History(Option<Place>, String),
    /// An option is invalid.
    Usage(String),
    /// The output can't be written.
    Output(io::Error),
}

impl Failure {
    fn io(path: &Path, e: &io::Error) -> Self {
        Self::History(None, format!("{}: {e}", path.display()))
    }
}

fn open(path: &Path) -> Result<Box<dyn Read>, Failure> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdin().lock()));
    }
    let file = File::open(path).map_err(|e| Failure::io(path, &e))?;
    Ok(Box::new(file))
}

fn convert(args: &Convert) -> Result<ExitCode, Failure> {
    let syntax = match args.to {
        Notation::Json => Syntax::Json,
        Notation::Edn => Syntax::Edn,
    };
    let mut writer = Writer::with_syntax(BufWriter::new(io::stdout().lock()), syntax);
    for operation in Reader::new(open(&args.file)?) {
        let operation = operation.map_err(|e| check::unreadable(&args.file, e))?;
        writer.write(&operation).map_err(Failure::Output)?;
    }
    writer.finish().map_err(Failure::Output)?;
    Ok(ExitCode::SUCCESS)
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Check(args) => check::check(&args),
        Command::Convert(args) => convert(&args),
    };
    done.unwrap_or_else(|failure| {
        let code = match &failure {
            // A closed pipe is no error: its reader needed no more.
            Failure::Output(e) if e.kind() == io::ErrorKind::BrokenPipe => 2,
            Failure::Output(e) => print_error(&e.to_string()),
            Failure::History(Some(at), what) => print_error(&format!("{at}: {what}")),
            Failure::History(None, what) | Failure::Usage(what) => print_error(what),
        };
        ExitCode::from(code)
    })
}

/// Prints an error; returns the exit code.
fn print_error(what: &str) -> u8 {
    let mut stderr = io::stderr().lock();
    let (red, plain) = if stderr.is_terminal() {
        ("\x1b[31m", "\x1b[0m")
    } else {
        ("", "")
    };
    // If stderr is closed the error can't be reported.
    let _ = writeln!(stderr, "{red}error{plain}: {what}");
    2
}
