//! etcd, kube-apiserver, kube-controller-manager and kube-scheduler, as an ordinary cluster runs them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use tokio::sync::Mutex;

use crate::http_probe::HttpProbe;
use crate::parts::Parts;
use crate::pki::{self, User};
use crate::ports;
use crate::processes::{Command, Process};

const READY_LIMIT: Duration = Duration::from_secs(90);
const GRACE: Duration = Duration::from_secs(4);

/// The running control plane. The API server can be stopped and started again, for fault tests.
pub struct ControlPlane {
    parts: Parts,
    dir: PathBuf,
    port: u16,
    etcd_url: String,
    etcd: Process,
    api_server: Mutex<Option<Process>>,
    others: Vec<Process>,
}

impl ControlPlane {
    /// Starts everything and returns when the API server and both controllers are ready.
    /// `nodes` get identities of their own (`system:node:NAME`), see [`Self::node_kubeconfig`].
    pub async fn start(parts: &Parts, dir: &Path, nodes: &[String]) -> Result<Self> {
        for folder in ["pki", "etcd", "kubeconfig", "logs", "home"] {
            std::fs::create_dir_all(dir.join(folder))?;
        }
        let users = users(nodes);
        pki::write_certificates(&dir.join("pki"))?;
        pki::write_tokens(&dir.join("pki"), &users)?;
        let (etcd, etcd_url) = start_etcd(parts, dir).await?;
        let mut plane = Self {
            parts: parts.clone(),
            dir: dir.to_owned(),
            port: ports::free()?,
            etcd_url,
            etcd,
            api_server: Mutex::new(None),
            others: Vec::new(),
        };
        plane.start_api_server().await?;
        plane.write_kubeconfigs(&users)?;
        let manager = plane.start_controller_manager().await?;
        plane.others.push(manager);
        let scheduler = plane.start_scheduler().await?;
        plane.others.push(scheduler);
        Ok(plane)
    }

