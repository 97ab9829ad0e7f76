//! Bounds of hwloc's synthetic descriptions, judged before hwloc starts to build one.

use std::collections::BTreeSet;

use fairlead_topology::MAX_CPUS;

use crate::DiscoveryError;

/// Refuses a description whose levels multiply to more than [`MAX_CPUS`], before hwloc starts to build it.
pub(super) fn bounded(text: &str) -> Result<(), DiscoveryError> {
    let mut depth = 0u32;
    // What stands in brackets (attributes, memory beside a level) multiplies nothing.
    let levels: String = text
        .chars()
        .filter(|&character| {
            let before = depth;
            match character {
                '(' | '[' => depth += 1,
                ')' | ']' => depth = depth.saturating_sub(1),
                _ => {}
            }
            before == 0 && depth == 0
        })
        .collect();
    distinct_indexes(text)?;
    let mut objects = 1u64;
    for item in levels.split_whitespace() {
        let count = item.rsplit(':').next().unwrap_or(item);
        let all_digits = count.bytes().all(|byte| byte.is_ascii_digit());
        let Some(count) = all_digits.then(|| count.parse::<u64>().unwrap_or(u64::MAX)).filter(|_| !count.is_empty())
        else {
            return Err(DiscoveryError::SyntheticLevel { text: text.to_owned(), item: item.to_owned() });
        };
        objects = objects.saturating_mul(count);
        if objects > u64::from(MAX_CPUS) {
            return Err(DiscoveryError::SyntheticTooLarge { text: text.to_owned(), max: MAX_CPUS });
        }
    }
    Ok(())
}

/// Two objects of one number: hwloc ends the process over them.
fn distinct_indexes(text: &str) -> Result<(), DiscoveryError> {
    for list in text.split("indexes=").skip(1) {
        let list = list.split([')', ' ', ']']).next().unwrap_or_default();
        // Anything else is a permutation (2*32:1*2, or types of objects), which hwloc checks.
        if !list.bytes().all(|byte| byte.is_ascii_digit() || byte == b',') {
            continue;
        }
        let mut seen = BTreeSet::new();
        for item in list.split(',').filter(|item| !item.is_empty()) {
            if !seen.insert(item.parse::<u64>().unwrap_or(u64::MAX)) {
                return Err(DiscoveryError::SyntheticIndex { text: text.to_owned(), index: item.to_owned() });
            }
        }
    }
    Ok(())
}
