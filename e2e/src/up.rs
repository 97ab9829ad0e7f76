//! `up` and `down`: a bed that stays, held by a supervisor process of its own.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};

use crate::bed::{Bed, Options, identity, is_alive};
use crate::parts::Parts;
use crate::release;

const START_LIMIT: Duration = Duration::from_secs(420);
const STOP_LIMIT: Duration = Duration::from_secs(60);
const SUPERVISE: &str = "supervise";

/// What the supervisor leaves for `up` and `down`.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    /// See [`identity`].
    supervisor: String,
    kubeconfig: Option<PathBuf>,
    redis: Option<String>,
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
        let kubeconfig = state.kubeconfig.context("a cluster is being started; `down` ends it")?;
        print_env(&parts, &kubeconfig, state.redis.as_deref());
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
        if let Some(State { kubeconfig: Some(kubeconfig), redis, supervisor }) = read(&file)
            && is_alive(&supervisor)
        {
            print_env(&parts, &kubeconfig, redis.as_deref());
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
    write(&file, &State { supervisor: supervisor.clone(), kubeconfig: None, redis: None })?;
    let (mut ended, mut interrupted) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let hold = async {
        let bed = Bed::start(Options::new("up")).await?;
        if let Err(error) = bed.install_fairlead(&release::values(&bed)).await {
            bed.stop().await?;
            return Err(error);
        }
        let redis = bed.redis.as_ref().map(|redis| format!("redis://:{}@{}/", redis.password(), redis.address()));
        write(&file, &State { supervisor, kubeconfig: Some(bed.kubeconfig()), redis })?;
        Ok(bed)
    };
    tokio::pin!(hold);
    let result = tokio::select! {
        bed = &mut hold => match bed {
            Ok(bed) => {
                tokio::select! { _ = ended.recv() => {}, _ = interrupted.recv() => {} }
                bed.stop().await
            }
            Err(error) => Err(error),
        },
        _ = ended.recv() => Ok(()),
    };
    remove(&file)?;
    result
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
fn print_env(parts: &Parts, kubeconfig: &Path, redis: Option<&str>) {
    // kubectl, and our plugin for it.
    println!("export PATH={}:{}:$PATH", parts.upstream.display(), parts.binaries.display());
    println!("export KUBECONFIG={}", kubeconfig.display());
    if let Some(redis) = redis {
        println!("export REDIS_URL={redis}");
    }
}
