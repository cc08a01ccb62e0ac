//! What an array may hold: the structures of the tables, and a few plain values.

use brokkr_types::Uuid;

use super::{DecodeError, Reader, Str, Writer};

/// A value that is read and written in some version of its message. Made by the tables only.
pub trait Element: Sized {
    /// Reads it in version `v`; `flex` says whether that version is flexible.
    fn read(r: &mut Reader, v: i16, flex: bool, field: &'static str) -> Result<Self, DecodeError>;

    /// Writes it; errors stick to the writer.
    fn write(&self, w: &mut Writer, v: i16, flex: bool, field: &'static str);
}

macro_rules! plain {
    ($($ty:ty, $name:ident;)*) => {$(
        impl Element for $ty {
            #[inline]
            fn read(r: &mut Reader, _: i16, _: bool, field: &'static str) -> Result<Self, DecodeError> {
                r.$name(field)
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
    fn read(r: &mut Reader, _: i16, flex: bool, field: &'static str) -> Result<Self, DecodeError> {
        r.str(flex, field)
    }

    fn write(&self, w: &mut Writer, _: i16, flex: bool, field: &'static str) {
        w.str(self, flex, field);
    }
}
