//! Numbers in place of topics' names, while a request that lists partitions is looked through.
//!
//! A name is as long as a peer made it, and stands before as many partitions as it likes. Whoever compared names for each partition
//! would do work by the product of both; here a name is compared once for each time that it stands in the request.

use std::collections::BTreeMap;

use brokkr_types::Uuid;
use brokkr_wire::Str;

/// The topics seen so far.
#[derive(Default)]
pub struct TopicNumbers {
    numbers: BTreeMap<(Str, Uuid), usize>,
    last: Option<(Str, Uuid, usize)>,
}

impl TopicNumbers {
    /// The number of a topic, by its name and id as they were given: the same for the same. Partitions of one topic should follow each
    /// other, and share its name.
    pub fn of(&mut self, name: &Str, id: Uuid) -> usize {
        if let Some((last, last_id, number)) = &self.last
            && *last_id == id
            && last.shares(name)
        {
            return *number;
        }
        let next = self.numbers.len();
        let number = *self.numbers.entry((name.clone(), id)).or_insert(next);
        self.last = Some((name.clone(), id, number));
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_text_has_the_same_number_whose_bytes_it_is() {
        let mut numbers = TopicNumbers::default();
        let (id, other) = (Uuid::ZERO, Uuid::from_random([1; 16]));
        let names = ["a", "b", "a"].map(Str::copied);
        let first = names.each_ref().map(|name| numbers.of(name, id));
        assert_eq!(first, [0, 1, 0]);
        assert_eq!((numbers.of(&names[2], id), numbers.of(&names[2], other)), (0, 2));
        assert_eq!(numbers.of(&names[2], id), 0);
    }
}
