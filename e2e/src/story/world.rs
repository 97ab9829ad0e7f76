//! What the API server shows, as the demo and the milestones read it: never what our own code believes.
use fairlead_crds::keys;
use fairlead_crds::placement::Placement;
use fairlead_crds::{NodePlacement, NodeTopology, TenantQuota, WorkerPool};
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use kube::ResourceExt;
use std::collections::{BTreeMap, BTreeSet};

/// One pod of a tenant's namespace.
#[derive(Clone, Debug, PartialEq)]
pub struct PodFacts {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Value of the label `app`.
    pub app: String,
    /// Tenant label, as the admission policy wrote it.
    pub tenant: Option<String>,
    /// It waits behind our gate.
    pub gated: bool,
    /// Its condition Ready is True.
    pub ready: bool,
    /// Node it is bound to.
    pub node: Option<String>,
    /// CPUs of its placement annotation.
    pub cpus: BTreeSet<u32>,
    /// Whole CPUs that its containers have as limits.
    pub cpus_asked: usize,
    /// Reason of the condition `fairlead.dev/Released`.
    pub reason: Option<String>,
    /// Phase Succeeded or Failed.
    pub terminal: bool,
}

impl PodFacts {
    /// Reads what matters from a pod.
    #[must_use]
    pub fn of(pod: &Pod) -> Self {
        let spec = pod.spec.as_ref();
        let status = pod.status.as_ref();
        let conditions = status.and_then(|s| s.conditions.as_deref()).unwrap_or_default();
        let gates = spec.and_then(|s| s.scheduling_gates.as_deref()).unwrap_or_default();
        Self {
            namespace: pod.namespace().unwrap_or_default(),
            name: pod.name_any(),
            app: pod.labels().get("app").cloned().unwrap_or_default(),
            tenant: pod.labels().get(keys::TENANT_LABEL).cloned(),
            gated: gates.iter().any(|g| g.name == keys::QUOTA_GATE),
            ready: conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True"),
            node: spec.and_then(|s| s.node_name.clone()),
            cpus: pod
                .annotations()
                .get(keys::PLACEMENT_ANNOTATION)
                .map(|text| annotated_cpus(text))
                .unwrap_or_default(),
            cpus_asked: spec.map_or(0, cpus_asked),
            reason: conditions.iter().find(|c| c.type_ == keys::condition::RELEASED).and_then(|c| c.reason.clone()),
            terminal: matches!(status.and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed")),
        }
    }
}

fn cpus_asked(spec: &PodSpec) -> usize {
    let limits = spec.containers.iter().filter_map(|container| container.resources.as_ref()?.limits.as_ref());
    limits.filter_map(|limits| limits.get("cpu")?.0.parse::<usize>().ok()).sum()
}

/// CPUs of all containers of a placement annotation; empty if it is malformed.
#[must_use]
pub fn annotated_cpus(text: &str) -> BTreeSet<u32> {
    serde_json::from_str::<Placement>(text)
        .map(|placement| placement.containers.iter().flat_map(|c| cpu_list(&c.cpus)).collect())
        .unwrap_or_default()
}

/// CPUs of a kernel list (`0-3,8`); parts that are no numbers are left out.
#[must_use]
pub fn cpu_list(text: &str) -> Vec<u32> {
    text.split(',')
        .filter_map(|part| {
            let (low, high) = part.split_once('-').unwrap_or((part, part));
            Some(low.trim().parse::<u32>().ok()?..=high.trim().parse::<u32>().ok()?)
        })
        .flatten()
        .collect()
}

/// Everything that was seen, by name, with what went wrong on the way.
#[derive(Default)]
pub struct World {
    /// Pods of the tenants' namespaces by UID.
    pub pods: BTreeMap<String, PodFacts>,
    /// Machines by node.
    pub topologies: BTreeMap<String, NodeTopology>,
    /// Reservations by node.
    pub placements: BTreeMap<String, NodePlacement>,
    /// Pools by namespace and name.
    pub pools: BTreeMap<String, WorkerPool>,
    /// Replicas that the API server has for each Deployment, by namespace and name.
    pub replicas: BTreeMap<String, i32>,
    /// Tenants by name.
    pub quotas: BTreeMap<String, TenantQuota>,
    /// UIDs of all pods that were ever seen behind the gate.
    pub seen_gated: BTreeSet<String>,
    /// Namespaces of the pods that were seen to lose the gate, in the order of the watch.
    pub releases: Vec<String>,
    /// Index into `releases` from which on their order is known: a list after a broken watch tells none.
    pub ordered_from: usize,
    /// Pods that were seen bound with CPUs of their own.
    pub seen_pinned: BTreeSet<String>,
    /// Every breach of I1 that was seen.
    pub double_promises: Vec<String>,
    /// Bound pods whose CPUs lie on more than one NUMA node.
    pub spread: Vec<String>,
    /// Bound pods that do not have exactly as many CPUs of their own as they ask for.
    pub unpinned: Vec<String>,
    /// Every breach of I2 that was seen: a tenant with more released pods than its hard limit.
    pub over_limit: Vec<String>,
    /// Undelivered and pending entries by stream, read from Redis.
    pub queues: BTreeMap<String, QueueFacts>,
    /// Objects processed since the start.
    pub events: u64,
}

/// A consumer group as Redis shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueFacts {
    /// Entries not yet delivered.
    pub lag: u64,
    /// Entries delivered and not acknowledged.
    pub pending: u64,
}

