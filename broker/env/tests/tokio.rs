//! The contract suite on the real world.
#![expect(
    clippy::disallowed_methods,
    reason = "tests of the real world ask the real world"
)]

mod contract;

use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use brokkr_env::tokio::TokioEnv;
use brokkr_env::{EntryKind, Env, ErrorKind};

/// A fresh directory for a test.
fn scratch(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    if path.exists() {
        std::fs::remove_dir_all(&path).expect("an old directory can be removed");
    }
    path.to_str().expect("a path in UTF-8").to_owned()
}

fn on_tokio<T>(f: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(f)
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

struct Limits {
    dir: String,
}

impl contract::Faults<TokioEnv> for Limits {
    fn limit(&self, bytes: u64) {
        set_file_size_limit(bytes);
    }

    fn unlimit(&self) {
        set_file_size_limit(libc::RLIM_INFINITY);
    }

    /// `fsync` of a pipe fails.
    fn path_that_fails_to_sync(&self) -> String {
        let path = std::ffi::CString::new(format!("{}/pipe", self.dir)).expect("no zero in it");
        // SAFETY: the path is a C string that outlives the call.
        assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
        "pipe".to_owned()
    }
}

fn set_file_size_limit(bytes: u64) {
    let limit = libc::rlimit {
        rlim_cur: bytes,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: the struct outlives the call; ignoring SIGXFSZ makes the limit an error instead of a kill.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit), 0);
    }
}

#[test]
fn files_and_connections() {
    on_tokio(async {
        let env = TokioEnv::new(4);
        let path = scratch("contract");
        let dir = env.open_dir(&path).await.expect("a directory");
        contract::call_order(&dir).await;
        contract::replace(&dir).await;
        contract::lock(&env, &path, &dir).await;
        contract::ranges(&env, &dir, loopback()).await;
        contract::cancelled_reads(&env, loopback()).await;
        contract::poison(&dir, &Limits { dir: path }).await;
    });
}

/// Runs one of this file's tests in a child process, with `BROKKR_CHILD` set.
fn child(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("a test has a path"));
    command
        .args(["--exact", test, "--nocapture"])
        .env("BROKKR_CHILD", scratch(test));
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn child_dir() -> Option<String> {
    std::env::var("BROKKR_CHILD").ok()
}

#[test]
fn a_full_disk() {
    let Some(path) = child_dir() else {
        // The limit applies to the whole process.
        return assert!(child("a_full_disk").status().expect("it runs").success());
    };
    on_tokio(async {
        let env = TokioEnv::new(4);
        let dir = env.open_dir(&path).await.expect("a directory");
        contract::no_space(&dir, &Limits { dir: path.clone() }).await;
    });
}

#[test]
fn a_panic_in_a_task_ends_the_process() {
    if child_dir().is_none() {
        let status = child("a_panic_in_a_task_ends_the_process")
            .status()
            .expect("it runs");
        return assert_eq!(status.signal(), Some(libc::SIGABRT));
    }
    on_tokio(async {
        let env = TokioEnv::new(1);
        env.spawn("broken", async { panic!("an invariant of ours") })
            .await;
    });
}

#[test]
fn kill_releases_the_lock() {
    if let Some(path) = child_dir() {
        on_tokio(async {
            let env = TokioEnv::new(1);
            let dir = env.open_dir(&path).await.expect("a directory");
            dir.lock().await.expect("it is free");
            println!("locked");
            std::future::pending::<()>().await;
        });
    }
    on_tokio(async {
        let mut command = child("kill_releases_the_lock");
        let path = scratch("kill_releases_the_lock");
        let mut holder = command
            .env("BROKKR_CHILD", &path)
            .stdout(Stdio::piped())
            .spawn()
            .expect("it runs");
        let mut lines =
            std::io::BufRead::lines(std::io::BufReader::new(holder.stdout.take().expect("its output")));
        assert!(lines.any(|l| l.expect("a line").contains("locked")));
        let env = TokioEnv::new(1);
        let dir = env.open_dir(&path).await.expect("a directory");
        assert!(dir.lock().await.is_err(), "another process has it");
        holder.kill().expect("it lives");
        holder.wait().expect("it is dead");
        dir.lock().await.expect("its death released it");
    });
}

