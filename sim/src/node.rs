//! Brokers in the seeded world: the production shell, started, killed and started again.

use brokkr::Broker;
use brokkr::config::BrokerConfig;
use brokkr_env::Env;
use tokio::sync::{mpsc, oneshot};

use crate::env::SimEnv;
use crate::world::World;

/// What a broker of the seeded world is. Instantiated here, once.
pub type SimBroker = Broker<SimEnv>;

/// How a start went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Started {
    /// It serves, and has opened its logs.
    Ready,
    /// It said why it can't.
    Failed(String),
}

/// A broker on a node, which lives as long as the node's present life.
pub struct Running {
    asks: mpsc::UnboundedSender<Ask>,
}

/// What a running broker is asked.
enum Ask {
    /// Wait until its logs are open.
    Opened(oneshot::Sender<()>),
    /// Stop cleanly.
    Stop(oneshot::Sender<bool>),
}

/// Starts a broker in the node's present life. Tells when it serves, or why it can't; never, if it is killed before.
pub fn start(world: &World, node: u32, config: BrokerConfig) -> (Running, oneshot::Receiver<Started>) {
    let (told, started) = oneshot::channel();
    let (asks, mut asked) = mpsc::unbounded_channel();
    let env = world.env(node);
    let main = env.clone();
    env.spawn("main", async move {
        match SimBroker::start(main, config).await {
            Ok(broker) => {
                // It serves before; but what recovery leaves is judged when it has ended.
                broker.opened().await;
                drop(told.send(Started::Ready));
                loop {
                    match asked.recv().await {
                        Some(Ask::Opened(done)) => {
                            broker.opened().await;
                            let _ = done.send(());
                        }
                        Some(Ask::Stop(done)) => {
                            let _ = done.send(broker.stop().await);
                            return;
                        }
                        None => std::future::pending().await,
                    }
                }
            }
            Err(error) => drop(told.send(Started::Failed(error.to_string()))),
        }
    });
    (Running { asks }, started)
}

impl Running {
    /// Tells it to stop cleanly. It answers `true` if the next start need not scan; never, if it is killed before.
    pub fn stop(self) -> oneshot::Receiver<bool> {
        let (tx, rx) = oneshot::channel();
        drop(self.asks.send(Ask::Stop(tx)));
        rx
    }

    /// Answered when the logs of all partitions that there are now were opened, or could not be.
    pub fn opened(&self) -> oneshot::Receiver<()> {
        let (tx, rx) = oneshot::channel();
        drop(self.asks.send(Ask::Opened(tx)));
        rx
    }
}
