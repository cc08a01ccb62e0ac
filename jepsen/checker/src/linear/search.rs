//! Searches an order of one object's operations.
//!
//! Calls and returns form a doubly linked list in the order of the history. Taking an operation removes its two entries;
//! backtracking inserts them again.
//!
//! ```text
//! (call a)-(call b)-(return b)-(return a)-(call c)-(return c)
//!      take b ▶ (call a)-(return a)-(call c)-(return c)
//! ```
//! A read that is possible now is taken at once without alternatives: it can't fit better later.
//!
//! Operations of unknown outcome are kept apart, since none of them must be taken, and are tried last:
//! - an operation that would not change the state is not tried;
//! - of two equal calls the earlier is tried first;
//! - if a configuration with the same state was tried with fewer of them, there is nothing more to find.

use std::hash::Hash;

use super::model::Model;
use crate::table::Interner;

/// Limits of the search.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Maximum steps of one object's search.
    pub steps_max: u64,
    /// Maximum bytes of the configurations that one object's search stores. What their states hold on the heap does not count.
    pub bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            steps_max: 10_000_000,
            bytes_max: 1 << 30,
        }
    }
}

/// A call of an object, and its times.
pub(super) struct Call<C> {
    pub(super) call: C,
    pub(super) began: u64,
    /// `None` if its outcome is unknown.
    pub(super) ended: Option<u64>,
}

impl<C> Call<C> {
    /// Its index in a finding.
    fn index(&self) -> u64 {
        self.ended.unwrap_or(self.began)
    }
}

pub(super) enum Outcome<C, S> {
    Linearizable,
    Not(Box<DeadEnd<C, S>>),
    GaveUp { steps: u64, bytes: u64 },
}

/// The order that reaches furthest in time, and the operation that can't follow it.
pub(super) struct DeadEnd<C, S> {
    /// Number of its operations.
    pub(super) len: usize,
    /// The last operations of the order.
    pub(super) order: Vec<u64>,
    pub(super) state: S,
    /// The operation that must come next.
    pub(super) due: (u64, C),
    /// The operations that ran at that time.
    pub(super) running: Vec<u64>,
}

/// A configuration: which of the ended operations are linearized, and the object's state then.
#[derive(PartialEq, Eq, Hash)]
struct Configuration<S> {
    /// All operations before this one are linearized.
    from: u32,
    /// Bits of the operations after it, without trailing zero words.
    taken: Box<[u64]>,
    state: S,
}

/// The configurations that were tried.
struct ConfigurationCache<S> {
    configurations: Interner<Configuration<S>>,
    /// For each configuration the sets of unknown operations that it was tried with. A superset of a tried set is not tried.
    with: Vec<Vec<Box<[u64]>>>,
    /// Bytes of both, without those of states on the heap.
    bytes: u64,
}

impl<S: Hash + Eq> ConfigurationCache<S> {
    /// Whether the configuration was not tried yet; records it.
    fn is_new(&mut self, configurations: Configuration<S>, unknown: &BitSet) -> bool {
        let taken = configurations.taken.len();
        let (number, new) = self.configurations.number(configurations);
        if new {
            self.with.push(Vec::new());
            // An interner has up to two slots of four bytes for each item.
            let fixed = size_of::<Configuration<S>>() + size_of::<Vec<Box<[u64]>>>() + 8;
            self.bytes += (fixed + taken * 8) as u64;
        }
        let sets = &mut self.with[number as usize];
        if sets.iter().any(|s| unknown.contains(s)) {
            return false;
        }
        let set = unknown.words(0);
        self.bytes += (size_of::<Box<[u64]>>() + set.len() * 8) as u64;
        sets.push(set);
        true
    }
}

/// A set of small numbers as bits.
#[derive(Default)]
struct BitSet(Vec<u64>);

impl BitSet {
    fn set(&mut self, at: usize, on: bool) {
        let (word, bit) = (at / 64, 1 << (at % 64));
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        if on {
            self.0[word] |= bit;
        } else {
            self.0[word] &= !bit;
        }
    }

