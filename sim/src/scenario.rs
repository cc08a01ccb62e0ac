//! Executes a plan: a broker, its clients, the faults, and the judges.
//!
//! ```text
//!   0 ──────────────── 75 % ─────────── 100 % ──────────────→
//!   clients produce and consume          faults end, pending operations end, a last reader reads everything
//!   the plan injects faults              checks over the disk and over what clients saw
//! ```

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use brokkr::config::limits;
use brokkr_env::Env;
use brokkr_history::Operation;
use brokkr_workloads::{ConsumerSpec, Stop, TopicSpec, run_consumer};
use tokio::sync::oneshot;

use crate::account::{Account, Rule, RuleCount, why};
use crate::check::{check_batches, folder_in, read_partition, topic_id};
use crate::clients::{CONSUMER_LIFE, work};
use crate::digest::Digest;
use crate::director::Director;
use crate::disk::Disk;
use crate::env::{SimEnv, WALL_START_MS};
use crate::exec::{Ended, Nanos, Strategy, lock};
use crate::flushed::FlushedInTime;
use crate::judge::refusals::RefusalFacts;
use crate::judge::{self, Deleted, InspectorFacts, RunFacts};
use crate::keyed::mix;
use crate::plan::{BROKER, FIRST_CLIENT, Kind, LAST_READER, Plan};
use crate::prepared;
use crate::reached::{self, ReachedStates, Refusals};
use crate::report::{Report, Verdict, Violated};
use crate::retention::Retention;
use crate::room;
use crate::rude;
use crate::shared::{BEGIN, START_PATIENCE, Shared, WORLD};
use crate::state::Snapshot;
use crate::trace::{EventKind, Tracer};
use crate::violation::Violation;
use crate::world::{Clock, World};
use crate::{leaks, leftovers};

/// Time limit for pending operations to end.
const CALM_PATIENCE: Duration = Duration::from_secs(120);
/// Buffers of a connection that certainly get through within a client's timeout.
const BUFFERS_IN_TIME: u64 = 500;
/// A run with fewer operations is inconclusive.
const OPS_MIN: u64 = 20;

/// What a run writes besides its report.
#[derive(Default)]
pub struct Outputs {
    /// Receives every event.
    pub tracer: Option<Tracer>,
    /// The clients' history, as JSON lines, is written here at the end.
    pub history: Option<Box<dyn Write + Send>>,
}

/// The first error of each output.
pub struct Written {
    /// Of the tracer's sink.
    pub trace: io::Result<()>,
    /// Of the history.
    pub history: io::Result<()>,
}

/// Runs a plan.
pub fn run(plan: Plan) -> Report {
    play(plan, Outputs::default(), None).0
}

/// Runs a plan, and writes what `outputs` ask for.
pub fn run_recorded(plan: Plan, outputs: Outputs) -> (Report, Written) {
    play(plan, outputs, None)
}

/// Runs a plan with a trace, and takes the world's state at a time; none if the run ended before.
///
/// # Errors
/// The first error of the tracer's sink, besides the report.
pub fn run_observed(plan: Plan, tracer: Tracer, at: Nanos) -> (Report, io::Result<()>, Option<Snapshot>) {
    let taken = Arc::new(Mutex::new(None));
    let to = Arc::clone(&taken);
    let observe = move |world: &World, roots: &[String]| *lock(&to) = Some(Snapshot::of(world, roots));
    let outputs = Outputs {
        tracer: Some(tracer),
        history: None,
    };
    let (report, written) = play(plan, outputs, Some((at, Box::new(observe))));
    let snapshot = lock(&taken).take();
    (report, written.trace, snapshot)
}

/// Called at a time of the world, with the broker's log directories. It must only read the world.
type Observe = Box<dyn FnOnce(&World, &[String]) + Send>;

