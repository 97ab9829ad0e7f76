//! What a pod asks for, rule by rule; the cases follow `PodRequests` and `ComputePodQOS` of Kubernetes 1.36.
#![allow(clippy::unwrap_used, clippy::needless_pass_by_value, reason = "tests")]
use fairlead_cluster::request::{effective, exclusive};
use fairlead_topology::Role;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

fn pod(spec: Value, status: Value) -> Pod {
    serde_json::from_value(json!({"metadata": {"uid": "u"}, "spec": spec, "status": status})).unwrap()
}

fn asks(cpu: &str, memory: &str) -> Value {
    json!({"requests": {"cpu": cpu, "memory": memory}})
}

fn fixed(cpu: &str, memory: &str) -> Value {
    json!({"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": cpu, "memory": memory}})
}

fn container(name: &str, resources: Value) -> Value {
    json!({"name": name, "resources": resources})
}

fn sidecar(name: &str, resources: Value) -> Value {
    json!({"name": name, "resources": resources, "restartPolicy": "Always"})
}

#[track_caller]
fn counts(spec: Value, status: Value, expected: &[(&str, u64)]) {
    let expected: Vec<(String, u64)> = expected.iter().map(|&(name, amount)| (name.to_owned(), amount)).collect();
    let actual: Vec<(String, u64)> = effective(&pod(spec, status)).into_iter().collect();
    assert_eq!(actual, expected);
}

#[test]
fn containers_are_summed_and_a_pod_is_one_pod() {
    counts(json!({"containers": [{"name": "a"}]}), json!({}), &[("pods", 1)]);
    let two = json!([container("a", asks("1500m", "1Gi")), container("b", asks("0.25", "512Mi"))]);
    counts(json!({"containers": two}), json!({}), &[("cpu", 1_750), ("memory", 1_610_612_736), ("pods", 1)]);
    let gpu = json!([container("a", json!({"requests": {"nvidia.com/gpu": "2", "cpu": "1"}}))]);
    counts(json!({"containers": gpu}), json!({}), &[("cpu", 1_000), ("nvidia.com/gpu", 2), ("pods", 1)]);
}

#[test]
fn init_containers_raise_each_resource_to_their_largest() {
    let spec = json!({
        "containers": [container("a", asks("1", "100"))],
        "initContainers": [container("i", asks("3", "10")), container("j", asks("2", "200"))],
    });
    counts(spec, json!({}), &[("cpu", 3_000), ("memory", 200), ("pods", 1)]);
}

#[test]
fn sidecars_run_beside_the_containers_and_beside_the_init_containers_after_them() {
    let spec = |first: Value, second: Value| json!({"containers": [container("a", asks("1", "1"))], "initContainers": [first, second]});
    // 1 + 2 while running; the init container after the sidecar: 4 + 2.
    let after = spec(sidecar("s", asks("2", "1")), container("i", asks("4", "1")));
    counts(after, json!({}), &[("cpu", 6_000), ("memory", 2), ("pods", 1)]);
    // The init container before the sidecar: 4 alone.
    let before = spec(container("i", asks("4", "1")), sidecar("s", asks("2", "1")));
    counts(before, json!({}), &[("cpu", 4_000), ("memory", 2), ("pods", 1)]);
    let two = spec(sidecar("s", asks("2", "1")), sidecar("t", asks("3", "1")));
    counts(two, json!({}), &[("cpu", 6_000), ("memory", 3), ("pods", 1)]);
}

#[test]
fn overhead_comes_on_top() {
    let spec = json!({"containers": [container("a", asks("1", "100"))], "overhead": {"cpu": "250m", "memory": "20"}});
    counts(spec, json!({}), &[("cpu", 1_250), ("memory", 120), ("pods", 1)]);
}

#[test]
fn pod_level_requests_replace_the_sum_where_they_may() {
    let spec = json!({
        "containers": [container("a", json!({"requests": {"cpu": "1", "memory": "100", "nvidia.com/gpu": "1"}}))],
        "resources": {"requests": {"cpu": "4", "nvidia.com/gpu": "9"}},
        "overhead": {"cpu": "1"},
    });
    counts(spec, json!({}), &[("cpu", 5_000), ("memory", 100), ("nvidia.com/gpu", 1), ("pods", 1)]);
}

#[test]
fn an_in_place_resize_counts_the_largest_unless_it_can_never_be() {
    let spec = || json!({"containers": [container("a", asks("3", "100"))]});
    let status = |reason: &str| {
        json!({
            "conditions": [{"type": "PodResizePending", "status": "True", "reason": reason}],
            "containerStatuses": [{"name": "a", "ready": true, "restartCount": 0, "image": "", "imageID": "",
                "resources": {"requests": {"cpu": "1", "memory": "100"}},
                "allocatedResources": {"cpu": "2", "memory": "100"}}],
        })
    };
    counts(spec(), status("Deferred"), &[("cpu", 3_000), ("memory", 100), ("pods", 1)]);
    counts(spec(), status("Infeasible"), &[("cpu", 2_000), ("memory", 100), ("pods", 1)]);
}

