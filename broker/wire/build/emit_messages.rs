//! Emits a module for each message: its structures, their defaults, and their encoding and decoding.
//!
//! Encoding and decoding of values is implemented in `Reader` and `Writer`; the emitted code only calls them for the fields
//! of each version, in order. That keeps the emitted code small and the build short.

use std::fmt::Write;

use crate::parse::{ApiKey, Field, Kind, Message, Range, Struct, Type};

/// The modules of all messages, and the names re-exported from them.
pub fn emit(messages: &[Message], keys: &[ApiKey]) -> String {
    let mut out = String::new();
    for message in messages {
        let module = snake(&message.name);
        let _ = writeln!(out, "pub use {module}::{};", message.name);
    }
    for message in messages {
        emit_message(&mut out, message, keys);
    }
    emit_metadata_record(&mut out, messages);
    out
}

fn emit_message(out: &mut String, message: &Message, keys: &[ApiKey]) {
    let name = &message.name;
    let _ = writeln!(
        out,
        "/// [`{name}`] and what is in it.\npub mod {} {{\nuse crate::codec::generated::*;",
        snake(name)
    );
    for (i, s) in message.structs.iter().enumerate() {
        let doc = if i == 0 {
            message_doc(message)
        } else {
            format!("Part of [`{name}`].")
        };
        emit_struct(out, message, s, &doc);
    }
    let Range { lo, hi } = message.versions;
    let flexible = message.flexible;
    let _ = writeln!(
        out,
        "impl Message for {name} {{\nconst NAME: &'static str = \"{name}\";\nconst MIN_VERSION: i16 = {lo};\n\
         const MAX_VERSION: i16 = {hi};\nconst FLEXIBLE_FROM: Option<i16> = {flexible:?};\n}}"
    );
    if let Some(record_type) = message.record_type {
        let _ = writeln!(
            out,
            "impl TypedRecord for {name} {{\nconst RECORD_TYPE: i16 = {record_type};\n}}"
        );
    }
    if message.kind == Kind::Request {
        let api = name.strip_suffix("Request").expect("a request's name ends so");
        assert!(keys.iter().any(|k| k.name == api), "{name} has no API key");
        let _ = writeln!(
            out,
            "impl Request for {name} {{\nconst API_KEY: ApiKey = ApiKey::{api};\ntype Response = super::{api}Response;\n}}"
        );
    }
    out.push_str("}\n");
}

fn message_doc(message: &Message) -> String {
    let Range { lo, hi } = message.versions;
    let mut doc = match message.kind {
        Kind::Request => "A request".to_owned(),
        Kind::Response => "A response".to_owned(),
        Kind::Header => "A header".to_owned(),
        Kind::Data => "Data".to_owned(),
        Kind::Record => "A metadata record".to_owned(),
        Kind::Key => "A coordinator record's key".to_owned(),
        Kind::Value => "A coordinator record's value".to_owned(),
        Kind::Remote => "A record of tiered storage's log".to_owned(),
    };
    if let Some(record_type) = message.record_type {
        let _ = write!(doc, " of type {record_type}");
    }
    let _ = if lo == hi {
        write!(doc, ", version {lo}")
    } else {
        write!(doc, ", versions {lo}–{hi}")
    };
    if let Some(flexible) = message.flexible {
        let _ = write!(doc, ", flexible from {flexible}");
    }
    doc.push('.');
    doc
}

