//! The binary as its callers see it: exit codes, JSON lines, plans.
#![expect(
    clippy::disallowed_methods,
    reason = "these tests are outside of the room: they start processes and write files"
)]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use brokkr_checker::kafka::{Kafka, Options};
use brokkr_checker::{Valid, Verdict};
use brokkr_history::{NEMESIS, Operation, Process, Reader, Type};
use serde_json::{Value, json};

fn sim(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_brokkr-sim"))
        .args(args)
        // Failing runs leave their files here.
        .current_dir(env!("CARGO_TARGET_TMPDIR"))
        .output()
        .expect("the binary runs")
}

fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8(output.stdout.clone()).expect("text");
    text.lines()
        .map(|l| serde_json::from_str(l).expect("a line of JSON"))
        .collect()
}

/// A file with the modified plan of a seed without faults.
fn plan(name: &str, change: impl FnOnce(&mut Value)) -> PathBuf {
    let output = sim(&["plan", "--seed", "7", "--secs", "8", "--faults", "none"]);
    let mut plan: Value = serde_json::from_slice(&output.stdout).expect("a plan is JSON");
    change(&mut plan);
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, plan.to_string()).expect("a file");
    path
}

fn run(path: &Path) -> (Option<i32>, Value) {
    let path = path.to_str().expect("a path");
    let output = sim(&["run", "--plan", path, "--format", "json"]);
    let line = lines(&output).pop().unwrap_or(Value::Null);
    (output.status.code(), line)
}

#[test]
fn a_passing_campaign_exits_with_0_and_one_line_for_each_seed() {
    let output = sim(&[
        "run", "--seeds", "3..6", "--secs", "8", "--jobs", "2", "--format", "json",
    ]);
    assert_eq!(output.status.code(), Some(0));
    let mut seeds = Vec::new();
    for line in lines(&output) {
        assert_eq!(line["verdict"], "pass", "{line}");
        assert!(line["ops"]["ok"].as_u64() > Some(20) && line["wall_s"].as_f64() > Some(0.0));
        assert!(line["virtual_s"].as_f64() > Some(6.0) && line["events"].as_u64() > Some(1000));
        assert_eq!(line["hash"].as_str().map(str::len), Some(16));
        assert!(line["faults"].is_object() && line["reached"].is_object() && line["violations"] == json!([]));
        seeds.push(line["seed"].as_u64());
    }
    seeds.sort();
    assert_eq!(seeds, [Some(3), Some(4), Some(5)]);
}

#[test]
fn a_violation_exits_with_1() {
    // Without flushing, a power loss takes acknowledged records.
    let path = plan("unflushed", |p| {
        p["broker"]["log.flush.interval.messages"] = json!("1000000");
        p["faults"] = json!([{"id": 1, "at_ms": 4000, "kind": "power_loss", "down_ms": 5}]);
    });
    let (code, line) = run(&path);
    assert_eq!((code, &line["verdict"]), (Some(1), &json!("violation")), "{line}");
    let ids: Vec<_> = line["violations"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|v| &v["id"])
        .collect();
    assert!(ids.contains(&&json!("L1")), "{line}");
}

#[test]
fn a_panic_exits_with_1_and_prints_how_to_repeat_it() {
    let path = plan("nowhere", |p| {
        p["workload"]["producers"][0]["partitions"] = json!([])
    });
    let (code, line) = run(&path);
    assert_eq!(code, Some(1));
    let violation = line["violations"]
        .as_array()
        .and_then(|v| v.iter().find(|v| v["id"] == "panic"))
        .expect("a panic violation");
    let what = violation["what"].as_str().expect("a text");
    assert!(
        what.contains("a producer needs partitions") && what.contains(".rs:"),
        "{what}"
    );
    assert!(what.contains("repeat: cargo sim run --plan"), "{what}");
}

#[test]
fn invalid_arguments_exit_with_2() {
    assert_eq!(sim(&["run", "--seeds", "5..5"]).status.code(), Some(2));
    assert_eq!(
        sim(&["run", "--seed", "1", "--faults", "dragons"]).status.code(),
        Some(2)
    );
    assert_eq!(sim(&["run", "--plan", "/nowhere/at/all"]).status.code(), Some(2));
    assert_eq!(sim(&["run", "--shard", "3/2"]).status.code(), Some(2));
    assert_eq!(sim(&["run", "--for", "10 parsecs"]).status.code(), Some(2));
    assert_eq!(
        sim(&["run", "--seed", "1", "--junit", "/nowhere/at/all"])
            .status
            .code(),
        Some(2)
    );
    assert_eq!(sim(&["bugs", "no-such-bug"]).status.code(), Some(2));
    for args in [
        &["run", "--seeds", "1..3", "--history", "several.jsonl"][..],
        &["run", "--seed", "1", "--history", "/nowhere/at/all"],
        &["run", "--seed", "1", "--history", "a.jsonl", "--html", "a.html"],
        &["determinism", "--seed", "1", "--history", "twice.jsonl"],
    ] {
        let output = sim(args);
        assert_eq!(
            (output.status.code(), output.stderr.is_empty()),
            (Some(2), false),
            "{args:?}"
        );
    }
    let other = plan("other-format", |p| p["format"] = json!(77));
    assert_eq!(run(&other).0, Some(2));
    let odd = plan("odd-broker", |p| p["broker"]["log.dirr"] = json!("x"));
    assert_eq!(run(&odd).0, Some(2));
}

