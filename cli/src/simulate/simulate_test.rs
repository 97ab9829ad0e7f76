//! Whole runs on small clusters.
use super::error::SimulateError;
use super::placement::{Run, Verdict, run};
use super::render;
use crate::args::{Args, Command, Simulate, SimulatePlacementArgs};
use clap::Parser as _;
use std::io::Write as _;

fn arguments(manifests: &str, more: &[&str]) -> (tempfile::NamedTempFile, SimulatePlacementArgs) {
    let mut file = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
    file.write_all(manifests.as_bytes()).unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    let line = ["kubectl-fairlead", "simulate", "placement", "-f", &path].into_iter().chain(more.iter().copied());
    let Command::Simulate(Simulate::Placement(args)) = Args::parse_from(line).command else { panic!("not simulate") };
    (file, args)
}

fn simulate(manifests: &str, more: &[&str]) -> Result<Run, SimulateError> {
    let (_file, args) = arguments(manifests, more);
    run(&args)
}

const SMALL: &str = "small=synthetic:pack:1 [numa(memory=4GB)] l3:1 core:4 pu:2";
const LARGE: &str = "large=synthetic:pack:2 [numa(memory=8GB)] l3:2 core:4 pu:2";

fn pod(name: &str, cpus: u32, annotations: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{ name: {name}, annotations: {{ {annotations} }} }}\nspec:\n  containers:\n  - name: main\n    \
         resources: {{ requests: {{ cpu: {cpus}, memory: 1Gi }}, limits: {{ cpu: {cpus}, memory: 1Gi }} }}\n"
    )
}

fn deleted(name: &str) -> String {
    format!("---\napiVersion: v1\nkind: Pod\n$patch: delete\nmetadata: {{ name: {name} }}\n")
}

fn nodes_of(run: &Run) -> Vec<Option<&str>> {
    run.steps.iter().map(|step| step.node.as_deref()).collect()
}

#[test]
fn pods_fill_the_tightest_node_and_go_on_to_the_next() {
    let manifests = [pod("a", 8, ""), pod("b", 8, ""), pod("c", 40, "")].concat();
    let run = simulate(&manifests, &["--node", LARGE, "--node", SMALL]).unwrap();
    assert_eq!(nodes_of(&run), [Some("small"), Some("large"), None]);
    assert_eq!(run.steps[0].containers[0].cpus, "0-7");
    assert_eq!((run.placed, run.refused), (2, 1));
    assert_eq!(run.steps[2].reason, Some("MachineTooSmall"));
    assert_eq!(run.steps[2].answers.len(), 2);
}

#[test]
fn what_a_deleted_pod_held_is_given_to_the_next() {
    let manifests = [pod("a", 8, ""), pod("b", 8, ""), deleted("a"), pod("b2", 8, "")].concat();
    let run = simulate(&manifests, &["--node", SMALL]).unwrap();
    let verdicts: Vec<Verdict> = run.steps.iter().map(|step| step.verdict).collect();
    assert_eq!(verdicts, [Verdict::Placed, Verdict::Refused, Verdict::Deleted, Verdict::Placed]);
    assert_eq!(run.steps[3].containers[0].cpus, "0-7");
}

#[test]
fn annotations_and_pools_are_wishes() {
    let single = "topology.fairlead.dev/align: SingleNUMA";
    let run = simulate(&pod("a", 20, single), &["--node", LARGE]).unwrap();
    assert_eq!(run.steps[0].verdict, Verdict::Refused);
    let free = simulate(&pod("a", 20, ""), &["--node", LARGE]).unwrap();
    assert_eq!(free.steps[0].verdict, Verdict::Placed);
    let pool = "
kind: WorkerPool
apiVersion: fairlead.dev/v1alpha1
metadata: { name: pick }
spec:
  scaleTargetRef: { apiVersion: apps/v1, kind: Deployment, name: pick }
  maxReplicas: 9
  queueSources: [ { type: RedisStream, redisStream: { address: 'redis:6379', stream: s, group: g } } ]
  topology: { cpus: Shared }
---
kind: Deployment
apiVersion: apps/v1
metadata: { name: pick }
spec:
  replicas: 3
  selector: { matchLabels: { app: pick } }
  template:
    metadata: { labels: { app: pick } }
    spec:
      containers:
      - name: main
        resources: { requests: { cpu: 2, memory: 1Gi }, limits: { cpu: 2, memory: 1Gi } }
";
    let run = simulate(pool, &["--node", LARGE]).unwrap();
    assert_eq!(run.steps.len(), 3);
    assert!(run.steps.iter().all(|step| step.verdict == Verdict::Placed && step.containers.is_empty()));
    let own = simulate(&pool.replace("{ cpus: Shared }", "{ threads: OnePerCore }"), &["--node", LARGE]).unwrap();
    assert!(own.steps.iter().all(|step| step.containers.len() == 1), "{own:?}");
}

