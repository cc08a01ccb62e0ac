//! The binary when a run fails: traces, comparisons, failure files, shrinking and explanations.
#![expect(
    clippy::disallowed_methods,
    reason = "these tests are outside of the room: they start processes, read and write files, and wait for processes"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

fn sim_in(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_brokkr-sim"));
    command.args(args).current_dir(dir);
    command
}

fn output_in(dir: &Path, args: &[&str]) -> Output {
    sim_in(dir, args).output().expect("the binary runs")
}

/// An empty directory.
fn empty(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if dir.exists() {
        fs::remove_dir_all(&dir).expect("it is ours");
    }
    fs::create_dir_all(&dir).expect("there is room");
    dir
}

fn json_of(text: impl AsRef<[u8]>) -> Value {
    serde_json::from_slice(text.as_ref()).expect("JSON")
}

fn lines_of(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).expect("it was written");
    text.lines().map(json_of).collect()
}

/// The report of one run.
fn report(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    json_of(
        text.lines()
            .last()
            .unwrap_or_else(|| panic!("no line: {output:?}")),
    )
}

/// A modified plan without faults.
fn plan(change: impl FnOnce(&mut Value)) -> Value {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let report = output_in(dir, &["plan", "--seed", "7", "--secs", "8", "--faults", "none"]);
    let mut plan = json_of(report.stdout);
    change(&mut plan);
    plan
}

/// A plan without flushing and with a power loss, among many other things.
fn failing() -> Value {
    plan(|p| {
        p["broker"]["log.flush.interval.messages"] = json!("1000000");
        p["scheduler"] = json!({"pct": 20});
        p["drift_ppm"] = json!(100);
        p["faults"] = json!([
            {"id": 1, "at_ms": 1000, "kind": "kill", "down_ms": 5},
            {"id": 2, "at_ms": 2000, "kind": "delay", "by_ms": 20, "for_ms": 300},
            {"id": 3, "at_ms": 3000, "kind": "slow_disk", "times": 3, "for_ms": 300},
            {"id": 4, "at_ms": 4000, "kind": "power_loss", "down_ms": 100, "unsynced": false},
            {"id": 5, "at_ms": 5000, "kind": "clock_step", "by_ms": 3000}
        ]);
    })
}

fn ids(line: &Value) -> Vec<&str> {
    let all = line["violations"].as_array().expect("a list");
    all.iter().filter_map(|v| v["id"].as_str()).collect()
}

#[test]
fn a_trace_is_complete_and_changes_nothing() {
    let dir = empty("trace");
    let plan = plan(|p| {
        p["faults"] = json!([
            {"id": 1, "at_ms": 2000, "kind": "kill", "down_ms": 5},
            {"id": 2, "at_ms": 3000, "kind": "power_loss", "down_ms": 5},
            {"id": 3, "at_ms": 4000, "kind": "cut", "client": null, "to_broker": true, "from_broker": true, "for_ms": 500}
        ]);
    });
    fs::write(dir.join("plan.json"), plan.to_string()).expect("there is room");
    let run = |more: &[&str]| {
        let args = [&["run", "--plan", "plan.json", "--format", "json"], more].concat();
        let output = output_in(&dir, &args);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        report(&output)
    };
    let (plain, traced) = (run(&[]), run(&["--trace", "t.jsonl"]));
    run(&["--trace", "again.jsonl"]);
    assert_eq!(plain["hash"], traced["hash"]);
    let bytes = |name: &str| fs::read(dir.join(name)).expect("it was written");
    assert!(
        bytes("t.jsonl") == bytes("again.jsonl"),
        "a trace is the same each time"
    );

    let events = lines_of(&dir.join("t.jsonl"));
    let of = |e: &str| events.iter().filter(|x| x["e"] == e).collect::<Vec<_>>();
    // Each run of a task has an event, with an earlier event as its cause. The runs of the check for leftovers are not counted:
    // they come after the verdict.
    assert!(of("run").len() as u64 >= plain["events"].as_u64().expect("a number"));
    let is_before = |e: &&Value| {
        e["by"]
            .as_u64()
            .is_some_and(|by| by > 0 && by < e["n"].as_u64().unwrap_or(0))
    };
    assert!(of("run").iter().all(is_before));
    assert!(
        events
            .windows(2)
            .all(|w| w[0]["t"].as_u64() <= w[1]["t"].as_u64())
    );
    for kind in [
        "spawn",
        "timer",
        "send",
        "arrive",
        "receive",
        "request",
        "response",
        "write",
        "wrote",
        "sync",
        "synced",
        "kill",
        "power_loss",
        "fault",
        "op",
        "connect",
        "connected",
        "accept",
        "log",
    ] {
        assert!(!of(kind).is_empty(), "no {kind}");
    }
    let ops = of("op").len() as u64;
    let outcomes = ["ok", "fail", "info"].map(|o| of("op").iter().filter(|x| x["type"] == o).count() as u64);
    assert_eq!(
        outcomes.iter().sum::<u64>() * 2,
        ops,
        "each operation begins and ends"
    );
    // Bytes that are sent are received, except on dead connections.
    let sum = |e: &str| of(e).iter().filter_map(|x| x["len"].as_u64()).sum::<u64>();
    assert!(
        sum("receive") <= sum("arrive")
            && sum("arrive") <= sum("send")
            && sum("receive") * 10 > sum("send") * 9
    );
}