fn play(plan: Plan, outputs: Outputs, observe: Option<(Nanos, Observe)>) -> (Report, Written) {
    let Outputs { tracer, history } = outputs;
    let span = plan.secs.max(1) * 1_000_000_000;
    let slack = (START_PATIENCE * 2 + CALM_PATIENCE * 2).as_nanos() as u64;
    room::run(plan.seed, BEGIN + span + slack, move |world| {
        let names = reached::listen(world, tracer.is_some());
        let shared = Shared::new(world, plan, names.warnings());
        if let Some(tracer) = tracer {
            listen_to_clients(&shared, tracer);
        }
        world
            .exec()
            .choose_by(shared.plan.scheduler, shared.plan.scheduler_seed);
        let clock = Clock {
            drift_ppm: shared.plan.drift_ppm,
            wall_ahead_ms: shared.plan.wall_ahead_ms,
        };
        {
            let mut state = world.lock();
            state.net.buffer_bytes = shared.plan.buffer_bytes.max(1);
            state.disks.insert(BROKER, Disk::new(BROKER));
            state.clocks.insert(BROKER, clock);
            if shared.roots.len() > 1 {
                *state.faults.entry("two log directories").or_insert(0) += 1;
            }
            if clock != Clock::default() {
                *state.faults.entry("clock off").or_insert(0) += 1;
            }
            for (node, clock) in &shared.plan.clocks {
                let clock = Clock {
                    drift_ppm: clock.drift_ppm,
                    wall_ahead_ms: clock.wall_ahead_ms,
                };
                state.clocks.insert(*node, clock);
                *state.faults.entry("client's clock off").or_insert(0) += 1;
            }
            if shared.plan.scheduler != Strategy::Random {
                *state.faults.entry("tasks held back").or_insert(0) += 1;
            }
        }
        watch(&shared);
        rude::watch(&shared);
        if let Some((at, observe)) = observe {
            let roots = Arc::clone(&shared.roots);
            world.at_moment(at, move |world| observe(world, &roots));
        }
        let main = shared.clone();
        world.env(WORLD).spawn("world", async move { drive(main).await });
        Box::new(move |world, ended| {
            let (report, history) = report(world, &shared, &ended, &names, history);
            let trace = world.exec().tap().close();
            (report, Written { trace, history })
        })
    })
}

/// Opens the world's tap, with a probe of the clients' operations.
fn listen_to_clients(shared: &Shared, tracer: Tracer) {
    let (recorder, mut seen) = (shared.recorder.clone(), 0);
    let exec = shared.world.exec();
    let (tap, now) = (exec.tap(), exec.now());
    tap.open(tracer, now);
    tap.set_probe(move || {
        recorder.history().look(|all| {
            let recorded = all[seen..].iter().map(EventKind::of_operation).collect();
            seen = all.len();
            recorded
        })
    });
}

/// Checks at the end of each moment that whatever clients were just acknowledged or shown, and whatever the broker has just
/// recorded, is durable.
fn watch(shared: &Shared) {
    let (shared2, mut seen) = (shared.clone(), 0);
    let flushed = shared.is_flushed();
    let mut in_time = FlushedInTime::of(&shared.plan, shared.calm_at, shared.work_until);
    let mut retention = Retention::of(&shared.plan.workload, &shared.roots);
    shared.world.watch(move |state| {
        let disk = state.disks.get(&BROKER).expect("the broker has a disk");
        let mut ends = lock(&shared2.ends);
        let recorded = ends.check_recorded(disk, &shared2.roots, |folder| shared2.is_damaged(folder));
        recorded.into_iter().for_each(|v| shared2.violation(v));
        if !retention.is_empty() {
            let clock = state.clocks.get(&BROKER).copied().unwrap_or_default();
            let shown_ms = clock.shows(shared2.world.exec().now()) / 1_000_000;
            let wall_ms = WALL_START_MS + clock.wall_ahead_ms + shown_ms as i64;
            let history = shared2.recorder.history();
            let asked = |key: &str| history.look(Deleted::requested).below(key);
            let damaged = |folder: &str| shared2.is_damaged(folder);
            let found = retention.check(disk, wall_ms, asked, damaged);
            lock(&shared2.account).add(&std::mem::take(&mut retention.account));
            found.into_iter().for_each(|v| shared2.violation(v));
        }
        if let Some(in_time) = &mut in_time {
            let (now, damaged) = (shared2.world.exec().now(), |folder: &str| {
                shared2.is_damaged(folder)
            });
            let found = in_time.check(disk, &shared2.roots, now, damaged);
            lock(&shared2.account).add(&std::mem::take(&mut in_time.account));
            found.into_iter().for_each(|v| shared2.violation(v));
        }
        if !flushed {
            return;
        }
        let found = shared2.recorder.history().look(|all| {
            let received = &all[seen..];
            seen = all.len();
            // Computed only where a record is missing.
            let deleted = |key: &str| shared2.deleted_by(all, disk).below(key);
            ends.check(received, disk, &shared2.roots, deleted)
        });
        found.into_iter().for_each(|v| shared2.violation(v));
    });
}

