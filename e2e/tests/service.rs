//! Service mode on the genuine control plane: a stock kube-scheduler of one's own calls the extender over mutual TLS, with
//! the configuration that `kubectl fairlead scheduler-config` prints; certificates are replaced under load; and what two
//! schedulers on one pool of nodes do to each other.
#![cfg(feature = "control-plane")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "tests")]

use anyhow::{Context as _, Result};
use fairlead_e2e::RELEASE_NAMESPACE;
use fairlead_e2e::bed::{Bed, Options};
use fairlead_e2e::eventually::{Seen, eventually, seen};
use fairlead_e2e::ports;
use fairlead_e2e::processes::{Command, Process};
use fairlead_e2e::release;
use k8s_openapi::api::core::v1::Secret;
use kube::api::Api;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustix::process::{Pid, Signal, kill_process};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(60);
const CLIENT: &str = "kube-scheduler.fairlead.dev";
const SERVER: &str = "fairlead-extender.fairlead-system.svc";
/// Pods that are placed while certificates change.
const LOAD: usize = 60;
const LOAD_PACE: Duration = Duration::from_millis(500);
const ROTATIONS: u32 = 3;
/// How often two schedulers are set on one node at once.
const RACES: usize = 3;
/// Where they meet: 30 CPUs for pods.
const NODE: &str = "single-3";

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

struct Leaf {
    cert: String,
    key: String,
}

impl Authority {
    /// Somebody's.
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let pem = Self::params().self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(Self::params(), key) }
    }

    /// The one that the operator made: with its key we can be anybody.
    async fn of_cluster(bed: &Bed) -> Result<Self> {
        let data = secret(bed, "fairlead-extender-ca").await?;
        let key = KeyPair::from_pem(data.get("ca.key").context("no ca.key")?)?;
        let pem = data.get("ca.crt").context("no ca.crt")?.clone();
        Ok(Self { pem, issuer: Issuer::new(Self::params(), key) })
    }

    fn params() -> CertificateParams {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Fairlead extender");
        params
    }

    fn leaf(&self, name: &str, purpose: ExtendedKeyUsagePurpose) -> Leaf {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![purpose];
        let key = KeyPair::generate().unwrap();
        Leaf { cert: params.signed_by(&key, &self.issuer).unwrap().pem(), key: key.serialize_pem() }
    }

    fn client(&self, name: &str) -> Leaf {
        self.leaf(name, ExtendedKeyUsagePurpose::ClientAuth)
    }
}

/// A Secret's texts.
async fn secret(bed: &Bed, name: &str) -> Result<BTreeMap<String, String>> {
    let api: Api<Secret> = Api::namespaced(bed.client.clone(), RELEASE_NAMESPACE);
    let data = api.get(name).await?.data.unwrap_or_default();
    data.into_iter().map(|(key, bytes)| Ok((key, String::from_utf8(bytes.0)?))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scheduler_of_ones_own() {
    fairlead_e2e::init_logs();
    let bed = Bed::start(Options { redis_password: None, ..Options::new("service") }).await.unwrap();
    if let Err(error) = all(&bed).await {
        panic!("{error:#}\n{}", bed.release_logs());
    }
    bed.stop().await.unwrap();
}

async fn all(bed: &Bed) -> Result<()> {
    let mut values = release::values(bed);
    values["extender"] = json!({ "mode": "Service" });
    bed.install_fairlead(&values).await?;
    let authority = Authority::of_cluster(bed).await?;
    let deployments = bed.kubectl.run(&["-n", RELEASE_NAMESPACE, "get", "deployments", "-o", "name"], LIMIT).await?;
    assert!(deployments.contains("fairlead-extender") && !deployments.contains("fairlead-scheduler"), "{deployments}");

    let port = bed.kubelet.host_port(&binding_extender(bed).await?, 9801).context("the extender's port")?;
    who_may_come(&authority, port);
    let scheduler = start_scheduler(bed, port).await?;
    certificates_change_under_load(bed, &authority, port).await?;
    two_schedulers_race(bed, &scheduler).await?;
    a_stranger_overcommits(bed).await?;
    scheduler.stop(Duration::from_secs(4)).await;
    Ok(())
}

/// The pod of the replica that binds: what a Service would lead to in the end, this scheduler is given at once.
async fn binding_extender(bed: &Bed) -> Result<String> {
    let get =
        ["-n", RELEASE_NAMESPACE, "get", "lease", "fairlead-extender-reaper", "-o", "jsonpath={.spec.holderIdentity}"];
    eventually("one replica holds the Lease", LIMIT, async || {
        let holder = bed.kubectl.run(&get, LIMIT).await.unwrap_or_default();
        let running = bed.kubelet.running().into_iter().filter(|running| running.program == "fairlead-extender");
        let pod = running.map(|running| running.pod).find(|pod| holder.starts_with(&format!("{pod}_")));
        Ok(pod.map_or_else(|| Seen::NotYet(holder), Seen::Yes))
    })
    .await
}

/// The status line of an empty request and the server's certificate, or why there is none.
fn ask(authority: &Authority, identity: Option<&Leaf>, port: u16) -> Result<(String, Vec<u8>)> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes())?)?;
    let builder = rustls::ClientConfig::builder().with_root_certificates(roots);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some(leaf) => builder.with_client_auth_cert(
            vec![CertificateDer::from_pem_slice(leaf.cert.as_bytes())?],
            PrivateKeyDer::from_pem_slice(leaf.key.as_bytes())?,
        )?,
    };
    let stream = std::net::TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let connection = rustls::ClientConnection::new(Arc::new(config), ServerName::try_from(SERVER)?)?;
    let mut stream = rustls::StreamOwned::new(connection, stream);
    stream.write_all(b"POST /filter HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let shown = stream.conn.peer_certificates().and_then(<[_]>::first).context("no certificate")?.to_vec();
    Ok((answer.lines().next().unwrap_or_default().to_owned(), shown))
}