fn emit_struct(out: &mut String, message: &Message, s: &Struct, doc: &str) {
    let name = &s.name;
    let plain = s.fields.iter().all(|f| default(f).1);
    let derived = if plain { ", Default" } else { "" };
    let _ = writeln!(
        out,
        "/// {doc}\n#[derive(Clone, Debug, PartialEq{derived})]\npub struct {name} {{"
    );
    for f in &s.fields {
        let _ = writeln!(
            out,
            "/// {}\npub {}: {},",
            field_doc(f, s.versions),
            ident(&f.name),
            rust_type(f)
        );
    }
    if message.flexible.is_some() {
        out.push_str(
            "/// Tagged fields that this list doesn't know.\npub unknown_tagged_fields: TaggedFields,\n",
        );
    }
    out.push_str("}\n");
    if !plain {
        let _ = writeln!(
            out,
            "impl Default for {name} {{\n#[inline]\nfn default() -> Self {{\nSelf {{"
        );
        for f in &s.fields {
            let _ = writeln!(out, "{}: {},", ident(&f.name), default(f).0);
        }
        if message.flexible.is_some() {
            out.push_str("unknown_tagged_fields: TaggedFields::NONE,\n");
        }
        out.push_str("}\n}\n}\n");
    }
    let _ = writeln!(out, "impl Element for {name} {{");
    emit_read(out, message, s);
    emit_write(out, message, s);
    if message.kind == Kind::Response && has_error_codes(message, s) {
        emit_error_codes(out, message, s);
    }
    out.push_str("}\n");
}

/// Whether the field is the error code of what it stands in.
fn is_error_code(f: &Field) -> bool {
    matches!(
        f.name.as_str(),
        "error_code" | "acknowledge_error_code" | "partition_error_code"
    )
}

/// The structure that a field holds, or an array of.
fn struct_in<'a>(message: &'a Message, f: &Field) -> Option<&'a Struct> {
    let name = match &f.ty {
        Type::Struct(name) => name,
        Type::Array(of) => match &**of {
            Type::Struct(name) => name,
            _ => return None,
        },
        _ => return None,
    };
    message.structs.iter().find(|s| s.name == *name)
}

/// Whether there is an error code in the structure, or in one within it.
fn has_error_codes(message: &Message, s: &Struct) -> bool {
    let within = |f: &Field| struct_in(message, f).is_some_and(|s| has_error_codes(message, s));
    s.fields.iter().any(|f| is_error_code(f) || within(f))
}

fn emit_error_codes(out: &mut String, message: &Message, s: &Struct) {
    out.push_str("fn error_codes(&self, visit: &mut dyn FnMut(ErrorCode)) {\n");
    for f in &s.fields {
        let x = format!("self.{}", ident(&f.name));
        if is_error_code(f) {
            let _ = writeln!(out, "visit(ErrorCode({x}));");
        } else if struct_in(message, f).is_some_and(|s| has_error_codes(message, s)) {
            let is_array = matches!(f.ty, Type::Array(_));
            let _ = match (is_array, f.nullable.is_some()) {
                (false, false) => writeln!(out, "{x}.error_codes(visit);"),
                (true, true) => writeln!(out, "for x in {x}.iter().flatten() {{ x.error_codes(visit); }}"),
                _ => writeln!(out, "for x in &{x} {{ x.error_codes(visit); }}"),
            };
        }
    }
    out.push_str("}\n");
}

fn field_doc(f: &Field, within: Range) -> String {
    let Range { lo, hi } = f.versions;
    let mut doc = match (f.versions == within, lo == hi, hi == within.hi) {
        (true, _, _) => "All versions".to_owned(),
        (_, true, _) => format!("Version {lo}"),
        (_, _, true) => format!("Versions {lo} and later"),
        _ => format!("Versions {lo}–{hi}"),
    };
    if let Some(tag) = f.tag {
        let _ = write!(doc, "; tag {tag}");
    }
    match f.nullable {
        Some(n) if n != f.versions => {
            let _ = write!(doc, "; null from {}", n.lo);
        }
        _ => {}
    }
    if f.key {
        doc.push_str("; identifies the element");
    }
    if f.ignorable && f.versions != within {
        doc.push_str("; left out where the version lacks it");
    }
    doc.push('.');
    doc
}

/// A condition on `v` that is true in `versions`, given that `v` is in `within`; `None` if it is always true.
pub fn condition(versions: Range, within: Range) -> Option<String> {
    match (versions.lo > within.lo, versions.hi < within.hi) {
        (false, false) => None,
        (true, false) => Some(format!("v >= {}", versions.lo)),
        (false, true) => Some(format!("v <= {}", versions.hi)),
        (true, true) if versions.lo == versions.hi => Some(format!("v == {}", versions.lo)),
        (true, true) => Some(format!("({}..={}).contains(&v)", versions.lo, versions.hi)),
    }
}

