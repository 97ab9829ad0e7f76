//! Simulated kubelets: genuine kwok with Stage objects of our own, which take as long as real starts do.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use crate::RELEASE_NAMESPACE;
use crate::control_plane::{ControlPlane, spawn_upstream};
use crate::nodes::SHAPE_LABEL;
use crate::parts::Parts;
use crate::ports;
use crate::processes::Process;

/// How long simulated pods take. Each step is drawn evenly between the two, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct StageTimes {
    /// Bound to Ready.
    pub ready_ms: (u32, u32),
    /// Ready to Succeeded, for pods of Jobs.
    pub complete_ms: (u32, u32),
    /// Deletion asked for to gone.
    pub delete_ms: (u32, u32),
}

impl Default for StageTimes {
    fn default() -> Self {
        Self { ready_ms: (1_500, 2_500), complete_ms: (1_000, 2_000), delete_ms: (300, 900) }
    }
}

/// Starts kwok for all nodes with [`SHAPE_LABEL`].
pub async fn start(parts: &Parts, dir: &Path, plane: &ControlPlane, times: StageTimes) -> Result<Process> {
    let config = dir.join("kwok-stages.yaml");
    let documents: Vec<String> = stages(times).iter().map(Value::to_string).collect();
    std::fs::write(&config, documents.join("\n---\n"))?;
    let args = vec![
        format!("--kubeconfig={}", plane.kwok_kubeconfig().display()),
        format!("--config={}", config.display()),
        "--manage-all-nodes=false".to_owned(),
        format!("--manage-nodes-with-label-selector={SHAPE_LABEL}"),
        "--node-lease-duration-seconds=40".to_owned(),
        "--enable-crds=".to_owned(),
        "--cidr=10.244.0.0/16".to_owned(),
        format!("--server-address=127.0.0.1:{}", ports::free()?),
    ];
    spawn_upstream(parts, dir, "kwok", args).await
}

fn stages(times: StageTimes) -> Vec<Value> {
    let ready = r#".status.conditions.[] | select( .type == "Ready" ) | .status"#;
    let alive = json!({ "key": ".metadata.deletionTimestamp", "operator": "DoesNotExist" });
    // The pods of our own release have a kubelet that really runs them.
    let not_ours = json!({ "key": ".metadata.namespace", "operator": "NotIn", "values": [RELEASE_NAMESPACE] });
    vec![
        stage(
            "node-initialize",
            "Node",
            &json!([{ "key": ready, "operator": "NotIn", "values": ["True"] }]),
            None,
            &json!({ "statusTemplate": NODE_READY }),
        ),
        stage(
            "pod-ready",
            "Pod",
            &json!([alive, not_ours, { "key": ".status.phase", "operator": "In", "values": ["Pending"] },
                { "key": ready, "operator": "NotIn", "values": ["True"] }]),
            Some(times.ready_ms),
            &json!({ "statusTemplate": POD_READY }),
        ),
        stage(
            "pod-complete",
            "Pod",
            &json!([alive, not_ours, { "key": ".status.phase", "operator": "In", "values": ["Running"] },
                { "key": ".metadata.ownerReferences.[].kind", "operator": "In", "values": ["Job"] }]),
            Some(times.complete_ms),
            &json!({ "statusTemplate": POD_COMPLETE }),
        ),
        stage(
            "pod-delete",
            "Pod",
            &json!([{ "key": ".metadata.deletionTimestamp", "operator": "Exists" }, not_ours,
                { "key": ".metadata.finalizers", "operator": "DoesNotExist" }]),
            Some(times.delete_ms),
            &json!({ "delete": true }),
        ),
    ]
}

fn stage(name: &str, kind: &str, expressions: &Value, delay_ms: Option<(u32, u32)>, next: &Value) -> Value {
    let mut spec = json!({
        "resourceRef": { "apiGroup": "v1", "kind": kind },
        "selector": { "matchExpressions": expressions },
        "next": next,
    });
    if let Some((least, most)) = delay_ms {
        spec["delay"] = json!({ "durationMilliseconds": least, "jitterDurationMilliseconds": most });
    }
    json!({ "apiVersion": "kwok.x-k8s.io/v1alpha1", "kind": "Stage", "metadata": { "name": name }, "spec": spec })
}

const NODE_READY: &str = r"
{{ $now := Now }}
conditions:
{{ range NodeConditions }}
- type: {{ .type | Quote }}
  status: {{ .status | Quote }}
  reason: {{ .reason | Quote }}
  message: {{ .message | Quote }}
  lastHeartbeatTime: {{ $now | Quote }}
  lastTransitionTime: {{ $now | Quote }}
{{ end }}
phase: Running
";

const POD_READY: &str = r#"
{{ $now := Now }}
phase: Running
startTime: {{ $now | Quote }}
conditions:
{{ range $type := (list "Initialized" "ContainersReady" "Ready") }}
- type: {{ $type | Quote }}
  status: "True"
  lastTransitionTime: {{ $now | Quote }}
{{ end }}
{{ range .spec.readinessGates }}
- type: {{ .conditionType | Quote }}
  status: "True"
  lastTransitionTime: {{ $now | Quote }}
{{ end }}
containerStatuses:
{{ range .spec.containers }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  imageID: ""
  ready: true
  started: true
  restartCount: 0
  state: { running: { startedAt: {{ $now | Quote }} } }
{{ end }}
{{ if .spec.initContainers }}
initContainerStatuses:
{{ range .spec.initContainers }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  imageID: ""
  ready: true
  restartCount: 0
  {{ if eq (or .restartPolicy "") "Always" }}
  started: true
  state: { running: { startedAt: {{ $now | Quote }} } }
  {{ else }}
  state: { terminated: { exitCode: 0, reason: Completed, startedAt: {{ $now | Quote }}, finishedAt: {{ $now | Quote }} } }
  {{ end }}
{{ end }}
{{ end }}
podIP: {{ PodIPWith .spec.nodeName ( or .spec.hostNetwork false ) ( or .metadata.uid "" ) ( or .metadata.name "" ) ( or .metadata.namespace "" ) | Quote }}
"#;

const POD_COMPLETE: &str = r#"
{{ $now := Now }}
phase: Succeeded
conditions:
{{ range $type := (list "ContainersReady" "Ready") }}
- type: {{ $type | Quote }}
  status: "False"
  reason: PodCompleted
  lastTransitionTime: {{ $now | Quote }}
{{ end }}
containerStatuses:
{{ range .spec.containers }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  imageID: ""
  ready: false
  started: false
  restartCount: 0
  state: { terminated: { exitCode: 0, reason: Completed, startedAt: {{ $now | Quote }}, finishedAt: {{ $now | Quote }} } }
{{ end }}
"#;
