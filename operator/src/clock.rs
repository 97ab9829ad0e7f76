//! Two times: the wall's, milliseconds since the Unix epoch, for what is written and for what the API server wrote; and one
//! that only goes forward, for durations.
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Both times of one process. Cheap to copy; all copies tell the same.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: tokio::time::Instant,
    wall_ms: fn() -> u64,
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock {
    /// The machine's.
    #[must_use]
    pub fn new() -> Self {
        Self::with_wall(now_ms)
    }

    /// With another wall clock.
    #[must_use]
    pub fn with_wall(wall_ms: fn() -> u64) -> Self {
        Self { origin: tokio::time::Instant::now(), wall_ms }
    }

    /// Milliseconds since this clock was made: never back, whatever is done to the wall clock.
    #[must_use]
    pub fn ms(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Milliseconds since the Unix epoch: for time stamps, never for durations.
    #[must_use]
    pub fn wall_ms(&self) -> u64 {
        (self.wall_ms)()
    }
}

/// Now, by the wall clock.
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
