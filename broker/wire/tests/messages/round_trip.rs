//! Encoded messages decode to the same value, and no prefix of them decodes.

use brokkr_wire::ApiKey;
use proptest::prelude::*;

use crate::support::{CASES, Gen};

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_message_survives_in_every_version(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
        cut in any::<prop::sample::Index>(),
    ) {
        for case in CASES {
            for v in case.versions() {
                let encoded = (case.round_trip)(&mut Gen::new(&bytes), v)
                    .map_err(|e| TestCaseError::fail(format!("{} version {v}: {e}", case.name)))?;
                if !encoded.is_empty() {
                    let part = encoded.slice(..cut.index(encoded.len()));
                    prop_assert!((case.decode)(part, v).is_err(), "{} version {v}: a part of it is enough", case.name);
                }
            }
        }
    }
}

#[test]
fn there_are_all_of_kafkas() {
    let of = |ends: &str| CASES.iter().filter(|c| c.name.ends_with(ends)).count();
    assert_eq!(
        (CASES.len(), of("Request"), of("Response"), ApiKey::ALL.len()),
        (272, 89, 89, 89)
    );
    for case in CASES {
        for v in [case.min - 1, case.max + 1] {
            let error = (case.decode)(bytes::Bytes::new(), v).expect_err("there is no such version");
            assert_eq!(
                error.to_string(),
                format!("{} at byte 0: no version {v}", case.name)
            );
        }
    }
}

#[test]
fn keys_and_their_requests_agree() {
    for key in ApiKey::ALL {
        let case = CASES
            .iter()
            .find(|c| c.name == format!("{key}Request"))
            .expect("each key has a request");
        assert_eq!(case.versions(), key.versions(), "{key}");
        assert_eq!(ApiKey::from_i16(*key as i16), Some(*key));
    }
    assert_eq!(ApiKey::from_i16(4), None);
    assert_eq!(ApiKey::InitProducerId.stable_versions(), 0..=5);
    assert_eq!(ApiKey::Fetch.max_stable(), 18);
}
