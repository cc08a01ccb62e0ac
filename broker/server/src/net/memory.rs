//! The broker's memory budget: bounds what peers can make the broker hold.
//!
//! ```text
//! queued.max.request.bytes = B
//!   buffers    3/16 B   read buffers, and the batches in them until they are on disk
//!   decoded    1/8 B    decoded requests until they are answered
//!   small      1/8 B    frames and decoded requests of up to SMALL_MAX, when their own pool is exhausted
//!   checks     1/4 B    decompression, and rewritten batches until they are on disk
//!   long       1/8 B    checks that may take long (larger batches that are rewritten) or a large part of their pool
//!   responses  1/8 B    responses from when they are built until they are sent
//!   sessions   1/8 B    fetch sessions
//! ```
//!
//! No cycle of waits can form: a task that waits for a pool holds only reservations of pools before it in this order
//! (buffers, decoded, long, checks, responses), never of that pool itself, or it can be evicted. Three kinds of
//! [`Evictable`] hold memory for as long as their peer likes, so they give way while a task waits: first parked fetches
//! are answered early, then the slowest frame or response ends with its connection. A frame that waits for memory itself
//! is not slow; but if such frames hold most of a pool together, those that hold most are evicted, except the oldest.
//! Small reservations have a reserve, so that a few large requests can't block many small ones.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use brokkr_env::{Env, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Limits;
use crate::stop::StopSignal;

/// What one permit stands for: the semaphore counts in `u32`.
const UNIT: usize = 1024;
/// Up to this many bytes a piece is small: it may come from the reserve.
pub const SMALL_MAX: usize = 16 * 1024;

/// A check that takes more sixteenths of its pool than that takes much: what may take long leaves about as many.
const CHECK_MUCH_16THS: usize = 7;

/// No memory within `memory.wait` ([`Limits`]).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Overloaded;

/// The budget (`queued.max.request.bytes`). Cloning shares it.
pub struct Memory<E: Env> {
    env: E,
    limits: Arc<Limits>,
    pools: Arc<Pools>,
}

impl<E: Env> Clone for Memory<E> {
    fn clone(&self) -> Self {
        Self {
            env: self.env.clone(),
            limits: Arc::clone(&self.limits),
            pools: Arc::clone(&self.pools),
        }
    }
}

struct Pools {
    buffers: Pool,
    decoded: Pool,
    small: Pool,
    sessions: Pool,
    responses: Pool,
    checks: Pool,
    long: Pool,
    evictables: Mutex<EvictableSet>,
}

/// The bytes that eviction returns to a pool.
#[derive(Clone, Copy, Debug)]
enum PoolKind {
    Buffers,
    Decoded,
    Small,
    Responses,
    /// No eviction returns bytes to this pool.
    Unevictable,
}

/// Bytes that an [`Evictable`] holds.
#[derive(Clone, Copy, Default, Debug)]
pub struct HeldBytes {
    /// In the pool of buffers.
    pub buffers: usize,
    /// In the pool of decoded requests.
    pub decoded: usize,
    /// In the pool of responses.
    pub responses: usize,
}

impl<E: Env> Memory<E> {
    /// A budget of `bytes`.
    pub fn new(env: E, bytes: usize, limits: &Arc<Limits>) -> Self {
        let pools = Pools {
            buffers: Pool::new(PoolKind::Buffers, bytes / 16 * 3),
            decoded: Pool::new(PoolKind::Decoded, bytes / 8),
            small: Pool::new(PoolKind::Small, bytes / 8),
            sessions: Pool::new(PoolKind::Unevictable, bytes / 8),
            responses: Pool::new(PoolKind::Responses, bytes / 8),
            checks: Pool::new(PoolKind::Unevictable, bytes / 4),
            long: Pool::new(PoolKind::Unevictable, bytes / 8),
            evictables: Mutex::default(),
        };
        Self {
            env,
            limits: Arc::clone(limits),
            pools: Arc::new(pools),
        }
    }

    /// The use of each pool.
    pub fn pools(&self) -> [PoolUse; 7] {
        let pools = &*self.pools;
        [
            pools.buffers.usage("buffers"),
            pools.decoded.usage("decoded"),
            pools.small.usage("small"),
            pools.checks.usage("checks"),
            pools.long.usage("long"),
            pools.responses.usage("responses"),
            pools.sessions.usage("sessions"),
        ]
    }

