//! `choose` with every wish against brute force: every set of units and every set of NUMA nodes on small machines, compared
//! measure by measure in the documented order, written as plainly as can be.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail a test")]

mod shape;

use std::collections::BTreeSet;

use fairlead_topology::{
    Align, Cache, Choice, ContainerCpus, CpuClass, CpuMask, CpuRequest, FreeSummary, HugePageNeed, Machine, NoFit,
    NodeFree, NumaHugePages, Packing, Role, Surroundings, Threads, Verdict, Wish, choose, evaluate,
};
use proptest::prelude::*;
use shape::{Shape, irregular};

const PAGE_BYTES: u64 = 10;

/// One question.
#[derive(Debug, Clone)]
struct Case {
    shape: Shape,
    free: CpuMask,
    /// Free huge pages by NUMA node.
    pages: Vec<u64>,
    reserve: u32,
    request: CpuRequest,
    around: Surroundings,
}

/// A whole core, or with [`Threads::Any`] one thread.
struct Unit {
    cpus: CpuMask,
    core: usize,
    /// Of a core that is not wholly usable.
    of_partly_used_core: bool,
}

/// The documented order. All numbers first: refusals, NUMA nodes, distance, near, disliked, liked, L3, left in NUMA nodes,
/// left in L3; then the lists.
type Key = (Vec<i64>, Vec<usize>, Vec<i64>, Vec<(usize, usize)>, Vec<(bool, usize)>);

impl Case {
    fn wish(&self) -> Wish {
        self.request.wish
    }

    fn usable(&self) -> CpuMask {
        let of_class = match self.wish().class {
            CpuClass::Regular => self.free.subtract(&self.shape.isolated),
            CpuClass::Isolated => self.free.intersect(&self.shape.isolated),
        };
        let with_disliked = self.shape.cpus_of(|core| self.shape.cpus(core).intersects(&self.around.disliked));
        of_class.subtract(&with_disliked)
    }

    fn units(&self) -> Vec<Unit> {
        let usable = self.usable();
        let mut units = Vec::new();
        for core in self.shape.order() {
            let cpus = self.shape.cpus(core);
            if self.wish().threads != Threads::Any {
                if cpus.is_subset(&usable) {
                    units.push(Unit { cpus, core, of_partly_used_core: false });
                }
                continue;
            }
            for cpu in cpus.iter().filter(|&cpu| usable.contains(cpu)) {
                let of_partly_used_core = !cpus.is_subset(&usable);
                units.push(Unit { cpus: CpuMask::from_ids([cpu]), core, of_partly_used_core });
            }
        }
        units
    }

    fn needed(&self) -> usize {
        let of = |container: &ContainerCpus| match self.wish().threads {
            Threads::WholeCores => container.cpus.div_ceil(self.shape.smt) as usize,
            Threads::OnePerCore | Threads::Any => container.cpus as usize,
        };
        let all = &self.request.containers;
        let running = all.iter().filter(|container| container.role != Role::Init).map(of).sum::<usize>();
        let starting = (0..all.len())
            .filter(|&i| all[i].role == Role::Init)
            .map(|i| of(&all[i]) + all[..i].iter().filter(|other| other.role == Role::Sidecar).map(of).sum::<usize>());
        starting.fold(running, usize::max)
    }

    fn group(&self, core: usize) -> (usize, usize) {
        (self.shape.numa[core], self.shape.l3[core])
    }

    /// Whether a CPU of that mask is in the same cache group.
    fn shares_cache(&self, core: usize, mask: &CpuMask) -> bool {
        self.shape.cpus_of(|other| self.group(other) == self.group(core)).intersects(mask)
    }

