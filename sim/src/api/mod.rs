//! A fake API server as a value: requests in, answers out, nothing else; with the semantics that bugs need.
//!
//! What it knows: pods, their bindings, nodes and NodePlacements. It is held to the genuine one by
//! [`crate::conformance`]. Faults are asked for ([`Server::fail_next`]) and happen to the next write.
mod patch;
mod pods;
mod store;

pub use store::Server;

use serde_json::{Value, json};

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// GET of one object.
    Get,
    /// GET of a collection.
    List,
    /// GET of a collection's changes, until nothing more comes for a moment.
    Watch,
    /// POST.
    Create,
    /// PATCH with `application/json-patch+json`.
    JsonPatch,
    /// PATCH with `application/merge-patch+json`.
    MergePatch,
    /// DELETE.
    Delete,
}

/// One request, as it goes over the wire.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// What is done.
    pub verb: Verb,
    /// The path, without query.
    pub path: String,
    /// The query, encoded.
    pub query: String,
    /// The body, [`Value::Null`] for none.
    pub body: Value,
}

/// The answer to one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Answer {
    /// HTTP status.
    pub code: u16,
    /// The object, the list, a Status; of a watch an array of its events.
    pub body: Value,
}

impl Answer {
    fn ok(body: Value) -> Self {
        Self { code: 200, body }
    }
}

/// What goes wrong with the next write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// It is done, and the answer is a 500.
    AnswerLost,
    /// It is not done, and the answer is a 429.
    Throttled,
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such object.
    #[error("{0} not found")]
    NotFound(String),
    /// There is one of that name.
    #[error("{0} already exists")]
    AlreadyExists(String),
    /// A precondition does not hold.
    #[error("operation cannot be fulfilled: {0}")]
    Conflict(String),
    /// The JSON patch cannot be applied: a bare message without causes.
    #[error("the server rejected our request due to an error in our request")]
    Unprocessable,
    /// The object would be no valid one.
    #[error("{field}: {message}")]
    Invalid {
        /// Which field.
        field: &'static str,
        /// What is wrong.
        message: String,
    },
    /// The version is older than what is kept.
    #[error("too old resource version")]
    Expired,
    /// Not offered.
    #[error("{0} is not offered")]
    NotOffered(String),
    /// Too many requests.
    #[error("too many requests, please try again later")]
    Throttled,
    /// It was done all the same.
    #[error("connection lost")]
    AnswerLost,
}

impl Refusal {
    fn code_and_reason(&self) -> (u16, &'static str) {
        match self {
            Self::NotFound(_) => (404, "NotFound"),
            Self::AlreadyExists(_) => (409, "AlreadyExists"),
            Self::Conflict(_) => (409, "Conflict"),
            Self::Unprocessable | Self::Invalid { .. } => (422, "Invalid"),
            Self::Expired => (410, "Expired"),
            Self::NotOffered(_) => (405, "MethodNotAllowed"),
            Self::Throttled => (429, "TooManyRequests"),
            Self::AnswerLost => (500, "InternalError"),
        }
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        let (code, reason) = refusal.code_and_reason();
        let mut body = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": refusal.to_string(), "reason": reason, "code": code,
        });
        if let Refusal::Invalid { field, message } = &refusal {
            body["details"] = json!({ "causes": [{ "field": field, "message": message }] });
        }
        Self { code, body }
    }
}
