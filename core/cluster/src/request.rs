//! What a pod asks for: the effective request as kube-scheduler computes it, and the exclusive CPUs in it.
use crate::fields::{CPU, MEMORY, add, requested};
use fairlead_crds::quantity;
use fairlead_fairshare::{PODS, ResourceVector};
use fairlead_topology::{ContainerCpus, CpuRequest, HugePageNeed, Role};
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodSpec, PodStatus, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;

/// Followed by the size of a page.
const HUGE_PAGES: &str = "hugepages-";

type Quantities = BTreeMap<String, Quantity>;

/// The effective request: `cpu` in milli-CPU, everything else in units, and [`PODS`] 1.
///
/// As `PodRequests` of `k8s.io/component-helpers/resource` in kube-scheduler 1.36 with its default feature gates: the sum
/// of the containers and of the restartable init containers (sidecars), or the largest of the other init containers
/// together with the sidecars before it; for cpu, memory and huge pages the pod-level request instead, if set; plus the
/// overhead. Where the kubelet reports resources (in-place resize) the largest of wanted, allocated and actuated counts.
/// The one difference: amounts finer than a milli-CPU or a byte are rounded up for each container, not once.
#[must_use]
pub fn effective(pod: &Pod) -> ResourceVector {
    let Some(spec) = &pod.spec else { return ResourceVector::from([(PODS.to_owned(), 1)]) };
    let status = pod.status.as_ref();
    let mut sum = of_containers(spec, status);
    override_with_pod_level(&mut sum, spec, status);
    if let Some(overhead) = &spec.overhead {
        add(&mut sum, &amounts(overhead));
    }
    sum.insert(PODS.to_owned(), 1);
    sum
}

/// The exclusive CPUs a pod gets: each container (init containers and sidecars included) of a Guaranteed pod that asks for
/// whole CPUs, and the huge pages of the pod. `None` if no container that stays does, or if the pod states its resources as a whole: then no container has a part of its own.
#[must_use]
pub fn exclusive(pod: &Pod) -> Option<CpuRequest> {
    let spec = pod.spec.as_ref()?;
    if has_pod_level(spec) || !is_guaranteed(spec) {
        return None;
    }
    let starting = spec.init_containers.iter().flatten().map(|container| {
        let role = if is_sidecar(container) { Role::Sidecar } else { Role::Init };
        (container, role)
    });
    let containers: Vec<ContainerCpus> = starting
        .chain(spec.containers.iter().map(|container| (container, Role::App)))
        .filter_map(|(container, role)| {
            let cpus = whole_cpus(container.resources.as_ref()?)?;
            Some(ContainerCpus { name: container.name.clone(), cpus, role })
        })
        .collect();
    // What ends before the pod runs is no reason for CPUs of its own.
    if containers.iter().all(|container| container.role == Role::Init) {
        return None;
    }
    let asked = effective(pod);
    let memory_bytes = asked.get(MEMORY).copied().unwrap_or(0);
    Some(CpuRequest { containers, memory_bytes, huge_pages: huge_pages(&asked), ..CpuRequest::default() })
}

/// Huge pages by size; a size that cannot be read is one that no machine has.
pub(crate) fn huge_pages(asked: &ResourceVector) -> Vec<HugePageNeed> {
    let need = |(resource, &bytes): (&String, &u64)| {
        let size = resource.strip_prefix(HUGE_PAGES)?;
        let page_bytes = quantity::units(size).unwrap_or(u64::MAX);
        (bytes > 0).then_some(HugePageNeed { page_bytes, bytes })
    };
    let mut all: Vec<HugePageNeed> = asked.iter().filter_map(need).collect();
    all.sort_unstable();
    all
}

/// The part of a pod's request that stays in the shared pool when its exclusive CPUs are reserved, milli-CPU.
pub(crate) fn shared_milli(request: &ResourceVector, exclusive: Option<&CpuRequest>) -> u64 {
    let own = exclusive.map_or(0, own_cpus).saturating_mul(1000);
    request.get(CPU).copied().unwrap_or(0).saturating_sub(own)
}

/// The most CPUs of their own that containers of the pod run on at one time.
fn own_cpus(wanted: &CpuRequest) -> u64 {
    let (mut running, mut sidecars, mut starting) = (0u64, 0u64, 0u64);
    for container in &wanted.containers {
        let own = u64::from(container.cpus);
        match container.role {
            Role::App => running += own,
            Role::Sidecar => (running, sidecars) = (running + own, sidecars + own),
            Role::Init => starting = starting.max(sidecars + own),
        }
    }
    running.max(starting)
}

fn amounts(list: &Quantities) -> ResourceVector {
    list.iter().map(|(resource, text)| (resource.clone(), requested(resource, text))).collect()
}

fn raise(largest: &mut ResourceVector, other: &ResourceVector) {
    for (resource, amount) in other {
        let held = largest.entry(resource.clone()).or_default();
        *held = (*held).max(*amount);
    }
}

fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