/// An expression for the versions in which null is allowed, among those that have the field.
fn nullable(f: &Field, n: Range) -> String {
    condition(n, f.versions).unwrap_or_else(|| "true".to_owned())
}

/// The field's path for errors.
fn path(s: &Struct, f: &Field) -> String {
    format!("\"{}.{}\"", s.name, f.name)
}

fn emit_read(out: &mut String, message: &Message, s: &Struct) {
    let tagged: Vec<&Field> = s.fields.iter().filter(|f| f.tag.is_some()).collect();
    out.push_str(
        "fn fill(&mut self, r: &mut Reader, v: i16, flex: bool, _: &'static str) -> Result<(), DecodeError> {\n",
    );
    let mut body = String::new();
    for f in s.fields.iter().filter(|f| f.tag.is_none()) {
        let read = read_expr(s, f, "flex");
        let _ = match condition(f.versions, s.versions) {
            None => writeln!(body, "{read};"),
            Some(c) => writeln!(body, "if {c} {{ {read}; }}"),
        };
    }
    if message.flexible.is_some() && tagged.is_empty() {
        let _ = writeln!(
            body,
            "if flex {{ r.unknown_tags(&mut self.unknown_tagged_fields, \"{}\")?; }}",
            s.name
        );
    }
    if !tagged.is_empty() {
        let _ = write!(
            body,
            "if flex {{\nlet mut tags = r.tags(\"{}\")?;\nwhile let Some(tag) = r.next_tag(&mut tags)? {{\nmatch tag {{\n",
            s.name
        );
        for f in &tagged {
            let tag = f.tag.expect("filtered so");
            let read = read_expr(s, f, "true");
            if let Some(c) = condition(f.versions, flexible_part(message, s)) {
                let _ = writeln!(body, "{tag} if {c} => {read},");
                let _ = writeln!(
                    body,
                    "{tag} => return Err(r.tag_not_in_version(tag, {})),",
                    path(s, f)
                );
            } else {
                let _ = writeln!(body, "{tag} => {read},");
            }
        }
        let _ = writeln!(
            body,
            "_ => r.unknown_tag(tag, &mut self.unknown_tagged_fields, \"{}\")?,\n}}\n}}\n}}",
            s.name
        );
    }
    body.push_str("Ok(())\n}\n");
    silence(out, &body, &["r", "v", "flex"]);
    out.push_str(&body);
}

/// The versions of a structure that have tagged fields.
pub fn flexible_part(message: &Message, s: &Struct) -> Range {
    let from = message.flexible.expect("only flexible messages have tags");
    Range {
        lo: s.versions.lo.max(from),
        hi: s.versions.hi,
    }
}

/// Emits `let _ = x` for each parameter that the body doesn't use.
fn silence(out: &mut String, body: &str, parameters: &[&str]) {
    let used = |name: &str| {
        body.split(|c: char| !c.is_alphanumeric() && c != '_')
            .any(|word| word == name)
    };
    for name in parameters.iter().filter(|name| !used(name)) {
        let _ = writeln!(out, "let _ = {name};");
    }
}

