//! The real binary: its command line, its line of output, its exit, and its files.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests of the real world: processes, sockets, directories"
)]

mod common;

use std::net::TcpListener;

use brokkr_wire::ErrorCode;
use common::{brokkr, file_states, fresh_dir, output, running, start, start_error, text, wait_until};
use rustix::process::{Signal, kill_process};

#[test]
fn the_ready_line_has_the_address_and_the_time_and_a_signal_stops_cleanly() {
    let dir = fresh_dir("binary-ready");
    let broker = start(&dir, &[]);
    let words: Vec<_> = broker.ready.trim_end().split(' ').collect();
    let ["ready", addr, "in", ms, "ms"] = words[..] else {
        panic!("{}", broker.ready)
    };
    let ms: u64 = ms.parse().expect("a number");
    assert!(ms < 60_000, "{ms}");
    assert!(
        addr.strip_prefix("127.0.0.1:").is_some_and(|port| port != "0"),
        "{addr}"
    );
    assert_eq!(broker.client().create("t", 1, &[]), (ErrorCode::NONE, None));
    let (status, rest, log) = broker.terminate();
    assert_eq!((status.code(), rest.as_str(), log.as_str()), (Some(0), "", ""));
}

#[test]
fn a_start_scans_logs_after_a_kill_and_not_after_a_clean_stop() {
    let dir = fresh_dir("binary-restarts");
    let first = start(&dir, &["--log", "info"]);
    let mut client = first.client();
    client.create("t", 2, &[]);
    for i in 0..10u8 {
        assert_eq!(client.produce("t", i32::from(i % 2), &[i]).error_code, 0);
    }
    let (status, _, log) = first.terminate();
    assert!(status.success() && !log.contains("scan"), "{log}");

    let second = start(&dir, &["--log", "info"]);
    let mut client = second.client();
    assert!(!second.log().contains("recovered"), "{}", second.log());
    let values = |client: &mut common::Client, partition: i32| -> Vec<u8> {
        let (records, _) = client.read("t", partition, 0).expect("served");
        records.iter().map(|(_, value)| value[0]).collect()
    };
    assert_eq!(values(&mut client, 1), [1, 3, 5, 7, 9]);
    for i in 10..14u8 {
        assert_eq!(client.produce("t", 1, &[i]).base_offset, i64::from(i) - 5);
    }
    second.kill();

    let third = start(&dir, &["--log", "info"]);
    let mut client = third.client();
    wait_until("the log is recovered", || {
        third.log().contains("recovered log=\"t-1\"")
    });
    assert_eq!(values(&mut client, 1), [1, 3, 5, 7, 9, 10, 11, 12, 13]);
    assert_eq!(values(&mut client, 0), [0, 2, 4, 6, 8]);
}

#[test]
fn a_directory_serves_one_process() {
    let dir = fresh_dir("binary-twice");
    let first = start(&dir, &[]);
    first.client().create("t", 1, &[]);
    // Suspended, so that it changes nothing itself.
    kill_process(first.pid(), Signal::STOP).expect("it lives");
    let before = file_states(&dir);
    let why = start_error(&["--data-dir", text(&dir), "--listen", "127.0.0.1:0"]);
    let after = file_states(&dir);
    kill_process(first.pid(), Signal::CONT).expect("it lives");
    assert_eq!(
        why,
        (
            1,
            format!("brokkr: log directory {}: another process uses it", text(&dir))
        )
    );
    assert_eq!(before, after);
    assert_eq!(first.client().partitions("t"), Ok(1));
    first.kill();
    // The lock is released when its owner dies.
    assert_eq!(start(&dir, &[]).client().partitions("t"), Ok(1));
}

