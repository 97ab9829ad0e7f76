//! Amounts and ages as people write them.
use jiff::Timestamp;

/// An amount of a resource: `cpu` is in milli-CPU, byte resources get the largest unit that keeps them readable.
pub(crate) fn amount(resource: &str, value: u64) -> String {
    if resource == "cpu" {
        return if value.is_multiple_of(1000) { (value / 1000).to_string() } else { format!("{value}m") };
    }
    let is_bytes = matches!(resource, "memory" | "ephemeral-storage") || resource.starts_with("hugepages-");
    if is_bytes { bytes(value) } else { value.to_string() }
}

/// `8Gi`, `1.5Gi` (one decimal, rounded down), `300`.
pub(crate) fn bytes(value: u64) -> String {
    const UNITS: [(&str, u32); 4] = [("Ti", 40), ("Gi", 30), ("Mi", 20), ("Ki", 10)];
    for (name, bits) in UNITS {
        let whole = value >> bits;
        if whole > 0 {
            let rest = value & ((1 << bits) - 1);
            // rest < 2^bits ≤ 2^40: ten times it fits.
            let tenths = (rest * 10) >> bits;
            return if tenths == 0 { format!("{whole}{name}") } else { format!("{whole}.{tenths}{name}") };
        }
    }
    value.to_string()
}

/// Time since `then`, as kubectl prints ages.
pub(crate) fn age(now: Timestamp, then: Timestamp) -> String {
    let seconds = now.as_second().saturating_sub(then.as_second()).max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts() {
        assert_eq!(amount("cpu", 4_000), "4");
        assert_eq!(amount("cpu", 1_500), "1500m");
        assert_eq!(amount("memory", 8 << 30), "8Gi");
        assert_eq!(amount("memory", (3 << 30) / 2), "1.5Gi");
        assert_eq!(amount("memory", 1023), "1023");
        assert_eq!(amount("hugepages-2Mi", 4 << 20), "4Mi");
        assert_eq!(amount("pods", 2048), "2048");
        assert_eq!(amount("memory", u64::MAX), "16777215.9Ti");
    }

    #[test]
    fn ages() {
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(age(at(100), at(41)), "59s");
        assert_eq!(age(at(600), at(0)), "10m");
        assert_eq!(age(at(0), at(600)), "0s", "clocks differ");
        assert_eq!(age(at(864_000), at(0)), "10d");
    }
}