    /// The least of all ways to serve the request.
    fn brute_force(&self) -> Option<(Key, CpuMask)> {
        let (units, needed) = (self.units(), self.needed());
        let in_pool = self.free.subtract(&self.shape.isolated).len();
        let taken = needed as u32 * if self.wish().threads == Threads::Any { 1 } else { self.shape.smt };
        if needed == 0 || self.wish().class == CpuClass::Regular && taken + self.reserve > in_pool {
            return None;
        }
        let mut best: Option<Key> = None;
        for pick in (0u32..1 << units.len()).filter(|pick| pick.count_ones() as usize == needed) {
            let chosen: Vec<usize> = (0..units.len()).filter(|i| pick >> i & 1 == 1).collect();
            for bits in 1u32..1 << self.shape.distances.len() {
                let nodes: Vec<usize> = (0..self.shape.distances.len()).filter(|node| bits >> node & 1 == 1).collect();
                if let Some(key) = self.key(&units, &chosen, nodes)
                    && best.as_ref().is_none_or(|held| key < *held)
                {
                    best = Some(key);
                }
            }
        }
        let key = best?;
        let cpus = key.4.iter().flat_map(|&(_, position)| units[position].cpus.iter().collect::<Vec<_>>()).collect();
        Some((key, cpus))
    }

    /// None where it is refused.
    fn key(&self, units: &[Unit], chosen: &[usize], nodes: Vec<usize>) -> Option<Key> {
        let shape = &self.shape;
        let count = |of: &dyn Fn(usize) -> bool| chosen.iter().filter(|&&unit| of(units[unit].core)).count() as i64;
        let memory: u64 = nodes.iter().map(|&node| shape.memory_free_bytes[node]).sum();
        let pages: u64 = nodes.iter().map(|&node| self.pages[node]).sum();
        let wanted_pages: u64 = self.request.huge_pages.iter().map(|need| need.bytes.div_ceil(PAGE_BYTES)).sum();
        let groups: BTreeSet<(usize, usize)> = chosen.iter().map(|&unit| self.group(units[unit].core)).collect();
        let one_l3 = self.wish().cache == Cache::RequireOneL3;
        if chosen.iter().any(|&unit| !nodes.contains(&shape.numa[units[unit].core]))
            || memory < self.request.memory_bytes
            || pages < wanted_pages
            || self.wish().align == Align::SingleNuma && nodes.len() > 1
            || one_l3 && groups.len() > 1
        {
            return None;
        }
        let shares: Vec<i64> = nodes.iter().map(|&node| count(&|core| shape.numa[core] == node)).collect();
        let spread = self.wish().align == Align::Spread && !one_l3;
        let giving = shares.iter().filter(|&&share| share > 0).count() as i64;
        let distance: u32 = nodes
            .iter()
            .flat_map(|&a| nodes.iter().map(move |&b| (a, b)))
            .filter(|(a, b)| a != b)
            .map(|(a, b)| shape.distances[a][b])
            .sum();
        let free_in = |of: &dyn Fn(usize) -> bool| units.iter().filter(|unit| of(unit.core)).count() as i64;
        let left_in_nodes = free_in(&|core| nodes.contains(&shape.numa[core]));
        let left_in_caches = free_in(&|core| groups.contains(&self.group(core)));
        let fit = if self.wish().packing == Packing::BestFit { 1 } else { -1 };
        let (near, liked) = (&self.around.near, &self.around.liked);
        let measures = vec![
            if spread { -giving } else { 0 },
            if spread { shares.iter().map(|share| share * share).sum() } else { 0 },
            nodes.len() as i64,
            i64::from(distance),
            if near.is_empty() { 0 } else { count(&|core| !self.shares_cache(core, near)) },
            count(&|core| self.shares_cache(core, &self.around.disliked)),
            if liked.is_empty() { 0 } else { count(&|core| !self.shares_cache(core, liked)) },
            groups.len() as i64,
            fit * left_in_nodes,
            fit * left_in_caches,
        ];
        let larger_first = if spread { shares.iter().map(|share| -share).collect() } else { Vec::new() };
        let mut list: Vec<(bool, usize)> = chosen
            .iter()
            .map(|&unit| (self.wish().threads == Threads::Any && !units[unit].of_partly_used_core, unit))
            .collect();
        list.sort_unstable();
        Some((measures, nodes, larger_first, groups.into_iter().collect(), list))
    }

