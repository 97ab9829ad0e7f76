//! Passes of the drain over pods of all kinds.
use super::decide::{Controller, Deletion, Facts, MOST_ROUNDS, Memory, Recreates, Step, Why, pass};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::{from_value, json};

fn pod(uid: &str) -> Facts {
    Facts {
        uid: uid.into(),
        namespace: "acme".into(),
        name: format!("pod-{uid}"),
        resource_version: "7".into(),
        ours: true,
        gate: Some(0),
        settled: false,
        controller: None,
    }
}

fn owned(uid: &str, owner: &str, recreates: Recreates) -> Facts {
    let kind = match recreates {
        Recreates::Always => "ReplicaSet",
        Recreates::AsFailure => "Job",
        Recreates::Unknown => "TaskRun",
    };
    let controller = Controller { uid: owner.into(), kind: kind.into(), name: format!("the-{owner}"), recreates };
    Facts { controller: Some(controller), ..pod(uid) }
}

fn deleted(steps: &[Step]) -> usize {
    deletions(steps, Deletion::Not).len()
}

fn deletions(steps: &[Step], deletion: Deletion) -> Vec<(String, Deletion)> {
    let controller = |step: &Step| match step {
        Step::Delete { controller_uid, .. } => Some((controller_uid.clone(), deletion)),
        Step::Ungate { .. } => None,
    };
    steps.iter().filter_map(controller).collect()
}

#[test]
fn a_pod_with_a_controller_is_deleted_gated_or_not() {
    let released = Facts { gate: None, ..owned("b", "rs", Recreates::Always) };
    let (steps, stranded) = pass(&[owned("a", "rs", Recreates::Always), released], &Memory::default());
    assert_eq!(deleted(&steps), 2);
    assert!(stranded.is_empty());
}

#[test]
fn a_bare_pod_loses_its_gate_and_is_listed() {
    let (steps, stranded) = pass(&[pod("a")], &Memory::default());
    assert_eq!(steps, [pod("a").ungate(0)]);
    assert_eq!(stranded[0].why, Why::NoController);
    // The next pass has nothing more to do: it comes to rest.
    let (steps, stranded) = pass(&[Facts { gate: None, ..pod("a") }], &Memory::default());
    assert!(steps.is_empty());
    assert_eq!(stranded.len(), 1);
}

#[test]
fn a_pod_of_another_scheduler_only_loses_its_gate() {
    let foreign = Facts { ours: false, gate: Some(2), ..owned("a", "rs", Recreates::Always) };
    let (steps, stranded) = pass(std::slice::from_ref(&foreign), &Memory::default());
    assert_eq!(steps, [foreign.ungate(2)]);
    assert!(stranded.is_empty());
}

#[test]
fn settled_pods_are_left_alone_but_for_a_gate() {
    let bound = Facts { settled: true, gate: None, ..owned("a", "rs", Recreates::Always) };
    let deleting = Facts { settled: true, ..owned("b", "rs", Recreates::Always) };
    let (steps, stranded) = pass(&[bound, deleting.clone()], &Memory::default());
    assert_eq!(steps, [deleting.ungate(0)]);
    assert!(stranded.is_empty());
}

#[test]
fn a_job_never_loses_more_pods_than_its_backoff_limit_bears() {
    let mut memory = Memory::default();
    memory.learn_job("job", 2);
    let pods: Vec<Facts> = (0..5).map(|i| owned(&i.to_string(), "job", Recreates::AsFailure)).collect();
    let (steps, stranded) = pass(&pods, &memory);
    assert_eq!((deleted(&steps), steps.len(), stranded.len()), (2, 5, 3));
    memory.learn_deletions(&deletions(&steps, Deletion::Not));
    assert_eq!(deleted(&pass(&pods, &memory).0), 2, "what was refused costs nothing");
    memory.learn_deletions(&deletions(&steps, Deletion::MayBe));
    assert_eq!(deleted(&pass(&pods, &memory).0), 0, "the budget lasts over passes");
    let (steps, _) = pass(&[owned("x", "unknown", Recreates::AsFailure)], &Memory::default());
    assert_eq!(deleted(&steps), 0, "a Job that could not be read is not risked");
}

