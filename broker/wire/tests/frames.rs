//! Frames, byte by byte.

use brokkr_wire::frame::{
    decode_request_header, decode_response_header, encode_request, encode_response, request_header_peek,
};
use brokkr_wire::messages::api_versions_request::ApiVersionsRequest;
use brokkr_wire::messages::fetch_response::{FetchResponse, FetchableTopicResponse, PartitionData};
use brokkr_wire::messages::{ApiVersionsResponse, Message, ProduceRequest};
use brokkr_wire::{
    ApiKey, COPY_MAX, DecodeErrorKind, EncodeErrorKind, Part, Reader, Records, Str, Writer, decode_exact,
    encode_to_bytes,
};
use bytes::Bytes;

fn joined(parts: &[Part]) -> Vec<u8> {
    let mut all = Vec::new();
    for part in parts {
        match part {
            Part::Bytes(bytes) => all.extend_from_slice(bytes),
            Part::External { len, .. } => all.resize(all.len() + *len as usize, 0xee),
        }
    }
    all
}

#[test]
fn a_flexible_request() {
    let request = ApiVersionsRequest {
        client_software_name: "x".into(),
        client_software_version: "10".into(),
        ..Default::default()
    };
    let parts = encode_request(&request, 3, 7, Some(&Str::from("me"))).expect("it is valid");
    let frame = joined(&parts);
    #[rustfmt::skip]
    assert_eq!(frame, [
        0, 0, 0, 19, // size
        0, 18, 0, 3, 0, 0, 0, 7, 0, 2, b'm', b'e', 0, // header 2: its client id keeps two bytes of length
        2, b'x', 3, b'1', b'0', 0, // body
    ]);

    let frame = Bytes::from(frame).slice(4..);
    let peek = request_header_peek(&frame).expect("it is whole");
    assert_eq!((peek.api_key, peek.api_version, peek.correlation_id), (18, 3, 7));
    let mut r = Reader::new(frame.clone());
    let (key, header) = decode_request_header(&mut r).expect("it is whole");
    assert_eq!(
        (key, header.client_id.as_deref()),
        (ApiKey::ApiVersions, Some("me"))
    );
    assert_eq!(ApiVersionsRequest::decode(&mut r, 3), Ok(request));
    assert_eq!(r.expect_end(), Ok(()));
}

#[test]
fn the_header_of_an_api_versions_response_is_always_0() {
    for version in ApiKey::ApiVersions.versions() {
        let parts = encode_response(&ApiVersionsResponse::default(), ApiKey::ApiVersions, version, 5)
            .expect("it is valid");
        let frame = joined(&parts);
        let body = encode_to_bytes(&ApiVersionsResponse::default(), version).expect("it is valid");
        assert_eq!(frame[4..8], [0, 0, 0, 5]);
        assert_eq!(frame[8..], body);
    }
    assert_eq!(ApiKey::Fetch.response_header_version(12), 1);
    assert_eq!(ApiKey::Fetch.response_header_version(11), 0);
    // The key's version decides on the request's header, even where only one half of the pair is flexible there.
    assert_eq!(ApiKey::ApiVersions.request_header_version(99), 2);
}

#[test]
fn records_are_parts_of_their_own() {
    let in_memory = Bytes::from(vec![0xaa; COPY_MAX + 1]);
    let partition = |i, records| PartitionData {
        partition_index: i,
        records: Some(records),
        ..Default::default()
    };
    let response = FetchResponse {
        responses: vec![FetchableTopicResponse {
            partitions: vec![
                partition(0, Records::Bytes(in_memory.clone())),
                partition(
                    1,
                    Records::External {
                        token: 9,
                        len: 1 << 20,
                    },
                ),
                partition(2, Records::Bytes(Bytes::from_static(b"short"))),
            ],
            ..Default::default()
        }],
        ..Default::default()
    };
    for version in FetchResponse::versions() {
        let parts = encode_response(&response, ApiKey::Fetch, version, 1).expect("it is valid");
        let [
            Part::Bytes(first),
            Part::Bytes(records),
            Part::Bytes(_),
            external,
            Part::Bytes(_),
        ] = parts.as_slice()
        else {
            panic!("version {version}: {parts:?}");
        };
        assert_eq!(records.as_ptr(), in_memory.as_ptr(), "version {version}: copied");
        assert_eq!(
            external,
            &Part::External {
                token: 9,
                len: 1 << 20
            }
        );
        let size = parts.iter().map(Part::len).sum::<usize>() - 4;
        assert_eq!(first[..4], (size as u32).to_be_bytes());

        let frame = Bytes::from(joined(&parts)).slice(4..);
        let mut r = Reader::new(frame.clone());
        let header = decode_response_header(&mut r, ApiKey::Fetch, version).expect("it is whole");
        assert_eq!(header.correlation_id, 1);
        let back = FetchResponse::decode(&mut r, version).expect("it is whole");
        let lens: Vec<usize> = back.responses[0]
            .partitions
            .iter()
            .map(|p| p.records.as_ref().map_or(0, Records::len))
            .collect();
        assert_eq!(lens, [COPY_MAX + 1, 1 << 20, 5]);
        let Some(Records::Bytes(slice)) = &back.responses[0].partitions[1].records else {
            panic!("records decode to bytes");
        };
        assert!(
            frame.as_ptr_range().contains(&slice.as_ptr()),
            "version {version}: copied"
        );
    }
}

#[test]
fn errors_say_where() {
    // Acks, then the topics' count promises more than comes.
    let bytes = Bytes::from_static(&[0xff, 0xff, 0, 1, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff]);
    let error = decode_exact::<ProduceRequest>(bytes, 3).expect_err("nothing follows");
    assert_eq!(
        (error.message(), error.field()),
        ("ProduceRequest", "ProduceRequest.topic_data")
    );
    assert_eq!(
        (error.offset(), error.kind()),
        (12, DecodeErrorKind::LengthTooLong(i32::MAX as u32))
    );
    assert_eq!(
        error.to_string(),
        "ProduceRequest, ProduceRequest.topic_data at byte 12: a length of 2147483647 is too long"
    );

    let error = decode_exact::<ProduceRequest>(Bytes::new(), 14).expect_err("there is no such version");
    assert_eq!(error.kind(), DecodeErrorKind::UnknownVersion(14));

    // `error_code` is ignorable in Fetch, `session_id` is not.
    let response = FetchResponse {
        session_id: 1,
        error_code: 2,
        ..Default::default()
    };
    let error = encode_to_bytes(&response, 6).expect_err("version 6 has no sessions");
    assert_eq!(
        (error.field(), error.kind()),
        ("FetchResponse.session_id", EncodeErrorKind::NotInVersion(6))
    );
    assert!(encode_to_bytes(&response, 7).is_ok());
}

#[test]
fn a_long_tagged_field_gets_its_size_behind_it() {
    use brokkr_wire::messages::fetch_response::NodeEndpoint;
    let endpoint = |i| NodeEndpoint {
        node_id: i,
        host: "h".repeat(100).into(),
        port: 1,
        ..Default::default()
    };
    for n in [0, 1, 2, 300] {
        let response = FetchResponse {
            node_endpoints: (0..n).map(endpoint).collect(),
            ..Default::default()
        };
        let mut w = Writer::new();
        response.encode(&mut w, 16).expect("it is valid");
        let bytes = w.into_bytes().expect("it is valid");
        assert_eq!(decode_exact(bytes, 16), Ok(response));
    }
}
