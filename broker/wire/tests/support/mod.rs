//! Generates arbitrary messages from bytes: random ones, or ones that proptest shrinks.

use brokkr_types::Uuid;
use brokkr_wire::{
    DecodeError, EncodeError, Message, Part, RawTaggedField, Records, Str, TaggedFields, Writer,
    decode_exact, messages as m,
};
use bytes::Bytes;
use proptest::test_runner::{RngAlgorithm, TestRng};

/// Converts bytes to values. After the last byte all values are zero, empty or null.
pub struct Gen<'a> {
    bytes: &'a [u8],
    /// Some structures get unknown tagged fields, with tags from here on.
    pub least_unknown_tag: Option<u32>,
}

/// A value determined by bytes and a version. Fields that the version lacks keep their defaults.
pub trait Arbitrary {
    fn arbitrary(g: &mut Gen<'_>, v: i16) -> Self;
}

impl<'a> Gen<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            least_unknown_tag: Some(0),
        }
    }

    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.bytes.split_first() else {
            return 0;
        };
        self.bytes = rest;
        *first
    }

    fn bool(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// An integer of this many bytes; usually small.
    fn int(&mut self, bytes: u32) -> u64 {
        match self.byte() {
            short @ 0..200 => u64::from(short),
            200..210 => u64::MAX,
            210..220 => 1 << (8 * bytes - 1),
            _ => (0..bytes).fold(0, |all, _| all << 8 | u64::from(self.byte())),
        }
    }

    fn f64(&mut self) -> f64 {
        (self.int(4) as i32).into()
    }

    fn uuid(&mut self) -> Uuid {
        if self.byte() < 64 {
            return Uuid::ZERO;
        }
        Uuid::from_bytes(std::array::from_fn(|_| self.byte()))
    }

    /// Usually short, sometimes long enough for a length of two bytes.
    fn string(&mut self) -> Str {
        const LETTERS: [&str; 8] = ["a", "B", "-", "0", "é", "λ", "日", "🦀"];
        let len = match self.byte() {
            short @ 0..240 => short % 8,
            long => long - 100,
        };
        Str::from(
            (0..len)
                .map(|_| LETTERS[usize::from(self.byte() % 8)])
                .collect::<String>(),
        )
    }

    /// Usually short, sometimes longer than the copy limit.
    fn bytes(&mut self) -> Bytes {
        let len = match self.byte() {
            short @ 0..240 => usize::from(short % 16),
            long => usize::from(long) * 4,
        };
        Bytes::from((0..len).map(|_| self.byte()).collect::<Vec<u8>>())
    }

    fn array<T>(&mut self, mut element: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let len = match self.byte() {
            short @ 0..250 => short % 4,
            long => long - 120,
        };
        // A long array of defaults tests nothing more than a short one.
        (0..len)
            .take_while(|i| *i < 4 || !self.bytes.is_empty())
            .collect::<Vec<_>>()
            .iter()
            .map(|_| element(self))
            .collect()
    }

    fn maybe<T>(&mut self, value: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.maybe_if(true, value)
    }

    fn maybe_if<T>(&mut self, nullable: bool, value: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (!nullable || !self.byte().is_multiple_of(4)).then(|| value(self))
    }

    /// Tags of 31 bits, which other implementations support.
    fn tags(&mut self, known: &[u32]) -> TaggedFields {
        let Some(least) = self.least_unknown_tag.filter(|_| self.byte() % 8 == 7) else {
            return TaggedFields::NONE;
        };
        let mut tags: Vec<u32> = (0..3)
            .map(|_| (self.int(4) as u32 & 0x7fff_ffff).max(least))
            .collect();
        tags.sort_unstable();
        tags.dedup();
        tags.retain(|tag| !known.contains(tag));
        tags.into_iter()
            .map(|tag| RawTaggedField {
                tag,
                data: self.bytes(),
            })
            .collect()
    }
}

/// Pseudo-random numbers from a seed, the same on every machine.
pub fn random(seed: u8) -> TestRng {
    TestRng::from_seed(RngAlgorithm::XorShift, &[seed; 16])
}

/// The tests' operations on a message of unknown type.
#[derive(Clone, Copy)]
pub struct Case {
    pub name: &'static str,
    pub min: i16,
    pub max: i16,
    /// Encodes an arbitrary value.
    pub arbitrary: fn(&mut Gen<'_>, i16) -> Bytes,
    /// Encodes the default, if the version can.
    pub default: fn(i16) -> Option<Bytes>,
    /// Decodes and encodes again.
    pub recode: fn(Bytes, i16) -> Result<Bytes, DecodeError>,
    /// Encodes and decodes an arbitrary value; returns the error, if any, and the bytes.
    pub round_trip: fn(&mut Gen<'_>, i16) -> Result<Bytes, String>,
    /// Whether the bytes decode; drops the value.
    pub decode: fn(Bytes, i16) -> Result<(), DecodeError>,
}

impl Case {
    const fn of<M: Message + Arbitrary>() -> Self {
        Self {
            name: M::NAME,
            min: M::MIN_VERSION,
            max: M::MAX_VERSION,
            arbitrary: |g, v| encode(&M::arbitrary(g, v), v).expect("an arbitrary value is valid"),
            default: |v| encode(&M::default(), v).ok(),
            recode: |bytes, v| {
                Ok(encode(&decode_exact::<M>(bytes, v)?, v).expect("what was decoded can be encoded"))
            },
            round_trip: round_trip::<M>,
            decode: |bytes, v| decode_exact::<M>(bytes, v).map(drop),
        }
    }

    pub fn versions(&self) -> std::ops::RangeInclusive<i16> {
        self.min..=self.max
    }
}

fn round_trip<M: Message + Arbitrary>(g: &mut Gen<'_>, v: i16) -> Result<Bytes, String> {
    let value = M::arbitrary(g, v);
    let bytes = encode(&value, v).map_err(|e| format!("{e}: {value:?}"))?;
    let back: M = decode_exact(bytes.clone(), v).map_err(|e| format!("{e}: {value:?} as {bytes:x}"))?;
    if back != value {
        return Err(format!("{value:?} came back as {back:?}"));
    }
    let again = encode(&back, v).map_err(|e| e.to_string())?;
    if again != bytes {
        return Err(format!("{bytes:x} came back as {again:x}: {value:?}"));
    }
    Ok(bytes)
}

/// Concatenates the parts of a message and checks their lengths against `Writer::len`.
fn encode<M: Message>(value: &M, v: i16) -> Result<Bytes, EncodeError> {
    let mut w = Writer::new();
    value.encode(&mut w, v)?;
    let len = w.len();
    let mut all = Vec::with_capacity(len);
    for part in w.into_parts()? {
        let Part::Bytes(bytes) = part else {
            panic!("{}: an external part from nowhere", M::NAME);
        };
        assert!(!bytes.is_empty(), "{}: an empty part", M::NAME);
        all.extend_from_slice(&bytes);
    }
    assert_eq!(all.len(), len, "{}: the writer's length", M::NAME);
    Ok(all.into())
}

macro_rules! case {
    ($name:ident) => {
        Case::of::<m::$name>()
    };
}

include!(concat!(env!("OUT_DIR"), "/arbitrary.rs"));

/// Every message.
pub const CASES: &[Case] = &every_message!(case);