    fn check(&self) {
        let machine = self.shape.machine();
        let pages: Vec<NumaHugePages> =
            (0..).zip(&self.pages).map(|(node, &pages)| self.pages_of(node, pages)).collect();
        let free = NodeFree {
            cpus: &self.free,
            memory_free_bytes: &self.shape.memory_free_bytes,
            huge_pages: &pages,
            shared_reserve: self.reserve,
        };
        let verdict = choose(&machine, &free, &self.request, &self.around);
        let score = evaluate(&machine, &free, &self.request, &self.around);
        if self.around == Surroundings::default() {
            assert_eq!(FreeSummary::new(&machine, &free).evaluate(&machine, &self.request), score);
        }
        match (self.brute_force(), verdict) {
            (None, Verdict::DoesNotFit(no)) => {
                assert_eq!(score, Err(no));
                self.refused(&no);
            }
            (Some((key, expected)), Verdict::Fits(choice)) => {
                assert_eq!(choice.cpus, expected, "{self:?}: {key:?}");
                assert_eq!(score, Ok(choice.score));
                assert!(choice.score.alignment <= 100 && choice.score.holes <= 100);
                self.lawful(&machine, &choice, &key);
            }
            (expected, verdict) => panic!("{self:?}: {expected:?} but {verdict:?}"),
        }
    }

    fn pages_of(&self, node: usize, pages: u64) -> NumaHugePages {
        NumaHugePages { numa_node: Shape::numa_id(node), page_bytes: PAGE_BYTES, bytes: pages * PAGE_BYTES }
    }

    /// What is said to be for ever does not fit an empty machine either.
    fn refused(&self, no: &NoFit) {
        let for_ever = matches!(
            no,
            NoFit::LargerThanMachine { .. }
                | NoFit::TooFewIsolatedCpus { .. }
                | NoFit::LargerThanL3 { .. }
                | NoFit::LargerThanNumaNode { .. }
        );
        let all = self.shape.cpus_of(|_| true);
        if for_ever && all.len() <= 10 {
            let around = Surroundings { disliked: CpuMask::new(), ..self.around.clone() };
            let shape = Shape { memory_free_bytes: vec![1_000; self.pages.len()], ..self.shape.clone() };
            let empty =
                Self { shape, free: all, reserve: 0, pages: vec![1_000; self.pages.len()], around, ..self.clone() };
            assert_eq!(empty.brute_force(), None, "{self:?}: {no}");
        }
    }

    /// What every choice must be, whatever was asked.
    fn lawful(&self, machine: &Machine, choice: &Choice, key: &Key) {
        let wish = self.wish();
        assert!(choice.cpus.is_subset(&self.usable()));
        assert!(machine.whole_cores(&choice.cpus) == choice.cpus || wish.threads == Threads::Any);
        let all = &self.request.containers;
        let mut held = CpuMask::new();
        for (index, ((name, cpus), container)) in choice.containers.iter().zip(all).enumerate() {
            assert_eq!((name, cpus.len()), (&container.name, container.cpus));
            assert!(cpus.is_subset(&choice.cpus));
            let own = if wish.threads == Threads::Any { cpus.clone() } else { machine.whole_cores(cpus) };
            match wish.threads {
                Threads::WholeCores => assert_eq!(own.len(), container.cpus.div_ceil(self.shape.smt) * self.shape.smt),
                Threads::OnePerCore => assert_eq!(own.len(), container.cpus * self.shape.smt),
                Threads::Any => {}
            }
            if container.role == Role::Init {
                for sidecar in (0..index).filter(|&other| all[other].role == Role::Sidecar) {
                    assert!(
                        !own.intersects(&machine.whole_cores(&choice.containers[sidecar].1))
                            || wish.threads == Threads::Any
                    );
                    assert!(!own.intersects(&choice.containers[sidecar].1));
                }
            } else {
                assert!(!own.intersects(&held), "{self:?}: two containers that run together share a core");
                held.union_with(&own);
            }
        }
        self.lawful_memory(machine, choice, key);
        self.lawful_terms(choice, key);
    }

