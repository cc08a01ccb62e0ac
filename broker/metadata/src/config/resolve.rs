//! The effective value of a key and its source.

use std::collections::BTreeMap;

use brokkr_wire::Str;
use imbl::OrdMap;

use super::{Key, Scale, TOPIC_KEYS, Value, broker_key};

/// The configured values of one resource.
pub type Configs = OrdMap<Str, Str>;

/// The source of a value, numbered as in DescribeConfigs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(i8)]
pub enum Source {
    /// The topic's configuration.
    DynamicTopic = 1,
    /// The dynamic configuration of this broker.
    DynamicBroker = 2,
    /// The dynamic cluster-wide configuration.
    DynamicDefaultBroker = 3,
    /// The broker's file or command line.
    StaticBroker = 4,
    /// The default.
    Default = 5,
    /// A logger's level.
    BrokerLogger = 6,
    /// The client metrics subscription's configuration.
    ClientMetrics = 7,
    /// The group's configuration.
    Group = 8,
}

impl Source {
    /// DescribeConfigs' number.
    pub fn id(self) -> i8 {
        self as i8
    }
}

/// A synonym of an effective value: one of the values it was chosen from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Synonym {
    /// The key under which it was set.
    pub name: &'static str,
    /// The value as it was set.
    pub value: Option<String>,
    /// Its source.
    pub source: Source,
}

/// The effective value of a key.
#[derive(Clone, PartialEq, Debug)]
pub struct Resolved {
    /// The key.
    pub key: &'static Key,
    /// The value; `None` is null.
    pub value: Option<Value>,
    /// Its source.
    pub source: Source,
}

/// A broker's configuration layers, in order of precedence.
#[derive(Clone, Copy, Default)]
pub struct Layers<'a> {
    /// For this broker, from the metadata log.
    pub broker: Option<&'a Configs>,
    /// Cluster-wide, from the metadata log.
    pub cluster: Option<&'a Configs>,
    /// From the file and the command line.
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

    /// The effective value of a broker key.
    pub fn broker_value(&self, key: &'static Key) -> Resolved {
        for source in BELOW_TOPIC {
            // A value that doesn't parse (written by an older or newer broker) is ignored.
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

    /// The effective value of a topic key, given the topic's configuration `own`.
    pub fn topic_value(&self, key: &'static Key, own: Option<&Configs>) -> Resolved {
        self.value_over(Source::DynamicTopic, key, own)
    }

    /// The effective value of a key of a topic, group or client metrics subscription, given its configuration `own` with
    /// this `source`.
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

    /// The effective values of all topic keys, given the topic's configuration `own`.
    pub fn topic_values(&self, own: Option<&Configs>) -> Vec<Resolved> {
        TOPIC_KEYS.iter().map(|key| self.topic_value(key, own)).collect()
    }

    /// The synonyms of a broker key's value, in order of precedence, under all names of the key.
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
        // Like Kafka, leaves out values set under another name of higher precedence.
        let first = all.iter().position(|s| s.name == name).unwrap_or(all.len());
        all.split_off(first)
    }

    /// The synonyms of a resource key's value, given its configuration `own` with this `source`; in order of precedence.
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
            // Only for these Kafka lists the default under the key's own name.
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

/// All names of a broker key, in order of precedence.
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
        // `log.roll.ms`, the broker key of `segment.ms`, is not set.
        let segment = topic_key("segment.ms").expect("known");
        assert_eq!(layers.synonyms_over(Source::DynamicTopic, segment, None), []);
        assert_eq!(
            layers.topic_value(segment, None).value,
            Some(Value::Integer(3_600_000))
        );
    }
}
