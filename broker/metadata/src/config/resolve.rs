//! The value that holds, and where it came from.

use std::collections::BTreeMap;

use brokkr_wire::Str;
use imbl::OrdMap;

use super::{Key, Scale, TOPIC_KEYS, Value, broker_key};

/// What is configured for one resource.
pub type Configs = OrdMap<Str, Str>;

/// Where a value comes from, by DescribeConfigs' numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(i8)]
pub enum Source {
    /// The topic's own.
    DynamicTopic = 1,
    /// Set for this broker while it ran.
    DynamicBroker = 2,
    /// Set for all brokers while they ran.
    DynamicDefaultBroker = 3,
    /// The broker's file or command line.
    StaticBroker = 4,
    /// Nobody's.
    Default = 5,
    /// A logger's level.
    BrokerLogger = 6,
    /// The client metrics subscription's own.
    ClientMetrics = 7,
    /// The group's own.
    Group = 8,
}

impl Source {
    /// DescribeConfigs' number.
    pub fn id(self) -> i8 {
        self as i8
    }
}

/// One of the values that stand behind the one that holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Synonym {
    /// Under which key.
    pub name: &'static str,
    /// The value as it was set.
    pub value: Option<String>,
    /// Where.
    pub source: Source,
}

/// What a key's value is.
#[derive(Clone, PartialEq, Debug)]
pub struct Resolved {
    /// The key.
    pub key: &'static Key,
    /// The value; `None` is null.
    pub value: Option<Value>,
    /// Where it came from.
    pub source: Source,
}

/// What a broker has configured, from the strongest to the weakest.
#[derive(Clone, Copy, Default)]
pub struct Layers<'a> {
    /// For this broker, in the metadata log.
    pub broker: Option<&'a Configs>,
    /// For all brokers, in the metadata log.
    pub cluster: Option<&'a Configs>,
    /// In the file and on the command line.
    pub file: Option<&'a BTreeMap<String, String>>,
}

impl Layers<'_> {
    fn set(&self, source: Source, name: &str) -> Option<&str> {
        match source {
            Source::DynamicBroker => Some(self.broker?.get(name)?.as_str()),
            Source::DynamicDefaultBroker => Some(self.cluster?.get(name)?.as_str()),
            Source::StaticBroker => Some(self.file?.get(name)?.as_str()),
            _ => None,
        }
    }

    /// A broker key's value.
    pub fn broker_value(&self, key: &'static Key) -> Resolved {
        for source in BELOW_TOPIC {
            // What doesn't parse (written by an older or newer broker) doesn't hold.
            if let Some(value) = self.set(source, key.name).and_then(|text| key.parse(text).ok()) {
                return Resolved {
                    key,
                    value: Some(value),
                    source,
                };
            }
        }
        Resolved {
            key,
            value: key.default_value(),
            source: Source::Default,
        }
    }

    /// A topic key's value where the topic has `own`.
    pub fn topic_value(&self, key: &'static Key, own: Option<&Configs>) -> Resolved {
        self.value_over(Source::DynamicTopic, key, own)
    }

    /// A key's value where a resource has `own`, set as `source` says: a topic, a group, a client metrics subscription.
    pub fn value_over(&self, source: Source, key: &'static Key, own: Option<&Configs>) -> Resolved {
        if let Some(value) = own
            .and_then(|own| own.get(key.name))
            .and_then(|text| key.parse(text).ok())
        {
            return Resolved {
                key,
                value: Some(value),
                source,
            };
        }
        for source in BELOW_TOPIC {
            for (name, scale) in key.synonyms {
                if let Some(value) = self.synonym_value(source, name, *scale) {
                    return Resolved {
                        key,
                        value: Some(value),
                        source,
                    };
                }
            }
        }
        Resolved {
            key,
            value: key.default_value(),
            source: Source::Default,
        }
    }

    fn synonym_value(&self, source: Source, name: &str, scale: Scale) -> Option<Value> {
        let value = broker_key(name)?.parse(self.set(source, name)?).ok()?;
        // `log.retention.hours=-1` is no limit, as is `log.retention.ms=-1`.
        Some(match value {
            Value::Integer(n) if n < 0 && scale != Scale::ONE => Value::Integer(-1),
            other => scale.apply(other),
        })
    }

    pub(super) fn topic_integer(&self, key: &'static Key) -> i64 {
        self.topic_value(key, None)
            .value
            .and_then(|value| value.as_integer())
            .unwrap_or_default()
    }

    /// All topic keys' values where the topic has `own`.
    pub fn topic_values(&self, own: Option<&Configs>) -> Vec<Resolved> {
        TOPIC_KEYS.iter().map(|key| self.topic_value(key, own)).collect()
    }

    /// The values behind a broker key's, the strongest first, under all names it goes by.
    pub fn broker_synonyms(&self, name: &str) -> Vec<Synonym> {
        let names = broker_names(name);
        let mut all = Vec::new();
        for source in BELOW_TOPIC {
            for name in names.iter().filter_map(|name| broker_key(name)) {
                if let Some(text) = self.set(source, name.name) {
                    all.push(synonym(name, Some(text.to_owned()), source));
                }
            }
        }
        for key in names.iter().filter_map(|name| broker_key(name)) {
            if let Some(text) = key.default {
                all.push(synonym(key, Some(text.to_owned()), Source::Default));
            }
        }
        // What stands under another name before this one isn't told (so Kafka).
        let first = all.iter().position(|s| s.name == name).unwrap_or(all.len());
        all.split_off(first)
    }

    /// The values behind a key's where a resource has `own`, set as `source` says; the strongest first.
    pub fn synonyms_over(&self, source: Source, key: &'static Key, own: Option<&Configs>) -> Vec<Synonym> {
        let mut all = Vec::new();
        if let Some(text) = own.and_then(|own| own.get(key.name)) {
            let text = key
                .parse(text)
                .map_or(text.to_string(), |value| value.to_string());
            all.push(synonym(key, Some(text), source));
        }
        match key.synonyms.first() {
            Some((name, _)) => all.extend(self.broker_synonyms(name)),
            // Of these alone Kafka tells the default under the key's own name.
            None if source == Source::Group => {
                all.push(synonym(key, key.default.map(str::to_owned), Source::Default));
            }
            None => {}
        }
        all
    }
}