    fn get(&self, at: usize) -> bool {
        self.0.get(at / 64).is_some_and(|w| w & (1 << (at % 64)) != 0)
    }

    /// Whether it contains all of these bits.
    fn contains(&self, words: &[u64]) -> bool {
        let at = |i: usize| self.0.get(i).copied().unwrap_or(0);
        words.iter().enumerate().all(|(i, w)| w & !at(i) == 0)
    }

    /// The words from that of `from` on, without trailing zeros.
    fn words(&self, from: usize) -> Box<[u64]> {
        let words = self.0.get(from / 64..).unwrap_or_default();
        let end = words.iter().rposition(|w| *w != 0).map_or(0, |at| at + 1);
        words[..end].into()
    }
}

/// Maximum number of operations in a finding: the end of a long order is the useful part.
const OPS_LISTED_MAX: usize = 16;

const HEAD: usize = 0;

/// An entry of the list: the call or the return of an operation.
#[derive(Clone, Copy)]
struct ListEntry {
    op: usize,
    /// For a call, the entry of its return.
    returns: Option<usize>,
    next: usize,
    before: usize,
}

struct List(Vec<ListEntry>);

impl List {
    /// The list of the operations that ended.
    fn new<C>(calls: &[Call<C>]) -> Self {
        // (when, call before return, which operation)
        let mut events: Vec<(u64, bool, usize)> = Vec::with_capacity(calls.len() * 2);
        for (op, call) in calls.iter().enumerate() {
            if let Some(ended) = call.ended {
                events.push((call.began, false, op));
                events.push((ended, true, op));
            }
        }
        events.sort_unstable();
        let end = events.len() + 1;
        let none = ListEntry {
            op: usize::MAX,
            returns: None,
            next: 1,
            before: HEAD,
        };
        let mut entries = vec![none];
        let mut call_of = vec![0; calls.len()];
        for (i, (_, is_return, op)) in events.iter().enumerate() {
            let at = i + 1;
            if *is_return {
                let call: usize = call_of[*op];
                entries[call].returns = Some(at);
            } else {
                call_of[*op] = at;
            }
            entries.push(ListEntry {
                op: *op,
                returns: None,
                next: at + 1,
                before: at - 1,
            });
        }
        entries.push(ListEntry {
            op: usize::MAX,
            returns: None,
            next: end,
            before: end - 1,
        });
        Self(entries)
    }

    fn first(&self) -> usize {
        self.0[HEAD].next
    }

    /// The first return in the list: its operation must be taken before it.
    fn due(&self) -> usize {
        let mut at = self.first();
        while self.0[at].returns.is_some() {
            at = self.0[at].next;
        }
        self.0[at].op
    }

    fn is_end(&self, at: usize) -> bool {
        at + 1 == self.0.len()
    }

    fn unlink(&mut self, at: usize) {
        let ListEntry { next, before, .. } = self.0[at];
        self.0[before].next = next;
        self.0[next].before = before;
    }

    fn link(&mut self, at: usize) {
        let ListEntry { next, before, .. } = self.0[at];
        self.0[before].next = at;
        self.0[next].before = at;
    }

    fn lift(&mut self, call: usize, returns: usize) {
        self.unlink(call);
        self.unlink(returns);
    }

    /// Undoes the last lift.
    fn unlift(&mut self, call: usize, returns: usize) {
        self.link(returns);
        self.link(call);
    }
}

/// The operations linearized so far.
struct Linearized {
    /// The bit of each ended operation.
    bit: Vec<usize>,
    ended: BitSet,
    /// The first bit that is not set.
    from: usize,
    unknown: BitSet,
}

impl Linearized {
    fn new<C>(calls: &[Call<C>]) -> Self {
        let mut ended = 0;
        let bit = |c: &Call<C>| {
            ended += usize::from(c.ended.is_some());
            ended.saturating_sub(1)
        };
        Self {
            bit: calls.iter().map(bit).collect(),
            ended: BitSet::default(),
            from: 0,
            unknown: BitSet::default(),
        }
    }

