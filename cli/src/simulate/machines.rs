//! `--node NAME=TOPOLOGY`: a machine from hwloc XML, synthetic text, a captured /sys, or a NodeTopology.
use super::error::SimulateError;
use super::manifests;
use fairlead_crds::node_topology::{Pinning, PinningMode, TopologySource as Origin};
use fairlead_crds::{NodeTopology, NodeTopologySpec};
use fairlead_discovery::{TopologyInput, TopologySource as _, node_topology};
use std::path::{Path, PathBuf};

/// One `--node`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeArg {
    pub(super) name: String,
    pub(super) topology: Topology,
}

/// Where the machine comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Topology {
    /// Something that discovery reads.
    Input(TopologyInput),
    /// A NodeTopology manifest.
    Published(PathBuf),
}

impl std::str::FromStr for NodeArg {
    type Err = SimulateError;

    fn from_str(text: &str) -> Result<Self, SimulateError> {
        let wrong = || SimulateError::Node { text: text.to_owned() };
        let (name, topology) = text.split_once('=').ok_or_else(wrong)?;
        if name.is_empty() || topology.is_empty() {
            return Err(wrong());
        }
        let path = Path::new(topology);
        let topology = if ["yaml", "yml", "json"].contains(&extension(path)) {
            Topology::Published(path.to_owned())
        } else {
            let input = topology.parse();
            Topology::Input(
                input.map_err(|source| SimulateError::Discovery { name: name.to_owned(), source: Box::new(source) })?,
            )
        };
        Ok(Self { name: name.to_owned(), topology })
    }
}

impl NodeArg {
    /// The machine as its agent would publish it. Pinned by the agent, unless a NodeTopology says otherwise.
    pub(super) fn spec(&self) -> Result<NodeTopologySpec, SimulateError> {
        let input = match &self.topology {
            Topology::Published(path) => return self.published(path),
            Topology::Input(input) => input,
        };
        let discovery = |source| SimulateError::Discovery { name: self.name.clone(), source: Box::new(source) };
        let origin = match input {
            TopologyInput::Synthetic(_) => Origin::Synthetic,
            TopologyInput::XmlFile(_) | TopologyInput::Captured(_) => Origin::Hwloc,
        };
        let found = input.describe().map_err(discovery)?;
        Ok(node_topology(&found.description, origin, &[], Some(simulated())))
    }

    fn published(&self, path: &Path) -> Result<NodeTopologySpec, SimulateError> {
        let manifests = manifests::read(&[path.to_owned()])?;
        let of_kind = manifests.iter().find(|manifest| manifest.kind == "NodeTopology");
        let missing = || SimulateError::NoTopology { name: self.name.clone(), file: path.to_owned() };
        Ok(of_kind.ok_or_else(missing)?.read::<NodeTopology>()?.spec)
    }
}

fn extension(path: &Path) -> &str {
    path.extension().and_then(|extension| extension.to_str()).unwrap_or_default()
}

/// What a healthy agent says of a node of ours.
fn simulated() -> Pinning {
    Pinning {
        mode: PinningMode::Own,
        reason: "Simulated".to_owned(),
        message: String::new(),
        cpu_manager_policy: None,
        memory_manager_policy: None,
        runtime: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_may_be() {
        let node = |text: &str| text.parse::<NodeArg>();
        assert_eq!(
            node("a=synthetic: pack:2 core:4 pu:2").unwrap().topology,
            Topology::Input(TopologyInput::Synthetic("pack:2 core:4 pu:2".into()))
        );
        assert_eq!(node("a=dir/b.xml").unwrap().topology, Topology::Input(TopologyInput::XmlFile("dir/b.xml".into())));
        for wrong in ["", "a", "a=", "=x"] {
            assert!(matches!(node(wrong), Err(SimulateError::Node { .. })), "{wrong}");
        }
    }

    #[test]
    fn a_synthetic_machine_is_the_agents() {
        let spec = "a=synthetic:pack:2 [numa(memory=4GB)] l3:2 core:2 pu:2".parse::<NodeArg>().unwrap().spec().unwrap();
        assert_eq!((spec.packages.len(), spec.numa_nodes.len(), spec.l3_caches.len(), spec.cores.len()), (2, 2, 4, 8));
        assert_eq!(spec.pinning.unwrap().mode, PinningMode::Own);
        assert!(matches!("a=machine.txt".parse::<NodeArg>(), Err(SimulateError::Discovery { .. })));
    }
}