#[test]
fn the_content_of_the_lock_file_does_not_matter() {
    let dir = fresh_dir("binary-lock-file");
    let first = start(&dir, &[]);
    first.client().create("t", 1, &[]);
    assert!(first.terminate().0.success());
    let lock = dir.join(".lock");
    for content in [None, Some(&b""[..]), Some(&[0; 600]), Some(b"4711\n")] {
        match content {
            Some(content) => std::fs::write(&lock, content).expect("written"),
            None => std::fs::remove_file(&lock).expect("removed"),
        }
        let broker = start(&dir, &[]);
        assert_eq!(broker.client().partitions("t"), Ok(1), "{content:?}");
        assert_eq!(
            start_error(&["--data-dir", text(&dir), "--listen", "127.0.0.1:0"]).0,
            1,
            "{content:?}"
        );
        broker.kill();
    }
}

#[test]
fn a_directory_of_another_node_is_rejected_unchanged() {
    let dir = fresh_dir("binary-node");
    let (status, _, _) = start(&dir, &["--set", "node.id=3"]).terminate();
    assert!(status.success());
    let before = file_states(&dir);
    let why = start_error(&["--data-dir", text(&dir), "--listen", "127.0.0.1:0"]);
    let said = format!(
        "brokkr: log directory {}: meta.properties belongs to node.id 3, but this is node.id 1",
        text(&dir)
    );
    assert_eq!(why, (1, said));
    assert_eq!(before, file_states(&dir));
}

#[test]
fn an_unwritable_directory_is_rejected() {
    let file = fresh_dir("binary-file");
    std::fs::create_dir_all(file.parent().expect("it has one")).expect("made");
    std::fs::write(&file, "in the way").expect("written");
    let below = file.join("data");
    // Not even root may create a directory in /proc.
    for dir in [text(&file), text(&below), "/proc/brokkr"] {
        let (status, why) = start_error(&["--data-dir", dir, "--listen", "127.0.0.1:0"]);
        assert!(
            status == 1 && why.starts_with(&format!("brokkr: log directory {dir}: ")),
            "{status}: {why}"
        );
    }
    assert_eq!(std::fs::read_to_string(&file).expect("it is there"), "in the way");
    std::fs::remove_file(&file).expect("removed");
}

#[test]
fn an_unavailable_address_is_rejected_before_anything_is_created() {
    let dir = fresh_dir("binary-port");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let busy = taken.local_addr().expect("it has one").to_string();
    // 192.0.2.1 belongs to no machine (RFC 5737); an empty label is not a valid name.
    for (addr, said) in [
        (busy.as_str(), "Address already in use"),
        ("192.0.2.1:0", "Cannot assign requested address"),
        ("..:1", "failed to lookup address"),
    ] {
        let (status, why) = start_error(&["--data-dir", text(&dir), "--listen", addr]);
        let begin = format!("brokkr: can't listen on {addr}: ");
        assert!(
            status == 1 && why.starts_with(&begin) && why.contains(said),
            "{status}: {why}"
        );
        assert!(!dir.exists());
    }
}

#[test]
fn an_invalid_configuration_is_one_line() {
    let dir = fresh_dir("binary-usage");
    let file = fresh_dir("binary-usage.properties");
    std::fs::write(&file, "num.partitions=2\nlog.retention.houres=1\n").expect("written");
    let missing = fresh_dir("binary-usage.missing");
    let cases: [(&[&str], String); 9] = [
        (
            &["--set", "num.partition=2"],
            "unknown configuration key num.partition; did you mean num.partitions?".into(),
        ),
        (&["--set", "zzz=2"], "unknown configuration key zzz".into()),
        (
            &["--set", "num.partitions=two"],
            "Invalid value two for configuration num.partitions: Not a number of type INT".into(),
        ),
        (
            &["--set", "num.partitions=0"],
            "Invalid value 0 for configuration num.partitions: Value must be at least 1".into(),
        ),
        (
            &["--set", "num.partitions"],
            "--set num.partitions: not of the form key=value".into(),
        ),
        (
            &["--listen", "9092"],
            "--listen 9092: not of the form HOST:PORT".into(),
        ),
        (
            &["--log", "no=such=level"],
            "--log no=such=level: error parsing level filter: expected one of \"off\", \"error\", \"warn\", \"info\", \"debug\", \
             \"trace\", or a number 0-5"
                .into(),
        ),
        (
            &["--config", text(&file)],
            "unknown configuration key log.retention.houres; did you mean log.retention.hours?".into(),
        ),
        (
            &["--config", text(&missing)],
            format!("{}: No such file or directory (os error 2)", text(&missing)),
        ),
    ];
    for (args, said) in cases {
        let all: Vec<_> = ["--data-dir", text(&dir)].iter().chain(args).copied().collect();
        assert_eq!(start_error(&all), (2, format!("brokkr: {said}")));
        assert!(!dir.exists(), "{args:?}");
    }
    std::fs::remove_file(&file).expect("removed");
}

