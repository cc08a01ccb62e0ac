//! Numbers in place of topic names while a request's partitions are deduplicated.
//!
//! A peer may send long names, each before many partitions. Comparing names for every partition would take the product of
//! both in time; here each name is compared once for each of its entries.

use std::collections::BTreeMap;

use brokkr_types::Uuid;
use brokkr_wire::Str;

/// The numbers of the topics seen so far.
#[derive(Default)]
pub struct TopicNumbers {
    numbers: BTreeMap<(Str, Uuid), usize>,
    last: Option<(Str, Uuid, usize)>,
}

impl TopicNumbers {
    /// The number of a topic, by its name and id as the request gives them. Cheap for consecutive partitions that share
    /// the topic's name.
    pub fn number_of(&mut self, name: &Str, id: Uuid) -> usize {
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
    fn equal_names_have_the_same_number() {
        let mut numbers = TopicNumbers::default();
        let (id, other) = (Uuid::ZERO, Uuid::from_random([1; 16]));
        let names = ["a", "b", "a"].map(Str::copied);
        let first = names.each_ref().map(|name| numbers.number_of(name, id));
        assert_eq!(first, [0, 1, 0]);
        assert_eq!(
            (
                numbers.number_of(&names[2], id),
                numbers.number_of(&names[2], other)
            ),
            (0, 2)
        );
        assert_eq!(numbers.number_of(&names[2], id), 0);
    }
}