/// Apache Kafka takes a Java `FileLock`, which is a POSIX record lock.
#[tokio::test]
async fn the_lock_conflicts_with_a_record_lock() {
    let env = TokioEnv::new(2);
    let path = format!("{}/record-lock", env!("CARGO_TARGET_TMPDIR"));
    let dir = env.open_dir(&path).await.expect("opened");
    let file = std::fs::File::create(format!("{path}/.lock")).expect("made");
    rustix::fs::fcntl_lock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)
        .expect("nobody has it");
    assert_eq!(dir.lock().await.map_err(|e| e.kind()), Err(ErrorKind::InUse));
    drop(file);
    dir.lock().await.expect("nobody has it any more");
}

/// An unmounted file system leaves an empty directory, or another broker's directory, at its path.
#[tokio::test]
async fn a_directory_that_is_another_than_was_locked_is_not_written() {
    let env = TokioEnv::new(2);
    let path = format!("{}/another-directory", env!("CARGO_TARGET_TMPDIR"));
    let away = format!("{path}-away");
    for replaced_by in ["nothing", "an empty one", "one with a lock"] {
        for old in [&path, &away] {
            drop(std::fs::remove_dir_all(old));
        }
        let dir = env.open_dir(&path).await.expect("opened");
        dir.create_dir("t-0").await.expect("not locked yet");
        dir.lock().await.expect("nobody has it");
        dir.create_dir("t-1")
            .await
            .expect("it is the one that was locked");
        std::fs::rename(&path, &away).expect("renamed");
        let left: &[&str] = match replaced_by {
            "one with a lock" => &[".lock"],
            _ => &[],
        };
        if replaced_by != "nothing" {
            std::fs::create_dir(&path).expect("made");
        }
        for file in left {
            std::fs::write(format!("{path}/{file}"), "").expect("written");
        }
        // The first operation after the change is refused, whichever it is.
        let gone = match replaced_by {
            "nothing" => dir.create_dir("t-2").await,
            _ => dir.replace("c", bytes::Bytes::from_static(b"v")).await,
        };
        assert_eq!(gone.map_err(|e| e.kind()), Err(ErrorKind::Lost), "{replaced_by}");
        assert!(dir.poisoned().is_some(), "{replaced_by}");
        if replaced_by != "nothing" {
            let names = std::fs::read_dir(&path).expect("there");
            let names: Vec<_> = names.map(|e| e.expect("an entry").file_name()).collect();
            assert_eq!(names, left, "{replaced_by}");
        }
    }
}

#[tokio::test]
async fn a_link_to_a_folder_is_a_folder() {
    let env = TokioEnv::new(2);
    let root = format!("{}/link", env!("CARGO_TARGET_TMPDIR"));
    drop(std::fs::remove_dir_all(&root));
    std::fs::create_dir_all(format!("{root}/elsewhere")).expect("made");
    let dir = env.open_dir(&format!("{root}/data")).await.expect("opened");
    std::os::unix::fs::symlink("../elsewhere", format!("{root}/data/t-0")).expect("made");
    std::os::unix::fs::symlink("nowhere", format!("{root}/data/lost")).expect("made");
    dir.replace("t-0/f", bytes::Bytes::from_static(b"v"))
        .await
        .expect("written");
    let kinds = dir
        .list("")
        .await
        .expect("listed")
        .into_iter()
        .map(|e| (e.name, e.kind));
    let expected = [
        ("lost".to_owned(), EntryKind::File),
        ("t-0".to_owned(), EntryKind::Dir),
    ];
    assert_eq!(kinds.collect::<Vec<_>>(), expected);
    dir.remove("t-0/f").await.expect("removed");
    dir.remove_dir("t-0").await.expect("removed");
    assert_eq!(dir.list("").await.expect("listed").len(), 1);
}
