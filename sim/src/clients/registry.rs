//! Which clients there are, and which of them live.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use brokkr_workloads::Stop;
use tokio::sync::Notify;

use crate::exec::lock;

/// What a client is, with its index in the workload and the signal that stops it.
#[derive(Clone)]
pub(super) enum ClientRole {
    Producer(usize, Stop),
    Consumer(usize, Stop),
}

/// The clients of a run. See the module.
#[derive(Default)]
pub(crate) struct Clients {
    state: Mutex<ClientsState>,
    ended: Notify,
}

#[derive(Default)]
struct ClientsState {
    /// By node, with the number of starts.
    roles: BTreeMap<u32, (ClientRole, u64)>,
    killed: BTreeSet<u32>,
    ended: BTreeSet<u32>,
}

impl Clients {
    /// Adds a client that was not started yet.
    pub(super) fn add(&self, node: u32, role: ClientRole) {
        let mut state = lock(&self.state);
        state.roles.insert(node, (role, 0));
        state.killed.insert(node);
    }

    /// Begins a life of a client, at first or after a kill: returns its role and the number of the life. None if it is running.
    pub(super) fn begin_life(&self, node: u32) -> Option<(ClientRole, u64)> {
        let mut state = lock(&self.state);
        let state = &mut *state;
        let (role, lives) = state.roles.get_mut(&node)?;
        if !state.killed.remove(&node) {
            return None;
        }
        let life = *lives;
        *lives += 1;
        Some((role.clone(), life))
    }

    /// Marks a client as killed. Returns whether it was running.
    pub(crate) fn kill(&self, node: u32) -> bool {
        let mut state = lock(&self.state);
        state.roles.contains_key(&node) && !state.ended.contains(&node) && state.killed.insert(node)
    }

    /// The nodes of all started clients.
    pub(crate) fn all(&self) -> Vec<u32> {
        lock(&self.state).roles.keys().copied().collect()
    }

    /// Marks a client as ended: its work is done.
    pub(super) fn has_ended(&self, node: u32) {
        lock(&self.state).ended.insert(node);
        self.ended.notify_one();
    }

    /// Waits until these clients have ended.
    pub(super) async fn all_ended(&self, nodes: &[u32]) {
        while !nodes.iter().all(|n| lock(&self.state).ended.contains(n)) {
            self.ended.notified().await;
        }
    }
}
