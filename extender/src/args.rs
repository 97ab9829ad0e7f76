//! Flags of fairlead-extender.
use std::net::{IpAddr, SocketAddr};

use fairlead_runtime::{AdminArgs, ClientArgs, LogArgs};

/// The scheduler extender of Fairlead: answers /filter, /prioritize and /bind of the kube-scheduler in its own pod
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
    /// Address for kube-scheduler; loopback only, since the protocol has no authentication; port 0 takes a free one
    #[arg(
        long,
        alias = "listen",
        env = "FAIRLEAD_LISTEN_ADDRESS",
        default_value = "127.0.0.1:9801",
        value_parser = loopback
    )]
    pub listen_address: SocketAddr,
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

fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr =
        text.parse().map_err(|_| "write an address with port, such as 127.0.0.1:9801".to_owned())?;
    let local = match address.ip() {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.to_ipv4_mapped().is_some_and(|ip| ip.is_loopback()),
    };
    if local {
        return Ok(address);
    }
    Err(format!(
        "{} is not a loopback address: whoever reaches this port can bind pods without authentication, so only the \
         kube-scheduler of the same pod may; use 127.0.0.1 or [::1]",
        address.ip()
    ))
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
            let error = parse(&[&format!("--listen-address={address}")]).unwrap_err();
            assert!(error.contains("not a loopback address"), "{error}");
            assert!(error.contains("--listen-address"), "{error}");
        }
        assert!(parse(&["--listen-address=localhost"]).unwrap_err().contains("with port"));
    }

    #[test]
    fn bounds_are_checked() {
        assert!(parse(&["--max-in-flight=0"]).is_err());
        assert!(parse(&["--bind-deadline-ms=1"]).is_err());
        assert!(parse(&["--max-body-bytes=0"]).is_err());
    }
}
