//! Wishes on the way from a pod to its reservation: single threads, isolated CPUs, huge pages, init containers.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail a test")]
mod support;

use fairlead_placement::bind::{Event, Request, State, step};
use fairlead_placement::{
    Beside, BindRequest, Held, PlacementFacts, PlacementRead, PodFacts, PodRead, Reservation, ReservationFault, Room,
};
use fairlead_topology::{
    ContainerCpus, CoreDescription, CpuClass, CpuRequest, HugePageNeed, HugePages, Machine, MachineDescription,
    NumaDescription, NumaHugePages, PackageDescription, Role, Surroundings, Threads, Wish,
};
use std::sync::Arc;
use support::{held, mask, pod, waiting};

const PAGE_BYTES: u64 = 4_096;

/// Four cores of two threads (n and n + 4), memory of ten pages of which four are huge ones; CPUs 3 and 7 are isolated.
fn machine() -> Arc<Machine> {
    let all = mask("0-7");
    let description = MachineDescription {
        packages: vec![PackageDescription { id: 0, cpus: all.clone() }],
        numa_nodes: vec![NumaDescription {
            id: 5,
            cpus: all,
            memory_bytes: 10 * PAGE_BYTES,
            huge_pages: vec![HugePages { page_bytes: PAGE_BYTES, count: 4 }],
            ..NumaDescription::default()
        }],
        cores: (0..4).map(|id| CoreDescription { id, cpus: mask(&format!("{id},{}", id + 4)) }).collect(),
        isolated: mask("3,7"),
        ..MachineDescription::default()
    };
    Arc::new(Machine::new(&description).unwrap())
}

fn pages(count: u64) -> NumaHugePages {
    NumaHugePages { numa_node: 5, page_bytes: PAGE_BYTES, bytes: count * PAGE_BYTES }
}

fn holding(uid: &str, cpus: &str, huge: u64) -> Reservation {
    Reservation { memory: vec![(5, 100)], huge_pages: vec![pages(huge)], ..held(uid, cpus) }
}

/// What a bind reserves for this request beside these reservations.
fn reserved(wanted: CpuRequest, reservations: Vec<Reservation>) -> Reservation {
    let facts = PodFacts { exclusive: Some(wanted), ..waiting("new", 1) };
    let beside = Beside::default();
    let placement = PlacementFacts {
        uid: "np".into(),
        generation: 7,
        reservations,
        machine: Ok(machine()),
        beside,
        around: Surroundings::default(),
    };
    let request = BindRequest { pod: pod("new"), node: "n".into() };
    let (state, _) = step(&State::default(), &Event::Start { request, pod: Some(facts.clone()), now_ms: 9_000 });
    let (state, asked) = step(&state, &Event::Pod(PodRead::Found(facts)));
    let (_, asked) = if matches!(asked[..], [Request::ReadPlacement { .. }]) || asked.is_empty() {
        step(&state, &Event::Placement(PlacementRead::Found(placement)))
    } else {
        panic!("{asked:?}")
    };
    let [Request::Reserve { reservation, .. }] = &asked[..] else { panic!("{asked:?}") };
    reservation.clone()
}

fn wanted(cpus: u32, wish: Wish) -> CpuRequest {
    let containers = vec![ContainerCpus { name: "main".into(), cpus, ..ContainerCpus::default() }];
    CpuRequest { containers, memory_bytes: 100, huge_pages: Vec::new(), wish }
}

#[test]
fn a_single_thread_is_promised_beside_another_pods() {
    let any = Wish { threads: Threads::Any, ..Wish::default() };
    let promised = reserved(wanted(1, any), vec![holding("old", "0", 0)]);
    assert_eq!(promised.cpus, mask("4"), "the sibling of the one that is held");
    let both = [holding("old", "0", 0), promised];
    assert_eq!(Held::of(&machine(), &both).unwrap().cpus, mask("0,4"));
}

#[test]
fn an_isolated_cpu_is_promised_as_such_and_to_nobody_else() {
    let isolated = Wish { class: CpuClass::Isolated, ..Wish::default() };
    let promised = reserved(wanted(2, isolated), Vec::new());
    assert_eq!((promised.cpus, promised.isolated), (mask("3,7"), true));
    let promised = reserved(wanted(6, Wish::default()), Vec::new());
    assert_eq!((promised.cpus, promised.isolated), (mask("0-2,4-6"), false));
    let room = Room::of(&machine(), &[], &Beside::default(), "", 0).unwrap();
    assert_eq!((room.cpus.len(), room.pool_cpus(&machine())), (8, 6));
}

#[test]
fn an_init_container_reuses_what_is_promised() {
    let mut request = wanted(2, Wish::default());
    request.containers.insert(0, ContainerCpus { name: "init".into(), cpus: 4, role: Role::Init });
    let promised = reserved(request, Vec::new());
    assert_eq!(promised.cpus, mask("0-1,4-5"));
    assert_eq!(promised.containers[0].1, mask("0-1,4-5"));
    assert!(promised.containers[1].1.is_subset(&promised.containers[0].1));
    Held::of(&machine(), &[promised]).unwrap();
}

#[test]
fn huge_pages_are_promised_and_no_ordinary_memory() {
    let need = HugePageNeed { page_bytes: PAGE_BYTES, bytes: PAGE_BYTES + 1 };
    let request = CpuRequest { huge_pages: vec![need], ..wanted(2, Wish::default()) };
    let promised = reserved(request, vec![holding("old", "0,4", 2)]);
    assert_eq!((promised.huge_pages, promised.memory), (vec![pages(2)], vec![(5, 100)]));
    let room = Room::of(&machine(), &[holding("old", "0,4", 3)], &Beside::default(), "", 0).unwrap();
    assert_eq!((room.memory_bytes, room.huge_pages), (vec![6 * PAGE_BYTES - 100], vec![pages(1)]));
    // What is carried without a reservation, and what the system keeps of the ordinary memory.
    let beside = Beside { carried: vec![holding("old", "0,4", 3)], system_memory_bytes: 60, ..Beside::default() };
    let room = Room::of(&machine(), &[], &beside, "", 0).unwrap();
    assert_eq!((room.memory_bytes, room.huge_pages), (vec![6 * PAGE_BYTES - 160], vec![pages(1)]));
}

#[test]
fn more_huge_pages_than_there_are_is_a_contradiction() {
    let fault = Held::of(&machine(), &[holding("a", "0,4", 2), holding("b", "1,5", 3)]).unwrap_err();
    let (held_bytes, all_bytes) = (5 * PAGE_BYTES, 4 * PAGE_BYTES);
    let expected =
        ReservationFault::HugePagesOvercommitted { numa_node: 5, page_bytes: PAGE_BYTES, held_bytes, all_bytes };
    assert_eq!(fault, expected);
    let strange = NumaHugePages { page_bytes: 7, ..pages(1) };
    let fault = Held::of(&machine(), &[Reservation { huge_pages: vec![strange], ..holding("a", "0,4", 0) }]);
    assert!(matches!(fault, Err(ReservationFault::HugePagesOvercommitted { all_bytes: 0, .. })), "{fault:?}");
    let far = NumaHugePages { numa_node: 9, ..pages(1) };
    let fault = Held::of(&machine(), &[Reservation { huge_pages: vec![far], ..holding("a", "0,4", 0) }]);
    assert!(matches!(fault, Err(ReservationFault::UnknownNumaNode { numa_node: 9, .. })), "{fault:?}");
}
