//! Decodes responses by the schema, to their last byte. Independent of the broker's codec.

use crate::schema::{Api, Field, Message, Struct, Type};

/// The correlation id of a response frame (without its size field).
pub(super) fn correlation_id(frame: &[u8]) -> Option<i32> {
    frame.first_chunk().map(|bytes| i32::from_be_bytes(*bytes))
}

/// Returns the error in a response to a request of this version, if it can't be decoded.
pub(super) fn check(api: &Api, version: i16, frame: &[u8]) -> Result<(), String> {
    // KIP-511: the ApiVersions header is never flexible, and an unsupported version gets a response of version 0.
    let is_versions = api.name == "ApiVersions";
    let version = match api.versions.contains(version) {
        false if is_versions => 0,
        _ => version,
    };
    let mut r = Reader {
        rest: frame,
        version,
        flexible: api.response.is_flexible(version),
    };
    r.take(4, "correlation_id")?;
    if r.flexible && !is_versions {
        r.tags(None, &api.response)?;
    }
    r.structure(&api.response, &api.response.structs[0])?;
    match r.rest.len() {
        0 => Ok(()),
        n => Err(format!("{n} bytes follow it")),
    }
}

struct Reader<'a> {
    rest: &'a [u8],
    version: i16,
    flexible: bool,
}

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize, field: &str) -> Result<&'a [u8], String> {
        let (taken, rest) = self
            .rest
            .split_at_checked(n)
            .ok_or_else(|| format!("{field}: it ends before"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn uvarint(&mut self, field: &str) -> Result<u64, String> {
        let mut n = 0;
        for shift in (0..35).step_by(7) {
            let byte = self.take(1, field)?[0];
            n |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(n);
            }
        }
        Err(format!("{field}: a length of more than five bytes"))
    }

    /// A length; none is null.
    fn length(&mut self, bytes: usize, field: &str) -> Result<Option<usize>, String> {
        let n = match (self.flexible, bytes) {
            (true, _) => self.uvarint(field)? as i64 - 1,
            (false, 2) => i16::from_be_bytes(*self.take(2, field)?.first_chunk().expect("two bytes")).into(),
            (false, _) => i32::from_be_bytes(*self.take(4, field)?.first_chunk().expect("four bytes")).into(),
        };
        match n {
            -1 => Ok(None),
            n => usize::try_from(n)
                .map(Some)
                .map_err(|_| format!("{field}: length {n}")),
        }
    }

    fn structure(&mut self, message: &Message, of: &Struct) -> Result<(), String> {
        for f in &of.fields {
            if f.versions.contains(self.version) && f.tag.is_none() {
                self.field(message, f)?;
            }
        }
        if self.flexible {
            self.tags(Some(of), message)?;
        }
        Ok(())
    }

    fn tags(&mut self, of: Option<&Struct>, message: &Message) -> Result<(), String> {
        let mut last = None;
        for _ in 0..self.uvarint("tags")? {
            let tag = self.uvarint("tag")?;
            if last.is_some_and(|last| tag <= last) {
                return Err(format!("tag {tag} does not follow in order"));
            }
            last = Some(tag);
            let len = self.uvarint("tag's length")? as usize;
            let bytes = self.take(len, "tag")?;
            let known = of.iter().flat_map(|of| &of.fields);
            let field = known
                .filter(|f| f.versions.contains(self.version))
                .find(|f| f.tag.map(u64::from) == Some(tag))
                .ok_or_else(|| format!("tag {tag} is unknown in version {}", self.version))?;
            let mut inner = Reader { rest: bytes, ..*self };
            inner.field(message, field)?;
            if !inner.rest.is_empty() {
                return Err(format!("{}: bytes follow it in its tag", field.name));
            }
        }
        Ok(())
    }

    fn field(&mut self, message: &Message, f: &Field) -> Result<(), String> {
        if let Type::Struct(_) = f.ty
            && f.is_nullable(self.version)
            && self.take(1, &f.name)?[0] as i8 == -1
        {
            return Ok(());
        }
        let was_null = self.value(message, &f.ty, &f.name)?;
        if was_null && !f.is_nullable(self.version) {
            return Err(format!("{}: null in version {}", f.name, self.version));
        }
        Ok(())
    }

    /// Whether the value is null.
    fn value(&mut self, message: &Message, ty: &Type, name: &str) -> Result<bool, String> {
        let fixed = match ty {
            Type::Bool | Type::I8 => 1,
            Type::I16 | Type::U16 => 2,
            Type::I32 | Type::U32 => 4,
            Type::I64 | Type::F64 => 8,
            Type::Uuid => 16,
            Type::Struct(of) => return self.structure(message, message.structure(of)).map(|()| false),
            Type::Str => {
                let Some(len) = self.length(2, name)? else {
                    return Ok(true);
                };
                let bytes = self.take(len, name)?;
                return std::str::from_utf8(bytes)
                    .map(|_| false)
                    .map_err(|e| format!("{name}: {e}"));
            }
            Type::Bytes | Type::Records => {
                let Some(len) = self.length(4, name)? else {
                    return Ok(true);
                };
                return self.take(len, name).map(|_| false);
            }
            Type::Array(of) => {
                let Some(len) = self.length(4, name)? else {
                    return Ok(true);
                };
                for _ in 0..len {
                    if self.value(message, of, name)? {
                        return Err(format!("{name}: null in an array"));
                    }
                }
                return Ok(false);
            }
        };
        self.take(fixed, name).map(|_| false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::api;
    use brokkr_wire::ApiKey;
    use brokkr_wire::frame::encode_response;
    use brokkr_wire::messages as m;

    fn frame(version: i16, topics: usize) -> Vec<u8> {
        let topic = m::metadata_response::MetadataResponseTopic::default();
        let topic = m::metadata_response::MetadataResponseTopic {
            name: Some("t".into()),
            ..topic
        };
        let response = m::MetadataResponse {
            topics: vec![topic; topics],
            ..Default::default()
        };
        let parts = encode_response(&response, ApiKey::Metadata, version, 3).expect("it can be encoded");
        let parts = parts.into_iter().map(|part| match part {
            brokkr_wire::Part::Bytes(bytes) => bytes.to_vec(),
            brokkr_wire::Part::External { .. } => Vec::new(),
        });
        parts.collect::<Vec<_>>().concat()[4..].to_vec()
    }

    #[test]
    fn only_a_complete_response_of_that_version_is_accepted() {
        let api = api("Metadata").expect("an API");
        for version in 0..=13 {
            let good = frame(version, 2);
            assert_eq!(correlation_id(&good), Some(3));
            assert_eq!(check(api, version, &good), Ok(()), "version {version}");
            assert!(
                check(api, version, &good[..good.len() - 1]).is_err(),
                "version {version}"
            );
            assert!(
                check(api, version, &[&good[..], &[0]].concat()).is_err(),
                "version {version}"
            );
        }
        assert!(check(api, 13, &frame(8, 1)).is_err());
    }
}
