//! Which CPUs and memory nodes each container of the node runs on: decided here, without I/O and without a clock.
//!
//! ```text
//! NodePlacement ─► promises ┐
//! machine ─► cores ─────────┼─► step(state, now, event) ─► state, requests ─► runtime, API server, checkpoint
//! runtime ─► containers ────┘
//! ```
//!
//! A container with a promise *claims* exactly the promised CPUs, and keeps the claim until it ends, whatever becomes of
//! the promise. Every other container runs in the shared pool: what no claim and no promise takes. So two rules hold
//! once the requests are carried out: no CPU of a claim is in the pool, and no two pods claim the same CPU.
mod adopt;
mod claim;
mod create;
mod dump;
mod facts;
mod found;
mod promise;
mod settle;
mod state;
mod status;
mod step;

pub use dump::dump_of;
pub use facts::{Cores, Place, Seen};
pub use found::{Finding, Findings};
pub use promise::{Promise, Promises, Version, promises_of};
pub use state::{Claim, Container, Link, Remembered, State};
pub use status::{Observed, observed};
pub use step::{Event, Request, step};

#[cfg(test)]
mod laws;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod world;
