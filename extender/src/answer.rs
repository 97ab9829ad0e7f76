//! Filter and prioritize: from the bytes of a request to the bytes of its reply, as a pure function of the snapshot.
//!
//! The same snapshot and request give the same bytes (I3). Every candidate is either in `NodeNames` or named with one of
//! the fixed texts of [`Reason`] (I5): kube-scheduler counts a node that is named nowhere as beyond help by preemption.
//!
//! Scores: the topology score 0..=100 of a node becomes the protocol's 0..=10 by rounding half up,
//! `(score + 5) / 10`; nodes that come to 0 are left out, which the scheduler reads as 0.
use std::borrow::Cow;

use fairlead_cluster::{PodWish, Snapshot};
use fairlead_placement::Reason;
use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;
use serde::de::Error as _;
use serde_json::value::RawValue;

use crate::json;
use crate::wire::{NodePart, SchedulingArgs};

/// An answer, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status. kube-scheduler reads the body of a 200 only.
    pub status: u16,
    /// JSON.
    pub body: Vec<u8>,
    /// How many nodes got which verdict.
    pub tally: Tally,
}

/// Verdicts of one request, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Nodes that fit.
    pub fits: u32,
    /// Refused nodes, in the order of [`Reason::ALL`].
    pub refused: [u32; Reason::ALL.len()],
}

impl Tally {
    fn refuse(&mut self, reason: Reason) {
        if let Some(count) = Reason::ALL.iter().position(|&other| other == reason).and_then(|i| self.refused.get_mut(i))
        {
            *count += 1;
        }
    }
}

/// Why a request has no verdict.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The body is not what the verb takes.
    #[error("malformed request body: {0}")]
    Malformed(#[source] serde_json::Error),
    /// No pod.
    #[error("Pod is missing: send the pod to be placed")]
    NoPod,
    /// The pod was never stored by an API server.
    #[error("Pod.metadata.uid is empty: only a pod that the API server knows can be placed")]
    NoUid,
    /// Neither list of candidates.
    #[error("NodeNames and Nodes are both missing: send one of them")]
    NoNodes,
    /// Not everything has been listed yet: nothing may be promised (fail closed).
    #[error("{}", Reason::NotSynced.as_str())]
    NotSynced,
}

impl RequestError {
    /// HTTP status of a reply that has no `Error` field of its own.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::Malformed(_) => 400,
            Self::NoPod | Self::NoUid | Self::NoNodes => 422,
            Self::NotSynced => 503,
        }
    }
}

/// The candidates, in the order of the request.
enum Candidates<'a> {
    Names(Vec<Cow<'a, str>>),
    Objects(Vec<(Cow<'a, str>, &'a RawValue)>),
}

struct Question<'a> {
    wish: PodWish,
    candidates: Candidates<'a>,
}

/// Answers `/filter`. What is well-formed and cannot be answered gets a 200 whose `Error` the scheduler shows in the
/// pod's events; only what is no request at all gets a 4xx.
#[must_use]
pub fn filter(snapshot: &Snapshot, body: &[u8]) -> Reply {
    match question(snapshot, body) {
        Ok(question) => filter_reply(snapshot, &question, body.len()),
        Err(error) => {
            let status = if matches!(error, RequestError::Malformed(_)) { 400 } else { 200 };
            refuse(status, &error)
        }
    }
}

/// Answers `/prioritize`. Its reply has no place for an error, so everything without an answer is a 4xx or 503, which the
/// scheduler takes as "no opinion".
#[must_use]
pub fn prioritize(snapshot: &Snapshot, body: &[u8]) -> Reply {
    match question(snapshot, body) {
        Ok(question) => prioritize_reply(snapshot, &question),
        Err(error) => refuse(error.status(), &error),
    }
}

/// A reply that says only what is wrong.
#[must_use]
pub fn refuse(status: u16, error: &dyn std::fmt::Display) -> Reply {
    let mut body = b"{\"Error\":".to_vec();
    json::string(&mut body, &error.to_string());
    body.push(b'}');
    Reply { status, body, tally: Tally::default() }
}

fn question<'a>(snapshot: &Snapshot, body: &'a [u8]) -> Result<Question<'a>, RequestError> {
    let args: SchedulingArgs<'a> = object(body)?;
    let candidates = match (args.node_names, args.nodes) {
        (Some(names), _) => Candidates::Names(names.into_iter().map(|name| name.0).collect()),
        (None, Some(list)) => Candidates::Objects(objects(list.items.unwrap_or_default())?),
        (None, None) => return Err(RequestError::NoNodes),
    };
    let pod = Pod::from(args.pod.ok_or(RequestError::NoPod)?);
    if pod.metadata.uid.as_deref().unwrap_or_default().is_empty() {
        return Err(RequestError::NoUid);
    }
    if !snapshot.synced {
        return Err(RequestError::NotSynced);
    }
    Ok(Question { wish: snapshot.wish_of(&pod), candidates })
}

