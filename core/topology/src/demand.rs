//! What a request comes down to on one machine, or why it cannot be had there.

use crate::free::Rest;
use crate::pool::Pool;
use crate::{Align, Cache, CpuClass, CpuRequest, HugePageNeed, NoFit, Packing, Wish};

/// How the units of a request may lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Span {
    /// Anywhere: all NUMA nodes chosen give together.
    Together,
    /// In one cache group.
    OneL3,
    /// In so many NUMA nodes (two at least), as evenly as they can.
    Nodes(u32),
}

/// A request in units: whole cores, or threads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Demand<'a> {
    /// At least 1.
    pub(crate) units: u32,
    pub(crate) memory_bytes: u64,
    pub(crate) huge_pages: &'a [HugePageNeed],
    pub(crate) wish: Wish,
    pub(crate) span: Span,
}

impl Demand<'_> {
    /// Whether the tightest of equal places is wanted, not the emptiest.
    pub(crate) fn tight(&self) -> bool {
        self.wish.packing == Packing::BestFit
    }

    /// So much of [`Demand::gift`] is enough.
    pub(crate) fn gifts_wanted(&self) -> u32 {
        match self.span {
            Span::Together => self.units,
            Span::OneL3 => 1,
            Span::Nodes(count) => count,
        }
    }

    /// What a NUMA node with so much free, and so much in one cache group, contributes.
    pub(crate) fn gift(&self, free: u16, most_in_l3: u16) -> u32 {
        match self.span {
            Span::Together => u32::from(free),
            Span::OneL3 => u32::from(u32::from(most_in_l3) >= self.units),
            Span::Nodes(_) => u32::from(free > 0),
        }
    }
}

/// What is there for one request: the pool that it is served from, and what all pools have in common.
#[derive(Clone, Copy)]
pub(crate) struct Supply<'a> {
    pub(crate) rest: &'a Rest,
    pub(crate) pool: &'a Pool,
}

impl Supply<'_> {
    /// The request in units, if the sums allow it. Without wishes sums suffice: all NUMA nodes together are one of the sets
    /// that are searched.
    pub(crate) fn demand<'r>(&self, request: &'r CpuRequest) -> Result<Demand<'r>, NoFit> {
        let pool = self.pool;
        let wish = request.wish;
        let isolated = wish.class == CpuClass::Isolated;
        let units = request.units(self.rest.smt_width);
        let needed_cpus = units.saturating_mul(u64::from(pool.unit_cpus));
        let cpus = |units: u32| units * pool.unit_cpus;
        if units == 0 {
            return Err(NoFit::NothingRequested);
        }
        if units > u64::from(pool.total) && isolated {
            return Err(NoFit::TooFewIsolatedCpus { needed_cpus, isolated_cpus: cpus(pool.total) });
        }
        if units > u64::from(pool.total) {
            return Err(NoFit::LargerThanMachine { needed_cpus, machine_cpus: cpus(pool.total) });
        }
        if wish.cache == Cache::RequireOneL3 && units > u64::from(pool.largest_l3) {
            return Err(NoFit::LargerThanL3 { needed_cpus, l3_cpus: cpus(pool.largest_l3) });
        }
        if wish.align == Align::SingleNuma && units > u64::from(pool.largest_numa) {
            return Err(NoFit::LargerThanNumaNode { needed_cpus, numa_cpus: cpus(pool.largest_numa) });
        }
        if units > u64::from(pool.free) && isolated {
            return Err(NoFit::NotEnoughIsolatedCpus { needed_cpus, free_cpus: cpus(pool.free) });
        }
        if units > u64::from(pool.free) {
            return Err(NoFit::NotEnoughFreeCpus { needed_cpus, free_cpus: cpus(pool.free) });
        }
        // Isolated CPUs are no part of the shared pool.
        if needed_cpus > u64::from(self.rest.spare_cpus) && !isolated {
            return Err(NoFit::SharedReserve { needed_cpus, spare_cpus: self.rest.spare_cpus });
        }
        self.rest.refuse_memory(request)?;
        let units = units as u32;
        let span = self.span(units, &wish);
        Ok(Demand { units, memory_bytes: request.memory_bytes, huge_pages: &request.huge_pages, wish, span })
    }

    fn span(&self, units: u32, wish: &Wish) -> Span {
        if wish.cache == Cache::RequireOneL3 {
            return Span::OneL3;
        }
        if wish.align != Align::Spread {
            return Span::Together;
        }
        let giving = self.pool.nodes().iter().filter(|node| node.free > 0).count() as u32;
        match giving.min(units) {
            0 | 1 => Span::Together,
            nodes => Span::Nodes(nodes),
        }
    }

    /// What a search that found nothing comes to: only wishes for one L3 or one NUMA node leave such a case.
    pub(crate) fn nothing_found(&self, demand: &Demand<'_>) -> NoFit {
        let cpus = |units: u32| units * self.pool.unit_cpus;
        let needed_cpus = u64::from(cpus(demand.units));
        let nodes = self.pool.nodes().iter();
        let most_in_l3 = nodes.clone().map(|node| u32::from(node.most_in_l3)).max().unwrap_or(0);
        if demand.span == Span::OneL3 && most_in_l3 < demand.units {
            return NoFit::NotOneL3 { needed_cpus, free_cpus: cpus(most_in_l3) };
        }
        let most_in_node = nodes.map(|node| u32::from(node.free)).max().unwrap_or(0);
        NoFit::NotOneNumaNode { needed_cpus, needed_bytes: demand.memory_bytes, free_cpus: cpus(most_in_node) }
    }
}
