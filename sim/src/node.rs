//! Brokers in the seeded world: starts, stops and restarts the production shell.

use brokkr::Broker;
use brokkr::config::BrokerConfig;
use brokkr_env::Env;
use tokio::sync::{mpsc, oneshot};

use crate::env::SimEnv;
use crate::world::World;

/// The broker with the simulator's environment. Instantiated here, once.
pub type SimBroker = Broker<SimEnv>;

/// The outcome of a start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Started {
    /// It serves, and has opened its logs.
    Ready,
    /// The start failed, with this reason.
    Failed(String),
}

/// The use of a pool of the broker's memory budget.
pub struct PoolUse {
    /// The pool's name.
    pub name: &'static str,
    /// Reserved bytes.
    pub used_bytes: usize,
    /// Tasks that wait for bytes.
    pub waiting: usize,
}

/// A handle of a broker on a node, for the node's present life.
pub struct Running {
    commands: mpsc::UnboundedSender<BrokerCommand>,
}

/// A command to a running broker.
enum BrokerCommand {
    /// Respond when its logs are open.
    Opened(oneshot::Sender<()>),
    /// Respond with the use of the memory budget.
    Memory(oneshot::Sender<Vec<PoolUse>>),
    /// Stop cleanly.
    Stop(oneshot::Sender<bool>),
}

/// Starts a broker in the node's present life. The receiver gets the outcome; nothing, if the broker is killed before.
pub fn start(world: &World, node: u32, config: BrokerConfig) -> (Running, oneshot::Receiver<Started>) {
    let (outcome, started) = oneshot::channel();
    let (commands, mut received) = mpsc::unbounded_channel();
    let env = world.env(node);
    let main = env.clone();
    env.spawn("main", async move {
        match SimBroker::start(main, config).await {
            Ok(broker) => {
                // The broker serves earlier; but recovery is judged once it has finished.
                broker.opened().await;
                drop(outcome.send(Started::Ready));
                loop {
                    match received.recv().await {
                        Some(BrokerCommand::Opened(done)) => {
                            broker.opened().await;
                            let _ = done.send(());
                        }
                        Some(BrokerCommand::Memory(done)) => {
                            let pools = broker.ctx().memory.pools().into_iter();
                            let uses = pools.map(|pool| PoolUse {
                                name: pool.name,
                                used_bytes: pool.used_bytes,
                                waiting: pool.waiting,
                            });
                            drop(done.send(uses.collect()));
                        }
                        Some(BrokerCommand::Stop(done)) => {
                            let _ = done.send(broker.stop().await);
                            return;
                        }
                        None => std::future::pending().await,
                    }
                }
            }
            Err(error) => drop(outcome.send(Started::Failed(error.to_string()))),
        }
    });
    (Running { commands }, started)
}

impl Running {
    /// Stops the broker cleanly. The receiver gets `true` if the next start need not scan the logs; nothing, if the broker is
    /// killed before.
    pub fn stop(self) -> oneshot::Receiver<bool> {
        let (tx, rx) = oneshot::channel();
        drop(self.commands.send(BrokerCommand::Stop(tx)));
        rx
    }

    /// The use of the broker's memory budget; nothing, if the broker is killed before.
    pub fn memory(&self) -> oneshot::Receiver<Vec<PoolUse>> {
        let (tx, rx) = oneshot::channel();
        drop(self.commands.send(BrokerCommand::Memory(tx)));
        rx
    }

    /// Resolves when the logs of all present partitions were opened, or could not be.
    pub fn opened(&self) -> oneshot::Receiver<()> {
        let (tx, rx) = oneshot::channel();
        drop(self.commands.send(BrokerCommand::Opened(tx)));
        rx
    }
}
