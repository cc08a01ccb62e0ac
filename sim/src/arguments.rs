//! Arguments of the commands that run seeds, and their errors.

use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use brokkr_sim::plan::{Faults, Plan};
use clap::{Args, ValueEnum};

use crate::documents::read_plan;
use crate::tracing_to::Tracing;

/// Arguments of a single run.
#[derive(Args, Clone)]
#[group(skip)]
pub struct RunArgs {
    #[arg(long, required_unless_present = "plan")]
    seed: Option<u64>,
    /// Virtual seconds
    #[arg(long, default_value_t = SECS)]
    secs: u64,
    /// Faults to inject: none, default, unlimited, or a list of families
    #[arg(long, default_value_t = Faults::Default)]
    faults: Faults,
    /// The scenario of speed measurements, with this many operations a second, instead of the seed's workload
    #[arg(long, value_name = "OPERATIONS_PER_S", conflicts_with_all = ["faults", "plan"])]
    standard: Option<u64>,
    /// A plan instead of a seed
    #[arg(long, hide = true)]
    plan: Option<PathBuf>,
    #[command(flatten)]
    pub tracing: Tracing,
}

impl RunArgs {
    pub fn plan(&self) -> Result<Plan, String> {
        let Some(path) = &self.plan else {
            let seed = self.seed.unwrap_or(0);
            return Ok(match self.standard {
                Some(operations_per_s) => Plan::standard(seed, self.secs, operations_per_s),
                None => Plan::of(seed, self.secs, &self.faults),
            });
        };
        read_plan(path)
    }
}

/// Arguments of `one`.
#[derive(Args, Clone)]
pub struct OneArgs {
    #[command(flatten)]
    pub run: RunArgs,
    /// Write the history of the run to a file
    #[arg(long, value_name = "FILE")]
    pub history: Option<PathBuf>,
}

/// Arguments of `plan`.
#[derive(Args, Clone)]
pub struct PlanArgs {
    #[command(flatten)]
    pub run: RunArgs,
    /// Print the plan in words: each client and each fault, in order of time
    #[arg(long)]
    pub explain: bool,
}

/// Virtual seconds of a run.
pub const SECS: u64 = 60;
/// The seeds of the README's first command.
pub const DEMO_SEEDS: Range<u64> = 0..24;

#[derive(Args, Clone)]
#[group(skip)]
pub struct Requests {
    /// Requests of each run
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    requests: u64,
    #[command(flatten)]
    run: Run,
}

/// Default virtual seconds of a run of requests.
const REQUESTS_SECS: u64 = 12;

impl Requests {
    pub fn run(self) -> Run {
        Run {
            faults: Faults::Requests(self.requests),
            secs: if self.run.secs == SECS {
                REQUESTS_SECS
            } else {
                self.run.secs
            },
            ..self.run
        }
    }
}

/// How results are printed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Text,
    Json,
}

#[derive(Args, Clone)]
#[group(skip)]
pub struct Run {
    /// The seed
    #[arg(long, conflicts_with = "seeds")]
    pub seed: Option<u64>,
    /// Seeds A..B, B excluded
    #[arg(long, value_parser = range)]
    pub seeds: Option<Range<u64>>,
    /// A plan, as `plan` prints it or a failure leaves it, instead of seeds
    #[arg(long, conflicts_with_all = ["seed", "seeds", "secs", "faults"])]
    pub plan: Option<PathBuf>,
    /// Virtual seconds of each run
    #[arg(long, default_value_t = SECS)]
    pub secs: u64,
    /// Faults to inject: none, default, unlimited, or a list of families
    #[arg(long, default_value_t = Faults::Default)]
    pub faults: Faults,
    /// Runs at the same time [default: one for each core]
    #[arg(long)]
    pub jobs: Option<usize>,
    /// How to print results
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    #[command(flatten)]
    pub tracing: Tracing,
    /// Directory for the plan and the result of a failing run: failure.json, or failure-SEED.json if there are several seeds
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub failures: PathBuf,
    /// Run only the i-th of n equal parts of the seeds
    #[arg(long, value_name = "I/N", default_value = "1/1")]
    pub shard: Shard,
    /// Begin no run after so long (90s, 10m, 2h); without --seeds, seeds from 0 on
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub r#for: Option<Duration>,
    /// Write the results to a file as JUnit's XML, too
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Write an HTML page of the run, which needs no other file
    #[arg(long, value_name = "FILE", conflicts_with = "trace")]
    pub html: Option<PathBuf>,
    /// Write the history of the run to a file, as JSON lines that `brokkr-jepsen check` judges. Of one run: --seed or --plan
    #[arg(long, value_name = "FILE", conflicts_with = "html")]
    pub history: Option<PathBuf>,
}

