//! What it takes to serve a demand from a list of cache groups, without saying yet which they are.

use smallvec::SmallVec;

use crate::demand::Supply;
use crate::pool::GroupFree;

/// What comes of it. Less is better, in this order; `left` depends on the packing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Fill {
    /// Units far from the devices.
    pub(crate) far: u32,
    /// Units beside disliked pods.
    pub(crate) disliked: u32,
    /// Units not beside liked pods.
    pub(crate) unliked: u32,
    /// Cache groups touched.
    pub(crate) caches: u32,
    /// Units left in the cache group if it is one, else 0: then the rest is told apart by the tie-breaker.
    pub(crate) left: u32,
}

impl Fill {
    /// Units of so many cache groups of one kind.
    fn take(&mut self, group: GroupFree, groups: u32, units: u32) {
        self.caches += groups;
        self.far += if group.appeal.is_far() { units } else { 0 };
        self.disliked += if group.appeal.is_disliked() { units } else { 0 };
        self.unliked += if group.appeal.is_unliked() { units } else { 0 };
    }

    fn and(self, other: Self) -> Self {
        Self {
            far: self.far + other.far,
            disliked: self.disliked + other.disliked,
            unliked: self.unliked + other.unliked,
            caches: self.caches + other.caches,
            left: 0,
        }
    }

    /// What a further unit costs.
    fn more_than(&self, less: &Self) -> [u32; 4] {
        [self.far - less.far, self.disliked - less.disliked, self.unliked - less.unliked, self.caches - less.caches]
    }
}

/// The most wanted of these cache groups first, and of equally wanted ones the fewest. They are counted by kind, in
/// [`GroupFree::order`], and have enough. To take all of what is wanted more and as much of what is wanted less as is
/// missing is the least in each of the three measures of appeal, in their order; only of the last kind there is a choice
/// left.
pub(crate) fn fill(groups: impl Iterator<Item = (GroupFree, u32)>, units: u32, tight: bool) -> Fill {
    let mut result = Fill::default();
    let mut missing = units;
    let mut lone = None;
    for (group, count) in groups {
        let free = u32::from(group.free);
        if missing > 0 {
            // Mostly one is enough, and a division the dearest of it all.
            let (touched, taken) = match free * count {
                _ if free >= missing => (1, missing),
                all if all <= missing => (count, all),
                _ => (missing.div_ceil(free), missing),
            };
            result.take(group, touched, taken);
            missing -= taken;
            if missing == 0 && result.caches == 1 {
                (result.left, lone) = (free - units, Some(group.appeal));
            }
        } else if tight && lone == Some(group.appeal) && free >= units {
            // The last one that holds them all is the tightest.
            result.left = free - units;
        } else {
            break;
        }
    }
    result
}

/// The most wanted cache group that holds all, and of equals the tightest or the emptiest.
pub(crate) fn fill_one(groups: impl Iterator<Item = GroupFree>, units: u32, tight: bool) -> Option<Fill> {
    let mut holding = groups.filter(|group| u32::from(group.free) >= units);
    let first = holding.next()?;
    let last = if tight { holding.take_while(|group| group.appeal == first.appeal).last() } else { None };
    let mut result = Fill::default();
    result.take(first, 1, units);
    result.left = u32::from(last.unwrap_or(first).free) - units;
    Some(result)
}

/// How many units each of these NUMA nodes gives if they give as evenly as they can, and what that takes.
///
/// The level rises until the units are dealt out. Those that are left over, fewer than nodes that have more to give, go
/// where they cost least: by the measures of [`Fill`], then by `touched` (asked for a node and its units), then to the
/// lowest.
pub(crate) fn evenly(
    supply: &Supply<'_>,
    nodes: &[u16],
    units: u32,
    tight: bool,
    touched: &mut impl FnMut(u16, u32) -> i64,
) -> (SmallVec<[u32; 16]>, Fill) {
    let pool = supply.pool;
    let free = |position: u16| u32::from(pool.nodes()[usize::from(position)].free);
    let up_to = |level: u32| nodes.iter().map(|&position| free(position).min(level)).sum::<u32>();
    let (mut level, mut above) = (0, units + 1);
    while level + 1 < above {
        let middle = u32::midpoint(level, above);
        *(if up_to(middle) <= units { &mut level } else { &mut above }) = middle;
    }
    let mut shares: SmallVec<[u32; 16]> = nodes.iter().map(|&position| free(position).min(level)).collect();
    let of_node = |position: u16, units: u32| {
        let groups = pool.groups_of(usize::from(position)).iter().take_while(|group| group.free > 0);
        fill(groups.map(|&group| (group, 1)), units, tight)
    };
    let left_over = (units - shares.iter().sum::<u32>()) as usize;
    if left_over > 0 {
        let mut costs: SmallVec<[([u32; 4], i64, usize); 16]> = SmallVec::new();
        for (index, &position) in nodes.iter().enumerate().filter(|&(_, &position)| free(position) > level) {
            let cost = of_node(position, level + 1).more_than(&of_node(position, level));
            let touched_more = touched(position, level + 1) - touched(position, level);
            costs.push((cost, touched_more, index));
        }
        costs.sort_unstable();
        for &(_, _, index) in costs.iter().take(left_over) {
            shares[index] += 1;
        }
    }
    let sum = nodes.iter().zip(&shares).map(|(&position, &share)| of_node(position, share));
    let all = sum.fold(Fill::default(), Fill::and);
    (shares, all)
}
