//! The broker's counters: requests by API, version and error, their bytes and times, and the traffic of topics.
//!
//! Only counters: nothing here has a name or a format, reads a clock or influences a decision. `production/exposition.rs`
//! exports the values. A request costs some eight relaxed additions.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use brokkr_types::{Counter, Histogram};
use brokkr_wire::{ApiKey, ErrorCode, Message};

/// Error codes that are counted apart: from UNKNOWN_SERVER_ERROR (-1) up to this. Kafka 4.3.0 has 133; others are counted as
/// UNKNOWN_SERVER_ERROR.
const ERROR_CODE_MAX: i16 = 159;
/// Versions of an API that are counted apart: from 0 up to this. Later ones, which only ApiVersions answers, are counted as this one.
const VERSION_MAX: i16 = 31;

/// The counters of a broker.
pub struct Metrics {
    apis: Vec<ApiMetrics>,
    /// The index in `apis` of each API key.
    indexes: Vec<Option<u8>>,
    /// The traffic of all topics, deleted ones included.
    pub traffic: Arc<Traffic>,
}

/// The counters of one API.
pub struct ApiMetrics {
    /// The API.
    pub api_key: ApiKey,
    requests: [Counter; VERSION_MAX as usize + 1],
    errors: [Counter; ERROR_CODE_MAX as usize + 2],
    /// Bytes of requests, without their size fields.
    pub request_bytes: Counter,
    /// Bytes of responses, with their size fields.
    pub response_bytes: Counter,
    /// Time from a request's arrival until its response is complete.
    pub handler_time: Histogram,
    /// Time from a request's arrival until its response was handed to the kernel.
    pub total_time: Histogram,
}

impl Metrics {
    /// Counters for these APIs.
    pub fn new(served: &[ApiKey]) -> Self {
        let mut indexes = Vec::new();
        for (index, api_key) in served.iter().enumerate() {
            let number = *api_key as usize;
            if indexes.len() <= number {
                indexes.resize(number + 1, None);
            }
            indexes[number] = u8::try_from(index).ok();
        }
        Self {
            apis: served.iter().map(|api_key| ApiMetrics::new(*api_key)).collect(),
            indexes,
            traffic: Arc::default(),
        }
    }

    /// The counters of an API; `None` if it is not served.
    pub fn api(&self, api_key: ApiKey) -> Option<&ApiMetrics> {
        let index = self.indexes.get(api_key as usize).copied().flatten()?;
        self.apis.get(usize::from(index))
    }

    /// The counters of all APIs.
    pub fn apis(&self) -> &[ApiMetrics] {
        &self.apis
    }
}

impl ApiMetrics {
    fn new(api_key: ApiKey) -> Self {
        Self {
            api_key,
            requests: std::array::from_fn(|_| Counter::default()),
            errors: std::array::from_fn(|_| Counter::default()),
            request_bytes: Counter::default(),
            response_bytes: Counter::default(),
            handler_time: Histogram::default(),
            total_time: Histogram::default(),
        }
    }

    /// Counts a request that arrived.
    pub fn arrived(&self, version: i16, bytes: usize) {
        self.requests[version.clamp(0, VERSION_MAX) as usize].add(1);
        self.request_bytes.add(bytes as u64);
    }

    /// Counts a complete response with its error codes.
    pub fn handled(&self, response: &impl Message, bytes: usize, time: Duration) {
        self.response_bytes.add(bytes as u64);
        self.handler_time.record(time);
        // Mostly all partitions have the same code, which costs one addition.
        let (mut last, mut times) = (ErrorCode::NONE, 0);
        response.error_codes(&mut |code| {
            if code != last {
                self.count_errors(last, times);
                (last, times) = (code, 0);
            }
            times += 1;
        });
        self.count_errors(last, times);
    }

    fn count_errors(&self, code: ErrorCode, times: u64) {
        let known = if (-1..=ERROR_CODE_MAX).contains(&code.0) {
            code.0
        } else {
            -1
        };
        if times > 0 {
            self.errors[(known + 1) as usize].add(times);
        }
    }

    /// Requests by version, for versions with requests.
    pub fn requests(&self) -> impl Iterator<Item = (i16, u64)> {
        let by_version = (0..).zip(&self.requests).map(|(version, n)| (version, n.get()));
        by_version.filter(|(_, n)| *n > 0)
    }

    /// Error codes in responses, NONE included, for codes that occurred.
    pub fn errors(&self) -> impl Iterator<Item = (ErrorCode, u64)> {
        let by_code = (-1..)
            .zip(&self.errors)
            .map(|(code, n)| (ErrorCode(code), n.get()));
        by_code.filter(|(_, n)| *n > 0)
    }
}