    /// The size of the pool of buffers: the limit of one frame.
    pub fn buffer_bytes_max(&self) -> usize {
        self.pools.buffers.bytes_max()
    }

    /// The size of the pool of decoded requests: the limit of one request.
    pub fn decoded_bytes_max(&self) -> usize {
        self.pools.decoded.bytes_max()
    }

    /// Reserves `bytes` for an arriving frame of `frame_bytes`; waits in order of arrival. More than the pool's size
    /// reserves all of the pool. Only small frames may use the reserve, not the first pieces of larger ones. Cancel-safe.
    ///
    /// # Errors
    /// [`Overloaded`] if the memory was not available in time.
    pub async fn buffer(&self, bytes: usize, frame_bytes: usize) -> Result<Share, Overloaded> {
        let pool = &self.pools.buffers;
        match frame_bytes <= SMALL_MAX {
            true => self.take_or_reserve(pool, bytes).await,
            false => self.take(pool, bytes).await,
        }
    }

    /// Reserves `bytes` for a read buffer if they are free.
    pub fn try_buffer(&self, bytes: usize) -> Option<Share> {
        self.pools.buffers.try_take(bytes)
    }

    /// As [`Memory::buffer`], for a decoded request. The caller may hold a buffer.
    pub async fn decoded(&self, bytes: usize) -> Result<Share, Overloaded> {
        self.take_or_reserve(&self.pools.decoded, bytes).await
    }

    /// Reserves `bytes` for a decoded request if they are free.
    pub fn try_decoded(&self, bytes: usize) -> Option<Share> {
        self.pools.decoded.try_take(bytes)
    }

    async fn take_or_reserve(&self, pool: &Pool, bytes: usize) -> Result<Share, Overloaded> {
        match pool.try_take(bytes) {
            Some(share) => Ok(share),
            None if bytes <= SMALL_MAX => self.take(&self.pools.small, bytes).await,
            None => self.take(pool, bytes).await,
        }
    }

    /// The size of the pool of checks: the limit of one check.
    pub fn check_bytes_max(&self) -> usize {
        self.pools.checks.bytes_max()
    }

    /// As [`Memory::buffer`], for records that are decompressed or rewritten. The caller may hold a buffer and a decoded
    /// request.
    pub async fn check(&self, bytes: usize) -> Result<Share, Overloaded> {
        self.take(&self.pools.checks, bytes).await
    }

    /// As [`Memory::check`], for work that may hold the memory for long. Long work, and large reservations, which would
    /// wait for long work, first wait in a queue of their own: this leaves part of the pool to others, and small
    /// reservations never wait behind large ones.
    pub async fn check_in_slices(&self, bytes: usize, is_long: bool) -> Result<[Share; 2], Overloaded> {
        let large_bytes = self.check_bytes_max() / 16 * CHECK_MUCH_16THS;
        let long = match is_long || bytes > large_bytes {
            true => self.take(&self.pools.long, bytes).await?,
            false => Share::default(),
        };
        Ok([self.check(bytes).await?, long])
    }

    /// Reserves `bytes` for a fetch session, which may live for long, if they are free. `None` if they exceed the pool.
    pub fn try_session(&self, bytes: usize) -> Option<Share> {
        let fits = bytes <= self.pools.sessions.bytes_max();
        if fits {
            self.pools.sessions.try_take(bytes)
        } else {
            None
        }
    }

    /// As [`Memory::buffer`], for a response. The caller may hold all other kinds.
    pub async fn response(&self, bytes: usize) -> Result<Share, Overloaded> {
        self.take(&self.pools.responses, bytes).await
    }

    /// Reserves `bytes` for a response if they are free.
    pub fn try_response(&self, bytes: usize) -> Option<Share> {
        self.pools.responses.try_take(bytes)
    }

