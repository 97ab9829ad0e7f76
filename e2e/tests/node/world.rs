//! The cluster of the node tier: one simulated node for the release's scheduler and operator, and the genuine one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use fairlead_crds::NodePlacement;
use fairlead_crds::node_placement::{PinState, Reservation};
use fairlead_e2e::RELEASE_NAMESPACE;
use fairlead_e2e::bed::{Bed, Options};
use fairlead_e2e::eventually::{Seen, eventually, seen};
use fairlead_e2e::guest::{self, Confinement, FOUR_NODES, Guest, WORKER_IMAGE, list};
use fairlead_e2e::nodes::{SHAPE_LABEL, SINGLE, SimulatedNode};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use serde_json::{Value, json};

use crate::agent::Answers;

/// Of one step.
pub const LIMIT: Duration = Duration::from_secs(120);
/// The genuine node.
pub const NODE: &str = "numa-0";
/// The agent's program, and the beginning of its pod's name.
pub const AGENT: &str = "fairlead-agent";
const NAMESPACE: &str = "work";
/// Waits, and when somebody writes a line into `/go` keeps all its CPUs busy.
pub const WORKER: &str = "busybox mkfifo /go; read -r line < /go; \
    i=0; while [ $i -lt $(busybox nproc) ]; do (while :; do :; done) & i=$((i + 1)); done; wait";

/// The running cluster.
pub struct World {
    pub bed: Bed,
    pub guest: Guest,
    pub pods: Api<Pod>,
    pub release_pods: Api<Pod>,
    pub placements: Api<NodePlacement>,
    /// What agents measured.
    pub answers: Answers,
}

/// One container as the guest's kernel shows it, by its pod.
#[derive(Clone, Debug)]
pub struct Observed {
    pub pod: String,
    pub uid: String,
    pub annotation: Option<String>,
    pub kernel: Confinement,
}

impl Observed {
    pub fn pids(&self) -> BTreeSet<u32> {
        self.kernel.processes.iter().map(|process| process.pid).collect()
    }
}

/// What runs and what was promised, seen at one moment.
pub struct Picture {
    pub containers: BTreeMap<String, Observed>,
    pub placement: NodePlacement,
}