/// Emits the decoding of a field.
fn read_expr(s: &Struct, f: &Field, flex: &str) -> String {
    let at = path(s, f);
    let x = format!("self.{}", ident(&f.name));
    let flex = if f.rigid { "false" } else { flex };
    let null = f.nullable.map(|n| nullable(f, n));
    match (&f.ty, null) {
        (Type::Bool, _) => format!("{x} = r.bool({at})?"),
        (Type::I8, _) => format!("{x} = r.i8({at})?"),
        (Type::I16, _) => format!("{x} = r.i16({at})?"),
        (Type::U16, _) => format!("{x} = r.u16({at})?"),
        (Type::I32, _) => format!("{x} = r.i32({at})?"),
        (Type::U32, _) => format!("{x} = r.u32({at})?"),
        (Type::I64, _) => format!("{x} = r.i64({at})?"),
        (Type::F64, _) => format!("{x} = r.f64({at})?"),
        (Type::Uuid, _) => format!("{x} = r.uuid({at})?"),
        (Type::Str, None) => format!("r.str(&mut {x}, {flex}, {at})?"),
        (Type::Str, Some(null)) => format!("r.str_opt(&mut {x}, {flex}, {null}, {at})?"),
        (Type::Bytes, None) => format!("r.bytes(&mut {x}, {flex}, {at})?"),
        (Type::Bytes, Some(null)) => format!("r.bytes_opt(&mut {x}, {flex}, {null}, {at})?"),
        (Type::Records, None) => format!("r.records(&mut {x}, {flex}, {at})?"),
        (Type::Records, Some(null)) => format!("r.records_opt(&mut {x}, {flex}, {null}, {at})?"),
        (Type::Array(_), None) => format!("r.array(&mut {x}, v, {flex}, {at})?"),
        (Type::Array(_), Some(null)) => format!("r.array_opt(&mut {x}, v, {flex}, {null}, {at})?"),
        (Type::Struct(_), None) => format!("{x}.fill(r, v, {flex}, {at})?"),
        (Type::Struct(_), Some(_)) if f.tag.is_some() => format!("r.tagged_struct_opt(&mut {x}, v, {at})?"),
        (Type::Struct(_), Some(null)) => format!("r.struct_opt(&mut {x}, v, {flex}, {null}, {at})?"),
    }
}

fn emit_write(out: &mut String, message: &Message, s: &Struct) {
    out.push_str("fn write(&self, w: &mut Writer, v: i16, flex: bool, _: &'static str) {\n");
    let mut body = String::new();
    for f in &s.fields {
        let c = condition(f.versions, s.versions);
        let refuse = format!("if {} {{ w.not_in_version({}); }}", differs(f), path(s, f));
        match (f.tag, c) {
            (None, None) => {
                let _ = writeln!(body, "{};", write_expr(s, f, "flex"));
            }
            (None, Some(c)) if f.ignorable => {
                let _ = writeln!(body, "if {c} {{ {}; }}", write_expr(s, f, "flex"));
            }
            (None, Some(c)) => {
                let _ = writeln!(body, "if {c} {{ {}; }} else {refuse}", write_expr(s, f, "flex"));
            }
            (Some(_), Some(c)) if !f.ignorable => {
                let _ = writeln!(body, "if {c} {{}} else {refuse}");
            }
            (Some(_), _) => {}
        }
    }
    if message.flexible.is_some() {
        emit_write_tags(&mut body, message, s);
    }
    body.push_str("}\n");
    silence(out, &body, &["w", "v", "flex"]);
    out.push_str(&body);
}

fn emit_write_tags(body: &mut String, message: &Message, s: &Struct) {
    let mut tagged: Vec<&Field> = s.fields.iter().filter(|f| f.tag.is_some()).collect();
    tagged.sort_by_key(|f| f.tag);
    if tagged.is_empty() {
        let _ = writeln!(
            body,
            "w.unknown_tags(&self.unknown_tagged_fields, flex, \"{}\");",
            s.name
        );
        return;
    }
    body.push_str("if flex {\n");
    let mut count = Vec::new();
    for f in &tagged {
        let tag = f.tag.expect("filtered so");
        let present = match condition(f.versions, flexible_part(message, s)) {
            None => differs(f),
            Some(c) => format!("{c} && ({})", differs(f)),
        };
        let _ = writeln!(body, "let t{tag} = {present};");
        count.push(format!("u32::from(t{tag})"));
    }
    let _ = writeln!(
        body,
        "let mut tags = w.tags({}, &self.unknown_tagged_fields, \"{}\");",
        count.join(" + "),
        s.name
    );
    for f in &tagged {
        let tag = f.tag.expect("filtered so");
        let write = write_expr(s, f, "true");
        let _ = writeln!(
            body,
            "if w.tag(&mut tags, {tag}, t{tag}) {{ {write}; w.tag_end(&mut tags); }}"
        );
    }
    let _ = writeln!(
        body,
        "w.tags_end(tags);\n}} else {{ w.unknown_tags(&self.unknown_tagged_fields, flex, \"{}\"); }}",
        s.name
    );
}

