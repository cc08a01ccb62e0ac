//! Encodes a rude request by the schema.

use std::collections::BTreeMap;

use super::value::{Special, Value};
use super::{Records, RudeRequest};
use crate::schema::{Api, Field, Message, Struct, Type, api};

/// An encoded request.
pub(super) struct Encoded {
    /// The frame, with its size field.
    pub(super) frame: Vec<u8>,
    /// Whether Kafka's schema allows the request: then the broker must respond.
    pub(super) is_valid: bool,
    /// Whether decoding takes many times its size in memory: then the broker may close the connection instead.
    pub(super) is_dense: bool,
}

/// A request with at least this many elements, and fewer bytes per element than the next, is dense.
const DENSE_LEN: u64 = 1_000;
const DENSE_BYTES: u64 = 16;

/// Encodes a request. `id_of` returns the present id of a topic.
pub(super) fn request(of: &RudeRequest, correlation_id: i32, id_of: &dyn Fn(&str) -> [u8; 16]) -> Encoded {
    let known = api(&of.api);
    let key = known.map_or_else(|| of.api.parse().unwrap_or(i16::MAX), |api| api.key);
    let mut w = Writer::new(of.version, id_of);
    w.is_valid = known.is_some_and(|api| api.versions.contains(of.version));
    w.int(&Type::I32, 0);
    w.int(&Type::I16, key.into());
    w.int(&Type::I16, of.version.into());
    w.int(&Type::I32, correlation_id.into());
    w.client_id(of.client_id.as_ref());
    if let Some(api) = known {
        w.body(api, of);
    }
    w.finish(of)
}

struct Writer<'a> {
    out: Vec<u8>,
    version: i16,
    flexible: bool,
    is_valid: bool,
    /// Number of elements of all arrays so far.
    elements: u64,
    /// The numbers of the enclosing elements, the innermost last.
    numbers: Vec<u64>,
    id_of: &'a dyn Fn(&str) -> [u8; 16],
}

impl<'a> Writer<'a> {
    fn new(version: i16, id_of: &'a dyn Fn(&str) -> [u8; 16]) -> Self {
        Self {
            out: Vec::new(),
            version,
            flexible: false,
            is_valid: true,
            elements: 0,
            numbers: Vec::new(),
            id_of,
        }
    }

    fn client_id(&mut self, id: Option<&Value>) {
        match id {
            None => self.length(Some(0), 2),
            // Not compact, even in flexible versions.
            Some(id) => self.string(id, true),
        }
    }

    /// The header's tags and the body.
    fn body(&mut self, api: &Api, of: &RudeRequest) {
        // A version that doesn't exist uses the body of the nearest one.
        self.version = of.version.clamp(api.versions.lo, api.versions.hi);
        self.flexible = api.request.is_flexible(of.version);
        if self.flexible {
            self.uvarint(0);
        }
        let begin = self.out.len();
        self.structure(&api.request, &api.request.structs[0], &of.body);
        if let Some(cut) = of.body_cut
            && begin + (cut as usize) < self.out.len()
        {
            self.out.truncate(begin + cut as usize);
            self.is_valid = false;
        }
    }

    fn finish(mut self, of: &RudeRequest) -> Encoded {
        let size = of.announces.unwrap_or((self.out.len() - 4) as i32);
        self.out[..4].copy_from_slice(&size.to_be_bytes());
        Encoded {
            is_valid: self.is_valid && of.announces.is_none(),
            is_dense: self.elements >= DENSE_LEN && (self.out.len() as u64) < self.elements * DENSE_BYTES,
            frame: self.out,
        }
    }

    fn structure(&mut self, message: &Message, of: &Struct, value: &Value) {
        let none = BTreeMap::new();
        let given = match value {
            Value::Struct(fields) => fields,
            _ => &none,
        };
        let here = |f: &&Field| f.versions.contains(self.version);
        let fields: Vec<&Field> = of.fields.iter().filter(here).collect();
        for f in fields.iter().filter(|f| f.tag.is_none()) {
            self.field(message, f, given.get(&f.name));
        }
        if !self.flexible {
            return;
        }
        let mut tags = BTreeMap::new();
        for f in &fields {
            if let (Some(tag), Some(value)) = (f.tag, given.get(&f.name)) {
                tags.insert(tag, self.apart(|w| w.field(message, f, Some(value))));
            }
        }
        if let Some(Value::List(unknown)) = given.get("@tags") {
            for pair in unknown {
                if let Value::List(pair) = pair
                    && let [Value::Int(tag), Value::Int(bytes)] = &pair[..]
                {
                    tags.entry(*tag as u32)
                        .or_insert_with(|| vec![0; *bytes as usize]);
                }
            }
        }
        self.uvarint(tags.len() as u64);
        for (tag, bytes) in tags {
            self.uvarint(tag.into());
            self.uvarint(bytes.len() as u64);
            self.out.extend(bytes);
        }
    }

    /// The bytes that `write` writes, in a separate buffer.
    fn apart(&mut self, write: impl FnOnce(&mut Self)) -> Vec<u8> {
        let before = std::mem::take(&mut self.out);
        write(self);
        std::mem::replace(&mut self.out, before)
    }