#[test]
fn an_unimplemented_setting_gives_a_warning() {
    let dir = fresh_dir("binary-warning");
    let broker = start(
        &dir,
        &["--set", "background.threads=3", "--set", "num.partitions=2"],
    );
    let (status, _, log) = broker.terminate();
    assert!(status.success());
    assert!(
        log.lines().count() == 1
            && log.contains("WARN")
            && log.contains("background.threads has no effect: it is not implemented yet"),
        "{log}"
    );
    assert!(!log.contains('\u{1b}'), "no colours in a file: {log:?}");
}

#[test]
fn flags_override_sets_and_sets_override_the_file_with_and_without_serve() {
    let dir = fresh_dir("binary-config");
    let file = fresh_dir("binary-config.properties");
    let elsewhere = fresh_dir("binary-config-elsewhere");
    let properties = format!(
        "# as Kafka's\nnum.partitions = 3\nlog.dirs={}\nlisteners=PLAINTEXT://127.0.0.1:0\nmessage.max.bytes=2000\n",
        text(&elsewhere)
    );
    std::fs::write(&file, properties).expect("written");
    let of_file = ["--config", text(&file)];
    let over = [
        "--set",
        "num.partitions=4",
        "--data-dir",
        text(&dir),
        "--listen",
        "localhost:0",
    ];

    let plain = running(brokkr().args(of_file), &elsewhere);
    let mut client = plain.client();
    client.create("t", -1, &[]);
    assert_eq!(client.partitions("t"), Ok(3));
    assert_eq!(
        ErrorCode(client.produce("t", 0, &[0; 3000]).error_code),
        ErrorCode::MESSAGE_TOO_LARGE
    );
    assert!(elsewhere.join("t-2").is_dir() && !dir.exists());

    let serve = running(brokkr().arg("serve").args(of_file).args(over), &dir);
    let mut client = serve.client();
    client.create("t", -1, &[]);
    assert_eq!(client.partitions("t"), Ok(4));
    assert!(dir.join("t-3").is_dir());
    std::fs::remove_file(&file).expect("removed");
}

#[test]
fn help_version_and_completions() {
    let (status, help, stderr) = output(brokkr().arg("--help"));
    assert_eq!((status, stderr.as_str()), (Some(0), ""));
    for word in [
        "serve",
        "completions",
        "--config",
        "--set",
        "--data-dir",
        "--listen",
        "--log",
    ] {
        assert!(help.contains(word), "{word} in {help}");
    }
    let (status, version, _) = output(brokkr().arg("--version"));
    assert_eq!(
        (status, version),
        (Some(0), format!("brokkr {}\n", env!("CARGO_PKG_VERSION")))
    );
    for (shell, word) in [
        ("bash", "complete -F _brokkr"),
        ("zsh", "#compdef brokkr"),
        ("fish", "complete -c brokkr"),
        ("elvish", "edit:completion"),
        ("powershell", "Register-ArgumentCompleter"),
    ] {
        let (status, script, stderr) = output(brokkr().args(["completions", shell]));
        assert_eq!((status, stderr.as_str()), (Some(0), ""));
        assert!(
            script.contains(word) && script.contains("data-dir"),
            "{shell}: {script}"
        );
    }
    let (status, _, stderr) = output(brokkr().arg("--no-such-flag"));
    assert_eq!(status, Some(2));
    assert!(stderr.contains("--no-such-flag"), "{stderr}");
}
