//! The story: a surge for two tenants on a genuine control plane, told by what the API server and Redis show.
pub mod load;
pub mod milestones;
pub mod watch;
pub mod world;

use self::load::{Line, Rate};
use self::milestones::{Milestones, Teller, settled};
use self::watch::Shared;
use self::world::World;
use anyhow::Context;
use fairlead_crds::keys;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::task::JoinSet;

/// Fewest replicas of the two pools (`examples/`): 3:1 as their weights.
const QUIET_REPLICAS: [i32; 2] = [3, 1];
/// Weight of the first tenant; the second has 1. One pod of the second is worth so many of the first.
const WEIGHT: usize = 3;
/// Orders per second in quiet times and in the surge, by tenant.
const QUIET_ORDERS: [u64; 2] = [3, 1];
const SURGE_ORDERS: [u64; 2] = [400, 160];

/// The two tenants' queues as `examples/` has them.
pub const LINES: [Line; 2] = [
    Line {
        namespace: "acme-prod",
        app: "picker",
        stream: "acme-orders",
        group: "picker",
        rate_milli: 2_000,
        most_waiting: 30 * SURGE_ORDERS[0],
    },
    Line {
        namespace: "globex-prod",
        app: "packer",
        stream: "globex-orders",
        group: "packer",
        rate_milli: 2_000,
        most_waiting: 30 * SURGE_ORDERS[1],
    },
];
const POOLS: [&str; 2] = ["acme-prod/picker", "globex-prod/packer"];
const PLAIN: &str = "globex-prod/report";

/// What the story needs of a running test bed.
pub trait Scene {
    /// An administrator's client.
    fn client(&self) -> kube::Client;
    /// `redis://…` of the queue server.
    fn redis_url(&self) -> String;
    /// Runs the genuine kubectl (with kubectl-fairlead in its PATH) and gives its standard output.
    fn kubectl(&self, args: &[&str]) -> impl Future<Output = anyhow::Result<String>> + Send;
    /// `helm uninstall` of the release, waiting until its objects are gone.
    fn uninstall(&self) -> impl Future<Output = anyhow::Result<()>> + Send;
    /// Folder with the objects to apply, addresses already those of this bed.
    fn examples(&self) -> PathBuf;
}

/// The running load and watches; dropping it ends them.
pub struct Play {
    /// What is seen.
    pub world: Shared,
    rates: [Rate; 2],
    _tasks: JoinSet<()>,
    _watches: JoinSet<()>,
}

impl Play {
    /// Starts watches and load on an installed cluster; applies the tenants and their pools.
    ///
    /// # Errors
    /// An object is refused, or Redis cannot be reached.
    pub async fn start(scene: &impl Scene) -> anyhow::Result<Self> {
        let world = Shared::default();
        let watches = watch::start(&scene.client(), &[LINES[0].namespace, LINES[1].namespace], &world);
        let rates = [Rate::default(), Rate::default()];
        let mut tasks = JoinSet::new();
        for (line, rate) in LINES.iter().zip(&rates) {
            let mut redis = load::connect(&scene.redis_url()).await?;
            load::create(&mut redis, line).await?;
            tasks.spawn(load::generate(redis.clone(), line.clone(), rate.clone(), world.clone()));
            tasks.spawn(load::work(load::connect(&scene.redis_url()).await?, line.clone(), world.clone()));
        }
        let play = Self { world, rates, _tasks: tasks, _watches: watches };
        play.orders(QUIET_ORDERS);
        Ok(play)
    }

    /// Sets the orders per second of both queues.
    pub fn orders(&self, per_second: [u64; 2]) {
        for (rate, value) in self.rates.iter().zip(per_second) {
            rate.set(value);
        }
    }
}

/// Plays the story from quiet to an empty cluster. `patience` is added to every bound: none in the demo, what an outage
/// costs in a test of faults.
///
/// # Errors
/// A milestone was not seen in its time; the message says which and what was seen instead.
pub async fn run(scene: &impl Scene, play: &Play, teller: &dyn Teller, patience: Duration) -> anyhow::Result<()> {
    let told = Milestones::new(play.world.clone(), teller, patience);
    quiet(scene, &told).await?;
    surge(play, &told).await?;
    plateau(scene, &told).await?;
    limit(play, &told).await?;
    ebb(scene, play, &told).await?;
    leave(scene, &told).await
}

