//! May this pod go to that node, how well does it fit, and which CPUs would it get: three questions, one computation.
use crate::memo::{Key, Verdicts};
use crate::node::NodeView;
use crate::pod::PodWish;
use crate::snapshot::Snapshot;
use crate::tenant::TenantView;
use fairlead_fairshare::{ResourceVector, first_refusal};
use fairlead_placement::{Reason, Room};
use fairlead_topology::{
    Choice, CpuClass, CpuMask, CpuRequest, Machine, NoFit, NodeFree, Score, Surroundings, Verdict, choose, evaluate,
};
use std::sync::Arc;

impl Snapshot {
    /// Whether the pod fits the node, and how well. Allocates nothing, except for a pod that holds CPUs on this very node from
    /// an earlier attempt, or that something it cares for lies around there. A pod without exclusive CPUs gets score 0: we
    /// have no opinion. Who asks about many nodes takes a [`Snapshot::judge_of`].
    ///
    /// # Errors
    /// The reason, if, and only if, [`Snapshot::choose`] gives the same.
    pub fn judge(&self, node: u32, pod: &PodWish) -> Result<Score, Reason> {
        let view = self.view(node)?;
        let Some(wanted) = &pod.exclusive else { return view.admits_shared(pod).map(|()| Score::default()) };
        let machine = view.trusted()?;
        let around = view.around(machine, pod, |_| true);
        if view.is_loose(pod) {
            let room = view.room_for(machine, pod);
            return evaluate(machine, &room.as_node(), wanted, &around).map_err(Reason::from);
        }
        let Some(summary) = view.summary.as_ref().filter(|_| around == Surroundings::default()) else {
            return evaluate(machine, &view.left_for(pod), wanted, &around).map_err(Reason::from);
        };
        match summary.evaluate(machine, wanted) {
            // The summary knows nothing of the pod's own fraction. Of two sums that fail the computation names the
            // shared pool's before the memory's.
            other
                if other.as_ref().err().is_none_or(NoFit::after_shared_reserve)
                    && !view.spares_own_fraction(machine, pod, wanted) =>
            {
                Err(Reason::SharedPoolTooSmall)
            }
            other => other.map_err(Reason::from),
        }
    }

    /// The same for many nodes, with what was found before for pods of the same wish: the extender's filter and prioritize.
    #[must_use]
    pub fn judge_of<'a>(&'a self, pod: &'a PodWish) -> Judge<'a> {
        // A pod that runs somewhere is no neighbour of itself there: a verdict on it is nobody else's.
        let runs = self.pods.get(&pod.id.uid).is_some_and(|seen| seen.node.is_some());
        let key = Key::of(pod, self.neighbourhood_of(pod)).filter(|_| !runs);
        let known = key.map(|key| self.memo.of(key));
        Judge { snapshot: self, pod, known }
    }

    /// The exact CPUs and memory the pod would get on the node now; nothing is reserved.
    ///
    /// # Errors
    /// The reason, as [`Snapshot::judge`]; a pod without exclusive CPUs gets an empty choice.
    pub fn choose(&self, node: u32, pod: &PodWish) -> Result<Choice, Reason> {
        let view = self.view(node)?;
        let Some(wanted) = &pod.exclusive else {
            return view.admits_shared(pod).map(|()| Choice::default());
        };
        let machine = view.trusted()?;
        let around = view.around(machine, pod, |_| true);
        match choose(machine, &view.room_for(machine, pod).as_node(), wanted, &around) {
            Verdict::Fits(choice) => Ok(choice),
            Verdict::DoesNotFit(no) => Err(Reason::from(no)),
        }
    }

    /// Why the pod may go nowhere at all; asked once a pod, before its nodes. The gate is what enforces the limits: this
    /// catches what came past it (created while the admission policy was not there).
    #[must_use]
    pub fn backstop(&self, pod: &PodWish) -> Option<Reason> {
        if !self.synced {
            return Some(Reason::NotSynced);
        }
        if pod.gated {
            return Some(Reason::PodGated);
        }
        if let Some(refusal) = &pod.refusal {
            return Some(refusal.reason);
        }
        let tenant = self.tenant_in(&pod.id.namespace)?;
        let over = !pod.released && first_refusal(&tenant.hard, &ahead_of(tenant, pod), &pod.request).is_some();
        over.then_some(Reason::TenantOverHardLimit)
    }

    fn view(&self, node: u32) -> Result<&NodeView, Reason> {
        if !self.synced {
            return Err(Reason::NotSynced);
        }
        self.nodes.at(node as usize).map(|view| &**view).ok_or(Reason::NodeUnknown)
    }
}

/// What a tenant uses before a pod that came past the gate: everything bound or released, and of the others that came
/// past it the older ones. Were all counted, two of them could keep each other out for ever.
fn ahead_of(tenant: &TenantView, pod: &PodWish) -> ResourceVector {
    let mut used = ResourceVector::new();
    for other in tenant.released.iter().filter(|other| other.id.uid != pod.id.uid) {
        let older = (other.created_ms, &other.id.uid) < (pod.created_ms, &pod.id.uid);
        if older || other.node.is_some() || other.released.is_some() {
            crate::fields::add(&mut used, &other.request);
        }
    }
    used
}

