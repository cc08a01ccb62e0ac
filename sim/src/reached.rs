//! Collects the broker's `reached!` states and its log: counts the states, and records the log in a trace.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::subscriber::{DefaultGuard, Interest};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::{Layer, Registry};

use crate::exec::lock;
use crate::trace::EventKind;
use crate::trigger::Act;
use crate::world::World;

/// The rare states that the broker and its clients report. A campaign of [`SEEDS_ENOUGH`] seeds with the default faults fails if
/// one of them never occurred, except those of [`HARDLY_EVER`]; or if one of the [`FAULTS`] never occurred.
pub const NAMES: &[&str] = &[
    "a batch waited for its turn to be checked",
    "a consumer found its topic created again",
    "a consumer stood still",
    "a duplicate before its original was durable",
    "a duplicate in the producer's window",
    "a duplicate of what was committed was answered at once",
    "a failed write poisoned its directory",
    "a failed write was taken back",
    "a fetch was refused what can't be read",
    "a folder of no partition was set aside",
    "a fresh log began",
    "a fresh log was found",
    "a gap in a producer's sequence was refused",
    "a log ended before its start",
    "a log opened without a scan",
    "a log stopped writing for good",
    "a log that could not be deleted was deleted later",
    "a log was closed as it was opened",
    "a log was read while its topic was deleted",
    "a log went offline when it was opened",
    "a log's start overtook a search by time",
    "a lost partition.metadata was written again",
    "a parked fetch ended with its connection",
    "a parked fetch waited in vain",
    "a parked fetch was answered early, for others waited for memory",
    "a parked fetch was woken",
    "a producer's state expired",
    "a request waited for a log to be opened",
    "a response could not be encoded",
    "a segment rolled by its index",
    "a segment rolled by size or time",
    "a slow transfer was evicted, for others waited for memory",
    "a sync began before it was due",
    "a sync failed and poisoned its directory",
    "a sync waited for a descriptor",
    "a topic was deleted and created again",
    "an append failed for want of space",
    "an empty control batch",
    "an index that pointed elsewhere was not followed",
    "an index was rebuilt",
    "an index without its segment was removed",
    "an unfinished snapshot of the metadata was removed",
    "producers loaded from a snapshot",
    "producers were forgotten to make room",
    "recovery cut a torn tail",
    "recovery removed what retention had given up",
    "recovery set a segment above the end aside",
    "retention took segments",
    "what a deleted topic left was deleted",
];

/// States that need not occur in a campaign.
pub const HARDLY_EVER: &[&str] = &[
    "a batch waited for its turn to be checked",
    "a fetch was refused what can't be read",
    "a folder of no partition was set aside",
    "a log ended before its start",
    "a log that could not be deleted was deleted later",
    "a log was read while its topic was deleted",
    "a log went offline when it was opened",
    "a log's start overtook a search by time",
    "a lost partition.metadata was written again",
    "a parked fetch ended with its connection",
    "a parked fetch was answered early, for others waited for memory",
    "a response could not be encoded",
    "a slow transfer was evicted, for others waited for memory",
    "a sync began before it was due",
    "a sync waited for a descriptor",
    "an empty control batch",
    "an index that pointed elsewhere was not followed",
    "an index was rebuilt",
    "an index without its segment was removed",
    "an unfinished snapshot of the metadata was removed",
    "producers were forgotten to make room",
    "recovery removed what retention had given up",
    "recovery set a segment above the end aside",
];

/// A state of the client that a correct broker never causes.
pub const PROTOCOL_BROKEN: &str = "a peer broke the protocol";

