//! Why a node takes a pod, or does not: the numbers behind a verdict.
use crate::fields::MEMORY;
use crate::node::NodeView;
use crate::pod::PodWish;
use crate::snapshot::Snapshot;
use fairlead_placement::Reason;
use fairlead_topology::{CpuMask, Surroundings, evaluate};
use serde::Serialize;

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
    /// Score, 0 to 100, if it fits.
    pub score: Option<u8>,
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
    /// Each NUMA node, ascending.
    pub numa: Vec<NumaDetail>,
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
}

impl Snapshot {
    /// The verdict on one node with the numbers it rests on. `None`: no such node.
    #[must_use]
    pub fn why_not(&self, node: &str, pod: &PodWish) -> Option<Detail> {
        let index = self.index_of(node)?;
        let view = self.node(index)?;
        let verdict = self.backstop(pod).map_or_else(|| self.judge(index, pod), Err);
        let width = view.machine.as_ref().map_or(1, |machine| machine.smt_width());
        let needed = pod.exclusive.as_ref().map_or(0, |wanted| wanted.held_cpus(width));
        let no_fit = || {
            let (machine, wanted) = (view.machine.as_ref()?, pod.exclusive.as_ref()?);
            let room = view.room_for(machine, pod);
            evaluate(machine, &room.as_node(), wanted, &Surroundings::default()).err().map(|no| no.to_string())
        };
        let message = match (&verdict, &view.distrust) {
            (Ok(_), _) => "fits".to_owned(),
            (Err(reason), _) if pod.refusal.as_ref().is_some_and(|refusal| refusal.reason == *reason) => {
                pod.refusal.as_ref().map(|refusal| refusal.detail.clone()).unwrap_or_default()
            }
            (Err(reason), Some(distrust)) if *reason == distrust.reason => distrust.detail.clone(),
            (Err(reason), _) => no_fit().unwrap_or_else(|| reason.as_str().to_owned()),
        };
        Some(Detail {
            node: node.to_owned(),
            reason: verdict.err().map(Reason::name),
            message,
            score: verdict.ok().map(|score| score.alignment),
            needed_cpus: needed,
            needed_memory_bytes: pod.request.get(MEMORY).copied().unwrap_or(0),
            free_cpus: view.free.to_string(),
            shared_reserve: view.shared_reserve,
            system_memory_bytes: view.beside.system_memory_bytes,
            shared_memory_bytes: view.shared_memory_bytes,
            numa: numa_details(view),
        })
    }
}

fn numa_details(view: &NodeView) -> Vec<NumaDetail> {
    let Some(machine) = &view.machine else { return Vec::new() };
    let free = machine.numa_ids().iter().enumerate().map(|(index, &id)| {
        let empty = CpuMask::new();
        let cpus = machine.numa_cpus(index).unwrap_or(&empty);
        let cores: Vec<&CpuMask> = (0..machine.core_count())
            .filter_map(|core| machine.core_cpus(core))
            .filter(|core| core.is_subset(cpus))
            .collect();
        let count = |cores: usize| u32::try_from(cores).unwrap_or(u32::MAX);
        NumaDetail {
            id,
            cores: count(cores.len()),
            free_cores: count(cores.iter().filter(|core| core.is_subset(&view.free)).count()),
            free_cpus: cpus.intersect(&view.free).to_string(),
            memory_bytes: machine.numa_memory_bytes().get(index).copied().unwrap_or(0),
            memory_free_bytes: view.memory_free_bytes.get(index).copied().unwrap_or(0),
        }
    });
    free.collect()
}
