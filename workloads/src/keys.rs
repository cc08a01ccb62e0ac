//! A set of keys: the key of a value, and the partition of a key.

use brokkr_client::TopicPartition;
use bytes::Bytes;

use crate::value::value_parts;

/// The key, out of `keys` keys, of the record with this value; `None` if there are no keys.
pub fn of(value: i64, keys: u64) -> Option<u64> {
    let (process, counter) = value_parts(value);
    // Mixed, so that consecutive records of a producer have unrelated keys.
    let mixed = (process << 32 | counter).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
    (keys > 0).then(|| mixed % keys)
}

/// The bytes of a key.
pub(crate) fn bytes(key: u64) -> Bytes {
    Bytes::from(format!("k{key}"))
}

/// The partition of a key among the partitions in `all` of the topic of `some`. It equals that of Kafka's default partitioner
/// if `all` contains every partition of the topic, in order.
pub(crate) fn partition_of<'a>(
    key: u64,
    some: &TopicPartition,
    all: &'a [TopicPartition],
) -> &'a TopicPartition {
    let of_it = || all.iter().filter(|tp| tp.topic == some.topic);
    let positive = murmur2(&bytes(key)) & (i32::MAX as u32);
    let at = positive as usize % of_it().count();
    of_it().nth(at).expect("the index is below the count")
}

/// Austin Appleby's MurmurHash2 with Kafka's seed (`Utils.murmur2`).
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut h = 0x9747_b28c ^ data.len() as u32;
    let (words, rest) = data.as_chunks::<4>();
    for word in words {
        let k = u32::from_le_bytes(*word).wrapping_mul(M);
        h = h.wrapping_mul(M) ^ (k ^ k >> 24).wrapping_mul(M);
    }
    if !rest.is_empty() {
        let mut last = [0; 4];
        last[..rest.len()].copy_from_slice(rest);
        h = (h ^ u32::from_le_bytes(last)).wrapping_mul(M);
    }
    h = (h ^ h >> 13).wrapping_mul(M);
    h ^ h >> 15
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::value_of;

    #[test]
    fn murmur2_equals_kafkas() {
        // `UtilsTest.testMurmur2`.
        for (text, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(text.as_bytes()) as i32, hash, "{text}");
        }
    }

    #[test]
    fn records_of_a_key_go_to_one_partition_of_a_topic() {
        let all: Vec<_> = (0..3).map(|p| TopicPartition::new("t", p)).collect();
        let other = TopicPartition::new("u", 0);
        let both: Vec<_> = all.iter().cloned().chain([other.clone()]).collect();
        let mut used = [0; 3];
        for key in 0..40 {
            let partition_of = |some| super::partition_of(key, some, &both);
            assert_eq!(partition_of(&all[0]), partition_of(&all[2]));
            assert_eq!(partition_of(&other), &other);
            used[partition_of(&all[0]).partition as usize] += 1;
        }
        assert!(used.iter().all(|n| *n > 5), "{used:?}");
    }

    #[test]
    fn values_use_all_keys() {
        assert_eq!(of(value_of(1, 1), 0), None);
        let mut used = [0; 5];
        for counter in 0..200 {
            used[of(value_of(3, counter), 5).expect("there are keys") as usize] += 1;
        }
        assert!(used.iter().all(|n| *n > 20), "{used:?}");
    }
}
