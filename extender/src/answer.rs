//! Filter and prioritize: from the bytes of a request to the bytes of its reply, as a pure function of the snapshot.
//!
//! The same snapshot and request give the same bytes (I3). Every candidate is either in `NodeNames` or named with one of
//! the fixed texts of [`Reason`] (I5): kube-scheduler counts a node that is named nowhere as beyond help by preemption.
//!
//! Scores: the two terms of a node's topology score, weighed by the fair share of the pod's tenant to 0..=100, become the protocol's 0..=10 by rounding half up,
//! `(score + 5) / 10`; nodes that come to 0 are left out, which the scheduler reads as 0.
use std::borrow::Cow;
use std::cmp::Reverse;
use std::hash::BuildHasher;

use fairlead_cluster::{Mode, PodWish, Snapshot};
use fairlead_placement::Reason;
use foldhash::fast::FixedState;
use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;
use serde::de::Error as _;
use serde_json::value::RawValue;

use crate::json;
use crate::scan;
use crate::wire::{NodePart, PodPart, SchedulingArgs};

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
        if let Some(count) = self.refused.get_mut(reason.index()) {
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
    /// Names with their quotes, without escapes.
    Scanned(Vec<&'a str>),
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
        Ok(question) => filter_reply(snapshot, &question),
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
    let (pod, candidates) = match scan::request(body) {
        Some(scanned) => (scanned.pod, Candidates::Scanned(scanned.names)),
        None => general(body)?,
    };
    let pod = Pod::from(pod);
    if pod.metadata.uid.as_deref().unwrap_or_default().is_empty() {
        return Err(RequestError::NoUid);
    }
    if !snapshot.synced {
        return Err(RequestError::NotSynced);
    }
    Ok(Question { wish: snapshot.wish_of(&pod), candidates })
}

/// A request of any form.
fn general(body: &[u8]) -> Result<(PodPart, Candidates<'_>), RequestError> {
    let args: SchedulingArgs<'_> = object(body)?;
    let candidates = match (args.node_names, args.nodes) {
        (Some(names), _) => Candidates::Names(names.into_iter().map(|name| name.0).collect()),
        (None, Some(list)) => Candidates::Objects(objects(list.items.unwrap_or_default())?),
        (None, None) => return Err(RequestError::NoNodes),
    };
    Ok((args.pod.ok_or(RequestError::NoPod)?, candidates))
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

fn filter_reply(snapshot: &Snapshot, question: &Question<'_>) -> Reply {
    let bench = Bench::sit(snapshot, question);
    if let Some(chosen) = bench.decided() {
        return bench.only(chosen);
    }
    let mut body = Vec::with_capacity(bench.reply_bytes());
    bench.names(&mut body, |verdict| verdict.refusal.is_none());
    bench.objects(&mut body, |verdict| verdict.refusal.is_none());
    body.extend_from_slice(b",\"FailedNodes\":{");
    bench.refused(&mut body, |reason| !reason.unresolvable());
    body.extend_from_slice(b"},\"FailedAndUnresolvableNodes\":{");
    bench.refused(&mut body, Reason::unresolvable);
    body.extend_from_slice(b"},\"Error\":\"\"}");
    Reply { status: 200, body, tally: bench.tally }
}

fn prioritize_reply(snapshot: &Snapshot, question: &Question<'_>) -> Reply {
    let bench = Bench::sit(snapshot, question);
    let mut body = Vec::with_capacity(bench.scores_bytes());
    body.push(b'[');
    let mut first = true;
    for (at, verdict) in bench.verdicts.iter().enumerate() {
        let Some(score) = SCORES.get(usize::from(points(verdict.score))).filter(|text| !text.is_empty()) else {
            continue;
        };
        body.extend_from_slice(if std::mem::take(&mut first) { b"{\"Host\":" } else { b",{\"Host\":" });
        bench.quoted(&mut body, at);
        body.extend_from_slice(score.as_bytes());
    }
    body.push(b']');
    Reply { status: 200, body, tally: bench.tally }
}

/// What follows a name in the reply, by points; nothing for 0, which is left out.
const SCORES: [&str; 11] = [
    "",
    ",\"Score\":1}",
    ",\"Score\":2}",
    ",\"Score\":3}",
    ",\"Score\":4}",
    ",\"Score\":5}",
    ",\"Score\":6}",
    ",\"Score\":7}",
    ",\"Score\":8}",
    ",\"Score\":9}",
    ",\"Score\":10}",
];

/// The verdict on one candidate.
#[derive(Clone, Copy)]
struct Verdict {
    /// Weighed score, 0 to 100; 0 for one that is refused.
    score: u8,
    refusal: Option<Reason>,
}

/// All candidates of one question, judged in the order of the request. What is written of them comes afterwards, when its
/// length is known: no candidate costs an allocation.
struct Bench<'a> {
    question: &'a Question<'a>,
    verdicts: Vec<Verdict>,
    tally: Tally,
}

impl<'a> Bench<'a> {
    fn sit(snapshot: &Snapshot, question: &'a Question<'a>) -> Self {
        let wish = &question.wish;
        let judge = snapshot.judge_of(wish);
        let for_all = snapshot.backstop(wish);
        let weighing = snapshot.weighing(wish);
        let mut tally = Tally::default();
        let verdict = |node: Option<u32>| {
            let judged = match (for_all, node) {
                (Some(reason), _) => Err(reason),
                (None, None) => Err(Reason::NodeUnknown),
                (None, Some(index)) => judge.of(index),
            };
            match judged {
                Ok(score) => {
                    tally.fits += 1;
                    Verdict { score: weighing.points(score), refusal: None }
                }
                Err(reason) => {
                    tally.refuse(reason);
                    Verdict { score: 0, refusal: Some(reason) }
                }
            }
        };
        let nodes = match &question.candidates {
            Candidates::Scanned(all) => snapshot.indices_of(all.iter().map(|token| bare(token))),
            Candidates::Names(all) => snapshot.indices_of(all.iter().map(|name| &**name)),
            Candidates::Objects(all) => snapshot.indices_of(all.iter().map(|(name, _)| &**name)),
        };
        let verdicts = nodes.into_iter().map(verdict).collect();
        Self { question, verdicts, tally }
    }

    fn name(&self, at: usize) -> &str {
        match &self.question.candidates {
            Candidates::Scanned(all) => all.get(at).map(|token| bare(token)),
            Candidates::Names(all) => all.get(at).map(|name| &**name),
            Candidates::Objects(all) => all.get(at).map(|(name, _)| &**name),
        }
        .unwrap_or_default()
    }

    /// The one node that a pod in decide mode gets: the best score, then the least hash of pod and node, so that pods asked
    /// about at one time do not all choose alike, then the first by name. A pod without CPUs of its own is not decided
    /// for: we have no opinion where it goes.
    fn decided(&self) -> Option<usize> {
        let wish = &self.question.wish;
        if wish.wish.mode.value != Mode::Decide || wish.exclusive.is_none() {
            return None;
        }
        let spread = FixedState::default();
        let fitting = self.verdicts.iter().enumerate().filter(|(_, verdict)| verdict.refusal.is_none());
        let best = fitting.min_by_key(|(at, verdict)| {
            let name = self.name(*at);
            (Reverse(verdict.score), spread.hash_one((wish.id.uid.as_str(), name)), name)
        });
        best.map(|(at, _)| at)
    }

    /// The reply that names one node and no other: kube-scheduler asks nothing further of the rest as long as this one
    /// stays feasible, and reads a short reply quickly.
    fn only(&self, chosen: usize) -> Reply {
        let mut body = Vec::with_capacity(256);
        let mut names = json::Array::open(&mut body, "{\"NodeNames\":[");
        names.string(self.name(chosen));
        match &self.question.candidates {
            Candidates::Scanned(_) | Candidates::Names(_) => body.extend_from_slice(b"],\"Nodes\":null"),
            Candidates::Objects(all) => {
                let mut items = json::Array::open(&mut body, "],\"Nodes\":{\"metadata\":{},\"items\":[");
                all.get(chosen).into_iter().for_each(|(_, object)| items.raw(object.get()));
                body.extend_from_slice(b"]}");
            }
        }
        body.extend_from_slice(b",\"FailedNodes\":{},\"FailedAndUnresolvableNodes\":{},\"Error\":\"\"}");
        Reply { status: 200, body, tally: self.tally }
    }

    /// What a reply with all scores takes, a little more rather than less.
    fn scores_bytes(&self) -> usize {
        let fitting = self.verdicts.iter().enumerate().filter(|(_, verdict)| points(verdict.score) > 0);
        fitting.map(|(at, _)| self.name(at).len() + 24).sum::<usize>() + 2
    }

    /// What a full reply takes, a little more rather than less.
    fn reply_bytes(&self) -> usize {
        let refused = Reason::ALL.iter().zip(self.tally.refused);
        let texts: usize = refused.map(|(reason, count)| count as usize * (reason.as_str().len() + 4)).sum();
        let names: usize = match &self.question.candidates {
            Candidates::Scanned(all) => all.iter().map(|token| token.len() + 2).sum(),
            Candidates::Names(all) => all.iter().map(|name| name.len() + 4).sum(),
            Candidates::Objects(all) => all.iter().map(|(name, object)| 2 * name.len() + object.get().len() + 8).sum(),
        };
        texts + names + 256
    }

    fn names(&self, body: &mut Vec<u8>, wanted: impl Fn(&Verdict) -> bool) {
        body.extend_from_slice(b"{\"NodeNames\":[");
        let mut first = true;
        for (at, _) in self.verdicts.iter().enumerate().filter(|(_, verdict)| wanted(verdict)) {
            if !std::mem::take(&mut first) {
                body.push(b',');
            }
            self.quoted(body, at);
        }
        body.push(b']');
    }

    fn objects(&self, body: &mut Vec<u8>, wanted: impl Fn(&Verdict) -> bool) {
        let Candidates::Objects(all) = &self.question.candidates else {
            return body.extend_from_slice(b",\"Nodes\":null");
        };
        let mut items = json::Array::open(body, ",\"Nodes\":{\"metadata\":{},\"items\":[");
        let fitting = all.iter().zip(&self.verdicts).filter(|(_, verdict)| wanted(verdict));
        fitting.for_each(|((_, object), _)| items.raw(object.get()));
        body.extend_from_slice(b"]}");
    }

    fn refused(&self, body: &mut Vec<u8>, wanted: impl Fn(Reason) -> bool) {
        let counted = Reason::ALL.iter().zip(self.tally.refused);
        if counted.filter(|(reason, _)| wanted(**reason)).all(|(_, count)| count == 0) {
            return;
        }
        let mut first = true;
        for (at, verdict) in self.verdicts.iter().enumerate() {
            let Some(reason) = verdict.refusal.filter(|reason| wanted(*reason)) else { continue };
            if !std::mem::take(&mut first) {
                body.push(b',');
            }
            self.quoted(body, at);
            // The texts are ours and need no escapes.
            body.extend_from_slice(b":\"");
            body.extend_from_slice(reason.as_str().as_bytes());
            body.push(b'"');
        }
    }

    fn quoted(&self, body: &mut Vec<u8>, at: usize) {
        match &self.question.candidates {
            Candidates::Scanned(all) => body.extend_from_slice(all.get(at).copied().unwrap_or_default().as_bytes()),
            Candidates::Names(_) | Candidates::Objects(_) => json::string(body, self.name(at)),
        }
    }
}

/// A name without its quotes.
fn bare(token: &str) -> &str {
    token.get(1..token.len().saturating_sub(1)).unwrap_or_default()
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
