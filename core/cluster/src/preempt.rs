//! Which of the victims that kube-scheduler proposes must really go: removal simulated on one node.
//!
//! kube-scheduler proposes, for each node, pods whose eviction its own filters need; it does not ask extenders while it
//! looks for them. Here a node is dropped if the pod would not fit its cores even with all of them gone, and a victim is
//! given back if the pod fits without its going. Nobody is ever added: disruption budgets were weighed for the proposed
//! ones only.
//!
//! Pods that wait for the victims of an earlier preemption count as kube-scheduler's own filters count them: whoever is
//! nominated for the node, and is at least as important, is there already. Which CPUs it will get is chosen as its bind
//! would, in the room that those leave who are going for it.
use crate::fields::{add, take};
use crate::node::{NodeView, holds};
use crate::pod::{PodView, PodWish};
use crate::snapshot::Snapshot;
use fairlead_fairshare::ResourceVector;
use fairlead_placement::{Beside, Promise, Reservation, Room};
use fairlead_topology::{Machine, Verdict, choose, evaluate};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The pod that needs room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preemptor {
    /// What it asks for.
    pub wish: PodWish,
    /// Nothing but resources of the node can keep it from there: no host ports, no affinity between pods, no spreading, no
    /// volumes or claims that are counted. Only then is it known what kube-scheduler wants a victim gone for.
    pub resources_alone: bool,
    /// Pods of at least its priority that are nominated for a node, by that node, the most important first.
    nominated: BTreeMap<String, Vec<Arc<PodView>>>,
}

/// What became of one node's proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Victims {
    /// Those that must go, as indices into the proposal, ascending.
    pub kept: Vec<usize>,
    /// Those that this snapshot does not know on that node, as indices. They stay victims: what they hold is not known.
    pub unknown: Vec<usize>,
}

/// A proposed victim that the snapshot knows on the node.
struct Known<'a> {
    index: usize,
    pod: &'a PodView,
}

impl Snapshot {
    /// The pod that needs room; `priority` is its own.
    #[must_use]
    pub fn preemptor(&self, wish: PodWish, priority: i32, resources_alone: bool) -> Preemptor {
        let mut nominated: BTreeMap<String, Vec<Arc<PodView>>> = BTreeMap::new();
        let waits =
            |pod: &&Arc<PodView>| pod.node.is_none() && !pod.deleting && !pod.terminal && pod.id.uid != wish.id.uid;
        for pod in self.pods.iter().filter(waits).filter(|pod| pod.priority >= priority) {
            if let Some(node) = &pod.nominated {
                nominated.entry(node.clone()).or_default().push(Arc::clone(pod));
            }
        }
        for pods in nominated.values_mut() {
            pods.sort_by(|a, b| {
                (Reverse(a.priority), a.created_ms, &a.id.uid).cmp(&(Reverse(b.priority), b.created_ms, &b.id.uid))
            });
        }
        Preemptor { wish, resources_alone, nominated }
    }

    /// The victims that must go so that the pod fits the node; `proposed` are their UIDs. The most important ones are given
    /// back first, as kube-scheduler does it: highest priority, then oldest.
    ///
    /// `None`: the node is no candidate. Either the pod does not fit with all of them gone, or it fits with none of them
    /// gone: then nobody needs to die for it, and kube-scheduler (1.36) takes a node without victims for an error. A
    /// proposal without victims gets an answer without victims, if the pod fits as it is.
    #[must_use]
    pub fn victims(&self, preemptor: &Preemptor, node: &str, proposed: &[&str]) -> Option<Victims> {
        if self.backstop(&preemptor.wish).is_some() {
            return None;
        }
        let view = self.node_named(node)?;
        let on_node = |uid: &str| self.pods.get(uid).filter(|pod| pod.node.as_deref() == Some(node));
        let (mut known, mut unknown) = (Vec::new(), Vec::new());
        for (index, &uid) in proposed.iter().enumerate() {
            match on_node(uid) {
                Some(pod) => known.push(Known { index, pod: pod.as_ref() }),
                None => unknown.push(index),
            }
        }
        let trial = Trial::new(self, view, preemptor);
        let mut gone: Vec<&PodView> = known.iter().map(|victim| victim.pod).collect();
        if !trial.fits_cores(&gone) {
            return None;
        }
        let mut kept: Vec<usize> = (0..proposed.len()).collect();
        if preemptor.resources_alone {
            known.sort_by_key(|victim| (Reverse(victim.pod.priority), victim.pod.created_ms, &victim.pod.id.uid));
            for victim in known.iter().filter(|victim| !victim.pod.repels) {
                let without: Vec<&PodView> =
                    gone.iter().copied().filter(|pod| pod.id.uid != victim.pod.id.uid).collect();
                if trial.fits_cores(&without) && trial.fits_sums(&without) {
                    gone = without;
                    kept.retain(|&index| index != victim.index);
                }
            }
        }
        (proposed.is_empty() || !kept.is_empty()).then_some(Victims { kept, unknown })
    }
}

/// One node on trial for one pod.
struct Trial<'a> {
    view: &'a NodeView,
    /// The machine of a node that is trusted.
    machine: Option<&'a Machine>,
    wish: &'a PodWish,
    /// What the bound pods request, those whose binds this process has under way, and those nominated for the node.
    requested: ResourceVector,
    nominated: Vec<Nominated<'a>>,
}

/// A pod that will come to the node.
struct Nominated<'a> {
    wish: PodWish,
    /// Less important pods that are being deleted there: it waits for them.
    leaving: Vec<&'a PodView>,
}

