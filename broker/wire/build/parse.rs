//! Parses the tables.
//!
//! One item a line; an indent of two spaces is one level; `#` starts a comment.
//!
//! ```text
//! request FetchRequest 4-18 flex=12+            kind, name, valid versions, versions with the flexible encoding (KIP-482)
//!   cluster_id string? 12+ tag=0 = null         a field: name, type, versions, attributes, default
//!   topics []FetchTopic                         an array of a structure, whose fields follow one level deeper
//!     topic string 4-12 ignorable
//!   struct Endpoint                             a structure that several fields name
//!     host string
//! ```
//!
//! - Kinds: `request`, `response`, `header`, `data`; `record` (metadata log), `key` and `value` (coordinators' logs),
//!   `remote` (tiered storage's log). The last four have a `type=` that identifies them.
//! - Types: `bool i8 i16 u16 i32 u32 i64 f64 uuid string bytes records`, a structure's name, `[]` before any of them.
//!   `?` after a type: null is allowed, in all the field's versions or in those named (`?7+`).
//! - Versions: `3`, `3-5`, `3+` (up to the message's last). A field without versions has those of its structure.
//! - `tag=N`: a tagged field. `ignorable`: in a version without the field, a value is dropped instead of refused. `key`:
//!   together with the other keys, identifies an element of its array. `rigid`: keeps the non-flexible encoding in flexible
//!   versions.
//! - `= value`: the default, if it isn't 0, false or empty; `null` for nullable fields.
//!
//! An error in a table fails the build with its file and line.

/// An inclusive range of versions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    pub lo: i16,
    pub hi: i16,
}

