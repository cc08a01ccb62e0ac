//! Changes a copy of a plan.

use crate::plan::Plan;

/// A copy of the plan, with a change.
pub(super) fn changed(plan: &Plan, change: impl FnOnce(&mut Plan)) -> Plan {
    let mut plan = plan.clone();
    change(&mut plan);
    plan
}
