//! The file of a failing run: its plan, its verdict, and the command that repeats it, in one JSON document.

use serde::{Deserialize, Serialize};

use crate::plan::{COMMIT, Plan, PlanError};
use crate::report::{Report, Verdict, Violated};

/// A run that failed.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// The command that repeats it.
    pub repeat: String,
    /// The commit that the simulator was built from, if known. Only the same binary is guaranteed to give the same hash.
    pub commit: String,
    /// The verdict.
    pub verdict: Verdict,
    /// The rolling hash over all events; empty if the process died.
    pub hash: String,
    /// The violations.
    pub violations: Vec<Violated>,
    /// The plan that was run.
    pub plan: Plan,
}

impl Failure {
    /// The failure of a run of `plan` with this `report`; `path` is where it will be written.
    pub fn new(plan: Plan, report: &Report, path: &str) -> Self {
        Self {
            repeat: format!("cargo sim run --plan {path} --trace"),
            commit: COMMIT.to_owned(),
            verdict: report.verdict,
            hash: report.hash.clone(),
            violations: report.violations.clone(),
            plan,
        }
    }

    /// The contents of its file.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("a failure can be written");
        text.push('\n');
        text
    }
}

/// A document that a run can be repeated from.
#[derive(Clone, PartialEq, Debug)]
pub enum Document {
    /// A plan alone.
    Plan(Box<Plan>),
    /// A plan that is known to fail.
    Failure(Box<Failure>),
}

impl Document {
    /// Parses a plan, or the file of a failing run.
    ///
    /// # Errors
    /// It is neither, or this simulator can't run its plan.
    pub fn parse(text: &str) -> Result<Self, PlanError> {
        let value: serde_json::Value = serde_json::from_str(text).map_err(PlanError::Json)?;
        if value.get("plan").is_none() {
            return Plan::parse(text).map(|plan| Self::Plan(Box::new(plan)));
        }
        // BEFORE the rest is parsed: a document of another format may have other fields.
        Plan::check_format(&value["plan"])?;
        let failure: Failure = serde_json::from_str(text).map_err(PlanError::Json)?;
        failure.plan.check()?;
        Ok(Self::Failure(Box::new(failure)))
    }

    /// The plan in it.
    pub fn into_plan(self) -> Plan {
        match self {
            Self::Plan(plan) => *plan,
            Self::Failure(failure) => failure.plan,
        }
    }
}

/// The source location in a panic's message: panics at two locations are two failures.
pub(crate) fn panic_place(what: &str) -> Option<&str> {
    let at = what.find("panicked at ")? + "panicked at ".len();
    what[at..]
        .split(['\n', ' '])
        .next()
        .map(|p| p.trim_end_matches(':'))
}

/// How a run failed. Another run fails in the same way if it breaks the same invariant, or panics at the same location.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FailureMode {
    id: String,
    place: Option<String>,
}

impl FailureMode {
    /// The failure by `id`, or by the violation nearest to the cause. None if there is none.
    pub fn of(violations: &[Violated], id: Option<&str>) -> Option<Self> {
        let first = match id {
            Some(id) => violations.iter().find(|v| v.id == id),
            None => violations.iter().min_by_key(|v| rank(&v.id)),
        };
        first.map(|v| Self {
            id: v.id.clone(),
            place: panic_place(&v.what).map(str::to_owned),
        })
    }

    /// The violation's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether this run failed in the same way.
    pub fn is_of(&self, report: &Report) -> bool {
        report
            .violations
            .iter()
            .any(|v| v.id == self.id && panic_place(&v.what) == self.place.as_deref())
    }
}

/// How far a violation is from the cause: lost data first, then acknowledgements, then order, then liveness.
fn rank(id: &str) -> usize {
    let first = ["panic", "D", "L", "I"];
    match id {
        "liveness" | "livelock" => first.len() + 1,
        _ => first
            .iter()
            .position(|begin| id.starts_with(begin))
            .unwrap_or(first.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Faults;

    fn violated(id: &str, what: &str) -> Violated {
        Violated {
            id: id.to_owned(),
            what: what.to_owned(),
        }
    }

    fn report(violations: &[Violated]) -> Report {
        let text = r#"{"seed": 3, "verdict": "violation", "hash": "ab", "events": 1, "virtual_s": 1.0, "wall_s": 1.0,
            "faults": {}, "reached": {}, "ops": {"ok": 1, "fail": 0, "info": 0}, "violations": []}"#;
        let mut report: Report = serde_json::from_str(text).expect("a report");
        report.violations = violations.to_vec();
        report
    }

    #[test]
    fn failures_and_plans_parse_back() {
        let plan = Plan::of(3, 20, &Faults::Default);
        let report = report(&[violated("L1", "lost")]);
        let failure = Failure::new(plan.clone(), &report, "x/failure.json");
        assert!(failure.repeat.contains("--plan x/failure.json"));
        let read = Document::parse(&failure.to_json()).expect("its own JSON");
        assert_eq!(read, Document::Failure(Box::new(failure.clone())));
        assert_eq!(read.into_plan(), plan);
        let alone = serde_json::to_string(&plan).expect("a plan can be written");
        assert_eq!(
            Document::parse(&alone).expect("a plan"),
            Document::Plan(Box::new(plan))
        );
        let other = failure.to_json().replacen("\"format\": 1", "\"format\": 9", 1);
        assert!(matches!(Document::parse(&other), Err(PlanError::Format(9))));
        let odd = failure.to_json().replacen("\"log.dir\"", "\"log.dirr\"", 1);
        assert!(matches!(Document::parse(&odd), Err(PlanError::Broker(_))));
    }

    #[test]
    fn the_same_way_is_the_same_invariant_or_the_same_panic() {
        let stuck = violated("liveness", "it hangs");
        let lost = violated("L1", "5 is lost");
        let way = FailureMode::of(&[stuck.clone(), lost.clone()], None).expect("it failed");
        assert_eq!(way.id(), "L1");
        assert!(way.is_of(&report(&[violated("L1", "7 is lost")])));
        assert!(!way.is_of(&report(std::slice::from_ref(&stuck))));
        assert_eq!(
            FailureMode::of(&[stuck.clone(), lost], Some("liveness"))
                .expect("it failed")
                .id(),
            "liveness"
        );
        assert_eq!(FailureMode::of(&[stuck], Some("L1")), None);
        let at = |line| {
            violated(
                "panic",
                &format!("task \"x\" of node 1: panicked at a/b.rs:{line}:5:\nboom"),
            )
        };
        let way = FailureMode::of(&[at(7)], None).expect("it failed");
        assert!(way.is_of(&report(&[at(7)])) && !way.is_of(&report(&[at(8)])));
    }
}
