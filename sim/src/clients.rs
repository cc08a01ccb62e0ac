//! The workload's clients, each on its own node: starts, kills and restarts them until all have ended.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use brokkr_env::{Env, Instant};
use brokkr_workloads::{Stop, Workload, create_topics, run_admin, run_consumer, run_producer, run_recreator};
use tokio::sync::Notify;

use crate::exec::lock;
use crate::plan::FIRST_CLIENT;
use crate::scenario::Shared;

/// The process number of a consumer rises by this at each restart: its last operation may still be pending.
const CONSUMER_LIFE: u64 = 1 << 20;

/// Starts a client on its node, for the life of this number.
type StartClient = Box<dyn Fn(&Shared, u64) + Send>;

/// See the module.
#[derive(Default)]
pub(crate) struct Clients {
    state: Mutex<ClientsState>,
    ended: Notify,
}

#[derive(Default)]
struct ClientsState {
    /// By node, with the number of starts.
    begin: BTreeMap<u32, (StartClient, u64)>,
    killed: BTreeSet<u32>,
    ended: BTreeSet<u32>,
}

impl Clients {
    fn add(&self, shared: &Shared, node: u32, begin: StartClient) {
        let mut state = lock(&self.state);
        state.begin.insert(node, (begin, 0));
        state.killed.insert(node);
        drop(state);
        self.start(shared, node);
    }

    /// Starts a client, at first or after a kill.
    pub(crate) fn start(&self, shared: &Shared, node: u32) {
        let mut state = lock(&self.state);
        let state = &mut *state;
        if let Some((begin, lives)) = state.begin.get_mut(&node)
            && state.killed.remove(&node)
        {
            begin(shared, *lives);
            *lives += 1;
        }
    }

    /// Marks a client as killed. Returns whether it was running.
    pub(crate) fn kill(&self, node: u32) -> bool {
        let mut state = lock(&self.state);
        state.begin.contains_key(&node) && !state.ended.contains(&node) && state.killed.insert(node)
    }

    /// The nodes of all started clients.
    pub(crate) fn all(&self) -> Vec<u32> {
        lock(&self.state).begin.keys().copied().collect()
    }

    fn has_ended(&self, node: u32) {
        lock(&self.state).ended.insert(node);
        self.ended.notify_one();
    }

    async fn all_ended(&self, nodes: &[u32]) {
        while !nodes.iter().all(|n| lock(&self.state).ended.contains(n)) {
            self.ended.notified().await;
        }
    }
}

/// Runs the workload to its end.
pub(crate) async fn work(shared: &Shared) {
    let (stop, written) = (Stop::new(), Stop::new());
    let workload = &shared.plan.workload;
    let admin = shared.world.env(FIRST_CLIENT - 1);
    while let Err(error) = create_topics(&admin, workload).await {
        tracing::debug!(%error, "topics not created");
        admin.sleep_until(admin.now() + Duration::from_millis(100)).await;
    }
    let (mut writers, mut readers) = (Vec::new(), Vec::new());
    for (i, node) in (0..workload.producers.len()).zip(FIRST_CLIENT..) {
        writers.push(node);
        let stop = stop.clone();
        shared.clients.add(
            shared,
            node,
            Box::new(move |s, life| {
                let mut spec = s.plan.workload.producers[i].clone();
                spec.lives_before += life;
                let (s, stop, env) = (s.clone(), stop.clone(), s.world.env(node));
                env.clone().spawn("producer", async move {
                    run_producer(&env, &s.plan.workload.client, &spec, &s.recorder, &stop).await;
                    s.clients.has_ended(node);
                });
            }),
        );
    }
    let first = FIRST_CLIENT + workload.producers.len() as u32;
    for (i, node) in (0..workload.consumers.len()).zip(first..) {
        readers.push(node);
        let stop = written.clone();
        shared.clients.add(
            shared,
            node,
            Box::new(move |s, life| {
                let mut spec = s.plan.workload.consumers[i].clone();
                spec.process += life * CONSUMER_LIFE;
                let (s, stop, env) = (s.clone(), stop.clone(), s.world.env(node));
                env.clone().spawn("consumer", async move {
                    run_consumer(&env, &s.plan.workload.client, &spec, &s.recorder, &stop).await;
                    s.clients.has_ended(node);
                });
            }),
        );
    }
    let mut others = Vec::new();
    if let Some(spec) = workload.admin.clone() {
        let (s, stop, env) = (shared.clone(), stop.clone(), admin.clone());
        others.push(env.clone().spawn("admin", async move {
            run_admin(&env, &s.plan.workload.client, &spec, &s.recorder, &stop).await;
        }));
    }
    if let Some(spec) = workload.recreator.clone() {
        let (s, stop, env) = (shared.clone(), stop.clone(), admin.clone());
        others.push(env.clone().spawn("recreator", async move {
            let Workload { client, topics, .. } = &s.plan.workload;
            run_recreator(&env, client, &spec, topics, &s.recorder, &stop).await;
        }));
    }
    admin.sleep_until(Instant::from_nanos(shared.work_until)).await;
    stop.stop();
    shared.clients.all_ended(&writers).await;
    for other in others {
        other.await;
    }
    written.stop();
    shared.clients.all_ended(&readers).await;
}
