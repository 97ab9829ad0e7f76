//! The story under fire: every process of ours is killed at random moments, the API server is gone for 30 s, and still
//! every milestone is reached and no CPU is held twice.
#![cfg(feature = "control-plane")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "tests")]

use fairlead_e2e::bed::{Bed, Options};
use fairlead_e2e::demo::Stage;
use fairlead_e2e::dice::Dice;
use fairlead_e2e::release;
use fairlead_e2e::story::milestones::Lines;
use fairlead_e2e::story::{self, Play};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const VICTIMS: [&str; 4] = ["fairlead-operator", "fairlead-extender", "kube-scheduler", "fairlead-agent"];

/// What an outage may cost a milestone: 30 s without API server, leases that lapse, and the back-offs after it, on a
/// machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(180);

/// After so many kills the rest of the story is left in peace: it must come to rest.
const KILLS: usize = 12;

/// What was really done to the cluster.
#[derive(Default)]
struct Done {
    kills: AtomicUsize,
    outages: AtomicUsize,
}

/// Kills one of ours every two to seven seconds, and once takes the API server away for 30 s.
async fn havoc(bed: &Bed, done: &Done) {
    let mut dice = Dice::new(301_447_267);
    for round in 0.. {
        tokio::time::sleep(Duration::from_millis(2_000 + dice.next(5_000))).await;
        if round == 5 {
            eprintln!("the API server is gone for 30 s");
            bed.plane.kill_api_server().await;
            tokio::time::sleep(Duration::from_secs(30)).await;
            bed.plane.start_api_server().await.unwrap();
            done.outages.fetch_add(1, Ordering::Relaxed);
            eprintln!("the API server is back");
            continue;
        }
        if done.kills.load(Ordering::Relaxed) >= KILLS {
            std::future::pending::<()>().await;
        }
        let running = bed.kubelet.running();
        let kind = VICTIMS[usize::try_from(dice.next(4)).unwrap()];
        let of_kind: Vec<_> = running.iter().filter(|running| running.program == kind).collect();
        if of_kind.is_empty() {
            continue;
        }
        let victim = of_kind[usize::try_from(dice.next(of_kind.len() as u64)).unwrap()];
        eprintln!("killing {} of {}", victim.program, victim.pod);
        let (pod, container) = (victim.pod.clone(), victim.container.clone());
        let killed = bed.kubelet.signal(rustix::process::Signal::KILL, |r| r.pod == pod && r.container == container);
        done.kills.fetch_add(killed, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_milestone_is_reached_though_everything_of_ours_is_killed() {
    fairlead_e2e::init_logs();
    let bed = Bed::start(Options::new("story")).await.unwrap();
    bed.install_fairlead(&release::values(&bed)).await.unwrap();
    let stage = Stage::new(&bed).unwrap();
    let play = Play::start(&stage).await.unwrap();
    let done = Done::default();
    let told = tokio::select! {
        told = story::run(&stage, &play, &Lines, PATIENCE) => told,
        () = havoc(&bed, &done) => unreachable!("havoc never ends by itself"),
    };
    let (breaches, pinned) = {
        let world = play.world.lock();
        (world.double_promises.clone(), world.seen_pinned.len())
    };
    drop(play);
    if let Err(error) = told {
        panic!("{error:#}\n{}", bed.release_logs());
    }
    assert_eq!(breaches, Vec::<String>::new());
    assert!(pinned > 100, "only {pinned} pods were pinned");
    assert_eq!((done.kills.into_inner(), done.outages.into_inner()), (KILLS, 1));
    bed.stop().await.unwrap();
}
