//! Scheduling order, and the effects of a kill.

use super::*;

fn order_of(seed: u64) -> (Vec<u32>, u64) {
    order_by(seed, Strategy::Random)
}

fn order_by(seed: u64, strategy: Strategy) -> (Vec<u32>, u64) {
    let exec = Exec::new(seed);
    exec.choose_by(strategy, None);
    run_eight(&exec)
}

fn run_eight(exec: &Exec) -> (Vec<u32>, u64) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    for i in 0..8 {
        let (exec2, seen) = (exec.clone(), Arc::clone(&seen));
        let life = exec.life(1);
        exec.spawn(
            life,
            "t",
            Box::pin(async move {
                for round in 0..4 {
                    exec2.sleep_until(life, 2_000_000_000 + round).await;
                    lock(&seen).push(i);
                }
            }),
        );
    }
    assert_eq!(exec.run(Nanos::MAX, |_| {}), Ended::Quiet);
    let seen = lock(&seen).clone();
    (seen, exec.hash())
}

#[test]
fn the_seed_decides_the_order() {
    assert_eq!(order_of(1), order_of(1));
    assert_ne!(order_of(1), order_of(2));
}

#[test]
fn another_scheduler_seed_gives_another_order() {
    let by = |order| {
        let exec = Exec::new(1);
        exec.choose_by(Strategy::Random, order);
        run_eight(&exec)
    };
    assert_eq!(by(None), by(Some(1)));
    assert_ne!(by(None), by(Some(2)));
}

#[test]
fn priorities_let_some_tasks_run_far_ahead() {
    // Eight tasks wake a nanosecond apart, four times. Those of low priority come behind all others, round after round.
    let last =
        |seen: &[u32]| seen.len() - 1 - seen.iter().rev().position(|s| *s == seen[0]).expect("the first");
    let (mut ahead, mut changed) = (0, 0);
    for seed in 0..20 {
        let (seen, hash) = order_by(seed, Strategy::Pct(u64::MAX));
        assert_eq!((seen.clone(), hash), order_by(seed, Strategy::Pct(u64::MAX)));
        // The first finishes all its rounds before the last has begun.
        ahead += usize::from(
            last(&seen)
                < seen
                    .iter()
                    .position(|s| s == seen.last().expect("some"))
                    .expect("it"),
        );
        changed += usize::from(seen != order_by(seed, Strategy::Pct(4)).0);
    }
    assert!(ahead > 5 && changed > 10, "{ahead} {changed}");
    assert_ne!(
        order_by(1, Strategy::Pct(u64::MAX)).0,
        order_by(2, Strategy::Pct(u64::MAX)).0
    );
}

#[test]
fn a_paused_node_wakes_late() {
    let exec = Exec::new(1);
    let woke = Arc::new(Mutex::new(Vec::new()));
    for node in [1, 2] {
        let (e, w, life) = (exec.clone(), Arc::clone(&woke), exec.life(node));
        exec.spawn(
            life,
            "sleeper",
            Box::pin(async move {
                e.sleep_until(life, 2_000_000_000).await;
                lock(&w).push((node, e.now()));
            }),
        );
    }
    exec.pause(1);
    let (w, woke_by_call) = (exec.clone(), Arc::clone(&woke));
    exec.call_at(exec.life(0), 2_500_000_000, move || {
        w.call_awake(w.life(1), move || lock(&woke_by_call).push((9, 0)));
    });
    let e = exec.clone();
    exec.call_at(exec.life(0), 3_000_000_000, move || e.resume(1));
    assert_eq!(exec.run(Nanos::MAX, |_| {}), Ended::Quiet);
    assert_eq!(*lock(&woke), [(2, 2_000_000_000), (9, 0), (1, 3_000_000_000)]);
}

#[test]
fn a_panic_message_is_kept() {
    let exec = Exec::new(1);
    exec.spawn(
        exec.life(4),
        "fragile",
        Box::pin(async { panic!("it was {}", "cracked") }),
    );
    let Ended::Panicked(life, "fragile", message) = exec.run(Nanos::MAX, |_| {}) else {
        panic!("it goes on");
    };
    assert!(
        life.node == 4 && message.contains("it was cracked") && message.contains("exec/tests.rs"),
        "{message}"
    );
}

#[test]
fn a_kill_drops_futures_at_once_and_silences_timers() {
    struct Dropped(Arc<Mutex<bool>>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            *lock(&self.0) = true;
        }
    }
    let exec = Exec::new(1);
    let flag = Arc::new(Mutex::new(false));
    let guard = Dropped(Arc::clone(&flag));
    let (e, life) = (exec.clone(), exec.life(3));
    exec.spawn(
        life,
        "sleeper",
        Box::pin(async move {
            let _guard = guard;
            e.sleep_until(life, 3_000_000_000).await;
            panic!("it was killed");
        }),
    );
    exec.call_at(life, 2_500_000_000, || panic!("its life is over"));
    let (e, f) = (exec.clone(), Arc::clone(&flag));
    exec.call_at(exec.life(0), 2_000_000_000, move || {
        e.kill(3);
        assert!(*lock(&f), "dropped before anything else runs");
    });
    assert_eq!(exec.run(Nanos::MAX, |_| {}), Ended::Quiet);
}
