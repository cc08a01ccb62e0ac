//! `brokkr-sim bugs`: shows that the judges can fail. Applies each known bug of `sim/mutants` to a copy of the tree, builds it, and
//! runs seeds until one finds the bug; and shows that the plan that guards against it, if there is one, still fails with it.

mod hunt;
mod mutant;
mod orders;
mod regress;
mod survivor;
mod table;
mod tree;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use brokkr_sim::plan::Faults;
use clap::Args;
use serde::Serialize;

use crate::arguments::{SECS, argument_error};
use crate::differs;
use crate::runner;
use crate::runner::child::{self, RunSpec, Surroundings, this_binary};
use hunt::{APART, HuntResult, hunt, median_and_worst};
use mutant::Mutant;
use regress::GuardResult;
use survivor::{FirstDifference, SurvivorReport};
use table::TableFormat;
use tree::Trees;

/// Stands for every invariant.
const ANY: &str = "any";

/// Which bugs are hunted, and how. A report follows on each bug that survives: some of its seeds run again, with it and without it.
#[derive(Args)]
pub struct Bugs {
    /// Names of patches in sim/mutants, without their ending [default: all]
    names: Vec<String>,
    /// Seeds that are tried from each starting point: seeds 0, 1000, 2000, …
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=APART))]
    seeds_max: u64,
    /// Starting points
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    starts: u64,
    /// Runs at the same time [default: one for each core]
    #[arg(long)]
    jobs: Option<usize>,
    /// Don't hunt: only show that the plans of sim/regress still fail with their bugs
    #[arg(long)]
    regress: bool,
    /// If a bug has no plan in sim/regress, or its plan no longer fails, make one from a failure of the hunt
    #[arg(long, conflicts_with = "regress")]
    renew: bool,
    /// Don't hunt: run each plan of sim/regress with so many orders of tasks, drawn at random and by priorities (PCT)
    #[arg(long, value_name = "K", conflicts_with_all = ["regress", "renew"], value_parser = clap::value_parser!(u64).range(1..))]
    orders: Option<u64>,
    /// Only those whose crates differ from this commit, and --rotate others
    #[arg(long, value_name = "COMMIT", conflicts_with = "names")]
    changed_since: Option<String>,
    /// How many others: other ones after each commit
    #[arg(long, default_value_t = 3, requires = "changed_since")]
    rotate: usize,
    /// How to print the table
    #[arg(long, value_enum, default_value_t = TableFormat::Text)]
    format: TableFormat,
}

/// The result of a bug.
#[derive(Serialize)]
struct BugRow<'a> {
    mutant: &'a str,
    what: &'a str,
    source: &'a str,
    breaks: &'a [String],
    /// What is wrong with the bank; empty if it is sound.
    wrong: Vec<String>,
    /// How the hunt from each starting point ended, if there was one.
    starts: Vec<Option<HuntResult>>,
    /// How the guarding plan fails, if there is one.
    plan: Option<GuardResult>,
    /// What the bug's code did in some seeds that did not find it, if it survived.
    #[serde(skip_serializing_if = "Option::is_none")]
    survivor: Option<SurvivorReport>,
}

/// Exit codes: 0 each bug is found; 1 one is not, or fails where it should not; 2 invalid arguments or plans.
pub fn main(bugs: &Bugs) -> ExitCode {
    match all(bugs) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(why) => argument_error(&why),
    }
}

fn all(bugs: &Bugs) -> Result<bool, String> {
    let top = tree::top()?;
    let mutants = wanted(bugs, &top)?;
    let trees = Trees::new(top.clone())?;
    if let Some(orders) = bugs.orders {
        return orders::compare(&top, &trees, &mutants, orders, bugs.jobs(), bugs.format);
    }
    print!("{}", bugs.header());
    let (mut good, mut survivors) = (true, Vec::new());
    for mutant in &mutants {
        let begun = Instant::now();
        let row = match trees.build(mutant) {
            Ok(exe) => {
                eprintln!("{}: built in {:.0} s", mutant.name, begun.elapsed().as_secs_f64());
                bugs.look(&top, &trees, mutant, &exe)?
            }
            Err(why) => {
                let mut row = BugRow::of(mutant);
                row.wrong.push(why);
                row
            }
        };
        println!("{}", bugs.line(&row));
        for wrong in &row.wrong {
            eprintln!("{}: {wrong}", mutant.name);
        }
        good &= row.wrong.is_empty();
        survivors.extend(row.survivor.map(|report| (mutant, report)));
    }
    // In JSON they are in the rows.
    if bugs.format != TableFormat::Json {
        for (mutant, report) in survivors {
            let text = report.text(&mutant.name, &mutant.changed(), &mutant.breaks);
            print!("\n{text}");
        }
    }
    Ok(good)
}

