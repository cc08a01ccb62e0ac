//! Every kind of decoding and encoding error, with the position it reports.

use brokkr_wire::messages::fetch_request::{FetchPartition, FetchTopic, ReplicaState};
use brokkr_wire::messages::{
    BrokerHeartbeatRequest, FetchRequest, HeartbeatRequest, JoinGroupRequest, Message, MetadataRecord,
    MetadataRequest, NoOpRecord, ProduceRequest, ResponseHeader, TopicRecord,
};
use brokkr_wire::{
    DecodeErrorKind, EncodeErrorKind, ErrorCode, RawTaggedField, Records, Writer, decode_exact,
    encode_to_bytes,
};
use bytes::Bytes;

/// The kind, field and offset of the error for these bytes.
fn refused<M: Message>(bytes: &[u8], version: i16) -> (DecodeErrorKind, &'static str, usize) {
    let error = decode_exact::<M>(Bytes::copy_from_slice(bytes), version).expect_err("it must be refused");
    assert_eq!(error.message(), M::NAME);
    (error.kind(), error.field(), error.offset())
}

#[test]
fn tags_must_ascend_exist_and_fill_their_size() {
    // A response header of version 1: a correlation id, then tags.
    let header = |tags: &[u8]| refused::<ResponseHeader>(&[&[0, 0, 0, 1], tags].concat(), 1);
    let at = "ResponseHeader";
    assert_eq!(
        header(&[2, 5, 0, 5, 0]),
        (DecodeErrorKind::DuplicateTag(5), at, 8)
    );
    assert_eq!(header(&[2, 5, 0, 4, 0]), (DecodeErrorKind::TagOrder(4), at, 8));
    assert_eq!(
        header(&[1, 5, 9, 0]),
        (DecodeErrorKind::Truncated { needed: 9, left: 1 }, at, 7)
    );
    assert_eq!(
        header(&[1]),
        (DecodeErrorKind::Truncated { needed: 1, left: 0 }, at, 5)
    );
    assert_eq!(
        header(&[0xff, 0xff, 0xff, 0xff, 0x1f]),
        (DecodeErrorKind::BadVarint, at, 4)
    );
    assert_eq!(header(&[0, 9]), (DecodeErrorKind::TrailingBytes(1), "", 5));

    // Broker id, epoch, metadata offset, three flags; `offline_log_dirs` (tag 0) exists from version 1 on.
    let heartbeat = |tags: &[u8]| [&[0; 22], tags].concat();
    assert_eq!(
        refused::<BrokerHeartbeatRequest>(&heartbeat(&[1, 0, 1, 1]), 0),
        (
            DecodeErrorKind::TagNotInVersion(0),
            "BrokerHeartbeatRequest.offline_log_dirs",
            25
        )
    );
    assert!(decode_exact::<BrokerHeartbeatRequest>(heartbeat(&[1, 0, 1, 1]).into(), 1).is_ok());
    assert_eq!(
        refused::<BrokerHeartbeatRequest>(&heartbeat(&[1, 0, 2, 1, 0]), 1),
        (DecodeErrorKind::TagSize { left: 1 }, "BrokerHeartbeatRequest", 26)
    );
    // An array in a tagged field must not exceed it: two ids of 16 bytes, of which the tag has one.
    let reaching = [&[1, 0, 17, 3], [0; 40].as_slice()].concat();
    assert_eq!(
        refused::<BrokerHeartbeatRequest>(&heartbeat(&reaching), 1).0,
        DecodeErrorKind::Truncated { needed: 16, left: 0 }
    );
}

#[test]
fn lengths_must_be_true() {
    let heartbeat = |bytes: &[u8]| refused::<HeartbeatRequest>(bytes, 0);
    assert_eq!(
        heartbeat(&[0xff, 0xfe]),
        (
            DecodeErrorKind::NegativeLength(-2),
            "HeartbeatRequest.group_id",
            2
        )
    );
    assert_eq!(
        heartbeat(&[0xff, 0xff]),
        (DecodeErrorKind::NullNotAllowed, "HeartbeatRequest.group_id", 2)
    );
    assert_eq!(
        heartbeat(&[0, 2, 0xc3, 0x28]),
        (DecodeErrorKind::InvalidUtf8, "HeartbeatRequest.group_id", 2)
    );
    assert_eq!(
        heartbeat(&[0, 5, b'a']),
        (
            DecodeErrorKind::Truncated { needed: 5, left: 1 },
            "HeartbeatRequest.group_id",
            2
        )
    );
    // A compact length can exceed Kafka's limit.
    let long = [&[0x81, 0x80, 0x02], [b'x'; 40_000].as_slice()].concat();
    assert_eq!(
        refused::<HeartbeatRequest>(&long, 4),
        (
            DecodeErrorKind::LengthTooLong(32_768),
            "HeartbeatRequest.group_id",
            3
        )
    );
    // Null topics mean all of them, from version 1 on.
    let null = [0xff, 0xff, 0xff, 0xff];
    assert_eq!(
        refused::<MetadataRequest>(&null, 0),
        (DecodeErrorKind::NullNotAllowed, "MetadataRequest.topics", 4)
    );
    assert_eq!(
        decode_exact(null.to_vec().into(), 1),
        Ok(MetadataRequest {
            topics: None,
            ..Default::default()
        })
    );
}