#[test]
fn a_pool_knows_its_pods_by_the_whole_selector_of_its_target_or_is_refused() {
    let manifests = |expressions: &str| {
        format!(
            "
kind: WorkerPool
apiVersion: fairlead.dev/v1alpha1
metadata: {{ name: pick }}
spec:
  scaleTargetRef: {{ apiVersion: apps/v1, kind: Deployment, name: pick }}
  maxReplicas: 9
  queueSources: [ {{ type: RedisStream, redisStream: {{ address: 'redis:6379', stream: s, group: g }} }} ]
  topology: {{ cpus: Shared }}
---
kind: Deployment
apiVersion: apps/v1
metadata: {{ name: pick }}
spec:
  selector: {{ matchLabels: {{ app: pick }}, matchExpressions: [ {expressions} ] }}
  template:
    metadata: {{ labels: {{ app: pick, tier: a }} }}
    spec:
      containers:
      - name: main
        resources: {{ requests: {{ cpu: 2, memory: 1Gi }}, limits: {{ cpu: 2, memory: 1Gi }} }}
"
        )
    };
    let shared = |expressions: &str| {
        simulate(&manifests(expressions), &["--node", LARGE]).unwrap().steps[0].containers.is_empty()
    };
    for of_the_pool in ["", "{ key: tier, operator: In, values: [a, b] }", "{ key: gone, operator: DoesNotExist }"] {
        assert!(shared(of_the_pool), "{of_the_pool}");
    }
    for another in ["{ key: tier, operator: NotIn, values: [a] }", "{ key: gone, operator: Exists }"] {
        assert!(!shared(another), "{another}");
    }
    let wrong = |manifests: &str| simulate(manifests, &["--node", LARGE]).unwrap_err().to_string();
    let said = wrong(&manifests("{ key: tier, operator: Like }"));
    assert!(said.contains("matchExpressions[key=tier]") && said.contains("NotIn"), "{said}");
    let alone = manifests("").split("---").next().unwrap().to_owned();
    assert!(wrong(&alone).contains("WorkerPool default/pick wishes a topology"), "{}", wrong(&alone));
    simulate(&[alone.replace("{ cpus: Shared }", "null"), pod("a", 1, "")].join("\n"), &["--node", LARGE]).unwrap();
}

/// The extender serves `snapshot.dump()` and, asked for a pod, `snapshot.explain()`.
#[test]
fn a_dump_is_answered_as_the_extender_answers() {
    let mut world = super::world::World::new("fairlead-system");
    let node: super::NodeArg = LARGE.parse().unwrap();
    world.add_node("large", node.spec().unwrap()).unwrap();
    let waiting: k8s_openapi::api::core::v1::Pod =
        serde_saphyr::from_str(pod("a", 4, "").trim_start_matches("---")).unwrap();
    world.admit(waiting);
    let snapshot = world.snapshot();
    let served =
        serde_json::to_value(snapshot.explain(snapshot.pod_named("default", "a").unwrap())).unwrap().to_string();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(serde_json::to_value(snapshot.dump()).unwrap().to_string().as_bytes()).unwrap();
    assert_eq!(super::placement::explained(file.path(), "default", "a").unwrap(), served);
    let missing = super::placement::explained(file.path(), "default", "b").unwrap_err().to_string();
    assert_eq!(missing, "the dump has no pod default/b");
    let path = file.path().to_str().unwrap();
    let line = ["kubectl-fairlead", "simulate", "placement", "--from-dump", path];
    let Command::Simulate(Simulate::Placement(args)) = Args::parse_from(line).command else { panic!("not simulate") };
    assert_eq!(nodes_of(&run(&args).unwrap()), [Some("large")]);
    std::fs::write(file.path(), "{}").unwrap();
    assert!(run(&args).unwrap_err().to_string().contains("/debug/dump"));
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let manifests = [pod("a", 3, ""), pod("b", 5, ""), deleted("a"), pod("c", 2, "")].concat();
    let text = |run: &Run| (serde_json::to_string(run).unwrap(), render::text(run));
    let first = simulate(&manifests, &["--node", LARGE, "--node", SMALL]).unwrap();
    let second = simulate(&manifests, &["--node", SMALL, "--node", LARGE]).unwrap();
    assert_eq!(text(&first), text(&second));
}

