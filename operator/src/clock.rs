//! Wall-clock time as the decisions take it: milliseconds since the Unix epoch.
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Now.
#[must_use]
pub fn now_ms() -> u64 {
    ms_of(&Timestamp::now())
}

/// A time stamp; 0 for what lies before 1970.
#[must_use]
pub fn ms_of(at: &Timestamp) -> u64 {
    u64::try_from(at.as_millisecond()).unwrap_or(0)
}

/// The API's time of whole seconds.
#[must_use]
pub fn time_of(ms: u64) -> Time {
    let second = i64::try_from(ms / 1000).unwrap_or(0);
    Time(Timestamp::from_second(second).unwrap_or_default())
}
