//! Compares with the `kafka-protocol` crate: messages and versions that it supports must be decoded and encoded alike.

use brokkr_wire::messages as ours;
use brokkr_wire::{Message, decode_exact, encode_to_bytes};
use bytes::{Bytes, BytesMut};
use kafka_protocol::messages as theirs;
use kafka_protocol::protocol::{Decodable, Encodable, Message as TheirMessage};
use proptest::prelude::RngExt;
use proptest::test_runner::TestRng;

use crate::support::{Arbitrary, Gen, random};

/// Number of arbitrary values for each message and version.
const ROUNDS: u64 = 24;

/// Messages that the oracle gets wrong, and why.
const THEIR_FAULTS: &[&str] = &[
    // It reads the field `version` into the variable that holds the message's version.
    "LeaderChangeMessage",
    "VotersRecord",
];

/// The message in both implementations.
struct Pair {
    name: &'static str,
    /// Compares them; returns the number of common versions, or the difference.
    compare: fn(&mut TestRng) -> Result<usize, String>,
}

fn their_bytes<T: Encodable>(value: &T, v: i16) -> Option<Bytes> {
    let mut bytes = BytesMut::new();
    value.encode(&mut bytes, v).ok()?;
    Some(bytes.freeze())
}

fn compare<O, T>(random: &mut TestRng) -> Result<usize, String>
where
    O: Message + Arbitrary,
    T: TheirMessage + Encodable + Decodable + Default + std::fmt::Debug,
{
    let both = O::MIN_VERSION.max(T::VERSIONS.min)..=O::MAX_VERSION.min(T::VERSIONS.max);
    for v in both.clone() {
        // Theirs to ours. Their default may be null where null isn't allowed: then they can't encode it either.
        if let Some(bytes) = their_bytes(&T::default(), v) {
            let back: O =
                decode_exact(bytes.clone(), v).map_err(|e| format!("{e}: their default, {bytes:x}"))?;
            let again = encode_to_bytes(&back, v).map_err(|e| e.to_string())?;
            if again != bytes {
                return Err(format!(
                    "version {v}: their default is {bytes:x}, to us {again:x}"
                ));
            }
        }
        for round in 0..ROUNDS {
            let mut seed = [0; 400];
            random.fill(&mut seed);
            let mut g = Gen::new(&seed);
            // They write unknown tags after the known ones, not in order.
            g.least_unknown_tag = (round % 2 == 0).then_some(1000);
            let value = O::arbitrary(&mut g, v);
            there_and_back::<O, T>(&value, v).map_err(|e| format!("version {v}: {e}: {value:?}"))?;
        }
    }
    Ok(both.count())
}

/// Encodes ours, decodes with theirs, and encodes again to the same bytes.
fn there_and_back<O: Message, T: Encodable + Decodable + std::fmt::Debug>(
    value: &O,
    v: i16,
) -> Result<(), String> {
    let bytes = encode_to_bytes(value, v).map_err(|e| e.to_string())?;
    let mut rest = bytes.clone();
    let there = T::decode(&mut rest, v).map_err(|e| format!("they can't read {bytes:x}: {e}"))?;
    if !rest.is_empty() {
        return Err(format!("they leave {rest:x} of {bytes:x}"));
    }
    let back = their_bytes(&there, v).ok_or_else(|| format!("they can't write {there:?}"))?;
    if back != bytes {
        return Err(format!("{bytes:x} comes back as {back:x}, {there:?}"));
    }
    Ok(())
}

macro_rules! pairs {
    ($($name:ident),* $(,)?) => {
        &[$(Pair { name: stringify!($name), compare: compare::<ours::$name, theirs::$name> }),*]
    };
}

