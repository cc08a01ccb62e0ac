//! Accepts connections, as many as allowed.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use brokkr_env::{Env, Listener};

use crate::conn;
use crate::ctx::{Ctx, Peer};
use crate::stop::Stop;

/// How long to wait after an accept failed (no file handles, say) before the next.
const RETRY: Duration = Duration::from_millis(50);

/// Who is connected, over all listeners.
#[derive(Default)]
pub struct Connections {
    by_ip: Mutex<BTreeMap<IpAddr, usize>>,
}

/// A connection's place, given back when it is dropped.
pub struct Slot {
    connections: Arc<Connections>,
    ip: IpAddr,
}

impl Connections {
    /// A place for a connection from `ip`, if there is one: `max` in all, `max_per_ip` from there.
    pub fn enter(self: &Arc<Self>, ip: IpAddr, max: usize, max_per_ip: usize) -> Option<Slot> {
        let mut by_ip = self.by_ip.lock().expect("no panic under this lock");
        let (all, here) = (
            by_ip.values().sum::<usize>(),
            by_ip.get(&ip).copied().unwrap_or(0),
        );
        if all >= max || here >= max_per_ip {
            return None;
        }
        *by_ip.entry(ip).or_insert(0) += 1;
        Some(Slot {
            connections: Arc::clone(self),
            ip,
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut by_ip = self.connections.by_ip.lock().expect("no panic under this lock");
        if let Some(n) = by_ip.get_mut(&self.ip) {
            *n -= 1;
            if *n == 0 {
                by_ip.remove(&self.ip);
            }
        }
    }
}

/// Accepts until told to stop.
pub async fn accept<E: Env>(ctx: Ctx<E>, name: Arc<str>, mut listener: E::Listener, stop: Stop) {
    loop {
        tokio::select! {
            biased;
            () = stop.wait() => return,
            accepted = listener.accept() => match accepted {
                Ok((conn, addr)) => start(&ctx, &name, conn, addr, &stop),
                Err(error) => {
                    ctx.error_log.record("accept failed", &error);
                    ctx.env.sleep_until(ctx.env.now() + RETRY).await;
                }
            },
        }
    }
}

fn start<E: Env>(ctx: &Ctx<E>, name: &Arc<str>, conn: E::Conn, addr: SocketAddr, stop: &Stop) {
    let limit = |n: i32| usize::try_from(n).unwrap_or(0);
    let (max, max_per_ip) = (
        limit(ctx.config.max_connections),
        limit(ctx.config.max_connections_per_ip),
    );
    let Some(slot) = ctx.connections.enter(addr.ip(), max, max_per_ip) else {
        ctx.error_log.record("too many connections", &addr);
        return;
    };
    let peer = Peer {
        addr,
        listener: Arc::clone(name),
    };
    let (ctx, stop) = (ctx.clone(), stop.clone());
    let env = ctx.env.clone();
    env.spawn("conn", async move {
        tokio::select! {
            biased;
            () = stop.wait() => {}
            () = conn::serve(ctx, conn, peer, slot) => {}
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_in_all_and_by_address_and_given_back() {
        let all = Arc::new(Connections::default());
        let (a, b) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let first = all.enter(a, 3, 2);
        let second = all.enter(a, 3, 2);
        assert!(first.is_some() && second.is_some());
        assert!(all.enter(a, 3, 2).is_none(), "two from one address");
        let third = all.enter(b, 3, 2);
        assert!(third.is_some() && all.enter(b, 3, 2).is_none(), "three in all");
        drop(first);
        assert!(all.enter(a, 3, 2).is_some());
    }
}
