//! The seeded world: its nodes' disks, the network between them, one clock, and the choices of one seed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use brokkr_env::Rng;
use bytes::Bytes;

use crate::disk::{Disk, InodeId};
use crate::exec::{Ended, Exec, Life, Nanos};
use crate::keyed::{Keyed, text};
use crate::net::{EndId, Net};
use crate::trace::{EventKind, Images, conn_of};
use crate::trigger::{Act, Triggers};

const MICRO: Nanos = 1_000;
const MILLI: Nanos = 1_000_000;

/// A world. Cloning shares it.
#[derive(Clone)]
pub struct World(Arc<WorldInner>);

struct WorldInner {
    exec: Exec,
    state: Mutex<State>,
}

/// The state of a world, besides its tasks.
pub struct State {
    /// The seed's choices.
    pub choices: Keyed,
    /// The disks, by node.
    pub disks: BTreeMap<u32, Disk>,
    /// The network.
    pub net: Net,
    /// Writes in flight to a disk.
    writes: BTreeMap<u64, (Life, InodeId, u64, Bytes)>,
    next_write: u64,
    /// The life that holds the lock of a directory, by node and path.
    pub locks: BTreeMap<(u32, String), Life>,
    rngs: BTreeMap<(Life, &'static str), Rng>,
    /// Faults so far, by family.
    pub faults: BTreeMap<&'static str, u64>,
    /// The nodes' clocks that differ from the world's.
    pub clocks: BTreeMap<u32, Clock>,
    /// Events of the broker at which faults strike.
    pub triggers: Triggers,
    /// The node whose tasks are held while a fault strikes.
    held: Option<u32>,
    watch: Option<Watch>,
    /// What is called at the end of a moment, and the moment.
    at_moment: Option<(Nanos, AtMoment)>,
}

/// Called at the end of each moment of the world.
type Watch = Box<dyn FnMut(&mut State) + Send>;

/// Called once, between two moments of the world.
type AtMoment = Box<dyn FnOnce(&World) + Send>;

/// How a node's clocks differ from the world's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Clock {
    /// Its monotonic clock runs faster by this many millionths.
    pub drift_ppm: i64,
    /// Its wall clock is ahead by this many milliseconds.
    pub wall_ahead_ms: i64,
}

impl Clock {
    /// The reading of the node's monotonic clock at a time of the world.
    pub fn shows(self, at: Nanos) -> Nanos {
        if self.drift_ppm == 0 {
            return at;
        }
        // Dividing a word is much faster.
        let product = i64::try_from(at)
            .ok()
            .and_then(|at| at.checked_mul(self.drift_ppm));
        let by = match product {
            Some(product) => i128::from(product / 1_000_000),
            None => i128::from(at) * i128::from(self.drift_ppm) / 1_000_000,
        };
        (i128::from(at) + by).clamp(0, i128::from(Nanos::MAX)) as Nanos
    }

    /// The first time of the world at which the node's monotonic clock shows `shown`.
    pub fn moment(self, shown: Nanos) -> Nanos {
        if self.drift_ppm == 0 {
            return shown;
        }
        let scaled = match (
            shown.checked_mul(1_000_000),
            u64::try_from(1_000_000 + self.drift_ppm),
        ) {
            (Some(shown), Ok(rate)) if rate > 0 => shown / rate,
            _ => {
                let scaled = i128::from(shown) * 1_000_000 / i128::from(1_000_000 + self.drift_ppm);
                scaled.clamp(0, i128::from(Nanos::MAX)) as Nanos
            }
        };
        let mut at = scaled;
        while at > 0 && self.shows(at - 1) >= shown {
            at -= 1;
        }
        while at < Nanos::MAX && self.shows(at) < shown {
            at += 1;
        }
        at
    }
}

impl World {
    /// An empty world with this seed.
    pub fn new(seed: u64) -> Self {
        let state = State {
            choices: Keyed::new(seed),
            disks: BTreeMap::new(),
            net: Net::default(),
            writes: BTreeMap::new(),
            next_write: 0,
            locks: BTreeMap::new(),
            rngs: BTreeMap::new(),
            faults: BTreeMap::new(),
            clocks: BTreeMap::new(),
            triggers: Triggers::default(),
            held: None,
            watch: None,
            at_moment: None,
        };
        Self(Arc::new(WorldInner {
            exec: Exec::new(seed),
            state: Mutex::new(state),
        }))
    }

    /// Its executor.
    pub fn exec(&self) -> &Exec {
        &self.0.exec
    }

    /// Its state. Don't hold the guard while calling code that may wake or drop a future.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.0
            .state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Calls `watch` at the end of each moment, before time moves on.
    pub fn watch(&self, watch: impl FnMut(&mut State) + Send + 'static) {
        self.lock().watch = Some(Box::new(watch));
    }

    /// How the world ends if the task that runs now has panicked; none if no task runs, or if the panicking code holds the world's
    /// locks.
    pub(crate) fn panicked(&self, message: &str) -> Option<Ended> {
        drop(self.0.state.try_lock().ok()?);
        self.exec().panicked(message)
    }