    fn lawful_memory(&self, machine: &Machine, choice: &Choice, key: &Key) {
        let bytes: u64 = choice.memory.iter().map(|(_, bytes)| bytes).sum();
        assert_eq!(bytes, self.request.memory_bytes);
        let wanted: u64 = self.request.huge_pages.iter().map(|need| need.bytes.div_ceil(PAGE_BYTES) * PAGE_BYTES).sum();
        assert_eq!(choice.huge_pages.iter().map(|pages| pages.bytes).sum::<u64>(), wanted);
        let nodes: BTreeSet<u32> = key.1.iter().map(|&node| Shape::numa_id(node)).collect();
        for (id, bytes) in &choice.memory {
            assert!(nodes.contains(id) && *bytes <= self.shape.memory_free_bytes[machine.numa_index(*id).unwrap()]);
        }
        for pages in &choice.huge_pages {
            let free = self.pages[machine.numa_index(pages.numa_node).unwrap()] * PAGE_BYTES;
            assert!(pages.bytes <= free && choice.memory.iter().any(|(id, _)| *id == pages.numa_node));
        }
    }

    fn lawful_terms(&self, choice: &Choice, key: &Key) {
        let terms = &choice.terms;
        assert_eq!((i64::from(terms.numa_nodes), terms.distance as i64), (key.0[2], key.0[3]), "{self:?}");
        assert_eq!(i64::from(terms.l3_touched), key.0[7]);
        let unit_cpus = if self.wish().threads == Threads::Any { 1 } else { i64::from(self.shape.smt) };
        assert_eq!(i64::from(terms.disliked_cpus), key.0[5] * unit_cpus);
        if !self.around.near.is_empty() {
            assert_eq!(i64::from(terms.near_cpus), i64::from(choice.cpus.len()) - key.0[4] * unit_cpus);
        }
        if !self.around.liked.is_empty() {
            assert_eq!(i64::from(terms.liked_cpus), i64::from(choice.cpus.len()) - key.0[6] * unit_cpus);
        }
    }
}

fn every_wish() -> Vec<Wish> {
    let mut all = Vec::new();
    for threads in [Threads::WholeCores, Threads::OnePerCore, Threads::Any] {
        for align in [Align::FewestNuma, Align::SingleNuma, Align::Spread] {
            for cache in [Cache::PreferOneL3, Cache::RequireOneL3] {
                for packing in [Packing::BestFit, Packing::Spread] {
                    for class in [CpuClass::Regular, CpuClass::Isolated] {
                        all.push(Wish { threads, align, cache, packing, class });
                    }
                }
            }
        }
    }
    all
}

fn one_container(cpus: u32, memory_bytes: u64, wish: Wish) -> CpuRequest {
    CpuRequest {
        containers: vec![ContainerCpus { name: "c".into(), cpus, ..ContainerCpus::default() }],
        memory_bytes,
        huge_pages: Vec::new(),
        wish,
    }
}

/// Every wish on every regular machine of up to eight CPUs, with free sets that follow one another in odd steps.
#[test]
fn every_wish_on_regular_machines() {
    let shapes = [
        (1, 1, 4, 2),
        (1, 2, 2, 2),
        (2, 1, 2, 2),
        (2, 2, 1, 2),
        (2, 2, 2, 1),
        (3, 1, 2, 1),
        (4, 1, 2, 1),
        (2, 0, 2, 2),
        (1, 2, 1, 4),
    ];
    let mut step = 0u32;
    for (numa, l3, cores, smt) in shapes {
        let mut shape = Shape::regular(smt, numa, l3, cores);
        let cpus = shape.cpus_of(|_| true);
        for wish in every_wish() {
            shape.isolated = if wish.class == CpuClass::Isolated || step.is_multiple_of(5) {
                cpus.iter().filter(|cpu| (cpu * 7 + step) % 5 < 3).collect()
            } else {
                CpuMask::new()
            };
            for _ in 0..6 {
                step += 1;
                let free: CpuMask = cpus.iter().filter(|cpu| ((step / 3) * 0x9E37) >> (cpu % 16) & 3 != 0).collect();
                let case = Case {
                    pages: vec![step as u64 % 3; numa],
                    reserve: step % 7 / 6,
                    request: one_container(1 + step % 4, [0, 150, 90][step as usize % 3], wish),
                    around: Surroundings::default(),
                    shape: shape.clone(),
                    free,
                };
                case.check();
            }
        }
    }
}

