//! The workload's clients, each on its own node: starts, kills and restarts them until all have ended.

mod registry;

use std::time::Duration;

use brokkr_env::{Env, Instant};
use brokkr_workloads::{
    Stop, Workload, create_topics, run_admin, run_consumer, run_inspector, run_operator, run_producer,
    run_recreator, run_visitor,
};

use crate::plan::FIRST_CLIENT;
use crate::shared::Shared;
use registry::ClientRole;
pub(crate) use registry::Clients;

/// The visitor's node.
const VISITOR_NODE: u32 = FIRST_CLIENT - 4;

/// The process number of a consumer rises by this at each restart: its last operation may still be pending.
pub(crate) const CONSUMER_LIFE: u64 = 1 << 20;

/// Starts a client, at first or after a kill.
pub(crate) fn start(shared: &Shared, node: u32) {
    let Some((role, life)) = shared.clients.begin_life(node) else {
        return;
    };
    let (s, env) = (shared.clone(), shared.world.env(node));
    match role {
        ClientRole::Producer(i, stop) => {
            let mut spec = s.plan.workload.producers[i].clone();
            spec.lives_before += life;
            env.clone().spawn("producer", async move {
                run_producer(&env, &s.plan.workload.client, &spec, &s.recorder, &stop).await;
                s.clients.has_ended(node);
            });
        }
        ClientRole::Consumer(i, stop) => {
            let mut spec = s.plan.workload.consumers[i].clone();
            spec.process += life * CONSUMER_LIFE;
            env.clone().spawn("consumer", async move {
                run_consumer(&env, &s.plan.workload.client, &spec, &s.recorder, &stop).await;
                s.clients.has_ended(node);
            });
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
        shared.clients.add(node, ClientRole::Producer(i, stop.clone()));
        start(shared, node);
    }
    let first = FIRST_CLIENT + workload.producers.len() as u32;
    for (i, node) in (0..workload.consumers.len()).zip(first..) {
        readers.push(node);
        shared.clients.add(node, ClientRole::Consumer(i, written.clone()));
        start(shared, node);
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
    if let Some(spec) = workload.operator.clone() {
        let (s, stop, env) = (shared.clone(), stop.clone(), admin.clone());
        others.push(env.clone().spawn("operator", async move {
            run_operator(&env, &s.plan.workload.client, &spec, &s.recorder, &stop).await;
        }));
    }
    if let Some(spec) = workload.inspector.clone() {
        let (s, stop, env) = (shared.clone(), stop.clone(), admin.clone());
        others.push(env.clone().spawn("inspector", async move {
            run_inspector(&env, &s.plan.workload.client, &spec, &s.recorder, &stop).await;
        }));
    }
    if let Some(spec) = workload.visitor.clone() {
        // Apart: its connections count by its address.
        let (s, stop, env) = (shared.clone(), stop.clone(), shared.world.env(VISITOR_NODE));
        others.push(env.clone().spawn("visitor", async move {
            run_visitor(&env, &s.plan.workload.client, &spec, &s.recorder, &stop).await;
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
