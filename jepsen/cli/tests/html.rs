//! The report as an HTML page.

mod common;

use std::fmt::Write as _;

use common::{Directory, code, run};

/// Sends and polls of one record each, 10 µs apart; of each hundred records one is never read.
fn history(operations: usize, faulty: bool) -> String {
    let mut text = String::new();
    let mut index = 0;
    let mut line = |type_: &str, process: u64, f: &str, value: &str| {
        let time = index * 10_000;
        writeln!(
            text,
            r#"{{"index":{index},"time":{time},"type":"{type_}","process":{process},"f":"{f}","value":{value}}}"#
        )
        .expect("writing to a String never fails");
        index += 1;
    };
    line("invoke", 1, "assign", r#"["x"]"#);
    line("ok", 1, "assign", r#"["x"]"#);
    for n in 0..operations / 4 {
        if n % 5000 == 2500 {
            line("info", 99, "ignored", "null");
        }
        line("invoke", 0, "send", &format!(r#"[["send","x",{n}]]"#));
        line("ok", 0, "send", &format!(r#"[["send","x",[{n},{n}]]]"#));
        line("invoke", 1, "poll", r#"[["poll"]]"#);
        let read = if faulty && n % 100 == 50 {
            String::new()
        } else {
            format!("[{n},{n}]")
        };
        line("ok", 1, "poll", &format!(r#"[["poll",{{"x":[{read}]}}]]"#));
    }
    text.replace(
        r#""process":99,"f":"ignored""#,
        r#""process":"nemesis","f":"kill <n1>""#,
    )
}

#[test]
fn a_page_has_verdict_counts_charts_and_anomalies_with_operations() {
    let dir = Directory::new("html");
    let file = dir.write("h<1>.jsonl", &history(20_000, true));
    let output = run(&["check", &file, "--html", &dir.path("report.html")], "");
    assert_eq!(code(&output), 1);
    let page = dir.read("report.html");
    for part in [
        "<title>INVALID: h&lt;1&gt;.jsonl</title>",
        "<span class=\"verdict invalid\">INVALID</span>",
        // Counts: acknowledged, read.
        "<td class=\"n\">5000</td>",
        "<td class=\"n\">4950</td>",
        "<tr><td>poll</td><td class=\"n\">5000</td>",
        // Charts, with the nemesis and the anomalies.
        "<figcaption>Records ",
        "<figcaption>Acknowledged and not read yet ",
        "<figcaption>Lag of consumers ",
        "<title>kill &lt;n1&gt;</title>",
        "<line class=\"mark anomaly\"",
        // Anomalies, with their operations.
        "<a href=\"#poll-skip\">poll-skip</a></td><td>L6</td><td class=\"n\">50</td>",
        "<details id=\"lost-write\" open><summary>lost-write (L1): 50</summary>",
        "<li>50 was sent to x by operation 203, and never read, though operation 20002 read what follows it\n",
        "<pre>0.002 s  {&quot;index&quot;:203,",
    ] {
        assert!(page.contains(part), "no {part} in {page}");
    }
    // Nothing outside of the page is loaded.
    for outside in ["http", "src=", "<script", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
}

#[test]
fn a_page_of_100_000_operations_is_small() {
    let dir = Directory::new("html-large");
    let file = dir.write("history.jsonl", &history(100_000, true));
    let html = dir.path("report.html");
    let output = run(&["check", &file, "--html", &html, "--format", "json"], "");
    assert_eq!(code(&output), 1);
    let page = dir.read("report.html");
    assert!(page.len() < 1_000_000, "{} bytes", page.len());
    assert!(
        page.contains("… and 150 more; the JSON report has all."),
        "{} bytes",
        page.len()
    );
    assert!(page.ends_with("</body></html>\n"));
}

#[test]
fn a_valid_page_and_one_without_times() {
    let dir = Directory::new("html-valid");
    let file = dir.write("history.jsonl", &history(400, false));
    let output = run(&["check", &file, "--html", &dir.path("report.html")], "");
    assert_eq!(code(&output), 0);
    let page = dir.read("report.html");
    assert!(
        page.contains("verdict valid") && page.contains("<p>No anomalies.</p>"),
        "{page}"
    );
    // From standard input, with all times 0, and of another workload.
    let write = r#"{"type":"invoke","process":0,"f":"write","value":["x",1]}
{"type":"ok","process":0,"f":"write","value":["x",1]}
"#;
    let html = dir.path("registers.html");
    let output = run(&["check", "-", "--workload", "registers", "--html", &html], write);
    assert_eq!(code(&output), 0);
    let page = dir.read("registers.html");
    assert!(
        page.contains("<h1>history ") && page.contains("there are no charts"),
        "{page}"
    );
    let output = run(&["check", "-", "--html", "/nonexistent/report.html"], write);
    assert_eq!(code(&output), 2);
}

/// A recorded history is valid and has what a run has.
#[test]
fn a_recorded_history() {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/histories/brokkr-one-second.jsonl"
    );
    let require = "acked=439,read=439,deletes=1,listings=1";
    let output = run(&["check", file, "--require", require, "--lag-max", "5s"], "");
    assert_eq!(code(&output), 0, "{}", String::from_utf8_lossy(&output.stdout));
}
