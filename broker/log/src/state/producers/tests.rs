use super::*;
use brokkr_types::LeaderEpoch;
use brokkr_wire::records::{Attributes, BatchBuilder};
use proptest::prelude::*;

fn header(id: i64, epoch: i16, first: i32, count: i32, at: i64) -> BatchHeader {
    let mut builder = BatchBuilder::new();
    builder.push(UnixMillis(7), None, None, &[]);
    let mut header = builder.build().header;
    header.producer_id = ProducerId(id);
    header.producer_epoch = ProducerEpoch(epoch);
    header.base_sequence = Sequence(first);
    header.last_offset_delta = count - 1;
    header.records_count = count;
    header.placed(Offset(at), LeaderEpoch(0))
}

const NOW: Instant = Instant::from_nanos(1);

fn check(producers: &Producers, h: &BatchHeader) -> Result<Option<BatchMeta>, SequenceError> {
    producers.check(h, None, ProducerChecks::All)
}

fn out_of_order(result: Result<Option<BatchMeta>, SequenceError>) -> bool {
    matches!(result, Err(SequenceError::OutOfOrder { .. }))
}

#[test]
fn the_fifth_batch_back_is_a_duplicate_and_the_sixth_is_refused() {
    let mut producers = Producers::default();
    let batches: Vec<_> = (0..6)
        .map(|i| header(1, 0, i * 2, 2, 100 + i64::from(i) * 2))
        .collect();
    for batch in &batches {
        assert_eq!(check(&producers, batch), Ok(None));
        producers.apply(batch, None, NOW);
    }
    for batch in &batches[1..] {
        let found = check(&producers, batch)
            .expect("in the window")
            .expect("a duplicate");
        assert_eq!(
            (found.first_offset(), found.last_offset),
            (batch.base_offset, batch.last_offset())
        );
    }
    assert!(out_of_order(check(&producers, &batches[0])));
}

#[test]
fn of_a_batch_that_is_there_twice_the_latest_is_the_duplicate() {
    let mut producers = Producers::default();
    producers.apply(&header(1, 0, 0, 2, 0), None, NOW);
    // The log has it a second time, from when the producer's state had expired.
    producers.apply(&header(1, 0, 0, 2, 2), None, NOW);
    let found = check(&producers, &header(1, 0, 0, 2, 9)).expect("in the window");
    assert_eq!(found.expect("a duplicate").first_offset(), Offset(2));
}

#[test]
fn a_sequence_wraps() {
    let mut producers = Producers::default();
    let across = header(1, 0, i32::MAX - 1, 4, 0);
    producers.apply(&across, None, NOW);
    assert_eq!(across.last_sequence(), Sequence(1));
    assert_eq!(check(&producers, &header(1, 0, 2, 1, 4)), Ok(None));
    assert!(out_of_order(check(&producers, &header(1, 0, 3, 1, 4))));
    let found = check(&producers, &across)
        .expect("in the window")
        .expect("a duplicate");
    assert_eq!(found.first_sequence(), Sequence(i32::MAX - 1));
    producers.apply(&header(1, 0, 2, i32::MAX - 1, 4), None, NOW);
    assert_eq!(check(&producers, &header(1, 0, 0, 1, 9)), Ok(None));
}

#[test]
fn epochs_begin_at_0_and_never_go_back() {
    let mut producers = Producers::default();
    // An unknown producer may begin at any sequence.
    assert_eq!(check(&producers, &header(1, 3, 77, 1, 0)), Ok(None));
    producers.apply(&header(1, 3, 77, 1, 0), None, NOW);
    assert!(out_of_order(check(&producers, &header(1, 4, 78, 1, 1))));
    assert_eq!(check(&producers, &header(1, 4, 0, 1, 1)), Ok(None));
    producers.apply(&header(1, 4, 0, 1, 1), None, NOW);
    let stale = check(&producers, &header(1, 3, 77, 1, 0));
    assert!(matches!(
        stale,
        Err(SequenceError::StaleEpoch {
            latest: ProducerEpoch(4),
            ..
        })
    ));
    assert_eq!(
        producers.get(ProducerId(1)).map(|p| p.window.batches().len()),
        Some(1)
    );
}

#[test]
fn a_marker_ends_the_transaction_and_fences_older_coordinators() {
    let mut producers = Producers::default();
    let mut data = header(1, 0, 0, 1, 10);
    data.attributes = Attributes::default().with_transactional(true);
    producers.apply(&data, None, NOW);
    assert_eq!(
        producers.get(ProducerId(1)).and_then(|p| p.transaction_start),
        Some(Offset(10))
    );
    let plain = check(&producers, &header(1, 0, 1, 1, 11));
    assert_eq!(plain, Err(SequenceError::NotInTransaction(ProducerId(1))));

    let end = header(1, 0, -1, 1, 11);
    producers.apply(&end, Some(EndTxnMarker { coordinator_epoch: 5 }), NOW);
    assert_eq!(
        producers.get(ProducerId(1)).and_then(|p| p.transaction_start),
        None
    );
    let zombie = producers.check(
        &end,
        Some(EndTxnMarker { coordinator_epoch: 4 }),
        ProducerChecks::EpochOnly,
    );
    assert!(matches!(
        zombie,
        Err(SequenceError::CoordinatorFenced { latest: 5, .. })
    ));
    // As in Kafka the window stays, as the producer epoch continues.
    assert_eq!(check(&producers, &header(1, 0, 1, 1, 12)), Ok(None));
}

