//! hwloc's synthetic descriptions, judged by a stricter grammar before hwloc builds one.
//!
//! hwloc reads what it can and ignores the rest; some texts keep it busy for hours, or end the process by an assertion.
//! So only this is handed on: levels `type:count` or `count`, memory in brackets beside them without a count, each with
//! attributes in parentheses: `memory=`, `size=` and `memorysidecachesize=` with a number and a unit, and `indexes=` with
//! different numbers below 16,384, with loops (`2*32:1*2`), or with types of objects (`core:pu`).

use std::collections::BTreeSet;

use fairlead_topology::MAX_CPUS;

use crate::DiscoveryError;

/// Longest number hwloc is given as a size: below 2^63 with any unit.
const SIZE_DIGITS_MAX: usize = 9;

/// Most objects of a level within one of the level above: hwloc's time grows with the cube of it, and 4,096 take a minute.
const WIDTH_MAX: u64 = 1024;

/// Most memory objects beside the levels, of all levels together.
const MEMORIES_MAX: usize = 16;

/// Refuses what is not of the grammar, and levels or loops that multiply to more than [`MAX_CPUS`].
pub(super) fn screen(text: &str) -> Result<(), DiscoveryError> {
    let wrong = |item: &str| DiscoveryError::SyntheticLevel { text: text.to_owned(), item: item.to_owned() };
    let mut objects = 1u64;
    let mut memories = 0;
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (item, after) = item(rest).ok_or_else(|| wrong(rest))?;
        rest = after.trim_start();
        let memory = item.strip_prefix('[');
        let inside = memory.map_or(item, |memory| memory.trim_end_matches(']').trim());
        let (name, list) = inside.split_once('(').unwrap_or((inside, ")"));
        attributes(text, list.trim_end().strip_suffix(')').ok_or_else(|| wrong(item))?)?;
        if memory.is_some() {
            memories += 1;
            if !is_word(name) || memories > MEMORIES_MAX {
                return Err(wrong(item));
            }
            continue;
        }
        let (kind, count) = name.split_once(':').unwrap_or(("pu", name));
        let count = number(count).filter(|_| is_word(kind)).ok_or_else(|| wrong(item))?;
        objects = objects.saturating_mul(count);
        if count > WIDTH_MAX && objects <= u64::from(MAX_CPUS) {
            return Err(DiscoveryError::SyntheticTooWide {
                text: text.to_owned(),
                item: item.to_owned(),
                max: WIDTH_MAX,
            });
        }
        if objects > u64::from(MAX_CPUS) {
            return Err(DiscoveryError::SyntheticTooLarge { text: text.to_owned(), max: MAX_CPUS });
        }
    }
    Ok(())
}

/// One level or memory with its attributes, and what follows; none where brackets are not closed.
fn item(text: &str) -> Option<(&str, &str)> {
    let end = if text.starts_with('[') {
        text.find(']')? + 1
    } else {
        let word = text.find(|character: char| character.is_ascii_whitespace() || matches!(character, '(' | '['));
        match word {
            Some(at) if text[at..].starts_with('(') => at + text[at..].find(')')? + 1,
            Some(at) => at,
            None => text.len(),
        }
    };
    Some(text.split_at(end))
}

fn attributes(text: &str, list: &str) -> Result<(), DiscoveryError> {
    for item in list.split_ascii_whitespace() {
        let wrong = || DiscoveryError::SyntheticLevel { text: text.to_owned(), item: item.to_owned() };
        let (key, value) = item.split_once('=').ok_or_else(wrong)?;
        match key {
            "memory" | "size" | "memorysidecachesize" => {
                let digits = value.trim_end_matches(|character: char| character.is_ascii_alphabetic());
                let unit = &value[digits.len()..];
                let known = ["", "B", "kB", "KB", "KiB", "MB", "MiB", "GB", "GiB", "TB", "TiB"].contains(&unit);
                let fits = digits.len() <= SIZE_DIGITS_MAX || (unit.is_empty() && digits.len() <= 2 * SIZE_DIGITS_MAX);
                if !known || !fits || number(digits).is_none() {
                    return Err(wrong());
                }
            }
            "indexes" if value.contains('*') => {
                let product = value.split(':').try_fold(1u64, |product, one| {
                    let (step, count) = one.split_once('*')?;
                    number(step).filter(|&step| step > 0 && step <= u64::from(MAX_CPUS))?;
                    let product = product.checked_mul(number(count).filter(|&count| count > 0)?)?;
                    Some(product).filter(|&product| product <= u64::from(MAX_CPUS))
                });
                product.ok_or_else(wrong)?;
            }
            "indexes" if value.contains(|character: char| character.is_ascii_digit()) && !value.contains(':') => {
                distinct(text, value, wrong)?;
            }
            "indexes" if value.split(':').all(is_word) => {}
            _ => return Err(wrong()),
        }
    }
    Ok(())
}

fn distinct(text: &str, list: &str, wrong: impl Fn() -> DiscoveryError) -> Result<(), DiscoveryError> {
    let mut seen = BTreeSet::new();
    for index in list.split(',') {
        // hwloc makes a bit set as long as the highest of them.
        let number = number(index).filter(|&number| number < u64::from(MAX_CPUS)).ok_or_else(&wrong)?;
        if !seen.insert(number) {
            return Err(DiscoveryError::SyntheticIndex { text: text.to_owned(), index: index.to_owned() });
        }
    }
    Ok(())
}

/// A decimal number, or the highest there is for one above it; hwloc would read a leading zero as octal.
fn number(digits: &str) -> Option<u64> {
    let decimal = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let plain = decimal && (digits == "0" || !digits.starts_with('0'));
    plain.then(|| digits.parse().unwrap_or(u64::MAX))
}

fn is_word(text: &str) -> bool {
    text.starts_with(|character: char| character.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}
