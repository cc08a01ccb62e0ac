//! `listeners` and `advertised.listeners`: the addresses that the broker binds, and those that clients connect to.

use std::collections::BTreeMap;
use std::net::IpAddr;

use brokkr_metadata::config::resolve::Layers;

use super::error::StartupError;
use super::value::{list, text};

/// A listener: `NAME://host:port`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListenerConfig {
    /// `PLAINTEXT`, or a name that `listener.security.protocol.map` maps to it; in capitals.
    pub name: String,
    /// The host to bind or to advertise. [`EVERY_ADDRESS`] binds all addresses of this machine.
    pub host: String,
    /// The port; 0 binds a free one.
    pub port: u16,
}

/// The host of a listener without one.
pub const EVERY_ADDRESS: &str = "0.0.0.0";

/// Splits `host:port`. A host in brackets is an IPv6 address.
///
/// # Errors
/// The reason, if it is not of this form.
pub fn host_port(text: &str) -> Result<(&str, u16), &'static str> {
    let (host, port) = text.rsplit_once(':').ok_or("not of the form HOST:PORT")?;
    let host = match host.strip_prefix('[') {
        Some(v6) => v6.strip_suffix(']').ok_or("not of the form [ADDRESS]:PORT")?,
        None if host.contains(':') => return Err("an IPv6 address stands in brackets, as in [::1]:9092"),
        None => host,
    };
    let port = port
        .bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| port.parse().ok());
    let port = port.flatten().ok_or("a port is a number from 0 to 65535")?;
    Ok((host, port))
}

fn invalid<T>(what: impl Into<String>) -> Result<T, StartupError> {
    Err(StartupError::Listener(what.into()))
}

impl ListenerConfig {
    fn parse(key: &str, text: &str) -> Result<Self, StartupError> {
        let form = "not of the form NAME://host:port";
        let (name, rest) = text.split_once("://").unwrap_or_default();
        let parsed = match name.is_empty() {
            true => Err(form),
            false => host_port(rest),
        };
        match parsed {
            Ok((host, port)) => Ok(Self {
                name: name.to_ascii_uppercase(),
                host: host.to_owned(),
                port,
            }),
            Err(why) => invalid(format!("{key}: {text:?}: {why}")),
        }
    }

    /// Replaces an empty host by [`EVERY_ADDRESS`]. As in Kafka an advertised listener may have no host either; it gets
    /// this machine's name.
    fn with_host(mut self) -> Self {
        if self.host.is_empty() {
            EVERY_ADDRESS.clone_into(&mut self.host);
        }
        self
    }

    /// Whether the host is a wildcard address, which clients can't connect to.
    pub fn is_wildcard(&self) -> bool {
        self.host
            .parse::<IpAddr>()
            .is_ok_and(|addr| addr.to_canonical().is_unspecified())
    }
}

/// `listeners` without those of controllers, which this broker does not open yet, and the advertised listener of each, in
/// the same order.
pub(super) fn listeners(
    layers: &Layers<'_>,
) -> Result<(Vec<ListenerConfig>, Vec<ListenerConfig>), StartupError> {
    let controllers = list(layers, "controller.listener.names");
    let parse = |key: &'static str| -> Result<Vec<ListenerConfig>, StartupError> {
        let all = list(layers, key);
        let all: Result<Vec<_>, _> = all.iter().map(|text| ListenerConfig::parse(key, text)).collect();
        let mut all = all?;
        all.retain(|l| !controllers.iter().any(|name| name.eq_ignore_ascii_case(&l.name)));
        let mut seen = all.iter().enumerate();
        match seen.find(|(i, l)| all[..*i].iter().any(|other| other.name == l.name)) {
            Some((_, twice)) => invalid(format!("{key}: two listeners are named {}", twice.name)),
            None => Ok(all),
        }
    };
    let listeners = parse("listeners")?;
    if listeners.is_empty() {
        return invalid("listeners: there is none for clients");
    }
    check_protocols(
        &listeners,
        &text(layers, "listener.security.protocol.map").unwrap_or_default(),
    )?;
    let explicit = parse("advertised.listeners")?;
    if let Some(stray) = explicit
        .iter()
        .find(|t| listeners.iter().all(|l| l.name != t.name))
    {
        return invalid(format!(
            "advertised.listeners: {} is none of listeners",
            stray.name
        ));
    }
    if let Some(nowhere) = explicit.iter().find(|t| t.is_wildcard()) {
        return invalid(format!(
            "advertised.listeners: {} is no address that clients can connect to",
            nowhere.host
        ));
    }
    let advertised = listeners.iter().map(|l| {
        explicit
            .iter()
            .find(|t| t.name == l.name)
            .cloned()
            .unwrap_or_else(|| l.clone())
            .with_host()
    });
    let advertised = advertised.collect();
    let listeners = listeners.into_iter().map(ListenerConfig::with_host).collect();
    Ok((listeners, advertised))
}

