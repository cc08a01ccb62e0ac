//! State that the run's tasks share.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use brokkr_history::Operation;
use brokkr_workloads::Recorder;

use crate::account::Account;
use crate::check::folder_in;
use crate::clients::Clients;
use crate::disk::Disk;
use crate::durable::DurableEnds;
use crate::exec::{Nanos, lock};
use crate::judge::Deleted;
use crate::plan::Plan;
use crate::reached::Warnings;
use crate::retention;
use crate::rude::RudeTally;
use crate::trace::EventKind;
use crate::violation::Violation;
use crate::world::World;

/// The node of the director and the checks: it never dies.
pub(crate) const WORLD: u32 = 0;
/// The start time of a world.
pub(crate) const BEGIN: Nanos = 1_000_000_000;
/// Time limit for the start of a healed broker.
pub(crate) const START_PATIENCE: Duration = Duration::from_secs(60);

/// State that the run's tasks share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) world: World,
    pub(crate) plan: Arc<Plan>,
    /// The broker's log directories.
    pub(crate) roots: Arc<[String]>,
    pub(crate) recorder: Recorder,
    pub(crate) clients: Arc<Clients>,
    pub(crate) violations: Arc<Mutex<Vec<Violation>>>,
    /// Which rules were applied, and which were left out.
    pub(crate) account: Arc<Mutex<Account>>,
    /// The known durable ends of logs, which a crash resets.
    pub(crate) ends: Arc<Mutex<DurableEnds>>,
    /// Partitions that the disk damaged: only the records that they show are judged.
    damaged: Arc<Mutex<BTreeSet<String>>>,
    /// Partitions with a file that was damaged while the broker was down: judged in full at the end, unless the broker's log names
    /// them.
    suspect: Arc<Mutex<BTreeSet<String>>>,
    /// The broker's warnings.
    warnings: Arc<Mutex<Warnings>>,
    /// When all faults end.
    pub(crate) calm_at: Nanos,
    /// When the broker last began to serve.
    pub(crate) serves_since: Arc<Mutex<Nanos>>,
    /// When the broker was killed or lost its power.
    pub(crate) crashes: Arc<Mutex<Vec<Nanos>>>,
    /// When producers start no new sends.
    pub(crate) work_until: Nanos,
    pub(crate) finished: Arc<Mutex<bool>>,
    /// The hash when the world came to rest, and the number of events until then.
    pub(crate) rested: Arc<Mutex<Option<(u64, u64)>>>,
    /// The responses that rude clients received.
    pub(crate) rude: Arc<Mutex<RudeTally>>,
}

impl Shared {
    /// The state at the start of a run.
    pub(crate) fn new(world: &World, plan: Plan, warnings: Arc<Mutex<Warnings>>) -> Self {
        let span = plan.secs.max(1) * 1_000_000_000;
        Self {
            world: world.clone(),
            recorder: Recorder::of(&plan.workload).dated_by({
                let exec = world.exec().clone();
                move || brokkr_env::Instant::from_nanos(exec.now())
            }),
            clients: Arc::default(),
            violations: Arc::default(),
            account: Arc::default(),
            ends: Arc::default(),
            damaged: Arc::default(),
            suspect: Arc::default(),
            warnings,
            serves_since: Arc::default(),
            crashes: Arc::default(),
            calm_at: BEGIN + span * 3 / 4,
            work_until: BEGIN + span,
            finished: Arc::default(),
            rested: Arc::default(),
            rude: Arc::default(),
            roots: plan.roots().into(),
            plan: Arc::new(plan),
        }
    }

    pub(crate) fn violation(&self, v: Violation) {
        self.record(&v);
        lock(&self.violations).push(v);
    }

    /// Records a violation in the trace.
    pub(crate) fn record(&self, v: &Violation) {
        self.world.exec().tap().record(|| EventKind::Violation {
            invariant: v.id.to_owned(),
            what: v.what.clone(),
        });
    }

    /// From now on only the records that this partition shows are judged, whichever topic it belongs to.
    pub(crate) fn damage(&self, partition: String) {
        lock(&self.damaged).insert(partition);
    }

    /// The damage is undone: the partition is judged in full again.
    pub(crate) fn mend(&self, partition: &str) {
        lock(&self.damaged).remove(partition);
    }

    /// As [`Shared::damage`] until the end of the run; then only if the broker's log names the partition (D2).
    pub(crate) fn suspect(&self, partition: String) {
        lock(&self.suspect).insert(partition);
    }

    /// Whether one of the broker's warnings contains this text.
    pub(crate) fn is_named(&self, text: &str) -> bool {
        lock(&self.warnings).names(text)
    }

    /// Ends the exemption of suspect partitions that the log does not name: their losses were silent, so they are violations.
    pub(crate) fn acquit(&self) {
        for partition in std::mem::take(&mut *lock(&self.suspect)) {
            if self.is_named(&partition) {
                self.damage(partition);
            }
        }
    }

    pub(crate) fn is_damaged(&self, partition: &str) -> bool {
        lock(&self.damaged).contains(partition) || lock(&self.suspect).contains(partition)
    }

    pub(crate) fn is_any_damaged(&self) -> bool {
        !lock(&self.damaged).is_empty() || !lock(&self.suspect).is_empty()
    }

    /// Whether the judges know what happens to the log of this folder: rude clients' changes of their topics are not in the
    /// history.
    pub(crate) fn is_judged(&self, folder: &str) -> bool {
        let topic = folder.rsplit_once('-').map_or(folder, |(topic, _)| topic);
        let mut topics = self.plan.workload.topics.iter();
        self.plan.rude.is_empty() || topic == "__cluster_metadata" || topics.any(|t| t.name == topic)
    }

    /// Records of the broker's logs that may be gone by now: those that clients asked to delete, and those that retention removed.
    /// (Retention is judged at its removals.)
    pub(crate) fn deleted(&self, disk: &Disk) -> Deleted {
        let history = self.recorder.history();
        history.look(|all| self.deleted_by(all, disk))
    }

    /// As [`Shared::deleted`], with a given history.
    pub(crate) fn deleted_by(&self, history: &[Operation], disk: &Disk) -> Deleted {
        let mut deleted = Deleted::requested(history);
        let retained = self
            .plan
            .workload
            .topics
            .iter()
            .filter(|t| retention::is_retained(t));
        for (topic, partition) in retained.flat_map(|t| t.all()) {
            let name = format!("{topic}-{partition}");
            if let Some(starts) = retention::starts(disk, &folder_in(disk, &self.roots, &name)) {
                deleted.raise(&name, starts.log_start);
            }
        }
        for log in &self.plan.prepared {
            deleted.raise(&format!("{}-{}", log.topic, log.partition), log.next_offset);
        }
        for exempt in [&self.damaged, &self.suspect] {
            lock(exempt).iter().for_each(|folder| deleted.damage(folder));
        }
        deleted
    }

    /// Whether acknowledged records are durable, by the broker's configuration.
    pub(crate) fn is_flushed(&self) -> bool {
        self.plan.is_flushed()
    }
}