/// The mutants that the arguments select.
fn wanted(bugs: &Bugs, top: &Path) -> Result<Vec<Mutant>, String> {
    let mut mutants = mutant::all(&top.join("sim/mutants"))?;
    if bugs.regress {
        plans_have_mutants(top, &mutants)?;
        mutants.retain(|m| regress::path(top, m).exists());
    }
    if let Some(base) = &bugs.changed_since {
        let changed = tree::git(top, &["diff", "--name-only", base])?;
        let changed: Vec<String> = changed.lines().map(str::to_owned).collect();
        let commits = tree::git(top, &["rev-list", "--count", "HEAD"])?;
        let turn = commits
            .trim()
            .parse::<usize>()
            .map_err(|e| format!("{commits:?}: {e}"))?;
        mutants = mutant::chosen(&mutants, &changed, bugs.rotate, turn);
    }
    if bugs.names.is_empty() {
        return Ok(mutants);
    }
    match bugs.names.iter().find(|n| mutants.iter().all(|m| m.name != **n)) {
        Some(name) if bugs.regress => Err(format!("sim/regress has no {name}.json")),
        Some(name) => Err(format!("sim/mutants has no {name}.patch")),
        None => Ok(mutants
            .into_iter()
            .filter(|m| bugs.names.contains(&m.name))
            .collect()),
    }
}

/// Each plan must belong to a mutant: otherwise nothing shows that it guards against a bug.
fn plans_have_mutants(top: &Path, mutants: &[Mutant]) -> Result<(), String> {
    let folder = top.join("sim/regress");
    let at = |e: std::io::Error| format!("{}: {e}", folder.display());
    for entry in std::fs::read_dir(&folder).map_err(at)? {
        let path = entry.map_err(at)?.path();
        if mutants.iter().all(|m| regress::path(top, m) != path) {
            return Err(format!("{} belongs to no mutant of sim/mutants", path.display()));
        }
    }
    Ok(())
}

impl<'a> BugRow<'a> {
    fn of(mutant: &'a Mutant) -> Self {
        Self {
            mutant: &mutant.name,
            what: &mutant.what,
            source: &mutant.source,
            breaks: &mutant.breaks,
            wrong: Vec::new(),
            starts: Vec::new(),
            plan: None,
            survivor: None,
        }
    }
}

impl Bugs {
    fn jobs(&self) -> usize {
        self.jobs.unwrap_or_else(runner::cores)
    }