    async fn take(&self, pool: &Pool, bytes: usize) -> Result<Share, Overloaded> {
        if let Some(share) = pool.try_take(bytes) {
            return Ok(share);
        }
        let _waiting = WaitingGuard::begin(&pool.waiting);
        let acquire = Arc::clone(&pool.units).acquire_many_owned(pool.units_of(bytes));
        let mut acquire = std::pin::pin!(acquire);
        let deadline = self.env.now() + self.limits.memory_wait;
        self.pools.unpark(&self.limits, pool.kind, self.env.now(), bytes);
        loop {
            tokio::select! {
                biased;
                permit = &mut acquire => {
                    return Ok(Share::new(permit.expect("the pool is never closed")));
                }
                () = self.env.sleep_until(self.env.now() + self.limits.memory_evict) => {
                    if self.env.now() >= deadline {
                        return Err(Overloaded);
                    }
                    self.pools.evict(&self.limits, pool, self.env.now(), bytes);
                }
            }
        }
    }

    /// Registers a frame that starts to arrive now.
    pub fn evictable_frame(&self) -> Arc<Evictable> {
        self.register(self.env.now(), false, HeldBytes::default())
    }

    /// Registers a response whose sending started at `started_at`, and the bytes held until it is sent.
    pub fn evictable_response(&self, started_at: Instant, held: HeldBytes) -> Arc<Evictable> {
        self.register(started_at, false, held)
    }

    /// Registers a fetch that parks now, and the bytes that it holds. Eviction answers it.
    pub fn evictable_fetch(&self, held: HeldBytes) -> Arc<Evictable> {
        self.register(self.env.now(), true, held)
    }

    fn register(&self, started_at: Instant, is_parked: bool, held: HeldBytes) -> Arc<Evictable> {
        let mut evictables = self.pools.lock();
        let id = evictables.next;
        evictables.next += 1;
        let new = Arc::new(Evictable {
            pools: Arc::downgrade(&self.pools),
            id,
            started_at,
            is_parked,
            is_waiting: AtomicBool::new(false),
            waited_millis: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            buffers: AtomicU64::new(held.buffers as u64),
            decoded: held.decoded as u64,
            responses: held.responses as u64,
            evicted: StopSignal::default(),
        });
        evictables.all.insert(id, Arc::downgrade(&new));
        new
    }
}

/// Reserved memory, released when this is dropped.
#[derive(Default, Debug)]
pub struct Share {
    first: Option<OwnedSemaphorePermit>,
    more: Vec<OwnedSemaphorePermit>,
}

impl Share {
    fn new(permit: OwnedSemaphorePermit) -> Self {
        Self {
            first: Some(permit),
            more: Vec::new(),
        }
    }

    /// Joins another reservation to this one.
    pub fn join(&mut self, more: Self) {
        let mut permits = more.first.into_iter().chain(more.more);
        if self.first.is_none() {
            self.first = permits.next();
        }
        self.more.extend(permits);
    }

    /// The reserved bytes.
    pub fn bytes(&self) -> usize {
        let units = |p: &OwnedSemaphorePermit| p.num_permits() * UNIT;
        self.first.iter().chain(&self.more).map(units).sum()
    }

    /// Releases the memory above `bytes`.
    pub fn shrink(&mut self, bytes: usize) {
        let mut above = self.bytes().saturating_sub(bytes) / UNIT;
        for permit in self.first.iter_mut().chain(&mut self.more) {
            let back = above.min(permit.num_permits());
            drop(permit.split(back));
            above -= back;
        }
    }
}

/// Holds memory for as long as its peer likes: a frame that arrives, a response that is sent, or a parked fetch.
pub struct Evictable {
    pools: Weak<Pools>,
    id: u64,
    started_at: Instant,
    is_parked: bool,
    /// Whether it waits for memory itself, and how long it has done so in total.
    is_waiting: AtomicBool,
    waited_millis: AtomicU64,
    /// Bytes received or sent so far.
    bytes: AtomicU64,
    buffers: AtomicU64,
    decoded: u64,
    responses: u64,
    evicted: StopSignal,
}

impl Drop for Evictable {
    fn drop(&mut self) {
        if let Some(pools) = self.pools.upgrade() {
            pools.lock().all.remove(&self.id);
        }
    }
}