/// Fault families and their effects that must occur in such a campaign, as reports count them.
pub const FAULTS: &[&str] = &[
    "all nodes at once",
    "another configuration",
    "at an event",
    "bandwidth",
    "bit rot",
    "clean stop",
    "client killed",
    "client's clock off",
    "clock off",
    "clock step",
    "connects refused",
    "connects unanswered",
    "delay",
    "disk full",
    "disk hangs",
    "disk slow",
    "half-open",
    "half a request",
    "index rot",
    "kill",
    "log directory failed",
    "malformed request",
    "name undone",
    "no space",
    "one-way partition",
    "operation failed",
    "operation without space",
    "pages gone",
    "partition",
    "pause",
    "power loss",
    "reads nothing",
    "request of another size",
    "reset",
    "rude request",
    "sector unreadable",
    "swizzle clog",
    "sync failed",
    "tasks held back",
    "truncate undone",
    "two log directories",
    "write failed",
    "write lost",
    "write lost for good",
    "write misdirected",
    "write torn",
    "write zeroed",
];

/// This many seeds reach every state.
pub const SEEDS_ENOUGH: u64 = 200;

/// Log lines by kind: the maximum number in one second of the world.
pub type WarningRates = BTreeMap<String, u64>;

/// The states reached so far. Dropping it ends the collection.
pub struct ReachedStates {
    counts: Arc<Mutex<BTreeMap<String, u64>>>,
    refusals: Arc<Mutex<Refusals>>,
    warnings: Arc<Mutex<Warnings>>,
    _guard: DefaultGuard,
}

impl ReachedStates {
    /// How many times each was reached.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.counts
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }

    /// The error codes that clients were answered with.
    pub fn refusals(&self) -> Refusals {
        lock(&self.refusals).clone()
    }

    /// The warnings, for checks during the run.
    pub fn warnings(&self) -> Arc<Mutex<Warnings>> {
        Arc::clone(&self.warnings)
    }

    /// The warnings so far.
    pub fn lines(&self) -> WarningRates {
        let all = lock(&self.warnings);
        all.kinds.iter().map(|(kind, n)| (kind.clone(), n.most)).collect()
    }
}

/// The targets of rare states, and of error codes that a client was answered with.
const REACHED: &str = "reached";
const REFUSED: &str = "refused";

impl LogLayer {
    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        [REACHED, REFUSED].contains(&metadata.target())
            || is_warning(metadata)
            || self.trace && *metadata.level() <= tracing::Level::DEBUG
    }
}

fn is_warning(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= tracing::Level::WARN
}

/// Counts warnings and errors by their place in the code and their field `kind`, if they have one.
#[derive(Default)]
pub struct Warnings {
    kinds: BTreeMap<String, SecondCount>,
    /// The first warnings, as text.
    texts: Vec<String>,
}

#[derive(Default)]
struct SecondCount {
    second: u64,
    n: u64,
    most: u64,
}

/// How many warnings are kept as text.
const WARNING_TEXTS_MAX: usize = 5_000;

impl Warnings {
    /// Whether one of them contains this text.
    pub fn names(&self, text: &str) -> bool {
        self.texts.iter().any(|line| line.contains(text))
    }

    /// The first warnings, in order.
    pub fn texts(&self) -> &[String] {
        &self.texts
    }

    fn add(&mut self, kind: String, second: u64) {
        let one = self.kinds.entry(kind).or_default();
        one.n = if one.second == second { one.n + 1 } else { 1 };
        one.second = second;
        one.most = one.most.max(one.n);
    }
}

/// The kind of a warning: its place in the code, and its field `kind`.
struct WarningKind(String);

impl Visit for WarningKind {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "kind" {
            let _ = write!(self.0, " {value:?}");
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.0, " {value:?}");
        }
    }
}

struct LogLayer {
    world: World,
    counts: Arc<Mutex<BTreeMap<String, u64>>>,
    refusals: Arc<Mutex<Refusals>>,
    warnings: Arc<Mutex<Warnings>>,
    trace: bool,
}

/// Collects on this thread. With `trace`, log lines are also recorded in the world's trace.
pub fn listen(world: &World, trace: bool) -> ReachedStates {
    let counts: Arc<Mutex<BTreeMap<String, u64>>> = Arc::default();
    let warnings: Arc<Mutex<Warnings>> = Arc::default();
    let refusals: Arc<Mutex<Refusals>> = Arc::default();
    let listener = LogLayer {
        world: world.clone(),
        counts: Arc::clone(&counts),
        refusals: Arc::clone(&refusals),
        warnings: Arc::clone(&warnings),
        trace,
    };
    let guard = tracing::subscriber::set_default(Registry::default().with(listener));
    ReachedStates {
        counts,
        refusals,
        warnings,
        _guard: guard,
    }
}

