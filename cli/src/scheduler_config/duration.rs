//! Go's notation of a duration, as far as a timeout needs it.

/// Milliseconds of `5s`, `1m30s`, `500ms`, `1.5s`; `None` for what is no duration. Parts finer than 1 ms are dropped.
pub(super) fn milliseconds(text: &str) -> Option<u64> {
    if text == "0" {
        return Some(0);
    }
    let mut rest = text;
    let mut sum_ms = 0u64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let (number, tail) = rest.split_at(end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, next) = tail.split_at(unit_end);
        sum_ms = sum_ms.checked_add(part_ms(number, unit)?)?;
        rest = next;
    }
    (!text.is_empty()).then_some(sum_ms)
}

fn part_ms(number: &str, unit: &str) -> Option<u64> {
    let unit_us: u64 = match unit {
        "ns" => 0,
        "us" | "µs" => 1,
        "ms" => 1_000,
        "s" => 1_000_000,
        "m" => 60_000_000,
        "h" => 3_600_000_000,
        _ => return None,
    };
    if number.is_empty() {
        return None;
    }
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut parts_us = whole.checked_mul(unit_us)?;
    let mut place_us = unit_us;
    for digit in fraction.chars() {
        place_us /= 10;
        parts_us = parts_us.checked_add(u64::from(digit.to_digit(10)?).checked_mul(place_us)?)?;
    }
    Some(parts_us / 1_000)
}

#[cfg(test)]
mod tests {
    use super::milliseconds;

    #[test]
    fn gos_notation_is_read() {
        let cases = [("5s", 5_000), ("1m30s", 90_000), ("500ms", 500), ("1.5s", 1_500), ("0", 0), ("1h", 3_600_000)];
        for (text, ms) in cases {
            assert_eq!(milliseconds(text), Some(ms), "{text}");
        }
        for text in ["", "5", "s", "5 s", "-5s", "5x", "1.2.3s", "99999999999999999999h", "ü"] {
            assert_eq!(milliseconds(text), None, "{text}");
        }
    }
}
