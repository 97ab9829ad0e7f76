//! Backlog estimators and the catch-up policy: how many workers a queue needs.
//!
//! Pure functions of their arguments: time is passed in, in milliseconds since the Unix epoch; integers only, rates in
//! thousandths of an item per second. What is not known is a value of its own and never counts as 0.
mod backlog;
mod catch_up;
mod config;
mod estimator;
mod window;

pub use backlog::{Backlog, UnknownReason};
pub use catch_up::{Decision, Hold, Limit, Terms, catch_up};
pub use config::PoolConfig;
pub use estimator::{Estimator, Observation};
pub use window::DownWindow;