/// The report, and whether the history could be written.
fn report(
    world: &World,
    shared: &Shared,
    ended: &Ended,
    names: &ReachedStates,
    history_to: Option<Box<dyn Write + Send>>,
) -> (Report, io::Result<()>) {
    let (plan, reached) = (&shared.plan, names.counts());
    let mut violations = lock(&shared.violations).clone();
    let judged_from = world.exec().tap().is_open().then(|| violations.clone());
    match ended {
        Ended::Panicked(life, task, message) => {
            let what = format!("task {task:?} of node {}: {message}", life.node);
            violations.push(Violation::new("panic", what));
        }
        Ended::Livelock => violations.push(Violation::new("livelock", "tasks run, but time does not pass")),
        Ended::Quiet | Ended::Stopped => {}
    }
    if let Some(times) = reached.get(reached::PROTOCOL_BROKEN) {
        let what = format!("clients were sent {times} times what nobody asked for, or not in its turn");
        violations.push(Violation::new("protocol", what));
    }
    let history = shared.recorder.history().take();
    violations.extend(rude::judge(shared, &history, &names.lines()));
    let mut facts = facts(world, shared, &history);
    if reached.contains_key(ANSWERED_FOR_MEMORY) {
        facts.followed_max = None;
    }
    facts.inspector.forgets |= reached.contains_key(FORGOT);
    let ops = judge::ops(&history);
    let (hash, events) = lock(&shared.rested).unwrap_or((world.exec().hash(), world.exec().polls()));
    let hash = mix(hash, Digest::of(&history));
    let written = history_to.map_or(Ok(()), |to| {
        judge::write_history(&plan.judged(), &history, &facts, to)
    });
    if *lock(&shared.finished) {
        let notes = shared.recorder.take_notes();
        let (found, account) = judge::judge(&plan.judged(), history, &notes, &facts);
        violations.extend(found);
        lock(&shared.account).add(&account);
        let mut account = Account::default();
        let refusals = RefusalFacts {
            plan,
            begin: BEGIN,
            calm_since: u64::try_from(facts.calm_since).unwrap_or(0),
            is_damaged: shared.is_any_damaged(),
        };
        violations.extend(judge::refusals::judge(&names.refusals(), &refusals, &mut account));
        lock(&shared.account).add(&account);
    } else if violations.is_empty() {
        let what = "the healed world did not come to rest in its time";
        violations.push(Violation::new("liveness", what));
    }
    violations.sort();
    violations.dedup();
    if let Some(judged) = judged_from {
        violations
            .iter()
            .filter(|v| !judged.contains(v))
            .for_each(|v| shared.record(v));
    }
    let verdict = match () {
        () if !violations.is_empty() => Verdict::Violation,
        () if ops.ok < OPS_MIN => Verdict::Inconclusive,
        () => Verdict::Pass,
    };
    let report = Report {
        seed: plan.seed,
        verdict,
        hash: format!("{hash:016x}"),
        events,
        virtual_s: (world.exec().now() - BEGIN) as f64 / 1e9,
        wall_s: 0.0,
        rss_max_bytes: 0,
        faults: world.faults(),
        reached,
        events_of: world.lock().triggers.counts(),
        refused: refused(&names.refusals()),
        ops,
        requests: lock(&shared.rude).requests(),
        rules: rules(shared),
        violations: violations
            .into_iter()
            .map(|v| Violated {
                id: v.id.to_owned(),
                what: v.what,
            })
            .collect(),
    };
    (report, written)
}

