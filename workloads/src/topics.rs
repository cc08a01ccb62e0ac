//! Creates topics.

use brokkr_client::{Client, Error, Result};
use brokkr_env::Env;
use brokkr_types::Uuid;
use brokkr_wire::ErrorCode;

use crate::spec::{TopicSpec, Workload};

/// Creates a workload's topics. Existing topics are accepted.
pub async fn create_topics<E: Env>(env: &E, workload: &Workload) -> Result<()> {
    let client = Client::new(env, workload.client.config());
    for topic in &workload.topics {
        match create_topic(&client, topic).await {
            Ok(_) | Err(Error::Broker(ErrorCode::TOPIC_ALREADY_EXISTS, _)) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Creates a topic; returns its id.
pub(crate) async fn create_topic<E: Env>(client: &Client<E>, topic: &TopicSpec) -> Result<Uuid> {
    let configs = topic.configs.iter().map(|(n, v)| (n.as_str(), v.as_str()));
    let configs: Vec<_> = configs.collect();
    client
        .create_topic(&topic.name, topic.partitions, topic.replication_factor, &configs)
        .await
}