impl Evictable {
    /// Adds sent bytes.
    pub fn add_sent(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Adds received bytes, which are held.
    pub fn add_received(&self, bytes: usize) {
        self.add_sent(bytes);
        self.buffers.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Waits for memory; the wait does not count as the peer's time. Not cancel-safe: if it is dropped, the evictable
    /// stays marked as waiting.
    pub async fn while_waiting<E: Env, T>(&self, env: &E, memory: impl Future<Output = T>) -> T {
        let from = env.now();
        self.is_waiting.store(true, Ordering::Relaxed);
        let got = memory.await;
        self.is_waiting.store(false, Ordering::Relaxed);
        let waited = env.now().saturating_since(from).as_millis() as u64;
        self.waited_millis.fetch_add(waited, Ordering::Relaxed);
        got
    }

    /// Waits until it is evicted. Cancel-safe.
    pub async fn evicted(&self) {
        self.evicted.wait().await;
    }

    fn held_bytes(&self, kind: PoolKind) -> u64 {
        let buffers = self.buffers.load(Ordering::Relaxed);
        match kind {
            PoolKind::Buffers => buffers,
            PoolKind::Decoded => self.decoded,
            PoolKind::Small => buffers + self.decoded,
            PoolKind::Responses => self.responses,
            PoolKind::Unevictable => 0,
        }
    }

    /// The peer's time so far: the age without waits for memory.
    fn peer_millis(&self, now: Instant) -> u64 {
        let age = now.saturating_since(self.started_at).as_millis() as u64;
        age.saturating_sub(self.waited_millis.load(Ordering::Relaxed))
    }

    fn bytes_per_second(&self, now: Instant) -> u64 {
        let bytes = self.bytes.load(Ordering::Relaxed);
        bytes.saturating_mul(1000) / self.peer_millis(now).max(1)
    }

    fn is_waiting(&self) -> bool {
        self.is_waiting.load(Ordering::Relaxed)
    }
}

struct Pool {
    kind: PoolKind,
    units: Arc<Semaphore>,
    units_max: u32,
    /// Tasks that wait for units.
    waiting: AtomicUsize,
}

/// The use of a pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PoolUse {
    /// The name of the pool.
    pub name: &'static str,
    /// The pool's size in bytes.
    pub capacity_bytes: usize,
    /// Reserved bytes.
    pub used_bytes: usize,
    /// Tasks that wait for bytes.
    pub waiting: usize,
}

/// Counts a task as waiting for units of a pool, until it is dropped.
struct WaitingGuard<'a>(&'a AtomicUsize);

