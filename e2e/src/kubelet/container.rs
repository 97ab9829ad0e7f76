//! One container: its process, its probes, its restarts.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use tokio::sync::watch;
use tokio::time::Instant;

use super::environment::{Downward, environment, expand};
use super::probe::Probes;
use super::rewrite::{LOOPBACK, PortMap, relative, scheduler_config, scheduler_flags};
use super::status::{Addresses, Board, Ended, State};
use super::volumes::{Mounts, Volumes};
use super::{Running, Shared, images};
use crate::control_plane::base_env;
use crate::processes::{Command, Exit, Process};

const NRI_SOCKET: &str = "--nri-socket=";
const PREPARE_RETRY: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
const GOOD_RUN: Duration = Duration::from_secs(30);

/// What the containers of a pod share.
pub(crate) struct PodContext {
    pub(crate) shared: Arc<Shared>,
    pub(crate) pod: Pod,
    pub(crate) dir: PathBuf,
    pub(crate) ports: PortMap,
    pub(crate) board: Board,
    pub(crate) addresses: Addresses,
}

/// When a container is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Restart {
    Always,
    OnFailure,
    Never,
}

/// Set once the container has to stop: the moment when patience ends.
pub(crate) type Stop = watch::Receiver<Option<Instant>>;

/// What the process of one run needs.
struct Prepared {
    command: Command,
    mounts: Mounts,
    probes: Probes,
}

/// Runs a container until it is over for good or asked to stop; `None` when it never ran.
pub(crate) async fn run(
    context: Arc<PodContext>,
    container: Container,
    restart: Restart,
    mut stop: Stop,
) -> Option<Exit> {
    let mut pause = Duration::ZERO;
    let mut last = None;
    loop {
        if stop.borrow().is_some() {
            return last;
        }
        let began = Instant::now();
        let rest = match context.prepare(&container).await {
            Ok(prepared) => match context.run_once(&container, prepared, &mut stop).await {
                Ok(exit) => {
                    last = Some(exit);
                    let again = match restart {
                        Restart::Always => true,
                        Restart::OnFailure => !exit.success(),
                        Restart::Never => false,
                    };
                    if !again || stop.borrow().is_some() {
                        return last;
                    }
                    let rest = if began.elapsed() > GOOD_RUN { Duration::ZERO } else { pause };
                    pause = (rest * 2).clamp(Duration::from_secs(1), LONGEST_PAUSE);
                    context.restarting(&container, exit, rest);
                    rest
                }
                Err(error) => context.waiting(&container, "RunContainerError", &error),
            },
            Err(error) => context.waiting(&container, "CreateContainerConfigError", &error),
        };
        tokio::select! {
            () = tokio::time::sleep(rest) => {}
            _ = stop.wait_for(Option::is_some) => {}
        }
    }
}

impl PodContext {
    fn waiting(&self, container: &Container, reason: &'static str, error: &anyhow::Error) -> Duration {
        let message = format!("{error:#}");
        tracing::debug!(pod = %self.pod.name_any(), container = %container.name, message, reason);
        self.board.container(&container.name, |view| view.state = State::Waiting { reason, message });
        PREPARE_RETRY
    }

    fn restarting(&self, container: &Container, exit: Exit, rest: Duration) {
        let pod = self.pod.name_any();
        tracing::info!(%pod, container = %container.name, %exit, "container ended, starting again in {} s", rest.as_secs());
        self.board.container(&container.name, |view| {
            view.restarts += 1;
            if let State::Terminated(ended) = &view.state {
                view.last = Some(ended.clone());
            }
            let message = format!("back-off {} s after {exit}", rest.as_secs());
            view.state = State::Waiting { reason: "CrashLoopBackOff", message };
        });
    }

    async fn prepare(&self, container: &Container) -> Result<Prepared> {
        let downward = Downward { pod: &self.pod, pod_ip: LOOPBACK, host_ip: &self.addresses.host_ip };
        let mounts = self.volumes(&downward).mount(container, &self.ports).await?;
        let plain = environment(&self.shared.client, &downward, container).await?;
        let said = container.command.iter().flatten().chain(container.args.iter().flatten());
        let mut args: Vec<String> = said.map(|arg| mounts.rewrite.text(&expand(arg, &plain))).collect();
        let named = container.command.iter().flatten().next().map(String::as_str);
        if named.is_some() {
            args.remove(0);
        }
        let image = container.image.as_deref().unwrap_or_default();
        let program = images::program(&self.shared.parts, image, named)?;
        if program.ends_with("kube-scheduler")
            && let Some(kubeconfig) = &mounts.kubeconfig
        {
            for file in args.iter().filter_map(|arg| arg.strip_prefix("--config=")) {
                let text = scheduler_config(&std::fs::read_to_string(file)?, kubeconfig)?;
                std::fs::write(file, text)?;
            }
            scheduler_flags(&mut args, kubeconfig);
        }
        self.runtime(&mut args).await?;
        let mut env = base_env(&self.dir);
        env.push(("HOSTNAME".to_owned(), self.pod.name_any()));
        env.extend(mounts.kubeconfig.iter().map(|path| ("KUBECONFIG".to_owned(), path.display().to_string())));
        env.extend(plain.into_iter().map(|(name, value)| (name, mounts.rewrite.text(&value))));
        let name = format!("{}_{}", self.pod.name_any(), container.name);
        let log = self.shared.dir.join("logs").join(format!("{name}.log"));
        let command = Command { name, program, args, env, dir: self.dir.clone(), log };
        Ok(Prepared { command, mounts, probes: Probes::of(container, &self.ports)? })
    }