impl Run {
    pub fn range(&self) -> Range<u64> {
        match (self.seed, &self.seeds) {
            (Some(seed), _) => seed..seed + 1,
            (None, Some(seeds)) => seeds.clone(),
            (None, None) if self.r#for.is_some() => 0..u64::MAX,
            (None, None) => DEMO_SEEDS,
        }
    }
}

/// The i-th of n parts, counted from 1.
#[derive(Clone, Copy)]
pub struct Shard {
    pub i: u64,
    pub n: u64,
}

impl std::str::FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (i, n) = text.split_once('/').ok_or("not of the form I/N")?;
        let parse = |s: &str| s.parse::<u64>().map_err(|e| format!("{s:?}: {e}"));
        match (parse(i)?, parse(n)?) {
            (i, n) if (1..=n).contains(&i) => Ok(Self { i, n }),
            (_, n) => Err(format!("{text}: not one of 1/{n} to {n}/{n}")),
        }
    }
}

pub fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let secs: u64 = number.parse().map_err(|e| format!("{number:?}: {e}"))?;
    let times = match unit {
        "s" | "" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(format!("{unit:?} is not a unit: s, m or h")),
    };
    secs.checked_mul(times)
        .map(Duration::from_secs)
        .ok_or_else(|| format!("{text} is too long"))
}

/// A time of the world, as traces and explanations print it: `12.3s` or `12300ms`.
pub fn moment(text: &str) -> Result<u64, String> {
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len()));
    let digits = match unit {
        "s" | "" => 9,
        "ms" => 6,
        _ => return Err(format!("{unit:?} is not a unit: s or ms")),
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let is_number = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !is_number(whole) || !is_number(part) || part.len() > digits {
        return Err(format!("{text:?} is not a time, as 12.3s or 12300ms"));
    }
    let nanos = format!("{whole}{part:0<digits$}");
    nanos.parse().map_err(|_| format!("{text} is too long"))
}

/// A partition and an offset in it, as `t0-0:17`.
pub fn place(text: &str) -> Result<(String, i64), String> {
    let (key, offset) = text
        .rsplit_once(':')
        .ok_or("not of the form TOPIC-PARTITION:OFFSET")?;
    let is_key = key
        .rsplit_once('-')
        .is_some_and(|(topic, partition)| !topic.is_empty() && partition.parse::<u32>().is_ok());
    if !is_key {
        return Err(format!("{key:?} is not a partition, as t0-0"));
    }
    match offset.parse::<i64>() {
        Ok(offset) if offset >= 0 => Ok((key.to_owned(), offset)),
        Ok(_) => Err(format!("{offset} is no offset: offsets begin at 0")),
        Err(e) => Err(format!("{offset:?}: {e}")),
    }
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let parse = |s: &str| s.trim().parse::<u64>().map_err(|e| format!("{s:?}: {e}"));
    let (a, b) = text.split_once("..").ok_or("not of the form A..B")?;
    let range = parse(a)?..parse(b)?;
    if range.is_empty() {
        Err(format!("{text}: no seeds in it"))
    } else {
        Ok(range)
    }
}

/// The arguments are invalid.
pub fn argument_error(why: &str) -> ExitCode {
    eprintln!("error: {why}");
    ExitCode::from(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_in_seconds_or_milliseconds() {
        for (text, nanos) in [
            ("12.3s", 12_300_000_000),
            ("12300ms", 12_300_000_000),
            ("1", 1_000_000_000),
            ("0.000000001s", 1),
            ("1.5ms", 1_500_000),
        ] {
            assert_eq!(moment(text), Ok(nanos), "{text}");
        }
        for bad in [
            "",
            "s",
            "-1s",
            "1.2.3s",
            "3m",
            "0.1234567ms",
            "1e9s",
            "99999999999999s",
            "1 s",
        ] {
            assert!(moment(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_place_is_a_partition_and_an_offset() {
        assert_eq!(place("t0-0:17"), Ok(("t0-0".to_owned(), 17)));
        assert_eq!(place("a:b-x-3:0"), Ok(("a:b-x-3".to_owned(), 0)));
        for bad in ["t0-0", "t0:1", "-0:1", "t0-x:1", "t0-0:-1", "t0-0:", "t0-0:many"] {
            assert!(place(bad).is_err(), "{bad}");
        }
    }
}
