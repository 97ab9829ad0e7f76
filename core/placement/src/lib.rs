//! The life of a reservation: promise, bind, observe, release.
//!
//! Everything is a value: [`bind::step`] and [`reap::step`] take a state and an event and give a state and requests. Who
//! drives them carries the requests out and brings the answers back; the exhaustive searches drive these very functions.
//!
//! # Why no CPU is promised twice, and no pod runs without its promise
//! 1. A reservation is written or freed only by a patch that names the generation it was decided on: of two writers one
//!    loses and decides anew. So two reservations never overlap.
//! 2. A Binding names the pod's UID and the `resourceVersion` that was known *before* the reservation was written, and
//!    every attempt writes: also one that finds a reservation of its pod there renews it (which raises the generation).
//! 3. A reservation is freed when the live pod is gone, ended, being deleted unbound, or bound elsewhere: none of these can
//!    be followed by a Binding to this node. For a pod that is merely unbound, the generation is read first, then the pod
//!    is touched (which makes every Binding under way fail by rule 2), then the reservation is freed: an attempt that
//!    read the pod after the touch also wrote after it, and either that write or the freeing loses by rule 1.
//! 4. The wish of a pod may change, also by its WorkerPool and so without a new `resourceVersion`. What was reserved for
//!    another wish is freed as in rule 3 before the pod is promised anything else, or bound to run in the shared pool; the
//!    pod is another version after that.
//! 5. A NodePlacement can be lost and made anew, empty, while its pods run on. So whoever finds one that was never written
//!    lists the live pods bound there, and the first promise restores what they carry; what a Binding that came too late
//!    carried is held as soon as it is seen, and restored with the next promise ([`Beside`], [`Room`]). The annotation
//!    alone is no promise: the agent runs no container of its own CPUs without the reservation.
mod drift;
mod facts;
mod keep;
mod life;
mod reason;
mod reservation;
mod room;
mod wire;
mod withdraw;

pub mod bind;
pub mod reap;

pub use drift::{Drift, Observed, ObservedContainer, Pinning, as_promised, drift, unforgiven};
pub use facts::{PlacementFacts, PlacementRead, PodFacts, PodRead};
pub use life::{Due, Phase, Seen};
pub use reason::Reason;
pub use reservation::{Held, PodRef, Reservation, ReservationFault};
pub use room::{Beside, Promise, Room};
pub use wire::{BindError, BindOutcome, BindRequest, Event, PatchOutcome, Request, TouchOutcome, Withdrawal};