fn who_may_come(authority: &Authority, port: u16) {
    let (status, _) = ask(authority, Some(&authority.client(CLIENT)), port).unwrap();
    assert_eq!(status, "HTTP/1.1 200 OK");
    let stranger = Authority::new().client(CLIENT);
    let refused = [
        ("nobody", None),
        ("another name", Some(authority.client("kubelet.fairlead.dev"))),
        ("another authority", Some(stranger)),
        ("a server", Some(authority.leaf(CLIENT, ExtendedKeyUsagePurpose::ServerAuth))),
    ];
    for (who, identity) in refused {
        let error = ask(authority, identity.as_ref(), port).map(|(status, _)| status).unwrap_err();
        eprintln!("refused {who}: {error:#}");
    }
}

/// Stock kube-scheduler with the printed configuration, which the check finds good; it complains of a bad one.
async fn start_scheduler(bed: &Bed, port: u16) -> Result<Process> {
    let folder = bed.dir.join("scheduler-tls");
    std::fs::create_dir_all(&folder)?;
    for (name, text) in secret(bed, "fairlead-extender-client").await? {
        std::fs::write(folder.join(name), text)?;
    }
    let (url, tls) = (format!("https://127.0.0.1:{port}"), folder.display().to_string());
    let print = ["fairlead", "scheduler-config", "--url-prefix", &url, "--tls-folder", &tls];
    let printed = bed.kubectl.run(&print, LIMIT).await?;
    let file = bed.dir.join("own-scheduler.yaml");
    let kubeconfig = bed.dir.join("kubeconfig/kube-scheduler");
    let own = format!(
        "{printed}\nleaderElection: {{ leaderElect: false }}\nclientConnection: {{ kubeconfig: {} }}\n",
        kubeconfig.display()
    );
    std::fs::write(&file, &own)?;
    let name = file.display().to_string();
    let check = ["fairlead", "scheduler-config", "--url-prefix", &url, "--check", &name];
    bed.kubectl.run(&check, LIMIT).await?;
    let bad = bed.dir.join("bad-scheduler.yaml");
    std::fs::write(&bad, own.lines().filter(|line| !line.contains("caFile")).collect::<Vec<_>>().join("\n"))?;
    let bad = bad.display().to_string();
    let check = ["fairlead", "scheduler-config", "--url-prefix", &url, "--check", &bad];
    let told = bed.kubectl.output(&check, None, LIMIT).await?;
    assert!(!told.success && told.stdout.contains("extenders[0].tlsConfig.caFile"), "{told:?}");

    let command = Command {
        name: "own kube-scheduler".to_owned(),
        program: bed.parts.upstream("kube-scheduler")?,
        args: vec![
            format!("--config={name}"),
            format!("--authentication-kubeconfig={}", kubeconfig.display()),
            format!("--authorization-kubeconfig={}", kubeconfig.display()),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={}", ports::free()?),
        ],
        env: vec![("HOME".to_owned(), bed.dir.join("home").display().to_string())],
        dir: bed.dir.clone(),
        log: bed.dir.join("logs/own-kube-scheduler.log"),
    };
    Process::start(&command).await
}

