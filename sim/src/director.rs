//! Injects a plan's faults and restarts the broker after each: acts as the machine, its operator and its supervisor.
//!
//! ```text
//!            start            serves
//!   Down ───────────▶ Starting ─────▶ Up ──stop──▶ Stopping ──▶ Down
//!    ▲                   │             │               │
//!    └── kill, power ────┴─────────────┴───────────────┘
//! ```
//! A start may fail while the disk fails; the director then retries it. At the calm time every fault heals, and the broker must
//! serve.

mod action;
mod damaged_file;
mod directories;
mod files;
mod links;
mod process;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use brokkr::config::BrokerConfig;
use brokkr_env::{Env, Instant};
use tokio::sync::Notify;

use crate::account::{Account, Rule, why};
use crate::check::AtCrash;
use crate::check::folder_in;
use crate::clients;
use crate::disk::{Damage, FailingOperation, SECTOR};
use crate::env::SimEnv;
use crate::exec::{Nanos, lock};
use crate::keyed::{Keyed, mix};
use crate::net::ConnectBlock;
use crate::node::{self, Running, Started};
use crate::plan::{BROKER, EVENT_WAIT_MAX_S, Kind};
use crate::shared::{START_PATIENCE, Shared, WORLD};
use crate::trace::EventKind;
use crate::violation::Violation;
use action::{Action, MILLI, PROBED_AFTER_MS, START_RETRY_DELAY};
use damaged_file::DamagedFile;
use process::{AfterStop, Process};

/// Longest time that a fault waits for its trigger, and longest delay between the trigger and the fault.
const WAIT_MAX: Nanos = 1_000 * MILLI;
const STRIKES_AFTER_MAX: Nanos = MILLI / 2;
/// Longest time that a fault waits for its event.
const EVENT_WAIT_MAX: Nanos = EVENT_WAIT_MAX_S * 1_000 * MILLI;

enum Wakeup {
    Due,
    /// The event of a waiting fault happens.
    Struck,
    /// The broker wrote to a log.
    Written,
    Started(Option<Started>),
    Stopped(Option<bool>),
}

/// See the module.
pub(crate) struct Director {
    shared: Shared,
    env: SimEnv,
    /// The broker's settings: a restart may change them.
    settings: BTreeMap<String, String>,
    begin: Nanos,
    queue: BTreeMap<(Nanos, u64), Action>,
    /// Faults that wait for their trigger.
    waiting: BTreeSet<usize>,
    log_written: Arc<Notify>,
    struck: Arc<Notify>,
    acts: u64,
    process: Process,
    /// What the disk held at the last crashes, until recovery has been checked against it.
    before: Option<AtCrash>,
    /// Whether the disk failed since the last start. If it did, a clean stop or a start may fail.
    disk_failed: bool,
    /// The same for starts and stops that begin before: the disk was full until then.
    full_until: Nanos,
    /// The fault by which a log directory fails at present.
    directory_failed: Option<usize>,
    /// When a fault of the disk last struck, but for failing directories.
    disk_fault_at: Nanos,
    /// When the broker was started while a log directory without the metadata failed, and nothing else did.
    started_without: Option<Nanos>,
    /// Faults that damage a file as soon as the broker is down.
    files_to_damage: Vec<usize>,
    /// Earlier contents of files, by path.
    kept_contents: BTreeMap<String, Vec<u8>>,
    /// The file that was damaged before the last start.
    damaged_file: Option<DamagedFile>,
}

impl Director {
    pub(crate) fn new(shared: Shared) -> Self {
        let mut director = Self {
            env: shared.world.env(WORLD),
            settings: shared.plan.broker.clone(),
            begin: 0,
            queue: BTreeMap::new(),
            waiting: BTreeSet::new(),
            log_written: Arc::default(),
            struck: Arc::default(),
            acts: 0,
            process: Process::Down,
            before: None,
            disk_failed: false,
            full_until: 0,
            directory_failed: None,
            disk_fault_at: 0,
            started_without: None,
            files_to_damage: Vec::new(),
            kept_contents: BTreeMap::new(),
            damaged_file: None,
            shared,
        };
        let begin = director.now();
        director.begin = begin;
        director.log_written = director.on_disk(|d| Arc::clone(&d.log_written));
        {
            let triggers = &mut director.shared.world.lock().triggers;
            triggers.begin(BROKER);
            director.struck = Arc::clone(&triggers.notify);
        }
        director.at(begin, Action::Start);
        for i in 0..director.shared.plan.faults.len() {
            let at = begin + director.shared.plan.faults[i].at_ms * MILLI;
            if let Kind::DamageFile { .. } = director.shared.plan.faults[i].kind {
                director.at(begin + (at - begin) / 2, Action::KeepContents(i));
            }
            director.at(at, Action::Fault(i));
        }
        let calm_at = director.shared.calm_at;
        director.at(calm_at, Action::Calm);
        director
    }

