//! Emits, only for the integration tests, generators of arbitrary values for each structure, and a macro that lists every
//! message. `tests/support/mod.rs` includes the output and defines `Arbitrary` and `Gen`, which it uses.

use std::fmt::Write;

use crate::emit_messages::{condition, ident, snake};
use crate::parse::{Field, Message, Struct, Type};

/// The trait implementations and `every_message!`.
pub fn emit(messages: &[Message]) -> String {
    let mut out = String::new();
    for message in messages {
        for s in &message.structs {
            emit_struct(&mut out, message, s);
        }
    }
    out.push_str("macro_rules! every_message {\n($each:ident) => {\n[\n");
    for message in messages {
        let _ = writeln!(out, "$each!({}),", message.name);
    }
    out.push_str("]\n}\n}\n");
    out
}

fn emit_struct(out: &mut String, message: &Message, s: &Struct) {
    let (module, name) = (snake(&message.name), &s.name);
    let _ = writeln!(
        out,
        "impl Arbitrary for m::{module}::{name} {{\nfn arbitrary(g: &mut Gen<'_>, v: i16) -> Self {{\n\
         let _ = (&g, v);\nlet mut x = Self::default();"
    );
    for f in &s.fields {
        let set = format!("x.{} = {}", ident(&f.name), make(f));
        let _ = match condition(f.versions, s.versions) {
            None => writeln!(out, "{set};"),
            Some(c) => writeln!(out, "if {c} {{ {set}; }}"),
        };
    }
    if let Some(from) = message.flexible {
        let tags: Vec<u32> = s.fields.iter().filter_map(|f| f.tag).collect();
        let _ = writeln!(
            out,
            "if v >= {from} {{ x.unknown_tagged_fields = g.tags(&{tags:?}); }}"
        );
    }
    out.push_str("x\n}\n}\n");
}

fn make(f: &Field) -> String {
    let element = |ty: &Type| match ty {
        Type::Bool => "g.bool()".to_owned(),
        Type::I8 => "g.int(1) as i8".to_owned(),
        Type::I16 => "g.int(2) as i16".to_owned(),
        Type::U16 => "g.int(2) as u16".to_owned(),
        Type::I32 => "g.int(4) as i32".to_owned(),
        Type::U32 => "g.int(4) as u32".to_owned(),
        Type::I64 => "g.int(8) as i64".to_owned(),
        Type::F64 => "g.f64()".to_owned(),
        Type::Uuid => "g.uuid()".to_owned(),
        Type::Str => "g.string()".to_owned(),
        Type::Bytes => "g.bytes()".to_owned(),
        Type::Records => "Records::Bytes(g.bytes())".to_owned(),
        Type::Struct(_) => "Arbitrary::arbitrary(g, v)".to_owned(),
        Type::Array(_) => unreachable!("arrays of arrays don't exist"),
    };
    let value = match &f.ty {
        Type::Array(of) => format!("g.array(|g| {})", element(of)),
        plain => element(plain),
    };
    match f.nullable {
        None => value,
        Some(n) => match condition(n, f.versions) {
            None => format!("g.maybe(|g| {value})"),
            Some(c) => format!("g.maybe_if({c}, |g| {value})"),
        },
    }
}
