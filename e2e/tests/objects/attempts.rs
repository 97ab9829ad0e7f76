//! Ways round the gate and the quota, tried by a tenant's own ServiceAccount: each ends at the policy that is meant for it.

use super::{Cluster, LIMIT, deployment, pod};
use anyhow::{Context, Result};
use fairlead_e2e::eventually::{Seen, eventually, seen};
use serde_json::{Value, json};

const TENANT: &str = "--as=system:serviceaccount:shop:default";
const RELEASED: &str = "the annotation fairlead.dev/released is written by the Fairlead operator only";
const TOUCHED: &str = "the annotation fairlead.dev/touched is written by Fairlead only";
const PLACED: &str = "the annotation fairlead.dev/placement comes with the pod's Binding and never changes";
const NAMED: &str = "the label fairlead.dev/tenant follows from the TenantQuota that names the namespace";
const RAISED: &str = "a resize that raises requests passes over the queue";

/// Tries them all.
pub(super) async fn fail(cluster: &Cluster) -> Result<()> {
    grant(cluster).await?;
    let waiting = fill_the_quota(cluster).await?;
    on_a_pod_that_waits(cluster, &waiting).await;
    at_creation(cluster).await;
    by_a_binding(cluster, &waiting).await;
    by_a_daemonset(cluster).await;
    by_a_resize(cluster).await?;
    by_a_resize_of_own_cores(cluster).await?;
    let move_it = ["label", "namespace", "shop", "--overwrite", "fairlead.dev/tenant=second"];
    let because = "the label fairlead.dev/tenant is written by the Fairlead operator only";
    cluster.denied("move a namespace by its label, though an administrator", &move_it, None, because).await;
    Ok(())
}

/// The cluster's own role for whoever edits a namespace, and what it lacks but an autoscaler or a scheduler of the tenant's
/// might be given.
async fn grant(cluster: &Cluster) -> Result<()> {
    let subresources = "--resource=pods/resize,pods/status,pods/binding";
    let to = "--serviceaccount=shop:default";
    for args in [
        ["role", "more", "--verb=create,get,patch", subresources],
        ["rolebinding", "more", "--role=more", to],
        ["rolebinding", "edit", "--clusterrole=edit", to],
    ] {
        cluster.bed.kubectl.run(&[&["-n", "shop", "create"], &args[..]].concat(), LIMIT).await?;
    }
    Ok(())
}

/// Takes all the pods that the quota admits, and waits until those beyond it are told why they wait; gives one of them.
async fn fill_the_quota(cluster: &Cluster) -> Result<String> {
    let mut filler = deployment("shop", "filler");
    filler["spec"]["replicas"] = json!(20);
    cluster.apply(&filler).await?;
    eventually("every pod that waits has a reason", LIMIT, || async {
        let out = cluster.bed.kubectl.run(&["-n", "shop", "get", "pods", "-o", "json"], LIMIT).await?;
        let pods: Value = serde_json::from_str(&out)?;
        let told = |pod: &Value| {
            let conditions = pod["status"]["conditions"].as_array();
            conditions.into_iter().flatten().any(|c| c["type"] == "fairlead.dev/Released" && c["status"] == "False")
        };
        let items = pods["items"].as_array().context("no items")?;
        let waiting: Vec<&Value> =
            items.iter().filter(|pod| pod["spec"]["schedulingGates"][0]["name"] == "fairlead.dev/quota").collect();
        let explained = waiting.iter().filter(|pod| told(pod)).count();
        Ok(match waiting.first().and_then(|pod| pod["metadata"]["name"].as_str()) {
            Some(name) if explained == waiting.len() => Seen::Yes(name.to_owned()),
            _ => Seen::NotYet(format!("{} waiting, {explained} with a reason", waiting.len())),
        })
    })
    .await
}

