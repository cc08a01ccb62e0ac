//! One life's environment: what its files, connections and tasks know of the world.

use brokkr_env::Done;

use crate::disk::Disk;
use crate::exec::Life;
use crate::trace::Tap;
use crate::trigger::Act;
use crate::world::{Clock, State, World};

/// One life's environment.
#[derive(Clone)]
pub struct SimEnv {
    pub(super) world: World,
    pub(super) life: Life,
    /// The node's monotonic clock, whose drift is fixed for a life.
    pub(super) clock: Clock,
}

impl SimEnv {
    fn new(world: World, life: Life) -> Self {
        let clock = world.clock(life.node);
        Self { world, life, clock }
    }

    /// The life that it belongs to.
    pub fn life(&self) -> Life {
        self.life
    }

    /// Its world.
    pub fn world(&self) -> &World {
        &self.world
    }

    pub(super) fn tap(&self) -> &Tap {
        self.world.exec().tap()
    }

    pub(super) fn dead(&self) -> bool {
        !self.world.exec().alive(self.life)
    }

    /// An operation on a file begins.
    pub(super) fn begins(&self, act: Act, path: &str) {
        if !self.dead() {
            let mut state = self.world.lock();
            self.world
                .operation(&mut state, self.life.node, (act, path), false);
        }
    }

    /// Completes after `latency`, unless the life ends before.
    pub(super) fn after<T: Send + 'static>(
        &self,
        latency: impl FnOnce(&mut State) -> u64,
        done: Done<T>,
        f: impl FnOnce(&mut State) -> T + Send + 'static,
    ) {
        if self.dead() {
            return;
        }
        let at = {
            let (now, mut state) = (self.world.exec().now(), self.world.lock());
            let latency = latency(&mut state);
            disk(&mut state, self.life.node, |d| d.ends_at(now, latency))
        };
        let (world, life) = (self.world.clone(), self.life);
        self.world.exec().call_at(self.life, at, move || {
            let result = f(&mut world.lock());
            // The disk goes on while the process is paused; the completion waits for the process.
            world.exec().call_awake(life, move || done(result));
        });
    }
}

impl World {
    /// The environment of a node's present life.
    pub fn env(&self, node: u32) -> SimEnv {
        SimEnv::new(self.clone(), self.exec().life(node))
    }
}

/// The disk of a node.
pub(super) fn disk<T>(state: &mut State, node: u32, f: impl FnOnce(&mut Disk) -> T) -> T {
    f(state.disks.get_mut(&node).expect("a node that stores has a disk"))
}
