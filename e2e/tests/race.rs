//! Two schedulers of one name race on the genuine API server, each with its own extender and none of them the leader: 500
//! pods (`FAIRLEAD_RACE_PODS=2000` by hand) want scarce cores while schedulers and extenders are killed. In no moment of
//! the watch history is a core promised twice.
#![cfg(feature = "control-plane")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "tests")]

#[path = "race/havoc.rs"]
mod havoc;
#[path = "race/history.rs"]
mod history;

use anyhow::{Context as _, Result, bail, ensure};
use fairlead_crds::NodePlacement;
use fairlead_crds::keys::SCHEDULER_NAME;
use fairlead_e2e::RELEASE_NAMESPACE;
use fairlead_e2e::bed::{Bed, Options};
use fairlead_e2e::dice::Dice;
use fairlead_e2e::eventually::{eventually, seen};
use fairlead_e2e::kwok::StageTimes;
use fairlead_e2e::nodes::of_each_shape;
use fairlead_e2e::release;
use futures::{StreamExt as _, TryStreamExt as _};
use havoc::{Counted, SEED, havoc};
use history::{Recorder, Verdict, judge};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, ServiceAccount};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(60);
/// For all pods, on a machine that is busy with other things: the API server's own work for them is what it takes.
const RACE_LIMIT: Duration = Duration::from_secs(600);
/// A Lease that lapses, and the reaper's pause after it.
const FREED_LIMIT: Duration = Duration::from_secs(60);
const NAMESPACE: &str = "race";
const PODS: usize = 500;
/// With two CPUs each the nine nodes hold 222. Cores of a pod that is gone stay promised until the reaper has looked, and
/// while its Lease lapses with a killed extender: so nearly all are taken, and the two race for the few that come free.
const AT_ONCE: usize = 48;
const KILLS: usize = 12;
/// On a quiet machine the pods come and go in a minute.
const KILLS_MIN: usize = 3;
/// Of so many pods each of the two must have bound one at least.
const SHARE: usize = 10;
/// How long a pod runs.
const RUNS: Duration = Duration::from_millis(500);

/// How many pods race.
fn pods() -> usize {
    std::env::var("FAIRLEAD_RACE_PODS").map_or(PODS, |text| text.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_schedulers_race_and_no_core_is_promised_twice() {
    let mut dice = Dice::new(SEED);
    fairlead_e2e::init_logs();
    let stages = StageTimes { ready_ms: (100, 400), delete_ms: (100, 300), ..StageTimes::default() };
    let options = Options { redis_password: None, nodes: of_each_shape(3), stages, ..Options::new("race") };
    let bed = Bed::start(options).await.unwrap();
    // The second operator would only stand by, and watch all pods meanwhile.
    let mut values = release::values(&bed);
    values["operator"]["replicas"] = json!(1);
    bed.install_fairlead(&values).await.unwrap();
    if let Err(error) = race(&bed, &mut dice).await {
        panic!("{error:#}\n{}", bed.release_logs());
    }
    bed.stop().await.unwrap();
}

async fn race(bed: &Bed, dice: &mut Dice) -> Result<()> {
    both_schedule(bed).await?;
    create_namespace(bed).await?;
    let recorder = Recorder::default();
    let since = recorder.begin(&bed.client).await?;
    let (mut counted, mut kills) = (Counted::default(), 0);
    let began = Instant::now();
    let run = async {
        let fed = tokio::select! {
            fed = tokio::time::timeout(RACE_LIMIT, feed(bed, &recorder)) => fed.unwrap_or_else(|_| bail!("time is up")),
            () = havoc(bed, dice, KILLS, &mut counted, &mut kills) => bail!("the kills never end by themselves"),
        };
        let ended = (fed.with_context(|| progress(&recorder, began)), began.elapsed());
        restarted(bed).await?;
        counted.ask_all(bed).await?;
        Ok(ended)
    };
    let (fed, took) = tokio::select! {
        ended = run => ended?,
        lost = recorder.record(&bed.client, NAMESPACE, since) => match lost? {},
    };
    // Also of a race that was too slow: what happened is known.
    let verdict = judge(&recorder.history());
    tell(&verdict, &counted, took, kills);
    assert_eq!(verdict.breaches, Vec::<String>::new());
    fed?;
    assert_eq!(verdict.bound.len(), pods());
    all_is_freed(bed).await?;
    assert!(kills >= KILLS_MIN, "only {kills} kills");
    let shares = counted.bound_by();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "hundreds")]
    let raced = shares.values().filter(|bound| **bound as usize >= pods() / SHARE).count();
    assert_eq!(raced, 2, "both schedulers were to bind pods: {shares:?}");
    Ok(())
}

fn progress(recorder: &Recorder, began: Instant) -> String {
    let (unbound, there, gone) = recorder.progress();
    let (seconds, held, all) = (began.elapsed().as_secs(), recorder.held(), pods());
    format!(
        "after {seconds} s {gone} of {all} pods came and went, {there} are there, {unbound} of them wait for a node; {held} reservations"
    )
}