    /// `https://127.0.0.1:PORT`
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// The port of [`Self::url`].
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The certificate authority of the API server, PEM.
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        self.dir.join("pki/ca.crt")
    }

    /// Kubeconfig of an administrator (`system:masters`).
    #[must_use]
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.kubeconfig("admin")
    }

    /// Kubeconfig with the true identity of a node.
    #[must_use]
    pub fn node_kubeconfig(&self, node: &str) -> PathBuf {
        self.kubeconfig(&format!("node-{node}"))
    }

    /// Kubeconfig of the simulated kubelets.
    #[must_use]
    pub fn kwok_kubeconfig(&self) -> PathBuf {
        self.kubeconfig("kwok")
    }

    /// A client with the identity of a kubeconfig and no hidden retries.
    pub async fn client(&self, kubeconfig: &Path) -> Result<kube::Client> {
        client_of(kubeconfig).await
    }

    /// Starts the API server (again); it keeps its port, certificates and data.
    pub async fn start_api_server(&self) -> Result<()> {
        let mut slot = self.api_server.lock().await;
        if slot.as_ref().is_some_and(Process::running) {
            return Ok(());
        }
        let process = self.spawn("kube-apiserver", self.api_server_args()).await?;
        let probe = HttpProbe::new(&self.url(), "/readyz", self.admin_header()?)?;
        process.wait_ready(READY_LIMIT, || async { probe.check(Duration::from_secs(2)).await.is_ok() }).await?;
        *slot = Some(process);
        Ok(())
    }

    /// Stops the API server as a machine that goes away would: SIGKILL.
    pub async fn kill_api_server(&self) {
        if let Some(process) = self.api_server.lock().await.take() {
            process.kill().await;
        }
    }

    /// Processes with their names and ids, for measuring.
    pub async fn processes(&self) -> Vec<(String, i32)> {
        let api_server = self.api_server.lock().await;
        let all = std::iter::once(&self.etcd).chain(api_server.iter()).chain(&self.others);
        all.filter(|process| process.running()).map(|process| (process.name().to_owned(), process.pid())).collect()
    }

    /// Stops everything, the API server before etcd: without its store it would hang.
    pub async fn stop(&self) {
        for process in &self.others {
            process.stop(GRACE).await;
        }
        if let Some(process) = self.api_server.lock().await.take() {
            process.stop(GRACE).await;
        }
        self.etcd.stop(GRACE).await;
    }

    fn admin_header(&self) -> Result<Vec<(String, String)>> {
        let token = pki::read_token(&self.dir.join("pki"), "admin")?;
        Ok(vec![("Authorization".to_owned(), format!("Bearer {token}"))])
    }

    async fn spawn(&self, name: &str, args: Vec<String>) -> Result<Process> {
        spawn_upstream(&self.parts, &self.dir, name, args).await
    }

    fn api_server_args(&self) -> Vec<String> {
        let pki = self.dir.join("pki");
        let pki = pki.display();
        vec![
            format!("--etcd-servers={}", self.etcd_url),
            "--bind-address=127.0.0.1".to_owned(),
            // A loopback address may not be advertised; nobody uses this one.
            "--advertise-address=10.231.1.2".to_owned(),
            format!("--secure-port={}", self.port),
            format!("--cert-dir={pki}"),
            format!("--tls-cert-file={pki}/server.crt"),
            format!("--tls-private-key-file={pki}/server.key"),
            // Nobody presents a client certificate; but with an authority kube-system has the ConfigMap that components read.
            format!("--client-ca-file={pki}/ca.crt"),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={pki}/sa.pub"),
            format!("--service-account-signing-key-file={pki}/sa.key"),
            "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
            "--authorization-mode=Node,RBAC".to_owned(),
            format!("--token-auth-file={pki}/tokens.csv"),
            "--allow-privileged=true".to_owned(),
            "--enable-admission-plugins=NodeRestriction".to_owned(),
            "--profiling=false".to_owned(),
        ]
    }

    async fn start_controller_manager(&self) -> Result<Process> {
        let port = ports::free()?;
        let pki = self.dir.join("pki");
        let args = vec![
            format!("--kubeconfig={}", self.kubeconfig("kube-controller-manager").display()),
            format!("--service-account-private-key-file={}/sa.key", pki.display()),
            format!("--root-ca-file={}", self.ca_file().display()),
            "--use-service-account-credentials=true".to_owned(),
            "--leader-elect=false".to_owned(),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={port}"),
            // The default of 20 requests a second would be what a surge measures.
            "--kube-api-qps=300".to_owned(),
            "--kube-api-burst=600".to_owned(),
            "--concurrent-deployment-syncs=10".to_owned(),
            "--concurrent-replicaset-syncs=10".to_owned(),
        ];
        let process = self.spawn("kube-controller-manager", args).await?;
        ready_at(&process, port, "/healthz").await?;
        Ok(process)
    }

    async fn start_scheduler(&self) -> Result<Process> {
        let port = ports::free()?;
        let config = self.dir.join("kube-scheduler.json");
        let text = json!({
            "apiVersion": "kubescheduler.config.k8s.io/v1",
            "kind": "KubeSchedulerConfiguration",
            "leaderElection": { "leaderElect": false },
            "clientConnection": { "kubeconfig": self.kubeconfig("kube-scheduler"), "qps": 300, "burst": 600 },
        });
        std::fs::write(&config, text.to_string())?;
        let args = vec![
            format!("--config={}", config.display()),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={port}"),
        ];
        let process = self.spawn("kube-scheduler", args).await?;
        ready_at(&process, port, "/healthz").await?;
        Ok(process)
    }

    fn kubeconfig(&self, name: &str) -> PathBuf {
        self.dir.join("kubeconfig").join(name)
    }

    fn write_kubeconfigs(&self, users: &[User]) -> Result<()> {
        for user in users {
            let token = json!({ "token": pki::read_token(&self.dir.join("pki"), &user.file)? });
            let text = kubeconfig_json(&self.url(), &self.ca_file(), "default", &token);
            std::fs::write(self.kubeconfig(&user.file), text)?;
        }
        Ok(())
    }
}