impl World {
    pub async fn start() -> Result<Self> {
        let options = Options {
            nodes: vec![SimulatedNode { name: "host-0".to_owned(), shape: SINGLE }],
            genuine_nodes: vec![NODE.to_owned()],
            redis_password: None,
            ..Options::new("node")
        };
        let bed = Bed::start(options).await?;
        let archives = vec![bed.parts.agent_image()?];
        let options = guest::Options { node: NODE.to_owned(), machine: FOUR_NODES, archives };
        let guest = Guest::start(&bed, options).await?;
        let client = bed.client.clone();
        let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE } });
        let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(client.clone());
        namespaces.create(&PostParams::default(), &serde_json::from_value(namespace)?).await?;
        Ok(Self {
            pods: Api::namespaced(client.clone(), NAMESPACE),
            release_pods: Api::namespaced(client.clone(), RELEASE_NAMESPACE),
            placements: Api::all(client),
            answers: Answers::default(),
            bed,
            guest,
        })
    }

    /// The chart, with its agent on the genuine node only and all else on the simulated one.
    pub async fn install(&self) -> Result<()> {
        let here = json!({ SHAPE_LABEL: SINGLE.name });
        let values = json!({
            "agent": {
                "nodeSelector": { "kubernetes.io/hostname": NODE },
                "kubelet": { "configFile": "/var/lib/kubelet/config.yaml" },
            },
            "scheduler": { "replicas": 1 },
            "operator": { "replicas": 1 },
            "nodeSelector": here,
        });
        self.bed.install_fairlead(&values).await
    }

    /// Creates a pod that waits for work; `cpu` as limit and request gives it CPUs of its own, none puts it into the
    /// shared pool. `change` may alter the object.
    pub async fn create(&self, name: &str, cpu: Option<&str>, change: impl FnOnce(&mut Value)) -> Result<()> {
        let resources = match cpu {
            Some(cpu) => json!({ "limits": { "cpu": cpu, "memory": "64Mi" } }),
            None => json!({ "requests": { "cpu": "100m", "memory": "16Mi" } }),
        };
        let mut pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "name": name },
            "spec": {
                "schedulerName": "fairlead-scheduler",
                "nodeSelector": { "kubernetes.io/hostname": NODE },
                "terminationGracePeriodSeconds": 0,
                "automountServiceAccountToken": false,
                "containers": [{
                    "name": "worker",
                    "image": WORKER_IMAGE,
                    "imagePullPolicy": "Never",
                    "command": ["/bin/sh", "-c", WORKER],
                    "resources": resources,
                }],
            },
        });
        change(&mut pod);
        self.pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
        Ok(())
    }

    /// Deletes these pods, all at once, and waits until they are gone.
    pub async fn delete(&self, names: &[&str]) -> Result<()> {
        for name in names {
            self.pods.delete(name, &DeleteParams::default().grace_period(0)).await?;
        }
        for name in names {
            eventually(&format!("pod {name} is gone"), LIMIT, || async {
                Ok(match self.pods.get_opt(name).await? {
                    None => Seen::Yes(()),
                    Some(pod) => Seen::NotYet(told(&pod)),
                })
            })
            .await?;
        }
        Ok(())
    }

    /// Waits until these pods run.
    pub async fn running(&self, names: &[&str]) -> Result<()> {
        for name in names {
            eventually(&format!("pod {name} runs"), LIMIT, || async {
                let pod = self.pods.get(name).await?;
                let running = pod
                    .status
                    .as_ref()
                    .is_some_and(|status| status.phase.as_deref() == Some("Running") && container_id(status).is_some());
                Ok(if running { Seen::Yes(()) } else { Seen::NotYet(told(&pod)) })
            })
            .await?;
        }
        Ok(())
    }

    /// The agent's pod, when it is Ready.
    pub async fn agent(&self) -> Result<Pod> {
        eventually("the agent's pod is Ready", LIMIT, || async {
            let list = ListParams::default().labels("app.kubernetes.io/component=agent");
            let pods = self.release_pods.list(&list).await?.items;
            Ok(match pods.into_iter().find(|pod| pod.metadata.deletion_timestamp.is_none()) {
                Some(pod) if is_ready(&pod) => Seen::Yes(pod),
                Some(pod) => Seen::NotYet(told(&pod)),
                None => Seen::NotYet("there is none".to_owned()),
            })
        })
        .await
    }

    /// All main containers of pods of the node, ours included, and the promises. Read until the promises did not change
    /// meanwhile.
    pub async fn look(&self) -> Result<Picture> {
        let still = || async {
            let picture = self.look_once().await?;
            let now = self.placements.get(NODE).await?.metadata.resource_version;
            let unchanged = now == picture.placement.metadata.resource_version;
            Ok(if unchanged { Seen::Yes(picture) } else { Seen::NotYet("the placement changes".to_owned()) })
        };
        eventually("the placement does not change while the guest is read", LIMIT, still).await
    }

    async fn look_once(&self) -> Result<Picture> {
        let placement = self.placements.get(NODE).await?;
        let mut by_container = BTreeMap::new();
        for confinement in self.guest.probe.confinements().await? {
            by_container.insert(confinement.container_id.clone(), confinement);
        }
        let mut containers = BTreeMap::new();
        for api in [&self.pods, &self.release_pods] {
            let here = ListParams::default().fields(&format!("spec.nodeName={NODE}"));
            for pod in api.list(&here).await?.items {
                let id = pod.status.as_ref().and_then(container_id);
                // A container that ends or begins at this moment is in one of the two lists only.
                let Some(kernel) = id.and_then(|id| by_container.remove(&id)) else { continue };
                let annotation = pod.annotations().get(fairlead_crds::keys::PLACEMENT_ANNOTATION).cloned();
                let uid = pod.uid().unwrap_or_default();
                containers.insert(pod.name_any(), Observed { pod: pod.name_any(), uid, annotation, kernel });
            }
        }
        Ok(Picture { containers, placement })
    }

    /// Waits until everything that runs is where it was promised, and these pods are among it.
    pub async fn as_promised(&self, names: &[&str]) -> Result<Picture> {
        eventually(&format!("{names:?} and all others run as promised"), LIMIT, || async {
            let picture = self.look().await?;
            if let Some(missing) = names.iter().find(|name| !picture.containers.contains_key(**name)) {
                return Ok(Seen::NotYet(format!("{missing} does not run")));
            }
            Ok(match picture.verdict() {
                Ok(()) => Seen::Yes(picture),
                Err(error) => Seen::NotYet(format!("{error:#}")),
            })
        })
        .await
    }

    /// Waits until a shell command of the guest succeeds.
    pub async fn succeeds(&self, command: &str) -> Result<()> {
        eventually(&format!("`{command}` succeeds in the guest"), LIMIT, || async {
            let answer = self.guest.probe.shell(&format!("{command} 2>&1")).await;
            Ok(seen(answer.is_ok(), format!("{answer:?}")))
        })
        .await
    }

    /// Kills a process of the guest without a chance to tidy up, and waits until it was started again.
    pub async fn kill_and_await(&self, name: &str) -> Result<Duration> {
        let began = Instant::now();
        let ids = |text: &str| text.split_whitespace().map(str::to_owned).collect::<BTreeSet<_>>();
        let before = self.guest.probe.shell(&format!("pids=$(pidof {name}); kill -9 $pids; echo $pids")).await?;
        let before = ids(&before);
        eventually(&format!("{name} runs again"), LIMIT, || async {
            let now = ids(&self.guest.probe.shell(&format!("pidof {name} || true")).await?);
            Ok(seen(!now.is_empty() && now.is_disjoint(&before), format!("was {before:?}, is {now:?}")))
        })
        .await?;
        Ok(began.elapsed())
    }
}