#[test]
fn metadata_records_are_framed() {
    let record = MetadataRecord::from(TopicRecord {
        name: "t".into(),
        ..Default::default()
    });
    let bytes = record.encode(0).expect("it is valid");
    assert_eq!(bytes[..5], [1, 2, 0, 2, b't']);
    assert_eq!(MetadataRecord::decode(bytes), Ok((record, 0)));
    let kind = |bytes: &'static [u8]| {
        MetadataRecord::decode(Bytes::from_static(bytes))
            .expect_err("it must be refused")
            .kind()
    };
    assert_eq!(kind(&[0, 2, 0]), DecodeErrorKind::UnknownFrameVersion(0));
    assert_eq!(kind(&[1, 6, 0]), DecodeErrorKind::UnknownRecordType(6));
    assert_eq!(
        kind(&[1, 0x80, 0x80, 0x04, 0]),
        DecodeErrorKind::UnknownRecordType(65_536)
    );
    assert_eq!(kind(&[1, 20, 1, 0]), DecodeErrorKind::UnknownVersion(1));
    assert_eq!(kind(&[1, 20, 0, 0, 0]), DecodeErrorKind::TrailingBytes(1));
    assert_eq!(MetadataRecord::from(NoOpRecord::default()).record_type(), 20);
}

#[test]
fn values_that_a_version_cannot_carry() {
    fn kind<M: Message>(message: &M, version: i16) -> (EncodeErrorKind, &'static str) {
        let error = encode_to_bytes(message, version).expect_err("it must be refused");
        assert_eq!(error.message(), M::NAME);
        (error.kind(), error.field())
    }
    let request = MetadataRequest {
        topics: None,
        ..Default::default()
    };
    assert_eq!(
        kind(&request, 0),
        (EncodeErrorKind::NullNotAllowed, "MetadataRequest.topics")
    );
    assert_eq!(kind(&request, 14), (EncodeErrorKind::UnknownVersion(14), ""));
    let request = JoinGroupRequest {
        group_id: "x".repeat(32_768).into(),
        ..Default::default()
    };
    assert_eq!(
        kind(&request, 9),
        (EncodeErrorKind::TooLong(32_768), "JoinGroupRequest.group_id")
    );

    // A tagged structure, in a version before it; and far inside, where the field's path still says what it was.
    let state = ReplicaState {
        replica_id: 3,
        ..Default::default()
    };
    let request = FetchRequest {
        replica_state: state,
        ..Default::default()
    };
    assert_eq!(
        kind(&request, 14),
        (EncodeErrorKind::NotInVersion(14), "FetchRequest.replica_state")
    );
    let partition = FetchPartition {
        last_fetched_epoch: 3,
        ..Default::default()
    };
    let topic = FetchTopic {
        partitions: vec![partition],
        ..Default::default()
    };
    let request = FetchRequest {
        topics: vec![topic],
        ..Default::default()
    };
    assert_eq!(
        kind(&request, 11),
        (
            EncodeErrorKind::NotInVersion(11),
            "FetchPartition.last_fetched_epoch"
        )
    );
    assert!(encode_to_bytes(&request, 12).is_ok());

    let tagged = |tags: &[u32]| FetchRequest {
        unknown_tagged_fields: tags
            .iter()
            .map(|&tag| RawTaggedField {
                tag,
                data: Bytes::new(),
            })
            .collect(),
        ..Default::default()
    };
    assert_eq!(
        kind(&tagged(&[9]), 11),
        (EncodeErrorKind::TagsNotInVersion(11), "FetchRequest")
    );
    for (tags, wrong) in [(&[1, 9], 1), (&[9, 9], 9), (&[9, 8], 8)] {
        assert_eq!(
            kind(&tagged(tags), 15),
            (EncodeErrorKind::TagOrder(wrong), "FetchRequest")
        );
    }
    assert!(encode_to_bytes(&tagged(&[2, 9]), 15).is_ok());
}

#[test]
fn external_records_have_no_bytes_to_copy() {
    use brokkr_wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
    let records = Some(Records::External { token: 1, len: 5 });
    let partition_data = vec![PartitionProduceData {
        records,
        ..Default::default()
    }];
    let topic_data = vec![TopicProduceData {
        partition_data,
        ..Default::default()
    }];
    let request = ProduceRequest {
        topic_data,
        ..Default::default()
    };
    let error = encode_to_bytes(&request, 9).expect_err("there are no bytes");
    assert_eq!(error.kind(), EncodeErrorKind::ExternalNotAllowed);
    let mut w = Writer::new();
    request.encode(&mut w, 9).expect("as parts it is valid");
    assert_eq!(w.into_parts().expect("as parts it is valid").len(), 3);
}

#[test]
fn error_codes() {
    let code = ErrorCode::NOT_LEADER_OR_FOLLOWER;
    assert_eq!(
        (code.0, code.to_string().as_str(), code.is_retriable()),
        (6, "NOT_LEADER_OR_FOLLOWER", true)
    );
    assert!(!ErrorCode::NONE.is_error() && ErrorCode::UNKNOWN_SERVER_ERROR.is_error());
    let later = ErrorCode::from(20_000);
    assert_eq!(
        (later.name(), later.is_retriable(), later.to_string().as_str()),
        (None, false, "error 20000")
    );
}