const BELOW_TOPIC: [Source; 3] = [
    Source::DynamicBroker,
    Source::DynamicDefaultBroker,
    Source::StaticBroker,
];

fn synonym(key: &'static Key, value: Option<String>, source: Source) -> Synonym {
    Synonym {
        name: key.name,
        value: value.filter(|_| !key.is_sensitive()),
        source,
    }
}

/// The names a broker key goes by, the one that takes precedence first.
fn broker_names(name: &str) -> Vec<&str> {
    const GROUPS: [&[&str]; 3] = [
        &["log.roll.ms", "log.roll.hours"],
        &["log.roll.jitter.ms", "log.roll.jitter.hours"],
        &["log.retention.ms", "log.retention.minutes", "log.retention.hours"],
    ];
    if name == "log.flush.interval.ms" {
        return vec![name, "log.flush.scheduler.interval.ms"];
    }
    match GROUPS.iter().find(|group| group.contains(&name)) {
        Some(group) => group.to_vec(),
        None => vec![name],
    }
}

#[cfg(test)]
mod tests {
    use super::super::topic_key;
    use super::*;

    fn configs(of: &[(&'static str, &'static str)]) -> Configs {
        of.iter().map(|(k, v)| (Str::from(*k), Str::from(*v))).collect()
    }

    #[test]
    fn the_strongest_layer_wins_and_units_are_converted() {
        let file = BTreeMap::from([
            ("log.retention.hours".to_owned(), "2".to_owned()),
            ("log.retention.minutes".to_owned(), "3".to_owned()),
            ("log.roll.hours".to_owned(), "1".to_owned()),
        ]);
        let cluster = configs(&[("log.retention.ms", "5000")]);
        let own = configs(&[("retention.ms", "7")]);
        let retention = topic_key("retention.ms").expect("known");
        let mut layers = Layers {
            file: Some(&file),
            ..Layers::default()
        };
        let of = |layers: &Layers<'_>, own| {
            let resolved = layers.topic_value(retention, own);
            (resolved.value.and_then(|v| v.as_integer()), resolved.source)
        };
        assert_eq!(of(&layers, None), (Some(180_000), Source::StaticBroker));
        layers.cluster = Some(&cluster);
        assert_eq!(of(&layers, None), (Some(5000), Source::DynamicDefaultBroker));
        assert_eq!(of(&layers, Some(&own)), (Some(7), Source::DynamicTopic));
        assert_eq!(of(&Layers::default(), None), (Some(604_800_000), Source::Default));
        let names: Vec<_> = layers
            .synonyms_over(Source::DynamicTopic, retention, Some(&own))
            .into_iter()
            .map(|s| (s.name, s.source as i8))
            .collect();
        assert_eq!(
            names,
            [
                ("retention.ms", 1),
                ("log.retention.ms", 3),
                ("log.retention.minutes", 4),
                ("log.retention.hours", 4),
                ("log.retention.hours", 5)
            ]
        );
        // Nobody set `log.roll.ms`, under which `segment.ms` is looked up.
        let segment = topic_key("segment.ms").expect("known");
        assert_eq!(layers.synonyms_over(Source::DynamicTopic, segment, None), []);
        assert_eq!(
            layers.topic_value(segment, None).value,
            Some(Value::Integer(3_600_000))
        );
    }
}
