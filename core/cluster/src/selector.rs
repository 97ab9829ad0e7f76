//! Label selectors as a text, as a Scale and the status of a WorkerPool give them.
use std::collections::{BTreeMap, BTreeSet};

/// A label selector: all of its requirements hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector(Vec<Requirement>);

/// Why a selector cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("selector {text:?}: cannot read {part:?}")]
pub struct SelectorError {
    /// The whole.
    pub text: String,
    /// The part.
    pub part: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    /// `None`: any value will do.
    values: Option<BTreeSet<String>>,
    /// The opposite is required; a label that is absent has no value.
    negated: bool,
}

impl Selector {
    /// Reads the format of `metav1.FormatLabelSelector`: `a=b,c!=d,e in (f,g),h notin (i),j,!k`. `None` for an empty text: it
    /// selects nothing, as a controller without a selector owns nothing.
    ///
    /// # Errors
    /// A part that is none of these.
    pub fn parse(text: &str) -> Result<Option<Self>, SelectorError> {
        let read = |part: &str| {
            requirement(part).ok_or_else(|| SelectorError { text: text.to_owned(), part: part.to_owned() })
        };
        let requirements: Vec<Requirement> = split(text).into_iter().map(read).collect::<Result<_, _>>()?;
        Ok((!requirements.is_empty()).then_some(Self(requirements)))
    }

    /// Whether the labels are selected.
    #[must_use]
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|requirement| {
            let held = labels.get(&requirement.key);
            let holds = match &requirement.values {
                None => held.is_some(),
                Some(values) => held.is_some_and(|value| values.contains(value)),
            };
            holds != requirement.negated
        })
    }
}

/// Splits at commas outside of parentheses.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0usize);
    for (at, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts.into_iter().map(str::trim).filter(|part| !part.is_empty()).collect()
}

fn requirement(part: &str) -> Option<Requirement> {
    let one = |value: &str| BTreeSet::from([value.to_owned()]);
    let (key, values, negated) = if let Some(key) = part.strip_prefix('!') {
        (key, None, true)
    } else if let Some((key, values)) = part.split_once(" notin ") {
        (key.trim(), Some(set(values)?), true)
    } else if let Some((key, values)) = part.split_once(" in ") {
        (key.trim(), Some(set(values)?), false)
    } else if let Some((key, value)) = part.split_once("!=") {
        (key, Some(one(value)), true)
    } else if let Some((key, value)) = part.split_once('=') {
        (key, Some(one(value.strip_prefix('=').unwrap_or(value))), false)
    } else {
        (part, None, false)
    };
    is_key(key).then(|| Requirement { key: key.to_owned(), values, negated })
}

fn set(text: &str) -> Option<BTreeSet<String>> {
    let inner = text.trim().strip_prefix('(')?.strip_suffix(')')?;
    Some(inner.split(',').map(|value| value.trim().to_owned()).collect())
}

fn is_key(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn matches(text: &str, labels: &[(&str, &str)]) -> bool {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Selector::parse(text).unwrap().is_some_and(|selector| selector.selects(&labels))
    }

    #[test]
    fn every_form_is_read() {
        let labels = [("app", "a"), ("tier", "x")];
        for text in ["app=a", "app==a", "app=a,tier in (x, y)", "tier notin (z),!gone", "app", "app!=b", "gone!=a"] {
            assert!(matches(text, &labels), "{text}");
        }
        for text in ["app=b", "tier in (y)", "!app", "gone", "app=a,tier notin (x)"] {
            assert!(!matches(text, &labels), "{text}");
        }
    }

    #[test]
    fn nothing_selects_nothing_and_nonsense_is_an_error() {
        assert!(!matches("", &[("app", "a")]));
        assert_eq!(Selector::parse("a in x").unwrap_err().part, "a in x");
        assert!(Selector::parse("=b").is_err() && Selector::parse("a b").is_err());
    }
}
