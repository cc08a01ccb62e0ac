//! Backoff before the next attempt.

use std::time::Duration;

use brokkr_env::Rng;

/// Doubles from `min` to `max`, plus or minus a fifth, as Kafka's clients do (KIP-580).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    pub min: Duration,
    pub max: Duration,
}

impl Backoff {
    /// The wait after `failures` consecutive failures (at least one).
    pub fn after(&self, failures: u32, rng: &Rng) -> Duration {
        let doubled = self.min.saturating_mul(1 << failures.saturating_sub(1).min(16));
        let base = doubled.min(self.max).as_nanos() as u64;
        Duration::from_nanos(base - base / 5 + rng.below(base / 5 * 2 + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_its_limit() {
        let rng = Rng::from_seed([7; 32]);
        let backoff = Backoff {
            min: Duration::from_millis(100),
            max: Duration::from_millis(1000),
        };
        for (failures, ms) in [(1, 100), (2, 200), (4, 800), (5, 1000), (1000, 1000)] {
            let wait = backoff.after(failures, &rng).as_millis();
            assert!((ms * 8 / 10..=ms * 12 / 10).contains(&wait), "{failures}: {wait}");
        }
    }
}
