//! The drain against an API server that keeps pods.
use super::{Log, drain, preview, run};
use crate::access::Access;
use crate::args::DrainArgs;
use crate::error::{CliError, chain};
use crate::fake_server::{Asked, access, list, refusal};
use serde_json::{Value, json};
use std::io::{Error, ErrorKind, Write};
use std::sync::Mutex;
use std::time::Duration;

const POLICY: &str = "pods \"bare\" is forbidden: ValidatingAdmissionPolicy 'frozen' with binding 'frozen' denied \
                      request: nobody touches pods on Fridays";
const WEBHOOK: &str = "admission webhook \"frozen.example.org\" denied the request: not today";

/// `drain --yes | head`, once head has ended.
struct Deaf;

impl Write for Deaf {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(Error::from(ErrorKind::BrokenPipe))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Err(Error::from(ErrorKind::BrokenPipe))
    }
}

fn pod(name: &str, controller: Option<(&str, &str)>) -> Value {
    let owner = |(api_version, kind): (&str, &str)| json!({ "apiVersion": api_version, "kind": kind, "name": "owner", "uid": "o", "controller": true });
    let owners: Vec<Value> = controller.into_iter().map(owner).collect();
    json!({ "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": "acme", "uid": name, "resourceVersion": "1", "ownerReferences": owners },
        "spec": { "containers": [], "schedulerName": "fairlead-scheduler",
            "schedulingGates": [ { "name": "fairlead.dev/quota" } ] } })
}

/// Keeps a bare pod, one of a ReplicaSet and one of a TaskRun; `refuse` may refuse a request.
fn cluster(refuse: fn(&str) -> Option<(u16, Value)>) -> (Access, Asked) {
    let pods = [
        pod("bare", None),
        pod("worker", Some(("apps/v1", "ReplicaSet"))),
        pod("build", Some(("tekton.dev/v1", "TaskRun"))),
    ];
    let pods = Mutex::new(pods.to_vec());
    access(move |question| {
        if let Some(refused) = refuse(question) {
            return refused;
        }
        let mut pods = pods.lock().unwrap();
        let (verb, path) = question.split_once(' ').unwrap();
        let name = path.rsplit('/').next().unwrap();
        let at = pods.iter().position(|pod| pod["metadata"]["name"] == name);
        match (verb, at) {
            ("GET", _) => list(&pods),
            ("POST", _) => (201, json!({ "spec": {}, "status": { "allowed": true } })),
            ("DELETE", Some(at)) => (200, pods.remove(at)),
            ("PATCH", Some(at)) => {
                pods[at]["spec"]["schedulingGates"] = json!([]);
                (200, pods[at].clone())
            }
            _ => refusal(404, "not found"),
        }
    })
}

fn writes(asked: &Asked) -> Vec<String> {
    let asked = asked.lock().unwrap();
    let mut writes: Vec<String> =
        asked.iter().filter(|asked| asked.starts_with("PATCH") || asked.starts_with("DELETE")).cloned().collect();
    writes.sort();
    writes
}

#[tokio::test(start_paused = true)]
async fn the_work_goes_on_when_nobody_listens() {
    let (access, asked) = cluster(|_| None);
    drain(&access, Duration::from_secs(60), &mut Log(&mut Deaf)).await.unwrap();
    let admission = "DELETE /apis/admissionregistration.k8s.io/v1";
    assert_eq!(
        writes(&asked),
        [
            "DELETE /api/v1/namespaces/acme/pods/worker".to_owned(),
            format!("{admission}/mutatingadmissionpolicybindings/fairlead-gate"),
            format!("{admission}/validatingadmissionpolicybindings/fairlead-pods"),
            "PATCH /api/v1/namespaces/acme/pods/bare".to_owned(),
            "PATCH /api/v1/namespaces/acme/pods/build".to_owned(),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn who_stays_behind_is_listed_with_the_reason() {
    let (access, _) = cluster(|_| None);
    let mut told = Vec::new();
    drain(&access, Duration::from_secs(60), &mut Log(&mut told)).await.unwrap();
    let told = String::from_utf8(told).unwrap();
    assert!(told.contains("drained: 1 pods given back to their controllers, 2 gates removed"), "{told}");
    assert!(told.contains("acme/bare: has no controller"), "{told}");
    assert!(told.contains("acme/build: TaskRun owner is not known to create"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn a_time_out_says_who_refused() {
    let (access, _) = cluster(|question| question.starts_with("PATCH").then(|| refusal(403, POLICY)));
    let mut told = Vec::new();
    let error = drain(&access, Duration::from_secs(30), &mut Log(&mut told)).await.unwrap_err();
    assert!(matches!(error, CliError::DrainTimeout { seconds: 30, deleted: 1, ungated: 0, .. }), "{error:?}");
    let text = chain(&error);
    assert!(
        text.contains("cannot remove the gate of pod acme/") && text.ends_with(&format!("{POLICY} (403)")),
        "{text}"
    );
    assert!(String::from_utf8(told).unwrap().contains("still refused: cannot remove the gate"));
}

#[tokio::test(start_paused = true)]
async fn a_refused_deletion_is_no_round_of_its_controller() {
    let (access, asked) = cluster(|question| {
        question.starts_with("DELETE /api/v1/namespaces/acme/pods/worker").then(|| refusal(403, WEBHOOK))
    });
    let error = drain(&access, Duration::from_secs(60), &mut Log(&mut Deaf)).await.unwrap_err();
    assert!(chain(&error).ends_with(&format!("cannot delete pod acme/worker: {WEBHOOK} (403)")), "{error:?}");
    let gate_taken = writes(&asked).iter().any(|write| write.starts_with("PATCH") && write.ends_with("worker"));
    assert!(!gate_taken, "the template was blamed for what a webhook did");
}

#[tokio::test]
async fn a_preview_changes_nothing_and_succeeds() {
    let (access, asked) = cluster(|_| None);
    let lines = preview(&access).await.unwrap();
    assert!(lines.iter().any(|line| line.starts_with("would delete pod acme/worker")), "{lines:?}");
    assert!(lines.iter().any(|line| line == "would remove the gate of pod acme/build"), "{lines:?}");
    assert_eq!(lines.last().unwrap(), "nothing was changed; add --yes to do it");
    run(&access, &DrainArgs { yes: false, timeout: Duration::from_secs(1) }).await.unwrap();
    assert_eq!(writes(&asked), [""; 0]);
}
