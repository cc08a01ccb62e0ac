//! The operator's view: configuration files as editors write them, addresses, invalid directories, signals.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests of the real world: processes, sockets, directories"
)]

mod common;

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use brokkr_metadata::snapshot::{self, SnapshotId};
use brokkr_types::{UnixMillis, Uuid};
use brokkr_wire::ErrorCode;
use brokkr_wire::messages::MetadataRequest;
use brokkr_wire::messages::voters_record::{Voter, VotersRecord};
use common::{
    Client, Running, brokkr, file_states, fresh_dir, output, running, start, start_error, text, wait_until,
    without_metrics,
};
use rustix::process::{Signal, kill_process};

const SOMEWHERE: [&str; 2] = ["--listen", "127.0.0.1:0"];

/// A directory in which a broker ran and was stopped.
fn used_dir(name: &str) -> std::path::PathBuf {
    let dir = fresh_dir(name);
    assert!(start(&dir, &[]).terminate().0.success());
    dir
}

/// The error of a start in `dir`, which must leave the directory unchanged.
fn start_error_in(dir: &Path) -> (i32, String) {
    let before = file_states(dir);
    let why = start_error(&[&["--data-dir", text(dir)], &SOMEWHERE[..]].concat());
    assert_eq!(before, file_states(dir), "{why:?}");
    why
}

#[test]
fn a_file_with_bom_and_crlf() {
    let (dir, file) = (fresh_dir("operator-file"), fresh_dir("operator-file.properties"));
    let properties =
        "\u{feff}num.partitions=2\r\n# a comment\r\nlisteners=\\\r\n    PLAINTEXT\\u003a//127.0.0.1:0\r\n\
                      num.partitions = 3\r\nlog.dirs=D\r\n"
            .replace("D\r", &format!("{}\r", text(&dir)));
    std::fs::write(&file, properties).expect("written");
    let broker = running(brokkr().args(["--config", text(&file)]), &dir);
    let mut client = broker.client();
    assert_eq!(client.create("t", -1, &[]).0, ErrorCode::NONE);
    assert_eq!(client.partitions("t"), Ok(3), "the last line of a key counts");
    drop(broker);
    // On the command line the last value counts as well, and overrides the file.
    let sets = ["--set", "num.partitions=7", "--set", "num.partitions=5"];
    let broker = running(brokkr().args(["--config", text(&file)]).args(sets), &dir);
    let mut client = broker.client();
    assert_eq!(client.create("u", -1, &[]).0, ErrorCode::NONE);
    assert_eq!(client.partitions("u"), Ok(5));
    std::fs::remove_file(&file).expect("removed");
}

#[test]
fn an_unreadable_file_is_one_line() {
    let (dir, file) = (
        fresh_dir("operator-usage"),
        fresh_dir("operator-usage.properties"),
    );
    std::fs::write(&file, b"broker.rack=caf\xe9\n").expect("written");
    let folder = file.parent().expect("it has one");
    let cases: [(&[&str], String); 9] = [
        (
            &["--listen", "127.0.0.1:65536"],
            "--listen 127.0.0.1:65536: a port is a number from 0 to 65535".into(),
        ),
        (
            &["--listen", "127.0.0.1:+1"],
            "--listen 127.0.0.1:+1: a port is a number from 0 to 65535".into(),
        ),
        (
            &["--listen", "::1:9092"],
            "--listen ::1:9092: an IPv6 address stands in brackets, as in [::1]:9092".into(),
        ),
        (
            &["--set", "listeners=PLAINTEXT://127.0.0.1:65536"],
            "listeners: \"PLAINTEXT://127.0.0.1:65536\": a port is a number from 0 to 65535".into(),
        ),
        (
            &["--set", "listeners="],
            "Configuration 'listeners' must not be empty. Valid values include: any non-empty value".into(),
        ),
        (
            &["--set", "advertised.listeners=PLAINTEXT://0.0.0.0:9092"],
            "advertised.listeners: 0.0.0.0 is no address that clients can connect to".into(),
        ),
        (
            &["--set", "node.id=1", "--set", "broker.id=2"],
            "node.id is 1; broker.id must be the same, or not be set".into(),
        ),
        (
            &["--config", text(&file)],
            format!("{}: stream did not contain valid UTF-8", text(&file)),
        ),
        (
            &["--config", text(folder)],
            format!("{}: Is a directory (os error 21)", text(folder)),
        ),
    ];
    for (args, said) in cases {
        let all = [&["--data-dir", text(&dir)], args].concat();
        assert_eq!(start_error(&all), (2, format!("brokkr: {said}")));
        assert!(!dir.exists(), "{args:?}");
    }
    let dirs = [
        ("--set log.dirs=a,./a", "log.dirs has ./a twice"),
        (
            "--data-dir a,,b",
            "Configuration 'log.dir' values must not be empty.",
        ),
        (
            "--data-dir a/b,a",
            "log directory a/b is inside of log directory a: each must be by itself",
        ),
    ];
    for (dirs, said) in dirs {
        let refused = start_error(&dirs.split(' ').collect::<Vec<_>>());
        assert_eq!(refused, (2, format!("brokkr: {said}")));
    }
    std::fs::remove_file(&file).expect("removed");
}

