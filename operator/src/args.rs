//! The flags of the operator.
use crate::scaling::allow::{AllowList, Pattern};
use fairlead_runtime::{AdminArgs, ClientArgs, LogArgs};

/// Gate removals at once that no API server should see more of from one client.
const RELEASE_CONCURRENCY_MAX: i64 = 128;

/// Releases pods in fair order, scales pools, writes status. One leads, the others watch.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "fairlead-operator", version)]
pub struct Args {
    /// Logging.
    #[command(flatten)]
    pub log: LogArgs,
    /// The admin port.
    #[command(flatten)]
    pub admin: AdminArgs,
    /// The way to the API server.
    #[command(flatten)]
    pub client: ClientArgs,
    /// Namespace of this process: its Lease and ServiceAccount are there
    #[arg(long, env = "POD_NAMESPACE")]
    pub own_namespace: String,
    /// Name of this process in the Lease and in the ledgers; unique among the replicas
    #[arg(long, env = "POD_NAME")]
    pub identity: String,
    /// Own ServiceAccount, named in the commands that grant it a Secret
    #[arg(long, env = "FAIRLEAD_SERVICE_ACCOUNT", default_value = "fairlead-operator")]
    pub service_account: String,
    /// How far release goes beyond what is free now, in percent of the cluster's capacity; 0 releases only what is free
    #[arg(long, env = "FAIRLEAD_RELEASE_WINDOW_PERCENT", default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub release_window_percent: u32,
    /// Gate removals under way at once
    #[arg(long, env = "FAIRLEAD_RELEASE_CONCURRENCY", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=RELEASE_CONCURRENCY_MAX))]
    pub release_concurrency: u16,
    /// Queue addresses that a WorkerPool may name: "host", "host:port", "*.suffix" or "*.suffix:port"; repeat the flag or
    /// separate by comma; without it no queue is dialled
    #[arg(long, env = "FAIRLEAD_QUEUE_ALLOW", value_delimiter = ',')]
    pub queue_allow: Vec<Pattern>,
    /// Time between two looks at a queue; each answer is followed by a decision
    #[arg(long, env = "FAIRLEAD_SCALING_PERIOD_MS", default_value_t = 500, value_parser = clap::value_parser!(u64).range(100..=10_000))]
    pub scaling_period_ms: u64,
    /// DNS name of the kube-scheduler that calls the extender over its Service: with it the operator makes the certificates
    /// of both, in the Secrets fairlead-extender-ca, -tls and -client
    #[arg(long, env = "FAIRLEAD_EXTENDER_CLIENT_NAME", value_name = "NAME")]
    pub extender_client_name: Option<String>,
}

impl Args {
    /// The queue addresses that may be dialled.
    #[must_use]
    pub fn allow_list(&self) -> AllowList {
        AllowList::new(self.queue_allow.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn parse(more: &[&str]) -> Result<Args, clap::Error> {
        let base = ["fairlead-operator", "--own-namespace=fairlead-system", "--identity=a"];
        Args::try_parse_from(base.iter().chain(more))
    }

    #[test]
    fn defaults_are_those_of_the_chart() {
        let args = parse(&[]).unwrap();
        assert_eq!((args.release_window_percent, args.scaling_period_ms), (20, 500));
        assert!(args.queue_allow.is_empty());
        assert_eq!(args.service_account, "fairlead-operator");
    }

    #[test]
    fn patterns_may_be_repeated_and_separated_by_comma() {
        let args = parse(&["--queue-allow=redis.a:6379,*.b", "--queue-allow=c"]).unwrap();
        assert_eq!(args.queue_allow.len(), 3);
    }

    #[test]
    fn gate_removals_at_once_are_bounded() {
        assert_eq!(parse(&["--release-concurrency=128"]).unwrap().release_concurrency, 128);
        assert!(parse(&["--release-concurrency=129"]).is_err());
    }

    #[test]
    fn bad_values_are_refused_by_the_name_of_the_flag() {
        for flag in ["--queue-allow=a:b:c", "--release-window-percent=-1", "--scaling-period-ms=1"] {
            let message = parse(&[flag]).unwrap_err().to_string();
            let name = flag.split('=').next().unwrap();
            assert!(message.contains(name), "{message}");
        }
    }
}