impl<'a> WaitingGuard<'a> {
    fn begin(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for WaitingGuard<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct EvictableSet {
    all: BTreeMap<u64, Weak<Evictable>>,
    next: u64,
    evicted_at: Option<Instant>,
    unparked_at: Option<Instant>,
}

impl Pool {
    fn new(kind: PoolKind, bytes: usize) -> Self {
        let units_max = u32::try_from(bytes / UNIT)
            .unwrap_or(u32::MAX >> 3)
            .clamp(1, u32::MAX >> 3);
        Self {
            kind,
            units: Arc::new(Semaphore::new(units_max as usize)),
            units_max,
            waiting: AtomicUsize::new(0),
        }
    }

    fn usage(&self, name: &'static str) -> PoolUse {
        let free = self.units.available_permits().min(self.units_max as usize);
        PoolUse {
            name,
            capacity_bytes: self.bytes_max(),
            used_bytes: self.bytes_max() - free * UNIT,
            waiting: self.waiting.load(Ordering::Relaxed),
        }
    }

    fn bytes_max(&self) -> usize {
        self.units_max as usize * UNIT
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
        Some(Share::new(permit))
    }
}

impl Pools {
    fn lock(&self) -> MutexGuard<'_, EvictableSet> {
        self.evictables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers parked fetches, the oldest first, for a task that starts to wait for `bytes`.
    fn unpark(&self, limits: &Limits, kind: PoolKind, now: Instant, bytes: usize) {
        let parked: Vec<Arc<Evictable>> = {
            let mut evictables = self.lock();
            if evictables
                .unparked_at
                .is_some_and(|at| now < at + limits.memory_unpark)
            {
                return;
            }
            evictables.unparked_at = Some(now);
            let all = evictables.all.values().filter_map(Weak::upgrade);
            all.filter(|w| w.is_parked).collect()
        };
        evict_until(parked.iter(), kind, bytes as u64);
    }

    /// Answers parked fetches, the oldest first, then evicts the slowest transfers that are old enough to be judged, until
    /// the evicted ones held `bytes`. If they held less, and the frames that wait for memory hold most of the pool
    /// together, evicts those that hold most, except the oldest.
    fn evict(&self, limits: &Limits, pool: &Pool, now: Instant, bytes: usize) {
        // The upgraded references are dropped AFTER the lock is released: dropping the last one takes the lock.
        let mut candidates: Vec<Arc<Evictable>> = {
            let mut evictables = self.lock();
            if evictables
                .evicted_at
                .is_some_and(|at| now < at + limits.memory_evict)
            {
                return;
            }
            evictables.evicted_at = Some(now);
            evictables.all.values().filter_map(Weak::upgrade).collect()
        };
        let kind = pool.kind;
        candidates.retain(|w| w.held_bytes(kind) > 0);
        let (mut waiting, mut slow): (Vec<_>, Vec<_>) = candidates.into_iter().partition(|w| w.is_waiting());
        slow.retain(|w| w.is_parked || w.peer_millis(now) >= limits.memory_evict_age.as_millis() as u64);
        slow.sort_by_cached_key(|w| (!w.is_parked, w.bytes_per_second(now), w.id));
        let freed = evict_until(slow.iter(), kind, bytes as u64);
        // Frames that hold a part and wait for more: some must give way, or none would ever continue. Frees a quarter of
        // the pool at once, since new frames arrive all the time; never evicts the oldest, so that one continues however
        // often the others retry.
        let held: u64 = waiting.iter().map(|w| w.held_bytes(kind)).sum();
        let bytes_max = pool.bytes_max() as u64;
        if freed < bytes as u64 && waiting.len() > 1 && held > bytes_max / 2 {
            waiting[1..].sort_by_cached_key(|w| (u64::MAX - w.held_bytes(kind), w.id));
            evict_until(
                waiting[1..].iter(),
                kind,
                (bytes as u64 - freed).max(bytes_max / 4),
            );
        }
    }
}

/// Evicts one after the other, until they held `bytes` for a pool of this kind. Returns the bytes that they held.
fn evict_until<'a>(candidates: impl Iterator<Item = &'a Arc<Evictable>>, kind: PoolKind, bytes: u64) -> u64 {
    let mut held = 0;
    for w in candidates.filter(|w| w.held_bytes(kind) > 0 && !w.evicted.is_triggered()) {
        if held >= bytes {
            break;
        }
        if w.is_parked {
            brokkr_types::reached!("a parked fetch was answered early, for others waited for memory");
        } else {
            brokkr_types::reached!("a slow transfer was evicted, for others waited for memory");
        }
        w.evicted.trigger();
        held += w.held_bytes(kind);
    }
    held
}

#[cfg(test)]
mod tests {
    use super::*;
    use brokkr_env::tokio::TokioEnv;
    use futures_util::FutureExt;

    const KIB: usize = 1024;

    #[tokio::test]
    async fn small_reservations_have_a_reserve_and_shrinking_releases_memory() {
        let memory = Memory::new(TokioEnv::new(1), 800 * KIB, &Arc::default());
        assert_eq!(memory.buffer_bytes_max(), 150 * KIB);
        let mut all = memory.try_buffer(10_000 * KIB).expect("all of the pool");
        assert_eq!(all.bytes(), 150 * KIB);
        assert!(memory.try_buffer(KIB).is_none());
        let small = memory
            .buffer(SMALL_MAX, SMALL_MAX)
            .await
            .expect("from the reserve");
        assert_eq!(small.bytes(), SMALL_MAX);
        all.shrink(100 * KIB);
        assert_eq!(all.bytes(), 100 * KIB);
        let mut more = memory.try_buffer(50 * KIB).expect("the released bytes");
        more.join(small);
        assert_eq!(more.bytes(), 50 * KIB + SMALL_MAX);
        more.shrink(KIB);
        drop((all, more));
        assert!(memory.try_buffer(150 * KIB).is_some());
        let response = memory.response(100 * KIB).await.expect("a pool of its own");
        assert_eq!(response.bytes(), 100 * KIB);
    }