/// The endpoint that Metadata returns at `addr`.
fn advertised_endpoint(addr: &str) -> (String, i32) {
    let request = MetadataRequest {
        topics: Some(Vec::new()),
        ..Default::default()
    };
    let broker = Client::connect(addr).call(&request, 12).brokers.remove(0);
    (broker.host.to_string(), broker.port)
}

#[test]
fn each_listener_advertises_its_own_endpoint() {
    let dir = fresh_dir("operator-listeners");
    let sets = [
        "listeners=IN://127.0.0.1:0,OUT://localhost:0",
        "listener.security.protocol.map=IN:PLAINTEXT,OUT:PLAINTEXT",
        "advertised.listeners=OUT://broker.example:7777",
    ];
    let mut command = brokkr();
    command.args(["--data-dir", text(&dir)]);
    command.args(sets.iter().flat_map(|set| ["--set", *set]));
    let broker = running(&mut command, &dir);
    let addrs: Vec<&str> = broker.addr.split(',').collect();
    assert_eq!(addrs.len(), 2, "{}", broker.ready);
    let port = |addr: &str| {
        addr.rsplit_once(':')
            .and_then(|(_, port)| port.parse().ok())
            .expect("a port")
    };
    assert_eq!(
        advertised_endpoint(addrs[0]),
        ("127.0.0.1".to_owned(), port(addrs[0]))
    );
    assert_eq!(advertised_endpoint(addrs[1]), ("broker.example".to_owned(), 7777));
}

#[test]
fn ipv6_addresses_have_brackets() {
    // If the machine has IPv6.
    if TcpListener::bind("[::1]:0").is_err() {
        return;
    }
    let dir = fresh_dir("operator-ipv6");
    let mut command = brokkr();
    command.args(["--data-dir", text(&dir), "--listen", "[::1]:0"]);
    let broker = running(&mut command, &dir);
    assert!(broker.addr.starts_with("[::1]:"), "{}", broker.ready);
    assert_eq!(advertised_endpoint(&broker.addr).0, "::1");
}

#[test]
fn a_directory_may_be_relative_have_spaces_or_be_behind_a_link() {
    let (home, link) = (fresh_dir("operator dirs"), fresh_dir("operator-link"));
    std::fs::create_dir_all(&home).expect("made");
    let serve = |dir: &str| {
        let mut command = brokkr();
        command
            .current_dir(&home)
            .args(["--data-dir", dir])
            .args(SOMEWHERE);
        running(&mut command, &home)
    };
    let broker = serve("in here/data");
    assert_eq!(broker.client().create("t", 1, &[]).0, ErrorCode::NONE);
    assert!(broker.terminate().0.success() && home.join("in here/data/t-0").is_dir());
    std::os::unix::fs::symlink(home.join("in here"), &link).expect("made");
    let broker = serve(&format!("{}/data/", text(&link)));
    assert_eq!(broker.client().partitions("t"), Ok(1));
    // All names lead to one directory.
    let (status, why) = start_error(&["--data-dir", text(&home.join("in here/data"))]);
    assert!(status == 1 && why.ends_with("another process uses it"), "{why}");
    drop(broker);
    std::fs::remove_file(&link).expect("removed");
    std::os::unix::fs::symlink(home.join("nowhere"), &link).expect("made");
    let why = start_error(&["--data-dir", text(&link)]);
    assert_eq!(
        why,
        (
            1,
            format!("brokkr: log directory {}: it is no directory", text(&link))
        )
    );
    std::fs::remove_file(&link).expect("removed");
}

