//! Flags of fairlead-extender.
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use fairlead_runtime::{AdminArgs, ClientArgs, LogArgs, TlsFiles};

/// The scheduler extender of Fairlead: answers /filter, /prioritize, /preempt and /bind of the kube-scheduler in its own
/// pod, or, with mutual TLS, of one elsewhere
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "fairlead-extender", version)]
pub struct Args {
    #[allow(missing_docs)]
    #[command(flatten)]
    pub logs: LogArgs,
    #[allow(missing_docs)]
    #[command(flatten)]
    pub admin: AdminArgs,
    #[allow(missing_docs)]
    #[command(flatten)]
    pub client: ClientArgs,
    /// Address for kube-scheduler; port 0 takes a free one. Without --tls-cert loopback only, since then nobody proves who
    /// he is
    #[arg(long, alias = "listen", env = "FAIRLEAD_LISTEN_ADDRESS", default_value = "127.0.0.1:9801")]
    pub listen_address: SocketAddr,
    #[allow(missing_docs)]
    #[command(flatten)]
    pub tls: TlsArgs,
    /// Namespace of this pod: the reaper's Lease lives there
    #[arg(long, env = "POD_NAMESPACE")]
    pub own_namespace: String,
    /// Name of this pod, shown as holder of the reaper's Lease
    #[arg(long, env = "POD_NAME", default_value = "fairlead-extender")]
    pub own_name: String,
    /// Longest request body in bytes; 5,000 node names need some 220 KiB
    #[arg(long, env = "FAIRLEAD_MAX_BODY_BYTES", default_value_t = 8 << 20, value_parser = clap::value_parser!(u64).range(1024..=1 << 30))]
    pub max_body_bytes: u64,
    /// Requests at once, once for filter, prioritize and preempt together and once for bind; further ones get 503 at once
    #[arg(long, env = "FAIRLEAD_MAX_IN_FLIGHT", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub max_in_flight: u32,
    /// Time for one bind in milliseconds, conflicts and lost answers included; keep it below the scheduler's httpTimeout
    #[arg(long, env = "FAIRLEAD_BIND_DEADLINE_MS", default_value_t = 4000, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    pub bind_deadline_ms: u64,
}

/// Mutual TLS: all four or none. The files are followed while the process runs.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct TlsArgs {
    /// Certificate chain of the server, PEM: kube-scheduler is served with mutual TLS
    #[arg(long, env = "FAIRLEAD_TLS_CERT", value_name = "FILE", requires_all = ["tls_key", "client_ca", "client_name"])]
    pub tls_cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, env = "FAIRLEAD_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Authorities that sign kube-scheduler's client certificate, PEM
    #[arg(long, env = "FAIRLEAD_CLIENT_CA", value_name = "FILE", requires = "tls_cert")]
    pub client_ca: Option<PathBuf>,
    /// DNS name that kube-scheduler's client certificate must carry
    #[arg(long, env = "FAIRLEAD_CLIENT_NAME", value_name = "NAME", requires = "tls_cert")]
    pub client_name: Option<String>,
}

impl TlsArgs {
    /// The files; `None` without them.
    #[must_use]
    pub fn files(&self) -> Option<TlsFiles> {
        let Self { tls_cert: Some(cert), tls_key: Some(key), client_ca: Some(ca), client_name: Some(name) } = self
        else {
            return None;
        };
        let (cert, key, client_ca) = (cert.clone(), key.clone(), ca.clone());
        Some(TlsFiles { cert, key, client_ca, client_name: name.clone() })
    }
}

/// The extender is asked to listen where others reach it, and to serve whoever comes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "--listen-address {address} is not a loopback address: whoever reaches this port can bind pods without \
     authentication; use 127.0.0.1 or [::1] for the kube-scheduler of the same pod, or give --tls-cert, --tls-key, \
     --client-ca and --client-name"
)]
pub struct Exposed {
    address: SocketAddr,
}

impl Args {
    /// The TLS material that the address demands.
    ///
    /// # Errors
    /// An address that others reach, without TLS.
    pub fn serving(&self) -> Result<Option<TlsFiles>, Exposed> {
        let files = self.tls.files();
        if files.is_none() && !is_loopback(self.listen_address.ip()) {
            return Err(Exposed { address: self.listen_address });
        }
        Ok(files)
    }
}

fn is_loopback(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.to_ipv4_mapped().is_some_and(|ip| ip.is_loopback()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn parse(extra: &[&str]) -> Result<Args, String> {
        let all = ["fairlead-extender", "--own-namespace=ns"].iter().chain(extra);
        Args::try_parse_from(all).map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_are_loopback_and_bounded() {
        let args = parse(&[]).unwrap();
        assert_eq!(args.listen_address.to_string(), "127.0.0.1:9801");
        assert_eq!((args.max_body_bytes, args.bind_deadline_ms), (8 * 1024 * 1024, 4000));
        assert_eq!(parse(&["--listen=[::1]:0"]).unwrap().listen_address.port(), 0);
    }

    #[test]
    fn an_address_that_others_reach_is_refused_and_told_why() {
        for address in ["0.0.0.0:9801", "10.0.0.1:9801", "[::]:9801", "[::ffff:10.0.0.1]:1"] {
            let args = parse(&[&format!("--listen-address={address}")]).unwrap();
            let error = args.serving().unwrap_err().to_string();
            assert!(error.contains("not a loopback address"), "{error}");
            assert!(error.contains("--listen-address") && error.contains("--tls-cert"), "{error}");
        }
        assert!(parse(&["--listen-address=localhost"]).unwrap_err().contains("--listen-address"));
        assert!(parse(&[]).unwrap().serving().unwrap().is_none());
    }

    #[test]
    fn tls_comes_whole_or_not_at_all() {
        let all = ["--tls-cert=/c", "--tls-key=/k", "--client-ca=/a", "--client-name=scheduler.example"];
        for missing in 0..all.len() {
            let some: Vec<&str> =
                all.into_iter().enumerate().filter(|(at, _)| *at != missing).map(|(_, flag)| flag).collect();
            assert!(parse(&some).is_err(), "{some:?}");
        }
        let with_address: Vec<&str> = all.into_iter().chain(["--listen-address=0.0.0.0:9801"]).collect();
        let files = parse(&with_address).unwrap().serving().unwrap().unwrap();
        assert_eq!((files.client_ca.to_str(), files.client_name.as_str()), (Some("/a"), "scheduler.example"));
    }

    #[test]
    fn bounds_are_checked() {
        assert!(parse(&["--max-in-flight=0"]).is_err());
        assert!(parse(&["--bind-deadline-ms=1"]).is_err());
        assert!(parse(&["--max-body-bytes=0"]).is_err());
    }
}
