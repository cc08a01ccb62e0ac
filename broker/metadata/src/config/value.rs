//! A parsed value, and the error of an invalid one.

use std::fmt;

/// A parsed value of a key.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// Value of a boolean key.
    Boolean(bool),
    /// Value of an int, short or long key.
    Integer(i64),
    /// Value of a double key.
    Double(f64),
    /// Value of a list key.
    List(Vec<String>),
    /// Value of any other key.
    Text(String),
}

impl Value {
    /// The number; for keys of an integer type.
    pub fn as_integer(&self) -> Option<i64> {
        match self {
            Self::Integer(n) => Some(*n),
            _ => None,
        }
    }

    /// The truth value; for boolean keys.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Boolean(b) => Some(*b),
            _ => None,
        }
    }

    /// The text; for text keys.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The elements; for list keys.
    pub fn as_list(&self) -> Option<&[String]> {
        match self {
            Self::List(list) => Some(list),
            _ => None,
        }
    }
}

impl fmt::Display for Value {
    /// Formats it as Java does, for DescribeConfigs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean(b) => write!(f, "{b}"),
            Self::Integer(n) => write!(f, "{n}"),
            Self::Double(n) => f.write_str(&java_double(*n)),
            Self::List(list) => f.write_str(&list.join(",")),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// Formats a double as Java does: with an `E` from 10⁷ or below 10⁻³, always with a digit after the point.
fn java_double(n: f64) -> String {
    if n.is_nan() {
        return "NaN".to_owned();
    }
    if n.is_infinite() {
        return if n > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    if n == 0.0 || (1e-3..1e7).contains(&n.abs()) {
        return format!("{n:?}");
    }
    let scientific = format!("{n:e}");
    match scientific.split_once('e') {
        Some((mantissa, exponent)) if mantissa.contains('.') => format!("{mantissa}E{exponent}"),
        Some((mantissa, exponent)) => format!("{mantissa}.0E{exponent}"),
        None => scientific,
    }
}

/// An invalid value, with Kafka's message. The error code is INVALID_CONFIG.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError(pub String);

impl ConfigError {
    pub(super) fn invalid(name: &str, value: impl fmt::Display, why: &str) -> Self {
        Self(format!("Invalid value {value} for configuration {name}: {why}"))
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_are_printed_as_java_does() {
        for (n, text) in [
            (0.5, "0.5"),
            (1.0, "1.0"),
            (1e7, "1.0E7"),
            (f64::MAX, "1.7976931348623157E308"),
            (0.0001, "1.0E-4"),
        ] {
            assert_eq!(java_double(n), text);
        }
    }
}
