//! Where a broker listens, and where clients are told to find it.

use std::collections::BTreeMap;
use std::sync::Arc;

use brokkr_metadata::config::resolve::Layers;

use super::{ConfigError, field};

/// A listener: `NAME://host:port`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListenerConfig {
    /// Its name, in capitals.
    pub name: Arc<str>,
    /// A name or an address; empty for all of this machine's addresses.
    pub host: String,
    /// The port; 0 for a free one.
    pub port: u16,
}

impl ListenerConfig {
    /// A listener named as its protocol.
    pub fn plaintext(host: &str, port: u16) -> Self {
        Self {
            name: "PLAINTEXT".into(),
            host: host.to_owned(),
            port,
        }
    }

    /// The host to bind: all addresses where none is named.
    pub fn bind_host(&self) -> &str {
        if self.host.is_empty() { "0.0.0.0" } else { &self.host }
    }

    fn parse(key: &str, text: &str) -> Result<Self, ConfigError> {
        let bad =
            || ConfigError(format!("Invalid value {text} for configuration {key}: a listener is NAME://host:port"));
        let (name, rest) = text.split_once("://").ok_or_else(bad)?;
        let (host, port) = rest.rsplit_once(':').ok_or_else(bad)?;
        let host = match host.strip_prefix('[') {
            Some(v6) => v6.strip_suffix(']').ok_or_else(bad)?,
            None if host.contains(':') => return Err(bad()),
            None => host,
        };
        if name.is_empty() {
            return Err(bad());
        }
        Ok(Self {
            name: name.to_uppercase().into(),
            host: host.to_owned(),
            port: port.parse().map_err(|_| bad())?,
        })
    }
}

/// `listeners` and, in the same order, what is advertised for each.
pub(super) fn listeners(layers: &Layers<'_>) -> Result<(Vec<ListenerConfig>, Vec<ListenerConfig>), ConfigError> {
    let controllers: Vec<String> = field(layers, "controller.listener.names");
    let is_controllers = |l: &ListenerConfig| controllers.iter().any(|name| name.eq_ignore_ascii_case(&l.name));
    let parse = |key: &str, texts: Vec<String>| -> Result<Vec<ListenerConfig>, ConfigError> {
        let all: Result<Vec<_>, _> = texts.iter().map(|text| ListenerConfig::parse(key, text)).collect();
        let mut all = all?;
        all.retain(|l| !is_controllers(l));
        match all.iter().enumerate().find(|(i, l)| all[..*i].iter().any(|other| other.name == l.name)) {
            Some((_, twice)) => Err(ConfigError(format!("{key} has two listeners named {}", twice.name))),
            None => Ok(all),
        }
    };
    let listeners = parse("listeners", field(layers, "listeners"))?;
    if listeners.is_empty() {
        return Err(ConfigError("listeners has none for clients".to_owned()));
    }
    let protocols = protocols(&field::<String>(layers, "listener.security.protocol.map"))?;
    for listener in &listeners {
        match protocols.get(&*listener.name).map(String::as_str) {
            Some("PLAINTEXT") => {}
            Some(other) => {
                return Err(ConfigError(format!(
                    "listener {} is to speak {other}; only PLAINTEXT is supported so far",
                    listener.name
                )));
            }
            None => {
                return Err(ConfigError(format!(
                    "No security protocol defined for listener {}",
                    listener.name
                )));
            }
        }
    }
    let told = parse(
        "advertised.listeners",
        field::<Option<Vec<String>>>(layers, "advertised.listeners").unwrap_or_default(),
    )?;
    if let Some(stray) = told.iter().find(|t| listeners.iter().all(|l| l.name != t.name)) {
        return Err(ConfigError(format!(
            "advertised.listeners names {}, which is none of listeners",
            stray.name
        )));
    }
    if let Some(nowhere) = told.iter().find(|t| matches!(t.host.as_str(), "0.0.0.0" | "::")) {
        return Err(ConfigError(format!(
            "advertised.listeners cannot use the nonroutable meta-address {}. Use a routable IP address.",
            nowhere.host
        )));
    }
    let advertised = listeners.iter().map(|l| match told.iter().find(|t| t.name == l.name) {
        Some(told) => told.clone(),
        None if matches!(l.host.as_str(), "0.0.0.0" | "::") => ListenerConfig { host: String::new(), ..l.clone() },
        None => l.clone(),
    });
    let advertised = advertised.collect();
    Ok((listeners, advertised))
}

fn protocols(map: &str) -> Result<BTreeMap<String, String>, ConfigError> {
    let bad = |pair: &str| ConfigError(format!("listener.security.protocol.map: {pair:?} is not NAME:PROTOCOL"));
    map.split(',')
        .map(|pair| {
            let (name, protocol) = pair.trim().split_once(':').ok_or_else(|| bad(pair))?;
            Ok((name.trim().to_uppercase(), protocol.trim().to_uppercase()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::BrokerConfig;
    use super::*;

    fn told(set: &[(&str, &str)]) -> Result<String, String> {
        let show = |all: &[ListenerConfig]| {
            let all: Vec<_> = all.iter().map(|l| format!("{}={}|{}", l.name, l.host, l.port)).collect();
            all.join(",")
        };
        match BrokerConfig::new(set.iter().copied()) {
            Ok(config) => Ok(format!("{} -> {}", show(&config.listeners), show(&config.advertised_listeners))),
            Err(e) => Err(e.to_string()),
        }
    }

    #[test]
    fn listeners_and_what_is_advertised() {
        assert_eq!(
            told(&[("listeners", "PLAINTEXT://:9092,CONTROLLER://:9093")]),
            Ok("PLAINTEXT=|9092 -> PLAINTEXT=|9092".to_owned())
        );
        assert_eq!(
            told(&[("listeners", "PLAINTEXT://[::1]:0"), ("advertised.listeners", "plaintext://me:7")]),
            Ok("PLAINTEXT=::1|0 -> PLAINTEXT=me|7".to_owned())
        );
        assert_eq!(
            told(&[
                ("listeners", "IN://a:1,OUT://0.0.0.0:2"),
                ("listener.security.protocol.map", "IN:PLAINTEXT, OUT:PLAINTEXT")
            ]),
            Ok("IN=a|1,OUT=0.0.0.0|2 -> IN=a|1,OUT=|2".to_owned())
        );
        let refusals = [
            (
                ("listeners", "localhost:9092"),
                "Invalid value localhost:9092 for configuration listeners: a listener is NAME://host:port",
            ),
            (
                ("listeners", "PLAINTEXT://a:99999"),
                "Invalid value PLAINTEXT://a:99999 for configuration listeners: a listener is NAME://host:port",
            ),
            (("listeners", "SSL://a:1"), "listener SSL is to speak SSL; only PLAINTEXT is supported so far"),
            (("listeners", "X://a:1"), "No security protocol defined for listener X"),
            (("listeners", "PLAINTEXT://a:1,PLAINTEXT://b:1"), "listeners has two listeners named PLAINTEXT"),
            (("listeners", "CONTROLLER://a:1"), "listeners has none for clients"),
            (("advertised.listeners", "SSL://a:1"), "advertised.listeners names SSL, which is none of listeners"),
            (
                ("advertised.listeners", "PLAINTEXT://0.0.0.0:1"),
                "advertised.listeners cannot use the nonroutable meta-address 0.0.0.0. Use a routable IP address.",
            ),
        ];
        for (set, why) in refusals {
            assert_eq!(told(&[set]), Err(why.to_owned()));
        }
    }
}
