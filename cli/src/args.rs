//! The command line.
use crate::simulate::NodeArg;
use std::path::PathBuf;
use std::time::Duration;

/// Fair shares and exact cores, explained.
#[derive(Debug, clap::Parser)]
#[command(name = "kubectl-fairlead", bin_name = "kubectl fairlead", version, max_term_width = 100)]
pub struct Args {
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Which cluster.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct ClusterArgs {
    /// Kubeconfig file; without it the variable KUBECONFIG, then ~/.kube/config, then the pod's own ServiceAccount
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig; without it the current one
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,
}

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Why: what Fairlead decided about an object, and what comes next
    #[command(subcommand)]
    Explain(Explain),
    /// Who uses how much, who waits, what is free
    Top(TopArgs),
    /// What if: the decisions of operator and extender on files, without a cluster
    #[command(subcommand)]
    Simulate(Simulate),
    /// Leave: admission off, gates removed, waiting pods given back to the default scheduler
    Drain(DrainArgs),
    /// What your own kube-scheduler needs to call the extender (extender.mode Service): print it, or check a file
    SchedulerConfig(SchedulerConfigArgs),
}

/// Where the extender is, and what to do.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct SchedulerConfigArgs {
    /// Namespace of the release
    #[arg(long, short, value_name = "NAME", default_value = "fairlead-system")]
    pub(crate) namespace: String,
    /// Address of the extender; without it that of its Service. A kube-scheduler in its host's network resolves no names of
    /// Services: give the Service's cluster IP
    #[arg(long, value_name = "URL")]
    pub(crate) url_prefix: Option<String>,
    /// Folder on kube-scheduler's side with ca.crt, tls.crt and tls.key
    #[arg(long, value_name = "FOLDER", default_value = "/etc/kubernetes/fairlead")]
    pub(crate) tls_folder: String,
    /// Weight of the extender's scores beside those of kube-scheduler's plugins
    #[arg(long, value_name = "NUMBER", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) weight: u32,
    /// Print nothing but what is wrong with this KubeSchedulerConfiguration; the status is 1 if anything is
    #[arg(long, value_name = "FILE")]
    pub(crate) check: Option<PathBuf>,
}

/// What to explain.
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Explain {
    /// Why the pod is where it is, or why it waits
    Pod(ExplainPodArgs),
    /// The node's machine as a drawing, who holds which cores, and whether the node is trusted with them
    Node(ExplainNodeArgs),
}

/// Which node, and how to show it.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ExplainNodeArgs {
    /// Name of the node; `node/NAME` will do
    #[arg(value_parser = node_name)]
    pub(crate) name: String,
    /// Text for people, or everything as JSON
    #[arg(long, short, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

/// Which pod, and how to show it.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ExplainPodArgs {
    /// Name of the pod; `pod/NAME` will do
    #[arg(value_parser = pod_name)]
    pub(crate) name: String,
    /// Namespace; without it that of the context
    #[arg(long, short, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// Text for people, or everything as JSON
    #[arg(long, short, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

/// What to simulate.
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Simulate {
    /// Which node and which cores each pod would get
    #[command(
        after_help = "Example: kubectl fairlead simulate placement -f pods.yaml --node 'big=synthetic:pack:2 [numa(memory=64GB)] l3:4 core:4 pu:2'"
    )]
    Placement(SimulatePlacementArgs),
}

/// Which pods on which nodes.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct SimulatePlacementArgs {
    /// Manifests, taken in order: pods and workloads are placed one after another, `$patch: delete` takes a pod away, pools
    /// and quotas apply from there on; `-` is standard input
    #[arg(long = "filename", short = 'f', value_name = "FILE", required_unless_present = "from_dump")]
    pub(crate) files: Vec<PathBuf>,
    /// A node: `synthetic:` and hwloc's synthetic text, an hwloc XML file (.xml), a NodeTopology (.yaml, .json), or the
    /// folder of a captured /sys
    #[arg(long = "node", value_name = "NAME=TOPOLOGY", value_parser = node_arg)]
    pub(crate) nodes: Vec<NodeArg>,
    /// What a running extender answered on /debug/dump: its cluster is the one to start from. Without -f its own pods that
    /// wait for a node are asked about
    #[arg(long, value_name = "FILE")]
    pub(crate) from_dump: Option<PathBuf>,
    /// Of a dump this pod only; as JSON exactly what the extender answers on /debug/explain?pod=NAMESPACE/NAME
    #[arg(long, value_name = "NAMESPACE/NAME", requires = "from_dump", conflicts_with = "files", value_parser = pod_of_namespace)]
    pub(crate) pod: Option<(String, String)>,
    /// Text for people, or everything as JSON
    #[arg(long, short, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