    fn now(&self) -> Nanos {
        self.shared.world.exec().now()
    }

    fn trace(&self, what: impl FnOnce() -> EventKind) {
        self.shared.world.exec().tap().record(what);
    }

    fn at(&mut self, at: Nanos, act: Action) {
        self.acts += 1;
        self.queue.insert((at, self.acts), act);
    }

    fn after_ms(&mut self, ms: u64, act: Action) {
        let at = self.now() + ms * MILLI;
        self.at(at, act);
    }

    /// Returns only after a failure that makes the rest of the run meaningless.
    pub(crate) async fn direct(&mut self) {
        loop {
            let next = self.queue.first_key_value().map_or(Nanos::MAX, |(k, _)| k.0);
            let go_on = match self.next_wakeup(Instant::from_nanos(next)).await {
                Wakeup::Due => match self.queue.pop_first() {
                    Some((_, act)) => {
                        self.perform(act).await;
                        true
                    }
                    None => true,
                },
                Wakeup::Written => {
                    self.schedule_strikes();
                    true
                }
                Wakeup::Struck => {
                    self.strike().await;
                    true
                }
                Wakeup::Started(started) => self.started(started),
                Wakeup::Stopped(clean) => self.stopped(clean),
            };
            if !go_on {
                return;
            }
        }
    }

    /// Waits until an action is due, or the process changes state.
    async fn next_wakeup(&mut self, next: Instant) -> Wakeup {
        let (env, awaits_trigger, struck) = (&self.env, !self.waiting.is_empty(), Arc::clone(&self.struck));
        let due = async {
            tokio::select! {
                biased;
                () = struck.notified() => Wakeup::Struck,
                () = self.log_written.notified(), if awaits_trigger => Wakeup::Written,
                () = env.sleep_until(next) => Wakeup::Due,
            }
        };
        match &mut self.process {
            Process::Starting(_, outcome, deadline) => tokio::select! {
                biased;
                outcome = outcome => Wakeup::Started(outcome.ok()),
                wakeup = due => wakeup,
                () = env.sleep_until(*deadline) => Wakeup::Started(None),
            },
            Process::Stopping(outcome, deadline, _) => tokio::select! {
                biased;
                outcome = outcome => Wakeup::Stopped(outcome.ok()),
                wakeup = due => wakeup,
                () = env.sleep_until(*deadline) => Wakeup::Stopped(None),
            },
            Process::Down | Process::Up(_) => due.await,
        }
    }

    /// The broker, if it serves.
    pub(crate) fn serving(&self) -> Option<&Running> {
        match &self.process {
            Process::Up(running) => Some(running),
            _ => None,
        }
    }

    fn started(&mut self, started: Option<Started>) -> bool {
        let Process::Starting(running, _, deadline) = std::mem::replace(&mut self.process, Process::Down)
        else {
            unreachable!("it was starting");
        };
        let waiver = self.disk_waiver(deadline);
        self.trace(|| EventKind::Started {
            of: BROKER,
            how: match &started {
                Some(Started::Ready) => "serves, its logs are open".to_owned(),
                Some(Started::Failed(reason)) => format!("the start failed: {reason}"),
                None => "ended before it served".to_owned(),
            },
        });
        match started {
            Some(Started::Ready) => {
                self.judges(Rule::Start, None);
                *lock(&self.shared.serves_since) = self.now();
                self.process = Process::Up(running);
                if self.handle_left_out_directory() {
                    return true;
                }
                self.forget_damaged_file();
                self.check_recovery();
                if let Some(i) = self.directory_failed {
                    self.probe(i);
                }
                true
            }
            Some(Started::Failed(reason)) if self.handle_refused_start(&reason) => true,
            Some(Started::Failed(reason)) if waiver.is_some() => {
                self.judges(Rule::Start, waiver);
                tracing::info!(reason, "the start failed, as the disk did");
                self.check_refusal(&reason);
                self.shared.world.count("start failed");
                self.shared.world.end_quietly(BROKER);
                self.disk_failed = self.disk_fails();
                self.at(self.now() + START_RETRY_DELAY, Action::Start);
                true
            }
            other => {
                let what = format!("the broker did not start: {other:?}");
                self.shared.violation(Violation::new("liveness", what));
                false
            }
        }
    }

