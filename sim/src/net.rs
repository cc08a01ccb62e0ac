//! The network: byte streams with latency and bounded buffers between nodes.
//!
//! Node `n` has the address 10.0.0.n. Bytes arrive in order, after the latency of their direction; a writer waits while the peer's
//! buffer is full. A node that dies resets its connections.
//!
//! A [`Link`] is one direction between two nodes. While it is cut nothing arrives, new connections included; bytes that were sent
//! meanwhile arrive some time after it has healed, when TCP retransmits them: possibly after the bytes of a connection that was
//! made then. Cutting both directions is a partition, cutting one is a one-way partition. A narrow link shares its bandwidth among
//! all bytes in its direction. A reset may reach one end only: the other is half-open then, and bytes written there are lost. A
//! node with blocked connects refuses connections, or does not answer.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::task::Waker;

use bytes::Bytes;

use crate::life::Nanos;

/// Buffer bytes of each direction of a connection, in flight and unread, unless a plan sets them.
pub const BUFFER_BYTES: usize = 128 * 1024;
/// Connections that wait to be accepted.
const BACKLOG_MAX: usize = 1024;
const SECOND: Nanos = 1_000_000_000;
/// TCP retransmits unacknowledged bytes after this time, then after twice that, and so on.
const RETRY_FIRST: Nanos = SECOND / 5;

/// One end of a connection.
pub type EndId = u64;

/// The address of a node.
pub fn addr_of(node: u32, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + node)), port)
}

/// The node at an address.
pub fn node_at(addr: IpAddr) -> Option<u32> {
    match addr {
        IpAddr::V4(v4) => u32::from(v4).checked_sub(0x0a00_0000).filter(|n| *n < 1 << 24),
        IpAddr::V6(_) => None,
    }
}

/// One end: its unread bytes.
#[derive(Default)]
pub struct End {
    /// The node it is on.
    pub node: u32,
    /// The other end.
    pub peer: EndId,
    /// Arrived and unread.
    pub inbox: VecDeque<Bytes>,
    /// Bytes in flight to this end, or unread.
    pub held: usize,
    /// The peer has sent its last byte.
    pub eof: bool,
    /// The connection was reset.
    pub reset: bool,
    /// The reader that waits for bytes.
    pub reader: Option<Waker>,
    /// The peer's writer that waits for buffer space here.
    pub room: Option<Waker>,
    /// When the last piece sent to this end arrives: the next can't arrive before.
    pub last_arrival: u64,
    /// Halves that exist.
    pub halves: u8,
}

/// A listening port.
#[derive(Default)]
pub struct Port {
    /// The life of its owner that listens.
    pub incarnation: u32,
    /// Connections not accepted yet: our end, and the peer's address.
    pub backlog: VecDeque<(EndId, SocketAddr)>,
    /// The task that waits for a connection.
    pub acceptor: Option<Waker>,
}

/// The faults of the link from one node to another.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Link {
    /// Bytes sent before this arrive after it, when TCP retransmits them: the link is cut.
    pub cut_until: Nanos,
    /// Bytes sent before this take `slower_by` longer.
    pub slow_until: Nanos,
    /// See `slow_until`.
    pub slower_by: Nanos,
    /// Bytes sent before this share a bandwidth with all others on this link.
    pub narrow_until: Nanos,
    /// See `narrow_until`.
    pub bytes_per_s: u64,
    /// When the last of those bytes leaves.
    pub busy_until: Nanos,
}

/// New connections to a node fail until then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConnectBlock {
    /// When the block ends.
    pub until: Nanos,
    /// The node does not answer instead of refusing: TCP retries until it does, or the client times out.
    pub silent: bool,
}

/// When TCP first sends, or retransmits, from `now` on, while the link isn't cut.
fn sent_again(now: Nanos, cut_until: Nanos) -> Nanos {
    let (mut at, mut wait) = (now, RETRY_FIRST);
    while at < cut_until {
        (at, wait) = (at.saturating_add(wait), wait.saturating_mul(2));
    }
    at
}

/// All connections of a world.
pub struct Net {
    /// Buffer bytes of each direction of a connection, in flight and unread.
    pub buffer_bytes: usize,
    /// The faults of each link.
    pub links: BTreeMap<(u32, u32), Link>,
    /// Nodes whose new connections fail.
    pub connect_blocks: BTreeMap<u32, ConnectBlock>,
    /// The ends of all connections.
    pub ends: BTreeMap<EndId, End>,
    /// The listening ports, by node and port.
    pub ports: BTreeMap<(u32, u16), Port>,
    next_end: EndId,
    next_port: u16,
}

impl Default for Net {
    fn default() -> Self {
        Self {
            buffer_bytes: BUFFER_BYTES,
            links: BTreeMap::new(),
            connect_blocks: BTreeMap::new(),
            ends: BTreeMap::new(),
            ports: BTreeMap::new(),
            next_end: 0,
            next_port: 0,
        }
    }
}

