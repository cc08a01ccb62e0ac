//! Metrics and health checks of the real binary over HTTP.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests of the real world: processes, sockets, directories"
)]

#[path = "../common/mod.rs"]
mod common;
mod exposition;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use brokkr_wire::ErrorCode;
use common::{PATIENCE, Running, brokkr, fetch_of, fresh_dir, running, start, start_error, text, wait_until};
use exposition::{Samples, parse};

/// A broker that serves metrics on a free port.
fn with_metrics(dir: &Path, more: &[&str]) -> Running {
    start(dir, &[&["--set", "metrics.listen=127.0.0.1:0"], more].concat())
}

/// The address that it reported for metrics.
fn endpoint(broker: &Running) -> String {
    let log = broker.log();
    let addr = log.lines().find_map(|line| line.strip_prefix("metrics on "));
    addr.unwrap_or_else(|| panic!("no address in {log:?}")).to_owned()
}

/// An HTTP response.
struct HttpResponse {
    status: u16,
    head: String,
    body: String,
}

fn connect(addr: &str) -> TcpStream {
    let stream = TcpStream::connect(addr).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// Reads until the other side closes or resets the connection.
fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let (mut all, mut piece) = (Vec::new(), [0; 65536]);
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return all,
            Ok(n) => all.extend_from_slice(&piece[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => panic!("still open after {PATIENCE:?}"),
            Err(_) => return all,
        }
    }
}

fn read_response(stream: &mut TcpStream) -> HttpResponse {
    let all = String::from_utf8(read_to_end(stream)).expect("UTF-8");
    let (head, body) = all
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no head: {all:?}"));
    let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
    HttpResponse {
        status: status.and_then(|s| s.parse().ok()).expect("a status"),
        head: head.to_ascii_lowercase(),
        body: body.to_owned(),
    }
}

