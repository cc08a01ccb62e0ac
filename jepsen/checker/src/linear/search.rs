//! The search for an order of one object's operations.
//!
//! Calls and returns stand in a doubly linked list in the order of the history. Taking an operation lifts its two entries out;
//! stepping back puts them in again.
//!
//! ```text
//! (call a)-(call b)-(return b)-(return a)-(call c)-(return c)
//!      take b ▶ (call a)-(return a)-(call c)-(return c)
//! ```
//! A read that may come now is taken at once, and nothing else is tried in its place: it can't be better later.
//!
//! Operations of which nobody knows whether they happened are kept apart, since none of them has to be taken, and are tried last:
//! - one that would change nothing is not tried;
//! - of two that ask the same the earlier comes first;
//! - where the same operations that ended, and the same state, were tried with fewer of them, there is nothing more to find.

use std::hash::Hash;

use super::{Limits, Model};
use crate::table::Table;

/// What was asked of an object, and when.
pub(super) struct Call<C> {
    pub(super) call: C,
    pub(super) began: u64,
    /// `None` if nobody knows whether it happened.
    pub(super) ended: Option<u64>,
}

impl<C> Call<C> {
    /// How it is called in a finding.
    fn index(&self) -> u64 {
        self.ended.unwrap_or(self.began)
    }
}

pub(super) enum Outcome<C, S> {
    Linearizable,
    Not(Box<Stuck<C, S>>),
    GaveUp { steps: u64 },
}

/// The order that came furthest in time, and what it can't be continued with.
pub(super) struct Stuck<C, S> {
    /// How many operations it has.
    pub(super) len: usize,
    /// The last of them.
    pub(super) order: Vec<u64>,
    pub(super) state: S,
    /// The operation that has to come by now.
    pub(super) due: (u64, C),
    /// What ran at that time.
    pub(super) running: Vec<u64>,
}

/// Which operations of those that ended are taken, and what the object held then.
#[derive(PartialEq, Eq, Hash)]
struct Reached<S> {
    /// All before this one are.
    from: u32,
    /// Bits of those after it; no zero word at the end.
    taken: Box<[u64]>,
    state: S,
}

/// What was tried.
struct Tried<S> {
    reached: Table<Reached<S>>,
    /// For each the sets of operations of which nobody knows that it was tried with, none of them within another.
    with: Vec<Vec<Box<[u64]>>>,
}

impl<S: Hash + Eq> Tried<S> {
    /// Whether this is worth a try; then it counts as tried.
    fn is_new(&mut self, reached: Reached<S>, unknown: &Bits) -> bool {
        let (number, new) = self.reached.number(reached);
        if new {
            self.with.push(vec![unknown.words(0)]);
            return true;
        }
        let sets = &mut self.with[number as usize];
        if sets.iter().any(|s| unknown.contains(s)) {
            return false;
        }
        sets.push(unknown.words(0));
        true
    }
}

/// A set of small numbers as bits.
#[derive(Default)]
struct Bits(Vec<u64>);

impl Bits {
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

    /// Whether all of these are in it.
    fn contains(&self, words: &[u64]) -> bool {
        let at = |i: usize| self.0.get(i).copied().unwrap_or(0);
        words.iter().enumerate().all(|(i, w)| w & !at(i) == 0)
    }

    /// The words from that of `from` on, without zeros at the end.
    fn words(&self, from: usize) -> Box<[u64]> {
        let words = self.0.get(from / 64..).unwrap_or_default();
        let end = words.iter().rposition(|w| *w != 0).map_or(0, |at| at + 1);
        words[..end].into()
    }
}

/// How many operations a finding tells of: the end of a long order is what is of use.
const TOLD_MAX: usize = 16;

const HEAD: usize = 0;

/// An entry of the list: a call or a return of an operation.
#[derive(Clone, Copy)]
struct Entry {
    op: usize,
    /// Of a call where its return is.
    returns: Option<usize>,
    next: usize,
    before: usize,
}

struct List(Vec<Entry>);