#[test]
fn a_directory_with_invalid_files_is_rejected_unchanged() {
    let dir = used_dir("operator-meta");
    let at = text(&dir).to_owned();
    let meta = dir.join("meta.properties");
    let good = std::fs::read_to_string(&meta).expect("it is there");
    let line = |key: &str| {
        let line = good.lines().find(|l| l.starts_with(key));
        line.expect("it is there").to_owned()
    };
    let other = Uuid::from_random([9; 16]);
    let ours = line("directory.id=").replace("directory.id=", "");
    let cases = [
        (
            "garbage".to_owned(),
            "meta.properties: malformed line \"garbage\"".to_owned(),
        ),
        (String::new(), "meta.properties: no version".to_owned()),
        (
            good.replace(&line("cluster.id="), ""),
            "meta.properties: no cluster.id".to_owned(),
        ),
        (
            good.replace(&line("directory.id="), ""),
            format!(
                "meta.properties has no directory.id, but the cluster metadata beside it is of directory {ours} \
                 (00000000000000000000-0000000000.checkpoint)"
            ),
        ),
        (
            good.replace("version=1", "version=0"),
            "meta.properties: version 0, 1 expected: format the directory for KRaft".to_owned(),
        ),
        (
            good.replace("node.id=1", "node.id=2"),
            "meta.properties belongs to node.id 2, but this is node.id 1".to_owned(),
        ),
        (
            // As in another cluster's directory.
            good.replace(&ours, &other.to_string()),
            format!(
                "meta.properties is of directory {other}, but the cluster metadata beside it is of directory {ours} \
                 (00000000000000000000-0000000000.checkpoint)"
            ),
        ),
    ];
    for (content, said) in cases {
        std::fs::write(&meta, content).expect("written");
        assert_eq!(
            start_error_in(&dir),
            (1, format!("brokkr: log directory {at}: {said}"))
        );
    }
    std::fs::remove_file(&meta).expect("removed");
    let said = "it has logs (__cluster_metadata-0), but no meta.properties: put that back from a backup";
    assert_eq!(
        start_error_in(&dir),
        (1, format!("brokkr: log directory {at}: {said}"))
    );
    std::fs::write(&meta, good).expect("written");
    assert!(start(&dir, &[]).terminate().0.success());
}

/// Formats a directory as Apache Kafka does.
fn format_like_kafka(dir: &Path) {
    for entry in std::fs::read_dir(dir).expect("listed") {
        let path = entry.expect("listed").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if name.starts_with("brokkr-") || name.ends_with("-checkpoint") {
            std::fs::remove_file(&path).expect("removed");
        }
    }
    std::fs::remove_file(dir.join("__cluster_metadata-0/brokkr-manifest")).expect("removed");
    std::fs::write(dir.join("bootstrap.checkpoint"), "").expect("written");
}

#[test]
fn apache_kafkas_directory_is_taken_over_unless_it_has_transactions() {
    let dir = used_dir("operator-kafkas");
    format_like_kafka(&dir);
    let transactions = dir.join("__transaction_state-0");
    std::fs::create_dir(&transactions).expect("made");
    let said = "Apache Kafka kept transactions in it, which are not served yet";
    assert_eq!(
        start_error_in(&dir),
        (1, format!("brokkr: log directory {}: {said}", text(&dir)))
    );
    std::fs::remove_dir(&transactions).expect("removed");

    let (status, _, log) = start(&dir, &[]).terminate();
    let said = format!(
        "log directory {} was made by Apache Kafka and is taken over",
        text(&dir)
    );
    assert!(
        status.success() && log.lines().count() == 1 && log.contains(&said),
        "{log}"
    );
    let (status, _, log) = start(&dir, &[]).terminate();
    assert!(status.success() && log.is_empty(), "{log}");
}