/// The traffic of topics.
#[derive(Default, Debug)]
pub struct Traffic {
    /// Bytes of batches that were appended.
    pub bytes_in: Counter,
    /// Bytes of records in responses to Fetch.
    pub bytes_out: Counter,
    /// Records that were appended.
    pub messages_in: Counter,
    /// Batches in Produce requests.
    pub produce_requests: Counter,
    /// Partitions in Fetch responses.
    pub fetch_requests: Counter,
}

/// The traffic of one topic. It belongs to the topic's route: both end when the topic is deleted.
#[derive(Debug)]
pub struct TopicTraffic {
    /// The topic's own traffic.
    pub topic: Traffic,
    all: Arc<Traffic>,
}

impl TopicTraffic {
    /// The counters of a new topic; `all` is the traffic of all topics.
    pub fn new(all: &Arc<Traffic>) -> Arc<Self> {
        Arc::new(Self {
            topic: Traffic::default(),
            all: Arc::clone(all),
        })
    }

    /// Counts a batch of a Produce request.
    pub fn produced(&self) {
        for traffic in [&self.topic, &*self.all] {
            traffic.produce_requests.add(1);
        }
    }

    /// Counts an appended batch.
    pub fn appended(&self, bytes: usize, records: i32) {
        for traffic in [&self.topic, &*self.all] {
            traffic.bytes_in.add(bytes as u64);
            traffic.messages_in.add(u64::try_from(records).unwrap_or(0));
        }
    }

    /// Counts a partition in a Fetch response, with its bytes of records.
    pub fn fetched(&self, bytes: u64) {
        for traffic in [&self.topic, &*self.all] {
            traffic.fetch_requests.add(1);
            if bytes > 0 {
                traffic.bytes_out.add(bytes);
            }
        }
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use brokkr_wire::messages as m;
    use brokkr_wire::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};

    #[test]
    fn only_served_apis_have_counters() {
        let metrics = Metrics::new(&[ApiKey::DescribeTopicPartitions, ApiKey::Produce]);
        let of = |api_key| metrics.api(api_key).map(|api| api.api_key);
        assert_eq!(of(ApiKey::Produce), Some(ApiKey::Produce));
        assert_eq!(
            of(ApiKey::DescribeTopicPartitions),
            Some(ApiKey::DescribeTopicPartitions)
        );
        assert_eq!((of(ApiKey::Fetch), of(ApiKey::ListOffsets)), (None, None));
    }

    #[test]
    fn errors_are_counted_by_code_for_each_part_of_a_response() {
        let metrics = Metrics::new(&[ApiKey::Produce]);
        let api = metrics.api(ApiKey::Produce).expect("it is served");
        let partition = |error_code| PartitionProduceResponse {
            error_code,
            ..Default::default()
        };
        let response = m::ProduceResponse {
            responses: vec![TopicProduceResponse {
                partition_responses: [0, 0, 3, 0, 3, -1, i16::MAX, i16::MIN].map(partition).into(),
                ..Default::default()
            }],
            ..Default::default()
        };
        api.handled(&response, 100, Duration::from_millis(1));
        let errors: Vec<_> = api.errors().map(|(code, n)| (code.0, n)).collect();
        assert_eq!(errors, [(-1, 3), (0, 3), (3, 2)]);
        assert_eq!(
            (api.response_bytes.get(), api.handler_time.values().count()),
            (100, 1)
        );
    }

    #[test]
    fn requests_are_counted_by_version() {
        let metrics = Metrics::new(&[ApiKey::ApiVersions]);
        let api = metrics.api(ApiKey::ApiVersions).expect("it is served");
        for version in [3, 3, 4, i16::MAX, -7] {
            api.arrived(version, 10);
        }
        let requests: Vec<_> = api.requests().collect();
        assert_eq!(requests, [(0, 1), (3, 2), (4, 1), (VERSION_MAX, 1)]);
        assert_eq!(api.request_bytes.get(), 50);
    }

    #[test]
    fn every_error_code_of_kafka_is_counted_separately() {
        let last = (0..1000).filter(|code| ErrorCode(*code).name().is_some()).max();
        assert!(last.is_some_and(|last| last <= ERROR_CODE_MAX), "{last:?}");
    }

    #[test]
    fn the_traffic_of_a_topic_is_also_that_of_all() {
        let all = Arc::<Traffic>::default();
        let (a, b) = (TopicTraffic::new(&all), TopicTraffic::new(&all));
        a.produced();
        a.appended(100, 3);
        a.fetched(50);
        b.appended(10, 1);
        let of = |t: &Traffic| {
            [
                &t.bytes_in,
                &t.bytes_out,
                &t.messages_in,
                &t.produce_requests,
                &t.fetch_requests,
            ]
            .map(Counter::get)
        };
        assert_eq!(of(&a.topic), [100, 50, 3, 1, 1]);
        assert_eq!(of(&b.topic), [10, 0, 1, 0, 0]);
        assert_eq!(of(&all), [110, 50, 4, 1, 1]);
    }
}
