//! The works by name, with their parameters.

use crate::fetch::FetchSpec;
use crate::frames::Shape;
use crate::produce::ProduceSpec;

/// A work with its parameters.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it does, in one line.
    pub about: &'static str,
    /// Its parameters.
    pub kind: Kind,
}

/// The kinds of work.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Only produce.
    Produce(ProduceSpec),
    /// Produce for at least the window and `bytes_min` bytes, and at most `bytes_max`.
    Long {
        /// The load.
        produce: ProduceSpec,
        /// Minimum window.
        secs: f64,
        /// Minimum bytes.
        bytes_min: u64,
        /// Maximum bytes, since disks are finite.
        bytes_max: u64,
    },
    /// Fetch from the page cache.
    Fetch {
        /// The load.
        fetch: FetchSpec,
        /// Bytes in the topic.
        fill_bytes: u64,
    },
    /// Fetch from the disk while another topic is written at a rate.
    ColdRead {
        /// The readers.
        fetch: FetchSpec,
        /// Bytes in the topic that they read.
        fill_bytes: u64,
        /// The writers.
        produce: ProduceSpec,
    },
}

const BATCH_64K: ProduceSpec = ProduceSpec {
    partitions: 6,
    connections: 6,
    in_flight: 5,
    shape: Shape {
        records: 560,
        value_bytes: 100,
    },
    rate: None,
};
const ONE_KB: ProduceSpec = ProduceSpec {
    connections: 4,
    shape: Shape {
        records: 1,
        value_bytes: 1_000,
    },
    ..BATCH_64K
};
const BATCH_16K: ProduceSpec = ProduceSpec {
    shape: Shape {
        records: 16,
        value_bytes: 1_000,
    },
    ..BATCH_64K
};
const FETCH: FetchSpec = FetchSpec {
    partitions: 6,
    connections: 6,
    fetch_bytes: 1 << 20,
    batch: Shape {
        records: 64,
        value_bytes: 1_000,
    },
};

/// All works.
pub const WORKS: [Work; 13] = [
    Work {
        name: "produce-64k",
        about: "batches of 560 records of 100 bytes, 6 partitions, 6 connections, 5 requests in flight on each",
        kind: Kind::Produce(BATCH_64K),
    },
    Work {
        name: "produce-64x1k",
        about: "the same with batches of 64 records of 1 KB",
        kind: Kind::Produce(ProduceSpec {
            shape: Shape {
                records: 64,
                value_bytes: 1_000,
            },
            ..BATCH_64K
        }),
    },
    Work {
        name: "one-record",
        about: "one record of 100 bytes a request, 6 partitions, 4 connections, 512 requests in flight on each",
        kind: Kind::Produce(ProduceSpec {
            connections: 4,
            in_flight: 512,
            shape: Shape {
                records: 1,
                value_bytes: 100,
            },
            ..BATCH_64K
        }),
    },
    Work {
        name: "fetch",
        about: "1 GiB in 6 partitions read over and over from the page cache, 6 connections, 1 MiB a fetch",
        kind: Kind::Fetch {
            fetch: FETCH,
            fill_bytes: 1 << 30,
        },
    },
    Work {
        name: "fetch-8k",
        about: "the same with batches of 8 records of 1 KB, 8 KiB a fetch",
        kind: Kind::Fetch {
            fetch: FetchSpec {
                fetch_bytes: 8 << 10,
                batch: Shape {
                    records: 8,
                    value_bytes: 1_000,
                },
                ..FETCH
            },
            fill_bytes: 256 << 20,
        },
    },
    Work {
        name: "latency-1k",
        about: "1,000 records of 1 KB a second, each in a request of its own, 6 partitions, 4 connections",
        kind: Kind::Produce(ProduceSpec {
            rate: Some(1_000.0),
            ..ONE_KB
        }),
    },
    Work {
        name: "latency-20k",
        about: "20,000 of them",
        kind: Kind::Produce(ProduceSpec {
            rate: Some(20_000.0),
            ..ONE_KB
        }),
    },
    Work {
        name: "partitions-1",
        about: "batches of 16 records of 1 KB to 1 partition, 6 connections, 5 requests in flight on each",
        kind: Kind::Produce(ProduceSpec {
            partitions: 1,
            ..BATCH_16K
        }),
    },
    Work {
        name: "partitions-100",
        about: "the same to 100 partitions, round-robin",
        kind: Kind::Produce(ProduceSpec {
            partitions: 100,
            ..BATCH_16K
        }),
    },
    Work {
        name: "partitions-1000",
        about: "the same to 1,000 partitions, round-robin",
        kind: Kind::Produce(ProduceSpec {
            partitions: 1_000,
            ..BATCH_16K
        }),
    },
    Work {
        name: "connections",
        about: "1,000 connections with one request of 1 KB in flight each, 6 partitions",
        kind: Kind::Produce(ProduceSpec {
            connections: 1_000,
            in_flight: 1,
            ..ONE_KB
        }),
    },
    Work {
        name: "cold-read-beside-produce",
        about: "2 GiB read from the disk over and over by 2 connections, while latency-1k's load is written",
        kind: Kind::ColdRead {
            fetch: FetchSpec {
                connections: 2,
                ..FETCH
            },
            fill_bytes: 2 << 30,
            produce: ProduceSpec {
                rate: Some(1_000.0),
                ..ONE_KB
            },
        },
    },
    Work {
        name: "long",
        about: "produce-64k for at least 60 s and 10 GiB, at most 20 GiB",
        kind: Kind::Long {
            produce: BATCH_64K,
            secs: 60.0,
            bytes_min: 10 << 30,
            bytes_max: 20 << 30,
        },
    },
];