fn of_containers(spec: &PodSpec, status: Option<&PodStatus>) -> ResourceVector {
    let mut sum = ResourceVector::new();
    for container in &spec.containers {
        let reported = status.and_then(|status| find(status.container_statuses.as_deref(), &container.name));
        add(&mut sum, &of_container(container, reported, status));
    }
    let mut sidecars = ResourceVector::new();
    let mut largest_start = ResourceVector::new();
    for container in spec.init_containers.iter().flatten() {
        if is_sidecar(container) {
            let reported = status.and_then(|status| find(status.init_container_statuses.as_deref(), &container.name));
            let own = of_container(container, reported, status);
            add(&mut sum, &own);
            add(&mut sidecars, &own);
            raise(&mut largest_start, &sidecars);
        } else {
            let mut start = of_container(container, None, status);
            add(&mut start, &sidecars);
            raise(&mut largest_start, &start);
        }
    }
    raise(&mut sum, &largest_start);
    sum
}

fn find<'a>(statuses: Option<&'a [ContainerStatus]>, name: &str) -> Option<&'a ContainerStatus> {
    statuses.unwrap_or_default().iter().find(|status| status.name == name)
}

fn of_container(
    container: &Container,
    reported: Option<&ContainerStatus>,
    status: Option<&PodStatus>,
) -> ResourceVector {
    let wanted = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    match reported.and_then(|reported| Some((reported, reported.resources.as_ref()?))) {
        Some((reported, actuated)) => {
            in_place(wanted, actuated.requests.as_ref(), reported.allocated_resources.as_ref(), status)
        }
        None => wanted.map(amounts).unwrap_or_default(),
    }
}

/// The largest of what is wanted (unless the kubelet says it can never be), actuated and allocated.
fn in_place(
    wanted: Option<&Quantities>,
    actuated: Option<&Quantities>,
    allocated: Option<&Quantities>,
    status: Option<&PodStatus>,
) -> ResourceVector {
    let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let pending = conditions.iter().find(|condition| condition.type_ == "PodResizePending");
    let infeasible = pending.is_some_and(|condition| condition.reason.as_deref() == Some("Infeasible"));
    let mut largest = ResourceVector::new();
    for list in [wanted.filter(|_| !infeasible), actuated, allocated].into_iter().flatten() {
        raise(&mut largest, &amounts(list));
    }
    largest
}

/// Resources that a pod may state as a whole (`supportedPodLevelResources`, same package).
fn at_pod_level(resource: &str) -> bool {
    resource == CPU || resource == MEMORY || resource.starts_with(HUGE_PAGES)
}

fn has_pod_level(spec: &PodSpec) -> bool {
    let Some(resources) = &spec.resources else { return false };
    let requests = resources.requests.iter().flatten();
    requests.chain(resources.limits.iter().flatten()).any(|(resource, _)| at_pod_level(resource))
}

fn override_with_pod_level(sum: &mut ResourceVector, spec: &PodSpec, status: Option<&PodStatus>) {
    let wanted = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let Some(wanted) = wanted.filter(|wanted| wanted.keys().any(|resource| at_pod_level(resource))) else { return };
    let actuated = status.and_then(|status| Some((status, status.resources.as_ref()?)));
    let effective = match actuated {
        Some((status, actuated)) => {
            in_place(Some(wanted), actuated.requests.as_ref(), status.allocated_resources.as_ref(), Some(status))
        }
        None => amounts(wanted),
    };
    for resource in wanted.keys().filter(|resource| at_pod_level(resource)) {
        sum.insert(resource.clone(), effective.get(resource).copied().unwrap_or(0));
    }
}

/// Whether the pod is Guaranteed by its containers (`ComputePodQOS` of `k8s.io/kubernetes/pkg/apis/core/v1/helper/qos`):
/// every one limits cpu and memory, and the requests sum up to the limits.
fn is_guaranteed(spec: &PodSpec) -> bool {
    let mut requests: BTreeMap<&str, u64> = BTreeMap::new();
    let mut limits: BTreeMap<&str, u64> = BTreeMap::new();
    for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
        let Some(resources) = &container.resources else { return false };
        let limited = |resource: &str| {
            let text = resources.limits.as_ref().and_then(|limits| limits.get(resource));
            text.is_some_and(|text| requested(resource, text) > 0)
        };
        if !limited(CPU) || !limited(MEMORY) {
            return false;
        }
        for resource in [CPU, MEMORY] {
            for (list, sums) in [(&resources.requests, &mut requests), (&resources.limits, &mut limits)] {
                let text = list.as_ref().and_then(|list| list.get(resource));
                let sum = sums.entry(resource).or_default();
                *sum = sum.saturating_add(text.map_or(0, |text| requested(resource, text)));
            }
        }
    }
    requests == limits
}

/// The whole CPUs that a container of a Guaranteed pod asks for; `None` for a fraction, which stays in the shared pool.
fn whole_cpus(resources: &ResourceRequirements) -> Option<u32> {
    let milli = requested(CPU, resources.requests.as_ref()?.get(CPU)?);
    let whole = milli > 0 && milli.is_multiple_of(1000);
    whole.then(|| u32::try_from(milli / 1000).unwrap_or(u32::MAX))
}
