//! What is read from the world itself, between two moments of the run.

use std::collections::{BTreeMap, BTreeSet};
use std::task::Waker;

use super::model::{ConnectionState, DirectionState, LinkState, PartitionState, PortState, WriteState};
use crate::disk::{Disk, DiskState};
use crate::durable::end_of;
use crate::exec::{Nanos, ObservedTask};
use crate::net::{End, EndId, Net};
use crate::plan::BROKER;
use crate::retention::starts;
use crate::trace::conn_of;
use crate::world::{Clock, State, World};

/// See the module.
pub struct Snapshot {
    pub(super) now: Nanos,
    /// The lives of the nodes that have one.
    pub(super) lives: BTreeMap<u32, u32>,
    pub(super) paused: BTreeSet<u32>,
    pub(super) clocks: BTreeMap<u32, Clock>,
    pub(super) tasks: Vec<ObservedTask>,
    /// What wakes a task, by the address of its waker's data.
    pub(super) waits: BTreeMap<usize, Vec<String>>,
    pub(super) partitions: BTreeMap<String, PartitionState>,
    pub(super) disks: BTreeMap<u32, DiskState>,
    pub(super) writes: Vec<WriteState>,
    pub(super) links: Vec<LinkState>,
    pub(super) ports: Vec<PortState>,
    pub(super) connections: Vec<ConnectionState>,
    /// The faults that wait for their event: the index in the plan, and how many such events pass before.
    pub(super) armed: Vec<(usize, u64)>,
}

impl Snapshot {
    /// Reads the world. `roots` are the broker's log directories.
    pub(crate) fn of(world: &World, roots: &[String]) -> Self {
        let exec = world.exec();
        let (now, tasks) = (exec.now(), exec.observe_tasks());
        let state = world.lock();
        let mut nodes: BTreeSet<u32> = tasks.iter().map(|t| t.life.node).collect();
        nodes.extend(state.disks.keys().chain(state.clocks.keys()));
        Self {
            now,
            lives: nodes.iter().map(|n| (*n, exec.life(*n).incarnation)).collect(),
            paused: nodes.iter().copied().filter(|n| exec.is_paused(*n)).collect(),
            clocks: state.clocks.clone(),
            tasks,
            waits: waits(&state.net),
            partitions: match state.disks.get(&BROKER) {
                Some(disk) => partitions(disk, roots),
                None => BTreeMap::new(),
            },
            disks: state
                .disks
                .iter()
                .map(|(node, d)| (*node, d.observe(now)))
                .collect(),
            writes: writes(&state),
            links: links(&state.net, now),
            ports: ports(&state.net, now),
            connections: connections(&state.net),
            armed: state.triggers.armed().collect(),
        }
    }
}

/// What the wakers wait for that connections and ports hold.
fn waits(net: &Net) -> BTreeMap<usize, Vec<String>> {
    let mut all: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    let mut put = |waker: &Option<Waker>, what: String| {
        if let Some(waker) = waker {
            all.entry(waker.data().addr()).or_default().push(what);
        }
    };
    for (id, end) in &net.ends {
        let conn = conn_of(*id);
        put(&end.reader, format!("bytes on connection {conn}"));
        put(
            &end.room,
            format!("room in the buffer of connection {conn} to node {}", end.node),
        );
    }
    for ((node, port), of) in &net.ports {
        put(
            &of.acceptor,
            format!("a connection to port {port} of node {node}"),
        );
    }
    all
}

fn writes(state: &State) -> Vec<WriteState> {
    let path = |node, inode| {
        let disk = state.disks.get(&node);
        disk.map_or_else(String::new, |d| d.path_of(inode))
    };
    World::writes(state)
        .map(|(node, inode, at, len)| WriteState {
            node,
            file: path(node, inode),
            at,
            len,
        })
        .collect()
}

fn links(net: &Net, now: Nanos) -> Vec<LinkState> {
    let state = |(&(from, to), link): (&(u32, u32), &crate::net::Link)| LinkState {
        from,
        to,
        cut_until: Some(link.cut_until).filter(|until| now < *until),
        slower_until: (now < link.slow_until).then_some((link.slow_until, link.slower_by)),
        narrow_until: (now < link.narrow_until).then_some((link.narrow_until, link.bytes_per_s)),
    };
    let is_faulty =
        |l: &LinkState| l.cut_until.is_some() || l.slower_until.is_some() || l.narrow_until.is_some();
    net.links.iter().map(state).filter(is_faulty).collect()
}

fn ports(net: &Net, now: Nanos) -> Vec<PortState> {
    let state = |(&(node, port), of): (&(u32, u16), &crate::net::Port)| PortState {
        node,
        port,
        backlog: of.backlog.len(),
        blocked: net.connect_block(node, now).map(|block| {
            let how = if block.silent { "not answered" } else { "refused" };
            (block.until, how)
        }),
    };
    net.ports.iter().map(state).collect()
}

fn connections(net: &Net) -> Vec<ConnectionState> {
    let conns: BTreeSet<u64> = net.ends.keys().map(|end| conn_of(*end)).collect();
    let direction = |end: EndId| net.ends.get(&end).map_or_else(DirectionState::default, direction);
    let node = |end: EndId| net.ends.get(&end).map(|e| e.node);
    conns
        .into_iter()
        .map(|conn| ConnectionState {
            conn,
            // The client's end is even.
            client: node(conn * 2),
            server: node(conn * 2 + 1),
            to_client: direction(conn * 2),
            to_server: direction(conn * 2 + 1),
        })
        .collect()
}

fn direction(end: &End) -> DirectionState {
    let unread = end.inbox.iter().map(|piece| piece.len()).sum();
    DirectionState {
        in_flight_bytes: end.held.saturating_sub(unread),
        unread_bytes: unread,
        eof: end.eof,
        reset: end.reset,
        reader_waits: end.reader.is_some(),
        writer_waits: end.room.is_some(),
    }
}

/// The logs in all log directories.
fn partitions(disk: &Disk, roots: &[String]) -> BTreeMap<String, PartitionState> {
    let mut all = BTreeMap::new();
    for root in roots {
        for entry in disk.list(root).unwrap_or_default() {
            let folder = format!("{root}/{}", entry.name);
            let segments = disk.matching(&format!("{folder}/*.log"));
            if !segments.is_empty() {
                let log = log(disk, &folder, &segments);
                all.insert(folder, log);
            }
        }
    }
    all
}

fn log(disk: &Disk, folder: &str, segments: &[String]) -> PartitionState {
    let log_start = starts(disk, folder).map(|s| s.log_start);
    let mut log = PartitionState {
        log_start,
        durable_end: log_start.unwrap_or(0),
        segments: segments.len(),
        ..PartitionState::default()
    };
    let mut is_durable = true;
    // By name they are by base, too: it has 20 digits.
    for path in segments {
        let name = path.rsplit('/').next().and_then(|name| name.strip_suffix(".log"));
        let (Some(base), Some(id)) = (name.and_then(|n| n.parse().ok()), disk.file(path)) else {
            continue;
        };
        let seen: i64 = end_of(&disk.peek(id)).unwrap_or(base);
        log.log_end = seen;
        if is_durable && disk.file_durable(path) == Some(id) {
            let durable = end_of(&disk.peek_durable(id)).unwrap_or(base);
            log.durable_end = durable.max(log.durable_end);
            is_durable = durable == seen;
        } else {
            is_durable = false;
        }
    }
    log
}
