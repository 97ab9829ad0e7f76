//! One registry a process, and the list of what is in it for the reference page.

use prometheus_client::encoding::text;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry, Unit};
use std::fmt::Write as _;

pub use prometheus_client::collector::Collector;

const PREFIX: &str = "fairlead";

/// One metric as its reader sees it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct MetricDoc {
    /// Full name in the exposition, prefix and suffixes included.
    pub name: String,
    /// "counter", "gauge", "histogram" or "info".
    pub kind: String,
    /// One sentence.
    pub help: String,
}

impl MetricDoc {
    /// A metric that a [`Collector`] will produce. `name` comes without prefix, and without the `_total` of a counter.
    #[must_use]
    pub fn collected(name: &str, kind: prometheus_client::metrics::MetricType, help: &str) -> Self {
        Self { name: exposed(name, kind, None), kind: kind.as_str().to_owned(), help: sentence(help) }
    }
}

/// The metrics of one process; every name gets the prefix `fairlead_`.
///
/// Registered families that nobody has counted yet do not appear in the text, so the list for the reference page is kept
/// beside the registry.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    docs: Vec<MetricDoc>,
}

impl Metrics {
    /// A registry that holds `fairlead_build_info{component, version}`.
    #[must_use]
    pub fn new(component: &'static str) -> Self {
        let mut metrics = Self { registry: Registry::with_prefix(PREFIX), docs: Vec::new() };
        let labels = vec![("component", component), ("version", env!("CARGO_PKG_VERSION"))];
        let help = "What runs here; always 1";
        metrics.note("build", help, prometheus_client::metrics::MetricType::Info, None);
        metrics.registry.register("build", help, Info::new(labels));
        metrics
    }

    /// Adds a metric and gives it back to be counted on. `name` is `<subsystem>_<noun>` without prefix, and without the
    /// `_total` of a counter; `help` is a sentence without its full stop.
    pub fn register<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        self.note(name, help, metric.metric_type(), None);
        self.registry.register(name, help, metric.clone());
        metric
    }

    /// As [`Self::register`]; the unit is appended to the name.
    pub fn register_with_unit<M: Metric + Clone>(&mut self, name: &str, help: &str, unit: Unit, metric: M) -> M {
        self.note(name, help, metric.metric_type(), Some(&unit));
        self.registry.register_with_unit(name, help, unit, metric.clone());
        metric
    }

    /// Adds gauges that are computed at scrape time, with the list of what they are.
    pub fn register_collector(&mut self, docs: impl IntoIterator<Item = MetricDoc>, collector: Box<dyn Collector>) {
        self.docs.extend(docs);
        self.registry.register_collector(collector);
    }

    /// The OpenMetrics text of all metrics.
    ///
    /// # Errors
    /// A collector failed to encode itself.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut page = String::new();
        text::encode(&mut page, &self.registry)?;
        Ok(page)
    }

    fn note(&mut self, name: &str, help: &str, kind: prometheus_client::metrics::MetricType, unit: Option<&Unit>) {
        self.docs.push(MetricDoc {
            name: exposed(name, kind, unit),
            kind: kind.as_str().to_owned(),
            help: sentence(help),
        });
    }
}

fn exposed(name: &str, kind: prometheus_client::metrics::MetricType, unit: Option<&Unit>) -> String {
    let mut full = format!("{PREFIX}_{name}");
    if let Some(unit) = unit {
        full.push('_');
        full.push_str(unit.as_str());
    }
    match kind {
        prometheus_client::metrics::MetricType::Counter => full.push_str("_total"),
        prometheus_client::metrics::MetricType::Info => full.push_str("_info"),
        _ => {}
    }
    full
}

fn sentence(help: &str) -> String {
    format!("{}.", help.trim_end_matches('.'))
}

/// Everything that `metrics` can show, sorted by name, counted or not.
#[must_use]
pub fn reference(metrics: &Metrics) -> Vec<MetricDoc> {
    let mut docs = metrics.docs.clone();
    docs.sort();
    docs
}

/// [`reference()`] as rows of a Markdown table (metric, type, meaning), for the generated page.
#[must_use]
pub fn reference_rows(metrics: &Metrics) -> String {
    let mut page = String::new();
    for doc in reference(metrics) {
        // Writing to a String cannot fail.
        let _ = writeln!(page, "| `{}` | {} | {} |", doc.name, doc.kind, doc.help);
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::family::Family;
    use prometheus_client::metrics::gauge::Gauge;

    #[test]
    fn the_page_and_the_reference_use_the_same_names() {
        let mut metrics = Metrics::new("test");
        let relists: Counter = metrics.register("watch_relists", "Lists taken", Counter::default());
        let age: Gauge = metrics.register_with_unit("oldest_age", "Age", Unit::Seconds, Gauge::default());
        relists.inc();
        age.set(4);
        let page = metrics.encode().unwrap();
        assert!(page.contains("fairlead_watch_relists_total 1\n"), "{page}");
        assert!(page.contains("fairlead_oldest_age_seconds 4\n"), "{page}");
        assert!(page.contains("fairlead_build_info{component=\"test\",version=\"0."), "{page}");
        for doc in reference(&metrics) {
            assert!(page.contains(&format!("\n{}", doc.name)) || page.starts_with(&doc.name), "{}", doc.name);
            assert!(page.contains(&doc.help), "{}", doc.help);
        }
    }

    #[test]
    fn a_family_that_nobody_counted_is_in_the_reference() {
        let mut metrics = Metrics::new("test");
        let _errors: Family<Vec<(String, String)>, Counter> =
            metrics.register("errors", "Errors seen", Family::default());
        assert!(!metrics.encode().unwrap().contains("fairlead_errors"));
        let names: Vec<_> = reference(&metrics).into_iter().map(|doc| doc.name).collect();
        assert_eq!(names, ["fairlead_build_info", "fairlead_errors_total"]);
        assert!(reference_rows(&metrics).contains("| `fairlead_errors_total` | counter | Errors seen. |"));
    }
}
