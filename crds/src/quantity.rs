//! Kubernetes quantities: integers or strings on the wire, exact integers for us.
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};
use std::borrow::Cow;
use std::fmt;

/// An amount of a resource, for example `4`, `"500m"` or `"64Gi"`; never negative.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Default)]
#[serde(transparent)]
pub struct Quantity(String);

/// Why a text is no quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Neither a number nor a number with a suffix.
    #[error(
        "quantity {text:?} is not a non-negative number with an optional suffix (n u m k M G T P E, Ki Mi Gi Ti Pi Ei, or e3)"
    )]
    Malformed {
        /// The text as found.
        text: String,
    },
    /// Larger than 2^64 − 1 of the unit asked for.
    #[error("quantity {text:?} is larger than 18446744073709551615 {unit}")]
    TooLarge {
        /// The text as found.
        text: String,
        /// `units` or `milli-units`.
        unit: &'static str,
    },
}

impl Quantity {
    /// Takes the text as it is; it is parsed only when an amount is asked for.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// A whole number of units.
    #[must_use]
    pub fn from_units(units: u64) -> Self {
        Self(units.to_string())
    }

    /// Milli-units, written without a suffix where it is a whole number.
    #[must_use]
    pub fn from_milli(milli: u64) -> Self {
        if milli.is_multiple_of(1000) { Self((milli / 1000).to_string()) } else { Self(format!("{milli}m")) }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Milli-units, rounded up as `resource.Quantity.MilliValue` does (`k8s.io/apimachinery/pkg/api/resource`).
    ///
    /// # Errors
    /// The text is malformed, or larger than a `u64` of milli-units.
    pub fn milli(&self) -> Result<u64, QuantityError> {
        milli(&self.0)
    }

    /// Whole units, rounded up as `resource.Quantity.Value` does.
    ///
    /// # Errors
    /// The text is malformed, or larger than a `u64` of units.
    pub fn units(&self) -> Result<u64, QuantityError> {
        units(&self.0)
    }
}

/// Milli-units of a quantity's text, rounded up.
///
/// # Errors
/// The text is malformed, or larger than a `u64` of milli-units.
pub fn milli(text: &str) -> Result<u64, QuantityError> {
    scaled(text, 3, "milli-units")
}

/// Whole units of a quantity's text, rounded up.
///
/// # Errors
/// The text is malformed, or larger than a `u64` of units.
pub fn units(text: &str) -> Result<u64, QuantityError> {
    scaled(text, 0, "units")
}

/// Decimal exponent or binary multiplier of a suffix.
fn suffix(text: &str) -> Option<(i32, u128)> {
    Some(match text {
        "" => (0, 1),
        "n" => (-9, 1),
        "u" => (-6, 1),
        "m" => (-3, 1),
        "k" => (3, 1),
        "M" => (6, 1),
        "G" => (9, 1),
        "T" => (12, 1),
        "P" => (15, 1),
        "E" => (18, 1),
        "Ki" => (0, 1 << 10),
        "Mi" => (0, 1 << 20),
        "Gi" => (0, 1 << 30),
        "Ti" => (0, 1 << 40),
        "Pi" => (0, 1 << 50),
        "Ei" => (0, 1 << 60),
        exponent => {
            let digits = exponent.strip_prefix(['e', 'E'])?;
            let value: i32 = digits.parse().ok()?;
            if !(-18..=18).contains(&value) {
                return None;
            }
            (value, 1)
        }
    })
}

fn scaled(text: &str, shift: i32, unit: &'static str) -> Result<u64, QuantityError> {
    let malformed = || QuantityError::Malformed { text: text.to_owned() };
    let too_large = || QuantityError::TooLarge { text: text.to_owned(), unit };
    let number = text.strip_prefix('+').unwrap_or(text);
    let end = number.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(number.len());
    let (digits, rest) = number.split_at(end);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || digits.len() > 40 {
        return Err(malformed());
    }
    let (exponent, factor) = suffix(rest).ok_or_else(malformed)?;
    let fraction = fraction.trim_end_matches('0');
    let joined = format!("{whole}{fraction}");
    let mantissa: u128 = if joined.is_empty() { 0 } else { joined.parse().map_err(|_| too_large())? };
    let mantissa = mantissa.checked_mul(factor).ok_or_else(too_large)?;
    let fraction_digits = i32::try_from(fraction.len()).map_err(|_| malformed())?;
    let power = exponent + shift - fraction_digits;
    let ten = 10u128.checked_pow(power.unsigned_abs()).ok_or_else(too_large)?;
    let value = if power >= 0 { mantissa.checked_mul(ten).ok_or_else(too_large)? } else { mantissa.div_ceil(ten) };
    u64::try_from(value).map_err(|_| too_large())
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Wire {
            Integer(u64),
            Text(String),
        }
        Ok(match Wire::deserialize(deserializer)? {
            Wire::Integer(units) => Self::from_units(units),
            Wire::Text(text) => Self(text),
        })
    }
}

impl JsonSchema for Quantity {
    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "pattern": r"^\+?([0-9]+(\.[0-9]*)?|\.[0-9]+)([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]{1,2})?$",
            "maxLength": 32,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_what_kubernetes_writes() {
        for (text, expected_milli) in [
            ("4", 4_000),
            ("500m", 500),
            ("0.5", 500),
            (".5", 500),
            ("1e3", 1_000_000),
            ("2k", 2_000_000),
            ("1Ki", 1_024_000),
            ("100u", 1),
            ("1n", 1),
            ("0", 0),
            ("1.", 1_000),
        ] {
            assert_eq!(milli(text), Ok(expected_milli), "{text}");
        }
        assert_eq!(units("64Gi"), Ok(64 << 30));
        assert_eq!(units("1500m"), Ok(2));
        assert_eq!(units("1.5Gi"), Ok(3 << 29));
    }

    #[test]
    fn refuses_what_is_no_quantity() {
        for text in ["", "-1", "abc", "1..2", "1Kii", "1 Gi", ".", "1e99", "m"] {
            assert!(matches!(milli(text), Err(QuantityError::Malformed { .. })), "{text}");
        }
        assert!(matches!(milli("16E"), Err(QuantityError::TooLarge { .. })));
        assert!(matches!(units("99999999999999999999999999999999999999"), Err(QuantityError::TooLarge { .. })));
    }

    #[test]
    fn reads_integers_and_text() {
        let both: Vec<Quantity> = serde_json::from_str(r#"[4, "4"]"#).unwrap();
        assert_eq!(both[0], both[1]);
        assert!(serde_json::from_str::<Quantity>("-4").is_err());
        assert_eq!(Quantity::from_milli(1500).as_str(), "1500m");
        assert_eq!(Quantity::from_milli(2000).as_str(), "2");
    }
}
