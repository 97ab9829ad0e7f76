//! Why a node takes a pod, or does not: the numbers behind a verdict.
use crate::fields::MEMORY;
use crate::holes::Holes;
use crate::node::NodeView;
use crate::pod::{PodView, PodWish};
use crate::share::Weighing;
use crate::snapshot::Snapshot;
use crate::wish::Understood;
use fairlead_placement::Reason;
use fairlead_topology::{Choice, CpuMask, Machine, Terms, evaluate};
use serde::Serialize;

/// One pod and all nodes, as the snapshot has them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Namespace of the pod.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// What it wishes as it was understood, and who says so.
    pub wish: Understood,
    /// Why it may go nowhere, whatever the node.
    pub refusal: Option<Refused>,
    /// How the two terms of its scores are weighed.
    pub weighing: Weighing,
    /// Every node, by name.
    pub nodes: Vec<Detail>,
}

/// A reason with its detail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Refused {
    /// Name of the reason.
    pub reason: &'static str,
    /// What exactly.
    pub message: String,
}

/// One node and one pod, number by number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Detail {
    /// The node.
    pub node: String,
    /// Name of the reason if it is refused.
    pub reason: Option<&'static str>,
    /// What exactly, in a sentence.
    pub message: String,
    /// Weighed score, 0 to 100, if it fits.
    pub score: Option<u8>,
    /// What the score is made of, and what the pod would get, if it fits and asks for CPUs of its own.
    pub terms: Option<TermsDetail>,
    /// CPUs that the pod needs there: whole cores, siblings included.
    pub needed_cpus: u64,
    /// Bytes that it needs on the NUMA nodes.
    pub needed_memory_bytes: u64,
    /// CPUs that nobody holds.
    pub free_cpus: String,
    /// CPUs of those that must stay in the shared pool.
    pub shared_reserve: u32,
    /// Bytes that the node keeps for its system; each NUMA node gives its part.
    pub system_memory_bytes: u64,
    /// Bytes that the pods in the shared pool request. They may take them on any NUMA node, so that what is free there is
    /// what nobody was promised, and not more.
    pub shared_memory_bytes: u64,
    /// Aligned holes now, by [`crate::HOLE_SIZES`].
    pub holes: Holes,
    /// Each NUMA node, ascending.
    pub numa: Vec<NumaDetail>,
}

/// The terms of a choice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TermsDetail {
    /// How near to each other and how tight CPUs and memory are, 0 to 100.
    pub alignment: u8,
    /// How whole the large holes of the node stay, 0 to 100.
    pub holes_whole: u8,
    /// CPUs of each container.
    pub containers: Vec<ContainerDetail>,
    /// NUMA node ids and bytes.
    pub memory: Vec<(u32, u64)>,
    /// What was weighed, in the order of comparison.
    #[serde(flatten)]
    pub weighed: Terms,
    /// Aligned holes afterwards, by [`crate::HOLE_SIZES`].
    pub holes_after: Holes,
}

/// What one container would get.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerDetail {
    /// Its name.
    pub name: String,
    /// Its CPUs.
    pub cpus: String,
}

/// One NUMA node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NumaDetail {
    /// Its id.
    pub id: u32,
    /// Physical cores.
    pub cores: u32,
    /// Those of them with no thread held.
    pub free_cores: u32,
    /// CPUs that nobody holds.
    pub free_cpus: String,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// The part of it that nobody holds, without the system's.
    pub memory_free_bytes: u64,
    /// Huge pages of the machine there: size in bytes and how many.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub huge_pages: Vec<(u64, u64)>,
    /// Addresses of the PCI devices whose local CPUs are all there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<String>,
}

impl Snapshot {
    /// The verdicts of all nodes on a pod that the watch shows, with the numbers they rest on.
    #[must_use]
    pub fn explain(&self, pod: &PodView) -> Explanation {
        let wish = self.wish_of_view(pod);
        let refusal = self.backstop(&wish).map(|reason| {
            let own = wish.refusal.as_ref().filter(|own| own.reason == reason);
            let message = own.map_or_else(|| reason.as_str().to_owned(), |own| own.detail.clone());
            Refused { reason: reason.name(), message }
        });
        Explanation {
            namespace: wish.id.namespace.clone(),
            name: wish.id.name.clone(),
            uid: wish.id.uid.clone(),
            refusal,
            weighing: self.weighing(&wish),
            nodes: self.nodes.iter().filter_map(|node| self.why_not(&node.name, &wish)).collect(),
            wish: wish.wish,
        }
    }