/// Namespaces, tenants and pools are applied; both pools come to rest at their minimum.
async fn quiet(scene: &impl Scene, told: &Milestones<'_>) -> anyhow::Result<()> {
    for file in ["00-namespaces.yaml", "10-tenants.yaml", "15-night-batch.yaml"] {
        apply(scene, told, file).await?;
    }
    told.persist(|| scene.kubectl(&["-n", "night", "rollout", "status", "deployment/batch", "--timeout=90s"])).await?;
    told.wait(
        "tenants-ready",
        secs(30),
        |w| tenants_ready(w).then(|| json!({ "tenants": w.quotas.len() })),
        |w| format!("TenantQuotas seen: {:?}", w.quotas.keys().collect::<Vec<_>>()),
    )
    .await?;
    apply(scene, told, "20-pools.yaml").await?;
    let at_rest = settled(secs(2), |w: &World| {
        let rest = LINES.iter().zip(QUIET_REPLICAS).all(|(line, replicas)| {
            w.ready(line.namespace, line.app).len() == replicas as usize
                && w.backlog(line.stream).is_some_and(|backlog| backlog < 20)
        });
        rest.then(|| POOLS.map(|pool| w.ordered(pool)))
    });
    told.wait("quiet", secs(60), mapped(at_rest, |replicas| json!({ "replicas": replicas })), pools_now).await?;
    Ok(())
}

/// Orders jump for both tenants; replicas, gates and pinned pods follow.
async fn surge(play: &Play, told: &Milestones<'_>) -> anyhow::Result<()> {
    play.orders(SURGE_ORDERS);
    told.reached("surge", &json!({ "orders_per_second": SURGE_ORDERS }));
    let surged = tokio::time::Instant::now();
    let gated_before = told.now(|w| w.seen_gated.len());
    told.wait(
        "first-replica-count",
        secs(10),
        |w| {
            let more = POOLS.iter().zip(QUIET_REPLICAS).find(|(pool, quiet)| w.ordered(pool) > *quiet)?;
            Some(json!({ "pool": more.0, "replicas": w.ordered(more.0), "since_surge_ms": surged.elapsed().as_millis() as u64 }))
        },
        pools_now,
    )
    .await?;
    told.wait(
        "gated",
        secs(20),
        |w| (w.seen_gated.len() > gated_before).then(|| json!({ "pods": w.seen_gated.len() - gated_before })),
        pools_now,
    )
    .await?;
    Ok(())
}

