//! Packs JSON values of many equal shapes into few bytes.
//!
//! ```text
//!   {"e":"write","file":"t0-0/0.log","batches":[]}   becomes   [3,[-7],[-1]]
//! ```
//! An object is the index of its shape, which is the kind of an event and the names of its fields, and its values; an array is -1 and its
//! values; a string is -2 minus its index among all strings. Numbers that JavaScript can't hold become strings.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// The largest integer up to which JavaScript's numbers are exact.
const EXACT_MAX: u64 = (1 << 53) - 1;

/// The tables of strings and shapes. See the module.
#[derive(Default)]
pub struct Packer {
    strings: Table<String>,
    /// The kind (empty, if it is no event) and the names of the fields.
    shapes: Table<Vec<String>>,
}

impl Packer {
    /// The index of a string.
    pub fn string(&mut self, text: &str) -> usize {
        self.strings.index(text.to_owned())
    }

    /// Packs an event's JSON.
    pub fn event(&mut self, value: &Value) -> Value {
        match value {
            Value::Object(fields) => self.object(fields["e"].as_str().unwrap_or_default(), fields),
            other => self.value(other),
        }
    }

    fn object(&mut self, kind: &str, fields: &Map<String, Value>) -> Value {
        let named = || {
            let is_kind = |name: &str| !kind.is_empty() && name == "e";
            fields.iter().filter(move |(name, _)| !is_kind(name))
        };
        let names = named().map(|(name, _)| name.clone());
        let shape = std::iter::once(kind.to_owned()).chain(names).collect();
        let mut packed = vec![json!(self.shapes.index(shape))];
        packed.extend(named().map(|(_, value)| self.value(value)));
        Value::Array(packed)
    }

    fn value(&mut self, value: &Value) -> Value {
        match value {
            Value::Null | Value::Bool(_) => value.clone(),
            Value::Number(n) if n.as_i64().is_none_or(|n| n.unsigned_abs() > EXACT_MAX) => {
                self.value(&Value::String(n.to_string()))
            }
            Value::Number(_) => value.clone(),
            Value::String(text) => json!([-2 - self.string(text) as i64]),
            Value::Array(all) => {
                let values = all.iter().map(|v| self.value(v));
                Value::Array(std::iter::once(json!(-1)).chain(values).collect())
            }
            Value::Object(fields) => self.object("", fields),
        }
    }

    /// The tables.
    pub fn into_tables(self) -> (Vec<String>, Vec<Vec<String>>) {
        (self.strings.all, self.shapes.all)
    }
}

/// Values with their indexes.
struct Table<T> {
    all: Vec<T>,
    indexes: BTreeMap<T, usize>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self {
            all: Vec::new(),
            indexes: BTreeMap::new(),
        }
    }
}

impl<T: Ord + Clone> Table<T> {
    fn index(&mut self, value: T) -> usize {
        if let Some(index) = self.indexes.get(&value) {
            return *index;
        }
        self.all.push(value.clone());
        self.indexes.insert(value, self.all.len() - 1);
        self.all.len() - 1
    }
}

/// The inverse of packing, as the page's script does it.
#[cfg(test)]
pub fn unpacked(packed: &Value, strings: &[String], shapes: &[Vec<String>]) -> Value {
    let Value::Array(parts) = packed else {
        return packed.clone();
    };
    let values = || parts[1..].iter().map(|v| unpacked(v, strings, shapes));
    match parts[0].as_i64().expect("an index comes first") {
        -1 => values().collect(),
        string if string < -1 => json!(strings[(-2 - string) as usize]),
        shape => {
            let shape = &shapes[shape as usize];
            let mut fields: Map<String, Value> = shape[1..].iter().cloned().zip(values()).collect();
            if !shape[0].is_empty() {
                fields.insert("e".to_owned(), json!(shape[0]));
            }
            Value::Object(fields)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_unpacks_to_the_same() {
        let values = [
            json!({"e": "write", "file": "data/t0-0/0.log", "batches": [{"base": 1, "values": [7, 8]}]}),
            json!({"e": "write", "file": "data/t0-0/0.log", "batches": []}),
            json!({"e": "op", "value": {"e": "a field of this name", "x": null, "y": [true, -3, "</script>"]}}),
            json!({"e": "op", "value": [["send", "t0-0", 5]]}),
        ];
        let mut packer = Packer::default();
        let packed: Vec<Value> = values.iter().map(|v| packer.event(v)).collect();
        let (strings, shapes) = packer.into_tables();
        for (packed, value) in packed.iter().zip(&values) {
            assert_eq!(unpacked(packed, &strings, &shapes), *value);
        }
        assert_eq!(packed[0][0], packed[1][0], "equal shapes are one");
        assert_eq!(strings.iter().filter(|s| s.ends_with("0.log")).count(), 1);
    }

    #[test]
    fn a_number_beyond_2_to_the_53_keeps_its_digits() {
        let mut packer = Packer::default();
        let packed = packer.event(&json!({"e": "x", "n": i64::MAX, "m": EXACT_MAX}));
        let (strings, shapes) = packer.into_tables();
        let value = unpacked(&packed, &strings, &shapes);
        assert_eq!(
            value,
            json!({"e": "x", "n": i64::MAX.to_string(), "m": EXACT_MAX})
        );
    }
}
