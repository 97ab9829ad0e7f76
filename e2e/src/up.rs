//! `up` and `down`: a bed that stays, held by a supervisor process of its own.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};

use crate::bed::{Bed, Options, identity, is_alive};
use crate::demo::Stage;
use crate::parts::Parts;
use crate::release;
use crate::story::Scene as _;

const START_LIMIT: Duration = Duration::from_secs(420);
const STOP_LIMIT: Duration = Duration::from_secs(60);
const SUPERVISE: &str = "supervise";

/// What the supervisor leaves for `up` and `down`.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    /// See [`identity`].
    supervisor: String,
    ready: Option<Ready>,
}

/// What a user of the cluster needs.
#[derive(Debug, Serialize, Deserialize)]
struct Ready {
    kubeconfig: PathBuf,
    redis: Option<String>,
    /// The example objects with the addresses of this cluster.
    examples: PathBuf,
}

fn state_file(parts: &Parts) -> PathBuf {
    parts.target.join("bed/up.json")
}

/// Starts the supervisor and waits until the cluster is ready; prints its `KUBECONFIG`.
pub async fn up() -> Result<()> {
    let parts = Parts::find()?;
    let file = state_file(&parts);
    if let Some(state) = read(&file)
        && alive(&state)
    {
        print_env(&parts, &state.ready.context("a cluster is being started; `down` ends it")?);
        return Ok(());
    }
    let log = parts.target.join("bed/up.log");
    std::fs::create_dir_all(parts.target.join("bed"))?;
    let out = std::fs::File::create(&log)?;
    let mut child = tokio::process::Command::new(std::env::current_exe()?)
        .arg(SUPERVISE)
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(out)
        .spawn()?;
    let began = Instant::now();
    let mut shown = 0;
    let mut interrupted = signal(SignalKind::interrupt())?;
    loop {
        shown = show_new(&log, shown);
        if let Some(State { ready: Some(ready), supervisor }) = read(&file)
            && is_alive(&supervisor)
        {
            print_env(&parts, &ready);
            return Ok(());
        }
        tokio::select! {
            status = child.wait() => {
                show_new(&log, shown);
                bail!("the cluster did not come up ({})", status?);
            }
            _ = interrupted.recv() => {
                terminate(&mut child).await?;
                bail!("interrupted");
            }
            () = tokio::time::sleep(Duration::from_millis(200)) => {}
        }
        if began.elapsed() > START_LIMIT {
            terminate(&mut child).await?;
            bail!("the cluster was not ready within {} s; see {}", START_LIMIT.as_secs(), log.display());
        }
    }
}

/// Ends what `up` left running; nothing running is fine too.
pub async fn down() -> Result<()> {
    let parts = Parts::find()?;
    let file = state_file(&parts);
    let Some(state) = read(&file) else {
        eprintln!("nothing is up");
        return Ok(());
    };
    let began = Instant::now();
    while alive(&state) {
        let pid = state.supervisor.split_whitespace().next().and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw);
        let pid = pid.context("the state file names no process")?;
        let late = began.elapsed() > STOP_LIMIT;
        // The supervisor takes its children with it even when it is killed.
        if late || began.elapsed() < Duration::from_millis(100) {
            kill_process(pid, if late { Signal::KILL } else { Signal::TERM })?;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    remove(&file)
}

/// The supervisor: holds the bed until it is told to end.
pub async fn supervise() -> Result<()> {
    // Away from the terminal: its hang-up and its Ctrl-C are not for us.
    rustix::process::setsid()?;
    let parts = Parts::find()?;
    let file = state_file(&parts);
    let supervisor = identity(std::process::id())?;
    write(&file, &State { supervisor: supervisor.clone(), ready: None })?;
    let (mut ended, mut interrupted) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut stop = async || tokio::select! { _ = ended.recv() => {}, _ = interrupted.recv() => {} };
    let bed = tokio::select! {
        bed = Bed::start(Options::new("up")) => bed,
        () = stop() => Err(anyhow!("ended before the cluster was up")),
    };
    let result = match bed {
        Ok(bed) => {
            let prepared = tokio::select! {
                prepared = prepare(&bed) => prepared,
                () = stop() => Err(anyhow!("ended before Fairlead was installed")),
            };
            let held = match prepared {
                Ok(ready) => write(&file, &State { supervisor, ready: Some(ready) }),
                Err(error) => Err(error),
            };
            if held.is_ok() {
                stop().await;
            }
            let stopped = bed.stop().await;
            held.and(stopped)
        }
        Err(error) => Err(error),
    };
    remove(&file)?;
    result
}

async fn prepare(bed: &Bed) -> Result<Ready> {
    bed.install_fairlead(&release::values(bed)).await?;
    let stage = Stage::without_scenery(bed)?;
    let redis = bed.redis.is_some().then(|| stage.redis_url());
    Ok(Ready { kubeconfig: bed.kubeconfig(), redis, examples: stage.examples() })
}

async fn terminate(child: &mut tokio::process::Child) -> Result<()> {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        kill_process(pid, Signal::TERM)?;
    }
    if tokio::time::timeout(STOP_LIMIT, child.wait()).await.is_err() {
        child.kill().await?;
    }
    Ok(())
}

fn alive(state: &State) -> bool {
    let pid = state.supervisor.split_whitespace().next().unwrap_or_default();
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    is_alive(&state.supervisor) && command.split(|byte| *byte == 0).any(|arg| arg == SUPERVISE.as_bytes())
}

fn read(file: &Path) -> Option<State> {
    serde_json::from_slice(&std::fs::read(file).ok()?).ok()
}

fn write(file: &Path, state: &State) -> Result<()> {
    let fresh = file.with_extension("fresh");
    std::fs::write(&fresh, serde_json::to_vec(state)?)?;
    Ok(std::fs::rename(fresh, file)?)
}

fn remove(file: &Path) -> Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

fn show_new(log: &Path, shown: usize) -> usize {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    eprint!("{}", text.get(shown..).unwrap_or_default());
    text.len()
}

#[allow(clippy::print_stdout, reason = "the answer that a shell evaluates")]
fn print_env(parts: &Parts, ready: &Ready) {
    // kubectl, and our plugin for it.
    println!("export PATH={}:{}:$PATH", parts.upstream.display(), parts.binaries.display());
    println!("export KUBECONFIG={}", ready.kubeconfig.display());
    if let Some(redis) = &ready.redis {
        println!("export REDIS_URL={redis}");
    }
    eprintln!("examples with the addresses of this cluster: kubectl apply -f {}", ready.examples.display());
}
