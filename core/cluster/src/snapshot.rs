//! The cluster at one moment; never changes, shared by everybody who decides.
use crate::brief::Briefs;
use crate::fields::add;
use crate::holes::Holes;
use crate::memo::Memo;
use crate::names::NameIndex;
use crate::node::{NodeView, PlacementEntry, holds};
use crate::observed::distrust_of;
use crate::pod::{PodView, PodWish};
use crate::pod_table::PodTable;
use crate::pools::Pools;
use crate::reservations::carried_by_all;
use crate::share::Lines;
use crate::sums::Sums;
use crate::table::Table;
use crate::tenant::{QuotaFacts, TenantView};
use fairlead_crds::NodePlacement;
use fairlead_fairshare::ResourceVector;
use fairlead_placement::reap::{Candidate, candidate};
use fairlead_placement::{Beside, Phase, PlacementFacts, PlacementRead, PodFacts, Reason, Reservation, Seen};
use fairlead_topology::Surroundings;
use k8s_openapi::api::core::v1::Pod;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The cluster at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Every kind has been listed. Before, every question is answered with [`Reason::NotSynced`].
    pub synced: bool,
    /// Grows with every snapshot that differs from the one before.
    pub generation: u64,
    /// By name; a node's place in here is its dense index.
    pub nodes: Table<NodeView>,
    /// By name.
    pub tenants: Table<TenantView>,
    /// Namespaces that exist, by name.
    pub namespaces: Arc<BTreeMap<String, NamespaceView>>,
    /// WorkerPools.
    pub pools: Arc<Pools>,
    /// All pods by UID.
    pub pods: PodTable,
    /// `nodes` in brief.
    pub(crate) briefs: Briefs,
    /// Verdicts on `nodes` and on those of other snapshots of the same model with the same names.
    pub(crate) memo: Arc<Memo>,
    pub(crate) sums: Sums,
    /// How far the total of each resource goes among the tenants.
    pub(crate) lines: Lines,
    pub(crate) own_namespace: Arc<str>,
    /// What the tenants are made from, for the dump.
    pub(crate) quotas: Arc<BTreeMap<String, Arc<QuotaFacts>>>,
    pub(crate) index: Arc<NameIndex>,
    pub(crate) owners: Arc<BTreeMap<String, String>>,
}

/// A namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceView {
    /// Its tenant label, as written by us (or by somebody else: it decides nothing).
    pub label: Option<String>,
    /// It is being deleted.
    pub terminating: bool,
}

/// A tenant label that should be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelChange {
    /// Which namespace.
    pub namespace: String,
    /// The tenant; none: the label is to be removed.
    pub tenant: Option<String>,
}

impl PartialEq for Snapshot {
    /// The same facts; `generation` says only how often something changed on the way.
    fn eq(&self, other: &Self) -> bool {
        self.synced == other.synced
            && self.nodes == other.nodes
            && self.tenants == other.tenants
            && self.namespaces == other.namespaces
            && self.pools == other.pools
            && self.sums == other.sums
            && self.lines == other.lines
            && self.owners == other.owners
            && self.pods == other.pods
    }
}

impl Snapshot {
    /// Dense index of a node.
    #[must_use]
    pub fn index_of(&self, node: &str) -> Option<u32> {
        self.index.get(node).or_else(|| self.index_beyond(node))
    }

