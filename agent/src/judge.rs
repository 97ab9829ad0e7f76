//! Holding the reservations of the node against its machine.
use fairlead_crds::conditions::Wanted;
use fairlead_crds::keys::{condition, reason};
use fairlead_crds::node_placement::{NodePlacementSpec, Reservation as Wire};
use fairlead_placement::{Held, PodRef, Reservation, ReservationFault};
use fairlead_topology::{CpuMask, Machine};

use crate::machine::Distrust;

/// Reason of the condition where the machine itself cannot be relied on.
pub const MACHINE_REJECTED: &str = "MachineRejected";

/// What the status says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// Pods with a reservation.
    pub pods: i32,
    /// CPUs held by them; each counted once.
    pub reserved_cpus: i32,
    /// The condition Consistent.
    pub consistent: Wanted,
}

/// Judges the reservations. A machine that is not relied on makes the condition Unknown: nothing was shown to be wrong
/// with the reservations, and nothing right.
#[must_use]
pub fn judge(machine: &Result<Machine, Distrust>, spec: &NodePlacementSpec) -> Judgement {
    let (status, reason, message) = match machine {
        Err(distrust) => (None, MACHINE_REJECTED, distrust.to_string()),
        Ok(machine) => match held(machine, spec) {
            Ok(_) => (
                Some(true),
                reason::AS_EXPECTED,
                "every reservation lies within the machine and none overlaps another".to_owned(),
            ),
            Err(fault) => (Some(false), fault_reason(&fault), fault.to_string()),
        },
    };
    Judgement {
        pods: count(spec.reservations.len()),
        reserved_cpus: count(reserved(spec).len() as usize),
        consistent: Wanted { type_: condition::CONSISTENT, status, reason: reason.to_owned(), message },
    }
}

fn held(machine: &Machine, spec: &NodePlacementSpec) -> Result<Held, ReservationFault> {
    let reservations: Vec<Reservation> = spec.reservations.iter().map(read).collect::<Result<_, _>>()?;
    Held::of(machine, &reservations)
}

