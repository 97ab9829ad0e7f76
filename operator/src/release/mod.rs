//! Letting pods through the gate: the requests of the release protocol carried to the API, and why the others wait.
pub mod attempts;
pub mod carry;
pub mod conditions;
pub mod desk;
pub mod errand;
pub mod input;
pub mod lanes;
pub mod orphans;
pub mod patch;
pub mod refusals;

use fairlead_fairshare::protocol::Failure;
use fairlead_runtime::ApiError;

/// What an API call that did not succeed means to the protocol.
#[must_use]
pub fn failure_of(error: &ApiError) -> Failure {
    match error.code() {
        _ if error.outcome_unknown() => Failure::Lost,
        Some(404) => Failure::NotFound,
        Some(409) => Failure::Conflict,
        // The server gave up waiting for the request; whether it was done is open.
        Some(408) => Failure::Lost,
        _ => Failure::Forbidden,
    }
}

/// The server could not be reached, or broke off: an outage, and nothing that is about the object.
#[must_use]
pub fn is_away(error: &ApiError) -> bool {
    matches!(error, ApiError::Failed { .. }) && error.code().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: u16) -> ApiError {
        let mut status = kube::core::Status::failure("m", "R");
        status.code = code;
        ApiError::Failed { operation: "patch Pod", source: Box::new(kube::Error::Api(Box::new(status))) }
    }

    #[test]
    fn every_answer_has_its_meaning() {
        let cases = [
            (404, Failure::NotFound),
            (409, Failure::Conflict),
            (403, Failure::Forbidden),
            (422, Failure::Forbidden),
            (429, Failure::Forbidden),
            (408, Failure::Lost),
            (500, Failure::Lost),
            (504, Failure::Lost),
        ];
        for (code, meaning) in cases {
            assert_eq!(failure_of(&refused(code)), meaning, "{code}");
        }
        assert_eq!(failure_of(&ApiError::TimedOut { operation: "patch Pod", limit_ms: 1 }), Failure::Lost);
    }
}
