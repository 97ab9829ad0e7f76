//! Whole cores as words: a core is named by its lowest CPU, its lead, and siblings lie at a few distances from it.

use std::collections::BTreeMap;

use smallvec::SmallVec;

use super::Core;
use crate::CpuMask;

/// Words of a mask; without heap up to 1,024 CPUs.
pub(crate) type Words = SmallVec<[u64; 16]>;

/// Leads of one word that all have a sibling so many CPU ids above them.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Shift {
    word: u32,
    distance: u32,
    leads: u64,
}

/// The regular cores of a machine. Linux numbers siblings alike all over a machine, so there are about as many shifts as
/// words; never more than siblings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Siblings {
    leads: CpuMask,
    shifts: Box<[Shift]>,
}

impl Siblings {
    pub(super) fn of<'a>(regular: impl Iterator<Item = &'a Core>) -> Self {
        let mut leads = CpuMask::new();
        let mut shifts: BTreeMap<(u32, u32), u64> = BTreeMap::new();
        for core in regular {
            let mut cpus = core.cpus.iter();
            let Some(lead) = cpus.next() else { continue };
            leads.insert(lead);
            for sibling in cpus {
                *shifts.entry((lead / u64::BITS, sibling - lead)).or_default() |= 1 << (lead % u64::BITS);
            }
        }
        let shifts = shifts.into_iter().map(|((word, distance), leads)| Shift { word, distance, leads });
        Self { leads, shifts: shifts.collect() }
    }

    /// The leads of regular cores of which every thread is in `free` (words of a mask).
    pub(crate) fn whole(&self, free: &[u64]) -> Words {
        let mut whole: Words = self.leads.words().iter().zip(free).map(|(leads, free)| leads & free).collect();
        for shift in &self.shifts {
            let Some(word) = whole.get_mut(shift.word as usize) else { continue };
            *word &= !shift.leads | window(free, shift.word * u64::BITS + shift.distance);
        }
        whole
    }

    /// The cores of these leads, with all their threads.
    pub(crate) fn cores(&self, leads: &CpuMask) -> CpuMask {
        let leads = leads.words();
        let mut cores: Words = SmallVec::from_slice(leads);
        for shift in &self.shifts {
            let own = leads.get(shift.word as usize).copied().unwrap_or(0) & shift.leads;
            if own == 0 {
                continue;
            }
            let (skip, bits) = (shift.distance / u64::BITS, shift.distance % u64::BITS);
            let low = (shift.word + skip) as usize;
            add(&mut cores, low, own << bits);
            if bits > 0 {
                add(&mut cores, low + 1, own >> (u64::BITS - bits));
            }
        }
        CpuMask::from_words(&cores)
    }
}

/// 64 bits from `first` on.
fn window(words: &[u64], first: u32) -> u64 {
    let (low, bits) = ((first / u64::BITS) as usize, first % u64::BITS);
    let word = |index: usize| words.get(index).copied().unwrap_or(0);
    if bits == 0 { word(low) } else { word(low) >> bits | word(low + 1) << (u64::BITS - bits) }
}

fn add(words: &mut Words, index: usize, bits: u64) {
    if bits == 0 {
        return;
    }
    if index >= words.len() {
        words.resize(index + 1, 0);
    }
    words[index] |= bits;
}

#[cfg(test)]
mod tests {
    use super::Siblings;
    use crate::CpuMask;
    use crate::machine::{Core, SparseMask};
    use proptest::prelude::*;

    prop_compose! {
        /// Three threads a core, anywhere.
        fn cores()(ids in Just((0..240u32).collect::<Vec<_>>()).prop_shuffle(), count in 1usize..60) -> Vec<CpuMask> {
            ids.chunks(3).take(count).map(|ids| CpuMask::from_ids(ids.iter().copied())).collect()
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]
        #[test]
        fn whole_cores_are_found_and_made_whole_again(
            cores in cores(),
            taken in prop::collection::vec(0u32..300, 0..40),
            above in any::<bool>(),
        ) {
            let regular: Vec<Core> =
                cores.iter().map(|cpus| Core { cpus: cpus.clone(), threads: SparseMask::of(cpus) }).collect();
            let siblings = Siblings::of(regular.iter());
            let all: CpuMask = (0..if above { 300 } else { 200 }).collect();
            let free = all.subtract(&CpuMask::from_ids(taken));
            let within: Vec<&CpuMask> = cores.iter().filter(|cpus| cpus.is_subset(&free)).collect();
            let leads = CpuMask::from_words(&siblings.whole(free.words()));
            prop_assert_eq!(&leads, &within.iter().filter_map(|cpus| cpus.first()).collect());
            prop_assert_eq!(siblings.cores(&leads), within.iter().flat_map(|cpus| cpus.iter()).collect());
        }
    }
}
