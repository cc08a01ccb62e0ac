//! A strict parser of the metrics text formats.

use std::collections::{BTreeMap, BTreeSet};

/// Samples by name and labels, as written.
pub type Samples = BTreeMap<String, f64>;

/// The labels in braces, with `le` separate.
fn labels(text: &str) -> (BTreeMap<String, String>, Option<f64>) {
    let (mut labels, mut le) = (BTreeMap::new(), None);
    let mut rest = text;
    while !rest.is_empty() {
        let (name, value) = rest
            .split_once("=\"")
            .unwrap_or_else(|| panic!("labels {text:?}"));
        let is_name = |name: &str| {
            name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        };
        assert!(is_name(name), "label {name:?}");
        let mut end = None;
        let mut escaped = false;
        for (at, c) in value.char_indices() {
            match c {
                _ if escaped => {
                    assert!(matches!(c, '\\' | '"' | 'n'), "escape in {text:?}");
                    escaped = false;
                }
                '\\' => escaped = true,
                '"' => {
                    end = Some(at);
                    break;
                }
                _ => {}
            }
        }
        let end = end.unwrap_or_else(|| panic!("labels {text:?}"));
        let (value, after) = value.split_at(end);
        match name {
            "le" => le = Some(number(value)),
            _ => assert!(
                labels.insert(name.to_owned(), value.to_owned()).is_none(),
                "{text:?}"
            ),
        }
        let after = &after[1..];
        rest = after.strip_prefix(',').unwrap_or(after);
        assert!(
            after.is_empty() || after.starts_with(',') && !rest.is_empty(),
            "{text:?}"
        );
    }
    (labels, le)
}

fn number(text: &str) -> f64 {
    match text {
        "+Inf" => f64::INFINITY,
        text => text.parse().unwrap_or_else(|_| panic!("number {text:?}")),
    }
}

/// The buckets of a histogram so far: bounds ascend and counts don't decrease.
#[derive(Default)]
struct Buckets {
    bound: Option<f64>,
    count: f64,
}

impl Buckets {
    fn take(&mut self, bound: f64, count: f64) {
        assert!(
            self.bound.is_none_or(|b| b < bound) && self.count <= count,
            "{bound} {count}"
        );
        (self.bound, self.count) = (Some(bound), count);
    }
}

/// Parses an exposition and checks its form: a family is HELP, TYPE, samples; each family and each sample occurs once;
/// samples have the suffixes of their type; the last bucket of a histogram is its count.
pub fn parse(exposition: &str, open_metrics: bool) -> Samples {
    let mut samples = Samples::new();
    let mut families = BTreeSet::new();
    let mut histograms: BTreeMap<String, Buckets> = BTreeMap::new();
    let (mut family, mut kind) = (String::new(), String::new());
    let mut help = None;
    let text = match open_metrics {
        true => exposition.strip_suffix("# EOF\n").expect("its end is marked"),
        false => exposition,
    };
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, words) = rest.split_once(' ').expect("words of help");
            assert!(help.is_none() && words.ends_with('.'), "{line}");
            help = Some(name.to_owned());
            continue;
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, of) = rest.split_once(' ').expect("a type");
            assert_eq!(help.take().as_deref(), Some(name), "{line}");
            assert!(["counter", "gauge", "histogram"].contains(&of), "{line}");
            assert!(families.insert(name.to_owned()), "{line}");
            assert_eq!(
                name.ends_with("_total"),
                of == "counter" && !open_metrics,
                "{line}"
            );
            (family, kind) = (name.to_owned(), of.to_owned());
            continue;
        }
        assert!(!line.starts_with('#') && help.is_none(), "{line}");
        let (sample, value) = line.rsplit_once(' ').expect("a value");
        let value = number(value);
        let (name, within) = match sample.split_once('{') {
            Some((name, rest)) => (name, rest.strip_suffix('}').expect("closed")),
            None => (sample, ""),
        };
        let (labels, le) = labels(within);
        let suffix = name
            .strip_prefix(&family)
            .unwrap_or_else(|| panic!("{line} in {family}"));
        let suffixes: &[&str] = match (kind.as_str(), open_metrics) {
            ("counter", true) => &["_total"],
            ("histogram", _) => &["_bucket", "_sum", "_count"],
            _ => &[""],
        };
        assert!(suffixes.contains(&suffix), "{line} in a {kind}");
        assert_eq!(le.is_some(), suffix == "_bucket", "{line}");
        assert!(kind == "gauge" || value >= 0.0, "{line}");
        if let Some(le) = le {
            histograms
                .entry(format!("{family}{labels:?}"))
                .or_default()
                .take(le, value);
        }
        if suffix == "_count" {
            samples.insert(format!("count of {family}{labels:?}"), value);
        }
        assert!(samples.insert(sample.to_owned(), value).is_none(), "{line} twice");
    }
    for (of, buckets) in &histograms {
        assert_eq!(buckets.bound, Some(f64::INFINITY), "{of}");
        assert_eq!(
            samples.remove(&format!("count of {of}")),
            Some(buckets.count),
            "{of}"
        );
    }
    samples
}
