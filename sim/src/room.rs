//! The sealed room: a separate thread in which madsim replaces the machine's clocks, entropy and threads.

use std::hash::BuildHasher;
use std::sync::mpsc;

use crate::exec::{EndHookGuard, Ended, Nanos};
use crate::world::World;

/// The room's own seed. The simulator's choices are keyed by the run's seed; the room only has to be the same every time.
const ROOM_SEED: u64 = 0x6272_6f6b_6b72;
/// The result of [`probe`] in a sealed room (Rust 1.95's hasher, with the room's keys).
const PROBE: u64 = 0x01a9_6600_d58b_5bf7;

/// A hash with std's keys, which the room must have set: madsim only logs a failure.
fn probe() -> u64 {
    #[expect(
        clippy::disallowed_types,
        reason = "this is the check that nothing random is left in it"
    )]
    std::collections::hash_map::RandomState::new().hash_one(0x0062_726f_6b6b_7272_u64)
}

/// Runs a world in a room of its own: `enter` fills it and returns the query for its end; it runs until `until`.
///
/// # Panics
/// If the room isn't sealed.
pub fn run<T: Send + 'static>(
    seed: u64,
    until: Nanos,
    enter: impl FnOnce(&World) -> Box<dyn FnOnce(&World, Ended) -> T> + Send + 'static,
) -> T {
    let (sender, receiver) = mpsc::channel();
    #[expect(
        clippy::disallowed_methods,
        reason = "the room's own thread, made outside of it"
    )]
    let thread = std::thread::Builder::new()
        .name("room".into())
        .stack_size(64 << 20)
        .spawn(move || {
            let runtime =
                madsim::runtime::Runtime::with_seed_and_config(ROOM_SEED, madsim::Config::default());
            // BEFORE any other hashing: the probe is always the second use of the thread's keys.
            let probed = probe();
            assert_eq!(
                probed, PROBE,
                "the room is not sealed: std's hasher has keys of its own ({probed:#x})"
            );
            runtime.block_on(async move {
                let world = World::new(seed);
                let ask = enter(&world);
                let exec = world.exec().clone();
                let of = world.clone();
                let leaving = EndHookGuard::by(move |end| {
                    let (ended, stays) = match end {
                        Ok(ended) => (ended, false),
                        Err(message) => match of.panicked(message) {
                            Some(ended) => (ended, true),
                            None => return,
                        },
                    };
                    let sent = sender.send((ask(&of, ended), stays));
                    sent.expect("the thread that made the room waits");
                    if stays {
                        park_forever();
                    }
                });
                let ended = world.exec().run(until, |to| {
                    world.moment_ends(to);
                    madsim::time::advance(std::time::Duration::from_nanos(to - exec.now()));
                });
                leaving.leave(ended);
            })
        });
    let thread = thread.expect("a thread for the room");
    match receiver.recv() {
        Ok((result, true)) => result,
        received => match thread.join() {
            Ok(()) => received.expect("the end hook ran").0,
            Err(panic) => std::panic::resume_unwind(panic),
        },
    }
}

/// Blocks until the thread that waits for this one's result ends the process.
fn park_forever() -> ! {
    loop {
        std::thread::park();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "shows that the room answers for the machine's clock"
    )]
    fn the_clock_of_the_machine_follows_the_world() {
        let passed = run(1, u64::MAX, |world| {
            let start = std::time::Instant::now();
            let passed = Arc::new(Mutex::new(None));
            let (exec, life, p) = (world.exec().clone(), world.exec().life(1), Arc::clone(&passed));
            world.exec().spawn(
                life,
                "sleeper",
                Box::pin(async move {
                    exec.sleep_until(life, exec.now() + 123_456_789).await;
                    *p.lock().expect("one task") = Some(start.elapsed());
                }),
            );
            Box::new(move |_, ended| {
                assert_eq!(ended, Ended::Quiet);
                passed.lock().expect("the task is gone").take()
            })
        });
        assert_eq!(passed, Some(std::time::Duration::from_nanos(123_456_789)));
    }
}
