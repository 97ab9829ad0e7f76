//! Leaving: admission off, gates removed, waiting pods given back to the default scheduler; running pods keep their
//! cores.
//!
//! The order matters. First the two policy bindings go, so that nothing new is gated and whoever drains may remove gates
//! (the guarding policy refuses that to all but the operator). Then passes over the pods that are not bound, until two
//! passes in a row find nothing to do: an API server needs about a second to notice that a binding is gone, and gates
//! pods until then. The operator may go on meanwhile; all it does to gates is to remove them, and every write here names
//! the version it was decided on. Running it again goes on where it ended.
mod decide;
#[cfg(test)]
mod decide_test;
#[cfg(test)]
mod drain_test;
mod write;

use crate::access::{Access, Right};
use crate::args::DrainArgs;
use crate::error::{CliError, chain};
use crate::say;
use decide::{Deletion, Facts, Memory, Step, Stranded, pass};
use fairlead_crds::keys;
use futures::StreamExt as _;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use std::io::Write;
use std::time::Duration;
use tokio::time::Instant;
use write::{Outcome, admission_off, carry_out};

/// Binding of the policy that adds the gate, as the chart names it.
const GATE_BINDING: &str = "fairlead-gate";
/// Binding of the policy that guards the gate, as the chart names it.
const GUARD_BINDING: &str = "fairlead-pods";
/// Pause between passes: longer than an API server needs to notice a policy binding's end (it looks once a second).
const PAUSE: Duration = Duration::from_secs(2);
/// Passes without anything to do after which the drain has ended.
const QUIET_PASSES: u32 = 2;
/// Writes under way at once.
const PARALLEL: usize = 16;
/// `backoffLimit` of a Job that names none.
const DEFAULT_BACKOFF_LIMIT: i32 = 6;

/// What the drain does; the hook's ClusterRole in the chart holds exactly these.
const RIGHTS: [Right; 6] = [
    Right {
        verb: "delete",
        group: "admissionregistration.k8s.io",
        resource: "mutatingadmissionpolicybindings",
        name: Some(GATE_BINDING),
    },
    Right {
        verb: "delete",
        group: "admissionregistration.k8s.io",
        resource: "validatingadmissionpolicybindings",
        name: Some(GUARD_BINDING),
    },
    Right { verb: "list", group: "", resource: "pods", name: None },
    Right { verb: "patch", group: "", resource: "pods", name: None },
    Right { verb: "delete", group: "", resource: "pods", name: None },
    Right { verb: "get", group: "batch", resource: "jobs", name: None },
];

/// How much was done in all.
#[derive(Default)]
struct Tally {
    deleted: usize,
    ungated: usize,
}

/// Says what is done, as far as somebody listens: `drain --yes | head` must not leave half of the pods behind.
struct Log<'a>(&'a mut dyn Write);

impl Log<'_> {
    fn say(&mut self, line: &str) {
        let _ = writeln!(self.0, "{line}");
    }
}

/// What came of one pass.
struct Passed {
    /// Writes that were called for.
    writes: usize,
    stranded: Vec<Stranded>,
    /// One of the writes that the API server refused.
    refusal: Option<CliError>,
}

pub(crate) async fn run(access: &Access, args: &DrainArgs) -> Result<(), CliError> {
    access.require(&RIGHTS).await?;
    if args.yes {
        return drain(access, args.timeout, &mut Log(&mut std::io::stdout())).await;
    }
    preview(access).await?.iter().try_for_each(|line| say(line))
}

