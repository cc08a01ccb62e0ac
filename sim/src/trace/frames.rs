//! Reassembles requests and responses from the bytes that leave on each connection.

use std::borrow::Cow;
use std::collections::BTreeMap;

use brokkr_types::Uuid;
use brokkr_wire::frame::{decode_request_header, decode_response_header};
use brokkr_wire::messages::metadata_response::MetadataResponseTopic;
use brokkr_wire::messages::{FetchResponse, Message, MetadataResponse, ProduceRequest, ProduceResponse};
use brokkr_wire::{ApiKey, ErrorCode, Reader, Records};
use bytes::{Bytes, BytesMut};

use super::batches::batches_in;
use super::event::{Answer, EventKind, ObservedBatch};
use crate::net::EndId;

/// A longer frame is not Kafka's; its direction is no longer followed.
const FRAME_BYTES_MAX: usize = 64 << 20;

/// The bytes of each direction of each connection, up to the next complete frame.
#[derive(Default)]
pub struct Frames {
    /// By the sending end. None if its bytes can't be parsed.
    under_way: BTreeMap<EndId, Option<BytesMut>>,
    /// Requests on a connection that have no response yet.
    pending_requests: BTreeMap<(u64, i32), (ApiKey, i16)>,
    /// Names of topics by id, from Metadata responses: later versions of Produce and Fetch carry ids alone.
    topics: BTreeMap<Uuid, String>,
}

/// The connection that an end belongs to.
pub fn conn_of(end: EndId) -> u64 {
    end / 2
}

impl Frames {
    /// Takes bytes that leave from `end` for a node. Returns the frames that they complete.
    pub fn sent(&mut self, end: EndId, to: u32, piece: &Bytes) -> Vec<EventKind> {
        let slot = self.under_way.entry(end).or_insert_with(|| Some(BytesMut::new()));
        let Some(mut buffer) = slot.take() else {
            return Vec::new();
        };
        buffer.extend_from_slice(piece);
        let mut whole = Vec::new();
        while let Some(len) = buffer.first_chunk().map(|b| i32::from_be_bytes(*b)) {
            let len = usize::try_from(len).ok().filter(|l| *l <= FRAME_BYTES_MAX);
            let Some(len) = len else { return whole };
            if buffer.len() < 4 + len {
                break;
            }
            let frame = buffer.split_to(4 + len).freeze().slice(4..);
            // The client's end is even.
            let understood = match end % 2 {
                0 => self.request(conn_of(end), to, frame),
                _ => self.response(conn_of(end), to, frame),
            };
            whole.extend(understood);
        }
        self.under_way.insert(end, Some(buffer));
        whole
    }

    fn request(&mut self, conn: u64, to: u32, frame: Bytes) -> Option<EventKind> {
        let len = frame.len() as u64;
        let mut r = Reader::new(frame);
        let (api, header) = decode_request_header(&mut r).ok()?;
        let (version, correlation) = (header.request_api_version, header.correlation_id);
        self.pending_requests.insert((conn, correlation), (api, version));
        let batches = match api {
            ApiKey::Produce => ProduceRequest::decode(&mut r, version).map_or_else(|_| Vec::new(), produced),
            _ => Vec::new(),
        };
        Some(EventKind::Request {
            conn,
            to,
            api: Cow::Borrowed(api.name()),
            version,
            correlation,
            len,
            batches,
        })
    }

    fn response(&mut self, conn: u64, to: u32, frame: Bytes) -> Option<EventKind> {
        let len = frame.len() as u64;
        let correlation = frame.first_chunk().map(|b| i32::from_be_bytes(*b))?;
        let (api, version) = self.pending_requests.remove(&(conn, correlation))?;
        let mut r = Reader::new(frame);
        decode_response_header(&mut r, api, version).ok()?;
        let answers = match api {
            ApiKey::Produce => {
                ProduceResponse::decode(&mut r, version).map_or_else(|_| Vec::new(), |r| self.answered(r))
            }
            ApiKey::Fetch => {
                FetchResponse::decode(&mut r, version).map_or_else(|_| Vec::new(), |r| self.fetched(r))
            }
            ApiKey::Metadata => {
                if let Ok(response) = MetadataResponse::decode(&mut r, version) {
                    self.learn(response);
                }
                Vec::new()
            }
            _ => Vec::new(),
        };
        Some(EventKind::Response {
            conn,
            to,
            api: Cow::Borrowed(api.name()),
            correlation,
            len,
            answers,
        })
    }