fn reserved(spec: &NodePlacementSpec) -> CpuMask {
    let mut all = CpuMask::new();
    for cpus in spec.reservations.iter().filter_map(|wire| CpuMask::parse_list(&wire.cpus).ok()) {
        all.union_with(&cpus);
    }
    all
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn read(wire: &Wire) -> Result<Reservation, ReservationFault> {
    let pod = PodRef { namespace: wire.namespace.clone(), name: wire.name.clone(), uid: wire.pod_uid.clone() };
    let containers = wire.containers.iter().map(|part| (part.name.as_str(), part.cpus.as_str()));
    let memory = wire.memory.iter().map(|part| (part.numa_node, part.bytes));
    let huge_pages = wire
        .memory
        .iter()
        .flat_map(|part| part.huge_pages.iter().map(|pages| (part.numa_node, pages.page_bytes, pages.bytes)));
    Reservation::parse(pod, wire.reserved_at.0.as_millisecond(), &wire.cpus, containers, memory)?
        .with_huge_pages(huge_pages, wire.isolated)
}

fn fault_reason(fault: &ReservationFault) -> &'static str {
    match fault {
        ReservationFault::Malformed { .. } => "ReservationMalformed",
        ReservationFault::Empty { .. } => "ReservationEmpty",
        ReservationFault::OutOfRange { .. } => "CPUsOutOfRange",
        ReservationFault::Overlap { .. } => "CPUsOverlap",
        ReservationFault::Twice { .. } => "PodReservedTwice",
        ReservationFault::Container { .. } => "ContainerCPUsOutOfPod",
        ReservationFault::UnknownNumaNode { .. } => "NUMANodeUnknown",
        ReservationFault::MemoryOvercommitted { .. } => "NUMAMemoryOvercommitted",
        ReservationFault::HugePagesOvercommitted { .. } => "HugePagesOvercommitted",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fairlead_crds::node_placement::{ReservedContainer, ReservedMemory};
    use fairlead_crds::node_topology::Disagreement;
    use fairlead_topology::{CoreDescription, MachineDescription, NumaDescription, PackageDescription};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;

    fn description() -> MachineDescription {
        let mask = |text| CpuMask::parse_list(text).unwrap();
        MachineDescription {
            packages: vec![PackageDescription { id: 0, cpus: mask("0-7") }],
            numa_nodes: vec![NumaDescription {
                id: 0,
                cpus: mask("0-7"),
                memory_bytes: 1 << 30,
                distances: vec![],
                ..NumaDescription::default()
            }],
            l3_caches: vec![],
            cores: (0..4).map(|id| CoreDescription { id, cpus: CpuMask::from_ids([id, id + 4]) }).collect(),
            ..MachineDescription::default()
        }
    }

    fn reservation(uid: &str, cpus: &str) -> Wire {
        Wire {
            pod_uid: uid.into(),
            namespace: "ns".into(),
            name: uid.into(),
            reserved_at: Time(Timestamp::UNIX_EPOCH),
            cpus: cpus.into(),
            containers: vec![ReservedContainer { name: "c".into(), cpus: cpus.into() }],
            isolated: false,
            memory: vec![ReservedMemory { numa_node: 0, bytes: 1, huge_pages: vec![] }],
        }
    }

    fn of(reservations: Vec<Wire>) -> Judgement {
        judge(&Machine::new(&description()).map_err(Distrust::Contradiction), &NodePlacementSpec { reservations })
    }

    #[test]
    fn reservations_that_fit_are_consistent_and_counted() {
        let judgement = of(vec![reservation("a", "0,4"), reservation("b", "1-2,5-6")]);
        assert_eq!((judgement.pods, judgement.reserved_cpus), (2, 6));
        assert_eq!((judgement.consistent.status, judgement.consistent.reason.as_str()), (Some(true), "AsExpected"));
        assert_eq!(of(vec![]).consistent, judgement.consistent);
    }

    #[test]
    fn every_contradiction_is_named() {
        let memory = ReservedMemory { numa_node: 3, bytes: 1, huge_pages: vec![] };
        let cases = [
            (vec![reservation("a", "0-1"), reservation("b", "1-2")], "CPUsOverlap", "a and b both hold CPUs 1"),
            (vec![reservation("a", "7-9")], "CPUsOutOfRange", "no CPUs 8-9"),
            (vec![reservation("a", "x")], "ReservationMalformed", "podUID=a"),
            (vec![reservation("a", "")], "ReservationEmpty", "podUID=a"),
            (vec![reservation("a", "0"), reservation("a", "1")], "PodReservedTwice", "pod a"),
            (vec![Wire { memory: vec![memory], ..reservation("a", "0") }], "NUMANodeUnknown", "NUMA node 3"),
        ];
        for (reservations, reason, text) in cases {
            let consistent = of(reservations).consistent;
            assert_eq!((consistent.status, consistent.reason.as_str()), (Some(false), reason));
            assert!(consistent.message.contains(text), "{}", consistent.message);
        }
    }

    #[test]
    fn a_machine_not_relied_on_makes_it_unknown() {
        let mut description = description();
        description.packages.clear();
        let contradictory = Machine::new(&description).map_err(Distrust::Contradiction);
        let first = Disagreement { field: "cores".into(), hwloc: "given".into(), sysfs: "no cores given".into() };
        for machine in [contradictory, Err(Distrust::Disagreement { count: 1, first })] {
            let reservations = vec![reservation("a", "0,4")];
            let judgement = judge(&machine, &NodePlacementSpec { reservations });
            let consistent = judgement.consistent;
            assert_eq!((consistent.status, consistent.reason.as_str()), (None, MACHINE_REJECTED));
            assert_eq!(consistent.message, machine.unwrap_err().to_string());
            assert_eq!((judgement.pods, judgement.reserved_cpus), (1, 2));
        }
    }
}