async fn drain(access: &Access, timeout: Duration, log: &mut Log<'_>) -> Result<(), CliError> {
    let deadline = Instant::now() + timeout;
    log.say(&admission_off(&access.client, "MutatingAdmissionPolicyBinding", GATE_BINDING).await?);
    log.say(&admission_off(&access.client, "ValidatingAdmissionPolicyBinding", GUARD_BINDING).await?);

    let (mut memory, mut tally, mut quiet, mut obstacle) = (Memory::default(), Tally::default(), 0, None);
    let stranded = loop {
        obstacle = match one_pass(access, &mut memory, &mut tally, log).await {
            Ok(Passed { writes: 0, stranded, .. }) => {
                quiet += 1;
                if quiet == QUIET_PASSES {
                    break stranded;
                }
                None
            }
            Ok(passed) => {
                quiet = 0;
                // Once is usual: the guarding policy holds a moment longer than its binding.
                if let (Some(_), Some(refusal)) = (&obstacle, &passed.refusal) {
                    log.say(&format!("still refused: {}", chain(refusal)));
                }
                passed.refusal
            }
            Err(error @ (CliError::Call { .. } | CliError::Silent { .. })) => {
                quiet = 0;
                log.say(&format!("trying again: {}", chain(&error)));
                Some(error)
            }
            Err(error) => return Err(error),
        };
        if Instant::now() + PAUSE >= deadline {
            let Tally { deleted, ungated } = tally;
            let seconds = timeout.as_secs();
            return Err(CliError::DrainTimeout { seconds, deleted, ungated, source: obstacle.map(Box::new) });
        }
        tokio::time::sleep(PAUSE).await;
    };
    log.say(&format!(
        "drained: {} pods given back to their controllers, {} gates removed",
        tally.deleted, tally.ungated
    ));
    for line in list(&stranded) {
        log.say(&line);
    }
    Ok(())
}

/// What would happen, judged as the first pass would, line by line.
async fn preview(access: &Access) -> Result<Vec<String>, CliError> {
    let mut memory = Memory::default();
    let pods = unbound(access).await?;
    learn_jobs(access, &pods, &mut memory).await?;
    let (steps, stranded) = pass(&pods, &memory);
    let mut lines = vec![
        format!("would delete MutatingAdmissionPolicyBinding {GATE_BINDING}, if it is there: nothing new is gated"),
        format!("would delete ValidatingAdmissionPolicyBinding {GUARD_BINDING}, if it is there: gates may be removed"),
    ];
    lines.extend(steps.iter().map(|step| match step {
        Step::Delete { namespace, name, .. } => {
            format!("would delete pod {namespace}/{name}: its controller creates it anew for the default scheduler")
        }
        Step::Ungate { namespace, name, .. } => format!("would remove the gate of pod {namespace}/{name}"),
    }));
    lines.extend(list(&stranded));
    lines.push("nothing was changed; add --yes to do it".to_owned());
    Ok(lines)
}

fn list(stranded: &[Stranded]) -> Vec<String> {
    if stranded.is_empty() {
        return Vec::new();
    }
    let heading = format!(
        "{} pods wait for {} and stay Pending without it; while it runs, pods above their tenant's hard limit wait on:",
        stranded.len(),
        keys::SCHEDULER_NAME
    );
    let pods = stranded.iter().map(|pod| format!("  {}/{}: {}", pod.namespace, pod.name, pod.why.message()));
    std::iter::once(heading).chain(pods).collect()
}

