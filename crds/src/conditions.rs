//! Conditions: built, merged with what is there, and written only when something changed.
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::json;

/// One condition as a part wants it; `lastTransitionTime` is found by [`merge`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Condition type, a constant of [`crate::keys::condition`].
    pub type_: &'static str,
    /// `Some(true)` is True, `Some(false)` False, `None` Unknown.
    pub status: Option<bool>,
    /// `CamelCase` reason.
    pub reason: String,
    /// A sentence for people; stable while the fact is the same.
    pub message: String,
}

impl Wanted {
    /// The status as the API spells it.
    #[must_use]
    pub fn status_text(&self) -> &'static str {
        match self.status {
            Some(true) => "True",
            Some(false) => "False",
            None => "Unknown",
        }
    }
}

/// Merges `wanted` into `current`: a condition whose status stays keeps its `lastTransitionTime`, conditions that are not
/// wanted are left as they are. `observed_generation` is the generation of the object that was judged.
#[must_use]
pub fn merge(current: &[Condition], wanted: &[Wanted], observed_generation: Option<i64>, now: &Time) -> Vec<Condition> {
    let mut merged = current.to_vec();
    for want in wanted {
        let status = want.status_text();
        let previous = merged.iter().position(|c| c.type_ == want.type_);
        let last_transition_time = previous
            .and_then(|i| merged.get(i))
            .filter(|c| c.status == status)
            .map_or_else(|| now.clone(), |c| c.last_transition_time.clone());
        let condition = Condition {
            type_: want.type_.to_owned(),
            status: status.to_owned(),
            reason: want.reason.clone(),
            message: want.message.clone(),
            observed_generation,
            last_transition_time,
        };
        match previous.and_then(|i| merged.get_mut(i)) {
            Some(slot) => *slot = condition,
            None => merged.push(condition),
        }
    }
    merged
}

/// Schema of a `conditions` list: a map keyed by `type`, so that server-side apply merges by type.
pub(crate) fn schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let item = generator.subschema_for::<Condition>();
    let value = json!({
        "type": "array",
        "description": "What is the case, as metav1.Condition.",
        "items": item,
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    });
    value.try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::jiff::Timestamp;

    fn at(second: i64) -> Time {
        Time(Timestamp::from_second(second).unwrap())
    }

    fn want(status: Option<bool>, reason: &str) -> Wanted {
        Wanted { type_: "Ready", status, reason: reason.into(), message: String::new() }
    }

    #[test]
    fn transition_time_moves_only_with_the_status() {
        let first = merge(&[], &[want(Some(true), "A")], Some(1), &at(10));
        assert_eq!(first[0].last_transition_time, at(10));
        let second = merge(&first, &[want(Some(true), "B")], Some(2), &at(20));
        assert_eq!(second[0].last_transition_time, at(10));
        assert_eq!((second[0].reason.as_str(), second[0].observed_generation), ("B", Some(2)));
        let third = merge(&second, &[want(None, "C")], Some(2), &at(30));
        assert_eq!((third[0].status.as_str(), &third[0].last_transition_time), ("Unknown", &at(30)));
        assert_eq!(third.len(), 1);
    }

    #[test]
    fn foreign_conditions_stay() {
        let mut current = merge(&[], &[want(Some(true), "A")], None, &at(1));
        current[0].type_ = "Foreign".into();
        let merged = merge(&current, &[want(Some(false), "B")], None, &at(2));
        assert_eq!(merged.len(), 2);
        assert_eq!(merged[0].type_, "Foreign");
    }
}