impl World {
    /// Takes a pod as the watch shows it.
    pub fn pod(&mut self, pod: &Pod) {
        self.events += 1;
        let uid = pod.uid().unwrap_or_default();
        let facts = PodFacts::of(pod);
        if facts.gated {
            self.seen_gated.insert(uid.clone());
        }
        if !facts.gated && self.pods.get(&uid).is_some_and(|before| before.gated) {
            self.releases.push(facts.namespace.clone());
        }
        let newly_bound = facts.node.is_some() && self.pods.get(&uid).is_none_or(|before| before.node.is_none());
        if newly_bound && !facts.terminal {
            self.judge_binding(&uid, &facts);
        }
        let (namespace, counts) = (facts.namespace.clone(), !facts.gated && !facts.terminal);
        self.pods.insert(uid, facts);
        if counts {
            self.judge_limit(&namespace);
        }
    }

    fn judge_limit(&mut self, namespace: &str) {
        let quota = self.quotas.values().find(|quota| quota.spec.namespaces.iter().any(|named| named == namespace));
        let Some(hard) = quota.and_then(|quota| quota.spec.concurrency.as_ref()).map(|limit| limit.hard) else {
            return;
        };
        let released = self.released(namespace);
        if usize::try_from(hard).is_ok_and(|hard| released > hard) {
            self.over_limit.push(format!("{namespace} has {released} pods past the gate, its hard limit is {hard}"));
        }
    }

    /// A pod is gone.
    pub fn pod_gone(&mut self, uid: &str) {
        self.events += 1;
        self.pods.remove(uid);
    }

    /// Takes a whole list: what is not in it is gone, and pods that have ended give their CPUs back before others are
    /// judged.
    pub fn relisted(&mut self, pods: &[Pod]) {
        let uids: BTreeSet<String> = pods.iter().map(|pod| pod.uid().unwrap_or_default()).collect();
        self.pods.retain(|uid, _| uids.contains(uid));
        let (ended, live): (Vec<&Pod>, Vec<&Pod>) = pods.iter().partition(|pod| PodFacts::of(pod).terminal);
        ended.into_iter().chain(live).for_each(|pod| self.pod(pod));
        self.ordered_from = self.releases.len();
    }

    /// Takes the reservations of a node and looks for CPUs that are in two of them.
    pub fn placement(&mut self, placement: NodePlacement) {
        self.events += 1;
        let mut held: BTreeMap<u32, &str> = BTreeMap::new();
        for reservation in &placement.spec.reservations {
            for cpu in cpu_list(&reservation.cpus) {
                if let Some(other) = held.insert(cpu, &reservation.pod_uid) {
                    let breach =
                        format!("{}: cpu {cpu} reserved for {other} and {}", placement.name_any(), reservation.pod_uid);
                    self.double_promises.push(breach);
                }
            }
        }
        self.placements.insert(placement.name_any(), placement);
    }

    fn judge_binding(&mut self, uid: &str, facts: &PodFacts) {
        let Some(node) = &facts.node else { return };
        if facts.cpus.len() != facts.cpus_asked {
            let (name, asked, has) = (&facts.name, facts.cpus_asked, &facts.cpus);
            self.unpinned.push(format!("{}/{name} asks for {asked} CPUs and has {has:?}", facts.namespace));
            return;
        }
        self.seen_pinned.insert(uid.to_owned());
        for (other, there) in &self.pods {
            if other != uid
                && there.node.as_ref() == Some(node)
                && !there.terminal
                && !there.cpus.is_disjoint(&facts.cpus)
            {
                let breach = format!("{node}: {} and {} hold the same CPUs", facts.name, there.name);
                self.double_promises.push(breach);
            }
        }
        let numa_nodes = self.topologies.get(node).map_or(0, |topology| {
            let touched = |cpus: &str| cpu_list(cpus).iter().any(|cpu| facts.cpus.contains(cpu));
            topology.spec.numa_nodes.iter().filter(|numa| touched(&numa.cpus)).count()
        });
        if numa_nodes != 1 {
            self.spread.push(format!("{}/{} on {node}: {numa_nodes} NUMA nodes", facts.namespace, facts.name));
        }
    }

