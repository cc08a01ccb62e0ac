//! The error codes of a response.

use brokkr_wire::messages as m;
use brokkr_wire::{ErrorCode, Message};

fn codes(response: &impl Message) -> Vec<i16> {
    let mut codes = Vec::new();
    response.error_codes(&mut |ErrorCode(code)| codes.push(code));
    codes
}

#[test]
fn all_error_codes_of_a_response_are_visited() {
    use m::produce_response::{PartitionProduceResponse, TopicProduceResponse};
    let partition = |error_code| PartitionProduceResponse {
        error_code,
        ..Default::default()
    };
    let topic = |partition_responses| TopicProduceResponse {
        partition_responses,
        ..Default::default()
    };
    let response = m::ProduceResponse {
        responses: vec![
            topic(vec![partition(0), partition(3)]),
            topic(vec![]),
            topic(vec![partition(87)]),
        ],
        ..Default::default()
    };
    assert_eq!(codes(&response), [0, 3, 87]);
    assert_eq!(codes(&m::ProduceResponse::default()), [0; 0]);

    let described = m::describe_configs_response::DescribeConfigsResult {
        error_code: 42,
        ..Default::default()
    };
    let response = m::DescribeConfigsResponse {
        results: vec![described],
        ..Default::default()
    };
    assert_eq!(codes(&response), [42]);
}

#[test]
fn the_error_code_of_the_whole_comes_with_those_of_its_parts() {
    let topic = m::fetch_response::FetchableTopicResponse {
        partitions: vec![m::fetch_response::PartitionData {
            error_code: 1,
            ..Default::default()
        }],
        ..Default::default()
    };
    let response = m::FetchResponse {
        error_code: 70,
        responses: vec![topic],
        ..Default::default()
    };
    assert_eq!(codes(&response), [70, 1]);
    let response = m::ApiVersionsResponse {
        error_code: 35,
        ..Default::default()
    };
    assert_eq!(codes(&response), [35]);
}

#[test]
fn requests_have_none() {
    assert_eq!(codes(&m::ProduceRequest::default()), [0; 0]);
    assert_eq!(codes(&m::FetchRequest::default()), [0; 0]);
}