    /// The pod of that name; of several (one was deleted and made anew) the youngest.
    #[must_use]
    pub fn pod_named(&self, namespace: &str, name: &str) -> Option<&PodView> {
        let named = self.pods.iter().filter(|pod| pod.id.namespace == namespace && pod.id.name == name);
        named.max_by_key(|pod| (pod.created_ms, &pod.id.uid)).map(|pod| &**pod)
    }

    /// The verdict on one node with the numbers it rests on. `None`: no such node.
    #[must_use]
    pub fn why_not(&self, node: &str, pod: &PodWish) -> Option<Detail> {
        let index = self.index_of(node)?;
        let view = self.node(index)?;
        let verdict = self.backstop(pod).map_or_else(|| self.judge(index, pod), Err);
        let width = view.machine.as_ref().map_or(1, |machine| machine.smt_width());
        let needed = pod.exclusive.as_ref().map_or(0, |wanted| wanted.held_cpus(width));
        let chosen = verdict.is_ok().then(|| self.choose(index, pod).ok()).flatten();
        let weighing = self.weighing(pod);
        Some(Detail {
            node: node.to_owned(),
            reason: verdict.err().map(Reason::name),
            message: message(view, pod, verdict.err()),
            score: verdict.ok().map(|score| weighing.points(score)),
            terms: chosen.filter(|_| pod.exclusive.is_some()).and_then(|choice| terms(view, &choice)),
            needed_cpus: needed,
            needed_memory_bytes: pod.request.get(MEMORY).copied().unwrap_or(0),
            free_cpus: view.free.to_string(),
            shared_reserve: view.shared_reserve,
            system_memory_bytes: view.beside.system_memory_bytes,
            shared_memory_bytes: view.shared_memory_bytes,
            holes: view.holes,
            numa: view.machine.as_ref().map(|machine| numa_details(view, machine)).unwrap_or_default(),
        })
    }
}

fn message(view: &NodeView, pod: &PodWish, refusal: Option<Reason>) -> String {
    let Some(reason) = refusal else { return "fits".to_owned() };
    if let Some(own) = pod.refusal.as_ref().filter(|own| own.reason == reason) {
        return own.detail.clone();
    }
    if let Some(distrust) = view.distrust.as_ref().filter(|distrust| distrust.reason == reason) {
        return distrust.detail.clone();
    }
    let no_fit = || {
        let (machine, wanted) = (view.machine.as_ref()?, pod.exclusive.as_ref()?);
        let (room, around) = (view.room_for(machine, pod), view.around(machine, pod, |_| true));
        evaluate(machine, &room.as_node(), wanted, &around).err().map(|no| no.to_string())
    };
    no_fit().unwrap_or_else(|| reason.as_str().to_owned())
}

fn terms(view: &NodeView, choice: &Choice) -> Option<TermsDetail> {
    let (machine, topology) = (view.machine.as_ref()?, view.topology.as_ref()?);
    let container = |(name, cpus): &(String, CpuMask)| ContainerDetail { name: name.clone(), cpus: cpus.to_string() };
    Some(TermsDetail {
        alignment: choice.score.alignment,
        holes_whole: choice.score.holes,
        containers: choice.containers.iter().map(container).collect(),
        memory: choice.memory.clone(),
        weighed: choice.terms.clone(),
        holes_after: Holes::of(machine, &topology.shape.groups, &view.free.subtract(&choice.cpus)),
    })
}

fn numa_details(view: &NodeView, machine: &Machine) -> Vec<NumaDetail> {
    let detail = |(index, &id): (usize, &u32)| {
        let empty = CpuMask::new();
        let cpus = machine.numa_cpus(index).unwrap_or(&empty);
        let cores: Vec<&CpuMask> = (0..machine.core_count())
            .filter_map(|core| machine.core_cpus(core))
            .filter(|core| core.is_subset(cpus))
            .collect();
        let count = |cores: usize| u32::try_from(cores).unwrap_or(u32::MAX);
        let near = machine.pci_devices().iter().filter(|device| device.cpus.is_subset(cpus));
        NumaDetail {
            id,
            cores: count(cores.len()),
            free_cores: count(cores.iter().filter(|core| core.is_subset(&view.free)).count()),
            free_cpus: cpus.intersect(&view.free).to_string(),
            memory_bytes: machine.numa_memory_bytes().get(index).copied().unwrap_or(0),
            memory_free_bytes: view.memory_free_bytes.get(index).copied().unwrap_or(0),
            huge_pages: machine.numa_huge_pages(index).iter().map(|pages| (pages.page_bytes, pages.count)).collect(),
            devices: near.map(|device| device.address.clone()).collect(),
        }
    };
    machine.numa_ids().iter().enumerate().map(detail).collect()
}
