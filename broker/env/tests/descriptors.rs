//! Operations fail while the process has no free descriptors, and succeed as soon as it has. Runs alone in its process,
//! because it lowers the process's limit.
#![expect(
    clippy::disallowed_methods,
    reason = "tests of the real world ask the real world"
)]

use brokkr_env::tokio::TokioEnv;
use brokkr_env::{Env, ErrorKind};

/// Sets the process's limit of descriptors; returns the old limit.
fn limit(max: u64) -> u64 {
    let before = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let now = rustix::process::Rlimit {
        current: Some(max),
        maximum: before.maximum,
    };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, now).expect("it may be lowered");
    before.current.expect("there is a limit")
}

#[tokio::test]
async fn operations_without_descriptors_fail_and_poison_nothing() {
    let env = TokioEnv::new(2);
    let path = format!("{}/descriptors", env!("CARGO_TARGET_TMPDIR"));
    let _ = std::fs::remove_dir_all(&path);
    let dir = env.open_dir(&path).await.expect("opened");
    dir.lock().await.expect("locked");
    dir.create_dir("t-0").await.expect("made");
    let file = dir.create("t-0/a").await.expect("made");
    file.write_at(0, vec![vec![1; 10].into()]).await.expect("written");
    let before = limit(3);
    let created = dir.create("t-0/b").await.map(drop);
    let replaced = dir.replace("t-0/c", vec![1].into()).await;
    let listed = dir.list("t-0").await.map(drop);
    let made = dir.create_dir("t-1").await;
    let entry = file.sync().await.map(|proof| proof.len());
    let synced = dir.sync_dir("").await;
    file.write_at(10, vec![vec![1; 10].into()])
        .await
        .expect("a file that is open needs none");
    limit(before);
    for (what, result) in [("create", created), ("replace", replaced), ("list", listed)] {
        let kind = result.map_err(|e| e.kind());
        assert_eq!(kind, Err(ErrorKind::Resources), "{what}");
    }
    made.expect("a directory needs none");
    for result in [entry.map(drop), synced] {
        assert!(result.is_ok() || result.is_err_and(|e| e.kind() == ErrorKind::Resources));
    }
    assert_eq!(dir.poisoned(), None);
    dir.replace("t-0/c", vec![1].into())
        .await
        .expect("now there are some");
    dir.sync_dir("").await.expect("and for this");
    assert_eq!(file.sync().await.expect("and for this").len(), 20);
}
