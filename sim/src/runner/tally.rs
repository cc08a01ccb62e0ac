//! Totals of a campaign's seeds.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use brokkr_sim::account::{Rule, RuleCount};
use brokkr_sim::plan::Faults;
use brokkr_sim::reached;
use brokkr_sim::report::{Ops, Report, Verdict, many};
use brokkr_sim::signature::SignatureRow;

use crate::arguments::{Format, Run, SECS};

/// How many of the slowest seeds are listed.
const SLOWEST: usize = 5;
/// This many requests reach every version of every API that is served.
const REQUESTS_ENOUGH: u64 = 20_000;

/// Sums and extremes.
#[derive(Default)]
pub struct Tally {
    pub seeds: u64,
    verdicts: BTreeMap<Verdict, u64>,
    pub worst: Option<Verdict>,
    virtual_s: f64,
    wall_s: f64,
    events: u64,
    faults: BTreeMap<String, u64>,
    /// How many times each was reached, and in how many seeds.
    reached: BTreeMap<String, (u64, u64)>,
    ops: Ops,
    /// Wall seconds and seeds, the slowest first.
    slowest: Vec<(f64, u64)>,
    largest: (u64, u64),
    /// Rude clients' requests that were answered, by API and version.
    requests: BTreeMap<String, u64>,
    /// How often each rule was applied and left out.
    rules: BTreeMap<String, RuleCount>,
}

impl Tally {
    pub fn take(&mut self, r: &Report) {
        self.seeds += 1;
        *self.verdicts.entry(r.verdict).or_insert(0) += 1;
        self.worst = Some(self.worst.map_or(r.verdict, |w| worse(w, r.verdict)));
        self.virtual_s += r.virtual_s;
        self.wall_s += r.wall_s;
        self.events += r.events;
        for (name, n) in &r.faults {
            *self.faults.entry(name.clone()).or_insert(0) += n;
        }
        for (name, n) in &r.reached {
            let (times, seeds) = self.reached.entry(name.clone()).or_insert((0, 0));
            (*times, *seeds) = (*times + n, *seeds + 1);
        }
        for (which, n) in &r.requests {
            *self.requests.entry(which.clone()).or_insert(0) += n;
        }
        for (name, count) in &r.rules {
            self.rules.entry(name.clone()).or_default().add(count);
        }
        self.ops.ok += r.ops.ok;
        self.ops.fail += r.ops.fail;
        self.ops.info += r.ops.info;
        self.slowest.push((r.wall_s, r.seed));
        self.slowest.sort_by(|a, b| b.0.total_cmp(&a.0));
        self.slowest.truncate(SLOWEST);
        self.largest = self.largest.max((r.rss_max_bytes, r.seed));
    }

    /// Rules that a campaign of this size left out too often, or never applied.
    pub fn left_out(&self, run: &Run) -> Vec<String> {
        if self.seeds < reached::SEEDS_ENOUGH || run.faults != Faults::Default || run.secs < SECS {
            return Vec::new();
        }
        let none = RuleCount::default();
        let of = |rule: Rule| (rule, self.rules.get(rule.name()).unwrap_or(&none));
        let all = Rule::ALL.iter().copied().map(of);
        let too_often =
            all.filter(|(rule, count)| count.applied == 0 || count.part_left_out() > rule.left_out_max());
        let text = |(rule, count): (Rule, &RuleCount)| {
            format!(
                "{} (at most {:.0} %)",
                left_out(rule.name(), count).trim(),
                rule.left_out_max() * 100.0
            )
        };
        too_often.map(text).collect()
    }

    /// Fault families and rare states that a campaign of this size must reach and did not.
    pub fn never_occurred(&self, run: &Run) -> Vec<&str> {
        if let Faults::Requests(n) = run.faults
            && self.seeds * n >= REQUESTS_ENOUGH
        {
            let never = self.requests.iter().filter(|(_, n)| **n == 0);
            return never.map(|(which, _)| &**which).collect();
        }
        if self.seeds < reached::SEEDS_ENOUGH || run.faults != Faults::Default || run.secs < SECS {
            return Vec::new();
        }
        let faults = reached::FAULTS.iter().filter(|n| !self.faults.contains_key(**n));
        let states = reached::NAMES
            .iter()
            .filter(|n| !reached::HARDLY_EVER.contains(n) && !self.reached.contains_key(**n));
        faults.chain(states).copied().collect()
    }