impl<'a> Trial<'a> {
    fn new(snapshot: &'a Snapshot, view: &'a Arc<NodeView>, preemptor: &'a Preemptor) -> Self {
        let (machine, wish) = (view.machine.as_deref().filter(|_| view.distrust.is_none()), &preemptor.wish);
        let mut requested = snapshot.requested_on(view, wish);
        let mut nominated = Vec::new();
        let counted = |uid: &str| view.beside.promises.iter().any(|promise| promise.pod_uid == uid);
        for pod in preemptor.nominated.get(&view.name).into_iter().flatten().filter(|pod| !counted(&pod.id.uid)) {
            add(&mut requested, &pod.request);
            let held = view.listed().iter().chain(&view.beside.carried);
            let there = held.filter_map(|held| snapshot.pods.get(&held.pod.uid)).map(|pod| &**pod);
            let leaving = there.filter(|other| other.deleting && other.priority < pod.priority).collect();
            nominated.push(Nominated { wish: snapshot.wish_of_view(pod), leaving });
        }
        Self { view, machine, wish, requested, nominated }
    }

    /// Whether cores, memory and shared pool have room, as filter would judge it. On a node that is not trusted we have no
    /// opinion on pods without CPUs of their own, and nothing for the others.
    fn fits_cores(&self, gone: &[&PodView]) -> bool {
        let Some(machine) = self.machine else { return self.wish.exclusive.is_none() };
        let listed = self.listed_without(gone);
        let mut beside = self.beside_without(gone);
        beside.promises.extend(self.awaited(machine, gone));
        let Ok(room) = Room::of(machine, &listed, &beside, &self.wish.id.uid, self.wish.shared_milli) else {
            return false;
        };
        match &self.wish.exclusive {
            Some(wanted) => {
                // Of those that go it neither likes nor dislikes anybody any more.
                let around = self.view.around(machine, self.wish, |uid| !is_gone(gone, uid));
                evaluate(machine, &room.as_node(), wanted, &around).is_ok()
            }
            None => self.wish.shared_milli == 0 || room.shared_reserve <= room.pool_cpus(machine),
        }
    }

    /// What the nominated pods will hold: of what those give up who are leaving for it, else of what the victims would. One
    /// that fits neither way holds nothing: its own preemption was in vain.
    fn awaited(&self, machine: &Machine, gone: &[&PodView]) -> Vec<Promise> {
        let mut promises: Vec<Promise> = Vec::new();
        for Nominated { wish, leaving } in &self.nominated {
            let all: Vec<&PodView> = gone.iter().chain(leaving).copied().collect();
            let promised = self.promised(machine, wish, leaving, &promises);
            promises.extend(promised.or_else(|| self.promised(machine, wish, &all, &promises)));
        }
        promises
    }

    /// What a nominated pod would be promised beside the others, once these are gone.
    fn promised(&self, machine: &Machine, wish: &PodWish, gone: &[&PodView], others: &[Promise]) -> Option<Promise> {
        let mut beside = self.beside_without(gone);
        beside.promises.extend(others.iter().cloned());
        let reservation = match &wish.exclusive {
            None => None,
            Some(wanted) => {
                let uid = &wish.id.uid;
                let room = Room::of(machine, &self.listed_without(gone), &beside, uid, wish.shared_milli).ok()?;
                let around = self.view.around(machine, wish, |uid| !is_gone(gone, uid));
                match choose(machine, &room.as_node(), wanted, &around) {
                    Verdict::Fits(choice) => Some(Reservation::of_choice(wish.id.clone(), 0, choice)),
                    Verdict::DoesNotFit(_) => return None,
                }
            }
        };
        Some(Promise { pod_uid: wish.id.uid.clone(), shared_milli: wish.shared_milli, reservation })
    }

    fn listed_without(&self, gone: &[&PodView]) -> Vec<Reservation> {
        self.view.listed().iter().filter(|held| !is_gone(gone, &held.pod.uid)).cloned().collect()
    }

    fn beside_without(&self, gone: &[&PodView]) -> Beside {
        let mut beside = self.view.beside.clone();
        for pod in gone.iter().filter(|pod| !pod.terminal) {
            let uid = &pod.id.uid;
            let carried = self.view.beside.carried.iter().any(|held| held.pod.uid == *uid);
            let own_cpus = holds(self.view.listed(), uid) || carried;
            beside.shared_milli = beside.shared_milli.saturating_sub(pod.shared_milli(own_cpus));
        }
        beside.carried.retain(|held| !is_gone(gone, &held.pod.uid));
        beside
    }

    fn fits_sums(&self, gone: &[&PodView]) -> bool {
        let mut requested = self.requested.clone();
        for pod in gone.iter().filter(|pod| !pod.terminal) {
            take(&mut requested, &pod.request);
        }
        sums_hold(self.view, &requested, self.wish)
    }
}

/// Whether the sums of kube-scheduler's NodeResourcesFit hold: only resources that the pod asks for are looked at.
pub(crate) fn sums_hold(node: &NodeView, requested: &ResourceVector, wish: &PodWish) -> bool {
    wish.request.iter().filter(|(_, amount)| **amount > 0).all(|(resource, amount)| {
        let used = requested.get(resource).copied().unwrap_or(0);
        let offered = node.allocatable.get(resource).copied().unwrap_or(0);
        used.saturating_add(*amount) <= offered
    })
}

fn is_gone(gone: &[&PodView], uid: &str) -> bool {
    gone.iter().any(|pod| pod.id.uid == uid)
}