    fn look<'a>(
        &self,
        top: &Path,
        trees: &Trees,
        mutant: &'a Mutant,
        exe: &Path,
    ) -> Result<BugRow<'a>, String> {
        let mut row = BugRow::of(mutant);
        if !self.regress {
            self.hunt(mutant, exe, &mut row);
        }
        let path = regress::path(top, mutant);
        let scratch = |seed| trees.scratch(&format!("plan-{seed}.json"));
        let look = || regress::look(&path, mutant, exe, self.jobs(), scratch);
        if path.exists() {
            row.plan = look()?;
        }
        if self.renew && row.plan.is_none() {
            let found = row.starts.iter().flatten();
            let failing = found.map(|f| (f.from + f.seeds - 1, &f.by));
            regress::renew(&path, failing, exe, self.jobs(), &scratch(0))?;
        }
        if path.exists() {
            if row.plan.is_none() {
                row.plan = look()?;
            }
            if row.plan.is_none() {
                let what = format!("{} does not fail with it: it must be renewed", path.display());
                row.wrong.push(what);
            }
        }
        Ok(row)
    }

    fn hunt(&self, mutant: &Mutant, exe: &Path, row: &mut BugRow<'_>) {
        let run = |seed, faults| {
            let what = RunSpec::Seed {
                seed,
                secs: SECS,
                faults,
            };
            let first = child::run(exe, what, Surroundings::Plain);
            match mutant.runs_twice() {
                true => differs::compare(exe, what, first, &child::run(exe, what, Surroundings::Other)),
                false => first,
            }
        };
        // Without faults any violation counts, and the first seed of each starting point is enough.
        let healthy = |seed| {
            let mut report = run(seed, &Faults::None);
            report.violations.iter_mut().for_each(|v| v.id = ANY.to_owned());
            report
        };
        let sick = hunt(self.starts, 1, self.jobs(), &[ANY.to_owned()], healthy);
        let sick: Vec<u64> = sick.into_iter().flatten().map(|f| f.from).collect();
        if mutant.fails_without_faults.is_none() && !sick.is_empty() {
            row.wrong
                .push(format!("fails without faults, with seeds {sick:?}"));
        }
        let faulty = |seed| run(seed, &Faults::Default);
        let seeds_max = self.seeds_max.max(mutant.seeds.unwrap_or(0));
        row.starts = hunt(self.starts, seeds_max, self.jobs(), &mutant.breaks, faulty);
        let survived = survivor::survived(&row.starts);
        if !survived.is_empty() {
            let breaks = mutant.breaks.join(", ");
            row.wrong.push(format!(
                "survived {seeds_max} seeds from {survived:?} (it breaks {breaks})"
            ));
            row.survivor = Some(self.examine(mutant, exe, &survived, seeds_max));
        }
    }

    /// Runs some seeds of a hunt that found nothing again, with the bug and without it.
    fn examine(&self, mutant: &Mutant, exe: &Path, survived: &[u64], seeds_max: u64) -> SurvivorReport {
        let (faults, healthy) = (Faults::Default, this_binary());
        let what = |seed| RunSpec::Seed {
            seed,
            secs: SECS,
            faults: &faults,
        };
        let run = |seed, with| {
            let exe = if with { exe } else { &healthy };
            child::run(exe, what(seed), Surroundings::Plain)
        };
        let difference = |seed| {
            let found = differs::between(&healthy, exe, what(seed))?;
            let found = found.ok_or("repeated with traces, both did the same")?;
            let [without, with] = found.sides();
            Ok(FirstDifference {
                seed,
                event: found.line,
                without,
                with,
            })
        };
        let seeds = survivor::seeds(survived, seeds_max);
        survivor::report(seeds, &mutant.breaks, self.jobs(), run, difference)
    }

    /// The lines above the table.
    fn header(&self) -> String {
        let columns: &[&str] = match self.regress {
            true => &["mutant", "its plan fails", "by"],
            false => &[
                "mutant",
                "source",
                "found by",
                "seeds: median",
                "worst",
                "seconds: median",
                "worst",
                "its plan fails",
            ],
        };
        match self.format {
            TableFormat::Json => String::new(),
            TableFormat::Markdown => {
                let lines = columns.iter().map(|_| "---").collect::<Vec<_>>().join(" | ");
                format!("| {} |\n| {lines} |\n", columns.join(" | "))
            }
            TableFormat::Text => format!("{}\n", self.columns(columns)),
        }
    }

    fn line(&self, row: &BugRow<'_>) -> String {
        if self.format == TableFormat::Json {
            return serde_json::to_string(row).expect("a row can be written");
        }
        let mut cells = vec![row.mutant.to_owned()];
        if !self.regress {
            cells.extend(hunted(row));
        }
        cells.push(guarded(row));
        let cells: Vec<&str> = cells.iter().map(String::as_str).collect();
        match self.format {
            TableFormat::Markdown => format!("| {} |", cells.join(" | ")),
            _ => self.columns(&cells),
        }
    }

    fn columns(&self, cells: &[&str]) -> String {
        let widths: &[usize] = match self.regress {
            true => &[36, 1],
            false => &[36, 0, 16, 14, 20, 16, 6, 1],
        };
        let mut line = String::new();
        for (cell, width) in cells.iter().zip(widths) {
            // The source is long; the patch contains it.
            if *width > 0 {
                let _ = write!(line, "{cell:<width$} ");
            }
        }
        line.trim_end().to_owned()
    }
}

fn hunted(row: &BugRow<'_>) -> [String; 6] {
    let found: Vec<&HuntResult> = row.starts.iter().flatten().collect();
    let by: BTreeSet<&str> = found.iter().flat_map(|f| &f.by).map(String::as_str).collect();
    let by = by.into_iter().collect::<Vec<_>>().join(" ");
    let seeds = median_and_worst(found.iter().map(|f| f.seeds).collect(), Ord::cmp);
    let seconds = median_and_worst(found.iter().map(|f| f.seconds).collect(), f64::total_cmp);
    let none = || "-".to_owned();
    let worst = match row.starts.len() - found.len() {
        0 => seeds.map_or_else(none, |(_, worst)| worst.to_string()),
        n => format!("{n} of {} SURVIVED", row.starts.len()),
    };
    [
        row.source.to_owned(),
        by,
        seeds.map_or_else(none, |(median, _)| median.to_string()),
        worst,
        seconds.map_or_else(none, |(median, _)| format!("{median:.1}")),
        seconds.map_or_else(none, |(_, worst)| format!("{worst:.1}")),
    ]
}

fn guarded(row: &BugRow<'_>) -> String {
    match &row.plan {
        None if row.wrong.is_empty() => "-".to_owned(),
        None => "NOT".to_owned(),
        Some(guards) => match guards.scheduler_seed {
            None => "as it is".to_owned(),
            Some(seed) => format!("with scheduler seed {seed}"),
        },
    }
}