/// How a result is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// For machines.
    Json,
}

/// What to list.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct TopArgs {
    /// One list; without it all three
    #[command(subcommand)]
    pub(crate) what: Option<TopList>,
    /// Show it anew every two seconds until Ctrl-C
    #[arg(long, short, global = true)]
    pub(crate) watch: bool,
}

/// Lists of `top`.
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum TopList {
    /// Each tenant: what it uses, its limits, who waits
    Tenants,
    /// Each node: cores held and free
    Nodes,
    /// Each WorkerPool: backlog and replicas
    Pools(TopPoolsArgs),
}

/// Whose pools.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct TopPoolsArgs {
    /// Namespace; without it all of them, or that of the context for who may not list all
    #[arg(long, short, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
}

/// How to drain.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct DrainArgs {
    /// Do it; without this flag only what would happen is printed
    #[arg(long)]
    pub(crate) yes: bool,
    /// Give up after this long: 90s, 5m
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration)]
    pub(crate) timeout: Duration,
}

/// As `kubectl get -o name` prints pods.
fn pod_name(text: &str) -> Result<String, String> {
    name_of(text, &["pod/", "pods/"])
}

/// As `kubectl get -o name` prints nodes.
fn node_name(text: &str) -> Result<String, String> {
    name_of(text, &["node/", "nodes/"])
}

fn name_of(text: &str, prefixes: &[&str]) -> Result<String, String> {
    let name = prefixes.iter().find_map(|prefix| text.strip_prefix(prefix)).unwrap_or(text);
    if name.is_empty() || name.contains('/') { Err(format!("`{text}` is no name")) } else { Ok(name.to_owned()) }
}

fn pod_of_namespace(text: &str) -> Result<(String, String), String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok((namespace.to_owned(), name.to_owned()))
        }
        _ => Err(format!("`{text}` is no pod: write NAMESPACE/NAME")),
    }
}

/// clap shows an error without its causes.
fn node_arg(text: &str) -> Result<NodeArg, String> {
    text.parse().map_err(|error: crate::SimulateError| crate::error::chain(&error))
}

/// `90s`, `5m`, `1h`, or bare seconds; at least one second.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no duration: write 90s, 5m or 1h");
    let (digits, unit) = match text.char_indices().last() {
        Some((at, 's')) => (&text[..at], 1),
        Some((at, 'm')) => (&text[..at], 60),
        Some((at, 'h')) => (&text[..at], 3600),
        _ => (text, 1),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let seconds = number.checked_mul(unit).filter(|seconds| (1..=86_400).contains(seconds)).ok_or_else(wrong)?;
    Ok(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory as _, Parser as _};

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn durations() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(duration("7"), Ok(Duration::from_secs(7)));
        for wrong in ["", "s", "0s", "-1s", "1d", "25h", "99999999999999999999h", "ü"] {
            assert!(duration(wrong).unwrap_err().contains("is no duration"), "{wrong}");
        }
    }

    #[test]
    fn names_as_kubectl_prints_them() {
        assert_eq!(pod_name("pod/a").unwrap(), "a");
        assert_eq!(node_name("a").unwrap(), "a");
        for wrong in ["", "pod/", "node/a", "pod/a/b"] {
            assert!(pod_name(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_pools_have_a_namespace() {
        let args = Args::parse_from(["kubectl-fairlead", "top", "pools", "-n", "acme", "-w"]);
        let Command::Top(TopArgs { what: Some(TopList::Pools(pools)), watch: true }) = args.command else {
            panic!("not top pools")
        };
        assert_eq!(pools.namespace.as_deref(), Some("acme"));
        assert!(Args::try_parse_from(["kubectl-fairlead", "top", "nodes", "-n", "acme"]).is_err());
        assert!(Args::try_parse_from(["kubectl-fairlead", "top", "-w", "nodes"]).is_ok());
        assert!(Args::try_parse_from(["kubectl-fairlead", "top"]).is_ok());
    }

    #[test]
    fn the_hooks_command_line() {
        let args = Args::parse_from(["kubectl-fairlead", "drain", "--yes", "--timeout=240s"]);
        let Command::Drain(drain) = args.command else { panic!("not drain") };
        assert!(drain.yes);
        assert_eq!(drain.timeout, Duration::from_secs(240));
    }
}
