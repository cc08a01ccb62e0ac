//! The timers of the executor.

use std::task::Waker;

use crate::life::{Life, Nanos};

/// What a timer does when it fires.
pub(super) enum TimerAction {
    Wake(Waker),
    Call(Box<dyn FnOnce() + Send>),
}

/// A timer's action, and the life that it belongs to.
pub(super) struct Timer {
    pub life: Life,
    pub fire: TimerAction,
    /// The event that set it.
    pub by: u64,
}

/// A timer's time and number: timers of the same time fire in the order in which they were set.
type Key = (Nanos, u64);

/// Handle of a timer.
#[derive(Clone, Copy)]
pub(super) struct TimerId {
    key: Key,
    place: u32,
}

/// The pending timers. There are few at a time, and most are near: a sorted vector, the next one last.
#[derive(Default)]
pub(super) struct Timers {
    row: Vec<TimerId>,
    /// Slots by index; free slots are reused.
    timers: Vec<Option<Timer>>,
    free: Vec<u32>,
    next: u64,
}

impl Timers {
    /// Sets a timer.
    pub fn set(&mut self, at: Nanos, timer: Timer) -> TimerId {
        let place = self.free.pop().unwrap_or_else(|| {
            self.timers.push(None);
            self.timers.len() as u32 - 1
        });
        let id = TimerId {
            key: (at, self.next),
            place,
        };
        self.next += 1;
        self.timers[place as usize] = Some(timer);
        // The newest timer comes after all of the same time.
        let i = self.row.partition_point(|other| other.key.0 > at);
        self.row.insert(i, id);
        id
    }

    /// When the next timer fires.
    pub fn first(&self) -> Option<Nanos> {
        self.row.last().map(|id| id.key.0)
    }

    /// The times of the timers that wake a task.
    pub fn wakers(&self) -> impl Iterator<Item = (Nanos, &Waker)> {
        let timers = self
            .row
            .iter()
            .map(|id| (id.key.0, &self.timers[id.place as usize]));
        timers.filter_map(|(at, timer)| match &timer.as_ref()?.fire {
            TimerAction::Wake(waker) => Some((at, waker)),
            TimerAction::Call(_) => None,
        })
    }

    /// Removes the next timer and returns it with its key, if it is due.
    pub fn take_due(&mut self, now: Nanos) -> Option<(Key, Timer)> {
        let id = self.row.pop_if(|id| id.key.0 <= now)?;
        Some((id.key, self.free_place(id.place)?))
    }

    /// The timer, while it is pending.
    pub fn get_mut(&mut self, id: TimerId) -> Option<&mut Timer> {
        let i = self.find(id)?;
        self.timers[self.row[i].place as usize].as_mut()
    }

    /// Removes the timer, if it has not fired.
    pub fn remove(&mut self, id: TimerId) -> Option<Timer> {
        let i = self.find(id)?;
        self.row.remove(i);
        self.free_place(id.place)
    }

    /// Removes the timers of a node.
    pub fn remove_of(&mut self, node: u32) -> Vec<Timer> {
        let timers = &self.timers;
        let is_its = |id: &mut TimerId| {
            timers[id.place as usize]
                .as_ref()
                .is_some_and(|t| t.life.node == node)
        };
        let ids: Vec<TimerId> = self.row.extract_if(.., is_its).collect();
        let taken = ids.iter().rev().filter_map(|id| self.free_place(id.place));
        taken.collect()
    }

    fn find(&self, id: TimerId) -> Option<usize> {
        self.row.binary_search_by(|other| id.key.cmp(&other.key)).ok()
    }

    fn free_place(&mut self, place: u32) -> Option<Timer> {
        self.free.push(place);
        self.timers[place as usize].take()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::keyed::Keyed;

    fn timer(node: u32) -> Timer {
        Timer {
            life: Life { node, incarnation: 0 },
            fire: TimerAction::Call(Box::new(|| {})),
            by: 0,
        }
    }

    #[test]
    fn timers_fire_by_time_and_then_by_the_order_of_setting() {
        for seed in 0..50 {
            let (mut keyed, mut timers) = (Keyed::new(seed), Timers::default());
            let mut model: BTreeMap<Key, (TimerId, u32)> = BTreeMap::new();
            let mut gone: Vec<TimerId> = Vec::new();
            let mut now = 0;
            for _ in 0..500 {
                match keyed.below("what", 0, 8) {
                    0..4 => {
                        let (at, node) = (now + keyed.below("at", 0, 20), keyed.below("node", 0, 3) as u32);
                        let id = timers.set(at, timer(node));
                        model.insert(id.key, (id, node));
                    }
                    4 => {
                        let which = keyed.below("which", 0, model.len() as u64 + 1) as usize;
                        let Some((id, _)) = model.values().nth(which).copied() else {
                            continue;
                        };
                        assert!(timers.remove(id).is_some());
                        model.remove(&id.key);
                        gone.push(id);
                    }
                    5 if keyed.one_in("node dies", 0, 8) => {
                        let node = keyed.below("node", 0, 3) as u32;
                        let of_it = model.extract_if(.., |_, (_, n)| *n == node);
                        let ids: Vec<TimerId> = of_it.map(|(_, (id, _))| id).collect();
                        assert_eq!(timers.remove_of(node).len(), ids.len());
                        gone.extend(ids);
                    }
                    _ => {
                        now += keyed.below("passes", 0, 6);
                        while let Some((key, Timer { life, .. })) = timers.take_due(now) {
                            let (first, (id, node)) = model.pop_first().expect("one is due");
                            assert_eq!((key, life.node), (first, node));
                            gone.push(id);
                        }
                    }
                }
                assert_eq!(timers.first(), model.keys().next().map(|key| key.0));
                assert!(timers.first().is_none_or(|at| at >= now));
                let set = |id: &TimerId| timers.find(*id).is_some();
                assert!(model.values().all(|(id, _)| set(id)) && !gone.iter().any(set));
            }
        }
    }
}
