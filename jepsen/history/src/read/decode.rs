//! Decodes forms to operations.

use std::collections::BTreeMap;

use serde_json::Value;

use super::form::{Fault, Form, Kind, Place};
use crate::micro::TOMBSTONE;
use crate::{
    Details, Digest, Key, MicroOp, NEMESIS, Op, Operation, Polls, Process, Seek, Type, UNKNOWN_OFFSET, Val,
    names,
};

/// Decodes an operation. If it has no index, it gets `due`.
pub(crate) fn operation(form: Form, due: u64) -> Result<Operation, Fault> {
    let at = form.at;
    let Kind::Map(entries) = form.kind else {
        return Err(Fault::new(
            at,
            format!("an operation is a map, not {}", form.kind.what()),
        ));
    };
    let (mut index, mut time, mut type_, mut process) = (None, 0, None, None);
    let (mut f, mut value) = (None, Form { at, kind: Kind::Null });
    let (mut rebalanced, mut seek_to_beginning, mut seeks) = (Vec::new(), false, BTreeMap::new());
    for (name, form) in entries {
        let (Kind::Text(name) | Kind::Name(name)) = name.kind else {
            continue;
        };
        match name.as_str() {
            "index" => index = index_of(form, due)?,
            "time" => time = time_of(&form)?,
            "type" => type_ = Some(type_of(&form)?),
            "process" => process = Some(process_of(&form)?),
            "f" => f = Some(name_of(form)?),
            "value" => value = form,
            "rebalance-log" => rebalanced = rebalanced_of(form)?,
            "seek-to-beginning?" => seek_to_beginning = matches!(form.kind, Kind::Bool(true)),
            "seek" => seeks = seeks_of(form)?,
            _ => {}
        }
    }
    let lacks = |what| Fault::new(at, format!("the operation has no {what:?}"));
    let f = f.ok_or_else(|| lacks("f"))?;
    let mut details = Details::default();
    Ok(Operation {
        index: index.unwrap_or(due),
        time,
        type_: type_.ok_or_else(|| lacks("type"))?,
        process: process.ok_or_else(|| lacks("process"))?,
        op: op_of(f, value, &mut details)?,
        rebalanced,
        seek_to_beginning,
        seeks,
        details,
    })
}

fn index_of(form: Form, due: u64) -> Result<Option<u64>, Fault> {
    match form.kind {
        Kind::Null => Ok(None),
        Kind::Int(n) if u64::try_from(n) == Ok(due) => Ok(Some(due)),
        Kind::Int(n) => Err(Fault::new(form.at, format!("index {n}, not {due}"))),
        other => Err(Fault::new(
            form.at,
            format!("an index is an integer, not {}", other.what()),
        )),
    }
}

fn time_of(form: &Form) -> Result<i64, Fault> {
    match &form.kind {
        Kind::Int(n) => Ok(*n),
        Kind::Null => Ok(0),
        other => Err(Fault::new(
            form.at,
            format!("a time is an integer, not {}", other.what()),
        )),
    }
}

fn type_of(form: &Form) -> Result<Type, Fault> {
    match &form.kind {
        Kind::Text(s) | Kind::Name(s) => match s.as_str() {
            "invoke" => Ok(Type::Invoke),
            "ok" => Ok(Type::Ok),
            "fail" => Ok(Type::Fail),
            "info" => Ok(Type::Info),
            other => Err(Fault::new(
                form.at,
                format!("a type is invoke, ok, fail or info, not {other:?}"),
            )),
        },
        other => Err(Fault::new(
            form.at,
            format!("a type is a name, not {}", other.what()),
        )),
    }
}

fn process_of(form: &Form) -> Result<Process, Fault> {
    match &form.kind {
        Kind::Int(n) if let Ok(n) = Process::try_from(*n) => Ok(n),
        Kind::Text(s) | Kind::Name(s) if s == "nemesis" => Ok(NEMESIS),
        _ => Err(Fault::new(
            form.at,
            "a process is a natural number, or \"nemesis\"",
        )),
    }
}

fn name_of(form: Form) -> Result<String, Fault> {
    match form.kind {
        Kind::Text(s) | Kind::Name(s) => Ok(s),
        other => Err(Fault::new(
            form.at,
            format!("`f` is a name, not {}", other.what()),
        )),
    }
}

fn op_of(f: String, value: Form, details: &mut Details) -> Result<Op, Fault> {
    match f.as_str() {
        names::SEND => micro_ops(value, details).map(Op::Send),
        names::POLL => micro_ops(value, details).map(Op::Poll),
        names::TXN => micro_ops(value, details).map(Op::Txn),
        names::ASSIGN => keys(value).map(Op::Assign),
        names::SUBSCRIBE => keys(value).map(Op::Subscribe),
        _ => Ok(Op::Other(f, json(value))),
    }
}

