//! The model on real files: several lives, each ended by dropping the log at some point.

mod common;
mod model;

use brokkr_env::tokio::TokioEnv;
use brokkr_log::LogConfig;
use model::{Model, life};

#[tokio::test]
async fn lives_on_real_files() {
    let config = LogConfig {
        segment_bytes: 1500,
        index_interval_bytes: 200,
        file_delete_delay_ms: 0,
        retention_ms: -1,
        ..LogConfig::default()
    };
    for seed in 0..3 {
        common::fresh(&format!("model_{seed}")).await;
        let path = format!("{}/model_{seed}", env!("CARGO_TARGET_TMPDIR"));
        let model = Model::new(config.clone(), |_| {});
        for n in 0..6 {
            life(TokioEnv::new(2), path.clone(), model.clone(), seed * 100 + n, 150).await;
        }
        let reached = model.reached();
        for what in [
            "recovery",
            "clean start",
            "truncated",
            "segments retired",
            "start raised",
        ] {
            assert!(
                reached.contains_key(what),
                "seed {seed} never reached {what:?}: {reached:?}"
            );
        }
    }
}
