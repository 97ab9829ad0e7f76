//! What the release's pods may do, judged by the API server's own Pod Security: "restricted" for all but the agent's, whose
//! exceptions are exactly those that its page in the documentation gives reasons for.

use super::{Cluster, LIMIT};
use anyhow::{Context, Result, ensure};
use fairlead_e2e::RELEASE_NAMESPACE;
use serde_json::{Value, json};

const STRICT: &str = "strict";
/// What "restricted" has against the agent's pod, as the API server words it.
const EXCEPTIONS: [&str; 3] = ["restricted volume types", "runAsNonRoot != true", "runAsUser=0"];

/// Offers every pod template of the release, its hooks included, to a namespace that admits restricted pods only.
pub(super) async fn are_as_small_as_documented(cluster: &Cluster) -> Result<()> {
    let strict = json!({ "apiVersion": "v1", "kind": "Namespace",
        "metadata": { "name": STRICT, "labels": { "pod-security.kubernetes.io/enforce": "restricted" } } });
    cluster.apply(&strict).await?;
    let get = ["-n", RELEASE_NAMESPACE, "get", "deployments,daemonsets", "-o", "json"];
    let list: Value = serde_json::from_str(&cluster.bed.kubectl.run(&get, LIMIT).await?)?;
    let mut owners = list["items"].as_array().context("no items")?.clone();
    let hooks = cluster.bed.helm.run(&["get", "hooks", "fairlead", "--namespace", RELEASE_NAMESPACE], LIMIT).await?;
    let hooks: Vec<Value> = serde_saphyr::from_multiple(&hooks)?;
    owners.extend(hooks.into_iter().filter(|hook| hook["kind"] == "Job"));
    ensure!(owners.len() == 4, "scheduler, operator, agent and drain, but not {} owners of pods", owners.len());
    for owner in owners {
        let name = owner["metadata"]["name"].as_str().context("no name")?;
        let mut spec = owner["spec"]["template"]["spec"].clone();
        // Accounts and classes of the release are not in this namespace.
        for absent in ["serviceAccountName", "serviceAccount", "priorityClassName"] {
            spec.as_object_mut().context("no pod spec")?.remove(absent);
        }
        let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": STRICT }, "spec": spec });
        let create = ["create", "--dry-run=server", "-f", "-"];
        let answer = cluster.bed.kubectl.output(&create, Some(&pod.to_string()), LIMIT).await?;
        match answer.stderr.split_once("violates PodSecurity") {
            None => ensure!(answer.success && name != "fairlead-agent", "{name}: {}", answer.stderr),
            Some((_, said)) => {
                ensure!(name == "fairlead-agent", "{name} is not restricted: {said}");
                let reasons = said.matches(" (").count();
                let known = EXCEPTIONS.iter().all(|exception| said.contains(exception));
                ensure!(known && reasons == EXCEPTIONS.len(), "other exceptions than documented: {said}");
            }
        }
    }
    Ok(())
}