    /// Live bound pods whose CPUs are not in a reservation of theirs on their node.
    #[must_use]
    pub fn unreserved(&self) -> Vec<&str> {
        let reserved = |uid: &str, pod: &PodFacts| {
            let placement = pod.node.as_ref().and_then(|node| self.placements.get(node));
            let mut own = placement.into_iter().flat_map(|p| &p.spec.reservations).filter(|r| r.pod_uid == uid);
            own.any(|reservation| pod.cpus.is_subset(&cpu_list(&reservation.cpus).into_iter().collect()))
        };
        let live = self.pods.iter().filter(|(_, pod)| pod.node.is_some() && !pod.terminal);
        live.filter(|(uid, pod)| !reserved(uid, pod)).map(|(_, pod)| pod.name.as_str()).collect()
    }

    /// Live pods of a tenant that are past the gate.
    #[must_use]
    pub fn released(&self, namespace: &str) -> usize {
        self.pods.values().filter(|p| p.namespace == namespace && !p.gated && !p.terminal).count()
    }

    /// Live pods of a tenant behind the gate.
    #[must_use]
    pub fn waiting(&self, namespace: &str) -> usize {
        self.pods.values().filter(|p| p.namespace == namespace && p.gated && !p.terminal).count()
    }

    /// Ready pods of one application.
    #[must_use]
    pub fn ready(&self, namespace: &str, app: &str) -> Vec<String> {
        let ready = |p: &&PodFacts| p.namespace == namespace && p.app == app && p.ready && !p.terminal;
        self.pods.values().filter(ready).map(|p| p.name.clone()).collect()
    }

    /// CPUs reserved on all nodes.
    #[must_use]
    pub fn reserved_cpus(&self) -> usize {
        self.placements.values().flat_map(|p| &p.spec.reservations).map(|r| cpu_list(&r.cpus).len()).sum()
    }

    /// Replicas of a Deployment as its spec has them; 0 if it is not there.
    #[must_use]
    pub fn ordered(&self, deployment: &str) -> i32 {
        self.replicas.get(deployment).copied().unwrap_or_default()
    }

    /// Undelivered and unacknowledged orders of a stream; nothing while they are unknown.
    #[must_use]
    pub fn backlog(&self, stream: &str) -> Option<u64> {
        self.queues.get(stream).map(|q| q.lag + q.pending)
    }

    /// How far releases strayed from `weight`:1, in pods of the first namespace: the most over all prefixes of the
    /// releases since `mark`, counted from when they first stood at the ratio. `held` is what both had at `mark`.
    #[must_use]
    pub fn stray(&self, mark: usize, held: [usize; 2], first: &str, weight: usize) -> Option<usize> {
        let [mut heavy, mut light] = held;
        let mut most = None;
        for (index, namespace) in self.releases.iter().enumerate().skip(mark) {
            if namespace == first {
                heavy += 1;
            } else {
                light += 1;
            }
            if index < self.ordered_from {
                continue;
            }
            let now = heavy.abs_diff(weight * light);
            most = match most {
                None => (now <= weight).then_some(now),
                Some(before) => Some(now.max(before)),
            };
        }
        most
    }