    /// Dense indices of many nodes, in their order.
    #[must_use]
    pub fn indices_of<'n>(&self, nodes: impl Iterator<Item = &'n str> + Clone) -> Vec<Option<u32>> {
        let mut found = Vec::with_capacity(nodes.size_hint().0);
        self.index.get_all(nodes.clone(), &mut found);
        if self.index.is_partial() {
            let missing = found.iter_mut().zip(nodes).filter(|(index, _)| index.is_none());
            missing.for_each(|(index, node)| *index = self.index_beyond(node));
        }
        found
    }

    /// A name that the index may not have.
    fn index_beyond(&self, node: &str) -> Option<u32> {
        let position = self.index.is_partial().then(|| self.nodes.position(node))?;
        u32::try_from(position?).ok()
    }

    /// A node by its dense index.
    #[must_use]
    pub fn node(&self, index: u32) -> Option<&Arc<NodeView>> {
        self.nodes.at(index as usize)
    }

    /// A node by name.
    #[must_use]
    pub fn node_named(&self, name: &str) -> Option<&Arc<NodeView>> {
        self.node(self.index_of(name)?)
    }

    /// The tenant a namespace belongs to, by the TenantQuotas alone.
    #[must_use]
    pub fn tenant_of_namespace(&self, namespace: &str) -> Option<&str> {
        self.owners.get(namespace).map(String::as_str)
    }

    /// The tenant of a namespace with all that is known of it.
    #[must_use]
    pub fn tenant_in(&self, namespace: &str) -> Option<&Arc<TenantView>> {
        self.tenants.get(self.tenant_of_namespace(namespace)?)
    }

    /// What is shared among the tenants: allocatable of the Ready, schedulable nodes minus what unmanaged pods use there.
    #[must_use]
    pub fn total(&self) -> ResourceVector {
        self.sums.total()
    }

    /// What no pod uses: allocatable of the Ready, schedulable nodes minus the requests of the pods bound there.
    #[must_use]
    pub fn free(&self) -> ResourceVector {
        self.sums.free()
    }

    /// How many reservations the watch shows on all nodes.
    #[must_use]
    pub fn reservations(&self) -> usize {
        self.sums.reservations
    }

    /// Aligned holes of all nodes.
    #[must_use]
    pub fn holes(&self) -> Holes {
        self.sums.holes
    }

    /// How many nodes get no pods with CPUs of their own, by reason.
    #[must_use]
    pub fn distrusted(&self) -> &BTreeMap<Reason, usize> {
        &self.sums.distrusted
    }

    /// What a pod asks for, with the wish of its WorkerPool.
    #[must_use]
    pub fn wish_of(&self, pod: &Pod) -> PodWish {
        PodWish::in_pools(pod, &self.pools)
    }

    /// The same of a pod that the watch shows.
    #[must_use]
    pub fn wish_of_view(&self, pod: &PodView) -> PodWish {
        PodWish::of_view(pod, &self.pools)
    }

    /// What the bind and reap steps want to know of a pod that the watch shows.
    #[must_use]
    pub fn facts_of_view(&self, pod: &PodView) -> PodFacts {
        pod.facts(&self.pools)
    }

    /// The same of a live pod; `None` if it has no UID.
    #[must_use]
    pub fn facts_of(&self, pod: &Pod) -> Option<PodFacts> {
        PodView::of(pod).map(|view| view.facts(&self.pools))
    }

    /// Requests of the released pods of all tenants that are not bound yet.
    #[must_use]
    pub fn unbound(&self) -> ResourceVector {
        let mut sum = ResourceVector::new();
        for tenant in self.tenants.iter() {
            add(&mut sum, &tenant.unbound);
        }
        sum
    }

    /// The tenant labels of namespaces that are not as the TenantQuotas want them.
    #[must_use]
    pub fn label_changes(&self) -> Vec<LabelChange> {
        let differs = |(namespace, view): (&String, &NamespaceView)| {
            let tenant = self.tenant_of_namespace(namespace);
            let change = LabelChange { namespace: namespace.clone(), tenant: tenant.map(str::to_owned) };
            (!view.terminating && view.label.as_deref() != tenant).then_some(change)
        };
        self.namespaces.iter().filter_map(differs).collect()
    }

    /// What the watch shows of a node's NodePlacement, for the bind and reap steps.
    #[must_use]
    pub fn placement(&self, node: &str) -> PlacementRead {
        let Some(view) = self.node_named(node) else { return PlacementRead::Refused(Reason::NodeUnknown) };
        match view.entry.as_deref().filter(|_| view.placement.is_some()) {
            Some(entry) => facts(view, entry, view.beside.clone(), &view.unreadable),
            None => PlacementRead::Refused(Reason::NoPlacementObject),
        }
    }

    /// The same of a NodePlacement that was read live; the machine is the one of this snapshot.
    #[must_use]
    pub fn placement_live(&self, node: &str, live: &NodePlacement) -> PlacementRead {
        self.live(node, live, |view| (view.beside.clone(), view.unreadable.clone()))
    }

    /// The same with what the pods bound there carry, `bound` being a live list of them, instead of what the watch shows.
    #[must_use]
    pub fn placement_with_bound(&self, node: &str, live: &NodePlacement, bound: &[Pod]) -> PlacementRead {
        self.live(node, live, |view| {
            let pods: Vec<PodView> = bound.iter().filter_map(PodView::of).filter(|pod| !pod.terminal).collect();
            let (carried, unreadable) =
                view.machine.as_deref().map_or_else(Default::default, |machine| carried_by_all(pods.iter(), machine));
            let unreadable = unreadable.into_iter().map(|(uid, _)| uid).collect();
            (Beside { carried, ..view.beside.clone() }, unreadable)
        })
    }

    fn live(
        &self,
        node: &str,
        live: &NodePlacement,
        beside: impl FnOnce(&NodeView) -> (Beside, Vec<String>),
    ) -> PlacementRead {
        let Some(view) = self.node_named(node) else { return PlacementRead::Refused(Reason::NodeUnknown) };
        let entry = PlacementEntry::of(live);
        if !entry.is_of(&view.uid) {
            return PlacementRead::Refused(Reason::NoPlacementObject);
        }
        let (beside, unreadable) = beside(view);
        facts(view, &entry, beside, &unreadable)
    }

    /// How far each reservation has come, and which of them seem to be held for nobody; the live pod decides
    /// ([`fairlead_placement::reap`]). `known_ms` is asked for those of unbound pods: how long this process has known that
    /// reservation on that node.
    pub fn survey(&self, grace_ms: u64, mut known_ms: impl FnMut(&str, &Reservation) -> u64) -> Survey {
        let mut survey = Survey::default();
        if !self.synced {
            return survey;
        }
        for node in self.nodes.iter() {
            let observed = node.entry.as_ref().map_or(&[][..], |entry| &entry.as_promised);
            for held in node.listed() {
                let phase = Phase::of(true, self.seen(&held.pod.uid, &node.name), observed.contains(&held.pod.uid));
                *survey.phases.entry(phase).or_default() += 1;
                let known = |held: &Reservation| known_ms(&node.name, held);
                survey.candidates.extend(candidate(&node.name, held, phase, grace_ms, known));
            }
        }
        survey
    }

    fn seen(&self, pod_uid: &str, node: &str) -> Seen {
        match self.pods.get(pod_uid) {
            Some(pod) if pod.terminal => Seen::NotHere,
            Some(pod) => match &pod.node {
                Some(bound) if bound == node => Seen::Here,
                Some(_) => Seen::NotHere,
                None => Seen::Unbound,
            },
            None => Seen::NotHere,
        }
    }
}

