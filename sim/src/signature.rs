//! Groups the failures of a campaign: seeds with the same signature probably fail for the same reason.
//!
//! A failing seed has one signature, that of the violation nearest to the cause: the invariant's id and the violation's text without
//! what differs from seed to seed (numbers, times, and names of topics, partitions and ids); of a panic its place in the sources.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::failure::{FailureMode, panic_place};
use crate::plan::Plan;
use crate::report::{Report, Verdict, Violated};

/// A longer text is cut.
const TEXT_CHARS_MAX: usize = 160;
/// Characters of a topic's id: 16 bytes in base64.
const ID_CHARS: usize = 22;
/// Hexadecimal numbers of at least so many digits are hashes.
const HASH_CHARS_MIN: usize = 12;

/// See the module.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub struct Signature {
    /// The invariant's id.
    pub id: String,
    /// The violation's text without what differs from seed to seed.
    pub text: String,
}

impl Signature {
    /// The signature of a run's violations. `topics` are the names of its topics. None if there is no violation.
    pub fn of(violations: &[Violated], topics: &[&str]) -> Option<Self> {
        let id = FailureMode::of(violations, None)?.id().to_owned();
        let what = &violations.iter().find(|v| v.id == id)?.what;
        let text = match panic_place(what) {
            Some(place) => format!("panicked at {place}"),
            None => normalized(what, topics),
        };
        Some(Self { id, text })
    }
}

/// The first line of a text without what differs from seed to seed.
fn normalized(what: &str, topics: &[&str]) -> String {
    let line = what.lines().next().unwrap_or_default();
    // The command that repeats the run is of this seed alone.
    let line = line.split("; repeat: ").next().unwrap_or_default();
    let is_part = |c: char| c.is_ascii_alphanumeric() || "-_.@/".contains(c);
    let mut text = String::new();
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        let end = match is_part(first) {
            true => rest.find(|c| !is_part(c)).unwrap_or(rest.len()),
            false => first.len_utf8(),
        };
        let (word, more) = rest.split_at(end);
        // Dots at its ends are of a sentence or of a range.
        let name = word.trim_matches('.');
        let (before, after) = word.split_once(name).unwrap_or_default();
        text.extend([before, &path(name, topics), after]);
        rest = more;
    }
    // Lists and ranges differ in length.
    for (long, short) in [("Some(#)", "#"), ("#, #", "#"), ("# #", "#"), ("(#)", "#")] {
        while text.contains(long) {
            text = text.replace(long, short);
        }
    }
    match text.char_indices().nth(TEXT_CHARS_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

fn path(word: &str, topics: &[&str]) -> String {
    let parts: Vec<String> = word.split('/').map(|part| name(part, topics)).collect();
    parts.join("/")
}

/// A name or number without what differs.
fn name(word: &str, topics: &[&str]) -> String {
    let stem = word.split('@').next().unwrap_or_default();
    let without_partition = stem.rsplit_once('-').filter(|(_, n)| is_number(n));
    match without_partition {
        _ if topics.contains(&stem) && stem == word => "TOPIC".to_owned(),
        Some((topic, _)) if topics.contains(&topic) => "PARTITION".to_owned(),
        _ if topics.contains(&stem) => "PARTITION".to_owned(),
        _ if is_id(word) => "ID".to_owned(),
        _ if is_hash(word) => "#".to_owned(),
        _ => without_numbers(word),
    }
}

fn is_number(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit())
}

fn is_id(word: &str) -> bool {
    let has = |is: fn(&u8) -> bool| word.bytes().any(|b| is(&b));
    word.len() == ID_CHARS
        && has(u8::is_ascii_uppercase)
        && has(u8::is_ascii_lowercase)
        && word
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

fn is_hash(word: &str) -> bool {
    word.len() >= HASH_CHARS_MIN && word.bytes().all(|b| b.is_ascii_hexdigit())
}

/// `#` in place of each number, with its sign and its fraction.
fn without_numbers(word: &str) -> String {
    let mut text = String::new();
    for c in word.chars() {
        match c {
            c if c.is_ascii_digit() => {
                if text.ends_with("#.") {
                    text.pop();
                } else if text == "-" {
                    text.clear();
                }
                if !text.ends_with('#') {
                    text.push('#');
                }
            }
            c => text.push(c),
        }
    }
    text
}

/// The seeds of one signature.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct SignatureRow {
    /// How many seeds have it.
    pub seeds: usize,
    /// The smallest of them.
    pub first: u64,
    /// The signature.
    #[serde(flatten)]
    pub signature: Signature,
}

/// The failing seeds of a campaign, by signature.
#[derive(Default)]
pub struct Signatures(BTreeMap<Signature, Vec<u64>>);