async fn on_a_pod_that_waits(cluster: &Cluster, waiting: &str) {
    let no_gate = r#"[{"op":"remove","path":"/spec/schedulingGates"}]"#;
    let by_status = r#"{"metadata":{"annotations":{"fairlead.dev/touched":"1"}}}"#;
    let attempts: [(&str, &[&str], &str); 8] = [
        (
            "remove the gate",
            &["patch", "pod", waiting, "--type=json", "-p", no_gate],
            "the gate fairlead.dev/quota is removed by the Fairlead operator only",
        ),
        ("forge a release", &["annotate", "pod", waiting, "fairlead.dev/released=1:1"], RELEASED),
        ("forge a touch", &["annotate", "pod", waiting, "fairlead.dev/touched=1"], TOUCHED),
        ("forge a placement", &["annotate", "pod", waiting, "fairlead.dev/placement={}"], PLACED),
        ("change the tenant", &["label", "pod", waiting, "--overwrite", "fairlead.dev/tenant=second"], NAMED),
        ("take the tenant off", &["label", "pod", waiting, "fairlead.dev/tenant-"], NAMED),
        (
            "forge a touch through the status",
            &["patch", "pod", waiting, "--subresource=status", "-p", by_status],
            TOUCHED,
        ),
        (
            "take the tenant off through the status",
            &["patch", "pod", waiting, "--subresource=status", "-p", r#"{"metadata":{"labels":null}}"#],
            NAMED,
        ),
    ];
    for (what, args, because) in attempts {
        let args = [&["-n", "shop", TENANT], args].concat();
        cluster.denied(what, &args, None, because).await;
    }
}

async fn at_creation(cluster: &Cluster) {
    let with = |pointer: [&str; 2], value: Value| {
        let mut object = pod("shop", "forged");
        object[pointer[0]][pointer[1]] = value;
        object
    };
    let annotated = |key: &str| with(["metadata", "annotations"], json!({ key: "1:1" }));
    let attempts = [
        (
            "name a node",
            with(["spec", "nodeName"], json!("single-0")),
            "spec.nodeName passes over the queue and is refused in a managed namespace",
        ),
        ("create a released pod", annotated("fairlead.dev/released"), RELEASED),
        ("create a touched pod", annotated("fairlead.dev/touched"), TOUCHED),
        ("create a placed pod", annotated("fairlead.dev/placement"), PLACED),
    ];
    for (what, object, because) in attempts {
        cluster.denied(what, &["-n", "shop", TENANT, "create", "-f", "-"], Some(&object), because).await;
    }
    let mut gated = pod("default", "gated");
    gated["spec"]["schedulingGates"] = json!([{ "name": "fairlead.dev/quota" }]);
    let because = "this namespace is in no TenantQuota";
    cluster.denied("gate a pod for ever", &["create", "-f", "-"], Some(&gated), because).await;
}

/// A Binding's metadata lands on the pod.
async fn by_a_binding(cluster: &Cluster, waiting: &str) {
    let both =
        "the annotations fairlead.dev/released and fairlead.dev/touched are written by the Fairlead operator only";
    let attempts = [
        (
            "bind with a placement",
            json!({ "annotations": { "fairlead.dev/placement": "{}" } }),
            "the annotation fairlead.dev/placement is written by the Fairlead extender only",
        ),
        ("bind with a release", json!({ "annotations": { "fairlead.dev/released": "1:1" } }), both),
        ("bind with a touch", json!({ "annotations": { "fairlead.dev/touched": "1" } }), both),
        (
            "bind with a tenant",
            json!({ "labels": { "fairlead.dev/tenant": "second" } }),
            "the label fairlead.dev/tenant is written by Fairlead only",
        ),
    ];
    let path = format!("/api/v1/namespaces/shop/pods/{waiting}/binding");
    for (what, mut metadata, because) in attempts {
        metadata["name"] = json!(waiting);
        let binding = json!({ "apiVersion": "v1", "kind": "Binding", "metadata": metadata,
            "target": { "apiVersion": "v1", "kind": "Node", "name": "single-0" } });
        cluster.denied(what, &[TENANT, "create", "--raw", &path, "-f", "-"], Some(&binding), because).await;
    }
}

async fn by_a_daemonset(cluster: &Cluster) {
    let mut everywhere = deployment("shop", "everywhere");
    everywhere["kind"] = json!("DaemonSet");
    if let Some(spec) = everywhere["spec"].as_object_mut() {
        spec.remove("replicas");
    }
    let because = "ask the cluster's administrator to run it in a namespace that no TenantQuota names";
    for user in [&[TENANT][..], &[]] {
        let args = [user, &["create", "-f", "-"]].concat();
        cluster.denied("run a pod on every node", &args, Some(&everywhere), because).await;
    }
    everywhere["metadata"]["namespace"] = json!("default");
    cluster.apply(&everywhere).await.unwrap();
}

/// Where no tenant is: cores that were promised stay as they are, whoever asks and in whichever direction; memory may shrink.
async fn by_a_resize_of_own_cores(cluster: &Cluster) -> Result<()> {
    let amounts = |cpu: &str, memory: &str| json!({ "cpu": cpu, "memory": memory });
    let sized = |cpu: &str, memory: &str| json!({ "requests": amounts(cpu, memory), "limits": amounts(cpu, memory) });
    let mut exclusive = pod("default", "exclusive");
    exclusive["spec"]["schedulerName"] = json!("fairlead-scheduler");
    exclusive["spec"]["containers"][0]["resources"] = sized("2", "1Gi");
    cluster.apply(&exclusive).await?;
    let place = ["get", "pod", "exclusive", "-o", r"jsonpath={.metadata.annotations.fairlead\.dev/placement}"];
    eventually("the pod has cores of its own", LIMIT, || async {
        let out = cluster.bed.kubectl.run(&place, LIMIT).await?;
        Ok(seen(out.contains("cpus"), &out))
    })
    .await?;
    let resize = |cpu: &str, memory: &str| {
        json!({ "spec": { "containers": [{ "name": "c", "resources": sized(cpu, memory) }] } }).to_string()
    };
    for (what, cpu) in [("shrink promised cores", "1"), ("grow promised cores", "3"), ("keep half a core", "1500m")] {
        let args = ["patch", "pod", "exclusive", "--subresource=resize", "-p", &resize(cpu, "1Gi")];
        cluster.denied(what, &args, None, "a resize that changes the CPUs of a pod with cores of its own").await;
    }
    let args = ["patch", "pod", "exclusive", "--subresource=resize", "-p", &resize("2", "1025Mi")];
    cluster
        .denied("grow promised memory", &args, None, "a resize that raises the memory of a pod with cores of its own")
        .await;
    let args = ["patch", "pod", "exclusive", "--subresource=resize", "-p", &resize("2000m", "900Mi")];
    cluster.bed.kubectl.run(&args, LIMIT).await?;
    Ok(())
}

/// Growing is refused wherever a pod states requests, also beside something that shrinks; shrinking is not.
async fn by_a_resize(cluster: &Cluster) -> Result<()> {
    let cpu = |amount: &str| json!({ "requests": { "cpu": amount } });
    // Nobody runs them: the API server refuses any resize of a pod that runs on a simulated node.
    let mut thin = pod("shop", "thin");
    thin["spec"]["containers"][0]["resources"] = cpu("100m");
    thin["spec"]["initContainers"] =
        json!([{ "name": "s", "image": "example.com/s:1", "restartPolicy": "Always", "resources": cpu("50m") }]);
    let mut whole = pod("shop", "whole");
    whole["spec"]["resources"] = cpu("1");
    let mut free = thin.clone();
    free["metadata"]["namespace"] = json!("default");
    free["spec"]["nodeSelector"] = json!({ "no-such": "node" });
    for object in [&thin, &whole, &free] {
        cluster.apply(object).await?;
    }
    let one = |resources: Value| json!({ "containers": [{ "name": "c", "resources": resources }] });
    let side = |resources: Value| json!({ "initContainers": [{ "name": "s", "resources": resources }] });
    let mut traded = one(cpu("50m"));
    traded["initContainers"] = side(cpu("60m"))["initContainers"].clone();
    let body = |spec: Value| json!({ "spec": spec }).to_string();
    let attempts = [
        ("raise a request", "thin", one(cpu("101m"))),
        ("add a request", "thin", one(json!({ "requests": { "memory": "1Mi" } }))),
        ("add a limit, which is a request too", "thin", one(json!({ "limits": { "memory": "1Mi" } }))),
        ("raise a sidecar's request", "thin", side(cpu("0.06"))),
        ("raise one request and lower another", "thin", traded),
        ("raise the pod's own request", "whole", json!({ "resources": cpu("1001m") })),
        ("add a request of the pod's own", "whole", json!({ "resources": { "requests": { "memory": "1Mi" } } })),
    ];
    for (what, name, spec) in attempts {
        let args = ["-n", "shop", TENANT, "patch", "pod", name, "--subresource=resize", "-p", &body(spec)];
        cluster.denied(what, &args, None, RAISED).await;
    }
    for (namespace, name, spec) in [
        ("shop", "thin", one(cpu("99m"))),
        ("shop", "whole", json!({ "resources": cpu("0.9") })),
        ("default", "thin", one(cpu("200m"))),
    ] {
        let args = ["-n", namespace, "patch", "pod", name, "--subresource=resize", "-p", &body(spec)];
        cluster.bed.kubectl.run(&args, LIMIT).await?;
    }
    Ok(())
}
