//! What the runtime calls the plugin for, and what the decisions say in the protocol's words.
use std::collections::BTreeMap;
use std::time::Duration;

use fairlead_crds::keys::PLACEMENT_ANNOTATION;
use fairlead_crds::placement::Placement;
use fairlead_topology::CpuMask;

use super::NriError;
use super::frame::{KIND_REQUEST, Message};
use super::proto::{
    CONTAINER_PAUSED, CONTAINER_RUNNING, CONTAINER_STOPPED, ConfigureRequest, Container, ContainerAdjustment,
    ContainerRequest, ContainerUpdate, ContainerUpdates, KeyValue, LinuxContainerAdjustment, LinuxContainerUpdate,
    LinuxCpu, LinuxResources, OptionalInt64, PLUGIN_SERVICE, PodRequest, PodSandbox, PosixRlimit, Request,
    StateChangeEvent, SynchronizeRequest, event,
};
use crate::pin::{Place, Seen};

/// Highest priority a thread may take where real-time scheduling is permitted: below the kernel's threaded interrupt
/// handlers, which run at 50 (`sched_set_fifo`, MAX_RT_PRIO / 2).
const REAL_TIME_PRIORITY_MAX: u64 = 49;
/// Annotation of a container that this agent placed when it was created; the runtime keeps it as long as the container.
const MARK: &str = "fairlead.dev/placed-by";
const MARK_VALUE: &str = "fairlead-agent";
/// Pods and containers of one node that are listed at most; a kubelet's default is 110 pods.
const LISTED_MAX: usize = 20_000;

/// A call of the runtime.
#[derive(Debug, Clone, PartialEq)]
pub enum Call {
    /// The runtime makes itself known.
    Configure(ConfigureRequest),
    /// All that it has, or a part.
    Synchronize(SynchronizeRequest),
    /// A container is about to be created.
    Create(Seen),
    /// The runtime has it now.
    Created(Seen),
    /// It runs.
    Started(String),
    /// Its resources are about to change, and CPUs and memory nodes to these, where any are named.
    Update(Seen, Option<Place>),
    /// They were changed.
    Changed(Seen),
    /// It has ended; the answer may name containers to change.
    Stopped(String),
    /// It is gone.
    Removed(String),
    /// A pod is gone.
    PodRemoved(String),
    /// Something that is of no interest and needs no answer but that it was heard.
    Heard,
    /// The runtime ends, or wants the plugin to.
    Shutdown,
    /// Nothing this plugin serves.
    Unknown(String),
}

/// Reads a call and the time its caller waits.
///
/// # Errors
/// [`NriError::Misplaced`], [`NriError::Malformed`].
pub fn read_call(message: &Message) -> Result<(Call, Option<Duration>), NriError> {
    if message.kind != KIND_REQUEST {
        let Message { connection, stream, kind, .. } = *message;
        return Err(NriError::Misplaced { connection, stream, kind });
    }
    let request: Request = decode("ttrpc request", message.data.clone())?;
    let limit = u64::try_from(request.timeout_nano).ok().filter(|&ns| ns > 0).map(Duration::from_nanos);
    if request.service != PLUGIN_SERVICE {
        return Ok((Call::Unknown(format!("service {:?}", request.service)), limit));
    }
    let body = request.payload;
    let call = match request.method.as_str() {
        "Configure" => Call::Configure(decode("ConfigureRequest", body)?),
        "Synchronize" => Call::Synchronize(decode("SynchronizeRequest", body)?),
        "CreateContainer" => Call::Create(seen_of(decode("CreateContainerRequest", body)?)),
        "PostCreateContainer" => Call::Created(seen_of(decode("PostCreateContainerRequest", body)?)),
        "PostStartContainer" => Call::Started(id_of(decode("PostStartContainerRequest", body)?)),
        "UpdateContainer" => {
            let mut update: ContainerRequest = decode("UpdateContainerRequest", body)?;
            let asked = place_of(update.linux_resources.take());
            Call::Update(seen_of(update), asked)
        }
        "PostUpdateContainer" => Call::Changed(seen_of(decode("PostUpdateContainerRequest", body)?)),
        "StopContainer" => Call::Stopped(id_of(decode("StopContainerRequest", body)?)),
        "RemoveContainer" => Call::Removed(id_of(decode("RemoveContainerRequest", body)?)),
        "RemovePodSandbox" => {
            let pod: PodRequest = decode("RemovePodSandboxRequest", body)?;
            Call::PodRemoved(pod.pod.unwrap_or_default().id)
        }
        "StateChange" => state_change(decode("StateChangeEvent", body)?),
        "Shutdown" => Call::Shutdown,
        method => Call::Unknown(format!("method {method:?}")),
    };
    Ok((call, limit))
}

/// Reads a message of a type.
///
/// # Errors
/// [`NriError::Malformed`].
pub fn decode<M: prost::Message + Default>(message: &'static str, bytes: bytes::Bytes) -> Result<M, NriError> {
    M::decode(bytes).map_err(|source| NriError::Malformed { message, source })
}

