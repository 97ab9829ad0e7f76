//! Laws of CPU masks, against ordinary sets.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail a test")]

use std::collections::BTreeSet;

use fairlead_topology::{CpuListError, CpuMask, MAX_CPUS};
use proptest::prelude::*;

fn ids() -> impl Strategy<Value = BTreeSet<u32>> {
    // Dense near zero, sparse far out, so that runs, gaps and several words all come up.
    prop::collection::btree_set(prop_oneof![4 => 0u32..80, 2 => 100u32..400, 1 => 0u32..MAX_CPUS], 0..40)
}

fn mask(ids: &BTreeSet<u32>) -> CpuMask {
    CpuMask::from_ids(ids.iter().copied())
}

fn set(mask: &CpuMask) -> BTreeSet<u32> {
    mask.iter().collect()
}

fn hash(mask: &CpuMask) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    mask.hash(&mut hasher);
    hasher.finish()
}

proptest! {
    #[test]
    fn operations_are_those_of_sets(a in ids(), b in ids()) {
        let (x, y) = (mask(&a), mask(&b));
        prop_assert_eq!(set(&x.union(&y)), &a | &b);
        prop_assert_eq!(set(&x.intersect(&y)), &a & &b);
        prop_assert_eq!(set(&x.subtract(&y)), &a - &b);
        prop_assert_eq!(x.is_subset(&y), a.is_subset(&b));
        prop_assert_eq!(x.intersects(&y), !a.is_disjoint(&b));
        prop_assert_eq!(x.len() as usize, a.len());
        prop_assert_eq!(x.is_empty(), a.is_empty());
        prop_assert_eq!((x.first(), x.last()), (a.first().copied(), a.last().copied()));
        prop_assert_eq!(x == y, a == b);
    }

    #[test]
    fn equal_sets_are_equal_values(a in ids(), b in ids()) {
        // Whatever way a set was reached, it is the same value.
        let detour = mask(&a).union(&mask(&b)).subtract(&mask(&(&b - &a)));
        prop_assert_eq!(&detour, &mask(&a));
        prop_assert_eq!(hash(&detour), hash(&mask(&a)));
        prop_assert_eq!(detour.cmp(&mask(&a)), std::cmp::Ordering::Equal);
        prop_assert_ne!(detour.words().last(), Some(&0));
    }

    #[test]
    fn insert_and_remove_tell_the_truth(a in ids(), id in 0u32..500) {
        let mut changed = mask(&a);
        prop_assert_eq!(changed.insert(id), !a.contains(&id));
        prop_assert!(changed.contains(id));
        prop_assert!(changed.remove(id));
        prop_assert!(!changed.remove(id));
        prop_assert_eq!(changed, mask(&a.into_iter().filter(|&other| other != id).collect()));
    }

    #[test]
    fn a_range_is_its_ids(a in ids(), first in 0u32..400, length in 0u32..200) {
        let mut filled = mask(&a);
        let last = first + length;
        filled.insert_range(first, last);
        prop_assert_eq!(set(&filled), &a | &(first..=last).collect());
        filled.insert_range(last + 1, last);
        prop_assert_eq!(set(&filled), &a | &(first..=last).collect());
    }

    #[test]
    fn text_and_serde_round_trip(a in ids()) {
        let original = mask(&a);
        prop_assert_eq!(&CpuMask::parse_list(&original.to_string()).unwrap(), &original);
        let json = serde_json::to_string(&original).unwrap();
        prop_assert_eq!(serde_json::from_str::<CpuMask>(&json).unwrap(), original);
    }

    #[test]
    fn any_text_is_a_mask_or_an_error(text in "[0-9,\\- ]{0,30}|\\PC{0,10}") {
        if let Ok(parsed) = CpuMask::parse_list(&text) {
            prop_assert_eq!(CpuMask::parse_list(&parsed.to_string()).unwrap(), parsed);
        }
    }
}

#[test]
fn kernel_lists() {
    let parse = |text| CpuMask::parse_list(text);
    assert_eq!(parse("0-3,8,10-11\n").unwrap().to_string(), "0-3,8,10-11");
    assert_eq!(parse(" 9, 1-2 ,2-4").unwrap().to_string(), "1-4,9");
    assert_eq!(parse("").unwrap(), CpuMask::new());
    assert_eq!(parse("16383").unwrap().len(), 1);
    for text in ["1,,2", "a", "1-", "-1", "1-2-3", "+1", "0-7:2/4", "٣"] {
        assert!(matches!(parse(text), Err(CpuListError::NotANumber { .. })), "{text}");
    }
    assert_eq!(parse("3-1"), Err(CpuListError::Backwards { item: "3-1".into() }));
    for text in ["16384", "0-4294967295", "99999999999999999999"] {
        assert!(matches!(parse(text), Err(CpuListError::OutOfRange { max: 16_383, .. })), "{text}");
    }
    assert!(parse(&"x".repeat(10_000)).unwrap_err().to_string().len() < 200);
}
