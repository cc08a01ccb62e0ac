//! The broker's memory budget: what peers can make it hold.
//!
//! ```text
//! queued.max.request.bytes = B
//!   requests   1/2 B   read buffers, batches until they are on disk
//!     small    1/8 B   of those, the pieces of up to SMALL_MAX, when the half is taken
//!   sessions   1/8 B   fetch sessions
//!   responses  1/4 B   responses that are built until they are sent
//!   decoded    1/8 B   beyond B: decoded requests
//!   checks     1/8 B   beyond B: decompression; one that takes more is alone
//! ```
//!
//! Pools apart, so that no cycle of waits can form: a request that holds its share waits for room to be decoded, then to
//! be checked, then for its response, in this order, and whoever holds room for a response waits for nobody but its peer. A peer that is slow while a pool is short is evicted:
//! each [`Transfer`] (a frame that arrives, a response that leaves) counts its bytes, and the slowest one ends with its
//! connection. Small pieces have a reserve, so that a few large requests can't keep out many small ones.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use brokkr_env::{Env, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::stop::Stop;

/// What one permit stands for: the semaphore counts in `u32`.
const UNIT: usize = 1024;
/// Up to this many bytes a piece is small: it may come from the reserve.
pub const SMALL_MAX: usize = 16 * 1024;
/// How often the slowest transfers are evicted while somebody waits for memory.
const EVICT_EVERY: Duration = Duration::from_millis(100);
/// A younger transfer is not judged by its speed.
const EVICT_AGE_MIN: Duration = Duration::from_secs(1);
/// Who waited this long for memory is refused: what holds it (a disk that hangs, say) gives nothing back.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// No memory within [`WAIT_MAX`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Overloaded;

/// The budget (`queued.max.request.bytes`). Cloning shares it.
pub struct Memory<E: Env> {
    env: E,
    requests: Arc<Pool>,
    small: Arc<Pool>,
    sessions: Arc<Pool>,
    responses: Arc<Pool>,
    decoded: Arc<Pool>,
    checks: Arc<Pool>,
}

impl<E: Env> Clone for Memory<E> {
    fn clone(&self) -> Self {
        Self {
            env: self.env.clone(),
            requests: Arc::clone(&self.requests),
            small: Arc::clone(&self.small),
            sessions: Arc::clone(&self.sessions),
            responses: Arc::clone(&self.responses),
            decoded: Arc::clone(&self.decoded),
            checks: Arc::clone(&self.checks),
        }
    }
}

impl<E: Env> Memory<E> {
    /// A budget of `bytes`.
    pub fn new(env: E, bytes: usize) -> Self {
        Self {
            env,
            requests: Pool::new(bytes / 2),
            small: Pool::new(bytes / 8),
            sessions: Pool::new(bytes / 8),
            responses: Pool::new(bytes / 4),
            decoded: Pool::new(bytes / 8),
            checks: Pool::new(bytes / 8),
        }
    }

    /// The most that one request can hold at a time.
    pub fn request_bytes_max(&self) -> usize {
        self.requests.units_max as usize * UNIT
    }

    /// Takes `bytes` for a request, waiting for them in the order of those who ask. More than all of the pool is all of
    /// it. Cancel-safe.
    pub async fn request(&self, bytes: usize) -> Result<Share, Overloaded> {
        if let Some(share) = self.try_request(bytes) {
            return Ok(share);
        }
        let pool = if bytes <= SMALL_MAX {
            &self.small
        } else {
            &self.requests
        };
        pool.take(&self.env, bytes).await
    }

    /// Takes `bytes` for a request if they are free.
    pub fn try_request(&self, bytes: usize) -> Option<Share> {
        self.requests.try_take(bytes)
    }

    /// Takes `bytes` for a request that is decoded, if they are free.
    pub fn try_decoded(&self, bytes: usize) -> Option<Share> {
        self.decoded.try_take(bytes)
    }

    /// As [`Memory::request`], for a request that is decoded: whoever asks may hold a share of what arrived.
    pub async fn decoded(&self, bytes: usize) -> Result<Share, Overloaded> {
        match self.decoded.try_take(bytes) {
            Some(share) => Ok(share),
            None => self.decoded.take(&self.env, bytes).await,
        }
    }

    /// As [`Memory::decoded`], for records that are decompressed: whoever asks may hold shares of both others.
    pub async fn check(&self, bytes: usize) -> Result<Share, Overloaded> {
        match self.checks.try_take(bytes) {
            Some(share) => Ok(share),
            None => self.checks.take(&self.env, bytes).await,
        }
    }

