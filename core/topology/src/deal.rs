//! What was chosen is dealt to the containers.

use std::cmp::Reverse;

use smallvec::SmallVec;

use crate::machine::SparseMask;
use crate::{CpuMask, CpuRequest, Machine, Role, Threads};

/// Units taken from one cache group: threads, or whole cores by their leads.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    /// Dense index of the NUMA node.
    pub(crate) numa: usize,
    /// Dense index of the cache group.
    pub(crate) group: usize,
    pub(crate) units: SparseMask,
}

/// In the order of their cache groups.
pub(crate) type Parts = SmallVec<[Part; 16]>;

/// What one container draws: position of the part, units.
type Drawn = SmallVec<[(usize, SparseMask); 4]>;

/// How units read.
#[derive(Clone, Copy)]
pub(crate) struct Dealer<'a> {
    pub(crate) machine: &'a Machine,
    /// Units are threads of cores with several.
    pub(crate) single: bool,
}

impl Dealer<'_> {
    pub(crate) fn deal(self, request: &CpuRequest, parts: &Parts) -> Vec<(String, CpuMask)> {
        let containers = &request.containers;
        let needed = |index: usize| request.units_of(containers[index].cpus, self.machine.smt_width());
        let mut drawn: SmallVec<[Drawn; 4]> = SmallVec::from_elem(Drawn::new(), containers.len());
        let of_role = |init: bool| (0..containers.len()).filter(move |&i| (containers[i].role == Role::Init) == init);
        let mut running: SmallVec<[usize; 8]> = of_role(false).collect();
        running.sort_unstable_by_key(|&index| (Reverse(containers[index].cpus), index));
        let mut left = parts.clone();
        for index in running {
            drawn[index] = self.draw(&mut left, needed(index));
        }
        for index in of_role(true) {
            let mut left = parts.clone();
            for sidecar in (0..index).filter(|&other| containers[other].role == Role::Sidecar) {
                for (part, units) in &drawn[sidecar] {
                    left[*part].units = left[*part].units.without(units);
                }
            }
            drawn[index] = self.draw(&mut left, needed(index));
        }
        let cpus = |drawn: &Drawn, wanted: u32| self.cpus(request.wish.threads, wanted, drawn);
        let named = containers.iter().zip(&drawn);
        named.map(|(container, drawn)| (container.name.clone(), cpus(drawn, container.cpus))).collect()
    }

    /// Takes `count` units out of the parts for one container.
    fn draw(self, parts: &mut Parts, count: u32) -> Drawn {
        let sizes: SmallVec<[u32; 16]> = parts.iter().map(|part| part.units.len()).collect();
        let filled = || (0..sizes.len()).filter(|&part| sizes[part] > 0);
        if let Some(part) = filled().filter(|&part| sizes[part] >= count).min_by_key(|&part| (sizes[part], part)) {
            return self.take(parts, part, count).into_iter().collect();
        }
        let mut nodes: SmallVec<[(usize, u32); 16]> = SmallVec::new();
        for part in filled() {
            match nodes.last_mut() {
                Some((numa, left)) if *numa == parts[part].numa => *left += sizes[part],
                _ => nodes.push((parts[part].numa, sizes[part])),
            }
        }
        let holding = nodes.iter().copied().filter(|&(_, left)| left >= count);
        if let Some(tight) = holding.min_by_key(|&(numa, left)| (left, numa)) {
            nodes = SmallVec::from_elem(tight, 1);
        } else {
            nodes.sort_unstable_by_key(|&(numa, left)| (Reverse(left), numa));
        }
        let (mut drawn, mut missing) = (Drawn::new(), count);
        for (numa, _) in nodes {
            let mut own: SmallVec<[usize; 16]> = filled().filter(|&part| parts[part].numa == numa).collect();
            own.sort_unstable_by_key(|&part| (Reverse(sizes[part]), part));
            for part in own {
                let more = missing.min(sizes[part]);
                drawn.extend(self.take(parts, part, more));
                missing -= more;
            }
        }
        drawn.sort_unstable_by_key(|(part, _)| *part);
        drawn
    }

    /// The lowest units of one part; none if none are wanted.
    fn take(self, parts: &mut Parts, part: usize, count: u32) -> Option<(usize, SparseMask)> {
        let own = &mut parts[part];
        let taken = self.lowest(own.group, &own.units, count);
        own.units = own.units.without(&taken);
        (!taken.is_empty()).then_some((part, taken))
    }

    /// The lowest of these units of a cache group: the order of threads is that of their cores.
    pub(crate) fn lowest(self, group: usize, units: &SparseMask, count: u32) -> SparseMask {
        if !self.single || count >= units.len() {
            return units.lowest(count);
        }
        let mut taken = CpuMask::new();
        let mut missing = count;
        for core in &self.machine.cores()[self.machine.groups()[group].regular.clone()] {
            let threads = core.threads.common(units).lowest(missing);
            missing -= threads.len();
            threads.add_to(&mut taken);
            if missing == 0 {
                break;
            }
        }
        SparseMask::of(&taken)
    }

    /// The CPUs that a container runs on.
    fn cpus(self, wish: Threads, wanted: u32, drawn: &Drawn) -> CpuMask {
        let all = self.union(drawn.iter().map(|(_, units)| units));
        let width = self.machine.smt_width();
        if self.single || wish == Threads::OnePerCore {
            return all;
        }
        let siblings = self.machine.siblings();
        let odd = wanted % width;
        let last = drawn.last().and_then(|(_, units)| units.last()).and_then(|lead| self.machine.core_of(lead));
        let Some(last) = last.filter(|_| odd > 0) else {
            return siblings.cores(&all);
        };
        // Of the last core only some threads.
        let last = &self.machine.cores()[last].threads;
        let mut cpus = siblings.cores(&all);
        cpus.subtract_with(&self.union([last].into_iter()));
        last.lowest(odd).add_to(&mut cpus);
        cpus
    }

    /// All CPUs of these parts.
    pub(crate) fn taken(self, parts: &Parts) -> CpuMask {
        let all = self.union(parts.iter().map(|part| &part.units));
        if self.single { all } else { self.machine.siblings().cores(&all) }
    }

    fn union<'b>(self, units: impl DoubleEndedIterator<Item = &'b SparseMask>) -> CpuMask {
        let mut all = CpuMask::new();
        units.rev().for_each(|units| units.add_to(&mut all));
        all
    }
}