/// The first process that is no client: it says what retention removed.
const RETENTION: Process = 1 << 30;

/// The history that these arguments of `run` write, and the run's line.
fn recorded(name: &str, args: &[&str]) -> (Vec<Operation>, Value) {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let to = path.to_str().expect("a path");
    let output = sim(&[&["run", "--format", "json", "--history", to], args].concat());
    let mut reader = Reader::new(File::open(&path).expect("it was written"));
    let history: Result<Vec<_>, _> = reader.by_ref().collect();
    assert_eq!(reader.torn(), None);
    let line = lines(&output).pop().expect("a line");
    (history.expect("it is a history"), line)
}

fn verdict(history: &[Operation]) -> Verdict {
    let mut checker = Kafka::new(Options::default());
    for operation in history {
        checker
            .push(operation.clone())
            .expect("a history of sends and polls");
    }
    checker.finish().verdict()
}

#[test]
fn a_history_has_the_operations_of_its_run_and_is_judged_alike() {
    let plan = plan("recorded", |_| ());
    let plan = plan.to_str().expect("a path");
    let (history, line) = recorded("recorded.jsonl", &["--plan", plan]);
    assert_eq!(line["verdict"], "pass");
    for (type_, name) in [(Type::Ok, "ok"), (Type::Fail, "fail"), (Type::Info, "info")] {
        let of_type = history
            .iter()
            .filter(|o| o.type_ == type_ && o.process < RETENTION);
        let count: usize = of_type.map(|o| o.op.micro_ops().len().max(1)).sum();
        assert_eq!(line["ops"][name].as_u64(), Some(count as u64), "{name}");
    }
    let verdict = verdict(&history);
    assert_eq!(verdict.valid(), Valid::Yes, "{}", verdict.to_json());
    assert!(verdict.counted["acked"] > 20 && verdict.counted["read"] > 20);

    // The hash says that recording changes nothing.
    assert_eq!(run(Path::new(plan)).1["hash"], line["hash"]);
}

/// Producers that are not idempotent, damage, retention, topics that are created again: what the simulator exempts is waived.
#[test]
fn histories_of_passing_seeds_are_valid() {
    let (mut waived, mut read) = (0, 0);
    for seed in 0..12 {
        let (name, seed) = (format!("seed-{seed}.jsonl"), seed.to_string());
        let (history, line) = recorded(&name, &["--seed", &seed, "--secs", "20"]);
        assert_eq!(line["verdict"], "pass", "{line}");
        let verdict = verdict(&history);
        assert_eq!(verdict.valid(), Valid::Yes, "seed {seed}: {}", verdict.to_json());
        waived += history.iter().filter(|o| o.process == NEMESIS).count();
        read += verdict.counted["read"];
    }
    assert!(waived > 0 && read > 1_000, "{waived} waivers, {read} records");
}

#[test]
fn the_history_of_a_failing_run_is_invalid() {
    let path = plan("recorded-unflushed", |p| {
        p["broker"]["log.flush.interval.messages"] = json!("1000000");
        p["faults"] = json!([{"id": 1, "at_ms": 4000, "kind": "power_loss", "down_ms": 5}]);
    });
    let (history, line) = recorded("unflushed.jsonl", &["--plan", path.to_str().expect("a path")]);
    assert_eq!(line["verdict"], "violation");
    let verdict = verdict(&history);
    assert_eq!(verdict.valid(), Valid::No);
    // The lost records' offsets were given to others.
    assert!(
        !verdict.findings("inconsistent-offsets").is_empty(),
        "{}",
        verdict.to_json()
    );
}

#[test]
fn shards_together_run_the_whole_campaign() {
    let junit = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("junit.xml");
    let mut seeds = Vec::new();
    for shard in ["1/2", "2/2"] {
        let to = junit.to_str().expect("a path");
        let output = sim(&[
            "run", "--seeds", "3..6", "--secs", "4", "--shard", shard, "--format", "json", "--junit", to,
        ]);
        let output = lines(&output);
        let text = std::fs::read_to_string(&junit).expect("JUnit's XML is written");
        assert_eq!(text.matches("<testcase ").count(), output.len(), "{text}");
        assert!(
            output.iter().all(|l| l["rss_max_bytes"].as_u64() > Some(1 << 20)),
            "{output:?}"
        );
        seeds.extend(output.iter().filter_map(|l| l["seed"].as_u64()));
    }
    seeds.sort_unstable();
    assert_eq!(seeds, [3, 4, 5]);
}