    fn stopped(&mut self, clean: Option<bool>) -> bool {
        let Process::Stopping(_, deadline, after) = std::mem::replace(&mut self.process, Process::Down)
        else {
            unreachable!("it was stopping");
        };
        let waiver = match clean {
            Some(true) => None,
            _ => {
                let damage = self.shared.is_any_damaged().then_some(why::DAMAGED);
                self.disk_waiver(deadline).or(damage)
            }
        };
        if self.judges(Rule::Stop, waiver) && clean != Some(true) {
            let what = format!("a clean stop came to {clean:?}");
            self.shared.violation(Violation::new("liveness", what));
        }
        self.shared.world.end_quietly(BROKER);
        if let Some(id) = after.power.filter(|_| clean == Some(true) && !self.disk_failed) {
            self.count("power loss after a clean stop");
            let all = self.on_disk(|d| AtCrash::stopped(d, &self.shared.roots));
            self.before = Some(all.only(|folder| self.shared.is_judged(folder)));
            self.lose_power(id);
        }
        self.after_ms(after.down_ms, Action::Start);
        true
    }

    async fn perform(&mut self, act: Action) {
        match act {
            Action::Fault(i) if let Some(trigger) = &self.shared.plan.faults[i].when => {
                self.shared.world.lock().triggers.arm(i, trigger);
                self.at(self.now() + EVENT_WAIT_MAX, Action::Overdue(i));
            }
            Action::Overdue(i) => {
                if self.shared.world.lock().triggers.disarm(i) {
                    self.inject(i).await;
                }
            }
            Action::Fault(i) => {
                let late = self.now() + WAIT_MAX;
                if self.awaits_trigger(i) {
                    self.at(late, Action::Timeout(i));
                    self.waiting.insert(i);
                } else {
                    self.inject(i).await;
                }
            }
            Action::Strike(i) if self.awaits_trigger(i) => drop(self.waiting.insert(i)),
            Action::Strike(i) => self.inject(i).await,
            Action::Timeout(i) => {
                if self.waiting.remove(&i) {
                    self.inject(i).await;
                }
            }
            Action::KeepContents(i) => self.keep_contents(i),
            Action::Start if matches!(self.process, Process::Down) => {
                self.damage_files();
                self.trace(|| EventKind::Start { of: BROKER });
                let (config, _) = BrokerConfig::new(self.settings.clone()).unwrap_or_else(|e| {
                    panic!("the plan's configuration of the broker: {e}");
                });
                let (running, outcome) = node::start(&self.shared.world, BROKER, config);
                let patience = self.env.now() + START_PATIENCE;
                self.process = Process::Starting(running, outcome, patience);
                self.started_without = self.only_second_fails().then(|| self.now());
            }
            Action::Start => {}
            Action::StartClient(client) => {
                self.trace(|| EventKind::Start { of: client });
                clients::start(&self.shared, client);
            }
            Action::Resume => {
                self.trace(|| EventKind::Resume { of: BROKER });
                self.shared.world.exec().resume(BROKER);
            }
            Action::FreeSpace => self.free_space(),
            Action::Clog { client, until } => self.clog(client, until),
            Action::Operator { id, power } => {
                self.on_disk(|d| (d.failing_syncs, d.failing_writes, d.failing) = (0, 0, None));
                self.crash(id, power, 5);
            }
            Action::DirectoryIsBack(id) => {
                self.on_disk(|d| d.failed_dir = None);
                self.directory_failed = None;
                self.crash(id, false, 5);
            }
            Action::Probe(i) => self.probe(i),
            Action::Calm => self.heal(),
        }
    }

    /// The faults strike whose event happens.
    async fn strike(&mut self) {
        let struck = self.shared.world.lock().triggers.take_struck();
        for i in struck {
            self.count("at an event");
            self.inject(i).await;
        }
        self.shared.world.release();
    }

