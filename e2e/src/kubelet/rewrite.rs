//! The one place where the harness changes what the chart says: addresses, ports and paths, and nothing else.
//!
//! All pods of the bed share one host. So a port that a pod declares becomes a free port of the host, wherever the pod's
//! arguments, environment or mounted files speak of it as `:PORT` or `=PORT`; who would listen on all addresses of its pod
//! listens on the host's loopback; and a mount path becomes the folder where the harness put that mount.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::ports;

/// Where the processes of all pods listen.
pub(crate) const LOOPBACK: &str = "127.0.0.1";
/// All addresses of a pod, or of the host.
const EVERYWHERE: &str = "0.0.0.0";

/// Ports of a pod → ports of the host; shared by its containers, as a pod's network is.
#[derive(Clone, Debug, Default)]
pub(crate) struct PortMap(pub(crate) BTreeMap<u16, u16>);

impl PortMap {
    /// Takes a free host port for each container port, host port, probe port and listening address.
    pub(crate) fn for_pod(pod: &Pod) -> Result<Self> {
        let spec = pod.spec.as_ref().context("a pod without spec")?;
        let mut map = BTreeMap::new();
        for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
            let declared =
                container.ports.iter().flatten().flat_map(|port| [Some(port.container_port), port.host_port]);
            let probes = [&container.startup_probe, &container.readiness_probe, &container.liveness_probe];
            let probed = probes.into_iter().flatten().map(probe_port);
            let listened =
                container.args.iter().flatten().chain(container.command.iter().flatten()).map(|arg| listen_port(arg));
            for port in declared.chain(probed).chain(listened).flatten().filter_map(|port| u16::try_from(port).ok()) {
                if let std::collections::btree_map::Entry::Vacant(free) = map.entry(port) {
                    free.insert(ports::free()?);
                }
            }
        }
        Ok(Self(map))
    }

    /// The host's port; a port that was not declared stays as it is.
    pub(crate) fn host(&self, port: u16) -> u16 {
        self.0.get(&port).copied().unwrap_or(port)
    }

    /// The host's port for a probe's port, which may be a name.
    pub(crate) fn resolve(&self, container: &Container, port: &IntOrString) -> Result<u16> {
        let number = match port {
            IntOrString::Int(number) => *number,
            IntOrString::String(name) => {
                let named = container.ports.iter().flatten().find(|port| port.name.as_ref() == Some(name));
                named.with_context(|| format!("container {} has no port named {name}", container.name))?.container_port
            }
        };
        Ok(self.host(u16::try_from(number).context("port out of range")?))
    }
}

/// A port that only the pod's own loopback knows is declared nowhere: it is found in a flag `--…-address=HOST:PORT`.
fn listen_port(arg: &str) -> Option<i32> {
    let (flag, value) = arg.split_once('=')?;
    let (_, port) = value.rsplit_once(':')?;
    flag.ends_with("-address").then(|| port.parse().ok()).flatten()
}

fn probe_port(probe: &Probe) -> Option<i32> {
    let http = probe.http_get.as_ref().map(|get| &get.port);
    match http.or(probe.tcp_socket.as_ref().map(|socket| &socket.port)) {
        Some(IntOrString::Int(port)) => Some(*port),
        _ => None,
    }
}

/// What is replaced for one container.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rewrite {
    ports: PortMap,
    /// Mount path → path on the host, longest first.
    paths: Vec<(String, PathBuf)>,
}

impl Rewrite {
    pub(crate) fn new(ports: PortMap, mut paths: Vec<(String, PathBuf)>) -> Self {
        paths.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then_with(|| a.0.cmp(&b.0)));
        Self { ports, paths }
    }

    /// Where a mount lies on the host.
    pub(crate) fn path(&self, mount: &str) -> Option<&Path> {
        self.paths.iter().find(|(path, _)| path == mount.trim_end_matches('/')).map(|(_, host)| host.as_path())
    }

    /// Replaces ports, listening addresses and paths in a text.
    pub(crate) fn text(&self, text: &str) -> String {
        self.replace_paths(&replace_addresses(&self.replace_ports(text)))
    }

    fn replace_ports(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find([':', '=']) {
            let (before, after) = rest.split_at(at + 1);
            out.push_str(before);
            let digits = after.len() - after.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let (number, tail) = after.split_at(digits);
            let mapped = number.parse::<u16>().ok().and_then(|port| self.ports.0.get(&port));
            match mapped {
                Some(port) => out.push_str(&port.to_string()),
                None => out.push_str(number),
            }
            rest = tail;
        }
        out.push_str(rest);
        out
    }

    fn replace_paths(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        let mut previous = None::<char>;
        'outer: while !rest.is_empty() {
            // A mount path begins a path: /etc/x is not meant by /var/etc/x.
            if previous.is_none_or(|c| !(c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '/'))) {
                for (mount, host) in &self.paths {
                    let Some(tail) = rest.strip_prefix(mount.as_str()) else { continue };
                    let ends =
                        tail.chars().next().is_none_or(|c| !(c.is_alphanumeric() || matches!(c, '_' | '-' | '.')));
                    if ends {
                        out.push_str(&host.to_string_lossy());
                        previous = Some('x');
                        rest = tail;
                        continue 'outer;
                    }
                }
            }
            let Some(next) = rest.chars().next() else { break };
            out.push(next);
            previous = Some(next);
            rest = &rest[next.len_utf8()..];
        }
        out
    }
}

