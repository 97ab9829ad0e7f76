//! Leaving: admission off, gates removed, waiting pods given back to the default scheduler; running pods keep their
//! cores.
//!
//! The order matters. First the two policy bindings go, so that nothing new is gated and whoever drains may remove gates
//! (the guarding policy refuses that to all but the operator). Then passes over the pods that are not bound, until two
//! passes in a row find nothing to do: an API server needs about a second to notice that a binding is gone, and gates
//! pods until then. The operator may go on meanwhile; all it does to gates is to remove them, and every write here names
//! the version it was decided on. Running it again goes on where it ended.
mod decide;

use crate::access::{Access, DEADLINE, Right, call, is_policy};
use crate::args::DrainArgs;
use crate::error::{Answer, CliError};
use crate::say;
use decide::{Facts, Memory, Step, Stranded, pass};
use fairlead_crds::keys;
use futures::StreamExt as _;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, Preconditions};
use kube::{Api, Client};
use serde_json::json;
use std::time::{Duration, Instant};

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

/// What came of one write.
enum Outcome {
    Deleted,
    Ungated,
    /// The pod was gone already.
    Gone,
    /// It changed since it was judged, or the guarding policy is still in force: the next pass looks again.
    Later,
}

/// How much was done in all.
#[derive(Default)]
struct Tally {
    deleted: usize,
    ungated: usize,
}

pub(crate) async fn run(access: &Access, args: &DrainArgs) -> Result<(), CliError> {
    access.require(&RIGHTS).await?;
    if !args.yes {
        return preview(access).await;
    }
    let deadline = Instant::now() + args.timeout;
    admission_off(&access.client, "MutatingAdmissionPolicyBinding", GATE_BINDING).await?;
    admission_off(&access.client, "ValidatingAdmissionPolicyBinding", GUARD_BINDING).await?;

    let (mut memory, mut tally, mut quiet) = (Memory::default(), Tally::default(), 0);
    let stranded = loop {
        let left = match one_pass(access, &mut memory, &mut tally).await {
            Ok((0, stranded)) => {
                quiet += 1;
                if quiet == QUIET_PASSES {
                    break stranded;
                }
                0
            }
            Ok((steps, _)) => {
                quiet = 0;
                steps
            }
            Err(error @ (CliError::Call { .. } | CliError::Silent { .. })) => {
                quiet = 0;
                say(&format!("trying again: {}", crate::error::chain(&error)))?;
                0
            }
            Err(error) => return Err(error),
        };
        if Instant::now() + PAUSE >= deadline {
            return Err(CliError::DrainTimeout { seconds: args.timeout.as_secs(), left });
        }
        tokio::time::sleep(PAUSE).await;
    };
    say(&format!("drained: {} pods given back to their controllers, {} gates removed", tally.deleted, tally.ungated))?;
    list_stranded(&stranded)
}

/// What would happen, judged as the first pass would.
async fn preview(access: &Access) -> Result<(), CliError> {
    let mut memory = Memory::default();
    let pods = unbound(access).await?;
    learn_jobs(access, &pods, &mut memory).await?;
    let (steps, stranded) = pass(&pods, &mut memory);
    say(&format!("would delete MutatingAdmissionPolicyBinding {GATE_BINDING}: nothing new is gated"))?;
    say(&format!("would delete ValidatingAdmissionPolicyBinding {GUARD_BINDING}: gates may be removed"))?;
    for step in &steps {
        say(&match step {
            Step::Delete { namespace, name, .. } => {
                format!("would delete pod {namespace}/{name}: its controller creates it anew for the default scheduler")
            }
            Step::Ungate { namespace, name, .. } => format!("would remove the gate of pod {namespace}/{name}"),
        })?;
    }
    list_stranded(&stranded)?;
    Err(CliError::NotConfirmed)
}

fn list_stranded(stranded: &[Stranded]) -> Result<(), CliError> {
    if !stranded.is_empty() {
        say(&format!("{} pods wait for {} and stay Pending without it:", stranded.len(), keys::SCHEDULER_NAME))?;
    }
    stranded.iter().try_for_each(|pod| say(&format!("  {}/{}: {}", pod.namespace, pod.name, pod.why.message())))
}