    #[tokio::test]
    async fn long_and_large_checks_leave_memory_to_others() {
        let memory = Memory::new(TokioEnv::new(1), 800 * KIB, &Arc::default());
        let half = memory.check_bytes_max() / 2;
        let held = memory.check_in_slices(half + KIB, true).await;
        let [held, _] = held.as_ref().expect("all is free");
        assert_eq!(held.bytes(), half + KIB);
        let mut long = std::pin::pin!(memory.check_in_slices(KIB, true));
        let mut large = std::pin::pin!(memory.check_in_slices(2 * half, false));
        assert!(long.as_mut().now_or_never().is_none());
        assert!(large.as_mut().now_or_never().is_none());
        // Others don't wait behind those.
        for bytes in [KIB, half * 7 / 8] {
            let others = memory.check_in_slices(bytes, false).now_or_never();
            assert!(others.is_some_and(|shares| shares.is_ok()), "{bytes}");
        }
    }

    fn is_evicted(evictable: &Evictable) -> bool {
        evictable.evicted.is_triggered()
    }

    #[tokio::test]
    async fn the_slowest_transfer_is_evicted_while_others_wait() {
        let memory = Memory::new(TokioEnv::new(1), 800 * KIB, &Arc::default());
        let held = memory.try_buffer(400 * KIB).expect("all of the pool");
        let (quick, slow) = (memory.evictable_frame(), memory.evictable_frame());
        quick.add_received(1 << 20);
        slow.add_received(100 * KIB);
        let evicted = async {
            slow.evicted().await;
            drop(held);
        };
        let waits = memory.buffer(100 * KIB, 100 * KIB);
        let (share, ()) = tokio::join!(waits, evicted);
        assert_eq!(share.expect("the bytes of the slow one").bytes(), 100 * KIB);
        assert!(!is_evicted(&quick));
        drop((quick, slow));
        assert!(memory.pools.lock().all.is_empty());
    }

    #[tokio::test]
    async fn a_parked_fetch_is_answered_before_transfers_are_evicted() {
        let memory = Memory::new(TokioEnv::new(1), 800 * KIB, &Arc::default());
        let held = memory.try_decoded(100 * KIB).expect("all of the pool");
        let decoded = |decoded| HeldBytes {
            decoded,
            ..HeldBytes::default()
        };
        let slow = memory.evictable_response(memory.env.now(), decoded(150 * KIB));
        let of_others = memory.evictable_fetch(HeldBytes {
            buffers: 150 * KIB,
            ..HeldBytes::default()
        });
        let parked = memory.evictable_fetch(decoded(100 * KIB));
        let later = memory.evictable_fetch(decoded(100 * KIB));
        let mut waits = std::pin::pin!(memory.decoded(100 * KIB));
        assert!(waits.as_mut().now_or_never().is_none());
        // The first poll does that. A moment later, whatever the machine's speed, transfers are judged too.
        assert!(is_evicted(&parked));
        assert!(![slow, of_others, later].iter().any(|w| is_evicted(w)));
        drop(held);
        assert_eq!(
            waits.await.expect("the bytes of the parked fetch").bytes(),
            100 * KIB
        );
    }

    #[tokio::test]
    async fn of_frames_that_wait_for_each_other_the_oldest_continues() {
        let memory = Memory::new(TokioEnv::new(1), 800 * KIB, &Arc::default());
        let held = |bytes| memory.try_buffer(bytes).expect("of the pool");
        let frame = |bytes| {
            let frame = memory.evictable_frame();
            frame.add_received(bytes);
            (frame, held(bytes))
        };
        let (oldest, _first) = frame(60 * KIB);
        let (large, of_large) = frame(50 * KIB);
        let (small, _third) = frame(40 * KIB);
        let more = |frame: Arc<Evictable>| {
            let memory = memory.clone();
            async move {
                let more = memory.buffer(50 * KIB, 200 * KIB);
                frame.while_waiting(&memory.env, more).await
            }
        };
        let evicted = async {
            large.evicted().await;
            drop(of_large);
        };
        let waits = async {
            tokio::select! {
                biased;
                more = more(Arc::clone(&oldest)) => more,
                _ = more(Arc::clone(&large)) => panic!("it was evicted"),
                _ = more(Arc::clone(&small)) => panic!("it is behind the oldest"),
            }
        };
        let (share, ()) = tokio::join!(waits, evicted);
        assert_eq!(share.expect("the bytes of the large one").bytes(), 50 * KIB);
        assert!(is_evicted(&large) && !is_evicted(&oldest) && !is_evicted(&small));
    }
}
