//! Writes families of metrics one after the other with `prometheus-client`, and escapes labels.

use std::fmt::{self, Write};

use brokkr_types::{BOUNDS_MICROS, HistogramValues};
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeLabel, EncodeLabelSet, LabelSetEncoder,
    MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;

/// A writer of metric families.
pub struct Families<'a>(DescriptorEncoder<'a>);

impl<'a> Families<'a> {
    /// Writes to this encoder.
    pub fn new(encoder: DescriptorEncoder<'a>) -> Self {
        Self(encoder)
    }

    /// Starts a family of gauges.
    pub fn gauge<'s>(&'s mut self, name: &'s str, help: &str) -> Result<Gauges<'s>, fmt::Error> {
        let encoder = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        Ok(Gauges(encoder))
    }

    /// Starts a family of counters. The name is without `_total`, which each sample gets.
    pub fn counter<'s>(&'s mut self, name: &'s str, help: &str) -> Result<Counters<'s>, fmt::Error> {
        let encoder = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        Ok(Counters(encoder))
    }

    /// Starts a family of histograms in seconds.
    pub fn seconds<'s>(&'s mut self, name: &'s str, help: &str) -> Result<Histograms<'s>, fmt::Error> {
        self.histogram(name, help, 1e6)
    }

    /// Starts a family of histograms in milliseconds.
    pub fn millis<'s>(&'s mut self, name: &'s str, help: &str) -> Result<Histograms<'s>, fmt::Error> {
        self.histogram(name, help, 1e3)
    }

    fn histogram<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
        unit_micros: f64,
    ) -> Result<Histograms<'s>, fmt::Error> {
        let encoder = self
            .0
            .encode_descriptor(name, help, None, MetricType::Histogram)?;
        Ok(Histograms { encoder, unit_micros })
    }
}

/// A family of gauges that is being written.
pub struct Gauges<'a>(MetricEncoder<'a>);

impl Gauges<'_> {
    /// Writes one sample.
    pub fn with(&mut self, labels: &[(&str, &str)], value: impl EncodeGaugeValue) -> fmt::Result {
        match labels {
            [] => self.0.encode_gauge(&value),
            labels => self.0.encode_family(&Labels(labels))?.encode_gauge(&value),
        }
    }
}

/// A family of counters that is being written.
pub struct Counters<'a>(MetricEncoder<'a>);

impl Counters<'_> {
    /// Writes one sample.
    pub fn with(&mut self, labels: &[(&str, &str)], value: u64) -> fmt::Result {
        self.encode(labels, &value)
    }

    /// Writes one sample with a fraction.
    pub fn with_fraction(&mut self, labels: &[(&str, &str)], value: f64) -> fmt::Result {
        self.encode(labels, &value)
    }

    fn encode(&mut self, labels: &[(&str, &str)], value: &impl EncodeCounterValue) -> fmt::Result {
        let labels = Labels(labels);
        let mut family = match labels.0 {
            [] => return self.0.encode_counter::<NoLabelSet, _, f64>(value, None),
            _ => self.0.encode_family(&labels)?,
        };
        family.encode_counter::<NoLabelSet, _, f64>(value, None)
    }
}

/// A family of histograms that is being written.
pub struct Histograms<'a> {
    encoder: MetricEncoder<'a>,
    unit_micros: f64,
}

impl Histograms<'_> {
    /// Writes one sample.
    pub fn with(&mut self, labels: &[(&str, &str)], values: &HistogramValues) -> fmt::Result {
        let bounds = BOUNDS_MICROS
            .iter()
            .map(|micros| *micros as f64 / self.unit_micros);
        // The encoder writes the largest number as infinity, and sums the buckets up.
        let bounds = bounds.chain([f64::MAX]);
        let buckets: Vec<(f64, u64)> = bounds.zip(values.buckets).collect();
        let sum = values.sum_nanos as f64 / 1e3 / self.unit_micros;
        self.encoder
            .encode_family(&Labels(labels))?
            .encode_histogram::<NoLabelSet>(sum, values.count(), &buckets, None)
    }
}

/// Names and values of labels.
struct Labels<'a>(&'a [(&'a str, &'a str)]);

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        for (name, value) in self.0 {
            (*name, Escaped(value)).encode(encoder.encode_label())?;
        }
        Ok(())
    }
}

/// An escaped label value. `prometheus-client` does not escape values.
struct Escaped<'a>(&'a str);

impl prometheus_client::encoding::EncodeLabelValue for Escaped<'_> {
    fn encode(&self, encoder: &mut prometheus_client::encoding::LabelValueEncoder<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some(at) = rest.find(['\\', '"', '\n']) {
            let (plain, special) = rest.split_at(at);
            encoder.write_str(plain)?;
            encoder.write_str(match special.as_bytes()[0] {
                b'\n' => "\\n",
                b'"' => "\\\"",
                _ => "\\\\",
            })?;
            rest = &special[1..];
        }
        encoder.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use brokkr_types::Histogram;
    use prometheus_client::collector::Collector;
    use prometheus_client::encoding::text;
    use prometheus_client::registry::Registry;

    use super::*;

    fn written(write: fn(&mut Families<'_>) -> fmt::Result) -> String {
        #[derive(Debug)]
        struct Once(fn(&mut Families<'_>) -> fmt::Result);
        impl Collector for Once {
            fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
                self.0(&mut Families::new(encoder))
            }
        }
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Once(write)));
        let mut written = String::new();
        text::encode(&mut written, &registry).expect("a String takes everything");
        written
    }

    #[test]
    fn the_values_of_labels_are_escaped() {
        let text = written(|f| {
            f.gauge("g", "Help.")?
                .with(&[("a", "1\\2\"3\n4"), ("b", "")], 5u64)
        });
        assert_eq!(
            text,
            "# HELP g Help.\n# TYPE g gauge\ng{a=\"1\\\\2\\\"3\\n4\",b=\"\"} 5\n# EOF\n"
        );
    }

    #[test]
    fn a_histogram_is_written_in_its_unit() {
        let text = written(|f| {
            let histogram = Histogram::default();
            for micros in [40, 1_500, 2_000, 60_000_000] {
                histogram.record(Duration::from_micros(micros));
            }
            f.millis("h", "Help.")?.with(&[("a", "b")], &histogram.values())
        });
        for line in [
            "h_count{a=\"b\"} 4",
            "h_sum{a=\"b\"} 60003.54",
            "h_bucket{le=\"0.05\",a=\"b\"} 1",
            "h_bucket{le=\"1.0\",a=\"b\"} 1",
            "h_bucket{le=\"2.5\",a=\"b\"} 3",
            "h_bucket{le=\"30000.0\",a=\"b\"} 3",
            "h_bucket{le=\"+Inf\",a=\"b\"} 4",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in {text}");
        }
    }
}
