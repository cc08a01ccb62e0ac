//! A million damaged frames: no panic, and no more memory than their bytes justify.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use brokkr_wire::frame::decode_request_header;
use brokkr_wire::messages::MetadataRecord;
use brokkr_wire::{ApiKey, Reader};
use bytes::Bytes;
use proptest::prelude::RngExt;
use proptest::test_runner::TestRng;

use crate::support::{CASES, Case, Gen, random};

const FRAMES: usize = 1_000_000;
/// Maximum memory for a byte on the wire. An empty string or array of the compact encoding has one byte and takes 24 to 32
/// in memory, and a growing vector has capacity for twice its elements.
const BYTES_PER_BYTE: usize = 96;
/// Memory for an error, the shared frame and a vector's first four elements, however short the frame.
const BYTES_FREE: usize = 4096;

/// Counts the current thread's allocations and their peak.
struct Counting;

mod counters {
    use super::Cell;
    std::thread_local! {
        pub static LIVE: Cell<isize> = const { Cell::new(0) };
        pub static MOST: Cell<isize> = const { Cell::new(0) };
    }
}

fn count(by: isize) {
    let live = counters::LIVE.get() + by;
    counters::LIVE.set(live);
    counters::MOST.set(counters::MOST.get().max(live));
}

// SAFETY: all calls go to `System`; counting uses thread-local cells that need no allocation and no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller keeps `alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller keeps `dealloc`'s contract.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // During a move both blocks exist.
        count(size as isize);
        count(-(layout.size() as isize));
        // SAFETY: the caller keeps `realloc`'s contract.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The peak allocation of `f`.
fn most_allocated(f: impl FnOnce()) -> usize {
    let before = counters::LIVE.get();
    counters::MOST.set(before);
    f();
    (counters::MOST.get() - before).max(0) as usize
}

/// Wrong lengths to write into frames.
const EXTREMES: [[u8; 5]; 6] = [
    [0x7f, 0xff, 0xff, 0xff, 0xff],
    [0xff, 0xff, 0xff, 0xff, 0x0f],
    [0xff, 0xff, 0xff, 0xff, 0xff],
    [0x80, 0x00, 0x00, 0x00, 0x00],
    [0xff, 0xff, 0xff, 0xff, 0x07],
    [0x00, 0x00, 0x7f, 0xff, 0x00],
];

fn mutate(frame: &[u8], random: &mut TestRng) -> Vec<u8> {
    let mut frame = frame.to_vec();
    for _ in 0..=random.random_range(0..3) {
        let at = random.random_range(0..frame.len().max(1));
        match random.random_range(0..8) {
            0 => frame.truncate(at),
            1 => frame.insert(at, random.random()),
            2 if !frame.is_empty() => drop(frame.remove(at)),
            3 | 4 => {
                let extreme = EXTREMES[random.random_range(0..EXTREMES.len())];
                for (to, from) in frame[at..]
                    .iter_mut()
                    .zip(&extreme[..1 + random.random_range(0..5)])
                {
                    *to = *from;
                }
            }
            5 => frame.extend(std::iter::repeat_n(
                random.random::<u8>(),
                random.random_range(0..64),
            )),
            _ => {
                if let Some(byte) = frame.get_mut(at) {
                    *byte ^= 1 << random.random_range(0..8);
                }
            }
        }
    }
    frame
}

/// A message in a version, and the bytes of an arbitrary value.
fn originals(random: &mut TestRng) -> Vec<(&'static Case, i16, Bytes)> {
    let mut all = Vec::new();
    for case in CASES {
        for v in case.versions() {
            for len in [50, 600] {
                let mut seed = vec![0; len];
                random.fill(&mut seed);
                all.push((case, v, (case.arbitrary)(&mut Gen::new(&seed), v)));
            }
        }
    }
    all
}

#[test]
fn a_million_damaged_frames() {
    let mut random = random(1);
    let originals = originals(&mut random);
    let (mut decoded, mut refused) = (0, 0);
    for _ in 0..FRAMES {
        let (case, v, bytes) = &originals[random.random_range(0..originals.len())];
        let frame = Bytes::from(mutate(bytes, &mut random));
        let len = frame.len();
        let mut outcome = Ok(());
        let most = most_allocated(|| outcome = (case.decode)(frame.clone(), *v));
        assert!(
            most <= BYTES_PER_BYTE * len + BYTES_FREE,
            "{} version {v}: {most} bytes for {len}: {frame:x}",
            case.name
        );
        match outcome {
            Ok(()) => {
                decoded += 1;
                let again = (case.recode)(frame, *v).expect("it has just been decoded");
                assert!(
                    (case.decode)(again, *v).is_ok(),
                    "{} version {v}: not what it was",
                    case.name
                );
            }
            Err(e) => {
                refused += 1;
                assert_eq!(e.message(), case.name);
                assert!(e.offset() <= len);
            }
        }
    }
    // Both outcomes must be common, or the mutations are useless.
    assert!(
        decoded > FRAMES / 20 && refused > FRAMES / 5,
        "{decoded} decoded, {refused} refused"
    );
}

#[test]
fn damaged_headers_and_metadata_records() {
    let mut random = random(7);
    let header = [0, 18, 0, 3, 0, 0, 0, 7, 0, 2, b'm', b'e', 1, 0, 2, 1, 2];
    let record = MetadataRecord::from(brokkr_wire::messages::TopicRecord::default())
        .encode(0)
        .expect("it is valid");
    let (mut headers, mut records) = (0, 0);
    for _ in 0..FRAMES / 10 {
        let mut r = Reader::new(Bytes::from(mutate(&header, &mut random)));
        if let Ok((key, header)) = decode_request_header(&mut r) {
            assert_eq!(key as i16, header.request_api_key);
            headers += usize::from(key == ApiKey::ApiVersions);
        }
        records += usize::from(MetadataRecord::decode(Bytes::from(mutate(&record, &mut random))).is_ok());
    }
    assert!(
        headers > 1000 && records > 1000,
        "{headers} headers, {records} records"
    );
}
