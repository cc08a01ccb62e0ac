//! Batches written and validated by Apache Kafka 4.3.0's own classes (`workloads/foreign/java/golden/GoldenBatches.java`).

use brokkr_types::{LeaderEpoch, Offset, UnixMillis};
use brokkr_wire::records::{
    Batch, BatchBuilder, CompressionConfig, CompressionType, ControlType, HEADER_LEN, Header, Origin,
    Records, Rules, TimestampType, Validated, compression, validate,
};
use bytes::Bytes;
use std::fmt::Write;

const MIB: usize = 1 << 20;
const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().map(|c| c.to_digit(16).unwrap() as u8).collect();
    digits
        .chunks_exact(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

fn hex(bytes: Option<&[u8]>) -> String {
    bytes.map_or("null".into(), |bytes| {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    })
}

/// The value of `name=` in a line of the golden files.
fn field<'a>(line: &'a str, name: &str) -> &'a str {
    let mut fields = line.split(' ').filter_map(|field| field.split_once('='));
    fields
        .find(|(field, _)| *field == name)
        .unwrap_or_else(|| panic!("no {name} in {line}"))
        .1
}

/// Converts Kafka's result for a batch to this crate's.
fn described(batch: &Batch) -> String {
    let header = &batch.header;
    let attributes = header.attributes;
    let codec = attributes.compression().unwrap();
    let unpacked = compression::decompress(codec, &batch.records_bytes(), MIB).unwrap();
    let mut out = format!(
        "header base_offset={} next_offset={} size={} epoch={} crc={} compression={codec} append_time={} \
         transactional={} control={} base_timestamp={} max_timestamp={} producer_id={} producer_epoch={} \
         base_sequence={} last_sequence={} count={}\ndecompressed_crc {}\n",
        header.base_offset,
        header.next_offset(),
        header.size_bytes(),
        header.partition_leader_epoch,
        header.crc,
        attributes.timestamp_type() == TimestampType::LogAppendTime,
        attributes.is_transactional(),
        attributes.is_control(),
        header.base_timestamp,
        header.max_timestamp,
        header.producer_id,
        header.producer_epoch,
        header.base_sequence,
        header.last_sequence(),
        header.records_count,
        crc32c::crc32c(&unpacked),
    );
    let records = batch.records(MIB).unwrap();
    for record in &records {
        let record = record.unwrap();
        let pair = |h: Header<'_>| format!("{}:{}", hex(Some(h.key)), hex(h.value));
        let headers: Vec<String> = record.headers.iter().map(pair).collect();
        if header.records_count <= 20 {
            writeln!(
                out,
                "record offset={} timestamp={} key={} value={} headers={}",
                header.record_offset(record.offset_delta),
                header.record_timestamp(record.timestamp_delta),
                hex(record.key),
                hex(record.value),
                headers.join(",")
            )
            .unwrap();
        }
    }
    out
}

/// Builds the same batch with this crate.
fn rewritten(batch: &Batch, records: &Records) -> Batch {
    let header = &batch.header;
    let codec = header.attributes.compression().unwrap();
    let mut builder = BatchBuilder::new()
        .compression(codec, codec.default_level())
        .at(header.base_offset, header.partition_leader_epoch)
        .producer(header.producer_id, header.producer_epoch, header.base_sequence);
    if header.attributes.is_transactional() {
        builder = builder.transactional();
    }
    if header.attributes.timestamp_type() == TimestampType::LogAppendTime {
        builder = builder.log_append_time(header.max_timestamp);
    }
    if header.attributes.is_control() {
        builder = builder.control();
    }
    for record in records {
        let record = record.unwrap();
        // Kafka counts deltas from the first record's own time also where the append's counts.
        let timestamp = UnixMillis(header.base_timestamp.0 + record.timestamp_delta);
        if header.attributes.is_control() {
            let control = ControlType::from_key(record.key).unwrap();
            builder.push_control(timestamp, control, record.value.unwrap());
        } else {
            let headers: Vec<Header<'_>> = record.headers.iter().collect();
            builder.push_at(record.offset_delta, timestamp, record.key, record.value, &headers);
        }
    }
    builder.build()
}

#[test]
fn kafkas_batches_are_read_as_kafka_reads_them() {
    let golden = include_str!("golden/batches.txt");
    let mut names = Vec::new();
    for case in golden.split("\n\n").filter(|case| !case.trim().is_empty()) {
        let (name, rest) = case.trim_start().split_once('\n').unwrap();
        let (bytes, expected) = rest.split_once('\n').unwrap();
        let bytes = Bytes::from(unhex(bytes.strip_prefix("bytes ").unwrap()));
        let batch = Batch::first(&bytes).unwrap();
        assert_eq!(batch.bytes, bytes, "{name}");
        batch.check_crc().unwrap();
        assert_eq!(described(&batch).trim_end(), expected.trim_end(), "{name}");

        let mut header = [0; HEADER_LEN];
        batch.header.encode(&mut header);
        assert_eq!(header, bytes[..HEADER_LEN], "{name}");

        let ours = rewritten(&batch, &batch.records(MIB).unwrap());
        if batch.header.attributes.compression() == Ok(CompressionType::None) {
            // The builder can't write the gap that compaction leaves after the last record.
            if name != "batch gaps" {
                assert_eq!(ours.bytes, batch.bytes, "{name}");
            }
        } else {
            // Another implementation of the codec may have another compression ratio.
            let unpacked = |text: String| {
                let decompressed = text.find("decompressed_crc").unwrap();
                text[decompressed..].to_owned()
            };
            assert_eq!(unpacked(described(&ours)), unpacked(described(&batch)), "{name}");
        }
        names.push(name);
    }
    assert_eq!(names.len(), 20, "{names:?}");
}