    fn field(&mut self, message: &Message, f: &Field, given: Option<&Value>) {
        let default = || match f.default.as_deref() {
            Some("null") => Value::Null,
            Some(text) => number(text).map_or_else(|| Value::Bool(text == "true"), Value::Int),
            None => match &f.ty {
                Type::Str | Type::Uuid => Value::Text(String::new()),
                Type::Bytes | Type::Records => Special::Zeros(0).into(),
                Type::Array(_) => Value::List(Vec::new()),
                Type::Struct(_) => Value::default(),
                _ => Value::Int(0),
            },
        };
        let owned;
        let value = match given {
            Some(value) => value,
            None => {
                owned = default();
                &owned
            }
        };
        if matches!(value, Value::Null) {
            let has_null = matches!(
                f.ty,
                Type::Str | Type::Bytes | Type::Records | Type::Array(_) | Type::Struct(_)
            );
            self.is_valid &= f.is_nullable(self.version) || !has_null;
        }
        if let Type::Struct(_) = f.ty
            && f.is_nullable(self.version)
        {
            let is_there = !matches!(value, Value::Null);
            self.out.push(if is_there { 1 } else { 0xff });
            if !is_there {
                return;
            }
        }
        self.value(message, &f.ty, value, f.rigid);
    }

    fn value(&mut self, message: &Message, ty: &Type, value: &Value, rigid: bool) {
        match ty {
            Type::Str => self.string(value, rigid),
            Type::Bytes | Type::Records => self.bytes(value),
            Type::Uuid => self.uuid(value),
            Type::Struct(name) => self.structure(message, message.structure(name), value),
            Type::Array(of) => self.array(message, of, value),
            _ => self.scalar(ty, value),
        }
    }

    fn scalar(&mut self, ty: &Type, value: &Value) {
        let n = match value {
            Value::Int(n) => *n,
            Value::Bool(b) => i64::from(*b),
            Value::Special(s) if matches!(**s, Special::Number {}) => {
                self.numbers.last().copied().unwrap_or(0) as i64
            }
            _ => 0,
        };
        self.int(ty, n);
    }

    fn int(&mut self, ty: &Type, n: i64) {
        macro_rules! put {
            ($t:ty) => {
                self.out
                    .extend((n.clamp(<$t>::MIN.into(), <$t>::MAX.into()) as $t).to_be_bytes())
            };
        }
        match ty {
            Type::Bool => self.out.push(u8::from(n != 0)),
            Type::I8 => put!(i8),
            Type::I16 => put!(i16),
            Type::U16 => put!(u16),
            Type::I32 => put!(i32),
            Type::U32 => put!(u32),
            Type::F64 => self.out.extend((n as f64).to_be_bytes()),
            _ => self.out.extend(n.to_be_bytes()),
        }
    }

    fn uuid(&mut self, value: &Value) {
        let id = match value {
            Value::Special(s) => match &**s {
                Special::IdOf(topic) => (self.id_of)(topic),
                _ => [0; 16],
            },
            Value::Text(text) => u128::from_str_radix(text, 16).unwrap_or(0).to_be_bytes(),
            Value::Int(n) => u128::from(n.unsigned_abs()).to_be_bytes(),
            _ => [0; 16],
        };
        self.out.extend(id);
    }

    fn string(&mut self, value: &Value, rigid: bool) {
        let flexible = self.flexible;
        self.flexible &= !rigid;
        let (claims, value) = self.claims(value);
        let text = match value {
            Value::Null => None,
            Value::Text(text) => Some(self.numbered(text)),
            Value::Special(s) => match &**s {
                Special::Text { of, times } => Some(of.repeat(*times as usize)),
                Special::Number {} => Some(self.numbers.last().copied().unwrap_or(0).to_string()),
                _ => Some(String::new()),
            },
            _ => Some(String::new()),
        };
        let len = text.as_ref().map(|t| t.len() as i64);
        self.is_valid &= len.is_none_or(|len| len <= i64::from(i16::MAX));
        self.length(claims.map_or(len, Some), 2);
        self.out.extend(text.unwrap_or_default().into_bytes());
        self.flexible = flexible;
    }

    fn numbered(&self, text: &str) -> String {
        match self.numbers.last() {
            Some(n) if text.contains('#') => text.replace('#', &n.to_string()),
            _ => text.to_owned(),
        }
    }

    fn bytes(&mut self, value: &Value) {
        let (claims, value) = self.claims(value);
        let bytes = match value {
            Value::Null => None,
            Value::Text(text) => Some(text.clone().into_bytes()),
            Value::Special(s) => Some(match &**s {
                Special::Zeros(n) => vec![0; *n as usize],
                Special::Records(records) => Records::encode(records),
                _ => Vec::new(),
            }),
            _ => Some(Vec::new()),
        };
        let len = bytes.as_ref().map(|b| b.len() as i64);
        self.length(claims.map_or(len, Some), 4);
        self.out.extend(bytes.unwrap_or_default());
    }