#[test]
fn traces_for_perfetto_and_as_text() {
    let dir = empty("trace-forms");
    let args = ["run", "--seed", "7", "--secs", "2", "--faults", "none"];
    let run = |more: &[&str]| output_in(&dir, &[&args[..], more].concat());
    assert_eq!(run(&["--trace", "t.perfetto.json"]).status.code(), Some(0));
    let all = json_of(fs::read(dir.join("t.perfetto.json")).expect("it was written"));
    let all = all.as_array().expect("a list of events");
    let name = |e: &&Value| e["name"] == "process_name" && e["args"]["name"] == "broker";
    assert!(all.iter().any(|e| name(&e)) && all.iter().all(|e| e["ph"].is_string() && e["pid"].is_u64()));
    assert!(all.iter().any(|e| e["ph"] == "s") && all.iter().any(|e| e["ph"] == "f"));
    for trace in [&["--trace"][..], &["--trace", "-"], &["--trace=-"]] {
        let text = String::from_utf8(run(trace).stderr).expect("text");
        assert!(
            text.contains("invoke send") && text.contains("asks node 1: Produce"),
            "{text}"
        );
    }
    // One file holds one run; and a file that can't be written.
    let two = output_in(&dir, &["run", "--seeds", "1..3", "--trace", "t.jsonl"]);
    assert_eq!(two.status.code(), Some(2));
    assert_ne!(run(&["--trace", "no/such/place"]).status.code(), Some(0));
}

#[test]
fn nondeterminism_exits_with_4_and_names_the_first_different_event() {
    // The path of the plan depends on the run's working directory, which must not matter: here the second run finds another plan.
    let (there, here) = (empty("differs-there"), empty("differs-here"));
    let inside = here.join(there.strip_prefix("/").expect("it is absolute"));
    fs::create_dir_all(&inside).expect("there is room");
    let kill = |at_ms: u64| json!([{"id": 1, "at_ms": at_ms, "kind": "kill", "down_ms": 5}]);
    let (a, b) = (
        plan(|p| p["faults"] = kill(2_000)),
        plan(|p| p["faults"] = kill(2_500)),
    );
    fs::write(inside.join("plan.json"), a.to_string()).expect("there is room");
    fs::write(there.join("plan.json"), b.to_string()).expect("there is room");
    let path = format!("/proc/self/cwd{}/plan.json", there.display());
    let output = output_in(&here, &["determinism", "--plan", &path, "--format", "json"]);
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    let line = report(&output);
    assert_eq!(
        (&line["verdict"], ids(&line)),
        (&json!("nondeterminism"), vec!["nondeterminism"])
    );
    let what = line["violations"][0]["what"].as_str().expect("a text");
    // The director wakes for the fault of one plan, but not of the other.
    assert!(what.contains("the first event that differs is number"), "{what}");
    assert!(what.contains("at 3.000000000 s, node 0 life 0"), "{what}");

    // The same, with two traces.
    for (name, plan) in [("a", &a), ("b", &b)] {
        let at = format!("{name}.json");
        fs::write(here.join(&at), plan.to_string()).expect("there is room");
        output_in(
            &here,
            &["run", "--plan", &at, "--trace", &format!("{name}.jsonl")],
        );
    }
    let diff = |a, b| output_in(&here, &["diff", a, b]);
    assert_eq!(diff("a.jsonl", "a.jsonl").status.code(), Some(0));
    assert_eq!(diff("a.jsonl", "nothing").status.code(), Some(2));
    let report = diff("a.jsonl", "b.jsonl");
    assert_eq!(report.status.code(), Some(4));
    assert!(
        what.ends_with(String::from_utf8_lossy(&report.stdout).trim()),
        "{what}\n{report:?}"
    );
}