/// Ends with the first failed write, if one failed, once all of them have ended.
async fn one_pass(
    access: &Access,
    memory: &mut Memory,
    tally: &mut Tally,
    log: &mut Log<'_>,
) -> Result<Passed, CliError> {
    let pods = unbound(access).await?;
    learn_jobs(access, &pods, memory).await?;
    let (steps, stranded) = pass(&pods, memory);
    let writes = steps.len();
    let outcomes = futures::stream::iter(steps).map(|step| async move {
        let controller = match &step {
            Step::Delete { controller_uid, .. } => Some(controller_uid.clone()),
            Step::Ungate { .. } => None,
        };
        (controller, carry_out(&access.client, step).await)
    });
    let outcomes: Vec<_> = outcomes.buffer_unordered(PARALLEL).collect().await;
    let (mut deletions, mut failure, mut refusal) = (Vec::new(), None, None);
    let (mut deleted, mut ungated, mut later) = (0, 0, 0);
    for (controller, outcome) in outcomes {
        let deletion = if matches!(outcome, Ok(Outcome::Deleted) | Err(_)) { Deletion::MayBe } else { Deletion::Not };
        deletions.extend(controller.map(|uid| (uid, deletion)));
        match outcome {
            Ok(Outcome::Deleted) => deleted += 1,
            Ok(Outcome::Ungated) => ungated += 1,
            Ok(Outcome::Gone) => {}
            Ok(Outcome::Refused(error)) => (later, refusal) = (later + 1, Some(error)),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    memory.learn_deletions(&deletions);
    tally.deleted += deleted;
    tally.ungated += ungated;
    if writes > 0 {
        log.say(&format!("{deleted} pods deleted, {ungated} gates removed, {later} to be looked at again"));
    }
    failure.map_or(Ok(Passed { writes, stranded, refusal }), Err)
}

async fn unbound(access: &Access) -> Result<Vec<Facts>, CliError> {
    let api: Api<Pod> = Api::all(access.client.clone());
    Ok(access.list(&api, "", Some("spec.nodeName=")).await?.iter().map(Facts::of).collect())
}

/// Reads each Job whose pods wait, once.
async fn learn_jobs(access: &Access, pods: &[Facts], memory: &mut Memory) -> Result<(), CliError> {
    for pod in pods.iter().filter(|pod| pod.ours && !pod.settled) {
        let Some(job) = pod.controller.as_ref().filter(|owner| owner.is_job()) else { continue };
        if memory.knows_job(&job.uid) {
            continue;
        }
        let api: Api<Job> = Api::namespaced(access.client.clone(), &pod.namespace);
        let object = access.get(&api, &job.name, &pod.namespace).await?;
        memory.learn_job(&job.uid, object.as_ref().map_or(0, deletable));
    }
    Ok(())
}

/// How many pods of a Job may be deleted before it fails: it counts them as failed. With a limit per index none.
fn deletable(job: &Job) -> u32 {
    let Some(spec) = job.spec.as_ref().filter(|spec| spec.backoff_limit_per_index.is_none()) else { return 0 };
    let failed = job.status.as_ref().and_then(|status| status.failed).unwrap_or(0);
    let left = spec.backoff_limit.unwrap_or(DEFAULT_BACKOFF_LIMIT).saturating_sub(failed);
    u32::try_from(left).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_value, json};

    fn job(value: serde_json::Value) -> Job {
        from_value(value).unwrap()
    }

    #[test]
    fn what_a_job_bears() {
        let template = json!({ "spec": { "containers": [] } });
        let with = |limit: serde_json::Value, failed: i32| {
            deletable(&job(
                json!({ "spec": { "template": template, "backoffLimit": limit }, "status": { "failed": failed } }),
            ))
        };
        assert_eq!(with(json!(null), 0), 6);
        assert_eq!(with(json!(3), 1), 2);
        assert_eq!(with(json!(3), 7), 0);
        let per_index =
            json!({ "spec": { "template": template, "backoffLimitPerIndex": 2, "completionMode": "Indexed" } });
        assert_eq!(deletable(&job(per_index)), 0);
    }

    /// The chart and this file name the same objects, and the hook's role holds what is asked for here.
    #[test]
    fn names_and_rights_are_those_of_the_chart() {
        let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/fairlead/templates/");
        let read = |file: &str| std::fs::read_to_string(format!("{chart}{file}")).unwrap();
        let gate = read("admission/gate.yaml");
        assert!(gate.contains(&format!("kind: MutatingAdmissionPolicyBinding\nmetadata:\n  name: {GATE_BINDING}\n")));
        let guard = read("admission/pods.yaml");
        assert!(
            guard.contains(&format!("kind: ValidatingAdmissionPolicyBinding\nmetadata:\n  name: {GUARD_BINDING}\n"))
        );
        let role = read("drain/rbac.yaml");
        for right in &RIGHTS {
            assert!(role.contains(&format!("resources: [{}]", right.resource)), "{right:?}");
            assert!(role.contains(right.verb), "{right:?}");
            assert!(right.name.is_none_or(|name| role.contains(&format!("resourceNames: [{name}]"))), "{right:?}");
        }
    }
}