    fn array(&mut self, message: &Message, of: &Type, value: &Value) {
        let (claims, value) = self.claims(value);
        let (len, same) = match value {
            Value::Null => (None, None),
            Value::List(all) => (Some(all.len() as u64), None),
            Value::Special(s) => match &**s {
                Special::Same { of, times } => (Some(*times), Some((of, false))),
                Special::Numbered { of, times } => (Some(*times), Some((of, true))),
                _ => (Some(0), None),
            },
            _ => (Some(0), None),
        };
        self.length(claims.map_or(len.map(|n| n as i64), Some), 4);
        match (value, same) {
            (Value::List(all), _) => all.iter().for_each(|v| self.value(message, of, v, false)),
            (_, Some((each, false))) => {
                let before = self.elements;
                let one = self.apart(|w| w.value(message, of, each, false));
                let n = len.unwrap_or(0);
                self.elements = before + n * (self.elements - before);
                (0..n).for_each(|_| self.out.extend(&one));
            }
            (_, Some((each, true))) => {
                for i in 0..len.unwrap_or(0) {
                    self.numbers.push(i);
                    self.value(message, of, each, false);
                    self.numbers.pop();
                }
            }
            _ => {}
        }
        self.elements += len.unwrap_or(0);
    }

    /// Splits a value that claims another length than it has.
    fn claims<'v>(&mut self, value: &'v Value) -> (Option<i64>, &'v Value) {
        if let Value::Special(s) = value
            && let Special::Claims { count, of } = &**s
        {
            self.is_valid = false;
            return (Some(*count), of);
        }
        (None, value)
    }

    /// Writes a length; −1 is null. A plain (not compact) length has `bytes` bytes.
    fn length(&mut self, len: Option<i64>, bytes: u32) {
        let len = len.unwrap_or(-1);
        match bytes {
            _ if self.flexible => self.uvarint(len.wrapping_add(1) as u32 as u64),
            2 => self.int(&Type::I16, len),
            _ => self.int(&Type::I32, len),
        }
    }

    fn uvarint(&mut self, mut n: u64) {
        while n >= 0x80 {
            self.out.push(n as u8 | 0x80);
            n >>= 7;
        }
        self.out.push(n as u8);
    }
}

/// A default that is a number, in either notation of the tables.
fn number(text: &str) -> Option<i64> {
    match text.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use brokkr_wire::Reader;
    use brokkr_wire::frame::decode_request_header;
    use brokkr_wire::messages::{self as m, Message as _};
    use bytes::Bytes;

    fn plain(api: &str, version: i16, body: Value) -> RudeRequest {
        RudeRequest {
            api: api.to_owned(),
            version,
            client_id: None,
            times: 1,
            announces: None,
            body_cut: None,
            body,
        }
    }

    #[test]
    fn the_codec_of_the_broker_decodes_an_encoded_request() {
        let partition = Value::Struct(
            [
                ("index".to_owned(), Value::Int(7)),
                ("records".to_owned(), Value::Null),
            ]
            .into(),
        );
        for version in 3..=13 {
            let same = Special::Same {
                of: partition.clone(),
                times: 300,
            };
            let topic = Value::Struct(
                [
                    ("name".to_owned(), "x0".into()),
                    ("topic_id".to_owned(), Special::IdOf("x0".into()).into()),
                    ("partition_data".to_owned(), same.into()),
                ]
                .into(),
            );
            let body = Value::Struct(
                [
                    ("acks".to_owned(), Value::Int(-1)),
                    ("topic_data".to_owned(), Value::List(vec![topic])),
                    (
                        "@tags".to_owned(),
                        Value::List(vec![Value::List(vec![Value::Int(70), Value::Int(3)])]),
                    ),
                ]
                .into(),
            );
            let encoded = request(&plain("Produce", version, body), 5, &|_| [9; 16]);
            assert!(encoded.is_valid);
            let mut r = Reader::new(Bytes::from(encoded.frame).slice(4..));
            let (key, header) = decode_request_header(&mut r).expect("a header");
            assert_eq!((key, header.correlation_id), (brokkr_wire::ApiKey::Produce, 5));
            let got = m::ProduceRequest::decode(&mut r, version).expect("a body");
            r.expect_end().expect("nothing more");
            assert_eq!((got.acks, got.topic_data[0].partition_data.len()), (-1, 300));
            assert_eq!(got.topic_data[0].partition_data[299].index, 7);
            assert_eq!(got.topic_data[0].topic_id.as_bytes() == &[9; 16], version == 13);
        }
    }

    #[test]
    fn a_request_that_violates_the_schema_is_not_valid() {
        let body = |name: &str, value| Value::Struct([(name.to_owned(), value)].into());
        let valid = |api, version, body| request(&plain(api, version, body), 0, &|_| [0; 16]).is_valid;
        assert!(valid("Metadata", 1, body("topics", Value::Null)));
        assert!(!valid("Metadata", 0, body("topics", Value::Null)));
        assert!(!valid("Metadata", 14, Value::default()));
        assert!(!valid("Nothing", 0, Value::default()));
        let claims = Special::Claims {
            count: 1 << 30,
            of: Value::List(Vec::new()),
        };
        assert!(!valid("Metadata", 9, body("topics", claims.into())));
    }
}