    /// Calls `f` once the world has done all that it does up to `at`. It must only read the world.
    pub(crate) fn at_moment(&self, at: Nanos, f: impl FnOnce(&Self) + Send + 'static) {
        self.lock().at_moment = Some((at, Box::new(f)));
    }

    /// All that happens now has happened; `next` is the next time at which something does.
    pub(crate) fn moment_ends(&self, next: Nanos) {
        let mut state = self.lock();
        if let Some(mut watch) = state.watch.take() {
            watch(&mut state);
            state.watch = Some(watch);
        }
        let due = state.at_moment.take_if(|(at, _)| *at < next);
        drop(state);
        if let Some((_, f)) = due {
            f(self);
        }
    }

    /// The writes in flight: their node, file, position and length.
    pub(crate) fn writes(state: &State) -> impl Iterator<Item = (u32, InodeId, u64, usize)> {
        let writes = state.writes.values();
        writes.map(|(life, inode, at, bytes)| (life.node, *inode, *at, bytes.len()))
    }

    /// Resets the connections between two nodes. With `half_open` only `a` learns of it; to `b` they seem alive.
    pub fn reset_between(&self, a: u32, b: u32, half_open: bool) -> u64 {
        let mut guard = self.lock();
        let state = &mut *guard;
        let between: Vec<(EndId, EndId)> = state
            .net
            .ends_of(a)
            .into_iter()
            .filter(|(_, peer)| state.net.ends.get(peer).is_some_and(|p| p.node == b))
            .collect();
        for (end, peer) in &between {
            self.exec()
                .tap()
                .record(|| EventKind::Reset { conn: conn_of(*end) });
            state.net.reset(*end);
            if !half_open {
                let at = self.exec().now() + state.choices.below("reset latency", u64::from(a), MILLI);
                self.reset_later(state, *peer, at);
            }
        }
        between.len() as u64
    }

    /// An operation of a node begins or, with `after`, has had its effect. If a fault strikes, the node's tasks do not run until
    /// [`World::release`].
    pub(crate) fn operation(&self, state: &mut State, node: u32, (act, path): (Act, &str), after: bool) {
        if state.triggers.node == node && state.triggers.operation(act, path, after) {
            self.hold(state, node);
        }
    }

    /// As [`World::operation`], of an event without an effect on the disk, on this node or, if none is named, on any.
    pub(crate) fn event(&self, node: Option<u32>, act: Act, of: &str) {
        let mut state = self.lock();
        let watched = state.triggers.node;
        if node.is_none_or(|node| node == watched) && state.triggers.event(act, of) {
            self.hold(&mut state, watched);
        }
    }

    fn hold(&self, state: &mut State, node: u32) {
        // A node that is paused anyway stays so for its time.
        if self.exec().pause(node) {
            state.held = Some(node);
        }
    }

    /// The tasks of a held node run again, unless the fault ended or paused them.
    pub(crate) fn release(&self) {
        let held = self.lock().held.take();
        if let Some(node) = held {
            self.exec().resume(node);
        }
    }

    /// Keeps a held node paused: its time is up to the fault.
    pub(crate) fn keep_paused(&self) {
        self.lock().held = None;
    }

    /// Counts a fault.
    pub fn count(&self, family: &'static str) {
        *self.lock().faults.entry(family).or_insert(0) += 1;
    }

    /// kill -9: no destructor has an effect. A write in flight reached the page cache or did not.
    pub fn kill(&self, node: u32, family: &'static str) {
        self.count(family);
        self.exec().tap().record(|| EventKind::Kill { of: node });
        self.end_life(node);
    }

    /// Power loss of one node: kills its processes and loses unsynced changes as `choices` decide.
    pub fn power_loss(&self, node: u32, choices: &mut Keyed) {
        self.count("power loss");
        self.exec().tap().record(|| EventKind::PowerLoss { of: node });
        self.end_life(node);
        let mut guard = self.lock();
        let state = &mut *guard;
        if let Some(disk) = state.disks.get_mut(&node) {
            let before = self.exec().tap().is_open().then(|| Images::of(disk));
            disk.power_loss(choices);
            for what in before.iter().flat_map(|before| before.lost(disk)) {
                self.exec().tap().record(|| what);
            }
        }
    }

    /// The faults that occurred in this world, by family.
    pub fn faults(&self) -> BTreeMap<String, u64> {
        let state = self.lock();
        let of_disks = state.disks.values().flat_map(|d| &d.fault_counts);
        let mut all = BTreeMap::new();
        for (family, n) in state.faults.iter().chain(of_disks) {
            *all.entry((*family).to_owned()).or_insert(0) += n;
        }
        all
    }

    /// Cleans up after a process that has ended by itself.
    pub fn end_quietly(&self, node: u32) {
        self.exec().tap().record(|| EventKind::Ended { of: node });
        self.end_life(node);
    }