/// The work of this name, or the works of this family (`latency` is `latency-1k` and `latency-20k`).
pub fn named(name: &str) -> Option<Vec<Work>> {
    let family = |work: &&Work| {
        work.name
            .strip_prefix(name)
            .is_some_and(|rest| rest.starts_with('-'))
    };
    let exact: Vec<Work> = WORKS.iter().filter(|work| work.name == name).copied().collect();
    if !exact.is_empty() {
        return Some(exact);
    }
    let family: Vec<Work> = WORKS.iter().filter(family).copied().collect();
    (!family.is_empty()).then_some(family)
}

/// Parameters that the command line overrides in every work.
#[derive(Clone, Copy, Default, Debug)]
pub struct Overrides {
    /// Connections.
    pub connections: Option<usize>,
    /// Requests in flight on each connection.
    pub in_flight: Option<usize>,
    /// Requests per second, if the work has a rate.
    pub rate: Option<f64>,
    /// Bytes to fill a topic with, and the minimum that `long` writes.
    pub bytes: Option<u64>,
}

impl Work {
    /// The work with overridden parameters.
    #[must_use]
    pub fn with(mut self, over: Overrides) -> Self {
        let produce = |spec: &mut ProduceSpec| {
            spec.connections = over.connections.unwrap_or(spec.connections);
            spec.in_flight = over.in_flight.unwrap_or(spec.in_flight);
            spec.rate = spec.rate.map(|rate| over.rate.unwrap_or(rate));
        };
        match &mut self.kind {
            Kind::Produce(spec) => produce(spec),
            Kind::Long {
                produce: spec,
                bytes_min,
                bytes_max,
                ..
            } => {
                produce(spec);
                *bytes_min = over.bytes.unwrap_or(*bytes_min);
                *bytes_max = (*bytes_max).max(*bytes_min);
            }
            Kind::Fetch { fetch, fill_bytes } => {
                fetch.connections = over.connections.unwrap_or(fetch.connections);
                *fill_bytes = over.bytes.unwrap_or(*fill_bytes);
            }
            Kind::ColdRead {
                fill_bytes,
                produce: spec,
                ..
            } => {
                produce(spec);
                *fill_bytes = over.bytes.unwrap_or(*fill_bytes);
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_selects_a_work_or_a_family_but_not_a_prefix() {
        let names = |name: &str| named(name).map(|works| works.iter().map(|w| w.name).collect::<Vec<_>>());
        assert_eq!(names("fetch"), Some(vec!["fetch"]));
        assert_eq!(names("latency"), Some(vec!["latency-1k", "latency-20k"]));
        assert_eq!(names("partitions-1"), Some(vec!["partitions-1"]));
        assert_eq!(names("partitions").map(|n| n.len()), Some(3));
        assert_eq!(names("lat"), None);
    }
}
