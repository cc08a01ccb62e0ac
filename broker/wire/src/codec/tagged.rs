//! Tagged fields that the tables don't know (KIP-482), kept so that a newer peer's fields survive a round trip.

use std::fmt;
use std::ops::Deref;

use bytes::Bytes;

/// An unknown tagged field.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RawTaggedField {
    /// Its tag.
    pub tag: u32,
    /// Its value, uninterpreted: a slice of the frame.
    pub data: Bytes,
}

/// The unknown tagged fields of one structure, in ascending order of tags. Eight bytes when empty, the usual case.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct TaggedFields(Option<Box<Fields>>);

#[derive(Clone, PartialEq, Eq)]
struct Fields(Vec<RawTaggedField>);

impl TaggedFields {
    /// No fields.
    pub const NONE: Self = Self(None);

    /// Adds a field. Tags must ascend and must not be the structure's own: encoding refuses them otherwise.
    pub fn push(&mut self, field: RawTaggedField) {
        self.0
            .get_or_insert_with(|| Box::new(Fields(Vec::new())))
            .0
            .push(field);
    }
}

impl Deref for TaggedFields {
    type Target = [RawTaggedField];

    #[inline]
    fn deref(&self) -> &[RawTaggedField] {
        match &self.0 {
            None => &[],
            Some(fields) => &fields.0,
        }
    }
}

impl FromIterator<RawTaggedField> for TaggedFields {
    fn from_iter<I: IntoIterator<Item = RawTaggedField>>(fields: I) -> Self {
        let mut all = Self::NONE;
        fields.into_iter().for_each(|field| all.push(field));
        all
    }
}

impl fmt::Debug for TaggedFields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