#[allow(clippy::cast_precision_loss, reason = "figures for people")]
fn tell(verdict: &Verdict, counted: &Counted, took: Duration, kills: usize) {
    let (seconds, pods, conflicts) = (took.as_secs_f64(), verdict.bound.len() as f64, counted.conflicts());
    eprintln!("race: {pods} pods in {seconds:.0} s, {:.1} pods/s, {kills} kills", pods / seconds);
    eprintln!(
        "race: {} versions of NodePlacements, {} breaches; {} pods were promised cores of two nodes for a moment",
        verdict.versions,
        verdict.breaches.len(),
        verdict.promised_on_two.len(),
    );
    eprintln!(
        "race: {conflicts} conflicts, {:.0} per 1,000 pods; binds {:?}; bound by {:?}",
        conflicts * 1_000.0 / pods,
        counted.binds(),
        counted.bound_by(),
    );
}

/// What was promised to pods that are gone, or was never bound, is given back.
async fn all_is_freed(bed: &Bed) -> Result<()> {
    let placements: Api<NodePlacement> = Api::all(bed.client.clone());
    eventually("all cores are free again", FREED_LIMIT, async || {
        let held: usize =
            placements.list(&ListParams::default()).await?.iter().map(|p| p.spec.reservations.len()).sum();
        Ok(seen(held == 0, format!("{held} reservations")))
    })
    .await
}

/// Leader election off, by hand: the chart has no value for it, since nobody should want that.
async fn both_schedule(bed: &Bed) -> Result<()> {
    let maps: Api<ConfigMap> = Api::namespaced(bed.client.clone(), RELEASE_NAMESPACE);
    let data = maps.get(SCHEDULER_NAME).await?.data.unwrap_or_default();
    let text = data.get("config.yaml").context("no configuration of the scheduler")?;
    let racing = text.replace("leaderElect: true", "leaderElect: false");
    ensure!(racing != *text, "the scheduler elects no leader: {text}");
    let patch = Patch::Merge(json!({ "data": { "config.yaml": racing } }));
    maps.patch(SCHEDULER_NAME, &PatchParams::default(), &patch).await?;
    let deployment = format!("deployment/{SCHEDULER_NAME}");
    bed.kubectl.run(&["-n", RELEASE_NAMESPACE, "rollout", "restart", &deployment], LIMIT).await?;
    restarted(bed).await
}

/// All pods of the scheduler are ready, and no others run.
async fn restarted(bed: &Bed) -> Result<()> {
    let deployment = format!("deployment/{SCHEDULER_NAME}");
    bed.kubectl.run(&["-n", RELEASE_NAMESPACE, "rollout", "status", &deployment], LIMIT).await?;
    eventually("two schedulers and two extenders run", LIMIT, async || {
        let running = bed.kubelet.running();
        let of = |program: &str| running.iter().filter(|running| running.program == program).count();
        let both = (of("kube-scheduler"), of("fairlead-extender"));
        Ok(seen(both == (2, 2), format!("{both:?}")))
    })
    .await
}

async fn create_namespace(bed: &Bed) -> Result<()> {
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some(NAMESPACE.to_owned());
    Api::all(bed.client.clone()).create(&PostParams::default(), &namespace).await?;
    let accounts: Api<ServiceAccount> = Api::namespaced(bed.client.clone(), NAMESPACE);
    eventually("the namespace admits pods", LIMIT, async || {
        Ok(seen(accounts.get_opt("default").await?.is_some(), "no ServiceAccount"))
    })
    .await
}

/// Where one pod goes, the next one comes.
async fn feed(bed: &Bed, recorder: &Recorder) -> Result<()> {
    let api: Api<Pod> = Api::namespaced(bed.client.clone(), NAMESPACE);
    let lives = (0..pods()).map(|index| life(&api, recorder, format!("p{index}")));
    futures::stream::iter(lives).buffer_unordered(AT_ONCE).try_collect().await
}

async fn life(pods: &Api<Pod>, recorder: &Recorder, name: String) -> Result<()> {
    let amounts = json!({ "cpu": "2", "memory": "64Mi" });
    let pod: Pod = serde_json::from_value(json!({
        "metadata": { "name": name },
        "spec": {
            "schedulerName": SCHEDULER_NAME,
            "terminationGracePeriodSeconds": 1,
            "containers": [{ "name": "c", "image": "example.com/c:1", "resources": { "requests": amounts, "limits": amounts } }],
        },
    }))?;
    let (bound, gone) = recorder.await_pod(&name);
    pods.create(&PostParams::default(), &pod).await?;
    bound.await?;
    tokio::time::sleep(RUNS).await;
    pods.delete(&name, &DeleteParams::default()).await?;
    gone.await?;
    Ok(())
}
