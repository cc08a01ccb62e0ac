//! A field's value in a rude request, as JSON that a person can edit.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::records::Records;

/// Plain JSON: numbers are clamped to the field's type, a uuid is text. A [`Special`] is a value that plain JSON can't express.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// Null, also where the schema doesn't allow it: then the request is malformed.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// Any integer.
    Int(i64),
    /// A string. In an element of [`Special::Numbered`] each `#` stands for the element's number.
    Text(String),
    /// An array.
    List(Vec<Value>),
    /// See [`Special`].
    Special(Box<Special>),
    /// A structure. `@tags` in it: a list of `[tag, bytes]`, unknown tagged fields of so many zeros.
    Struct(BTreeMap<String, Value>),
}

/// A value that plain JSON can't express.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Special {
    /// A text, repeated.
    #[serde(rename = "@text")]
    Text {
        /// The text.
        of: String,
        /// How many times.
        times: u64,
    },
    /// An array of copies of one element.
    #[serde(rename = "@same")]
    Same {
        /// The element.
        of: Value,
        /// How many copies.
        times: u64,
    },
    /// An array of copies of one element, in which `#` and `@number` are replaced by each copy's number.
    #[serde(rename = "@numbered")]
    Numbered {
        /// The element.
        of: Value,
        /// How many copies.
        times: u64,
    },
    /// The number of the enclosing element.
    #[serde(rename = "@number")]
    Number {},
    /// An array, string or bytes with a false length: the request is malformed.
    #[serde(rename = "@claims")]
    Claims {
        /// The length that it claims.
        count: i64,
        /// The actual value.
        of: Value,
    },
    /// The present id of a topic when the request is sent.
    #[serde(rename = "@id_of")]
    IdOf(String),
    /// This many zero bytes.
    #[serde(rename = "@zeros")]
    Zeros(u64),
    /// Record batches.
    #[serde(rename = "@records")]
    Records(Records),
}

impl Default for Value {
    fn default() -> Self {
        Self::Struct(BTreeMap::new())
    }
}

impl From<Special> for Value {
    fn from(special: Special) -> Self {
        Self::Special(Box::new(special))
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl Value {
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Struct(fields) if fields.is_empty())
    }

    /// Values that are simpler than this one, the simplest first.
    pub(crate) fn simpler(&self) -> Vec<Self> {
        match self {
            Self::Struct(fields) => fields
                .iter()
                .flat_map(|(name, of)| {
                    let without = {
                        let mut fields = fields.clone();
                        fields.remove(name);
                        Self::Struct(fields)
                    };
                    let with = |of: Self| {
                        let mut fields = fields.clone();
                        fields.insert(name.clone(), of);
                        Self::Struct(fields)
                    };
                    std::iter::once(without)
                        .chain(of.simpler().into_iter().map(with))
                        .collect::<Vec<_>>()
                })
                .collect(),
            Self::List(all) => {
                let mut out = vec![];
                for i in 0..all.len() {
                    let mut fewer = all.clone();
                    fewer.remove(i);
                    out.push(Self::List(fewer));
                }
                for (i, of) in all.iter().enumerate() {
                    out.extend(of.simpler().into_iter().map(|of| {
                        let mut all = all.clone();
                        all[i] = of;
                        Self::List(all)
                    }));
                }
                out
            }
            Self::Special(special) => special.simpler(),
            _ => Vec::new(),
        }
    }
}

impl Special {
    fn simpler(&self) -> Vec<Value> {
        let fewer = |times: u64| {
            [1, times / 8, times / 2, times * 7 / 8]
                .into_iter()
                .filter(move |n| *n < times)
        };
        match self {
            Self::Same { of, times } => {
                let mut out: Vec<Value> = fewer(*times)
                    .map(|times| {
                        Self::Same {
                            of: of.clone(),
                            times,
                        }
                        .into()
                    })
                    .collect();
                out.extend(
                    of.simpler()
                        .into_iter()
                        .map(|of| Self::Same { of, times: *times }.into()),
                );
                out
            }
            Self::Numbered { of, times } => {
                let mut out: Vec<Value> = fewer(*times)
                    .map(|times| {
                        Self::Numbered {
                            of: of.clone(),
                            times,
                        }
                        .into()
                    })
                    .collect();
                out.extend(
                    of.simpler()
                        .into_iter()
                        .map(|of| Self::Numbered { of, times: *times }.into()),
                );
                out
            }
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_survives_a_round_trip() {
        let id = Value::from(Special::IdOf("x0".into()));
        let same = Value::from(Special::Same {
            of: id,
            times: 30_000,
        });
        let records = Value::from(Special::Records(Records::default()));
        let claims = Value::from(Special::Claims {
            count: -5,
            of: "a".into(),
        });
        let number = Value::from(Special::Number {});
        let text = Value::from(Special::Text {
            of: "x".into(),
            times: 32_686,
        });
        let list = Value::List(vec![
            Value::Null,
            Value::Bool(true),
            Value::Int(i64::MIN),
            text,
            same,
            records,
            number,
        ]);
        let value = Value::Struct([("a".to_owned(), list), ("b".to_owned(), claims)].into());
        let json = serde_json::to_string(&value).expect("it can be written");
        assert_eq!(
            serde_json::from_str::<Value>(&json).expect("it can be read"),
            value,
            "{json}"
        );
    }
}
