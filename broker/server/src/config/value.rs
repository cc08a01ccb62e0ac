//! Reads typed values of a broker's keys.

use brokkr_metadata::config::resolve::Layers;
use brokkr_metadata::config::{Value, broker_key};

use super::error::StartupError;

pub(super) trait FromValue {
    fn from_value(value: Value) -> Self;
}

impl FromValue for bool {
    fn from_value(value: Value) -> Self {
        value.as_bool().expect("the key is a boolean")
    }
}

impl FromValue for i64 {
    fn from_value(value: Value) -> Self {
        value.as_integer().expect("the key is a number")
    }
}

impl FromValue for i32 {
    fn from_value(value: Value) -> Self {
        value
            .as_integer()
            .and_then(|n| n.try_into().ok())
            .expect("the key is a number of 32 bits")
    }
}

/// The value of a key that has a default.
pub(super) fn value(layers: &Layers<'_>, name: &'static str) -> Result<Value, StartupError> {
    let key = broker_key(name).unwrap_or_else(|| panic!("{name} is in the table"));
    if let Some(text) = layers.file.and_then(|f| f.get(name)) {
        return key.parse(text).map_err(StartupError::Value);
    }
    Ok(key
        .default_value()
        .unwrap_or_else(|| panic!("{name} has a default")))
}

pub(super) fn text(layers: &Layers<'_>, name: &'static str) -> Option<String> {
    let key = broker_key(name).unwrap_or_else(|| panic!("{name} is in the table"));
    layers
        .broker_value(key)
        .value
        .and_then(|v| v.as_text().map(str::to_owned))
        .filter(|t| !t.is_empty())
}

pub(super) fn list(layers: &Layers<'_>, name: &'static str) -> Vec<String> {
    let key = broker_key(name).unwrap_or_else(|| panic!("{name} is in the table"));
    layers
        .broker_value(key)
        .value
        .and_then(|v| v.as_list().map(<[String]>::to_vec))
        .unwrap_or_default()
}