/// A kubeconfig as JSON (which is YAML); `user` is the `user` object: a token or a token file.
#[must_use]
pub fn kubeconfig_json(server: &str, ca_file: &Path, namespace: &str, user: &serde_json::Value) -> String {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "bed",
        "clusters": [{ "name": "bed", "cluster": { "server": server, "certificate-authority": ca_file } }],
        "contexts": [{ "name": "bed", "context": { "cluster": "bed", "user": "bed", "namespace": namespace } }],
        "users": [{ "name": "bed", "user": user }],
    })
    .to_string()
}

/// A client for a kubeconfig file, with no hidden retries.
pub async fn client_of(kubeconfig: &Path) -> Result<kube::Client> {
    let file = kube::config::Kubeconfig::read_from(kubeconfig)?;
    let mut config = kube::Config::from_custom_kubeconfig(file, &kube::config::KubeConfigOptions::default()).await?;
    config.default_retry = false;
    Ok(kube::Client::try_from(config)?)
}

/// Starts a genuine part with its log in the bed's folder and nothing of our environment.
pub(crate) async fn spawn_upstream(parts: &Parts, dir: &Path, name: &str, args: Vec<String>) -> Result<Process> {
    let command = Command {
        name: name.to_owned(),
        program: parts.upstream(name)?,
        args,
        env: base_env(&dir.join("home")),
        dir: dir.to_owned(),
        log: dir.join("logs").join(format!("{name}.log")),
    };
    Process::start(&command).await
}

/// The least environment: programs are found, and nothing is written into the user's home.
pub(crate) fn base_env(home: &Path) -> Vec<(String, String)> {
    vec![
        ("PATH".to_owned(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
        ("HOME".to_owned(), home.display().to_string()),
    ]
}

async fn ready_at(process: &Process, port: u16, path: &str) -> Result<()> {
    let probe = HttpProbe::new(&format!("https://127.0.0.1:{port}"), path, Vec::new())?;
    process.wait_ready(READY_LIMIT, || async { probe.check(Duration::from_secs(2)).await.is_ok() }).await
}

async fn start_etcd(parts: &Parts, dir: &Path) -> Result<(Process, String)> {
    let client = format!("http://127.0.0.1:{}", ports::free()?);
    let peer = format!("http://127.0.0.1:{}", ports::free()?);
    let args = vec![
        "--name=bed".to_owned(),
        format!("--data-dir={}", dir.join("etcd").display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=bed={peer}"),
        // A bed is thrown away: no reason to wait for a disk.
        "--unsafe-no-fsync".to_owned(),
        "--log-level=warn".to_owned(),
    ];
    std::fs::set_permissions(dir.join("etcd"), std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    let process = spawn_upstream(parts, dir, "etcd", args).await?;
    let probe = HttpProbe::new(&client, "/health", Vec::new())?;
    process.wait_ready(READY_LIMIT, || async { probe.check(Duration::from_secs(1)).await.is_ok() }).await?;
    Ok((process, client))
}

fn users(nodes: &[String]) -> Vec<User> {
    let user = |file: &str, name: &str, group: &str| User {
        file: file.to_owned(),
        name: name.to_owned(),
        group: group.to_owned(),
    };
    let mut all = vec![
        user("admin", "admin", "system:masters"),
        user("kwok", "kwok", "system:masters"),
        user("kube-controller-manager", "system:kube-controller-manager", ""),
        user("kube-scheduler", "system:kube-scheduler", ""),
    ];
    all.extend(nodes.iter().map(|node| user(&format!("node-{node}"), &format!("system:node:{node}"), "system:nodes")));
    all
}
