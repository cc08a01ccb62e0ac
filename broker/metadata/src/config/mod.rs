//! Configuration: Kafka's keys, their types, defaults and validators, and the effective values of a resource.
//!
//! [`BROKER_KEYS`], [`TOPIC_KEYS`], [`GROUP_KEYS`] and [`CLIENT_METRICS_KEYS`] are the tables. [`Key::parse`] validates a
//! value as Kafka does, with Kafka's messages (tools print them). [`resolve`] finds the effective value (topic, broker,
//! cluster, file, default) and its source.

mod broker_keys;
mod documentation;
mod group_keys;
pub mod resolve;
mod topic_keys;
mod validate;

use std::fmt;

pub use broker_keys::BROKER_KEYS;
pub use group_keys::{CLIENT_METRICS_KEYS, GROUP_KEYS};
pub use topic_keys::TOPIC_KEYS;
pub use validate::{
    ClientMetricsError, is_applied, validate_applied, validate_broker_values, validate_client_metrics,
    validate_group_values, validate_topic_values,
};

/// The type of a value, as in DescribeConfigs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Type {
    /// `true` or `false`.
    Boolean,
    /// Text.
    String,
    /// 32 bits.
    Int,
    /// 16 bits.
    Short,
    /// 64 bits.
    Long,
    /// A floating-point number.
    Double,
    /// A list of texts, separated by commas.
    List,
    /// The name of a Java class.
    Class,
    /// A secret, never shown.
    Password,
}

impl Type {
    /// The number DescribeConfigs has for it.
    pub fn id(self) -> i8 {
        match self {
            Self::Boolean => 1,
            Self::String => 2,
            Self::Int => 3,
            Self::Short => 4,
            Self::Long => 5,
            Self::Double => 6,
            Self::List => 7,
            Self::Class => 8,
            Self::Password => 9,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Boolean => "BOOLEAN",
            Self::String => "STRING",
            Self::Int => "INT",
            Self::Short => "SHORT",
            Self::Long => "LONG",
            Self::Double => "DOUBLE",
            Self::List => "LIST",
            Self::Class => "CLASS",
            Self::Password => "PASSWORD",
        }
    }
}

/// The importance of a key according to Kafka.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Importance {
    /// High.
    High,
    /// Medium.
    Medium,
    /// Low.
    Low,
}

/// How a broker key can be updated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Update {
    /// Read-only: only in the broker's file, with a restart.
    ReadOnly,
    /// For one broker.
    PerBroker,
    /// For one broker, or cluster-wide.
    ClusterWide,
}

/// The valid values of a key, beyond its type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Valid {
    /// All values.
    Any,
    /// Numbers from this one on.
    AtLeast(i64),
    /// Numbers in this range.
    Between(i64, i64),
    /// 1 to 9, or -1.
    GzipLevel,
    /// One of these texts.
    OneOf(&'static [&'static str]),
    /// One of these texts, case-insensitively.
    OneOfNoCase(&'static [&'static str]),
    /// Not the empty text.
    NonEmpty,
    /// Not null.
    NonNull,
    /// A list without empty elements.
    List {
        /// Whether it may be empty.
        empty: bool,
        /// Whether it may be null.
        null: bool,
        /// The allowed elements; any if empty.
        of: &'static [&'static str],
    },
    /// `partition:broker` pairs, or `*`.
    ThrottledReplicas,
    /// `earliest`, `latest`, or `by_duration:` and a duration.
    OffsetReset,
}

/// The factor that converts a broker key's unit to the topic key's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scale(pub i64);

impl Scale {
    /// The same unit.
    pub const ONE: Self = Self(1);
    /// Minutes to milliseconds.
    pub const MINUTES: Self = Self(60 * 1000);
    /// Hours to milliseconds.
    pub const HOURS: Self = Self(60 * 60 * 1000);
}

const YES: bool = true;
const NO: bool = false;

/// A configuration key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// The type of its values.
    pub ty: Type,
    /// The default; `None` is null.
    pub default: Option<&'static str>,
    /// Its importance.
    pub importance: Importance,
    /// Which values are valid.
    pub valid: Valid,
    /// How a broker key can be updated. Topic keys can always be.
    pub update: Update,
    /// Whether Brokkr implements it. Other keys are accepted with a warning.
    pub implemented: bool,
    /// For a topic key: the broker keys that define its default, in order of precedence.
    pub synonyms: &'static [(&'static str, Scale)],
}

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