/// Where a process reads on: `{key: offset, "beginning" or "end"}`.
fn seeks_of(form: Form) -> Result<BTreeMap<Key, Seek>, Fault> {
    let entries = match form.kind {
        Kind::Map(entries) => entries,
        Kind::Null => return Ok(BTreeMap::new()),
        other => {
            let what = format!("a map of seeks is due, not {}", other.what());
            return Err(Fault::new(form.at, what));
        }
    };
    let seek = |form: Form| match &form.kind {
        Kind::Int(n) if *n >= 0 => Ok(Seek::Offset(*n)),
        Kind::Text(s) | Kind::Name(s) if s == "beginning" => Ok(Seek::Beginning),
        Kind::Text(s) | Kind::Name(s) if s == "end" => Ok(Seek::End),
        _ => Err(Fault::new(
            form.at,
            "a seek is an offset, \"beginning\" or \"end\"",
        )),
    };
    let entries = entries.into_iter();
    entries.map(|(to, form)| Ok((key(to)?, seek(form)?))).collect()
}

/// A list's forms; null is an empty list.
fn list(form: Form, what: &str) -> Result<Vec<Form>, Fault> {
    match form.kind {
        Kind::List(forms) => Ok(forms),
        Kind::Null => Ok(Vec::new()),
        other => Err(Fault::new(form.at, format!("{what}, not {}", other.what()))),
    }
}

fn keys(form: Form) -> Result<Vec<Key>, Fault> {
    let forms = list(form, "a list of keys is due")?;
    forms.into_iter().map(key).collect()
}

fn key(form: Form) -> Result<Key, Fault> {
    match form.kind {
        Kind::Text(s) | Kind::Name(s) => Ok(s.into()),
        Kind::Int(n) => Ok(n.to_string().into()),
        other => Err(Fault::new(
            form.at,
            format!("a key is a text or an integer, not {}", other.what()),
        )),
    }
}

fn val(form: Form) -> Result<Val, Fault> {
    match form.kind {
        Kind::Null => Ok(Val::Null),
        Kind::Int(n) => Ok(Val::Int(n)),
        Kind::Text(s) | Kind::Name(s) => Ok(Val::Text(s.into())),
        Kind::Map(entries) => tombstone(form.at, &entries),
        other => {
            let what = format!("a value is an integer, a text or nothing, not {}", other.what());
            Err(Fault::new(form.at, what))
        }
    }
}

fn tombstone(at: Place, entries: &[(Form, Form)]) -> Result<Val, Fault> {
    if let [(name, number)] = entries
        && let (Kind::Text(name) | Kind::Name(name), Kind::Int(n)) = (&name.kind, &number.kind)
        && name == TOMBSTONE
    {
        return Ok(Val::Tombstone(*n));
    }
    let what = "a value is an integer, a text or nothing, not a map other than {\"tombstone\": number}";
    Err(Fault::new(at, what))
}

fn offset(form: &Form) -> Result<i64, Fault> {
    match form.kind {
        Kind::Int(n) if n >= 0 => Ok(n),
        Kind::Null => Ok(UNKNOWN_OFFSET),
        _ => Err(Fault::new(form.at, "an offset is a natural number, or nothing")),
    }
}

const RECORD: &str = "[offset, value] or [offset, value, digest] is due";

/// An offset, a value, and a digest if there is one.
type Record = (i64, Val, Option<Digest>);

fn record(form: Form) -> Result<Record, Fault> {
    let at = form.at;
    let mut parts = list(form, RECORD)?.into_iter();
    let (Some(place), Some(value), of, None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Fault::new(at, RECORD));
    };
    Ok((offset(&place)?, val(value)?, of.map(|f| digest(&f)).transpose()?))
}

fn digest(form: &Form) -> Result<Digest, Fault> {
    match form.kind {
        Kind::Int(n) if let Ok(digest) = Digest::try_from(n) => Ok(digest),
        _ => Err(Fault::new(form.at, "a digest is a natural number below 2³²")),
    }
}

fn micro_ops(form: Form, details: &mut Details) -> Result<Vec<MicroOp>, Fault> {
    let forms = list(form, "a list of micro-operations is due")?
        .into_iter()
        .enumerate();
    forms.map(|(at, form)| micro_op(form, at, details)).collect()
}

