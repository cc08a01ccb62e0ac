//! Emits the enum of API keys and the constants of error codes.

use std::fmt::Write;

use crate::parse::{ApiKey, ErrorCode, Kind, Message};

/// `enum ApiKey`, `ApiKey::ALL`, `from_i16` and the table behind its methods.
pub fn keys(messages: &[Message], keys: &[ApiKey]) -> String {
    let flexible = |name: String, kind: Kind| {
        let message = messages.iter().find(|m| m.name == name && m.kind == kind);
        let message = message.unwrap_or_else(|| panic!("schema/api_keys.txt: no message {name}"));
        message.flexible.unwrap_or(i16::MAX)
    };
    let (mut variants, mut all, mut from, mut infos) =
        (String::new(), String::new(), String::new(), String::new());
    for key in keys {
        let name = &key.name;
        let listeners = match (key.broker, key.controller) {
            (true, true) => "&[Listener::Broker, Listener::Controller]",
            (true, false) => "&[Listener::Broker]",
            (false, _) => "&[Listener::Controller]",
        };
        line(
            &mut variants,
            format!(
                "/// Versions {}–{}.\n{name} = {},",
                key.versions.lo, key.versions.hi, key.key
            ),
        );
        line(&mut all, format!("Self::{name},"));
        line(&mut from, format!("{} => Self::{name},", key.key));
        line(
            &mut infos,
            format!(
                "Self::{name} => &Info {{ name: \"{name}\", versions: ({}, {}), last_is_unstable: {}, \
                 request_flexible_from: {}, response_flexible_from: {}, listeners: {listeners}, forwardable: {} }},",
                key.versions.lo,
                key.versions.hi,
                key.unstable,
                flexible(format!("{name}Request"), Kind::Request),
                flexible(format!("{name}Response"), Kind::Response),
                key.forward,
            ),
        );
    }
    format!(
        "/// What a request's header calls the request. Keys that Kafka 4 no longer serves (4 to 7) are not here.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(i16)]
pub enum ApiKey {{\n{variants}}}

impl ApiKey {{
/// All keys, ascending.
pub const ALL: &'static [Self] = &[\n{all}];

/// The key of this number.
pub fn from_i16(key: i16) -> Option<Self> {{
Some(match key {{\n{from}_ => return None,\n}})
}}

fn info(self) -> &'static Info {{
match self {{\n{infos}}}
}}
}}
"
    )
}

/// The constants of `ErrorCode`, and its table of names.
pub fn errors(errors: &[ErrorCode]) -> String {
    let (mut constants, mut infos) = (String::new(), String::new());
    for e in errors {
        let retriable = if e.retriable { "; retriable" } else { "" };
        line(
            &mut constants,
            format!(
                "/// {}{retriable}.\npub const {}: Self = Self({});",
                e.code, e.name, e.code
            ),
        );
        line(
            &mut infos,
            format!("{} => (\"{}\", {}),", e.code, e.name, e.retriable),
        );
    }
    format!(
        "impl ErrorCode {{\n{constants}
fn info(self) -> Option<(&'static str, bool)> {{
Some(match self.0 {{\n{infos}_ => return None,\n}})
}}
}}
"
    )
}

fn line(to: &mut String, line: String) {
    writeln!(to, "{line}").expect("a String takes everything");
}