#[test]
fn a_campaign_with_a_time_limit_ends() {
    let output = sim(&["run", "--for", "1s", "--secs", "2", "--format", "json"]);
    assert!(lines(&output).len() > 1, "{output:?}");
}

#[test]
fn github_annotations_name_failures() {
    let path = plan("annotated", |p| {
        p["broker"]["log.flush.interval.messages"] = json!("1000000");
        p["faults"] = json!([{"id": 1, "at_ms": 4000, "kind": "power_loss", "down_ms": 5}]);
    });
    let path = path.to_str().expect("a path");
    let output = Command::new(env!("CARGO_BIN_EXE_brokkr-sim"))
        .args(["run", "--plan", path])
        .current_dir(env!("CARGO_TARGET_TMPDIR"))
        .env("GITHUB_ACTIONS", "true")
        .output()
        .expect("the binary runs");
    let output = String::from_utf8(output.stderr).expect("text");
    assert!(
        output.contains("::error title=seed 7::") && output.contains("%0A"),
        "{output}"
    );
}

#[test]
fn a_power_loss_may_wait_for_unsynced_data() {
    let lost = |name: &str, unsynced: bool| {
        let path = plan(name, |p| {
            let loss = |i: u64| json!({"id": i, "at_ms": 700 * i, "kind": "power_loss", "down_ms": 5, "unsynced": unsynced});
            p["faults"] = (1..8).map(loss).collect();
        });
        let (code, line) = run(&path);
        assert_eq!(code, Some(0), "{line}");
        let count = |what: &str| line["faults"][what].as_u64().unwrap_or(0);
        count("write lost") + count("write torn") + count("write zeroed")
    };
    let (waited, at_once) = (lost("waits", true), lost("at-once", false));
    assert!(
        waited > 2 && waited > at_once,
        "{waited} writes lost, and {at_once} without waiting"
    );
}

#[test]
fn an_inconclusive_run_exits_with_3() {
    let path = plan("idle", |p| {
        p["workload"]["producers"] = json!([]);
        p["workload"]["consumers"] = json!([]);
        p["workload"]["admin"] = Value::Null;
    });
    let (code, line) = run(&path);
    assert_eq!(
        (code, &line["verdict"]),
        (Some(3), &json!("inconclusive")),
        "{line}"
    );
}

#[test]
fn a_seed_gives_the_same_run_in_any_surroundings() {
    let output = sim(&[
        "determinism",
        "--seeds",
        "0..3",
        "--secs",
        "8",
        "--format",
        "json",
    ]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    // The plan of a seed gives the same run as the seed.
    let path = plan("same", |_| {});
    let alone = sim(&[
        "run", "--seed", "7", "--secs", "8", "--faults", "none", "--format", "json",
    ]);
    assert_eq!(lines(&alone)[0]["hash"], run(&path).1["hash"]);
}

#[test]
fn a_run_that_passes_is_explained_and_its_state_printed() {
    let of = ["--seed", "7", "--secs", "4", "--faults", "none"];
    let with = |command: &'static str, more: &[&'static str]| {
        let output = sim(&[&[command][..], &of, more].concat());
        let text = String::from_utf8(output.stdout).expect("text");
        (
            output.status.code(),
            text,
            String::from_utf8(output.stderr).expect("text"),
        )
    };
    let (code, text, _) = with("explain", &["--offset", "t0-0:0"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("the story of t0-0 offset 0") && text.contains("first by process"),
        "{text}"
    );
    let (code, text, _) = with("explain", &["--at", "2500ms"]);
    assert!(
        code == Some(0) && text.contains("every node is up, and no fault lasts"),
        "{text}"
    );
    for (command, more, why) in [
        (
            "explain",
            ["--value", "4294967295"],
            "no client sent the value 4294967295",
        ),
        ("explain", ["--offset", "none-0:0"], "no partition none-0"),
        ("explain", ["--at", "900s"], "900.000000 s is not in it"),
        ("state", ["--at", "900s"], "900.000000 s is not in it"),
        ("state", ["--at", "0.5s"], "0.500000 s is not in it"),
        ("state", ["--at", "1.2.3s"], "is not a time"),
    ] {
        let (code, _, error) = with(command, &more);
        assert_eq!(code, Some(2), "{more:?}: {error}");
        assert!(error.contains(why), "{why}: {error}");
    }
    let (code, text, _) = with("state", &["--at", "2.5s", "--format", "json"]);
    let state: Value = serde_json::from_str(&text).expect("a state is JSON");
    assert_eq!((code, &state["at"]), (Some(0), &json!(2_500_000_000_u64)));
    let run = sim(&[&["run", "--format", "json"][..], &of].concat());
    assert_eq!(
        state["hash"],
        lines(&run)[0]["hash"],
        "observing a run changes it"
    );
}