/// The micro-operation number `micro` of its operation.
fn micro_op(form: Form, micro: usize, details: &mut Details) -> Result<MicroOp, Fault> {
    const DUE: &str = "[\"send\", key, value] or [\"poll\", {…}] is due";
    let at = form.at;
    let mut parts = list(form, DUE)?.into_iter();
    let name = parts.next().ok_or_else(|| Fault::new(at, DUE))?;
    let (name_at, name) = (name.at, name_of(name)?);
    let op = match (name.as_str(), parts.next(), parts.next()) {
        (names::SEND, Some(to), Some(value)) => {
            let outcome = parts.next().map(|f| outcome(&f)).transpose()?;
            send(key(to)?, value, outcome, micro, details)?
        }
        (names::SEND, _, _) => return Err(Fault::new(at, "a send has a key and a value")),
        (names::POLL, None, None) => MicroOp::Poll(None),
        (names::POLL, Some(came), None) => MicroOp::Poll(polls(came, micro, details)?),
        (names::POLL, _, _) => return Err(Fault::new(at, "a poll has one map")),
        _ => return Err(Fault::new(name_at, format!("no micro-operation {name:?}"))),
    };
    match parts.next() {
        None => Ok(op),
        Some(more) => Err(Fault::new(more.at, "nothing is due here")),
    }
}

fn outcome(form: &Form) -> Result<Type, Fault> {
    match type_of(form)? {
        Type::Invoke => Err(Fault::new(form.at, "an outcome is ok, fail or info")),
        outcome => Ok(outcome),
    }
}

fn send(
    key: Key,
    form: Form,
    outcome: Option<Type>,
    micro: usize,
    details: &mut Details,
) -> Result<MicroOp, Fault> {
    let (offset, value, digest) = match form.kind {
        Kind::List(_) => record(form)?,
        _ => (UNKNOWN_OFFSET, val(form)?, None),
    };
    if let Some(outcome) = outcome {
        details.set_outcome(micro, outcome);
    }
    if let Some(digest) = digest {
        details.set_digest(micro, 0, digest);
    }
    let offset = (offset != UNKNOWN_OFFSET).then_some(offset);
    Ok(MicroOp::Send { key, offset, value })
}

fn polls(form: Form, micro: usize, details: &mut Details) -> Result<Option<Polls>, Fault> {
    let entries = match form.kind {
        Kind::Null => return Ok(None),
        Kind::Map(entries) => entries,
        other => {
            return Err(Fault::new(
                form.at,
                format!("a poll's map is due, not {}", other.what()),
            ));
        }
    };
    let mut by_key: BTreeMap<Key, Vec<Record>> = BTreeMap::new();
    for (name, records) in entries {
        let records = list(records, "a list of [offset, value] is due")?;
        let records: Result<Vec<_>, _> = records.into_iter().map(record).collect();
        by_key.insert(key(name)?, records?);
    }
    // Digests count the records of all keys, in the order of the keys.
    let digests = by_key.values().flatten().map(|(.., digest)| *digest);
    for (at, digest) in digests.enumerate() {
        if let Some(digest) = digest {
            details.set_digest(micro, at, digest);
        }
    }
    let pairs = |records: Vec<Record>| records.into_iter().map(|(offset, value, _)| (offset, value));
    let polls = by_key.into_iter();
    Ok(Some(
        polls
            .map(|(key, records)| (key, pairs(records).collect()))
            .collect(),
    ))
}

/// Keys whose partitions moved during the operation: `[{:keys [k …]} …]`.
fn rebalanced_of(form: Form) -> Result<Vec<Key>, Fault> {
    let mut all = Vec::new();
    for event in list(form, "a list of rebalances is due")? {
        let Kind::Map(entries) = event.kind else {
            return Err(Fault::new(event.at, "a rebalance is a map"));
        };
        for (name, form) in entries {
            if matches!(&name.kind, Kind::Text(s) | Kind::Name(s) if s == "keys") {
                all.extend(keys(form)?);
            }
        }
    }
    all.sort();
    all.dedup();
    Ok(all)
}

/// Any value as JSON; EDN's names become strings.
fn json(form: Form) -> Value {
    match form.kind {
        Kind::Null => Value::Null,
        Kind::Bool(b) => Value::Bool(b),
        Kind::Int(n) => Value::from(n),
        // JSON has no ratios: it stays as it was written.
        Kind::Number(n) => serde_json::from_str(&n).map_or(Value::String(n), Value::Number),
        Kind::Text(s) | Kind::Name(s) => Value::String(s),
        Kind::List(forms) => forms.into_iter().map(json).collect(),
        Kind::Map(entries) => {
            let text = |form| match json(form) {
                Value::String(s) => s,
                other => other.to_string(),
            };
            let entries = entries.into_iter().map(|(k, v)| (text(k), json(v)));
            Value::Object(entries.collect())
        }
    }
}