    /// Whether a fault still waits for its trigger: at first an unsynced write that is long enough to be torn, later any unsynced
    /// write.
    fn awaits_trigger(&self, i: usize) -> bool {
        let fault = &self.shared.plan.faults[i];
        let waited = self.now().saturating_sub(fault.at_ms * MILLI + self.begin);
        let least = if waited < WAIT_MAX / 2 { SECTOR + 1 } else { 1 };
        matches!(fault.kind, Kind::PowerLoss { unsynced: true, .. })
            && waited < WAIT_MAX
            && self.on_disk(|d| d.log_unsynced_bytes()) < least
    }

    /// Schedules the waiting faults whose trigger holds: a little later, while the write is in flight.
    fn schedule_strikes(&mut self) {
        for i in std::mem::take(&mut self.waiting) {
            if self.awaits_trigger(i) {
                self.waiting.insert(i);
                continue;
            }
            let choice = mix(
                mix(self.shared.plan.seed, self.shared.plan.faults[i].id),
                self.now(),
            );
            self.at(self.now() + choice % STRIKES_AFTER_MAX, Action::Strike(i));
        }
    }

    /// Ends all faults.
    fn heal(&mut self) {
        self.trace(|| EventKind::Calm);
        self.shared.world.lock().triggers.end();
        self.shared.world.keep_paused();
        self.shared.world.exec().resume(BROKER);
        self.free_space();
        self.on_disk(|d| {
            (d.failing_syncs, d.failing_writes, d.failing) = (0, 0, None);
            (d.slow, d.hangs_until, d.failed_dir) = ((0, 1), 0, None);
        });
        {
            let net = &mut self.shared.world.lock().net;
            net.links.clear();
            net.connect_blocks.clear();
        }
        self.waiting.clear();
        self.directory_failed = None;
        self.queue
            .retain(|_, act| matches!(act, Action::Start | Action::StartClient(_)));
        if self.disk_failed {
            self.crash(0, false, 5);
        }
    }

    fn on_disk<T>(&self, f: impl FnOnce(&mut crate::disk::Disk) -> T) -> T {
        let mut state = self.shared.world.lock();
        f(state.disks.get_mut(&BROKER).expect("the broker has a disk"))
    }

    /// Whether some operation on the disk is about to fail.
    fn disk_fails(&self) -> bool {
        self.on_disk(|d| {
            let is_bad = d.failing.as_ref().is_some_and(|f| !f.may_be_repeated());
            is_bad || d.failing_syncs + d.failing_writes > 0 || d.failed_dir.is_some()
        })
    }

    /// The disk has room again.
    fn free_space(&mut self) {
        let was_full = self.on_disk(|d| {
            let could_fail = d.failing.take_if(|f| f.may_be_repeated()).is_some();
            std::mem::replace(&mut d.capacity, u64::MAX) < u64::MAX || could_fail
        });
        if was_full || self.full_until < Nanos::MAX && self.full_until > self.now() {
            self.full_until = self.now();
        }
    }

