//! Measures what other task orders find: runs each bug's plan with many scheduler seeds, at random or by priorities (PCT),
//! everything else equal.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use brokkr_sim::exec::Strategy;
use brokkr_sim::plan::{PCT_CHANGE_ONE_IN, Plan};
use serde::Serialize;

use super::hunt::caught;
use super::mutant::Mutant;
use super::regress;
use super::table::TableFormat;
use super::tree::Trees;
use crate::documents::read_plan;
use crate::runner::child;

/// The results of one strategy's orders.
#[derive(Clone, Default, Serialize)]
struct OrderStats {
    /// `random`, or `pct` with the frequency of priority changes.
    strategy: String,
    runs: u64,
    /// Runs that failed by an invariant of the bug's head.
    failed: u64,
    /// Distinct runs among them, by their hashes: interleavings.
    distinct: usize,
    /// Wall seconds, with one run at a time.
    wall_s: f64,
}

#[derive(Serialize)]
struct OrdersRow {
    mutant: String,
    tried: Vec<OrderStats>,
    gain: f64,
}

/// The comparison of two rates.
#[derive(PartialEq, Eq, Debug)]
enum RateComparison {
    More,
    Less,
    Same,
}

fn strategies() -> impl Iterator<Item = Strategy> {
    let by_priority = PCT_CHANGE_ONE_IN.into_iter().map(Strategy::Pct);
    [Strategy::Random].into_iter().chain(by_priority)
}

fn name(strategy: Strategy) -> String {
    match strategy {
        Strategy::Random => "random".to_owned(),
        Strategy::Pct(one_in) => format!("pct {one_in}"),
    }
}

/// Prints a line for each bug that has a plan, and a summary. Returns whether each was built.
///
/// # Errors
/// A plan can't be read or written.
pub fn compare(
    top: &Path,
    trees: &Trees,
    mutants: &[Mutant],
    orders: u64,
    jobs: usize,
    format: TableFormat,
) -> Result<bool, String> {
    let (mut rows, mut good) = (Vec::new(), true);
    print!("{}", header(format));
    for mutant in mutants {
        let path = regress::path(top, mutant);
        if !path.exists() {
            eprintln!("{} has no plan in sim/regress", mutant.name);
            continue;
        }
        let exe = match trees.build(mutant) {
            Ok(exe) => exe,
            Err(why) => {
                eprintln!("{}: {why}", mutant.name);
                good = false;
                continue;
            }
        };
        let plan = read_plan(&path)?;
        let tried = strategies().map(|strategy| try_all(&exe, mutant, &plan, strategy, orders, jobs, trees));
        let tried = tried.collect::<Result<Vec<_>, _>>()?;
        let row = OrdersRow {
            mutant: mutant.name.clone(),
            gain: gain(&tried),
            tried,
        };
        println!("{}", line(&row, format));
        rows.push(row);
    }
    if !rows.is_empty() {
        println!("{}", summary(&rows, format));
    }
    Ok(good)
}

fn try_all(
    exe: &Path,
    mutant: &Mutant,
    plan: &Plan,
    strategy: Strategy,
    orders: u64,
    jobs: usize,
    trees: &Trees,
) -> Result<OrderStats, String> {
    let next = AtomicU64::new(1);
    let reports = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > orders {
                        return;
                    }
                    let plan = Plan {
                        scheduler: strategy,
                        scheduler_seed: Some(seed),
                        ..plan.clone()
                    };
                    let path = trees.scratch(&format!("order-{seed}.json"));
                    let report = child::run_plan(exe, &plan, &path);
                    reports.lock().expect("no panic under this lock").push(report);
                }
            });
        }
    });
    let mut tried = OrderStats {
        strategy: name(strategy),
        ..OrderStats::default()
    };
    let mut hashes = BTreeSet::new();
    for report in reports.into_inner().expect("no panic under this lock") {
        let report = report?;
        tried.runs += 1;
        tried.failed += u64::from(!caught(&report, &mutant.breaks).is_empty());
        tried.wall_s += report.wall_s;
        // A run that died has no hash.
        if !report.hash.is_empty() {
            hashes.insert(report.hash);
        }
    }
    tried.distinct = hashes.len();
    Ok(tried)
}

/// Random, and the sum of all others: swarm draws one of them.
fn both(tried: &[OrderStats]) -> (OrderStats, OrderStats) {
    let (random, pct) = tried.split_first().expect("random comes first");
    let together = pct.iter().fold(OrderStats::default(), |all, t| OrderStats {
        strategy: "pct".to_owned(),
        runs: all.runs + t.runs,
        failed: all.failed + t.failed,
        distinct: all.distinct + t.distinct,
        wall_s: all.wall_s + t.wall_s,
    });
    (random.clone(), together)
}

/// How many times as often PCT fails. One failure and one pass are added to each: none of K is not never.
fn gain(tried: &[OrderStats]) -> f64 {
    let rate = |t: &OrderStats| (t.failed + 1) as f64 / (t.runs + 2) as f64;
    let (random, pct) = both(tried);
    rate(&pct) / rate(&random)
}

/// Whether PCT fails more or less often than random, beyond two standard errors.
fn against(tried: &[OrderStats]) -> RateComparison {
    let (random, pct) = both(tried);
    let share = |t: &OrderStats| t.failed as f64 / t.runs as f64;
    let all = (random.failed + pct.failed) as f64 / (random.runs + pct.runs) as f64;
    let error = (all * (1.0 - all) * (1.0 / random.runs as f64 + 1.0 / pct.runs as f64)).sqrt();
    match share(&pct) - share(&random) {
        more if more > 2.0 * error => RateComparison::More,
        less if less < -2.0 * error => RateComparison::Less,
        _ => RateComparison::Same,
    }
}