#[test]
fn a_template_that_names_us_is_not_fought_for_ever() {
    let mut memory = Memory::default();
    let pods = [owned("a", "rs", Recreates::Always), owned("b", "rs", Recreates::Always)];
    for _ in 0..MOST_ROUNDS {
        memory.learn_deletions(&deletions(&pass(&pods, &memory).0, Deletion::Not));
    }
    for _ in 0..MOST_ROUNDS {
        let (steps, _) = pass(&pods, &memory);
        assert_eq!(deleted(&steps), 2, "two pods in one pass are one round, refusals are none");
        memory.learn_deletions(&deletions(&steps, Deletion::MayBe));
    }
    let (steps, stranded) = pass(&[owned("c", "rs", Recreates::Always)], &memory);
    assert_eq!(steps, [pod("c").ungate(0)]);
    assert_eq!(stranded[0].why, Why::TemplateNamesUs("ReplicaSet the-rs".into()));
    assert_eq!(deleted(&pass(&[owned("d", "other", Recreates::Always)], &memory).0), 1, "others are not concerned");
}

#[test]
fn facts_of_a_pod() {
    let pod: Pod = from_value(json!({
        "metadata": { "name": "p", "namespace": "n", "uid": "u", "resourceVersion": "3", "ownerReferences": [
            { "apiVersion": "v1", "kind": "Node", "name": "other", "uid": "0" },
            { "apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "1", "controller": true } ] },
        "spec": { "containers": [], "schedulerName": "fairlead-scheduler",
            "schedulingGates": [ { "name": "foreign/gate" }, { "name": "fairlead.dev/quota" } ] },
    }))
    .unwrap();
    let facts = Facts::of(&pod);
    assert_eq!((facts.ours, facts.gate, facts.settled), (true, Some(1), false));
    let controller = facts.controller.unwrap();
    assert_eq!((controller.name.as_str(), controller.recreates), ("j", Recreates::AsFailure));
}

#[test]
fn only_known_controllers_create_a_pod_anew() {
    let of = |api_version: &str, kind: &str| {
        Recreates::of(&OwnerReference {
            api_version: api_version.into(),
            kind: kind.into(),
            ..OwnerReference::default()
        })
    };
    assert_eq!(of("apps/v1", "ReplicaSet"), Recreates::Always);
    assert_eq!(of("apps/v1", "StatefulSet"), Recreates::Always);
    assert_eq!(of("v1", "ReplicationController"), Recreates::Always);
    assert_eq!(of("batch/v1", "Job"), Recreates::AsFailure);
    for (api_version, kind) in [
        ("apps/v1", "DaemonSet"),
        ("apps.kruise.io/v1beta1", "StatefulSet"),
        ("batch.volcano.sh/v1alpha1", "Job"),
        ("tekton.dev/v1", "TaskRun"),
        ("argoproj.io/v1alpha1", "Workflow"),
        ("sparkoperator.k8s.io/v1beta2", "SparkApplication"),
        ("v1", "Node"),
        ("", ""),
    ] {
        assert_eq!(of(api_version, kind), Recreates::Unknown, "{api_version} {kind}");
    }
}

#[test]
fn a_pod_that_may_not_be_created_anew_loses_its_gate_and_is_listed() {
    let run = owned("a", "build", Recreates::Unknown);
    let (steps, stranded) = pass(std::slice::from_ref(&run), &Memory::default());
    assert_eq!(steps, [run.ungate(0)]);
    assert_eq!(stranded[0].why, Why::MayNotRecreate("TaskRun the-build".into()));
    assert!(stranded[0].why.message().starts_with("TaskRun the-build is not known to create"));
}