/// Both tenants wait while a batch job of nobody's fills the cluster; it ends, and what it leaves is released 3:1.
async fn plateau(scene: &impl Scene, told: &Milestones<'_>) -> anyhow::Result<()> {
    let waiting = settled(secs(2), |w: &World| {
        let all_wait = LINES.iter().zip(POOLS).all(|(line, pool)| {
            let (released, waiting) = (w.released(line.namespace), w.waiting(line.namespace));
            waiting > 0 && i32::try_from(released + waiting).is_ok_and(|pods| pods == w.ordered(pool))
        });
        let ordered = POOLS.map(|pool| w.ordered(pool));
        (all_wait && ordered[0] > 140 && ordered[1] > 50).then_some(ordered)
    });
    told.wait("both-wait", secs(60), mapped(waiting, |ordered| json!({ "ordered": ordered })), pools_now).await?;
    let held = |w: &World| LINES.each_ref().map(|line| w.released(line.namespace));
    let (mark, before) = told.now(|w| (w.releases.len(), held(w)));
    delete(scene, told, "15-night-batch.yaml").await?;
    let full = settled(secs(3), move |w: &World| {
        let both_wait = LINES.iter().all(|line| w.waiting(line.namespace) > 0);
        (both_wait && w.releases.len() > mark + 40).then(|| held(w))
    });
    let fair = move |full: [usize; 2]| json!({ "held": full, "held_before": before });
    let mut fair = mapped(full, fair);
    let strict = !told.faults_may_happen();
    let astray = move |w: &World| w.stray(mark, before, LINES[0].namespace, WEIGHT);
    told.wait(
        "releases-3-to-1",
        secs(60),
        move |w| {
            let mut detail = fair(w)?;
            let [acme, globex] = held(w);
            detail["releases"] = json!(w.releases.len() - mark);
            detail["most_pods_astray"] = json!(astray(w));
            // A release that is repeated after a crash comes out of turn.
            let in_turn = !strict || astray(w).is_some_and(|pods| pods <= WEIGHT);
            (in_turn && acme.abs_diff(WEIGHT * globex) <= WEIGHT).then_some(detail)
        },
        |w| {
            let initials: String =
                w.releases.iter().skip(mark).filter_map(|namespace| namespace.chars().next()).collect();
            format!("{}; most pods astray: {:?} of {before:?} and then {initials}", pools_now(w), astray(w))
        },
    )
    .await?;
    told.wait(
        "exact-cpus",
        secs(60),
        |w| {
            let pinned = w.seen_pinned.len();
            let running = w.pods.values().filter(|p| p.ready).count();
            (pinned >= 40 && running >= 40 && w.unpinned.is_empty() && w.spread.is_empty() && w.unreserved().is_empty()).then(
                || json!({ "pods": pinned, "cpus_reserved": w.reserved_cpus(), "held_twice": w.double_promises.len() }),
            )
        },
        |w| {
            format!(
                "{} pinned, not exactly: {:?}, on several NUMA nodes: {:?}, not reserved: {:?}",
                w.seen_pinned.len(),
                w.unpinned,
                w.spread,
                w.unreserved()
            )
        },
    )
    .await?;
    apply(scene, told, "30-report.yaml").await
}

/// Acme's orders end: globex grows to its hard limit and no further.
async fn limit(play: &Play, told: &Milestones<'_>) -> anyhow::Result<()> {
    play.orders([QUIET_ORDERS[0], SURGE_ORDERS[1]]);
    let globex = LINES[1].namespace;
    let at_limit = settled(secs(2), move |w: &World| {
        let (status, reason) = w.pool_condition(POOLS[1], keys::condition::LIMITED_BY_QUOTA)?;
        let reasons: Vec<String> = w
            .pods
            .values()
            .filter(|p| p.namespace == globex && p.app == "report" && p.gated)
            .filter_map(|p| p.reason.clone())
            .collect();
        let told_why = !reasons.is_empty()
            && reasons.iter().all(|r| r == "WaitingForTenantQuota" || r == "WaitingForConcurrencySlot");
        (status == "True" && reason == keys::reason::HARD_LIMIT_REACHED && told_why)
            .then(|| (w.ordered(POOLS[1]), w.released(globex), reasons.first().cloned()))
    });
    let detail = |(replicas, released, why)| json!({ "pool_replicas": replicas, "released": released, "plain_pods_wait_because": why });
    told.wait("hard-limit-reached", secs(90), mapped(at_limit, detail), |w| {
        let why: Vec<_> =
            w.pods.values().filter(|p| p.app == "report").map(|p| (p.gated, p.reason.clone())).take(3).collect();
        format!(
            "{}; globex released {}; LimitedByQuota {:?}; report pods {why:?}",
            pools_now(w),
            w.released(globex),
            w.pool_condition(POOLS[1], keys::condition::LIMITED_BY_QUOTA)
        )
    })
    .await?;
    Ok(())
}