#[test]
fn a_directory_of_a_larger_cluster_is_rejected_unchanged() {
    let dir = used_dir("operator-voters");
    let voter = |voter_id| Voter {
        voter_id,
        voter_directory_id: Uuid::from_random([7; 16]),
        ..Default::default()
    };
    let voters = VotersRecord {
        voters: vec![voter(1), voter(2), voter(3)],
        ..Default::default()
    };
    let snapshot = snapshot::bootstrap(&voters, UnixMillis(1)).expect("encodable");
    let metadata = dir.join("__cluster_metadata-0");
    let path = metadata.join(snapshot::SnapshotId::BOOTSTRAP.file_name());
    std::fs::remove_file(&path).expect("removed");
    std::fs::write(&path, &snapshot[..]).expect("written");
    let said = "its cluster has other controllers (node 2, 3); only a cluster of one node is served yet";
    assert_eq!(
        start_error_in(&dir),
        (1, format!("brokkr: log directory {}: {said}", text(&dir)))
    );
}

/// Whether this line of a process's status (`SigIgn`, `SigCgt`) contains a signal. The process is `self`, or a pid.
fn has_signal(process: &str, line: &str, signal: Signal) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it lives");
    let mask = status
        .lines()
        .find_map(|l| l.strip_prefix(line)?.strip_prefix(':'));
    let mask = u64::from_str_radix(mask.expect("it is there").trim(), 16).expect("a mask");
    mask >> (signal.as_raw() - 1) & 1 == 1
}

#[test]
fn each_stop_signal_stops_cleanly() {
    let dir = fresh_dir("operator-signals");
    // Under nohup the tests ignore it, and so do their children.
    let hangs_up = !has_signal("self", "SigIgn", Signal::HUP);
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        if signal == Signal::HUP && !hangs_up {
            continue;
        }
        let broker = start(&dir, &["--log", "info"]);
        let (status, _, log) = broker.send_signals(&[signal]);
        assert!(status.success() && !log.contains("WARN"), "{signal:?}: {log}");
        assert!(dir.join(".kafka_cleanshutdown").exists(), "{signal:?}");
    }
    // A terminal sends SIGHUP along with another signal; a repeated signal means that the user does not want to wait.
    assert!(
        start(&dir, &[])
            .send_signals(&[Signal::HUP, Signal::TERM])
            .0
            .code()
            .is_some()
    );
    let (status, _, log) = start(&dir, &[]).send_signals(&[Signal::TERM, Signal::HUP]);
    assert!(status.success(), "{status}: {log}");
    let (status, _, log) = start(&dir, &[]).send_signals(&[Signal::TERM, Signal::INT]);
    assert_eq!(status.code(), Some(1));
    assert_eq!(log, "brokkr: second stop signal: not stopped cleanly\n");
    assert!(start(&dir, &[]).terminate().0.success());
}

#[test]
fn under_nohup_a_hangup_is_ignored() {
    let dir = fresh_dir("operator-nohup");
    let mut command = Command::new("sh");
    command.args([
        "-c",
        "trap '' HUP; exec \"$@\"",
        "sh",
        env!("CARGO_BIN_EXE_brokkr"),
    ]);
    command.args(["--data-dir", text(&dir)]).args(SOMEWHERE);
    let broker = running(&mut command, &dir);
    kill_process(broker.pid(), Signal::HUP).expect("it lives");
    assert_eq!(broker.client().create("t", 1, &[]).0, ErrorCode::NONE);
    assert!(broker.terminate().0.success());
}

/// A pipe without a reader.
fn closed_pipe() -> Stdio {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    writer.into()
}

