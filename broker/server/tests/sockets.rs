//! Configuration keys whose effect shows only on the operating system: threads and sockets.

#![expect(
    clippy::disallowed_methods,
    reason = "tests of the real world: processes, sockets"
)]

mod common;

use std::fs;
use std::os::fd::RawFd;

use brokkr_wire::ErrorCode;
use brokkr_wire::messages::ApiVersionsRequest;
use common::{Running, fresh_dir, start, wait_until};
use rustix::net::sockopt;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

/// The smallest value of `size` over the broker's connected sockets.
fn of_sockets(broker: &Running, size: impl Fn(&rustix::fd::OwnedFd) -> Option<usize>) -> usize {
    let process = pidfd_open(broker.pid(), PidfdFlags::empty()).expect("it runs");
    let all = fs::read_dir(format!("/proc/{}/fd", broker.pid())).expect("its descriptors");
    let sizes = all.filter_map(|entry| {
        let name = entry.expect("a descriptor").file_name();
        let fd: RawFd = name.to_str()?.parse().expect("a number");
        let socket = pidfd_getfd(&process, fd, PidfdGetfdFlags::empty()).ok()?;
        rustix::net::getpeername(&socket).ok()??;
        size(&socket)
    });
    sizes.min().expect("it has a connection")
}

fn with(name: &str, setting: &str) -> (Running, common::Client) {
    let broker = start(&fresh_dir(name), &["--set", setting]);
    let mut client = broker.client();
    assert_eq!(client.call(&ApiVersionsRequest::default(), 0).error_code, 0);
    (broker, client)
}

#[test]
fn sockets_have_the_configured_buffers() {
    // The kernel reserves twice the requested size.
    for bytes in [20_000, 90_000] {
        let setting = format!("socket.send.buffer.bytes={bytes}");
        let (broker, _client) = with("sockets-send", &setting);
        let size = of_sockets(&broker, |s| sockopt::socket_send_buffer_size(s).ok());
        assert_eq!(size, 2 * bytes);
        let setting = format!("socket.receive.buffer.bytes={bytes}");
        let (broker, _client) = with("sockets-receive", &setting);
        let size = of_sockets(&broker, |s| sockopt::socket_recv_buffer_size(s).ok());
        assert_eq!(size, 2 * bytes);
    }
}

fn io_threads(broker: &Running) -> usize {
    let tasks = fs::read_dir(format!("/proc/{}/task", broker.pid())).expect("its threads");
    let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name == "brokkr-io\n").count()
}

#[test]
fn the_number_of_io_threads_is_bounded() {
    for threads in [1, 3] {
        let setting = format!("num.io.threads={threads}");
        let (broker, mut client) = with("sockets-threads", &setting);
        let mut topics = 0;
        wait_until("all of them have work", || {
            topics += 1;
            let created = client.create(&format!("t{topics}"), 30, &[]).0;
            assert_eq!(created, ErrorCode::NONE);
            let seen = io_threads(&broker);
            assert!(seen <= threads, "{seen} of {threads}");
            seen == threads
        });
    }
}
