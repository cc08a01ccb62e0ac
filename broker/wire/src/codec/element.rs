//! Elements of arrays: generated structures and a few plain values.

use brokkr_types::Uuid;

use super::{DecodeError, Reader, Str, Writer};
use crate::ErrorCode;

/// A value that is encoded and decoded in a version of its message. Implemented only by generated code and plain values.
///
/// Reading fills a default in its place, at the end of its array or in its field: what isn't on the wire stays at its
/// default, nothing moves, and an error leaves nothing behind that the caller doesn't own anyway.
pub trait Element: Default {
    /// Reads it in version `v`; `flex` says whether that version is flexible. It is at its default before.
    fn fill(&mut self, r: &mut Reader, v: i16, flex: bool, field: &'static str) -> Result<(), DecodeError>;

    /// Writes it; errors stick to the writer.
    fn write(&self, w: &mut Writer, v: i16, flex: bool, field: &'static str);

    /// Calls `visit` with each error code of a response, those that say that there is no error included, in the order of the fields.
    /// Only responses and what is in them have any.
    fn error_codes(&self, visit: &mut dyn FnMut(ErrorCode)) {
        let _ = visit;
    }
}

macro_rules! plain {
    ($($ty:ty, $name:ident;)*) => {$(
        impl Element for $ty {
            #[inline]
            fn fill(&mut self, r: &mut Reader, _: i16, _: bool, field: &'static str) -> Result<(), DecodeError> {
                *self = r.$name(field)?;
                Ok(())
            }

            #[inline]
            fn write(&self, w: &mut Writer, _: i16, _: bool, _: &'static str) {
                w.$name(*self);
            }
        }
    )*};
}

plain! {
    i8, i8;
    i16, i16;
    i32, i32;
    i64, i64;
    Uuid, uuid;
}

impl Element for Str {
    fn fill(&mut self, r: &mut Reader, _: i16, flex: bool, field: &'static str) -> Result<(), DecodeError> {
        r.str(self, flex, field)
    }

    fn write(&self, w: &mut Writer, _: i16, flex: bool, field: &'static str) {
        w.str(self, flex, field);
    }
}
