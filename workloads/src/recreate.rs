//! A process that deletes topics and creates them again.

use std::time::Duration;

use brokkr_client::{Client, Error};
use brokkr_env::{Env, Rng};
use brokkr_history::{Op, Process, Type};
use brokkr_types::Uuid;
use brokkr_wire::ErrorCode;
use serde_json::{Value, json};

use crate::spec::{ClientSpec, RecreatorSpec, TopicSpec};
use crate::topics::create_topic;
use crate::{Recorder, Stop};

/// The longest pause before an unanswered request is repeated.
const RETRY_PAUSE_MAX_MS: u64 = 200;

struct Recreator<'a, E: Env> {
    env: &'a E,
    spec: &'a RecreatorSpec,
    recorder: &'a Recorder,
    client: Client<E>,
    rng: Rng,
    process: Process,
}

/// Deletes and creates topics until stopped; returns when all its topics exist and no earlier request of it can change that.
///
/// In the history: `delete_topic`, with `{"topic", "id"}`, and `create_topic`, with `{"topic"}` and, if it was returned,
/// `id`. If an unanswered attempt may have been carried out, the outcome is `info`.
pub async fn run_recreator<E: Env>(
    env: &E,
    client: &ClientSpec,
    spec: &RecreatorSpec,
    topics: &[TopicSpec],
    recorder: &Recorder,
    stop: &Stop,
) {
    let topics: Vec<_> = topics.iter().filter(|t| spec.topics.contains(&t.name)).collect();
    let mut recreator = Recreator {
        env,
        spec,
        recorder,
        client: Client::new(env, client.config()),
        rng: env.rng("workload recreator"),
        process: spec.process,
    };
    while !topics.is_empty() && recreator.pause(spec.stays_max_ms, stop).await {
        let topic = topics[recreator.rng.below(topics.len() as u64) as usize];
        let Some(id) = recreator.topic_id_of(&topic.name).await else {
            continue;
        };
        // It is certainly gone BEFORE the next one is created, so each deletion concerns one topic, and the last topic stays.
        while !recreator.delete(&topic.name, id).await {
            recreator.pause(RETRY_PAUSE_MAX_MS, &Stop::new()).await;
        }
        recreator.pause(spec.gone_max_ms, stop).await;
        brokkr_types::reached!("a topic was deleted and created again");
        while !recreator.create(topic).await {
            recreator.pause(RETRY_PAUSE_MAX_MS, &Stop::new()).await;
        }
    }
}

impl<E: Env> Recreator<'_, E> {
    /// Pauses. Returns false if it was stopped meanwhile.
    async fn pause(&self, most_ms: u64, stop: &Stop) -> bool {
        let pause = Duration::from_micros(self.rng.below(most_ms * 1000 + 1));
        tokio::select! {
            biased;
            () = stop.wait() => false,
            () = self.env.sleep_until(self.env.now() + pause) => true,
        }
    }

    async fn topic_id_of(&self, topic: &str) -> Option<Uuid> {
        self.client.want_topic(topic);
        self.client.refresh_metadata().await.ok()?;
        let id = self.client.with_metadata(|m| m.topics.get(topic).map(|t| t.id));
        id.filter(|id| !id.is_zero())
    }

    fn begin(&self, f: &str, value: Value) {
        let op = Op::Other(f.to_owned(), value);
        self.recorder.invoke(self.env.now(), self.process, op);
    }

    fn end(&mut self, f: &str, type_: Type, value: Value) {
        let op = Op::Other(f.to_owned(), value);
        self.recorder.complete(self.env.now(), self.process, type_, op);
        if type_ == Type::Info {
            self.process += self.spec.process_stride;
        }
    }

    /// Deletes the topic of this id. Returns whether it is certainly gone.
    async fn delete(&mut self, topic: &str, id: Uuid) -> bool {
        let value = json!({"topic": topic, "id": id.to_string()});
        self.begin("delete_topic", value.clone());
        let result = self.client.delete_topic_id(id).await;
        let type_ = match result {
            Ok(true) => Type::Ok,
            _ => Type::Info,
        };
        self.end("delete_topic", type_, value);
        result.is_ok()
    }

    /// Creates the topic. Returns whether it exists.
    async fn create(&mut self, topic: &TopicSpec) -> bool {
        let value = json!({"topic": topic.name});
        self.begin("create_topic", value.clone());
        match create_topic(&self.client, topic).await {
            Ok(id) => {
                let value = json!({"topic": topic.name, "id": id.to_string()});
                self.end("create_topic", Type::Ok, value);
                true
            }
            Err(e) => {
                self.end("create_topic", Type::Info, value);
                matches!(e, Error::Broker(ErrorCode::TOPIC_ALREADY_EXISTS, _))
            }
        }
    }
}
