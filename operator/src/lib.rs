//! The operator: lets pods through the gate in fair order, scales pools, writes status.
//!
//! All replicas watch; the one that holds the Lease `fairlead-operator` writes. [`house`] owns the model and decides about
//! releases, [`scaling`] has a task for each pool, [`status`] writes what people read. They share only [`view::View`]s.
pub mod args;
pub mod book;
pub mod certificates;
pub mod clock;
mod crew;
pub mod house;
pub mod metrics;
pub mod namespaces;
pub mod news;
pub mod objects;
pub mod pause;
pub mod release;
mod run;
pub mod scaling;
pub mod status;
pub mod view;

pub use args::Args;
pub use crew::Ended;
pub use run::{LEASE, RunError, metrics_page, run};
