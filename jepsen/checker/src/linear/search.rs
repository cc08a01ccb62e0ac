//! The search for an order of one object's operations.
//!
//! Calls and returns stand in a doubly linked list in the order of the history. Taking an operation lifts its two entries out;
//! stepping back puts them in again.
//!
//! ```text
//! (call a)-(call b)-(return b)-(return a)-(call c)-(return c)
//!      take b ▶ (call a)-(return a)-(call c)-(return c)
//! ```
//! Operations whose end nobody saw have their returns at the very end, where reaching one means that all that must be explained is.

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

/// The longest order that was found, and what it can't be continued with.
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

/// What was tried: which operations are taken, and what the object held then.
#[derive(PartialEq, Eq, Hash)]
struct Tried<S> {
    /// All operations before this one, of those that ended, are taken.
    from: u32,
    /// Bits of those after it, and after them those of operations of which nobody knows; no zero word at an end.
    taken: Box<[u64]>,
    unknown: Box<[u64]>,
    state: S,
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
    fn new<C>(calls: &[Call<C>]) -> Self {
        // (when, call before return, which operation); returns that nobody saw come last.
        let mut events: Vec<(u64, bool, usize)> = Vec::with_capacity(calls.len() * 2);
        for (op, call) in calls.iter().enumerate() {
            events.push((call.began, false, op));
            events.push((call.ended.unwrap_or(u64::MAX), true, op));
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
    /// Of each operation its bit: those that ended and those of which nobody knows are counted apart.
    bit: Vec<(bool, usize)>,
    ended: Bits,
    unknown: Bits,
    /// The first bit of an ended operation that is not taken.
    from: usize,
}

impl Taken {
    fn new<C>(calls: &[Call<C>]) -> Self {
        let (mut ended, mut unknown) = (0, 0);
        let bit = |c: &Call<C>| {
            let count = if c.ended.is_some() {
                &mut ended
            } else {
                &mut unknown
            };
            *count += 1;
            (c.ended.is_some(), *count - 1)
        };
        Self {
            bit: calls.iter().map(bit).collect(),
            ended: Bits::default(),
            unknown: Bits::default(),
            from: 0,
        }
    }

    fn set(&mut self, op: usize, on: bool) {
        let (ended, bit) = self.bit[op];
        if !ended {
            return self.unknown.set(bit, on);
        }
        self.ended.set(bit, on);
        if on {
            while self.ended.get(self.from) {
                self.from += 1;
            }
        } else {
            self.from = self.from.min(bit);
        }
    }

    fn with<S>(&self, state: S) -> Tried<S> {
        Tried {
            from: u32::try_from(self.from).expect("fewer than 2³² operations of an object"),
            taken: self.ended.words(self.from),
            unknown: self.unknown.words(0),
            state,
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
    let mut list = List::new(&calls);
    let mut taken = Taken::new(&calls);
    let mut tried: Table<Tried<M::State>> = Table::default();
    let mut state = model.initial(object);
    let mut path: Vec<(usize, M::State)> = Vec::new();
    let mut longest: Option<Stuck<M::Call, M::State>> = None;
    let (mut at, mut steps) = (list.first(), 0u64);
    loop {
        if list.is_end(at) || list.is_end(list.first()) {
            return Outcome::Linearizable;
        }
        steps += 1;
        if steps > limits.steps_max {
            return Outcome::GaveUp { steps };
        }
        let entry = list.0[at];
        let call = &calls[entry.op];
        if let Some(returns) = entry.returns {
            let next = model.step(&state, &call.call, call.ended.is_some());
            if let Some(next) = next {
                taken.set(entry.op, true);
                if tried.number(taken.with(next.clone())).1 {
                    path.push((at, std::mem::replace(&mut state, next)));
                    list.lift(at, returns);
                    at = list.first();
                    continue;
                }
                taken.set(entry.op, false);
            }
            at = entry.next;
            continue;
        }
        // A return: whose it is must have been taken by now.
        if call.ended.is_none() {
            // All that ended is taken; the rest may never have happened.
            return Outcome::Linearizable;
        }
        if longest.as_ref().is_none_or(|l| path.len() > l.len) {
            longest = Some(stuck(&calls, &list, &path, entry.op, &state));
        }
        let Some((before, held)) = path.pop() else {
            return Outcome::Not(Box::new(longest.expect("set right above, at the latest")));
        };
        state = held;
        let lifted = list.0[before];
        taken.set(lifted.op, false);
        list.unlift(before, lifted.returns.expect("a call was taken"));
        at = lifted.next;
    }
}

fn stuck<C: Clone, S: Clone>(
    calls: &[Call<C>],
    list: &List,
    path: &[(usize, S)],
    due: usize,
    state: &S,
) -> Stuck<C, S> {
    let ended = calls[due].ended.unwrap_or(u64::MAX);
    // What is still in the list and began before the return that is due.
    let mut running = Vec::new();
    let mut at = list.first();
    while !list.is_end(at) && running.len() < TOLD_MAX {
        let entry = list.0[at];
        let call = &calls[entry.op];
        if call.began > ended {
            break;
        }
        if entry.returns.is_some() && entry.op != due {
            running.push(call.index());
        }
        at = entry.next;
    }
    let tail = &path[path.len().saturating_sub(TOLD_MAX)..];
    Stuck {
        len: path.len(),
        order: tail.iter().map(|(at, _)| calls[list.0[*at].op].index()).collect(),
        state: state.clone(),
        due: (calls[due].index(), calls[due].call.clone()),
        running,
    }
}