    fn set(&mut self, op: usize, on: bool) {
        let bit = self.bit[op];
        self.ended.set(bit, on);
        if on {
            while self.ended.get(self.from) {
                self.from += 1;
            }
        } else {
            self.from = self.from.min(bit);
        }
    }

    fn with<S>(&self, state: S) -> Configuration<S> {
        Configuration {
            from: u32::try_from(self.from).expect("fewer than 2³² operations of an object"),
            taken: self.ended.words(self.from),
            state,
        }
    }
}

/// An operation of unknown outcome.
struct Unknown {
    op: usize,
    /// An equal call before it.
    equal_before: Option<usize>,
}

fn unknown_calls<C: Clone + Eq + Hash>(calls: &[Call<C>]) -> Vec<Unknown> {
    let (mut kinds, mut last) = (Interner::default(), Vec::new());
    let mut all = Vec::new();
    for (op, call) in calls.iter().enumerate().filter(|(_, c)| c.ended.is_none()) {
        let (kind, new) = kinds.number(call.call.clone());
        if new {
            last.push(None);
        }
        let equal_before = last[kind as usize].replace(all.len());
        all.push(Unknown { op, equal_before });
    }
    all
}

/// A choice to try, or one that was taken: an entry of the list, or an unknown operation.
#[derive(Clone, Copy)]
enum Choice {
    /// A list entry that reads, and has no alternatives.
    Free(usize),
    Listed(usize),
    Unknown(usize),
}

/// State of a search.
struct Search<'a, M: Model> {
    model: &'a M,
    calls: &'a [Call<M::Call>],
    unknown: Vec<Unknown>,
    list: List,
    taken: Linearized,
    tried: ConfigurationCache<M::State>,
    state: M::State,
    path: Vec<(Choice, M::State)>,
}

