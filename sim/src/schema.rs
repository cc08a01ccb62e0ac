//! Kafka's messages as data: the tables from which `brokkr-wire` is generated, parsed by the same parser.
//!
//! The simulator encodes hostile requests and checks responses by these tables, without the broker's codec: so it finds errors of
//! that codec that are symmetric in encoding and decoding.

#[path = "../../broker/wire/build/parse.rs"]
#[allow(
    dead_code,
    reason = "the parser is the build script's; the simulator needs only a part of it"
)]
mod parse;

pub(crate) use parse::{Field, Message, Range, Struct, Type};
use parse::{Kind, messages};

macro_rules! table {
    ($name:literal) => {
        (
            $name,
            include_str!(concat!("../../broker/wire/schema/", $name, ".txt")),
        )
    };
}

/// The tables of requests.
const TABLES: &[(&str, &str)] = &[
    table!("connection"),
    table!("produce_fetch"),
    table!("topics"),
    table!("admin"),
    table!("groups"),
    table!("share_groups"),
    table!("streams_groups"),
    table!("transactions"),
    table!("quorum"),
];

/// An API: its request and its response.
pub(crate) struct Api {
    pub(crate) key: i16,
    pub(crate) name: String,
    /// All versions in Kafka.
    pub(crate) versions: Range,
    pub(crate) request: Message,
    pub(crate) response: Message,
}

/// All APIs, by key. They are constant data of the binary: no run can change them.
#[expect(
    clippy::disallowed_types,
    reason = "what is read is the same in every run, and nobody waits for it but whoever reads it"
)]
pub(crate) fn apis() -> &'static [Api] {
    use std::sync::OnceLock;

    static APIS: OnceLock<Vec<Api>> = OnceLock::new();
    APIS.get_or_init(read)
}

/// The API of this name.
pub(crate) fn api(name: &str) -> Option<&'static Api> {
    apis().iter().find(|api| api.name == name)
}

fn read() -> Vec<Api> {
    let mut all: Vec<Message> = TABLES
        .iter()
        .flat_map(|(name, text)| messages(name, text))
        .collect();
    let mut take = |name: String, kind: Kind| {
        let at = all.iter().position(|m| m.kind == kind && m.name == name)?;
        Some(all.swap_remove(at))
    };
    let keys = include_str!("../../broker/wire/schema/api_keys.txt");
    let apis = parse::api_keys("api_keys", keys).into_iter().filter_map(|key| {
        Some(Api {
            request: take(format!("{}Request", key.name), Kind::Request)?,
            response: take(format!("{}Response", key.name), Kind::Response)?,
            key: key.key,
            name: key.name,
            versions: key.versions,
        })
    });
    apis.collect()
}

impl Range {
    pub(crate) fn contains(self, version: i16) -> bool {
        (self.lo..=self.hi).contains(&version)
    }
}

impl Message {
    /// Whether a version has compact lengths and tagged fields (KIP-482).
    pub(crate) fn is_flexible(&self, version: i16) -> bool {
        self.flexible.is_some_and(|from| version >= from)
    }

    pub(crate) fn structure(&self, name: &str) -> &Struct {
        let found = self.structs.iter().find(|s| s.name == name);
        found.expect("the parser has checked that each structure is declared")
    }
}

impl Field {
    pub(crate) fn is_nullable(&self, version: i16) -> bool {
        self.nullable.is_some_and(|n| n.contains(version))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_api_has_its_messages() {
        assert_eq!(apis().len(), brokkr_wire::ApiKey::ALL.len());
        for api in apis() {
            let key = brokkr_wire::ApiKey::from_i16(api.key).expect("a key of Kafka's");
            assert_eq!(
                (key.name(), key.versions()),
                (&*api.name, api.versions.lo..=api.versions.hi)
            );
        }
    }
}
