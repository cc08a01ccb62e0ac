//! Decodes forms to operations.

use serde_json::Value;

use super::form::{Fault, Form, Kind};
use crate::{Key, MicroOp, NEMESIS, Op, Operation, Polls, Process, Type, UNKNOWN_OFFSET, Val};

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
    let (mut rebalanced, mut seek_to_beginning) = (Vec::new(), false);
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
            _ => {}
        }
    }
    let lacks = |what| Fault::new(at, format!("the operation has no {what:?}"));
    let f = f.ok_or_else(|| lacks("f"))?;
    Ok(Operation {
        index: index.unwrap_or(due),
        time,
        type_: type_.ok_or_else(|| lacks("type"))?,
        process: process.ok_or_else(|| lacks("process"))?,
        op: op_of(f, value)?,
        rebalanced,
        seek_to_beginning,
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

fn op_of(f: String, value: Form) -> Result<Op, Fault> {
    match f.as_str() {
        "send" => micro_ops(value).map(Op::Send),
        "poll" => micro_ops(value).map(Op::Poll),
        "txn" => micro_ops(value).map(Op::Txn),
        "assign" => keys(value).map(Op::Assign),
        "subscribe" => keys(value).map(Op::Subscribe),
        _ => Ok(Op::Other(f, json(value))),
    }
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
        other => {
            let what = format!("a value is an integer, a text or nothing, not {}", other.what());
            Err(Fault::new(form.at, what))
        }
    }
}

fn offset(form: &Form) -> Result<i64, Fault> {
    match form.kind {
        Kind::Int(n) if n >= 0 => Ok(n),
        Kind::Null => Ok(UNKNOWN_OFFSET),
        _ => Err(Fault::new(form.at, "an offset is a natural number, or nothing")),
    }
}

fn pair(form: Form) -> Result<(i64, Val), Fault> {
    let at = form.at;
    let forms = list(form, "[offset, value] is due")?;
    match <[Form; 2]>::try_from(forms) {
        Ok([at, value]) => Ok((offset(&at)?, val(value)?)),
        Err(_) => Err(Fault::new(at, "[offset, value] is due")),
    }
}

fn micro_ops(form: Form) -> Result<Vec<MicroOp>, Fault> {
    let forms = list(form, "a list of micro-operations is due")?;
    forms.into_iter().map(micro_op).collect()
}

fn micro_op(form: Form) -> Result<MicroOp, Fault> {
    const DUE: &str = "[\"send\", key, value] or [\"poll\", {…}] is due";
    let at = form.at;
    let mut parts = list(form, DUE)?.into_iter();
    let name = parts.next().ok_or_else(|| Fault::new(at, DUE))?;
    let (name_at, name) = (name.at, name_of(name)?);
    let op = match (name.as_str(), parts.next(), parts.next()) {
        ("send", Some(to), Some(value)) => send(key(to)?, value)?,
        ("send", _, _) => return Err(Fault::new(at, "a send has a key and a value")),
        ("poll", None, None) => MicroOp::Poll(None),
        ("poll", Some(came), None) => MicroOp::Poll(polls(came)?),
        ("poll", _, _) => return Err(Fault::new(at, "a poll has one map")),
        _ => return Err(Fault::new(name_at, format!("no micro-operation {name:?}"))),
    };
    match parts.next() {
        None => Ok(op),
        Some(more) => Err(Fault::new(more.at, "nothing is due here")),
    }
}

fn send(key: Key, value: Form) -> Result<MicroOp, Fault> {
    let (offset, value) = match value.kind {
        Kind::List(_) => pair(value)?,
        _ => (UNKNOWN_OFFSET, val(value)?),
    };
    let offset = (offset != UNKNOWN_OFFSET).then_some(offset);
    Ok(MicroOp::Send { key, offset, value })
}

fn polls(form: Form) -> Result<Option<Polls>, Fault> {
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
    let mut polls = Polls::new();
    for (name, records) in entries {
        let records = list(records, "a list of [offset, value] is due")?;
        let records: Result<Vec<_>, _> = records.into_iter().map(pair).collect();
        polls.insert(key(name)?, records?);
    }
    Ok(Some(polls))
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
