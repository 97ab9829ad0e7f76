//! No child of the bed outlives this process, also when nobody has time to say goodbye.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "tests")]

use std::path::Path;
use std::process::{Command as Plain, Stdio};
use std::time::{Duration, Instant};

use fairlead_e2e::processes::{Command, Process};

/// Tells this very program to be the parent that is killed.
const BE_PARENT: &str = "FAIRLEAD_TEST_BE_PARENT";

fn sleeper(dir: &Path) -> Command {
    Command {
        name: "sleeper".to_owned(),
        program: "/bin/sleep".into(),
        args: vec!["600".to_owned()],
        env: Vec::new(),
        dir: dir.to_owned(),
        log: dir.join("sleeper.log"),
    }
}

fn sleeps(pid: i32) -> bool {
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|text| text.windows(3).any(|word| word == b"600"))
}

fn within(limit: Duration, holds: impl Fn() -> bool) -> bool {
    let began = Instant::now();
    while began.elapsed() < limit {
        if holds() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

#[tokio::test]
async fn children_die_with_a_killed_parent() {
    if let Some(dir) = std::env::var_os(BE_PARENT) {
        let dir = Path::new(&dir);
        let child = Process::start(&sleeper(dir)).await.unwrap();
        std::fs::write(dir.join("pid"), child.pid().to_string()).unwrap();
        return std::future::pending().await;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut parent = Plain::new(std::env::current_exe().unwrap())
        .args(["--exact", "children_die_with_a_killed_parent"])
        .env(BE_PARENT, dir.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let pid = || std::fs::read_to_string(dir.path().join("pid")).ok().and_then(|text| text.parse::<i32>().ok());
    assert!(within(Duration::from_secs(10), || pid().is_some_and(sleeps)), "the child never ran");
    parent.kill().unwrap();
    parent.wait().unwrap();
    assert!(within(Duration::from_secs(5), || !sleeps(pid().unwrap())), "the child outlived its parent");
}

#[tokio::test]
async fn a_dropped_child_is_killed_and_a_stopped_one_says_how_it_ended() {
    let dir = tempfile::tempdir().unwrap();
    let child = Process::start(&sleeper(dir.path())).await.unwrap();
    let pid = child.pid();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(sleeps(pid));
    drop(child);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!sleeps(pid));

    let child = Process::start(&sleeper(dir.path())).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let exit = child.stop(Duration::from_secs(5)).await;
    assert_eq!((exit.code, exit.signal, exit.container_code()), (None, Some(15), 143));
}

#[tokio::test]
async fn a_part_that_ends_is_reported_with_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = sleeper(dir.path());
    command.program = "/bin/sh".into();
    command.args = vec!["-c".to_owned(), "echo no such flag; exit 3".to_owned()];
    let part = Process::start(&command).await.unwrap();
    let error = part.wait_ready(Duration::from_secs(5), || async { false }).await.unwrap_err().to_string();
    assert!(error.contains("part sleeper did not become ready: it ended with exit code 3"), "{error}");
    assert!(error.contains("    no such flag"), "{error}");
}