#[test]
fn the_text_shows_every_pod_and_draws_every_machine() {
    let run = simulate(&[pod("a", 4, ""), pod("b", 100, "")].concat(), &["--node", SMALL]).unwrap();
    let text = render::text(&run);
    assert!(text.contains("default/a   Placed"), "{text}");
    assert!(text.contains("L3 0    aa aa ·· ··   0-7"), "{text}");
    assert!(text.contains("1 placed, 1 refused"), "{text}");
}

#[test]
fn bad_input_is_named() {
    let wrong = |manifests: &str, more: &[&str]| simulate(manifests, more).unwrap_err().to_string();
    assert!(wrong(&pod("a", 1, ""), &[]).contains("there is no node"));
    assert!(wrong("kind: Gadget\nmetadata: {name: a}", &["--node", SMALL]).contains("kind Gadget is not understood"));
    assert!(wrong("kind: Pod\nmetadata: {}", &["--node", SMALL]).contains("metadata.name is missing"));
    assert!(wrong(&deleted("a"), &["--node", SMALL]).contains("Pod default/a is deleted, but not there"));
    assert!(wrong(&pod("a", 1, ""), &["--node", SMALL, "--node", SMALL]).contains("given twice"));
    assert!(wrong("kind: Pod\nmetadata: {name: a}\nspec: 5", &["--node", SMALL]).contains("not a valid Pod"));
    assert!(wrong(&pod("a", 1, ""), &["--node", "x=synthetic:nonsense"]).contains("--node x"));
}

/// Claims with the allocation that a scheduler wrote, and the slice of node `big` with a device on its second socket.
const CLAIMS: &str = "
kind: ResourceSlice
apiVersion: resource.k8s.io/v1
metadata: { name: big-gpu }
spec:
  driver: gpu.example.com
  nodeName: big
  pool: { name: big, generation: 1, resourceSliceCount: 1 }
  devices:
  - name: gpu-1
    attributes: { resource.kubernetes.io/numaNode: { int: 1 } }
---
kind: ResourceClaim
apiVersion: resource.k8s.io/v1
metadata: { name: mine }
spec: {}
status:
  allocation:
    devices: { results: [ { request: gpu, driver: gpu.example.com, pool: big, device: gpu-1 } ] }
";

fn claiming(name: &str, claim: &str, annotations: &str) -> String {
    format!("{}  resourceClaims: [ {{ name: gpu, resourceClaimName: {claim} }} ]\n", pod(name, 4, annotations))
}

#[test]
fn a_pod_gets_cpus_near_the_device_of_its_claim() {
    let big = LARGE.replace("large", "big");
    let nodes = ["--node", &big, "--node", SMALL];
    let manifests = [CLAIMS.to_owned(), claiming("a", "mine", ""), claiming("b", "other", "")].concat();
    let run = simulate(&manifests, &nodes).unwrap();
    assert_eq!(nodes_of(&run)[0], Some("big"));
    assert_eq!(
        (run.steps[0].containers[0].cpus.as_str(), run.steps[0].containers[0].memory_nodes.as_str()),
        ("16-19", "1")
    );
    let small = run.steps[0].answers.iter().find(|answer| answer.detail.node == "small").unwrap();
    assert_eq!(small.obstacle.as_deref(), Some("gpu.example.com/big/gpu-1 of claim gpu is on node big"));
    assert_eq!(run.steps[1].verdict, Verdict::Placed);
    assert_eq!(run.steps[0].devices[0].near_cpus.as_deref(), Some("16-31"));
    let text = render::text(&run);
    assert!(text.contains("near gpu.example.com/big/gpu-1 of claim gpu"), "{text}");
    assert!(text.contains("without the devices of claim gpu: its ResourceClaim does not exist"), "{text}");
    let renounced = [CLAIMS, &claiming("a", "mine", "topology.fairlead.dev/near: ''")].concat();
    let run = simulate(&renounced, &nodes).unwrap();
    assert_eq!((run.steps[0].containers[0].cpus.as_str(), run.steps[0].devices.len()), ("0-3", 0));
    let gone = "---\nkind: ResourceClaim\n$patch: delete\nmetadata: { name: other }\n";
    assert!(matches!(simulate(&[CLAIMS, gone].concat(), &nodes), Err(SimulateError::NotThere { .. })));
    let template = "kind: ResourceClaimTemplate\nmetadata: { name: gpu }\n";
    assert!(matches!(simulate(template, &nodes), Err(SimulateError::Kind { .. })));
}
