//! What is asked of the machine beyond CPUs: a shared cache, huge pages.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use fairlead_crds::NodeTopology;
use fairlead_crds::keys::WISH_ANNOTATION_PREFIX;
use fairlead_crds::node_topology::PinningMode;
use fairlead_e2e::eventually::{Seen, eventually, seen};
use fairlead_e2e::guest::{HUGE_PAGE_BYTES, list};
use kube::api::Api;
use serde_json::{Value, json};

use crate::world::{LIMIT, NODE, Observed, WORKER, World, told};

/// The published machine is the one that QEMU was told to be.
pub async fn machine(world: &World) -> Result<()> {
    world.agent().await?;
    let api: Api<NodeTopology> = Api::all(world.bed.client.clone());
    let topology = eventually("the node's topology says Own", LIMIT, || async {
        let Some(topology) = api.get_opt(NODE).await? else { return Ok(Seen::NotYet("no NodeTopology".to_owned())) };
        let pinning = topology.spec.pinning.clone();
        Ok(match &pinning {
            Some(pinning) if pinning.mode == PinningMode::Own => Seen::Yes(topology),
            other => Seen::NotYet(format!("{other:?}")),
        })
    })
    .await?;
    let (machine, spec) = (world.guest.machine, topology.spec);
    let sizes = spec.numa_nodes.iter().map(|node| Ok(list(&node.cpus)?.len())).collect::<Result<Vec<_>>>()?;
    let (per_node, nodes) = (usize::try_from(machine.cpus_per_node())?, usize::try_from(machine.numa_nodes)?);
    ensure!(sizes == vec![per_node; nodes], "CPUs of the NUMA nodes: {sizes:?}");
    let caches = spec.l3_caches.iter().map(|cache| list(&cache.cpus)).collect::<Result<BTreeSet<_>>>()?;
    ensure!(caches == told_caches(world), "L3 caches: {caches:?}");
    for node in &spec.numa_nodes {
        let of_size = node.huge_pages.iter().filter(|pages| pages.page_bytes == HUGE_PAGE_BYTES);
        let count: i64 = of_size.map(|pages| pages.count).sum();
        let expected = machine.huge_pages_of(u32::try_from(node.id)?);
        ensure!(count == i64::from(expected), "node {} has {count} huge pages, {expected} were set aside", node.id);
    }
    ensure!(spec.disagreements.is_empty(), "{:?}", spec.disagreements);
    eprintln!("           {nodes} NUMA nodes, {} L3 caches, {per_node} CPUs a node", caches.len());
    Ok(())
}

/// CPUs by L3, as QEMU was told.
fn told_caches(world: &World) -> BTreeSet<BTreeSet<u32>> {
    let machine = world.guest.machine;
    let step = machine.cpus_per_l3();
    let caches = machine.cpus() / step;
    (0..caches).map(|cache| (cache * step..(cache + 1) * step).collect()).collect()
}

/// CPUs that share an L3 with this one, in the words of the guest's kernel.
async fn cache_of(world: &World, cpu: u32) -> Result<BTreeSet<u32>> {
    let file = format!("/sys/devices/system/cpu/cpu{cpu}/cache/index3/shared_cpu_list");
    list(&world.guest.probe.shell(&format!("cat {file}")).await?)
}

/// A pod that insists on one L3 gets one; more CPUs than an L3 has are refused to it, and given to a pod that does not
/// insist.
pub async fn one_cache(world: &World) -> Result<()> {
    let insists = |pod: &mut Value| {
        pod["metadata"]["annotations"] = json!({ format!("{WISH_ANNOTATION_PREFIX}cache"): "RequireOneL3" });
    };
    let whole = world.guest.machine.cpus_per_l3();
    let more = (whole + 2).to_string();
    world.create("one-cache", Some(&whole.to_string()), insists).await?;
    world.create("too-large", Some(&more), insists).await?;
    world.create("no-matter", Some(&more), |_| ()).await?;
    world.running(&["one-cache", "no-matter"]).await?;
    let picture = world.as_promised(&["one-cache", "no-matter"]).await?;
    let cpus = &picture.of("one-cache")?.kernel.cpus;
    let cache = cache_of(world, *cpus.first().context("one-cache has no CPU")?).await?;
    ensure!(*cpus == cache, "one-cache has {cpus:?}, the cache of the first of them is of {cache:?}");
    let large = &picture.of("no-matter")?.kernel;
    ensure!(large.memory_nodes.len() == 1, "no-matter fits into one NUMA node: {large:?}");
    let why = eventually("too-large is refused", LIMIT, || async {
        let pod = world.pods.get("too-large").await?;
        let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let refused = conditions.into_iter().find(|condition| condition.reason.as_deref() == Some("Unschedulable"));
        let why = refused.and_then(|condition| condition.message.clone());
        Ok(why.map_or_else(|| Seen::NotYet(told(&pod)), Seen::Yes))
    })
    .await?;
    ensure!(why.contains("no L3 cache as large as requested"), "refused for another reason: {why}");
    eprintln!("           one-cache {cpus:?}, no-matter {:?}, too-large: {why}", large.cpus);
    world.delete(&["one-cache", "too-large", "no-matter"]).await
}