/// How a socket is named from the folder `from`: the kernel takes no more than 107 bytes, and beds lie deep.
pub(crate) fn relative(path: &Path, from: &Path) -> PathBuf {
    let shared = path.components().zip(from.components()).take_while(|(a, b)| a == b).count();
    let up = from.components().skip(shared).map(|_| Component::ParentDir);
    up.chain(path.components().skip(shared)).collect()
}

/// Whole addresses only, and no CIDR: `0.0.0.0/0` is nobody's to listen on.
fn replace_addresses(text: &str) -> String {
    let goes_on = |c: char| c.is_alphanumeric() || c == '.';
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(EVERYWHERE) {
        let (before, tail) = (&rest[..at], &rest[at + EVERYWHERE.len()..]);
        let whole = !before.ends_with(goes_on) && !tail.starts_with(|c| goes_on(c) || c == '/');
        out.push_str(before);
        out.push_str(if whole { LOOPBACK } else { EVERYWHERE });
        rest = tail;
    }
    out.push_str(rest);
    out
}

/// kube-scheduler finds its API server by a path in its configuration, not by `KUBECONFIG`: that path is put in.
pub(crate) fn scheduler_config(text: &str, kubeconfig: &Path) -> Result<String> {
    let mut config: serde_json::Value = serde_saphyr::from_str(text).context("KubeSchedulerConfiguration")?;
    config["clientConnection"]["kubeconfig"] = serde_json::json!(kubeconfig);
    Ok(config.to_string())
}

/// The flags by which kube-scheduler asks about its callers; in a pod it uses its ServiceAccount for that.
pub(crate) fn scheduler_flags(args: &mut Vec<String>, kubeconfig: &Path) {
    for flag in ["--authentication-kubeconfig", "--authorization-kubeconfig"] {
        if !args.iter().any(|arg| arg.starts_with(flag)) {
            args.push(format!("{flag}={}", kubeconfig.display()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewrite() -> Rewrite {
        let ports = PortMap(BTreeMap::from([(9801, 12_001), (9802, 12_002)]));
        Rewrite::new(
            ports,
            vec![("/etc/fairlead".to_owned(), "/bed/a".into()), ("/etc/fairlead/tls".to_owned(), "/bed/b".into())],
        )
    }

    #[test]
    fn declared_ports_only_and_whole_numbers_only() {
        let rewrite = rewrite();
        assert_eq!(rewrite.text("--admin-address=10.0.0.1:9802"), "--admin-address=10.0.0.1:12002");
        assert_eq!(rewrite.text("--secure-port=9801"), "--secure-port=12001");
        assert_eq!(rewrite.text("urlPrefix: http://127.0.0.1:9801/x"), "urlPrefix: http://127.0.0.1:12001/x");
        assert_eq!(rewrite.text("--n=98010 :980 =10259"), "--n=98010 :980 =10259");
    }

    #[test]
    fn who_would_listen_everywhere_listens_on_the_loopback() {
        let rewrite = rewrite();
        assert_eq!(rewrite.text("--admin-address=0.0.0.0:9802"), "--admin-address=127.0.0.1:12002");
        assert_eq!(rewrite.text("--bind-address=0.0.0.0"), "--bind-address=127.0.0.1");
        assert_eq!(rewrite.text("bindAddress: 0.0.0.0\nport: 1"), "bindAddress: 127.0.0.1\nport: 1");
        for other in ["cidr: 0.0.0.0/0", "10.0.0.0.0", "0.0.0.01", "version 0.0.0"] {
            assert_eq!(rewrite.text(other), other);
        }
    }

    #[test]
    fn ports_of_a_pod_are_those_that_it_declares_probes_or_listens_on() {
        let pod: Pod = serde_json::from_value(serde_json::json!({ "spec": { "containers": [
            { "name": "a", "args": ["--listen-address=127.0.0.1:9801", "--queue-allow=127.0.0.1:6379"], "ports": [{ "containerPort": 9802 }] },
            { "name": "b", "readinessProbe": { "httpGet": { "port": 10259 } } },
        ] } }))
        .unwrap();
        let ports = PortMap::for_pod(&pod).unwrap();
        assert_eq!(ports.0.keys().copied().collect::<Vec<_>>(), [9801, 9802, 10259]);
        let hosts: std::collections::BTreeSet<u16> = ports.0.values().copied().collect();
        assert_eq!(hosts.len(), 3);
    }

    #[test]
    fn mount_paths_become_host_paths() {
        let rewrite = rewrite();
        assert_eq!(rewrite.text("--config=/etc/fairlead/c.yaml"), "--config=/bed/a/c.yaml");
        assert_eq!(rewrite.text("/etc/fairlead/tls/ca.crt"), "/bed/b/ca.crt");
        assert_eq!(rewrite.text("/etc/fairlead-x /var/etc/fairlead"), "/etc/fairlead-x /var/etc/fairlead");
    }

    #[test]
    fn a_socket_is_named_from_where_its_user_runs() {
        let socket = Path::new("/bed/nodes/n/nri.sock");
        assert_eq!(relative(socket, Path::new("/bed/kubelet/pod")), Path::new("../../nodes/n/nri.sock"));
        assert_eq!(relative(socket, Path::new("/bed")), Path::new("nodes/n/nri.sock"));
    }

    #[test]
    fn the_scheduler_gets_its_kubeconfig() {
        let out = scheduler_config("apiVersion: v1\nclientConnection:\n  qps: 5\n", Path::new("/k")).unwrap();
        let value: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(value["clientConnection"], serde_json::json!({ "qps": 5, "kubeconfig": "/k" }));
    }
}
