//! Arrays and nullable structures: how [`Reader`] and [`Writer`] handle elements.

use super::{DecodeError, DecodeErrorKind, Element, EncodeErrorKind, Reader, Writer};

impl Reader {
    /// An array.
    pub(crate) fn array<T: Element>(
        &mut self,
        to: &mut Vec<T>,
        v: i16,
        flex: bool,
        field: &'static str,
    ) -> Result<(), DecodeError> {
        match self.array_len(flex, field)? {
            Some(len) => self.elements(to, len, v, flex, field),
            None => Err(self.null(field)),
        }
    }

    /// An array or, where `nullable`, null.
    pub(crate) fn array_opt<T: Element>(
        &mut self,
        to: &mut Option<Vec<T>>,
        v: i16,
        flex: bool,
        nullable: bool,
        field: &'static str,
    ) -> Result<(), DecodeError> {
        match self.array_len(flex, field)? {
            Some(len) => self.elements(to.get_or_insert_default(), len, v, flex, field),
            None => self.no_value(to, nullable, field),
        }
    }

    fn elements<T: Element>(
        &mut self,
        to: &mut Vec<T>,
        len: usize,
        v: i16,
        flex: bool,
        field: &'static str,
    ) -> Result<(), DecodeError> {
        to.clear();
        self.charge(len.saturating_mul(size_of::<T>()), field)?;
        to.reserve_exact(len.min(self.remaining() / size_of::<T>().max(1)));
        for _ in 0..len {
            to.push_mut(T::default()).fill(self, v, flex, field)?;
        }
        Ok(())
    }

    /// The length of an array. The remaining bytes bound it: each element takes at least one byte.
    #[inline(never)]
    fn array_len(&mut self, flex: bool, field: &'static str) -> Result<Option<usize>, DecodeError> {
        match self.len(flex, 4, field)? {
            Some(len) if len > self.remaining() => {
                Err(self.error(field, DecodeErrorKind::LengthTooLong(len as u32)))
            }
            len => Ok(len),
        }
    }

    /// A nullable structure: its first byte says whether it is null.
    pub(crate) fn struct_opt<T: Element>(
        &mut self,
        to: &mut Option<T>,
        v: i16,
        flex: bool,
        nullable: bool,
        field: &'static str,
    ) -> Result<(), DecodeError> {
        if self.i8(field)? < 0 {
            return self.no_value(to, nullable, field);
        }
        to.insert(T::default()).fill(self, v, flex, field)
    }

    /// A nullable structure in a tagged field: its first varint says whether it is null.
    pub(crate) fn tagged_struct_opt<T: Element>(
        &mut self,
        to: &mut Option<T>,
        v: i16,
        field: &'static str,
    ) -> Result<(), DecodeError> {
        if self.uvarint(field)? == 0 {
            *to = None;
            return Ok(());
        }
        to.insert(T::default()).fill(self, v, true, field)
    }
}

impl Writer {
    pub(crate) fn array<T: Element>(&mut self, value: &[T], v: i16, flex: bool, field: &'static str) {
        self.write_len(value.len(), flex, 4, field);
        for element in value {
            element.write(self, v, flex, field);
        }
    }

    pub(crate) fn array_opt<T: Element>(
        &mut self,
        value: &Option<Vec<T>>,
        v: i16,
        flex: bool,
        nullable: bool,
        field: &'static str,
    ) {
        match value {
            Some(value) => self.array(value, v, flex, field),
            None => self.null(flex, 4, nullable, field),
        }
    }

    pub(crate) fn struct_opt<T: Element>(
        &mut self,
        value: &Option<T>,
        v: i16,
        flex: bool,
        nullable: bool,
        field: &'static str,
    ) {
        match value {
            Some(value) => {
                self.i8(1);
                value.write(self, v, flex, field);
            }
            None if nullable => self.i8(-1),
            None => self.fail(field, EncodeErrorKind::NullNotAllowed),
        }
    }

    pub(crate) fn tagged_struct_opt<T: Element>(&mut self, value: &Option<T>, v: i16, field: &'static str) {
        match value {
            Some(value) => {
                self.uvarint(1);
                value.write(self, v, true, field);
            }
            None => self.uvarint(0),
        }
    }
}