fn write_expr(s: &Struct, f: &Field, flex: &str) -> String {
    let at = path(s, f);
    let x = format!("self.{}", ident(&f.name));
    let flex = if f.rigid { "false" } else { flex };
    let null = f.nullable.map(|n| nullable(f, n));
    match (&f.ty, null) {
        (Type::Bool, _) => format!("w.bool({x})"),
        (Type::I8, _) => format!("w.i8({x})"),
        (Type::I16, _) => format!("w.i16({x})"),
        (Type::U16, _) => format!("w.u16({x})"),
        (Type::I32, _) => format!("w.i32({x})"),
        (Type::U32, _) => format!("w.u32({x})"),
        (Type::I64, _) => format!("w.i64({x})"),
        (Type::F64, _) => format!("w.f64({x})"),
        (Type::Uuid, _) => format!("w.uuid({x})"),
        (Type::Str, None) => format!("w.str(&{x}, {flex}, {at})"),
        (Type::Str, Some(null)) => format!("w.str_opt(&{x}, {flex}, {null}, {at})"),
        (Type::Bytes, None) => format!("w.bytes(&{x}, {flex}, {at})"),
        (Type::Bytes, Some(null)) => format!("w.bytes_opt(&{x}, {flex}, {null}, {at})"),
        (Type::Records, None) => format!("w.records(&{x}, {flex}, {at})"),
        (Type::Records, Some(null)) => format!("w.records_opt(&{x}, {flex}, {null}, {at})"),
        (Type::Array(_), None) => format!("w.array(&{x}, v, {flex}, {at})"),
        (Type::Array(_), Some(null)) => format!("w.array_opt(&{x}, v, {flex}, {null}, {at})"),
        (Type::Struct(_), None) => format!("{x}.write(w, v, {flex}, {at})"),
        (Type::Struct(_), Some(_)) if f.tag.is_some() => format!("w.tagged_struct_opt(&{x}, v, {at})"),
        (Type::Struct(_), Some(null)) => format!("w.struct_opt(&{x}, v, {flex}, {null}, {at})"),
    }
}

/// An expression for whether the field differs from its default.
fn differs(f: &Field) -> String {
    let x = format!("self.{}", ident(&f.name));
    let null_by_default = f.default.as_deref() == Some("null") || f.ty == Type::Records;
    match &f.ty {
        Type::Bool if f.default.as_deref() == Some("true") => format!("!{x}"),
        Type::Bool => x,
        Type::Uuid => format!("!{x}.is_zero()"),
        Type::I8 | Type::I16 | Type::U16 | Type::I32 | Type::U32 | Type::I64 | Type::F64 => {
            format!("{x} != {}", default(f).0)
        }
        _ if f.nullable.is_some() && null_by_default => format!("{x}.is_some()"),
        Type::Struct(name) if f.nullable.is_some() => format!("{x}.as_ref() != Some(&{name}::default())"),
        Type::Struct(name) => format!("{x} != {name}::default()"),
        _ if f.nullable.is_some() => format!("{x}.as_ref().is_none_or(|x| !x.is_empty())"),
        _ => format!("!{x}.is_empty()"),
    }
}

/// An expression for the default, and whether it equals Rust's `Default`.
pub fn default(f: &Field) -> (String, bool) {
    let value = f.default.as_deref();
    let given = value.unwrap_or_default();
    let inner: (String, bool) = match &f.ty {
        Type::Bool => (value.unwrap_or("false").to_owned(), given != "true"),
        Type::I8 | Type::I16 | Type::U16 | Type::I32 | Type::U32 | Type::I64 => {
            let value = value.unwrap_or("0");
            let value = if value == i32::MIN.to_string() {
                "i32::MIN"
            } else {
                value
            };
            (value.to_owned(), value == "0")
        }
        Type::F64 => (value.unwrap_or("0.0").to_owned(), value.is_none()),
        _ if f.nullable.is_some() && (given == "null" || f.ty == Type::Records) => {
            return ("None".to_owned(), true);
        }
        Type::Uuid => ("Uuid::ZERO".to_owned(), true),
        Type::Str => ("Str::EMPTY".to_owned(), true),
        Type::Bytes => ("Bytes::new()".to_owned(), true),
        Type::Records => ("Records::default()".to_owned(), true),
        Type::Struct(name) => (format!("{name}::default()"), true),
        Type::Array(_) => ("Vec::new()".to_owned(), true),
    };
    if f.nullable.is_some() {
        (format!("Some({})", inner.0), false)
    } else {
        inner
    }
}

