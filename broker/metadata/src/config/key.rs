//! A configuration key: its type, the values that are valid for it, and how it is updated.

use super::documentation::documentation;
use super::duration::is_duration;
use super::value::{ConfigError, Value};

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

pub(super) const YES: bool = true;
pub(super) const NO: bool = false;

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

impl Key {
    /// Whether its values are secrets.
    pub fn is_sensitive(&self) -> bool {
        self.ty == Type::Password
    }

    /// Its documentation, with a note if Brokkr doesn't implement it.
    pub fn documentation(&self) -> String {
        let sentence = documentation(self.name);
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
        let lasts = |text: &str| text.strip_prefix("by_duration:").is_some_and(is_duration);
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