    /// Takes `bytes` for a fetch session, which may live for long, if there are so many.
    pub fn try_session(&self, bytes: usize) -> Option<Share> {
        let fits = bytes <= self.sessions.units_max as usize * UNIT;
        if fits { self.sessions.try_take(bytes) } else { None }
    }

    /// Takes `bytes` for a response, waiting for them. Cancel-safe.
    pub async fn response(&self, bytes: usize) -> Result<Share, Overloaded> {
        match self.responses.try_take(bytes) {
            Some(share) => Ok(share),
            None => self.responses.take(&self.env, bytes).await,
        }
    }

    /// A frame that begins to arrive now.
    pub fn arriving(&self) -> Arc<Transfer> {
        self.requests.transfer(self.env.now())
    }

    /// A response that begins to leave now and holds so many bytes until it has left.
    pub fn leaving(&self, held: usize) -> Arc<Transfer> {
        let transfer = self.responses.transfer(self.env.now());
        transfer.held.store(held as u64, Ordering::Relaxed);
        transfer
    }
}

/// Memory that was taken, given back when this is dropped.
#[derive(Default, Debug)]
pub struct Share {
    first: Option<OwnedSemaphorePermit>,
    more: Vec<OwnedSemaphorePermit>,
}

impl Share {
    fn of(permit: OwnedSemaphorePermit) -> Self {
        Self {
            first: Some(permit),
            more: Vec::new(),
        }
    }

    /// One share of both.
    pub fn join(&mut self, more: Self) {
        let mut permits = more.first.into_iter().chain(more.more);
        if self.first.is_none() {
            self.first = permits.next();
        }
        self.more.extend(permits);
    }

    /// Bytes that it holds.
    pub fn bytes(&self) -> usize {
        let units = |p: &OwnedSemaphorePermit| p.num_permits() * UNIT;
        self.first.iter().chain(&self.more).map(units).sum()
    }

    /// Gives back what is held above `bytes`.
    pub fn shrink(&mut self, bytes: usize) {
        let mut above = self.bytes().saturating_sub(bytes) / UNIT;
        for permit in self.first.iter_mut().chain(&mut self.more) {
            let back = above.min(permit.num_permits());
            drop(permit.split(back));
            above -= back;
        }
    }
}

/// Bytes on their way from or to a peer, watched for their speed.
pub struct Transfer {
    pool: Weak<Pool>,
    id: u64,
    begun: Instant,
    bytes: AtomicU64,
    held: AtomicU64,
    evicted: Stop,
}

impl Drop for Transfer {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.upgrade() {
            pool.lock().all.remove(&self.id);
        }
    }
}

