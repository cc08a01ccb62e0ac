//! Workloads as data: what clients do, and a record of the results. Workloads do not judge.
//!
//! A [`Workload`] consists of topics, producers, consumers, an admin, a recreator, an operator, an inspector and a visitor, each with its parameters; [`run`] runs
//! it on any [`Env`], in the simulator or against a real broker. Invocations and completions are recorded in a
//! [`brokkr_history`], everything else that a client learns (sequences, faults) in [`Notes`].

mod admin;
mod consume;
mod inspect;
pub mod keys;
mod operate;
mod produce;
mod recorder;
mod recreate;
mod sent;
mod spec;
mod stop;
mod topics;
mod value;
mod versions;
mod visit;

use brokkr_client::Result;
use brokkr_env::Env;

pub use admin::run_admin;
pub use consume::run_consumer;
pub use inspect::{INSPECTED_CONFIGS, INSPECTED_DEFAULTS, INSPECTED_SECRET, run_inspector};
pub use operate::run_operator;
pub use produce::run_producer;
pub use recorder::{
    AckedBatch, Altered, ClientFault, Drained, FetchResponded, FetchedEnds, ID_MARK, Notes, OutOfOrder,
    Recorder, Refusal,
};
pub use recreate::run_recreator;
pub use sent::Difference;
pub use spec::{
    AdminSpec, ClientSpec, ConsumerSpec, InspectorSpec, OperatorSpec, ProducerSpec, RecreatorSpec, TopicSpec,
    VisitorSpec, Workload,
};
pub use stop::Stop;
pub use topics::create_topics;
pub use value::{value_of, value_parts};
pub use visit::run_visitor;

/// Runs a workload until [`Stop::stop`]: producers and the admin stop first, then the consumers read to the end.
///
/// With a recreator, `recorder` must come from [`Recorder::of`].
///
/// # Errors
/// If the topics can't be created. Later failures are part of the record.
pub async fn run<E: Env>(env: &E, workload: &Workload, recorder: &Recorder, stop: &Stop) -> Result<()> {
    create_topics(env, workload).await?;
    let mut writers = Vec::new();
    for spec in &workload.producers {
        let (env2, client, spec) = (env.clone(), workload.client.clone(), spec.clone());
        let (recorder, stop) = (recorder.clone(), stop.clone());
        writers.push(env.spawn("workload producer", async move {
            run_producer(&env2, &client, &spec, &recorder, &stop).await;
        }));
    }
    if let Some(spec) = &workload.admin {
        let (env2, client, spec) = (env.clone(), workload.client.clone(), spec.clone());
        let (recorder, stop) = (recorder.clone(), stop.clone());
        writers.push(env.spawn("workload admin", async move {
            run_admin(&env2, &client, &spec, &recorder, &stop).await;
        }));
    }
    if let Some(spec) = &workload.recreator {
        let (env2, workload, spec) = (env.clone(), workload.clone(), spec.clone());
        let (recorder, stop) = (recorder.clone(), stop.clone());
        writers.push(env.spawn("workload recreator", async move {
            run_recreator(&env2, &workload.client, &spec, &workload.topics, &recorder, &stop).await;
        }));
    }
    if let Some(spec) = &workload.operator {
        let (env2, client, spec) = (env.clone(), workload.client.clone(), spec.clone());
        let (recorder, stop) = (recorder.clone(), stop.clone());
        writers.push(env.spawn("workload operator", async move {
            run_operator(&env2, &client, &spec, &recorder, &stop).await;
        }));
    }
    if let Some(spec) = &workload.inspector {
        let (env2, client, spec) = (env.clone(), workload.client.clone(), spec.clone());
        let (recorder, stop) = (recorder.clone(), stop.clone());
        writers.push(env.spawn("workload inspector", async move {
            run_inspector(&env2, &client, &spec, &recorder, &stop).await;
        }));
    }
    if let Some(spec) = &workload.visitor {
        let (env2, client, spec) = (env.clone(), workload.client.clone(), spec.clone());
        let (recorder, stop) = (recorder.clone(), stop.clone());
        writers.push(env.spawn("workload visitor", async move {
            run_visitor(&env2, &client, &spec, &recorder, &stop).await;
        }));
    }
    let (written, mut readers) = (Stop::new(), Vec::new());
    for spec in &workload.consumers {
        let (env2, client, spec) = (env.clone(), workload.client.clone(), spec.clone());
        let (recorder, written) = (recorder.clone(), written.clone());
        readers.push(env.spawn("workload consumer", async move {
            run_consumer(&env2, &client, &spec, &recorder, &written).await;
        }));
    }
    for writer in writers {
        writer.await;
    }
    written.stop();
    for reader in readers {
        reader.await;
    }
    Ok(())
}
