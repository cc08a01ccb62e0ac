//! Compares with bytes written by Apache Kafka 4.3.0's own classes (`workloads/foreign/java/golden/GoldenMessages.java`):
//! lines of `MessageName version hex`, `-` for no bytes. For each message and version the first line has the defaults, then
//! come one with every field set and one with null wherever it is allowed.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::support::CASES;

const GOLDEN: &str = include_str!("../golden/messages.txt");

/// The lines by message and version, in the file's order.
fn golden() -> BTreeMap<(&'static str, i16), Vec<Bytes>> {
    let mut all: BTreeMap<_, Vec<Bytes>> = BTreeMap::new();
    for line in GOLDEN.lines().filter(|line| !line.starts_with('#')) {
        let [name, version, hex] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("not `name version hex`: {line}");
        };
        let version = version.parse().expect("a version is a number");
        all.entry((name, version))
            .or_default()
            .push(if hex == "-" { Bytes::new() } else { unhex(hex) });
    }
    all
}

fn unhex(hex: &str) -> Bytes {
    let digit = |c: u8| char::from(c).to_digit(16).expect("a hex digit") as u8;
    assert!(
        hex.len().is_multiple_of(2) && !hex.is_empty(),
        "half a byte: {hex}"
    );
    hex.as_bytes()
        .chunks(2)
        .map(|pair| digit(pair[0]) << 4 | digit(pair[1]))
        .collect()
}

#[test]
fn kafkas_bytes_are_decoded_and_encoded_alike() {
    let golden = golden();
    for case in CASES {
        for v in case.versions() {
            for bytes in golden
                .get(&(case.name, v))
                .unwrap_or_else(|| panic!("no {} version {v}", case.name))
            {
                let again =
                    (case.recode)(bytes.clone(), v).unwrap_or_else(|e| panic!("version {v}: {e}: {bytes:x}"));
                assert_eq!(again, bytes, "{} version {v}", case.name);
            }
        }
    }
    let versions: usize = CASES.iter().map(|case| case.versions().count()).sum();
    assert_eq!(golden.len(), versions, "Kafka has versions that the tables lack");
}

#[test]
fn defaults_are_kafkas() {
    let golden = golden();
    let mut differ = Vec::new();
    for case in CASES {
        for v in case.versions() {
            let ours = (case.default)(v);
            if ours.as_ref() != golden.get(&(case.name, v)).and_then(|lines| lines.first()) {
                differ.push(format!("{} version {v}: {ours:?}", case.name));
            }
        }
    }
    assert_eq!(differ, Vec::<String>::new());
}