/// Creates a pod with 2 CPUs of its own that takes so many huge pages into use.
async fn create_with_pages(world: &World, name: &str, pages: i64) -> Result<()> {
    let bytes = pages * HUGE_PAGE_BYTES;
    world
        .create(name, Some("2"), |pod| {
            let container = &mut pod["spec"]["containers"][0];
            container["resources"]["limits"]["hugepages-2Mi"] = json!(format!("{}Mi", bytes >> 20));
            container["volumeMounts"] = json!([{ "name": "pages", "mountPath": "/pages" }]);
            let script = format!("busybox fallocate -l {bytes} /pages/used || exit 1; {WORKER}");
            container["command"] = json!(["/bin/sh", "-c", script]);
            pod["spec"]["volumes"] = json!([{ "name": "pages", "emptyDir": { "medium": "HugePages" } }]);
        })
        .await
}

/// Free huge pages by NUMA node, in the words of the guest's kernel.
async fn free_pages(world: &World) -> Result<BTreeMap<u32, i64>> {
    let folder = format!("hugepages/hugepages-{}kB", HUGE_PAGE_BYTES >> 10);
    let script = format!(
        "cd /sys/devices/system/node; for n in node*; do echo ${{n#node}} $(cat $n/{folder}/free_hugepages); done"
    );
    let text = world.guest.probe.shell(&script).await?;
    let pair = |line: &str| {
        let (node, count) = line.split_once(' ').with_context(|| format!("no pair: {line:?}"))?;
        Ok((node.parse()?, count.parse()?))
    };
    text.lines().map(pair).collect()
}

/// A pod with huge pages runs where they are, on one NUMA node if that has enough, and what it takes into use is what it
/// was promised.
pub async fn huge_pages(world: &World) -> Result<()> {
    let machine = world.guest.machine;
    let [(few, some), (rich, many)] = machine.huge_pages[..] else { anyhow::bail!("not two nodes with huge pages") };
    let (some, many) = (i64::from(some), i64::from(many));
    let first = i64::midpoint(some, many);
    create_with_pages(world, "pages", first).await?;
    // One after the other: the kernel gives a pod that may use two nodes the pages of either, also those promised on one
    // of them to a pod that has not taken them yet.
    world.running(&["pages"]).await?;
    await_free(world, &[(few, some), (rich, many - first)]).await?;
    // All that is left, on both.
    create_with_pages(world, "rest", some + many - first).await?;
    world.running(&["rest"]).await?;
    let picture = world.as_promised(&["pages", "rest"]).await?;
    near(world, picture.of("pages")?, &BTreeSet::from([rich]))?;
    near(world, picture.of("rest")?, &BTreeSet::from([few, rich]))?;
    await_free(world, &[(few, 0), (rich, 0)]).await?;
    world.delete(&["pages", "rest"]).await
}

/// Waits until these NUMA nodes have so many huge pages that nobody uses.
async fn await_free(world: &World, expected: &[(u32, i64)]) -> Result<()> {
    eventually(&format!("free huge pages by node: {expected:?}"), LIMIT, || async {
        let free = free_pages(world).await?;
        Ok(seen(expected.iter().all(|(node, count)| free.get(node) == Some(count)), format!("{free:?}")))
    })
    .await
}

/// Its memory is of exactly these NUMA nodes, and its CPUs of none but them.
fn near(world: &World, observed: &Observed, nodes: &BTreeSet<u32>) -> Result<()> {
    let per_node = world.guest.machine.cpus_per_node();
    let kernel = &observed.kernel;
    ensure!(kernel.memory_nodes == *nodes, "{} has memory of {:?}", observed.pod, kernel.memory_nodes);
    let cpus_near = kernel.cpus.iter().all(|cpu| nodes.contains(&(cpu / per_node)));
    ensure!(cpus_near, "{} has its memory on {nodes:?} and CPUs {:?}", observed.pod, kernel.cpus);
    eprintln!("           {}: CPUs {:?}, memory {:?}", observed.pod, kernel.cpus, kernel.memory_nodes);
    Ok(())
}