fn rust_type(f: &Field) -> String {
    fn of(ty: &Type) -> String {
        match ty {
            Type::Bool => "bool".to_owned(),
            Type::I8 => "i8".to_owned(),
            Type::I16 => "i16".to_owned(),
            Type::U16 => "u16".to_owned(),
            Type::I32 => "i32".to_owned(),
            Type::U32 => "u32".to_owned(),
            Type::I64 => "i64".to_owned(),
            Type::F64 => "f64".to_owned(),
            Type::Uuid => "Uuid".to_owned(),
            Type::Str => "Str".to_owned(),
            Type::Bytes => "Bytes".to_owned(),
            Type::Records => "Records".to_owned(),
            Type::Struct(name) => name.clone(),
            Type::Array(element) => format!("Vec<{}>", of(element)),
        }
    }
    let ty = of(&f.ty);
    if f.nullable.is_some() {
        format!("Option<{ty}>")
    } else {
        ty
    }
}

/// A field's name as a Rust identifier.
pub fn ident(name: &str) -> String {
    match name {
        "type" | "match" | "ref" | "final" | "override" | "abstract" | "virtual" | "move" | "loop"
        | "where" => {
            format!("{name}_")
        }
        _ => name.to_owned(),
    }
}

/// A name in snake case. A run of capitals counts as one word (`KRaftVersionRecord`: `kraft_version_record`).
pub fn snake(name: &str) -> String {
    let mut out = String::new();
    let mut after_capital = true;
    for c in name.chars() {
        if c.is_ascii_uppercase() && !after_capital {
            out.push('_');
        }
        after_capital = c.is_ascii_uppercase();
        out.push(c.to_ascii_lowercase());
    }
    out
}

/// Emits an enum of all records of the metadata log.
fn emit_metadata_record(out: &mut String, messages: &[Message]) {
    let (mut variants, mut types, mut read, mut write, mut from) = (
        String::new(),
        String::new(),
        String::new(),
        String::new(),
        String::new(),
    );
    for message in messages.iter().filter(|m| m.kind == Kind::Record) {
        let name = &message.name;
        let variant = name.strip_suffix("Record").unwrap_or(name);
        let _ = writeln!(
            variants,
            "/// Type {}.\n{variant}({name}),",
            message.record_type.unwrap_or_default()
        );
        let _ = writeln!(types, "Self::{variant}(_) => {name}::RECORD_TYPE,");
        let _ = writeln!(
            read,
            "{name}::RECORD_TYPE => Self::{variant}({name}::decode(r, version)?),"
        );
        let _ = writeln!(write, "Self::{variant}(record) => record.encode(w, version),");
        let _ = writeln!(
            from,
            "impl From<{name}> for MetadataRecord {{\nfn from(record: {name}) -> Self {{ Self::{variant}(record) }}\n}}"
        );
    }
    let _ = write!(
        out,
        "/// A record of the metadata log.\n#[derive(Clone, Debug, PartialEq)]\npub enum MetadataRecord {{\n{variants}}}\n\
         impl MetadataRecord {{\n\
         /// What tells the records apart.\n\
         pub fn record_type(&self) -> i16 {{\nmatch self {{\n{types}}}\n}}\n\
         fn read_body(r: &mut Reader, record_type: i16, version: i16) -> Result<Option<Self>, DecodeError> {{\n\
         Ok(Some(match record_type {{\n{read}_ => return Ok(None),\n}}))\n}}\n\
         fn write_body(&self, w: &mut Writer, version: i16) -> Result<(), EncodeError> {{\n\
         match self {{\n{write}}}\n}}\n}}\n{from}"
    );
}
