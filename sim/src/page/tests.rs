use super::*;
use crate::explain::{Focus, explain};
use crate::plan::{BROKER, Faults, Kind};
use crate::report::{Report, Violated};

fn report(violations: &[Violated]) -> Report {
    let text = r#"{"seed": 3, "verdict": "violation", "hash": "ab", "events": 1, "virtual_s": 1.0, "wall_s": 1.0, "faults": {"kill": 2},
        "reached": {}, "ops": {"ok": 1, "fail": 0, "info": 0}, "rules": {"L1": {"applied": 5, "left_out": {"damaged": 2}}},
        "violations": []}"#;
    let mut report: Report = serde_json::from_str(text).expect("a report");
    report.violations = violations.to_vec();
    report
}

fn page_of(plan: Plan, what: &str, lines: &str, original: Option<&Plan>) -> String {
    let report = report(&[Violated {
        id: "L1".to_owned(),
        what: what.to_owned(),
    }]);
    let trace = Trace::read(lines.as_bytes()).expect("it is a trace");
    let explanation = explain(&plan, &report, &trace, &Focus::Violation(None));
    let page = Page {
        failure: &Failure::new(plan, &report, "x/failure.json"),
        report: &report,
        trace: &trace,
        explanation: &explanation.expect("the run has a violation"),
        original,
    };
    let mut out = Vec::new();
    page.write(&mut out).expect("memory can be written");
    String::from_utf8(out).expect("text")
}

#[test]
fn nothing_of_a_run_can_end_an_element() {
    let evil = "</script><!-- <script> \" ' & </pre>";
    let line = serde_json::json!({"n": 1, "t": 1, "node": BROKER, "life": 0, "e": "log", "level": "WARN", "target": "x", "text": evil});
    let mut plan = Plan::of(3, 20, &Faults::None);
    plan.broker
        .insert("log.cleaner.enable".to_owned(), evil.to_owned());
    let page = page_of(plan, evil, &format!("{line}\n"), None);
    // Only the template's own elements begin and end.
    for (part, count) in [("<script", 3), ("</script", 3), ("<!--", 0), ("</pre", 1)] {
        assert_eq!(page.matches(part).count(), count, "{part}");
    }
    assert!(page.contains("&lt;/script&gt;&lt;!-- &lt;script&gt; &quot; &#39; &amp; &lt;/pre&gt;"));
    assert!(page.contains(r#"\u003c/script>\u003c!-- \u003cscript> \" ' & \u003c/pre>"#));
    assert!(
        !page.contains("{{") || TEMPLATE.matches("{{").count() == 10,
        "every part is there"
    );
}

#[test]
fn a_page_has_its_parts_and_needs_nothing_else() {
    let original = Plan::of(3, 20, &Faults::Only(vec![crate::plan::Family::Kill]));
    let mut small = original.clone();
    small.faults.retain(|f| !matches!(f.kind, Kind::Kill { .. }));
    small.workload.consumers.clear();
    let page = page_of(small, "5 was acknowledged and is lost", "", Some(&original));
    for part in [
        "<title>VIOLATION L1 seed 3</title>",
        "<span class=\"verdict invalid\">VIOLATION</span>",
        "<code>cargo sim run --plan x/failure.json --trace</code>",
        "<li><b>L1</b> 5 was acknowledged and is lost</li>",
        "The shrunk plan",
        "The plan before",
        "<tr class=\"client gone\"",
        "<th>left_out</th>",
        "<td>L1</td><td class=\"n\">5</td><td class=\"n\">2</td><td>damaged: 2</td>",
    ] {
        assert!(page.contains(part), "no {part}");
    }
    for outside in ["http:", "https:", " src=", "url(", "import ", "fetch("] {
        let at = page.find(outside);
        assert_eq!(
            at.map(|at| &page[at.saturating_sub(40)..at + 10]),
            None,
            "{outside}"
        );
    }
    assert!(page.ends_with("</body></html>\n"));
}