impl List {
    /// The list of those that ended.
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
        let none = Entry {
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
            entries.push(Entry {
                op: *op,
                returns: None,
                next: at + 1,
                before: at - 1,
            });
        }
        entries.push(Entry {
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

    /// The first return: whose it is has to come by then.
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
        let Entry { next, before, .. } = self.0[at];
        self.0[before].next = next;
        self.0[next].before = before;
    }

    fn link(&mut self, at: usize) {
        let Entry { next, before, .. } = self.0[at];
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

/// The operations taken so far.
struct Taken {
    /// Of each operation that ended its bit.
    bit: Vec<usize>,
    ended: Bits,
    /// The first bit that is not set.
    from: usize,
    unknown: Bits,
}

impl Taken {
    fn new<C>(calls: &[Call<C>]) -> Self {
        let mut ended = 0;
        let bit = |c: &Call<C>| {
            ended += usize::from(c.ended.is_some());
            ended.saturating_sub(1)
        };
        Self {
            bit: calls.iter().map(bit).collect(),
            ended: Bits::default(),
            from: 0,
            unknown: Bits::default(),
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

    fn with<S>(&self, state: S) -> Reached<S> {
        Reached {
            from: u32::try_from(self.from).expect("fewer than 2³² operations of an object"),
            taken: self.ended.words(self.from),
            state,
        }
    }
}

/// An operation of which nobody knows whether it happened.
struct Unknown {
    op: usize,
    /// One before it that asks the same.
    twin: Option<usize>,
}

fn unknowns<C: Clone + Eq + Hash>(calls: &[Call<C>]) -> Vec<Unknown> {
    let (mut kinds, mut last) = (Table::default(), Vec::new());
    let mut all = Vec::new();
    for (op, call) in calls.iter().enumerate().filter(|(_, c)| c.ended.is_none()) {
        let (kind, new) = kinds.number(call.call.clone());
        if new {
            last.push(None);
        }
        let twin = last[kind as usize].replace(all.len());
        all.push(Unknown { op, twin });
    }
    all
}

/// What is to be tried next, or was taken: an entry of the list, or one of the unknown.
#[derive(Clone, Copy)]
enum Choice {
    /// An entry of the list that reads. Nothing else need be tried in its place.
    Free(usize),
    Listed(usize),
    Unknown(usize),
}

/// A search under way.
struct Search<'a, M: Model> {
    model: &'a M,
    calls: &'a [Call<M::Call>],
    unknown: Vec<Unknown>,
    list: List,
    taken: Taken,
    tried: Tried<M::State>,
    state: M::State,
    path: Vec<(Choice, M::State)>,
}

impl<M: Model> Search<'_, M> {
    /// Takes what is tried if the object may do it; else the next thing to try, if there is one.
    fn try_one(&mut self, choice: Choice) -> Option<Choice> {
        match choice {
            Choice::Free(at) => {
                let entry = self.list.0[at];
                let Some(returns) = entry.returns else {
                    return Some(Choice::Listed(self.list.first()));
                };
                let call = &self.calls[entry.op].call;
                // A write of what is held already is another thing: it may be needed later.
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
                let first = unknown.twin.is_none_or(|twin| self.taken.unknown.get(twin));
                if first && !self.taken.unknown.get(k) {
                    let next = self.model.step(&self.state, &call.call, false);
                    if let Some(next) = next.filter(|next| *next != self.state) {
                        self.taken.unknown.set(k, true);
                        if self
                            .tried
                            .is_new(self.taken.with(next.clone()), &self.taken.unknown)
                        {
                            return Some(self.go(choice, next));
                        }
                        self.taken.unknown.set(k, false);
                    }
                }
                Some(Choice::Unknown(k + 1))
            }
        }
    }

    /// Takes the operation listed at `at`, which leads to `next`, unless nothing came of that before.
    fn take_if_new(&mut self, choice: Choice, at: usize, returns: usize, next: M::State) -> Option<Choice> {
        let op = self.list.0[at].op;
        self.taken.set(op, true);
        if self
            .tried
            .is_new(self.taken.with(next.clone()), &self.taken.unknown)
        {
            self.list.lift(at, returns);
            return Some(self.go(choice, next));
        }
        self.taken.set(op, false);
        None
    }

    fn go(&mut self, choice: Choice, next: M::State) -> Choice {
        let before = std::mem::replace(&mut self.state, next);
        self.path.push((choice, before));
        Choice::Free(self.list.first())
    }

    /// Undoes choices up to one in whose place something else may be tried; what that is.
    fn back(&mut self) -> Option<Choice> {
        loop {
            let (choice, before) = self.path.pop()?;
            self.state = before;
            match choice {
                Choice::Free(at) => {
                    self.put_back(at);
                }
                Choice::Listed(at) => return Some(Choice::Listed(self.put_back(at))),
                Choice::Unknown(k) => {
                    self.taken.unknown.set(k, false);
                    return Some(Choice::Unknown(k + 1));
                }
            }
        }
    }

    /// Undoes the taking of an entry; the one after it.
    fn put_back(&mut self, at: usize) -> usize {
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

    fn stuck(&self) -> Stuck<M::Call, M::State> {
        let due = self.list.due();
        let ended = self.calls[due].index();
        // What is still in the list and began before the return that is due.
        let (mut running, mut at) = (Vec::new(), self.list.first());
        while !self.list.is_end(at) && running.len() < TOLD_MAX {
            let entry = self.list.0[at];
            if self.calls[entry.op].began > ended {
                break;
            }
            if entry.returns.is_some() && entry.op != due {
                running.push(self.calls[entry.op].index());
            }
            at = entry.next;
        }
        let tail = &self.path[self.path.len().saturating_sub(TOLD_MAX)..];
        Stuck {
            len: self.path.len(),
            order: tail.iter().map(|(choice, _)| self.op(*choice)).collect(),
            state: self.state.clone(),
            due: (ended, self.calls[due].call.clone()),
            running,
        }
    }
}

/// Looks for an order.
pub(super) fn search<M: Model>(
    model: &M,
    object: &M::Object,
    mut calls: Vec<Call<M::Call>>,
    limits: Limits,
) -> Outcome<M::Call, M::State> {
    calls.sort_by_key(|c| c.began);
    let mut search = Search {
        model,
        unknown: unknowns(&calls),
        list: List::new(&calls),
        taken: Taken::new(&calls),
        tried: Tried {
            reached: Table::default(),
            with: Vec::new(),
        },
        state: model.initial(object),
        path: Vec::new(),
        calls: &calls,
    };
    let mut furthest: Option<Stuck<M::Call, M::State>> = None;
    let (mut choice, mut steps) = (Choice::Free(search.list.first()), 0u64);
    loop {
        if search.list.is_end(search.list.first()) {
            return Outcome::Linearizable;
        }
        steps += 1;
        if steps > limits.steps_max {
            return Outcome::GaveUp { steps };
        }
        if let Some(next) = search.try_one(choice) {
            choice = next;
            continue;
        }
        // Nothing fits before the return that is due.
        let due = search.calls[search.list.due()].index();
        if furthest.as_ref().is_none_or(|f| due > f.due.0) {
            furthest = Some(search.stuck());
        }
        match search.back() {
            Some(next) => choice = next,
            None => return Outcome::Not(Box::new(furthest.expect("set right above, at the latest"))),
        }
    }
}
