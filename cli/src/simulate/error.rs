//! What can be wrong with the input of a simulation.
use std::path::PathBuf;

/// Why a simulation cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// A file cannot be read.
    #[error("cannot read {file}")]
    File {
        /// Which.
        file: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file is too large to be what it should be.
    #[error("{file} has more than {most_bytes} bytes")]
    TooLarge {
        /// Which.
        file: String,
        /// The limit.
        most_bytes: u64,
    },
    /// A file is not YAML (or JSON).
    #[error("{file} is not YAML: {message}")]
    Yaml {
        /// Which.
        file: String,
        /// What the parser says, with line and column.
        message: String,
    },
    /// A document without kind.
    #[error("{at}: kind is missing: write full manifests with apiVersion, kind and metadata")]
    NoKind {
        /// File and document.
        at: String,
    },
    /// `$patch` is there with something else.
    #[error("{at}: $patch is {value}: only `$patch: delete` is understood")]
    Patch {
        /// File and document.
        at: String,
        /// What it is.
        value: String,
    },
    /// A kind that a simulation has no use for.
    #[error("{at}: kind {kind} is not understood: use {known}")]
    Kind {
        /// File and document.
        at: String,
        /// The kind.
        kind: String,
        /// Those that are.
        known: &'static str,
    },
    /// An object has the wrong fields.
    #[error("{at}: not a valid {kind}")]
    Manifest {
        /// File and document.
        at: String,
        /// The kind.
        kind: String,
        /// Which field, and why.
        #[source]
        source: serde_json::Error,
    },
    /// An object without name.
    #[error("{at}: metadata.name is missing")]
    NoName {
        /// File and document.
        at: String,
    },
    /// A deletion of what is not there.
    #[error("{at}: {kind} {name} is deleted, but not there")]
    NotThere {
        /// File and document.
        at: String,
        /// Its kind.
        kind: String,
        /// Namespace and name.
        name: String,
    },
    /// `--node` is not `NAME=TOPOLOGY`.
    #[error("--node {text}: write NAME=TOPOLOGY, for example big=synthetic:pack:2 core:8 pu:2 or big=machine.xml")]
    Node {
        /// What was given.
        text: String,
    },
    /// Two nodes of one name.
    #[error("node {name} is given twice")]
    NodeTwice {
        /// Its name.
        name: String,
    },
    /// No nodes at all.
    #[error("there is no node: give some with --node NAME=TOPOLOGY, with NodeTopology manifests, or by --from-dump")]
    NoNodes,
    /// A file without a NodeTopology.
    #[error("--node {name}: {} holds no NodeTopology", file.display())]
    NoTopology {
        /// The node.
        name: String,
        /// The file.
        file: PathBuf,
    },
    /// A machine that cannot be read.
    #[error("--node {name}")]
    Discovery {
        /// The node.
        name: String,
        /// Why.
        #[source]
        source: Box<fairlead_discovery::DiscoveryError>,
    },
    /// A machine that contradicts itself.
    #[error("node {name}: {message}")]
    Machine {
        /// The node.
        name: String,
        /// Which field, and what is wrong with it.
        message: String,
    },
    /// A dump whose facts make no model.
    #[error("{file}")]
    DumpFacts {
        /// Which file.
        file: String,
        /// Why.
        #[source]
        source: Box<fairlead_cluster::DumpError>,
    },
    /// A label selector that no API server would take.
    #[error("{at}: spec.selector.matchExpressions[key={key}]: {message}")]
    Selector {
        /// File and document.
        at: String,
        /// Key of the requirement.
        key: String,
        /// What is wrong, and what to write.
        message: &'static str,
    },
    /// A pool whose pods nobody can tell.
    #[error(
        "{at}: WorkerPool {name} wishes a topology, and which pods are its own is not known: give the manifest of its target \
         {target} with a selector, or status.selector"
    )]
    PoolWithoutSelector {
        /// File and document.
        at: String,
        /// Namespace and name.
        name: String,
        /// Kind and name of the scale target.
        target: String,
    },
    /// A pod that is not in the dump.
    #[error("the dump has no pod {name}")]
    NotInDump {
        /// Namespace and name.
        name: String,
    },
    /// The answer cannot be written as JSON.
    #[error("cannot write the answer")]
    Answer {
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A dump that cannot be read.
    #[error("{file} is not what an extender of this version answers on /debug/dump")]
    Dump {
        /// Which file.
        file: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}