    /// Status and reason of a pool's condition.
    #[must_use]
    pub fn pool_condition(&self, pool: &str, type_: &str) -> Option<(String, String)> {
        let conditions = &self.pools.get(pool)?.status.as_ref()?.conditions;
        conditions.iter().find(|c| c.type_ == type_).map(|c| (c.status.clone(), c.reason.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_value, json};

    fn bound(uid: &str, node: &str, cpus: &str) -> Pod {
        let placement = json!({ "containers": [{ "name": "worker", "cpus": cpus, "memoryNodes": "0" }] }).to_string();
        serde_json::from_value(json!({
            "metadata": { "uid": uid, "name": uid, "namespace": "shop", "annotations": { "fairlead.dev/placement": placement } },
            "spec": { "nodeName": node, "containers": [
                { "name": "worker", "resources": { "limits": { "cpu": cpu_list(cpus).len().to_string() } } } ] },
        }))
        .unwrap()
    }

    #[test]
    fn two_pods_on_the_same_cpus_are_a_breach() {
        let mut world = World::default();
        world.pod(&bound("a", "n1", "0-3"));
        world.pod(&bound("b", "n1", "4-7"));
        world.pod(&bound("c", "n2", "0-3"));
        assert!(world.double_promises.is_empty());
        world.pod(&bound("d", "n1", "7-8"));
        assert_eq!(world.double_promises.len(), 1);
    }

    #[test]
    fn fewer_cpus_than_asked_for_are_not_exact_cpus() {
        let mut world = World::default();
        let mut pod = bound("a", "n1", "0-3");
        let resources = pod.spec.as_mut().unwrap().containers[0].resources.as_mut().unwrap();
        resources.limits = from_value(json!({ "cpu": "5" })).unwrap();
        world.pod(&pod);
        assert_eq!(world.unpinned.len(), 1);
        assert!(world.seen_pinned.is_empty());
    }

    #[test]
    fn cpus_outside_the_pods_own_reservation_are_told() {
        let reservation = |uid: &str| json!({ "podUID": uid, "namespace": "shop", "name": uid, "reservedAt": "2026-01-01T00:00:00Z", "cpus": "0-3", "containers": [] });
        let placement = |uid: &str| {
            NodePlacement::new("n1", serde_json::from_value(json!({ "reservations": [reservation(uid)] })).unwrap())
        };
        let mut world = World::default();
        world.pod(&bound("a", "n1", "0-3"));
        assert_eq!(world.unreserved(), ["a"]);
        world.placement(placement("other"));
        assert_eq!(world.unreserved(), ["a"]);
        world.placement(placement("a"));
        assert!(world.unreserved().is_empty());
    }

    #[test]
    fn more_pods_than_the_hard_limit_are_a_breach() {
        let quota = json!({ "apiVersion": "fairlead.dev/v1alpha1", "kind": "TenantQuota", "metadata": { "name": "shop" },
            "spec": { "namespaces": ["shop"], "concurrency": { "hard": 1 } } });
        let mut world = World::default();
        world.quotas.insert("shop".into(), serde_json::from_value(quota).unwrap());
        world.pod(&bound("a", "n1", "0-3"));
        assert!(world.over_limit.is_empty());
        world.pod(&bound("b", "n1", "4-7"));
        assert_eq!(world.over_limit.len(), 1);
    }

    #[test]
    fn a_pod_that_is_gone_frees_its_cpus() {
        let mut world = World::default();
        world.pod(&bound("a", "n1", "0-3"));
        world.pod_gone("a");
        world.pod(&bound("b", "n1", "0-3"));
        assert!(world.double_promises.is_empty());
    }

    #[test]
    fn overlapping_reservations_are_a_breach() {
        let reservation = |uid: &str, cpus: &str| json!({ "podUID": uid, "namespace": "shop", "name": uid, "reservedAt": "2026-01-01T00:00:00Z", "cpus": cpus, "containers": [] });
        let placement = |second: &str| {
            let spec =
                serde_json::from_value(json!({ "reservations": [reservation("a", "0-3"), reservation("b", second)] }))
                    .unwrap();
            NodePlacement::new("n1", spec)
        };
        let mut world = World::default();
        world.placement(placement("4-5"));
        assert!(world.double_promises.is_empty());
        world.placement(placement("3-5"));
        assert_eq!(world.double_promises.len(), 1);
    }

    #[test]
    fn a_relist_forgets_who_is_gone_before_it_judges_who_came() {
        let mut world = World::default();
        world.pod(&bound("a", "n1", "0-3"));
        world.relisted(&[bound("b", "n1", "0-3")]);
        assert!(world.double_promises.is_empty());
        assert_eq!(world.pods.len(), 1);
    }

    #[test]
    fn straying_is_counted_from_the_first_balance() {
        let releases = |text: &str| World {
            releases: text.chars().map(|c| if c == 'a' { "acme" } else { "globex" }.to_owned()).collect(),
            ..World::default()
        };
        assert_eq!(releases("aaabaaab").stray(0, [0, 0], "acme", 3), Some(3));
        assert_eq!(releases("aaaaaabb").stray(0, [0, 0], "acme", 3), Some(6));
        assert_eq!(releases("aaaaaa").stray(0, [0, 3], "acme", 3), Some(3));
        assert_eq!(releases("b").stray(0, [0, 3], "acme", 3), None);
        let relisted = World { ordered_from: 8, ..releases("aaaaaabbaaab") };
        assert_eq!(relisted.stray(0, [0, 0], "acme", 3), Some(3), "a list tells no order");
    }

    #[test]
    fn lists_of_cpus() {
        assert_eq!(cpu_list("0-2,8"), vec![0, 1, 2, 8]);
        assert_eq!(cpu_list(""), Vec::<u32>::new());
    }
}