impl Signatures {
    /// Takes a run. `plan` is needed only if it failed: its topics are blanked.
    pub fn take(&mut self, report: &Report, plan: impl FnOnce() -> Option<Plan>) {
        if !matches!(report.verdict, Verdict::Violation | Verdict::Nondeterminism) {
            return;
        }
        let plan = plan();
        let topics = plan.iter().flat_map(|p| &p.workload.topics);
        let topics: Vec<&str> = topics.map(|t| t.name.as_str()).collect();
        if let Some(signature) = Signature::of(&report.violations, &topics) {
            self.0.entry(signature).or_default().push(report.seed);
        }
    }

    /// A row for each signature, the most frequent first.
    pub fn rows(&self) -> Vec<SignatureRow> {
        let row = |(signature, seeds): (&Signature, &Vec<u64>)| SignatureRow {
            seeds: seeds.len(),
            first: seeds.iter().copied().min().unwrap_or_default(),
            signature: signature.clone(),
        };
        let mut rows: Vec<SignatureRow> = self.0.iter().map(row).collect();
        rows.sort_by_key(|row| (std::cmp::Reverse(row.seeds), row.first));
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn violated(id: &str, what: &str) -> Violated {
        Violated {
            id: id.to_owned(),
            what: what.to_owned(),
        }
    }

    fn text(what: &str) -> String {
        normalized(what, &["t0", "t1", "retained"])
    }

    #[test]
    fn what_differs_from_seed_to_seed_is_blanked() {
        for (what, expected) in [
            (
                "4294967305 was acknowledged at t0-0 offset 12 at 4321 ms, when it was not durable",
                "# was acknowledged at PARTITION offset # at # ms, when it was not durable",
            ),
            (
                "5 was acknowledged at retained-11 offset 3 and stands at [(Key(\"t0-0\"), 7)]",
                "# was acknowledged at PARTITION offset # and stands at [(Key(\"PARTITION\"), #)]",
            ),
            (
                "data/t1-0/00000000000000000000.log: 512 durable bytes are gone",
                "data/PARTITION/#.log: # durable bytes are gone",
            ),
            ("[1, -2, 3] was the next", "[#] was the next"),
            ("topic t1 at 5.25 ms: 3..=9.", "topic TOPIC at # ms: #..=#."),
            (
                "t1@aB3-efGhijklmnopqrst_v-0: hash 00ff12aa34bb56cc",
                "PARTITION: hash #",
            ),
            ("id aB3-efGhijklmnopqrst_v", "id ID"),
            ("one\ntwo", "one"),
            (
                "the process died of signal 9; repeat: cargo sim run --seed 3",
                "the process died of signal #",
            ),
            ("position: Some(4), end: None", "position: #, end: None"),
        ] {
            assert_eq!(text(what), expected);
        }
        let long = text(&"a ".repeat(300));
        assert_eq!(long.chars().count(), TEXT_CHARS_MAX + 1);
    }

    #[test]
    fn a_seed_has_the_signature_of_the_violation_nearest_to_the_cause() {
        let both = [violated("liveness", "it hangs"), violated("L1", "5 is lost")];
        let signature = Signature::of(&both, &[]).expect("it failed");
        assert_eq!((&*signature.id, &*signature.text), ("L1", "# is lost"));
        let panic = |message| {
            let what = format!("task \"x\" of node 1: panicked at a/b.rs:7:5:\n{message}");
            Signature::of(&[violated("panic", &what)], &[]).expect("it failed")
        };
        assert_eq!(panic("boom 1"), panic("bang"));
        assert_eq!(panic("boom").text, "panicked at a/b.rs:7:5");
        assert_eq!(Signature::of(&[], &[]), None);
    }

    #[test]
    fn seeds_are_grouped_and_the_smallest_is_named() {
        let mut all = Signatures::default();
        let report = |seed, verdict, violations: Vec<Violated>| Report {
            violations,
            ..Report::empty(seed, verdict)
        };
        let lost = |n: u64| vec![violated("L1", &format!("{n} of t0-{n} is lost"))];
        for (seed, verdict, violations) in [
            (9, Verdict::Violation, lost(4)),
            (2, Verdict::Violation, vec![violated("L6", "a gap")]),
            (3, Verdict::Violation, lost(5)),
            (1, Verdict::Pass, Vec::new()),
            (0, Verdict::Inconclusive, Vec::new()),
        ] {
            let plan = || Some(Plan::of(1, 4, &crate::plan::Faults::None));
            all.take(&report(seed, verdict, violations), plan);
        }
        let rows: Vec<_> = all
            .rows()
            .into_iter()
            .map(|r| (r.seeds, r.first, r.signature.text))
            .collect();
        assert_eq!(
            rows,
            [
                (2, 3, "# of PARTITION is lost".to_owned()),
                (1, 2, "a gap".to_owned())
            ]
        );
    }
}
