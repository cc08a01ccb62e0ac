//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Judges histories of what clients did and which responses they got.
#[derive(Parser)]
#[command(name = "brokkr-jepsen", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Decides whether a history is valid, and reports what is wrong with it
    #[command(after_help = "\
Exit codes: 0 valid, 1 invalid, 2 no history or a wrong option, 3 inconclusive.

A history is JSON lines (or a JSON array), or Jepsen's EDN.")]
    Check(Check),
    /// Writes a history in another notation
    Convert(Convert),
}

#[derive(Args)]
pub(crate) struct Check {
    /// The history; `-` is the standard input
    pub(crate) file: PathBuf,
    /// The workload that the history is of
    #[arg(long, value_enum, default_value_t = Workload::Kafka)]
    pub(crate) workload: Workload,
    /// Whether offsets of records order their senders (kafka)
    #[arg(long)]
    pub(crate) ww_deps: bool,
    /// Report reads that end amid another operation's sends, G1b (kafka)
    #[arg(long)]
    pub(crate) intermediate_reads: bool,
    /// The report's format
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
    /// An anomaly that does not make the history invalid; may be given several times
    #[arg(long, value_name = "ANOMALY")]
    pub(crate) allow: Vec<String>,
    /// A key or topic that is input (exactly-once)
    #[arg(long, default_value = "in")]
    pub(crate) input: Vec<String>,
    /// A key or topic that is output (exactly-once)
    #[arg(long, default_value = "out")]
    pub(crate) output: Vec<String>,
    /// Maximum steps of the search for one object (registers, offsets, topics)
    #[arg(long, default_value_t = 10_000_000)]
    pub(crate) steps_max: u64,
}

#[derive(Args)]
pub(crate) struct Convert {
    /// The history; `-` is the standard input
    pub(crate) file: PathBuf,
    /// The notation to write to standard output
    #[arg(long, value_enum)]
    pub(crate) to: Notation,
}

/// The workload of a history.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Workload {
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
pub(crate) enum Format {
    Text,
    Json,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Notation {
    Json,
    Edn,
}
