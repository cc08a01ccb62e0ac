//! The seeded world: its nodes' disks, the network between them, one clock, and the choices of one seed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use brokkr_env::Rng;
use bytes::Bytes;

use crate::disk::{Disk, InodeId};
use crate::env::SimEnv;
use crate::exec::{Exec, Life, Nanos};
use crate::keyed::{Keyed, text};
use crate::net::{EndId, Net};

const MICRO: Nanos = 1_000;
const MILLI: Nanos = 1_000_000;

/// A world. Cloning shares it.
#[derive(Clone)]
pub struct World {
    exec: Exec,
    state: Arc<Mutex<State>>,
}

/// What a world is made of, besides its tasks.
pub struct State {
    /// The seed's choices.
    pub choices: Keyed,
    /// The disks, by node.
    pub disks: BTreeMap<u32, Disk>,
    /// The network.
    pub net: Net,
    /// Writes on their way to a disk.
    writes: BTreeMap<u64, (Life, InodeId, u64, Bytes)>,
    next_write: u64,
    /// Who holds the lock of a directory: (node, path).
    pub locks: BTreeMap<(u32, String), Life>,
    rngs: BTreeMap<(Life, &'static str), Rng>,
    /// Faults so far, by family.
    pub faults: BTreeMap<&'static str, u64>,
}

impl World {
    /// The world of a seed, empty.
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
        };
        Self {
            exec: Exec::new(seed),
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Its executor.
    pub fn exec(&self) -> &Exec {
        &self.exec
    }

    /// Its state. Nobody holds this while calling anything that may wake or drop a future.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The environment of a node's present life.
    pub fn env(&self, node: u32) -> SimEnv {
        SimEnv::new(self.clone(), self.exec.life(node))
    }

    /// Counts a fault.
    pub fn count(&self, family: &'static str) {
        *self.lock().faults.entry(family).or_insert(0) += 1;
    }

    /// kill -9: no destructor's work survives. What was on its way to the page cache arrived there or not.
    pub fn kill(&self, node: u32) {
        self.count("kill");
        self.end_life(node);
    }

    /// The power of one node goes: its processes and all that no sync covered, in part.
    pub fn power_loss(&self, node: u32) {
        self.count("power loss");
        self.end_life(node);
        let mut guard = self.lock();
        let state = &mut *guard;
        if let Some(disk) = state.disks.get_mut(&node) {
            disk.power_loss(&mut state.choices);
        }
    }

    /// What befell this world so far, by family.
    pub fn faults(&self) -> BTreeMap<String, u64> {
        let state = self.lock();
        let of_disks = state.disks.values().flat_map(|d| &d.befell);
        let mut all = BTreeMap::new();
        for (family, n) in state.faults.iter().chain(of_disks) {
            *all.entry((*family).to_owned()).or_insert(0) += n;
        }
        all
    }

    /// A process that has ended by itself: nothing of its life is left.
    pub fn end_quietly(&self, node: u32) {
        self.end_life(node);
    }

    fn end_life(&self, node: u32) {
        // BEFORE anything else: from here on every call of the old life does nothing.
        self.exec.kill(node);
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
            }
        }
        state.locks.retain(|(n, _), _| *n != node);
        state.net.ports.retain(|(n, _), _| *n != node);
        let ends = state.net.ends_of(node);
        for (end, peer) in &ends {
            state.net.reset(*end);
            state.net.ends.remove(end);
            let at = self.exec.now() + state.choices.below("reset latency", u64::from(node), MILLI);
            self.reset_later(state, *peer, at);
        }
    }

    fn reset_later(&self, state: &State, end: EndId, at: Nanos) {
        let Some(e) = state.net.ends.get(&end) else { return };
        let (world, life) = (self.clone(), self.exec.life(e.node));
        self.exec.call_at(life, at, move || world.lock().net.reset(end));
    }

    /// Takes an end away whose owner closed it. What it sent still arrives, and then the end of the stream; who writes
    /// to it from now on is told that it is gone.
    pub(crate) fn close_end(&self, end: EndId) {
        let gone = self.lock().net.ends.remove(&end);
        if let Some(writer) = gone.and_then(|e| e.room) {
            writer.wake();
        }
    }

    /// How long a piece takes from `node` to a peer.
    pub(crate) fn net_latency(state: &mut State, node: u32) -> Nanos {
        let node = u64::from(node);
        let base = 20 * MICRO + state.choices.below("net latency", node, 300 * MICRO);
        if state.choices.one_in("net slow", node, 200) {
            base + state.choices.below("net slow by", node, 40 * MILLI)
        } else {
            base
        }
    }

    /// How long a disk takes for a write or a read of `len` bytes.
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

    /// Remembers a write that is on its way.
    pub(crate) fn write_begins(state: &mut State, life: Life, inode: InodeId, at: u64, bytes: Bytes) -> u64 {
        let id = state.next_write;
        state.next_write += 1;
        state.writes.insert(id, (life, inode, at, bytes));
        id
    }

    /// A write arrives.
    pub(crate) fn write_ends(state: &mut State, id: u64) -> Option<(InodeId, u64, Bytes)> {
        state
            .writes
            .remove(&id)
            .map(|(_, inode, at, bytes)| (inode, at, bytes))
    }

    /// The stream of random numbers of this name in a life.
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