fn pod(name: &str, scheduler: &str, cpu: &str, node: Option<&str>) -> Value {
    let amounts = json!({ "cpu": cpu, "memory": "64Mi" });
    let selector = node.map(|node| json!({ "kubernetes.io/hostname": node }));
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": "default" },
        "spec": { "schedulerName": scheduler, "nodeSelector": selector, "terminationGracePeriodSeconds": 1, "containers": [{
            "name": "c", "image": "example.com/c:1", "resources": { "requests": amounts, "limits": amounts } }] } })
}

async fn apply(bed: &Bed, objects: &[Value]) -> Result<()> {
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
    bed.kubectl.run_with(&["create", "-f", "-"], Some(&list.to_string()), LIMIT).await?;
    Ok(())
}

async fn pods(bed: &Bed) -> Result<Vec<Value>> {
    let out: Value = serde_json::from_str(&bed.kubectl.run(&["get", "pods", "-o", "json"], LIMIT).await?)?;
    Ok(out["items"].as_array().cloned().unwrap_or_default())
}

/// The folders where the extenders find their material.
fn material(bed: &Bed) -> Result<Vec<PathBuf>> {
    fn search(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                search(&path, found)?;
            } else if path.ends_with("tls/tls.crt") {
                found.extend(path.parent().map(Path::to_owned));
            }
        }
        Ok(())
    }
    let mut found = Vec::new();
    search(&bed.dir, &mut found)?;
    Ok(found)
}

/// The operator issues another certificate once the time to renew it is gone from the Secret.
async fn renew(bed: &Bed) -> Result<BTreeMap<String, String>> {
    const NAME: &str = "fairlead-extender-tls";
    let before = secret(bed, NAME).await?;
    let forget = ["-n", RELEASE_NAMESPACE, "annotate", "secret", NAME, "fairlead.dev/renew-after-"];
    bed.kubectl.run(&forget, LIMIT).await?;
    eventually("the operator renews the certificate", LIMIT, async || {
        let now = secret(bed, NAME).await?;
        Ok(if now == before { Seen::NotYet("the former one".to_owned()) } else { Seen::Yes(now) })
    })
    .await
}

async fn certificates_change_under_load(bed: &Bed, authority: &Authority, port: u16) -> Result<()> {
    let folders = material(bed)?;
    assert_eq!(folders.len(), 2, "{folders:?}");
    let us = authority.client(CLIENT);
    let began = Instant::now();
    let feeding = async {
        let mut pace = tokio::time::interval(LOAD_PACE);
        for index in 0..LOAD {
            pace.tick().await;
            apply(bed, &[pod(&format!("load-{index}"), "fairlead-scheduler", "2", None)]).await?;
        }
        anyhow::Ok(())
    };
    let replacing = async {
        for _ in 0..ROTATIONS {
            let (_, before) = ask(authority, Some(&us), port)?;
            let renewed = renew(bed).await?;
            // What a kubelet does with a volume of a Secret that changed; the harness fills volumes once.
            for folder in &folders {
                for (name, text) in &renewed {
                    std::fs::write(folder.join("fresh"), text)?;
                    std::fs::rename(folder.join("fresh"), folder.join(name))?;
                }
            }
            let replaced = Instant::now();
            eventually("the new certificate is shown", Duration::from_secs(10), async || {
                Ok(seen(ask(authority, Some(&us), port)?.1 != before, "the former one"))
            })
            .await?;
            eprintln!("rotation: shown after {:.1} s", replaced.elapsed().as_secs_f32());
        }
        anyhow::Ok(())
    };
    let (fed, replaced) = tokio::join!(feeding, replacing);
    fed?;
    replaced?;
    eventually("all pods have cores of their own", LIMIT, async || {
        let pods = pods(bed).await?;
        let placed =
            pods.iter().filter(|pod| pod["metadata"]["annotations"]["fairlead.dev/placement"].is_string()).count();
        Ok(seen(placed == LOAD, format!("{placed} of {LOAD}")))
    })
    .await?;
    let failed =
        bed.kubectl.run(&["get", "events", "-o", "json", "--field-selector=reason=FailedScheduling"], LIMIT).await?;
    let failed: Value = serde_json::from_str(&failed)?;
    assert_eq!(failed["items"], json!([]), "no try failed while certificates changed");
    eprintln!("rotation: {LOAD} pods placed in {:.1} s, none tried twice", began.elapsed().as_secs_f32());
    Ok(())
}