impl Range {
    fn within(self, other: Self) -> bool {
        other.lo <= self.lo && self.hi <= other.hi
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Request,
    Response,
    Header,
    Data,
    Record,
    Key,
    Value,
    Remote,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Type {
    Bool,
    I8,
    I16,
    U16,
    I32,
    U32,
    I64,
    F64,
    Uuid,
    Str,
    Bytes,
    Records,
    Struct(String),
    Array(Box<Type>),
}

pub struct Field {
    pub name: String,
    pub ty: Type,
    pub versions: Range,
    /// The versions in which null is allowed.
    pub nullable: Option<Range>,
    pub tag: Option<u32>,
    pub ignorable: bool,
    pub key: bool,
    pub rigid: bool,
    /// The default, after `=`.
    pub default: Option<String>,
}

pub struct Struct {
    pub name: String,
    pub versions: Range,
    pub fields: Vec<Field>,
}

pub struct Message {
    pub kind: Kind,
    pub name: String,
    pub versions: Range,
    /// The first flexible version.
    pub flexible: Option<i16>,
    pub record_type: Option<i16>,
    /// The message's own structure first, then the nested ones.
    pub structs: Vec<Struct>,
}

pub struct ApiKey {
    pub key: i16,
    pub name: String,
    pub versions: Range,
    pub broker: bool,
    pub controller: bool,
    pub forward: bool,
    pub unstable: bool,
}

pub struct ErrorCode {
    pub code: i16,
    pub name: String,
    pub retriable: bool,
}

/// A non-empty line: its number from 1, its level, its words.
struct Line<'a> {
    at: String,
    level: usize,
    words: Vec<&'a str>,
}

fn lines<'a>(table: &'a str, text: &'a str) -> impl Iterator<Item = Line<'a>> {
    text.lines().enumerate().filter_map(move |(i, line)| {
        let said = line.split('#').next().unwrap_or_default();
        let words: Vec<&str> = said.split_whitespace().collect();
        let spaces = said.len() - said.trim_start().len();
        assert!(
            words.is_empty() || spaces % 2 == 0,
            "schema/{table}.txt:{}: odd indent",
            i + 1
        );
        (!words.is_empty()).then(|| Line {
            at: format!("schema/{table}.txt:{}", i + 1),
            level: spaces / 2,
            words,
        })
    })
}

/// Parses the messages of a table.
pub fn messages(table: &str, text: &str) -> Vec<Message> {
    let mut out: Vec<Message> = Vec::new();
    // For each level from 1, the structure whose fields are on it.
    let mut open: Vec<usize> = Vec::new();
    for line in lines(table, text) {
        if line.level == 0 {
            out.push(message(&line));
            open = vec![0];
            continue;
        }
        let message = out
            .last_mut()
            .unwrap_or_else(|| panic!("{}: a field of nothing", line.at));
        assert!(line.level <= open.len(), "{}: indented too far", line.at);
        open.truncate(line.level);
        if line.words[0] == "struct" {
            assert!(
                line.level == 1 && line.words.len() == 2,
                "{}: `struct Name`",
                line.at
            );
            open.push(push_struct(message, line.words[1], message.versions, &line.at));
            continue;
        }
        let within = open[line.level - 1];
        assert!(
            within != usize::MAX,
            "{}: stands in a field that has no fields",
            line.at
        );
        let field = field(&line, message.structs[within].versions);
        if let Some(name) = field.ty.struct_name() {
            // Fields may follow; without any, the structure is declared elsewhere with `struct`.
            open.push(push_struct(message, name, field.versions, &line.at));
        } else {
            // No line may be nested below a plain field.
            open.push(usize::MAX);
        }
        message.structs[within].fields.push(field);
    }
    for message in &mut out {
        settle(message);
    }
    out
}

fn push_struct(message: &mut Message, name: &str, versions: Range, at: &str) -> usize {
    assert!(name != message.name, "{at}: {name} in itself");
    message.structs.push(Struct {
        name: name.to_owned(),
        versions,
        fields: Vec::new(),
    });
    message.structs.len() - 1
}

/// Removes the empty structures that were created for fields of a declared structure, then checks that each structure is
/// declared once.
fn settle(message: &mut Message) {
    let mut kept: Vec<Struct> = Vec::new();
    for (i, s) in std::mem::take(&mut message.structs).into_iter().enumerate() {
        if i == 0 || !s.fields.is_empty() {
            assert!(
                kept.iter().all(|k| k.name != s.name),
                "{}: {} twice",
                message.name,
                s.name
            );
            kept.push(s);
        }
    }
    for field in kept.iter().flat_map(|s| &s.fields) {
        if let Some(name) = field.ty.struct_name() {
            assert!(
                kept.iter().any(|k| k.name == name),
                "{}: {name} is nowhere declared",
                message.name
            );
        }
    }
    message.structs = kept;
}

fn message(line: &Line<'_>) -> Message {
    let at = &line.at;
    let [kind, name, versions, attributes @ ..] = line.words.as_slice() else {
        panic!("{at}: `kind Name versions …`");
    };
    let kind = match *kind {
        "request" => Kind::Request,
        "response" => Kind::Response,
        "header" => Kind::Header,
        "data" => Kind::Data,
        "record" => Kind::Record,
        "key" => Kind::Key,
        "value" => Kind::Value,
        "remote" => Kind::Remote,
        other => panic!("{at}: no kind `{other}`"),
    };
    let versions = range(versions, i16::MAX, at);
    let mut message = Message {
        kind,
        name: (*name).to_owned(),
        versions,
        flexible: None,
        record_type: None,
        structs: vec![Struct {
            name: (*name).to_owned(),
            versions,
            fields: Vec::new(),
        }],
    };
    for attribute in attributes {
        match attribute.split_once('=') {
            Some(("flex", v)) => {
                let flexible = range(v, versions.hi, at);
                assert!(
                    flexible.within(versions) && flexible.hi == versions.hi,
                    "{at}: flexible to the last"
                );
                message.flexible = Some(flexible.lo);
            }
            Some(("type", v)) => message.record_type = Some(number(v, at)),
            _ => panic!("{at}: no attribute `{attribute}`"),
        }
    }
    let typed = matches!(kind, Kind::Record | Kind::Key | Kind::Value | Kind::Remote);
    assert_eq!(
        typed,
        message.record_type.is_some(),
        "{at}: a `type=` where the kind has one"
    );
    message
}

fn field(line: &Line<'_>, within: Range) -> Field {
    let at = &line.at;
    let (said, default) = match line.words.iter().position(|w| *w == "=") {
        Some(i) => (&line.words[..i], Some(line.words[i + 1..].join(" "))),
        None => (line.words.as_slice(), None),
    };
    let [name, ty, attributes @ ..] = said else {
        panic!("{at}: `name type …`");
    };
    let (ty, nullable) = match ty.split_once('?') {
        Some((ty, versions)) => (ty, Some(versions)),
        None => (*ty, None),
    };
    let (versions, attributes) = match attributes {
        [first, rest @ ..] if first.starts_with(|c: char| c.is_ascii_digit()) => {
            (range(first, within.hi, at), rest)
        }
        all => (within, all),
    };
    assert!(
        versions.within(within),
        "{at}: versions beyond those of what it stands in"
    );
    let mut field = Field {
        name: (*name).to_owned(),
        ty: Type::parse(ty, at),
        versions,
        nullable: nullable.map(|v| {
            if v.is_empty() {
                versions
            } else {
                range(v, versions.hi, at)
            }
        }),
        tag: None,
        ignorable: false,
        key: false,
        rigid: false,
        default,
    };
    assert!(
        field.nullable.is_none_or(|n| n.within(versions)),
        "{at}: null in a version without the field"
    );
    for attribute in attributes {
        match *attribute {
            "ignorable" => field.ignorable = true,
            "key" => field.key = true,
            "rigid" => field.rigid = true,
            other => match other.strip_prefix("tag=") {
                Some(tag) => field.tag = Some(number(tag, at)),
                None => panic!("{at}: no attribute `{other}`"),
            },
        }
    }
    let null = field.default.as_deref() == Some("null");
    assert!(
        !null || field.nullable == Some(versions),
        "{at}: null by default, but not always allowed"
    );
    field
}

impl Type {
    fn parse(s: &str, at: &str) -> Self {
        if let Some(of) = s.strip_prefix("[]") {
            return Self::Array(Box::new(Self::parse(of, at)));
        }
        match s {
            "bool" => Self::Bool,
            "i8" => Self::I8,
            "i16" => Self::I16,
            "u16" => Self::U16,
            "i32" => Self::I32,
            "u32" => Self::U32,
            "i64" => Self::I64,
            "f64" => Self::F64,
            "uuid" => Self::Uuid,
            "string" => Self::Str,
            "bytes" => Self::Bytes,
            "records" => Self::Records,
            name if name.starts_with(|c: char| c.is_ascii_uppercase()) => Self::Struct(name.to_owned()),
            other => panic!("{at}: no type `{other}`"),
        }
    }

