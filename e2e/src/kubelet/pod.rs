//! The life of one pod: init containers, sidecars, main containers, its end.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, Preconditions};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::container::{PodContext, Restart, Stop, run};
use super::status::{self, Outcome};
use crate::processes::Exit;

const CALL_LIMIT: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(300);

/// The grace with which somebody asked for the pod's deletion.
pub(crate) type Deletion = watch::Receiver<Option<Duration>>;

/// Lives until the pod is over and deleted. Aborting it kills the pod's processes.
pub(crate) async fn live(context: Arc<PodContext>, mut deletion: Deletion) {
    let writer = {
        let context = context.clone();
        async move {
            let board = context.board.watch();
            status::write(context.shared.client.clone(), &context.pod, board, context.addresses.clone()).await;
        }
    };
    let life = async {
        let (stopper, stop) = watch::channel(None);
        let end = run_to_end(context.clone(), stop);
        tokio::pin!(end);
        let outcome = loop {
            tokio::select! {
                outcome = &mut end => break outcome,
                grace = asked(&mut deletion), if stopper.borrow().is_none() => { stopper.send_replace(Some(Instant::now() + grace)); }
            }
        };
        context.board.finish(outcome);
    };
    tokio::join!(writer, life);
    asked(&mut deletion).await;
    remove(&context).await;
    // A leftover would be found again by nobody; it lies in the bed's folder, which is removed as a whole.
    let _ = std::fs::remove_dir_all(&context.dir);
}

async fn asked(deletion: &mut Deletion) -> Duration {
    let grace = deletion.wait_for(Option::is_some).await.ok().and_then(|grace| *grace);
    match grace {
        Some(grace) => grace,
        // Nobody is left to ask.
        None => std::future::pending().await,
    }
}

/// The kubelet's last word: the object goes when its processes are gone.
async fn remove(context: &PodContext) {
    let api: Api<Pod> = Api::namespaced(context.shared.client.clone(), &context.pod.namespace().unwrap_or_default());
    let params = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions { uid: context.pod.uid(), resource_version: None }),
        ..DeleteParams::default()
    };
    let name = context.pod.name_any();
    loop {
        match tokio::time::timeout(CALL_LIMIT, api.delete(&name, &params)).await {
            Ok(Ok(_)) => return,
            Ok(Err(kube::Error::Api(answer))) if matches!(answer.code, 404 | 409) => return,
            Ok(Err(error)) => tracing::debug!(pod = %name, %error, "not deleted, trying again"),
            Err(_) => tracing::debug!(pod = %name, "not deleted in time, trying again"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn run_to_end(context: Arc<PodContext>, stop: Stop) -> Outcome {
    if let Err(error) = supported(&context.pod) {
        tracing::warn!(pod = %context.pod.name_any(), "{error}");
        return Outcome { succeeded: false, reason: Some("HarnessUnsupported"), message: error.to_string() };
    }
    let spec = context.pod.spec.clone().unwrap_or_default();
    let policy = match spec.restart_policy.as_deref() {
        Some("Never") => Restart::Never,
        Some("OnFailure") => Restart::OnFailure,
        _ => Restart::Always,
    };
    let mut sidecars = Sidecars::default();
    for container in spec.init_containers.into_iter().flatten() {
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars.start(&context, container, &stop).await;
        } else {
            let policy = if policy == Restart::Always { Restart::OnFailure } else { policy };
            let exit = run(context.clone(), container, policy, stop.clone()).await;
            if !exit.is_some_and(Exit::success) {
                sidecars.end(remaining(&stop, &context)).await;
                return ended(false);
            }
        }
    }
    context.board.initialized();
    let mut mains = JoinSet::new();
    for container in spec.containers {
        mains.spawn(run(context.clone(), container, policy, stop.clone()));
    }
    let mut all_good = true;
    while let Some(exit) = mains.join_next().await {
        all_good &= exit.ok().flatten().is_some_and(Exit::success);
    }
    sidecars.end(remaining(&stop, &context)).await;
    ended(all_good)
}

fn ended(succeeded: bool) -> Outcome {
    Outcome { succeeded, reason: None, message: String::new() }
}

fn remaining(stop: &Stop, context: &PodContext) -> Instant {
    stop.borrow().unwrap_or_else(|| Instant::now() + context.grace())
}

type Stopper = watch::Sender<Option<Instant>>;

/// Init containers that stay: started in order, stopped in reverse after the main containers.
#[derive(Default)]
struct Sidecars {
    running: Vec<(Stopper, JoinSet<Option<Exit>>)>,
}

impl Sidecars {
    async fn start(&mut self, context: &Arc<PodContext>, container: Container, stop: &Stop) {
        let name = container.name.clone();
        let (sender, receiver) = watch::channel(None);
        let mut task = JoinSet::new();
        task.spawn(run(context.clone(), container, Restart::Always, receiver));
        self.running.push((sender, task));
        let (mut board, mut stop) = (context.board.watch(), stop.clone());
        tokio::select! {
            _ = board.wait_for(|view| view.containers.get(&name).is_some_and(|container| container.started)) => {}
            _ = stop.wait_for(Option::is_some) => {}
        }
    }

    async fn end(self, deadline: Instant) {
        for (sender, mut task) in self.running.into_iter().rev() {
            sender.send_replace(Some(deadline));
            task.join_next().await;
        }
    }
}

/// Refuses what the harness would silently leave out.
fn supported(pod: &Pod) -> Result<()> {
    let spec = pod.spec.clone().unwrap_or_default();
    if spec.readiness_gates.is_some_and(|gates| !gates.is_empty()) {
        bail!("readinessGates are not known to the harness");
    }
    for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
        let probes = [&container.startup_probe, &container.readiness_probe, &container.liveness_probe];
        if probes.into_iter().flatten().any(|probe| probe.exec.is_some() || probe.grpc.is_some()) {
            bail!("container {}: exec and grpc probes are not known to the harness", container.name);
        }
        if let Some(lifecycle) = &container.lifecycle {
            let unknown = |hook: &k8s_openapi::api::core::v1::LifecycleHandler| hook.sleep.is_none();
            if lifecycle.post_start.is_some() || lifecycle.pre_stop.as_ref().is_some_and(unknown) {
                bail!("container {}: of lifecycle hooks the harness knows preStop.sleep only", container.name);
            }
        }
    }
    Ok(())
}