impl Transfer {
    /// So many more bytes came or left.
    pub fn passed(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// So many more bytes came, and are held.
    pub fn came(&self, bytes: usize) {
        self.passed(bytes);
        self.held.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Waits until the transfer is evicted: its connection is to be closed. Cancel-safe.
    pub async fn evicted(&self) {
        self.evicted.wait().await;
    }
}

struct Pool {
    units: Arc<Semaphore>,
    units_max: u32,
    transfers: Mutex<Transfers>,
}

#[derive(Default)]
struct Transfers {
    all: BTreeMap<u64, Weak<Transfer>>,
    next: u64,
    evicted_at: Instant,
}

impl Pool {
    fn new(bytes: usize) -> Arc<Self> {
        let units_max = u32::try_from(bytes / UNIT)
            .unwrap_or(u32::MAX >> 3)
            .clamp(1, u32::MAX >> 3);
        Arc::new(Self {
            units: Arc::new(Semaphore::new(units_max as usize)),
            units_max,
            transfers: Mutex::default(),
        })
    }

    fn units_of(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.div_ceil(UNIT))
            .unwrap_or(u32::MAX)
            .min(self.units_max)
    }

    fn try_take(&self, bytes: usize) -> Option<Share> {
        let units = self.units_of(bytes);
        if units == 0 {
            return Some(Share::default());
        }
        let permit = Arc::clone(&self.units).try_acquire_many_owned(units).ok()?;
        Some(Share::of(permit))
    }

    async fn take<E: Env>(&self, env: &E, bytes: usize) -> Result<Share, Overloaded> {
        let acquire = Arc::clone(&self.units).acquire_many_owned(self.units_of(bytes));
        let mut acquire = std::pin::pin!(acquire);
        let deadline = env.now() + WAIT_MAX;
        loop {
            tokio::select! {
                biased;
                permit = &mut acquire => {
                    return Ok(Share::of(permit.expect("the pool is never closed")));
                }
                () = env.sleep_until(env.now() + EVICT_EVERY) => {
                    if env.now() >= deadline {
                        return Err(Overloaded);
                    }
                    self.evict_slowest(env.now(), bytes);
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Transfers> {
        self.transfers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn transfer(self: &Arc<Self>, now: Instant) -> Arc<Transfer> {
        let mut transfers = self.lock();
        let id = transfers.next;
        transfers.next += 1;
        let transfer = Arc::new(Transfer {
            pool: Arc::downgrade(self),
            id,
            begun: now,
            bytes: AtomicU64::new(0),
            held: AtomicU64::new(0),
            evicted: Stop::default(),
        });
        transfers.all.insert(id, Arc::downgrade(&transfer));
        transfer
    }

    /// Evicts the slowest transfers that are old enough to be judged, one at least, until they held `bytes`; of equals the
    /// oldest first.
    fn evict_slowest(&self, now: Instant, bytes: usize) {
        // Upgraded ones are dropped AFTER the lock: the last reference takes it.
        let mut transfers: Vec<Arc<Transfer>> = {
            let mut transfers = self.lock();
            if now < transfers.evicted_at + EVICT_EVERY {
                return;
            }
            transfers.evicted_at = now;
            transfers.all.values().filter_map(Weak::upgrade).collect()
        };
        let bytes_per_second = |t: &Transfer| {
            let millis = now.saturating_since(t.begun).as_millis().max(1) as u64;
            t.bytes.load(Ordering::Relaxed).saturating_mul(1000) / millis
        };
        transfers.sort_by_cached_key(|t| (bytes_per_second(t), t.id));
        let mut held = 0;
        for slow in transfers.iter().filter(|t| now >= t.begun + EVICT_AGE_MIN) {
            brokkr_types::reached!("a slow transfer was evicted, for others waited for memory");
            slow.evicted.tell();
            held += slow.held.load(Ordering::Relaxed);
            if held >= bytes as u64 {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use brokkr_env::tokio::TokioEnv;

    const KIB: usize = 1024;

    #[tokio::test]
    async fn small_pieces_have_a_reserve_and_shares_give_back() {
        let memory = Memory::new(TokioEnv::new(1), 800 * KIB);
        assert_eq!(memory.request_bytes_max(), 400 * KIB);
        let mut all = memory.try_request(10_000 * KIB).expect("all of the pool");
        assert_eq!(all.bytes(), 400 * KIB);
        assert!(memory.try_request(KIB).is_none());
        let small = memory.request(SMALL_MAX).await.expect("from the reserve");
        assert_eq!(small.bytes(), SMALL_MAX);
        all.shrink(100 * KIB);
        assert_eq!(all.bytes(), 100 * KIB);
        let mut more = memory.try_request(300 * KIB).expect("what was given back");
        more.join(small);
        assert_eq!(more.bytes(), 300 * KIB + SMALL_MAX);
        more.shrink(KIB);
        drop((all, more));
        assert!(memory.try_request(400 * KIB).is_some());
        let response = memory.response(200 * KIB).await.expect("a pool of its own");
        assert_eq!(response.bytes(), 200 * KIB);
    }

    #[tokio::test]
    async fn the_slowest_transfer_is_evicted_while_others_wait() {
        let memory = Memory::new(TokioEnv::new(1), 800 * KIB);
        let held = memory.try_request(400 * KIB).expect("all of the pool");
        let (quick, slow) = (memory.arriving(), memory.arriving());
        quick.came(1 << 20);
        slow.came(100 * KIB);
        let evicted = async {
            slow.evicted().await;
            drop(held);
        };
        let waits = memory.request(100 * KIB);
        let (share, ()) = tokio::join!(waits, evicted);
        assert_eq!(share.expect("what the slow one held").bytes(), 100 * KIB);
        let quick_too = std::future::poll_fn(|cx| {
            let evicted = std::pin::pin!(quick.evicted());
            std::task::Poll::Ready(evicted.poll(cx).is_ready())
        });
        assert!(!quick_too.await);
        drop((quick, slow));
        assert!(memory.requests.lock().all.is_empty());
    }
}