/// The child of a process, as soon as it has one.
fn child_of(pid: u32) -> i32 {
    let until = Instant::now() + Duration::from_secs(60);
    while Instant::now() < until {
        for task in fs::read_dir(format!("/proc/{pid}/task"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            if let Some(child) = children.split_whitespace().next() {
                return child.parse().expect("a process's id");
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("it starts no process");
}

#[test]
fn a_killed_run_exits_with_1() {
    let dir = empty("killed");
    let args = [
        "run", "--seed", "7", "--secs", "100000", "--faults", "none", "--format", "json",
    ];
    let run = sim_in(&dir, &args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let child = child_of(run.id());
    // SAFETY: a signal to the run's process, which is alive: only its parent, which waits for it, starts or ends it.
    assert_eq!(unsafe { libc::kill(child, libc::SIGKILL) }, 0);
    let output = run.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let line = report(&output);
    assert_eq!(
        (&line["verdict"], ids(&line)),
        (&json!("violation"), vec!["panic"])
    );
    let what = line["violations"][0]["what"].as_str().expect("a text");
    assert!(
        what.contains("signal 9") && what.contains("repeat: cargo sim run --seed 7"),
        "{what}"
    );
}

#[test]
fn a_run_above_its_memory_limit_exits_with_1() {
    let dir = empty("memory");
    // A record of a terabyte.
    let plan = plan(|p| p["workload"]["producers"][0]["padding_bytes_max"] = json!(1_u64 << 40));
    fs::write(dir.join("plan.json"), plan.to_string()).expect("there is room");
    let output = output_in(&dir, &["run", "--plan", "plan.json", "--format", "json"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let line = report(&output);
    let what = line["violations"][0]["what"].as_str().expect("a text");
    assert!(
        what.contains("signal 6") && what.contains("memory allocation"),
        "{what}"
    );
}

#[test]
fn a_failing_run_leaves_a_file_that_repeats_it() {
    let dir = empty("left");
    fs::write(dir.join("plan.json"), failing().to_string()).expect("there is room");
    let output = output_in(&dir, &["run", "--plan", "plan.json", "--format", "json"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("failure.json"));
    let (line, left) = (
        report(&output),
        json_of(fs::read(dir.join("failure.json")).expect("it is left")),
    );
    for key in ["verdict", "hash", "violations"] {
        assert_eq!(left[key], line[key], "{key}");
    }
    has_parts(
        &dir.join("failure.html"),
        &["--plan failure.json --trace", "The plan"],
    );
    assert_eq!(left["plan"], failing());
    assert!(
        left["commit"].is_string()
            && left["repeat"]
                .as_str()
                .is_some_and(|r| r.contains("--plan failure.json"))
    );
    let again = output_in(
        &dir,
        &[
            "run",
            "--plan",
            "failure.json",
            "--format",
            "json",
            "--failures",
            "elsewhere",
        ],
    );
    assert_eq!(report(&again)["hash"], line["hash"]);
    assert!(dir.join("elsewhere/failure.json").exists());
    let words = output_in(&dir, &["plan", "--plan", "failure.json", "--explain"]);
    let words = String::from_utf8(words.stdout).expect("text");
    assert!(
        words.contains("    4.000 s  The broker loses its power; it is back 100 ms later.\n"),
        "{words}"
    );
    // A passing run leaves no file; of several seeds each has its own file.
    let holds = output_in(
        &dir,
        &[
            "run",
            "--seed",
            "7",
            "--secs",
            "4",
            "--faults",
            "none",
            "--failures",
            "none",
        ],
    );
    assert_eq!((holds.status.code(), dir.join("none").exists()), (Some(0), false));
}

#[test]
fn a_passing_run_has_a_page_too() {
    let dir = empty("paged");
    let args = ["run", "--seed", "7", "--secs", "4", "--faults", "none", "--html"];
    let run = |more: &[&str]| output_in(&dir, &[&args[..], more].concat()).status.code();
    assert_eq!(run(&["run.html"]), Some(0));
    let page = has_parts(&dir.join("run.html"), &["passed", "--seed 7 --secs 4"]);
    assert!(page.contains("<p>No invariant is broken.</p>"));
    assert_eq!(run(&["no/such/place.html"]), Some(2));
    assert_eq!(run(&["run.html", "--trace"]), Some(2));
    let several = ["run", "--seeds", "1..3", "--html", "run.html"];
    assert_eq!(output_in(&dir, &several).status.code(), Some(2));
}

/// A page with these parts, that has what each page has: its data, lanes, charts, the story, and nothing from elsewhere.
fn has_parts(path: &Path, parts: &[&str]) -> String {
    let page = fs::read_to_string(path).expect("it was written");
    let always = [
        "<canvas id=\"lanes\"",
        "<div id=\"charts\">",
        "The plan as a story",
        "All faults end; the broker must serve.",
        "<th>left_out</th>",
    ];
    for part in always.iter().chain(parts) {
        assert!(page.contains(part), "{}: no {part}", path.display());
    }
    for outside in ["http:", "https:", " src="] {
        assert!(!page.contains(outside), "{}: {outside}", path.display());
    }
    let json = |id: &str| {
        let begin = format!("<script type=\"application/json\" id=\"{id}\">");
        let rest = &page[page.find(&begin).expect("it has data") + begin.len()..];
        json_of(&rest[..rest.find("</script>").expect("an end")])
    };
    let data = json("data");
    let events = data["n"].as_array().expect("a column").len();
    assert!(events > 500, "{events} events");
    for column in ["t", "by", "node", "life", "task", "what"] {
        assert_eq!(data[column].as_array().map(Vec::len), Some(events), "{column}");
    }
    let charted = |of: &str| {
        let charts = data["charts"].as_object().expect("charts");
        charts
            .values()
            .any(|chart| chart[of].as_array().is_some_and(|points| !points.is_empty()))
    };
    for line in [
        "log_end",
        "durable_end",
        "high_watermark",
        "last_stable_offset",
        "log_start",
        "acknowledged",
        "polled",
    ] {
        assert!(charted(line), "{}: no {line}", path.display());
    }
    assert!(json("failure")["plan"]["seed"].is_u64());
    page
}

#[test]
fn a_failing_run_is_shrunk_and_explained() {
    let dir = empty("shrunk");
    fs::write(dir.join("plan.json"), failing().to_string()).expect("there is room");
    let output = output_in(&dir, &["run", "--plan", "plan.json"]);
    assert_eq!(output.status.code(), Some(1));
    let output = output_in(&dir, &["shrink", "failure.json", "--id", "L1", "--for", "20s"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("fewer faults"),
        "it tells how far it is"
    );
    let small = json_of(fs::read(dir.join("failure-small.json")).expect("it is left"));
    let plan = &small["plan"];
    // What the failure needs: the power loss, a producer, and no flushing.
    assert_eq!(plan["faults"].as_array().map(Vec::len), Some(1), "{plan}");
    assert_eq!(plan["faults"][0]["kind"], "power_loss");
    assert_eq!(plan["workload"]["producers"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        (&plan["workload"]["consumers"], &plan["workload"]["admin"]),
        (&json!([]), &Value::Null)
    );
    assert_eq!(
        (&plan["scheduler"], &plan["drift_ppm"]),
        (&json!("random"), &json!(0))
    );
    assert_eq!(plan["broker"]["log.flush.interval.messages"], "1000000");
    assert!(
        plan["secs"].as_u64() < Some(4) && ids(&small).contains(&"L1"),
        "{small}"
    );

    let output = output_in(&dir, &["explain", "failure-small.json", "--id", "L1"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let story = String::from_utf8(output.stdout).expect("text");
    let mut rest = story.as_str();
    for part in [
        "and is lost",
        "sends",
        "Produce",
        "writes",
        "is told",
        "loses its power",
        "VIOLATION L1",
        "who woke whom",
    ] {
        let at = rest
            .find(part)
            .unwrap_or_else(|| panic!("{part:?} is not in:\n{rest}\n--- of\n{story}"));
        rest = &rest[at..];
    }

    // The page of the small plan has both plans; so has the one that `explain` writes.
    let parts = [
        "The shrunk plan",
        "The plan before",
        "<tr class=\"fault gone\"",
        "VIOLATION",
    ];
    let page = fs::read_to_string(dir.join("failure-small.html")).expect("it was written");
    for part in parts {
        assert!(page.contains(part), "no {part}");
    }
    let args = [
        "explain",
        "failure-small.json",
        "--id",
        "L1",
        "--html",
        "explained.html",
    ];
    assert_eq!(output_in(&dir, &args).status.code(), Some(1));
    let explained = fs::read_to_string(dir.join("explained.html")).expect("it was written");
    assert!(parts.iter().all(|part| explained.contains(part)));

    // A passing plan can't be shrunk.
    fs::write(dir.join("good.json"), self::plan(|_| {}).to_string()).expect("there is room");
    assert_eq!(output_in(&dir, &["shrink", "good.json"]).status.code(), Some(2));
    assert_eq!(
        output_in(&dir, &["shrink", "failure.json", "--id", "M1"])
            .status
            .code(),
        Some(2)
    );
    assert_eq!(output_in(&dir, &["explain", "good.json"]).status.code(), Some(0));
}
