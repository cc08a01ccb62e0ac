//! Reports each seed of a campaign: as lines, a bar on a terminal, JUnit's XML, and annotations on GitHub.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use brokkr_sim::report::{Report, Verdict};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::arguments::{Format, Run};
use crate::failures::FailureFiles;

/// Where seeds are reported.
pub struct Reporter {
    bar: ProgressBar,
    format: Format,
    junit: Option<(BufWriter<File>, Vec<TestCase>)>,
    /// Whether to print annotations for GitHub Actions.
    annotates: bool,
    failed: u64,
}

struct TestCase {
    seed: u64,
    wall_s: f64,
    /// The violations, and the command that repeats the run.
    failure: Option<String>,
}

impl Reporter {
    /// `seeds` is the number of seeds, if known.
    ///
    /// # Errors
    /// The file for JUnit can't be written.
    pub fn new(run: &Run, seeds: Option<u64>) -> io::Result<Self> {
        let bar = ProgressBar::with_draw_target(seeds, ProgressDrawTarget::stderr());
        let template = match seeds {
            Some(_) => "{wide_bar} {pos}/{len} seeds, {msg}{per_sec}, {eta} left",
            None => "{spinner} {pos} seeds, {msg}{per_sec}, {elapsed}",
        };
        bar.set_style(ProgressStyle::with_template(template).expect("the template is sound"));
        let junit = match &run.junit {
            Some(path) => Some((BufWriter::new(create(path)?), Vec::new())),
            None => None,
        };
        Ok(Self {
            bar,
            format: run.format,
            junit,
            annotates: std::env::var_os("GITHUB_ACTIONS").is_some(),
            failed: 0,
        })
    }

    /// Reports a seed; `repeat` is the command that repeats it.
    pub fn take(&mut self, r: &Report, repeat: &str) {
        let failed = r.verdict != Verdict::Pass;
        self.bar.suspend(|| {
            match self.format {
                Format::Json => println!("{}", serde_json::to_string(r).expect("a report can be written")),
                Format::Text => print_one(r, repeat),
            }
            if failed && self.annotates {
                eprintln!("{}", annotation(r, repeat));
            }
        });
        if failed {
            self.failed += 1;
            self.bar.set_message(format!("{} failed, ", self.failed));
        }
        self.bar.inc(1);
        if let Some((_, cases)) = &mut self.junit {
            cases.push(TestCase {
                seed: r.seed,
                wall_s: r.wall_s,
                failure: failed.then(|| format!("{}\n{repeat}", what(r))),
            });
        }
    }

    /// Reports the files that a failing seed left, or why they could not be written.
    pub fn left(&mut self, left: Option<Result<FailureFiles, String>>) {
        let Some(left) = left else { return };
        self.bar.suspend(|| {
            let page = match left {
                Ok(FailureFiles { plan, page }) => {
                    eprintln!(
                        "its plan, for `run --plan`, `shrink` and `explain`: {}",
                        plan.display()
                    );
                    page
                }
                Err(why) => return eprintln!("the failure file could not be written: {why}"),
            };
            match page {
                Some(Ok(page)) => eprintln!("its page: {}", page.display()),
                Some(Err(why)) => eprintln!("its page could not be written: {why}"),
                None => {}
            }
        });
    }

    /// Ends the bar, and writes the JUnit file.
    ///
    /// # Errors
    /// The file for JUnit can't be written.
    pub fn end(self) -> io::Result<()> {
        self.bar.finish_and_clear();
        match self.junit {
            Some((mut file, cases)) => {
                junit(&mut file, &cases)?;
                file.flush()
            }
            None => Ok(()),
        }
    }
}

fn create(path: &Path) -> io::Result<File> {
    File::create(path).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))
}

fn what(r: &Report) -> String {
    let all = r.violations.iter().map(|v| format!("{}: {}", v.id, v.what));
    let all: Vec<String> = all.collect();
    match all.is_empty() {
        true => format!("{:?}", r.verdict).to_lowercase(),
        false => all.join("\n"),
    }
}

fn print_one(r: &Report, repeat: &str) {
    let faults: u64 = r.faults.values().sum();
    println!(
        "seed {:<6} {:<9} hash {} {:>8} events, {:>4.0} s in {:.2} s, {} faults, {} ops",
        r.seed,
        format!("{:?}", r.verdict).to_lowercase(),
        r.hash,
        r.events,
        r.virtual_s,
        r.wall_s,
        faults,
        r.ops.ok + r.ops.fail + r.ops.info
    );
    for v in &r.violations {
        println!("    {}: {}", v.id, v.what);
    }
    if r.verdict != Verdict::Pass {
        println!("    repeat: {repeat}");
    }
}

/// A workflow command of GitHub Actions; it takes one line, in which three characters are escaped.
fn annotation(r: &Report, repeat: &str) -> String {
    let text = format!("{}\n{repeat}", what(r));
    let text = text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    format!("::error title=seed {}::{text}", r.seed)
}

/// One suite, one case for each seed, by seed.
fn junit(to: &mut impl Write, cases: &[TestCase]) -> io::Result<()> {
    let mut cases: Vec<&TestCase> = cases.iter().collect();
    cases.sort_by_key(|c| c.seed);
    let failures = cases.iter().filter(|c| c.failure.is_some()).count();
    let time: f64 = cases.iter().map(|c| c.wall_s).sum();
    let n = cases.len();
    writeln!(to, r#"<?xml version="1.0" encoding="UTF-8"?>"#)?;
    writeln!(
        to,
        r#"<testsuite name="brokkr-sim" tests="{n}" failures="{failures}" time="{time:.3}">"#
    )?;
    for TestCase {
        seed,
        wall_s,
        failure,
    } in cases
    {
        write!(
            to,
            r#"<testcase classname="brokkr-sim" name="seed {seed}" time="{wall_s:.3}""#
        )?;
        match failure {
            None => writeln!(to, "/>")?,
            Some(what) => {
                let (first, all) = (xml(what.lines().next().unwrap_or_default()), xml(what));
                writeln!(to, r#"><failure message="{first}">{all}</failure></testcase>"#)?;
            }
        }
    }
    writeln!(to, "</testsuite>")
}

/// Escapes text for XML, attributes included. Characters that XML can't represent are left out.
fn xml(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' | '\t' => escaped.push(c),
            c if c.is_control() => {}
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suite_has_a_case_for_each_seed() {
        let case = |seed, failure: Option<&str>| TestCase {
            seed,
            wall_s: 0.25,
            failure: failure.map(str::to_owned),
        };
        let mut text = Vec::new();
        let cases = [case(7, Some("L1: \"a\" & <b>\u{1b}\nrepeat")), case(3, None)];
        junit(&mut text, &cases).expect("memory can be written");
        let expected = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuite name="brokkr-sim" tests="2" failures="1" time="0.500">
<testcase classname="brokkr-sim" name="seed 3" time="0.250"/>
<testcase classname="brokkr-sim" name="seed 7" time="0.250"><failure message="L1: &quot;a&quot; &amp; &lt;b&gt;">L1: &quot;a&quot; &amp; &lt;b&gt;
repeat</failure></testcase>
</testsuite>
"#;
        assert_eq!(String::from_utf8(text).expect("text"), expected);
    }
}