#[test]
fn only_idle_producers_without_a_transaction_expire() {
    let mut producers = Producers::default();
    let mut open = header(1, 0, 0, 1, 0);
    open.attributes = Attributes::default().with_transactional(true);
    producers.apply(&open, None, Instant::from_nanos(0));
    producers.apply(&header(2, 0, 0, 1, 1), None, Instant::from_nanos(0));
    producers.apply(&header(3, 0, 0, 1, 2), None, Instant::from_nanos(6));
    producers.expire(Instant::from_nanos(10), Duration::from_nanos(5));
    let left: Vec<_> = producers.iter().map(|(id, _)| id.0).collect();
    assert_eq!(left, [1, 3]);
}

/// A model of one producer: the list of its appended batches.
#[derive(Default)]
struct Model {
    epoch: i16,
    appended: Vec<(i64, i64, i64)>,
    next: i64,
}

#[derive(PartialEq, Debug)]
enum Outcome {
    New,
    Duplicate(i64),
    OutOfOrder,
    Stale,
}

impl Model {
    /// Sequences in the model don't wrap; batches take them modulo 2^31.
    fn outcome(&self, epoch: i16, first: i64, count: i64) -> Outcome {
        if epoch < self.epoch {
            return Outcome::Stale;
        }
        if epoch > self.epoch {
            return if first == 0 {
                Outcome::New
            } else {
                Outcome::OutOfOrder
            };
        }
        let window = self.appended.iter().rev().take(WINDOW_BATCHES);
        if let Some((.., at)) = { window }.find(|(f, c, _)| (*f, *c) == (first, count)) {
            return Outcome::Duplicate(*at);
        }
        if first == self.next {
            Outcome::New
        } else {
            Outcome::OutOfOrder
        }
    }
}

const WRAP: i64 = 1 << 31;

proptest! {
    /// Random batches: next in order, retries, gaps, higher and lower epochs. Undoing a failed write restores the
    /// state before it (P10).
    #[test]
    fn outcomes_match_the_model(
        start in prop_oneof![Just(0i64), Just(WRAP - 6), Just(WRAP - 1)],
        steps in prop::collection::vec((0..8u8, 1..4i64, 0..9usize, any::<bool>()), 1..60),
    ) {
        let mut producers = Producers::default();
        let mut model = Model { next: start, ..Model::default() };
        let mut end = 0;
        producers.apply(&header(9, 0, (start - 1) as i32, 1, end), None, NOW);
        if start == 0 {
            producers = Producers::default();
            producers.apply(&header(9, 0, i32::MAX, 1, end), None, NOW);
            model.next = WRAP;
        }
        end += 1;
        for (kind, count, back, fails) in steps {
            let (epoch, first, count) = match kind {
                0..=3 => (model.epoch, model.next, count),
                4 | 5 => {
                    let n = model.appended.len();
                    match n.checked_sub(back + 1).map(|i| model.appended[i]) {
                        Some((first, count, _)) => (model.epoch, first, count),
                        None => continue,
                    }
                }
                6 => (model.epoch, model.next + 1 + back as i64, count),
                _ if back == 0 => (model.epoch + 1, 0, count),
                _ => (model.epoch - 1, 0, count),
            };
            if epoch < 0 {
                continue;
            }
            let batch = header(9, epoch, (first % WRAP) as i32, count as i32, end);
            let outcome = match check(&producers, &batch) {
                Ok(None) => Outcome::New,
                Ok(Some(found)) => Outcome::Duplicate(found.first_offset().0),
                Err(SequenceError::OutOfOrder { .. }) => Outcome::OutOfOrder,
                Err(SequenceError::StaleEpoch { .. }) => Outcome::Stale,
                Err(other) => panic!("{other:?}"),
            };
            let expected = model.outcome(epoch, first, count);
            prop_assert_eq!(&outcome, &expected);
            if outcome != Outcome::New {
                continue;
            }
            let before = producers.clone();
            let undo = producers.apply(&batch, None, NOW);
            if fails {
                producers.undo(undo);
                prop_assert_eq!(&producers, &before);
                continue;
            }
            if epoch != model.epoch {
                model = Model { epoch, ..Model::default() };
            }
            model.appended.push((first, count, end));
            model.next = first + count;
            end += count;
        }
    }
}