/// How often clients were answered with each error code.
fn refused(refusals: &Refusals) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for ((code, _), n) in refusals {
        *all.entry(code.clone()).or_insert(0) += n;
    }
    all
}

/// How often each rule was applied and left out.
fn rules(shared: &Shared) -> BTreeMap<String, RuleCount> {
    let mut account = lock(&shared.account).clone();
    account.add(&lock(&shared.ends).account);
    account.named()
}

/// What the judge knows of the broker and its disk.
fn facts(world: &World, shared: &Shared, history: &[Operation]) -> RunFacts {
    let plan = &shared.plan;
    let state = world.lock();
    let disk = state.disks.get(&BROKER).expect("the broker has a disk");
    let id = |topic: &TopicSpec| {
        let id = topic_id(
            disk,
            &folder_in(disk, &shared.roots, &format!("{}-0", topic.name)),
        )?;
        Some((topic.name.clone(), id))
    };
    // Topics that an operator made.
    let made = judge::made(history).into_iter().filter_map(|topic| {
        let id = topic_id(disk, &folder_in(disk, &shared.roots, &format!("{topic}-0")))?;
        Some((topic, id))
    });
    RunFacts {
        last: LAST_READER,
        calm_since: shared.calm_at.max(*lock(&shared.serves_since)) as i64,
        buffer_bytes: plan.buffer_bytes as u64,
        inspector: InspectorFacts {
            crashes: lock(&shared.crashes).iter().map(|at| *at as i64).collect(),
            forgets: plan.broker.contains_key("producer.id.expiration.ms"),
            others_change_defaults: !plan.rude.is_empty(),
            clocks_off_ms: clocks_off_ms(plan),
        },
        drift_ppm: plan.drift_ppm.unsigned_abs(),
        life: CONSUMER_LIFE,
        followed_max: followed_max(plan),
        forgets: plan.broker.contains_key("producer.id.expiration.ms"),
        deleted: shared.deleted_by(history, disk),
        topics: plan.workload.topics.iter().filter_map(id).chain(made).collect(),
    }
}

/// The largest difference between two wall clocks that the plan makes, in milliseconds.
fn clocks_off_ms(plan: &Plan) -> i64 {
    let drift = |ppm: i64| (plan.secs * 4) as i64 * ppm.abs() / 1_000;
    let ahead = plan
        .clocks
        .values()
        .map(|c| c.wall_ahead_ms.abs() + drift(c.drift_ppm));
    let steps = plan.faults.iter().map(|fault| match fault.kind {
        Kind::ClockStep { by_ms, .. } => by_ms.saturating_abs(),
        _ => 0,
    });
    let own = plan.wall_ahead_ms.abs() + drift(plan.drift_ppm);
    let all = ahead.chain(steps).fold(own, i64::saturating_add);
    all.saturating_add(CLOCKS_OFF_LEAST_MS)
}

/// A minute: what a request may take, with all of its attempts.
const CLOCKS_OFF_LEAST_MS: i64 = 60_000;

/// What the broker reports when it forgets producers.
const FORGOT: &str = "producers were forgotten to make room";

/// What the broker reports when it answers a waiting fetch to free memory for others: then a fetch need not wait.
const ANSWERED_FOR_MEMORY: &str = "a parked fetch was answered early, for others waited for memory";

/// Limits by which a fetch need not wait while there are other requests on its connection.
const GIVES_WAY: [&str; 4] = [
    "connection_queue",
    "connection_pending",
    "connection_behind_parked",
    "connection_decoded_bytes",
];

