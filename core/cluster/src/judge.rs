//! May this pod go to that node, how well does it fit, and which CPUs would it get: three questions, one computation.
use crate::node::NodeView;
use crate::pod::PodWish;
use crate::snapshot::Snapshot;
use crate::tenant::TenantView;
use fairlead_fairshare::{ResourceVector, first_refusal};
use fairlead_placement::{Reason, Room};
use fairlead_topology::{Choice, CpuClass, CpuMask, CpuRequest, Machine, NoFit, Score, Verdict, choose, evaluate};

impl Snapshot {
    /// Whether the pod fits the node, and how well: the extender's filter and prioritize. Allocates nothing, except for a
    /// pod that holds CPUs on this very node from an earlier attempt, or whose wish looks at what is around it. A pod without exclusive CPUs gets score 0: we have
    /// no opinion.
    ///
    /// # Errors
    /// The reason, if, and only if, [`Snapshot::choose`] gives the same.
    pub fn judge(&self, node: u32, pod: &PodWish) -> Result<Score, Reason> {
        let view = self.view(node)?;
        let Some(wanted) = &pod.exclusive else { return view.admits_shared(pod).map(|()| Score::default()) };
        let machine = view.trusted()?;
        let plain = !view.is_loose(pod) && !pod.looks_around();
        let Some(summary) = view.summary.as_ref().filter(|_| plain) else {
            let (room, around) = (view.room_for(machine, pod), view.around(machine, pod, |_| true));
            return evaluate(machine, &room.as_node(), wanted, &around).map_err(Reason::from);
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
