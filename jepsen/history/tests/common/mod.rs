//! Arbitrary operations.

use brokkr_history::{MicroOp, Op, Operation, Polls, Seek, Type, Val};
use proptest::prelude::*;

fn val() -> impl Strategy<Value = Val> {
    prop_oneof![
        Just(Val::Null),
        any::<i64>().prop_map(Val::Int),
        ".{0,6}".prop_map(|s| Val::Text(s.into())),
        any::<i64>().prop_map(Val::Tombstone),
    ]
}

fn micro_op() -> impl Strategy<Value = MicroOp> {
    let key = prop_oneof!["[a-c]-[0-9]", "-?[0-9]{1,3}", ".{0,3}"];
    let records = proptest::collection::vec((-1i64..50, val()), 0..4);
    let polls = proptest::collection::btree_map(key.clone().prop_map(Into::into), records, 0..3);
    prop_oneof![
        (key, proptest::option::of(0i64..99), val()).prop_map(|(key, offset, value)| MicroOp::Send {
            key: key.into(),
            offset,
            value
        }),
        proptest::option::of(polls).prop_map(MicroOp::Poll),
    ]
}

fn records(micro: &MicroOp) -> usize {
    match micro {
        MicroOp::Send { .. } => 1,
        MicroOp::Poll(polls) => polls.iter().flat_map(Polls::values).map(Vec::len).sum(),
    }
}

/// Any operation that can be written and read.
pub fn operation() -> impl Strategy<Value = Operation> {
    let type_ = prop_oneof![
        Just(Type::Invoke),
        Just(Type::Ok),
        Just(Type::Fail),
        Just(Type::Info)
    ];
    let op = prop_oneof![
        proptest::collection::vec(micro_op(), 0..4).prop_map(Op::Txn),
        proptest::collection::vec("[a-c]-[0-9]".prop_map(Into::into), 0..3).prop_map(Op::Subscribe),
        (".{1,5}", ".{0,5}")
            .prop_map(|(f, v)| Op::Other(format!("x{f}"), serde_json::json!({ v: [1, null] }))),
    ];
    let seek = prop_oneof![
        Just(Seek::Beginning),
        Just(Seek::End),
        (0i64..9).prop_map(Seek::Offset)
    ];
    let seeks = proptest::collection::btree_map("[a-c]-[0-9]".prop_map(Into::into), seek, 0..3);
    let digests = proptest::collection::vec(proptest::option::of(any::<u32>()), 6);
    let operation = |(time, type_, process, op, seeks, digests): (_, _, _, _, _, Vec<Option<u32>>)| {
        let mut operation = Operation::new(0, time, type_, process, op);
        operation.seeks = seeks;
        let sizes: Vec<_> = operation.op.micro_ops().iter().map(records).collect();
        for (micro, size) in sizes.iter().enumerate() {
            for (record, digest) in digests.iter().enumerate().take(*size) {
                if let Some(digest) = digest {
                    operation.details.set_digest(micro, record, *digest);
                }
            }
            let is_send = matches!(operation.op.micro_ops()[micro], MicroOp::Send { .. });
            if is_send && digests[micro].is_some() {
                operation.details.set_outcome(micro, Type::Fail);
            }
        }
        operation
    };
    (any::<i64>(), type_, 0u64..9, op, seeks, digests).prop_map(operation)
}
