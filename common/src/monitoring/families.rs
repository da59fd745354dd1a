//! A scrape in the making: families with their samples, as the library wants them.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, MetricEncoder, NoLabelSet, prometheus_text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::Histogram;

/// All writing goes into a `String`.
const WRITES: &str = "a String takes everything";

/// What `collect` writes, as the page of a scrape.
pub fn text(collect: impl Fn(&mut Families<'_>) + Send + Sync + 'static) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Collects(collect)));
    let mut text = String::new();
    prometheus_text::encode(&mut text, &registry).expect(WRITES);
    text
}

struct Collects<F>(F);

impl<F> fmt::Debug for Collects<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Collects")
    }
}

impl<F: Fn(&mut Families<'_>) + Send + Sync + 'static> Collector for Collects<F> {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        (self.0)(&mut Families { encoder });
        Ok(())
    }
}

/// The families of one scrape. Each is written once, under its whole name, even if it has no samples now: so whoever reads a page
/// sees all that there may be.
#[derive(Debug)]
pub struct Families<'a> {
    encoder: DescriptorEncoder<'a>,
}

impl Families<'_> {
    /// A figure that rises and falls.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl EncodeGaugeValue) {
        self.gauges(name, help, |samples| samples.gauge(&[], value));
    }

    /// A figure that only rises. Its name ends in `_total`; in `_ever_total` if it goes on where it was after a restart.
    pub fn counter(&mut self, name: &str, help: &str, value: impl EncodeCounterValue) {
        self.counters(name, help, |samples| samples.counter(&[], value));
    }

    /// Gauges of one name, told apart by labels.
    pub fn gauges(&mut self, name: &str, help: &str, each: impl FnOnce(&mut Samples<'_>)) {
        self.family(name, help, MetricType::Gauge, each);
    }

    /// Counters of one name, told apart by labels.
    pub fn counters(&mut self, name: &str, help: &str, each: impl FnOnce(&mut Samples<'_>)) {
        let name = name.strip_suffix("_total").expect("the name of a counter ends in _total");
        self.family(name, help, MetricType::Counter, each);
    }

    /// Histograms of one name, told apart by labels.
    pub fn histograms(&mut self, name: &str, help: &str, each: impl FnOnce(&mut Samples<'_>)) {
        self.family(name, help, MetricType::Histogram, each);
    }

    fn family(&mut self, name: &str, help: &str, kind: MetricType, each: impl FnOnce(&mut Samples<'_>)) {
        let encoder = self.encoder.encode_descriptor(name, help, None, kind).expect(WRITES);
        each(&mut Samples { encoder });
    }
}

/// The labels of a sample, names and values.
type Labels<'a> = [(&'a str, &'a str)];

/// The samples of one family. Each is of the family's kind.
#[derive(Debug)]
pub struct Samples<'a> {
    encoder: MetricEncoder<'a>,
}

#[expect(clippy::needless_pass_by_value, reason = "values are numbers")]
impl Samples<'_> {
    /// A sample of a gauge.
    pub fn gauge(&mut self, labels: &Labels<'_>, value: impl EncodeGaugeValue) {
        self.encoder.encode_family(&labels).and_then(|mut sample| sample.encode_gauge(&value)).expect(WRITES);
    }

    /// A sample of a counter.
    pub fn counter(&mut self, labels: &Labels<'_>, value: impl EncodeCounterValue) {
        let mut sample = self.encoder.encode_family(&labels).expect(WRITES);
        sample.encode_counter::<NoLabelSet, _, u64>(&value, None).expect(WRITES);
    }

    /// The samples of a histogram.
    pub fn histogram(&mut self, labels: &Labels<'_>, histogram: &Histogram) {
        let buckets: Vec<_> = histogram.buckets().collect();
        // Of the same look, so that the last bucket has all.
        let count = buckets.iter().map(|(_, count)| count).sum();
        let mut sample = self.encoder.encode_family(&labels).expect(WRITES);
        sample.encode_histogram::<NoLabelSet>(histogram.seconds(), count, &buckets, None).expect(WRITES);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_page_has_families_with_their_samples() {
        let page = text(|families| {
            families.gauge("open", "Open.", 3_u64);
            families.counters("sends_total", "Sends.", |samples| {
                samples.counter(&[("code", "0")], 1_u64);
                samples.counter(&[("code", "a\"b")], 2_u64);
            });
            families.gauges("nothing", "Nothing now.", |_| {});
        });
        assert_eq!(
            page,
            "# HELP open Open.\n# TYPE open gauge\nopen 3\n\
             # HELP sends_total Sends.\n# TYPE sends_total counter\n\
             sends_total{code=\"0\"} 1\nsends_total{code=\"a\\\"b\"} 2\n\
             # HELP nothing Nothing now.\n# TYPE nothing gauge\n"
        );
    }

    #[test]
    fn the_buckets_of_a_histogram_add_up() {
        let page = text(|families| {
            let histogram = Histogram::default();
            histogram.record(Duration::from_millis(2));
            histogram.record(Duration::from_secs(40));
            families
                .histograms("append_seconds", "Appends.", |samples| samples.histogram(&[("seat", "n1")], &histogram));
        });
        for line in [
            "append_seconds_bucket{seat=\"n1\",le=\"0.001\"} 0",
            "append_seconds_bucket{seat=\"n1\",le=\"0.0025\"} 1",
            "append_seconds_bucket{seat=\"n1\",le=\"30\"} 1",
            "append_seconds_bucket{seat=\"n1\",le=\"+Inf\"} 2",
            "append_seconds_sum{seat=\"n1\"} 40.002",
            "append_seconds_count{seat=\"n1\"} 2",
        ] {
            assert!(page.lines().any(|each| each == line), "{line} in {page}");
        }
    }
}