/// After how many requests on its connection a fetch need not wait; `None` if it never need: one of the limits is so small that any
/// request may be one too many.
fn followed_max(plan: &Plan) -> Option<u64> {
    let mut gives_way = limits().filter(|(_, limit)| GIVES_WAY.contains(&limit.name));
    let is_small = gives_way.any(|(key, _)| plan.broker.contains_key(&key));
    let behind = limits().find(|(_, limit)| limit.name == "connection_behind_parked");
    behind.filter(|_| !is_small).map(|(_, limit)| limit.default)
}

/// The world's own task: starts everything, injects the faults, heals, checks.
async fn drive(shared: Shared) {
    let env = shared.world.env(WORLD);
    prepared::prepare(&shared).await;
    let (done, worked) = oneshot::channel();
    let clients = shared.clone();
    env.spawn("clients", async move {
        work(&clients).await;
        let _ = done.send(());
    });
    rude::start(&shared);
    let mut director = Director::new(shared.clone());
    let deadline = shared.work_until + CALM_PATIENCE.as_nanos() as u64;
    let patience = env.sleep_until(brokkr_env::Instant::from_nanos(deadline));
    let read = async {
        // The director goes on meanwhile: a broker that was killed late is started again.
        worked.await.is_ok() && read_everything(&shared, &env).await
    };
    let ended = tokio::select! {
        biased;
        () = director.direct() => false,
        ended = read => ended,
        () = patience => {
            let what = "once all was calm, the broker or its clients did not come to an end";
            shared.violation(Violation::new("liveness", what));
            false
        }
    };
    if ended {
        shared.acquit();
        check_disk(&shared);
        *lock(&shared.finished) = true;
        let exec = shared.world.exec();
        let disks: Vec<u64> = shared.world.lock().disks.values().map(Disk::digest).collect();
        exec.note(("at rest", disks));
        *lock(&shared.rested) = Some((exec.hash(), exec.polls()));
        leftovers::check(&shared, director.serving()).await;
        leaks::check(&shared).await;
    }
    shared.world.exec().stop();
}

/// Runs a last reader from the start of every log to its end. Returns whether it finished.
async fn read_everything(shared: &Shared, env: &SimEnv) -> bool {
    let workload = &shared.plan.workload;
    let all = workload.topics.iter().flat_map(|t| t.all()).collect();
    // A response must come within the client's time, however small the buffers are.
    let in_time = (shared.plan.buffer_bytes as u64).saturating_mul(BUFFERS_IN_TIME);
    let at_most = |bytes: i32| i32::try_from(in_time).unwrap_or(bytes).min(bytes);
    let spec = ConsumerSpec {
        max_bytes: at_most(50 << 20),
        partition_max_bytes: at_most(1 << 20),
        ..ConsumerSpec::tailing(LAST_READER, all)
    };
    let reader = shared.world.env(FIRST_CLIENT - 2);
    let stop = Stop::new();
    stop.stop();
    tokio::select! {
        biased;
        () = run_consumer(&reader, &workload.client, &spec, &shared.recorder, &stop) => true,
        () = env.sleep_until(env.now() + CALM_PATIENCE) => {
            let what = "the last reader did not reach the end of every log";
            shared.violation(Violation::new("liveness", what));
            false
        }
    }
}

/// Checks the logs on the disk at the end.
fn check_disk(shared: &Shared) {
    let state = shared.world.lock();
    let disk = state.disks.get(&BROKER).expect("the broker has a disk");
    let forgets = shared.plan.broker.contains_key("producer.id.expiration.ms");
    let (mut found, mut account) = (Vec::new(), Account::default());
    for (topic, partition) in shared.plan.workload.topics.iter().flat_map(|t| t.all()) {
        let name = format!("{topic}-{partition}");
        let waiver = shared.is_damaged(&name).then_some(why::DAMAGED);
        if !account.judges(Rule::Batches, waiver) {
            continue;
        }
        let (batches, damage) = read_partition(disk, &shared.roots, &name);
        found.extend(damage);
        found.extend(check_batches(&name, &batches, forgets, &mut account));
    }
    drop(state);
    lock(&shared.account).add(&account);
    found.into_iter().for_each(|v| shared.violation(v));
}
