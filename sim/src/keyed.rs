//! Randomness by key instead of by a sequential generator: each choice is a hash of (seed, kind, entity, its own counter), so that
//! removing one fault leaves all other choices unchanged.

use std::collections::BTreeMap;

/// The choices of one seed.
pub struct Keyed {
    seed: u64,
    /// The initial hash of each kind and entity, and the number of choices so far.
    counters: Vec<(u64, u64)>,
    /// The index in `counters`, by kind and entity.
    places: BTreeMap<(&'static str, u64), usize>,
    /// The same by the address of the kind's text, which is faster to compare. Equal texts may have several addresses.
    known: BTreeMap<(usize, u64), usize>,
}

/// Mixes two words into one (the finaliser of SplitMix64 over their sum, rotated).
pub fn mix(a: u64, b: u64) -> u64 {
    let mut z = a
        .rotate_left(23)
        .wrapping_add(b)
        .wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The hash of a text.
pub fn text(s: &str) -> u64 {
    s.bytes().fold(0x6272_6f6b_6b72, |h, b| mix(h, u64::from(b)))
}

impl Keyed {
    /// The choices of `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            counters: Vec::new(),
            places: BTreeMap::new(),
            known: BTreeMap::new(),
        }
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// 64 bits for the next choice of `kind` that concerns `entity`.
    pub fn next(&mut self, kind: &'static str, entity: u64) -> u64 {
        let text_at = (kind.as_ptr() as usize, entity);
        let place = match self.known.get(&text_at) {
            Some(place) => *place,
            None => {
                let place = self.place(kind, entity);
                self.known.insert(text_at, place);
                place
            }
        };
        let (begin, count) = &mut self.counters[place];
        *count += 1;
        mix(*begin, *count)
    }

    fn place(&mut self, kind: &'static str, entity: u64) -> usize {
        let (seed, counters) = (self.seed, &mut self.counters);
        *self.places.entry((kind, entity)).or_insert_with(|| {
            counters.push((mix(mix(seed, text(kind)), entity), 0));
            counters.len() - 1
        })
    }

    /// A number below `n`, which is not 0.
    pub fn below(&mut self, kind: &'static str, entity: u64, n: u64) -> u64 {
        ((u128::from(self.next(kind, entity)) * u128::from(n)) >> 64) as u64
    }

    /// True once in `one_in` times.
    pub fn one_in(&mut self, kind: &'static str, entity: u64, one_in: u64) -> bool {
        self.below(kind, entity, one_in) == 0
    }

    /// 32 bytes to seed a stream of random numbers with.
    pub fn seed_bytes(&self, words: &[u64]) -> [u8; 32] {
        let mut h = mix(self.seed, 0x5eed);
        for w in words {
            h = mix(h, *w);
        }
        let mut out = [0; 32];
        for (i, piece) in out.chunks_exact_mut(8).enumerate() {
            piece.copy_from_slice(&mix(h, i as u64).to_le_bytes());
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_choices_of_entities_are_independent() {
        let (mut a, mut b) = (Keyed::new(7), Keyed::new(7));
        b.next("disk", 2);
        b.next("net", 1);
        assert_eq!(a.next("disk", 1), b.next("disk", 1));
        assert_ne!(a.next("disk", 1), a.next("disk", 1));
        assert_ne!(Keyed::new(8).next("disk", 1), b.next("disk", 2));
    }
}