    fn end_life(&self, node: u32) {
        // BEFORE anything else: from here on every call of the old life does nothing.
        self.exec().kill(node);
        let mut guard = self.lock();
        let state = &mut *guard;
        let mine: Vec<u64> = state
            .writes
            .iter()
            .filter(|(_, w)| w.0.node == node)
            .map(|(id, _)| *id)
            .collect();
        for id in mine {
            let (_, inode, at, bytes) = state.writes.remove(&id).expect("it was listed");
            if state
                .choices
                .one_in("write in flight arrives", u64::from(node), 2)
                && let Some(disk) = state.disks.get_mut(&node)
            {
                drop(disk.write(inode, at, &bytes));
            } else {
                self.exec().tap().record(|| EventKind::WriteDropped { write: id });
            }
        }
        state.locks.retain(|(n, _), _| *n != node);
        state.net.ports.retain(|(n, _), _| *n != node);
        let ends = state.net.ends_of(node);
        for (end, peer) in &ends {
            state.net.reset(*end);
            state.net.ends.remove(end);
            let at = self.exec().now() + state.choices.below("reset latency", u64::from(node), MILLI);
            self.reset_later(state, *peer, at);
        }
    }

    fn reset_later(&self, state: &State, end: EndId, at: Nanos) {
        let Some(e) = state.net.ends.get(&end) else { return };
        let (world, life) = (self.clone(), self.exec().life(e.node));
        self.exec().call_at(life, at, move || {
            world
                .exec()
                .tap()
                .record(|| EventKind::Reset { conn: conn_of(end) });
            world.lock().net.reset(end);
        });
    }

    /// Closes an end. The bytes it sent still arrive, and then the end of the stream; a peer that writes to it afterwards gets an
    /// error.
    pub(crate) fn close_end(&self, end: EndId) {
        let gone = self.lock().net.ends.remove(&end);
        if let Some(writer) = gone.and_then(|e| e.room) {
            writer.wake();
        }
    }

    /// A node's clock.
    pub(crate) fn clock(&self, node: u32) -> Clock {
        self.lock().clocks.get(&node).copied().unwrap_or_default()
    }

    /// When `len` bytes that leave one node now arrive at another.
    pub(crate) fn arrival(&self, state: &mut State, from: u32, to: u32, len: u64) -> Nanos {
        let (now, node) = (self.exec().now(), u64::from(from));
        let mut latency = 20 * MICRO + state.choices.below("net latency", node, 300 * MICRO);
        if state.choices.one_in("net slow", node, 200) {
            latency += state.choices.below("net slow by", node, 40 * MILLI);
        }
        state.net.arrival(from, to, now, latency, len)
    }

    /// How long a disk takes to write or read `len` bytes.
    pub(crate) fn disk_latency(state: &mut State, node: u32, len: u64) -> Nanos {
        let node = u64::from(node);
        5 * MICRO + state.choices.below("disk latency", node, 60 * MICRO) + len * 2
    }

    /// How long a sync takes.
    pub(crate) fn sync_latency(state: &mut State, node: u32) -> Nanos {
        let node = u64::from(node);
        let base = 100 * MICRO + state.choices.below("sync latency", node, 2 * MILLI);
        if state.choices.one_in("sync slow", node, 100) {
            base + state.choices.below("sync slow by", node, 150 * MILLI)
        } else {
            base
        }
    }

    /// Registers a write in flight.
    pub(crate) fn write_begins(state: &mut State, life: Life, inode: InodeId, at: u64, bytes: Bytes) -> u64 {
        let id = state.next_write;
        state.next_write += 1;
        state.writes.insert(id, (life, inode, at, bytes));
        id
    }

    /// Removes a write in flight.
    pub(crate) fn write_ends(state: &mut State, id: u64) -> Option<(InodeId, u64, Bytes)> {
        state
            .writes
            .remove(&id)
            .map(|(_, inode, at, bytes)| (inode, at, bytes))
    }

    /// The random number stream of this name in a life.
    pub(crate) fn rng(&self, life: Life, stream: &'static str) -> Rng {
        let mut state = self.lock();
        let words = [
            text("rng"),
            u64::from(life.node),
            u64::from(life.incarnation),
            text(stream),
        ];
        let seed = state.choices.seed_bytes(&words);
        state
            .rngs
            .entry((life, stream))
            .or_insert_with(|| Rng::from_seed(seed))
            .clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drifting_clock_first_shows_a_time_at_its_moment() {
        for drift_ppm in [-500_000, -700, 0, 1, 300, 1_000_000] {
            let clock = Clock {
                drift_ppm,
                wall_ahead_ms: 0,
            };
            for shown in [0, 1, 999, 1_000_000_007, 60_123_456_789] {
                let at = clock.moment(shown);
                assert!(clock.shows(at) >= shown, "{drift_ppm} {shown}");
                assert!(at == 0 || clock.shows(at - 1) < shown, "{drift_ppm} {shown}");
            }
        }
        let fast = Clock {
            drift_ppm: 100,
            wall_ahead_ms: 0,
        };
        assert_eq!(fast.shows(1_000_000_000), 1_000_100_000);
    }
}