#[test]
fn closed_pipes_do_not_matter() {
    let dir = fresh_dir("operator-closed");
    let addr = TcpListener::bind("127.0.0.1:0")
        .and_then(|l| l.local_addr())
        .expect("a free port")
        .to_string();
    let mut command = brokkr();
    command
        .args(["--data-dir", text(&dir), "--listen", &addr])
        .stdin(Stdio::null());
    let mut child = without_metrics(&mut command)
        .stdout(closed_pipe())
        .stderr(closed_pipe())
        .spawn()
        .expect("it runs");
    wait_until("it listens", || std::net::TcpStream::connect(&addr).is_ok());
    assert_eq!(Client::connect(&addr).create("t", 1, &[]).0, ErrorCode::NONE);
    kill_process(rustix::process::Pid::from_child(&child), Signal::TERM).expect("it lives");
    assert!(child.wait().expect("it ends").success());
    for (args, code) in [
        (&["--set", "zzz=1"][..], 2),
        (&["--data-dir", "/dev/null", "--listen", "127.0.0.1:0"], 1),
        (&["completions", "bash"], 0),
        (&["--help"], 0),
    ] {
        let status = brokkr()
            .args(args)
            .stdin(Stdio::null())
            .stdout(closed_pipe())
            .stderr(closed_pipe())
            .status();
        assert_eq!(status.expect("it runs").code(), Some(code), "{args:?}");
    }
    let (status, _, log) = output(brokkr().args(["completions", "bash"]).env("RUST_BACKTRACE", "0"));
    assert_eq!((status, log.as_str()), (Some(0), ""));
}

#[test]
fn a_signal_stops_it_while_it_starts() {
    let dir = fresh_dir("operator-starting");
    // This makes the start slow.
    let broker = start(&dir, &[]);
    assert_eq!(broker.client().create("t", 300, &[]).0, ErrorCode::NONE);
    broker.kill();
    wait_until("it was still starting", || {
        let mut command = brokkr();
        command.args(["--data-dir", text(&dir)]).args(SOMEWHERE);
        without_metrics(&mut command)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = command.spawn().expect("it runs");
        let pid = rustix::process::Pid::from_child(&child);
        while !has_signal(&child.id().to_string(), "SigCgt", Signal::TERM) {
            std::thread::yield_now();
        }
        kill_process(pid, Signal::TERM).expect("it lives");
        let out = child.wait_with_output().expect("it ends");
        assert!(out.status.success(), "{}", out.status);
        out.stdout.is_empty() && String::from_utf8_lossy(&out.stderr).contains("stopped while starting")
    });
    assert_eq!(start(&dir, &[]).client().partitions("t"), Ok(300));
}

#[test]
fn a_wildcard_listener_binds_both_families_and_advertises_a_host() {
    let has_ipv6 = std::net::TcpListener::bind("[::1]:0").is_ok();
    for (name, host) in [
        ("empty", ""),
        ("v4", "0.0.0.0"),
        ("v6", "[::]"),
        ("long", "[0::0]"),
    ] {
        let dir = fresh_dir(&format!("operator-wildcard-{name}"));
        let listeners = format!("listeners=PLAINTEXT://{host}:0");
        let broker = running(
            brokkr().arg("--data-dir").arg(&dir).args(["--set", &listeners]),
            &dir,
        );
        let (_, port) = broker.addr.rsplit_once(':').expect("an address");
        for loopback in ["127.0.0.1", "[::1]"].iter().take(1 + usize::from(has_ipv6)) {
            let mut client = Client::connect(&format!("{loopback}:{port}"));
            let actual = client.call(&MetadataRequest::default(), 12).brokers.remove(0);
            assert_eq!(actual.port.to_string(), port, "{host}");
            let is_address = actual.host.parse::<std::net::IpAddr>().is_ok();
            assert!(!is_address && !actual.host.is_empty(), "{host}: {}", actual.host);
        }
    }
}

#[test]
fn many_damaged_logs_are_logged_up_to_a_limit_and_then_counted() {
    let dir = fresh_dir("operator-damaged");
    let broker = start(&dir, &[]);
    let client = &mut broker.client();
    assert_eq!(client.create("t", 120, &[]).0, ErrorCode::NONE);
    for partition in 0..120 {
        assert_eq!(client.produce("t", partition, b"kept").error_code, 0);
    }
    assert!(broker.terminate().0.success());
    for partition in 0..120 {
        let another_topic_s = "version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAABw\n";
        std::fs::write(
            dir.join(format!("t-{partition}/partition.metadata")),
            another_topic_s,
        )
        .expect("written");
    }
    let broker = start(&dir, &[]);
    wait_until("the others are counted", || {
        broker.lines_with("still more logs can't be opened") == 1
    });
    assert_eq!(
        broker.lines_with("its log can't be opened; nothing of it was changed"),
        100
    );
}