/// Counts reached states; faults may wait for them.
struct ReachedCounter<'a>(&'a LogLayer);

impl Visit for ReachedCounter<'_> {
    fn record_str(&mut self, _: &Field, name: &str) {
        let mut counts = lock(&self.0.counts);
        match counts.get_mut(name) {
            Some(count) => *count += 1,
            None => drop(counts.insert(name.to_owned(), 1)),
        }
        drop(counts);
        self.0.world.event(None, Act::Reached, name);
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

/// How often clients were answered with each error code, by the tenth of a second of the world.
pub type Refusals = BTreeMap<(String, u64), u64>;

/// A tenth of a second.
pub const REFUSALS_SPAN: u64 = 100_000_000;

/// Counts error codes.
struct RefusalCounter<'a>(&'a LogLayer);

impl Visit for RefusalCounter<'_> {
    fn record_str(&mut self, _: &Field, name: &str) {
        let span = self.0.world.exec().now() / REFUSALS_SPAN;
        let mut refusals = lock(&self.0.refusals);
        *refusals.entry((name.to_owned(), span)).or_insert(0) += 1;
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

/// The text of a log event, for a trace.
#[derive(Default)]
struct EventText {
    name: String,
    all: String,
}

impl Visit for EventText {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "name" {
            value.clone_into(&mut self.name);
        }
        self.record_debug(field, &value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = write!(self.all, " {}={value:?}", field.name());
    }
}

impl<S: Subscriber> Layer<S> for LogLayer {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        // Disabled call sites cost one load.
        if self.wants(metadata) {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.wants(metadata)
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let reached = event.metadata().target() == REACHED;
        if event.metadata().target() == REFUSED {
            event.record(&mut RefusalCounter(self));
        } else if reached {
            event.record(&mut ReachedCounter(self));
        } else if is_warning(event.metadata()) {
            let mut kind = WarningKind(event.metadata().file().unwrap_or_default().to_owned());
            event.record(&mut kind);
            let mut text = EventText::default();
            event.record(&mut text);
            let mut warnings = lock(&self.warnings);
            warnings.add(kind.0, self.world.exec().now() / 1_000_000_000);
            if warnings.texts.len() < WARNING_TEXTS_MAX {
                warnings.texts.push(text.all);
            }
        }
        if !self.trace {
            return;
        }
        let mut text = EventText::default();
        event.record(&mut text);
        self.world.exec().tap().record(|| {
            if reached {
                return EventKind::Reached { name: text.name };
            }
            EventKind::Log {
                level: event.metadata().level().as_str().into(),
                target: event.metadata().target().to_owned(),
                text: text.all,
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "a test outside of the room reads the sources"
    )]
    fn the_list_matches_the_code_of_the_broker() {
        let mut texts = Vec::new();
        let parts = ["env", "log", "server", "replication", "metadata"];
        let parts = parts.map(|part| format!("broker/{part}"));
        for part in parts.into_iter().chain(["workloads".to_owned()]) {
            let mut folders = vec![format!("{}/../{part}/src", env!("CARGO_MANIFEST_DIR"))];
            while let Some(folder) = folders.pop() {
                for entry in std::fs::read_dir(&folder).expect("the sources") {
                    let path = entry.expect("an entry").path();
                    if path.is_dir() {
                        folders.push(path.display().to_string());
                    } else {
                        let text = std::fs::read_to_string(&path).expect("a source");
                        let names = text.split("reached!(\"").skip(1);
                        texts.extend(names.filter_map(|t| Some(t.split_once('"')?.0.to_owned())));
                    }
                }
            }
        }
        texts.sort();
        texts.dedup();
        assert_eq!(texts, NAMES);
        assert!(HARDLY_EVER.iter().all(|n| NAMES.contains(n)));
    }
}