/// Both are stopped, each is given a pod that fills two thirds of the node, both go on. Who wins is theirs; whether the node
/// is overcommitted is chance (on idle cores the stock scheduler is first and our bind sees its pod), so that is only told.
async fn two_schedulers_race(bed: &Bed, own: &Process) -> Result<()> {
    clear(bed).await?;
    let processes = bed.plane.processes().await;
    let stock = processes.iter().find(|(name, _)| name == "kube-scheduler").context("no kube-scheduler")?.1;
    let both = |signal: Signal| {
        for pid in [stock, own.pid()] {
            kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
        }
    };
    let mut doubled = 0;
    for race in 0..RACES {
        both(Signal::STOP);
        let both_pods = [("default-scheduler", "default"), ("fairlead-scheduler", "fairlead")]
            .map(|(scheduler, name)| pod(&format!("{name}-{race}"), scheduler, "20", Some(NODE)));
        let made = apply(bed, &both_pods).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        both(Signal::CONT);
        made?;
        let bound = eventually("each pod is bound or refused, one at least bound", LIMIT, async || {
            let pods = pods(bed).await?;
            let bound = pods.iter().filter(|pod| pod["spec"]["nodeName"] == NODE).count();
            let refused = pods.iter().filter(|pod| is_refused(pod)).count();
            let ended = pods.len() == 2 && bound > 0 && bound + refused == 2;
            Ok(if ended { Seen::Yes(bound) } else { Seen::NotYet(format!("{bound}, {refused}")) })
        })
        .await?;
        doubled += usize::from(bound == 2);
        clear(bed).await?;
    }
    eprintln!("two schedulers: {doubled} of {RACES} races put 40 CPUs of requests on a node of 30");
    Ok(())
}

/// What a scheduler does that has not yet heard of our decision: it binds its pod to the node that we filled. A real kubelet
/// refuses that pod (`OutOfcpu`), kwok's admits it. Our pod keeps its cores, the node takes no more of ours, and once the
/// stranger is gone it does.
async fn a_stranger_overcommits(bed: &Bed) -> Result<()> {
    apply(bed, &[pod("ours", "fairlead-scheduler", "20", Some(NODE))]).await?;
    let ours = async || {
        let pods = pods(bed).await?;
        let ours = pods.iter().find(|pod| pod["metadata"]["name"] == "ours").context("our pod is gone")?;
        anyhow::Ok((
            ours["spec"]["nodeName"] == NODE,
            ours["metadata"]["annotations"]["fairlead.dev/placement"].clone(),
        ))
    };
    let promised = eventually("our pod is bound", LIMIT, async || {
        let (bound, placement) = ours().await?;
        Ok(if bound && placement.is_string() { Seen::Yes(placement) } else { Seen::NotYet(placement.to_string()) })
    })
    .await?;
    apply(bed, &[pod("stranger", "nobodys-scheduler", "20", None)]).await?;
    let binding = json!({ "apiVersion": "v1", "kind": "Binding", "metadata": { "name": "stranger" },
        "target": { "apiVersion": "v1", "kind": "Node", "name": NODE } });
    let path = "/api/v1/namespaces/default/pods/stranger/binding";
    bed.kubectl.run_with(&["create", "--raw", path, "-f", "-"], Some(&binding.to_string()), LIMIT).await?;
    apply(bed, &[pod("late", "fairlead-scheduler", "2", Some(NODE))]).await?;
    let late = async || {
        let pods = pods(bed).await?;
        pods.into_iter().find(|pod| pod["metadata"]["name"] == "late").context("the late pod is gone")
    };
    eventually("the overcommitted node takes no more", LIMIT, async || {
        let late = late().await?;
        assert!(late["spec"]["nodeName"].is_null(), "bound to a node that holds 40 CPUs of requests on 30");
        Ok(seen(is_refused(&late), late["status"].to_string()))
    })
    .await?;
    assert_eq!(ours().await?.1, promised, "our pod keeps what it was promised");
    bed.kubectl.run(&["delete", "pod", "stranger", "--wait=true"], LIMIT).await?;
    eventually("the node takes pods again", LIMIT, async || {
        let late = late().await?;
        Ok(seen(late["spec"]["nodeName"] == NODE, late["status"].to_string()))
    })
    .await?;
    clear(bed).await
}

fn is_refused(pod: &Value) -> bool {
    pod["status"]["conditions"].to_string().contains("Unschedulable")
}

/// No pods, and no reservation on the node.
async fn clear(bed: &Bed) -> Result<()> {
    bed.kubectl.run(&["delete", "pods", "--all", "--wait=true"], LIMIT).await?;
    eventually("the cores are free again", LIMIT, async || {
        let placement: Value =
            serde_json::from_str(&bed.kubectl.run(&["get", "nodeplacement", NODE, "-o", "json"], LIMIT).await?)?;
        let held = &placement["spec"]["reservations"];
        Ok(seen(held.as_array().is_none_or(Vec::is_empty), held.to_string()))
    })
    .await
}
