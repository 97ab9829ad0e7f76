//! Kubernetes facts in, immutable snapshot out.
//!
//! A binary turns what its watches say into [`Event`]s, hands them to the one [`Model`] it owns, and gives everybody else
//! the [`Snapshot`]s. A snapshot never changes and depends on the facts alone: a relist gives the same one as the events
//! that led there, in whatever order they came (I7). Deciding with it ([`Snapshot::judge`], [`Snapshot::choose`],
//! [`Snapshot::backstop`]) changes nothing (I3).
//!
//! # Who is counted where
//! - A namespace is a tenant's if a TenantQuota names it: the oldest one, then the first by name. Labels say what we
//!   wrote; they never decide. kube-system, kube-public, kube-node-lease and our own namespace belong to nobody.
//! - A pod in a tenant's namespace is *waiting* while it has the gate `fairlead.dev/quota`, and *released* (it counts)
//!   from then on until its phase is Succeeded or Failed or it is gone; a pod being deleted still counts.
//! - Every other pod is unmanaged: it takes away from what is shared, on the node it is bound to.
mod around;
mod brief;
mod claims;
mod devices;
mod dump;
mod event;
mod explain;
mod fields;
mod holes;
mod judge;
mod memo;
mod model;
mod names;
mod node;
mod observed;
mod pod;
mod pod_table;
mod pools;
mod preempt;
mod reservations;
mod selector;
mod shapes;
mod share;
mod snapshot;
mod sums;
mod table;
mod tenant;
mod topology;
mod wake;
mod wish;

pub mod request;

pub use claims::{Conflict, ConflictKind};
pub use devices::{ClaimedDevice, DeviceLocation, PodClaim, Unlocated, claimed_devices, claims_of};
pub use dump::{
    ContainerDump, DUMP_VERSION, Dump, DumpError, ExclusiveDump, NamespaceDump, NodeDump, PodDump, PoolDump,
    PromiseDump, RoleDump,
};
pub use event::{Change, Event};
pub use explain::{ContainerDetail, Detail, Explanation, NumaDetail, Refused, TermsDetail};
pub use fairlead_fairshare::ResourceVector;
pub use fairlead_placement::Reason;
pub use fairlead_topology::{Choice, CpuRequest, Score};
pub use holes::{HOLE_SIZES, Holes};
pub use judge::Judge;
pub use model::Model;
pub use node::{Distrust, NodeView, PlacementView};
pub use pod::{Owner, PodView, PodWish, WishRefusal};
pub use pod_table::PodTable;
pub use pools::{PoolView, Pools};
pub use preempt::{Preemptor, Victims};
pub use reservations::{annotation_of, from_wire, to_wire};
pub use selector::{Selector, SelectorError};
pub use share::Weighing;
pub use snapshot::{LabelChange, NamespaceView, Snapshot, Survey};
pub use table::{Named, Table};
pub use tenant::TenantView;
pub use topology::{TopologyError, description_of, machine_of};
pub use wake::{Awaited, Look, Turn};
pub use wish::{ClaimWish, Mode, Ownership, Understood, WishFault, WishSource, Wished};
