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
    /// What the judge must have counted at least; otherwise a valid history is inconclusive. `acked` and `read` count records
    /// (kafka); the report lists all counts
    #[arg(long, value_name = "COUNT=N", value_delimiter = ',', value_parser = requirement)]
    pub(crate) require: Vec<Requirement>,
    /// How far behind a consumer may be, as in 500ms, 10s, 2m (kafka)
    #[arg(long, value_name = "DURATION", value_parser = nanos)]
    pub(crate) lag_max: Option<i64>,
    /// Also writes the report to this file, as one HTML page with charts
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// A key or topic that is input (exactly-once)
    #[arg(long, default_value = "in")]
    pub(crate) input: Vec<String>,
    /// A key or topic that is output (exactly-once)
    #[arg(long, default_value = "out")]
    pub(crate) output: Vec<String>,
    /// The group whose committed offsets count, if there are several (exactly-once)
    #[arg(long)]
    pub(crate) group: Option<String>,
    /// Maximum steps of the search for one object (registers, offsets, topics)
    #[arg(long, default_value_t = 10_000_000)]
    pub(crate) steps_max: u64,
    /// Maximum MiB that the search for one object stores (registers, offsets, topics)
    #[arg(long, default_value_t = 1024)]
    pub(crate) memory_max: u64,
}

/// A count, and how much it must be at least.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Requirement {
    pub(crate) what: String,
    pub(crate) least: u64,
}

fn requirement(text: &str) -> Result<Requirement, String> {
    let (what, least) = text.split_once('=').ok_or("COUNT=N is due, as in acked=100")?;
    let least = least.parse().map_err(|e| format!("{least:?}: {e}"))?;
    let what = what.to_owned();
    Ok(Requirement { what, least })
}

/// Nanoseconds of a duration such as `500ms`.
fn nanos(text: &str) -> Result<i64, String> {
    const UNITS: [(&str, i64); 6] = [
        ("ns", 1),
        ("us", 1_000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60_000_000_000),
        ("h", 3_600_000_000_000),
    ];
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = UNITS.iter().find(|(name, _)| *name == &text[digits.len()..]);
    let (Some((_, unit)), Ok(n)) = (unit, digits.parse::<u32>()) else {
        return Err("a natural number and ns, us, ms, s, m or h are due".to_owned());
    };
    i64::from(n)
        .checked_mul(*unit)
        .ok_or_else(|| "too long".to_owned())
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
    /// Topics that are deleted and created again: create-topic, delete-topic, and keys topic@id-partition
    TopicIds,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_requirements() {
        let said = ["7ns", "500ms", "10s", "2m", "1h"].map(|t| nanos(t).expect("a duration"));
        assert_eq!(
            said,
            [7, 500_000_000, 10_000_000_000, 120_000_000_000, 3_600_000_000_000]
        );
        for text in ["", "10", "s", "-1s", "1.5s", "1d", "4294967295h", "1 s"] {
            assert!(nanos(text).is_err(), "{text}");
        }
        let (what, least) = ("acked".to_owned(), 5);
        assert_eq!(requirement("acked=5"), Ok(Requirement { what, least }));
        for text in ["acked", "acked=", "acked=-1"] {
            assert!(requirement(text).is_err(), "{text}");
        }
    }
}