fn http_request(addr: &str, method: &str, path: &str, headers: &str) -> HttpResponse {
    let mut stream = connect(addr);
    let request = format!("{method} {path} HTTP/1.1\r\nHost: here\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    read_response(&mut stream)
}

fn get(addr: &str, path: &str) -> (u16, String) {
    let answer = http_request(addr, "GET", path, "");
    (answer.status, answer.body)
}

/// Scrapes as Prometheus does.
fn scrape(addr: &str) -> Samples {
    let accept =
        "Accept: application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3\r\n";
    let answer = http_request(addr, "GET", "/metrics", accept);
    assert_eq!(answer.status, 200);
    assert!(
        answer
            .head
            .contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"),
        "{}",
        answer.head
    );
    parse(&answer.body, true)
}

fn value(samples: &Samples, sample: &str) -> f64 {
    samples.get(sample).copied().unwrap_or_else(|| {
        let family = sample.split('{').next().unwrap_or_default();
        let alike: Vec<_> = samples.keys().filter(|k| k.starts_with(family)).collect();
        panic!("no {sample}, but {alike:?}")
    })
}

#[test]
fn the_traffic_of_clients_is_counted() {
    let broker = with_metrics(&fresh_dir("metrics-values"), &[]);
    let addr = endpoint(&broker);
    let mut client = broker.client();
    assert_eq!(client.create("t", 2, &[]).0, ErrorCode::NONE);
    for i in 0..5 {
        assert_eq!(client.produce("t", 1, &[i; 100]).error_code, 0);
    }
    assert_ne!(client.produce("none", 0, b"x").error_code, 0);
    let (records, _) = client.read("t", 1, 0).expect("served");
    assert_eq!(records.len(), 5);
    let mut twice = fetch_of("t", 1);
    twice.topics[0].partitions[0].fetch_offset = 77;
    assert_eq!(client.call(&twice, 12).responses[0].partitions[0].error_code, 1);

    // The time of a response is recorded after the kernel, and so the client, has it.
    let times = "kafka_network_requestmetrics_totaltimems_count{request=\"Fetch\"}";
    wait_until("the last response is counted", || {
        scrape(&addr).get(times) == Some(&3.0)
    });
    let first = scrape(&addr);
    let of = |sample: &str| value(&first, sample);
    for (sample, expected) in [
        (
            "kafka_network_requestmetrics_requests_total{request=\"Produce\",version=\"11\"}",
            6.0,
        ),
        (
            "kafka_network_requestmetrics_requests_total{request=\"CreateTopics\",version=\"7\"}",
            1.0,
        ),
        (
            "kafka_network_requestmetrics_errors_total{request=\"Produce\",error=\"NONE\"}",
            5.0,
        ),
        (
            "kafka_network_requestmetrics_errors_total{request=\"Produce\",error=\"UNKNOWN_TOPIC_OR_PARTITION\"}",
            1.0,
        ),
        (
            "kafka_network_requestmetrics_errors_total{request=\"Fetch\",error=\"OFFSET_OUT_OF_RANGE\"}",
            1.0,
        ),
        (
            "kafka_network_requestmetrics_totaltimems_count{request=\"Produce\"}",
            6.0,
        ),
        ("brokkr_request_handler_seconds_count{request=\"Produce\"}", 6.0),
        ("kafka_server_brokertopicmetrics_messagesin_total", 5.0),
        (
            "kafka_server_brokertopicmetrics_messagesin_total{topic=\"t\"}",
            5.0,
        ),
        (
            "kafka_server_brokertopicmetrics_totalproducerequests_total{topic=\"t\"}",
            5.0,
        ),
        ("kafka_log_log_logstartoffset{topic=\"t\",partition=\"1\"}", 0.0),
        ("kafka_log_log_logendoffset{topic=\"t\",partition=\"1\"}", 5.0),
        ("kafka_log_log_logendoffset{topic=\"t\",partition=\"0\"}", 0.0),
        (
            "brokkr_partition_high_watermark{topic=\"t\",partition=\"1\"}",
            5.0,
        ),
        (
            "kafka_server_socket_server_metrics_connection_count{listener=\"PLAINTEXT\"}",
            1.0,
        ),
        (
            "kafka_server_socket_server_metrics_connection_creation_total{listener=\"PLAINTEXT\"}",
            1.0,
        ),
        ("kafka_server_replicamanager_partitioncount", 2.0),
        ("kafka_server_replicamanager_offlinereplicacount", 0.0),
        ("kafka_controller_kafkacontroller_globaltopiccount", 1.0),
        ("kafka_log_logmanager_offlinelogdirectorycount", 0.0),
        ("kafka_server_kafkaserver_brokerstate", 3.0),
        ("brokkr_ready", 1.0),
        ("brokkr_partition_queue_messages", 0.0),
        ("brokkr_memory_pool_waiting{pool=\"buffers\"}", 0.0),
    ] {
        assert_eq!(of(sample), expected, "{sample}");
    }
    let bytes_in = of("kafka_server_brokertopicmetrics_bytesin_total{topic=\"t\"}");
    assert!((500.0..2000.0).contains(&bytes_in), "{bytes_in}");
    assert_eq!(
        of("kafka_server_brokertopicmetrics_bytesout_total{topic=\"t\"}"),
        bytes_in
    );
    assert_eq!(of("kafka_log_log_size{topic=\"t\",partition=\"1\"}"), bytes_in);
    assert!(of("brokkr_request_bytes_total{request=\"Produce\"}") > bytes_in);
    assert!(of("brokkr_response_bytes_total{request=\"Fetch\"}") > bytes_in);
    let syncs = first
        .iter()
        .filter(|(k, _)| k.starts_with("kafka_log_logflushstats_logflushrateandtimems_count{"));
    assert!(syncs.map(|(_, n)| *n).sum::<f64>() >= 5.0);
    assert!(of("process_resident_memory_bytes") > 1e6 && of("process_open_fds") > 3.0);
    assert!(of("process_start_time_seconds") > 1.6e9 && of("process_cpu_seconds_total") >= 0.0);

    // Counters only grow; a closed connection and a deleted topic disappear, the totals stay.
    assert_eq!(client.delete_topic("t"), ErrorCode::NONE);
    drop(client);
    let open = "kafka_server_socket_server_metrics_connection_count{listener=\"PLAINTEXT\"}";
    wait_until("the connection has ended", || value(&scrape(&addr), open) == 0.0);
    let second = scrape(&addr);
    assert!(second.keys().all(|sample| !sample.contains("topic=\"t\"")));
    for (sample, before) in &first {
        let is_counter = ["_total", "_bucket", "_count"]
            .iter()
            .any(|s| sample.split('{').next().unwrap_or("").ends_with(s));
        if is_counter && !sample.contains("topic=\"t\"") && !sample.contains("connection_count") {
            assert!(value(&second, sample) >= *before, "{sample}");
        }
    }
    assert_eq!(
        value(&second, "kafka_server_brokertopicmetrics_messagesin_total"),
        5.0
    );
}

#[test]
fn both_formats_have_the_same_samples() {
    let broker = with_metrics(&fresh_dir("metrics-formats"), &[]);
    let addr = endpoint(&broker);
    assert_eq!(broker.client().create("t", 3, &[]).0, ErrorCode::NONE);
    let old = http_request(&addr, "GET", "/metrics", "");
    assert_eq!(old.status, 200);
    assert!(
        old.head
            .contains("content-type: text/plain; version=0.0.4; charset=utf-8"),
        "{}",
        old.head
    );
    let (old, new) = (parse(&old.body, false), scrape(&addr));
    assert_eq!(old.keys().collect::<Vec<_>>(), new.keys().collect::<Vec<_>>());
    let head = http_request(&addr, "HEAD", "/metrics", "");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}

#[test]
fn health_follows_the_broker_and_its_log_directories() {
    let root = fresh_dir("metrics-health");
    std::fs::create_dir_all(&root).expect("made");
    let (a, b) = (root.join("a"), root.join("quoted \"b\""));
    let setting = format!("log.dirs={},{}", text(&a), text(&b));
    let mut command = brokkr();
    command.args([
        "--listen",
        "127.0.0.1:0",
        "--set",
        &setting,
        "--set",
        "metrics.listen=127.0.0.1:0",
    ]);
    let broker = running(&mut command, &root);
    let addr = endpoint(&broker);
    assert_eq!(get(&addr, "/health/live"), (200, "live\n".to_owned()));
    assert_eq!(get(&addr, "/health/ready"), (200, "ready\n".to_owned()));
    assert_eq!(broker.client().create("t", 2, &[]).0, ErrorCode::NONE);
    let escaped = text(&b).replace('"', "\\\"");
    let offline = format!("kafka_log_logmanager_logdirectoryoffline{{logDirectory=\"{escaped}\"}}");
    assert_eq!(value(&scrape(&addr), &offline), 0.0);

    // The broker notices that its directory is gone when it next creates or renames a file there.
    std::fs::rename(&b, root.join("away")).expect("moved");
    broker.client().create("u", 2, &[]);
    wait_until("the directory has failed", || {
        get(&addr, "/health/ready").0 == 503
    });
    let (_, why) = get(&addr, "/health/ready");
    assert_eq!(why, format!("log directories that failed: {}\n", text(&b)));
    assert_eq!(get(&addr, "/health/live").0, 200);
    let samples = scrape(&addr);
    assert_eq!(value(&samples, &offline), 1.0);
    assert_eq!(
        value(&samples, "kafka_log_logmanager_offlinelogdirectorycount"),
        1.0
    );
    assert_eq!(value(&samples, "brokkr_ready"), 0.0);
    wait_until("its partitions are offline", || {
        value(&scrape(&addr), "kafka_server_replicamanager_offlinereplicacount") >= 1.0
    });
}

#[test]
fn a_broker_that_starts_is_live_and_not_ready() {
    let dir = fresh_dir("metrics-starting");
    // So that a start takes its time.
    let broker = start(&dir, &[]);
    assert_eq!(broker.client().create("t", 300, &[]).0, ErrorCode::NONE);
    broker.kill();
    wait_until("it was still starting", || {
        let mut command = brokkr();
        command.args(["--data-dir", text(&dir), "--listen", "127.0.0.1:0"]);
        command.args(["--set", "metrics.listen=127.0.0.1:0"]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("it runs");
        let mut line = String::new();
        let mut stderr = BufReader::new(child.stderr.take().expect("its stderr"));
        stderr.read_line(&mut line).expect("UTF-8");
        let addr = line.trim_end().strip_prefix("metrics on ").expect("an address");
        let (status, why) = get(addr, "/health/ready");
        let samples = scrape(addr);
        let live = get(addr, "/health/live").0;
        wait_until("it is ready", || get(addr, "/health/ready").0 == 200);
        child.kill().expect("it lives");
        child.wait().expect("it is dead");
        assert_eq!(live, 200);
        assert!(
            status == 200 || why == "starting: the metadata is being recovered\n",
            "{why}"
        );
        let state = value(&samples, "kafka_server_kafkaserver_brokerstate");
        assert!(state == 3.0 || value(&samples, "brokkr_ready") == 0.0);
        status == 503 && state == 1.0
    });
}

#[test]
fn invalid_http_requests_are_rejected_and_the_broker_continues() {
    let broker = with_metrics(&fresh_dir("metrics-garbage"), &[]);
    let addr = endpoint(&broker);
    for path in [
        "/",
        "/metrics/",
        "/metric",
        "/health",
        "/health/readyy",
        "/metrics%00",
    ] {
        assert_eq!(get(&addr, path).0, 404, "{path}");
    }
    assert_eq!(get(&addr, "/metrics?name[]=x").0, 200, "a query says nothing");
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "BREW"] {
        let answer = http_request(&addr, method, "/metrics", "Content-Length: 0\r\n");
        assert_eq!(answer.status, 405, "{method}");
        assert!(answer.head.contains("allow: get, head"), "{}", answer.head);
    }
    let endless = vec![b'a'; 1 << 20];
    let header = [b"GET /metrics HTTP/1.1\r\nX: ", &endless[..]].concat();
    let path = [b"GET /", &endless[..]].concat();
    let many = [b"GET /metrics HTTP/1.1\r\n".to_vec(), b"X: y\r\n".repeat(10_000)].concat();
    let kafka = [0, 0, 0, 16, 0, 18, 0, 3, 0, 0, 0, 1, 0xff, 0xff, 0, 0, 0, 0, 0, 0];
    let tls = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    for garbage in [
        &header[..],
        &path,
        &many,
        &kafka,
        &tls[..],
        b"\r\n\r\n\r\n\r\nx\r\n\r\n",
        b"\0\0\0\0\r\n\r\n",
    ] {
        let mut stream = connect(&addr);
        // The broker may reject it before all is sent.
        drop(stream.write_all(garbage));
        drop(stream.shutdown(std::net::Shutdown::Write));
        let answered = String::from_utf8_lossy(&read_to_end(&mut stream)).into_owned();
        assert!(!answered.starts_with("HTTP/1.1 200"), "{answered}");
    }
    // A connection serves one request, whatever follows it.
    let mut stream = connect(&addr);
    let request = b"GET /health/live HTTP/1.1\r\nHost: here\r\n\r\n".repeat(1000);
    drop(stream.write_all(&request));
    let answered = String::from_utf8_lossy(&read_to_end(&mut stream)).into_owned();
    assert!(answered.matches("HTTP/1.1 200").count() <= 1, "{answered}");
    assert_eq!(get(&addr, "/health/ready").0, 200);
    assert_eq!(broker.client().create("t", 1, &[]).0, ErrorCode::NONE);
}

#[test]
fn slow_connections_give_way_and_are_closed() {
    let broker = with_metrics(&fresh_dir("metrics-slow"), &[]);
    let addr = endpoint(&broker);
    let mut slow: Vec<TcpStream> = (0..64).map(|_| connect(&addr)).collect();
    for stream in &mut slow {
        drop(stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: "));
    }
    // The oldest give way to those that come after them, and to a health check.
    let begun = std::time::Instant::now();
    for stream in slow[..48].iter_mut() {
        read_to_end(stream);
    }
    assert_eq!(get(&addr, "/health/live").0, 200);
    // The others are closed when the time for a head is over.
    let mut last = slow.pop().expect("there are 64");
    last.set_nonblocking(true).expect("a socket can");
    let is_open = last
        .read(&mut [0])
        .is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock);
    assert!(
        is_open || begun.elapsed() > Duration::from_secs(4),
        "{:?}",
        begun.elapsed()
    );
    last.set_nonblocking(false).expect("a socket can");
    read_to_end(&mut last);
    slow.iter_mut().for_each(|stream| drop(read_to_end(stream)));
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert_eq!(get(&addr, "/health/ready").0, 200);
    let open_fds = value(&scrape(&addr), "process_open_fds");
    assert!(open_fds < 64.0, "{open_fds}");
}

#[test]
fn many_partitions_are_scraped_while_clients_are_served() {
    let broker = with_metrics(&fresh_dir("metrics-many"), &[]);
    let addr = endpoint(&broker);
    let mut client = broker.client();
    assert_eq!(client.create("many", 500, &[]).0, ErrorCode::NONE);
    let scraping = std::thread::spawn(move || (0..20).map(|_| scrape(&addr).len()).min().expect("some"));
    while !scraping.is_finished() {
        assert_eq!(client.produce("many", 7, b"x").error_code, 0);
    }
    assert!(scraping.join().expect("no panic in it") > 2000);
}

#[test]
fn none_means_no_endpoint_and_a_port_in_use_fails_the_start() {
    let dir = fresh_dir("metrics-none");
    let broker = start(&dir, &["--set", "metrics.listen=none"]);
    assert!(!broker.log().contains("metrics on"), "{}", broker.log());
    let (status, _, log) = broker.terminate();
    assert!(status.success() && log.is_empty(), "{log}");

    let dir = fresh_dir("metrics-taken");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let busy = taken.local_addr().expect("it has one").to_string();
    let listen = format!("metrics.listen={busy}");
    let why = start_error(&[
        "--data-dir",
        text(&dir),
        "--listen",
        "127.0.0.1:0",
        "--set",
        &listen,
    ]);
    let said =
        format!("brokkr: can't listen on {busy} (metrics.listen): Address already in use (os error 98)");
    assert_eq!(why, (1, said));
    assert!(!dir.exists(), "nothing was made");
    let why = start_error(&["--set", "metrics.listen=9644"]);
    let said = "brokkr: metrics.listen: \"9644\": not of the form HOST:PORT, and not none";
    assert_eq!(why, (2, said.to_owned()));
}