/// Whether the order matters: some orders fail and some pass.
fn depends(row: &OrdersRow) -> bool {
    let (random, pct) = both(&row.tried);
    let failed = random.failed + pct.failed;
    0 < failed && failed < random.runs + pct.runs
}

fn distinct_per_second(tried: &OrderStats) -> f64 {
    tried.distinct as f64 / tried.wall_s.max(1e-9)
}

fn columns() -> Vec<String> {
    let mut columns = vec!["mutant".to_owned()];
    columns.extend(strategies().map(|s| format!("{} fails", name(s))));
    columns.extend(["gain", "distinct runs", "random a second", "pct a second"].map(str::to_owned));
    columns
}

fn header(format: TableFormat) -> String {
    let columns = columns();
    match format {
        TableFormat::Json => String::new(),
        TableFormat::Markdown => {
            let lines = vec!["---"; columns.len()].join(" | ");
            format!("| {} |\n| {lines} |\n", columns.join(" | "))
        }
        TableFormat::Text => format!("{}\n", spaced(&columns)),
    }
}

fn line(row: &OrdersRow, format: TableFormat) -> String {
    let (random, pct) = both(&row.tried);
    let mut cells = vec![row.mutant.clone()];
    cells.extend(row.tried.iter().map(|t| format!("{} of {}", t.failed, t.runs)));
    cells.extend([
        format!("{:.2}", row.gain),
        format!("{} of {}", random.distinct + pct.distinct, random.runs + pct.runs),
        format!("{:.1}", distinct_per_second(&random)),
        format!("{:.1}", distinct_per_second(&pct)),
    ]);
    match format {
        TableFormat::Json => serde_json::to_string(row).expect("a row can be written"),
        TableFormat::Markdown => format!("| {} |", cells.join(" | ")),
        TableFormat::Text => spaced(&cells),
    }
}

fn spaced(cells: &[String]) -> String {
    let (first, rest) = cells.split_first().expect("a bug has a name");
    let rest: String = rest.iter().map(|c| format!(" {c:>16}")).collect();
    format!("{first:<36}{rest}")
}

fn summary(rows: &[OrdersRow], format: TableFormat) -> String {
    let mean = |rows: &[&OrdersRow]| {
        let logs: f64 = rows.iter().map(|r| r.gain.ln()).sum();
        (logs / rows.len().max(1) as f64).exp()
    };
    let deciding: Vec<&OrdersRow> = rows.iter().filter(|r| depends(r)).collect();
    let count = |what| rows.iter().filter(|r| against(&r.tried) == what).count();
    let (more, less) = (count(RateComparison::More), count(RateComparison::Less));
    let all = rows.iter().flat_map(|r| &r.tried);
    let (distinct, wall_s) = all.fold((0, 0.0), |(d, w), t| (d + t.distinct, w + t.wall_s));
    let (gain, rate) = (mean(&deciding), distinct as f64 / f64::max(wall_s, 1e-9));
    if format == TableFormat::Json {
        let text = serde_json::json!({
            "mutants": rows.len(), "order_decides": deciding.len(), "pct_more": more, "pct_less": less,
            "gain": gain, "interleavings_a_second": rate,
        });
        return text.to_string();
    }
    let text = format!(
        "Of {} bugs the order decides about {}. Of all PCT finds {more} more often than random and {less} less often (by more \
         than two standard errors); where the order decides it fails {gain:.2} times as often (geometric mean). {rate:.1} \
         interleavings a second, one run at a time.",
        rows.len(),
        deciding.len(),
    );
    match format {
        TableFormat::Markdown => format!("\n{text}"),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(failed: [u64; 4]) -> Vec<OrderStats> {
        let one = |failed| OrderStats {
            runs: 100,
            failed,
            distinct: 90,
            wall_s: 10.0,
            ..OrderStats::default()
        };
        failed.map(one).into()
    }

    #[test]
    fn a_gain_is_distinguished_from_chance() {
        assert_eq!(against(&tried([50, 50, 50, 50])), RateComparison::Same);
        assert_eq!(against(&tried([50, 55, 50, 55])), RateComparison::Same);
        assert_eq!(against(&tried([20, 60, 40, 50])), RateComparison::More);
        assert_eq!(against(&tried([20, 1, 2, 3])), RateComparison::Less);
        for all in [[0; 4], [100; 4]] {
            assert_eq!(against(&tried(all)), RateComparison::Same);
        }
        let gain = gain(&tried([20, 60, 40, 50]));
        assert!((2.0..2.6).contains(&gain), "{gain}");
    }

    #[test]
    fn the_order_matters_if_some_fail_and_some_pass() {
        let row = |failed| OrdersRow {
            mutant: "m".to_owned(),
            gain: 1.0,
            tried: tried(failed),
        };
        assert!(depends(&row([0, 0, 0, 1])) && depends(&row([100, 100, 99, 100])));
        assert!(!depends(&row([0; 4])) && !depends(&row([100; 4])));
        let text = summary(&[row([0; 4]), row([50, 60, 70, 99])], TableFormat::Text);
        assert!(
            text.contains("Of 2 bugs the order decides about 1. Of all PCT finds 1 more often"),
            "{text}"
        );
        assert!(text.contains("9.0 interleavings a second"), "{text}");
    }
}