impl<M: Model> Search<'_, M> {
    /// Takes the choice if the object allows it; otherwise returns the next choice, if there is one.
    fn try_one(&mut self, choice: Choice) -> Option<Choice> {
        match choice {
            Choice::Free(at) => {
                let entry = self.list.0[at];
                let Some(returns) = entry.returns else {
                    return Some(Choice::Listed(self.list.first()));
                };
                let call = &self.calls[entry.op].call;
                // A write of the current value is different: it may be needed later.
                let read = self
                    .model
                    .is_read(call)
                    .then(|| self.model.step(&self.state, call, true));
                let Some(next) = read.flatten() else {
                    return Some(Choice::Free(entry.next));
                };
                self.take_if_new(choice, at, returns, next)
            }
            Choice::Listed(at) => {
                let entry = self.list.0[at];
                let Some(returns) = entry.returns else {
                    return Some(Choice::Unknown(0));
                };
                let next = self.model.step(&self.state, &self.calls[entry.op].call, true);
                next.and_then(|next| self.take_if_new(choice, at, returns, next))
                    .or(Some(Choice::Listed(entry.next)))
            }
            Choice::Unknown(k) => {
                let unknown = self.unknown.get(k)?;
                let call = &self.calls[unknown.op];
                if call.began > self.calls[self.list.due()].index() {
                    return None;
                }
                let first = unknown
                    .equal_before
                    .is_none_or(|equal_before| self.taken.unknown.get(equal_before));
                if first && !self.taken.unknown.get(k) {
                    let next = self.model.step(&self.state, &call.call, false);
                    if let Some(next) = next.filter(|next| *next != self.state) {
                        self.taken.unknown.set(k, true);
                        if self
                            .tried
                            .is_new(self.taken.with(next.clone()), &self.taken.unknown)
                        {
                            return Some(self.take(choice, next));
                        }
                        self.taken.unknown.set(k, false);
                    }
                }
                Some(Choice::Unknown(k + 1))
            }
        }
    }

    /// Takes the operation listed at `at`, which leads to the state `next`, unless that configuration was tried before.
    fn take_if_new(&mut self, choice: Choice, at: usize, returns: usize, next: M::State) -> Option<Choice> {
        let op = self.list.0[at].op;
        self.taken.set(op, true);
        if self
            .tried
            .is_new(self.taken.with(next.clone()), &self.taken.unknown)
        {
            self.list.lift(at, returns);
            return Some(self.take(choice, next));
        }
        self.taken.set(op, false);
        None
    }

    fn take(&mut self, choice: Choice, next: M::State) -> Choice {
        let before = std::mem::replace(&mut self.state, next);
        self.path.push((choice, before));
        Choice::Free(self.list.first())
    }

    /// Backtracks to a choice with an alternative; returns the alternative.
    fn backtrack(&mut self) -> Option<Choice> {
        loop {
            let (choice, before) = self.path.pop()?;
            self.state = before;
            match choice {
                Choice::Free(at) => {
                    self.undo_listed(at);
                }
                Choice::Listed(at) => return Some(Choice::Listed(self.undo_listed(at))),
                Choice::Unknown(k) => {
                    self.taken.unknown.set(k, false);
                    return Some(Choice::Unknown(k + 1));
                }
            }
        }
    }

    /// Undoes a list choice; returns the next entry.
    fn undo_listed(&mut self, at: usize) -> usize {
        let entry = self.list.0[at];
        self.taken.set(entry.op, false);
        self.list.unlift(at, entry.returns.expect("a call was taken"));
        entry.next
    }

    fn op(&self, choice: Choice) -> u64 {
        let op = match choice {
            Choice::Free(at) | Choice::Listed(at) => self.list.0[at].op,
            Choice::Unknown(k) => self.unknown[k].op,
        };
        self.calls[op].index()
    }

    fn dead_end(&self) -> DeadEnd<M::Call, M::State> {
        let due = self.list.due();
        let ended = self.calls[due].index();
        // The operations that are still in the list and began before the return that is due.
        let (mut running, mut at) = (Vec::new(), self.list.first());
        while !self.list.is_end(at) && running.len() < OPS_LISTED_MAX {
            let entry = self.list.0[at];
            if self.calls[entry.op].began > ended {
                break;
            }
            if entry.returns.is_some() && entry.op != due {
                running.push(self.calls[entry.op].index());
            }
            at = entry.next;
        }
        let tail = &self.path[self.path.len().saturating_sub(OPS_LISTED_MAX)..];
        DeadEnd {
            len: self.path.len(),
            order: tail.iter().map(|(choice, _)| self.op(*choice)).collect(),
            state: self.state.clone(),
            due: (ended, self.calls[due].call.clone()),
            running,
        }
    }
}

/// Searches an order.
pub(super) fn search<M: Model>(
    model: &M,
    object: &M::Object,
    mut calls: Vec<Call<M::Call>>,
    limits: Limits,
) -> Outcome<M::Call, M::State> {
    calls.sort_by_key(|c| c.began);
    let mut search = Search {
        model,
        unknown: unknown_calls(&calls),
        list: List::new(&calls),
        taken: Linearized::new(&calls),
        tried: ConfigurationCache {
            configurations: Interner::default(),
            with: Vec::new(),
            bytes: 0,
        },
        state: model.initial(object),
        path: Vec::new(),
        calls: &calls,
    };
    let mut furthest: Option<DeadEnd<M::Call, M::State>> = None;
    let (mut choice, mut steps) = (Choice::Free(search.list.first()), 0u64);
    loop {
        if search.list.is_end(search.list.first()) {
            return Outcome::Linearizable;
        }
        steps += 1;
        let bytes = search.tried.bytes;
        if steps > limits.steps_max || bytes > limits.bytes_max {
            return Outcome::GaveUp { steps, bytes };
        }
        if let Some(next) = search.try_one(choice) {
            choice = next;
            continue;
        }
        // Nothing fits before the return that is due.
        let due = search.calls[search.list.due()].index();
        if furthest.as_ref().is_none_or(|f| due > f.due.0) {
            furthest = Some(search.dead_end());
        }
        match search.backtrack() {
            Some(next) => choice = next,
            None => return Outcome::Not(Box::new(furthest.expect("set right above, at the latest"))),
        }
    }
}