fn check_protocols(listeners: &[ListenerConfig], map: &str) -> Result<(), StartupError> {
    let mut protocols = BTreeMap::new();
    for pair in map.split(',') {
        let Some((name, protocol)) = pair.split_once(':') else {
            return invalid(format!(
                "listener.security.protocol.map: {pair:?} is not of the form NAME:PROTOCOL"
            ));
        };
        protocols.insert(
            name.trim().to_ascii_uppercase(),
            protocol.trim().to_ascii_uppercase(),
        );
    }
    for listener in listeners {
        match protocols.get(&listener.name).map(String::as_str) {
            Some("PLAINTEXT") => {}
            Some(other) => {
                return invalid(format!(
                    "listener {}: only PLAINTEXT is served yet, not {other}",
                    listener.name
                ));
            }
            None => {
                return invalid(format!(
                    "listener {}: listener.security.protocol.map has no protocol for it",
                    listener.name
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::BrokerConfig;
    use super::*;

    fn resolved(set: &[(&str, &str)]) -> Result<String, String> {
        let show = |all: &[ListenerConfig]| {
            let all: Vec<_> = all
                .iter()
                .map(|l| format!("{}={}|{}", l.name, l.host, l.port))
                .collect();
            all.join(",")
        };
        let set = set
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        match BrokerConfig::new(set) {
            Ok((config, _)) => Ok(format!(
                "{} -> {}",
                show(&config.listeners),
                show(&config.advertised_listeners)
            )),
            Err(e) => Err(e.to_string()),
        }
    }

    #[test]
    fn listeners_and_what_is_advertised() {
        let good = [
            // As in the file that comes with Kafka.
            (
                vec![
                    ("listeners", "PLAINTEXT://:9092,CONTROLLER://:9093"),
                    (
                        "advertised.listeners",
                        "PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093",
                    ),
                ],
                "PLAINTEXT=0.0.0.0|9092 -> PLAINTEXT=localhost|9092",
            ),
            (
                vec![
                    ("listeners", "PLAINTEXT://[::1]:0"),
                    ("advertised.listeners", "plaintext://me:7"),
                ],
                "PLAINTEXT=::1|0 -> PLAINTEXT=me|7",
            ),
            (
                vec![
                    ("listeners", "PLAINTEXT://[::]:1"),
                    ("advertised.listeners", "PLAINTEXT://:7"),
                ],
                "PLAINTEXT=::|1 -> PLAINTEXT=0.0.0.0|7",
            ),
            (
                vec![
                    ("listeners", "IN://a:1,OUT://b:2"),
                    ("listener.security.protocol.map", "IN:PLAINTEXT, OUT:PLAINTEXT"),
                    ("advertised.listeners", "OUT://c:3"),
                ],
                "IN=a|1,OUT=b|2 -> IN=a|1,OUT=c|3",
            ),
        ];
        for (set, expected) in good {
            assert_eq!(resolved(&set), Ok(expected.to_owned()));
        }
        let bad = [
            (
                ("listeners", "localhost:9092"),
                "listeners: \"localhost:9092\": not of the form NAME://host:port",
            ),
            (
                ("listeners", "PLAINTEXT://a:99999"),
                "listeners: \"PLAINTEXT://a:99999\": a port is a number from 0 to 65535",
            ),
            (
                ("listeners", "PLAINTEXT://::1:9092"),
                "listeners: \"PLAINTEXT://::1:9092\": an IPv6 address stands in brackets, as in [::1]:9092",
            ),
            (
                ("listeners", "SSL://a:1"),
                "listener SSL: only PLAINTEXT is served yet, not SSL",
            ),
            (
                ("listeners", "X://a:1"),
                "listener X: listener.security.protocol.map has no protocol for it",
            ),
            (
                ("listeners", "PLAINTEXT://a:1,PLAINTEXT://b:1"),
                "listeners: two listeners are named PLAINTEXT",
            ),
            (
                ("listeners", "CONTROLLER://a:1"),
                "listeners: there is none for clients",
            ),
            (
                ("advertised.listeners", "SSL://a:1"),
                "advertised.listeners: SSL is none of listeners",
            ),
            (
                ("advertised.listeners", "PLAINTEXT://0.0.0.0:1"),
                "advertised.listeners: 0.0.0.0 is no address that clients can connect to",
            ),
            (
                ("advertised.listeners", "PLAINTEXT://[0:0::0]:1"),
                "advertised.listeners: 0:0::0 is no address that clients can connect to",
            ),
            (
                ("listener.security.protocol.map", "PLAINTEXT"),
                "listener.security.protocol.map: \"PLAINTEXT\" is not of the form NAME:PROTOCOL",
            ),
        ];
        for (set, why) in bad {
            assert_eq!(resolved(&[set]), Err(why.to_owned()));
        }
    }
}
