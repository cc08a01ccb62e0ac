//! Brokers in the seeded world: the production shell, started, killed and started again.

use brokkr::Broker;
use brokkr::config::BrokerConfig;
use brokkr_env::Env;
use tokio::sync::oneshot;

use crate::env::SimEnv;
use crate::world::World;

/// What a broker of the seeded world is. Instantiated here, once.
pub type SimBroker = Broker<SimEnv>;

/// How a start went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Started {
    /// It serves.
    Ready,
    /// It said why it can't.
    Failed(String),
}

/// A broker on a node, which lives as long as the node's present life.
pub struct Running {
    stop: Option<oneshot::Sender<oneshot::Sender<bool>>>,
}

/// Starts a broker in the node's present life. Tells when it serves, or why it can't; never, if it is killed before.
pub fn start(world: &World, node: u32, config: BrokerConfig) -> (Running, oneshot::Receiver<Started>) {
    let (told, started) = oneshot::channel();
    let (stop, stopped) = oneshot::channel::<oneshot::Sender<bool>>();
    let env = world.env(node);
    let main = env.clone();
    env.spawn("main", async move {
        match SimBroker::start(main, config).await {
            Ok(broker) => {
                drop(told.send(Started::Ready));
                match stopped.await {
                    Ok(done) => drop(done.send(broker.stop().await)),
                    Err(_) => std::future::pending().await,
                }
            }
            Err(error) => drop(told.send(Started::Failed(error.to_string()))),
        }
    });
    (Running { stop: Some(stop) }, started)
}

impl Running {
    /// Tells it to stop cleanly. It answers `true` if the next start need not scan; never, if it is killed before.
    pub fn stop(mut self) -> oneshot::Receiver<bool> {
        let (tx, rx) = oneshot::channel();
        if let Some(stop) = self.stop.take() {
            drop(stop.send(tx));
        }
        rx
    }
}