impl Picture {
    pub fn of(&self, pod: &str) -> Result<&Observed> {
        self.containers.get(pod).with_context(|| format!("{pod} does not run"))
    }

    pub fn reservation(&self, uid: &str) -> Option<&Reservation> {
        self.placement.spec.reservations.iter().find(|reservation| reservation.pod_uid == uid)
    }

    /// CPUs of the shared pool as the agent published it.
    pub fn shared_pool(&self) -> Result<BTreeSet<u32>> {
        list(self.placement.status.as_ref().map_or("", |status| &status.shared_cpus))
    }

    /// Held by pods, by our own words.
    pub fn promised(&self) -> Result<BTreeSet<u32>> {
        let mut all = BTreeSet::new();
        for reservation in &self.placement.spec.reservations {
            for cpu in list(&reservation.cpus)? {
                ensure!(all.insert(cpu), "CPU {cpu} is promised twice: {:?}", self.placement.spec.reservations);
            }
        }
        Ok(all)
    }

    /// Everything on exactly the promised CPUs and memory nodes, everything else in the shared pool, no two pods that
    /// own CPUs on one of them.
    pub fn verdict(&self) -> Result<()> {
        let (promised, pool) = (self.promised()?, self.shared_pool()?);
        ensure!(promised.is_disjoint(&pool), "the shared pool {pool:?} has promised CPUs {promised:?}");
        for observed in self.containers.values() {
            match self.reservation(&observed.uid) {
                Some(reservation) => exclusive(observed, reservation)?,
                // Its cgroup keeps all CPUs, to see the whole machine; it keeps its threads in the shared pool itself.
                None if observed.pod.starts_with(AGENT) => {
                    for process in &observed.kernel.processes {
                        ensure!(
                            process.cpus.is_subset(&pool),
                            "the agent's {process:?} leaves the shared pool {pool:?}"
                        );
                    }
                    continue;
                }
                None => {
                    let cpus = &observed.kernel.cpus;
                    ensure!(*cpus == pool, "{} runs on {cpus:?}, the shared pool is {pool:?}", observed.pod);
                }
            }
            for process in &observed.kernel.processes {
                let same = process.cpus == observed.kernel.cpus && process.memory_nodes == observed.kernel.memory_nodes;
                ensure!(same, "a process of {} is elsewhere than its cgroup: {process:?}", observed.pod);
            }
        }
        Ok(())
    }

    /// Where the agent says that a pod's container is.
    pub fn state(&self, uid: &str) -> Option<PinState> {
        let containers = &self.placement.status.as_ref()?.containers;
        containers.iter().find(|container| container.pod_uid == uid).map(|container| container.state)
    }
}

fn exclusive(observed: &Observed, reservation: &Reservation) -> Result<()> {
    let [container] = &reservation.containers[..] else { bail!("{}: not one container", observed.pod) };
    let (kernel, pod) = (&observed.kernel, &observed.pod);
    let cpus = list(&container.cpus)?;
    ensure!(kernel.cpus == cpus, "{pod} runs on {:?}, promised are {cpus:?}", kernel.cpus);
    let nodes: BTreeSet<u32> = reservation
        .memory
        .iter()
        .filter(|memory| memory.bytes > 0 || !memory.huge_pages.is_empty())
        .map(|memory| u32::try_from(memory.numa_node))
        .collect::<Result<_, _>>()?;
    ensure!(kernel.memory_nodes == nodes, "{pod} has memory of {:?}, promised are {nodes:?}", kernel.memory_nodes);
    ensure!(kernel.quota == "max", "{pod} owns its CPUs and has the quota {}", kernel.quota);
    let told: Value = serde_json::from_str(observed.annotation.as_deref().context("no placement annotation")?)?;
    let told = &told["containers"][0];
    ensure!(list(told["cpus"].as_str().unwrap_or_default())? == cpus, "{pod}: the annotation says {told}");
    ensure!(list(told["memoryNodes"].as_str().unwrap_or_default())? == nodes, "{pod}: the annotation says {told}");
    Ok(())
}

fn container_id(status: &PodStatus) -> Option<String> {
    let status = status.container_statuses.as_ref()?.first()?;
    status.state.as_ref()?.running.as_ref()?;
    status.container_id.as_ref()?.strip_prefix("containerd://").map(str::to_owned)
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// What its status says, for the report of a failure.
pub fn told(pod: &Pod) -> String {
    let status = pod.status.clone().unwrap_or_default();
    let conditions: Vec<String> = status.conditions.into_iter().flatten().filter_map(|c| c.message).collect();
    let states = status.container_statuses.into_iter().flatten().map(|status| status.state);
    let waiting: Vec<String> = states
        .filter_map(|state| state?.waiting)
        .map(|waiting| format!("{}: {}", waiting.reason.unwrap_or_default(), waiting.message.unwrap_or_default()))
        .collect();
    format!("{}: {:?} {conditions:?} {waiting:?}", pod.name_any(), status.phase)
}
