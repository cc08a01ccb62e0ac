//! Accepts connections up to the limits.

use std::net::SocketAddr;
use std::sync::Arc;

use brokkr_env::{Env, Listener};

use super::connection;
use crate::ctx::{Ctx, Peer};
use crate::stop::StopSignal;

/// Accepts connections until the stop signal.
pub async fn accept<E: Env>(ctx: Ctx<E>, name: Arc<str>, mut listener: E::Listener, stop: StopSignal) {
    loop {
        tokio::select! {
            biased;
            () = stop.wait() => return,
            accepted = listener.accept() => match accepted {
                Ok((conn, addr)) => start(&ctx, &name, conn, addr, &stop),
                Err(error) => {
                    ctx.error_log.record("accept failed", &error);
                    ctx.env.sleep_until(ctx.env.now() + ctx.config.limits.accept_retry).await;
                }
            },
        }
    }
}

fn start<E: Env>(ctx: &Ctx<E>, name: &Arc<str>, conn: E::Conn, addr: SocketAddr, stop: &StopSignal) {
    let limit = |n: i32| usize::try_from(n).unwrap_or(0);
    let (max, max_per_ip) = (
        limit(ctx.config.max_connections),
        limit(ctx.config.max_connections_per_ip),
    );
    let Some(slot) = ctx.connections.admit(addr.ip(), name, max, max_per_ip) else {
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
            () = connection::serve(ctx, conn, peer, slot) => {}
        }
    });
}
