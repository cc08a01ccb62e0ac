//! The address that serves metrics and health checks.

use brokkr_metadata::config::resolve::Layers;

use super::error::StartupError;
use super::listeners::{EVERY_ADDRESS, host_port};
use super::value::text;

/// The value of `metrics.listen` for no endpoint.
const NONE: &str = "none";

/// `metrics.listen`: host and port, or none.
pub(super) fn listen(layers: &Layers<'_>) -> Result<Option<(String, u16)>, StartupError> {
    let listen = text(layers, "metrics.listen").filter(|listen| listen != NONE);
    let Some(listen) = listen else { return Ok(None) };
    match host_port(&listen) {
        Ok(("", port)) => Ok(Some((EVERY_ADDRESS.to_owned(), port))),
        Ok((host, port)) => Ok(Some((host.to_owned(), port))),
        Err(why) => Err(StartupError::Listener(format!(
            "metrics.listen: {listen:?}: {why}, and not {NONE}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::BrokerConfig;

    fn listen(value: Option<&str>) -> Result<Option<String>, String> {
        let set: BTreeMap<_, _> = value
            .map(|value| ("metrics.listen".to_owned(), value.to_owned()))
            .into_iter()
            .collect();
        match BrokerConfig::new(set) {
            Ok((config, warnings)) => {
                assert_eq!(warnings, [] as [String; 0]);
                Ok(config.metrics_listen.map(|(host, port)| format!("{host} {port}")))
            }
            Err(e) => Err(e.to_string()),
        }
    }

    #[test]
    fn metrics_have_an_address_or_none() {
        let some = |listen: &str| Ok(Some(listen.to_owned()));
        assert_eq!(listen(None), some("127.0.0.1 9644"));
        assert_eq!(listen(Some("localhost:0")), some("localhost 0"));
        assert_eq!(listen(Some("[::1]:80")), some("::1 80"));
        assert_eq!(listen(Some(":9644")), some("0.0.0.0 9644"));
        assert_eq!(listen(Some("none")), Ok(None));
        for (wrong, why) in [
            ("9644", "\"9644\": not of the form HOST:PORT, and not none"),
            (
                "here:x",
                "\"here:x\": a port is a number from 0 to 65535, and not none",
            ),
        ] {
            assert_eq!(listen(Some(wrong)), Err(format!("metrics.listen: {why}")));
        }
        assert!(listen(Some("")).is_err());
    }
}