    /// The campaign's table.
    pub fn table(&self, took: Duration) -> String {
        let verdicts: Vec<String> = self
            .verdicts
            .iter()
            .map(|(v, n)| format!("{n} {}", format!("{v:?}").to_lowercase()))
            .collect();
        let slowest: Vec<String> = self
            .slowest
            .iter()
            .map(|(wall_s, seed)| format!("{seed} ({wall_s:.2} s)"))
            .collect();
        let mut text = format!(
            "\n{} in {:.1} s: {}\n",
            many(usize::try_from(self.seeds).unwrap_or(usize::MAX), "seed"),
            took.as_secs_f64(),
            verdicts.join(", ")
        );
        let mut row = |name: &str, what: String| {
            let _ = writeln!(text, "  {name:<11} {what}");
        };
        row(
            "time",
            format!(
                "{:.0} virtual seconds in {:.1} process seconds ({:.0} to 1), {} events",
                self.virtual_s,
                self.wall_s,
                self.virtual_s / self.wall_s.max(0.001),
                self.events
            ),
        );
        let Ops { ok, fail, info } = self.ops;
        row("operations", format!("{ok} ok, {fail} failed, {info} unknown"));
        row("faults", counts(&self.faults));
        row("slowest", slowest.join(", "));
        let (bytes, seed) = self.largest;
        row("memory", format!("at most {} MiB, in seed {seed}", bytes >> 20));
        if !self.requests.is_empty() {
            row("requests", requests(&self.requests, took));
        }
        row("left out", format!("{:>7} {:>9}", "", "applied"));
        for (name, count) in &self.rules {
            row("", left_out(name, count));
        }
        row("reached", format!("{:>9} {:>9}", "times", "in seeds"));
        for (name, (times, seeds)) in &self.reached {
            row("", format!("{times:>9} {seeds:>9}  {name}"));
        }
        text
    }
}

/// The failures by signature; nothing if there is none.
pub fn grouped(rows: &[SignatureRow], format: Format) -> String {
    if rows.is_empty() {
        return String::new();
    }
    if format == Format::Json {
        return format!("{}\n", serde_json::json!({ "signatures": rows }));
    }
    let mut text = format!("  {:<11} {:>9} {:>9}\n", "failures", "seeds", "first");
    for SignatureRow {
        seeds,
        first,
        signature,
    } in rows
    {
        let (id, what) = (&signature.id, &signature.text);
        let _ = writeln!(text, "  {:<11} {seeds:>9} {first:>9}  {id}: {what}", "");
    }
    text
}

/// How much of a rule was left out, and why.
fn left_out(name: &str, count: &RuleCount) -> String {
    let part = format!("{:.1} %", count.part_left_out() * 100.0);
    let mut text = format!("{part:>7} {:>9}  {name}", count.applied);
    if !count.left_out.is_empty() {
        let _ = write!(text, ": {}", counts(&count.left_out));
    }
    text
}

/// How many requests were answered, by API: version and count.
fn requests(all: &BTreeMap<String, u64>, took: Duration) -> String {
    let n: u64 = all.values().sum();
    let mut text = format!(
        "{n} answered ({:.0} a second)",
        n as f64 / took.as_secs_f64().max(0.001)
    );
    let mut last = "";
    for (which, n) in all {
        let (api, version) = which.rsplit_once(' ').unwrap_or((which, ""));
        if api != last {
            let _ = write!(text, "\n{:14}{api}:", "");
        }
        last = api;
        let _ = write!(text, " v{version} {n}");
    }
    text
}

fn counts(all: &BTreeMap<String, u64>) -> String {
    if all.is_empty() {
        return "none".into();
    }
    let each = all.iter().map(|(name, n)| format!("{name} {n}"));
    each.collect::<Vec<_>>().join(", ")
}

/// A violation is worse than nondeterminism, and both are worse than an inconclusive run.
fn worse(a: Verdict, b: Verdict) -> Verdict {
    let rank = |v| match v {
        Verdict::Pass => 0,
        Verdict::Inconclusive => 1,
        Verdict::Nondeterminism => 2,
        Verdict::Violation => 3,
    };
    if rank(b) > rank(a) { b } else { a }
}

#[cfg(test)]
mod tests {
    use super::*;
    use brokkr_sim::signature::Signature;

    #[test]
    fn a_signature_is_a_line_of_the_summary_and_an_object_of_json() {
        let row = SignatureRow {
            seeds: 3,
            first: 7,
            signature: Signature {
                id: "L1".to_owned(),
                text: "# is lost".to_owned(),
            },
        };
        let text = grouped(std::slice::from_ref(&row), Format::Text);
        assert!(text.contains("        3         7  L1: # is lost\n"), "{text}");
        let json = grouped(&[row], Format::Json);
        let expected = r##"{"signatures":[{"first":7,"id":"L1","seeds":3,"text":"# is lost"}]}"##;
        assert_eq!(json.trim_end(), expected);
        assert_eq!(grouped(&[], Format::Json), "");
    }
}