/// An invalid value, with Kafka's message. The error code is INVALID_CONFIG.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError(pub String);

impl ConfigError {
    fn invalid(name: &str, value: impl fmt::Display, why: &str) -> Self {
        Self(format!("Invalid value {value} for configuration {name}: {why}"))
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

/// The broker key of this name.
pub fn broker_key(name: &str) -> Option<&'static Key> {
    find(BROKER_KEYS, name)
}

/// The topic key of this name.
pub fn topic_key(name: &str) -> Option<&'static Key> {
    find(TOPIC_KEYS, name)
}

/// The group key of this name.
pub fn group_key(name: &str) -> Option<&'static Key> {
    find(GROUP_KEYS, name)
}

/// The key of client metrics subscriptions of this name.
pub fn client_metrics_key(name: &str) -> Option<&'static Key> {
    find(CLIENT_METRICS_KEYS, name)
}

fn find(keys: &'static [Key], name: &str) -> Option<&'static Key> {
    let i = keys.binary_search_by(|key| key.name.cmp(name)).ok()?;
    keys.get(i)
}

impl Key {
    /// Whether its values are secrets.
    pub fn is_sensitive(&self) -> bool {
        self.ty == Type::Password
    }

    /// Its documentation, with a note if Brokkr doesn't implement it.
    pub fn documentation(&self) -> String {
        let sentence = documentation::documentation(self.name);
        match self.implemented {
            true => sentence.to_owned(),
            false => format!("{sentence} This broker accepts it, and does not go by it yet."),
        }
    }

    /// Parses and validates a value.
    pub fn parse(&self, text: &str) -> Result<Value, ConfigError> {
        let mut value = self.typed(text)?;
        if let (Value::List(list), Valid::List { .. }) = (&mut value, self.valid) {
            // Duplicate elements are dropped. Kafka does the same, with a warning.
            let mut seen = Vec::with_capacity(list.len());
            list.retain(|element| {
                let new = !seen.contains(element);
                seen.push(element.clone());
                new
            });
        }
        self.check(&value)?;
        Ok(value)
    }

    /// The default as a value; `None` is null.
    ///
    /// # Panics
    /// If the table has an invalid default. A test parses all of them.
    pub fn default_value(&self) -> Option<Value> {
        self.default
            .map(|text| self.typed(text).expect("the default has the key's type"))
    }

    fn typed(&self, text: &str) -> Result<Value, ConfigError> {
        let trimmed = text.trim();
        let integer = |min: i64, max: i64| match trimmed.strip_prefix('+').unwrap_or(trimmed).parse() {
            Ok(n) if (min..=max).contains(&n) => Ok(Value::Integer(n)),
            _ => Err(self.not_a_number(text)),
        };
        match self.ty {
            Type::Boolean if trimmed.eq_ignore_ascii_case("true") => Ok(Value::Boolean(true)),
            Type::Boolean if trimmed.eq_ignore_ascii_case("false") => Ok(Value::Boolean(false)),
            Type::Boolean => Err(ConfigError::invalid(
                self.name,
                text,
                "Expected value to be either true or false",
            )),
            Type::Int => integer(i32::MIN.into(), i32::MAX.into()),
            Type::Short => integer(i16::MIN.into(), i16::MAX.into()),
            Type::Long => integer(i64::MIN, i64::MAX),
            Type::Double => trimmed
                .parse()
                .map(Value::Double)
                .map_err(|_| self.not_a_number(text)),
            Type::List if trimmed.is_empty() => Ok(Value::List(Vec::new())),
            Type::List => Ok(Value::List(
                trimmed
                    .split(',')
                    .map(|element| element.trim().to_owned())
                    .collect(),
            )),
            Type::String | Type::Class | Type::Password => Ok(Value::Text(trimmed.to_owned())),
        }
    }

    fn not_a_number(&self, text: &str) -> ConfigError {
        ConfigError::invalid(
            self.name,
            text,
            &format!("Not a number of type {}", self.ty.name()),
        )
    }

    fn check(&self, value: &Value) -> Result<(), ConfigError> {
        match (self.valid, value) {
            (Valid::AtLeast(min), _) => self.check_range(value, min, None),
            (Valid::Between(min, max), _) => self.check_range(value, min, Some(max)),
            (Valid::GzipLevel, Value::Integer(level)) if !((1..=9).contains(level) || *level == -1) => Err(
                ConfigError::invalid(self.name, level, "Value must be between 1 and 9 or equal to -1"),
            ),
            (Valid::OneOf(of), Value::Text(text)) => self.check_one_of(text, of),
            (Valid::OneOfNoCase(of), Value::Text(text))
                if !of.iter().any(|one| one.eq_ignore_ascii_case(text)) =>
            {
                let why = format!("String must be one of (case insensitive): {}", of.join(", "));
                Err(ConfigError::invalid(self.name, text, &why))
            }
            (Valid::NonEmpty, Value::Text(text)) if text.is_empty() => {
                Err(ConfigError::invalid(self.name, text, "String must be non-empty"))
            }
            (Valid::List { empty, of, .. }, Value::List(list)) => self.check_list(list, empty, of),
            (Valid::ThrottledReplicas, Value::List(list)) => self.check_throttled(list),
            (Valid::OffsetReset, Value::Text(text)) => self.check_reset(text),
            _ => Ok(()),
        }
    }

    fn check_range(&self, value: &Value, min: i64, max: Option<i64>) -> Result<(), ConfigError> {
        let (below, above) = match value {
            Value::Integer(n) => (*n < min, max.is_some_and(|max| *n > max)),
            Value::Double(n) => (*n < min as f64, max.is_some_and(|max| *n > max as f64)),
            _ => (false, false),
        };
        let why = match max {
            _ if below => format!("Value must be at least {min}"),
            Some(max) if above => format!("Value must be no more than {max}"),
            _ => return Ok(()),
        };
        Err(ConfigError::invalid(self.name, value, &why))
    }

    fn check_one_of(&self, text: &str, of: &[&str]) -> Result<(), ConfigError> {
        if of.contains(&text) {
            return Ok(());
        }
        let why = format!("String must be one of: {}", of.join(", "));
        Err(ConfigError::invalid(self.name, text, &why))
    }

    fn check_list(&self, list: &[String], empty: bool, of: &[&str]) -> Result<(), ConfigError> {
        let name = self.name;
        if list.is_empty() && !empty {
            let values = if of.is_empty() {
                "any non-empty value".to_owned()
            } else {
                format!("[{}]", of.join(", "))
            };
            return Err(ConfigError(format!(
                "Configuration '{name}' must not be empty. Valid values include: {values}"
            )));
        }
        for element in list {
            if element.is_empty() {
                return Err(ConfigError(format!(
                    "Configuration '{name}' values must not be empty."
                )));
            }
            if !of.is_empty() {
                self.check_one_of(element, of)?;
            }
        }
        Ok(())
    }

    fn check_reset(&self, text: &str) -> Result<(), ConfigError> {
        let lasts = |text: &str| {
            text.strip_prefix("by_duration:")
                .is_some_and(group_keys::is_duration)
        };
        if matches!(text, "earliest" | "latest") || lasts(text) {
            return Ok(());
        }
        let name = self.name;
        let why = format!(
            "Invalid value `{text}` for configuration {name}. The value must be either 'earliest', 'latest' or of \
             the format 'by_duration:<PnDTnHnMn.nS>'."
        );
        Err(ConfigError::invalid(name, text, &why))
    }

    fn check_throttled(&self, list: &[String]) -> Result<(), ConfigError> {
        let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        let pair =
            |s: &String| s.is_empty() || s.split_once(':').is_some_and(|(p, b)| digits(p) && digits(b));
        if list.iter().all(pair) || list.concat() == "*" {
            return Ok(());
        }
        let why = format!(
            "{} must be the literal '*' or a list of replicas in the following format: \
             [partitionId]:[brokerId],[partitionId]:[brokerId],...",
            self.name
        );
        Err(ConfigError::invalid(
            self.name,
            format_args!("[{}]", list.join(", ")),
            &why,
        ))
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_sorted_and_their_defaults_valid() {
        for keys in [BROKER_KEYS, TOPIC_KEYS, GROUP_KEYS, CLIENT_METRICS_KEYS] {
            assert!(keys.windows(2).all(|w| w[0].name < w[1].name));
            for key in keys {
                if let Some(text) = key.default {
                    let value = key.parse(text).expect(key.name);
                    assert_eq!(value.to_string(), text, "{}", key.name);
                }
                for (synonym, _) in key.synonyms {
                    let broker = broker_key(synonym).expect(synonym);
                    let dynamic = broker.update == Update::ClusterWide || key.synonyms[0].0 != *synonym;
                    assert!(dynamic || group_key(key.name).is_some(), "{}", key.name);
                }
            }
        }
        for key in GROUP_KEYS {
            let of_broker = key.synonyms.first().and_then(|(name, _)| broker_key(name));
            assert!(of_broker.is_none_or(|broker| (broker.default, broker.ty) == (key.default, key.ty)));
        }
    }

    #[test]
    fn every_key_has_a_sentence_and_every_sentence_a_key() {
        let table = documentation::DOCUMENTATION;
        assert!(
            table.windows(2).all(|w| w[0].0 < w[1].0),
            "sorted, each name once"
        );
        let tables = [BROKER_KEYS, TOPIC_KEYS, GROUP_KEYS, CLIENT_METRICS_KEYS];
        let keys: Vec<&Key> = tables.into_iter().flatten().collect();
        for key in &keys {
            let told = key.documentation();
            assert!(
                told.ends_with('.') && told.len() > key.name.len() / 2,
                "{}: {told}",
                key.name
            );
            assert_eq!(
                told.ends_with("does not go by it yet."),
                !key.implemented,
                "{}",
                key.name
            );
        }
        for (name, _) in table {
            assert!(keys.iter().any(|key| key.name == *name), "{name} is no key");
        }
        assert!(!documentation::documentation("node.id").is_empty());
    }

    fn refusal(key: &str, value: &str) -> String {
        let key = topic_key(key).or_else(|| broker_key(key)).expect(key);
        match key.parse(value) {
            Ok(value) => format!("ok {value}"),
            Err(e) => e.to_string(),
        }
    }

    #[test]
    fn values_are_refused_in_kafkas_words() {
        let table = [
            (
                "retention.ms",
                "-2",
                "Invalid value -2 for configuration retention.ms: Value must be at least -1",
            ),
            ("retention.ms", " 7 ", "ok 7"),
            (
                "retention.ms",
                "x",
                "Invalid value x for configuration retention.ms: Not a number of type LONG",
            ),
            (
                "segment.bytes",
                "3000000000",
                "Invalid value 3000000000 for configuration segment.bytes: Not a number of type INT",
            ),
            ("cleanup.policy", "delete, compact,delete", "ok delete,compact"),
            ("cleanup.policy", "", "ok "),
            (
                "cleanup.policy",
                "delete,",
                "Configuration 'cleanup.policy' values must not be empty.",
            ),
            (
                "cleanup.policy",
                "shred",
                "Invalid value shred for configuration cleanup.policy: String must be one of: compact, delete",
            ),
            (
                "compression.type",
                "Zstd",
                "Invalid value Zstd for configuration compression.type: String must be one of: uncompressed, zstd, lz4, snappy, gzip, producer",
            ),
            (
                "compression.gzip.level",
                "0",
                "Invalid value 0 for configuration compression.gzip.level: Value must be between 1 and 9 or equal to -1",
            ),
            ("preallocate", "TRUE", "ok true"),
            (
                "preallocate",
                "yes",
                "Invalid value yes for configuration preallocate: Expected value to be either true or false",
            ),
            (
                "min.cleanable.dirty.ratio",
                "1.5",
                "Invalid value 1.5 for configuration min.cleanable.dirty.ratio: Value must be no more than 1",
            ),
            (
                "listeners",
                "",
                "Configuration 'listeners' must not be empty. Valid values include: any non-empty value",
            ),
            ("leader.replication.throttled.replicas", "0:1,2:3", "ok 0:1,2:3"),
            (
                "leader.replication.throttled.replicas",
                "0-1",
                "Invalid value [0-1] for configuration leader.replication.throttled.replicas: leader.replication.throttled.replicas must be the literal '*' or a list of replicas in the following format: [partitionId]:[brokerId],[partitionId]:[brokerId],...",
            ),
        ];
        for (key, value, expected) in table {
            assert_eq!(refusal(key, value), expected, "{key}={value}");
        }
    }

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
