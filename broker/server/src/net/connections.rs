//! Counts connections over all listeners and enforces `max.connections` and `max.connections.per.ip`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

/// The open connections of all listeners.
#[derive(Default)]
pub struct Connections(Mutex<OpenConnections>);

#[derive(Default)]
struct OpenConnections {
    by_ip: BTreeMap<IpAddr, usize>,
    by_listener: BTreeMap<Arc<str>, ConnectionCounts>,
}

/// The connection counts of a listener.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct ConnectionCounts {
    /// Open connections.
    pub open: usize,
    /// Accepted connections since the start.
    pub accepted: u64,
    /// Connections since the start that were closed at once because of a limit.
    pub refused: u64,
}

/// A connection's slot, released when it is dropped.
pub struct ConnectionSlot {
    connections: Arc<Connections>,
    ip: IpAddr,
    listener: Arc<str>,
}

impl Connections {
    /// Takes a slot for a connection from `ip` at `listener`: `max` for all connections, `max_per_ip` for those from the
    /// address. `None` if a limit is reached.
    pub fn admit(
        self: &Arc<Self>,
        ip: IpAddr,
        listener: &Arc<str>,
        max: usize,
        max_per_ip: usize,
    ) -> Option<ConnectionSlot> {
        let OpenConnections { by_ip, by_listener } = &mut *self.lock();
        let (all, here) = (
            by_ip.values().sum::<usize>(),
            by_ip.get(&ip).copied().unwrap_or(0),
        );
        let counts = by_listener.entry(Arc::clone(listener)).or_default();
        if all >= max || here >= max_per_ip {
            counts.refused += 1;
            return None;
        }
        counts.open += 1;
        counts.accepted += 1;
        *by_ip.entry(ip).or_insert(0) += 1;
        Some(ConnectionSlot {
            connections: Arc::clone(self),
            ip,
            listener: Arc::clone(listener),
        })
    }

    /// The counts of each listener that had a connection, by its name.
    pub fn count(&self) -> BTreeMap<Arc<str>, ConnectionCounts> {
        self.lock().by_listener.clone()
    }

    fn lock(&self) -> MutexGuard<'_, OpenConnections> {
        self.0.lock().expect("no panic under this lock")
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let OpenConnections { by_ip, by_listener } = &mut *self.connections.lock();
        if let Some(counts) = by_listener.get_mut(&self.listener) {
            counts.open -= 1;
        }
        if let Some(n) = by_ip.get_mut(&self.ip) {
            *n -= 1;
            if *n == 0 {
                by_ip.remove(&self.ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_limited_in_all_and_by_address() {
        let all = Arc::new(Connections::default());
        let (a, b) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let name = Arc::<str>::from("PLAINTEXT");
        let first = all.admit(a, &name, 3, 2);
        let second = all.admit(a, &name, 3, 2);
        assert!(first.is_some() && second.is_some());
        assert!(all.admit(a, &name, 3, 2).is_none(), "two from one address");
        let third = all.admit(b, &name, 3, 2);
        assert!(
            third.is_some() && all.admit(b, &name, 3, 2).is_none(),
            "three in all"
        );
        let counts = |open, accepted, refused| ConnectionCounts {
            open,
            accepted,
            refused,
        };
        assert_eq!(
            all.count(),
            BTreeMap::from([(Arc::clone(&name), counts(3, 3, 2))])
        );
        drop(first);
        assert_eq!(
            all.count(),
            BTreeMap::from([(Arc::clone(&name), counts(2, 3, 2))])
        );
        assert!(all.admit(a, &name, 3, 2).is_some());
    }
}