/// The voter's endpoint in the bootstrap records of a new directory: the listener's name, host and port.
fn voter_of(name: &str, sets: &[&str]) -> (Running, (String, String, u16)) {
    let dir = fresh_dir(name);
    let mut command = brokkr();
    command.args(["--data-dir", text(&dir)]);
    command.args(sets.iter().flat_map(|set| ["--set", *set]));
    let broker = running(&mut command, &dir);
    let first = dir
        .join("__cluster_metadata-0")
        .join(SnapshotId::BOOTSTRAP.file_name());
    let bytes = std::fs::read(first).expect("it is there").into();
    let bootstrap = snapshot::read(&bytes, SnapshotId::BOOTSTRAP, "").expect("whole");
    let mut voters = bootstrap.quorum.voters.expect("it has voters").voters;
    assert_eq!(voters.len(), 1);
    let mut endpoints = voters.remove(0).endpoints;
    assert_eq!(endpoints.len(), 1);
    let endpoint = endpoints.remove(0);
    (
        broker,
        (
            endpoint.name.to_string(),
            endpoint.host.to_string(),
            endpoint.port,
        ),
    )
}

#[test]
fn the_bootstrap_records_have_the_voters_endpoint() {
    let at = |name: &str, host: &str, port| (name.to_owned(), host.to_owned(), port);
    // Without a controller listener it is the client listener, with the port that was bound.
    let (broker, voter) = voter_of("operator-voter", &["listeners=PLAINTEXT://127.0.0.1:0"]);
    let (_, port) = broker.addr.rsplit_once(':').expect("an address");
    assert_eq!(
        voter,
        at("CONTROLLER", "127.0.0.1", port.parse().expect("a port"))
    );
    let own = [
        "listeners=PLAINTEXT://127.0.0.1:0,QUORUM://127.0.0.2:7093",
        "controller.listener.names=QUORUM",
        "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,QUORUM:PLAINTEXT",
    ];
    let (_broker, voter) = voter_of("operator-voter-own", &own);
    assert_eq!(voter, at("QUORUM", "127.0.0.2", 7093));
    let advertised = "advertised.listeners=PLAINTEXT://127.0.0.1:9092,QUORUM://quorum.example:8093";
    let (_broker, voter) = voter_of("operator-voter-advertised", &[&own[..], &[advertised]].concat());
    assert_eq!(voter, at("QUORUM", "quorum.example", 8093));
}

/// Without it the broker would become a new cluster, and a new topic would take the place of an old one of its name.
#[test]
fn a_directory_without_its_metadata_is_rejected_unchanged() {
    for killed in [false, true] {
        let dir = fresh_dir("operator-no-metadata");
        let broker = start(&dir, &[]);
        let client = &mut broker.client();
        assert_eq!(client.create("t", 1, &[]).0, ErrorCode::NONE);
        assert_eq!(client.produce("t", 0, b"first").error_code, 0);
        match killed {
            true => broker.kill(),
            false => assert!(broker.terminate().0.success()),
        }
        let (metadata, away) = (dir.join("__cluster_metadata-0"), dir.with_extension("away"));
        drop(std::fs::remove_dir_all(&away));
        std::fs::rename(&metadata, &away).expect("moved");
        let before = file_states(&dir);
        let (code, why) = start_error(&[&["--data-dir", text(&dir)], &SOMEWHERE[..]].concat());
        assert!(code == 1 && why.contains("__cluster_metadata-0"), "{why}");
        assert_eq!(before, file_states(&dir), "{why}");
        assert!(!metadata.exists());
        std::fs::rename(&away, &metadata).expect("moved back");
        let broker = start(&dir, &[]);
        let client = &mut broker.client();
        assert_eq!(client.read("t", 0, 0).expect("served").0.len(), 1);
        assert_eq!(client.produce("t", 0, b"second").base_offset, 1);
    }
}
