//! One API call with a deadline, and the error that says which call it was.

use std::future::Future;
use std::time::Duration;

/// The usual limit of one API call. Kube-scheduler gives an extender 5 s by default, and no caller of ours waits longer.
pub const API_DEADLINE: Duration = Duration::from_secs(5);

/// An API call that did not succeed. `operation` is a verb and a noun, such as "bind Pod".
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// No answer within the limit; a write may or may not have happened.
    #[error("failed to {operation}: no answer within {limit_ms} ms")]
    TimedOut {
        /// Verb and noun.
        operation: &'static str,
        /// The limit in milliseconds.
        limit_ms: u64,
    },
    /// The server refused, or could not be reached.
    #[error("failed to {operation}")]
    Failed {
        /// Verb and noun.
        operation: &'static str,
        /// The client's error; boxed because it is large and rare.
        #[source]
        source: Box<kube::Error>,
    },
}

impl ApiError {
    /// Verb and noun of the call.
    #[must_use]
    pub fn operation(&self) -> &'static str {
        match self {
            Self::TimedOut { operation, .. } | Self::Failed { operation, .. } => operation,
        }
    }

    /// The `Status` object that the server sent, if it answered.
    #[must_use]
    pub fn status(&self) -> Option<&kube::core::Status> {
        match self {
            Self::Failed { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => Some(status),
                _ => None,
            },
            Self::TimedOut { .. } => None,
        }
    }

    /// HTTP status code, if the server answered.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        self.status().map(|status| status.code)
    }

    /// 404: the object is not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// 409: somebody else wrote first, or the object exists already.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(409)
    }

    /// 403: RBAC or a policy says no.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        self.code() == Some(403)
    }

    /// 422: the object breaks its schema, or a `test` of a JSON patch failed.
    #[must_use]
    pub fn is_invalid(&self) -> bool {
        self.code() == Some(422)
    }

    /// How long the server asks to wait, in milliseconds, before the same is asked again: it did nothing. 429, or 503 with
    /// a time to wait; a 429 that names no time (the client does not show its header) means a second, as the server's
    /// priority and fairness says.
    #[must_use]
    pub fn throttled_ms(&self) -> Option<u64> {
        let status = self.status()?;
        let told = status.details.as_ref().map_or(0, |details| u64::from(details.retry_after_seconds));
        match (status.code, told) {
            (429, 0) => Some(1_000),
            (429 | 503, seconds @ 1..) => Some(seconds * 1_000),
            _ => None,
        }
    }

    /// Whether a write may have happened although no success was seen: then the live object must be read before the
    /// next step. True for a timeout, a broken connection, an unreadable answer, and every 5xx.
    #[must_use]
    pub fn outcome_unknown(&self) -> bool {
        match self {
            Self::TimedOut { .. } => true,
            Self::Failed { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => status.code >= 500,
                kube::Error::BuildRequest(_) | kube::Error::Auth(_) => false,
                _ => true,
            },
        }
    }

    /// This error and its causes on one line, for a log field or a condition's message.
    #[must_use]
    pub fn chain(&self) -> String {
        match self {
            Self::TimedOut { .. } => self.to_string(),
            Self::Failed { source, .. } => format!("{self}: {}", told(source)),
        }
    }
}

/// A client error for a log line: the server's words where it answered (kube's own text repeats them as a debug dump).
pub(crate) fn told(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} ({} {})", status.message, status.code, status.reason),
        other => causes(other),
    }
}

/// The text of an error followed by those of its causes, a cause left out where the text before already ends with it.
#[must_use]
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

/// Carries one API call under a limit. `operation` completes the sentence "failed to …".
///
/// # Errors
/// [`ApiError::TimedOut`] after `limit`, [`ApiError::Failed`] for everything the client reports.
pub async fn deadline<T>(
    operation: &'static str,
    limit: Duration,
    call: impl Future<Output = kube::Result<T>>,
) -> Result<T, ApiError> {
    match tokio::time::timeout(limit, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(source)) => Err(ApiError::Failed { operation, source: Box::new(source) }),
        Err(_) => Err(ApiError::TimedOut { operation, limit_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: u16) -> kube::Error {
        let mut status = kube::core::Status::failure("no such thing", "NotFound");
        status.code = code;
        kube::Error::Api(Box::new(status))
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_an_error_that_names_the_call() {
        let error = deadline("read Pod", API_DEADLINE, std::future::pending::<kube::Result<()>>()).await.unwrap_err();
        assert_eq!(error.to_string(), "failed to read Pod: no answer within 5000 ms");
        assert_eq!(error.operation(), "read Pod");
        assert!(error.outcome_unknown());
        assert_eq!(error.code(), None);
    }

    #[tokio::test]
    async fn a_refusal_keeps_its_code_and_reads_as_one_line() {
        let error = deadline("read Pod", API_DEADLINE, async { Err::<(), _>(refused(404)) }).await.unwrap_err();
        assert!(error.is_not_found() && !error.is_conflict() && !error.outcome_unknown());
        assert_eq!(error.chain(), "failed to read Pod: no such thing (404 NotFound)");
    }

    #[tokio::test]
    async fn a_server_error_leaves_the_outcome_open() {
        for (code, open) in [(400, false), (409, false), (422, false), (429, false), (500, true), (504, true)] {
            let error = deadline("bind Pod", API_DEADLINE, async { Err::<(), _>(refused(code)) }).await.unwrap_err();
            assert_eq!(error.outcome_unknown(), open, "{code}");
        }
    }

    #[tokio::test]
    async fn a_server_that_asks_to_wait_says_how_long() {
        for (code, seconds, expected) in
            [(429, 0, Some(1_000)), (429, 3, Some(3_000)), (503, 2, Some(2_000)), (503, 0, None), (500, 2, None)]
        {
            let kube::Error::Api(mut status) = refused(code) else { continue };
            let details = serde_json::json!({ "retryAfterSeconds": seconds });
            status.details = Some(serde_json::from_value(details).unwrap());
            let call = async { Err::<(), _>(kube::Error::Api(status)) };
            let error = deadline("bind Pod", API_DEADLINE, call).await.unwrap_err();
            assert_eq!(error.throttled_ms(), expected, "{code} {seconds}");
        }
    }

    #[test]
    fn a_cause_that_is_already_told_is_not_told_twice() {
        let inner = std::io::Error::other("connection refused");
        let error = kube::Error::Service(Box::new(inner));
        assert_eq!(causes(&error), "ServiceError: connection refused");
    }
}
