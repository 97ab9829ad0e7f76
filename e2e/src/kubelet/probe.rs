//! Startup, readiness and liveness probes of one container, with a kubelet's defaults.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{Container, Probe};

use super::rewrite::PortMap;
use super::status::Board;
use crate::http_probe::HttpProbe;

/// The probes of a container that is running.
pub(crate) struct Probes {
    startup: Option<Timed>,
    readiness: Option<Timed>,
    liveness: Option<Timed>,
}

struct Timed {
    check: Check,
    initial_delay: Duration,
    period: Duration,
    timeout: Duration,
    successes: i32,
    failures: i32,
}

enum Check {
    Http(HttpProbe),
    Tcp(u16),
}

impl Probes {
    pub(crate) fn of(container: &Container, ports: &PortMap) -> Result<Self> {
        let timed = |probe: &Option<Probe>| probe.as_ref().map(|probe| Timed::of(container, ports, probe)).transpose();
        Ok(Self {
            startup: timed(&container.startup_probe)?,
            readiness: timed(&container.readiness_probe)?,
            liveness: timed(&container.liveness_probe)?,
        })
    }

    /// Probes for as long as it is polled; returns why the container must be restarted.
    pub(crate) async fn run(&self, name: &str, board: &Board) -> &'static str {
        if let Some(startup) = &self.startup
            && !startup.until(true).await
        {
            return "startup probe failed";
        }
        board.container(name, |view| {
            view.started = true;
            view.ready = self.readiness.is_none();
        });
        tokio::select! {
            () = self.readiness(name, board) => "",
            () = self.liveness() => "liveness probe failed",
        }
    }

    async fn readiness(&self, name: &str, board: &Board) {
        let Some(probe) = &self.readiness else { return std::future::pending().await };
        tokio::time::sleep(probe.initial_delay).await;
        let (mut in_a_row, mut ready) = (0, false);
        loop {
            let good = probe.once().await;
            in_a_row = if good == ready { 0 } else { in_a_row + 1 };
            let needed = if ready { probe.failures } else { probe.successes };
            if in_a_row >= needed {
                (ready, in_a_row) = (good, 0);
                board.container(name, |view| view.ready = ready);
            }
            tokio::time::sleep(probe.period).await;
        }
    }

    async fn liveness(&self) {
        match &self.liveness {
            Some(probe) => {
                tokio::time::sleep(probe.initial_delay).await;
                probe.until(false).await;
            }
            None => std::future::pending().await,
        }
    }
}

impl Timed {
    fn of(container: &Container, ports: &PortMap, probe: &Probe) -> Result<Self> {
        let check = if let Some(get) = &probe.http_get {
            let port = ports.resolve(container, &get.port)?;
            let scheme = get.scheme.as_deref().unwrap_or("HTTP").to_lowercase();
            let headers =
                get.http_headers.iter().flatten().map(|header| (header.name.clone(), header.value.clone())).collect();
            Check::Http(HttpProbe::new(
                &format!("{scheme}://127.0.0.1:{port}"),
                get.path.as_deref().unwrap_or("/"),
                headers,
            )?)
        } else if let Some(socket) = &probe.tcp_socket {
            Check::Tcp(ports.resolve(container, &socket.port)?)
        } else {
            bail!("container {}: the harness knows httpGet and tcpSocket probes only", container.name)
        };
        let seconds = |value: Option<i32>, default: u64| {
            value.and_then(|value| u64::try_from(value).ok()).filter(|s| *s > 0).unwrap_or(default)
        };
        Ok(Self {
            check,
            initial_delay: Duration::from_secs(seconds(probe.initial_delay_seconds, 0)),
            period: Duration::from_secs(seconds(probe.period_seconds, 10)),
            timeout: Duration::from_secs(seconds(probe.timeout_seconds, 1)),
            successes: probe.success_threshold.unwrap_or(1).max(1),
            failures: probe.failure_threshold.unwrap_or(3).max(1),
        })
    }

    async fn once(&self) -> bool {
        let good = match &self.check {
            Check::Http(probe) => probe.check(self.timeout).await,
            Check::Tcp(port) => {
                let connect = tokio::net::TcpStream::connect(("127.0.0.1", *port));
                tokio::time::timeout(self.timeout, connect)
                    .await
                    .context("no answer in time")
                    .and_then(|result| Ok(result.map(drop)?))
            }
        };
        good.is_ok()
    }

    /// With `want`: true on the first success, false when failures reached their threshold. Without: returns on the latter only.
    async fn until(&self, want: bool) -> bool {
        let mut failures = 0;
        if want {
            tokio::time::sleep(self.initial_delay).await;
        }
        loop {
            if self.once().await {
                if want {
                    return true;
                }
                failures = 0;
            } else {
                failures += 1;
                if failures >= self.failures {
                    return false;
                }
            }
            tokio::time::sleep(self.period).await;
        }
    }
}
