//! The label selector of a Scale, which the API gives as a text.
use kube::core::{Expression, Selector, SelectorExt};
use std::collections::{BTreeMap, BTreeSet};

/// Why a selector cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("selector {text:?}: cannot read {part:?}")]
pub struct SelectorError {
    /// The whole.
    pub text: String,
    /// The part.
    pub part: String,
}

/// Reads the format of `metav1.FormatLabelSelector`: `a=b,c!=d,e in (f,g),h notin (i),j,!k`. An empty text selects nothing,
/// as a controller without a selector owns nothing.
///
/// # Errors
/// A part that is none of these.
pub fn parse(text: &str) -> Result<Option<Selector>, SelectorError> {
    let parts = split(text);
    if parts.is_empty() {
        return Ok(None);
    }
    let expression = |part: &&str| {
        requirement(part).ok_or_else(|| SelectorError { text: text.to_owned(), part: (*part).to_owned() })
    };
    let expressions: Vec<Expression> = parts.iter().map(expression).collect::<Result<_, _>>()?;
    Ok(Some(expressions.into_iter().collect()))
}

/// Whether the labels are selected.
#[must_use]
pub fn selects(selector: Option<&Selector>, labels: &BTreeMap<String, String>) -> bool {
    selector.is_some_and(|selector| selector.matches(labels))
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

fn requirement(part: &str) -> Option<Expression> {
    let set = |text: &str| -> Option<BTreeSet<String>> {
        let inner = text.trim().strip_prefix('(')?.strip_suffix(')')?;
        Some(inner.split(',').map(|value| value.trim().to_owned()).collect())
    };
    if let Some(key) = part.strip_prefix('!') {
        return is_key(key).then(|| Expression::DoesNotExist(key.to_owned()));
    }
    if let Some((key, values)) = part.split_once(" notin ") {
        return is_key(key.trim()).then(|| set(values).map(|v| Expression::NotIn(key.trim().to_owned(), v)))?;
    }
    if let Some((key, values)) = part.split_once(" in ") {
        return is_key(key.trim()).then(|| set(values).map(|v| Expression::In(key.trim().to_owned(), v)))?;
    }
    if let Some((key, value)) = part.split_once("!=") {
        return is_key(key).then(|| Expression::NotEqual(key.to_owned(), value.to_owned()));
    }
    if let Some((key, value)) = part.split_once('=') {
        let value = value.strip_prefix('=').unwrap_or(value);
        return is_key(key).then(|| Expression::Equal(key.to_owned(), value.to_owned()));
    }
    is_key(part).then(|| Expression::Exists(part.to_owned()))
}

fn is_key(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(text: &str, labels: &[(&str, &str)]) -> bool {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        selects(parse(text).unwrap().as_ref(), &labels)
    }

    #[test]
    fn every_form_is_read() {
        let labels = [("app", "a"), ("tier", "x")];
        for text in ["app=a", "app==a", "app=a,tier in (x, y)", "tier notin (z),!gone", "app", "app!=b"] {
            assert!(matches(text, &labels), "{text}");
        }
        for text in ["app=b", "tier in (y)", "!app", "gone", "app=a,tier notin (x)"] {
            assert!(!matches(text, &labels), "{text}");
        }
    }

    #[test]
    fn nothing_selects_nothing_and_nonsense_is_an_error() {
        assert!(!matches("", &[("app", "a")]));
        assert_eq!(parse("a in x").unwrap_err().part, "a in x");
        assert!(parse("=b").is_err() && parse("a b").is_err());
    }
}