/// Reads a JSON object. An array, which serde would take for a struct as well, is none.
///
/// # Errors
/// [`RequestError::Malformed`].
pub fn object<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, RequestError> {
    if body.iter().find(|byte| !byte.is_ascii_whitespace()).is_some_and(|&first| first != b'{') {
        return Err(RequestError::Malformed(serde_json::Error::custom("not a JSON object")));
    }
    serde_json::from_slice(body).map_err(RequestError::Malformed)
}

fn objects(items: Vec<&RawValue>) -> Result<Vec<(Cow<'_, str>, &RawValue)>, RequestError> {
    let mut named = Vec::with_capacity(items.len());
    for item in items {
        let node: NodePart<'_> = serde_json::from_str(item.get()).map_err(RequestError::Malformed)?;
        named.push((node.metadata.name, item));
    }
    Ok(named)
}

fn filter_reply(snapshot: &Snapshot, question: &Question<'_>, size_hint: usize) -> Reply {
    let wish = &question.wish;
    let for_all = snapshot.backstop(wish);
    let mut tally = Tally::default();
    let mut body = Vec::with_capacity(size_hint.saturating_add(128));
    let mut failed = json::Map::default();
    let mut unresolvable = json::Map::default();
    let mut judge = |name: &str| {
        let refusal = for_all.or_else(|| verdict(snapshot, name, wish).err());
        if let Some(reason) = refusal {
            tally.refuse(reason);
            let map = if reason.unresolvable() { &mut unresolvable } else { &mut failed };
            map.entry(name, reason.as_str());
        } else {
            tally.fits += 1;
        }
        refusal.is_none()
    };
    let mut names = json::Array::open(&mut body, "{\"NodeNames\":[");
    match &question.candidates {
        Candidates::Names(all) => {
            for name in all {
                if judge(name) {
                    names.string(name);
                }
            }
            body.extend_from_slice(b"],\"Nodes\":null");
        }
        Candidates::Objects(all) => {
            let fitting: Vec<_> = all.iter().filter(|(name, _)| judge(name)).collect();
            for (name, _) in &fitting {
                names.string(name);
            }
            let mut items = json::Array::open(&mut body, "],\"Nodes\":{\"metadata\":{},\"items\":[");
            for (_, object) in &fitting {
                items.raw(object.get());
            }
            body.extend_from_slice(b"]}");
        }
    }
    body.extend_from_slice(b",\"FailedNodes\":");
    failed.write(&mut body);
    body.extend_from_slice(b",\"FailedAndUnresolvableNodes\":");
    unresolvable.write(&mut body);
    body.extend_from_slice(b",\"Error\":\"\"}");
    Reply { status: 200, body, tally }
}

fn prioritize_reply(snapshot: &Snapshot, question: &Question<'_>) -> Reply {
    let mut tally = Tally::default();
    let mut body = Vec::with_capacity(1024);
    let mut list = json::Array::open(&mut body, "[");
    let mut score = |name: &str| match verdict(snapshot, name, &question.wish) {
        Ok(points) => {
            tally.fits += 1;
            if points > 0 {
                list.host_score(name, points);
            }
        }
        Err(reason) => tally.refuse(reason),
    };
    match &question.candidates {
        Candidates::Names(all) => all.iter().for_each(|name| score(name)),
        Candidates::Objects(all) => all.iter().for_each(|(name, _)| score(name)),
    }
    body.push(b']');
    Reply { status: 200, body, tally }
}

/// Points 0..=10 of a node for the pod, or why it cannot take it.
fn verdict(snapshot: &Snapshot, name: &str, wish: &PodWish) -> Result<u8, Reason> {
    let node = snapshot.index_of(name).ok_or(Reason::NodeUnknown)?;
    snapshot.judge(node, wish).map(|score| points(score.alignment))
}

/// The protocol's 0..=10 of a topology score 0..=100, rounded half up.
#[must_use]
pub fn points(score: u8) -> u8 {
    (score.min(100) + 5) / 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_round_half_up_and_stay_in_the_protocols_range() {
        let of = |score| points(score);
        assert_eq!([of(0), of(4), of(5), of(14), of(15), of(95), of(100), of(255)], [0, 0, 1, 1, 2, 10, 10, 10]);
    }

    #[test]
    fn a_refusal_is_json_whatever_the_text() {
        let reply = refuse(200, &"a \"quoted\"\nline");
        assert_eq!(reply.body, br#"{"Error":"a \"quoted\"\nline"}"#);
    }
}