#[test]
fn kinds_of_control_records_are_kafkas() {
    let golden = include_str!("golden/batches.txt");
    let kind = |name: &str| {
        let case = golden
            .split("\n\n")
            .find(|case| case.trim_start().starts_with(&format!("batch {name}\n")));
        let bytes = Bytes::from(unhex(
            case.unwrap()
                .lines()
                .find_map(|l| l.strip_prefix("bytes "))
                .unwrap(),
        ));
        let batch = Batch::first(&bytes).unwrap();
        assert!(batch.header.attributes.is_control());
        let records = batch.records(MIB).unwrap();
        ControlType::from_key(records.iter().next().unwrap().unwrap().key).unwrap()
    };
    assert_eq!(kind("commit"), ControlType::Commit);
    assert_eq!(kind("abort"), ControlType::Abort);
    assert_eq!(kind("leader-change"), ControlType::LeaderChange);
    assert_eq!(kind("snapshot-header"), ControlType::SnapshotHeader);
    assert_eq!(kind("snapshot-footer"), ControlType::SnapshotFooter);
    assert_eq!(kind("kraft-version"), ControlType::KraftVersion);
    assert_eq!(kind("kraft-voters"), ControlType::KraftVoters);
}

fn rules(line: &str) -> Rules {
    let codec = |name: &str| {
        CompressionType::ALL
            .into_iter()
            .find(|codec| codec.name() == name)
            .unwrap()
    };
    Rules {
        compaction: field(line, "compaction") == "true",
        timestamp_type: match field(line, "append_time") {
            "true" => TimestampType::LogAppendTime,
            _ => TimestampType::CreateTime,
        },
        timestamp_before_max_ms: field(line, "before").parse().unwrap(),
        timestamp_after_max_ms: field(line, "after").parse().unwrap(),
        compression: match field(line, "compression") {
            "producer" => CompressionConfig::Producer,
            "none" => CompressionConfig::Uncompressed,
            name => CompressionConfig::Fixed {
                codec: codec(name),
                level: codec(name).default_level(),
            },
        },
        origin: if field(line, "client") == "true" {
            Origin::Client
        } else {
            Origin::Coordinator
        },
        ..Rules::default()
    }
}

fn check_accepted(name: &str, expected: &[u8], got: &Validated) {
    let placed = got.batch.placed(Offset(500), LeaderEpoch(11)).concat();
    let placed = Batch::first(&Bytes::from(placed)).unwrap();
    placed.check_crc().unwrap();
    let expected = Batch::first(&Bytes::copy_from_slice(expected)).unwrap();
    let compressed = placed.header.attributes.compression() != Ok(CompressionType::None);
    if got.rebuilt && compressed {
        let (mut ours, mut kafkas) = (placed.header, expected.header);
        (ours.crc, kafkas.crc) = (0, 0);
        (ours.batch_length, kafkas.batch_length) = (0, 0);
        assert_eq!(ours, kafkas, "{name}");
        let unpacked = |batch: &Batch| {
            let codec = batch.header.attributes.compression().unwrap();
            compression::decompress(codec, &batch.records_bytes(), MIB).unwrap()
        };
        assert_eq!(unpacked(&placed), unpacked(&expected), "{name}");
    } else {
        assert_eq!(placed.bytes, expected.bytes, "{name}");
    }
    assert_eq!(got.max_timestamp, expected.header.max_timestamp, "{name}");
    assert_eq!(got.records_count, expected.header.records_count, "{name}");
    if name.contains("claims-append-time") {
        // Kafka trusts the timestamp that such a batch claims, and keeps the differing timestamps of its records.
        return;
    }
    let has_max = expected.records(MIB).unwrap().iter().position(|record| {
        let timestamp = expected.header.record_timestamp(record.unwrap().timestamp_delta);
        timestamp == expected.header.max_timestamp
    });
    // No record has it if all are before 1970; Kafka's maximum timestamp is then -1.
    assert_eq!(
        got.offset_delta_of_max_timestamp as usize,
        has_max.unwrap_or(0),
        "{name}"
    );
}

#[test]
fn batches_are_judged_as_by_kafka() {
    let golden = include_str!("golden/validated.txt");
    let (mut accepted, mut refused) = (0, 0);
    for case in golden.split("\n\n").filter(|case| !case.trim().is_empty()) {
        let [name, rule, bytes, verdict] = case.trim().lines().collect::<Vec<_>>()[..] else {
            panic!("{case}");
        };
        let bytes = Bytes::from(unhex(bytes.strip_prefix("bytes ").unwrap()));
        let got = validate(bytes, &rules(rule), NOW);
        if let Some(expected) = verdict.strip_prefix("accepted ") {
            let got = got.unwrap_or_else(|e| panic!("{name}: {e}"));
            check_accepted(name, &unhex(expected), &got);
            accepted += 1;
            continue;
        }
        let mut numbers = verdict
            .strip_prefix("refused ")
            .unwrap()
            .split(' ')
            .map(|n| n.parse::<i32>().unwrap());
        let code = numbers.next().unwrap();
        let error = got.err().unwrap_or_else(|| panic!("{name}: accepted"));
        // Where Kafka throws an exception without an error code, this crate returns a specific one.
        let code = if code == -1 { 87 } else { code };
        assert_eq!(i32::from(error.code()), code, "{name}: {error}");
        let indices: Vec<i32> = error.record_errors().iter().map(|(index, _)| *index).collect();
        assert_eq!(indices, numbers.collect::<Vec<_>>(), "{name}: {error}");
        refused += 1;
    }
    assert!(
        accepted > 50 && refused > 30,
        "{accepted} accepted, {refused} refused"
    );
}