/// Orders fall back: queues drain, pools shrink, and what is deleted leaves nothing reserved.
async fn ebb(scene: &impl Scene, play: &Play, told: &Milestones<'_>) -> anyhow::Result<()> {
    play.orders(QUIET_ORDERS);
    told.wait(
        "queues-drained",
        secs(180),
        |w| {
            LINES
                .iter()
                .all(|line| w.backlog(line.stream).is_some_and(|backlog| backlog < 20))
                .then(|| json!({ "backlog": LINES.each_ref().map(|l| w.backlog(l.stream)) }))
        },
        pools_now,
    )
    .await?;
    told.wait(
        "pools-shrunk",
        secs(90),
        |w| {
            let replicas = POOLS.map(|pool| w.ordered(pool));
            (replicas == QUIET_REPLICAS).then(|| json!({ "replicas": replicas }))
        },
        pools_now,
    )
    .await?;
    delete(scene, told, "20-pools.yaml").await?;
    scale_report(scene, told, 0).await?;
    told.wait(
        "nothing-reserved",
        secs(60),
        |w| (w.reserved_cpus() == 0 && w.pods.is_empty()).then(|| json!({ "pods": 0, "cpus_reserved": 0 })),
        |w| format!("{} CPUs still reserved, {} pods left", w.reserved_cpus(), w.pods.len()),
    )
    .await?;
    Ok(())
}

/// With pods waiting again, drain and uninstall leave no gate behind.
async fn leave(scene: &impl Scene, told: &Milestones<'_>) -> anyhow::Result<()> {
    scale_report(scene, told, 60).await?;
    told.wait(
        "waiting-again",
        secs(30),
        |w| (w.waiting(LINES[1].namespace) > 0).then(|| json!({ "pods": w.waiting(LINES[1].namespace) })),
        pools_now,
    )
    .await?;
    let drained =
        told.persist(|| scene.kubectl(&["fairlead", "drain", "--yes"])).await.context("kubectl fairlead drain")?;
    told.progress(drained.trim());
    told.persist(|| scene.uninstall()).await.context("helm uninstall")?;
    let gates =
        settled(secs(2), |w: &World| (!w.pods.is_empty() && w.pods.values().all(|p| !p.gated)).then_some(w.pods.len()));
    told.wait("uninstalled-no-gate-left", secs(60), mapped(gates, |pods| json!({ "pods": pods, "gated": 0 })), |w| {
        format!("{} of {} pods are gated", w.pods.values().filter(|p| p.gated).count(), w.pods.len())
    })
    .await?;
    Ok(())
}

fn tenants_ready(world: &World) -> bool {
    let ready = |name: &str| {
        let conditions = world.quotas.get(name).and_then(|q| q.status.as_ref()).map(|s| &s.conditions);
        conditions.into_iter().flatten().any(|c| c.type_ == keys::condition::READY && c.status == "True")
    };
    ready("acme") && ready("globex")
}

fn pools_now(world: &World) -> String {
    let line = |i: usize| {
        let Line { namespace, app, stream, .. } = &LINES[i];
        format!(
            "{}: ordered {}, released {}, waiting {}, ready {}, backlog {:?}",
            POOLS[i],
            world.ordered(POOLS[i]),
            world.released(namespace),
            world.waiting(namespace),
            world.ready(namespace, app).len(),
            world.backlog(stream)
        )
    };
    format!("{}; {}", line(0), line(1))
}

fn mapped<T>(
    mut probe: impl FnMut(&World) -> Option<T>,
    detail: impl Fn(T) -> Value,
) -> impl FnMut(&World) -> Option<Value> {
    move |world| probe(world).map(&detail)
}

async fn apply(scene: &impl Scene, told: &Milestones<'_>, file: &str) -> anyhow::Result<()> {
    let file = path(&scene.examples(), file);
    told.persist(|| async { scene.kubectl(&["apply", "-f", &file]).await.map(drop) }).await
}

async fn delete(scene: &impl Scene, told: &Milestones<'_>, file: &str) -> anyhow::Result<()> {
    let file = path(&scene.examples(), file);
    told.persist(|| async {
        scene.kubectl(&["delete", "-f", &file, "--wait=false", "--ignore-not-found"]).await.map(drop)
    })
    .await
}

async fn scale_report(scene: &impl Scene, told: &Milestones<'_>, replicas: u32) -> anyhow::Result<()> {
    let (namespace, name) = PLAIN.split_once('/').context("PLAIN is namespace/name")?;
    let replicas = format!("--replicas={replicas}");
    told.persist(|| async { scene.kubectl(&["-n", namespace, "scale", "deployment", name, &replicas]).await.map(drop) })
        .await
}

fn path(folder: &Path, file: &str) -> String {
    folder.join(file).display().to_string()
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