    /// The structure of this type, or of its elements.
    pub fn struct_name(&self) -> Option<&str> {
        match self {
            Self::Struct(name) => Some(name),
            Self::Array(of) => of.struct_name(),
            _ => None,
        }
    }
}

fn range(s: &str, top: i16, at: &str) -> Range {
    let range = if let Some(lo) = s.strip_suffix('+') {
        Range {
            lo: number(lo, at),
            hi: top,
        }
    } else if let Some((lo, hi)) = s.split_once('-') {
        Range {
            lo: number(lo, at),
            hi: number(hi, at),
        }
    } else {
        Range {
            lo: number(s, at),
            hi: number(s, at),
        }
    };
    assert!(range.lo <= range.hi, "{at}: no versions in {s}");
    range
}

fn number<T: std::str::FromStr>(s: &str, at: &str) -> T {
    s.parse()
        .unwrap_or_else(|_| panic!("{at}: `{s}` is no such number"))
}

/// Parses the API keys of a table.
pub fn api_keys(table: &str, text: &str) -> Vec<ApiKey> {
    lines(table, text)
        .map(|line| {
            let [key, name, versions, listeners, attributes @ ..] = line.words.as_slice() else {
                panic!("{}: `key Name versions listeners …`", line.at);
            };
            let listens = |on: &str| listeners.split('+').any(|l| l == on);
            ApiKey {
                key: number(key, &line.at),
                name: (*name).to_owned(),
                versions: range(versions, i16::MAX, &line.at),
                broker: listens("broker"),
                controller: listens("controller"),
                forward: attributes.contains(&"forward"),
                unstable: attributes.contains(&"unstable"),
            }
        })
        .collect()
}

/// Parses the error codes of a table.
pub fn errors(table: &str, text: &str) -> Vec<ErrorCode> {
    lines(table, text)
        .map(|line| ErrorCode {
            code: number(line.words[0], &line.at),
            name: line.words[1].to_owned(),
            retriable: line.words.get(2) == Some(&"retriable"),
        })
        .collect()
}