/// The left-over core of a pod that is spread goes where it breaks no larger L3: node 0 has one of one core for its share
/// of one, and would have to take the one of three for two.
#[test]
fn what_is_left_over_goes_where_it_fits() {
    let mut shape = Shape::regular(1, 2, 2, 2);
    shape.l3 = vec![0, 0, 0, 1, 0, 0, 1, 1];
    let wish = Wish { align: Align::Spread, ..Wish::default() };
    let case = Case {
        free: shape.cpus_of(|_| true),
        pages: vec![0; 2],
        reserve: 0,
        request: one_container(3, 0, wish),
        around: Surroundings::default(),
        shape,
    };
    case.check();
    assert_eq!(case.brute_force().unwrap().1.to_string(), "3-5");
}

fn wishes() -> impl Strategy<Value = Wish> {
    prop::sample::select(every_wish())
}

fn roles() -> impl Strategy<Value = Vec<ContainerCpus>> {
    let role = prop_oneof![3 => Just(Role::App), 1 => Just(Role::Sidecar), 1 => Just(Role::Init)];
    let container = (0u32..4, role).prop_map(|(cpus, role)| ContainerCpus { name: String::new(), cpus, role });
    prop::collection::vec(container, 1..3).prop_map(|mut all| {
        all.sort_by_key(|container| container.role == Role::App);
        (0..).zip(&mut all).for_each(|(index, container): (usize, _)| container.name = format!("c{index}"));
        all
    })
}

prop_compose! {
    /// Of the CPUs that the machine has those whose bit is set.
    fn mask(likely: u32)(bits in any::<u16>(), more in any::<u16>()) -> CpuMask {
        let bits = if likely > 50 { bits | more } else { bits & more };
        (0..16u32).filter(|cpu| bits >> cpu & 1 == 1).collect()
    }
}

prop_compose! {
    fn cases()(
        shape in irregular(),
        isolated in mask(80),
        some_isolated in prop::bool::weighted(0.3),
        free in mask(80),
        near in prop_oneof![2 => Just(CpuMask::new()), 1 => mask(20)],
        liked in prop_oneof![2 => Just(CpuMask::new()), 1 => mask(20)],
        disliked in prop_oneof![2 => Just(CpuMask::new()), 1 => mask(20)],
        containers in roles(),
        memory_bytes in prop_oneof![2 => Just(0u64), 1 => 0u64..400],
        huge in prop_oneof![2 => Just(0u64), 1 => 1u64..90],
        pages in prop::collection::vec(0u64..6, 6),
        wish in wishes(),
        reserve in prop_oneof![2 => Just(0u32), 1 => 0u32..4],
    ) -> Case {
        let mut shape = shape;
        // So many threads have too many subsets.
        if shape.smt * shape.cores() as u32 > 10 {
            shape.smt = 1;
        }
        let all = shape.cpus_of(|_| true);
        // Huge pages of a node without CPUs are not counted.
        let pages = (0..shape.distances.len()).map(|node| if shape.numa.contains(&node) { pages[node] } else { 0 });
        let huge_pages = if huge == 0 { Vec::new() } else { vec![HugePageNeed { page_bytes: PAGE_BYTES, bytes: huge }] };
        Case {
            pages: pages.collect(),
            reserve,
            free: free.intersect(&all),
            around: Surroundings {
                near: near.intersect(&all),
                liked: liked.intersect(&all),
                disliked: disliked.intersect(&all),
            },
            request: CpuRequest { containers, memory_bytes, huge_pages, wish },
            shape: Shape {
                isolated: if some_isolated || wish.class == CpuClass::Isolated { isolated.intersect(&all) } else { CpuMask::new() },
                ..shape
            },
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(700))]
    #[test]
    fn every_wish_on_odd_machines(case in cases()) {
        case.check();
    }
}