/// All reservations at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// How many are in each phase; absent: none.
    pub phases: BTreeMap<Phase, usize>,
    /// Those that seem to be held for nobody, by node.
    pub candidates: Vec<Candidate>,
}

/// Of one reading of the NodePlacement, by the watch or live. Trust is judged by that very reading, as the view's is by the
/// one that it is made from: so filter and bind come to the same answer on the same object.
fn facts(view: &NodeView, entry: &PlacementEntry, beside: Beside, unreadable: &[String]) -> PlacementRead {
    let Ok(reservations) = &entry.reservations else { return PlacementRead::Refused(Reason::NodeDistrusted) };
    let unknown = unreadable.iter().any(|uid| !holds(reservations, uid));
    let barred = || {
        let owned = view.topology.as_ref().is_none_or(|topology| topology.shape.is_owned());
        let observed = || distrust_of(entry.generation, &entry.watched, reservations, &beside);
        if owned { observed().map(|distrust| distrust.reason) } else { Some(Reason::NodeNotOwned) }
    };
    let why = || view.distrust.as_ref().map_or(Reason::NoTopology, |distrust| distrust.reason);
    let machine = match view.machine.clone().ok_or_else(why) {
        Err(reason) => Err(reason),
        Ok(_) if unknown => Err(Reason::NodeDistrusted),
        Ok(machine) => barred().map_or(Ok(machine), Err),
    };
    PlacementRead::Found(PlacementFacts {
        uid: entry.uid.clone(),
        generation: entry.generation,
        reservations: reservations.clone(),
        machine,
        beside,
        around: Surroundings::default(),
    })
}