/// Judges one pod on many nodes. It says what [`Snapshot::judge`] says.
#[derive(Debug)]
pub struct Judge<'a> {
    snapshot: &'a Snapshot,
    pod: &'a PodWish,
    /// None for a pod without CPUs of its own, and for one that runs already.
    known: Option<Arc<Verdicts>>,
}

impl Judge<'_> {
    /// Whether the pod fits the node, and how well.
    ///
    /// # Errors
    /// As [`Snapshot::judge`].
    pub fn of(&self, node: u32) -> Result<Score, Reason> {
        let (snapshot, pod, index) = (self.snapshot, self.pod, node as usize);
        let Some(brief) = snapshot.briefs.at(index).filter(|_| snapshot.synced) else {
            return snapshot.judge(node, pod);
        };
        if brief.has_loose() && snapshot.view(node)?.is_loose(pod) {
            return snapshot.judge(node, pod);
        }
        match &self.known {
            Some(known) => known.get(index, brief.stamp(), || snapshot.judge(node, pod)),
            None if pod.exclusive.is_some() => snapshot.judge(node, pod),
            None if pod.shared_milli <= brief.shared_room_milli => Ok(Score::default()),
            None => Err(Reason::SharedPoolTooSmall),
        }
    }
}

impl NodeView {
    fn trusted(&self) -> Result<&Machine, Reason> {
        match (&self.distrust, &self.machine) {
            (Some(distrust), _) => Err(distrust.reason),
            (None, Some(machine)) => Ok(machine),
            (None, None) => Err(Reason::NoTopology),
        }
    }

    fn is_loose(&self, pod: &PodWish) -> bool {
        !pod.id.uid.is_empty() && self.loose.contains(&pod.id.uid)
    }

    /// Whether the pool has room for a pod that runs in it wholly. On a node that is not trusted nothing is promised, and
    /// kube-scheduler's own count of the node holds.
    fn admits_shared(&self, pod: &PodWish) -> Result<(), Reason> {
        let Ok(machine) = self.trusted() else { return Ok(()) };
        let free = if self.is_loose(pod) { self.room_for(machine, pod).pool_cpus(machine) } else { self.free_len };
        let room = pod.shared_milli == 0 || self.reserve_with(pod) <= free;
        if room { Ok(()) } else { Err(Reason::SharedPoolTooSmall) }
    }

    /// The most that a pod in the shared pool may ask for, as [`NodeView::admits_shared`] has it of a pod that holds nothing
    /// here.
    pub(crate) fn shared_room_milli(&self) -> u64 {
        if self.trusted().is_err() {
            return u64::MAX;
        }
        let cpus = self.free_len.saturating_sub(self.beside.system_reserve);
        let taken = self.beside.promises.iter().map(|promise| promise.shared_milli);
        let taken = taken.fold(self.beside.shared_milli, u64::saturating_add);
        (u64::from(cpus) * 1000).saturating_sub(taken)
    }

    /// What is free for a pod that holds nothing here.
    fn left_for(&self, pod: &PodWish) -> NodeFree<'_> {
        NodeFree {
            cpus: &self.free,
            memory_free_bytes: &self.memory_free_bytes,
            huge_pages: &self.huge_pages_free,
            shared_reserve: self.reserve_with(pod),
        }
    }

    /// CPUs that must stay in the shared pool when the pod's fraction is in it too.
    fn reserve_with(&self, pod: &PodWish) -> u32 {
        self.beside.shared_reserve(&pod.id.uid, pod.shared_milli)
    }

    /// Whether the pool has room for the fractions of a pod that also gets CPUs of its own.
    fn spares_own_fraction(&self, machine: &Machine, pod: &PodWish, wanted: &CpuRequest) -> bool {
        let isolated = wanted.wish.class == CpuClass::Isolated;
        let needed = if isolated { 0 } else { wanted.held_cpus(machine.smt_width()) };
        pod.shared_milli == 0 || needed.saturating_add(u64::from(self.reserve_with(pod))) <= u64::from(self.free_len)
    }

    /// What is free for one pod here: what is free for all, and what the pod itself holds here already.
    pub(crate) fn room_for(&self, machine: &Machine, pod: &PodWish) -> Room {
        let own = if self.is_loose(pod) { pod.id.uid.as_str() } else { "" };
        // A node whose reservations contradict each other is not trusted, and nothing is free there.
        Room::of(machine, self.listed(), &self.beside, own, pod.shared_milli).unwrap_or_else(|_| Room {
            cpus: CpuMask::new(),
            memory_bytes: Vec::new(),
            huge_pages: Vec::new(),
            shared_reserve: self.reserve_with(pod),
        })
    }
}
