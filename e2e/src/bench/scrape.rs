//! Metrics pages: what the processes say of themselves.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::bed::Bed;

const LIMIT: Duration = Duration::from_secs(20);

/// A page of metrics in text form; of several replicas the pages one after the other, whose series then add up.
#[derive(Clone, Debug, Default)]
pub struct Page(String);

/// A histogram, all its matching series added up.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// Observations.
    pub count: f64,
    /// Their sum, in the metric's unit.
    pub sum: f64,
    /// Upper bound and how many observations do not exceed it, ascending.
    buckets: Vec<(f64, f64)>,
}

impl Histogram {
    /// What came after `before`.
    #[must_use]
    pub fn since(mut self, before: &Self) -> Self {
        self.count -= before.count;
        self.sum -= before.sum;
        for (bound, count) in &mut self.buckets {
            *count -= before.buckets.iter().find(|(other, _)| other == bound).map_or(0.0, |(_, count)| *count);
        }
        self
    }

    /// Both together.
    #[must_use]
    pub fn plus(mut self, other: &Self) -> Self {
        self.count += other.count;
        self.sum += other.sum;
        for (bound, count) in &other.buckets {
            match self.buckets.iter_mut().find(|(known, _)| known == bound) {
                Some((_, sum)) => *sum += count,
                None => self.buckets.push((*bound, *count)),
            }
        }
        self.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        self
    }

    /// How many observations.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
    pub fn observations(&self) -> usize {
        self.count.max(0.0) as usize
    }

    /// Mean in thousandths of the unit; 0 of none.
    pub fn mean_milli(&self) -> f64 {
        if self.count > 0.0 { self.sum * 1000.0 / self.count } else { 0.0 }
    }

    /// Upper bound of the bucket in which the given part of the observations ends, in thousandths of the unit.
    pub fn at_most_milli(&self, percent: f64) -> f64 {
        let wanted = self.count * percent / 100.0;
        self.buckets.iter().find(|(_, count)| *count >= wanted).map_or(0.0, |(bound, _)| bound * 1000.0)
    }
}

impl Page {
    /// Of its text, as a process served it.
    #[must_use]
    pub fn of(text: String) -> Self {
        Self(text + "\n")
    }

    /// Sum of all series of this name that carry all of `labels`.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.samples(name, labels).map(|(_, value)| value).sum()
    }

    /// Sums of all series of this name by the values of `keys`.
    pub(super) fn by(&self, name: &str, keys: &[&str]) -> BTreeMap<String, f64> {
        let mut sums = BTreeMap::new();
        for (series, value) in self.samples(name, &[]) {
            let values: Vec<&str> =
                keys.iter().filter_map(|key| label(series, key)).filter(|v| !v.is_empty()).collect();
            *sums.entry(values.join(" ")).or_default() += value;
        }
        sums
    }

    /// The histogram of this name, of the series that carry all of `labels`.
    pub fn histogram(&self, name: &str, labels: &[(&str, &str)]) -> Histogram {
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for (series, count) in self.samples(&format!("{name}_bucket"), labels) {
            let Some(bound) = label(series, "le").and_then(|text| text.replace("+Inf", "inf").parse().ok()) else {
                continue;
            };
            match buckets.iter_mut().find(|(known, _)| *known == bound) {
                Some((_, sum)) => *sum += count,
                None => buckets.push((bound, count)),
            }
        }
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        let part = |part: &str| self.sum(&format!("{name}_{part}"), labels);
        Histogram { count: part("count"), sum: part("sum"), buckets }
    }

    fn samples<'a>(&'a self, name: &'a str, labels: &'a [(&str, &str)]) -> impl Iterator<Item = (&'a str, f64)> {
        self.0.lines().filter_map(move |line| {
            let (series, value) = line.rsplit_once(' ')?;
            let rest = series.strip_prefix(name)?;
            let named = rest.is_empty() || rest.starts_with('{');
            let fits = named && labels.iter().all(|(key, wanted)| label(series, key) == Some(*wanted));
            fits.then(|| value.parse().ok()).flatten().map(|value| (series, value))
        })
    }
}