    /// Whoever is told of an NRI socket finds a runtime behind it.
    async fn runtime(&self, args: &mut [String]) -> Result<()> {
        for arg in args {
            let Some(socket) = arg.strip_prefix(NRI_SOCKET).map(PathBuf::from) else { continue };
            let Shared { runtimes, parts, dir, .. } = &*self.shared;
            runtimes.ready(parts, dir, self.node(), &socket).await?;
            *arg = format!("{NRI_SOCKET}{}", relative(&socket, &self.dir).display());
        }
        Ok(())
    }

    fn volumes<'a>(&'a self, downward: &'a Downward<'a>) -> Volumes<'a> {
        Volumes {
            client: &self.shared.client,
            pod: &self.pod,
            dir: &self.dir,
            bed_dir: &self.shared.dir,
            node: self.node(),
            downward,
            api_url: &self.shared.api_url,
        }
    }

    fn node(&self) -> &str {
        self.pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
    }

    async fn run_once(&self, container: &Container, prepared: Prepared, stop: &mut Stop) -> Result<Exit> {
        let started = Timestamp::now();
        let process = Arc::new(Process::start(&prepared.command).await?);
        let program =
            prepared.command.program.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let _listed = self.shared.list(Running {
            pod: self.pod.name_any(),
            container: container.name.clone(),
            node: self.node().to_owned(),
            program,
            pid: process.pid(),
            process: process.clone(),
        });
        self.board.container(&container.name, |view| view.state = State::Running { since: started });
        let exit = tokio::select! {
            exit = process.exited() => exit,
            why = prepared.probes.run(&container.name, &self.board) => {
                tracing::info!(pod = %self.pod.name_any(), container = %container.name, why, "stopping a container");
                process.stop(self.grace()).await
            }
            () = self.renew_tokens(&prepared.mounts) => process.kill().await,
            deadline = stopped(stop) => {
                self.before_stop(container, deadline).await;
                process.stop(deadline.saturating_duration_since(Instant::now())).await
            }
        };
        let ended = Ended { exit, started, finished: Timestamp::now() };
        self.board.container(&container.name, |view| {
            view.state = State::Terminated(ended);
            (view.started, view.ready) = (false, false);
        });
        Ok(exit)
    }

    async fn before_stop(&self, container: &Container, deadline: Instant) {
        let hook = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref());
        if let Some(sleep) = hook.and_then(|hook| hook.sleep.as_ref()) {
            let pause = Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0));
            tokio::time::sleep_until((Instant::now() + pause).min(deadline)).await;
        }
    }

    /// Never returns: a token that could not be renewed is tried again.
    async fn renew_tokens(&self, mounts: &Mounts) {
        // A token lives an hour by default and never less than ten minutes.
        const PERIOD: Duration = Duration::from_secs(8 * 60);
        let downward = Downward { pod: &self.pod, pod_ip: LOOPBACK, host_ip: &self.addresses.host_ip };
        let volumes = self.volumes(&downward);
        loop {
            tokio::time::sleep(PERIOD).await;
            for token in &mounts.tokens {
                while let Err(error) = volumes.write_token(token).await {
                    tracing::debug!(pod = %self.pod.name_any(), %error, "token not renewed, trying again");
                    tokio::time::sleep(PREPARE_RETRY).await;
                }
            }
        }
    }

    /// The pod's own grace period.
    pub(crate) fn grace(&self) -> Duration {
        let seconds = self.pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(30);
        Duration::from_secs(u64::try_from(seconds).unwrap_or(30))
    }
}

async fn stopped(stop: &mut Stop) -> Instant {
    match stop.wait_for(Option::is_some).await {
        Ok(deadline) => deadline.unwrap_or_else(Instant::now),
        // The pod's task is gone, and this future with it.
        Err(_) => Instant::now(),
    }
}
