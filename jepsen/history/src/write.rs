//! Writes histories one operation at a time, as JSON lines or EDN.

use std::fmt::Write as _;
use std::io::{self, Write};

use serde_json::Value;

use crate::micro::TOMBSTONE;
use crate::{
    Details, Digest, Key, MicroOp, NEMESIS, Op, Operation, Polls, Seek, Syntax, Type, UNKNOWN_OFFSET, Val,
};

/// Writes a history.
pub struct Writer<W: Write> {
    to: W,
    syntax: Syntax,
    line: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Writes JSON lines to `to`, which should be buffered.
    pub fn new(to: W) -> Self {
        Self::with_syntax(to, Syntax::Json)
    }

    /// Writes `syntax` to `to`, which should be buffered; one operation a line in both.
    pub fn with_syntax(to: W, syntax: Syntax) -> Self {
        let line = Vec::new();
        Self { to, syntax, line }
    }

    /// Writes an operation, as one line in one write.
    pub fn write(&mut self, operation: &Operation) -> io::Result<()> {
        self.line.clear();
        match self.syntax {
            Syntax::Json => serde_json::to_writer(&mut self.line, operation)?,
            Syntax::Edn => {
                let mut line = String::new();
                edn(&mut line, operation);
                self.line.extend_from_slice(line.as_bytes());
            }
        }
        self.line.push(b'\n');
        self.to.write_all(&self.line)
    }

    /// Hands everything that was written to the operating system, if the writer buffers.
    pub fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }

    /// Flushes and returns the writer.
    pub fn finish(mut self) -> io::Result<W> {
        self.to.flush()?;
        Ok(self.to)
    }
}

fn push(out: &mut String, what: impl std::fmt::Display) {
    write!(out, "{what}").expect("writing to a String never fails");
}

fn type_name(type_: Type) -> &'static str {
    match type_ {
        Type::Invoke => "invoke",
        Type::Ok => "ok",
        Type::Fail => "fail",
        Type::Info => "info",
    }
}

fn edn(out: &mut String, o: &Operation) {
    let type_ = type_name(o.type_);
    push(
        out,
        format_args!(
            "{{:index {}, :time {}, :type :{type_}, :process ",
            o.index, o.time
        ),
    );
    match o.process {
        NEMESIS => out.push_str(":nemesis"),
        n => push(out, n),
    }
    out.push_str(", :f ");
    name(out, o.op.f());
    out.push_str(", :value ");
    match &o.op {
        Op::Send(micro) | Op::Poll(micro) | Op::Txn(micro) => {
            vector(out, micro.iter().enumerate(), |out, (i, m)| {
                micro_op(out, m, i, &o.details);
            });
        }
        Op::Assign(keys) | Op::Subscribe(keys) => vector(out, keys, key),
        Op::Other(_, value) => json(out, value),
    }
    if !o.rebalanced.is_empty() {
        out.push_str(", :rebalance-log [{:keys ");
        vector(out, &o.rebalanced, key);
        out.push_str("}]");
    }
    if o.seek_to_beginning {
        out.push_str(", :seek-to-beginning? true");
    }
    if !o.seeks.is_empty() {
        out.push_str(", :seek {");
        for (i, (to, seek)) in o.seeks.iter().enumerate() {
            out.push_str(if i > 0 { ", " } else { "" });
            key(out, to);
            match seek {
                Seek::Beginning => out.push_str(" :beginning"),
                Seek::End => out.push_str(" :end"),
                Seek::Offset(offset) => push(out, format_args!(" {offset}")),
            }
        }
        out.push('}');
    }
    out.push('}');
}

fn vector<T>(out: &mut String, items: impl IntoIterator<Item = T>, mut each: impl FnMut(&mut String, T)) {
    out.push('[');
    for (i, item) in items.into_iter().enumerate() {
        if i > 0 {
            out.push(' ');
        }
        each(out, item);
    }
    out.push(']');
}

fn micro_op(out: &mut String, micro: &MicroOp, at: usize, details: &Details) {
    match micro {
        MicroOp::Send {
            key: to,
            offset,
            value,
        } => {
            out.push_str("[:send ");
            key(out, to);
            out.push(' ');
            let digest = details.digest(at, 0);
            match (offset, digest) {
                (None, None) => val(out, value),
                _ => record(out, offset.unwrap_or(UNKNOWN_OFFSET), value, digest),
            }
            if let Some(outcome) = details.outcome(at) {
                push(out, format_args!(" :{}", type_name(outcome)));
            }
            out.push(']');
        }
        MicroOp::Poll(None) => out.push_str("[:poll]"),
        MicroOp::Poll(Some(polled)) => {
            out.push_str("[:poll ");
            polls(out, polled, at, details);
            out.push(']');
        }
    }
}

fn polls(out: &mut String, polled: &Polls, at: usize, details: &Details) {
    out.push('{');
    let mut digests = (0..).map(|i| details.digest(at, i));
    for (i, (from, records)) in polled.iter().enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        key(out, from);
        out.push(' ');
        vector(out, records, |out, (offset, value)| {
            record(out, *offset, value, digests.next().flatten());
        });
    }
    out.push('}');
}

fn record(out: &mut String, offset: i64, value: &Val, digest: Option<Digest>) {
    out.push('[');
    match offset {
        UNKNOWN_OFFSET => out.push_str("nil"),
        n => push(out, n),
    }
    out.push(' ');
    val(out, value);
    if let Some(digest) = digest {
        push(out, format_args!(" {digest}"));
    }
    out.push(']');
}

/// Jepsen's keys are integers: a key that parses as one is written as one.
fn key(out: &mut String, key: &Key) {
    match key.as_str().parse::<i64>() {
        Ok(n) if n.to_string() == key.as_str() => push(out, n),
        _ => text(out, key.as_str()),
    }
}

fn val(out: &mut String, value: &Val) {
    match value {
        Val::Null => out.push_str("nil"),
        Val::Int(n) => push(out, n),
        Val::Text(s) => text(out, s),
        Val::Tombstone(n) => push(out, format_args!("{{:{TOMBSTONE} {n}}}")),
    }
}

fn text(out: &mut String, s: &str) {
    // JSON's escapes are also EDN's.
    push(out, Value::String(s.to_owned()));
}

/// A keyword, if the name is a valid one.
fn name(out: &mut String, s: &str) {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_?!*+.<>=$&%/".contains(c);
    if s.starts_with(|c: char| c.is_ascii_alphabetic()) && s.chars().all(plain) {
        out.push(':');
        out.push_str(s);
    } else {
        text(out, s);
    }
}

fn json(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("nil"),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => push(out, value),
        Value::Array(items) => vector(out, items, json),
        Value::Object(entries) => {
            out.push('{');
            for (i, (key, value)) in entries.iter().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                name(out, key);
                out.push(' ');
                json(out, value);
            }
            out.push('}');
        }
    }
}
