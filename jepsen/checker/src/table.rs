//! An interner: each distinct item gets the next number.
//!
//! It is an open-addressed table of numbers beside the list of items. The hash has no random key, so the same items in the
//! same order get the same numbers in every process; the table's order is never iterated.

use std::hash::{Hash, Hasher};

use rustc_hash::FxHasher;

const EMPTY: u32 = u32::MAX;

/// Distinct items by number, numbers by item.
#[derive(Clone, Debug)]
pub(crate) struct Interner<T> {
    items: Vec<T>,
    /// Numbers in hash order; the number of slots is a power of two.
    slots: Vec<u32>,
}

impl<T> Default for Interner<T> {
    fn default() -> Self {
        let (items, slots) = (Vec::new(), Vec::new());
        Self { items, slots }
    }
}

fn hash_of<Q: Hash + ?Sized>(item: &Q) -> usize {
    let mut hasher = FxHasher::default();
    item.hash(&mut hasher);
    // Only the low bits are used.
    #[expect(clippy::cast_possible_truncation, reason = "any bits of a hash do")]
    let low = hasher.finish() as usize;
    low
}

impl<T: Hash + Eq> Interner<T> {
    /// Returns the item's number, and whether it is new.
    ///
    /// # Panics
    /// If there are 2³²−1 items.
    pub(crate) fn number(&mut self, item: T) -> (u32, bool) {
        if (self.items.len() + 1) * 4 > self.slots.len() * 3 {
            self.grow();
        }
        let slot = self.slot(&item);
        if self.slots[slot] != EMPTY {
            return (self.slots[slot], false);
        }
        let number = u32::try_from(self.items.len()).ok().filter(|n| *n != EMPTY);
        let number = number.expect("fewer than 2³²−1 things");
        self.slots[slot] = number;
        self.items.push(item);
        (number, true)
    }

    /// The slot of the item, or the free slot for it.
    fn slot(&self, item: &T) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = hash_of(item) & mask;
        while self.slots[slot] != EMPTY && self.items[self.slots[slot] as usize] != *item {
            slot = (slot + 1) & mask;
        }
        slot
    }

    fn grow(&mut self) {
        let len = (self.slots.len() * 2).max(16);
        self.slots.clear();
        self.slots.resize(len, EMPTY);
        for (number, item) in (0u32..).zip(&self.items) {
            let mut slot = hash_of(item) & (len - 1);
            while self.slots[slot] != EMPTY {
                slot = (slot + 1) & (len - 1);
            }
            self.slots[slot] = number;
        }
    }
}

impl<T> Interner<T> {
    /// Number of items.
    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    /// All items, by number.
    pub(crate) fn items(&self) -> &[T] {
        &self.items
    }
}

impl<T> std::ops::Index<u32> for Interner<T> {
    type Output = T;
    fn index(&self, number: u32) -> &T {
        &self.items[number as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_item_has_one_number() {
        let mut table = Interner::default();
        for round in 0..2 {
            for i in 0..1000u32 {
                assert_eq!(table.number(u64::from(i) * 7), (i, round == 0));
            }
        }
        assert_eq!((table.len(), table[999]), (1000, 6993));
    }
}