    /// The reason why a start or a stop with this deadline may fail.
    fn disk_waiver(&self, deadline: Instant) -> Option<&'static str> {
        let began = deadline.as_nanos() - START_PATIENCE.as_nanos() as Nanos;
        match () {
            () if self.disk_failed => Some(why::DISK_FAILED),
            () => (began < self.full_until).then_some(why::DISK_FULL),
        }
    }

    fn judges(&self, rule: Rule, waiver: Option<&'static str>) -> bool {
        lock(&self.shared.account).judges(rule, waiver)
    }

    fn count(&self, family: &'static str) {
        self.shared.world.count(family);
    }

    async fn inject(&mut self, i: usize) {
        let fault = &self.shared.plan.faults[i].clone();
        self.trace(|| EventKind::Fault {
            fault: serde_json::to_value(fault).expect("a fault can be written"),
        });
        if matches!(
            fault.kind,
            Kind::SyncFails { .. }
                | Kind::WriteFails { .. }
                | Kind::OperationFails { .. }
                | Kind::NoSpace { .. }
        ) {
            self.disk_fault_at = self.now();
        }
        let until = |ms: u64| self.now() + ms * MILLI;
        match fault.kind {
            Kind::Kill { down_ms } => self.crash(fault.id, false, down_ms),
            Kind::PowerLoss { down_ms, .. } => self.crash(fault.id, true, down_ms),
            Kind::KillClient { client, down_ms } => self.kill_clients(&[client], down_ms),
            Kind::Blackout { down_ms } => {
                self.count("all nodes at once");
                self.crash(fault.id, true, down_ms);
                self.kill_clients(&self.shared.clients.all(), down_ms);
            }
            Kind::CleanStop { down_ms, power } => self.stop(AfterStop {
                down_ms,
                power: power.then_some(fault.id),
            }),
            Kind::Pause { for_ms } => {
                if !matches!(self.process, Process::Down) {
                    self.count("pause");
                    self.trace(|| EventKind::Pause { of: BROKER });
                    self.shared.world.exec().pause(BROKER);
                    self.shared.world.keep_paused();
                    self.after_ms(for_ms, Action::Resume);
                }
            }
            Kind::SyncFails { restart_ms, power } => {
                self.disk_failed = true;
                self.on_disk(|d| d.failing_syncs = 1);
                self.after_ms(restart_ms, Action::Operator { id: fault.id, power });
            }
            Kind::WriteFails { restart_ms, power } => {
                self.disk_failed = true;
                self.on_disk(|d| d.failing_writes = 1);
                self.after_ms(restart_ms, Action::Operator { id: fault.id, power });
            }
            Kind::OperationFails {
                act,
                ref of,
                no_space,
                restart_ms,
                power,
            } => {
                let of = of.clone();
                let failing = FailingOperation { act, of, no_space };
                if failing.may_be_repeated() {
                    self.full_until = self.full_until.max(self.now() + restart_ms * MILLI);
                    self.after_ms(restart_ms, Action::FreeSpace);
                } else {
                    self.disk_failed = true;
                    self.after_ms(restart_ms, Action::Operator { id: fault.id, power });
                }
                self.on_disk(|d| d.failing = Some(failing));
            }
            Kind::NoSpace { free_bytes, for_ms } => {
                self.count("disk full");
                self.full_until = Nanos::MAX;
                self.on_disk(|d| d.capacity = d.used() + free_bytes);
                self.after_ms(for_ms, Action::FreeSpace);
            }
            Kind::SlowDisk { times, for_ms } => {
                self.count("disk slow");
                let until = until(for_ms);
                self.on_disk(|d| d.slow = (until, times.max(1)));
            }
            Kind::HangingDisk { for_ms } => {
                self.count("disk hangs");
                let until = until(for_ms);
                self.on_disk(|d| d.hangs_until = until);
            }
            Kind::DirectoryFails { directory, for_ms } => {
                let roots = Arc::clone(&self.shared.roots);
                let Some(root) = roots.get(directory).filter(|_| roots.len() > 1) else {
                    return;
                };
                self.count("log directory failed");
                let was_well = !std::mem::replace(&mut self.disk_failed, true);
                self.on_disk(|d| d.failed_dir = Some(root.clone()));
                self.directory_failed = Some(i);
                if was_well && for_ms > PROBED_AFTER_MS {
                    self.after_ms(PROBED_AFTER_MS, Action::Probe(i));
                }
                self.after_ms(for_ms, Action::DirectoryIsBack(fault.id));
            }
            Kind::Cut { .. } | Kind::Delay { .. } | Kind::Narrow { .. } => self.degrade_links(&fault.kind),
            Kind::Swizzle { for_ms } => self.swizzle(fault.id, for_ms * MILLI),
            Kind::Shut { silent, for_ms } => {
                self.count(if silent {
                    "connects unanswered"
                } else {
                    "connects refused"
                });
                let until = until(for_ms);
                self.shared
                    .world
                    .lock()
                    .net
                    .connect_blocks
                    .insert(BROKER, ConnectBlock { until, silent });
            }
            Kind::Reset { client, half_open } => {
                let n = self.shared.world.reset_between(client, BROKER, half_open);
                if n > 0 {
                    self.count(if half_open { "half-open" } else { "reset" });
                }
            }
            Kind::ClockStep { by_ms, client } => {
                self.count("clock step");
                let mut state = self.shared.world.lock();
                let clock = state.clocks.entry(client.unwrap_or(BROKER)).or_default();
                clock.wall_ahead_ms = clock.wall_ahead_ms.saturating_add(by_ms);
            }
            Kind::Damage {
                ref topic,
                partition,
                how,
            } => self.damage(fault.id, format!("{topic}-{partition}"), how),
            Kind::DamageFile { kill, down_ms, .. } => {
                self.files_to_damage.push(i);
                if kill {
                    self.crash(fault.id, false, down_ms);
                } else {
                    self.stop(AfterStop { down_ms, power: None });
                }
            }
            Kind::Restart {
                kill,
                down_ms,
                ref broker,
            } => {
                self.count("another configuration");
                self.settings.extend(broker.clone());
                if kill {
                    self.crash(fault.id, false, down_ms);
                } else {
                    self.stop(AfterStop { down_ms, power: None });
                }
            }
        }
    }

    /// Kills those of the clients that are running, and schedules a restart of each.
    fn kill_clients(&mut self, clients: &[u32], down_ms: u64) {
        for client in clients {
            if self.shared.clients.kill(*client) {
                self.shared.world.kill(*client, "client killed");
                self.after_ms(down_ms, Action::StartClient(*client));
            }
        }
    }

    /// Damages a file of a partition, if part of it is durable.
    fn damage(&self, id: u64, partition: String, how: Damage) {
        let mut choices = Keyed::new(mix(self.shared.plan.seed, id));
        let damaged = self.on_disk(|d| {
            let folder = folder_in(d, &self.shared.roots, &partition);
            let names = d.list(&folder).unwrap_or_default().into_iter().map(|e| e.name);
            let mut files: Vec<String> = names.filter(|n| how.applies_to(n)).collect();
            while !files.is_empty() {
                let which = choices.below("damaged file", 0, files.len() as u64);
                let path = format!("{folder}/{}", files.swap_remove(which as usize));
                if d.file(&path)
                    .is_some_and(|inode| d.damage(inode, how, &mut choices))
                {
                    return true;
                }
            }
            false
        });
        if damaged && how != Damage::IndexRot {
            self.shared.damage(partition);
        }
    }

    fn stop(&mut self, after: AfterStop) {
        let running = match std::mem::replace(&mut self.process, Process::Down) {
            Process::Up(running) => running,
            other => return self.process = other,
        };
        self.count("clean stop");
        self.trace(|| EventKind::Stop { of: BROKER });
        let patience = self.env.now() + START_PATIENCE;
        self.process = Process::Stopping(running.stop(), patience, after);
    }

    /// The power of the broker's node fails.
    fn lose_power(&self, id: u64) {
        // Keyed by the fault: removing another power loss does not change these choices.
        let mut choices = Keyed::new(mix(self.shared.plan.seed, id));
        self.shared.world.power_loss(BROKER, &mut choices);
    }

    /// Kills the process or cuts the power, in whatever state the process is, and schedules a restart.
    fn crash(&mut self, id: u64, power: bool, down_ms: u64) {
        let was_up = !matches!(self.process, Process::Down);
        if !was_up && !power {
            return;
        }
        if was_up {
            lock(&self.shared.crashes).push(self.now());
        }
        let seen = self.on_disk(|d| AtCrash::of(d, &self.shared.roots, power));
        let seen = seen.only(|folder| self.shared.is_judged(folder));
        // What the first crash left durable stays durable: recovery may only have cut the rest.
        self.before = Some(match self.before.take() {
            Some(before) => seen.with_sure_of(before),
            None => seen,
        });
        if power {
            self.lose_power(id);
        } else {
            self.shared.world.kill(BROKER, "kill");
        }
        self.shared
            .ends
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .forget();
        self.process = Process::Down;
        self.disk_failed = self.disk_fails();
        // An operation that is still to fail may meet the next life.
        let may_fail = self.on_disk(|d| d.failing.as_ref().is_some_and(FailingOperation::may_be_repeated));
        if self.full_until < Nanos::MAX && !may_fail {
            self.full_until = 0;
        }
        self.after_ms(down_ms, Action::Start);
    }

    /// D1: compares each log after recovery with its contents at the crash.
    fn check_recovery(&mut self) {
        let Some(before) = self.before.take() else { return };
        let failing = self.disk_failed || self.full_until > 0;
        let mut account = Account::default();
        let found = self.on_disk(|d| {
            let deleted = self.shared.deleted(d);
            before.check(d, &self.shared.roots, &deleted, failing, &mut account)
        });
        lock(&self.shared.account).add(&account);
        found.into_iter().for_each(|v| self.shared.violation(v));
    }
}
