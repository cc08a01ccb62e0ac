//! The parts of the page that need no script.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::data::Data;
use super::story::{StoryLine, story};
use crate::explain::Explanation;
use crate::failure::Failure;
use crate::plan::Plan;
use crate::report::{Report, Verdict};
use crate::shrink::Size;

/// Maximum number of violations that are listed.
const VIOLATIONS_MAX: usize = 100;

/// Text as HTML.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// JSON inside of a script element. A `<` occurs only in strings, and none is left that could begin `</script>` or `<!--`.
pub fn json(text: &str) -> String {
    text.replace('<', "\\u003c")
}

fn word(verdict: Verdict) -> (&'static str, &'static str) {
    match verdict {
        Verdict::Pass => ("valid", "passed"),
        Verdict::Violation => ("invalid", "VIOLATION"),
        Verdict::Inconclusive => ("unknown", "inconclusive"),
        Verdict::Nondeterminism => ("invalid", "NONDETERMINISM"),
    }
}

/// The page's title.
pub fn title(failure: &Failure) -> String {
    let id = failure.violations.first().map_or("", |v| v.id.as_str());
    let (_, word) = word(failure.verdict);
    escape(&format!("{word} {id} seed {}", failure.plan.seed))
}

/// Seed, verdict, the command that repeats the run, and the violations.
pub fn head(failure: &Failure, report: &Report, explanation: &Explanation) -> String {
    let plan = &failure.plan;
    let (class, word) = word(failure.verdict);
    let mut text = format!(
        "<h1>seed {} <span class=\"verdict {class}\">{word}</span></h1>\n<p>{}</p>\n",
        plan.seed,
        escape(&Size::of(plan).to_string())
    );
    let _ = writeln!(
        text,
        "<p class=\"repeat\">Repeat it: <code>{}</code> <button id=\"save\">save the plan</button><br><small>commit {}, hash {}, {} scheduler events, {:.1} virtual s</small></p>",
        escape(&failure.repeat),
        escape(&failure.commit),
        escape(&report.hash),
        report.events,
        report.virtual_s
    );
    let mut violations: Vec<_> = failure.violations.iter().collect();
    violations.sort_by_key(|v| Some(*v) != explanation.violation.as_ref());
    if let Some(subject) = &explanation.subject {
        let _ = writeln!(text, "<p>Explained: <b>{}</b></p>", escape(subject));
    }
    if violations.is_empty() {
        text.push_str("<p>No invariant is broken.</p>\n");
        return text;
    }
    text.push_str("<ul class=\"violations\">\n");
    for v in violations.iter().take(VIOLATIONS_MAX) {
        let _ = writeln!(text, "<li><b>{}</b> {}</li>", escape(&v.id), escape(&v.what));
    }
    text.push_str("</ul>\n");
    if violations.len() > VIOLATIONS_MAX {
        let more = violations.len() - VIOLATIONS_MAX;
        let _ = writeln!(text, "<p>… and {more} more; the plan's file has all.</p>");
    }
    text
}

/// The explanation as text.
pub fn explanation(explanation: &Explanation) -> String {
    match explanation.violation.is_none() && explanation.picked.is_empty() {
        true => String::new(),
        false => format!(
            "<details><summary>The same as text</summary><pre>{}</pre></details>",
            escape(&explanation.text)
        ),
    }
}

/// Which events the page does not have.
pub fn left_out(data: &Data) -> String {
    match data.left_out {
        0 => String::new(),
        n => format!(
            "<p>The {n} earliest events are left out. <code>--trace FILE</code> writes all of them.</p>"
        ),
    }
}

/// The plan as a story; if it was shrunk, beside the plan that it comes from.
pub fn stories(plan: &Plan, original: Option<&Plan>) -> String {
    let small = story(plan);
    let Some(original) = original else {
        return format!(
            "<div class=\"stories\">{}</div>",
            column("The plan", plan, &small, None)
        );
    };
    let all = story(original);
    format!(
        "<div class=\"stories\">{}{}</div>",
        column("The shrunk plan", plan, &small, None),
        column("The plan before", original, &all, Some(&small))
    )
}

/// A story. Lines that `small` does not have are marked.
fn column(title: &str, plan: &Plan, lines: &[StoryLine], small: Option<&[StoryLine]>) -> String {
    let mut text = format!(
        "<section><h3>{title} <small>{}</small></h3><table>",
        escape(&Size::of(plan).to_string())
    );
    for line in lines {
        let kept = small.map(|small| small.iter().find(|l| l.key == line.key));
        let change = match kept {
            Some(None) => " gone",
            Some(Some(kept)) if kept.text != line.text => " changed",
            _ => "",
        };
        let (s, ms) = (line.at_ms / 1000, line.at_ms % 1000);
        let _ = write!(
            text,
            "<tr class=\"{}{change}\" data-key=\"{}\"><td class=\"n\">{s}.{ms:03}</td><td>{}</td></tr>",
            line.part.name(),
            escape(&line.key),
            escape(&line.text)
        );
    }
    text.push_str("</table></section>");
    text
}

/// What the run reached, and which rules were applied and left out.
pub fn counts(report: &Report) -> String {
    let mut text = String::new();
    let ops = report.ops;
    let _ = writeln!(
        text,
        "<p>Operations of clients: {} ok, {} failed, {} of unknown outcome.</p>",
        ops.ok, ops.fail, ops.info
    );
    if !report.rules.is_empty() {
        text.push_str("<table><tr><th>rule</th><th>applied</th><th>left_out</th><th>why</th></tr>\n");
        for (rule, count) in &report.rules {
            let why: Vec<String> = count
                .left_out
                .iter()
                .map(|(why, n)| format!("{why}: {n}"))
                .collect();
            let _ = writeln!(
                text,
                "<tr><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td>{}</td></tr>",
                escape(rule),
                count.applied,
                count.left_out.values().sum::<u64>(),
                escape(&why.join(", "))
            );
        }
        text.push_str("</table>\n");
    }
    numbers(&mut text, "faults", &report.faults);
    numbers(&mut text, "rare states reached", &report.reached);
    text
}

fn numbers(text: &mut String, title: &str, all: &BTreeMap<String, u64>) {
    if all.is_empty() {
        return;
    }
    let _ = write!(text, "<details><summary>{title}: {}</summary><table>", all.len());
    for (name, n) in all {
        let _ = write!(text, "<tr><td>{}</td><td class=\"n\">{n}</td></tr>", escape(name));
    }
    text.push_str("</table></details>\n");
}
