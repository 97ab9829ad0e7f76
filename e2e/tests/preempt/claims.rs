//! A pod with a resource claim: kube-scheduler allocates the device, and the CPUs promised are of the device's NUMA node.

use super::{LIMIT, agent_of, apply, get, placed, pod};
use anyhow::{Context as _, Result, ensure};
use fairlead_e2e::bed::Bed;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::time::Instant;

/// Two sockets with a NUMA node each; the first has the CPUs 0 to 31.
const NODE: &str = "two-socket-0";
const DRIVER: &str = "gpu.example.com";
const ADDRESS: &str = "resource.kubernetes.io/pciBusID";

/// Name, PCI address, and the first of its 32 near CPUs. The first pod gets the one that nothing else speaks for: without
/// a wish CPUs of the first socket are chosen; and the second pod would join the first in its half used socket.
const DEVICES: [(&str, &str, u32); 2] = [("gpu-1", "0000:8a:00.0", 32), ("gpu-0", "0000:0a:00.0", 0)];

/// Publishes the devices, as a DRA driver and (in the place of an agent on a machine that has none) the agent do.
async fn publish(bed: &Bed) -> Result<()> {
    let seen = |(_, address, first): &(&str, &str, u32)| json!({ "address": address, "class": "0302", "id": "10de:2330", "cpus": format!("{first}-{}", first + 31) });
    let devices = json!({ "spec": { "pciDevices": DEVICES.iter().map(seen).collect::<Vec<_>>() } });
    let patch = ["patch", "nodetopology", NODE, "--type=merge", "-p", &devices.to_string()];
    bed.kubectl.run(&patch, LIMIT).await?;
    let class = json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", "metadata": { "name": DRIVER },
        "spec": { "selectors": [{ "cel": { "expression": format!("device.driver == '{DRIVER}'") } }] },
    });
    apply(bed, &class).await?;
    let listed = |(name, address, _): &(&str, &str, u32)| json!({ "name": name, "attributes": { ADDRESS: { "string": address } } });
    let slice = json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": { "name": "two-socket-0-gpu" },
        "spec": {
            "driver": DRIVER, "nodeName": NODE, "devices": DEVICES.iter().map(listed).collect::<Vec<_>>(),
            "pool": { "name": NODE, "generation": 1, "resourceSliceCount": 1 },
        },
    });
    apply(bed, &slice).await?;
    Ok(())
}

/// A pod of four CPUs that claims that very device.
async fn create(bed: &Bed, name: &str, address: &str) -> Result<()> {
    let wanted = format!("device.attributes['resource.kubernetes.io'].pciBusID == '{address}'");
    let request = json!({ "name": "gpu", "exactly": { "deviceClassName": DRIVER, "selectors": [{ "cel": { "expression": wanted } }] } });
    let template = json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaimTemplate",
        "metadata": { "name": name, "namespace": "default" }, "spec": { "spec": { "devices": { "requests": [request] } } },
    });
    apply(bed, &template).await?;
    let mut claiming = pod(name, "4", None);
    claiming["spec"]["nodeSelector"] = json!({ "kubernetes.io/hostname": NODE });
    claiming["spec"]["resourceClaims"] = json!([{ "name": "gpu", "resourceClaimTemplateName": name }]);
    claiming["spec"]["containers"][0]["resources"]["claims"] = json!([{ "name": "gpu" }]);
    apply(bed, &claiming).await?;
    Ok(())
}

/// The device that the scheduler allocated to the pod's claim.
async fn allocated(bed: &Bed, name: &str) -> Result<String> {
    let pod = get(bed, "pod", name).await?;
    let claim = pod["status"]["resourceClaimStatuses"][0]["resourceClaimName"].as_str().context("no claim")?;
    let claim: Value = get(bed, "resourceclaim", claim).await?;
    let device = claim["status"]["allocation"]["devices"]["results"][0]["device"].as_str();
    Ok(device.with_context(|| format!("not allocated: {claim}"))?.to_owned())
}

pub async fn cpus_are_near_the_allocated_device(bed: &Bed) -> Result<()> {
    // Its agent would publish the machine as it is, without devices.
    let agent = agent_of(bed, NODE).await?;
    let signal = |signal| bed.kubelet.signal(signal, |running| agent == running.pod.as_str());
    ensure!(signal(Signal::STOP) == 1, "one agent on {NODE}");
    publish(bed).await?;
    let began = Instant::now();
    for (device, address, first) in DEVICES {
        let name = format!("with-{device}");
        create(bed, &name, address).await?;
        let cpus = placed(bed, &name, LIMIT).await?;
        assert_eq!(allocated(bed, &name).await?, device);
        let own: Vec<u32> = cpus.split([',', '-']).map(str::parse).collect::<Result<_, _>>()?;
        assert!(own.iter().all(|cpu| (first..first + 32).contains(cpu)), "{name} has {cpus}, far from its device");
        let why = bed.kubectl.run(&["fairlead", "explain", "pod", &name, "-n", "default"], LIMIT).await?;
        let near = format!("4 of its 4 CPUs are near {DRIVER}/{NODE}/{device} of its claim gpu");
        assert!(why.contains(&near), "{why}");
    }
    eprintln!("claims: two pods near their devices after {:.1} s", began.elapsed().as_secs_f32());
    ensure!(signal(Signal::CONT) == 1, "one agent on {NODE}");
    Ok(())
}