fn state_change(change: StateChangeEvent) -> Call {
    let seen = |change: StateChangeEvent| seen(&change.pod.unwrap_or_default(), change.container.unwrap_or_default());
    match change.event {
        event::POST_CREATE_CONTAINER => Call::Created(seen(change)),
        event::POST_START_CONTAINER => Call::Started(change.container.unwrap_or_default().id),
        event::POST_UPDATE_CONTAINER => Call::Changed(seen(change)),
        event::REMOVE_CONTAINER => Call::Removed(change.container.unwrap_or_default().id),
        event::REMOVE_POD_SANDBOX => Call::PodRemoved(change.pod.unwrap_or_default().id),
        _ => Call::Heard,
    }
}

fn id_of(request: ContainerRequest) -> String {
    request.container.unwrap_or_default().id
}

fn seen_of(request: ContainerRequest) -> Seen {
    seen(&request.pod.unwrap_or_default(), request.container.unwrap_or_default())
}

fn seen(pod: &PodSandbox, container: Container) -> Seen {
    let annotation = pod.annotations.get(PLACEMENT_ANNOTATION);
    let placement = annotation.and_then(|text| serde_json::from_str::<Placement>(text).ok());
    let own = placement.iter().flat_map(|placement| &placement.containers).find(|own| own.name == container.name);
    let list = |text: &str| CpuMask::parse_list(text).ok();
    let annotated = own.and_then(|own| {
        Some(Place { cpus: list(&own.cpus)?, memory_nodes: list(&own.memory_nodes)?, unlimited: true })
    });
    let runs = place_of(container.linux.and_then(|linux| linux.resources));
    Seen {
        id: container.id,
        sandbox: pod.id.clone(),
        pod_uid: pod.uid.clone(),
        namespace: pod.namespace.clone(),
        pod_name: pod.name.clone(),
        name: container.name,
        placed: annotation.is_some(),
        marked: container.annotations.contains_key(MARK),
        annotated,
        runs,
        started: matches!(container.state, CONTAINER_PAUSED | CONTAINER_RUNNING),
    }
}

/// CPUs and memory nodes as they are set; none where neither is.
fn place_of(resources: Option<LinuxResources>) -> Option<Place> {
    let cpu = resources.and_then(|resources| resources.cpu)?;
    if cpu.cpus.is_empty() && cpu.mems.is_empty() {
        return None;
    }
    let unlimited = cpu.quota.is_none_or(|quota| quota.value <= 0);
    let list = |text: &str| CpuMask::parse_list(text).ok();
    Some(Place { cpus: list(&cpu.cpus)?, memory_nodes: list(&cpu.mems)?, unlimited })
}

/// Puts the parts of a synchronization together.
#[derive(Debug, Default)]
pub struct Listing {
    pods: BTreeMap<String, PodSandbox>,
    containers: Vec<Container>,
}

impl Listing {
    /// Takes a part; the containers once it was the last.
    ///
    /// # Errors
    /// [`NriError::TooMany`].
    pub fn take(&mut self, part: SynchronizeRequest) -> Result<Option<Vec<Seen>>, NriError> {
        self.containers.extend(part.containers);
        self.pods.extend(part.pods.into_iter().map(|pod| (pod.id.clone(), pod)));
        for (what, count) in [("pods", self.pods.len()), ("containers", self.containers.len())] {
            if count > LISTED_MAX {
                return Err(NriError::TooMany { what, max: LISTED_MAX });
            }
        }
        if part.more {
            return Ok(None);
        }
        let Self { pods, containers } = std::mem::take(self);
        let unknown = PodSandbox::default();
        let live = containers.into_iter().filter(|container| container.state != CONTAINER_STOPPED);
        Ok(Some(live.map(|one| seen(pods.get(&one.pod_sandbox_id).unwrap_or(&unknown), one)).collect()))
    }
}

/// How a container is created.
#[must_use]
pub fn adjustment(container: &Seen, place: Option<&Place>, real_time: bool) -> Option<ContainerAdjustment> {
    let place = place?;
    let limit =
        PosixRlimit { r#type: "RLIMIT_RTPRIO".to_owned(), hard: REAL_TIME_PRIORITY_MAX, soft: REAL_TIME_PRIORITY_MAX };
    Some(ContainerAdjustment {
        annotations: [(MARK.to_owned(), MARK_VALUE.to_owned())].into(),
        env: environment(container),
        linux: Some(LinuxContainerAdjustment { resources: Some(resources(place)) }),
        rlimits: if real_time { vec![limit] } else { Vec::new() },
    })
}

/// Environment that containers get beside their own.
fn environment(_container: &Seen) -> Vec<KeyValue> {
    Vec::new()
}

/// Changes of containers that exist.
#[must_use]
pub fn updates(places: &[(String, Place)], ignore_failure: bool) -> ContainerUpdates {
    let update = |(id, place): &(String, Place)| ContainerUpdate {
        container_id: id.clone(),
        linux: Some(LinuxContainerUpdate { resources: Some(resources(place)) }),
        ignore_failure,
    };
    ContainerUpdates { update: places.iter().map(update).collect() }
}

/// Both lists, always: a runtime that is told the CPUs alone keeps the memory nodes of before.
fn resources(place: &Place) -> LinuxResources {
    let cpu = LinuxCpu {
        quota: place.unlimited.then_some(OptionalInt64 { value: -1 }),
        cpus: place.cpus.to_string(),
        mems: place.memory_nodes.to_string(),
    };
    LinuxResources { cpu: Some(cpu) }
}