/// All messages of the oracle.
#[rustfmt::skip]
const PAIRS: &[Pair] = pairs![
    AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, AddPartitionsToTxnRequest,
    AddPartitionsToTxnResponse, AddRaftVoterRequest, AddRaftVoterResponse, AllocateProducerIdsRequest,
    AllocateProducerIdsResponse, AlterClientQuotasRequest, AlterClientQuotasResponse,
    AlterConfigsRequest, AlterConfigsResponse, AlterPartitionReassignmentsRequest,
    AlterPartitionReassignmentsResponse, AlterPartitionRequest, AlterPartitionResponse,
    AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse, AlterShareGroupOffsetsRequest,
    AlterShareGroupOffsetsResponse, AlterUserScramCredentialsRequest, AlterUserScramCredentialsResponse,
    ApiVersionsRequest, ApiVersionsResponse, AssignReplicasToDirsRequest, AssignReplicasToDirsResponse,
    BeginQuorumEpochRequest, BeginQuorumEpochResponse, BrokerHeartbeatRequest, BrokerHeartbeatResponse,
    BrokerRegistrationRequest, BrokerRegistrationResponse, ConsumerGroupDescribeRequest,
    ConsumerGroupDescribeResponse, ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
    ConsumerProtocolAssignment, ConsumerProtocolSubscription, ControllerRegistrationRequest,
    ControllerRegistrationResponse, CreateAclsRequest, CreateAclsResponse, CreateDelegationTokenRequest,
    CreateDelegationTokenResponse, CreatePartitionsRequest, CreatePartitionsResponse,
    CreateTopicsRequest, CreateTopicsResponse, DefaultPrincipalData, DeleteAclsRequest,
    DeleteAclsResponse, DeleteGroupsRequest, DeleteGroupsResponse, DeleteRecordsRequest,
    DeleteRecordsResponse, DeleteShareGroupOffsetsRequest, DeleteShareGroupOffsetsResponse,
    DeleteShareGroupStateRequest, DeleteShareGroupStateResponse, DeleteTopicsRequest,
    DeleteTopicsResponse, DescribeAclsRequest, DescribeAclsResponse, DescribeClientQuotasRequest,
    DescribeClientQuotasResponse, DescribeClusterRequest, DescribeClusterResponse,
    DescribeConfigsRequest, DescribeConfigsResponse, DescribeDelegationTokenRequest,
    DescribeDelegationTokenResponse, DescribeGroupsRequest, DescribeGroupsResponse,
    DescribeLogDirsRequest, DescribeLogDirsResponse, DescribeProducersRequest,
    DescribeProducersResponse, DescribeQuorumRequest, DescribeQuorumResponse,
    DescribeShareGroupOffsetsRequest, DescribeShareGroupOffsetsResponse, DescribeTopicPartitionsRequest,
    DescribeTopicPartitionsResponse, DescribeTransactionsRequest, DescribeTransactionsResponse,
    DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse, ElectLeadersRequest,
    ElectLeadersResponse, EndQuorumEpochRequest, EndQuorumEpochResponse, EndTxnMarker, EndTxnRequest,
    EndTxnResponse, EnvelopeRequest, EnvelopeResponse, ExpireDelegationTokenRequest,
    ExpireDelegationTokenResponse, FetchRequest, FetchResponse, FetchSnapshotRequest,
    FetchSnapshotResponse, FindCoordinatorRequest, FindCoordinatorResponse,
    GetTelemetrySubscriptionsRequest, GetTelemetrySubscriptionsResponse, HeartbeatRequest,
    HeartbeatResponse, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
    InitProducerIdRequest, InitProducerIdResponse, InitializeShareGroupStateRequest,
    InitializeShareGroupStateResponse, JoinGroupRequest, JoinGroupResponse, KRaftVersionRecord,
    LeaderChangeMessage, LeaveGroupRequest, LeaveGroupResponse, ListConfigResourcesRequest,
    ListConfigResourcesResponse, ListGroupsRequest, ListGroupsResponse, ListOffsetsRequest,
    ListOffsetsResponse, ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
    ListTransactionsRequest, ListTransactionsResponse, MetadataRequest, MetadataResponse,
    OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse,
    OffsetFetchRequest, OffsetFetchResponse, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
    ProduceRequest, ProduceResponse, PushTelemetryRequest, PushTelemetryResponse,
    ReadShareGroupStateRequest, ReadShareGroupStateResponse, ReadShareGroupStateSummaryRequest,
    ReadShareGroupStateSummaryResponse, RemoveRaftVoterRequest, RemoveRaftVoterResponse,
    RenewDelegationTokenRequest, RenewDelegationTokenResponse, RequestHeader, ResponseHeader,
    SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
    ShareAcknowledgeRequest, ShareAcknowledgeResponse, ShareFetchRequest, ShareFetchResponse,
    ShareGroupDescribeRequest, ShareGroupDescribeResponse, ShareGroupHeartbeatRequest,
    ShareGroupHeartbeatResponse, SnapshotFooterRecord, SnapshotHeaderRecord, SyncGroupRequest,
    SyncGroupResponse, TxnOffsetCommitRequest, TxnOffsetCommitResponse, UnregisterBrokerRequest,
    UnregisterBrokerResponse, UpdateFeaturesRequest, UpdateFeaturesResponse, UpdateRaftVoterRequest,
    UpdateRaftVoterResponse, VoteRequest, VoteResponse, VotersRecord, WriteShareGroupStateRequest,
    WriteShareGroupStateResponse, WriteTxnMarkersRequest, WriteTxnMarkersResponse
];

#[test]
fn another_implementation_agrees() {
    let mut random = random(2);
    let mut versions = 0;
    let mut differ = Vec::new();
    for pair in PAIRS {
        match (pair.compare)(&mut random) {
            Ok(n) => versions += n,
            Err(e) => differ.push((pair.name, e)),
        }
    }
    let names: Vec<&str> = differ.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, THEIR_FAULTS, "{differ:#?}");
    assert_eq!((PAIRS.len(), versions), (185, 594));
}