async fn admission_off(client: &Client, kind: &str, name: &str) -> Result<(), CliError> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind));
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let action = format!("delete {kind} {name}");
    let params = DeleteParams::default();
    let request = async {
        match api.delete(name, &params).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
            Err(error) => Err(error),
        }
    };
    let deleted = call(&action, "delete", &resource.plural, "", request).await?;
    let outcome = if deleted { "deleted" } else { "was gone already" };
    say(&format!("admission off: {kind} {name} {outcome}"))
}

/// Returns the number of writes that were called for, and who stays behind.
async fn one_pass(access: &Access, memory: &mut Memory, tally: &mut Tally) -> Result<(usize, Vec<Stranded>), CliError> {
    let pods = unbound(access).await?;
    learn_jobs(access, &pods, memory).await?;
    let (steps, stranded) = pass(&pods, memory);
    let count = steps.len();
    let mut outcomes =
        futures::stream::iter(steps).map(|step| carry_out(access.client.clone(), step)).buffer_unordered(PARALLEL);
    let (mut deleted, mut ungated, mut later) = (0, 0, 0);
    while let Some(outcome) = outcomes.next().await {
        match outcome? {
            Outcome::Deleted => deleted += 1,
            Outcome::Ungated => ungated += 1,
            Outcome::Gone => {}
            Outcome::Later => later += 1,
        }
    }
    tally.deleted += deleted;
    tally.ungated += ungated;
    if count > 0 {
        say(&format!("{deleted} pods deleted, {ungated} gates removed, {later} to be looked at again"))?;
    }
    Ok((count, stranded))
}

async fn unbound(access: &Access) -> Result<Vec<Facts>, CliError> {
    let api: Api<Pod> = Api::all(access.client.clone());
    Ok(access.list(&api, Some("spec.nodeName=")).await?.iter().map(Facts::of).collect())
}

/// Reads each Job whose pods wait, once.
async fn learn_jobs(access: &Access, pods: &[Facts], memory: &mut Memory) -> Result<(), CliError> {
    for pod in pods.iter().filter(|pod| pod.ours && !pod.settled) {
        let Some(job) = pod.controller.as_ref().filter(|owner| owner.is_job) else { continue };
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

async fn carry_out(client: Client, step: Step) -> Result<Outcome, CliError> {
    let (action, done, answer) = match step {
        Step::Delete { namespace, name, uid, resource_version } => {
            let api: Api<Pod> = Api::namespaced(client, &namespace);
            let preconditions = Preconditions { uid: Some(uid), resource_version: Some(resource_version) };
            let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
            let answer = tokio::time::timeout(DEADLINE, api.delete(&name, &params)).await.map(|r| r.map(|_| ()));
            (format!("delete pod {namespace}/{name}"), Outcome::Deleted, answer)
        }
        Step::Ungate { namespace, name, uid, gate } => {
            let api: Api<Pod> = Api::namespaced(client, &namespace);
            let path = format!("/spec/schedulingGates/{gate}");
            let operations = json!([
                { "op": "test", "path": "/metadata/uid", "value": uid },
                { "op": "test", "path": format!("{path}/name"), "value": keys::QUOTA_GATE },
                { "op": "remove", "path": path },
            ]);
            let action = format!("remove the gate of pod {namespace}/{name}");
            let patch = serde_json::from_value(operations)
                .map_err(|source| CliError::Call { action: action.clone(), source: Box::new(source) })?;
            let params = PatchParams { field_manager: Some(keys::manager::DRAIN.into()), ..PatchParams::default() };
            let patch = Patch::<()>::Json(patch);
            let answer = tokio::time::timeout(DEADLINE, api.patch(&name, &params, &patch)).await.map(|r| r.map(|_| ()));
            (action, Outcome::Ungated, answer)
        }
    };
    match answer {
        Err(_) => Err(CliError::Silent { action, seconds: DEADLINE.as_secs() }),
        Ok(Ok(())) => Ok(done),
        Ok(Err(kube::Error::Api(status))) => match status.code {
            404 => Ok(Outcome::Gone),
            409 | 422 | 429 => Ok(Outcome::Later),
            403 if is_policy(&status.message) => Ok(Outcome::Later),
            code => {
                let source = Box::new(Answer { code, message: status.message.clone() });
                Err(CliError::Call { action, source })
            }
        },
        Ok(Err(source)) => Err(CliError::Call { action, source: Box::new(source) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::from_value;

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