#[test]
fn what_cannot_be_read_is_never_nothing() {
    counts(
        json!({"containers": [container("a", asks("lots", "99999999999999999999"))]}),
        json!({}),
        &[("cpu", u64::MAX), ("memory", u64::MAX), ("pods", 1)],
    );
}

fn own_cpus(spec: Value) -> Option<Vec<(String, u32)>> {
    let wanted = exclusive(&pod(spec, json!({})))?;
    Some(wanted.containers.into_iter().map(|container| (container.name, container.cpus)).collect())
}

#[test]
fn guaranteed_containers_with_whole_cpus_get_their_own() {
    let spec = json!({"containers": [container("a", fixed("4", "1Gi")), container("b", fixed("500m", "1Gi"))]});
    assert_eq!(own_cpus(spec.clone()), Some(vec![("a".into(), 4)]));
    assert_eq!(exclusive(&pod(spec, json!({}))).unwrap().memory_bytes, 2 << 30);
    let with_sidecar = json!({
        "containers": [container("a", fixed("2000m", "1Gi"))],
        "initContainers": [sidecar("s", fixed("1", "1Gi")), container("i", fixed("8", "1Gi"))],
    });
    assert_eq!(own_cpus(with_sidecar), Some(vec![("s".into(), 1), ("i".into(), 8), ("a".into(), 2)]));
}

#[test]
fn all_others_run_in_the_shared_pool() {
    let burstable = json!({"requests": {"cpu": "2", "memory": "1Gi"}, "limits": {"cpu": "3", "memory": "1Gi"}});
    let no_memory_limit = json!({"requests": {"cpu": "2", "memory": "1Gi"}, "limits": {"cpu": "2"}});
    let zero = fixed("0", "1Gi");
    for resources in [burstable, no_memory_limit, zero, asks("2", "1Gi"), fixed("1500m", "1Gi"), json!({})] {
        assert_eq!(own_cpus(json!({"containers": [container("a", resources)]})), None);
    }
    let one_best_effort = json!([container("a", fixed("2", "1Gi")), {"name": "b"}]);
    assert_eq!(own_cpus(json!({"containers": one_best_effort})), None);
    let loose_init = json!({
        "containers": [container("a", fixed("2", "1Gi"))],
        "initContainers": [container("i", asks("1", "1Gi"))],
    });
    assert_eq!(own_cpus(loose_init), None);
    let pod_level = json!({"containers": [container("a", fixed("2", "1Gi"))], "resources": fixed("2", "1Gi")});
    assert_eq!(own_cpus(pod_level), None);
}

fn roles(spec: Value) -> Option<Vec<(String, u32, Role)>> {
    let wanted = exclusive(&pod(spec, json!({})))?;
    Some(wanted.containers.into_iter().map(|c| (c.name, c.cpus, c.role)).collect())
}

#[test]
fn init_containers_and_sidecars_get_whole_cpus_in_their_roles() {
    let spec = json!({
        "initContainers": [container("i", fixed("4", "1Gi")), sidecar("s", fixed("1", "1Gi")), container("f", fixed("500m", "1Gi"))],
        "containers": [container("a", fixed("2", "1Gi"))],
    });
    let wanted = [("i", 4, Role::Init), ("s", 1, Role::Sidecar), ("a", 2, Role::App)];
    assert_eq!(roles(spec).unwrap(), wanted.map(|(name, cpus, role)| (name.to_owned(), cpus, role)));
    let only_starting = json!({"initContainers": [container("i", fixed("4", "1Gi"))], "containers": [container("a", fixed("500m", "1Gi"))]});
    assert_eq!(roles(only_starting), None);
}

#[test]
fn huge_pages_are_counted_by_size_and_not_as_memory() {
    let amounts = json!({"cpu": "2", "memory": "1Gi", "hugepages-2Mi": "64Mi", "hugepages-1Gi": "2Gi"});
    let spec = json!({"containers": [container("a", json!({"requests": amounts, "limits": amounts}))]});
    let wanted = exclusive(&pod(spec, json!({}))).unwrap();
    let pages: Vec<(u64, u64)> = wanted.huge_pages.iter().map(|need| (need.page_bytes, need.bytes)).collect();
    assert_eq!((wanted.memory_bytes, pages), (1 << 30, vec![(2 << 20, 64 << 20), (1 << 30, 2 << 30)]));
}