    fn learn(&mut self, response: MetadataResponse) {
        let named = |t: MetadataResponseTopic| Some((t.topic_id, t.name?.to_string()));
        let named = response.topics.into_iter().filter_map(named);
        self.topics.extend(named.filter(|(id, _)| !id.is_zero()));
    }

    /// A topic's name, if the response or an earlier one has it.
    fn topic(&self, name: &str, id: Uuid) -> Option<String> {
        match name {
            "" => self.topics.get(&id).cloned(),
            name => Some(name.to_owned()),
        }
    }

    fn answered(&self, response: ProduceResponse) -> Vec<Answer> {
        let mut all = Vec::new();
        for of in response.responses {
            let topic = self.topic(&of.name, of.topic_id);
            all.extend(of.partition_responses.into_iter().map(|p| Answer {
                topic: topic.clone(),
                partition: p.index,
                error: error(p.error_code),
                base: Some(p.base_offset),
                log_start: known(p.log_start_offset),
                ..Answer::default()
            }));
        }
        all
    }

    fn fetched(&self, response: FetchResponse) -> Vec<Answer> {
        let mut all = Vec::new();
        for of in response.responses {
            let topic = self.topic(&of.topic, of.topic_id);
            all.extend(of.partitions.into_iter().map(|p| Answer {
                topic: topic.clone(),
                partition: p.partition_index,
                error: error(p.error_code),
                base: None,
                high_watermark: Some(p.high_watermark),
                last_stable_offset: known(p.last_stable_offset),
                log_start: known(p.log_start_offset),
                batches: observed(p.records),
            }));
        }
        all
    }
}

/// An offset, unless it is -1, Kafka's for none.
fn known(offset: i64) -> Option<i64> {
    (offset >= 0).then_some(offset)
}

fn observed(records: Option<Records>) -> Vec<ObservedBatch> {
    match records {
        Some(Records::Bytes(bytes)) => batches_in(bytes),
        _ => Vec::new(),
    }
}

fn produced(request: ProduceRequest) -> Vec<ObservedBatch> {
    let partitions = request.topic_data.into_iter().flat_map(|t| t.partition_data);
    partitions.flat_map(|p| observed(p.records)).collect()
}

fn error(code: i16) -> Option<String> {
    (code != 0).then(|| ErrorCode::from(code).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use brokkr_wire::Part;
    use brokkr_wire::frame::{encode_request, encode_response};
    use brokkr_wire::messages::{MetadataRequest, MetadataResponse};

    fn flat(parts: Vec<Part>) -> Bytes {
        let mut all = BytesMut::new();
        for part in parts {
            if let Part::Bytes(bytes) = part {
                all.extend_from_slice(&bytes);
            }
        }
        all.freeze()
    }

    #[test]
    fn pieces_become_frames_and_responses_match_their_requests() {
        let ask = |c| flat(encode_request(&MetadataRequest::default(), 12, c, None).expect("it is valid"));
        let two = [ask(7), ask(8)].concat();
        let mut frames = Frames::default();
        let mut seen = Vec::new();
        for piece in two.chunks(5) {
            seen.extend(frames.sent(4, 1, &Bytes::copy_from_slice(piece)));
        }
        let kinds: Vec<_> = seen
            .iter()
            .map(|w| match w {
                EventKind::Request {
                    conn,
                    api,
                    correlation,
                    ..
                } => (*conn, api.as_ref(), *correlation),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(kinds, [(2, "Metadata", 7), (2, "Metadata", 8)]);
        let reply =
            encode_response(&MetadataResponse::default(), ApiKey::Metadata, 12, 8).expect("it is valid");
        let kinds = frames.sent(5, 10, &flat(reply));
        assert!(
            matches!(
                &kinds[..],
                [EventKind::Response {
                    conn: 2,
                    correlation: 8,
                    ..
                }]
            ),
            "{kinds:?}"
        );
        // A Metadata response names the topics of later responses.
        let id = Uuid::from_random([7; 16]);
        let named = MetadataResponseTopic {
            name: Some("t0".into()),
            topic_id: id,
            ..MetadataResponseTopic::default()
        };
        frames.learn(MetadataResponse {
            topics: vec![named],
            ..MetadataResponse::default()
        });
        assert_eq!(frames.topic("", id).as_deref(), Some("t0"));
        assert_eq!(frames.topic("x", Uuid::ZERO).as_deref(), Some("x"));
        assert_eq!(frames.topic("", Uuid::ZERO), None);
        // An invalid frame stops the parsing of that direction only.
        assert!(frames.sent(4, 1, &Bytes::from_static(&[0xff; 9])).is_empty());
        assert!(frames.sent(4, 1, &ask(9)).is_empty());
    }
}
