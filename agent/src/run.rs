//! Wiring: client, watches, loop, admin port, and the order in which they end.
use std::sync::Arc;
use std::time::Duration;

use fairlead_crds::{NodePlacement, NodeTopology};
use fairlead_runtime::admin::AdminError;
use fairlead_runtime::{
    Admin, ClientError, DebugDump, DeserializeGuard, Ending, Heartbeat, Pulse, PumpConfig, Readiness, Shutdown,
    ShutdownError, client, pump, seed,
};
use kube::Api;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::agent::{Agent, PAUSE_MAX, SILENCE_MAX, Setup};
use crate::args::Args;
use crate::machine::MachineReader;
use crate::metrics::{self, AgentMetrics};
use crate::objects::Objects;
use crate::pin::{State, dump_of};
use crate::pinner::{self, Checkpoint, Inputs, KubeletFiles, Pinner, PinnerError, Report};
use crate::seen::Seen;

/// Events of two objects: more than a handful never wait.
const QUEUE_EVENTS: usize = 64;
/// The loop may be in the middle of its calls.
const GRACE: Duration = Duration::from_secs(10);

/// Why the agent ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Signals cannot be heard.
    #[error(transparent)]
    Shutdown(#[from] ShutdownError),
    /// No client.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// No admin port.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The pinning can go on in a new process only.
    #[error(transparent)]
    Pinning(#[from] PinnerError),
}

/// Runs the agent until a signal.
///
/// # Errors
/// It could not start, or only a new process can go on; every other trouble is logged, counted and tried again.
pub async fn run(args: Args) -> Result<(), RunError> {
    let shutdown = Shutdown::install()?;
    let client = client(&args.client, "agent").await?;
    let (page, counters) = metrics::page();
    let readiness = Readiness::new(shutdown.token());
    let heartbeat = Heartbeat::new();
    let shown = Arc::new(Mutex::new(Value::Null));
    let seed = seed::fresh();

    let (sender, inbox) = mpsc::channel(QUEUE_EVENTS);
    let own = format!("metadata.name={}", args.node_name);
    let topologies: Api<DeserializeGuard<NodeTopology>> = Api::all(client.clone());
    let placements: Api<DeserializeGuard<NodePlacement>> = Api::all(client.clone());
    // An agent on each of thousands of nodes: the API server is asked anew as rarely as may be.
    let config = |source| PumpConfig {
        watch_timeout: pump::WATCH_TIMEOUT_MAX,
        pause_max: PAUSE_MAX,
        ..PumpConfig::new(source, seed).fields(own.clone()).metrics(&counters.pumps)
    };
    let listed = |source: &str| readiness.register(format!("list {source}"));
    let (first, second) = ("nodetopologies", "nodeplacements");
    let token = shutdown.token();
    let pumps = [
        pump::spawn(topologies, config(first), listed(first), sender.clone(), Seen::Topology, token.clone()),
        pump::spawn(placements, config(second), listed(second), sender, Seen::Placement, token),
    ];
    let (inputs, seen_inputs) = watch::channel(Inputs::default());
    let (report, seen_report) = watch::channel(Report::default());
    let objects = Objects::new(&client, &args.node_name);
    let pulse = heartbeat.register("pinning", pinner::SILENCE_MAX);
    let pinner = Pinner::new(pinning(&args, &objects, &counters, pulse, seed), seen_inputs, report);
    let pinned = pinner.state();
    let setup = Setup {
        objects,
        refresh: Duration::from_secs(args.refresh_seconds),
        metrics: counters.clone(),
        ready: readiness.register("publish the machine"),
        pulse: heartbeat.register("agent", SILENCE_MAX),
        seed,
        shown: shown.clone(),
        inputs,
        report: seen_report,
        reader: MachineReader { node_name: args.node_name, machine_dir: args.machine_dir, sysfs_root: args.sysfs_root },
    };

    // Cancelled last, so that the probes are answered while the loop ends.
    let closed = CancellationToken::new();
    let dump = DebugDump { client, dump: Arc::new(move || dumped(&shown, &pinned)), explain: None };
    let admin = Admin { readiness, metrics: page, heartbeat, dump: Some(dump) };
    let admin = admin.serve(args.admin.admin_address, closed.clone()).await?;
    let token = shutdown.token();
    let pinning = tokio::spawn(async move {
        let ended = pinner.run(token.clone()).await;
        // One half alone is no agent.
        token.cancel();
        ended
    });
    let work = Box::pin(async {
        Agent::new(setup).run(inbox, shutdown.token()).await;
        let ended = pinning.await.unwrap_or(Ok(()));
        for pump in pumps {
            drop(pump.await);
        }
        ended
    });
    let ending = shutdown.run_until(GRACE, work).await;
    closed.cancel();
    drop(admin.task.await);
    outcome(ending)
}

fn outcome(ending: Ending<Result<(), PinnerError>>) -> Result<(), RunError> {
    match ending {
        Ending::Finished(ended) => Ok(ended?),
        Ending::Overran => {
            tracing::warn!("Ended in the middle of a call");
            Ok(())
        }
    }
}

fn pinning(args: &Args, objects: &Objects, counters: &AgentMetrics, pulse: Pulse, seed: u64) -> pinner::Setup {
    pinner::Setup {
        socket: args.nri_socket.clone(),
        checkpoint: Checkpoint::new(&args.checkpoint_dir, &args.node_name),
        kubelet: KubeletFiles {
            config: args.kubelet_config.clone(),
            cpu_state: args.kubelet_cpu_state.clone(),
            memory_state: args.kubelet_memory_state.clone(),
        },
        permit_sched_fifo: args.permit_sched_fifo,
        own_pod: args.pod_uid.clone(),
        objects: objects.clone(),
        metrics: counters.pinning.clone(),
        pulse,
        seed,
    }
}

fn dumped(shown: &Mutex<Value>, pinned: &Mutex<State>) -> Value {
    let mut dump = shown.lock().clone();
    dump["pinning"] = dump_of(&pinned.lock());
    dump
}