impl Net {
    /// Creates a connection between two nodes: returns the ends at `a` and at `b`.
    pub fn pair(&mut self, a: u32, b: u32) -> (EndId, EndId) {
        let (x, y) = (self.next_end, self.next_end + 1);
        self.next_end += 2;
        self.ends.insert(
            x,
            End {
                node: a,
                peer: y,
                halves: 2,
                ..End::default()
            },
        );
        self.ends.insert(
            y,
            End {
                node: b,
                peer: x,
                halves: 2,
                ..End::default()
            },
        );
        (x, y)
    }

    /// When `len` bytes arrive that are sent now and normally take `latency`.
    pub fn arrival(&mut self, from: u32, to: u32, now: Nanos, latency: Nanos, len: u64) -> Nanos {
        let Some(link) = self.links.get_mut(&(from, to)) else {
            return now + latency;
        };
        let slower = if now < link.slow_until { link.slower_by } else { 0 };
        let gets_through = sent_again(now, link.cut_until);
        let mut leaves = gets_through;
        if now < link.narrow_until {
            // Bytes that are still queued when the limit ends are sent at once.
            leaves = leaves.max(link.busy_until) + len * SECOND / link.bytes_per_s.max(1);
            leaves = leaves.min(link.narrow_until.max(gets_through));
            link.busy_until = leaves;
        }
        leaves + latency + slower
    }

    /// Cuts the link from each of `from` to each of `to` until then, or longer if it is cut longer already.
    pub fn cut(&mut self, from: &[u32], to: &[u32], until: Nanos) {
        for a in from {
            for b in to.iter().filter(|b| *b != a) {
                let link = self.links.entry((*a, *b)).or_default();
                link.cut_until = link.cut_until.max(until);
            }
        }
    }

    /// Cuts both directions between two sides. Nodes on neither side reach both.
    pub fn partition(&mut self, one: &[u32], other: &[u32], until: Nanos) {
        self.cut(one, other, until);
        self.cut(other, one, until);
    }

    /// Leaves each node connected to its two neighbours, in the order of `nodes`: of five nodes each sees a majority, and no two
    /// the same.
    pub fn ring(&mut self, nodes: &[u32], until: Nanos) {
        for (i, a) in nodes.iter().enumerate() {
            let is_far = |j: &usize| !matches!(i.abs_diff(*j), 0 | 1) && i.abs_diff(*j) + 1 != nodes.len();
            for j in (0..nodes.len()).filter(is_far) {
                self.cut(&[*a], &[nodes[j]], until);
            }
        }
    }

    /// Whether new connections to a node fail now, and how.
    pub fn connect_block(&self, node: u32, now: Nanos) -> Option<ConnectBlock> {
        self.connect_blocks.get(&node).copied().filter(|s| now < s.until)
    }

    /// An unused port.
    pub fn free_port(&mut self) -> u16 {
        self.next_port = self.next_port.wrapping_add(1);
        32768 + (self.next_port & 0x7fff)
    }

    /// Adds a connection to the backlog of a port. `false` if nothing listens, or the backlog is full.
    pub fn offer(&mut self, node: u32, port: u16, end: EndId, from: SocketAddr) -> bool {
        match self.ports.get_mut(&(node, port)) {
            Some(p) if p.backlog.len() < BACKLOG_MAX => {
                p.backlog.push_back((end, from));
                if let Some(w) = p.acceptor.take() {
                    w.wake();
                }
                true
            }
            _ => false,
        }
    }

    /// Resets an end: reads and writes fail from now on.
    pub fn reset(&mut self, id: EndId) {
        if let Some(end) = self.ends.get_mut(&id) {
            end.reset = true;
            end.inbox.clear();
            for w in [end.reader.take(), end.room.take()].into_iter().flatten() {
                w.wake();
            }
        }
    }

    /// The ends on a node, with their peers.
    pub fn ends_of(&self, node: u32) -> Vec<(EndId, EndId)> {
        self.ends
            .iter()
            .filter(|(_, e)| e.node == node)
            .map(|(id, e)| (*id, e.peer))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_sent_into_a_cut_are_retransmitted_with_backoff() {
        let tenths = |now: u64, until: u64| sent_again(now * SECOND / 10, until * SECOND / 10) * 10 / SECOND;
        for (until, at) in [(0, 0), (1, 2), (2, 2), (3, 6), (14, 14), (15, 30), (31, 62)] {
            assert_eq!(tenths(0, until), at, "cut until {until}");
        }
        assert_eq!(tenths(5, 3), 5);
        assert_eq!(sent_again(1, Nanos::MAX), Nanos::MAX);
    }
}
