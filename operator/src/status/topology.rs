//! Status of a NodeTopology: what the machine counts, and whether it is believed.
use super::merged;
use crate::clock::time_of;
use fairlead_cluster::machine_of;
use fairlead_crds::conditions::Wanted;
use fairlead_crds::keys::{condition, reason};
use fairlead_crds::{NodeTopology, NodeTopologyStatus};

/// Reason while the description contradicts itself.
pub const INVALID: &str = "InvalidDescription";

/// The status as it should be.
#[must_use]
pub fn wanted(topology: &NodeTopology, now_ms: u64) -> NodeTopologyStatus {
    let spec = &topology.spec;
    let current = topology.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let (accepted, cpus) = match machine_of(spec) {
        Ok(machine) => (Ok(()), i32::try_from(machine.cpus().len()).unwrap_or(i32::MAX)),
        Err(error) => (Err(error.to_string()), 0),
    };
    let (status, why, message) = match accepted {
        Ok(()) => (true, reason::AS_EXPECTED, "the description is consistent".to_owned()),
        Err(error) => (false, INVALID, format!("{error}; the node gets no pods with CPUs of their own")),
    };
    let accepted = Wanted { type_: condition::ACCEPTED, status: Some(status), reason: why.to_owned(), message };
    NodeTopologyStatus {
        observed_generation: topology.metadata.generation,
        cpus,
        cores: super::int(spec.cores.len()),
        packages: super::int(spec.packages.len()),
        numa_nodes: super::int(spec.numa_nodes.len()),
        l3_caches: super::int(spec.l3_caches.len()),
        conditions: merged(current, &[accepted], topology.metadata.generation, &time_of(now_ms)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn topology(cpus: &str) -> NodeTopology {
        serde_json::from_value(json!({
            "apiVersion": "fairlead.dev/v1alpha1", "kind": "NodeTopology",
            "metadata": {"name": "n", "generation": 4},
            "spec": {"source": "Synthetic",
                "packages": [{"id": 0, "cpus": cpus}],
                "numaNodes": [{"id": 0, "cpus": cpus, "memoryBytes": 1 << 30}],
                "cores": [{"id": 0, "cpus": "0-1"}, {"id": 1, "cpus": "2-3"}]}
        }))
        .unwrap()
    }

    #[test]
    fn a_sound_machine_is_accepted_and_counted() {
        let status = wanted(&topology("0-3"), 0);
        assert_eq!((status.cpus, status.cores, status.packages, status.numa_nodes), (4, 2, 1, 1));
        assert_eq!((status.conditions[0].status.as_str(), status.observed_generation), ("True", Some(4)));
    }

    #[test]
    fn a_lie_is_refused_by_name_and_time_does_not_move_the_status() {
        let mut lying = topology("0-2");
        let status = wanted(&lying, 1_000);
        assert_eq!((status.conditions[0].status.as_str(), status.cpus), ("False", 0));
        lying.status = Some(status.clone());
        assert_eq!(wanted(&lying, 99_000), status);
    }
}
