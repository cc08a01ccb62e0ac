//! Numbers things: each distinct one gets the next number.
//!
//! An open-addressed table of numbers beside the list of things. The hash has no random key: the same things in the same order
//! give the same numbers in every process, and nothing is ever iterated in the table's order.

use std::hash::{Hash, Hasher};

use rustc_hash::FxHasher;

const EMPTY: u32 = u32::MAX;

/// Distinct things by number, numbers by thing.
#[derive(Clone, Debug)]
pub(crate) struct Table<T> {
    things: Vec<T>,
    /// Numbers; as many slots as a power of two.
    slots: Vec<u32>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        let (things, slots) = (Vec::new(), Vec::new());
        Self { things, slots }
    }
}

fn hash_of<Q: Hash + ?Sized>(thing: &Q) -> usize {
    let mut hasher = FxHasher::default();
    thing.hash(&mut hasher);
    // Only the low bits are used.
    #[expect(clippy::cast_possible_truncation, reason = "any bits of a hash do")]
    let low = hasher.finish() as usize;
    low
}

impl<T: Hash + Eq> Table<T> {
    /// The thing's number, and whether it is new.
    ///
    /// # Panics
    /// If there are 2³²−1 things.
    pub(crate) fn number(&mut self, thing: T) -> (u32, bool) {
        if (self.things.len() + 1) * 4 > self.slots.len() * 3 {
            self.grow();
        }
        let slot = self.slot(&thing);
        if self.slots[slot] != EMPTY {
            return (self.slots[slot], false);
        }
        let number = u32::try_from(self.things.len()).ok().filter(|n| *n != EMPTY);
        let number = number.expect("fewer than 2³²−1 things");
        self.slots[slot] = number;
        self.things.push(thing);
        (number, true)
    }

    /// Where the thing is or would be.
    fn slot(&self, thing: &T) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = hash_of(thing) & mask;
        while self.slots[slot] != EMPTY && self.things[self.slots[slot] as usize] != *thing {
            slot = (slot + 1) & mask;
        }
        slot
    }

    fn grow(&mut self) {
        let len = (self.slots.len() * 2).max(16);
        self.slots.clear();
        self.slots.resize(len, EMPTY);
        for (number, thing) in (0u32..).zip(&self.things) {
            let mut slot = hash_of(thing) & (len - 1);
            while self.slots[slot] != EMPTY {
                slot = (slot + 1) & (len - 1);
            }
            self.slots[slot] = number;
        }
    }
}

impl<T> Table<T> {
    /// How many things there are.
    pub(crate) fn len(&self) -> usize {
        self.things.len()
    }

    /// All things, by number.
    pub(crate) fn things(&self) -> &[T] {
        &self.things
    }
}

impl<T> std::ops::Index<u32> for Table<T> {
    type Output = T;
    fn index(&self, number: u32) -> &T {
        &self.things[number as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thing_has_one_number() {
        let mut table = Table::default();
        for round in 0..2 {
            for i in 0..1000u32 {
                assert_eq!(table.number(u64::from(i) * 7), (i, round == 0));
            }
        }
        assert_eq!((table.len(), table[999]), (1000, 6993));
    }
}