/// The value of a label; values with quotes in them are not told apart.
fn label<'a>(series: &'a str, key: &str) -> Option<&'a str> {
    let labels = series.split_once('{')?.1;
    labels.split("\",").find_map(|pair| {
        let (name, value) = pair.split_once("=\"")?;
        (name.trim() == key).then(|| value.trim_end_matches("\"}"))
    })
}

/// The pages of all replicas of a container of the release that declares `port`.
pub(super) async fn release(bed: &Bed, program: &str, port: u16) -> Result<Page> {
    let mut all = String::new();
    for running in bed.kubelet.running().into_iter().filter(|running| running.program == program) {
        let host =
            bed.kubelet.host_port(&running.pod, port).with_context(|| format!("{program} has no port {port}"))?;
        let secure = program == "kube-scheduler";
        let page =
            if secure { scheduler(bed, host).await? } else { page(&format!("http://127.0.0.1:{host}"), None).await? };
        all.push_str(&page.0);
    }
    Ok(Page(all))
}

/// The API server's page.
pub(super) async fn api_server(bed: &Bed) -> Result<Page> {
    let text = bed.client.request_text(http::Request::get("/metrics").body(Vec::new())?);
    Ok(Page::of(tokio::time::timeout(LIMIT, text).await.context("no metrics of the API server in time")??))
}

/// The page of a kube-scheduler, which asks the API server who is asking.
pub(super) async fn scheduler(bed: &Bed, port: u16) -> Result<Page> {
    let config: Value = serde_json::from_slice(&std::fs::read(bed.kubeconfig())?)?;
    let token = config["users"][0]["user"]["token"].as_str().context("the administrator has no token")?;
    page(&format!("https://127.0.0.1:{port}"), Some(token)).await
}

async fn page(base: &str, token: Option<&str>) -> Result<Page> {
    let mut config = kube::Config::new(base.parse().with_context(|| format!("address {base}"))?);
    config.accept_invalid_certs = true;
    config.default_retry = false;
    let client = kube::Client::try_from(config)?;
    let mut request = http::Request::get("/metrics");
    if let Some(token) = token {
        request = request.header("Authorization", format!("Bearer {token}"));
    }
    let text = tokio::time::timeout(LIMIT, client.request_text(request.body(Vec::new())?)).await;
    let text = text.with_context(|| format!("no metrics of {base} in time"))?;
    Ok(Page::of(text.with_context(|| format!("metrics of {base}"))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# TYPE a_seconds histogram
a_seconds_sum{verb=\"Filter\",code=\"200\"} 0.3
a_seconds_count{verb=\"Filter\",code=\"200\"} 3
a_seconds_bucket{le=\"0.1\",verb=\"Filter\",code=\"200\"} 2
a_seconds_bucket{le=\"+Inf\",verb=\"Filter\",code=\"200\"} 3
a_seconds_sum{verb=\"Bind\",code=\"200\"} 9
a_seconds_count{verb=\"Bind\",code=\"200\"} 1
plain 4
plain_more 5
";

    #[test]
    fn series_are_chosen_by_name_and_labels() {
        let page = Page(TEXT.to_owned());
        assert_eq!(page.sum("plain", &[]), 4.0);
        assert_eq!(page.sum("a_seconds_count", &[]), 4.0);
        let by = page.by("a_seconds_count", &["code", "verb"]);
        assert_eq!(by, BTreeMap::from([("200 Bind".to_owned(), 1.0), ("200 Filter".to_owned(), 3.0)]));
        assert_eq!(page.sum("a_seconds_count", &[("verb", "Filter"), ("code", "200")]), 3.0);
        assert_eq!(page.sum("a_seconds_count", &[("verb", "Filter"), ("code", "500")]), 0.0);
    }

    #[test]
    fn replicas_add_up_and_what_was_before_is_taken_off() {
        let one = Page(TEXT.to_owned());
        let two = Page(TEXT.repeat(2));
        let filter = [("verb", "Filter")];
        let fresh = two.histogram("a_seconds", &filter).since(&one.histogram("a_seconds", &filter));
        assert_eq!(fresh, one.histogram("a_seconds", &filter));
        assert_eq!(Histogram::default().plus(&fresh), fresh);
        assert!((fresh.mean_milli() - 100.0).abs() < 1e-9);
        assert_eq!(fresh.at_most_milli(50.0), 100.0);
        assert_eq!(fresh.at_most_milli(99.0), f64::INFINITY);
    }
}
